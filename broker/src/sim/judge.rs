//! The judge of brokers: it stands outside, and believes nobody.
//!
//! While the world turns it watches, after every step of a broker:
//!
//! * *election safety*: at most one leader per term;
//! * *commit means durable*: an entry that anybody applies lies on stable storage of a majority, itself and not another one
//!   of its index; now and then their disks are asked too;
//! * *one state*: who has applied the same entries has the same state, as often as two are seen at the same entry;
//! * *one history*: everybody applies the same entry (same term, same chained checksum) at an index;
//! * *leader completeness*: whoever leads a term has everything that was committed in it or before;
//! * *log matching*: two logs with an entry of the same term at an index are the same up to there;
//! * *memory*: a broker that starts, whatever befell it and its disk, has every entry that was synced and every vote.
//!
//! When the faults are over, the cluster has to be well again within ten election timeouts, and in the end all brokers must
//! have the same state. What clients were told, and what logs hold, is for the [`Recorder`](super::recorder::Recorder).

use std::collections::BTreeMap;
use std::fmt;

use sequor_wal::{Index, Log, Position, Term, Vote};

use super::coverage::Reached;
use super::machine::{Machine, Synced};
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

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Judge {
    leaders: BTreeMap<Term, u64>,
    history: Vec<Applied>,
    /// Checksums of states, by how far their brokers had applied.
    states: BTreeMap<Index, u32>,
    seen: BTreeMap<u64, Seen>,
}

/// So often a newly applied entry is looked for on the disks themselves. Entries.
const LOOK_EVERY: Index = 256;
/// So often the states of brokers are compared, if they have been seen having applied just as much. Entries.
const COMPARE_EVERY: Index = 16;

/// What was last seen of a broker.
#[derive(Debug, Default)]
struct Seen {
    applied: Index,
    last: Index,
}

impl Judge {
    /// Watches a broker after a step.
    pub(super) fn watch(
        &mut self,
        id: u64,
        core: &Core,
        machines: &[Machine],
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
        if seen.applied == core.applied_index() {
            return Ok(());
        }
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
            if check_history(&mut self.history, id, applied)? {
                check_durable(id, position, machines, reached)?;
            }
        }
        self.check_state(id, core)
    }

    /// Whoever has applied the same entries has the same state.
    fn check_state(&mut self, id: u64, core: &Core) -> Result<(), Violation> {
        let index = core.applied_index();
        if !index.is_multiple_of(COMPARE_EVERY) {
            return Ok(());
        }
        let state = core.state().fingerprint();
        match *self.states.entry(index).or_insert(state) == state {
            true => Ok(()),
            false => violated(format!("broker {id} has another state than others had after entry {index}")),
        }
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

    /// The brokers have come to rest: they have one state.
    pub(super) fn check_states(&self, cores: &[&Core]) -> Result<(), Violation> {
        let mut states = cores.iter().map(|core| (core.status().id, core.state().fingerprint()));
        let Some((first, expected)) = states.next() else { return violated("no broker is left".into()) };
        match states.find(|(_, state)| *state != expected) {
            Some((other, _)) => violated(format!("the states of brokers {first} and {other} differ")),
            None => Ok(()),
        }
    }
}

pub(super) fn violated<T>(what: String) -> Result<T, Violation> {
    Err(Violation(what))
}

