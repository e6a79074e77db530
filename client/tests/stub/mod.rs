//! Three brokers in name: real sockets, certificates and streams around the model of a cluster.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, crypto::rustls::QuicServerConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, crypto::ring, pki_types::PrivateKeyDer, server::WebPkiClientVerifier, version::TLS13,
};
use sequor_client::{
    Config, TlsFiles,
    protocol::{
        ALPN_CLIENT, BrokerId, Member, Offset, Refusal, Request, RequestId, Response, StreamKind, Subscribe,
        batch::Batch,
        frame::{Decoder, Frame, RawFrame, encode_response, encode_server_hello},
    },
    transport,
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    cluster::Cluster,
    greeting::{CLUSTER, hello},
};

const BROKERS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

/// What the three share.
struct Shared {
    cluster: Mutex<Cluster>,
    /// Counts changes of the cluster.
    changes: watch::Sender<u64>,
    deliveries: AtomicUsize,
    members: Vec<Member>,
}

impl Shared {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect("no test panics while it holds the cluster")
    }
}

/// A running cluster.
pub(crate) struct Stub {
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    directory: TempDir,
}

impl Stub {
    /// Starts three brokers on free ports; the first one leads.
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().expect("a directory for certificates");
        let issuer = issuer();
        write(&directory, "ca.pem", &issuer.pem());
        let (certificate, key) = certify(&issuer, "client.test");
        write(&directory, "client.pem", &certificate);
        write(&directory, "client.key", &key.serialize_pem());
        let endpoints: Vec<_> = BROKERS.into_iter().map(|id| endpoint(&issuer, id)).collect();
        let address = |endpoint: &Endpoint| endpoint.local_addr().expect("it is bound").to_string();
        let members = BROKERS.into_iter().zip(&endpoints);
        let members = members.map(|(id, endpoint)| Member { id, address: address(endpoint) }).collect();
        let cluster = Mutex::new(Cluster { leader: Some(BROKERS[0]), ..Cluster::default() });
        let (changes, deliveries) = (watch::channel(0).0, AtomicUsize::new(0));
        let shared = Arc::new(Shared { cluster, changes, deliveries, members });
        for (id, endpoint) in BROKERS.into_iter().zip(endpoints.clone()) {
            tokio::spawn(listen(Arc::clone(&shared), id, endpoint));
        }
        Self { shared, endpoints, directory }
    }

    /// How to reach it.
    pub(crate) fn config(&self) -> Config {
        let path = |name: &str| self.directory.path().join(name);
        let tls = TlsFiles { ca: path("ca.pem"), cert: path("client.pem"), key: path("client.key") };
        let config = Config::new(CLUSTER, self.shared.members.clone(), tls);
        Config { deadline: Duration::from_secs(20), ..config }
    }

    /// Another broker leads from now on, or none.
    pub(crate) fn elect(&self, leader: Option<BrokerId>) {
        self.shared.cluster().leader = leader;
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    /// Ends all connections of a broker, as a stop does.
    pub(crate) fn hang_up(&self, broker: BrokerId) {
        self.endpoints[broker.0 as usize - 1].close(1_u32.into(), b"stopping");
    }

    /// Lets a broker fall silent, as SIGKILL or a pulled cable does.
    pub(crate) fn silence(&self, broker: BrokerId) {
        let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        self.endpoints[broker.0 as usize - 1].rebind(elsewhere).expect("the new socket is sound");
    }

    /// How often part of the log was sent to somebody.
    pub(crate) fn deliveries(&self) -> usize {
        self.shared.deliveries.load(Ordering::Relaxed)
    }

    /// Values of all records in the log.
    pub(crate) fn log(&self) -> Vec<Bytes> {
        let records = |batch: &sequor_client::protocol::batch::Batch| batch.records().collect::<Vec<_>>();
        let cluster = self.shared.cluster();
        let records = cluster.log.iter().flat_map(|(_, batch)| records(batch));
        records.map(|record| record.expect("checked when it was written").value.unwrap_or_default()).collect()
    }

    /// From now on the log ends with a batch of one record whose checksum does not fit.
    pub(crate) fn rot(&self) {
        let mut cluster = self.shared.cluster();
        let (end, mut bytes) = (cluster.end(), cluster.log.last().expect("a batch").1.bytes().to_vec());
        *bytes.last_mut().expect("a record") ^= 1;
        cluster.log.push((end, Batch::trusted(bytes.into()).expect("its header is sound")));
    }

    /// Batches in the log.
    pub(crate) fn batches(&self) -> usize {
        self.shared.cluster().log.len()
    }
}

