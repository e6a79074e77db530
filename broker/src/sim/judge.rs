//! The judge: it stands outside, believes nobody, and remembers everything that was promised.
//!
//! While the world turns it watches, after every step of a broker:
//!
//! * *election safety*: at most one leader per term;
//! * *commit means durable*: an entry that anybody applies lies on stable storage of a majority;
//! * *one history*: everybody applies the same entry (same term, same chained checksum) at an index;
//! * *leader completeness*: whoever leads a term has everything that was committed in it or before;
//! * *log matching*: two logs with an entry of the same term at an index are the same up to there;
//! * *memory*: a broker that starts, whatever befell it and its disk, has every entry that was synced and every vote.
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
//! * who asked for the end of the log was not told less than had been acknowledged before, nor more than there is;
//! * what a number was said to be, written or given up, it still is;
//! * what readers were delivered is the log, from where they began, in order, without gap or repeat;
//! * all brokers have the same log and the same state.
//!
//! What a record must contain is a function of its producer's name and its sequence (`content.rs`), so the judge needs no
//! copy of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sequor_client::protocol::{Epoch, Offset, Resolved, Sequence};
use sequor_wal::{Index, Position, Term, Vote};

use super::content::is_content;
use super::coverage::Reached;
use super::machine::Synced;
use super::reading::{Reading, Record};
use crate::core::Core;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entry that was applied somewhere.
#[derive(Clone, Copy, Debug)]
struct Applied {
    position: Position,
    /// In which term the first broker was that applied it.
    in_term: Term,
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
    history: Vec<Applied>,
    promises: Vec<Promise>,
    known: Vec<(String, Sequence)>,
    disclaimed: BTreeSet<Record>,
    /// Names that were retired, and where their streams end.
    retired: Vec<(String, Sequence)>,
    reads: BTreeMap<u64, (Offset, Vec<Read>)>,
    /// What was said of single numbers.
    resolved: Vec<(String, Sequence, Resolved)>,
    /// The furthest end of the log that anybody was told.
    end: Offset,
    seen: BTreeMap<u64, Seen>,
}

/// What was last seen of a broker.
#[derive(Debug, Default)]
struct Seen {
    applied: Index,
    last: Index,
}

impl Judge {
    /// Watches a broker after a step. `durable` says for each broker up to which index its disk is synced.
    pub(super) fn watch(
        &mut self,
        id: u64,
        core: &Core,
        durable: &[Index],
        reached: &mut Reached,
    ) -> Result<(), Violation> {
        if core.leads() {
            self.check_leader(id, core, reached)?;
        }
        let seen = self.seen.entry(id).or_default();
        let last = core.log().last_index();
        if last < seen.last {
            reached.note("conflict cut the log");
        }
        seen.last = last;
        while seen.applied < core.applied_index() {
            seen.applied += 1;
            let position = core.log().position(seen.applied).ok().flatten();
            let Some(position) = position else {
                return violated(format!(
                    "broker {id} applied entry {}, which its log does not hold",
                    seen.applied
                ));
            };
            let applied = Applied { position, in_term: core.status().term };
            check_history(&mut self.history, id, applied, durable)?;
        }
        Ok(())
    }

    fn check_leader(&mut self, id: u64, core: &Core, reached: &mut Reached) -> Result<(), Violation> {
        let term = core.status().term;
        if let Some(leader) = self.leaders.get(&term) {
            return match *leader == id {
                true => Ok(()),
                false => violated(format!("brokers {leader} and {id} both lead term {term}")),
            };
        }
        self.leaders.insert(term, id);
        reached.note("elected");
        let Some(expected) = last_up_to(&self.history, term) else { return Ok(()) };
        match core.log().position(expected.index).ok().flatten() {
            Some(own) if own == expected => Ok(()),
            own => {
                violated(format!("broker {id} leads term {term} with {own:?}, and {expected:?} was applied"))
            }
        }
    }

    /// Compares the logs of two brokers where both end.
    pub(super) fn check_matching(&self, one: &Core, other: &Core) -> Result<(), Violation> {
        let index = one.log().last_index().min(other.log().last_index());
        let (Ok(Some(here)), Ok(Some(there))) = (one.log().position(index), other.log().position(index))
        else {
            return Ok(());
        };
        if here.term == there.term && here.chain != there.chain {
            return violated(format!(
                "two logs have {here:?} and {there:?}, which have one term and two histories"
            ));
        }
        Ok(())
    }

    /// A broker started: it lost its memory, and will apply everything again. What its disk had confirmed it has to know.
    pub(super) fn restarted(
        &mut self,
        id: u64,
        core: &Core,
        synced: Synced,
        reached: &mut Reached,
    ) -> Result<(), Violation> {
        check_remembered(id, synced, core.log().vote(), |index| core.log().position(index).ok().flatten())?;
        let last = core.log().last_index();
        if self.seen.insert(id, Seen { applied: 0, last }).is_some_and(|seen| last < seen.last) {
            reached.note("unsynced entries lost");
        }
        Ok(())
    }

