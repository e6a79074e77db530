//! The log: what is appended, what is durable, and where each entry is found.

use std::io;

use crate::{Damage, Done, Entry, Index, Position, Spare, SpareOrder, Term, Ticket, Vote};

/// Sizes of a log. They may change from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Length of a segment file. Bytes, a multiple of the alignment.
    pub segment_bytes: u64,
    /// Largest block, unless a single entry is larger. Bytes.
    pub block_bytes_max: usize,
    /// Blocks begin on a multiple of this: the physical sector, at least 512. Bytes, a power of two.
    pub alignment: u32,
    /// Zero-filled segments to keep ready. Count, at least 1.
    pub spares: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, block_bytes_max: 4 << 20, alignment: 512, spares: 2 }
    }
}

impl Settings {
    /// Most data that one entry may have: with it, a block still fits into a segment of its own. Bytes.
    #[must_use]
    pub fn entry_data_bytes_max(&self) -> usize {
        todo!()
    }
}

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log does not hold this index.
    #[error("index {index} is not in the log, which holds {first} to {last}")]
    OutOfRange {
        /// What was asked for.
        index: Index,
        /// First index of the log.
        first: Index,
        /// Last index of the log.
        last: Index,
    },
    /// What is there was not written like that.
    #[error("{0}; this broker must stop: its log is damaged")]
    Damaged(#[from] Damage),
    /// The disk failed.
    #[error("could not read {file}")]
    Io {
        /// The segment.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks synced.
    pub blocks: u64,
    /// Bytes of those blocks, padding included.
    pub block_bytes: u64,
    /// Syncs of segments.
    pub log_syncs: u64,
    /// Syncs of the vote file.
    pub vote_syncs: u64,
}

/// The log of one broker.
#[derive(Debug)]
pub struct Log {}

impl Log {
    /// Index of the first entry.
    #[must_use]
    pub fn first_index(&self) -> Index {
        1
    }

    /// The last entry appended, durable or not.
    #[must_use]
    pub fn last(&self) -> Position {
        todo!()
    }

    /// Index of [`Self::last`].
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.last().index
    }

    /// Highest index whose block's sync returned.
    #[must_use]
    pub fn durable(&self) -> Index {
        todo!()
    }

    /// Term of the entry at `index`; index 0 has the term of the start. `None` above the last.
    #[must_use]
    pub fn term(&self, _index: Index) -> Option<Term> {
        todo!()
    }

    /// Term and chain of the entry at `index`, its data verified. `None` above the last.
    ///
    /// # Errors
    /// The entry is damaged or could not be read.
    pub fn position(&self, _index: Index) -> Result<Option<Position>, ReadError> {
        todo!()
    }

    /// The entry at `index`, verified.
    ///
    /// # Errors
    /// It is not in the log, damaged, or could not be read.
    pub fn entry(&self, _index: Index) -> Result<Entry, ReadError> {
        todo!()
    }

    /// The entries from `from` up to but not with `to`, as many as fit into `bytes_max` (headers counted), at least one.
    ///
    /// # Errors
    /// One is not in the log, damaged, or could not be read.
    pub fn entries(&self, _from: Index, _to: Index, _bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        todo!()
    }

    /// Appends contiguous entries. If the first is not past the last, the log is first cut at it.
    ///
    /// # Errors
    /// Only a cut can fail: the entry before it could not be read back. The log is then unchanged.
    ///
    /// # Panics
    /// If there is a gap, if a term falls, if the cut is at or below commit, or if an entry is larger than
    /// [`Settings::entry_data_bytes_max`].
    pub fn append(&mut self, _entries: Vec<Entry>) -> Result<(), ReadError> {
        todo!()
    }

    /// Stages a vote.
    ///
    /// # Panics
    /// If the term falls, if a vote is changed within its term, or if the vote file was damaged.
    pub fn set_vote(&mut self, _vote: Vote) {
        todo!()
    }

    /// The vote last set, durable or not.
    #[must_use]
    pub fn vote(&self) -> Vote {
        todo!()
    }

    /// Raises the commit index that later blocks carry as min(commit, durable). Never falls, never needs a sync.
    ///
    /// # Panics
    /// Above the last index.
    pub fn set_commit(&mut self, _commit: Index) {
        todo!()
    }

    /// Asks for an empty block once nothing else is staged, if the last durable block is not yet proven by a later one.
    pub fn request_witness(&mut self) {
        todo!()
    }

    /// A number that grows with every append and vote: "everything up to now".
    #[must_use]
    pub fn generation(&self) -> u64 {
        todo!()
    }

    /// Everything up to this generation is durable, entries and votes.
    #[must_use]
    pub fn durable_generation(&self) -> u64 {
        todo!()
    }

    /// The next ticket, if one can be made: at most one is outstanding.
    pub fn poll_ticket(&mut self) -> Option<Ticket> {
        todo!()
    }

    /// Takes back the outstanding ticket.
    ///
    /// # Panics
    /// If it is not the outstanding one.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is taken back once")]
    pub fn handle_synced(&mut self, _done: Done) {
        todo!()
    }

    /// A segment to be made ahead; one order is out at a time.
    pub fn poll_spare(&mut self) -> Option<SpareOrder> {
        todo!()
    }

    /// Takes a segment that was made.
    ///
    /// # Panics
    /// If it is not the one ordered.
    pub fn handle_spare(&mut self, _spare: Spare) {
        todo!()
    }

    /// Bytes of the entries held in memory because they are not yet durable.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        todo!()
    }

    /// What was done since the log was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        todo!()
    }
}
