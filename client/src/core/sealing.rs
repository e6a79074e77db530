//! Giving numbers up, so that "not written" can be said and kept.
//!
//! A refusal speaks of one attempt. Another attempt of the same batch may still be on its way, and be written after its
//! caller was told that it failed, and after the caller has sent the same thing again under another number: that is how
//! records double. So before a producer says "failed" of a number that is only its own, it *seals* it: one entry of the
//! log moves the producer's next number past it. From then on no copy of that batch can be written, and the numbers
//! after it can be.
//!
//! ```text
//!   refused for good, or its time is nearly up
//!        │
//!        ▼                ┌─► Sealed      failed, for certain
//!   Resolve(seal) ────────┼─► Committed   it was written after all
//!                         └─► no answer   unknown; the producer is broken
//! ```
//!
//! Where numbers mean something to the caller (the lines of a file), none is ever given up: the outcome is *unknown*,
//! and whoever opens the name next learns it.

use super::{Time, attempts::Attempts};
use crate::protocol::{Epoch, ProducerId, Request, Resolve, Sequence};

/// A seal that was begun and has no answer yet.
#[derive(Debug)]
pub(super) struct Seal {
    /// The last number of the batch that is given up, and with it everything before it.
    pub(super) through: Sequence,
    pub(super) attempts: Attempts,
}

impl Seal {
    pub(super) fn new(through: Sequence, deadline: Time) -> Self {
        Self { through, attempts: Attempts::new(deadline) }
    }

    pub(super) fn request(&self, producer: ProducerId, epoch: Epoch) -> Request {
        Request::Resolve(Resolve { producer, epoch, sequence: self.through, seal: true })
    }
}
