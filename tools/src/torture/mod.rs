//! `sequor torture`: real processes under load and under attack, and whether every promise was kept.
//!
//! ```text
//!   writers, readers ─► relay ─► brokers: processes        nemesis: kills, stops, cuts, loses
//!        │                                                        │
//!        └───────────────► history, a file ◄──────────────────────┘ ─► checker ─► verdict
//!   disks of the stopped brokers ─┘
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `faults.rs` | what can go wrong, by name |
//! | `nemesis.rs` | what goes wrong, one thing after the other |
//! | `arena.rs` | the cluster under attack |
//! | `disks.rs` | disks that can lose their power, and be full |
//! | `writer.rs`, `content.rs` | who writes, and what |
//! | `reader.rs` | who reads along, and who asks where the log ends |
//! | `attack.rs`, `progress.rs` | one run, and how far it is |
//! | `allowance.rs`, `goal.rs` | how much is written between two faults, and when it is enough |
//! | `history.rs` | the file of all that happened |
//! | `survey.rs` | what each broker's disk holds at the end |
//! | `vigil.rs` | waiting for those who end by themselves |
//! | `footprint.rs` | what the process of a broker holds |
//! | `report.rs` | what is told |
//!
//! One seed decides what goes wrong, in which order, and which datagrams are lost. Processes and machines keep their own
//! time all the same: the same seed is the same attack, not the same run. What has to be the same each time is checked
//! by the simulator; this is about what the simulator does not run: sockets, threads, files, the kernel.

mod allowance;
mod arena;
mod attack;
mod content;
mod disks;
mod faults;
mod footprint;
mod goal;
mod history;
mod nemesis;
mod progress;
mod reader;
mod report;
mod survey;
mod vigil;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueHint;
use thiserror::Error;

use self::{
    attack::Attack,
    faults::{Chosen, Fault},
    goal::Goal,
    progress::complain,
    report::Report,
};
use crate::{
    cli::{Global, Shape},
    exit::{Exit, Failure, Verdict},
    interruption::Interruptions,
    output,
    place::Place,
    visible::visible_path,
};

/// Name of the history in the directory of a run.
const HISTORY: &str = "history.ndjson";
/// Time, if nothing else is asked for.
const SECONDS: u64 = 60;
/// Records a second, if the load is not spread over kills.
const RATE: u64 = 10_000;
/// Most producers that can be asked for: each has a connection to a broker, and a thousand are allowed.
const PRODUCERS_MAX: u64 = 200;
/// Most records in a batch, on average.
const BATCH_MAX: u32 = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It starts its own brokers, behind a relay that delays, loses, doubles and reorders datagrams; writes and reads through \
the library; makes things go wrong, one after the other, by lot from the seed; and at the end compares what clients \
were told and readers were given with the log on every broker's disk. It is over when all of --seconds, --kills and \
--records that are given are reached. With both --kills and --records, the records are spread over the kills.

The faults:
  leader, broker, cluster   SIGKILL to the leader, to any broker, to all at once
  restart                   SIGTERM to a broker
  pause                     SIGSTOP to a broker, and SIGCONT later
  partition, one-way        brokers do not hear each other; or in one direction only
  network                   delay, loss, doubling, reordering
  power                     power cut of one broker or of all, from copied images of their disks
  full                      the disk of the leader, or of all, is full for a while
  sync                      a sync of a broker fails

A fault that needs a right or a tool that is missing here is skipped, and the report says so, unless no other is \
asked for: `power` and `full` need \
root and loop devices, `sync` needs strace and the right to trace.

Exit code 1: a promise was broken, or this machine did not let the torture go on; the message says which. The directory \
with the history and all data is kept. 2: none of the faults can be had here. 5: a broker ended that was not killed, or did \
not stop well when it was told to, or holds more open files, threads or memory than it has use for; or the cluster did not \
come back when nothing was wrong any more.

Examples:
  sequor torture
  sequor torture --seconds 600 --seed 7 --brokers 5 --history run.ndjson
  sequor torture --faults all --seconds 300
  sequor torture --faults leader --kills 1000 --records 10000000 --batch 9
  sequor torture --check run.ndjson -o json")]
pub(crate) struct TortureArgs {
    /// Leaders to kill.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    kills: Option<u64>,

    /// Records to have acknowledged.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,

    /// How long it lasts at least. Without --kills and --records: 60.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: Option<u64>,

    /// What decides everything by lot. Without it, another one each time.
    #[arg(long)]
    seed: Option<u64>,

    /// What goes wrong, separated by commas; or `all`. Without it, all that needs neither root nor a tool.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Fault::parse)]
    faults: Vec<Chosen>,

    /// Brokers in the cluster: 3 or 5.
    #[arg(long, default_value = "3", value_parser = brokers)]
    brokers: usize,

    /// Producers that write at the same time.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u64).range(1..=PRODUCERS_MAX))]
    producers: u64,

    /// Records in a batch, on average.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
    batch: u32,

