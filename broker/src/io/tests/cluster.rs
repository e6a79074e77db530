//! A cluster for tests that speaks to it in the bare protocol, in good and in bad faith.

use std::{fs, ops::Deref, path::PathBuf, sync::Arc};

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use sequor_client::{
    protocol::{ALPN_CLIENT, ALPN_PEER, BrokerId, ClusterId, Incarnation, Lineage},
    transport::{self, Profile},
};
use sequor_wal::{Checkpoint, Identity, disk::mmap::MmapDisk};

use super::raw_client::{RawClient, closed_with};
use crate::{
    core::{PEER_VERSION, PeerHello, genesis::Genesis},
    io::{peer_stream::framed, tls::server_name},
    setup::{authority::Authority, data},
    testing,
};

/// An embedded cluster, and a socket of its tester.
pub(super) struct Cluster {
    embedded: testing::Cluster,
    endpoint: Endpoint,
}

/// What somebody shows of himself.
struct Shown {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Deref for Cluster {
    type Target = testing::Cluster;

    fn deref(&self) -> &testing::Cluster {
        &self.embedded
    }
}

impl Cluster {
    pub(super) async fn start(brokers: u64) -> Self {
        let embedded = testing::Cluster::start(brokers).await.unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let socket = transport::socket(any).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            Endpoint::new(transport::endpoint_config(transport::MTU), None, socket, runtime).unwrap();
        Self { embedded, endpoint }
    }

    pub(super) async fn stop(self) {
        self.embedded.stop().await.unwrap();
    }

    /// Empties the data directory of a broker that is down and makes it anew, as for one that was never started. Gives
    /// the cluster's lineage.
    pub(super) fn wipe(&self, id: BrokerId) -> Lineage {
        let data = self.path(&format!("broker-{id}"));
        let (identity, genesis) = {
            let disk = MmapDisk::open(&data).unwrap();
            let sections = Checkpoint::load_latest(&disk).unwrap().unwrap().sections;
            let sections = sections.iter().map(|section| (section.id, &section.content[..]));
            (Identity::load(&disk).unwrap(), Genesis::decode(sections).unwrap())
        };
        fs::remove_dir_all(&data).unwrap();
        data::create(&data, &Identity { incarnation: None, ..identity.clone() }, &genesis).unwrap();
        Lineage(identity.lineage)
    }

    /// Waits until every broker has everything that the leader has committed.
    pub(super) async fn wait_until_all_follow(&self, leader: BrokerId) {
        let count = self.brokers().len();
        let followed = self.wait_until("all to have what the leader has", |statuses| {
            let committed = statuses[&leader].commit;
            statuses.values().filter(|status| status.commit >= committed).count() == count
        });
        followed.await.unwrap();
    }

    pub(super) async fn client(&self, id: BrokerId) -> RawClient {
        let connection = self.connect(id).await;
        RawClient::greet(connection, self.dir().cluster()).await.expect("a client of this cluster")
    }

    pub(super) async fn connect(&self, id: BrokerId) -> Connection {
        self.connect_as_client(id, ALPN_CLIENT).await.unwrap()
    }

    pub(super) async fn connect_as_client(
        &self,
        id: BrokerId,
        alpn: &[u8],
    ) -> Result<Connection, ConnectionError> {
        self.try_connect(id, alpn, self.shown("client")).await
    }

    pub(super) async fn connect_as_stranger(&self, id: BrokerId) -> Result<Connection, ConnectionError> {
        let stranger = Authority::clients(ClusterId([9; 16])).unwrap().certify_client().unwrap();
        let shown = Shown {
            certificate: stranger.certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(stranger.key.serialize_der()).into(),
        };
        self.try_connect(id, ALPN_CLIENT, shown).await
    }

    /// Says to `to` the hello of a `from` whose data directory was made anew; gives the code of the answer.
    pub(super) async fn greet_as_peer(&self, from: BrokerId, lineage: Lineage, to: BrokerId) -> VarInt {
        let shown = self.shown(&format!("broker-{from}"));
        let connection = self.try_connect(to, ALPN_PEER, shown).await.unwrap();
        let hello = PeerHello {
            version: PEER_VERSION,
            cluster: self.dir().cluster(),
            lineage,
            broker: from,
            incarnation: Incarnation([0xff; 16]),
            life: 0,
            level: 1,
            first_index: 1,
            last: (0, 0, 0),
        };
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all_chunks(&mut framed(vec![hello.encode()])).await.unwrap();
        closed_with(&connection).await
    }

    async fn try_connect(
        &self,
        id: BrokerId,
        alpn: &[u8],
        shown: Shown,
    ) -> Result<Connection, ConnectionError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca-peers.pem")).unwrap()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![shown.certificate], shown.key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(transport::config(Profile::Client, transport::MTU));
        let (_, address) = self.dir().brokers().iter().find(|(found, _)| *found == id).unwrap();
        self.endpoint.connect_with(config, *address, &server_name(id)).unwrap().await
    }

    fn shown(&self, name: &str) -> Shown {
        Shown {
            certificate: CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap(),
            key: PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir().path().join(name)
    }
}
