//! A disk that hangs, and what a leader does about it.
//!
//! A hung disk answers neither well nor ill, so nothing stops the broker, and its heartbeats keep the others quiet: without
//! a rule of its own it would lead for as long as the disk hangs. Measured from the moment a sync was begun, in election
//! timeouts:
//!
//! | after | a leader |
//! |---|---|
//! | a half | writes nothing more: who asks for it is refused, definitely, and may try again at once |
//! | one | hands leadership to a follower whose log is durable further than its own, if there is one |
//! | two | steps down |
//!
//! Where all brokers hang on the same disk nobody is further, so that a stall of one timeout there deposes nobody. A sole
//! voter has nobody to step down for, and only refuses.

use sequor_wal::{Done, Ticket};

use super::Core;
use super::time::Time;

/// What a leader does about a sync that takes so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    Nothing,
    Refuse,
    HandOver,
    StepDown,
}

/// The sync that is out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncing {
    since: Time,
    taken: Measure,
}

impl Core {
    /// The next write and sync to run, if none is out.
    pub fn poll_ticket(&mut self, now: Time) -> Option<Ticket> {
        let ticket = if self.halt.is_some() { None } else { self.node.log_mut().poll_ticket() };
        if ticket.is_some() {
            self.syncing = Some(Syncing { since: now, taken: Measure::Nothing });
        }
        ticket
    }

    /// Takes back a ticket that was run.
    pub fn handle_synced(&mut self, now: Time, done: Done) {
        self.node.log_mut().handle_synced(done);
        self.syncing = None;
        self.last_block = Some(now);
    }

    /// Takes the measure that is due.
    pub(super) fn mind_the_disk(&mut self, now: Time) {
        let election_us = u64::from(self.settings.timing.election_ticks) * self.settings.tick_us;
        let Some(Syncing { since, taken }) = &mut self.syncing else { return };
        let due = match now.since(*since) {
            waited if waited >= 2 * election_us => Measure::StepDown,
            waited if waited >= election_us => Measure::HandOver,
            waited if waited >= election_us / 2 => Measure::Refuse,
            _ => Measure::Nothing,
        };
        *taken = due;
        match due {
            Measure::Nothing | Measure::Refuse => {}
            Measure::HandOver => self.node.hand_over_beyond(self.node.log().durable()),
            Measure::StepDown => self.node.step_down(),
        }
    }

    /// True while the sync that is out takes so long that a leader writes nothing more.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.syncing.is_some_and(|syncing| syncing.taken >= Measure::Refuse)
    }
}
