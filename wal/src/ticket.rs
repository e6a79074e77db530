//! Tickets: input and output as values.
//!
//! The log decides what to write and where; a ticket is that decision. It owns all it needs, so that any
//! thread can run it, or nobody: a test reads it, a simulator runs it half and pulls the plug. The log hands
//! out one at a time, and knows what became durable when it gets the [`Done`] back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::block::{self, Salt};
use crate::cache::Stale;
use crate::segment::{self, Header};
use crate::vote::{self, VoteWrite};
use crate::{Disk, Entry, Haste, Index, Region};

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

impl SyncError {
    pub(crate) fn new(operation: &'static str, file: &str, source: io::Error) -> Self {
        Self { operation, file: file.into(), source }
    }
}

/// Something to make durable: at most one vote and one block, at least one of them.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) number: u64,
    pub(crate) vote: Option<VoteWrite>,
    pub(crate) block: Option<BlockWrite>,
}

/// A block that has its place. The data of the entries is shared, never copied.
#[derive(Debug)]
pub(crate) struct BlockWrite {
    pub(crate) region: Arc<dyn Region>,
    pub(crate) salt: Salt,
    pub(crate) alignment: u32,
    pub(crate) header: block::Header,
    /// The entries with their chains.
    pub(crate) entries: Vec<(Entry, u32)>,
    /// What makes room for it in the page cache.
    pub(crate) stale: Option<Stale>,
}

/// A ticket that was run: everything in it is durable.
#[derive(Debug)]
pub struct Done {
    number: u64,
}

/// A segment to be made ahead of its use.
#[derive(Debug)]
pub struct SpareOrder {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) header: Header,
    pub(crate) haste: Haste,
}

/// A segment that was made: zeros after its header, all synced.
#[derive(Debug)]
pub struct Spare {
    pub(crate) region: Arc<dyn Region>,
    pub(crate) header: Header,
}

/// What came of a [`SpareOrder`].
#[derive(Debug)]
pub enum Prepared {
    /// The segment is ready.
    Spare(Spare),
    /// The disk is full: nothing was made. To be tried again after a while.
    NoRoom {
        /// The file that would have been made.
        file: String,
        /// Its length in bytes.
        bytes: u64,
    },
}

impl Ticket {
    /// Writes and syncs everything in it. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The first error of the disk.
    pub fn run(&self) -> Result<Done, SyncError> {
        self.write()?;
        self.sync()
    }

    /// Writes everything. A vote that comes with a block is also synced here, before the block is written: no
    /// crash may leave entries of a term that the vote file does not know.
    ///
    /// # Errors
    /// The first error of the disk.
    pub fn write(&self) -> Result<(), SyncError> {
        if let Some(vote) = &self.vote {
            vote.write().map_err(|source| SyncError::new("write", vote::NAME, source))?;
            if self.block.is_some() {
                vote.sync().map_err(|source| SyncError::new("sync", vote::NAME, source))?;
            }
        }
        self.block.as_ref().map_or(Ok(()), BlockWrite::write)
    }

    /// Syncs what [`Self::write`] wrote. Not to be called before it.
    ///
    /// # Errors
    /// The first error of the disk.
    pub fn sync(&self) -> Result<Done, SyncError> {
        if let Some(BlockWrite { region, .. }) = &self.block {
            region.sync().map_err(|source| SyncError::new("sync", region.name(), source))?;
        } else if let Some(vote) = &self.vote {
            vote.sync().map_err(|source| SyncError::new("sync", vote::NAME, source))?;
        }
        Ok(Done { number: self.number })
    }

    /// Tickets are numbered from 1 in the order in which they were made.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that the block writes, padding included; 0 for a vote alone.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.block
            .as_ref()
            .map_or(0, |block| usize::try_from(block.padded_bytes()).expect("a block fits into memory"))
    }

    /// First and last index of the entries in the block, if it has any.
    #[must_use]
    pub fn range(&self) -> Option<(Index, Index)> {
        let entries = &self.block.as_ref()?.entries;
        Some((entries.first()?.0.index, entries.last()?.0.index))
    }

    /// Whether a vote is in it.
    #[must_use]
    pub fn has_vote(&self) -> bool {
        self.vote.is_some()
    }
}

impl BlockWrite {
    pub(crate) fn padded_bytes(&self) -> u64 {
        block::align_up(self.header.bytes(), self.alignment)
    }

    fn write(&self) -> Result<(), SyncError> {
        if let Some(stale) = &self.stale {
            stale.forget();
        }
        let chunks = block::encode(&self.header, &self.salt, &self.entries, self.alignment);
        let written = self.region.append_at(self.salt.position, &chunks);
        written.map_err(|source| SyncError::new("write", self.region.name(), source))
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
    /// Makes the segment: zero-filled, its header written, all synced. Takes as long as the disk takes to write all of it,
    /// and four times that where there is no haste. That there is no room for it is no error.
    ///
    /// # Errors
    /// The first error of the disk.
    pub fn run(&self) -> Result<Prepared, SyncError> {
        let name = segment::file_name(self.header.segment);
        let region = match self.disk.create(&name, self.header.bytes, &self.haste) {
            Err(source) if is_full(&source) => {
                return Ok(Prepared::NoRoom { file: name, bytes: self.header.bytes });
            }
            created => created.map_err(|source| SyncError::new("create", &name, source))?,
        };
        let head: [Bytes; 1] = [self.header.encode()];
        region.append_at(0, &head).map_err(|source| SyncError::new("write", &name, source))?;
        region.sync().map_err(|source| SyncError::new("sync", &name, source))?;
        Ok(Prepared::Spare(Spare { region, header: self.header }))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
