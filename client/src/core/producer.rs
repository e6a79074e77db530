//! An open producer: its numbers, its window of batches in flight, and what became of each.
//!
//! ```text
//!              settled                    unsent              next
//!                 ▼                          ▼                  ▼
//!   …  acked    | waiting  acked  waiting | never sent, or to   | numbers not yet
//!               |      sent on this turn  | be sent again       | given away
//!               └──────────────── window ──────────────────────┘
//! ```
//!
//! Batches are sent in the order of their numbers, and none is sent before the one in front of it was. When the
//! routing turns to another broker, the whole window is sent again with the same numbers; what was written before is
//! answered as a duplicate, at its original offsets. So a change of leader loses, doubles and reorders nothing.
//!
//! What a refusal means for a batch:
//!
//! | refusal | meaning |
//! |---|---|
//! | not the leader, not ready, busy, lost the leadership | send the same number again |
//! | a gap before it | the batch in front is still on its way or was refused: send again after it |
//! | fenced | no attempt of this epoch can be written from now on. A broker looks for the number before it looks at the epoch, so this batch is not written, and no earlier attempt of it is. The others in the window may be: they are sent once more only to learn that |
//! | used with other content, cut otherwise, sealed | the number is taken or dead for every attempt |
//! | anything else that is final | this attempt is not written; the batch is, perhaps, if another attempt is open |
//!
//! A number that is not written can never be followed by the next one. So after a batch has failed, or its deadline has
//! passed, the producer is *broken*: what comes after it is not sent any more.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{AppendRefused, Event, Failure, ProducerKey, Time, attempts::Attempts, routing::Route};
use crate::protocol::{
    Acks, Append, Appended, BrokerId, Class, Epoch, Producer as Opened, ProducerId, Refusal, Request,
    RequestId, Response, Sequence, batch::BatchBuilder,
};

/// How much may be in flight for one producer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) batches: usize,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    first: Sequence,
    count: u32,
    bytes: Bytes,
    done: bool,
    /// A broker's answer to it that will not change: it is not sent again.
    verdict: Option<Refusal>,
    attempts: Attempts,
}

/// What the session has to do about the rest of its state.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) events: Vec<Event>,
    /// Attempts whose answers are of no interest any more.
    pub(super) forget: Vec<RequestId>,
}

/// Invariants:
/// - the numbers of the window are contiguous and end at `next`; its front is not done;
/// - everything before index `unsent` is done, was sent on turn `turn`, or is never to be sent again;
/// - `bytes` is the sum of the window's bytes;
/// - each batch of the window leaves it with exactly one event.
#[derive(Debug)]
pub(super) struct Producer {
    key: ProducerKey,
    id: ProducerId,
    epoch: Epoch,
    next: Sequence,
    window: VecDeque<InFlight>,
    bytes: usize,
    unsent: usize,
    turn: u64,
    fenced: Option<Refusal>,
    broken_at: Option<Sequence>,
    /// Nothing has to be looked at before this moment.
    wake: Time,
}

impl Producer {
    pub(super) fn new(key: ProducerKey, opened: &Opened) -> Self {
        Self {
            key,
            id: opened.id,
            epoch: opened.epoch,
            next: opened.next,
            window: VecDeque::new(),
            bytes: 0,
            unsent: 0,
            turn: 0,
            fenced: None,
            broken_at: None,
            wake: Time::NEVER,
        }
    }

    /// Whether a batch of this size would be taken now.
    pub(super) fn room(&self, bytes: usize, bounds: Bounds) -> Result<(), AppendRefused> {
        if let Some(Refusal::Fenced { by, .. }) = self.fenced {
            return Err(AppendRefused::Fenced { by });
        }
        if self.broken_at.is_some() {
            return Err(AppendRefused::Broken);
        }
        let fits = self.window.len() < bounds.batches && self.bytes + bytes <= bounds.bytes;
        if fits || self.window.is_empty() { Ok(()) } else { Err(AppendRefused::Full) }
    }

    /// Gives the batch its numbers and puts it into the window.
    pub(super) fn append(&mut self, builder: BatchBuilder, deadline: Time) -> Sequence {
        let (first, count) = (self.next, builder.count() as u32);
        let bytes = builder.seal(self.id, self.epoch, first);
        self.next = first.plus(count.into());
        self.bytes += bytes.len();
        self.wake = self.wake.min(deadline);
        let attempts = Attempts::new(deadline);
        self.window.push_back(InFlight { first, count, bytes, done: false, verdict: None, attempts });
        first
    }

