//! A directory of a real machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{Disk, Region};

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirError {
    /// It is not there.
    #[error("there is no data directory at {path}: make one with `sequor certs init`")]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("the data directory {path} is in use by another process")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("could not {operation} in the data directory {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// A directory of a real machine, locked for this process.
#[derive(Debug)]
pub struct MmapDisk {}

impl MmapDisk {
    /// Opens and locks an existing directory. The lock lives as long as this disk or any region of it.
    ///
    /// # Errors
    /// Absent, in use by another process, or an error of the file system.
    pub fn open(_directory: impl AsRef<Path>) -> Result<Self, OpenDirError> {
        todo!()
    }
}

impl Disk for MmapDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        todo!()
    }
    fn create(&self, _name: &str, _bytes: u64) -> io::Result<Arc<dyn Region>> {
        todo!()
    }
    fn open(&self, _name: &str) -> io::Result<Arc<dyn Region>> {
        todo!()
    }
    fn read(&self, _name: &str) -> io::Result<Option<Bytes>> {
        todo!()
    }
    fn replace(&self, _name: &str, _content: &[u8]) -> io::Result<()> {
        todo!()
    }
    fn remove(&self, _name: &str) -> io::Result<()> {
        todo!()
    }
}
