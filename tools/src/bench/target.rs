//! The cluster that is measured: one of our own, child processes behind a relay or not, or that of the context.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::ValueHint;
use thiserror::Error;
use tokio::time::sleep;

use sequor_client::{Client, Config};

use super::{
    gauges::{Costs, ProcError, Processes, Sample},
    lists::{Stage, Timing, between, round_trip},
    load::Window,
    meter::micros,
    outcome::time,
    progress::Progress,
};
use crate::{
    cli::Global,
    cluster::{Cluster, LOOK, connect, free_addresses, wait_for_leader},
    exit::{Exit, Failure, Verdict},
    place::Place,
    relay::{Conditions, Relay},
    remote,
};

/// Name of a cluster's directory.
const CLUSTER: &str = "cluster";
/// Most bytes in flight of one producer: more than any broker takes at once.
const IN_FLIGHT_BYTES: usize = 256 << 20;
/// Time without a byte written to the disk after which brokers are at rest: they have filled their spare segments.
const REST: Duration = Duration::from_millis(200);
/// Longest wait for that. A disk that takes longer is slow, or busy with somebody else.
const REST_TIMEOUT: Duration = Duration::from_secs(20);

/// The one cluster that is measured, by commands that sweep over something else.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OneCluster {
    /// Brokers in the cluster.
    #[arg(long, default_value = "3", value_parser = between(1..=9))]
    pub(super) brokers: u64,

    /// The way between any two programs, there and back: 0, 500us, 5ms, up to 2s.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = round_trip)]
    pub(super) rtt: Duration,

    /// Measure the cluster of the context, instead of one of its own. What is written stays in its log.
    #[arg(long, conflicts_with_all = ["brokers", "rtt", "set"])]
    pub(super) existing: bool,

    /// Make the cluster in this directory, which has to be there, on the disk that is to be measured.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,

    /// Set one key of the brokers' configuration. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::serve::assignment)]
    pub(super) set: Vec<(String, String)>,
}

impl OneCluster {
    /// Starts it, or connects to it.
    pub(super) async fn target(
        &self,
        place: &Place,
        global: &Global,
        progress: &Progress,
    ) -> Result<Target, Failure> {
        if self.existing {
            return Target::existing(global).await;
        }
        let stage = Stage { brokers: self.brokers, rtt: self.rtt };
        progress.begin("a cluster starts");
        Target::start(place, stage, &self.set, (global, progress)).await
    }
}

/// There is no directory for clusters.
#[derive(Debug, Error)]
pub(super) enum DirError {
    /// A name that was mistyped would be on another disk.
    #[error("there is no directory {dir}: make it first, on the disk that is to be measured")]
    Missing { dir: String },
    /// The system does not let us.
    #[error("cannot make a directory for clusters in {dir}")]
    Make { dir: String, source: std::io::Error },
}

impl Verdict for DirError {
    fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. } => Exit::Usage,
            Self::Make { .. } => Exit::Error,
        }
    }
}

/// Where clusters are made: in a directory of our own, on the disk that was asked for.
pub(super) fn place(dir: Option<&PathBuf>) -> Result<Place, Failure> {
    let Some(dir) = dir else { return Ok(Place::new(None, "sequor-bench-")?) };
    let named = dir.display().to_string();
    if !dir.is_dir() {
        return Err(DirError::Missing { dir: named }.into());
    }
    let own = tempfile::Builder::new().prefix("sequor-bench-").tempdir_in(dir);
    let own = own.map_err(|source| DirError::Make { dir: named, source })?;
    Ok(Place::Temporary(own))
}

/// See the file's header. Fields end in their order: clients before brokers, brokers before their network.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) config: Config,
    /// Our own brokers, if they are ours.
    cluster: Option<Cluster>,
    /// What is between everybody, if the way is long.
    relay: Option<Relay>,
    pub(super) stage: Stage,
    /// When our brokers lose patience. What others do is not known.
    pub(super) timing: Option<Timing>,
    dir: Option<PathBuf>,
}

