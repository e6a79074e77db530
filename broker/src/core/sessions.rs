//! Sessions: identities that live as long as somebody keeps them alive.
//!
//! Who needs no durable name writes under a session: a producer with a number and no name, bound to a lease. Its number
//! comes from the token counter, which never falls, so a number at or below the counter that is not in the table belonged
//! to a session that is over: what comes late under it is refused for ever, without anything being remembered of it.
//!
//! ```text
//!   OpenSession(ttl) ── entry ──► deadline = the entry's log time + ttl
//!   KeepAlive        ── entry ──► deadline = the entry's log time + ttl
//!   deadline <= log time, and nothing is queued ── entry ──► gone
//! ```
//!
//! Only entries move a deadline, and the end of a session is an entry too. So a leader that was deposed can neither
//! prolong nor end one, a new leader counts on from where the log time stands, and time in which no broker ran is not
//! counted: sessions live longer than their ttl, never shorter. How many keys a lease holds is another file's business.

use imbl::{OrdMap, OrdSet};
use sequor_client::protocol::{Instance, ProducerId, Refusal};

use super::effect::SessionOpening;

/// Most sessions at one time. Count.
pub const SESSIONS_MAX: usize = 100_000;

/// What is known of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    instance: Instance,
    ttl_ms: u64,
    deadline_ms: u64,
}

/// All sessions. A clone is O(1).
///
/// Invariants: `by_deadline` and `by_instance` hold exactly the sessions of `by_id`.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    by_id: OrdMap<ProducerId, Session>,
    by_instance: OrdMap<Instance, ProducerId>,
    by_deadline: OrdSet<(u64, ProducerId)>,
}

impl Sessions {
    /// Judges an opening: `Some` if this instance has a session already.
    ///
    /// # Errors
    /// [`Refusal::SessionsFull`].
    pub(super) fn judge_open(&self, instance: Instance) -> Result<Option<ProducerId>, Refusal> {
        match self.by_instance.get(&instance) {
            Some(id) => Ok(Some(*id)),
            None if self.by_id.len() >= SESSIONS_MAX => {
                Err(Refusal::SessionsFull { limit: SESSIONS_MAX as u64 })
            }
            None => Ok(None),
        }
    }

    /// How long a session lives without being kept alive, in milliseconds; `None` if it is over.
    pub(super) fn ttl_ms(&self, id: ProducerId) -> Option<u64> {
        self.by_id.get(&id).map(|session| session.ttl_ms)
    }

    /// Whether a session may be ended at this log time.
    pub(super) fn is_due(&self, id: ProducerId, log_time_ms: u64) -> bool {
        self.by_id.get(&id).is_some_and(|session| session.deadline_ms <= log_time_ms)
    }

    /// The sessions that may be ended at this log time, those that are due longest first.
    pub(super) fn due(&self, log_time_ms: u64) -> impl Iterator<Item = ProducerId> {
        self.by_deadline.iter().take_while(move |(deadline, _)| *deadline <= log_time_ms).map(|(_, id)| *id)
    }

    /// The log time at which the first of them is due, if nobody keeps it alive; `None` if there is none.
    pub(super) fn first_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.get_min().map(|(deadline, _)| *deadline)
    }

    /// Sessions that live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn absorb_open(&mut self, opening: &SessionOpening, log_time_ms: u64) {
        let SessionOpening { id, instance, ttl_ms } = *opening;
        let deadline_ms = log_time_ms.saturating_add(ttl_ms);
        self.by_id.insert(id, Session { instance, ttl_ms, deadline_ms });
        self.by_instance.insert(instance, id);
        self.by_deadline.insert((deadline_ms, id));
    }

    pub(super) fn absorb_renewal(&mut self, id: ProducerId, log_time_ms: u64) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        self.by_deadline.remove(&(session.deadline_ms, id));
        session.deadline_ms = log_time_ms.saturating_add(session.ttl_ms);
        self.by_deadline.insert((session.deadline_ms, id));
    }

    pub(super) fn absorb_expiry(&mut self, id: ProducerId) {
        if let Some(Session { instance, deadline_ms, .. }) = self.by_id.remove(&id) {
            self.by_instance.remove(&instance);
            self.by_deadline.remove(&(deadline_ms, id));
        }
    }

    /// Every session in the order of ids, as bytes that are equal on two brokers exactly if their tables are.
    pub(super) fn fingerprint(&self, hasher: &mut crc32fast::Hasher) {
        for (id, session) in &self.by_id {
            for number in [id.0, session.ttl_ms, session.deadline_ms] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&session.instance.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sessions: &mut Sessions, id: u64, ttl_ms: u64, now: u64) {
        let instance = Instance([u8::try_from(id).unwrap(); 16]);
        sessions.absorb_open(&SessionOpening { id: ProducerId(id), instance, ttl_ms }, now);
    }

    fn due(sessions: &Sessions, now: u64) -> Vec<u64> {
        sessions.due(now).map(|id| id.0).collect()
    }

    #[test]
    fn a_session_is_due_when_nobody_kept_it_alive_for_its_ttl() {
        let mut sessions = Sessions::default();
        open(&mut sessions, 1, 100, 0);
        open(&mut sessions, 2, 50, 0);
        assert_eq!(due(&sessions, 49), []);
        assert_eq!(due(&sessions, 100), [2, 1], "those that are due longest first");
        sessions.absorb_renewal(ProducerId(2), 60);
        assert_eq!(due(&sessions, 109), [1]);
        assert_eq!(due(&sessions, 110), [1, 2]);
        assert!(sessions.is_due(ProducerId(2), 110) && !sessions.is_due(ProducerId(2), 109));
        sessions.absorb_expiry(ProducerId(1));
        assert_eq!((due(&sessions, 200), sessions.len()), (vec![2], 1));
        assert_eq!(sessions.judge_open(Instance([1; 16])), Ok(None), "its instance is forgotten with it");
        assert_eq!(sessions.judge_open(Instance([2; 16])), Ok(Some(ProducerId(2))));
    }
}
