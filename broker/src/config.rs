//! What one broker process is told at its start: where its data is, where it listens, who it is, how fast it ticks.
//!
//! Four layers, the upper one wins, key by key: **flag, environment, file, default**.
//!
//! | key in the file | environment | default | |
//! |---|---|---|---|
//! | `data` | `SEQUOR_DATA` | none, required | data directory that `certs init` made |
//! | `listen` | `SEQUOR_LISTEN` | none, required | UDP address for clients and peers, `ip:port` |
//! | `tls.ca_peers` | `SEQUOR_TLS_CA_PEERS` | none, required | PEM: who signs brokers |
//! | `tls.ca_clients` | `SEQUOR_TLS_CA_CLIENTS` | none, required | PEM: who signs clients |
//! | `tls.cert` | `SEQUOR_TLS_CERT` | none, required | PEM: this broker's certificate, then its intermediates |
//! | `tls.key` | `SEQUOR_TLS_KEY` | none, required | PEM: its private key |
//! | `tick_ms` | `SEQUOR_TICK_MS` | 10 | step of the broker's timers |
//! | `heartbeat_ms` | `SEQUOR_HEARTBEAT_MS` | 30 | pause between two heartbeats of a leader |
//! | `election_ms` | `SEQUOR_ELECTION_MS` | 150 | shortest silence that starts an election; the longest is twice that |
//! | `segment_bytes` | `SEQUOR_SEGMENT_BYTES` | 64 MiB | size of one file of the log |
//! | `mtu` | `SEQUOR_MTU` | 6500 | largest UDP payload that path discovery may try, bytes |
//! | `connections_max` | `SEQUOR_CONNECTIONS_MAX` | 1000 | clients connected at once |
//!
//! The name in the environment is `SEQUOR_`, then the key in capitals with `.` as `_`. A relative path in the file is
//! relative to the file; one in the environment or in a flag is relative to the working directory. In the file, write
//! the plain keys above `[tls]`: TOML gives everything below a table's header to that table.
//!
//! What can change the *result* of the replicated state (members, limits of the state) is not here: it is in the
//! genesis and in the log, where two brokers cannot disagree about it by a typo.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;

/// Prefix of every name in the environment.
const ENV_PREFIX: &str = "SEQUOR_";
/// Largest configuration file that is read. Bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Smallest segment: two blocks of the largest size. Bytes.
const SEGMENT_BYTES_MIN: u64 = 8 << 20;
/// Largest segment that the log can address. Bytes.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// A segment is a whole number of these. Bytes.
const SEGMENT_BYTES_STEP: u64 = 4096;
/// The smallest UDP payload that every QUIC path must carry. Bytes.
const MTU_MIN: u16 = 1200;
/// Above this, ten segments of one offloaded send no longer fit one UDP send, and are lost without a word. Bytes.
const MTU_MAX: u16 = 6550;
/// Longest tick: coarser timers would let a leader look dead between two heartbeats. Milliseconds.
const TICK_MS_MAX: u64 = 1_000;
/// Longest time without a leader that may be asked for. Milliseconds.
const ELECTION_MS_MAX: u64 = 60_000;
/// A follower has to miss this many heartbeats in a row before it may call an election. Count.
const HEARTBEATS_PER_ELECTION_MIN: u64 = 3;
/// Most clients that may be allowed at once. Count.
const CONNECTIONS_MAX: u32 = 100_000;

/// The configuration of one broker, complete and checked.
///
/// Invariants, checked by [`Config::resolve`]:
/// - `heartbeat_ms` and `election_ms` are multiples of `tick_ms`, and nothing is zero;
/// - an election needs at least three missed heartbeats;
/// - `segment_bytes` is a multiple of 4096 between 8 MiB and 1 GiB;
/// - `mtu` is between 1200 and 6550.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Data directory.
    pub data: PathBuf,
    /// UDP address of this broker's one socket.
    pub listen: SocketAddr,
    /// Certificates and keys.
    pub tls: TlsFiles,
    /// Step of the timers. Milliseconds.
    pub tick_ms: u64,
    /// Pause between two heartbeats. Milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest silence of a leader that starts an election. Milliseconds.
    pub election_ms: u64,
    /// Size of one file of the log. Bytes.
    pub segment_bytes: u64,
    /// Largest UDP payload that path discovery may try. Bytes.
    pub mtu: u16,
    /// Clients connected at once. Count.
    pub connections_max: u32,
}

/// Where certificates and keys lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authority that signs brokers.
    pub ca_peers: PathBuf,
    /// Certificates of the authority that signs clients.
    pub ca_clients: PathBuf,
    /// This broker's certificate, followed by its intermediates.
    pub cert: PathBuf,
    /// The private key of that certificate.
    pub key: PathBuf,
}

