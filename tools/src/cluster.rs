//! A cluster of child processes: three brokers on free loopback ports, which end with the process that started them.
//!
//! The children are this very program, run as `sequor serve`: real QUIC, real certificates, real files. Each writes its
//! log to `broker-N.log` in the cluster's directory. They hold the other end of a pipe, and die when it closes: also a
//! quickstart that is killed leaves no process behind.

use std::{
    fs::{File, OpenOptions},
    io,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use thiserror::Error;

use sequor_broker::setup::{ClusterDir, SetupError};
use sequor_client::protocol::BrokerId;

use crate::exit::{Exit, Verdict};

/// Lines of a broker's log that are shown when it ended by itself. Count.
const LOG_LINES_SHOWN: usize = 5;

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
}

impl Verdict for ClusterError {
    fn exit(&self) -> Exit {
        match self {
            Self::Ended { .. } => Exit::Unhealthy,
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
}

impl Cluster {
    /// Makes a cluster of `count` brokers in `dir` and starts them all. They elect a leader by themselves.
    ///
    /// # Errors
    /// If `dir` is not empty or the processes cannot be started.
    pub(crate) fn start(dir: &Path, count: usize) -> Result<Self, ClusterError> {
        let addresses = free_addresses(count)?;
        let made = ClusterDir::create(dir, &addresses)?;
        let program = std::env::current_exe().map_err(system("find this program's own file"))?;
        let mut cluster = Self { made, program, running: Vec::new() };
        for id in cluster.ids() {
            cluster.launch(id)?;
        }
        Ok(cluster)
    }

    /// The ids of all brokers, running or not.
    pub(crate) fn ids(&self) -> Vec<BrokerId> {
        self.made.brokers().iter().map(|(id, _)| *id).collect()
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
        self.check()?;
        let Some(at) = self.running.iter().position(|(running, _)| *running == id) else { return Ok(()) };
        let (_, mut child) = self.running.swap_remove(at);
        child.kill().and_then(|()| child.wait()).map_err(system("kill a broker"))?;
        Ok(())
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
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, ClusterError> {
    let sockets: io::Result<Vec<_>> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    let addresses = sockets.and_then(|sockets| sockets.iter().map(UdpSocket::local_addr).collect());
    addresses.map_err(system("find free ports on 127.0.0.1"))
}

fn last_lines(path: &Path) -> String {
    let text = File::open(path).and_then(io::read_to_string).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::System { what, source }
}
