//! A broker's log, as the events of a history.
//!
//! What a history does not know is checked on the way: the content of each record, that nothing follows the retirement of
//! its producer or the end of its session, that no opening of a name is granted twice, and that no session ends before
//! nobody had kept it alive for its whole ttl, by the log's own time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sequor_client::protocol::{Epoch, Instance, Offset, ProducerId, Sequence};

use super::content::{run, session_name};
use super::coverage::Reached;
use super::judge::{Violation, violated};
use crate::core::Core;
use crate::core::effect::{Effect, Effects, Retiring, Sealing, SessionOpening, Written};
use crate::history::Event;

/// A session's producer has one epoch.
const SESSION_EPOCH: Epoch = Epoch(1);

/// How far a producer's numbers are used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) next: Sequence,
    /// Each epoch that was given, and where the log ended then.
    pub(super) granted: Vec<(Epoch, Offset)>,
    /// Nothing may follow.
    pub(super) retired: bool,
    /// If it is a session: its ttl, and the log time until which it may not end. Milliseconds.
    lease: Option<(u64, u64)>,
}

/// See the module's header. Up to what the broker has applied.
#[derive(Debug, Default)]
pub(super) struct Reading {
    broker: u64,
    /// What it holds, in its order.
    pub(super) events: Vec<Event>,
    /// One past the last offset.
    end: u64,
    names: BTreeMap<ProducerId, String>,
    /// Those who were granted a name: each opening of the library's calls itself otherwise. A session that is over is
    /// forgotten, so that a late repetition of its opening may begin another one.
    instances: BTreeSet<Instance>,
    pub(super) streams: BTreeMap<String, Stream>,
}

impl Reading {
    /// Reads the log of a broker, and notes what effects it holds.
    pub(super) fn of(core: &Core, reached: &mut Reached) -> Result<Self, Violation> {
        let mut reading = Self { broker: core.status().id.0, ..Self::default() };
        for index in 1..=core.applied_index() {
            let unreadable =
                |cause: &dyn fmt::Display| Violation(format!("entry {index} cannot be read: {cause}"));
            let entry = core.log().entry(index).map_err(|error| unreadable(&error))?;
            if entry.data.is_empty() {
                continue;
            }
            let effects = Effects::open(entry.data).map_err(|error| unreadable(&error))?;
            let log_time_ms = effects.envelope.log_time_ms;
            for effect in effects {
                let effect = effect.map_err(|error| unreadable(&error))?;
                reached.note_effect(&effect);
                reading.take(log_time_ms, &effect)?;
            }
        }
        let Self { broker, end, .. } = reading;
        reading.events.push(Event::Ended { broker, end });
        Ok(reading)
    }

    pub(super) fn take(&mut self, log_time_ms: u64, effect: &Effect) -> Result<(), Violation> {
        match effect {
            Effect::Open(opening) => {
                self.names.entry(opening.id).or_insert_with(|| opening.name.to_string());
                if !self.instances.insert(opening.instance) {
                    return violated(format!("{} is opened twice by {:?}", opening.name, opening.instance));
                }
                self.grant(opening.id, opening.epoch)?;
            }
            Effect::Append(Written { base, batch, .. }) => {
                let name = self.use_up(batch.producer(), batch.end_sequence())?;
                let run = run(&name, *base, batch, 0)?;
                self.end = run.offset + u64::from(run.count);
                self.events.push(Event::Held { broker: self.broker, run });
            }
            Effect::Seal(Sealing { id, epoch, first, end }) => {
                self.check_epoch(*id, *epoch)?;
                let producer = self.use_up(*id, *end)?;
                let (broker, first, end) = (self.broker, first.0, end.0);
                self.events.push(Event::GaveUp { broker, producer, first, end });
            }
            Effect::Retire(Retiring { id, epoch }) => {
                self.check_epoch(*id, *epoch)?;
                self.stream(*id)?.1.retired = true;
            }
            Effect::Session(SessionOpening { id, ttl_ms, .. }) => {
                self.names.insert(*id, session_name(*id));
                self.grant(*id, SESSION_EPOCH)?;
                self.stream(*id)?.1.lease = Some((*ttl_ms, log_time_ms + ttl_ms));
            }
            Effect::Renew(id) => {
                let (name, stream) = self.stream(*id)?;
                match &mut stream.lease {
                    Some((ttl_ms, until)) if !stream.retired => *until = log_time_ms + *ttl_ms,
                    _ => return violated(format!("{name} is kept alive when it is {stream:?}")),
                }
            }
            Effect::Expire(id) => {
                let (name, stream) = self.stream(*id)?;
                if stream.retired || stream.lease.is_none_or(|(_, until)| until > log_time_ms) {
                    return violated(format!("{name} ends at {log_time_ms} ms when it is {stream:?}"));
                }
                stream.retired = true;
            }
        }
        Ok(())
    }

