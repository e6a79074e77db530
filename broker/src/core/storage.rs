//! The log, as raft wants to see it: `raft::Storage` over [`wal::Log`](sequor_wal::Log).
//!
//! Nothing is copied: an entry's data is the same `Bytes` in the log, in a raft entry and in a message to a peer.
//! Raft's storage trait has no way to say "the bytes on this disk are rotten": it panics at most errors. So a failed read
//! is kept here, raft is told that there is nothing, and the core, which looks before it lets anything leave, halts.

use std::cell::RefCell;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry as RaftEntry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use sequor_wal::{Entry, Index, Kind, Log, ReadError, Term};

/// The log together with who votes on it.
#[derive(Debug)]
pub(super) struct LogStorage {
    /// The log.
    pub log: Log,
    voters: Vec<u64>,
    commit: Index,
    failure: RefCell<Option<ReadError>>,
}

impl LogStorage {
    /// Storage over a recovered log, of which everything up to `commit` was seen committed before.
    #[must_use]
    pub(super) fn new(log: Log, voters: Vec<u64>, commit: Index) -> Self {
        let commit = commit.min(log.last_index());
        Self { log, voters, commit, failure: RefCell::new(None) }
    }

    /// The first read that failed, if one did. The broker must stop.
    pub(super) fn failure(&mut self) -> Option<ReadError> {
        self.failure.get_mut().take()
    }

    fn fail(&self, error: ReadError) {
        self.failure.borrow_mut().get_or_insert(error);
    }
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let vote = self.log.vote();
        let mut hard_state = HardState::default();
        hard_state.set_term(vote.term.max(self.log.last().term));
        hard_state.set_vote(if vote.term == hard_state.term { vote.voted_for } else { 0 });
        hard_state.set_commit(self.commit);
        let mut conf_state = ConfState::default();
        conf_state.set_voters(self.voters.clone());
        Ok(RaftState { hard_state, conf_state })
    }

    fn entries(
        &self,
        low: Index,
        high: Index,
        bytes_max: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<RaftEntry>> {
        match self.log.entries(low, high, bytes_max.into().unwrap_or(u64::MAX)) {
            Ok(entries) => Ok(entries.into_iter().map(to_raft).collect()),
            Err(error) => {
                // Raft would panic at an error. It gets nothing, and the core halts before anything that it makes of
                // that can leave.
                self.fail(error);
                Ok(Vec::new())
            }
        }
    }

    fn term(&self, index: Index) -> raft::Result<Term> {
        self.log.term(index).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<Index> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft::Result<Index> {
        Ok(self.log.last_index())
    }

    fn snapshot(&self, _request_index: Index, _to: u64) -> raft::Result<Snapshot> {
        // The log reaches back to the genesis, so raft never needs one.
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// An entry of the log as raft has it.
#[must_use]
pub(super) fn to_raft(entry: Entry) -> RaftEntry {
    let mut out =
        RaftEntry { index: entry.index, term: entry.term, data: entry.data, ..RaftEntry::default() };
    out.set_entry_type(match entry.kind {
        Kind::Normal => EntryType::EntryNormal,
        Kind::ConfChange => EntryType::EntryConfChangeV2,
    });
    out
}

/// An entry of raft as the log has it.
#[must_use]
pub(super) fn from_raft(entry: &RaftEntry) -> Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => Kind::Normal,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Kind::ConfChange,
    };
    Entry { index: entry.index, term: entry.term, kind, data: Bytes::clone(&entry.data) }
}
