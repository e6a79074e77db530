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
//! | `disks.rs` | disks that can lose their power |
//! | `writer.rs`, `content.rs` | who writes, and what |
//! | `reader.rs` | who reads along, and who asks where the log ends |
//! | `allowance.rs`, `goal.rs` | how much is written between two faults, and when it is enough |
//! | `history.rs` | the file of all that happened |
//! | `survey.rs` | what each broker's disk holds at the end |
//! | `report.rs` | what is told |
//!
//! One seed decides what goes wrong, in which order, and which datagrams are lost. Processes and machines keep their own
//! time all the same: the same seed is the same attack, not the same run. What has to be the same each time is checked
//! by the simulator; this is about what the simulator does not run: sockets, threads, files, the kernel.

mod allowance;
mod arena;
mod content;
mod disks;
mod faults;
mod goal;
mod history;
mod nemesis;
mod reader;
mod report;
mod survey;
mod writer;

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueHint;
use indicatif::{ProgressBar, ProgressStyle};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use tokio::{sync::watch, task::JoinSet};

use sequor_client::{Client, Config};

use self::{
    allowance::Allowance,
    arena::Arena,
    disks::Disks,
    faults::{Chosen, Fault},
    goal::{Goal, Reached},
    history::Recorder,
    nemesis::Nemesis,
    report::{Done, Report},
    writer::{Desk, Load, Writer},
};
use crate::{
    cli::{Global, Shape},
    cluster::{Cluster, free_addresses},
    exit::{Exit, Failure, Verdict},
    interruption::Interruptions,
    output,
    place::Place,
    relay::Relay,
    visible::visible_path,
    words::count,
};

/// Names of the cluster and of the history in the directory of a run.
const CLUSTER: &str = "cluster";
const HISTORY: &str = "history.ndjson";
/// Time, if nothing else is asked for.
const SECONDS: u64 = 60;
/// Records a second, if the load is not spread over kills.
const RATE: u64 = 10_000;
/// Most producers that can be asked for: each has a connection to a broker, and a thousand are allowed.
const PRODUCERS_MAX: u64 = 200;
/// Most records in a batch, on average.
const BATCH_MAX: u32 = 1_000;
/// Size of the brokers' segments: the smallest, so that there are many of them, and a start has little to fill. Bytes.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Share of the time in which nothing goes wrong; of a hundred.
const QUIET_SHARE: u32 = 25;
/// How often processes are attacked in a bad network; of a hundred.
const BAD_NETWORK_SHARE: u32 = 25;
/// Pause between two lines about how far it is, where there is no terminal.
const NEWS_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
It starts its own brokers, behind a relay that delays, loses, doubles and reorders datagrams; writes and reads through
the library; makes things go wrong, one after the other, by lot from the seed; and at the end compares what clients were
told and readers were given with the log on every broker's disk. It is over when all of --seconds, --kills and
--records that are given are reached. With both --kills and --records, the records are spread over the kills.

The faults:
  leader, broker, cluster   SIGKILL to the leader, to any broker, to all at once
  restart                   SIGTERM to a broker
  pause                     SIGSTOP to a broker, and SIGCONT later
  partition, one-way        brokers do not hear each other; or in one direction only
  network                   delay, loss, doubling, reordering
  power                     power cut of one broker or of all, from copied images of their disks
  sync                      a sync of a broker fails

A fault that needs a right or a tool that is missing here is skipped, and the report says so: `power` needs root and
loop devices, `sync` needs strace.

Exit code 1: a promise was broken; the directory with the history and all data is kept. 5: the cluster did not come
back when nothing was wrong any more.

Examples:
  sequor torture
  sequor torture --seconds 600 --seed 7 --brokers 5 --history run.ndjson
  sequor torture --faults all --seconds 300
  sequor torture --faults leader --kills 1000 --records 10000000
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