    fn stream(&mut self, id: ProducerId) -> Result<(String, &mut Stream), Violation> {
        let Some(name) = self.names.get(&id).cloned() else {
            return violated(format!("producer {id} was never opened"));
        };
        let stream = self.streams.entry(name.clone()).or_default();
        Ok((name, stream))
    }

    /// From here on, a producer's entries carry this epoch.
    fn grant(&mut self, id: ProducerId, epoch: Epoch) -> Result<(), Violation> {
        let (broker, end) = (self.broker, Offset(self.end));
        let (producer, stream) = self.stream(id)?;
        if stream.retired {
            return violated(format!("{producer} is opened when it stands at {stream:?}"));
        }
        stream.granted.push((epoch, end));
        self.events.push(Event::Granted { broker, producer, epoch: epoch.0 });
        Ok(())
    }

    /// Of batches, the checker of histories asks the same.
    fn check_epoch(&mut self, id: ProducerId, epoch: Epoch) -> Result<(), Violation> {
        let (name, stream) = self.stream(id)?;
        if stream.granted.last().is_none_or(|(current, _)| *current != epoch) {
            return violated(format!("{name} does something under {epoch:?} when it stands at {stream:?}"));
        }
        Ok(())
    }

    /// Numbers up to `end` are used up; whose they are.
    pub(super) fn use_up(&mut self, id: ProducerId, end: Sequence) -> Result<String, Violation> {
        let (name, stream) = self.stream(id)?;
        if stream.retired {
            return violated(format!("{name} uses numbers up to {end} when it stands at {stream:?}"));
        }
        stream.next = end;
        Ok(name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use sequor_client::protocol::Instance;

    use super::*;
    use crate::core::effect::Opening;

    /// The log after the name `a` was opened.
    pub(crate) fn opened() -> Reading {
        let mut reading = Reading::default();
        let (id, epoch, instance) = (ProducerId(1), Epoch(1), Instance([1; 16]));
        reading.take(0, &Effect::Open(Opening { id, epoch, instance, name: "a".into() })).unwrap();
        reading
    }

    #[test]
    fn what_follows_a_retirement_is_seen() {
        let mut reading = opened();
        assert!(reading.use_up(ProducerId(1), Sequence(1)).is_ok());
        reading.take(0, &Effect::Retire(Retiring { id: ProducerId(1), epoch: Epoch(1) })).unwrap();
        assert!(reading.use_up(ProducerId(1), Sequence(2)).is_err());
        assert!(reading.use_up(ProducerId(2), Sequence(1)).is_err(), "nobody has opened that");
    }

    #[test]
    fn what_is_done_under_an_old_epoch_is_seen() {
        let (id, instance) = (ProducerId(1), Instance([2; 16]));
        let again = Opening { id, epoch: Epoch(2), instance: Instance([1; 16]), name: "a".into() };
        assert!(opened().take(0, &Effect::Open(again)).is_err(), "it was granted before");
        let seal = Sealing { id, epoch: Epoch(1), first: Sequence(0), end: Sequence(2) };
        let retire = Retiring { id, epoch: Epoch(1) };
        assert!(
            opened().take(0, &Effect::Seal(seal)).is_ok()
                && opened().take(0, &Effect::Retire(retire)).is_ok()
        );
        let taken_over = || {
            let mut reading = opened();
            let opening = Opening { id, epoch: Epoch(2), instance, name: "a".into() };
            reading.take(0, &Effect::Open(opening)).unwrap();
            reading
        };
        assert!(taken_over().take(0, &Effect::Seal(seal)).is_err());
        assert!(taken_over().take(0, &Effect::Retire(retire)).is_err());
    }

    #[test]
    fn a_session_that_ends_too_early_is_seen() {
        let (id, instance) = (ProducerId(2), Instance([2; 16]));
        let begun = || {
            let mut reading = Reading::default();
            reading.take(10, &Effect::Session(SessionOpening { id, instance, ttl_ms: 100 })).unwrap();
            reading.take(60, &Effect::Renew(id)).unwrap();
            reading
        };
        assert!(begun().take(159, &Effect::Expire(id)).is_err());
        let mut over = begun();
        assert!(over.take(160, &Effect::Expire(id)).is_ok());
        assert!(over.take(160, &Effect::Renew(id)).is_err());
        assert!(over.use_up(id, Sequence(1)).is_err());
    }
}
