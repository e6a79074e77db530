//! Answers on their way to clients: who may be told what by now.
//!
//! `waiting.rs` knows what each answer waits for; here is looked after what has happened, and what it releases goes out.

use sequor_client::protocol::{self as wire, Response};

use super::waiting::{Answer, Caller};
use super::{Core, Reply};

impl Core {
    /// Notices that leadership was won or lost.
    pub(super) fn notice_leadership(&mut self) {
        let leads = self.node.leads().then(|| self.node.term());
        if leads == self.led_term {
            return;
        }
        if self.led_term.is_some() {
            self.give_committed_answers();
            self.head = None;
            for (caller, response) in self.waiting.deposed(self.node.commit(), self.leader()) {
                self.reply(caller, response);
            }
        }
        if leads.is_some() {
            self.counters.elections_won += 1;
        }
        self.led_term = leads;
    }

    /// Answers the requests whose entries are committed, though they may not be applied yet: raft hands an entry out
    /// only once this broker's own disk has it, and a majority may be faster.
    pub(super) fn give_committed_answers(&mut self) {
        let released = self.waiting.committed(self.node.commit(), |index| self.node.term_of(index));
        for (caller, answer) in released.given {
            self.give(caller, answer);
        }
        for (caller, response) in released.lost {
            self.reply(caller, response);
        }
    }

    /// Tells those who asked for it that this broker's own disk has what they wrote.
    pub(super) fn give_early_answers(&mut self) {
        if self.node.leads() {
            let durable = self.node.log().durable();
            for (caller, response) in self.waiting.synced(durable, |index| self.node.term_of(index)) {
                self.reply(caller, response);
            }
        }
    }

    pub(super) fn give_ready_answers(&mut self) {
        for (caller, answer) in self.waiting.ready(self.applied_index) {
            self.give(caller, answer);
        }
    }

    pub(super) fn give(&mut self, caller: Caller, answer: Answer) {
        let response = match answer {
            Answer::Wrote(response) | Answer::Nothing(response) => response,
            Answer::Question(question) => self.answer(question),
        };
        self.reply(caller, response);
    }

    pub(super) fn reply(&mut self, caller: Caller, response: Response) {
        if let Response::Appended(wire::Appended { duplicate: true, .. }) = response {
            self.counters.duplicates += 1;
        }
        self.replies.push_back(Reply { caller, response });
    }
}
