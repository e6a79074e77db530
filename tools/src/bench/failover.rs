//! `sequor bench failover`: from SIGKILL of the leader to the next acknowledged append, under load.
//!
//! ```text
//!   load    ─ batches, many in flight, all the time ───────────────────────────────►
//!   probe      one record ────────────────────────────────────► acknowledged
//!              ▲ SIGKILL to the leader                 │ this long
//! ```
//!
//! The clock is started before the signal is sent. What is measured is a record that was not on its way before: it is
//! handed over as soon as the process is gone, by another client than those that make the load, and has to find out by
//! itself that the leader is gone, and who comes after it. Then the dead broker is started again, and the next kill waits
//! until it has caught up: each time all brokers are well, and any of the others can follow.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueHint;
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;
use thiserror::Error;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use sequor_client::{AppendError, Client, Config, Producer, Record, protocol::batch::BatchBuilder};

use super::{
    lists::{Point, Pressure},
    load,
};
use crate::{
    cli::{Global, Shape},
    cluster::{ANSWER_TIMEOUT, Cluster, LOOK, PATIENCE, connect, wait_for_leader},
    exit::{Exit, Failure, Verdict},
    interruption::Interruptions,
    output,
    place::Place,
    status,
    words::count,
};

/// Significant digits of the histogram.
const DIGITS: u8 = 3;
/// Longest time that it tells from longer ones. Microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Batches that have to be acknowledged before each kill: so many that the load is at its usual speed. Count.
const WARM_BATCHES: u64 = 100;
/// Size of the brokers' segments: the smallest, so that a start has little to fill with zeros. Bytes.
const SEGMENT_BYTES: u64 = 8 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It starts its own brokers, without a relay between them, with the election timeout that is the default, or is given. Their
segments are of 8 MiB, so that a broker that was killed has little to fill before it is killed again.

Examples:
  sequor bench failover
  sequor bench failover --kills 200 --brokers 5 -o json
  sequor bench failover --set election_ms=500 --set heartbeat_ms=100")]
pub(super) struct FailoverArgs {
    /// Times that the leader is killed.
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    kills: u64,

    /// Brokers in the cluster.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u64).range(3..=9))]
    brokers: u64,

    /// Records in a batch of the load.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,

    /// Batches of the load in flight.
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u64).range(1..=1024))]
    in_flight: u64,

    /// Bytes of a record.
    #[arg(long, default_value = "128", value_parser = clap::value_parser!(u64).range(0..=64 << 10))]
    size: u64,

    /// Set one key of the brokers' configuration. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::serve::assignment)]
    set: Vec<(String, String)>,

    /// Make the cluster in this directory, and leave it there.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    keep: Option<PathBuf>,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    output: Shape,
}

/// The measurement cannot go on.
#[derive(Debug, Error)]
enum FailoverError {
    /// The load stands still though nothing is wrong.
    #[error("no batch of the load is acknowledged for {} s", PATIENCE.as_secs())]
    NoLoad,
    /// A broker that came back does not catch up.
    #[error("the brokers are not all well {} s after a restart", PATIENCE.as_secs())]
    NotWell,
}

