//! Somebody who writes under a name, crashes, comes back under the same name, and goes on.
//!
//! ```text
//!   connect ─► (seal a number?) ─► open ─► batches, many in flight ─► crash, failure, or the end
//!      ▲                                                                │
//!      └────────────── what has no outcome is unknown ◄─────────────────┘
//! ```
//!
//! It is the real library, with the default acknowledgement. A crash is one of two: everything stops at once, and what is
//! in flight has no outcome; or the old life goes on beside the new one, a zombie that does not know that it was replaced.
//! A new life goes on where the brokers say that the name stands, or sends once more what it knows no outcome of, cut in
//! other batches. Now and then numbers are sealed just when they are sent, and nobody knows which comes first. Every number
//! has one content, so whatever becomes of it, there is one right answer.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use sequor_broker::history::{Event, Place};
use sequor_client::{
    Acknowledgement, AppendError, Client, Config, Producer, Receipt,
    core::Failure,
    protocol::{Epoch, ProducerId, Refusal, Resolved, Sequence},
};

use super::{allowance::Allowance, content, history::Recorder};
use crate::exit::{Exit, Verdict};

/// Pause before a name is opened again. Milliseconds.
const REOPEN_MS: std::ops::Range<u64> = 1..200;
/// How long a life lasts, if nothing ends it. Milliseconds.
const LIFE_MS: std::ops::Range<u64> = 1_000..20_000;
/// How long a patient writer, an impatient one, and one that cannot wait at all, waits for the outcome of a batch. The last
/// gives numbers up even when nothing is wrong. Milliseconds.
const PATIENCE_MS: [std::ops::Range<u64>; 3] = [15_000..30_000, 200..2_000, 5..50];
/// Pause before a zombie wakes up. Milliseconds.
const ZOMBIE_PAUSE_MS: std::ops::Range<u64> = 0..1_500;
/// Batches that a zombie sends when it wakes up, each after the outcome of the one before; and records in each.
const ZOMBIE_BATCHES: usize = 3;
const ZOMBIE_RECORDS: u32 = 3;
/// How often numbers are given up just when they are sent: once in so many batches.
const SEALED_SHARE: u32 = 400;

/// What writers share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) recorder: Recorder,
    pub(super) allowance: Allowance,
    /// Records that were acknowledged, at least.
    pub(super) acknowledged: AtomicU64,
    /// Times that a client crashed, in either way.
    pub(super) crashes: AtomicU64,
}

/// How writers write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Records in a batch, on average.
    pub(super) batch: u32,
    /// Most batches in flight.
    pub(super) in_flight: usize,
    /// Whether clients crash.
    pub(super) crashes: bool,
}

/// The library did what it must not.
#[derive(Debug, Error)]
pub(crate) enum WriterError {
    /// It gave other numbers than those that follow.
    #[error(
        "{producer}: the batch of numbers from {expected} on was acknowledged with numbers from {found} on"
    )]
    OtherNumbers {
        /// Whose.
        producer: String,
        /// The number of its first record.
        expected: u64,
        /// What it was told.
        found: u64,
    },
    /// It was told that its numbers hold something else. But every number has one content here, whoever sends it.
    #[error(
        "{producer}: the batch of numbers {first} to {last} was refused because others of that number were written, and \
         nobody sends others: the log or the broker's memory of it is wrong; `sequor wal dump` shows what the disks hold"
    )]
    Reused {
        /// Whose.
        producer: String,
        /// The number of its first record.
        first: u64,
        /// The number of its last record.
        last: u64,
        /// What a broker said.
        source: Refusal,
    },
}

impl Verdict for WriterError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// Numbers that were handed over together.
#[derive(Clone, Copy, Debug)]
struct Cut {
    id: u64,
    first: u64,
    count: u32,
}

/// The first batch without a known outcome since the name was last opened.
#[derive(Clone, Copy, Debug, Default)]
struct Uncertain(Option<Cut>);

