//! The judge: it stands outside, believes nobody, and remembers everything that was promised.
//!
//! While the world turns it watches, after every step of a broker:
//!
//! * *election safety*: at most one leader per term;
//! * *commit means durable*: an entry that anybody applies lies on stable storage of a majority;
//! * *one history*: everybody applies the same entry (same term, same chained checksum) at an index.
//!
//! It writes down every acknowledgement that a client gets. When the faults are over and the cluster has come to rest,
//! it reads the log of every broker and demands:
//!
//! * every acknowledged batch is there, at the offset that was said, with the content that was sent;
//! * every batch that was called known is there, wherever that is;
//! * no batch is there of which a client was told that it never will be;
//! * every (producer, sequence) is there at most once, and in the order of sequences, without gap but for what was
//!   sealed; and nothing follows the retirement of its producer or the end of its session;
//! * no session ended before nobody had kept it alive for its whole ttl, by the log's own time;
//! * what readers were delivered is the log, from where they began, in order, without gap or repeat;
//! * all brokers have the same log and the same state.
//!
//! What a record must contain is a function of its producer's name and its sequence, so the judge needs no copy of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{Epoch, Offset, ProducerId, Sequence};
use sequor_wal::{Index, Position, Term};

use crate::core::Core;
use crate::core::effect::{Effect, Effects, Retiring, Sealing, SessionOpening, Written};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a session's producer is called here: it has no name.
pub(super) fn session_name(id: ProducerId) -> String {
    format!("session {id}")
}

/// What the record of a producer at a sequence must contain.
pub(super) fn content(producer: &str, sequence: Sequence) -> Bytes {
    // The length varies so that batches and blocks do too.
    let padding = (sequence.0.wrapping_mul(2_654_435_761) >> 7) % 90;
    let padding = usize::try_from(padding).expect("below 90");
    format!("{producer}/{sequence}/{:.<padding$}", "").into()
}

/// A batch that a client was told to be written.
#[derive(Clone, Debug)]
struct Promise {
    producer: String,
    first: Sequence,
    count: u32,
    offset: Offset,
}

/// A record that a reader was given.
#[derive(Clone, Debug)]
struct Read {
    producer: String,
    sequence: Sequence,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Judge {
    leaders: BTreeMap<Term, u64>,
    history: Vec<Position>,
    promises: Vec<Promise>,
    known: Vec<(String, Sequence)>,
    disclaimed: BTreeSet<Record>,
    /// Names that were retired, and where their streams end.
    retired: Vec<(String, Sequence)>,
    reads: BTreeMap<u64, (Offset, Vec<Read>)>,
    seen_applied: BTreeMap<u64, Index>,
}

impl Judge {
    /// Watches a broker after a step. `durable` says for each broker up to which index its disk is synced.
    pub(super) fn watch(&mut self, id: u64, core: &Core, durable: &[Index]) -> Result<(), Violation> {
        if core.leads() {
            let leader = *self.leaders.entry(core.status().term).or_insert(id);
            if leader != id {
                return violated(format!("brokers {leader} and {id} both lead term {}", core.status().term));
            }
        }
        let seen = self.seen_applied.entry(id).or_insert(0);
        while *seen < core.applied_index() {
            *seen += 1;
            let position = core.log().position(*seen).ok().flatten();
            let Some(position) = position else {
                return violated(format!("broker {id} applied entry {seen}, which its log does not hold"));
            };
            check_history(&mut self.history, id, position, durable)?;
        }
        Ok(())
    }

    /// A broker lost its memory: it will apply everything again.
    pub(super) fn forget(&mut self, id: u64) {
        self.seen_applied.remove(&id);
    }

    /// A client was told that a batch is written.
    pub(super) fn promised(&mut self, producer: &str, first: Sequence, count: u32, offset: Offset) {
        self.promises.push(Promise { producer: producer.to_owned(), first, count, offset });
    }

    /// A client was told that a batch was written before, longer ago than anybody remembers.
    pub(super) fn known(&mut self, producer: &str, first: Sequence, count: u32) {
        self.known.extend((0..count.into()).map(|at| (producer.to_owned(), first.plus(at))));
    }

    /// A client that held `epoch` was told that its batch is not written and never will be.
    pub(super) fn disclaimed(&mut self, producer: &str, epoch: Epoch, first: Sequence, count: u32) {
        let record = |at| Record { producer: producer.to_owned(), epoch, sequence: first.plus(at) };
        self.disclaimed.extend((0..count.into()).map(record));
    }

    /// A client was told that a name is closed for ever, and where its stream ends.
    pub(super) fn retired(&mut self, producer: &str, next: Sequence) {
        self.retired.push((producer.to_owned(), next));
    }

    /// A reader begins at an offset.
    pub(super) fn began(&mut self, reader: u64, from: Offset) {
        self.reads.insert(reader, (from, Vec::new()));
    }

