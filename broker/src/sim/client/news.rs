//! What a client's library tells it, and what it makes of that. All of it goes into the history.

use sequor_client::core::{Event as News, Failure, OpenFailure, Placed, ProducerKey};
use sequor_client::protocol::{Refusal, Sequence};

use super::super::content::{self, session_name};
use super::super::judge::Violation;
use super::super::recorder::{Recorder, places};
use super::{BUSY_US, Client, Writer};
use crate::core::time::Time;
use crate::history::Event;

impl Client {
    /// Takes one piece of news of the library's.
    pub(in super::super) fn take(
        &mut self,
        now: Time,
        news: News,
        recorder: &mut Recorder,
    ) -> Result<(), Violation> {
        match news {
            News::Opened { producer, state } => {
                let (key, id, epoch) = (producer, state.id, state.epoch);
                let (from, question) = match self.writer {
                    Writer::Opening { from, question, .. } => (from, question),
                    _ => (None, None),
                };
                let next = from.unwrap_or(state.next);
                if let Some(id) = question {
                    recorder.record(&Event::Stands { id, next: state.next.0 })?;
                }
                if self.nameless {
                    self.name = session_name(id);
                }
                self.writer = Writer::Open { key, id, epoch, next, in_flight: 0, until: now };
            }
            News::OpenFailed { why, .. } => {
                self.reopen(now);
                if let OpenFailure::Refused(refusal @ Refusal::Retired) = &why {
                    recorder.refused(&self.name, refusal)?;
                    self.fail(now, Some(refusal));
                }
            }
            News::Acked { producer, first, count, offset, duplicate, rest } => {
                let id = self.sent.end(producer, first, count, recorder)?;
                recorder.record(&Event::Written { id, places: places(count, offset, &rest), duplicate })?;
                self.certain = self.certain.max(first.plus(count.into()));
                let is_new = |begun: (ProducerKey, Sequence)| begun.0 == producer && begun.1 <= first;
                self.written_since_calm |= !duplicate && self.begun_since_calm.is_some_and(is_new);
                self.ended(now, count);
            }
            News::Known { producer, first, count } => {
                let id = self.sent.end(producer, first, count, recorder)?;
                recorder.record(&Event::Known { id })?;
                self.ended(now, count);
            }
            News::Failed { producer, first, count, why } => {
                let id = self.sent.end(producer, first, count, recorder)?;
                recorder.record(&Event::Refused { id, why: format!("{why:?}") })?;
                self.ended(now, count);
                let refusal = if let Failure::Refused(refusal) = &why { Some(refusal) } else { None };
                if let Some(refusal) = refusal.filter(|_| self.writes_as(producer)) {
                    recorder.refused(&self.name, refusal)?;
                    recorder.sealed(&self.name, (first, count), refusal)?;
                }
                self.fail(now, refusal);
            }
            News::Unknown { producer, first, count, last } => {
                let id = self.sent.end(producer, first, count, recorder)?;
                recorder.record(&Event::Unknown { id, why: format!("{last:?}") })?;
                self.ended(now, count);
                if let Some(refusal) = last.as_ref().filter(|_| self.writes_as(producer)) {
                    recorder.refused(&self.name, refusal)?;
                }
                self.fail(now, last.as_ref());
            }
            News::Retired { call, retired } => {
                let name = self.retiring.remove(&call).unwrap_or_default();
                recorder.retired(&name, retired.next);
                if name == self.name {
                    self.rename(now);
                }
            }
            News::Records { batches, names, .. } => {
                self.names.extend(names);
                for placed in batches {
                    self.read(&placed, recorder)?;
                }
            }
            News::SubscriptionEnded { why, .. } => {
                return Err(Violation(format!("the subscription of {} ended: {why}", self.name)));
            }
            News::Rejected { why, .. } => {
                return Err(Violation(format!("{} rejects a broker's hello: {why}", self.name)));
            }
            // What the leader alone has is no promise.
            News::Accepted { .. } => {}
            News::EndIs { .. }
            | News::Resolved { .. }
            | News::CallUnknown { .. }
            | News::CallFailed { .. } => {
                self.questions.take(&news, recorder)?;
            }
            News::Connected { .. } | News::Found { .. } | News::StatusIs { .. } | News::Listed { .. } => {}
        }
        Ok(())
    }

    /// Whether this is the producer that it writes under, and not one that it has given up.
    fn writes_as(&self, producer: ProducerKey) -> bool {
        matches!(self.writer, Writer::Open { key, .. } if key == producer)
    }

    fn ended(&mut self, now: Time, count: u32) {
        if let Writer::Open { in_flight, until, .. } = &mut self.writer {
            *in_flight = in_flight.saturating_sub(count.into());
            if !self.is_idle {
                *until = (*until).min(now + BUSY_US.1);
            }
        }
    }

    fn read(&self, placed: &Placed, recorder: &mut Recorder) -> Result<(), Violation> {
        let Placed { offset, batch, skip, .. } = placed;
        let session = session_name(batch.producer());
        let name = self.names.get(&batch.producer()).unwrap_or(&session);
        let run = content::run(name, *offset, batch, *skip)?;
        recorder.record(&Event::Read { reader: self.reader, run })
    }

    /// What follows from a batch, or an opening, that failed. As long as its producer is open, it goes on with it.
    fn fail(&mut self, now: Time, refusal: Option<&Refusal>) {
        match refusal {
            Some(Refusal::Fenced { .. }) if self.has_heir => self.writer = Writer::Retired,
            Some(Refusal::Fenced { .. } | Refusal::SessionExpired) => self.reopen(now),
            Some(Refusal::Retired) => self.rename(now),
            _ => {}
        }
    }
}