impl Uncertain {
    fn note(&mut self, cut: Cut) {
        if self.0.is_none_or(|before| cut.first < before.first) {
            self.0 = Some(cut);
        }
    }
}

impl Cut {
    fn last(self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

#[derive(Debug)]
struct Flying {
    cut: Cut,
    acknowledgement: Acknowledgement,
}

/// What a writer learns from an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Settled,
    /// Not written; the producer goes on behind it.
    GivenUp,
    /// The producer is of no more use, and of this batch either nothing is known or it is not written.
    Over,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Writer {
    name: String,
    rng: ChaCha8Rng,
    config: Config,
    load: Load,
    desk: Arc<Desk>,
    uncertain: Uncertain,
    zombies: JoinSet<Result<(), WriterError>>,
}

/// One life of a writer: from an opening of the name to the next.
struct Life {
    client: Client,
    producer: Producer,
    /// The next number to send.
    cursor: u64,
    /// What the brokers said comes next.
    next: u64,
    flying: VecDeque<Flying>,
    ends: Instant,
}

/// Why a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The producer is of no more use.
    Broken,
    /// Its time was over.
    Crash,
    /// All is over.
    Stopped,
}

impl Writer {
    pub(super) fn new(number: u64, seed: u64, config: Config, load: Load, desk: Arc<Desk>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        let (name, zombies) = (format!("writer-{number}"), JoinSet::new());
        Self { name, rng, config, load, desk, uncertain: Uncertain::default(), zombies }
    }

