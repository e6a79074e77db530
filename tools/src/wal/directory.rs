//! One data directory: opened to be looked at, locked as long as it is, its small files judged.
//!
//! `sequor-wal` judges what it owns: identity, vote, segments, and that each checkpoint is whole. What the first state
//! and the pins mean is a broker's business, and is judged here by what a broker makes of it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use sequor_broker::{
    core::genesis::Genesis,
    io::{PINS, PinError, read_pins},
};
use sequor_wal::{
    Checkpoint, Damage, Findings, InspectError, Inspection,
    disk::{mmap::OpenDirError, read_only::ReadOnlyDisk},
    inspect,
};

use crate::{
    exit::{Exit, Verdict},
    visible::visible_path,
};

/// A data directory that is locked and was not looked at yet.
#[derive(Debug)]
pub(super) struct Locked {
    path: PathBuf,
    disk: ReadOnlyDisk,
}

/// A data directory that was looked at. No broker can start on it.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) inspection: Inspection,
    /// What is wrong with it, the entries' content not counted.
    pub(super) findings: Findings,
    _disk: ReadOnlyDisk,
}

/// Why a directory cannot be looked at.
#[derive(Debug, Error)]
pub(super) enum DirectoryError {
    /// It is not there, or a broker runs on it.
    #[error(transparent)]
    Open(#[from] OpenDirError),
    /// It is a file, as a pattern of the shell may give it.
    #[error("{} is a file, and no data directory: name those that `data` names in the brokers' configurations", visible_path(.path))]
    File {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing in it to look at.
    #[error("cannot look at {}", visible_path(.path))]
    Inspect {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: InspectError,
    },
}

impl Verdict for DirectoryError {
    fn exit(&self) -> Exit {
        match self {
            // As for `serve`: its lock is held, and nothing failed.
            Self::Open(OpenDirError::InUse { .. }) => Exit::Precondition,
            Self::Open(_) | Self::File { .. } | Self::Inspect { .. } => Exit::Error,
        }
    }
}

impl Locked {
    /// Locks a directory against brokers.
    ///
    /// # Errors
    /// If it is not there, or a broker has it open.
    pub(super) fn open(path: &Path) -> Result<Self, DirectoryError> {
        if path.is_file() {
            return Err(DirectoryError::File { path: path.to_path_buf() });
        }
        Ok(Self { path: path.to_path_buf(), disk: ReadOnlyDisk::open(path)? })
    }

    /// Looks at everything in it.
    ///
    /// # Errors
    /// If it is no data directory.
    pub(super) fn inspect(self) -> Result<Directory, DirectoryError> {
        let Self { path, disk } = self;
        let inspection =
            inspect(&disk).map_err(|source| DirectoryError::Inspect { path: path.clone(), source })?;
        let mut findings = inspection.findings().clone();
        look_at_genesis(&disk, &mut findings);
        look_at_pins(&disk, &mut findings);
        Ok(Directory { path, inspection, findings, _disk: disk })
    }
}

impl Directory {
    /// The broker whose directory it is, if that can be read.
    pub(super) fn broker(&self) -> Option<u64> {
        self.inspection.identity().map(|identity| identity.broker)
    }
}

/// The first state must be one. That its file is whole was judged before.
fn look_at_genesis(disk: &ReadOnlyDisk, findings: &mut Findings) {
    let Ok(Some(checkpoint)) = Checkpoint::load(disk, 0) else { return };
    let sections = checkpoint.sections.iter().map(|section| (section.id, &section.content[..]));
    if let Err(error) = Genesis::decode(sections) {
        findings.push(Damage {
            file: format!("checkpoint-{:020}", 0),
            offset: 0,
            expected: "the first state of a cluster".into(),
            found: error.to_string(),
        });
    }
}

fn look_at_pins(disk: &ReadOnlyDisk, findings: &mut Findings) {
    match read_pins(disk) {
        Ok(_) => {}
        Err(PinError::File(error)) => findings.push(error.into_damage(PINS)),
        Err(error) => findings.push(Damage {
            file: PINS.into(),
            offset: 0,
            expected: "which data directory each peer is known by".into(),
            found: error.to_string(),
        }),
    }
}
