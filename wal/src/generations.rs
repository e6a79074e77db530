//! Generations: "everything up to now is durable", for a caller who stages entries and votes in any order.
//!
//! Raft hands out its work in numbered portions and wants to hear of a portion only when all of it and of the
//! ones before is on disk. A portion may hold entries, a vote, both or nothing; a later one may cut entries
//! of an earlier one that were never written. A generation is the number of such a moment.

use std::collections::VecDeque;

use crate::Index;

/// What has to be durable for which generation.
///
/// Invariants:
/// - `durable <= current`, and neither falls;
/// - what is awaited is in ascending order of generation, each above `durable`;
/// - entries that were cut before they were durable count as durable when the entries that replaced them are:
///   an acknowledgement of them must not leave before that.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    current: u64,
    durable: u64,
    awaited: VecDeque<(u64, Awaited)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The entries up to this index.
    Entries(Index),
    /// The vote of this number, counted from 1.
    Vote(u64),
}

impl Generations {
    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Entries `first..=last` were appended, in place of all from `first` on.
    pub(crate) fn append(&mut self, first: Index, last: Index) {
        for (_, awaited) in &mut self.awaited {
            match awaited {
                Awaited::Entries(index) if *index >= first => *index = last,
                Awaited::Entries(_) | Awaited::Vote(_) => (),
            }
        }
        self.current += 1;
        self.awaited.push_back((self.current, Awaited::Entries(last)));
    }

    /// The vote number `vote` was set.
    pub(crate) fn vote(&mut self, vote: u64) {
        self.current += 1;
        self.awaited.push_back((self.current, Awaited::Vote(vote)));
    }

    /// The entries up to `index` and the votes up to number `vote` are durable.
    pub(crate) fn synced(&mut self, index: Index, vote: u64) {
        let is_durable = |awaited| match awaited {
            Awaited::Entries(last) => last <= index,
            Awaited::Vote(number) => number <= vote,
        };
        while let Some(&(generation, awaited)) = self.awaited.front()
            && is_durable(awaited)
        {
            self.durable = generation;
            self.awaited.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_durable_when_all_before_it_are() {
        let mut generations = Generations::default();
        generations.append(1, 3);
        generations.vote(1);
        generations.append(4, 4);
        generations.synced(0, 1);
        assert_eq!(generations.durable(), 0, "the entries before the vote are missing");
        generations.synced(3, 1);
        assert_eq!(generations.durable(), 2);
        generations.synced(4, 1);
        assert_eq!((generations.durable(), generations.current()), (3, 3));
    }

    #[test]
    fn cut_entries_wait_for_those_that_replaced_them() {
        let mut generations = Generations::default();
        generations.append(1, 7);
        generations.vote(1);
        generations.append(6, 6);
        generations.synced(5, 1);
        assert_eq!(generations.durable(), 0, "entries 6 and 7 were never written, their successor neither");
        generations.synced(6, 1);
        assert_eq!(generations.durable(), 3);
    }
}
