//! The tail: what is appended but not yet durable, in memory.

use std::collections::VecDeque;

use crate::{Entry, Index, Position};

/// Entries after the durable watermark.
///
/// Invariants:
/// - the entries are contiguous and begin right after `base`;
/// - each is kept with its own position, whose chain continues that of the one before.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The last durable entry.
    base: Position,
    entries: VecDeque<(Entry, Position)>,
    /// Sum of the encoded entries.
    bytes: usize,
}

impl Tail {
    pub(crate) fn new(base: Position) -> Self {
        Self { base, entries: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn base(&self) -> Position {
        self.base
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |(_, position)| *position)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let last = self.last();
        assert_eq!(entry.index, last.index + 1, "appended entries are contiguous");
        assert!(
            entry.term >= last.term,
            "term {} of entry {} falls below {}",
            entry.term,
            entry.index,
            last.term
        );
        let position = last.then(&entry);
        self.bytes += entry.encoded_bytes();
        self.entries.push_back((entry, position));
    }

    /// Drops everything after `last`, which is in the tail or is its base.
    pub(crate) fn cut_after(&mut self, last: Index) {
        while self.entries.back().is_some_and(|(entry, _)| entry.index > last) {
            let (entry, _) = self.entries.pop_back().expect("just seen");
            self.bytes -= entry.encoded_bytes();
        }
        assert_eq!(self.last().index, last, "a cut in the tail leaves the entry before it");
    }

    /// Drops everything; the log now ends, durable, with `base`.
    pub(crate) fn restart(&mut self, base: Position) {
        *self = Self::new(base);
    }

    /// The entries up to `last` are durable: they are read from disk from now on.
    pub(crate) fn retire(&mut self, last: Index) {
        while self.base.index < last {
            let (entry, position) = self.entries.pop_front().expect("what became durable was in the tail");
            self.bytes -= entry.encoded_bytes();
            self.base = position;
        }
    }

    /// The position of the entry at `index`, if it is the base or after it.
    pub(crate) fn position(&self, index: Index) -> Option<Position> {
        match index.checked_sub(self.base.index)? {
            0 => Some(self.base),
            _ => self.find(index).map(|(_, position)| *position),
        }
    }

    /// The entry at `index`, if it is in the tail.
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.find(index).map(|(entry, _)| entry)
    }

    /// All entries in order, with their positions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Entry, Position)> {
        self.entries.iter()
    }

    fn find(&self, index: Index) -> Option<&(Entry, Position)> {
        let at = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}