    /// A reader was given the next record.
    pub(super) fn delivered(
        &mut self,
        reader: u64,
        offset: Offset,
        producer: &str,
        sequence: Sequence,
        value: &[u8],
    ) -> Result<(), Violation> {
        let Some((from, reads)) = self.reads.get_mut(&reader) else {
            return violated(format!("reader {reader} was given offset {offset} and never asked for any"));
        };
        let expected = from.plus(reads.len() as u64);
        if offset != expected {
            return violated(format!(
                "reader {reader} was given offset {offset} where {expected} comes next"
            ));
        }
        if value != content(producer, sequence) {
            return violated(format!(
                "reader {reader}: offset {offset} is not what {producer}/{sequence} sent"
            ));
        }
        reads.push(Read { producer: producer.to_owned(), sequence });
        Ok(())
    }

    /// How many batches were acknowledged.
    pub(super) fn promises(&self) -> usize {
        self.promises.len()
    }

    /// How many records readers were given.
    pub(super) fn reads(&self) -> usize {
        self.reads.values().map(|(_, reads)| reads.len()).sum()
    }

    /// The last judgement, over brokers that have come to rest.
    pub(super) fn conclude(&self, cores: &[&Core]) -> Result<(), Violation> {
        let mut logs = cores.iter().map(|core| Reading::of(core));
        let Some(first) = logs.next().transpose()? else { return violated("no broker is left".into()) };
        for (at, log) in logs.enumerate() {
            if log? != first {
                return violated(format!(
                    "the logs of brokers {} and {} differ",
                    cores[0].status().id,
                    at + 2
                ));
            }
        }
        let prints: Vec<u32> = cores.iter().map(|core| core.state().fingerprint()).collect();
        if prints.iter().any(|print| *print != prints[0]) {
            return violated(format!("the states of the brokers differ: {prints:?}"));
        }
        self.check_retired(&first)?;
        self.check_promises(&first.records)?;
        self.check_known(&first.records)?;
        self.check_disclaimed(&first.records)?;
        self.check_reads(&first.records)
    }

    fn check_retired(&self, log: &Reading) -> Result<(), Violation> {
        let wrong = self.retired.iter().find(|(name, next)| {
            !log.streams.get(name).is_some_and(|stream| stream.retired && stream.next == *next)
        });
        wrong.map_or(Ok(()), |(name, next)| {
            violated(format!("{name} was to end at {next}, and the log has {:?}", log.streams.get(name)))
        })
    }

    fn check_known(&self, log: &[Record]) -> Result<(), Violation> {
        let there: BTreeSet<(&str, Sequence)> =
            log.iter().map(|record| (record.producer.as_str(), record.sequence)).collect();
        match self.known.iter().find(|(name, sequence)| !there.contains(&(name.as_str(), *sequence))) {
            Some((name, sequence)) => {
                violated(format!("{name}/{sequence} was called written, and is not there"))
            }
            None => Ok(()),
        }
    }

    fn check_disclaimed(&self, log: &[Record]) -> Result<(), Violation> {
        match log.iter().find(|record| self.disclaimed.contains(record)) {
            Some(record) => {
                violated(format!("{record:?} is written, though its writer was told that it never will be"))
            }
            None => Ok(()),
        }
    }

