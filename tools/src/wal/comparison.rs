//! The comparison of several logs: is what was committed the same everywhere?
//!
//! An entry is compared among all directories that know it to be committed: there, and only there, none of them may
//! have another one. What a broker has above its commit index may still be replaced, and differs for a moment without
//! anything being wrong.
//!
//! Chain and bytes are both compared. An equal chain says that everything up to there is the same, as far as 32 bits
//! can tell; the bytes tell the rest.

use sequor_wal::{Index, Inspection, Kind, Term, WalkedEntry};

use super::directory::Directory;

/// What became of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// What is committed is the same.
    Same(Common),
    /// An entry is another one. Those before it are the same.
    Differs {
        /// The first index that differs.
        index: Index,
        /// What each directory has there that knows it to be committed, and which directory that is.
        held: Vec<(usize, Held)>,
    },
    /// They do not belong together.
    Strangers {
        /// Which directories: the first, and one that differs from it.
        directories: (usize, usize),
        /// In what: cluster or lineage.
        what: &'static str,
    },
}

/// How far logs were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Common {
    /// What all know to be committed.
    pub(super) all: Index,
    /// What at least two of them know to be committed.
    pub(super) two: Index,
}

/// What a log has at an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) term: Term,
    pub(super) chain: u32,
    pub(super) data_bytes: usize,
}

/// Compares the entries of several logs, as they come.
#[derive(Debug)]
pub(super) struct Comparing {
    /// The commit index that each directory knows.
    commits: Vec<Index>,
    differs: Option<Comparison>,
}

impl Comparing {
    pub(super) fn new(inspections: &[&Inspection]) -> Self {
        Self { commits: inspections.iter().map(|inspection| inspection.commit()).collect(), differs: None }
    }

    /// Takes what the directories have at one index; none may follow at a lower one.
    pub(super) fn take(&mut self, index: Index, held: &[(usize, &WalkedEntry)]) {
        if self.differs.is_some() {
            return;
        }
        let committed: Vec<_> =
            held.iter().filter(|(directory, _)| self.commits[*directory] >= index).collect();
        let Some(((_, first), others)) = committed.split_first() else { return };
        if others.iter().all(|(_, other)| content(other) == content(first)) {
            return;
        }
        let held = committed.iter().map(|(directory, entry)| (*directory, Held::new(entry))).collect();
        self.differs = Some(Comparison::Differs { index, held });
    }

    /// What came of it.
    pub(super) fn finish(mut self) -> Comparison {
        self.differs.take().unwrap_or_else(|| {
            self.commits.sort_unstable();
            let least = *self.commits.first().expect("several logs are compared");
            Comparison::Same(Common { all: least, two: self.commits[self.commits.len() - 2] })
        })
    }
}

impl Held {
    fn new(walked: &WalkedEntry) -> Self {
        let WalkedEntry { entry, chain, .. } = walked;
        Self { term: entry.term, chain: *chain, data_bytes: entry.data.len() }
    }
}

/// Everything that must be the same.
fn content(walked: &WalkedEntry) -> (Term, Kind, u32, &[u8]) {
    let WalkedEntry { entry, chain, .. } = walked;
    (entry.term, entry.kind, *chain, &entry.data)
}

/// Two directories whose logs have nothing to do with each other, if there are any.
pub(super) fn strangers(directories: &[Directory]) -> Option<Comparison> {
    let known = || {
        let identity = |(at, directory): (usize, &Directory)| {
            directory.inspection.identity().map(|identity| (at, identity.clone()))
        };
        directories.iter().enumerate().filter_map(identity)
    };
    let (first, identity) = known().next()?;
    known().find_map(|(other, found)| {
        let what = match &found {
            found if found.cluster != identity.cluster => "cluster",
            found if found.lineage != identity.lineage => "lineage",
            _ => return None,
        };
        Some(Comparison::Strangers { directories: (first, other), what })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sequor_wal::Entry;

    use super::*;

    fn walked(index: Index, term: Term, data: &'static str) -> WalkedEntry {
        let entry = Entry { index, term, kind: Kind::Normal, data: Bytes::from_static(data.as_bytes()) };
        let chain = sequor_wal::chain(index as u32, &entry);
        WalkedEntry { file: "segment".into(), offset: 0, entry, chain, hidden: false }
    }

    fn comparing(commits: &[Index]) -> Comparing {
        Comparing { commits: commits.to_vec(), differs: None }
    }

    #[test]
    fn what_two_know_to_be_committed_is_compared() {
        let mut comparing = comparing(&[9, 3, 7]);
        let (same, other) = (walked(5, 1, "a"), walked(5, 1, "b"));
        comparing.take(5, &[(0, &same), (1, &other), (2, &same)]);
        comparing.take(8, &[(0, &walked(8, 1, "a")), (2, &walked(8, 1, "b"))]);
        assert_eq!(comparing.finish(), Comparison::Same(Common { all: 3, two: 7 }));
    }

    #[test]
    fn the_first_difference_is_named_with_all_who_know() {
        for other in [walked(5, 2, "a"), walked(5, 1, "b"), WalkedEntry { chain: 0, ..walked(5, 1, "a") }] {
            let mut comparing = comparing(&[9, 9, 9]);
            let same = walked(5, 1, "a");
            comparing.take(4, &[(0, &walked(4, 1, "x")), (1, &walked(4, 1, "x"))]);
            comparing.take(5, &[(0, &same), (1, &other), (2, &same)]);
            comparing.take(6, &[(0, &walked(6, 1, "x")), (1, &walked(6, 1, "y"))]);
            let Comparison::Differs { index, held } = comparing.finish() else { panic!("{other:?}") };
            assert_eq!(index, 5);
            assert_eq!(held, [(0, Held::new(&same)), (1, Held::new(&other)), (2, Held::new(&same))]);
        }
    }
}
