//! `sequor bench tail`: records a second that consumers read.
//!
//! ```text
//!   one session fills the log ─►  leader ─► consumer 1: connection, thread, tail from offset 0 to the end
//!                                        ─► consumer 2
//!                                        ─► …
//! ```
//!
//! Each consumer has what a program of its own would have, and begins when all are connected. What it reads is what any
//! reader of the library gets: every checksum was verified, every record looked at where it lies. The log was written a moment ago, so
//! the system has it in memory: this measures brokers, network and library, and not how fast a disk is read.

use std::{
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use serde::Serialize;
use thiserror::Error;
use tokio::{runtime, task::JoinSet};

use sequor_client::{Client, Config, protocol::Offset};

use super::{
    append::Form,
    gauges::Processes,
    lists::{Point, Pressure, between},
    load,
    machine::Machine,
    outcome::{short, time},
    progress::Progress,
    target::{OneCluster, Target, place},
};
use crate::{
    cli::Global,
    exit::{Exit, Failure, RuntimeError, Verdict},
    interruption::Interruptions,
    output, remote,
    table::{Table, Tone},
    words::{count, grouped},
};

/// Requests in flight while the log is filled.
const FILL_IN_FLIGHT: usize = 16;
/// How long the session lives that fills it.
const SESSION_TTL: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each consumer is a thread with a connection of its own, and reads the whole log, from its first record to the one that \
was the last when it began. Checksums of all batches are verified on the way.

Examples:
  sequor bench tail
  sequor bench tail --consumers 1,2,8 --bytes 2000000000 -o json
  sequor --context demo/context.toml bench tail --existing --consumers 1")]
pub(super) struct TailArgs {
    /// Consumers at the same time.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,4", value_parser = between(1..=256))]
    consumers: Vec<u64>,

    /// Bytes of values that the log is filled with first. The log of an existing cluster is read as it is.
    #[arg(long, default_value = "100000000", value_parser = between(1..=1_000_000_000_000), conflicts_with = "existing")]
    bytes: u64,

    /// Records in each of its batches.
    #[arg(long, default_value = "100", value_parser = between(1..=65_536), conflicts_with = "existing")]
    batch: u64,

    /// Bytes of a record's value.
    #[arg(long, default_value = "256", value_parser = between(1..=900_000), conflicts_with = "existing")]
    size: u64,

    #[command(flatten)]
    cluster: OneCluster,

    /// How to print it.
    #[arg(short, long, default_value = "table")]
    output: Form,
}

/// Nothing can be read.
#[derive(Debug, Error)]
#[error("the log is empty: there is nothing to read")]
struct EmptyLog;

impl Verdict for EmptyLog {
    fn exit(&self) -> Exit {
        Exit::Precondition
    }
}

/// What one consumer read.
#[derive(Clone, Copy, Debug)]
struct Read {
    records: u64,
    value_bytes: u64,
    batch_bytes: u64,
    start: Instant,
    end: Instant,
}

/// What so many consumers read at the same time.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Outcome {
    consumers: u64,
    brokers: u64,
    rtt_us: Option<u64>,
    /// Records that each consumer read.
    records: u64,
    /// Until the last consumer was done.
    seconds: f64,
    /// What all of them read together, each second.
    records_per_s: f64,
    /// Of values.
    bytes_per_s: f64,
    /// Of batches: values, and what is around them.
    batch_bytes_per_s: f64,
    /// The fastest and the slowest consumer.
    fastest_s: f64,
    slowest_s: f64,
    /// Of all brokers, for each record that a consumer read. Absent if they are not ours.
    broker_cpu_us_per_record: Option<f64>,
}

/// The columns of the CSV.
const COLUMNS: [&str; 11] = [
    "consumers",
    "brokers",
    "rtt_us",
    "records",
    "seconds",
    "records_per_s",
    "bytes_per_s",
    "batch_bytes_per_s",
    "fastest_s",
    "slowest_s",
    "broker_cpu_us_per_record",
];

/// All that came of it.
#[derive(Debug, Serialize)]
struct Findings {
    machine: Machine,
    results: Vec<Outcome>,
}

pub(super) async fn run(args: TailArgs, global: &Global) -> Result<(), Failure> {
    let mut interruptions = Interruptions::listen()?;
    let findings = tokio::select! {
        biased;
        interruption = interruptions.next() => return Err(interruption.into()),
        found = find(&args, global) => found?,
    };
    output::tell(&match args.output {
        Form::Table => text(&findings.results),
        Form::Json => serde_json::to_string(&findings).expect("it has string keys") + "\n",
        Form::Csv => csv(&findings.results),
    })
}

async fn find(args: &TailArgs, global: &Global) -> Result<Findings, Failure> {
    let place = place(args.cluster.dir.as_ref())?;
    let machine = Machine::read((!args.cluster.existing).then(|| place.path()));
    let mut progress = Progress::new(args.consumers.len());
    machine.doubts().iter().for_each(|doubt| progress.news(doubt));
    let mut target = args.cluster.target(&place, global, &progress).await?;
    if !args.cluster.existing {
        progress.begin("the log is filled");
        fill(args, &target).await?;
        target.rest(&progress).await?;
    }
    let end = target.client.end().await?;
    if end.first == end.end {
        return Err(EmptyLog.into());
    }
    let mut results = Vec::new();
    for consumers in &args.consumers {
        progress.begin(&count(*consumers, "consumer"));
        let outcome = consume(&target, *consumers, end.first, end.end).await?;
        target.check()?;
        progress.end(&format!(
            "{}: {} records/s",
            count(*consumers, "consumer"),
            grouped(outcome.records_per_s as u64)
        ));
        results.push(outcome);
    }
    progress.finish();
    target.end().await;
    Ok(Findings { machine, results })
}

