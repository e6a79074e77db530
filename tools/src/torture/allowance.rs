//! How much may be written: so many records a second, or so many between two faults.
//!
//! Without it a fast machine would write most of its records before the first fault. What is granted is taken in turns
//! by whoever comes first.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

/// Longest wait for a grant before it is looked again: a grant wakes whoever waits just then.
const LOOK: Duration = Duration::from_millis(10);
/// What a rate may save up. Seconds.
const SAVED_SECONDS: f64 = 0.5;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Allowance {
    state: Mutex<State>,
    granted: Notify,
}

#[derive(Debug)]
struct State {
    left: f64,
    /// Records a second, and since when they were not counted.
    rate: Option<(f64, Instant)>,
    stopped: bool,
}

impl Allowance {
    /// So many records a second; or none, but what is granted.
    pub(super) fn new(rate: Option<u64>) -> Self {
        let rate = rate.map(|rate| (rate as f64, Instant::now()));
        Self { state: Mutex::new(State { left: 0.0, rate, stopped: false }), granted: Notify::new() }
    }

    /// Allows so many more.
    pub(super) fn grant(&self, records: u64) {
        self.state().left += records as f64;
        self.granted.notify_waiters();
    }

    /// Allows nothing any more.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.granted.notify_waiters();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Takes so many, if anything is left. What is too much is missing from a rate afterwards, and not from a grant:
    /// else the next grant might be too small for anything.
    pub(super) fn take(&self, records: u64) -> bool {
        let mut state = self.state();
        if let Some((rate, since)) = &mut state.rate {
            let now = Instant::now();
            let (more, most) = (*rate * (now - *since).as_secs_f64(), *rate * SAVED_SECONDS);
            *since = now;
            state.left = (state.left + more).min(most);
        }
        let may = !state.stopped && state.left > 0.0;
        if may {
            let least = if state.rate.is_some() { f64::MIN } else { 0.0 };
            state.left = (state.left - records as f64).max(least);
        }
        may
    }

    /// Waits until there may be something to take, or nothing ever will.
    pub(super) async fn wait(&self) {
        // What it waits for is looked at again by the caller, in any case.
        let _either = timeout(LOOK, self.granted.notified()).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_taken_once() {
        let allowance = Allowance::new(None);
        assert!(!allowance.take(1));
        allowance.grant(5);
        assert!(allowance.take(4) && allowance.take(4), "as long as anything is left");
        assert!(!allowance.take(1));
        allowance.grant(10);
        allowance.stop();
        assert!(!allowance.take(1) && allowance.is_stopped());
    }

    #[test]
    fn a_rate_saves_up_little() {
        let allowance = Allowance::new(Some(1_000_000_000));
        std::thread::sleep(Duration::from_millis(1));
        assert!(allowance.take(1));
        assert!(allowance.state().left <= 1e9 * SAVED_SECONDS);
    }
}
