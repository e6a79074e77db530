//! Recovery: from whatever a crash left to a log that can be trusted.

use std::io;
use std::sync::Arc;

use crate::{Damage, Disk, Identity, Index, Log, Settings, SyncError, VoteState};

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log; all of it is durable.
    pub log: Log,
    /// The vote, rewritten and durable if it is known.
    pub vote: VoteState,
    /// Highest commit index found. Not above the last index.
    pub commit: Index,
}

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Bytes that were proven durable are not what they were. Nothing was changed.
    #[error("{0}; nothing was changed: restore the file, or replace this broker by one with a new id")]
    Damaged(#[from] Damage),
    /// The identity has no incarnation yet.
    #[error("broker {broker} has no incarnation: it must be drawn and synced before the log is opened")]
    NoIncarnation {
        /// The broker.
        broker: u64,
    },
    /// A segment belongs to another cluster.
    #[error("{file} belongs to another cluster: this directory was mixed with another one")]
    WrongCluster {
        /// The segment.
        file: String,
    },
    /// A segment belongs to another broker, or to an earlier life of this one.
    #[error("{file} was written under another incarnation: this directory was mixed with another one")]
    WrongIncarnation {
        /// The segment.
        file: String,
    },
    /// A later version of the program wrote it.
    #[error("{file} has format {found}, and this version reads {supported}: run the version that wrote it")]
    WrongFormat {
        /// The segment.
        file: String,
        /// Its format.
        found: u16,
        /// The format of this version.
        supported: u16,
    },
    /// The settings contradict each other.
    #[error("the settings of the log are not possible: {why}")]
    Settings {
        /// Which bound is broken.
        why: String,
    },
    /// The disk failed while recovery read.
    #[error("could not {operation} {file}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk failed while recovery made its findings durable.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Opens the log of a data directory. Reads every segment once; returns when all that it shows is durable.
///
/// # Errors
/// Damage, files of another broker, or an error of the disk. See [`OpenError`].
#[expect(clippy::needless_pass_by_value, reason = "the log keeps the disk")]
pub fn open(_disk: Arc<dyn Disk>, _identity: &Identity, _settings: Settings) -> Result<Opened, OpenError> {
    todo!()
}
