//! A position in the log, and the stream of batches that moves it.
//!
//! A broker delivers whole batches, as their producers made them. So the first batch may begin before the offset that
//! was asked for: its beginning is skipped. From then on each batch must begin exactly where the one before it ended.
//! A consumer believes nothing: not the offsets, not the checksums. What does not fit ends the stream, not the
//! subscription: it is opened again at the position reached, so there is neither gap nor repeat.

use super::{Placed, Time, attempts::Attempts};
use crate::protocol::{self, BrokerId, Delivery, Offset, RequestId, batch::Batch};

/// Why a delivery was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsound;

/// Invariants: `position` is the offset after the last record handed out, and only grows; at most one stream is
/// listened to, whose id is `stream`.
#[derive(Debug)]
pub(super) struct Consumer {
    position: Offset,
    stream: Option<(RequestId, BrokerId)>,
    /// What a pause between two streams is counted with.
    pub(super) attempts: Attempts,
}

impl Consumer {
    pub(super) fn new(from: Offset) -> Self {
        Self { position: from, stream: None, attempts: Attempts::new(Time::NEVER) }
    }

    /// The first offset that was not handed out.
    pub(super) fn position(&self) -> Offset {
        self.position
    }

    /// Whether a stream should be opened now.
    pub(super) fn wants_stream(&self, now: Time, turn: u64) -> bool {
        self.stream.is_none() && self.attempts.is_due(now, turn)
    }

    /// A stream was opened.
    pub(super) fn opened(&mut self, id: RequestId, broker: BrokerId) {
        self.stream = Some((id, broker));
    }

    /// The stream that is listened to.
    pub(super) fn stream(&self) -> Option<(RequestId, BrokerId)> {
        self.stream
    }

    /// The stream is over. Whether it was the one listened to.
    pub(super) fn closed(&mut self, id: RequestId) -> bool {
        self.stream.take_if(|(stream, _)| *stream == id).is_some()
    }

    /// The connection is gone. Whether there was a stream on it.
    pub(super) fn disconnected(&mut self, broker: BrokerId) -> bool {
        self.stream.take_if(|(_, at)| *at == broker).is_some()
    }

    /// Takes a delivery, whole or not at all.
    pub(super) fn delivered(&mut self, delivery: Delivery) -> Result<Vec<Placed>, Unsound> {
        let mut position = self.position;
        let mut batches = Vec::with_capacity(delivery.batches.len());
        for protocol::Placed { offset, batch } in delivery.batches {
            let batch = Batch::parse(batch).and_then(|batch| batch.unpacked()).map_err(|_| Unsound)?;
            batch.check_records().map_err(|_| Unsound)?;
            let end = offset.0.checked_add(batch.count().into()).ok_or(Unsound)?;
            let skip = position.0.checked_sub(offset.0).ok_or(Unsound)?;
            // Only the very first batch of a stream may begin before the position; all must move it.
            if end <= position.0 || (skip > 0 && !batches.is_empty()) {
                return Err(Unsound);
            }
            position = Offset(end);
            let skip = u32::try_from(skip).expect("less than the batch's count, which is a u32");
            batches.push(Placed { offset, skip, batch });
        }
        if delivery.next != position && !batches.is_empty() {
            return Err(Unsound);
        }
        assert!(position >= self.position, "a position only grows");
        if !batches.is_empty() {
            self.attempts.resume();
        }
        self.position = position;
        Ok(batches)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::{Epoch, ProducerId, Sequence, batch::BatchBuilder};

    fn batch(count: usize) -> Bytes {
        let mut builder = BatchBuilder::new();
        (0..count).for_each(|at| builder.push_value(None, &[at as u8], 0).unwrap());
        builder.seal(ProducerId(1), Epoch(1), Sequence(0))
    }

    fn delivery(batches: &[(u64, usize)]) -> Delivery {
        let end = batches.last().map_or(0, |(offset, count)| offset + *count as u64);
        let placed = |(offset, count): &(u64, usize)| protocol::Placed {
            offset: Offset(*offset),
            batch: batch(*count),
        };
        let batches = batches.iter().map(placed).collect();
        Delivery { next: Offset(end), end: Offset(end), names: Vec::new(), batches }
    }

    #[test]
    fn the_first_batch_is_trimmed_to_the_offset_asked_for() {
        let mut consumer = Consumer::new(Offset(12));
        let batches = consumer.delivered(delivery(&[(10, 5), (15, 1)])).unwrap();
        assert_eq!(batches.iter().map(|batch| batch.skip).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(consumer.position(), Offset(16));
    }

    #[test]
    fn a_gap_is_not_believed() {
        for batches in [&[(11, 1)][..], &[(10, 1), (12, 1)]] {
            let mut consumer = Consumer::new(Offset(10));
            assert_eq!(consumer.delivered(delivery(batches)), Err(Unsound));
            assert_eq!(consumer.position(), Offset(10), "nothing of it was taken");
        }
    }

    #[test]
    fn a_repetition_is_not_believed() {
        for batches in [&[(8, 2)][..], &[(10, 2), (11, 2)], &[(10, 2), (10, 2)]] {
            let mut consumer = Consumer::new(Offset(10));
            assert_eq!(consumer.delivered(delivery(batches)), Err(Unsound));
        }
    }

    #[test]
    fn a_batch_with_a_flipped_bit_is_not_believed() {
        let mut consumer = Consumer::new(Offset(0));
        let mut delivery = delivery(&[(0, 3)]);
        let mut bytes = delivery.batches[0].batch.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        delivery.batches[0].batch = bytes.into();
        assert_eq!(consumer.delivered(delivery), Err(Unsound));
    }

    #[test]
    fn an_empty_delivery_moves_nothing() {
        let mut consumer = Consumer::new(Offset(7));
        let delivery = Delivery { next: Offset(7), end: Offset(7), names: Vec::new(), batches: Vec::new() };
        assert_eq!(consumer.delivered(delivery), Ok(Vec::new()));
        assert_eq!(consumer.position(), Offset(7));
    }
}
