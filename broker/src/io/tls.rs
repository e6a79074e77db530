//! Who is at the other end: mutual TLS 1.3, and the role that a certificate may play.
//!
//! A broker has one socket and one certificate, and two kinds of callers. ALPN says what a caller wants to be, the
//! certificate says what it may be:
//!
//! ```text
//! ALPN              leaf chains to     and                                         may
//! sequor-client/1   the clients' CA                                                append, tail, ask
//! sequor-peer/1     the peers' CA      its SHA-256 is a member's in the genesis    speak Raft as that member
//! ```
//!
//! TLS chooses its verifier before it knows the ALPN, so the handshake admits a leaf of either authority and
//! [`Tls::role`] judges afterwards, against the authority of the one role. Until it has said yes, nothing that the
//! caller sent is looked at. A link that this broker opens is judged the same way: the name `broker-<id>.sequor` in the
//! handshake, the member's own certificate after it.
//!
//! No session is ever resumed and no early data is ever taken: early data can be replayed, and a resumed session
//! would carry a verdict of the past.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sequor_client::protocol::{ALPN_CLIENT, ALPN_PEER, BrokerId};
use thiserror::Error;

use crate::{config::TlsFiles, core::genesis::Member};

/// SHA-256 of a certificate in DER form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// What a connection may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Append, tail, ask.
    Client,
    /// Speak Raft as this member.
    Peer(BrokerId),
}

/// The certificates of one broker, and its judgement of those of others.
///
/// Invariants: the own certificate is the one the genesis names for the own id; both configurations speak TLS 1.3
/// alone, resume nothing and take no early data.
#[derive(Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    outgoing: Arc<ClientConfig>,
    clients: Arc<dyn ClientCertVerifier>,
    peers: Arc<dyn ClientCertVerifier>,
    members: BTreeMap<BrokerId, Fingerprint>,
}

/// Certificates and key, as they come out of their files.
#[derive(Debug)]
pub struct Material {
    /// Who signs brokers.
    pub ca_peers: Vec<CertificateDer<'static>>,
    /// Who signs clients.
    pub ca_clients: Vec<CertificateDer<'static>>,
    /// This broker's certificate, then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of that certificate.
    pub key: PrivateKeyDer<'static>,
}

/// Why a broker cannot begin to speak TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is not there, or is not PEM.
    #[error("cannot read {what} from {}", .path.display())]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// A file of certificates holds none.
    #[error("{} holds no certificate", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// rustls refuses what was read: a key that does not fit, a certificate that is none.
    #[error("the certificates cannot be used: {what}")]
    Refused {
        /// Which of them.
        what: &'static str,
        /// What rustls says.
        source: rustls::Error,
    },
    /// An authority from which no verifier can be made.
    #[error("the authority in `{key}` cannot verify certificates")]
    Authority {
        /// The configuration key that names it.
        key: &'static str,
        /// What rustls says.
        source: rustls::server::VerifierBuilderError,
    },
    /// The certificate belongs to another broker, or to nobody.
    #[error(
        "`data` and `tls.cert` do not belong together: the data directory is that of broker {broker}, whose certificate is \
         {expected}, and the file holds {found}. One of the two is another broker's or another cluster's"
    )]
    NotOurs {
        /// This broker.
        broker: BrokerId,
        /// What the genesis says.
        expected: Fingerprint,
        /// What the file holds.
        found: Fingerprint,
    },
    /// The genesis does not list this broker.
    #[error("broker {broker} is not a member of its cluster")]
    NotAMember {
        /// This broker.
        broker: BrokerId,
    },
}

/// Why a connection may not be what it asked to be.
#[derive(Debug, Error)]
pub enum WrongRole {
    /// It agreed on no protocol that a broker knows.
    #[error("neither a client's nor a peer's protocol was agreed on")]
    NoProtocol,
    /// It showed no certificate.
    #[error("no certificate was shown")]
    NoCertificate,
    /// It asks to be a client, with a certificate that the clients' authority did not sign.
    #[error("not a client's certificate, signed by the authority in `tls.ca_clients`: {fingerprint}")]
    NotAClient {
        /// The certificate.
        fingerprint: Fingerprint,
        /// What the verifier says.
        source: rustls::Error,
    },
    /// It asks to be a peer, with a certificate that the peers' authority did not sign.
    #[error("not a broker's certificate, signed by the authority in `tls.ca_peers`: {fingerprint}")]
    NotAPeer {
        /// The certificate.
        fingerprint: Fingerprint,
        /// What the verifier says.
        source: rustls::Error,
    },
    /// A broker's certificate, but of no member.
    #[error("a broker's certificate that belongs to no member: {fingerprint}")]
    NotAMember {
        /// The certificate.
        fingerprint: Fingerprint,
    },
    /// A member's certificate, but another's.
    #[error("the certificate of broker {found} where broker {expected} was expected")]
    OtherBroker {
        /// Who was called.
        expected: BrokerId,
        /// Who answered.
        found: BrokerId,
    },
}

impl Material {
    /// Reads the four files.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] or [`TlsError::Empty`], with the file's name.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            ca_peers: certificates("the peers' authority", &files.ca_peers)?,
            ca_clients: certificates("the clients' authority", &files.ca_clients)?,
            chain: certificates("this broker's certificate", &files.cert)?,
            key: PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Pem {
                what: "this broker's private key",
                path: files.key.clone(),
                source,
            })?,
        })
    }
}

