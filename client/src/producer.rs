//! A producer's handle: what a program that writes holds.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use crate::{
    client::Client,
    command::{Command, Identity, Released},
    core::{Numbers, ProducerKey, Style},
    error::{AppendError, OpenError},
    outcome::{Outcome, Room},
    pipeline::Limits,
    protocol::{
        self, Acks, Codec, Epoch, Offset, Sequence, Span,
        batch::{BatchBuilder, Record},
        limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX},
    },
};

/// What a record takes of `in_flight_bytes` beside its content. Bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Where a batch, or a record, was written: durable on a majority of the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Sequence of the first record.
    pub first_sequence: Sequence,
    /// Offset of the first record.
    pub first_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// How many records.
    pub records: u32,
    /// Whether an earlier attempt had written it, or a part of it: that was not written again.
    pub duplicate: bool,
    /// Whether only the leader is known to have it ([`Acks::Leader`]): another leader may put it elsewhere, or lose it.
    pub provisional: bool,
    /// Where the last records lie, if they do not follow the first ones: an earlier attempt wrote them in other batches.
    pub rest: Vec<Span>,
}

impl Receipt {
    pub(crate) fn new(
        first_sequence: Sequence,
        first_offset: Offset,
        records: u32,
        duplicate: bool,
        rest: Vec<Span>,
    ) -> Self {
        let scattered: u32 = rest.iter().map(|span| span.count).sum();
        let (start, count) =
            rest.last().map_or((first_offset, records - scattered), |span| (span.offset, span.count));
        let last_offset = start.plus(u64::from(count.max(1)) - 1);
        Self { first_sequence, first_offset, last_offset, records, duplicate, provisional: false, rest }
    }

    /// Where the leader has put it, for as long as it stays.
    pub(crate) fn provisional(first_sequence: Sequence, first_offset: Offset, records: u32) -> Self {
        let receipt = Self::new(first_sequence, first_offset, records, false, Vec::new());
        Self { provisional: true, ..receipt }
    }

    /// The receipt of both, if `next` is of the records that follow these.
    pub(crate) fn joined(self, next: Self) -> Self {
        let mut rest = self.rest;
        let scattered: u32 = next.rest.iter().map(|span| span.count).sum();
        if next.first_offset != self.last_offset.plus(1) || !rest.is_empty() {
            rest.push(Span { offset: next.first_offset, count: next.records - scattered });
        }
        rest.extend(next.rest);
        let (records, duplicate) = (self.records + next.records, self.duplicate || next.duplicate);
        Self::new(self.first_sequence, self.first_offset, records, duplicate, rest)
    }

    /// Where the records lie, in their order.
    pub fn places(&self) -> impl Iterator<Item = Span> {
        let scattered: u32 = self.rest.iter().map(|span| span.count).sum();
        let first = Span { offset: self.first_offset, count: self.records - scattered };
        std::iter::once(first).chain(self.rest.iter().copied())
    }

    /// The receipt of each record of a batch, in order.
    pub(crate) fn of_records(&self) -> impl Iterator<Item = Self> {
        let offsets = self.places().flat_map(|span| (span.offset.0..).take(span.count as usize));
        (self.first_sequence.0..).zip(offsets).map(|(sequence, offset)| {
            let record = Self::new(Sequence(sequence), Offset(offset), 1, self.duplicate, Vec::new());
            Self { provisional: self.provisional, ..record }
        })
    }
}

/// Numbers that are not written, or not known to be, though somebody was not told so: their callers were answered before it
/// was known ([`Acks::Leader`]), or did not wait for the answer.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The first number.
    pub first: Sequence,
    /// The last number.
    pub last: Sequence,
    /// What became of them: of the first ones, if several batches that follow each other were lost.
    pub why: AppendError,
}

/// The future outcome of something that was handed over. To drop it changes nothing but that nobody is told.
#[derive(Debug)]
#[must_use = "without it nobody knows whether the records are written"]
pub struct Acknowledgement {
    outcome: oneshot::Receiver<Outcome>,
}

