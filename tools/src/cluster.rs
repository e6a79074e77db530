//! A cluster of child processes: brokers on loopback ports, which end with the process that started them.
//!
//! The children are this very program, run as `sequor serve`: real QUIC, real certificates, real files. Each writes its
//! log to `broker-N.log` in the cluster's directory. They hold the other end of a pipe, and die when it closes: also a
//! quickstart that is killed leaves no process behind.
//!
//! Quickstart, torture and bench all run theirs from here, and do to them what can be done to a process: end it, stop it,
//! let it go on, give it other keys for its next start.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::time::sleep;

use sequor_broker::setup::{ClusterDir, SetupError};
use sequor_client::{Client, Config, protocol::BrokerId};

use crate::{
    exit::{Exit, Failure, Verdict},
    status::{self, Row, StatusError},
};

/// Lines of a broker's log that are shown when it ended by itself. Count.
const LOG_LINES_SHOWN: usize = 5;
/// Longest wait for a leader.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one broker to say how it is: a dead one says nothing.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);
/// Pause between two looks at a condition.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// Why there is no cluster, or not any more.
#[derive(Debug, Error)]
pub(crate) enum ClusterError {
    /// Its files could not be made.
    #[error("cannot make a cluster")]
    Setup(#[from] SetupError),
    /// There is no free port, or this program cannot be found or run.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A broker ended without being told to.
    #[error("broker {id} ended by itself with {status}; its log {} ends with:\n{last}", .log.display())]
    Ended {
        /// Which.
        id: BrokerId,
        /// How.
        status: ExitStatus,
        /// Where its log is.
        log: PathBuf,
        /// The last lines of it.
        last: String,
    },
    /// A broker was told to stop, and did not stop well.
    #[error("broker {id} was told to stop, and ended with {status}; its log {} ends with:\n{last}", .log.display())]
    Stopped {
        /// Which.
        id: BrokerId,
        /// How.
        status: ExitStatus,
        /// Where its log is.
        log: PathBuf,
        /// The last lines of it.
        last: String,
    },
    /// A broker that had to end did not.
    #[error("broker {id} did not end within {} s", .waited.as_secs())]
    Lives {
        /// Which.
        id: BrokerId,
        /// How long was waited.
        waited: Duration,
    },
    /// No leader was elected.
    #[error("the brokers elected no leader within {} s", PATIENCE.as_secs())]
    NoLeader(#[source] StatusError),
}

impl Verdict for ClusterError {
    fn exit(&self) -> Exit {
        match self {
            Self::Ended { .. } | Self::Stopped { .. } | Self::Lives { .. } | Self::NoLeader(_) => {
                Exit::Unhealthy
            }
            Self::Setup(error) => error.exit(),
            Self::System { .. } => Exit::Error,
        }
    }
}

/// Brokers as child processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    made: ClusterDir,
    program: PathBuf,
    running: Vec<(BrokerId, Child)>,
    /// What is set over the configuration of a broker, key by key.
    keys: BTreeMap<(BrokerId, String), String>,
}

impl Cluster {
    /// Makes a cluster of `count` brokers in `dir` and starts them all. They elect a leader by themselves.
    ///
    /// # Errors
    /// If `dir` is not empty or the processes cannot be started.
    pub(crate) fn start(dir: &Path, count: usize) -> Result<Self, ClusterError> {
        let mut cluster = Self::make(dir, &free_addresses(count)?)?;
        cluster.launch_all()?;
        Ok(cluster)
    }

    /// Makes a cluster in `dir` whose brokers are known at these addresses, and starts none of them.
    ///
    /// # Errors
    /// If `dir` is not empty.
    pub(crate) fn make(dir: &Path, addresses: &[SocketAddr]) -> Result<Self, ClusterError> {
        let made = ClusterDir::create(dir, addresses)?;
        let program = std::env::current_exe().map_err(system("find this program's own file"))?;
        Ok(Self { made, program, running: Vec::new(), keys: BTreeMap::new() })
    }

    /// Sets a key over a broker's configuration, from its next start on.
    pub(crate) fn set(&mut self, id: BrokerId, key: &str, value: impl Into<String>) {
        self.keys.insert((id, key.to_owned()), value.into());
    }

    /// Starts all brokers, of which none may run.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub(crate) fn launch_all(&mut self) -> Result<(), ClusterError> {
        self.ids().into_iter().try_for_each(|id| self.launch(id))
    }