    /// Batches in flight, of each producer.
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u64).range(1..=128))]
    in_flight: u64,

    /// Most records a second, unless they are spread over kills.
    #[arg(long, default_value_t = RATE, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,

    /// Write the history to this file, and leave it there.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    history: Option<PathBuf>,

    /// Make cluster and history in this directory, and leave both there.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    keep: Option<PathBuf>,

    /// Do nothing but check a history that was written before.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["kills", "records", "seconds", "seed", "faults", "history", "keep"])]
    check: Option<PathBuf>,

    /// How to print the report.
    #[arg(short, long, default_value = "table")]
    output: Shape,
}

/// Leaders are to be killed, and not to be killed.
#[derive(Debug, Error)]
#[error("--kills counts the fault `leader`: name it in --faults too")]
struct NoLeaderKilled;

impl Verdict for NoLeaderKilled {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// Nothing of what was asked for can be made to go wrong here, and it would be called sound.
#[derive(Debug, Error)]
#[error(
    "nothing would go wrong, as none of the faults of --faults can be had here ({0}): provide that, or name another fault"
)]
struct NothingGoesWrong(String);

impl Verdict for NothingGoesWrong {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl NothingGoesWrong {
    fn because(skipped: &BTreeMap<String, String>) -> Self {
        let each: Vec<_> = skipped.iter().map(|(fault, why)| format!("`{fault}`: {why}")).collect();
        Self(each.join("; "))
    }
}

pub(crate) async fn run(args: TortureArgs, global: &Global) -> Result<(), Failure> {
    if let Some(path) = &args.check {
        let verdict = history::check(path)?;
        return tell(&Report::new(None, &verdict), args.output);
    }
    if args.kills.is_some() && !asked(&args.faults).contains(&Fault::Leader) {
        return Err(NoLeaderKilled.into());
    }
    let mut interruptions = Interruptions::listen()?;
    // Whichever comes first: what is not played to its end is dropped, and stops and removes its cluster.
    tokio::select! {
        biased;
        interruption = interruptions.next() => Err(interruption.into()),
        played = play(args, global) => played,
    }
}

fn tell(report: &Report<'_>, shape: Shape) -> Result<(), Failure> {
    output::tell(&match shape {
        Shape::Table => report.text(),
        Shape::Json => report.json(),
    })?;
    Ok(report.verdict()?)
}

async fn play(args: TortureArgs, global: &Global) -> Result<(), Failure> {
    let (faults, skipped) = chosen(&args.faults);
    if faults.is_empty() {
        return Err(NothingGoesWrong::because(&skipped).into());
    }
    let place = Place::new(args.keep.clone(), "sequor-torture-")?;
    let path = args.history.clone().unwrap_or_else(|| place.path().join(HISTORY));
    let outcome = match Attack::prepare(&args, global, (faults, skipped), &place, &path).await {
        Ok(attack) => play_and_judge(attack, &path, args.output).await,
        Err(failure) => Err(failure),
    };
    if outcome.is_err() {
        let dir = place.keep();
        let history = match path.exists() {
            true => format!(", and its history {}", visible_path(&path)),
            false => String::new(),
        };
        complain(&format!("kept: {}{history}", visible_path(&dir)));
    }
    outcome
}

async fn play_and_judge(attack: Attack, history: &Path, shape: Shape) -> Result<(), Failure> {
    match attack.play().await {
        Ok(done) => tell(&Report::new(Some(&done), &history::check(history)?), shape),
        Err(failure) => {
            tell_contradiction(history);
            Err(failure)
        }
    }
}

/// What was noted until a run could not go on may hold a broken promise besides, which matters more.
fn tell_contradiction(history: &Path) {
    // Without a history there is only the failure to tell.
    if let Ok(Some(violation)) = history::contradiction(history) {
        complain(&format!("a promise was broken before it ended: {violation}"));
    }
}

/// The faults that were asked for.
fn asked(faults: &[Chosen]) -> Vec<Fault> {
    let mut asked: Vec<_> = faults.iter().flat_map(|chosen| chosen.0.iter().copied()).collect();
    if faults.is_empty() {
        asked.extend(Fault::USUAL);
    }
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// Those of them that can be had, and why the others cannot. That is tried, and takes a moment.
fn chosen(faults: &[Chosen]) -> (Vec<Fault>, BTreeMap<String, String>) {
    let mut wanted = asked(faults);
    let missing = wanted.iter().filter_map(|fault| Some((*fault, fault.missing()?)));
    let skipped: BTreeMap<_, _> = missing.collect();
    wanted.retain(|fault| !skipped.contains_key(fault));
    (wanted, skipped.into_iter().map(|(fault, why)| (fault.to_string(), why)).collect())
}

fn wanted(args: &TortureArgs) -> Goal {
    let else_seconds = (args.kills.is_none() && args.records.is_none()).then_some(SECONDS);
    let time = args.seconds.or(else_seconds).map(Duration::from_secs);
    Goal { time, kills: args.kills, records: args.records }
}

fn brokers(text: &str) -> Result<usize, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("it is 3 or 5".to_owned()),
    }
}