    /// The lowest number that may still be sent again. A producer that is fenced makes no promise: the stream belongs
    /// to somebody else, who may still send lower numbers than ours.
    fn settled(&self) -> Sequence {
        if self.fenced.is_some() {
            return Sequence(0);
        }
        self.window.front().map_or(self.next, |batch| batch.first)
    }

    /// The next batch to send on this turn, and its deadline; none if there is none or it has to wait.
    pub(super) fn next_to_send(&mut self, now: Time, turn: u64) -> Option<(Request, Time)> {
        if self.turn != turn {
            self.turn = turn;
            self.unsent = 0;
        }
        while let Some(batch) = self.window.get(self.unsent) {
            if !batch.done && self.may_send(batch) && !batch.attempts.is_sent(turn) {
                return batch
                    .attempts
                    .is_due(now, turn)
                    .then(|| (self.request(batch), batch.attempts.deadline()));
            }
            self.unsent += 1;
        }
        None
    }

    fn may_send(&self, batch: &InFlight) -> bool {
        let alive = self.fenced.is_some() || self.broken_at.is_none_or(|broken| batch.first < broken);
        alive && batch.verdict.is_none()
    }

    fn request(&self, batch: &InFlight) -> Request {
        Request::Append(Append {
            acks: Acks::Quorum,
            settled: self.settled(),
            expect_end: None,
            batch: batch.bytes.clone(),
        })
    }

    /// Whether a batch was sent on this turn and has no answer yet.
    pub(super) fn has_scout(&self, turn: u64) -> bool {
        self.window.iter().any(|batch| !batch.done && batch.attempts.is_sent(turn))
    }

    /// What `next_to_send` gave was sent. The batch's first number.
    pub(super) fn sent(&mut self, id: RequestId, route: Route, give_up_at: Time) -> Sequence {
        let batch = &mut self.window[self.unsent];
        batch.attempts.sent(id, route, give_up_at);
        self.unsent += 1;
        self.wake = self.wake.min(give_up_at);
        batch.first
    }

    /// Takes the answer to an attempt of the batch that begins at `first`.
    pub(super) fn answered(
        &mut self,
        now: Time,
        first: Sequence,
        id: RequestId,
        response: Response,
        pause: impl FnOnce(u32) -> Duration,
        news: &mut News,
    ) {
        let Some(at) = self.find(first) else { return };
        match response {
            Response::Appended(appended) if appended.count == self.window[at].count => {
                self.acked(at, appended, news);
            }
            Response::Refused(refusal) => self.refused(now, at, id, refusal, pause, news),
            _ => self.window[at].attempts.lose(id),
        }
        self.tidy(news);
    }

    fn find(&self, first: Sequence) -> Option<usize> {
        let at = self.window.partition_point(|batch| batch.first < first);
        self.window.get(at).is_some_and(|batch| batch.first == first && !batch.done).then_some(at)
    }

    fn acked(&mut self, at: usize, appended: Appended, news: &mut News) {
        let (producer, InFlight { first, count, .. }) = (self.key, &self.window[at]);
        let Appended { first: offset, duplicate, .. } = appended;
        let (first, count) = (*first, *count);
        self.done(at, Event::Acked { producer, first, count, offset, duplicate }, news);
        // What waited because of a gap before it need not wait any longer.
        for batch in self.window.range_mut(self.unsent..) {
            if matches!(batch.attempts.last(), Some(Refusal::SequenceGap { .. })) {
                batch.attempts.resume();
            }
        }
    }

    fn refused(
        &mut self,
        now: Time,
        at: usize,
        id: RequestId,
        refusal: Refusal,
        pause: impl FnOnce(u32) -> Duration,
        news: &mut News,
    ) {
        let attempts = &mut self.window[at].attempts;
        let class = refusal.class();
        match class {
            Class::Unknown => attempts.lose(id),
            Class::Elsewhere | Class::Later | Class::Final => attempts.close(id),
        }
        attempts.refused(refusal.clone());
        let again = match refusal {
            Refusal::Fenced { .. } => {
                self.fenced = Some(refusal.clone());
                self.unsent = 0;
                self.fail(at, refusal, news);
                false
            }
            Refusal::SequenceReused { .. } | Refusal::PartlyCommitted { .. } | Refusal::Sealed { .. } => {
                self.break_at(at);
                self.fail(at, refusal, news);
                false
            }
            // The gap is told apart from a lost number only by time: the batch in front is sent again, or fails.
            Refusal::SequenceGap { .. } | Refusal::DeadlinePassed => {
                attempts.pause(now, pause(attempts.pauses()));
                true
            }
            _ => match class {
                Class::Later => {
                    attempts.pause(now, pause(attempts.pauses()));
                    true
                }
                Class::Elsewhere | Class::Unknown => true,
                Class::Final => {
                    self.window[at].verdict = Some(refusal);
                    self.break_at(at);
                    false
                }
            },
        };
        if again {
            self.wake = self.wake.min(self.window[at].attempts.wake(now));
            self.unsent = self.unsent.min(at);
        }
    }

