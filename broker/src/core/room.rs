//! Room on the disk, and what a broker does without it: the state *full*.
//!
//! A broker learns that its disk is full from the zero-filled segments that are made ahead of their use, so it learns it
//! while at least one of them is still unused. From then on the leader refuses what clients would write. What is left is
//! the reserve for what must go on: the first entry of a new term, keep-alives, sessions that end, and whatever a leader
//! whose disk has room replicates. When the reserve is used up too, a follower holds in memory what it cannot write, up to a
//! limit, and neither acknowledges nor votes; a leader is treated like one whose disk hangs (`stall.rs`).
//!
//! The state ends by itself. Once in a while the next segment is tried again, and when as many are ready as are wanted,
//! writing goes on.

use sequor_client::protocol::Refusal;
use sequor_wal::{Prepared, SpareOrder};

use super::Core;
use super::machine::{Operation, Verdict};
use super::time::Time;

/// How much of its log a broker keeps in the page cache that only reads what it is about to apply. Bytes.
const FOLLOWER_CACHED_BYTES: u64 = 8 << 20;

/// How long to wait before a full disk is tried again. Microseconds.
const ROOM_RETRY_US: u64 = 1_000_000;

impl Core {
    /// The next segment to make ready. On a full disk it is tried about once a second.
    pub fn poll_spare(&mut self, now: Time) -> Option<SpareOrder> {
        if self.halt.is_some() || now < self.next_spare {
            return None;
        }
        self.node.log_mut().poll_spare()
    }

    /// How much of the log the page cache is to keep. Subscribers read from the leader, and those who lag read what was
    /// written long ago.
    pub(super) fn cached_bytes(&self) -> Option<u64> {
        (!self.leads()).then_some(FOLLOWER_CACHED_BYTES)
    }

    /// Takes what came of a segment that was to be made ready.
    pub fn handle_spare(&mut self, now: Time, prepared: Prepared) {
        if matches!(prepared, Prepared::NoRoom { .. }) {
            self.next_spare = now + ROOM_RETRY_US;
        }
        self.node.log_mut().handle_spare(prepared);
    }

    /// True while the disk has no room for another segment.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.log().is_full()
    }

    /// What a client is told whose request would be written to a disk that hangs (`stall.rs`), or is full. It is definite
    /// for this attempt, and needs no proof of leadership, for it says nothing of the log.
    pub(super) fn cannot_write(&self, operation: &Operation, verdict: &Verdict) -> Option<Refusal> {
        // A gap may be nothing but what was refused a moment ago.
        let would_write = matches!(verdict, Verdict::Write(_) | Verdict::Refuse(Refusal::SequenceGap { .. }));
        if would_write && self.is_stalled() {
            return Some(Refusal::Unavailable);
        }
        let is_exempt = matches!(operation, Operation::Renew(_));
        (would_write && self.is_full() && !is_exempt)
            .then(|| Refusal::Full { segment_bytes: self.log().settings().segment_bytes })
    }
}
