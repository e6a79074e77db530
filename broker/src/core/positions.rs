//! Where a record lies: from offsets to Raft indexes.
//!
//! Offsets are dense and indexes are not: an entry may hold many batches, or none. Keeping the index of every entry
//! would cost memory for ever, so only marks are kept, about one per 64 KiB of log, and a reader walks from the mark at
//! or before its offset. The marks are a fold of the log, rebuilt when it is replayed.

use sequor_client::protocol::Offset;
use sequor_wal::Index;

/// Bytes of log after which another mark is set.
const BYTES_PER_MARK: usize = 64 << 10;

/// Marks: the entry at this index begins with this offset.
///
/// Invariant: offsets and indexes both rise strictly from mark to mark.
#[derive(Debug, Default)]
pub(super) struct Positions {
    marks: Vec<(Offset, Index)>,
    bytes_since: usize,
}

impl Positions {
    /// Notes that the entry at `index`, of `bytes`, holds records from `first` on.
    pub(super) fn note(&mut self, first: Offset, index: Index, bytes: usize) {
        self.bytes_since += bytes;
        if self.marks.is_empty() || self.bytes_since >= BYTES_PER_MARK {
            debug_assert!(self.marks.last().is_none_or(|&(o, i)| o < first && i < index));
            self.marks.push((first, index));
            self.bytes_since = 0;
        }
    }

    /// An index at or before that of the entry which holds `offset`.
    #[must_use]
    pub(super) fn at_or_before(&self, offset: Offset) -> Index {
        let after = self.marks.partition_point(|&(first, _)| first <= offset);
        after.checked_sub(1).map_or(1, |at| self.marks[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_starts_at_or_before_its_record() {
        let mut positions = Positions::default();
        assert_eq!(positions.at_or_before(Offset(7)), 1, "an empty log is walked from its start");
        for entry in 0..100 {
            positions.note(Offset(entry * 10), entry + 3, 10_000);
        }
        for offset in 0..1000 {
            let index = positions.at_or_before(Offset(offset));
            let holder = offset / 10 + 3;
            assert!(
                index <= holder && holder - index <= 7,
                "offset {offset} lies at {holder}, walk from {index}"
            );
        }
    }
}
