//! A disk that hangs, and what a leader does about it.
//!
//! A hung disk answers neither well nor ill, so nothing stops the broker, and its heartbeats keep the others quiet: without
//! a rule of its own it would lead for as long as the disk hangs. What it does, in election timeouts:
//!
//! | after | a leader |
//! |---|---|
//! | a half | writes nothing more: who asks for it is refused, definitely, and may try again at once |
//! | one | hands leadership to a follower whose log is durable further than its own, if there is one |
//! | two | steps down |
//! | a hundred | steps down, whatever its peers say of their disks |
//!
//! The first and the last are measured from the moment a sync was begun; the other two from the moment since which this
//! broker could be *replaced*: by a majority of the others, less those that say that their disks hang, too. Where all
//! brokers share a disk and hang together, to step down helps nobody. The others cannot vote before that disk answers, and
//! then there is an election more to wait for. So the leader stays.
//!
//! What a peer says comes with its answers to heartbeats, which are not held back for its disk, and it says so after a
//! quarter already, so that with the usual settings a leader knows before it would hand over. Its word is good for an
//! election timeout. Nothing rests on it but how soon a leader goes: a peer that is dead, or of an older version, is taken
//! for one whose disk works, and one that is only slow may keep a leader for longer. A sole voter has nobody to step down
//! for.
//!
//! A leader that has nowhere to write, because its disk is full and its reserve is used up (`room.rs`), is treated alike.
//!
//! Keep-alives are refused like everything else. So after a stall no session is ended for as long as it lasted: whoever
//! wanted to be kept alive gets that time to say so again.

use raft::eraftpb::{Message, MessageType};
use sequor_client::protocol::BrokerId;
use sequor_wal::{Done, Index, Ticket};

use super::Core;
use super::time::Time;

/// Sessions get at least so long after a stall to be kept alive. Microseconds.
const EXPIRY_GRACE_US: u64 = 1_000_000;
/// After so many election timeouts without its disk a leader goes in any case: what its peers say may be wrong. Count.
const PATIENCE_TIMEOUTS: u64 = 100;

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
    replaceable_since: Time,
    /// When it was last looked at.
    minded: Time,
    taken: Measure,
}

impl Syncing {
    fn new(now: Time) -> Self {
        Self { since: now, replaceable_since: now, minded: now, taken: Measure::Nothing }
    }
}

/// What a message says of its sender's disk, if it says something.
pub(super) fn is_said_to_hang(message: &Message) -> Option<bool> {
    (message.get_msg_type() == MessageType::MsgHeartbeatResponse).then_some(message.reject)
}

/// Whether the voters but one are a majority, less those whose disks hang.
fn is_majority_without_one(voters: usize, hung: usize) -> bool {
    voters.saturating_sub(1 + hung) > voters / 2
}

impl Core {
    /// The next write and sync to run, if none is out.
    pub fn poll_ticket(&mut self, now: Time) -> Option<Ticket> {
        let cached = self.cached_bytes();
        self.node.log_mut().keep_cached(cached);
        let ticket = if self.halt.is_some() { None } else { self.node.log_mut().poll_ticket() };
        if ticket.is_some() {
            self.end_stall(now);
        }
        // What cannot even be begun, because there is no segment for it, takes long too.
        let is_blocked = || self.log().last_index() > self.log().durable();
        if self.syncing.is_none() && (ticket.is_some() || is_blocked()) {
            self.syncing = Some(Syncing::new(now));
        }
        ticket
    }

    /// Takes back a ticket that was run.
    pub fn handle_synced(&mut self, now: Time, done: Done) {
        self.node.log_mut().handle_synced(done);
        self.end_stall(now);
        self.last_block = Some(now);
    }

    /// The sync is done, or what could not be begun is begun.
    fn end_stall(&mut self, now: Time) {
        if let Some(stall) = self.syncing.take().filter(|syncing| syncing.taken >= Measure::Refuse) {
            let grace = now + now.since(stall.since).max(EXPIRY_GRACE_US);
            self.no_expiry_before = self.no_expiry_before.max(grace);
        }
    }

    /// Takes the measure that is due.
    pub(super) fn mind_the_disk(&mut self, now: Time) {
        let election_us = self.election_us();
        let is_replaceable = self.is_replaceable(now);
        let Some(Syncing { since, replaceable_since, minded, taken }) = &mut self.syncing else { return };
        // Who was held up has heard nobody, and does not know.
        let was_away = now.since(*minded) >= election_us / 2;
        *minded = now;
        if !is_replaceable || was_away {
            *replaceable_since = now;
        }
        let due = match (now.since(*since), now.since(*replaceable_since)) {
            (waited, _) if waited >= PATIENCE_TIMEOUTS * election_us => Measure::StepDown,
            (_, replaceable) if replaceable >= 2 * election_us => Measure::StepDown,
            (_, replaceable) if replaceable >= election_us => Measure::HandOver,
            (waited, _) if waited >= election_us / 2 => Measure::Refuse,
            _ => Measure::Nothing,
        };
        *taken = due;
        match due {
            Measure::Nothing | Measure::Refuse => {}
            Measure::HandOver => self.hand_over_beyond(now, self.node.log().durable()),
            Measure::StepDown => self.node.step_down(),
        }
    }

    /// Hands leadership to a follower that is further than this, rather to one whose disk works.
    pub(super) fn hand_over_beyond(&mut self, now: Time, least: Index) {
        let hung: Vec<u64> = self.hung_peers(now).map(|peer| peer.0).collect();
        self.node.hand_over_beyond(least, |peer| !hung.contains(&peer));
    }

    fn election_us(&self) -> u64 {
        u64::from(self.settings.timing.election_ticks) * self.settings.tick_us
    }

    /// The peers that said so of late, and have not said otherwise since.
    fn hung_peers(&self, now: Time) -> impl Iterator<Item = BrokerId> {
        let is_recent = move |at: Time| now.since(at) < self.election_us();
        let hung = self.said_to_hang.iter().filter(move |(_, at)| is_recent(**at));
        hung.map(|(peer, _)| *peer)
    }

    fn is_replaceable(&self, now: Time) -> bool {
        is_majority_without_one(self.settings.genesis.members().len(), self.hung_peers(now).count())
    }

    /// Has the answer to a heartbeat say whether the disk of this broker hangs. Raft itself has no use for it.
    pub(super) fn say_of_disk(&self, now: Time, message: &mut Message) {
        if is_said_to_hang(message).is_some() {
            let hangs = |syncing: Syncing| now.since(syncing.since) >= self.election_us() / 4;
            message.reject = self.syncing.is_some_and(hangs);
        }
    }

    /// Hears what a peer says of its disk.
    pub(super) fn hear_of_disk(&mut self, now: Time, peer: BrokerId, hangs: bool) {
        match hangs {
            true => self.said_to_hang.insert(peer, now),
            false => self.said_to_hang.remove(&peer),
        };
    }

    /// True while the sync that is out takes so long that a leader writes nothing more.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.syncing.is_some_and(|syncing| syncing.taken >= Measure::Refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_can_do_without_one_while_enough_of_their_disks_work() {
        // Voters, and how many of the others may hang.
        for (voters, most) in [(3, 0), (4, 0), (5, 1), (6, 1), (7, 2)] {
            assert!(is_majority_without_one(voters, most), "{voters}");
            assert!(!is_majority_without_one(voters, most + 1), "{voters}");
        }
        assert!(!is_majority_without_one(1, 0) && !is_majority_without_one(2, 0));
    }
}