impl Target {
    /// Starts brokers, and waits until they have a leader. One cluster at a time has the place.
    pub(super) async fn start(
        place: &Place,
        stage: Stage,
        set: &[(String, String)],
        (global, progress): (&Global, &Progress),
    ) -> Result<Self, Failure> {
        let dir = &place.path().join(CLUSTER);
        let listens = free_addresses(usize::try_from(stage.brokers).expect("it has a limit"))?;
        let relay = (!stage.rtt.is_zero()).then(|| Relay::start(&listens, 0)).transpose()?;
        if let Some(relay) = &relay {
            relay.set_all(Conditions { delay: stage.rtt / 2, ..Conditions::default() });
        }
        let known = relay.as_ref().map_or(&listens[..], Relay::fronts);
        let mut cluster = Cluster::make(dir, known)?;
        let timing = stage.timing().with(set);
        for (id, listen) in cluster.ids().into_iter().zip(&listens) {
            cluster.set(id, "listen", listen.to_string());
            cluster.set(id, "heartbeat_ms", timing.heartbeat_ms.to_string());
            cluster.set(id, "election_ms", timing.election_ms.to_string());
            set.iter().for_each(|(key, value)| cluster.set(id, key, value));
        }
        if !stage.rtt.is_zero() {
            let (rtt, Timing { heartbeat_ms, election_ms }) = (time(micros(stage.rtt)), timing);
            progress.news(&format!(
                "round trip {rtt}: heartbeats every {heartbeat_ms} ms, elections after {election_ms} to {} ms",
                2 * election_ms
            ));
        }
        cluster.launch_all()?;
        let config = within(Config::load(cluster.context())?, global);
        let client = connect(&mut cluster, &config).await?;
        wait_for_leader(&mut cluster, &client, &config).await?;
        let (cluster, timing, dir) = (Some(cluster), Some(timing), Some(dir.clone()));
        Ok(Self { client, config, cluster, relay, stage, timing, dir })
    }

    /// Connects to the cluster of the context.
    pub(super) async fn existing(global: &Global) -> Result<Self, Failure> {
        let config = within(remote::config(global)?, global);
        let client = Client::connect(&config).await?;
        let stage = Stage { brokers: config.brokers.len() as u64, rtt: Duration::ZERO };
        Ok(Self { client, config, cluster: None, relay: None, stage, timing: None, dir: None })
    }

    /// What is put between everybody, there and back. How far the brokers of others are is not known. Microseconds.
    pub(super) fn rtt_us(&self) -> Option<u64> {
        self.cluster.is_some().then(|| micros(self.stage.rtt))
    }

    /// The brokers' processes, if they are ours.
    pub(super) fn processes(&self) -> Option<Vec<u32>> {
        let cluster = self.cluster.as_ref()?;
        Some(cluster.ids().into_iter().filter_map(|id| cluster.process(id)).collect())
    }

    /// Waits until brokers of ours write nothing to their disks, and says so if they never stop.
    pub(super) async fn rest(&self, progress: &Progress) -> Result<(), ProcError> {
        let Some(processes) = self.processes() else { return Ok(()) };
        let start = Instant::now();
        let (mut written, mut since) = (None, start);
        while since.elapsed() < REST {
            if start.elapsed() > REST_TIMEOUT {
                progress.news(&format!(
                    "after {} s the brokers still write to their disks: what is measured next may suffer from it",
                    REST_TIMEOUT.as_secs()
                ));
                break;
            }
            let now = Some(Processes::read(&processes)?.written());
            if now != written {
                (written, since) = (now, Instant::now());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What a window costs: waits for its beginning and for its end.
    pub(super) async fn watch(&self, window: Window, size: u64) -> Result<Costs, Failure> {
        let processes = self.processes();
        let sample = || Sample::take(&self.client, &self.config, self.stage.rtt, processes.as_deref());
        sleep(window.from.saturating_duration_since(Instant::now())).await;
        let before = sample().await?;
        sleep(window.to.saturating_duration_since(Instant::now())).await;
        let after = sample().await?;
        Ok(Costs::between(&before, &after, self.stage.brokers, size))
    }

    /// Makes sure that all our brokers still run.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        Ok(self.cluster.as_mut().map_or(Ok(()), Cluster::check)?)
    }

    /// Datagrams that the relay had no room for: nothing that a network of the given round trip would have lost.
    pub(super) fn overflowed(&self) -> u64 {
        self.relay.as_ref().map_or(0, |relay| relay.traffic().overflowed)
    }

    /// Ends it, and removes what it has written.
    pub(super) async fn end(self) {
        let Self { client, cluster, relay, dir, .. } = self;
        client.close().await;
        drop(cluster);
        drop(relay);
        if let Some(dir) = dir {
            // What stays is in a temporary directory, or in one that the user named and will find.
            let _stays = std::fs::remove_dir_all(dir);
        }
    }
}

fn within(mut config: Config, global: &Global) -> Config {
    config.deadline = global.deadline;
    config.in_flight_bytes = IN_FLIGHT_BYTES;
    config
}