pub(crate) async fn run(args: TortureArgs, global: &Global) -> Result<(), Failure> {
    if let Some(path) = &args.check {
        let verdict = history::check(path)?;
        return tell(&Report::new(None, &verdict), args.output);
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
    let place = Place::new(args.keep.clone(), "sequor-torture-")?;
    let path = args.history.clone().unwrap_or_else(|| place.path().join(HISTORY));
    let attack = Attack::prepare(&args, global, &place, &path).await;
    let played = match attack {
        Ok(attack) => attack.play().await,
        Err(failure) => Err(failure),
    };
    let outcome = match played {
        Ok(done) => history::check(&path)
            .map_err(Failure::from)
            .and_then(|verdict| tell(&Report::new(Some(&done), &verdict), args.output)),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => {}
        Err(_) => {
            let dir = place.keep();
            let (dir, path) = (visible_path(&dir).to_string(), visible_path(&path).to_string());
            complain(&format!("kept: {dir}, and its history {path}"));
        }
    }
    outcome
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

/// A run.
#[derive(Debug)]
struct Attack {
    arena: Arena,
    nemesis: Nemesis,
    goal: Goal,
    faults: Vec<Fault>,
    /// Records to grant before each step; none if there is a rate.
    portion: Option<u64>,
    done: Done,
    load: Load,
    start: Instant,
}

impl Attack {
    async fn prepare(
        args: &TortureArgs,
        global: &Global,
        place: &Place,
        history: &std::path::Path,
    ) -> Result<Self, Failure> {
        let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 32));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (faults, skipped) = chosen(&args.faults);
        let goal = goal(args);
        if goal.kills.is_some() && !faults.contains(&Fault::Leader) {
            return Err(NoLeaderKilled.into());
        }
        let portion = goal.portion(steps_per_kill(&faults));
        let listen = free_addresses(args.brokers)?;
        let relay = Relay::start(&listen, rng.next_u64())?;
        let mut cluster = Cluster::make(&place.path().join(CLUSTER), relay.fronts())?;
        for (id, address) in cluster.ids().into_iter().zip(&listen) {
            cluster.set(id, "listen", address.to_string());
            cluster.set(id, "segment_bytes", SEGMENT_BYTES.to_string());
        }
        let disks = match faults.contains(&Fault::Power) {
            true => Some(Disks::prepare(&mut cluster).await?),
            false => None,
        };
        let mut config = Config::load(cluster.context())?;
        config.deadline = global.deadline;
        let desk = Arc::new(Desk {
            recorder: Recorder::create(history)?,
            allowance: Allowance::new(portion.is_none().then_some(args.rate)),
            acknowledged: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
        });
        cluster.launch_all()?;
        let client = Client::connect(&config).await?;
        let load = Load { batch: args.batch, in_flight: args.in_flight as usize, crashes: true };
        let done = Done {
            seed,
            brokers: args.brokers,
            producers: args.producers,
            seconds: 0.0,
            faults: BTreeMap::new(),
            skipped,
            client_crashes: 0,
            slowest_healing_ms: 0,
            relay: relay.traffic(),
        };
        let arena = Arena { cluster, relay, disks, config, client, desk, rng };
        arena.note(format!("seed {seed}, {goal:?}, {faults:?}"));
        let (nemesis, start) = (Nemesis::default(), Instant::now());
        Ok(Self { arena, nemesis, goal, faults, portion, done, load, start })
    }

    async fn play(mut self) -> Result<Done, Failure> {
        self.arena.heal().await?;
        let (ended, until) = watch::channel(None);
        let mut writers = JoinSet::new();
        for number in 1..=self.done.producers {
            let (config, desk) = (self.arena.config.clone(), Arc::clone(&self.arena.desk));
            let writer = Writer::new(number, self.done.seed, config, self.load, desk);
            writers.spawn(writer.live());
        }
        let mut readers = JoinSet::new();
        let own = || (self.arena.config.clone(), Arc::clone(&self.arena.desk));
        let (config, desk) = own();
        readers.spawn(reader::read(1, config, desk, until.clone()));
        let (config, desk) = own();
        readers.spawn(reader::ask(config, desk));

        let progress = Progress::new();
        self.attack(&mut writers, &progress).await?;
        self.done.seconds = self.start.elapsed().as_secs_f64();

        progress.say("waiting for the last outcomes");
        self.arena.desk.allowance.stop();
        while let Some(writer) = writers.join_next().await {
            joined(writer)?;
        }
        self.arena.rest().await?;
        progress.say("reading the log from all disks");
        let end = self.arena.client.end().await?.end;
        let (config, desk) = (self.arena.config.clone(), Arc::clone(&self.arena.desk));
        readers.spawn(reader::read(2, config, desk, until));
        // They all look at it as long as they read.
        let _nobody = ended.send(Some(end));
        while let Some(reader) = readers.join_next().await {
            reader.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        self.survey().await?;
        progress.finish();
        Ok(self.done)
    }

    /// Lets things go wrong until it is enough.
    async fn attack(
        &mut self,
        writers: &mut JoinSet<Result<(), writer::WriterError>>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut news = Instant::now();
        loop {
            let reached = self.reached();
            progress.set(&self.goal, &reached);
            if news.elapsed() >= NEWS_PAUSE {
                news = Instant::now();
                progress.news(&reached);
            }
            if self.goal.is_reached(&reached) {
                return Ok(());
            }
            if let Some(writer) = writers.try_join_next() {
                joined(writer)?;
            }
            if let Some(portion) = self.portion {
                // Half of it is written before something goes wrong, and the rest while it does.
                self.arena.acknowledged(portion.div_ceil(2), portion).await?;
            }
            self.step(&reached).await?;
        }
    }

    async fn step(&mut self, reached: &Reached) -> Result<(), Failure> {
        let arena = &mut self.arena;
        let only_kills = self.portion.is_some() && self.faults == [Fault::Leader];
        let quiet = match only_kills {
            true => !self.goal.wants_kills(reached),
            false => arena.rng.random_ratio(QUIET_SHARE, 100),
        };
        if self.faults.is_empty() || quiet {
            return self.nemesis.rest(arena).await;
        }
        let fault = self.faults[arena.rng.random_range(0..self.faults.len())];
        let bad = self.faults.contains(&Fault::Network)
            && fault != Fault::Network
            && arena.rng.random_ratio(BAD_NETWORK_SHARE, 100);
        self.nemesis.strike(arena, fault, bad).await
    }

    fn reached(&self) -> Reached {
        Reached {
            time: self.start.elapsed(),
            kills: self.nemesis.done.get(&Fault::Leader).copied().unwrap_or(0),
            records: self.arena.desk.acknowledged.load(Ordering::Relaxed),
        }
    }

    /// Stops the brokers and reads their disks.
    async fn survey(&mut self) -> Result<(), Failure> {
        let arena = &mut self.arena;
        arena.stop().await?;
        for broker in arena.brokers() {
            survey::survey(&arena.desk.recorder, broker, &arena.cluster.data(broker))?;
        }
        arena.desk.recorder.flush()?;
        let done = &mut self.done;
        done.faults = self.nemesis.done.iter().map(|(fault, times)| (fault.to_string(), *times)).collect();
        done.client_crashes = arena.desk.crashes.load(Ordering::Relaxed);
        done.slowest_healing_ms = self.nemesis.slowest.as_millis();
        done.relay = arena.relay.traffic();
        Ok(())
    }
}

fn joined(writer: Result<Result<(), writer::WriterError>, tokio::task::JoinError>) -> Result<(), Failure> {
    Ok(writer.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)
}

/// The faults that were asked for and can be had, and why the others cannot.
fn chosen(faults: &[Chosen]) -> (Vec<Fault>, BTreeMap<String, String>) {
    let mut wanted: Vec<_> = faults.iter().flat_map(|chosen| chosen.0.iter().copied()).collect();
    if faults.is_empty() {
        wanted.extend(Fault::USUAL);
    }
    wanted.sort_unstable();
    wanted.dedup();
    let missing = wanted.iter().filter_map(|fault| Some((*fault, fault.missing()?)));
    let skipped: BTreeMap<_, _> = missing.collect();
    wanted.retain(|fault| !skipped.contains_key(fault));
    (wanted, skipped.into_iter().map(|(fault, why)| (fault.to_string(), why)).collect())
}

/// Steps to the next kill of a leader, on average.
fn steps_per_kill(faults: &[Fault]) -> f64 {
    match faults {
        // Nothing else happens, and no time is quiet.
        [Fault::Leader] => 1.0,
        _ => faults.len() as f64 * 100.0 / f64::from(100 - QUIET_SHARE),
    }
}

fn goal(args: &TortureArgs) -> Goal {
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

/// How far it is: a bar on a terminal, a line now and then elsewhere.
#[derive(Debug)]
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{bar:40} {msg}").expect("the template is sound");
        Self(Some(ProgressBar::new(1000).with_style(style)))
    }

    fn set(&self, goal: &Goal, reached: &Reached) {
        if let Some(bar) = &self.0 {
            bar.set_position(goal.share(reached));
            bar.set_message(words(reached));
        }
    }

    fn news(&self, reached: &Reached) {
        if self.0.is_none() {
            self.say(&words(reached));
        }
    }

    fn say(&self, what: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(what.to_owned()),
            None => complain(what),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn complain(what: &str) {
    // With stderr closed there is nobody to tell.
    let _nobody = io::Write::write_all(&mut io::stderr(), format!("sequor torture: {what}\n").as_bytes());
}

fn words(reached: &Reached) -> String {
    let Reached { time, kills, records } = reached;
    format!("{} s, {}, {}", time.as_secs(), count(*kills, "kill"), count(*records, "record"))
}
