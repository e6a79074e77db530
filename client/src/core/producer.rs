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
//! | not the leader, not ready, busy, full, lost the leadership | send the same number again |
//! | a gap before it | the batch in front is still on its way or was refused: send again after it |
//! | fenced | no attempt of this epoch can be written from now on. A broker looks for the number before it looks at the epoch, so this batch is not written, and no earlier attempt of it is. The others in the window may be: they are sent once more only to learn that |
//! | used with other content, sealed | the number is taken or dead for every attempt |
//! | partly committed | its first numbers were written in a batch that was cut otherwise: it is cut there, and both parts are sent |
//! | already committed | it is written, longer ago than a broker remembers where |
//! | anything else that is final | this attempt is not written; the batch is, perhaps, if another attempt is open |
//!
//! A number that is not written can never be followed by the next one. So a batch that fails is sealed first
//! (`sealing.rs`), and the producer goes on behind it. Where that must not be done or does not succeed in time, the
//! producer is *broken*: what comes after the batch is not sent any more.

use std::{collections::VecDeque, time::Duration};

use super::{
    AppendRefused, Event, Failure, Numbers, ProducerKey, Style, Time, in_flight::InFlight, routing::Route,
    sealing::Seal,
};
use crate::protocol::{
    Acks, Append, Appended, BrokerId, Class, Epoch, Producer as Opened, ProducerId, Refusal, Request,
    RequestId, Response, Sequence, batch::BatchBuilder,
};

/// The part of a batch's time that is kept to seal it: one of so many, and at most that long.
const SEALING_SHARE: u32 = 4;
const SEALING_TIME_MAX: Duration = Duration::from_secs(2);

/// How much may be in flight for one producer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) batches: usize,
    pub(super) bytes: usize,
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
/// - each batch of the window leaves it with exactly one event (a batch that is cut: one for each part);
/// - nothing behind `seal` is sent; there is at most one seal, and none once the producer is fenced or broken.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) key: ProducerKey,
    pub(super) id: ProducerId,
    pub(super) epoch: Epoch,
    next: Sequence,
    pub(super) window: VecDeque<InFlight>,
    bytes: usize,
    pub(super) unsent: usize,
    turn: u64,
    numbers: Numbers,
    acks: Acks,
    /// What was written before this producer was opened ends here: numbers before it cannot be given up.
    opened_next: Sequence,
    pub(super) seal: Option<Seal>,
    /// False if no batch of the window has a verdict: then none of them has to be looked at for one to seal.
    pub(super) has_doomed: bool,
    pub(super) fenced: Option<Refusal>,
    pub(super) broken_at: Option<Sequence>,
    /// Nothing has to be looked at before this moment.
    pub(super) wake: Time,
}

