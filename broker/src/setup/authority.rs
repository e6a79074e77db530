//! A certificate authority of a cluster: who it certifies, and under which names.
//!
//! A cluster has two. The one for **peers** signs brokers; the one for **clients** signs clients. So no client's
//! certificate, however it leaked, can ever pass for a broker. A broker has one certificate, which it shows to its
//! peers, whichever of the two connected, and to its clients.
//!
//! | certificate | signed by | names | use |
//! |---|---|---|---|
//! | broker | peers | `broker-<id>.sequor`, `<cluster>.cluster.sequor` | server and client |
//! | client | clients | `client.<cluster>.cluster.sequor` | client |
//!
//! Certificates do not expire by date: an outage on a date that nobody remembers is worse than what it would
//! prevent here, where membership names each broker's certificate by its digest.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use sequor_client::protocol::{BrokerId, ClusterId};

use crate::io::tls::{Fingerprint, server_name};

/// Signs certificates of one kind, for one cluster.
#[derive(Debug)]
pub(crate) struct Authority {
    cluster: ClusterId,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key.
pub(crate) struct Certified {
    pub(crate) certificate: Certificate,
    pub(crate) key: KeyPair,
}

impl Authority {
    /// The authority that signs brokers.
    pub(crate) fn peers(cluster: ClusterId) -> Result<Self, rcgen::Error> {
        Self::new(cluster, "peers")
    }

    /// The authority that signs clients.
    pub(crate) fn clients(cluster: ClusterId) -> Result<Self, rcgen::Error> {
        Self::new(cluster, "clients")
    }

    fn new(cluster: ClusterId, kind: &str) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(cluster, &format!("sequor {kind} authority"));
        // It signs leaves and no further authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { cluster, issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its own certificate.
    #[cfg(test)]
    pub(crate) fn certificate(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The same, as PEM.
    pub(crate) fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its private key, as PEM: whoever has it can add brokers or clients.
    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Certifies a broker.
    pub(crate) fn certify_broker(&self, id: BrokerId) -> Result<Certified, rcgen::Error> {
        let names = [server_name(id), format!("{}.cluster.sequor", self.cluster)];
        let uses = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.certify(&self.leaf(&format!("sequor broker {id}"), &names, &uses)?)
    }

    /// Certifies a client.
    pub(crate) fn certify_client(&self) -> Result<Certified, rcgen::Error> {
        self.certify(&self.client()?)
    }

    /// Certifies a client until the first day of a year.
    #[cfg(test)]
    pub(crate) fn certify_client_until(&self, year: i32) -> Result<Certified, rcgen::Error> {
        let mut params = self.client()?;
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.certify(&params)
    }

    fn client(&self) -> Result<CertificateParams, rcgen::Error> {
        let names = [format!("client.{}.cluster.sequor", self.cluster)];
        self.leaf("sequor client", &names, &[ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn leaf(
        &self,
        common_name: &str,
        names: &[String],
        uses: &[ExtendedKeyUsagePurpose],
    ) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name(self.cluster, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = uses.to_vec();
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn certify(&self, params: &CertificateParams) -> Result<Certified, rcgen::Error> {
        let key = KeyPair::generate()?;
        Ok(Certified { certificate: params.signed_by(&key, &self.issuer)?, key })
    }
}

impl Certified {
    /// The certificate, as PEM.
    pub(crate) fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its private key, as PEM. To be kept from other users.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// What stands for the certificate in the genesis.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.certificate.der())
    }
}

/// A subject that says which cluster it belongs to: two clusters' authorities must not look alike.
fn name(cluster: ClusterId, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, format!("sequor cluster {cluster}"));
    name.push(DnType::CommonName, common_name);
    name
}