impl Verdict for FailoverError {
    fn exit(&self) -> Exit {
        Exit::Unhealthy
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Measured {
    kills: u64,
    brokers: u64,
    batch: u64,
    in_flight: u64,
    size: u64,
    /// Batches of the load that were acknowledged.
    batches: u64,
    p50_ms: f64,
    p90_ms: f64,
    max_ms: f64,
    /// Each of them, in their order.
    each_ms: Vec<f64>,
}

pub(super) async fn run(args: FailoverArgs, global: &Global) -> Result<(), Failure> {
    let mut interruptions = Interruptions::listen()?;
    tokio::select! {
        biased;
        interruption = interruptions.next() => Err(interruption.into()),
        measured = measure(args, global) => measured,
    }
}

async fn measure(args: FailoverArgs, global: &Global) -> Result<(), Failure> {
    let FailoverArgs { batch, size, in_flight, .. } = args;
    let batch = load::batch(&Point { batch, size, pressure: Pressure::InFlight(in_flight) })?;
    let place = Place::new(args.keep.clone(), "sequor-bench-")?;
    let addresses = crate::cluster::free_addresses(args.brokers as usize)?;
    let mut cluster = Cluster::make(place.path(), &addresses)?;
    for id in cluster.ids() {
        cluster.set(id, "segment_bytes", SEGMENT_BYTES.to_string());
        args.set.iter().for_each(|(key, value)| cluster.set(id, key, value));
    }
    cluster.launch_all()?;
    let mut config = Config::load(cluster.context())?;
    config.deadline = global.deadline;

    let watching = connect(&mut cluster, &config).await?;
    wait_for_leader(&mut cluster, &watching, &config).await?;
    let load = Load::start(&config, args.in_flight as usize, batch).await?;
    let probing = Client::connect(&config).await?;
    let probe = probing.producer("bench/failover/probe").in_flight(1).open().await?;
    let mut bench = Bench { cluster, config, watching, load, probe, value: vec![b'x'; args.size as usize] };

    let mut each = Vec::new();
    for _ in 0..args.kills {
        each.push(bench.kill().await?);
    }
    let batches = bench.load.stop().await?;
    report(&args, batches, &each)
}

/// What is measured, and with what.
struct Bench {
    cluster: Cluster,
    config: Config,
    watching: Client,
    load: Load,
    probe: Producer,
    value: Vec<u8>,
}

impl Bench {
    /// Kills the leader; how long it took until something was acknowledged again.
    async fn kill(&mut self) -> Result<Duration, Failure> {
        self.load.warm().await?;
        // The way to this leader is known to the probe, as it is to a client at work.
        self.append().await?;
        let leader = wait_for_leader(&mut self.cluster, &self.watching, &self.config).await?;
        // Before the kill: that waits until the process is gone, and the cluster is without a leader meanwhile.
        let start = Instant::now();
        self.cluster.kill(leader)?;
        self.append().await?;
        let took = start.elapsed();
        self.cluster.launch(leader)?;
        self.whole().await?;
        Ok(took)
    }

    async fn append(&self) -> Result<(), AppendError> {
        self.probe.append(Record::new(self.value.clone())).await?.await.map(drop)
    }

    /// Waits until every broker has applied what the leader had committed when it was first seen.
    async fn whole(&mut self) -> Result<(), Failure> {
        let (start, mut wanted) = (Instant::now(), None);
        loop {
            self.cluster.check()?;
            let rows = status::ask(&self.watching, &self.config.brokers, ANSWER_TIMEOUT).await;
            if let Ok(leader) = status::leader(&rows) {
                let commit = rows.iter().find(|row| row.id == leader).and_then(|row| row.commit);
                let wanted = *wanted.get_or_insert(commit);
                if rows.iter().all(|row| row.leader == Some(leader) && row.applied >= wanted) {
                    return Ok(());
                }
            }
            if start.elapsed() > PATIENCE {
                return Err(FailoverError::NotWell.into());
            }
            sleep(LOOK).await;
        }
    }
}

/// Somebody who appends all the time.
struct Load {
    task: JoinHandle<Result<(), AppendError>>,
    stop: Arc<AtomicBool>,
    batches: watch::Receiver<u64>,
}

impl Load {
    async fn start(config: &Config, in_flight: usize, batch: BatchBuilder) -> Result<Self, Failure> {
        let client = Client::connect(config).await?;
        let producer = client.producer("bench/failover/load").in_flight(in_flight).open().await?;
        let (acknowledged, batches) = watch::channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let work = append_all_the_time(producer, in_flight, batch, Arc::clone(&stop), acknowledged);
        Ok(Self { task: tokio::spawn(work), stop, batches })
    }

    /// Waits until it is at its usual speed.
    async fn warm(&mut self) -> Result<(), Failure> {
        let wanted = *self.batches.borrow() + WARM_BATCHES;
        let warm = timeout(PATIENCE, self.batches.wait_for(|batches| *batches >= wanted)).await;
        match warm {
            Ok(Ok(_)) => Ok(()),
            // It is over: by its error, if it has one.
            Ok(Err(_)) | Err(_) => Err(FailoverError::NoLoad.into()),
        }
    }

    /// Ends it; how many batches were acknowledged.
    async fn stop(self) -> Result<u64, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        Ok(*self.batches.borrow())
    }
}

async fn append_all_the_time(
    producer: Producer,
    in_flight: usize,
    batch: BatchBuilder,
    stop: Arc<AtomicBool>,
    acknowledged: watch::Sender<u64>,
) -> Result<(), AppendError> {
    let mut flying = VecDeque::with_capacity(in_flight);
    loop {
        while flying.len() < in_flight && !stop.load(Ordering::Relaxed) {
            flying.push_back(producer.send_batch(batch.clone()).await?);
        }
        let Some(next) = flying.pop_front() else { return Ok(()) };
        next.await?;
        acknowledged.send_modify(|batches| *batches += 1);
    }
}

fn report(args: &FailoverArgs, batches: u64, each: &[Duration]) -> Result<(), Failure> {
    let mut histogram =
        Histogram::<u64>::new_with_max(LATENCY_US_MAX, DIGITS).expect("the bounds are possible");
    for took in each {
        histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
    let ms = |us: u64| us as f64 / 1e3;
    let FailoverArgs { kills, brokers, batch, in_flight, size, .. } = *args;
    let measured = Measured {
        kills,
        brokers,
        batch,
        in_flight,
        size,
        batches,
        p50_ms: ms(histogram.value_at_quantile(0.5)),
        p90_ms: ms(histogram.value_at_quantile(0.9)),
        max_ms: ms(histogram.max()),
        each_ms: each.iter().map(|took| took.as_secs_f64() * 1e3).collect(),
    };
    output::tell(&match args.output {
        Shape::Json => serde_json::to_string(&measured).expect("it has string keys") + "\n",
        Shape::Table => text(&measured),
    })
}

fn text(measured: &Measured) -> String {
    let Measured { kills, brokers, batch, in_flight, p50_ms, p90_ms, max_ms, .. } = measured;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kills", "brokers", "p50 ms", "p90 ms", "max ms"]);
    let ms = |ms: &f64| format!("{ms:.0}");
    table.add_row([kills.to_string(), brokers.to_string(), ms(p50_ms), ms(p90_ms), ms(max_ms)]);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let rows: String = table.lines().map(|line| format!("  {}\n", line.trim_end())).collect();
    format!(
        "SIGKILL of the leader to the next acknowledged append, under a load of {} of {} in flight:\n\n{rows}",
        count(*in_flight, "batch"),
        count(*batch, "record"),
    )
}
