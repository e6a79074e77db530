//! A disk in memory that crashes on demand.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::{Disk, Region};

/// A directory in memory. Clones are handles of the same directory.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {}

/// What was done to one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounters {
    /// Calls of `sync`.
    pub syncs: u64,
    /// Calls of `write_at`.
    pub writes: u64,
    /// Bytes written by them.
    pub bytes: u64,
}

impl MemoryDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The power fails: every unsynced sector is kept or lost by the seed. All open regions are dead.
    pub fn crash(&self, _seed: u64) {
        todo!()
    }

    /// The process is killed: all that was written stays, still unsynced. All open regions are dead.
    pub fn kill(&self) {
        todo!()
    }

    /// Flips one bit (0 to 7) of a byte, in the live and in the durable image.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip(&self, _name: &str, _position: u64, _bit: u8) {
        todo!()
    }

    /// Lets the `n`-th sync from now (1 is the next) fail, and every operation after it, until a crash or a kill.
    pub fn fail_sync(&self, _n: u64) {
        todo!()
    }

    /// Lets the `n`-th write from now (1 is the next) fail half done, and every operation after it, until a crash or a
    /// kill.
    pub fn fail_write(&self, _n: u64) {
        todo!()
    }

    /// What was done to a file since it was made.
    #[must_use]
    pub fn counters(&self, _name: &str) -> FileCounters {
        todo!()
    }
}

impl Disk for MemoryDisk {
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
