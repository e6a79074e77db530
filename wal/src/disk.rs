//! What the log asks of a disk: one directory of files, and files of fixed length.
//!
//! Three disks exist: `mmap` is a directory of a real machine, `read_only` is the same for who only looks, and
//! `memory` is the one of tests and of the simulator, which crashes on demand. Everything above this file is the
//! same for all.

#[cfg(feature = "mmap")]
mod directory;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
#[cfg(feature = "mmap")]
pub mod mmap;
#[cfg(feature = "mmap")]
pub mod read_only;
#[cfg(feature = "mmap")]
mod sector;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::Haste;

/// What every disk writes whole or not at all. Bytes.
pub const SECTOR_BYTES_MIN: u32 = 512;
/// The largest sector that a log can begin its blocks on. Bytes.
pub const SECTOR_BYTES_MAX: u32 = 64 << 10;
/// Pages of the page cache: what it writes at once. Bytes.
#[cfg(any(test, feature = "memory", feature = "mmap"))]
const PAGE_BYTES: usize = 4096;
/// Largest file that [`Disk::read`] brings into memory. Bytes.
pub const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;

/// One directory, in the hands of one process.
pub trait Disk: Send + Sync + Debug {
    /// The names of all files, in ascending order, the disk's own (lock, temporary) left out. The directory
    /// is synced first: what is listed stays, and what is not listed stays away, whatever crash follows.
    ///
    /// # Errors
    /// Whatever the directory answers.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros: written, not merely reserved; the file and the directory are synced
    /// before this returns; with pauses, perhaps, if there is no haste. A crash in the midst may leave a shorter file of
    /// zeros; an error leaves nothing.
    ///
    /// # Errors
    /// `AlreadyExists`; `StorageFull` or `QuotaExceeded` if there is no room for it, which may pass; or whatever
    /// else the file system answers.
    fn create(&self, name: &str, bytes: u64, haste: &Haste) -> io::Result<Arc<dyn Region>>;

    /// Opens an existing file. What the page cache holds of it and could be read from the disk again is
    /// dropped first, so that recovery judges what is on the disk.
    ///
    /// # Errors
    /// `NotFound`, or whatever the file system answers.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Region>>;

    /// The content of a small file, `None` if it does not exist.
    ///
    /// # Errors
    /// `InvalidData` above [`SMALL_FILE_BYTES_MAX`], or whatever the file system answers.
    fn read(&self, name: &str) -> io::Result<Option<Bytes>>;

    /// Makes `content` the content of a file, whole or not at all: written under another name, synced,
    /// renamed, the directory synced.
    ///
    /// # Errors
    /// Whatever the file system answers. The file then holds the old or the new content.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// What the disk writes whole or not at all, as far as it tells. Bytes, a power of two from [`SECTOR_BYTES_MIN`] to
    /// [`SECTOR_BYTES_MAX`].
    fn sector_bytes(&self) -> u32 {
        SECTOR_BYTES_MIN
    }

    /// Removes a file and syncs the directory. Open regions of it stay readable.
    ///
    /// # Errors
    /// `NotFound`, or whatever the file system answers.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// One file, whose length never changes.
pub trait Region: Send + Sync + Debug {
    /// Its name in the directory.
    fn name(&self) -> &str;

    /// Its length in bytes.
    fn bytes(&self) -> u64;

    /// Writes the chunks one after another from `position` on.
    ///
    /// # Errors
    /// `InvalidInput` if they reach beyond the end, or whatever the file system answers. Any part may then
    /// have been written.
    fn write_at(&self, position: u64, chunks: &[Bytes]) -> io::Result<()>;

    /// The same for who knows that nothing but zeros follows, some of which may be written again: a page that is written
    /// whole need not be read first.
    ///
    /// # Errors
    /// Those of [`Self::write_at`].
    fn append_at(&self, position: u64, chunks: &[Bytes]) -> io::Result<()> {
        self.write_at(position, chunks)
    }

    /// Returns once all that was written before is on the disk.
    ///
    /// # Errors
    /// Whatever the file system answers. The state of what was written is then unknown for ever: never try
    /// again.
    fn sync(&self) -> io::Result<()>;

    /// `bytes` bytes from `position` on, if the disk can do so without a copy. The range must not be written
    /// to any more.
    ///
    /// # Errors
    /// `InvalidInput` if the range reaches beyond the end, or whatever the file system answers.
    fn read(&self, position: u64, bytes: usize) -> io::Result<Bytes>;

    /// A hint: nobody is expected to read this range soon, so that its pages are better used for others. What is read
    /// afterwards is the same, and may have to come from the disk. `position` is a multiple of the size of a page.
    fn forget(&self, _position: u64, _bytes: u64) {}

    /// A hint: somebody is about to read this range. Does not wait for the disk.
    fn expect(&self, _position: u64, _bytes: u64) {}

    /// Fills `into` from `position` on by a read, which answers a bad sector with an error and not with a
    /// signal.
    ///
    /// # Errors
    /// `InvalidInput` if the range reaches beyond the end, or whatever the file system answers.
    fn scan(&self, position: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Compares a range with the length of a file.
#[cfg(any(test, feature = "memory", feature = "mmap"))]
fn check_range(name: &str, file_bytes: u64, position: u64, bytes: u64) -> io::Result<()> {
    match position.checked_add(bytes) {
        Some(end) if end <= file_bytes => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{bytes} bytes at {position} reach beyond the end of {name}, which has {file_bytes} bytes"
            ),
        )),
    }
}