    /// The faults have been over for a while: one broker leads, everybody follows it, it has applied an entry of its own
    /// term, and nothing that was committed is missing anywhere.
    pub(super) fn is_well(&self, cores: &[&Core], committed: Index) -> Result<(), Violation> {
        let leader = cores.iter().find(|core| core.leads());
        let well = leader.is_some_and(|leader| {
            let (own, term) = (leader.status(), leader.log().term(leader.applied_index()));
            let follows = |core: &&Core| core.leader() == own.leader && core.status().term == own.term;
            term == Some(own.term)
                && cores.iter().all(|core| follows(core) && core.applied_index() >= committed)
        });
        if well {
            return Ok(());
        }
        let brokers: Vec<_> = cores.iter().map(|core| core.status()).collect();
        violated(format!(
            "the cluster is not well ten election timeouts after the last fault; {committed} was committed then: \
             {brokers:?}"
        ))
    }

    /// A client was told that a batch is written.
    pub(super) fn promised(&mut self, producer: &str, first: Sequence, count: u32, offset: Offset) {
        self.promises.push(Promise { producer: producer.to_owned(), first, count, offset });
        self.end = self.end.max(offset.plus(count.into()));
    }

    /// The end that whoever asks from now on must at least be told.
    pub(super) fn least_end(&self) -> Offset {
        self.end
    }

    /// A client that asked when the end was at least `least` is told `end`.
    pub(super) fn ended(&mut self, least: Offset, end: Offset) -> Result<(), Violation> {
        self.end = self.end.max(end);
        if end < least {
            return violated(format!("the log was said to end at {end} when {least} had been told before"));
        }
        Ok(())
    }