fn write(directory: &TempDir, name: &str, text: &str) {
    fs::write(directory.path().join(name), text).expect("the directory is ours");
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate().expect("ring makes keys");
    CertifiedIssuer::self_signed(params, key).expect("the parameters are sound")
}

fn certify(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (String, KeyPair) {
    let key = KeyPair::generate().expect("ring makes keys");
    let params = CertificateParams::new([name.to_owned()]).expect("a DNS name");
    (params.signed_by(&key, issuer).expect("the issuer may sign").pem(), key)
}

fn endpoint(issuer: &CertifiedIssuer<'static, KeyPair>, id: BrokerId) -> Endpoint {
    let key = KeyPair::generate().expect("ring makes keys");
    let params = CertificateParams::new([format!("broker-{id}.sequor")]).expect("a DNS name");
    let certificate = params.signed_by(&key, issuer).expect("the issuer may sign");
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).expect("it was just made");
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(verifier.build().expect("there is a root"))
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("the key fits");
    tls.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
    let crypto = QuicServerConfig::try_from(tls).expect("ring has QUIC's cipher suite");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport::config(transport::Profile::Broker, transport::MTU));
    Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port")
}

async fn listen(shared: Arc<Shared>, id: BrokerId, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                // A client that leaves is no news to a stub.
                let _left = serve(shared, id, connection).await;
            }
        });
    }
}

/// A client is gone.
struct Left;

async fn serve(shared: Arc<Shared>, id: BrokerId, connection: Connection) -> Result<(), Left> {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // As above.
            let _left = serve_stream(&shared, id, send, recv).await;
        });
    }
    Err(Left)
}

async fn serve_stream(
    shared: &Shared,
    id: BrokerId,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), Left> {
    let mut kind = [0];
    recv.read_exact(&mut kind).await.map_err(|_| Left)?;
    let kind = StreamKind::try_from(kind[0]).expect("the library opens known streams only");
    let mut frames = Frames { recv, decoder: Decoder::new() };
    if kind == StreamKind::Control {
        let theirs = frames.next().await?.client_hello().expect("the library's own hello");
        assert_eq!(theirs.cluster, CLUSTER);
        let leader = shared.cluster().leader;
        let ours = hello(id, leader, shared.members.clone());
        write_frame(&mut send, encode_server_hello(&ours).expect("a small hello")).await?;
    }
    loop {
        let frame = frames.next().await?;
        let (request, _, message) = frame.request().expect("the library's own request");
        if let Request::Subscribe(Subscribe { from }) = message {
            return deliver(shared, id, &mut send, request, from).await;
        }
        let response = match shared.cluster().leader {
            Some(leader) if leader == id => None,
            leader => Some(Response::Refused(Refusal::NotLeader { leader })),
        };
        let response = response.unwrap_or_else(|| shared.cluster().handle(&message));
        shared.changes.send_modify(|changes| *changes += 1);
        answer(&mut send, request, &response).await?;
    }
}

async fn deliver(
    shared: &Shared,
    id: BrokerId,
    send: &mut SendStream,
    request: RequestId,
    mut from: Offset,
) -> Result<(), Left> {
    let mut changes = shared.changes.subscribe();
    loop {
        changes.mark_unchanged();
        let (leader, delivery) = {
            let cluster = shared.cluster();
            (cluster.leader, cluster.read(from))
        };
        if leader != Some(id) {
            return answer(send, request, &Response::Refused(Refusal::NotLeader { leader })).await;
        }
        if let Some(delivery) = delivery {
            from = delivery.next;
            answer(send, request, &Response::Delivery(delivery)).await?;
            shared.deliveries.fetch_add(1, Ordering::Relaxed);
        } else {
            changes.changed().await.map_err(|_| Left)?;
        }
    }
}

async fn answer(send: &mut SendStream, id: RequestId, response: &Response) -> Result<(), Left> {
    write_frame(send, encode_response(id, response).expect("the model's answers are small")).await
}

async fn write_frame(send: &mut SendStream, frame: Frame) -> Result<(), Left> {
    let mut chunks: Vec<_> = frame.into_chunks().collect();
    send.write_all_chunks(&mut chunks).await.map_err(|_| Left)
}

struct Frames {
    recv: RecvStream,
    decoder: Decoder,
}

impl Frames {
    async fn next(&mut self) -> Result<RawFrame, Left> {
        loop {
            if let Some(frame) = self.decoder.next().expect("the library sends sound frames") {
                return Ok(frame);
            }
            let chunk = self.recv.read_chunk(1 << 16, true).await.ok().flatten().ok_or(Left)?;
            self.decoder.push(chunk.bytes);
        }
    }
}
