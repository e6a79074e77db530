//! A position in the log, and the stream of batches that moves it.
//!
//! A broker delivers whole batches, as their producers made them. So the first batch may begin before the offset that
//! was asked for: its beginning is skipped. From then on each batch must begin exactly where the one before it ended.
//! A consumer believes nothing: not the offsets, not the checksums. What does not fit ends the stream, and what came
//! before it is handed out. Whether the broker's connection is at fault or the log, one stream cannot tell. So it is
//! opened once more at the position reached, over another connection: there is neither gap nor repeat. If again nothing
//! can be had there, the subscription ends with what was found ([`SubscriptionFailure`]), instead of asking for ever.

use super::{Placed, SubscriptionFailure, Time, attempts::Attempts};
use crate::protocol::{self, BrokerId, Delivery, Offset, Refusal, RequestId, batch::Batch};

/// Why the rest of a delivery was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unsound {
    /// The batch here is not one that can be read, and why.
    Unreadable(Offset, Refusal),
    /// What begins here comes neither next nor holds what does.
    Misplaced(Offset),
}

/// Invariants: `position` is the offset after the last record handed out, and only grows; at most one stream is
/// listened to, whose id is `stream`; `doubted` is not beyond `position`.
#[derive(Debug)]
pub(super) struct Consumer {
    position: Offset,
    stream: Option<(RequestId, BrokerId)>,
    /// Where an earlier stream brought nothing that could be believed.
    doubted: Option<Offset>,
    /// What a pause between two streams is counted with.
    pub(super) attempts: Attempts,
}

