//! What a producer's callers have handed over: gathered into batches, queued, in flight, and at last answered.
//!
//! ```text
//!   append(record) ─► gathering ─┐
//!                                ├─► queued ─► in flight (the session's window) ─► answered
//!   send_batch(batch) ───────────┘
//! ```
//!
//! Nobody waits for a batch to fill and no timer runs: what was gathered leaves when nothing of the producer is in
//! flight, or when it is full. So a lone record leaves at once, and under load each batch holds what came during the
//! flight of the one before.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    core::{AppendRefused, ProducerKey, Session, Time},
    error::AppendError,
    producer::{Lost, Receipt},
    protocol::{
        Codec, Sequence,
        batch::{BatchBuilder, PushError, Record},
    },
};

/// Losses that wait for somebody to ask. Count.
const LOST_MAX: usize = 65_536;

pub(crate) type Outcome = Result<Receipt, AppendError>;

/// Room that a record or a batch takes in its producer's bounds until it has its outcome.
#[derive(Debug)]
#[allow(dead_code, reason = "held, not read")]
pub(crate) struct Room {
    pub(crate) bytes: OwnedSemaphorePermit,
    pub(crate) batch: Option<OwnedSemaphorePermit>,
}

/// Somebody who handed a batch or a record over: who is told, unless that was done already, and the room it takes.
#[derive(Debug)]
struct Caller {
    reply: Option<oneshot::Sender<Outcome>>,
    #[allow(dead_code, reason = "held, not read")]
    room: Room,
}

impl Caller {
    fn new(reply: oneshot::Sender<Outcome>, room: Room) -> Self {
        Self { reply: Some(reply), room }
    }

    /// Tells it; false if it knows something else already, or does not want to know.
    fn tell(&mut self, outcome: Outcome) -> bool {
        self.reply.take().is_some_and(|reply| reply.send(outcome).is_ok())
    }
}

/// Who waits for a batch.
#[derive(Debug)]
enum Waiting {
    /// The caller who made it.
    Whole(Caller),
    /// The callers of its records, in their order.
    Records(Vec<Caller>),
}

impl Waiting {
    /// Tells everybody; false if somebody did not hear it.
    fn fail(&mut self, why: &AppendError) -> bool {
        let callers = match self {
            Self::Whole(caller) => std::slice::from_mut(caller),
            Self::Records(callers) => callers,
        };
        let told = callers.iter_mut().map(|caller| caller.tell(Err(why.clone())));
        told.filter(|heard| !heard).count() == 0
    }

    fn acknowledge(&mut self, receipt: &Receipt) {
        match self {
            Self::Whole(caller) => _ = caller.tell(Ok(receipt.clone())),
            Self::Records(callers) => {
                for (caller, receipt) in callers.iter_mut().zip(receipt.of_records()) {
                    caller.tell(Ok(receipt));
                }
            }
        }
    }
}

#[derive(Debug)]
struct Queued {
    batch: BatchBuilder,
    deadline: Time,
    waiting: Waiting,
}

/// A batch in the session's window.
#[derive(Debug)]
struct InFlight {
    records: u32,
    waiting: Waiting,
    /// What is known of its parts, if it had to be cut.
    parts: BTreeMap<Sequence, Receipt>,
}

impl InFlight {
    /// Takes the receipt of a part; gives that of the whole once all parts are there.
    fn join(&mut self, part: Receipt) -> Option<Receipt> {
        if part.records == self.records {
            return Some(part);
        }
        self.parts.insert(part.first_sequence, part);
        let written: u32 = self.parts.values().map(|part| part.records).sum();
        if written < self.records {
            return None;
        }
        std::mem::take(&mut self.parts).into_values().reduce(Receipt::joined)
    }
}

/// How a producer was set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) in_flight_batches: usize,
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) codec: Codec,
}

impl Limits {
    fn batch(&self) -> BatchBuilder {
        BatchBuilder::with_limits(self.batch_records, self.batch_bytes).packed(self.codec)
    }
}

/// One producer's callers.
///
/// Invariants: the order of the callers is the order of `in_flight`, then `queued`, then `gathering`; each caller is
/// answered once.
#[derive(Debug)]
pub(crate) struct Pipeline {
    limits: Limits,
    gathering: BatchBuilder,
    gatherers: Vec<Caller>,
    /// Of the first record gathered.
    deadline: Time,
    queued: VecDeque<Queued>,
    in_flight: BTreeMap<Sequence, InFlight>,
    flushes: Vec<oneshot::Sender<Result<(), AppendError>>>,
    /// The first failure since the last flush.
    failure: Option<AppendError>,
    /// What failed and was told to nobody.
    lost: Vec<Lost>,
    /// Its producer was dropped: it goes when all is answered.
    released: bool,
}

