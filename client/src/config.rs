//! Which cluster to talk to, with which certificate, and how patiently.
//!
//! `sequor certs init` writes the context file:
//!
//! ```toml
//! cluster = "5f0c…"                 # 32 hexadecimal digits
//!
//! [[brokers]]
//! id = 1
//! address = "127.0.0.1:7400"        # host:port
//!
//! [tls]                             # paths are relative to this file
//! ca = "ca-peers.pem"               # who signs the brokers' certificates
//! cert = "client.pem"
//! key = "client.key"
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    protocol::{
        BrokerId, ClusterId, Member,
        limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX, MEMBERS_MAX},
    },
    transport::MTU,
};

/// Everything a [`Client`](crate::Client) is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster.
    pub cluster: ClusterId,
    /// Brokers to begin with, at least one.
    pub brokers: Vec<Member>,
    /// Certificates and key.
    pub tls: TlsFiles,
    /// How long a call may take, through all changes of leader, if nothing else is said. Default: 30 s.
    pub deadline: Duration,
    /// Most batches in flight per producer. Default 16, at most [`IN_FLIGHT_BATCHES_MAX`].
    pub in_flight_batches: usize,
    /// Most bytes in flight per producer. Default 16 MiB.
    pub in_flight_bytes: usize,
    /// Most records that [`Producer::append`](crate::Producer::append) puts into one batch. Default and limit:
    /// [`BATCH_RECORDS_MAX`].
    pub batch_records: usize,
    /// Most bytes that it puts into one batch. Default and limit: [`BATCH_BYTES_MAX`].
    pub batch_bytes: usize,
    /// Largest UDP payload to try. Bytes.
    pub mtu: u16,
    /// What brings frames to the brokers instead of QUIC; certificates are not looked at then.
    #[cfg(feature = "carrier")]
    #[doc(hidden)]
    pub carrier: Option<std::sync::Arc<dyn crate::carrier::Carrier>>,
}

/// Where certificates and key lie, in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Who signs the brokers' certificates.
    pub ca: PathBuf,
    /// The client's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The context file as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextFile {
    /// The cluster's id, as 32 hexadecimal digits.
    pub cluster: String,
    /// Its brokers, or some of them.
    pub brokers: Vec<ContextBroker>,
    /// Certificates and key.
    pub tls: TlsFiles,
}

/// One broker in a context file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextBroker {
    /// Its id.
    pub id: u64,
    /// Where it listens: `host:port`.
    pub address: String,
}

/// Why a context file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the context file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what a context file looks like.
    #[error("{} is not a context file", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        source: Box<toml::de::Error>,
    },
    /// The cluster id is not 32 hexadecimal digits.
    #[error("{}: cluster = {found:?} is not 32 hexadecimal digits", .path.display())]
    Cluster {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// It names no broker, or too many, or one of them twice.
    #[error("{}: {found} [[brokers]] with {different} different ids; there must be 1 to {MEMBERS_MAX}, each once",
            .path.display())]
    Brokers {
        /// The file.
        path: PathBuf,
        /// How many it names.
        found: usize,
        /// How many different ones.
        different: usize,
    },
}

impl Config {
    /// The configuration that a context file describes, with the usual limits.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]; each names the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
        Self::parse(path, &text)
    }

    /// The configuration that the text of a context file describes; `path` is where it stands.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let own = || path.to_path_buf();
        let file: ContextFile = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: own(), source: Box::new(source) })?;
        let cluster = cluster_id(&file.cluster)
            .ok_or_else(|| ConfigError::Cluster { path: own(), found: file.cluster.clone() })?;
        let found = file.brokers.len();
        let mut ids: Vec<u64> = file.brokers.iter().map(|broker| broker.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if !(1..=MEMBERS_MAX).contains(&found) || ids.len() != found {
            return Err(ConfigError::Brokers { path: own(), found, different: ids.len() });
        }
        let member = |broker: ContextBroker| Member { id: BrokerId(broker.id), address: broker.address };
        let folder = path.parent().unwrap_or(Path::new(""));
        let TlsFiles { ca, cert, key } = file.tls;
        let tls = TlsFiles { ca: folder.join(ca), cert: folder.join(cert), key: folder.join(key) };
        Ok(Self::new(cluster, file.brokers.into_iter().map(member).collect(), tls))
    }

    /// A configuration with the usual limits.
    #[must_use]
    pub fn new(cluster: ClusterId, brokers: Vec<Member>, tls: TlsFiles) -> Self {
        Self {
            cluster,
            brokers,
            tls,
            deadline: Duration::from_secs(30),
            in_flight_batches: 16,
            in_flight_bytes: 16 << 20,
            batch_records: BATCH_RECORDS_MAX,
            batch_bytes: BATCH_BYTES_MAX,
            mtu: MTU,
            #[cfg(feature = "carrier")]
            carrier: None,
        }
    }

    /// Where the randomness of a new client comes from.
    pub(crate) fn seed(&self) -> u64 {
        #[cfg(feature = "carrier")]
        if let Some(carrier) = &self.carrier {
            return carrier.seed();
        }
        rand::random()
    }

    /// The wall clock. Milliseconds since 1970; 0 on a machine whose clock stands before.
    pub(crate) fn wall_clock(&self) -> i64 {
        #[cfg(feature = "carrier")]
        if let Some(carrier) = &self.carrier {
            return carrier.wall_clock_ms();
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// The same with other limits moved into what is possible.
    pub(crate) fn within_limits(mut self) -> Self {
        self.in_flight_batches = self.in_flight_batches.clamp(1, IN_FLIGHT_BATCHES_MAX);
        self.in_flight_bytes = self.in_flight_bytes.clamp(BATCH_BYTES_MAX, 1 << 30);
        self
    }
}

fn cluster_id(hex: &str) -> Option<ClusterId> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let bytes: Vec<u8> =
        digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if hex.len() != 32 {
        return None;
    }
    bytes.try_into().ok().map(ClusterId)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const SOUND: &str = r#"
cluster = "000102030405060708090a0b0c0d0eff"
[[brokers]]
id = 1
address = "127.0.0.1:7400"
[tls]
ca = "ca-peers.pem"
cert = "/elsewhere/client.pem"
key = "client.key"
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("demo/context.toml"), text)
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = parse(SOUND).unwrap();
        assert_eq!(config.cluster.0[15], 0xff);
        assert_eq!(config.tls.ca, Path::new("demo/ca-peers.pem"));
        assert_eq!(config.tls.cert, Path::new("/elsewhere/client.pem"));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_file_and_line() {
        let error = parse(&SOUND.replace("ca =", "cafe =")).unwrap_err();
        assert!(error.to_string().contains("demo/context.toml"), "{error}");
        assert!(error.source().unwrap().to_string().contains("line 7"), "{:?}", error.source());
    }

    #[test]
    fn what_is_no_cluster_id_is_named() {
        for bad in ["", "0001", "zz0102030405060708090a0b0c0d0eff", "äääääääääääääääääääääääääääääää"]
        {
            let error = parse(&SOUND.replace("000102030405060708090a0b0c0d0eff", bad)).unwrap_err();
            assert!(matches!(error, ConfigError::Cluster { .. }), "{error}");
        }
    }

    #[test]
    fn a_broker_is_named_once() {
        let twice = SOUND.replace("[tls]", "[[brokers]]\nid = 1\naddress = \"b:1\"\n[tls]");
        assert!(matches!(parse(&twice), Err(ConfigError::Brokers { found: 2, different: 1, .. })));
    }
}