    /// Writes until the allowance is stopped, and then waits for every outcome.
    ///
    /// # Errors
    /// If the library does what it must not.
    pub(super) async fn live(mut self) -> Result<(), WriterError> {
        while !self.desk.allowance.is_stopped() {
            if let Some(mut life) = self.open().await {
                let end = self.write(&mut life).await?;
                self.end(life, end).await?;
            }
            let pause = self.rng.random_range(REOPEN_MS);
            if !self.desk.allowance.is_stopped() {
                sleep(Duration::from_millis(pause)).await;
            }
        }
        while let Some(zombie) = self.zombies.join_next().await {
            // One that panicked takes the run with it.
            zombie.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        Ok(())
    }

    /// Begins a life. None if the brokers do not let us: then it is tried again.
    async fn open(&mut self) -> Option<Life> {
        let client = Client::connect(&self.config).await.ok()?;
        if let Some(uncertain) = self.uncertain.0
            && self.rng.random_ratio(1, 2)
        {
            self.resolve(&client, uncertain).await;
        }
        let patience =
            if self.rng.random_ratio(2, 3) { 0 } else { self.rng.random_range(1..PATIENCE_MS.len()) };
        let deadline = Duration::from_millis(self.rng.random_range(PATIENCE_MS[patience].clone()));
        let mut opening = client.producer(&self.name).in_flight(self.load.in_flight).deadline(deadline);
        if self.rng.random_ratio(1, 2) {
            opening = opening.keep_numbers();
        }
        // What is sealed meanwhile cannot be sent again: then the next life goes on behind it.
        let again = self.uncertain.0.filter(|_| self.rng.random_ratio(1, 2)).map(|cut| cut.first);
        if let Some(from) = again {
            opening = opening.from_sequence(Sequence(from));
        }
        let recorder = &self.desk.recorder;
        let id = recorder.id();
        recorder.record(&Event::Inquired { id, producer: self.name.clone() });
        let Ok(producer) = opening.open().await else {
            client.close().await;
            return None;
        };
        let next = producer.opened().next.0;
        recorder.record(&Event::Stands { id, next });
        self.uncertain = Uncertain::default();
        let cursor = again.unwrap_or(next);
        let ends = Instant::now() + Duration::from_millis(self.rng.random_range(LIFE_MS));
        Some(Life { client, producer, cursor, next, flying: VecDeque::new(), ends })
    }

    /// Asks what became of the last number of a batch, and perhaps gives the whole of it up.
    async fn resolve(&mut self, client: &Client, cut: Cut) {
        let Ok(Some(known)) = client.lookup(&self.name).await else { return };
        let seal = self.rng.random_ratio(1, 2);
        self.desk.resolve(client, &self.name, (known.id, known.epoch), cut.last(), seal).await;
    }

    async fn write(&mut self, life: &mut Life) -> Result<End, WriterError> {
        let mut over = false;
        loop {
            let stopped = self.desk.allowance.is_stopped();
            if self.load.crashes && !over && !stopped && Instant::now() >= life.ends {
                return Ok(End::Crash);
            }
            if !over && !stopped && life.flying.len() < self.load.in_flight {
                let count = self.count(life);
                if self.desk.allowance.take(count.into()) {
                    over |= !self.send(life, count).await;
                    continue;
                }
            }
            match life.flying.pop_front() {
                Some(flying) => {
                    over |= self.desk.settle(&self.name, flying, &mut self.uncertain).await? == Outcome::Over;
                }
                None if over => return Ok(End::Broken),
                None if stopped => return Ok(End::Stopped),
                None => self.desk.allowance.wait().await,
            }
        }
    }

    /// Records for the next batch: of any number, and not across the border of what may be there from before.
    fn count(&mut self, life: &Life) -> u32 {
        let most = self.load.batch.saturating_mul(2).saturating_sub(1).max(1);
        let count = self.rng.random_range(1..=most);
        match life.next.checked_sub(life.cursor) {
            None | Some(0) => count,
            Some(before) => count.min(u32::try_from(before).unwrap_or(u32::MAX)),
        }
    }

    /// Hands a batch over; false if the library takes nothing any more.
    async fn send(&mut self, life: &mut Life, count: u32) -> bool {
        let first = life.cursor;
        life.cursor += u64::from(count);
        let send = self.desk.send(&self.name, &life.producer, first, count);
        let flying = if self.load.crashes && self.rng.random_ratio(1, SEALED_SHARE) {
            let (known, last) = (life.producer.opened(), life.cursor - 1);
            let seal = self.desk.resolve(&life.client, &self.name, (known.id, known.epoch), last, true);
            // In this order: the seal is asked for first.
            tokio::join!(seal, send).1
        } else {
            send.await
        };
        let taken = flying.is_some();
        life.flying.extend(flying);
        taken
    }

    async fn end(&mut self, life: Life, end: End) -> Result<(), WriterError> {
        let Life { client, producer, cursor, flying, .. } = life;
        if end != End::Crash {
            drop(producer);
            client.close().await;
            return Ok(());
        }
        self.desk.crashes.fetch_add(1, Ordering::Relaxed);
        if let Some(flying) = flying.front() {
            self.uncertain.note(flying.cut);
        }
        if self.rng.random_ratio(1, 3) {
            let (desk, name) = (Arc::clone(&self.desk), self.name.clone());
            let pause = Duration::from_millis(self.rng.random_range(ZOMBIE_PAUSE_MS));
            self.zombies.spawn(haunt(desk, name, client, producer, cursor, flying, pause));
            return Ok(());
        }
        client.close().await;
        for Flying { cut, .. } in flying {
            self.desk.recorder.record(&Event::Unknown { id: cut.id, why: "the client crashed".into() });
        }
        Ok(())
    }
}

/// An old life that goes on: it wakes up, writes some more batches, and waits for what becomes of all it has sent.
async fn haunt(
    desk: Arc<Desk>,
    name: String,
    client: Client,
    producer: Producer,
    cursor: u64,
    mut flying: VecDeque<Flying>,
    pause: Duration,
) -> Result<(), WriterError> {
    sleep(pause).await;
    for batch in (0..).map(|batch| cursor + batch * u64::from(ZOMBIE_RECORDS)).take(ZOMBIE_BATCHES) {
        flying.extend(desk.send(&name, &producer, batch, ZOMBIE_RECORDS).await);
        for flying in flying.drain(..) {
            desk.settle(&name, flying, &mut Uncertain::default()).await?;
        }
    }
    drop(producer);
    client.close().await;
    Ok(())
}

impl Desk {
    /// Asks what became of a number, and gives it up if `seal` is set. Its batch has to end there.
    async fn resolve(
        &self,
        client: &Client,
        producer: &str,
        (id, epoch): (ProducerId, Epoch),
        sequence: u64,
        seal: bool,
    ) {
        let (question, producer) = (self.recorder.id(), producer.to_owned());
        self.recorder.record(&Event::Inquired { id: question, producer: producer.clone() });
        match client.resolve(id, epoch, Sequence(sequence), seal).await {
            Ok(Resolved::Sealed) => self.recorder.record(&Event::Sealed { producer, sequence }),
            Ok(Resolved::Committed { offset }) => {
                let offset = offset.map(|offset| offset.0);
                self.recorder.record(&Event::Committed { producer, sequence, offset });
            }
            Ok(Resolved::Open) => self.recorder.record(&Event::Open { id: question, sequence }),
            Err(_) => {}
        }
    }

