//! How a client proves who it is, and makes sure of whom it talks to.
//!
//! TLS 1.3 alone, always mutual. A broker is known by the name `broker-<id>.sequor` in a certificate that the
//! cluster's authority signed; the client by a certificate of the clients' authority. No session is resumed and no
//! early data is sent: early data can be replayed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use thiserror::Error;

use crate::{
    config::TlsFiles,
    protocol::{ALPN_CLIENT, BrokerId},
};

/// Why a client cannot begin to speak TLS.
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
    #[error("{what} cannot be used")]
    Refused {
        /// Which of them.
        what: &'static str,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// The name by which a broker's certificate is verified.
pub(crate) fn server_name(broker: BrokerId) -> String {
    format!("broker-{broker}.sequor")
}

/// A client's side of the handshake, from three files.
///
/// # Errors
///
/// See [`TlsError`].
pub(crate) fn client_config(files: &TlsFiles) -> Result<quinn::ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the brokers' authority", &files.ca)? {
        let what = "the certificate of the brokers' authority (tls.ca)";
        roots.add(certificate).map_err(|source| TlsError::Refused { what, source })?;
    }
    let chain = certificates("the client's certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Pem {
        what: "the client's private key",
        path: files.key.clone(),
        source,
    })?;
    let what = "the client's certificate and key (tls.cert, tls.key)";
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Refused { what: "TLS 1.3", source })?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::Refused { what, source })?;
    config.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(config).expect("ring has the cipher suite that QUIC begins with");
    Ok(quinn::ClientConfig::new(Arc::new(crypto)))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |source| TlsError::Pem { what, path: path.to_path_buf(), source };
    let found = CertificateDer::pem_file_iter(path).map_err(bad)?;
    let certificates = found.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.to_path_buf() });
    }
    Ok(certificates)
}