impl Pipeline {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            gathering: limits.batch(),
            gatherers: Vec::new(),
            deadline: Time::NEVER,
            queued: VecDeque::new(),
            in_flight: BTreeMap::new(),
            flushes: Vec::new(),
            failure: None,
            lost: Vec::new(),
            released: false,
        }
    }

    /// Takes a record.
    pub(crate) fn record(
        &mut self,
        record: &Record,
        deadline: Time,
        caller: oneshot::Sender<Outcome>,
        room: Room,
    ) {
        let mut pushed = self.gathering.push(record);
        if pushed == Err(PushError::Full) {
            self.seal();
            pushed = self.gathering.push(record);
        }
        if let Err(error) = pushed {
            let PushError::Record(refusal) = error else { unreachable!("an empty batch is not full") };
            let _gone = caller.send(Err(AppendError::Record(refusal)));
            return;
        }
        if self.gatherers.is_empty() {
            self.deadline = deadline;
        }
        self.gatherers.push(Caller::new(caller, room));
        if self.gathering.count() == self.limits.batch_records {
            self.seal();
        }
    }

    /// Takes a batch, behind the records that came before it.
    pub(crate) fn batch(
        &mut self,
        batch: BatchBuilder,
        deadline: Time,
        caller: oneshot::Sender<Outcome>,
        room: Room,
    ) {
        self.seal();
        let waiting = Waiting::Whole(Caller::new(caller, room));
        self.queued.push_back(Queued { batch, deadline, waiting });
    }

    fn seal(&mut self) {
        if self.gatherers.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.gathering, self.limits.batch());
        let waiting = Waiting::Records(std::mem::take(&mut self.gatherers));
        self.queued.push_back(Queued { batch, deadline: self.deadline, waiting });
    }

    /// Sends what is gathered, and tells the caller when everything has its outcome.
    pub(crate) fn flush(&mut self, caller: oneshot::Sender<Result<(), AppendError>>) {
        self.seal();
        self.flushes.push(caller);
    }

    /// Nobody will hand anything over any more.
    pub(crate) fn release(&mut self) {
        self.seal();
        self.released = true;
    }

    /// Hands to the session what it takes, and answers flushes.
    pub(crate) fn pump(&mut self, session: &mut Session, key: ProducerKey, now: Time) {
        if self.queued.is_empty() && self.in_flight.is_empty() {
            self.seal();
        }
        while self.in_flight.len() < self.limits.in_flight_batches {
            let Some(Queued { batch, .. }) = self.queued.front() else { break };
            let room = session.room(key, batch.bytes());
            if room == Err(AppendRefused::Full) {
                break;
            }
            let Some(Queued { batch, deadline, waiting }) = self.queued.pop_front() else { break };
            let records = batch.count() as u32;
            match room.and_then(|()| session.append(now, key, batch, deadline)) {
                Ok(first) => {
                    let in_flight = InFlight { records, waiting, parts: BTreeMap::new() };
                    self.in_flight.insert(first, in_flight);
                }
                Err(refused) => _ = self.fail(waiting, refused.into()),
            }
        }
        if self.is_idle() {
            let failure = if self.flushes.is_empty() { None } else { self.failure.take() };
            for flush in self.flushes.drain(..) {
                let _gone = flush.send(failure.clone().map_or(Ok(()), Err));
            }
        }
    }

    /// Tells everybody; false if somebody did not hear it.
    fn fail(&mut self, mut waiting: Waiting, why: AppendError) -> bool {
        let heard = waiting.fail(&why);
        self.failure.get_or_insert(why);
        heard
    }

    /// The leader has a batch: its callers are told, and it is kept until a majority has it.
    pub(crate) fn accepted(&mut self, receipt: &Receipt) {
        if let Some((_, batch)) = self.holding(receipt.first_sequence)
            && batch.records == receipt.records
        {
            batch.waiting.acknowledge(receipt);
        }
    }

    /// A batch is written, or a part of one.
    pub(crate) fn acknowledged(&mut self, receipt: Receipt) {
        let Some((first, batch)) = self.holding(receipt.first_sequence) else { return };
        if let Some(receipt) = batch.join(receipt)
            && let Some(InFlight { mut waiting, .. }) = self.in_flight.remove(&first)
        {
            waiting.acknowledge(&receipt);
        }
    }

    /// A batch, or a part of one, is not, or not known to be, written.
    pub(crate) fn failed(&mut self, first: Sequence, why: AppendError) {
        let Some((first, _)) = self.holding(first) else { return };
        if let Some(InFlight { waiting, records, .. }) = self.in_flight.remove(&first)
            && !self.fail(waiting, why.clone())
        {
            self.lose(first, first.plus(u64::from(records.max(1)) - 1), why);
        }
    }

    /// Notes what is lost without anybody having been told. What follows each other is one loss.
    fn lose(&mut self, first: Sequence, last: Sequence, why: AppendError) {
        let is_full = self.lost.len() >= LOST_MAX;
        match self.lost.last_mut() {
            Some(lost) if lost.last.plus(1) == first => lost.last = last,
            // Nobody asks: the next flush fails in any case.
            _ if is_full => {}
            _ => self.lost.push(Lost { first, last, why }),
        }
    }

    /// What was lost since the last call.
    pub(crate) fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// The batch that holds a number, and its first number; none once a part of it has failed.
    fn holding(&mut self, sequence: Sequence) -> Option<(Sequence, &mut InFlight)> {
        let (&first, batch) = self.in_flight.range_mut(..=sequence).next_back()?;
        (sequence < first.plus(batch.records.into())).then_some((first, batch))
    }

    fn is_idle(&self) -> bool {
        self.gatherers.is_empty() && self.queued.is_empty() && self.in_flight.is_empty()
    }

    /// Whether it may be forgotten.
    pub(crate) fn is_over(&self) -> bool {
        self.released && self.is_idle()
    }
}

impl From<AppendRefused> for AppendError {
    fn from(refused: AppendRefused) -> Self {
        match refused {
            AppendRefused::Fenced { by } => Self::Fenced { by },
            AppendRefused::Empty => Self::Empty,
            AppendRefused::NotOpen | AppendRefused::Broken | AppendRefused::Full => Self::Broken,
        }
    }
}
