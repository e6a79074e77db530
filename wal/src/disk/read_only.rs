//! A directory of a real machine that is looked at and not touched: nothing in it is made, changed or synced.
//!
//! Who only looks must not see a log that is being written, and must not be overtaken by a broker that starts.
//! So the lock is shared with others who look and with nobody else. A directory without the file `LOCK` was
//! never opened by a broker (it is a copy, say): nobody is kept out of that one, because to make the file would
//! be a change.
//!
//! Files are read, not mapped: a bad sector is then an error with a name and not a signal. No file stays open,
//! for a log may have more segments than a process may have files.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::Advice;

use super::directory::{self, LOCK, OpenDirError};
use super::{Disk, Region, check_range};
use crate::Haste;

/// A directory of a real machine in which nothing can be changed.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Shared, and held as long as anything of this directory is open.
    _lock: Option<File>,
}

#[derive(Debug)]
struct ReadOnlyRegion {
    name: String,
    bytes: u64,
    directory: Arc<Directory>,
}

impl ReadOnlyDisk {
    /// Opens an existing directory that no broker has open. While this disk or any region of it lives, no broker
    /// can open it either.
    ///
    /// # Errors
    /// Absent, in use by another process, or an error of the file system.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenDirError> {
        let path = directory.as_ref().to_path_buf();
        let failed = |operation, source| OpenDirError::Io { operation, path: path.clone(), source };
        if !path.is_dir() {
            return Err(OpenDirError::Absent { path });
        }
        let lock = match File::open(path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(path, None)),
            Err(source) => return Err(failed("read the lock of", source)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self::new(path, Some(lock))),
            Err(TryLockError::WouldBlock) => Err(OpenDirError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(failed("lock", source)),
        }
    }

    fn new(path: PathBuf, lock: Option<File>) -> Self {
        Self { directory: Arc::new(Directory { path, _lock: lock }) }
    }
}

impl Disk for ReadOnlyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        directory::names(&self.directory.path)
    }

    fn create(&self, name: &str, _bytes: u64, _haste: &Haste) -> io::Result<Arc<dyn Region>> {
        Err(refused(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Region>> {
        let file = File::open(self.directory.path.join(name))?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        let (name, bytes) = (name.to_owned(), file.metadata()?.len());
        Ok(Arc::new(ReadOnlyRegion { name, bytes, directory: Arc::clone(&self.directory) }))
    }

    fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        directory::small_file(&self.directory.path.join(name))
    }

    fn replace(&self, name: &str, _content: &[u8]) -> io::Result<()> {
        Err(refused(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Err(refused(name))
    }
}

impl Region for ReadOnlyRegion {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write_at(&self, _position: u64, _chunks: &[Bytes]) -> io::Result<()> {
        Err(refused(&self.name))
    }

    fn sync(&self) -> io::Result<()> {
        Err(refused(&self.name))
    }

    fn read(&self, position: u64, bytes: usize) -> io::Result<Bytes> {
        let mut content = vec![0; bytes];
        self.scan(position, &mut content)?;
        Ok(content.into())
    }

    fn scan(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        check_range(&self.name, self.bytes, position, into.len() as u64)?;
        File::open(self.directory.path.join(&self.name))?.read_exact_at(into, position)
    }
}

fn refused(name: &str) -> io::Error {
    let why = format!("{name} is in a directory that is only looked at");
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, why)
}
