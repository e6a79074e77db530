//! A tail: the log from an offset on, for as long as it is listened to.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::{
    client::Client,
    command::Released,
    core::{Placed, SubscriptionKey},
    error::TailError,
    protocol::{
        Offset, ProducerId, Sequence,
        batch::{Batch, Record, RecordRef},
    },
};

/// Deliveries that wait for the caller, and those that are on their way to it. Count.
pub(crate) const DELIVERIES_MAX: usize = 8;

/// What the driver hands to a tail.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) batches: Vec<Placed>,
    pub(crate) names: Vec<(ProducerId, String)>,
    pub(crate) end: Offset,
    /// Freed when the caller has taken it: only then is as much again read from the broker.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// A record in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRecord {
    /// Its offset.
    pub offset: Offset,
    /// Name of its producer; `#` and a number for that of a session.
    pub producer: Arc<str>,
    /// Its number in the producer's stream.
    pub sequence: Sequence,
    /// The record.
    pub record: Record,
}

/// A batch in its place. Its checksum is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailBatch {
    /// Offset of the first record that [`TailBatch::records`] gives.
    pub first_offset: Offset,
    /// Name of its producer; `#` and a number for that of a session.
    pub producer: Arc<str>,
    /// The batch; if it was packed, unpacked.
    pub batch: Batch,
    /// Records at its beginning that come before the offset that was asked for. Count.
    pub skip: u32,
}

impl TailBatch {
    /// Its records, from the offset that was asked for on.
    pub fn records(&self) -> impl Iterator<Item = TailRecord> {
        let skip = self.skip as usize;
        let sequence = self.batch.first_sequence().plus(self.skip.into());
        (0..).zip(self.batch.records().skip(skip)).map(move |(at, record)| TailRecord {
            offset: self.first_offset.plus(at),
            producer: Arc::clone(&self.producer),
            sequence: sequence.plus(at),
            record: record.expect("the session has read every record of a batch it hands on"),
        })
    }

    /// The same records, borrowed: for who looks at many and keeps few.
    pub fn borrowed_records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let records = self.batch.records().borrowed().skip(self.skip as usize);
        records.map(|record| record.expect("the session has read every record of a batch it hands on"))
    }

    /// The rest of it from an offset on, which lies in it.
    fn from(self, offset: Offset) -> Self {
        let behind = (offset.0 - self.first_offset.0) as u32;
        Self { first_offset: offset, skip: self.skip + behind, ..self }
    }

    /// Offset after its last record.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.first_offset.plus((self.batch.count() - self.skip).into())
    }
}

/// The log from an offset on: [`Client::tail`]. It has no end but an error, and survives changes of leader without gap
/// or repeat. What is not taken is not read from the broker.
#[derive(Debug)]
pub struct Tail {
    key: SubscriptionKey,
    client: Client,
    deliveries: mpsc::UnboundedReceiver<Result<Delivered, TailError>>,
    batches: VecDeque<Placed>,
    /// Place of the delivery that `batches` is from.
    place: Option<OwnedSemaphorePermit>,
    /// What `next` takes records from, and those that it has not given yet.
    unpacked: Option<TailBatch>,
    records: VecDeque<TailRecord>,
    names: HashMap<ProducerId, Arc<str>>,
    position: Offset,
    end: Offset,
}

impl Tail {
    pub(crate) fn new(
        client: Client,
        key: SubscriptionKey,
        from: Offset,
        deliveries: mpsc::UnboundedReceiver<Result<Delivered, TailError>>,
    ) -> Self {
        Self {
            key,
            client,
            deliveries,
            batches: VecDeque::new(),
            place: None,
            unpacked: None,
            records: VecDeque::new(),
            names: HashMap::new(),
            position: from,
            end: from,
        }
    }

    /// Offset of the record that [`Tail::next`] gives next.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// End offset of the log when the newest delivery was sent: a lower bound of what it is now.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// The next record. Waits for it as long as it takes; cancel safe.
    ///
    /// # Errors
    ///
    /// [`TailError`]; the tail is over then.
    pub async fn next(&mut self) -> Result<TailRecord, TailError> {
        loop {
            if let Some(record) = self.records.pop_front() {
                self.position = record.offset.plus(1);
                return Ok(record);
            }
            let batch = self.placed().await?;
            self.records.extend(batch.records());
            self.unpacked = Some(batch);
        }
    }

    /// The next batch, or what `next` has left of one. Waits for it as long as it takes; cancel safe.
    ///
    /// # Errors
    ///
    /// [`TailError`]; the tail is over then.
    pub async fn next_batch(&mut self) -> Result<TailBatch, TailError> {
        let begun = self.unpacked.take().filter(|_| !self.records.is_empty());
        self.records.clear();
        let batch = match begun {
            Some(batch) => batch.from(self.position),
            None => self.placed().await?,
        };
        self.position = batch.end_offset();
        Ok(batch)
    }

    async fn placed(&mut self) -> Result<TailBatch, TailError> {
        loop {
            if let Some(Placed { offset, skip, batch }) = self.batches.pop_front() {
                let first_offset = offset.plus(skip.into());
                let producer = self.name(batch.producer());
                return Ok(TailBatch { first_offset, producer, batch, skip });
            }
            self.place = None;
            let delivered = self.deliveries.recv().await.unwrap_or(Err(TailError::Closed))?;
            self.names.extend(delivered.names.into_iter().map(|(id, name)| (id, name.into())));
            self.end = self.end.max(delivered.end);
            self.batches.extend(delivered.batches);
            self.place = delivered.place;
        }
    }

    fn name(&mut self, id: ProducerId) -> Arc<str> {
        Arc::clone(self.names.entry(id).or_insert_with(|| format!("#{id}").into()))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.client.release(Released::Tail(self.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Epoch, batch::BatchBuilder};

    fn batch(offset: u64, count: u64, skip: u32) -> TailBatch {
        let mut builder = BatchBuilder::new();
        (0..count).for_each(|at| builder.push_value(None, &[at as u8], 0).unwrap());
        let batch = Batch::parse(builder.seal(ProducerId(1), Epoch(1), Sequence(100))).unwrap();
        let first_offset = Offset(offset).plus(skip.into());
        TailBatch { first_offset, producer: "p".into(), batch, skip }
    }

    fn seen(batch: &TailBatch) -> Vec<(u64, u64, u8)> {
        let see = |at: TailRecord| (at.offset.0, at.sequence.0, at.record.value.unwrap()[0]);
        let seen: Vec<_> = batch.records().map(see).collect();
        let borrowed = batch.borrowed_records().map(|record| record.value.unwrap()[0]);
        assert!(borrowed.eq(seen.iter().map(|(.., value)| *value)));
        seen
    }

    #[test]
    fn skipped_records_keep_the_others_in_their_places() {
        assert_eq!(seen(&batch(10, 3, 1)), [(11, 101, 1), (12, 102, 2)]);
        assert_eq!(batch(10, 3, 1).end_offset(), Offset(13));
    }

    #[test]
    fn the_rest_of_a_batch_is_that_batch_with_more_skipped() {
        let rest = batch(10, 4, 1).from(Offset(13));
        assert_eq!(seen(&rest), [(13, 103, 3)]);
        assert_eq!(rest.end_offset(), Offset(14));
    }
}
