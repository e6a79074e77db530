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

use tokio::sync::oneshot;

use crate::{
    core::{AppendRefused, ProducerKey, Session, Time},
    error::AppendError,
    outcome::{Caller, InFlight, Outcome, Room, Waiting},
    producer::{Lost, Receipt},
    protocol::{
        Codec, Sequence,
        batch::{BatchBuilder, PushError, Record},
    },
};

/// Losses that wait for somebody to ask. Count.
const LOST_MAX: usize = 65_536;

#[derive(Debug)]
struct Queued {
    batch: BatchBuilder,
    deadline: Time,
    waiting: Waiting,
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
                Ok(first) => _ = self.in_flight.insert(first, InFlight::new(records, waiting)),
                Err(refused) => {
                    let why = AppendError::from(refused);
                    waiting.refuse(&why);
                    self.failure.get_or_insert(why);
                }
            }
        }
        if self.is_idle() {
            let failure = if self.flushes.is_empty() { None } else { self.failure.take() };
            for flush in self.flushes.drain(..) {
                let _gone = flush.send(failure.clone().map_or(Ok(()), Err));
            }
        }
    }

    /// The leader has a batch: its callers are told, and it is kept until a majority has it.
    pub(crate) fn accepted(&mut self, receipt: &Receipt) {
        if let Some((_, batch)) = self.holding(receipt.first_sequence) {
            batch.accepted(receipt);
        }
    }

    /// A batch, or a part of one, has its outcome.
    pub(crate) fn concluded(&mut self, first: Sequence, records: u32, outcome: Outcome) {
        let Some((whole, batch)) = self.holding(first) else { return };
        if !batch.take(first, records, outcome) {
            return;
        }
        let Some(settled) = self.in_flight.remove(&whole).map(InFlight::settle) else { return };
        self.failure = self.failure.take().or(settled.failure);
        settled.lost.into_iter().for_each(|lost| self.lose(lost));
    }

    /// Notes what is lost without anybody having been told. What follows each other is one loss.
    fn lose(&mut self, lost: Lost) {
        let is_full = self.lost.len() >= LOST_MAX;
        match self.lost.last_mut() {
            Some(before) if before.last.plus(1) == lost.first => before.last = lost.last,
            // Nobody asks: the next flush fails in any case.
            _ if is_full => {}
            _ => self.lost.push(lost),
        }
    }

    /// What was lost since the last call.
    pub(crate) fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// The batch that holds a number, and its first number.
    fn holding(&mut self, sequence: Sequence) -> Option<(Sequence, &mut InFlight)> {
        let (&first, batch) = self.in_flight.range_mut(..=sequence).next_back()?;
        (sequence < first.plus(batch.records().into())).then_some((first, batch))
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
