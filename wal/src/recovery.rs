//! Recovery: from whatever a crash left to a log that can be trusted.
//!
//! 1. Every segment is read whole, past the page cache, in ascending order of ids (`survey.rs`); its blocks are
//!    found (`segment.rs`) and folded into the visible log (`fold.rs`). Whoever only inspects a directory
//!    (`inspection.rs`) does the same.
//! 2. The verdict: all is well, or the tail is torn and will be cut, or something that was durable is
//!    damaged. In the last case nothing is changed and the log is not opened.
//! 3. Leftovers are removed: spares that a crash left unfinished, segments that hold nothing but a torn first
//!    block. Ids are contiguous from 1, so that a file that is lost is noticed; therefore everything above a
//!    leftover, which can only be spares, goes with it, the highest id first.
//! 4. After a kill, what was just read may be in the page cache alone. So the segment of the last block is
//!    synced, and the vote is written anew and synced. Only then is anything shown to the caller, who takes
//!    all of it for durable.
//!
//! A torn tail is not erased. The next block goes to a new segment and hides it; until then every start finds
//! it again.

use std::io;
use std::sync::Arc;

use crate::log::{Found, ReadError};
use crate::segment;
use crate::spares::Spares;
use crate::survey::{Owner, Survey, segments_of};
use crate::vote::{self, VoteFile, Votes};
use crate::{Damage, Disk, Identity, Index, Log, Position, Settings, SyncError, Vote, VoteState};

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
    #[error(
        "{0}; nothing was changed: keep the directory as it is, and let the other brokers go on without this one"
    )]
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

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(damage) => Self::Damaged(damage),
            ReadError::Io { file, source } => Self::Io { operation: "read", file, source },
            ReadError::OutOfRange { .. } => unreachable!("the fold reads only what it has seen"),
        }
    }
}

/// Opens the log of a data directory. Reads every segment once; returns when all that it shows is durable.
///
/// # Errors
/// Damage, files of another broker, or an error of the disk. See [`OpenError`]. Unless the error is of a
/// write or a sync, nothing was changed.
pub fn open(disk: Arc<dyn Disk>, identity: &Identity, settings: Settings) -> Result<Opened, OpenError> {
    let incarnation = identity.incarnation.ok_or(OpenError::NoIncarnation { broker: identity.broker })?;
    if let Some(why) = settings.contradiction() {
        return Err(OpenError::Settings { why });
    }
    let names = disk.list().map_err(|source| io_error("list", "the data directory", source))?;
    let mut survey = Survey::new(Owner { cluster: identity.cluster, incarnation });
    for (name, segment) in segments_of(&names) {
        survey.expect_no_gap(segment)?;
        survey.expect_finished()?;
        survey.add(&*disk, name, segment)?;
    }
    let verdict = survey.fold.verdict()?;
    let vote = find_vote(&*disk, &names, incarnation, survey.fold.latest)?;

    // From here on the disk is changed: first what must not be found again, then what must not be lost.
    if !names.iter().any(|name| name == vote::NAME) && vote.is_err() {
        vote::keep_missing(&*disk).map_err(|source| SyncError::new("create", vote::NAME, source))?;
    }
    let next_segment = survey.first_leftover(&verdict.remove, &settings).unwrap_or(survey.next_segment);
    for segment in (next_segment..survey.next_segment).rev() {
        let name = segment::file_name(segment);
        disk.remove(&name).map_err(|source| SyncError::new("remove", &name, source))?;
    }
    let spares = survey.spares(next_segment);
    let used = survey.fold.active.as_ref().map(|active| &active.region);
    let unsynced = used.into_iter().chain(spares.iter().map(|spare| &spare.region));
    for region in unsynced.filter(|_| cfg!(not(feature = "bug-trust-unsynced"))) {
        region.sync().map_err(|source| SyncError::new("sync", region.name(), source))?;
    }
    let (vote, state) = match vote {
        Ok((mut file, vote)) => {
            if cfg!(not(feature = "bug-trust-unsynced")) {
                rewrite(&mut file, vote)?;
            }
            (Some((file, vote)), VoteState::Known(vote))
        }
        Err(damage) => (None, VoteState::Damaged(damage)),
    };

    let fold = survey.fold;
    let commit = fold.commit;
    let found = Found {
        start: fold.start,
        last: fold.last,
        terms: fold.terms,
        extents: fold.extents,
        commit,
        active: fold.active,
        cut_pending: verdict.cut_pending,
        unproven: fold.unproven,
        spares: Spares::new(disk, (identity.cluster, incarnation), spares, next_segment),
        votes: Votes::new(vote),
    };
    let log = Log::new(settings, incarnation, found);
    Ok(Opened { log, vote: state, commit })
}

/// Finds the vote, or makes the file if there was never anything here. `latest` is the entry of the highest term: the vote
/// cannot be older.
fn find_vote(
    disk: &dyn Disk,
    names: &[String],
    incarnation: [u8; 16],
    latest: Position,
) -> Result<Result<(VoteFile, Vote), Damage>, OpenError> {
    if !names.iter().any(|name| name == vote::NAME) {
        // The file is there before the first segment is made: with segments, its absence is a loss.
        if segments_of(names).next().is_some() {
            return Ok(Err(vote::missing()));
        }
        VoteFile::create(disk, incarnation).map_err(|source| SyncError::new("create", vote::NAME, source))?;
    }
    let region = disk.open(vote::NAME).map_err(|source| io_error("open", vote::NAME, source))?;
    let found = VoteFile::load(region, incarnation).map_err(|source| io_error("read", vote::NAME, source))?;
    Ok(found.and_then(|(file, vote)| vote::check_age(vote, latest).map(|()| (file, vote))))
}

/// Writes the vote as the next two generations, each synced: all four copies are then good and durable.
fn rewrite(file: &mut VoteFile, vote: Vote) -> Result<(), SyncError> {
    for _ in 0..2 {
        let update = file.update(vote);
        update.write().map_err(|source| SyncError::new("write", vote::NAME, source))?;
        update.sync().map_err(|source| SyncError::new("sync", vote::NAME, source))?;
    }
    Ok(())
}

pub(crate) fn io_error(operation: &'static str, file: &str, source: io::Error) -> OpenError {
    OpenError::Io { operation, file: file.into(), source }
}
