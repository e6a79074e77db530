//! Somebody on the network who may write any bytes to a broker, under any certificate, and sees exactly what comes back.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{
    ClientConfig, Connecting, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream,
    crypto::rustls::QuicClientConfig,
};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sequor_broker::{io::tls::server_name, testing::Cluster};
use sequor_client::{
    protocol::{
        ALPN_CLIENT, BrokerId, ClientHello, Context, RequestId, Response, ServerHello, StreamKind, VERSION,
        frame::{Decoder, Frame, RawFrame, encode_client_hello, encode_request},
    },
    transport::{self, Profile},
};
use tokio::time::timeout;

/// Longest wait for any answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose certificate is shown, if any: the directory of a cluster, and a name in it.
pub(crate) type Shown<'a> = Option<(&'a Path, &'a str)>;

/// How one end of a conversation was told that it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The broker closed the connection: its number, and its reason.
    Closed(u64, String),
    /// TLS did, during or right after the handshake: its alert.
    Alert(u8),
    /// The broker reset the stream with this number. The connection lives on.
    Reset(u64),
    /// The broker finished the stream. The connection lives on.
    Finished,
}

/// One stream.
pub(crate) struct Stream {
    pub(crate) send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

/// A connection on which nothing was said yet. The handshake may still turn out to have failed.
pub(crate) async fn connect(
    cluster: &Cluster,
    broker: BrokerId,
    alpn: &[u8],
    shown: Shown<'_>,
) -> Result<Connection, Ending> {
    let socket = transport::socket("127.0.0.1:0".parse().unwrap()).unwrap();
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(transport::endpoint_config(transport::MTU), None, socket, runtime).unwrap();
    let connecting = dial(&endpoint, cluster, broker, client_config(cluster, alpn, shown));
    in_time(connecting).await.map_err(|error| ending_of(&error))
}

/// Begins a handshake.
pub(crate) fn dial(
    endpoint: &Endpoint,
    cluster: &Cluster,
    broker: BrokerId,
    config: ClientConfig,
) -> Connecting {
    let (_, address) = cluster.dir().brokers().iter().find(|(found, _)| *found == broker).unwrap();
    endpoint.connect_with(config, *address, &server_name(broker)).unwrap()
}

/// What is asked for in a handshake, and what is shown.
pub(crate) fn client_config(cluster: &Cluster, alpn: &[u8], shown: Shown<'_>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cluster.dir().path().join("ca-peers.pem")).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match shown {
        Some((dir, name)) => {
            let certificate = CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(transport::config(Profile::Client, transport::MTU));
    config
}

/// A connection of a client of this cluster, before its hello.
pub(crate) async fn client(cluster: &Cluster, broker: BrokerId) -> Connection {
    let shown = Some((cluster.dir().path(), "client"));
    connect(cluster, broker, ALPN_CLIENT, shown).await.expect("a client of this cluster")
}

/// The hello of a client of this cluster.
pub(crate) fn hello(cluster: &Cluster) -> ClientHello {
    ClientHello {
        version_min: VERSION,
        version_max: VERSION,
        cluster: cluster.dir().cluster(),
        lineage: None,
        capabilities: 0,
        software: "raw".into(),
    }
}

/// A connection on which hellos were exchanged, and the broker's.
pub(crate) async fn greeted(cluster: &Cluster, broker: BrokerId) -> (Connection, Stream, ServerHello) {
    let connection = client(cluster, broker).await;
    let mut control = Stream::open(&connection, StreamKind::Control as u8).await;
    control.write(&bytes_of(encode_client_hello(&hello(cluster)).unwrap())).await;
    let answer = control.next().await.unwrap().server_hello().unwrap();
    (connection, control, answer)
}

/// How the other end closed a connection.
pub(crate) async fn closed(connection: &Connection) -> Ending {
    ending_of(&in_time(connection.closed()).await)
}

fn ending_of(error: &ConnectionError) -> Ending {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            Ending::Closed(close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            assert_eq!(code >> 8, 1, "an alert of TLS: {close:?}");
            Ending::Alert(code as u8)
        }
        other => panic!("not ended by the broker, but: {other:?}"),
    }
}

impl Stream {
    /// Opens one with its first byte.
    pub(crate) async fn open(connection: &Connection, kind: u8) -> Self {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&[kind]).await.unwrap();
        Self { send, recv, decoder: Decoder::new() }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        in_time(self.send.write_all(bytes)).await.unwrap();
    }

    /// The next frame, or how the stream or its connection ended instead.
    pub(crate) async fn next(&mut self) -> Result<RawFrame, Ending> {
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Ok(frame);
            }
            match in_time(self.recv.read_chunk(usize::MAX, true)).await {
                Ok(Some(chunk)) => self.decoder.push(chunk.bytes),
                Ok(None) => return Err(Ending::Finished),
                Err(ReadError::Reset(code)) => return Err(Ending::Reset(code.into_inner())),
                Err(ReadError::ConnectionLost(error)) => return Err(ending_of(&error)),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    /// The answer to a request.
    pub(crate) async fn response(&mut self) -> Response {
        self.next().await.expect("an answer").response().expect("it can be read").1
    }
}

/// The bytes of a request with this id.
pub(crate) fn request(id: u64, request: &sequor_client::protocol::Request) -> Vec<u8> {
    let context = Context { deadline_ms: 10_000, ..Context::default() };
    bytes_of(encode_request(RequestId(id), &context, request).unwrap())
}

/// A frame's bytes.
pub(crate) fn bytes_of(frame: Frame) -> Vec<u8> {
    frame.into_chunks().flat_map(Bytes::into_iter).collect()
}

/// Changes the header of a frame, and makes its checksum right again.
pub(crate) fn with_header(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut frame[..20]);
    let body = u32::from_le_bytes(frame[16..20].try_into().unwrap()) as usize;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..20]);
    hasher.update(&frame[24..24 + body]);
    frame[20..24].copy_from_slice(&hasher.finalize().to_le_bytes());
    frame
}

async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.expect("the broker answers in time")
}
