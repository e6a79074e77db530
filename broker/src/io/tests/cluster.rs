//! A cluster for tests: certificates, data directories, free ports, and brokers that start, stop and are wiped.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use rustls::{RootCertStore, crypto::ring};
use sequor_client::{
    protocol::{ALPN_CLIENT, ALPN_PEER, BrokerId, ClusterId, Incarnation, Request, Response, Role},
    transport::{self, Profile},
};
use sequor_wal::{Checkpoint, Identity, Section, disk::mmap::MmapDisk};
use tokio::{runtime, sync::oneshot, time::sleep};

use super::raw_client::{RawClient, closed_with};
use crate::{
    config::{Config, TlsFiles},
    core::{
        PEER_VERSION, PeerHello,
        genesis::{Genesis, Settings},
    },
    io::{
        ServeError,
        authority::{Authority, Signed},
        peer_stream::framed,
        run_until,
        tls::server_name,
    },
};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const LINEAGE: [u8; 16] = [8; 16];
/// Pause between two looks at a state that is being waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// See the file's header.
pub(super) struct Cluster {
    directory: tempfile::TempDir,
    addresses: BTreeMap<BrokerId, SocketAddr>,
    brokers: BTreeMap<BrokerId, Signed>,
    peers: Authority,
    clients: Authority,
    client: Signed,
    genesis: Genesis,
    running: BTreeMap<BrokerId, Running>,
    endpoint: Endpoint,
}

/// A broker in a thread of its own, with a runtime of its own: as near to a process as a test can have it.
struct Running {
    order: oneshot::Sender<Order>,
    ended: oneshot::Receiver<Result<(), ServeError>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As SIGTERM does.
    Stop,
    /// As SIGKILL does: nothing more is sent, nothing waited for.
    Die,
}