    /// A client was told what became of one number.
    pub(super) fn resolved(&mut self, producer: &str, sequence: Sequence, resolved: Resolved) {
        self.resolved.push((producer.to_owned(), sequence, resolved));
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
        if !is_content(value, producer, sequence) {
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

    /// The last judgement, over brokers that have come to rest, and whether the disk of each has rotted: of those it is
    /// enough that they notice.
    pub(super) fn conclude(&self, cores: &[(&Core, bool)], reached: &mut Reached) -> Result<(), Violation> {
        let mut first: Option<(u64, Reading, u32)> = None;
        for (core, rotten) in cores {
            let (id, print) = (core.status().id.0, core.state().fingerprint());
            let log = match Reading::of(core, reached) {
                Err(_) if *rotten => continue,
                log => log?,
            };
            match &first {
                Some((other, expected, _)) if log != *expected => {
                    return violated(format!("the logs of brokers {other} and {id} differ"));
                }
                Some((other, _, expected)) if print != *expected => {
                    return violated(format!("the states of brokers {other} and {id} differ"));
                }
                Some(_) => {}
                None => first = Some((id, log, print)),
            }
        }
        let Some((_, log, _)) = first else { return violated("no broker is left".into()) };
        self.check_retired(&log)?;
        self.check_promises(&log.records)?;
        self.check_known(&log.records)?;
        self.check_disclaimed(&log.records)?;
        self.check_resolved(&log)?;
        if self.end.0 > log.records.len() as u64 {
            return violated(format!(
                "somebody was told of an end at {}, and the log has {}",
                self.end,
                log.records.len()
            ));
        }
        self.check_reads(&log.records)
    }

    fn check_resolved(&self, log: &Reading) -> Result<(), Violation> {
        let there: BTreeMap<(&str, Sequence), u64> = (0..)
            .zip(&log.records)
            .map(|(offset, record)| ((record.producer.as_str(), record.sequence), offset))
            .collect();
        let kept = |name: &str, sequence: Sequence, resolved: Resolved| {
            let offset = there.get(&(name, sequence));
            let sealed = || {
                log.streams
                    .get(name)
                    .is_some_and(|s| s.sealed.iter().any(|(first, end)| (*first..*end).contains(&sequence)))
            };
            match resolved {
                Resolved::Committed { offset: Some(said) } => offset == Some(&said.0),
                Resolved::Committed { offset: None } => offset.is_some(),
                Resolved::Sealed => offset.is_none() && sealed(),
                Resolved::Open => true,
            }
        };
        match self.resolved.iter().find(|(name, sequence, resolved)| !kept(name, *sequence, *resolved)) {
            Some((name, sequence, resolved)) => {
                let offset = there.get(&(name.as_str(), *sequence));
                violated(format!("{name}/{sequence} was said to be {resolved:?}, and lies at {offset:?}"))
            }
            None => Ok(()),
        }
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

pub(super) fn violated<T>(what: String) -> Result<T, Violation> {
    Err(Violation(what))
}

/// A later vote than the one that was synced is one that was written and not synced before the crash.
fn check_remembered(
    id: u64,
    synced: Synced,
    vote: Vote,
    position: impl Fn(Index) -> Option<Position>,
) -> Result<(), Violation> {
    if let Some(last) = synced.last
        && position(last.index) != Some(last)
    {
        let found = position(last.index);
        return violated(format!("broker {id} had synced {last:?}, and starts with {found:?}"));
    }
    let kept = vote.term > synced.vote.term
        || vote == synced.vote
        || (vote.term == synced.vote.term && synced.vote.voted_for == 0);
    if kept {
        return Ok(());
    }
    violated(format!("broker {id} had synced {:?}, and starts with {vote:?}", synced.vote))
}

/// The last entry that a leader of this term must have: the last one that was applied, and so committed, in it or before.
/// Who learns late that it has won may lead for a while beside its successor, and has nothing of what that one committed,
/// even where an entry is older than both.
fn last_up_to(history: &[Applied], term: Term) -> Option<Position> {
    history.iter().rfind(|applied| applied.in_term <= term).map(|applied| applied.position)
}

fn check_history(
    history: &mut Vec<Applied>,
    id: u64,
    applied: Applied,
    durable: &[Index],
) -> Result<(), Violation> {
    let (position, index) = (applied.position, applied.position.index);
    let at = usize::try_from(index).expect("an index fits a usize") - 1;
    if let Some(Applied { position: known, .. }) = history.get(at) {
        if *known != position {
            return violated(format!("broker {id} applied {position:?} where {known:?} was applied before"));
        }
        return Ok(());
    }
    history.push(applied);
    let holders = durable.iter().filter(|durable| **durable >= index).count();
    if holders * 2 <= durable.len() {
        return violated(format!(
            "broker {id} applied entry {index}, durable on {holders} of {}",
            durable.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sequor_client::protocol::ProducerId;

    use super::super::content::content;
    use super::super::reading::tests::opened;
    use super::*;
    use crate::core::effect::{Effect, Retiring};

    fn applied(index: Index, term: Term, in_term: Term) -> Applied {
        Applied { position: Position { index, term, chain: 7 }, in_term }
    }

    fn record(producer: &str, sequence: u64) -> Record {
        Record { producer: producer.into(), epoch: Epoch(1), sequence: Sequence(sequence) }
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
        let applied = applied(1, 1, 1);
        assert!(check_history(&mut Vec::new(), 1, applied, &[1, 1, 0]).is_ok());
        assert!(check_history(&mut Vec::new(), 1, applied, &[1, 0, 0]).is_err());
    }

    #[test]
    fn what_was_synced_and_is_forgotten_is_seen() {
        let last = Position { index: 3, term: 2, chain: 7 };
        let voted = Vote { term: 2, voted_for: 1 };
        let remembers = |vote, found: Option<Position>| {
            check_remembered(1, Synced { last: Some(last), vote: voted }, vote, |_| found).is_ok()
        };
        assert!(remembers(voted, Some(last)));
        assert!(remembers(Vote { term: 3, voted_for: 0 }, Some(last)), "written later, and not lost");
        assert!(!remembers(voted, None), "the entry is gone");
        assert!(!remembers(voted, Some(Position { chain: 8, ..last })), "it is another one");
        assert!(!remembers(Vote { term: 1, voted_for: 2 }, Some(last)), "the vote is gone");
        assert!(!remembers(Vote { term: 2, voted_for: 0 }, Some(last)), "whom it was for is gone");
        let undecided = Synced { last: None, vote: Vote { term: 2, voted_for: 0 } };
        assert!(check_remembered(1, undecided, voted, |_| None).is_ok());
    }

    #[test]
    fn a_second_history_is_seen() {
        let known = applied(1, 1, 1);
        let other = Applied { position: Position { chain: 8, ..known.position }, ..known };
        assert!(check_history(&mut vec![known], 2, known, &[1, 1, 1]).is_ok());
        assert!(check_history(&mut vec![known], 2, other, &[1, 1, 1]).is_err());
    }

    #[test]
    fn a_late_leader_needs_nothing_of_later_terms() {
        // The third is an entry of term 1 that the leader of term 4 committed.
        let history = [applied(1, 1, 1), applied(2, 1, 1), applied(3, 1, 4), applied(4, 4, 4)];
        let last = |term| last_up_to(&history, term).map(|position| position.index);
        assert_eq!([0, 1, 3, 4, 5].map(last), [None, Some(2), Some(2), Some(4), Some(4)]);
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

    #[test]
    fn an_end_that_goes_back_is_seen() {
        let mut judge = Judge::default();
        judge.promised("a", Sequence(0), 3, Offset(4));
        let least = judge.least_end();
        assert!(judge.ended(least, Offset(7)).is_ok());
        assert!(judge.ended(least, Offset(6)).is_err());
    }

    #[test]
    fn a_number_that_is_not_what_it_was_said_to_be_is_seen() {
        let mut log = opened();
        log.records = vec![record("a", 0)];
        let says = |sequence, resolved| {
            let mut judge = Judge::default();
            judge.resolved("a", Sequence(sequence), resolved);
            judge.check_resolved(&log).is_ok()
        };
        assert!(says(0, Resolved::Committed { offset: Some(Offset(0)) }) && says(1, Resolved::Open));
        assert!(!says(0, Resolved::Committed { offset: Some(Offset(1)) }));
        assert!(!says(1, Resolved::Committed { offset: None }), "it is not there");
        assert!(!says(0, Resolved::Sealed), "it is there");
        assert!(!says(1, Resolved::Sealed), "nobody has sealed it");
    }
}
