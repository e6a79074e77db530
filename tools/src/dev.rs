//! `sequor dev`: a cluster in one process, to develop against.
//!
//! The brokers are those that `serve` runs, each in a thread of its own, with the files that `certs init` makes: what is
//! written is durable, and `dev` again goes on with it. Where it is, in `./sequor-dev`, is where every other command
//! looks for a context, so that beside it nothing has to be said but `sequor append` and `sequor tail`.
//!
//! Ctrl-C or SIGTERM: the brokers sync and stop, and it ends with code 0, as `serve` does.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use indicatif::ProgressBar;
use serde::Serialize;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use sequor_broker::{
    config::Layer,
    io::ServeError,
    setup::ClusterDir,
    testing::{Cluster, ClusterError},
};
use sequor_client::protocol::BrokerId;
use sequor_wal::disk::mmap::OpenDirError;

use crate::{
    cli::{Global, Shape},
    context,
    exit::{Exit, Failure, Verdict},
    output, shell,
    visible::visible_path,
    words::plain_count,
};

/// Where the first broker listens, if nothing else is said.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7400);
/// Pause between two steps of what moves on a terminal while it is waited.
const STEP: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The brokers are threads of one process; what they write is as durable as with `serve`, and stays: `dev` again goes on
with it. Each broker takes 192 MiB of disk from its start. `serve` can run the same brokers, one process each, from the
same directory, when `dev` does not.

Examples:
  sequor dev                                              three brokers, data in ./sequor-dev
  seq 1000 | sequor append --producer numbers             in another terminal, in the same directory
  sequor tail
  sequor dev --brokers 1 --data /tmp/small --listen 127.0.0.1:9000
  sequor dev -o json > ready.json &                       one line when it is ready, for scripts")]
pub(crate) struct DevArgs {
    /// Number of brokers, 1 or 3. Default: 3, or as many as the directory has.
    #[arg(long, value_name = "N", value_parser = brokers)]
    brokers: Option<u64>,

    /// Directory of the cluster. It is made if it is not there; a cluster that is in it goes on.
    #[arg(long, value_name = "DIR", default_value = "./sequor-dev")]
    data: PathBuf,

    /// Address of the first broker, the others taking the ports that follow. Default: 127.0.0.1:7400, or what the
    /// directory has: a cluster keeps its addresses.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,

    /// How to say that it is ready: in words on stderr, if that is a terminal, or as a line of JSON on stdout.
    #[arg(short, long, default_value = "table")]
    output: Shape,
}

/// Why there is no cluster to develop against, or not any more.
#[derive(Debug, Error)]
pub(crate) enum DevError {
    /// Somebody runs brokers in the directory.
    #[error("{} is in use: another `sequor dev` runs in it, or `sequor serve` one of its brokers", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The lock that is held.
        source: Arc<ServeError>,
    },
    /// Somebody listens where a new cluster is to.
    #[error("cannot listen on {address}: stop who does, or choose other ports with --listen")]
    PortTaken {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody listens where the cluster does.
    #[error(
        "cannot listen on {address}, where the cluster in {} has broker {id} for as long as it lives: stop who does, \
         or make another cluster with --data and --listen", .dir.display()
    )]
    AddressTaken {
        /// Where.
        address: SocketAddr,
        /// Whose address it is.
        id: BrokerId,
        /// The cluster's directory.
        dir: PathBuf,
        /// What the system says.
        source: Arc<ServeError>,
    },
    /// Everything else.
    #[error(transparent)]
    Cluster(ClusterError),
    /// The system does not tell about signals.
    #[error("cannot listen for signals")]
    Signals(#[from] io::Error),
}