impl Tls {
    /// Makes both sides' configuration for the broker `own`, and checks that the certificate is its own.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn new(material: Material, own: BrokerId, members: &[Member]) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let members: BTreeMap<_, _> = members.iter().map(|m| (m.id, Fingerprint(m.certificate))).collect();
        let expected = *members.get(&own).ok_or(TlsError::NotAMember { broker: own })?;
        let found = material.chain.first().map_or(Fingerprint([0; 32]), Fingerprint::of);
        if found != expected {
            return Err(TlsError::NotOurs { broker: own, expected, found });
        }
        let peer_roots = roots(&material.ca_peers)?;
        let client_roots = roots(&material.ca_clients)?;
        let mut all_roots = peer_roots.clone();
        all_roots.extend(client_roots.roots.iter().cloned());
        let either = verifier("tls.ca_peers and tls.ca_clients", all_roots, &provider)?;
        Ok(Self {
            server: server_config(&material, either, &provider)?,
            outgoing: outgoing_config(material, peer_roots.clone(), &provider)?,
            clients: verifier("tls.ca_clients", client_roots, &provider)?,
            peers: verifier("tls.ca_peers", peer_roots, &provider)?,
            members,
        })
    }

    /// For the socket: how callers are received.
    #[must_use]
    pub fn server(&self) -> Arc<QuicServerConfig> {
        let config = QuicServerConfig::try_from(Arc::clone(&self.server));
        Arc::new(config.expect("ring has the suite that QUIC begins with"))
    }

    /// For the links that this broker opens to its peers.
    #[must_use]
    pub fn outgoing(&self) -> Arc<QuicClientConfig> {
        let config = QuicClientConfig::try_from(Arc::clone(&self.outgoing));
        Arc::new(config.expect("ring has the suite that QUIC begins with"))
    }

    /// Judges a caller whose handshake is done: `alpn` is what was agreed on, `chain` what it showed.
    ///
    /// # Errors
    ///
    /// See [`WrongRole`]. The connection has to be closed.
    pub fn role(&self, alpn: Option<&[u8]>, chain: &[CertificateDer<'_>]) -> Result<Role, WrongRole> {
        let (leaf, intermediates) = chain.split_first().ok_or(WrongRole::NoCertificate)?;
        let fingerprint = Fingerprint::of(leaf);
        match alpn {
            Some(ALPN_CLIENT) => {
                match self.clients.verify_client_cert(leaf, intermediates, UnixTime::now()) {
                    Ok(_) => Ok(Role::Client),
                    Err(source) => Err(WrongRole::NotAClient { fingerprint, source }),
                }
            }
            Some(ALPN_PEER) => match self.peers.verify_client_cert(leaf, intermediates, UnixTime::now()) {
                Ok(_) => self.member(fingerprint).map(Role::Peer),
                Err(source) => Err(WrongRole::NotAPeer { fingerprint, source }),
            },
            _ => Err(WrongRole::NoProtocol),
        }
    }

    /// Judges the broker that answered a link to `expected`. The handshake has verified its authority and its name.
    ///
    /// # Errors
    ///
    /// See [`WrongRole`]. The connection has to be closed.
    pub fn check_peer(&self, expected: BrokerId, chain: &[CertificateDer<'_>]) -> Result<(), WrongRole> {
        let leaf = chain.first().ok_or(WrongRole::NoCertificate)?;
        let found = self.member(Fingerprint::of(leaf))?;
        if found == expected { Ok(()) } else { Err(WrongRole::OtherBroker { expected, found }) }
    }

    fn member(&self, fingerprint: Fingerprint) -> Result<BrokerId, WrongRole> {
        let found = self.members.iter().find(|(_, known)| **known == fingerprint);
        found.map(|(id, _)| *id).ok_or(WrongRole::NotAMember { fingerprint })
    }
}

impl Fingerprint {
    /// Of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
        let digest = suite.common.hash_provider.hash(certificate);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name under which a broker's certificate is verified.
#[must_use]
pub fn server_name(broker: BrokerId) -> String {
    format!("broker-{broker}.sequor")
}

/// The certificates that a connection's other end showed, leaf first. Empty if it showed none.
#[must_use]
pub fn chain_of(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let identity =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    identity.map_or_else(Vec::new, |chain| *chain)
}

/// The protocol that a connection agreed on.
#[must_use]
pub fn protocol_of(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    data.protocol
}

fn server_config(
    material: &Material,
    verifier: Arc<dyn ClientCertVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let refused = |source| TlsError::Refused { what: "`tls.cert` and `tls.key`", source };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain.clone(), material.key.clone_key())
        .map_err(refused)?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_CLIENT.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn outgoing_config(
    material: Material,
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let refused = |source| TlsError::Refused { what: "`tls.cert` and `tls.key`", source };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_root_certificates(roots)
        .with_client_auth_cert(material.chain, material.key)
        .map_err(refused)?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

fn verifier(
    key: &'static str,
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|source| TlsError::Authority { key, source })
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        let refused = |source| TlsError::Refused { what: "a certificate of an authority", source };
        store.add(certificate.clone()).map_err(refused)?;
    }
    Ok(store)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { what, path: path.to_path_buf(), source };
    let found =
        CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() { Err(TlsError::Empty { path: path.to_path_buf() }) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