impl Future for Acknowledgement {
    type Output = Result<Receipt, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.outcome).poll(context);
        outcome.map(|outcome| outcome.unwrap_or(Err(AppendError::Closed)))
    }
}

/// A producer that is not open yet: [`Client::producer`], [`Client::session`].
#[derive(Debug)]
#[must_use = "nothing happens before `open`"]
pub struct OpenProducer {
    client: Client,
    identity: Identity,
    deadline: Duration,
    in_flight_bytes: usize,
    limits: Limits,
    style: Style,
}

impl OpenProducer {
    pub(crate) fn new(client: Client, identity: Identity) -> Self {
        let config = client.config();
        let limits = Limits {
            in_flight_batches: config.in_flight_batches,
            batch_records: config.batch_records.clamp(1, BATCH_RECORDS_MAX),
            batch_bytes: config.batch_bytes.min(BATCH_BYTES_MAX),
            codec: Codec::None,
        };
        let (deadline, in_flight_bytes) = (config.deadline, config.in_flight_bytes);
        Self { client, identity, deadline, in_flight_bytes, limits, style: Style::default() }
    }

    /// Begins at this number instead of the next one of the name: what was written from there on is handed over once
    /// more, in whatever batches, and recognised. Where numbers mean something outside, as the rows of a table do, that
    /// is how to go on without knowing what became of the last ones. A number that would leave a gap is refused.
    pub fn from_sequence(mut self, from: Sequence) -> Self {
        self.style.from = Some(from);
        self
    }

    /// Never gives a number up. By default a batch whose outcome is not known when its deadline comes near is *sealed*,
    /// so that it is certain that it will not be written, and the producer goes on with the next number. That must not
    /// be done to numbers that mean something outside: then the outcome is unknown, and whoever opens the name next
    /// learns it.
    pub fn keep_numbers(mut self) -> Self {
        self.style.numbers = Numbers::Meaningful;
        self
    }

    /// When callers are answered. By default when a majority has the batch on stable storage. With [`Acks::Leader`] when
    /// the leader has it: sooner, with a provisional receipt. [`Acks::None`] asks for nothing more than that
    /// [`Producer::append`] returns: its acknowledgement may be dropped. In all three cases the library keeps what it was
    /// handed, and sends it again, until a majority has it; what it cannot keep is told by [`Producer::lost`] and
    /// [`Producer::flush`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.style.acks = if acks == Acks::Leader { Acks::Leader } else { Acks::Quorum };
        self
    }

    /// How long opening, and each batch, may take. Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Most batches in flight. Default: the client's; 1 to [`IN_FLIGHT_BATCHES_MAX`].
    pub fn in_flight(mut self, batches: usize) -> Self {
        self.limits.in_flight_batches = batches.clamp(1, IN_FLIGHT_BATCHES_MAX);
        self
    }

    /// Most records that [`Producer::append`] puts into one batch. Default: the client's.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.limits.batch_records = records.clamp(1, BATCH_RECORDS_MAX);
        self
    }

    /// Most bytes that [`Producer::append`] puts into one batch. Default: the client's.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.limits.batch_bytes = bytes.min(BATCH_BYTES_MAX);
        self
    }

    /// Packs the batches that [`Producer::append`] gathers. Default: not at all.
    pub fn compress(mut self, codec: Codec) -> Self {
        self.limits.codec = codec;
        self
    }

    /// Takes the name, and fences whoever had it; or begins the session.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is written under the name then.
    pub async fn open(self) -> Result<Producer, OpenError> {
        let Self { client, identity, deadline, in_flight_bytes, limits, style } = self;
        let until = Instant::now() + deadline;
        let command = |reply| Command::Open { identity, style, deadline: until, limits, reply };
        let (key, opened) = client.call(command).await.ok_or(OpenError::Closed)??;
        let batches = Arc::new(Semaphore::new(limits.in_flight_batches));
        let bytes = Arc::new(Semaphore::new(in_flight_bytes));
        Ok(Producer { key, opened, client, deadline, in_flight_bytes, batches, bytes })
    }
}

