//! QUIC as sequor sets it up, with one certificate for everybody.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc};

use quinn::{ClientConfig, ConnectError, ConnectionError, Endpoint, ServerConfig, TokioRuntime};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sequor_client::transport::{self, MTU, Profile};
use thiserror::Error;

/// The name in the certificate.
const NAME: &str = "null-log";

/// No connection can be made.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    /// Certificate or key cannot be read or written.
    #[error("cannot read or write the certificate")]
    Identity(#[source] io::Error),
    /// The certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("cannot use the certificate")]
    Tls(#[from] rustls::Error),
    /// Nor this.
    #[error("cannot trust the certificate")]
    Trust(#[from] quinn::rustls::client::VerifierBuilderError),
    /// The socket cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The other side cannot be reached.
    #[error("cannot connect")]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection broke")]
    Connection(#[from] ConnectionError),
}

/// A certificate that signs itself, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// Makes one and writes it into a directory.
    ///
    /// # Errors
    /// [`WireError::Make`], [`WireError::Identity`].
    pub(crate) fn create(directory: &Path) -> Result<Self, WireError> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        fs::write(directory.join("cert.der"), made.cert.der()).map_err(WireError::Identity)?;
        fs::write(directory.join("key.der"), made.signing_key.serialize_der())
            .map_err(WireError::Identity)?;
        Self::load(directory).map_err(WireError::Identity)
    }

    /// Reads the one that [`Identity::create`] wrote.
    ///
    /// # Errors
    /// Whatever the file system answers.
    pub(crate) fn load(directory: &Path) -> io::Result<Self> {
        let certificate = fs::read(directory.join("cert.der"))?.into();
        let key = fs::read(directory.join("key.der"))?.into();
        Ok(Self { certificate, key })
    }
}

/// An endpoint that takes connections, if it has an identity to show.
///
/// # Errors
/// [`WireError`].
pub(crate) fn endpoint(address: SocketAddr, identity: Option<&Identity>) -> Result<Endpoint, WireError> {
    let bind = |source| WireError::Bind { address, source };
    let socket = transport::socket(address).map_err(bind)?;
    let server = match identity {
        Some(Identity { certificate, key }) => {
            let mut server =
                ServerConfig::with_single_cert(vec![certificate.clone()], key.clone_key().into())?;
            server.transport_config(transport::config(Profile::Broker, MTU));
            Some(server)
        }
        None => None,
    };
    let config = transport::endpoint_config(MTU);
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).map_err(bind)
}

/// Connects to whoever has this identity.
///
/// # Errors
/// [`WireError`].
pub(crate) async fn connect(
    endpoint: &Endpoint,
    to: SocketAddr,
    identity: &Identity,
    profile: Profile,
) -> Result<quinn::Connection, WireError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.certificate.clone())?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    config.transport_config(transport::config(profile, MTU));
    Ok(endpoint.connect_with(config, to, NAME)?.await?)
}
