//! What a client asks beside its work, until it is answered: where the log ends, and what became of one of its numbers.

use std::collections::BTreeMap;

use sequor_client::core::{Call, Event as News};
use sequor_client::protocol::{Resolved, Sequence};

use super::judge::Violation;
use super::recorder::Recorder;
use crate::history::Event;

/// Without an answer at the same time, at most. Count.
const QUESTIONS_MAX: usize = 4;

/// See the file's header. Each has a number in the history.
#[derive(Debug, Default)]
pub(super) struct Questions {
    ends: BTreeMap<Call, u64>,
    numbers: BTreeMap<Call, (u64, String, Sequence)>,
}

impl Questions {
    /// Whether there is room for another one.
    pub(super) fn has_room(&self) -> bool {
        self.ends.len() + self.numbers.len() < QUESTIONS_MAX
    }

    /// It is asked where the log ends.
    pub(super) fn ask_end(&mut self, call: Call, recorder: &mut Recorder) -> Result<(), Violation> {
        let id = recorder.id();
        self.ends.insert(call, id);
        recorder.record(&Event::Asked { id })
    }

    /// It is asked what became of a number.
    pub(super) fn ask_number(
        &mut self,
        call: Call,
        producer: &str,
        sequence: Sequence,
        recorder: &mut Recorder,
    ) -> Result<(), Violation> {
        let (id, producer) = (recorder.id(), producer.to_owned());
        self.numbers.insert(call, (id, producer.clone(), sequence));
        recorder.record(&Event::Inquired { id, producer })
    }

    /// There may be an answer among the news.
    pub(super) fn take(&mut self, news: &News, recorder: &mut Recorder) -> Result<(), Violation> {
        match news {
            News::EndIs { call, end } => match self.ends.remove(call) {
                Some(id) => recorder.record(&Event::Answered { id, end: end.end.0 }),
                None => Ok(()),
            },
            News::Resolved { call, resolved } => {
                let Some((id, producer, Sequence(sequence))) = self.numbers.remove(call) else {
                    return Ok(());
                };
                recorder.record(&match resolved {
                    Resolved::Committed { offset } => {
                        Event::Committed { producer, sequence, offset: offset.map(|offset| offset.0) }
                    }
                    Resolved::Sealed => Event::Sealed { producer, sequence },
                    Resolved::Open => Event::Open { id, sequence },
                })
            }
            News::CallUnknown { call, .. } | News::CallFailed { call, .. } => {
                self.ends.remove(call);
                self.numbers.remove(call);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Nobody waits for answers any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}
