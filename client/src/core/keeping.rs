//! Keeping a session alive: one small request after the other, a third of the session's life apart.
//!
//! Two may be lost before the session is. They travel on the control stream, so that megabytes of appends hold none of
//! them up. When a broker says that the session is over, no more is sent: what is appended under it is refused, and
//! that is how its producer learns it.

use std::time::Duration;

use super::{Time, attempts::Attempts};
use crate::protocol::{KeepAlive, ProducerId, Request};

/// Parts of a session's life between two keep-alives.
const SHARE: u32 = 3;

/// A session on the way of being kept alive.
#[derive(Debug)]
pub(super) struct Keeping {
    session: ProducerId,
    ttl: Duration,
    /// When the next keep-alive is due.
    next: Time,
    over: bool,
    pub(super) attempts: Attempts,
}

impl Keeping {
    /// A session that was just opened.
    pub(super) fn new(session: ProducerId, ttl: Duration, now: Time) -> Self {
        let next = now.after(ttl / SHARE);
        Self { session, ttl, next, over: false, attempts: Attempts::new(now.after(ttl)) }
    }

    pub(super) fn is_due(&self, now: Time, turn: u64) -> bool {
        !self.over && self.next <= now && self.attempts.is_due(now, turn)
    }

    pub(super) fn request(&self) -> Request {
        Request::KeepAlive(KeepAlive { session: self.session })
    }

    /// Until when an answer is of use.
    pub(super) fn deadline(&self, now: Time) -> Time {
        now.after(self.ttl)
    }

    /// A broker has kept it alive.
    pub(super) fn alive(&mut self, now: Time) {
        self.next = now.after(self.ttl / SHARE);
        self.attempts = Attempts::new(self.deadline(now));
    }

    /// A broker said that there is no such session any more.
    pub(super) fn over(&mut self) {
        self.over = true;
    }

    pub(super) fn wake(&self, now: Time) -> Time {
        match self.over {
            true => Time::NEVER,
            false if self.next > now => self.next,
            false => self.attempts.patience(now),
        }
    }
}