/// One source of configuration: each key given or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// See [`Config::data`].
    pub data: Option<PathBuf>,
    /// See [`Config::listen`].
    pub listen: Option<SocketAddr>,
    /// See [`Config::tick_ms`].
    pub tick_ms: Option<u64>,
    /// See [`Config::heartbeat_ms`].
    pub heartbeat_ms: Option<u64>,
    /// See [`Config::election_ms`].
    pub election_ms: Option<u64>,
    /// See [`Config::segment_bytes`].
    pub segment_bytes: Option<u64>,
    /// See [`Config::mtu`].
    pub mtu: Option<u16>,
    /// See [`Config::connections_max`].
    pub connections_max: Option<u32>,
    /// See [`Config::tls`].
    pub tls: TlsLayer,
}

/// The part of a [`Layer`] below `[tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsLayer {
    /// See [`TlsFiles::ca_peers`].
    pub ca_peers: Option<PathBuf>,
    /// See [`TlsFiles::ca_clients`].
    pub ca_clients: Option<PathBuf>,
    /// See [`TlsFiles::cert`].
    pub cert: Option<PathBuf>,
    /// See [`TlsFiles::key`].
    pub key: Option<PathBuf>,
}

/// Every key, as it is written in the file.
pub const KEYS: [&str; 12] = [
    "data",
    "listen",
    "tls.ca_peers",
    "tls.ca_clients",
    "tls.cert",
    "tls.key",
    "tick_ms",
    "heartbeat_ms",
    "election_ms",
    "segment_bytes",
    "mtu",
    "connections_max",
];

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the broker's configuration {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} is {found} bytes, a broker's configuration has at most {FILE_BYTES_MAX}: is it the right file?", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes.
        found: u64,
    },
    /// The file is not TOML, or has a key or a value that no broker knows. The source names the line.
    #[error("{} is not a broker's configuration", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// A variable of the environment has a value that its key cannot take.
    #[error("{variable}={value} in the environment: the value {reason}")]
    Environment {
        /// Its name.
        variable: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// No layer gives a key that has no default.
    #[error("`{key}` is not set: give it in the configuration file, or as {}", variable(.key))]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// Values that each make sense, but not together; or one outside its bounds.
    #[error("configuration: {0}")]
    Relation(String),
}

impl Config {
    /// Reads `path`, lays `environment` over it and `flags` over both, and checks the whole.
    ///
    /// `environment` is what [`std::env::vars_os`] gives, or a test's own; names of other programs are skipped.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]: each names the file, the variable or the key to look at.
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
        flags: Layer,
    ) -> Result<Self, ConfigError> {
        Self::resolve(flags.over(Layer::from_environment(environment)?).over(Layer::from_file(path)?))
    }

    /// Completes a layer with the defaults, and checks the whole.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Missing`] or [`ConfigError::Relation`].
    pub fn resolve(layer: Layer) -> Result<Self, ConfigError> {
        let missing = |key| ConfigError::Missing { key };
        let config = Self {
            data: layer.data.ok_or(missing("data"))?,
            listen: layer.listen.ok_or(missing("listen"))?,
            tls: TlsFiles {
                ca_peers: layer.tls.ca_peers.ok_or(missing("tls.ca_peers"))?,
                ca_clients: layer.tls.ca_clients.ok_or(missing("tls.ca_clients"))?,
                cert: layer.tls.cert.ok_or(missing("tls.cert"))?,
                key: layer.tls.key.ok_or(missing("tls.key"))?,
            },
            tick_ms: layer.tick_ms.unwrap_or(10),
            heartbeat_ms: layer.heartbeat_ms.unwrap_or(30),
            election_ms: layer.election_ms.unwrap_or(150),
            segment_bytes: layer.segment_bytes.unwrap_or(64 << 20),
            mtu: layer.mtu.unwrap_or(6500),
            connections_max: layer.connections_max.unwrap_or(1000),
        };
        config.check()?;
        Ok(config)
    }

    /// The step of the timers.
    #[must_use]
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// The shortest silence of a leader that starts an election.
    #[must_use]
    pub fn election(&self) -> Duration {
        Duration::from_millis(self.election_ms)
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("tick_ms", self.tick_ms, 1, TICK_MS_MAX)?;
        within("election_ms", self.election_ms, 1, ELECTION_MS_MAX)?;
        within("heartbeat_ms", self.heartbeat_ms, self.tick_ms, ELECTION_MS_MAX)?;
        within("segment_bytes", self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
        within("mtu", u64::from(self.mtu), u64::from(MTU_MIN), u64::from(MTU_MAX))?;
        within("connections_max", u64::from(self.connections_max), 1, u64::from(CONNECTIONS_MAX))?;
        multiple("heartbeat_ms", self.heartbeat_ms, "tick_ms", self.tick_ms)?;
        multiple("election_ms", self.election_ms, "tick_ms", self.tick_ms)?;
        multiple("segment_bytes", self.segment_bytes, "the page size", SEGMENT_BYTES_STEP)?;
        if self.election_ms < HEARTBEATS_PER_ELECTION_MIN * self.heartbeat_ms {
            return Err(ConfigError::Relation(format!(
                "election_ms is {}, it has to be at least {HEARTBEATS_PER_ELECTION_MIN} times heartbeat_ms, which is {}: \
                 else one lost packet is an election",
                self.election_ms, self.heartbeat_ms
            )));
        }
        Ok(())
    }
}

