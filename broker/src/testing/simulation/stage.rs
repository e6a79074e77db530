//! Where the world and the program meet: the world behind a lock, and the clock that both go by.
//!
//! tokio's clock stands still while anybody has something to do, and then goes to the next timer, of the program or of
//! the world. Whoever does something to the world first lets it catch up with the clock, and wakes it up afterwards,
//! because its next event may come sooner now. So the order of all that happens follows from the order in which tokio polls
//! tasks, which is always the same.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    core::time::Time,
    sim::{Violation, embedded::Embedded},
};

/// Why a simulation ends before its program.
#[derive(Clone, Debug)]
pub(super) enum Over {
    /// A promise was broken.
    Broken { seed: u64, after: Duration, violation: Violation },
    /// The program does not end.
    Endless { seed: u64, limit: Duration },
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken { seed, after, violation } => write!(
                f,
                "seed {seed}, after {after:?} of virtual time: sequor breaks a promise: {violation}. Please report it with \
                 the program"
            ),
            Self::Endless { seed, limit } => write!(
                f,
                "seed {seed}: the program has not ended after {limit:?} of virtual time: it waits for something that does \
                 not come, or needs a larger Simulation::limit"
            ),
        }
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Stage {
    seed: u64,
    start: Instant,
    world: Mutex<State>,
    /// The world has to be asked again when it wants to be woken.
    touched: Notify,
    /// Something has happened in the world.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    world: Embedded,
    /// The first promise that was broken.
    violation: Option<Violation>,
    /// The play is over: what is dropped now does nothing.
    closed: bool,
}

impl Stage {
    /// A stage whose clock begins now. Must be called in the runtime of the program.
    pub(super) fn new(seed: u64, brokers: u64) -> Self {
        let world = Embedded::new(seed, brokers);
        Self {
            seed,
            start: Instant::now(),
            world: Mutex::new(State { world, violation: None, closed: false }),
            touched: Notify::new(),
            changed: Notify::new(),
        }
    }

    /// Turns the world whenever it wants to, until something is wrong.
    pub(super) async fn run(&self, limit: Duration) -> Over {
        loop {
            let next = {
                let mut state = self.catch_up();
                if let Some(violation) = state.violation.clone() {
                    return Over::Broken { seed: self.seed, after: self.elapsed(), violation };
                }
                Duration::from_micros(state.world.next().0)
            };
            if self.elapsed() >= limit {
                return Over::Endless { seed: self.seed, limit };
            }
            tokio::select! {
                biased;
                () = self.touched.notified() => {}
                () = sleep_until(self.start + next.min(limit)) => {}
            }
        }
    }

    /// Does something to the world, or asks it something, at this moment.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Embedded) -> T) -> T {
        let outcome = act(&mut self.catch_up().world);
        self.touched.notify_one();
        outcome
    }

    /// The same with something that may break a promise.
    pub(super) fn strike(&self, act: impl FnOnce(&mut Embedded) -> Result<(), Violation>) {
        let mut state = self.catch_up();
        let struck = act(&mut state.world);
        state.note(struck);
        drop(state);
        self.touched.notify_one();
        self.changed.notify_waiters();
    }

    /// What a client does to its connection while it is dropped; nothing once the play is over.
    pub(super) fn with_if_open(&self, act: impl FnOnce(&mut Embedded)) {
        if !self.lock().closed {
            self.with(act);
        }
    }

    /// Waits for something in the world.
    pub(super) async fn wait<T>(&self, mut look: impl FnMut(&mut Embedded) -> Option<T>) -> T {
        loop {
            // Made before anybody looks, so that nothing is missed.
            let changed = self.changed.notified();
            if let Some(found) = self.with(&mut look) {
                return found;
            }
            changed.await;
        }
    }

    /// Virtual time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The world, at this moment.
    fn catch_up(&self) -> MutexGuard<'_, State> {
        let now = Time(u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX));
        let mut state = self.lock();
        let before = state.world.events();
        let turned = state.world.turn(now);
        state.note(turned);
        if state.world.events() > before {
            self.changed.notify_waiters();
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, outcome: Result<(), Violation>) {
        if let Err(violation) = outcome {
            self.violation.get_or_insert(violation);
        }
    }
}

/// Falls when the program has ended, well or not. If not, it says from which seed it was.
#[derive(Debug)]
pub(super) struct Curtain(Arc<Stage>);

impl Curtain {
    pub(super) fn new(stage: Arc<Stage>) -> Self {
        Self(stage)
    }
}

impl Drop for Curtain {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        if std::thread::panicking() {
            eprintln!("the simulation that panicked has the seed {}", self.0.seed);
        }
    }
}
