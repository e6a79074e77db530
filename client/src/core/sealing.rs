//! Giving numbers up, so that "not written" can be said and kept.
//!
//! A refusal speaks of one attempt. Another attempt of the same batch may still be on its way, and be written after its
//! caller was told that it failed, and after the caller has sent the same thing again under another number: that is how
//! records double. So before a producer says "failed" of a number that is only its own, it *seals* it: one entry of the
//! log moves the producer's next number past it. From then on no copy of that batch can be written, and the numbers
//! after it can be.
//!
//! ```text
//!   refused for good, or its time is nearly up
//!        │
//!        ▼                ┌─► Sealed      failed, for certain
//!   Resolve(seal) ────────┼─► Committed   it was written after all
//!                         └─► no answer   unknown; the producer is broken
//! ```
//!
//! Where numbers mean something to the caller (the lines of a file), none is ever given up: the outcome is *unknown*,
//! and whoever opens the name next learns it.

use std::time::Duration;

use super::{
    Failure, Time,
    attempts::Attempts,
    in_flight::InFlight,
    producer::{News, Producer},
    routing::Route,
};
use crate::protocol::{
    Class, Epoch, ProducerId, Refusal, Request, RequestId, Resolve, Resolved, Response, Sequence,
};

/// A seal that was begun and has no answer yet.
#[derive(Debug)]
pub(super) struct Seal {
    /// The last number of the batch that is given up, and with it everything before it.
    pub(super) through: Sequence,
    pub(super) attempts: Attempts,
}

impl Seal {
    pub(super) fn new(through: Sequence, deadline: Time) -> Self {
        Self { through, attempts: Attempts::new(deadline) }
    }

    pub(super) fn request(&self, producer: ProducerId, epoch: Epoch) -> Request {
        Request::Resolve(Resolve { producer, epoch, sequence: self.through, seal: true })
    }
}

impl Producer {
    /// The batch is not sent again. It is sealed before its caller is told, if it may be.
    pub(super) fn doom(&mut self, at: usize, why: Failure) {
        self.window[at].verdict = Some(why);
        self.has_doomed = true;
        if self.window[at].give_up_at == Time::NEVER {
            self.break_at(at);
        }
    }

    /// Numbers are given up only by a producer that still has them to give.
    pub(super) fn may_give_up(&self) -> bool {
        self.fenced.is_none() && self.broken_at.is_none()
    }

    /// The seal to send on this turn, if there is one to send, and its deadline.
    pub(super) fn seal_to_send(&mut self, now: Time, turn: u64) -> Option<(Request, Time)> {
        if self.has_doomed && self.seal.is_none() && self.may_give_up() {
            self.seal = self.next_seal();
        }
        let seal = self.seal.as_ref().filter(|seal| seal.attempts.is_due(now, turn))?;
        Some((seal.request(self.id, self.epoch), seal.attempts.deadline()))
    }

    /// The oldest batch that is to be given up. One that was refused waits for those before it: they may be written.
    fn next_seal(&self) -> Option<Seal> {
        let mut waiting = self.window.iter().filter(|batch| !batch.done);
        let is_first =
            |batch: &InFlight| self.window.iter().find(|b| !b.done).map(|b| b.first) == Some(batch.first);
        let doomed = waiting.find(|batch| match &batch.verdict {
            Some(Failure::DeadlinePassed { .. }) => true,
            Some(_) => is_first(batch),
            None => false,
        })?;
        Some(Seal::new(Sequence(doomed.end().0 - 1), doomed.attempts.deadline()))
    }

    /// What `seal_to_send` gave was sent.
    pub(super) fn seal_sent(&mut self, id: RequestId, route: Route, give_up_at: Time) {
        if let Some(seal) = &mut self.seal {
            seal.attempts.sent(id, route, give_up_at);
            self.wake = self.wake.min(give_up_at);
        }
    }

    /// Takes the answer to the seal.
    pub(super) fn seal_answered(
        &mut self,
        now: Time,
        id: RequestId,
        response: Response,
        pause: impl FnOnce(u32) -> Duration,
        news: &mut News,
    ) {
        let Some(seal) = self.seal.as_mut().filter(|seal| seal.attempts.ids().any(|known| known == id))
        else {
            return;
        };
        let through = seal.through;
        match response {
            Response::Resolved(resolved) => self.resolved(through, resolved, news),
            Response::Refused(refusal @ Refusal::Fenced { .. }) => {
                // What was given up is asked for once more: no attempt of it can be written from now on.
                self.window.iter_mut().for_each(|batch| batch.verdict = None);
                self.fence(refusal);
            }
            Response::Refused(refusal)
                if refusal.class() == Class::Final && refusal != Refusal::DeadlinePassed =>
            {
                if let Some(at) = self.window.iter().position(|batch| batch.end().0 == through.0 + 1) {
                    self.break_at(at);
                }
            }
            Response::Refused(refusal) => {
                let attempts = &mut seal.attempts;
                match refusal.class() {
                    Class::Unknown => attempts.lose(id),
                    Class::Elsewhere | Class::Later | Class::Final => attempts.close(id),
                }
                if matches!(refusal.class(), Class::Later | Class::Final) {
                    attempts.pause(now, pause(attempts.pauses()));
                }
                self.wake = self.wake.min(attempts.wake(now));
            }
            _ => seal.attempts.lose(id),
        }
        self.tidy(news);
    }

    /// The fate of the number up to which was sealed is known, and with it that of its batch.
    fn resolved(&mut self, through: Sequence, resolved: Resolved, news: &mut News) {
        if let Some(seal) = self.seal.take() {
            news.forget.extend(seal.attempts.ids());
        }
        self.unsent = 0;
        let Some(at) = self.window.iter().position(|batch| !batch.done && batch.end().0 == through.0 + 1)
        else {
            return;
        };
        match (resolved, self.window[at].verdict.take()) {
            (Resolved::Sealed, Some(why)) => self.failed(at, why, news),
            // Its numbers are written; whether by it or, if somebody else has the name by now, by another batch, only
            // its digest tells: it is sent once more, to be recognised.
            (Resolved::Committed { .. } | Resolved::Sealed | Resolved::Open, _) => {
                self.window[at].give_up_at = Time::NEVER;
                self.window[at].attempts.resume();
            }
        }
        self.resume(0);
    }
}
