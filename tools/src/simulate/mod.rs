//! `sequor simulate`: whole clusters in virtual time, attacked from seeds, judged from outside.
//!
//! Seeds are independent of each other, so each processor takes the next one as soon as it is done with the last. The
//! first one that breaks a promise ends the run: faults are taken out of it for as long as it still breaks one, and those
//! that are left are printed.

mod crew;
mod report;

use std::{
    io::{self, IsTerminal as _},
    num::NonZeroUsize,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use clap::{ValueEnum, builder::RangedU64ValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use sequor_broker::sim::{self, Violation};
use thiserror::Error;
use tokio::task::{self, JoinError};

use self::{
    crew::Ended,
    report::{Broken, Report},
};
use crate::{
    cli::{Shape, number},
    exit::{Exit, Failure, Verdict},
    interruption::{Interruption, Interruptions},
    output,
};

/// From so many seeds on, every state that is expected must have been reached.
const SEEDS_THAT_REACH_ALL: u64 = 1000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A failure prints its seed, and the fewest of its faults that still show it. The same seed gives the same run on every
machine, as long as the program is the same.

Ctrl-C and SIGTERM end it early: what came of the seeds so far is told, and their number.

Exit code 1: a promise was broken, or a state that has to be met was not, in a thousand seeds or more.

Examples:
  sequor simulate                          a thousand seeds
  sequor simulate --seeds 100000 --start 1000000
  sequor simulate --profile loss           disks that lose a file, or get an older one back
  sequor simulate --replay 4711            one seed: what goes wrong in it, and what came of it
  sequor simulate --seeds 20000 -o json | jq .reached")]
pub(crate) struct SimulateArgs {
    /// How many seeds to run.
    #[arg(long, default_value = "1000", value_parser = RangedU64ValueParser::<u64>::new().range(1..), value_name = "N")]
    seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value = "0", value_parser = number, value_name = "SEED")]
    start: u64,
    /// What may go wrong.
    #[arg(long, default_value = "swarm", value_name = "PROFILE")]
    profile: Profile,
    /// Run this seed alone, and print the faults of it.
    #[arg(long, value_parser = number, value_name = "SEED", conflicts_with_all = ["seeds", "start"])]
    replay: Option<u64>,
    /// How many seeds to run at the same time. Without it: one for each processor.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Do not look for the fewest faults that still break a promise: that takes a hundred runs of the seed.
    #[arg(long)]
    no_shrink: bool,
    /// How to print the result.
    #[arg(short, long, default_value = "table")]
    output: Shape,
}

/// What may go wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// A random subset of everything but what `loss` is for.
    Swarm,
    /// Files of one broker are lost, or put back to what they were: what can be noticed has to be.
    Loss,
    /// Nothing.
    Quiet,
}

impl From<Profile> for sim::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Swarm => Self::Swarm,
            Profile::Loss => Self::Loss,
            Profile::Quiet => Self::Quiet,
        }
    }
}

/// The simulation shows a fault of this program, or is not worth anything.
#[derive(Debug, Error)]
pub(crate) enum SimulateError {
    /// A promise was broken.
    #[error("seed {seed} breaks a promise: {what}; `{}` shows it again", replay(*.seed, *.profile))]
    Broken {
        /// The seed.
        seed: u64,
        /// What may go wrong in it: in another profile the seed is another run.
        profile: Profile,
        /// The promise.
        what: String,
    },
    /// There are no such seeds.
    #[error("seeds go up to {}: {seeds} of them from {start} on are too many", u64::MAX - 1)]
    NoSuchSeeds {
        /// The first.
        start: u64,
        /// How many.
        seeds: u64,
    },
    /// States that have to be met were not.
    #[error("in {seeds} seeds never met: {}; the simulator no longer attacks what it should", .missing.join(", "))]
    NeverMet {
        /// How many seeds were run.
        seeds: u64,
        /// The states.
        missing: Vec<&'static str>,
    },
}

impl Verdict for SimulateError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoSuchSeeds { .. } => Exit::Usage,
            Self::Broken { .. } | Self::NeverMet { .. } => Exit::Error,
        }
    }
}

