//! Whether anybody wants anything of a broker, and until when that can last by itself.
//!
//! A cluster whose brokers are all idle, and all at the same place of the same log, exchanges heartbeats and nothing else.
//! Who runs one in virtual time may leave such a spell out.

use super::Core;
use super::time::Time;

impl Core {
    /// True if nothing is asked of this broker, nothing waits to be written, decided, applied or sent, and its last
    /// block has its witness.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_written = self.syncing.is_none() && self.last_block.is_none();
        let is_applied =
            self.applied_index == self.node.log_end() && self.log().durable() == self.applied_index;
        let is_answered = self.queue.is_empty()
            && self.waiting.is_empty()
            && self.replies.is_empty()
            && self.outbox.is_empty();
        self.halt.is_none() && is_written && is_applied && is_answered && !self.wants_pass()
    }

    /// Microseconds from `now` until the first session ends that nobody keeps alive; `None` if there is no session.
    #[must_use]
    pub fn until_expiry(&self, now: Time) -> Option<u64> {
        let deadline_ms = self.applied.sessions().first_deadline_ms()?;
        Some(deadline_ms.saturating_sub(self.clock.read(now)).saturating_mul(1000))
    }
}
