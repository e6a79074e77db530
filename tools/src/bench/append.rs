//! `sequor bench append`: records a second and how long each takes, over batches, requests in flight, sizes, brokers and
//! round trips.
//!
//! ```text
//!   for each cluster (brokers, round trip)        started, waited for until it is at rest
//!     for each load (size, in flight or rate, batch)
//!       session ─► warm-up ─► window: answers count ─► what is in flight is waited for
//!                             ▲ counters              ▲ counters
//! ```
//!
//! What counts is what was acknowledged within the window: durable on a majority. A cluster whose log has grown large is
//! replaced by a new one, so that a sweep does not fill the disk.

use std::{path::PathBuf, time::Duration};

use clap::{ValueEnum, ValueHint};
use serde::Serialize;
use thiserror::Error;

use super::{
    advice::{advice, doubts},
    limits::{LimitError, Limits},
    lists::{Point, Pressure, Stage, Sweep, between, round_trip},
    load,
    machine::Machine,
    meter::Meter,
    outcome::{self, Outcome},
    progress::{Progress, say},
    report::{self, Page},
    target::{Target, place},
    trial::{Trial, WARM_UP},
};
use crate::{
    cli::Global,
    exit::{Exit, Failure, Verdict},
    interruption::Interruptions,
    output,
    place::Place,
    visible::visible_path,
};

/// What one log may hold of values before another load begins on it. Bytes.
const LOG_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It starts its own brokers, child processes on this machine, and measures every combination of the lists, one after the \
other. A batch is the records of one request: requests are not joined. In a closed loop the next request leaves when one \
is answered; with --rate the clock decides, and a request is timed from the moment at which it was meant to leave. Every \
request that was meant to leave in the window is timed, however late its answer is; what had not left 5 s after the window \
counts as later than any other. Where less than 99 % of the rate was acknowledged, it says so.

With --rtt, everything that programs say to each other passes a relay that delays it, and the brokers' heartbeats and \
election timeouts grow with the round trip. The relay needs no rights, and processor time.

What could not be measured is null in JSON and empty in CSV: in a cluster that is not ours, processor time and memory.

Examples:
  sequor bench append
  sequor bench append --report out
  sequor bench append --batch 1,64 --in-flight 1 --rtt 0,1ms,5ms,30ms -o csv
  sequor bench append --rate 1000,20000 --batch 1 --seconds 30 -o json
  sequor --context demo/context.toml bench append --existing --batch 1,100")]
pub(super) struct AppendArgs {
    /// Records in a request.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,10,100,1000", value_parser = between(1..=65_536))]
    batch: Vec<u64>,

    /// Requests in flight: a closed loop.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16", value_parser = between(1..=4096))]
    in_flight: Vec<u64>,

    /// Records a second, whatever the answers do: an open loop.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "in_flight", value_parser = between(1..=100_000_000))]
    rate: Vec<u64>,

    /// Bytes of a record's value.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "256", value_parser = between(0..=900_000))]
    size: Vec<u64>,

    /// Brokers in the cluster.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "3", value_parser = between(1..=9))]
    brokers: Vec<u64>,

    /// The way between any two programs, there and back: 0, 500us, 5ms, up to 2s.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0", value_parser = round_trip)]
    rtt: Vec<Duration>,

    /// How long each combination is measured, after its warm-up.
    #[arg(long, value_name = "S", default_value = "2", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Measure first what disk, QUIC and memory can do at all.
    #[arg(long)]
    raw_limits: bool,

    /// Write a page with charts to DIR/index.html. With it, the limits are measured too.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    report: Option<PathBuf>,

    /// Measure the cluster of the context, instead of one of its own. What is written stays in its log.
    #[arg(long, conflicts_with_all = ["brokers", "rtt", "set"])]
    existing: bool,

    /// Make clusters in this directory, which has to be there, on the disk that is to be measured.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,

    /// Set one key of the brokers' configuration. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::serve::assignment)]
    set: Vec<(String, String)>,

