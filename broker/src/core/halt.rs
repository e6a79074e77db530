//! What must not be survived. `docs/when-a-broker-stops.md` says what an operator does about each.

use sequor_wal::{Index, ReadError};
use thiserror::Error;

use super::effect::EntryError;
use super::machine::Mismatch;

/// Why a core stopped for good.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Halt {
    /// An applied entry gives another state than the leader had.
    #[error("entry {index} cannot be applied")]
    Mismatch {
        /// Raft index of the entry.
        index: Index,
        /// Both sides.
        #[source]
        cause: Mismatch,
    },
    /// An entry of the log is not readable as one.
    #[error("entry {index} cannot be read")]
    Entry {
        /// Raft index of the entry.
        index: Index,
        /// Why.
        #[source]
        cause: EntryError,
    },
    /// An entry is earlier, by log time, than the one before it.
    #[error(
        "entry {index} carries log time {found} ms after an entry of {before} ms: log time must never fall"
    )]
    TimeFell {
        /// Raft index of the entry.
        index: Index,
        /// Log time before, in milliseconds.
        before: u64,
        /// Log time of the entry, in milliseconds.
        found: u64,
    },
    /// The disk does not return what it was given.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// The leader knows this log to have been longer.
    #[error(
        "this broker has lost entries that it had acknowledged: the leader's commit for it is {commit}, its log ends \
         at {last}; it must not vote again; keep the directory as it is, and let the others go on without it"
    )]
    LostEntries {
        /// What the leader knows.
        commit: Index,
        /// What is here.
        last: Index,
    },
    /// The leader knows this log to have had its own entry, and another one is there.
    #[error(
        "this broker has lost entries that it had acknowledged: it had the leader's entry {index}, and another one is \
         there now; it must not vote again; keep the directory as it is, and let the others go on without it"
    )]
    OtherAcknowledged {
        /// Where.
        index: Index,
    },
    /// A leader has another entry where ours is committed.
    #[error("the leader has another entry at index {index}, which is committed here: compare both logs")]
    OtherCommitted {
        /// Where.
        index: Index,
    },
    /// The leader's log differs from ours in an entry of the same index and term.
    #[error(
        "the log differs from the leader's at or before index {index}: chain {found:#010x} here, {expected:#010x} \
         there"
    )]
    OtherChain {
        /// Where it was noticed.
        index: Index,
        /// The leader's checksum.
        expected: u32,
        /// Ours.
        found: u32,
    },
}