impl DevError {
    fn of(dir: &Path, error: ClusterError) -> Self {
        let dir = dir.to_path_buf();
        match error {
            ClusterError::Listen { address, source } => Self::PortTaken { address, source },
            ClusterError::Broker { id, source } => match &*source {
                ServeError::Directory(OpenDirError::InUse { .. }) => Self::InUse { dir, source },
                ServeError::Bind { address, .. } => Self::AddressTaken { address: *address, id, dir, source },
                _ => Self::Cluster(ClusterError::Broker { id, source }),
            },
            other => Self::Cluster(other),
        }
    }
}

impl Verdict for DevError {
    fn exit(&self) -> Exit {
        match self {
            Self::InUse { .. } | Self::Cluster(ClusterError::Other { .. }) => Exit::Precondition,
            Self::Cluster(ClusterError::Setup(error)) => error.exit(),
            Self::Cluster(ClusterError::Addresses(error)) => error.exit(),
            Self::Cluster(ClusterError::Deadline { .. }) => Exit::Unreachable,
            Self::PortTaken { .. } | Self::AddressTaken { .. } | Self::Cluster(_) | Self::Signals(_) => {
                Exit::Error
            }
        }
    }
}

pub(crate) async fn run(args: DevArgs, global: &Global) -> Result<(), Failure> {
    let mut stop = StopSignals::listen().map_err(DevError::from)?;
    let (cluster, leader) = tokio::select! {
        biased;
        () = stop.next() => return Ok(()),
        started = start(&args, global) => started?,
    };
    announce(&args, global, cluster.dir(), leader)?;
    let failure = tokio::select! {
        biased;
        () = stop.next() => None,
        failure = cluster.failure() => Some(failure),
    };
    let failed = |error| DevError::of(&args.data, error);
    match failure {
        None => Ok(cluster.stop().await.map_err(failed)?),
        // What still runs is killed: its log is as safe as that of the one that failed is not.
        Some(failure) => Err(failed(failure).into()),
    }
}

/// Makes the cluster, or finds it, and waits until it has a leader.
async fn start(args: &DevArgs, global: &Global) -> Result<(Cluster, BrokerId), DevError> {
    let _waiting = Waiting::begin("making and starting the brokers");
    let failed = |error| DevError::of(&args.data, error);
    let there = ClusterDir::find(&args.data).map_err(|error| failed(error.into()))?;
    let mut builder =
        Cluster::builder().data(&args.data).settings(Layer::default()).deadline(global.deadline);
    if let Some(brokers) = args.brokers {
        builder = builder.brokers(brokers);
    }
    if let Some(listen) = args.listen.or(there.is_none().then_some(LISTEN)) {
        builder = builder.listen(listen);
    }
    let cluster = builder.start().await.map_err(failed)?;
    let leader = cluster.leader().await.map_err(failed)?;
    Ok((cluster, leader))
}

/// Says that it is ready.
fn announce(args: &DevArgs, global: &Global, dir: &ClusterDir, leader: BrokerId) -> Result<(), Failure> {
    match args.output {
        Shape::Json => output::tell(&(json(dir, leader) + "\n")),
        Shape::Table if io::stderr().is_terminal() => {
            let words = Words {
                dir: dir.path(),
                context: &dir.context(),
                brokers: dir.brokers(),
                leader,
                names_another: global.context.is_some(),
                program: &shell::program(),
            };
            // With stderr closed there is nobody to tell, and the cluster is there all the same.
            let _nobody = io::stderr().write_all(words.text().as_bytes());
            Ok(())
        }
        Shape::Table => Ok(()),
    }
}

/// What a script is told.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    cluster: String,
    context: String,
    leader: u64,
    brokers: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    id: u64,
    address: SocketAddr,
}

fn json(dir: &ClusterDir, leader: BrokerId) -> String {
    let place = |(id, address): &(BrokerId, SocketAddr)| Place { id: id.0, address: *address };
    let ready = Ready {
        ready: true,
        cluster: dir.cluster().to_string(),
        context: dir.context().to_string_lossy().into_owned(),
        leader: leader.0,
        brokers: dir.brokers().iter().map(place).collect(),
    };
    serde_json::to_string(&ready).expect("it has string keys")
}

