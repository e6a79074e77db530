//! A batch on its way: its bytes, its attempts, and what is known of it.

use bytes::Bytes;

use super::{Failure, Time, attempts::Attempts};
use crate::protocol::{
    Epoch, ProducerId, Sequence,
    batch::{Batch, BatchBuilder},
};

/// See the module's header.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) first: Sequence,
    pub(super) count: u32,
    pub(super) bytes: Bytes,
    pub(super) done: bool,
    /// The leader of some turn had it on its disk, and that was told.
    pub(super) accepted: bool,
    /// Why it has failed, if no attempt of it is written: it is not sent again.
    pub(super) verdict: Option<Failure>,
    /// When it is given up, if it may be: so early that there is time to seal it.
    pub(super) give_up_at: Time,
    pub(super) attempts: Attempts,
}

impl InFlight {
    pub(super) fn new(
        id: ProducerId,
        epoch: Epoch,
        first: Sequence,
        builder: BatchBuilder,
        give_up_at: Time,
        deadline: Time,
    ) -> Self {
        let count = builder.count() as u32;
        let bytes = builder.seal(id, epoch, first);
        let attempts = Attempts::new(deadline);
        Self { first, count, bytes, done: false, accepted: false, verdict: None, give_up_at, attempts }
    }

    pub(super) fn end(&self) -> Sequence {
        self.first.plus(self.count.into())
    }

    /// Its parts, cut at those of the bounds that lie within it; none if none does. They have the same time left.
    pub(super) fn cut(&self, bounds: &[Sequence], id: ProducerId, epoch: Epoch) -> Option<Vec<Self>> {
        bounds.iter().find(|bound| self.first < **bound && **bound < self.end())?;
        let batch = Batch::trusted(self.bytes.clone()).and_then(|batch| batch.unpacked());
        let batch = batch.expect("the producer has made it");
        let mut parts = vec![(self.first, BatchBuilder::new())];
        for (number, record) in (self.first.0..).zip(batch.records()) {
            if number > self.first.0 && bounds.contains(&Sequence(number)) {
                parts.push((Sequence(number), BatchBuilder::new()));
            }
            let (_, part) = parts.last_mut().expect("there is one from the beginning");
            part.push(&record.expect("the producer has made it")).expect("a part of a batch is no larger");
        }
        let deadline = self.attempts.deadline();
        let part = |(first, builder)| Self::new(id, epoch, first, builder, self.give_up_at, deadline);
        Some(parts.into_iter().map(part).collect())
    }
}