/// Compares two logs at the last entry that both have of one term: up to there they have to be the same.
pub(super) fn check_matching(one: &Log, other: &Log) -> Result<(), Violation> {
    let ends = one.last_index().min(other.last_index());
    let Some(index) = (1..=ends).rev().find(|&index| one.term(index) == other.term(index)) else {
        return Ok(());
    };
    let (Ok(Some(here)), Ok(Some(there))) = (one.position(index), other.position(index)) else {
        return Ok(());
    };
    if here != there {
        return violated(format!(
            "two logs have {here:?} and {there:?}, which have one term and two histories"
        ));
    }
    Ok(())
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

/// True if nobody has applied the entry before.
fn check_history(history: &mut Vec<Applied>, id: u64, applied: Applied) -> Result<bool, Violation> {
    let (position, index) = (applied.position, applied.position.index);
    let at = usize::try_from(index).expect("an index fits a usize") - 1;
    if let Some(Applied { position: known, .. }) = history.get(at) {
        if *known != position {
            return violated(format!("broker {id} applied {position:?} where {known:?} was applied before"));
        }
        return Ok(false);
    }
    history.push(applied);
    Ok(true)
}

/// Who applies an entry relies on a majority of disks. Now and then it is looked whether these have what their brokers say.
fn check_durable(
    id: u64,
    entry: Position,
    machines: &[Machine],
    reached: &mut Reached,
) -> Result<(), Violation> {
    let holders: Vec<_> = machines.iter().filter(|machine| machine.holds(entry)).collect();
    if !is_majority(holders.len(), machines.len()) {
        let (holders, all) = (holders.len(), machines.len());
        return violated(format!("broker {id} applied {entry:?}, durable on {holders} of {all}"));
    }
    if !entry.index.is_multiple_of(LOOK_EVERY) {
        return Ok(());
    }
    reached.note("disks asked themselves");
    // The disk of a broker that is down may have changed what it had confirmed, or have been put back.
    let runs = |machine: &&&Machine| machine.core.is_some();
    match holders.iter().filter(runs).find(|machine| !machine.would_keep(entry)) {
        Some(Machine { id, .. }) => {
            violated(format!("broker {id} says that {entry:?} is durable, and it is not"))
        }
        None => Ok(()),
    }
}

fn is_majority(some: usize, all: usize) -> bool {
    some * 2 > all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sequor_wal::disk::memory::MemoryDisk;
    use sequor_wal::{Entry, Kind};

    use super::super::clock::Clock;
    use super::super::machine::{Build, identity};
    use super::super::world::genesis;
    use super::*;

    fn applied(index: Index, term: Term, in_term: Term) -> Applied {
        Applied { position: Position { index, term, chain: 7 }, in_term }
    }

    #[test]
    fn a_commit_that_is_not_durable_on_a_majority_is_seen() {
        let applied = applied(1, 1, 1);
        assert!(is_majority(2, 3) && !is_majority(1, 3) && !is_majority(2, 4) && is_majority(1, 1));
        let genesis = genesis(3);
        let machines = (1..=3).map(|id| Machine::new(id, &genesis, Build::SMALL, Clock::right()));
        assert!(
            check_durable(1, applied.position, &machines.collect::<Vec<_>>(), &mut Reached::default())
                .is_err()
        );
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
        assert_eq!(check_history(&mut vec![known], 2, known), Ok(false));
        assert_eq!(check_history(&mut Vec::new(), 2, known), Ok(true));
        assert!(check_history(&mut vec![known], 2, other).is_err());
    }

    #[test]
    fn two_histories_behind_one_term_are_seen() {
        let log = |entries: &[(Term, &'static str)]| {
            let disk = Arc::new(MemoryDisk::new());
            let identity = identity(1, Some([1; 16]));
            let mut log = sequor_wal::open(disk, &identity, Build::SMALL.wal_settings()).unwrap().log;
            let entry = |(index, &(term, data)): (u64, &(Term, &'static str))| Entry {
                index,
                term,
                kind: Kind::Normal,
                data: data.into(),
            };
            log.append((1..).zip(entries).map(entry).collect()).unwrap();
            log
        };
        let same = |one: &[_], other: &[_]| check_matching(&log(one), &log(other)).is_ok();
        assert!(same(&[(1, "a"), (1, "b")], &[(1, "a"), (1, "b"), (2, "c")]));
        assert!(same(&[(1, "a"), (1, "b")], &[(1, "a"), (2, "c")]), "they part in different terms");
        assert!(same(&[(1, "a")], &[(2, "b")]));
        assert!(!same(&[(1, "a"), (2, "c")], &[(1, "b"), (2, "c")]), "what lies under it differs");
        assert!(
            !same(&[(1, "a"), (1, "b"), (2, "c")], &[(1, "x"), (1, "b"), (3, "c")]),
            "also before they part"
        );
    }

    #[test]
    fn a_late_leader_needs_nothing_of_later_terms() {
        // The third is an entry of term 1 that the leader of term 4 committed.
        let history = [applied(1, 1, 1), applied(2, 1, 1), applied(3, 1, 4), applied(4, 4, 4)];
        let last = |term| last_up_to(&history, term).map(|position| position.index);
        assert_eq!([0, 1, 3, 4, 5].map(last), [None, Some(2), Some(2), Some(4), Some(4)]);
    }
}