    /// Hands a batch over; none if the library takes nothing any more.
    async fn send(&self, name: &str, producer: &Producer, first: u64, count: u32) -> Option<Flying> {
        let (batch, digest) = content::batch(name, first, count);
        let cut = Cut { id: self.recorder.id(), first, count };
        let (id, producer_name, epoch) = (cut.id, name.to_owned(), producer.epoch().0);
        self.recorder.record(&Event::Invoked { id, producer: producer_name, epoch, first, count, digest });
        match producer.send_batch(batch).await {
            Ok(acknowledgement) => Some(Flying { cut, acknowledgement }),
            Err(error) => {
                self.recorder.record(&Event::Unknown { id, why: error.to_string() });
                None
            }
        }
    }

    /// Waits for an outcome and notes it.
    async fn settle(
        &self,
        producer: &str,
        Flying { cut, acknowledgement }: Flying,
        uncertain: &mut Uncertain,
    ) -> Result<Outcome, WriterError> {
        self.learn(producer, cut, acknowledgement.await, uncertain)
    }

    /// Notes an outcome.
    fn learn(
        &self,
        producer: &str,
        cut: Cut,
        outcome: Result<Receipt, AppendError>,
        uncertain: &mut Uncertain,
    ) -> Result<Outcome, WriterError> {
        let (event, learnt) = match outcome {
            Ok(receipt) => {
                // What somebody may have been told before is not counted again.
                let new = if receipt.duplicate { 0 } else { u64::from(receipt.records) };
                self.acknowledged.fetch_add(new, Ordering::Relaxed);
                let found = receipt.first_sequence.0;
                if found != cut.first {
                    let producer = producer.to_owned();
                    return Err(WriterError::OtherNumbers { producer, expected: cut.first, found });
                }
                (written(cut.id, &receipt), Outcome::Settled)
            }
            Err(error) => {
                if let Some(source @ Refusal::SequenceReused { .. }) = refusal(&error).cloned() {
                    let (producer, first, last) = (producer.to_owned(), cut.first, cut.last());
                    return Err(WriterError::Reused { producer, first, last, source });
                }
                for sequence in sealed(cut, &error) {
                    self.recorder.record(&Event::Sealed { producer: producer.to_owned(), sequence });
                }
                told(cut, &error)
            }
        };
        self.recorder.record(&event);
        if learnt == Outcome::Over {
            uncertain.note(cut);
        }
        Ok(learnt)
    }
}

fn written(id: u64, receipt: &Receipt) -> Event {
    let places = receipt.places().map(|place| Place { offset: place.offset.0, count: place.count });
    Event::Written { id, places: places.collect(), duplicate: receipt.duplicate }
}

/// What a broker said of a batch, or of a part of it, if that is why it failed.
fn refusal(error: &AppendError) -> Option<&Refusal> {
    match error {
        AppendError::Failed(Failure::Refused(refusal)) => Some(refusal),
        AppendError::PartlyWritten { source, .. } => refusal(source),
        _ => None,
    }
}

/// Numbers of a batch of which an error says that they were given up for ever.
fn sealed(cut: Cut, error: &AppendError) -> std::ops::Range<u64> {
    match refusal(error) {
        Some(Refusal::Sealed { first, end }) => first.0.max(cut.first)..end.0.min(cut.last() + 1),
        _ => 0..0,
    }
}

/// What an error says of a batch.
fn told(cut: Cut, error: &AppendError) -> (Event, Outcome) {
    let (id, why) = (cut.id, error.to_string());
    match error {
        AppendError::AlreadyCommitted { first, last }
            if first.0 == cut.first && last.0 + 1 == cut.first + u64::from(cut.count) =>
        {
            (Event::Known { id }, Outcome::Settled)
        }
        AppendError::Failed(_) => (Event::Refused { id, why }, Outcome::GivenUp),
        AppendError::Fenced { .. } | AppendError::Broken | AppendError::Record(_) | AppendError::Empty => {
            (Event::Refused { id, why }, Outcome::Over)
        }
        // Of a part of it something is known, but not of each of its numbers.
        AppendError::AlreadyCommitted { .. }
        | AppendError::PartlyWritten { .. }
        | AppendError::Unknown { .. }
        | AppendError::Closed => (Event::Unknown { id, why }, Outcome::Over),
    }
}

#[cfg(test)]
mod tests {
    use sequor_client::protocol::Offset;