    fn check_promises(&self, log: &[Record]) -> Result<(), Violation> {
        for promise in &self.promises {
            for at in 0..u64::from(promise.count) {
                let (offset, sequence) = (promise.offset.plus(at), promise.first.plus(at));
                let record = usize::try_from(offset.0).ok().and_then(|at| log.get(at));
                let kept = record.is_some_and(|r| r.producer == promise.producer && r.sequence == sequence);
                if !kept {
                    let what = format!("{}/{sequence}", promise.producer);
                    return violated(format!(
                        "{what} was acknowledged at offset {offset}, where {record:?} lies"
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_reads(&self, log: &[Record]) -> Result<(), Violation> {
        for (reader, (from, reads)) in &self.reads {
            let log = log.iter().skip(usize::try_from(from.0).unwrap_or(usize::MAX));
            for (at, (read, record)) in reads.iter().zip(log).enumerate() {
                if read.producer != record.producer || read.sequence != record.sequence {
                    let offset = from.plus(at as u64);
                    return violated(format!(
                        "reader {reader} was given {read:?} at {offset}, where {record:?} lies"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn violated<T>(what: String) -> Result<T, Violation> {
    Err(Violation(what))
}

fn check_history(
    history: &mut Vec<Position>,
    id: u64,
    position: Position,
    durable: &[Index],
) -> Result<(), Violation> {
    let index = position.index;
    let at = usize::try_from(index).expect("an index fits a usize") - 1;
    if let Some(known) = history.get(at) {
        if *known != position {
            return violated(format!("broker {id} applied {position:?} where {known:?} was applied before"));
        }
        return Ok(());
    }
    history.push(position);
    let holders = durable.iter().filter(|durable| **durable >= index).count();
    if holders * 2 <= durable.len() {
        return violated(format!(
            "broker {id} applied entry {index}, durable on {holders} of {}",
            durable.len()
        ));
    }
    Ok(())
}

/// A record as the judge finds it in a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    producer: String,
    /// The epoch under which it was written.
    epoch: Epoch,
    sequence: Sequence,
}

/// How far a producer's numbers are used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stream {
    next: Sequence,
    /// Nothing may follow.
    retired: bool,
    /// If it is a session: its ttl, and the log time until which it may not end. Milliseconds.
    lease: Option<(u64, u64)>,
}

/// A broker's log up to what it applied, as the judge reads it. That each producer's numbers are used up in their order,
/// none of them twice and none left out, is checked on the way, and so is the content of each record.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    records: Vec<Record>,
    names: BTreeMap<ProducerId, String>,
    streams: BTreeMap<String, Stream>,
}

impl Reading {
    fn of(core: &Core) -> Result<Self, Violation> {
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
                reading.take(log_time_ms, &effect.map_err(|error| unreadable(&error))?)?;
            }
        }
        Ok(reading)
    }

    fn take(&mut self, log_time_ms: u64, effect: &Effect) -> Result<(), Violation> {
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
            Effect::Seal(Sealing { id, first, end, .. }) => _ = self.use_up(*id, *first, *end)?,
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
    fn use_up(&mut self, id: ProducerId, first: Sequence, end: Sequence) -> Result<String, Violation> {
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
            if record.value.as_deref() != Some(&content(name, sequence)[..]) {
                return violated(format!("{name}/{sequence} holds something else than was sent"));
            }
            self.records.push(Record { producer: name.to_owned(), epoch: batch.epoch(), sequence });
            sequence = sequence.plus(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sequor_client::protocol::Instance;

    use super::*;
    use crate::core::effect::Opening;

    fn record(producer: &str, sequence: u64) -> Record {
        Record { producer: producer.into(), epoch: Epoch(1), sequence: Sequence(sequence) }
    }

    fn opened() -> Reading {
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
    fn what_follows_a_retirement_is_seen() {
        let mut reading = opened();
        reading.take(0, &Effect::Retire(Retiring { id: ProducerId(1), epoch: Epoch(1) })).unwrap();
        assert!(reading.use_up(ProducerId(1), Sequence(0), Sequence(1)).is_err());
        let mut judge = Judge::default();
        judge.retired("a", Sequence(0));
        assert!(judge.check_retired(&reading).is_ok());
        assert!(judge.check_retired(&opened()).is_err(), "it was never retired");
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

    #[test]
    fn what_was_called_known_and_is_not_there_is_seen() {
        let mut judge = Judge::default();
        judge.known("a", Sequence(0), 2);
        assert!(judge.check_known(&[record("a", 0), record("a", 1)]).is_ok());
        assert!(judge.check_known(&[record("a", 0)]).is_err());
    }

    #[test]
    fn a_promise_that_was_not_kept_is_seen() {
        let mut judge = Judge::default();
        judge.promised("a", Sequence(1), 1, Offset(1));
        assert!(judge.check_promises(&[record("a", 0), record("a", 1)]).is_ok());
        assert!(judge.check_promises(&[record("a", 0)]).is_err(), "lost");
        assert!(judge.check_promises(&[record("a", 0), record("b", 0)]).is_err(), "somebody else's");
    }

    #[test]
    fn a_batch_that_is_there_against_what_was_said_is_seen() {
        let mut judge = Judge::default();
        judge.disclaimed("a", Epoch(1), Sequence(0), 2);
        assert!(judge.check_disclaimed(&[record("a", 2), record("b", 1)]).is_ok());
        assert!(judge.check_disclaimed(&[record("a", 1)]).is_err());
    }

    #[test]
    fn a_commit_that_is_not_durable_on_a_majority_is_seen() {
        let position = Position { index: 1, term: 1, chain: 7 };
        assert!(check_history(&mut Vec::new(), 1, position, &[1, 1, 0]).is_ok());
        assert!(check_history(&mut Vec::new(), 1, position, &[1, 0, 0]).is_err());
    }

    #[test]
    fn a_second_history_is_seen() {
        let position = Position { index: 1, term: 1, chain: 7 };
        let mut history = vec![Position { chain: 8, ..position }];
        assert!(check_history(&mut history, 2, position, &[1, 1, 1]).is_err());
    }

    #[test]
    fn a_reader_that_is_given_a_record_twice_is_seen() {
        let mut judge = Judge::default();
        let value = content("a", Sequence(4));
        judge.began(0, Offset(9));
        assert!(judge.delivered(0, Offset(9), "a", Sequence(4), &value).is_ok());
        assert!(judge.delivered(0, Offset(9), "a", Sequence(4), &value).is_err());
        assert!(judge.delivered(0, Offset(11), "a", Sequence(4), &value).is_err(), "a gap");
        assert!(judge.delivered(0, Offset(10), "a", Sequence(5), &value).is_err(), "other content");
    }
}
