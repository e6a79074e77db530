//! The log as files: what a broker must find again after any crash.
//!
//! ```text
//!  data directory
//!    LOCK                              held by the process that has the directory open
//!    identity                          who this broker is                      identity.rs
//!    checkpoint-00000000000000000000   the state at an index; 0 is the genesis  checkpoint.rs
//!    vote                              term and vote, two generations of two    vote.rs
//!    segment-00000000000000000001      blocks of entries, then zeros            segment.rs
//!    segment-00000000000000000002        block | one write, one sync            block.rs
//!    …                                     entry | index term chain data        entry.rs
//! ```
//!
//! The life of an entry: [`Log::append`] puts it into the tail in memory; [`Log::poll_ticket`] wraps all that
//! gathered there into one block and hands it out as a [`Ticket`]; some thread runs the ticket (one
//! positioned write, one `fdatasync`); [`Log::handle_synced`] raises the durable watermark, the entry leaves
//! the tail, and is from then on read through the map of its segment without a copy. The log itself never
//! writes, never waits and never asks a clock: the same code runs in a broker and, over a disk in memory, in
//! a simulator.
//!
//! # What is trusted
//!
//! - A sector of 512 bytes (or of the configured alignment) is written whole or not at all. Sectors of one
//!   write reach the disk in any order, in any subset, until `fdatasync` returns; then all of them have.
//! - A segment is filled with zeros and synced before its first use, so that a sync commits data and nothing
//!   else, and so that what was never written reads as zeros.
//! - Nothing is trusted to stay as it was written: every byte that is read is covered by a checksum. Damage
//!   below the durable watermark is reported with file, offset, expected and found. It is never cut away.
//!
//! # Looking without touching
//!
//! [`inspect`] reads a directory as recovery does, but changes nothing in it and does not stop at the first
//! damage. [`disk::read_only`] is the disk to do so on a real machine.
//!
//! # What is not done
//!
//! No error of a write or a sync is retried here: the caller stops. Space is never taken back in this
//! version: segments are neither punched nor deleted, and the log begins at index 1.

mod block;
mod cache;
mod checkpoint;
pub mod disk;
mod entry;
mod extent;
mod fold;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod generations;
mod haste;
mod identity;
mod inspection;
mod log;
mod recovery;
pub mod sections;
mod segment;
mod settings;
mod spares;
mod survey;
mod tail;
mod terms;
mod ticket;
mod vote;
mod walk;

use std::fmt;

pub use block::Reason;
pub use cache::{Cached, Stale};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use disk::{Disk, Region};
pub use entry::{ENTRY_HEADER_BYTES, Entry, Index, Kind, Position, Term, chain, chain_start};
pub use haste::Haste;
pub use identity::{Identity, IdentityError};
pub use inspection::{FINDINGS_MAX, Findings, InspectError, Inspection, inspect};
pub use log::{Counters, Log, ReadError};
pub use recovery::{OpenError, Opened, open};
pub use sections::Section;
pub use settings::Settings;
pub use ticket::{Done, Prepared, Spare, SpareOrder, SyncError, Ticket};
pub use vote::{Vote, VoteState};
pub use walk::{Item, Walk, WalkedBlock, WalkedEntry, WalkedFault};

/// Bytes that are not what was once made durable, or never could have been: where, and why we think so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    /// Name of the file in the data directory.
    pub file: String,
    /// Where in the file, in bytes from its start.
    pub offset: u64,
    /// What had to be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, expected, found } = self;
        write!(f, "{file} is damaged at byte {offset}: expected {expected}, found {found}")
    }
}