    /// How to print the results.
    #[arg(short, long, default_value = "table")]
    output: Form,
}

/// How to print results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

/// Nothing can be measured.
#[derive(Debug, Error)]
pub(super) enum SweepError {
    /// No combination is left.
    #[error("none of the batches fits a request")]
    Empty(#[source] load::TooLarge),
}

impl Verdict for SweepError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// Nothing was measured.
#[derive(Debug, Error)]
#[error("in no window was any request answered: measure for longer (--seconds), or put less on it")]
struct Unanswered;

impl Verdict for Unanswered {
    fn exit(&self) -> Exit {
        Exit::Unreachable
    }
}

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Settings {
    pub(super) seconds: u64,
    /// The part of the warm-up that does not depend on the round trip.
    pub(super) warm_up_ms: u64,
    pub(super) acks: &'static str,
    /// `own` or `existing`.
    pub(super) cluster: &'static str,
    /// Keys of the brokers that were set beside the defaults.
    pub(super) set: Vec<String>,
    /// Combinations that were left out, and why.
    pub(super) left_out: Vec<String>,
}

/// All that came of it.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) limits: Option<Limits>,
    pub(super) results: Vec<Outcome>,
    pub(super) advice: Vec<String>,
    /// What makes single results worth less than they look.
    pub(super) doubts: Vec<String>,
}

pub(super) async fn run(args: AppendArgs, global: &Global) -> Result<(), Failure> {
    let mut interruptions = Interruptions::listen()?;
    let mut findings = None;
    let ended: Result<(), Failure> = tokio::select! {
        biased;
        interruption = interruptions.next() => Err(interruption.into()),
        found = find(&args, global, &mut findings) => found,
    };
    // What was measured before something went wrong took its time, too.
    if let Some(mut findings) = findings.filter(|findings| ended.is_ok() || !findings.results.is_empty()) {
        findings.judge(ended.is_ok());
        let told = tell(&args, &findings);
        return ended.and(told);
    }
    ended
}

impl Findings {
    /// Says what follows from the results, and what speaks against them.
    fn judge(&mut self, is_whole: bool) {
        self.advice = advice(&self.results);
        self.doubts = self.results.iter().flat_map(doubts).collect();
        if !is_whole {
            self.doubts.push("this is not all that was to be measured: it ended before".to_owned());
        }
    }
}

fn tell(args: &AppendArgs, findings: &Findings) -> Result<(), Failure> {
    // What was measured is told before anything else can go wrong.
    if args.output == Form::Csv {
        findings.doubts.iter().for_each(|doubt| say(doubt));
    }
    output::tell(&match args.output {
        Form::Table => text(findings),
        Form::Json => serde_json::to_string(findings).expect("it has string keys") + "\n",
        Form::Csv => outcome::csv(&findings.results),
    })?;
    if let Some(dir) = &args.report {
        let path = report::write(dir, &Page::of(findings))?;
        output::tell(&match args.output {
            Form::Table => format!("\nThe report is {}\n", visible_path(&path)),
            Form::Json | Form::Csv => String::new(),
        })?;
    }
    match findings.results.iter().all(|outcome| outcome.requests == 0) {
        true => Err(Unanswered.into()),
        false => Ok(()),
    }
}

fn text(findings: &Findings) -> String {
    let mut text = String::new();
    if let Some(limits) = &findings.limits {
        for (name, value) in limits.rows() {
            text.push_str(&format!("{name:<36}{value}\n"));
        }
        text.push('\n');
    }
    text.push_str(&outcome::table(&findings.results));
    text.push('\n');
    let shares = findings.limits.iter().flat_map(|limits| limits.shares(&findings.results));
    for sentence in shares.chain(findings.advice.iter().chain(&findings.doubts).cloned()) {
        text.push_str(&(sentence + "\n"));
    }
    text
}