impl Producer {
    /// A producer that was just opened.
    pub(super) fn new(key: ProducerKey, opened: &Opened, style: Style) -> Self {
        Self {
            key,
            id: opened.id,
            epoch: opened.epoch,
            next: style.from.unwrap_or(opened.next),
            window: VecDeque::new(),
            bytes: 0,
            unsent: 0,
            turn: 0,
            numbers: style.numbers,
            acks: style.acks,
            opened_next: opened.next,
            seal: None,
            has_doomed: false,
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
    pub(super) fn append(&mut self, now: Time, builder: BatchBuilder, deadline: Time) -> Sequence {
        let first = self.next;
        let give_up_at = match self.numbers {
            Numbers::Own if first >= self.opened_next => {
                let reserve = (now.until(deadline) / SEALING_SHARE).min(SEALING_TIME_MAX);
                now.after(now.until(deadline).saturating_sub(reserve))
            }
            Numbers::Own | Numbers::Meaningful => Time::NEVER,
        };
        let batch = InFlight::new(self.id, self.epoch, first, builder, give_up_at, deadline);
        self.next = batch.end();
        self.bytes += batch.bytes.len();
        self.wake = self.wake.min(deadline).min(give_up_at);
        self.window.push_back(batch);
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
        let behind_seal = self.seal.as_ref().is_some_and(|seal| batch.first > seal.through);
        alive && !behind_seal && batch.verdict.is_none()
    }

    fn request(&self, batch: &InFlight) -> Request {
        Request::Append(Append {
            acks: self.acks,
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
            Response::Accepted(appended) if appended.count == self.window[at].count => {
                self.accepted(at, &appended, news);
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

    /// The leader's own disk has it. That is told once, and changes nothing: it is kept until a majority has it.
    fn accepted(&mut self, at: usize, appended: &Appended, news: &mut News) {
        let batch = &mut self.window[at];
        if !std::mem::replace(&mut batch.accepted, true) {
            let (producer, first, count) = (self.key, batch.first, batch.count);
            news.events.push(Event::Accepted { producer, first, count, offset: appended.first });
        }
    }

    fn acked(&mut self, at: usize, appended: Appended, news: &mut News) {
        let (producer, InFlight { first, count, .. }) = (self.key, &self.window[at]);
        let Appended { first: offset, duplicate, rest, .. } = appended;
        let (first, count) = (*first, *count);
        self.done(at, Event::Acked { producer, first, count, offset, duplicate, rest }, news);
        self.resume(self.unsent);
    }

    /// What waited because of a gap before it need not wait any longer.
    pub(super) fn resume(&mut self, from: usize) {
        for batch in self.window.range_mut(from..) {
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
                self.fence(refusal.clone());
                // What it repeats of the time before it was opened may be written; the rest is not.
                if !self.cut(at, &[self.opened_next], news) {
                    self.fail(at, refusal, news);
                }
                false
            }
            Refusal::Sealed { first, end } => {
                if !self.cut(at, &[first, end], news) {
                    if self.numbers == Numbers::Meaningful {
                        self.break_at(at);
                    }
                    self.fail(at, refusal, news);
                }
                false
            }
            Refusal::SequenceReused { .. } => {
                self.break_at(at);
                self.fail(at, refusal, news);
                false
            }
            // Where no number lies within, a broker contradicts itself; the deadline ends that.
            Refusal::PartlyCommitted { up_to } => {
                self.cut(at, &[up_to], news);
                false
            }
            Refusal::AlreadyCommitted { .. } => {
                self.already_committed(at, news);
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
                    self.doom(at, Failure::Refused(refusal));
                    false
                }
            },
        };
        if again {
            self.wake = self.wake.min(self.window[at].attempts.wake(now));
            self.unsent = self.unsent.min(at);
        }
    }

    /// A broker knows the batch's numbers as written, and no more. Only numbers from before this producer was opened
    /// are forgotten while it is rightful: it never calls settled what it may send again. If others are, somebody else
    /// has the name by now, and may have written them.
    fn already_committed(&mut self, at: usize, news: &mut News) {
        let (producer, first, count) = (self.key, self.window[at].first, self.window[at].count);
        if first < self.opened_next {
            return self.done(at, Event::Known { producer, first, count }, news);
        }
        self.break_at(at);
        self.unknown(at, news);
    }

    pub(super) fn fence(&mut self, refusal: Refusal) {
        self.fenced = Some(refusal);
        self.seal = None;
        self.unsent = 0;
    }

    /// Cuts a batch where the fate of its numbers changes, so that each part has one of its own. No attempt of the whole
    /// batch can be written any more. False if none of the bounds lies within it.
    fn cut(&mut self, at: usize, bounds: &[Sequence], news: &mut News) -> bool {
        let Some(parts) = self.window[at].cut(bounds, self.id, self.epoch) else { return false };
        news.forget.extend(self.window[at].attempts.ids());
        self.bytes -= self.window[at].bytes.len();
        self.window.remove(at);
        for (place, part) in (at..).zip(parts) {
            self.bytes += part.bytes.len();
            self.window.insert(place, part);
        }
        self.unsent = self.unsent.min(at);
        true
    }

    pub(super) fn break_at(&mut self, at: usize) {
        self.seal = None;
        let first = self.window[at].first;
        self.broken_at = Some(self.broken_at.map_or(first, |broken| broken.min(first)));
    }

    fn fail(&mut self, at: usize, refusal: Refusal, news: &mut News) {
        self.failed(at, Failure::Refused(refusal), news);
    }

    pub(super) fn failed(&mut self, at: usize, why: Failure, news: &mut News) {
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
        self.seal.iter_mut().for_each(|seal| seal.attempts.disconnected(broker));
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
            let (deadline, give_up_at) = (batch.attempts.deadline(), batch.give_up_at);
            if deadline <= now {
                self.expired(at, news);
            } else if give_up_at <= now && self.window[at].verdict.is_none() && self.may_give_up() {
                let last = self.window[at].attempts.last().cloned();
                self.doom(at, Failure::DeadlinePassed { last });
            }
        }
        turns.extend(self.seal.as_mut().and_then(|seal| seal.attempts.give_up(now)));
        self.tidy(news);
        self.wake = self.next_wake(now);
        turns
    }

    fn next_wake(&self, now: Time) -> Time {
        let batches = self.window.iter().filter(|batch| !batch.done).map(|batch| {
            let give_up_at = if batch.give_up_at > now { batch.give_up_at } else { Time::NEVER };
            batch.attempts.wake(now).min(give_up_at)
        });
        let seal = self.seal.iter().map(|seal| seal.attempts.wake(now));
        batches.chain(seal).min().unwrap_or(Time::NEVER)
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
    pub(super) fn tidy(&mut self, news: &mut News) {
        if self.fenced.is_some() || self.broken_at.is_some() {
            for at in 0..self.window.len() {
                self.conclude(at, news);
            }
        }
        while let Some(batch) = self.window.pop_front_if(|batch| batch.done) {
            self.bytes -= batch.bytes.len();
            self.unsent = self.unsent.saturating_sub(1);
        }
        self.has_doomed = self.has_doomed && self.window.iter().any(|batch| batch.verdict.is_some());
    }

    /// After the producer was fenced or broken: what is not open has failed, and what is open and neither waited for
    /// nor sent again is unknown.
    fn conclude(&mut self, at: usize, news: &mut News) {
        let batch = &self.window[at];
        if batch.done {
            return;
        }
        let repeats = batch.first < self.opened_next;
        let why = match (&batch.verdict, &self.fenced, self.broken_at) {
            (Some(verdict), ..) => verdict.clone(),
            // What is written from before is asked for although nobody can write it any more.
            (None, Some(_), _) if repeats => return,
            (None, Some(fenced), _) => Failure::Refused(fenced.clone()),
            (None, None, Some(broken)) if broken < batch.first && repeats => return self.unknown(at, news),
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
        let seal = self.seal.iter().flat_map(|seal| seal.attempts.ids());
        self.window.iter().flat_map(|batch| batch.attempts.ids()).chain(seal).collect()
    }
}
