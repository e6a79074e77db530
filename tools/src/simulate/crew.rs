//! The threads that run seeds.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use indicatif::ProgressBar;
use sequor_broker::sim::{self, Profile, Summary, Violation};

/// What came of all of them.
#[derive(Debug)]
pub(super) struct Ended {
    /// All runs that broke nothing, together.
    pub(super) total: Summary,
    /// How many those are.
    pub(super) done: u64,
    /// The lowest seed that was met that breaks a promise.
    pub(super) broken: Option<(u64, Violation)>,
}

/// Runs the seeds until one of them breaks a promise, or somebody says stop: then the threads end the seeds that they are
/// at, and begin no other.
pub(super) fn run(
    seeds: Range<u64>,
    profile: Profile,
    threads: NonZeroUsize,
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> Ended {
    let next = AtomicU64::new(seeds.start);
    let (tell, told) = mpsc::channel();
    let mut ended = Ended { total: Summary::default(), done: 0, broken: None };
    thread::scope(|scope| {
        for _ in 0..threads.get() {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let take = |seed| (seed < seeds.end).then(|| seed + 1);
                    let Ok(seed) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
                        return;
                    };
                    let outcome = sim::run(seed, profile);
                    if outcome.is_err() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if tell.send((seed, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        for (seed, outcome) in told {
            bar.inc(1);
            match outcome {
                Ok(summary) => {
                    ended.total.add(&summary);
                    ended.done += 1;
                }
                Err(violation) if ended.broken.as_ref().is_none_or(|(lowest, _)| seed < *lowest) => {
                    ended.broken = Some((seed, violation));
                }
                Err(_) => {}
            }
        }
    });
    ended
}
