//! Tickets: input and output as values.

use std::io;

use crate::Index;

/// An error of the disk. The broker stops; nothing is tried again.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not {operation} {file}: this broker must stop, and may be started again once the disk is sound"
)]
pub struct SyncError {
    /// What was tried.
    pub operation: &'static str,
    /// On which file.
    pub file: String,
    /// What the disk said.
    pub source: io::Error,
}

/// Something to make durable: at most one vote and one block.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
}

/// A ticket that was run: everything in it is durable.
#[derive(Debug)]
pub struct Done {
    number: u64,
}

/// A segment to be made ahead of its use.
#[derive(Debug)]
pub struct SpareOrder {}

/// A segment that was made.
#[derive(Debug)]
pub struct Spare {}

impl Ticket {
    /// Writes and syncs everything in it. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The first error of the disk.
    pub fn run(&self) -> Result<Done, SyncError> {
        self.write()?;
        self.sync()
    }

    /// Writes everything. A vote that comes with a block is synced here, before the block is written.
    ///
    /// # Errors
    /// The first error of the disk.
    pub fn write(&self) -> Result<(), SyncError> {
        todo!()
    }

    /// Syncs what [`Self::write`] wrote.
    ///
    /// # Errors
    /// The first error of the disk.
    pub fn sync(&self) -> Result<Done, SyncError> {
        todo!()
    }

    /// Tickets are numbered from 1 in the order in which they were made.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that the block writes, padding included; 0 for a vote alone.
    #[must_use]
    pub fn bytes(&self) -> usize {
        todo!()
    }

    /// First and last index of the entries in the block, if it has any.
    #[must_use]
    pub fn range(&self) -> Option<(Index, Index)> {
        todo!()
    }
}

impl Done {
    /// The number of the ticket.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl SpareOrder {
    /// Makes the segment: zero-filled, its header written, all synced. Takes tens of milliseconds.
    ///
    /// # Errors
    /// The first error of the disk, also when it is full.
    pub fn run(&self) -> Result<Spare, SyncError> {
        todo!()
    }
}