/// The command that runs a seed again. `tools/hunt` looks for its beginning.
fn replay(seed: u64, profile: Profile) -> String {
    let profile = match profile {
        Profile::Swarm => "",
        Profile::Loss => " --profile loss",
        Profile::Quiet => " --profile quiet",
    };
    format!("sequor simulate --replay {seed}{profile}")
}

pub(crate) async fn run(args: SimulateArgs) -> Result<(), Failure> {
    let profile: sim::Profile = args.profile.into();
    let (start, seeds) = args.replay.map_or((args.start, args.seeds), |seed| (seed, 1));
    let end = start.checked_add(seeds).ok_or(SimulateError::NoSuchSeeds { start, seeds })?;
    let threads = args.threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let mut interruptions = Interruptions::listen()?;
    let bar = progress(seeds);
    let begun = Instant::now();
    let (Ended { total, done, broken }, interruption) =
        play(start..end, profile, threads, &bar, &mut interruptions).await?;
    let took = begun.elapsed();
    bar.finish_and_clear();
    let broken = match broken {
        // Who wants to end it does not want to wait for a hundred runs.
        Some((seed, violation)) if args.no_shrink || interruption.is_some() => {
            Some(Broken::whole(seed, profile, &violation))
        }
        Some((seed, violation)) => Some(shrink(seed, profile, violation, &mut interruptions).await),
        None => None,
    };
    let script = args.replay.map(|seed| sim::script(seed, profile).lines().collect());
    let report = Report { start, profile, done, took, total, script, broken };
    output::tell(&match args.output {
        Shape::Table => report.table(),
        Shape::Json => report.json(),
    })?;
    if let Some(Broken { seed, what, .. }) = report.broken {
        return Err(SimulateError::Broken { seed, profile: args.profile, what }.into());
    }
    let missing: Vec<_> = report.total.reached.missing(profile).collect();
    if done >= SEEDS_THAT_REACH_ALL && !missing.is_empty() {
        return Err(SimulateError::NeverMet { seeds: done, missing }.into());
    }
    Ok(interruption.map_or(Ok(()), Err)?)
}

/// Runs the seeds, or as many as there is time for until a signal. A second signal does not wait for those that are begun.
async fn play(
    seeds: Range<u64>,
    profile: sim::Profile,
    threads: NonZeroUsize,
    bar: &ProgressBar,
    interruptions: &mut Interruptions,
) -> Result<(Ended, Option<Interruption>), Interruption> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = task::spawn_blocking({
        let (bar, stop) = (bar.clone(), Arc::clone(&stop));
        move || crew::run(seeds, profile, threads, &bar, &stop)
    });
    let ended = |ended: Result<_, JoinError>| ended.expect("a seed that panics is one that breaks a promise");
    tokio::select! {
        all = &mut running => Ok((ended(all), None)),
        interruption = interruptions.next() => {
            stop.store(true, Ordering::Relaxed);
            tokio::select! {
                some = running => Ok((ended(some), Some(interruption))),
                again = interruptions.next() => Err(again),
            }
        }
    }
}

/// What breaks a promise in this seed: the least that does, or all of it if a signal says that nobody waits for the least.
async fn shrink(
    seed: u64,
    profile: sim::Profile,
    violation: Violation,
    interruptions: &mut Interruptions,
) -> Broken {
    let whole = Broken::whole(seed, profile, &violation);
    tokio::select! {
        shrunk = task::spawn_blocking(move || Broken::shrunk(seed, profile, &violation)) => shrunk.unwrap_or(whole),
        _ = interruptions.next() => whole,
    }
}

fn progress(seeds: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {human_pos} of {human_len} seeds, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is sound");
    ProgressBar::new(seeds).with_style(style)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_broken_promise_names_the_command_that_shows_it_again() {
        for profile in Profile::value_variants() {
            let broken =
                SimulateError::Broken { seed: 4711, profile: *profile, what: "a lost; b".to_owned() };
            let said = broken.to_string();
            // As `tools/hunt` takes it apart.
            let (what, hint) = said.rsplit_once("; `").unwrap();
            assert_eq!(what, "seed 4711 breaks a promise: a lost; b");
            let (command, _) = hint.split_once('`').unwrap();
            let Command::Simulate(again) = Cli::try_parse_from(command.split(' ')).unwrap().command else {
                panic!("{command}");
            };
            assert_eq!((again.replay, again.profile), (Some(4711), *profile), "{command}");
        }
    }
}