/// Measures everything. What is known is in `findings` at any time.
async fn find(args: &AppendArgs, global: &Global, findings: &mut Option<Findings>) -> Result<(), Failure> {
    let (sweep, left_out) = sweep(args)?;
    args.report.as_deref().map(report::prepare).transpose()?;
    let place = place(args.dir.as_ref())?;
    let machine = Machine::read((!args.existing).then(|| place.path()));
    let mut progress = Progress::new(sweep.count());
    machine.doubts().iter().chain(&left_out).for_each(|doubt| progress.news(doubt));
    let mut limits = None;
    if args.raw_limits || args.report.is_some() {
        progress.begin("what disk, QUIC and memory can do");
        let dir = place.path().to_path_buf();
        let measured = tokio::task::spawn_blocking(move || Limits::measure(&dir)).await;
        let measured: Result<_, LimitError> =
            measured.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        limits = Some(measured?);
    }
    let settings = Settings {
        seconds: args.seconds,
        warm_up_ms: WARM_UP.as_millis() as u64,
        acks: "quorum",
        cluster: if args.existing { "existing" } else { "own" },
        set: args.set.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        left_out,
    };
    let (results, advice, doubts) = Default::default();
    let Findings { results, .. } =
        findings.insert(Findings { machine, settings, limits, results, advice, doubts });
    for stage in &sweep.stages {
        measure_stage(args, global, &place, (stage, &sweep.points), &mut progress, results).await?;
    }
    progress.finish();
    Ok(())
}

/// The combinations that can be measured, and why others cannot.
fn sweep(args: &AppendArgs) -> Result<(Sweep, Vec<String>), SweepError> {
    let pressures: Vec<_> = match args.rate.is_empty() {
        true => args.in_flight.iter().copied().map(Pressure::InFlight).collect(),
        false => args.rate.iter().copied().map(Pressure::Rate).collect(),
    };
    // Of the context's cluster nobody here decides how large it is, or how far.
    let stages: (&[u64], &[Duration]) =
        if args.existing { (&[1], &[Duration::ZERO]) } else { (&args.brokers, &args.rtt) };
    let mut sweep = Sweep::new(stages, (&args.size, &args.batch), &pressures);
    let (mut left_out, mut last) = (Vec::new(), None);
    sweep.points.retain(|point| match load::batch(point) {
        Ok(_) => true,
        Err(error) => {
            left_out.push(format!("left out: {error}"));
            last = Some(error);
            false
        }
    });
    left_out.dedup();
    match last {
        Some(error) if sweep.points.is_empty() => Err(SweepError::Empty(error)),
        _ => Ok((sweep, left_out)),
    }
}

/// Measures all loads on clusters of one kind.
async fn measure_stage(
    args: &AppendArgs,
    global: &Global,
    place: &Place,
    (stage, points): (&Stage, &[Point]),
    progress: &mut Progress,
    results: &mut Vec<Outcome>,
) -> Result<(), Failure> {
    let mut target: Option<Target> = None;
    let mut held = 0;
    for point in points {
        if held > LOG_BYTES_MAX
            && !args.existing
            && let Some(full) = target.take()
        {
            full.end().await;
        }
        let mut at = match target.take() {
            Some(target) => target,
            None => {
                held = 0;
                progress.begin("a cluster starts");
                start(args, global, place, stage, progress).await?
            }
        };
        progress.begin(&Outcome::title(point));
        let length = Duration::from_secs(args.seconds);
        let trial =
            Trial::run(&mut at, point, length, progress, |window| Meter::new(window, point.pressure)).await?;
        let outcome = Outcome::new(&at, point, length, &trial);
        progress.end(&format!("{}: {}", Outcome::title(point), outcome.line()));
        held += outcome.records * point.size;
        results.push(outcome);
        target = Some(at);
    }
    if let Some(target) = target {
        target.end().await;
    }
    Ok(())
}

async fn start(
    args: &AppendArgs,
    global: &Global,
    place: &Place,
    stage: &Stage,
    progress: &Progress,
) -> Result<Target, Failure> {
    if args.existing {
        return Target::existing(global).await;
    }
    Target::start(place, *stage, &args.set, (global, progress)).await
}
