//! A broker's log, as the judge reads it.
//!
//! That each producer's numbers are used up in their order, none of them twice and none left out, is checked on the way,
//! and so is the content of each record, and that no session ends too early.

use std::collections::BTreeMap;
use std::fmt;

use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{Epoch, ProducerId, Sequence};

use super::content::{is_content, session_name};
use super::coverage::Reached;
use super::judge::{Violation, violated};
use crate::core::Core;
use crate::core::effect::{Effect, Effects, Retiring, Sealing, SessionOpening, Written};

/// A record as the judge finds it in a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) producer: String,
    /// The epoch under which it was written.
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
}

/// How far a producer's numbers are used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) next: Sequence,
    /// Nothing may follow.
    pub(super) retired: bool,
    /// What was given up.
    pub(super) sealed: Vec<(Sequence, Sequence)>,
    /// If it is a session: its ttl, and the log time until which it may not end. Milliseconds.
    lease: Option<(u64, u64)>,
}

/// See the module's header. Up to what the broker has applied.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) records: Vec<Record>,
    names: BTreeMap<ProducerId, String>,
    pub(super) streams: BTreeMap<String, Stream>,
}

impl Reading {
    /// Reads the log of a broker, and notes what effects it holds.
    pub(super) fn of(core: &Core, reached: &mut Reached) -> Result<Self, Violation> {
        let mut reading = Self::default();
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
        Ok(reading)
    }

    pub(super) fn take(&mut self, log_time_ms: u64, effect: &Effect) -> Result<(), Violation> {
        match effect {
            Effect::Open(opening) => {
                let name = self.names.entry(opening.id).or_insert_with(|| opening.name.to_string()).clone();
                self.streams.entry(name).or_default();
            }
            Effect::Append(Written { base, batch, .. }) => {
                if base.0 != self.records.len() as u64 {
                    return violated(format!("offset {base} follows {} records", self.records.len()));
                }
                let name = self.use_up(batch.producer(), batch.first_sequence(), batch.end_sequence())?;
                self.read(&name, batch)?;
            }
            Effect::Seal(Sealing { id, first, end, .. }) => {
                self.use_up(*id, *first, *end)?;
                self.stream(*id)?.1.sealed.push((*first, *end));
            }
            Effect::Retire(Retiring { id, .. }) => self.stream(*id)?.1.retired = true,
            Effect::Session(SessionOpening { id, ttl_ms, .. }) => {
                self.names.insert(*id, session_name(*id));
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

    /// Numbers that come next are used up; whose they are.
    pub(super) fn use_up(
        &mut self,
        id: ProducerId,
        first: Sequence,
        end: Sequence,
    ) -> Result<String, Violation> {
        let (name, stream) = self.stream(id)?;
        if stream.retired || stream.next != first || first >= end {
            return violated(format!("{name} uses {first} to {end} when it stands at {stream:?}"));
        }
        stream.next = end;
        Ok(name)
    }

    fn read(&mut self, name: &str, batch: &Batch) -> Result<(), Violation> {
        let mut sequence = batch.first_sequence();
        let unpacked = batch
            .unpacked()
            .map_err(|error| Violation(format!("{name}/{sequence} cannot be read: {error}")))?;
        for record in unpacked.records() {
            let record =
                record.map_err(|error| Violation(format!("{name}/{sequence} cannot be read: {error}")))?;
            if !record.value.as_deref().is_some_and(|value| is_content(value, name, sequence)) {
                return violated(format!("{name}/{sequence} holds something else than was sent"));
            }
            self.records.push(Record { producer: name.to_owned(), epoch: batch.epoch(), sequence });
            sequence = sequence.plus(1);
        }
        Ok(())
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
    fn a_doubled_a_lost_and_a_swapped_number_are_seen() {
        let use_up =
            |reading: &mut Reading, first, end| reading.use_up(ProducerId(1), Sequence(first), Sequence(end));
        assert!(use_up(&mut opened(), 0, 2).is_ok());
        assert!(use_up(&mut opened(), 1, 2).is_err(), "0 is lost");
        let mut reading = opened();
        use_up(&mut reading, 0, 2).unwrap();
        assert!(use_up(&mut reading, 1, 3).is_err(), "1 is there twice");
        assert!(use_up(&mut reading, 2, 3).is_ok());
        assert!(reading.use_up(ProducerId(2), Sequence(0), Sequence(1)).is_err(), "nobody has opened that");
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
        assert!(over.use_up(id, Sequence(0), Sequence(1)).is_err());
    }
}