impl Layer {
    /// Reads a file. Relative paths in it become relative to the file's directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`], [`ConfigError::TooLarge`], [`ConfigError::File`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_path_buf(), source };
        let found = fs::metadata(path).map_err(read)?.len();
        if found > FILE_BYTES_MAX {
            return Err(ConfigError::TooLarge { path: path.to_path_buf(), found });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(read)?)
    }

    /// Reads the text of a file that stands at `path`.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut layer: Self = toml::from_str(text)
            .map_err(|error| ConfigError::File { path: path.to_path_buf(), source: Box::new(error) })?;
        layer.rebase(path.parent().unwrap_or(Path::new("")));
        Ok(layer)
    }

    /// Takes the keys that the environment gives. An empty value counts as not given.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Environment`].
    pub fn from_environment(
        environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (name, value) in environment {
            let Some(key) = name.to_str().and_then(|name| KEYS.into_iter().find(|key| variable(key) == name))
            else {
                continue;
            };
            let wrong = |reason: &str| ConfigError::Environment {
                variable: variable(key),
                value: value.to_string_lossy().into_owned(),
                reason: reason.to_owned(),
            };
            match value.to_str() {
                Some("") => {}
                Some(text) => layer.set(key, text).map_err(|reason| wrong(&reason))?,
                None => return Err(wrong("is not UTF-8")),
            }
        }
        Ok(layer)
    }

    /// This layer where it says something, `below` where it does not.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            data: self.data.or(below.data),
            listen: self.listen.or(below.listen),
            tick_ms: self.tick_ms.or(below.tick_ms),
            heartbeat_ms: self.heartbeat_ms.or(below.heartbeat_ms),
            election_ms: self.election_ms.or(below.election_ms),
            segment_bytes: self.segment_bytes.or(below.segment_bytes),
            mtu: self.mtu.or(below.mtu),
            connections_max: self.connections_max.or(below.connections_max),
            tls: TlsLayer {
                ca_peers: self.tls.ca_peers.or(below.tls.ca_peers),
                ca_clients: self.tls.ca_clients.or(below.tls.ca_clients),
                cert: self.tls.cert.or(below.tls.cert),
                key: self.tls.key.or(below.tls.key),
            },
        }
    }

    /// Sets one of [`KEYS`] from text, as an environment variable or a flag gives it.
    ///
    /// # Errors
    ///
    /// In plain words: what the value is not, or that there is no such key.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "data" => self.data = Some(value.into()),
            "listen" => self.listen = Some(parse(value, "an address such as 127.0.0.1:7400")?),
            "tls.ca_peers" => self.tls.ca_peers = Some(value.into()),
            "tls.ca_clients" => self.tls.ca_clients = Some(value.into()),
            "tls.cert" => self.tls.cert = Some(value.into()),
            "tls.key" => self.tls.key = Some(value.into()),
            "tick_ms" => self.tick_ms = Some(parse(value, "a number of milliseconds")?),
            "heartbeat_ms" => self.heartbeat_ms = Some(parse(value, "a number of milliseconds")?),
            "election_ms" => self.election_ms = Some(parse(value, "a number of milliseconds")?),
            "segment_bytes" => self.segment_bytes = Some(parse(value, "a number of bytes")?),
            "mtu" => self.mtu = Some(parse(value, "a number of bytes below 65536")?),
            "connections_max" => self.connections_max = Some(parse(value, "a count")?),
            _ => return Err(format!("there is no key `{key}`; the keys are {}", KEYS.join(", "))),
        }
        Ok(())
    }

    fn rebase(&mut self, directory: &Path) {
        let tls = &mut self.tls;
        let paths = [&mut self.data, &mut tls.ca_peers, &mut tls.ca_clients, &mut tls.cert, &mut tls.key];
        for path in paths.into_iter().flatten() {
            // Joining keeps an absolute path as it is.
            *path = directory.join(&*path);
        }
    }
}

/// The name of a key in the environment.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn parse<T: FromStr>(value: &str, wanted: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("is not {wanted}"))
}

fn within(key: &str, found: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(ConfigError::Relation(format!("{key} is {found}, it has to be between {least} and {most}")))
}

fn multiple(key: &str, found: u64, of: &str, step: u64) -> Result<(), ConfigError> {
    if found.is_multiple_of(step) {
        return Ok(());
    }
    Err(ConfigError::Relation(format!("{key} is {found}, it has to be a multiple of {of}, which is {step}")))
}

#[cfg(test)]
mod tests;