/// What people are told: where it is, and two commands to paste.
struct Words<'a> {
    dir: &'a Path,
    context: &'a Path,
    brokers: &'a [(BrokerId, SocketAddr)],
    leader: BrokerId,
    /// Something, such as a variable, leads commands to another cluster.
    names_another: bool,
    /// How to call this program.
    program: &'a str,
}

impl Words<'_> {
    fn text(&self) -> String {
        let count = plain_count(self.brokers.len() as u64, "broker");
        let mut text = format!("{count} in {}; broker {} leads\n\n", visible_path(self.dir), self.leader);
        for (id, address) in self.brokers {
            text += &format!("  broker {id}  {address}\n");
        }
        text + &self.commands()
    }

    fn commands(&self) -> String {
        // The other commands find this cluster by themselves, unless it is elsewhere.
        let is_usual = context::is_dev(self.context);
        let again = if is_usual { String::new() } else { format!(" --data {}", shell::word(self.dir)) };
        let context = match is_usual && !self.names_another {
            true => String::new(),
            false => format!(" --context {}", shell::word(self.context)),
        };
        let program = self.program;
        format!(
            "
Ready. In another terminal, in this directory:

  seq 1000 | {program}{context} append --producer numbers
  {program}{context} tail

Ctrl-C stops it. The data stay, and go on with:

  {program} dev{again}
"
        )
    }
}

/// The signals that stop it. From when this is made, they end the program no more by themselves.
#[derive(Debug)]
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Something that moves on a terminal, until it is dropped. Nothing elsewhere.
struct Waiting(ProgressBar);

impl Waiting {
    fn begin(what: &'static str) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.enable_steady_tick(STEP);
        Self(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn brokers(text: &str) -> Result<u64, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("it is 1 or 3; `certs init` and `serve` make and run clusters of other sizes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that are told for a cluster in `dir`.
    fn commands(dir: &str, names_another: bool) -> Vec<String> {
        let brokers = [(BrokerId(1), LISTEN)];
        let (dir, context) = (Path::new(dir), Path::new(dir).join("context.toml"));
        let (context, leader, program) = (&*context, BrokerId(1), "sequor");
        let text = Words { dir, context, brokers: &brokers, leader, names_another, program }.text();
        assert!(text.contains("\n  broker 1  127.0.0.1:7400\n"), "{text}");
        let commands = text.lines().filter_map(|line| line.strip_prefix("  "));
        commands.filter(|line| line.contains("sequor ")).map(str::to_owned).collect()
    }

    #[test]
    fn beside_a_cluster_in_its_usual_place_nothing_has_to_be_named() {
        let usual = ["seq 1000 | sequor append --producer numbers", "sequor tail", "sequor dev"];
        assert_eq!(commands("./sequor-dev", false), usual);
        assert_eq!(commands("sequor-dev", false), usual);
    }

    #[test]
    fn a_cluster_elsewhere_is_named() {
        let named = [
            "seq 1000 | sequor --context 'my dev/context.toml' append --producer numbers",
            "sequor --context 'my dev/context.toml' tail",
            "sequor dev --data 'my dev'",
        ];
        assert_eq!(commands("my dev", false), named);
        let hidden = commands("./sequor-dev", true);
        assert_eq!(hidden[1..], ["sequor --context ./sequor-dev/context.toml tail", "sequor dev"]);
    }

    #[test]
    fn a_script_is_told_where_it_is() {
        let place = tempfile::tempdir().unwrap();
        let made = ClusterDir::create(&place.path().join("made"), &[LISTEN]).unwrap();
        let told: serde_json::Value = serde_json::from_str(&json(&made, BrokerId(1))).unwrap();
        let expected = serde_json::json!({
            "ready": true, "cluster": made.cluster().to_string(), "context": made.context(), "leader": 1,
            "brokers": [{ "id": 1, "address": "127.0.0.1:7400" }],
        });
        assert_eq!(told, expected);
    }
}