/// Writes as many batches as make the bytes that were asked for.
async fn fill(args: &TailArgs, target: &Target) -> Result<(), Failure> {
    let TailArgs { batch, size, bytes, .. } = *args;
    let point = Point { batch, size, pressure: Pressure::InFlight(FILL_IN_FLIGHT as u64) };
    let builder = load::batch(&point)?;
    let producer = target.client.session(SESSION_TTL).in_flight(FILL_IN_FLIGHT).open().await?;
    let mut last = None;
    for _ in 0..bytes.div_ceil(batch * size) {
        // It waits for room. What fails is told by the flush.
        last = Some(producer.send_batch(builder.clone()).await?);
    }
    drop(last);
    Ok(producer.flush().await?)
}

/// Lets so many consumers read from one offset to another.
async fn consume(target: &Target, consumers: u64, from: Offset, to: Offset) -> Result<Outcome, Failure> {
    let barrier = Arc::new(Barrier::new(usize::try_from(consumers).expect("it has a limit")));
    let processes = target.processes();
    let look = || processes.as_deref().map(Processes::read).transpose();
    let before = look()?;
    let mut reading = JoinSet::new();
    for _ in 0..consumers {
        let (config, barrier) = (target.config.clone(), Arc::clone(&barrier));
        reading.spawn_blocking(move || {
            let runtime =
                runtime::Builder::new_current_thread().enable_all().build().map_err(RuntimeError::from)?;
            runtime.block_on(read(&config, &barrier, from, to))
        });
    }
    let mut reads = Vec::new();
    while let Some(read) = reading.join_next().await {
        reads.push(read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
    }
    let after = look()?;
    let cpu_us = before.zip(after).map(|(before, after)| after.cpu_us_since(&before));
    Ok(Outcome::new(target, &reads, cpu_us))
}

/// One consumer, in a thread of its own.
async fn read(config: &Config, barrier: &Barrier, from: Offset, to: Offset) -> Result<Read, Failure> {
    // Without a connection the others would wait for it for ever.
    let client = Client::connect(config).await;
    barrier.wait();
    let client = client?;
    let start = Instant::now();
    let mut tail = client.tail(from).await?;
    let (mut records, mut value_bytes, mut batch_bytes) = (0, 0, 0);
    while tail.position() < to {
        let batch = remote::within(config.deadline, tail.next_batch()).await??;
        batch_bytes += batch.batch.bytes().len() as u64;
        for record in batch.borrowed_records() {
            records += 1;
            value_bytes += record.value.map_or(0, |value| value.len() as u64);
        }
    }
    let end = Instant::now();
    drop(tail);
    client.close().await;
    Ok(Read { records, value_bytes, batch_bytes, start, end })
}

impl Outcome {
    fn new(target: &Target, reads: &[Read], cpu_us: Option<u64>) -> Self {
        let seconds = |took: Option<Duration>| took.unwrap_or_default().as_secs_f64();
        let took = || reads.iter().map(|read| read.end - read.start);
        // From when the first began until the last was done.
        let span = reads.iter().map(|read| read.end).max().zip(reads.iter().map(|read| read.start).min());
        let whole = seconds(span.map(|(end, start)| end - start));
        let sum = |of: fn(&Read) -> u64| reads.iter().map(of).sum::<u64>();
        let per_s = |of: fn(&Read) -> u64| sum(of) as f64 / whole;
        Self {
            consumers: reads.len() as u64,
            brokers: target.stage.brokers,
            rtt_us: target.rtt_us(),
            records: reads.first().map_or(0, |read| read.records),
            seconds: whole,
            records_per_s: per_s(|read| read.records),
            bytes_per_s: per_s(|read| read.value_bytes),
            batch_bytes_per_s: per_s(|read| read.batch_bytes),
            fastest_s: seconds(took().min()),
            slowest_s: seconds(took().max()),
            broker_cpu_us_per_record: cpu_us.map(|cpu| cpu as f64 / sum(|read| read.records).max(1) as f64),
        }
    }
}

fn csv(outcomes: &[Outcome]) -> String {
    let mut text = COLUMNS.join(",") + "\n";
    for outcome in outcomes {
        let value = serde_json::to_value(outcome).expect("it has string keys");
        let cells = COLUMNS.map(|column| match &value[column] {
            serde_json::Value::Null => String::new(),
            number => number.to_string(),
        });
        text.push_str(&(cells.join(",") + "\n"));
    }
    text
}

fn text(outcomes: &[Outcome]) -> String {
    let mut table = Table::new([
        "consumers",
        "brokers",
        "rtt",
        "records each",
        "s",
        "records/s",
        "MB/s",
        "fastest s",
        "cpu us/rec",
    ]);
    for outcome in outcomes {
        table.row(
            Tone::Plain,
            [
                outcome.consumers.to_string(),
                outcome.brokers.to_string(),
                outcome.rtt_us.map_or_else(|| "-".to_owned(), time),
                grouped(outcome.records),
                short(outcome.seconds),
                grouped(outcome.records_per_s as u64),
                short(outcome.bytes_per_s / 1e6),
                short(outcome.fastest_s),
                outcome.broker_cpu_us_per_record.map_or_else(|| "-".to_owned(), short),
            ],
        );
    }
    table.text(0..9)
}
