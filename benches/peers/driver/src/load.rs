//! The closed loop: so many requests are on their way, and an answer lets the next one go.

use std::{
    cell::RefCell,
    fmt::Display,
    io,
    time::{Duration, Instant},
};

use futures_util::future::{join, try_join_all};
use thiserror::Error;
use tokio::{
    task::unconstrained,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    cpu::{cpu_us, used_us},
    figure::{Figure, Tally},
    point::Point,
};

/// Longest wait for a system that was just started.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for one attempt: a system that is still looking for its leader may never answer it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two attempts.
const LOOK: Duration = Duration::from_millis(250);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that may fail before it is given up. Count.
const ERRORS_MAX: u64 = 100;

/// A peer cannot be measured.
#[derive(Debug, Error)]
pub(crate) enum PeerError {
    /// What the peer, or its library, said.
    #[error("cannot {what}: {said}")]
    Peer {
        /// What was tried.
        what: &'static str,
        /// What it answered.
        said: String,
    },
    /// It says nothing.
    #[error("it does not answer")]
    Silence,
    /// There is no runtime.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

impl PeerError {
    pub(crate) fn cannot(what: &'static str, said: impl Display) -> Self {
        Self::Peer { what, said: said.to_string() }
    }

    /// For `map_err`.
    pub(crate) fn to<E: Display>(what: &'static str) -> impl Fn(E) -> Self {
        move |said| Self::cannot(what, said)
    }
}

/// Something that takes requests.
pub(crate) trait Peer {
    /// Writes one batch, and waits until it is acknowledged. `slot` tells the requests in flight apart.
    async fn request(&self, slot: usize) -> Result<(), PeerError>;
}

/// Tries until it works, for a system may take its time to start.
pub(crate) async fn until_it_works<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, PeerError>
where
    F: Future<Output = Result<T, PeerError>>,
{
    let until = Instant::now() + START_TIMEOUT;
    loop {
        let done = timeout(ATTEMPT_TIMEOUT, attempt()).await.unwrap_or(Err(PeerError::Silence));
        match done {
            Err(_) if Instant::now() < until => sleep(LOOK).await,
            done => return done,
        }
    }
}

/// What is measured, and how long.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) point: Point,
    pub(crate) size: u64,
    pub(crate) rtt_us: u64,
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    pub(crate) processes: Vec<u32>,
}

/// What came of the requests so far.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    errors: u64,
}

impl Load {
    /// Runs it. Only what is answered after warming up is counted.
    pub(crate) async fn run(&self, peer: &impl Peer) -> Result<Figure, PeerError> {
        let start = Instant::now() + self.warm_up;
        let end = start + self.time;
        let outcome = RefCell::new(Outcome::default());
        let in_flight = usize::try_from(self.point.in_flight).unwrap_or(usize::MAX);
        let slots = (0..in_flight).map(|slot| repeat(peer, slot, (start, end), &outcome));
        // tokio lets a task do so much, and then nothing more in this turn. All of this is one task: with its budget spent by
        // the first requests, the others and the clock would be polled in vain, turn after turn.
        let everything = unconstrained(join(try_join_all(slots), self.cpu(start, end)));
        let (done, (own, nodes)) = everything.await;
        done?;
        let Outcome { tally, errors } = outcome.into_inner();
        if tally.requests() == 0 {
            return Err(PeerError::cannot(
                "measure",
                "nothing was acknowledged in the time that is measured",
            ));
        }
        let records = (tally.requests() * self.point.batch) as f64;
        let each = |us: Option<u64>| us.map(|us| us as f64 / records);
        let figure = tally.figure(self.point, self.size, self.rtt_us, self.time.as_secs_f64());
        Ok(Figure {
            client_cpu_us_per_record: each(own),
            broker_cpu_us_per_record: each(nodes),
            errors,
            ..figure
        })
    }

