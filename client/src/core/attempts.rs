//! The attempts of one request, and what is known of their outcomes.
//!
//! A request is sent again when its answer does not come. From then on two copies of it are on their way, and a
//! refusal of one says nothing of the other. So a request counts its attempts:
//!
//! ```text
//!   current    sent on the connection in use; its answer is waited for
//!   earlier    given up, but the connection stands: an answer may still come
//!   lost       the connection is gone, or a broker said that it does not know: no answer will ever come
//! ```
//!
//! As long as one is current, earlier or lost, the request is *open*: it may have happened. Only a request that is
//! not open may be reported as definitely not done.

use std::time::Duration;

use super::{Time, routing::Route};
use crate::protocol::{BrokerId, Refusal, RequestId};

#[derive(Debug)]
struct Attempt {
    id: RequestId,
    broker: BrokerId,
    turn: u64,
    give_up_at: Time,
}

/// All attempts of one request.
///
/// Invariants: an id is in `current` or in `earlier`, never in both; `lost` never becomes false again.
#[derive(Debug)]
pub(super) struct Attempts {
    deadline: Time,
    current: Option<Attempt>,
    earlier: Vec<Attempt>,
    lost: bool,
    not_before: Time,
    pauses: u32,
    last: Option<Refusal>,
}

impl Attempts {
    pub(super) fn new(deadline: Time) -> Self {
        Self {
            deadline,
            current: None,
            earlier: Vec::new(),
            lost: false,
            not_before: Time(0),
            pauses: 0,
            last: None,
        }
    }

    /// No attempt yet, for the next step of the same undertaking: deadline, pause and last word stay.
    pub(super) fn anew(&mut self) -> Self {
        let fresh = Self::new(self.deadline);
        Self { not_before: self.not_before, pauses: self.pauses, last: self.last.take(), ..fresh }
    }

    pub(super) fn deadline(&self) -> Time {
        self.deadline
    }

    /// The last thing a broker said.
    pub(super) fn last(&self) -> Option<&Refusal> {
        self.last.as_ref()
    }

    /// Whether it was sent on this turn and the answer is waited for.
    pub(super) fn is_sent(&self, turn: u64) -> bool {
        self.current.as_ref().is_some_and(|attempt| attempt.turn == turn)
    }

    /// Whether it is to be sent now.
    pub(super) fn is_due(&self, now: Time, turn: u64) -> bool {
        !self.is_sent(turn) && self.not_before <= now
    }

    /// Whether any attempt may have happened, or may yet.
    pub(super) fn is_open(&self) -> bool {
        let older = self.lost || !self.earlier.is_empty();
        self.current.is_some() || (older && cfg!(not(feature = "bug-refusal-while-open")))
    }

    /// Whether any answer may still come.
    pub(super) fn is_waiting(&self) -> bool {
        self.current.is_some() || !self.earlier.is_empty()
    }

    /// A new attempt; the one before it, if unanswered, is now an earlier one.
    pub(super) fn sent(&mut self, id: RequestId, route: Route, give_up_at: Time) {
        let Route { broker, turn } = route;
        self.earlier.extend(self.current.replace(Attempt { id, broker, turn, give_up_at }));
    }

    /// The attempt has a definite answer.
    pub(super) fn close(&mut self, id: RequestId) {
        self.current.take_if(|attempt| attempt.id == id);
        self.earlier.retain(|attempt| attempt.id != id);
    }

    /// The attempt has an answer that says nothing.
    pub(super) fn lose(&mut self, id: RequestId) {
        self.close(id);
        self.lost = true;
    }

    /// No answer will come from there any more.
    pub(super) fn disconnected(&mut self, broker: BrokerId) {
        let before = self.earlier.len();
        self.earlier.retain(|attempt| attempt.broker != broker);
        let current = self.current.take_if(|attempt| attempt.broker == broker);
        self.lost |= current.is_some() || self.earlier.len() != before;
    }

    /// Gives up waiting for the current attempt if it has taken too long. The turn it was sent on.
    pub(super) fn give_up(&mut self, now: Time) -> Option<u64> {
        let attempt = self.current.take_if(|attempt| attempt.give_up_at <= now)?;
        let turn = attempt.turn;
        self.earlier.push(attempt);
        Some(turn)
    }

    /// Remembers what a broker said, to be told at the deadline.
    pub(super) fn refused(&mut self, refusal: Refusal) {
        self.last = Some(refusal);
    }

    /// How often it was paused in a row: what a backoff grows with.
    pub(super) fn pauses(&self) -> u32 {
        self.pauses
    }

    /// Sends nothing for a while.
    pub(super) fn pause(&mut self, now: Time, pause: Duration) {
        self.pauses = self.pauses.saturating_add(1);
        self.not_before = now.after(pause);
    }

    /// What was waited for has happened.
    pub(super) fn resume(&mut self) {
        self.pauses = 0;
        self.not_before = Time(0);
    }

    /// When to look at it again, at the latest.
    pub(super) fn wake(&self, now: Time) -> Time {
        self.deadline.min(self.patience(now))
    }

    /// The same for what has no deadline.
    pub(super) fn patience(&self, now: Time) -> Time {
        let patience = self.current.as_ref().map_or(Time::NEVER, |attempt| attempt.give_up_at);
        let pause = if self.not_before > now { self.not_before } else { Time::NEVER };
        patience.min(pause)
    }

    /// Ids whose answers may still come.
    pub(super) fn ids(&self) -> impl Iterator<Item = RequestId> {
        self.current.iter().chain(&self.earlier).map(|attempt| attempt.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: BrokerId = BrokerId(1);

    fn send(attempts: &mut Attempts, id: u64, turn: u64) {
        attempts.sent(RequestId(id), Route { broker: HERE, turn }, Time(10));
    }

    #[test]
    fn a_refused_only_attempt_leaves_nothing_open() {
        let mut attempts = Attempts::new(Time(100));
        send(&mut attempts, 1, 1);
        assert!(attempts.is_open());
        attempts.close(RequestId(1));
        assert!(!attempts.is_open());
    }

    #[test]
    fn a_refusal_of_the_second_says_nothing_of_the_first() {
        let mut attempts = Attempts::new(Time(100));
        send(&mut attempts, 1, 1);
        assert_eq!(attempts.give_up(Time(10)), Some(1));
        send(&mut attempts, 2, 1);
        attempts.close(RequestId(2));
        assert!(attempts.is_open() && attempts.is_waiting());
        attempts.close(RequestId(1));
        assert!(!attempts.is_open());
    }

    #[test]
    fn what_was_sent_over_a_broken_connection_stays_open_for_ever() {
        let mut attempts = Attempts::new(Time(100));
        send(&mut attempts, 1, 1);
        attempts.disconnected(HERE);
        send(&mut attempts, 2, 2);
        attempts.close(RequestId(2));
        assert!(attempts.is_open() && !attempts.is_waiting());
    }

    #[test]
    fn another_connection_breaking_changes_nothing() {
        let mut attempts = Attempts::new(Time(100));
        send(&mut attempts, 1, 1);
        attempts.disconnected(BrokerId(2));
        attempts.close(RequestId(1));
        assert!(!attempts.is_open());
    }
}
