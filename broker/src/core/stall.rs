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
//! The last two only while there is somebody to lead instead: a majority of brokers, without this one, whose disks work.
//! Each says in its answer to a heartbeat whether its own hangs, from when it would refuse if it led. Where all brokers share
//! the disk and hang together, stepping down would help nobody: the others could not even vote, and when the disk answers
//! again, the cluster would first have to elect. So the leader stays, however long it takes, and both times are measured
//! from when it was last told so. A sole voter has nobody to step down for, and only refuses.
//!
//! A leader that has nowhere to write, because its disk is full and its reserve is used up (`room.rs`), is treated alike.
//!
//! Keep-alives are refused like everything else. So after a stall no session is ended for as long as it lasted: whoever
//! wanted to be kept alive gets that time to say so again.

use raft::eraftpb::{Message, MessageType};
use sequor_client::protocol::BrokerId;
use sequor_wal::{Done, Ticket};

use super::Core;
use super::time::Time;

/// Sessions get at least so long after a stall to be kept alive. Microseconds.
const EXPIRY_GRACE_US: u64 = 1_000_000;

/// What a leader does about a sync that takes so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Measure {
    Nothing,
    Refuse,
    HandOver,
    StepDown,
}

/// The sync that is out, or that should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncing {
    since: Time,
    /// From when on others could lead instead.
    spared_since: Time,
    taken: Measure,
}

/// What the answer to a heartbeat says of its sender's disk; `None` for all other messages.
pub(super) fn is_said_to_hang(message: &Message) -> Option<bool> {
    (message.get_msg_type() == MessageType::MsgHeartbeatResponse).then_some(message.reject)
}

impl Core {
    /// The next write and sync to run, if none is out.
    pub fn poll_ticket(&mut self, now: Time) -> Option<Ticket> {
        let cached = self.cached_bytes();
        self.node.log_mut().keep_cached(cached);
        let ticket = if self.halt.is_some() { None } else { self.node.log_mut().poll_ticket() };
        // What cannot even be begun, because there is no segment for it, takes long too.
        let is_blocked = || self.syncing.is_none() && self.log().last_index() > self.log().durable();
        if ticket.is_some() || is_blocked() {
            self.syncing = Some(Syncing { since: now, spared_since: now, taken: Measure::Nothing });
        }
        ticket
    }

    /// Takes back a ticket that was run.
    pub fn handle_synced(&mut self, now: Time, done: Done) {
        self.node.log_mut().handle_synced(done);
        if let Some(stall) = self.syncing.take().filter(|syncing| syncing.taken >= Measure::Refuse) {
            self.no_expiry_before = now + now.since(stall.since).max(EXPIRY_GRACE_US);
        }
        self.last_block = Some(now);
    }

    /// Takes the measure that is due.
    pub(super) fn mind_the_disk(&mut self, now: Time) {
        let election_us = u64::from(self.settings.timing.election_ticks) * self.settings.tick_us;
        let is_spared = self.could_do_without();
        let Some(Syncing { since, spared_since, taken }) = &mut self.syncing else { return };
        if !is_spared {
            *spared_since = now;
        }
        let due = match (now.since(*since), now.since(*spared_since)) {
            (_, spared) if spared >= 2 * election_us => Measure::StepDown,
            (_, spared) if spared >= election_us => Measure::HandOver,
            (waited, _) if waited >= election_us / 2 => Measure::Refuse,
            _ => Measure::Nothing,
        };
        *taken = due;
        match due {
            Measure::Nothing | Measure::Refuse => {}
            Measure::HandOver => self.node.hand_over_beyond(self.node.log().durable()),
            Measure::StepDown => self.node.step_down(),
        }
    }

    /// Whether the others are a majority without this broker, counting those whose disks work as far as they have said.
    fn could_do_without(&self) -> bool {
        let voters = self.settings.genesis.members().len();
        let working = voters - 1 - self.hung_peers.len();
        working > voters / 2
    }

    /// Says in the answer to a heartbeat whether the disk of this broker hangs. Raft itself has no use for it.
    pub(super) fn tell_of_disk(&self, message: &mut Message) {
        if is_said_to_hang(message).is_some() {
            message.reject = self.is_stalled();
        }
    }

    /// Hears what a peer says of its disk, if it says something.
    pub(super) fn hear_of_disk(&mut self, peer: BrokerId, hangs: Option<bool>) {
        match hangs {
            Some(true) => _ = self.hung_peers.insert(peer),
            Some(false) => _ = self.hung_peers.remove(&peer),
            None => {}
        }
    }

    /// True while the sync that is out takes so long that a leader writes nothing more.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.syncing.is_some_and(|syncing| syncing.taken >= Measure::Refuse)
    }
}