    /// The ids of all brokers, running or not.
    pub(crate) fn ids(&self) -> Vec<BrokerId> {
        self.made.brokers().iter().map(|(id, _)| *id).collect()
    }

    /// The directory of the cluster.
    pub(crate) fn dir(&self) -> &Path {
        self.made.path()
    }

    /// The data directory that a broker was made with.
    pub(crate) fn data(&self, id: BrokerId) -> PathBuf {
        match self.keys.get(&(id, "data".to_owned())) {
            Some(path) => path.into(),
            None => self.made.path().join(format!("broker-{id}")),
        }
    }

    /// The context file with which a client reaches this cluster.
    pub(crate) fn context(&self) -> PathBuf {
        self.made.context()
    }

    /// Starts one broker that is not running.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(crate) fn launch(&mut self, id: BrokerId) -> Result<(), ClusterError> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(id));
        let log = log.map_err(system("open a broker's log"))?;
        let child = Command::new(&self.program)
            .args(["serve", "--die-with-stdin", "--config"])
            .arg(self.made.config(id))
            .args(
                self.keys
                    .iter()
                    .filter(|((of, _), _)| *of == id)
                    .flat_map(|((_, key), value)| ["--set".to_owned(), format!("{key}={value}")]),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(system("start a broker"))?;
        self.running.push((id, child));
        Ok(())
    }

    /// Kills one broker with SIGKILL: it gets no chance to do anything more.
    ///
    /// # Errors
    /// If the system does not let us, or the broker ended by itself before.
    pub(crate) fn kill(&mut self, id: BrokerId) -> Result<(), ClusterError> {
        self.kill_all(&[id])
    }

    /// Kills these brokers with SIGKILL, as nearly at once as one can.
    ///
    /// # Errors
    /// As [`Cluster::kill`].
    pub(crate) fn kill_all(&mut self, ids: &[BrokerId]) -> Result<(), ClusterError> {
        self.check()?;
        let (doomed, left) =
            std::mem::take(&mut self.running).into_iter().partition(|(id, _)| ids.contains(id));
        let mut doomed: Vec<(BrokerId, Child)> = doomed;
        self.running = left;
        doomed.iter_mut().try_for_each(|(_, child)| child.kill()).map_err(system("kill a broker"))?;
        doomed.iter_mut().try_for_each(|(_, child)| child.wait().map(drop)).map_err(system("kill a broker"))
    }