impl Consumer {
    pub(super) fn new(from: Offset) -> Self {
        Self { position: from, stream: None, doubted: None, attempts: Attempts::new(Time::NEVER) }
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

    /// Takes a delivery up to what cannot be believed, and says what that is.
    pub(super) fn delivered(&mut self, delivery: &Delivery) -> (Vec<Placed>, Result<(), Unsound>) {
        let before = self.position;
        let mut batches = Vec::new();
        let mut sound = Ok(());
        for placed in delivery.placed() {
            let placed = placed.map_err(|why| Unsound::Unreadable(self.position, why));
            match placed.and_then(|placed| self.next(placed, batches.is_empty())) {
                Ok(placed) => batches.push(placed),
                Err(unsound) => {
                    sound = Err(unsound);
                    break;
                }
            }
        }
        if sound.is_ok() && !batches.is_empty() && delivery.next != self.position {
            sound = Err(Unsound::Misplaced(delivery.next));
        }
        assert!(self.position >= before, "a position only grows");
        if !batches.is_empty() {
            self.attempts.resume();
        }
        (batches, sound)
    }

    /// Takes the next batch of a delivery, and moves the position behind it.
    fn next(
        &mut self,
        protocol::Placed { offset, batch, .. }: protocol::Placed,
        is_first: bool,
    ) -> Result<Placed, Unsound> {
        let batch = read(batch).map_err(|why| Unsound::Unreadable(offset, why))?;
        let misplaced = Unsound::Misplaced(offset);
        let Some(end) = offset.0.checked_add(batch.count().into()) else { return Err(misplaced) };
        let Some(skip) = self.position.0.checked_sub(offset.0) else { return Err(misplaced) };
        // Only the very first batch of a stream may begin before the position; all must move it.
        if end <= self.position.0 || (skip > 0 && !is_first) {
            return Err(misplaced);
        }
        self.position = Offset(end);
        let skip = u32::try_from(skip).expect("less than the batch's count, which is a u32");
        Ok(Placed { offset, skip, batch })
    }

    /// What to do about a stream of `broker` that brought this at the present position: nothing but open another one,
    /// or give the subscription up if this is the second.
    pub(super) fn doubt(&mut self, broker: BrokerId, unsound: Unsound) -> Result<(), SubscriptionFailure> {
        if self.doubted.replace(self.position) != Some(self.position) {
            return Ok(());
        }
        Err(match unsound {
            Unsound::Unreadable(offset, found) => SubscriptionFailure::Unreadable { offset, broker, found },
            Unsound::Misplaced(found) => {
                SubscriptionFailure::Misplaced { expected: self.position, broker, found }
            }
        })
    }
}

/// The batch, unpacked, if all of it can be read.
fn read(batch: bytes::Bytes) -> Result<Batch, Refusal> {
    let batch = Batch::parse(batch)?.unpacked()?;
    batch.check_records()?;
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::{Epoch, Field, ProducerId, Sequence, batch::BatchBuilder};

    fn batch(count: usize) -> Bytes {
        let mut builder = BatchBuilder::new();
        (0..count).for_each(|at| builder.push_value(None, &[at as u8], 0).unwrap());
        builder.seal(ProducerId(1), Epoch(1), Sequence(0))
    }

    fn delivery(batches: &[(u64, usize)]) -> Delivery {
        let end = batches.last().map_or(0, |(offset, count)| offset + *count as u64);
        let placed = |(offset, count): &(u64, usize)| {
            let (offset, settled) = (Offset(*offset), Sequence(0));
            protocol::Placed { offset, settled, batch: batch(*count) }.to_bytes()
        };
        let stretches = batches.iter().map(placed).collect();
        Delivery { next: Offset(end), end: Offset(end), names: Vec::new(), stretches }
    }

    #[test]
    fn the_first_batch_is_trimmed_to_the_offset_asked_for() {
        let mut consumer = Consumer::new(Offset(12));
        let (batches, sound) = consumer.delivered(&delivery(&[(10, 5), (15, 1)]));
        assert_eq!(sound, Ok(()));
        assert_eq!(batches.iter().map(|batch| batch.skip).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(consumer.position(), Offset(16));
    }

    /// What is taken of these batches from offset 10 on: how many, the position then, and what was not believed.
    fn taken(delivery: &Delivery) -> (usize, u64, Result<(), Unsound>) {
        let mut consumer = Consumer::new(Offset(10));
        let (batches, sound) = consumer.delivered(delivery);
        (batches.len(), consumer.position().0, sound)
    }

    #[test]
    fn a_gap_is_not_believed() {
        let misplaced = |offset| Err(Unsound::Misplaced(Offset(offset)));
        assert_eq!(taken(&delivery(&[(11, 1)])), (0, 10, misplaced(11)));
        assert_eq!(
            taken(&delivery(&[(10, 1), (12, 1)])),
            (1, 11, misplaced(12)),
            "what comes before it is taken"
        );
        let ahead = Delivery { next: Offset(13), ..delivery(&[(10, 1)]) };
        assert_eq!(taken(&ahead), (1, 11, misplaced(13)), "the next delivery would begin behind a gap");
    }

    #[test]
    fn a_repetition_is_not_believed() {
        let misplaced = |offset| Err(Unsound::Misplaced(Offset(offset)));
        assert_eq!(taken(&delivery(&[(8, 2)])), (0, 10, misplaced(8)));
        assert_eq!(taken(&delivery(&[(10, 2), (11, 2)])), (1, 12, misplaced(11)));
        assert_eq!(taken(&delivery(&[(10, 2), (10, 2)])), (1, 12, misplaced(10)));
    }

    #[test]
    fn a_batch_with_a_flipped_bit_is_not_believed() {
        let mut delivery = delivery(&[(10, 3), (13, 3), (16, 1)]);
        let mut bytes = delivery.stretches[1].to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        delivery.stretches[1] = bytes.into();
        let (count, position, sound) = taken(&delivery);
        assert_eq!((count, position), (1, 13), "what comes before it is taken");
        assert!(
            matches!(sound, Err(Unsound::Unreadable(Offset(13), Refusal::BadChecksum { .. }))),
            "{sound:?}"
        );
    }

    #[test]
    fn a_stretch_that_is_none_is_not_believed() {
        let mut delivery = delivery(&[(10, 3), (13, 3), (16, 1)]);
        delivery.stretches[1].truncate(80);
        let malformed = Refusal::Malformed { what: Field::Batch };
        assert_eq!(taken(&delivery), (1, 13, Err(Unsound::Unreadable(Offset(13), malformed))));
    }

    #[test]
    fn each_position_is_doubted_once() {
        let mut consumer = Consumer::new(Offset(10));
        let doubt = |consumer: &mut Consumer| consumer.doubt(BrokerId(1), Unsound::Misplaced(Offset(99)));
        assert_eq!(doubt(&mut consumer), Ok(()));
        assert_eq!(consumer.delivered(&delivery(&[(10, 1)])).1, Ok(()));
        assert_eq!(doubt(&mut consumer), Ok(()), "it got further");
        let (expected, found) = (Offset(11), Offset(99));
        let given_up = SubscriptionFailure::Misplaced { expected, broker: BrokerId(1), found };
        assert_eq!(doubt(&mut consumer), Err(given_up));
    }

    #[test]
    fn an_empty_delivery_moves_nothing() {
        let mut consumer = Consumer::new(Offset(7));
        let delivery = Delivery { next: Offset(7), end: Offset(7), names: Vec::new(), stretches: Vec::new() };
        assert_eq!(consumer.delivered(&delivery), (Vec::new(), Ok(())));
        assert_eq!(consumer.position(), Offset(7));
    }
}
