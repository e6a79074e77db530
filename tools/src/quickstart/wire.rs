//! A connection held by hand: it says what the client library never would.
//!
//! To show that it is the brokers who keep a record from being written twice, and not the good manners of a library,
//! somebody has to send a batch again that was acknowledged long ago. This speaks the bare protocol: one connection, one
//! stream, one request at a time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::{Endpoint, RecvStream, SendStream, TokioRuntime, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use thiserror::Error;
use tokio::time::timeout;

use sequor_broker::io::tls::server_name;
use sequor_client::{
    Config,
    protocol::{
        ALPN_CLIENT, Acks, Append, ClientHello, Context, Member, Refusal, Request, RequestId, Response,
        Sequence, StreamKind, VERSION,
        frame::{Decoder, Frame, FrameError, RawFrame, encode_client_hello, encode_request},
    },
    transport::{self, Profile},
};

use crate::exit::{Exit, Verdict};

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What is taken from a stream at once. Bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Why the conversation failed.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    /// A certificate or key cannot be read.
    #[error("cannot read the client's certificates")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate or key cannot be used.
    #[error("cannot use the client's certificates")]
    Tls(#[from] rustls::Error),
    /// The broker's address is none.
    #[error("{address:?} is not an address")]
    Address {
        /// What it is.
        address: String,
    },
    /// There is no socket.
    #[error("cannot open a UDP socket")]
    Socket(#[from] std::io::Error),
    /// The connection cannot be tried.
    #[error("cannot connect")]
    Connect(#[from] quinn::ConnectError),
    /// The connection failed.
    #[error("the connection failed")]
    Connection(#[from] quinn::ConnectionError),
    /// The broker does not read.
    #[error("the broker does not read")]
    Write(#[from] quinn::WriteError),
    /// The broker does not write.
    #[error("the broker does not write")]
    Read(#[from] quinn::ReadError),
    /// The broker's bytes make no sense.
    #[error("the broker's answer cannot be read")]
    Frame(#[from] FrameError),
    /// The hello was refused, or a request cannot be written down.
    #[error("refused")]
    Refused(#[from] Refusal),
    /// The broker ended the stream.
    #[error("the broker ended the stream")]
    Ended,
    /// The broker takes too long.
    #[error("the broker did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
}

impl Verdict for WireError {
    fn exit(&self) -> Exit {
        match self {
            Self::TimedOut | Self::Ended | Self::Connection(_) => Exit::Unreachable,
            _ => Exit::Error,
        }
    }
}

/// One connection to one broker, with one stream of requests.
#[derive(Debug)]
pub(crate) struct Wire {
    endpoint: Endpoint,
    send: SendStream,
    answers: Answers,
    next_id: u64,
}

impl Wire {
    /// Connects and exchanges hellos.
    ///
    /// # Errors
    /// If that fails, or takes longer than ten seconds.
    pub(crate) async fn connect(config: &Config, broker: &Member) -> Result<Self, WireError> {
        timeout(ANSWER_TIMEOUT, Self::dial(config, broker)).await.unwrap_or(Err(WireError::TimedOut))
    }

    async fn dial(config: &Config, broker: &Member) -> Result<Self, WireError> {
        let none = |_| WireError::Address { address: broker.address.clone() };
        let address: SocketAddr = broker.address.parse().map_err(none)?;
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = transport::socket(any.parse().expect("a literal address"))?;
        let endpoint =
            Endpoint::new(transport::endpoint_config(config.mtu), None, socket, Arc::new(TokioRuntime))?;
        let connecting = endpoint.connect_with(client_config(config)?, address, &server_name(broker.id))?;
        let connection = connecting.await?;

        let (mut control, answers) = connection.open_bi().await?;
        let hello = ClientHello {
            version_min: VERSION,
            version_max: VERSION,
            cluster: config.cluster,
            lineage: None,
            capabilities: 0,
            software: "sequor quickstart, by hand".to_owned(),
        };
        begin(&mut control, StreamKind::Control, Some(encode_client_hello(&hello)?)).await?;
        Answers::new(answers).next().await?.server_hello()?;

        let (mut send, answers) = connection.open_bi().await?;
        begin(&mut send, StreamKind::Requests, None).await?;
        Ok(Self { endpoint, send, answers: Answers::new(answers), next_id: 0 })
    }

    /// Sends the bytes of a batch, whatever numbers they claim; the broker's answer.
    ///
    /// # Errors
    /// If the connection fails, or the answer takes longer than ten seconds. A refusal is an answer.
    pub(crate) async fn append(&mut self, batch: Bytes) -> Result<Response, WireError> {
        timeout(ANSWER_TIMEOUT, self.ask(batch)).await.unwrap_or(Err(WireError::TimedOut))
    }

    async fn ask(&mut self, batch: Bytes) -> Result<Response, WireError> {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        let deadline_ms = u32::try_from(ANSWER_TIMEOUT.as_millis()).expect("ten seconds");
        let context = Context { deadline_ms, ..Context::default() };
        let append = Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch };
        write(&mut self.send, encode_request(id, &context, &Request::Append(append))?).await?;
        loop {
            let (answered, response) = self.answers.next().await?.response()?;
            if answered == id {
                return Ok(response);
            }
        }
    }

    /// Ends the connection, and waits until the broker has heard of it.
    pub(crate) async fn close(self) {
        self.endpoint.close(0_u32.into(), b"done");
        self.endpoint.wait_idle().await;
    }
}

async fn begin(send: &mut SendStream, kind: StreamKind, first: Option<Frame>) -> Result<(), WireError> {
    send.write_all(&[kind as u8]).await?;
    match first {
        Some(frame) => write(send, frame).await,
        None => Ok(()),
    }
}

async fn write(send: &mut SendStream, frame: Frame) -> Result<(), WireError> {
    let mut chunks: Vec<Bytes> = frame.into_chunks().collect();
    Ok(send.write_all_chunks(&mut chunks).await?)
}

/// The frames that a broker sends on one stream.
#[derive(Debug)]
struct Answers {
    recv: RecvStream,
    decoder: Decoder,
}

impl Answers {
    fn new(recv: RecvStream) -> Self {
        Self { recv, decoder: Decoder::new() }
    }

    async fn next(&mut self) -> Result<RawFrame, WireError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            let chunk = self.recv.read_chunk(CHUNK_BYTES, true).await?.ok_or(WireError::Ended)?;
            self.decoder.push(chunk.bytes);
        }
    }
}

/// Mutual TLS 1.3, as every client of a broker has to speak it.
fn client_config(config: &Config) -> Result<quinn::ClientConfig, WireError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&config.tls.ca)? {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_file_iter(&config.tls.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&config.tls.key)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).expect("ring has the cipher suite that QUIC begins with");
    let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
    quic.transport_config(transport::config(Profile::Client, config.mtu));
    Ok(quic)
}