    /// Sends a signal to a broker that runs.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn signal(&self, id: BrokerId, signal: Signal) -> Result<(), ClusterError> {
        let Some((_, child)) = self.running.iter().find(|(running, _)| *running == id) else { return Ok(()) };
        kill_process(Pid::from_child(child), signal)
            .map_err(io::Error::from)
            .map_err(system("send a signal to a broker"))
    }

    /// The process of a broker that runs.
    pub(crate) fn process(&self, id: BrokerId) -> Option<u32> {
        self.running.iter().find(|(running, _)| *running == id).map(|(_, child)| child.id())
    }

    /// Waits until a broker has ended that was told to, or made to, and says how it did.
    ///
    /// # Errors
    /// [`ClusterError::Lives`] after `patience`.
    pub(crate) async fn ended(
        &mut self,
        id: BrokerId,
        patience: Duration,
    ) -> Result<ExitStatus, ClusterError> {
        let start = Instant::now();
        loop {
            let at = self.running.iter().position(|(running, _)| *running == id);
            let Some(at) = at else { return Ok(ExitStatus::default()) };
            if let Some(status) = self.running[at].1.try_wait().map_err(system("look after a broker"))? {
                self.running.swap_remove(at);
                return Ok(status);
            }
            if start.elapsed() > patience {
                return Err(ClusterError::Lives { id, waited: patience });
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until a broker has ended that was told to stop. It has to do so with code 0: a panic or a halt on the way is
    /// one all the same, and so is one of just before.
    ///
    /// # Errors
    /// [`ClusterError::Lives`] after `patience`; [`ClusterError::Stopped`] with the end of the broker's log.
    pub(crate) async fn stopped(&mut self, id: BrokerId, patience: Duration) -> Result<(), ClusterError> {
        let status = self.ended(id, patience).await?;
        if status.success() {
            return Ok(());
        }
        Err(ClusterError::Stopped { id, status, log: self.log(id), last: self.last_lines(id) })
    }

    /// The last lines of a broker's log.
    pub(crate) fn last_lines(&self, id: BrokerId) -> String {
        last_lines(&self.log(id))
    }

    /// Makes sure that every broker that was started and not killed still runs.
    ///
    /// # Errors
    /// [`ClusterError::Ended`] with the end of the broker's log.
    pub(crate) fn check(&mut self) -> Result<(), ClusterError> {
        for (id, child) in &mut self.running {
            if let Some(status) = child.try_wait().map_err(system("look after a broker"))? {
                let id = *id;
                let log = self.log(id);
                let last = last_lines(&log);
                return Err(ClusterError::Ended { id, status, log, last });
            }
        }
        Ok(())
    }

    fn log(&self, id: BrokerId) -> PathBuf {
        self.made.path().join(format!("broker-{id}.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            // One that has ended already is none to end.
            let _ = child.kill();
        }
        for (_, child) in &mut self.running {
            let _ = child.wait();
        }
    }
}

/// Loopback addresses whose ports are free now. All are bound at once, so that they differ.
///
/// # Errors
/// If there are none.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, ClusterError> {
    let sockets: io::Result<Vec<_>> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    let addresses = sockets.and_then(|sockets| sockets.iter().map(UdpSocket::local_addr).collect());
    addresses.map_err(system("find free ports on 127.0.0.1"))
}

/// Connects to a cluster whose brokers have just been started. One that ends by itself says why: nobody else would answer
/// before the deadline, and then say less.
///
/// # Errors
/// If nobody answers, or a broker ends by itself.
pub(crate) async fn connect(cluster: &mut Cluster, config: &Config) -> Result<Client, Failure> {
    let ended = async {
        loop {
            if let Err(error) = cluster.check() {
                return error;
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        error = ended => Err(error.into()),
        client = Client::connect(config) => Ok(client?),
    }
}

/// Waits until a majority follows a leader.
///
/// # Errors
/// If that takes longer than [`PATIENCE`], or a broker ends by itself.
pub(crate) async fn wait_for_leader(
    cluster: &mut Cluster,
    client: &Client,
    config: &Config,
) -> Result<BrokerId, Failure> {
    let start = Instant::now();
    loop {
        cluster.check()?;
        let rows: Vec<Row> = status::ask(client, &config.brokers, ANSWER_TIMEOUT).await;
        match status::leader(&rows) {
            Ok(leader) => return Ok(BrokerId(leader)),
            Err(error) if start.elapsed() > PATIENCE => return Err(ClusterError::NoLeader(error).into()),
            Err(_) => sleep(LOOK).await,
        }
    }
}

fn last_lines(path: &Path) -> String {
    let text = File::open(path).and_then(io::read_to_string).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::System { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKER: BrokerId = BrokerId(1);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A shell in the place of a broker, once it has done what this script does before it says `ready`.
    async fn cluster(dir: &Path, script: &str) -> Cluster {
        let mut cluster = Cluster::make(dir, &free_addresses(1).unwrap()).unwrap();
        let log = File::create(cluster.log(BROKER)).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).stderr(log);
        cluster.running.push((BROKER, command.spawn().unwrap()));
        let start = Instant::now();
        while !cluster.last_lines(BROKER).contains("ready") {
            assert!(start.elapsed() < PATIENCE, "it is not ready");
            sleep(LOOK).await;
        }
        cluster
    }

    async fn stopped(script: &str) -> Result<(), ClusterError> {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = cluster(&dir.path().join("cluster"), script).await;
        cluster.signal(BROKER, Signal::TERM).unwrap();
        cluster.stopped(BROKER, PATIENCE).await
    }

    #[tokio::test]
    async fn who_is_told_to_stop_has_to_do_it_well() {
        let after = "echo ready >&2; while :; do sleep 0.01; done";
        stopped(&format!("trap 'exit 0' TERM; {after}")).await.unwrap();
        let error = stopped(&format!("trap 'echo index out of bounds >&2; exit 101' TERM; {after}")).await;
        let said = error.unwrap_err().to_string();
        assert!(said.starts_with("broker 1 was told to stop, and ended with exit status: 101"), "{said}");
        assert!(said.ends_with("index out of bounds"), "{said}");
        let said = stopped(after).await.unwrap_err().to_string();
        assert!(said.contains("signal: 15"), "{said}");
        let said = stopped("echo ready >&2; exit 5").await.unwrap_err().to_string();
        assert!(said.contains("exit status: 5"), "just before: {said}");
    }
}