/// An open producer. Share it by reference: the order of its calls is the order of the log.
///
/// Many batches may be in flight; a change of leader is no more than a pause. A batch that fails for certain does not
/// end the producer: its numbers were given up, and the next ones follow. After an outcome that is *unknown*, or with
/// [`OpenProducer::keep_numbers`] any failure, the producer is of no further use, because no number can follow one that
/// is open: open the name again.
///
/// Dropping it does not take anything back: what was handed over is written, or not, by its deadline.
#[derive(Debug)]
pub struct Producer {
    key: ProducerKey,
    opened: protocol::Producer,
    client: Client,
    deadline: Duration,
    in_flight_bytes: usize,
    batches: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Producer {
    /// What the brokers knew of the name when it was opened: its next sequence, and its newest batches.
    #[must_use]
    pub fn opened(&self) -> &protocol::Producer {
        &self.opened
    }

    /// The epoch under which it writes.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.opened.epoch
    }

    /// Hands a record over. Waits only for room; the future that it returns waits for the outcome. Records that come
    /// while a batch is in flight share the next one. A timestamp of 0 is replaced by the present time.
    ///
    /// # Errors
    ///
    /// [`AppendError::Closed`]. Everything else is told by the acknowledgement.
    pub async fn append(&self, mut record: Record) -> Result<Acknowledgement, AppendError> {
        let deadline = Instant::now() + self.deadline;
        if record.timestamp == 0 {
            record.timestamp = self.client.config().wall_clock();
        }
        let content = record.key.as_ref().map_or(0, bytes::Bytes::len)
            + record.value.as_ref().map_or(0, bytes::Bytes::len)
            + record.headers.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
        let room = Room { bytes: self.room(content + RECORD_OVERHEAD_BYTES).await?, batch: None };
        let (reply, outcome) = oneshot::channel();
        let command = Command::Record { producer: self.key, record, deadline, reply, room };
        self.client.send(command).await.ok_or(AppendError::Closed)?;
        Ok(Acknowledgement { outcome })
    }

    /// Hands a batch over as it is. Waits only for room; the future that it returns waits for the outcome.
    ///
    /// # Errors
    ///
    /// [`AppendError::Empty`] or [`AppendError::Closed`]. Everything else is told by the acknowledgement.
    pub async fn send_batch(&self, batch: BatchBuilder) -> Result<Acknowledgement, AppendError> {
        if batch.is_empty() {
            return Err(AppendError::Empty);
        }
        let deadline = Instant::now() + self.deadline;
        let permit = Arc::clone(&self.batches).acquire_owned().await;
        let permit = permit.map_err(|_| AppendError::Closed)?;
        let room = Room { bytes: self.room(batch.bytes()).await?, batch: Some(permit) };
        let (reply, outcome) = oneshot::channel();
        let command = Command::Batch { producer: self.key, batch, deadline, reply, room };
        self.client.send(command).await.ok_or(AppendError::Closed)?;
        Ok(Acknowledgement { outcome })
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let permits =
            u32::try_from(bytes.min(self.in_flight_bytes)).expect("in_flight_bytes is at most a GiB");
        Arc::clone(&self.bytes).acquire_many_owned(permits).await.map_err(|_| AppendError::Closed)
    }

    /// What was lost since the last call although nobody was told: see [`Lost`]. What is still in flight may yet be. At
    /// most 65,536 losses wait to be asked for.
    ///
    /// # Errors
    ///
    /// [`AppendError::Closed`].
    pub async fn lost(&self) -> Result<Vec<Lost>, AppendError> {
        let command = |reply| Command::Lost { producer: self.key, reply };
        self.client.call(command).await.ok_or(AppendError::Closed)
    }

    /// Sends what is gathered, and waits until everything handed over has its outcome.
    ///
    /// # Errors
    ///
    /// The first failure since the last flush.
    pub async fn flush(&self) -> Result<(), AppendError> {
        let command = |reply| Command::Flush { producer: self.key, reply };
        self.client.call(command).await.unwrap_or(Err(AppendError::Closed))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.client.release(Released::Producer(self.key));
    }
}