    use super::*;

    const CUT: Cut = Cut { id: 7, first: 10, count: 5 };

    fn refused(refusal: Refusal) -> AppendError {
        AppendError::Failed(Failure::Refused(refusal))
    }

    fn sealed_from(first: u64, end: u64) -> AppendError {
        refused(Refusal::Sealed { first: Sequence(first), end: Sequence(end) })
    }

    fn partly(source: AppendError) -> AppendError {
        AppendError::PartlyWritten { first: Sequence(12), last: Sequence(14), source: Box::new(source) }
    }

    #[test]
    fn what_was_given_up_of_a_batch_are_its_own_numbers() {
        assert_eq!(sealed(CUT, &sealed_from(3, 90)), 10..15);
        assert_eq!(sealed(CUT, &sealed_from(12, 13)), 12..13);
        assert_eq!(sealed(CUT, &partly(sealed_from(12, 20))), 12..15);
        assert!(sealed(CUT, &sealed_from(15, 20)).is_empty());
        assert!(sealed(CUT, &AppendError::Broken).is_empty());
    }

    /// What comes of an outcome, and the lines that it leaves in the history.
    fn settled(outcome: AppendError) -> (Result<Outcome, WriterError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let desk = Desk {
            recorder: Recorder::create(&path).unwrap(),
            allowance: Allowance::new(None),
            acknowledged: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
        };
        let settled = desk.learn("writer-1", CUT, Err(outcome), &mut Uncertain::default());
        desk.recorder.flush().unwrap();
        (settled, std::fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn who_is_told_that_numbers_are_sealed_notes_each_of_them() {
        let (settled, history) = settled(sealed_from(13, 20));
        assert_eq!(settled.unwrap(), Outcome::GivenUp);
        let events = |kind: &str| history.matches(&format!(r#""event":"{kind}""#)).count();
        assert_eq!((events("sealed"), events("refused")), (2, 1), "{history}");
        assert!(history.contains(r#""producer":"writer-1","sequence":14"#), "{history}");
    }

    #[test]
    fn other_content_under_a_number_is_no_refusal_among_others() {
        let reused = || refused(Refusal::SequenceReused { first: Sequence(12), offset: Offset(900) });
        for outcome in [reused(), partly(reused())] {
            let error = settled(outcome).0.unwrap_err();
            assert!(matches!(error, WriterError::Reused { first: 10, last: 14, .. }), "{error}");
        }
    }
}
