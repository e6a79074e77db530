//! A subscription on its connection: what the broker has read for it, and what has arrived.
//!
//! The library takes a delivery that is unsound, or not the one that is due, for a fault of one broker, and asks another one.
//! So nobody would hear of it if it were not judged here.

use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{Delivery, Offset};

use super::super::judge::Violation;
use crate::core::Subscription;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) subscription: Subscription,
    /// The broker has agreed to its beginning.
    pub(super) begun: bool,
    /// Deliveries. Count.
    pub(super) on_their_way: usize,
    /// What arrives begins here.
    arrived: Offset,
    /// Nothing has arrived: a batch may begin before what was asked for.
    is_fresh: bool,
}

impl Reader {
    pub(super) fn new(from: Offset) -> Self {
        let subscription = Subscription::new(from);
        Self { subscription, begun: false, on_their_way: 0, arrived: from, is_fresh: true }
    }

    /// A delivery arrives.
    pub(super) fn take(&mut self, delivery: &Delivery) -> Result<(), Violation> {
        self.on_their_way -= 1;
        for placed in delivery.placed() {
            let unsound = |why| Violation(format!("what is delivered at {} is unsound: {why}", self.arrived));
            let placed = placed.map_err(unsound)?;
            let batch = Batch::parse(placed.batch).map_err(unsound)?;
            let after = placed.offset.plus(batch.count().into());
            let follows = placed.offset == self.arrived
                || (self.is_fresh && placed.offset < self.arrived && self.arrived < after);
            if !follows {
                return Err(Violation(format!(
                    "{} is delivered where {} is due",
                    placed.offset, self.arrived
                )));
            }
            (self.arrived, self.is_fresh) = (after, false);
        }
        if delivery.next != self.arrived {
            return Err(Violation(format!(
                "a delivery up to {} says that it ends at {}",
                self.arrived, delivery.next
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sequor_client::protocol::batch::BatchBuilder;
    use sequor_client::protocol::{Epoch, Placed, ProducerId, Sequence};

    use super::*;

    fn batch(count: u8) -> Bytes {
        let mut builder = BatchBuilder::new();
        (0..count).for_each(|at| builder.push_value(None, &[at], 0).unwrap());
        builder.seal(ProducerId(1), Epoch(1), Sequence(0))
    }

    fn delivery(offset: u64, batch: &Bytes) -> Delivery {
        let placed = Placed { offset: Offset(offset), settled: Sequence(0), batch: batch.clone() };
        let count = Batch::parse(batch.clone()).map_or(0, |batch| batch.count());
        let next = Offset(offset + u64::from(count));
        Delivery { next, end: next, names: Vec::new(), stretches: vec![placed.to_bytes()] }
    }

    /// Whether a reader from `from` on is content with these batches, each in a delivery of its own.
    fn takes(from: u64, batches: &[(u64, Bytes)]) -> bool {
        let mut reader = Reader { on_their_way: batches.len(), ..Reader::new(Offset(from)) };
        batches.iter().all(|(offset, batch)| reader.take(&delivery(*offset, batch)).is_ok())
    }

    #[test]
    fn what_is_not_due_is_seen() {
        assert!(takes(0, &[(0, batch(3)), (3, batch(1))]));
        assert!(takes(2, &[(0, batch(3)), (3, batch(1))]), "the first may begin before");
        assert!(!takes(0, &[(0, batch(3)), (4, batch(1))]), "a gap");
        assert!(!takes(0, &[(0, batch(3)), (2, batch(2))]), "a repeat");
        assert!(!takes(3, &[(0, batch(3))]), "all of it is behind");
    }

    #[test]
    fn a_delivery_that_says_another_end_is_seen() {
        let mut reader = Reader { on_their_way: 1, ..Reader::new(Offset(0)) };
        let delivery = Delivery { next: Offset(4), ..delivery(0, &batch(3)) };
        assert!(reader.take(&delivery).is_err());
    }

    #[test]
    fn what_is_not_what_its_checksum_says_is_seen() {
        let mut bytes = batch(3).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(!takes(0, &[(0, bytes.into())]));
    }
}
