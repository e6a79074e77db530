//! Where a cluster lives that a command makes for itself: in a temporary directory that goes with it, or in one that stays.

use std::{
    io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use thiserror::Error;

use crate::exit::{Exit, Verdict};

/// There is no place for the cluster.
#[derive(Debug, Error)]
#[error("cannot make a temporary directory")]
pub(crate) struct PlaceError {
    #[from]
    source: io::Error,
}

impl Verdict for PlaceError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// See the file's header.
#[derive(Debug)]
pub(crate) enum Place {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Place {
    /// The directory to keep, or a temporary one whose name begins with this.
    ///
    /// # Errors
    /// If no temporary directory can be made.
    pub(crate) fn new(keep: Option<PathBuf>, prefix: &str) -> Result<Self, PlaceError> {
        Ok(match keep {
            Some(path) => Self::Kept(path),
            None => Self::Temporary(tempfile::Builder::new().prefix(prefix).tempdir()?),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(path) => path,
        }
    }

    /// Lets the directory stay; where it is.
    pub(crate) fn keep(self) -> PathBuf {
        match self {
            Self::Temporary(dir) => dir.keep(),
            Self::Kept(path) => path,
        }
    }
}
