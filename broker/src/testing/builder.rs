//! What an embedded cluster is to be, before it is.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use sequor_client::{protocol::BrokerId, transport};
use tempfile::TempDir;

use super::{cluster::Cluster, error::ClusterError};
use crate::{
    config::{Config, Layer},
    setup::{ClusterDir, addresses},
};

/// Brokers, if nothing else is said: the fewest that survive a death. Count.
const BROKERS: u64 = 3;
/// Longest wait for anything that a cluster is asked to do, if nothing else is said.
const DEADLINE: Duration = Duration::from_secs(30);

/// Segments of a cluster for tests: the smallest, because they are filled with zeros before a broker uses them. Bytes.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Timers of a cluster for tests: slower than by default, because many brokers share a machine there, beside other
/// tests, and a change of leader that nobody asked for makes a test see what it does not expect. Milliseconds.
const HEARTBEAT_MS: u64 = 50;
const ELECTION_MS: u64 = 500;

/// What a cluster is to be: [`Cluster::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `start`"]
pub struct Builder {
    brokers: Option<u64>,
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    settings: Layer,
    deadline: Duration,
}

/// A cluster that is there and does not run yet.
#[derive(Debug)]
pub(super) struct Plan {
    /// What removes the files of a cluster that is not to stay.
    pub(super) temporary: Option<TempDir>,
    pub(super) dir: ClusterDir,
    pub(super) configs: Vec<(BrokerId, Config)>,
    /// Bound sockets of a new cluster, in the order of its brokers, so that nobody else takes their ports meanwhile.
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) client: sequor_client::Config,
    pub(super) deadline: Duration,
}

impl Builder {
    pub(super) fn new() -> Self {
        let settings = Layer {
            segment_bytes: Some(SEGMENT_BYTES),
            heartbeat_ms: Some(HEARTBEAT_MS),
            election_ms: Some(ELECTION_MS),
            ..Layer::default()
        };
        Self { brokers: None, data: None, listen: None, settings, deadline: DEADLINE }
    }

    /// How many brokers. Default: 3, or as many as the directory has. 1 starts faster and survives nothing.
    pub fn brokers(mut self, brokers: u64) -> Self {
        self.brokers = Some(brokers);
        self
    }

    /// A directory for the cluster's files, which stays. A cluster that is there already goes on; else one is made,
    /// in a directory that is empty or not there. Default: a temporary directory, removed with the cluster.
    pub fn data(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// Where the first broker listens; the others take the ports that follow. Default: free ports of 127.0.0.1, or
    /// what the directory has.
    pub fn listen(mut self, first: SocketAddr) -> Self {
        self.listen = Some(first);
        self
    }

    /// What goes over the configuration files of the brokers, key by key. Default: segments of 8 MiB, a heartbeat
    /// every 50 ms, elections after 500 ms; [`Layer::default`] leaves the files, and so what `sequor serve` has.
    pub fn settings(mut self, settings: Layer) -> Self {
        self.settings = settings;
        self
    }

    /// Longest wait for anything that the cluster is asked to do. Default: 30 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Makes the cluster, or finds it, and starts all its brokers. They elect a leader by themselves:
    /// [`Cluster::leader`] waits for it, and a client does so too.
    ///
    /// # Errors
    ///
    /// [`ClusterError`]. A broker whose directory is in use is [`ClusterError::Broker`]; nothing runs on then.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        Cluster::run(self.plan()?).await
    }

    fn plan(self) -> Result<Plan, ClusterError> {
        let (temporary, path) = match &self.data {
            Some(path) => (None, path.clone()),
            None => {
                let made = tempfile::Builder::new().prefix("sequor-testing-").tempdir();
                let made = made.map_err(ClusterError::Temporary)?;
                let path = made.path().to_path_buf();
                (Some(made), path)
            }
        };
        let (dir, sockets) = match ClusterDir::find(&path)? {
            Some(dir) => {
                self.compare(&dir)?;
                (dir, Vec::new())
            }
            None => {
                let sockets = self.bind()?;
                let addresses = sockets.iter().map(|(address, _)| *address).collect::<Vec<_>>();
                let sockets = sockets.into_iter().map(|(_, socket)| socket).collect();
                (ClusterDir::create(&path, &addresses)?, sockets)
            }
        };
        let config = |(id, _): &(BrokerId, SocketAddr)| {
            let config = Config::load(&dir.config(*id), [], self.settings.clone());
            config.map(|config| (*id, config)).map_err(|source| ClusterError::Config { id: *id, source })
        };
        let configs = dir.brokers().iter().map(config).collect::<Result<_, _>>()?;
        let client = sequor_client::Config::load(dir.context())?;
        Ok(Plan { temporary, dir, configs, sockets, client, deadline: self.deadline })
    }

    /// Makes sure that the cluster that is there is the one that is asked for.
    fn compare(&self, dir: &ClusterDir) -> Result<(), ClusterError> {
        let other = |found: String, asked: String| {
            Err(ClusterError::Other { dir: dir.path().to_path_buf(), found, asked })
        };
        let count = dir.brokers().len();
        if let Some(asked) = self.brokers.filter(|asked| usize::try_from(*asked) != Ok(count)) {
            let brokers = |count: u64| format!("{count} broker{}", if count == 1 { "" } else { "s" });
            return other(brokers(count as u64), brokers(asked));
        }
        let first = dir.brokers().first().map(|(_, address)| *address);
        if let (Some(asked), Some(first)) = (self.listen, first)
            && asked != first
        {
            return other(format!("its first broker on {first}"), asked.to_string());
        }
        Ok(())
    }

    /// The sockets of a new cluster, all bound at once, so that their ports differ.
    fn bind(&self) -> Result<Vec<(SocketAddr, UdpSocket)>, ClusterError> {
        let brokers = self.brokers.unwrap_or(BROKERS);
        let asked = match self.listen {
            Some(first) => addresses(&[first], brokers)?,
            None => (0..brokers).map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).collect(),
        };
        let bind = |address: SocketAddr| {
            let bound = transport::socket(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
            bound.map_err(|source| ClusterError::Listen { address, source })
        };
        asked.into_iter().map(bind).collect()
    }
}