    /// CPU time of this process and of the nodes in the time that is measured, if they all lived until its end.
    /// Microseconds.
    async fn cpu(&self, start: Instant, end: Instant) -> (Option<u64>, Option<u64>) {
        let used = || (cpu_us(&[std::process::id()]), cpu_us(&self.processes));
        sleep_until(start.into()).await;
        let before = used();
        sleep_until(end.into()).await;
        let after = used();
        (used_us(before.0, after.0), used_us(before.1, after.1))
    }
}

/// One of those in flight: request after request until the end.
async fn repeat(
    peer: &impl Peer,
    slot: usize,
    (start, end): (Instant, Instant),
    outcome: &RefCell<Outcome>,
) -> Result<(), PeerError> {
    while Instant::now() < end {
        let sent = Instant::now();
        let answer = timeout(PATIENCE, peer.request(slot)).await.map_err(|_| PeerError::Silence)?;
        let now = Instant::now();
        let mut outcome = outcome.borrow_mut();
        match answer {
            Ok(()) if (start..end).contains(&now) => {
                outcome.tally.answered(u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX));
            }
            Ok(()) => {}
            Err(error) => {
                outcome.errors += 1;
                if outcome.errors > ERRORS_MAX {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::task::{consume_budget, yield_now};

    use super::*;

    /// Answers after a while; every `fails`th request fails.
    struct Slow {
        after: Duration,
        fails: u64,
        asked: Cell<u64>,
    }

    impl Peer for Slow {
        async fn request(&self, _slot: usize) -> Result<(), PeerError> {
            self.asked.set(self.asked.get() + 1);
            sleep(self.after).await;
            match self.asked.get().is_multiple_of(self.fails) {
                true => Err(PeerError::cannot("answer", "it is told not to")),
                false => Ok(()),
            }
        }
    }

    fn load(in_flight: u64) -> Load {
        let point = Point { batch: 10, in_flight };
        let (warm_up, time) = (Duration::from_millis(200), Duration::from_secs(1));
        Load { point, size: 100, rtt_us: 0, warm_up, time, processes: vec![std::process::id()] }
    }

    #[tokio::test]
    async fn what_is_in_flight_overlaps() {
        let peer = Slow { after: Duration::from_millis(20), fails: u64::MAX, asked: Cell::new(0) };
        let one = load(1).run(&peer).await.unwrap();
        let eight = load(8).run(&peer).await.unwrap();
        // At most 50 requests in a second, each of ten records; how many less is the machine's business.
        assert!(one.records_per_s <= 510.0 && eight.records_per_s <= 4080.0);
        assert!(eight.records_per_s > 2.0 * one.records_per_s, "{one:?} {eight:?}");
        assert!(one.p50_us >= 20_000);
    }

    /// Hands on a thousand messages before it waits for an answer.
    struct Talkative {
        answered: Vec<Cell<u64>>,
    }

    impl Peer for Talkative {
        async fn request(&self, slot: usize) -> Result<(), PeerError> {
            for _ in 0..1000 {
                consume_budget().await;
            }
            // What is on its way is waited for.
            yield_now().await;
            self.answered[slot].set(self.answered[slot].get() + 1);
            Ok(())
        }
    }

    #[tokio::test]
    async fn no_request_waits_for_those_before_it_and_the_clock_for_none() {
        let peer = Talkative { answered: vec![Cell::default(); 16] };
        let figure = load(16).run(&peer).await.unwrap();
        let answered = || peer.answered.iter().map(Cell::get);
        assert!(answered().min() > answered().max().map(|most| most / 2), "{:?}", peer.answered);
        assert!(figure.client_cpu_us_per_record.unwrap() > 0.0, "{figure:?}");
    }

    #[tokio::test]
    async fn silence_is_no_figure() {
        let peer = Slow { after: Duration::from_secs(3), fails: u64::MAX, asked: Cell::new(0) };
        load(1).run(&peer).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_peer_that_only_fails_is_given_up() {
        let peer = Slow { after: Duration::ZERO, fails: 1, asked: Cell::new(0) };
        load(4).run(&peer).await.unwrap_err();
        let peer = Slow { after: Duration::from_millis(10), fails: 10, asked: Cell::new(0) };
        assert!(load(1).run(&peer).await.unwrap().errors > 0);
    }
}