impl Cluster {
    /// Makes everything that `certs init` makes, for `size` brokers; starts none.
    pub(super) fn new(size: u64) -> Self {
        let (peers, clients) = (Authority::new("peers"), Authority::new("clients"));
        // All at once, so that no port is given twice; free again when the brokers bind them.
        let sockets: Vec<_> = (0..size).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: BTreeMap<_, _> =
            (1..).map(BrokerId).zip(sockets.iter().map(|s| s.local_addr().unwrap())).collect();
        let brokers: BTreeMap<_, _> = (1..=size).map(|id| (BrokerId(id), peers.sign_broker(id))).collect();
        let members = brokers.iter().map(|(id, signed)| signed.member(id.0, &addresses[id].to_string()));
        let genesis = Genesis::new(members.collect(), Settings::default()).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let socket = transport::socket(any).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            Endpoint::new(transport::endpoint_config(transport::MTU), None, socket, runtime).unwrap();
        let cluster = Self {
            directory: tempfile::tempdir().unwrap(),
            addresses,
            brokers,
            peers,
            client: clients.sign("client.sequor"),
            clients,
            genesis,
            running: BTreeMap::new(),
            endpoint,
        };
        for id in cluster.ids() {
            fs::create_dir(cluster.data(id)).unwrap();
            cluster.init(id);
            cluster.write_certificates(id);
        }
        cluster
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = BrokerId> + use<> {
        self.addresses.keys().copied().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn start_all(&mut self) {
        self.ids().for_each(|id| self.start(id));
    }

    pub(super) fn start(&mut self, id: BrokerId) {
        let config = self.config(id);
        let (order, ordered) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        thread::spawn(move || {
            let result = serve(&config, ordered);
            // A test that has failed no longer listens.
            let _gone = end.send(result);
        });
        self.running.insert(id, Running { order, ended });
    }

    /// Stops a broker as SIGTERM does.
    pub(super) async fn stop(&mut self, id: BrokerId) {
        self.end(id, Order::Stop).await;
    }

    /// Ends a broker in the middle of whatever it does. It says nothing to anybody.
    pub(super) async fn kill(&mut self, id: BrokerId) {
        self.end(id, Order::Die).await;
    }

    async fn end(&mut self, id: BrokerId, how: Order) {
        let Running { order, ended } = self.running.remove(&id).unwrap();
        assert!(order.send(how).is_ok(), "broker {id} has ended by itself: {:?}", ended.await);
        ended.await.expect("the broker's thread panicked").unwrap();
    }

    pub(super) async fn stop_all(&mut self) {
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }

    /// Empties a data directory and makes it anew, as for a broker that was never started.
    pub(super) fn wipe(&self, id: BrokerId) {
        fs::remove_dir_all(self.data(id)).unwrap();
        fs::create_dir(self.data(id)).unwrap();
        self.init(id);
    }

    /// Waits until a broker leads, and says so itself.
    pub(super) async fn leader(&self) -> BrokerId {
        loop {
            for id in self.running.keys().copied() {
                if let Some(status) = self.status(id).await
                    && status.role == Role::Leader
                {
                    return id;
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until every running broker has everything that the leader has committed.
    pub(super) async fn wait_until_all_follow(&self, leader: BrokerId) {
        loop {
            let committed = self.status(leader).await.map(|status| status.commit);
            let mut all = committed.is_some();
            for id in self.running.keys().copied() {
                all &= self.status(id).await.map(|status| status.commit) >= committed;
            }
            if all {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn status(&self, id: BrokerId) -> Option<sequor_client::protocol::Status> {
        let connection = self.try_connect(id, ALPN_CLIENT, &self.client).await.ok()?;
        let mut client = RawClient::greet(connection, CLUSTER).await.ok()?;
        match client.ask(Request::Status).await {
            Response::Status(status) => Some(status),
            other => panic!("a status was asked for: {other:?}"),
        }
    }

    pub(super) async fn client(&self, id: BrokerId) -> RawClient {
        RawClient::greet(self.connect(id).await, CLUSTER).await.expect("a client of this cluster")
    }

    pub(super) async fn connect(&self, id: BrokerId) -> Connection {
        self.connect_as_client(id, ALPN_CLIENT).await.unwrap()
    }

    pub(super) async fn connect_as_client(
        &self,
        id: BrokerId,
        alpn: &[u8],
    ) -> Result<Connection, ConnectionError> {
        self.try_connect(id, alpn, &self.client).await
    }

    pub(super) async fn connect_as_stranger(&self, id: BrokerId) -> Result<Connection, ConnectionError> {
        let stranger = Authority::new("clients").sign("client.sequor");
        self.try_connect(id, ALPN_CLIENT, &stranger).await
    }

    /// Says to `to` the hello of a `from` whose data directory was made anew; gives the code of the answer.
    pub(super) async fn greet_as_peer(&self, from: BrokerId, to: BrokerId) -> VarInt {
        let signed = &self.brokers[&from];
        let connection = self.try_connect(to, ALPN_PEER, signed).await.unwrap();
        let hello = PeerHello {
            version: PEER_VERSION,
            cluster: CLUSTER,
            lineage: sequor_client::protocol::Lineage(LINEAGE),
            broker: from,
            incarnation: Incarnation([0xff; 16]),
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
        signed: &Signed,
    ) -> Result<Connection, ConnectionError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.peers.certificates().remove(0)).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![signed.certificate.clone()], signed.key.clone_key())
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(transport::config(Profile::Client, transport::MTU));
        self.endpoint.connect_with(config, self.addresses[&id], &server_name(id)).unwrap().await
    }

    fn init(&self, id: BrokerId) {
        let identity = Identity { cluster: CLUSTER.0, lineage: LINEAGE, broker: id.0, incarnation: None };
        let disk = MmapDisk::open(self.data(id)).unwrap();
        let sections =
            self.genesis.encode().into_iter().map(|(id, content)| Section { id, content }).collect();
        let chain = sequor_wal::chain_start(&identity.cluster);
        Checkpoint { index: 0, term: 0, chain, sections }.save(&disk).unwrap();
        Identity::create(&disk, &identity).unwrap();
    }

    fn write_certificates(&self, id: BrokerId) {
        let files = self.tls_files(id);
        fs::write(files.ca_peers, self.peers.pem()).unwrap();
        fs::write(files.ca_clients, self.clients.pem()).unwrap();
        fs::write(files.cert, &self.brokers[&id].certificate_pem).unwrap();
        fs::write(files.key, &self.brokers[&id].key_pem).unwrap();
    }

    fn config(&self, id: BrokerId) -> Config {
        Config {
            data: self.data(id),
            listen: self.addresses[&id],
            tls: self.tls_files(id),
            tick_ms: 10,
            heartbeat_ms: 50,
            // Longer than by default: many brokers share a machine here, beside other tests.
            election_ms: 500,
            segment_bytes: 8 << 20,
            mtu: transport::MTU,
            connections_max: 100,
        }
    }

    fn data(&self, id: BrokerId) -> PathBuf {
        self.directory.path().join(format!("broker-{id}"))
    }

    fn tls_files(&self, id: BrokerId) -> TlsFiles {
        let path = |name: &str| self.directory.path().join(format!("{id}-{name}.pem"));
        TlsFiles {
            ca_peers: path("peers"),
            ca_clients: path("clients"),
            cert: path("certificate"),
            key: path("key"),
        }
    }
}

/// Runs a broker until it is told to end.
fn serve(config: &Config, mut ordered: oneshot::Receiver<Order>) -> Result<(), ServeError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let death = async {
        // A test that has failed has dropped the sender: die with it.
        if let Ok(Order::Stop) = (&mut ordered).await {
            stop.send(()).unwrap();
            std::future::pending::<()>().await;
        }
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run_until(config, async { drop(stopped.await) }) => ended,
            () = death => Ok(()),
        }
    });
    // What is left in it is dropped without being polled again: no packet leaves.
    drop(runtime);
    ended
}