    fn break_at(&mut self, at: usize) {
        let first = self.window[at].first;
        self.broken_at = Some(self.broken_at.map_or(first, |broken| broken.min(first)));
    }

    fn fail(&mut self, at: usize, refusal: Refusal, news: &mut News) {
        self.failed(at, Failure::Refused(refusal), news);
    }

    fn failed(&mut self, at: usize, why: Failure, news: &mut News) {
        let (producer, first, count) = (self.key, self.window[at].first, self.window[at].count);
        self.done(at, Event::Failed { producer, first, count, why }, news);
    }

    fn unknown(&mut self, at: usize, news: &mut News) {
        let (producer, first, count) = (self.key, self.window[at].first, self.window[at].count);
        let last = self.window[at].attempts.last().cloned();
        self.done(at, Event::Unknown { producer, first, count, last }, news);
    }

    fn done(&mut self, at: usize, event: Event, news: &mut News) {
        let batch = &mut self.window[at];
        assert!(!batch.done, "a batch has one outcome");
        batch.done = true;
        news.forget.extend(batch.attempts.ids());
        news.events.push(event);
    }

    /// A connection broke.
    pub(super) fn disconnected(&mut self, broker: BrokerId, news: &mut News) {
        self.window.iter_mut().for_each(|batch| batch.attempts.disconnected(broker));
        self.tidy(news);
    }

    /// Gives up what has taken too long. The turns on which that was.
    pub(super) fn overdue(&mut self, now: Time, news: &mut News) -> Vec<u64> {
        if now < self.wake {
            return Vec::new();
        }
        let mut turns = Vec::new();
        for at in 0..self.window.len() {
            let batch = &mut self.window[at];
            if batch.done {
                continue;
            }
            if let Some(turn) = batch.attempts.give_up(now) {
                turns.push(turn);
                self.unsent = self.unsent.min(at);
            }
            if batch.attempts.deadline() <= now {
                self.expired(at, news);
            }
        }
        self.tidy(news);
        let waits = self.window.iter().filter(|batch| !batch.done);
        self.wake = waits.map(|batch| batch.attempts.wake(now)).min().unwrap_or(Time::NEVER);
        turns
    }

    fn expired(&mut self, at: usize, news: &mut News) {
        self.break_at(at);
        if self.window[at].attempts.is_open() {
            self.unknown(at, news);
        } else {
            let last = self.window[at].attempts.last().cloned();
            self.failed(at, Failure::DeadlinePassed { last }, news);
        }
    }

    /// Gives an outcome to whatever can have only one from now on, and lets the window's front go.
    fn tidy(&mut self, news: &mut News) {
        if self.fenced.is_some() || self.broken_at.is_some() {
            for at in 0..self.window.len() {
                self.conclude(at, news);
            }
        }
        while let Some(batch) = self.window.pop_front_if(|batch| batch.done) {
            self.bytes -= batch.bytes.len();
            self.unsent = self.unsent.saturating_sub(1);
        }
    }

    /// After the producer was fenced or broken: what is not open has failed, and what is open and neither waited for
    /// nor sent again is unknown.
    fn conclude(&mut self, at: usize, news: &mut News) {
        let batch = &self.window[at];
        if batch.done {
            return;
        }
        let why = match (&batch.verdict, &self.fenced, self.broken_at) {
            (Some(verdict), ..) => Failure::Refused(verdict.clone()),
            (None, Some(fenced), _) => Failure::Refused(fenced.clone()),
            (None, None, Some(broken)) if broken < batch.first => Failure::Abandoned,
            (None, None, _) => return,
        };
        if !batch.attempts.is_open() {
            self.failed(at, why, news);
        } else if !batch.attempts.is_waiting() && !self.may_send(batch) {
            self.unknown(at, news);
        }
    }

    /// When to look at it again.
    pub(super) fn wake(&self) -> Time {
        self.wake
    }

    /// Whether everything has its outcome.
    pub(super) fn is_idle(&self) -> bool {
        self.window.is_empty()
    }

    /// Ids whose answers may still come: to be forgotten with the producer.
    pub(super) fn ids(&self) -> Vec<RequestId> {
        self.window.iter().flat_map(|batch| batch.attempts.ids()).collect()
    }
}
