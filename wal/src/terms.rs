//! The terms along the log, as runs: terms only rise, so that a log of any length has few of them.

use crate::{Index, Term};

/// Which term each index has.
///
/// Invariants:
/// - runs are in ascending order of index and of term, none is empty;
/// - the first run begins at index 0, the place before the log.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// First index of a run, and its term.
    runs: Vec<(Index, Term)>,
}

impl Terms {
    /// The terms of an empty log.
    pub(crate) fn new(start: Term) -> Self {
        Self { runs: vec![(0, start)] }
    }

    /// The term of the entry at `index`, if the log reaches that far.
    pub(crate) fn at(&self, index: Index) -> Term {
        let after = self.runs.partition_point(|&(first, _)| first <= index);
        self.runs[after - 1].1
    }

    /// Notes that the log goes on at `index` with `term`.
    pub(crate) fn push(&mut self, index: Index, term: Term) {
        let &(first, latest) = self.runs.last().expect("the run of index 0 is never removed");
        assert!(index > first && term >= latest, "term {term} at index {index} falls behind term {latest}");
        if term > latest {
            self.runs.push((index, term));
        }
    }

    /// Forgets everything from `index` on.
    pub(crate) fn cut(&mut self, index: Index) {
        assert!(index > 0, "the place before the log cannot be cut");
        let keep = self.runs.partition_point(|&(first, _)| first < index);
        self.runs.truncate(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_and_cut() {
        let mut terms = Terms::new(0);
        for (index, term) in [(1, 1), (2, 1), (3, 4), (4, 4), (5, 9)] {
            terms.push(index, term);
        }
        assert_eq!((0..=5).map(|index| terms.at(index)).collect::<Vec<_>>(), [0, 1, 1, 4, 4, 9]);
        assert_eq!(terms.runs.len(), 4);
        terms.cut(4);
        assert_eq!(terms.at(3), 4);
        terms.push(4, 5);
        assert_eq!((terms.at(3), terms.at(4)), (4, 5));
        terms.cut(1);
        assert_eq!(terms.runs, [(0, 0)]);
    }

    #[test]
    #[should_panic(expected = "falls behind")]
    fn a_falling_term_is_refused() {
        let mut terms = Terms::new(0);
        terms.push(1, 2);
        terms.push(2, 1);
    }
}
