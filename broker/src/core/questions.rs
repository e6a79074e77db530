//! Linearizable questions: asked by a client, answered from the applied state once `waiting.rs` lets them.

use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{End, List, Lookup, Offset, Refusal, Resolve, Response, Revision};

use super::Core;

/// A question that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Where the log ends.
    End,
    /// What is known of a name.
    Lookup(Lookup),
    /// What became of a number.
    Resolve(Resolve),
    /// A page of the table of producers.
    List(List),
    /// Whether a batch is what is written under its numbers, though it was cut otherwise.
    Recut(Batch),
    /// Whether a subscription may begin at this offset.
    Subscribe(Offset),
}

impl Core {
    /// Answers a question from the applied state.
    pub(super) fn answer(&mut self, question: Question) -> Response {
        let answer = match question {
            Question::End => Ok(Response::End(self.end_of_log())),
            Question::Lookup(lookup) => {
                let found = self.applied.producers().show(&lookup.name);
                found.map(Response::Found).ok_or(Refusal::UnknownProducer)
            }
            Question::Resolve(resolve) => {
                self.applied.resolve(resolve.producer, resolve.sequence).map(Response::Resolved)
            }
            Question::List(list) => {
                Ok(Response::Listed(self.applied.producers().list(list.after.as_deref(), list.limit)))
            }
            Question::Recut(batch) => self.answer_recut(&batch),
            Question::Subscribe(from) => self.may_begin(from).map(|()| Response::End(self.end_of_log())),
        };
        answer.unwrap_or_else(Response::Refused)
    }

    fn may_begin(&self, from: Offset) -> Result<(), Refusal> {
        if from > self.end() {
            return Err(Refusal::OffsetOutOfRange { asked: from, first: Offset(0), end: self.end() });
        }
        Ok(())
    }

    fn end_of_log(&self) -> End {
        End { first: Offset(0), end: self.end(), revision: Revision(0), lineage: self.settings.lineage }
    }
}
