//! QUIC over loopback, set up as sequor sets it up: two threads with a runtime each, and nothing between them but a socket.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use quinn::{
    ClientConfig, Endpoint, ServerConfig, TokioRuntime,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use thiserror::Error;
use tokio::runtime::{self, Runtime};

use sequor_client::transport::{self, MTU, Profile};

use super::super::meter::{histogram, micros};

/// How long each is measured.
const LENGTH: Duration = Duration::from_millis(500);
/// The small message. Bytes.
const PING_BYTES: usize = 256;
/// What is written at once, where much is. Bytes.
const PIECE_BYTES: usize = 256 << 10;
/// The name in the certificate.
const NAME: &str = "limits.sequor";

/// QUIC did not come about, or broke.
#[derive(Debug, Error)]
#[error("QUIC over loopback: {what}")]
pub(crate) struct QuicError {
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A step that may fail, with its name.
fn step<T, E>(what: &'static str, result: Result<T, E>) -> Result<T, QuicError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    result.map_err(|error| QuicError { what, source: error.into() })
}

/// How long a small message takes there and back, and how many bytes a second go in one direction.
pub(super) fn measure() -> Result<(Histogram<u64>, f64), QuicError> {
    let certified = step("no certificate", rcgen::generate_simple_self_signed([NAME.to_owned()]))?;
    let certificate = certified.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let listening = transport::socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let socket = step("no socket", listening)?;
    let address = step("no socket", socket.local_addr())?;
    let server = server_config(certificate.clone(), key.into())?;
    let serving = thread::spawn(move || step("no runtime", runtime())?.block_on(serve(socket, server)));
    let asked = step("no runtime", runtime())?.block_on(ask(address, client_config(certificate)?));
    let served = serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let latency = asked?;
    Ok((latency, served?))
}

fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

fn server_config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, QuicError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let builder = step("no TLS", builder)?.with_no_client_auth();
    let tls = step("no TLS", builder.with_single_cert(vec![certificate], key))?;
    let crypto = step("no TLS", QuicServerConfig::try_from(tls))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport::config(Profile::Broker, MTU));
    Ok(config)
}

fn client_config(certificate: CertificateDer<'static>) -> Result<ClientConfig, QuicError> {
    let mut roots = RootCertStore::empty();
    step("no TLS", roots.add(certificate))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let tls = step("no TLS", builder)?.with_root_certificates(roots).with_no_client_auth();
    let crypto = step("no TLS", QuicClientConfig::try_from(tls))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport::config(Profile::Client, MTU));
    Ok(config)
}

/// Sends small messages back on the first stream, and takes all that comes on the second; bytes a second of that.
async fn serve(socket: std::net::UdpSocket, config: ServerConfig) -> Result<f64, QuicError> {
    let endpoint =
        Endpoint::new(transport::endpoint_config(MTU), Some(config), socket, Arc::new(TokioRuntime));
    let endpoint = step("no endpoint", endpoint)?;
    let incoming = endpoint.accept().await.ok_or("the endpoint was closed");
    let connection = step("no connection", step("no connection", incoming)?.await)?;
    let (mut back, mut there) = step("no stream", connection.accept_bi().await)?;
    let mut message = [0; PING_BYTES];
    // It ends when the other side has enough.
    while there.read_exact(&mut message).await.is_ok() {
        step("a message was not sent back", back.write_all(&message).await)?;
    }
    let (mut back, mut there) = step("no stream", connection.accept_bi().await)?;
    let (mut begun, mut bytes) = (None, 0);
    while let Some(chunk) = step("much was not read", there.read_chunk(usize::MAX, true).await)? {
        begun.get_or_insert_with(Instant::now);
        bytes += chunk.bytes.len();
    }
    let took = begun.map_or(Duration::MAX, |begun| begun.elapsed());
    step("the end was not told", back.finish())?;
    connection.closed().await;
    Ok(bytes as f64 / took.as_secs_f64())
}

async fn ask(address: SocketAddr, config: ClientConfig) -> Result<Histogram<u64>, QuicError> {
    let socket = step("no socket", transport::socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let endpoint = Endpoint::new(transport::endpoint_config(MTU), None, socket, Arc::new(TokioRuntime));
    let endpoint = step("no endpoint", endpoint)?;
    let connecting = step("no connection", endpoint.connect_with(config, address, NAME))?;
    let connection = step("no connection", connecting.await)?;

    let (mut there, mut back) = step("no stream", connection.open_bi().await)?;
    let (mut took, mut message) = (histogram(), [7; PING_BYTES]);
    let start = Instant::now();
    while start.elapsed() < LENGTH {
        let begun = Instant::now();
        step("a message was not sent", there.write_all(&message).await)?;
        step("a message did not come back", back.read_exact(&mut message).await)?;
        took.saturating_record(micros(begun.elapsed()));
    }
    step("the end was not told", there.finish())?;

    let (mut there, mut back) = step("no stream", connection.open_bi().await)?;
    let piece = bytes::Bytes::from(vec![7; PIECE_BYTES]);
    let start = Instant::now();
    while start.elapsed() < LENGTH {
        step("much was not sent", there.write_chunk(piece.clone()).await)?;
    }
    step("the end was not told", there.finish())?;
    step("much did not arrive", back.read_to_end(0).await)?;
    connection.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(took)
}
