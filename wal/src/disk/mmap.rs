//! A directory of a real machine: positioned writes for appending, a read-only map for reading.
//!
//! Linux keeps file and map coherent, so that what a write put into the file is at once seen through the map.
//! Writing through the map as well would turn a full disk into a signal, and costs a page fault per page.
//!
//! This is the only file of the workspace with `unsafe` in it: the calls that make a map, and that let go of its pages.
#![expect(unsafe_code, reason = "a file can be mapped only by promising that nobody shortens it")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memmap2::{Mmap, MmapMut, MmapOptions};
use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::mm::Advice as MapAdvice;

pub use super::directory::OpenDirError;
use super::directory::{self, LOCK, TEMPORARY};
use super::{Disk, PAGE_BYTES, Region, check_range, sector};
use crate::Haste;

/// Zeros are written in pieces of this size. Bytes.
const FILL_BYTES: usize = 1 << 20;
/// Where there is no haste, the pause after a piece is so many times as long as the piece took. Count.
const PAUSES: u32 = 3;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// The zeros that fill up the last page of a write.
static PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
/// So many pages of a range are looked at before the whole of it is asked for. Pages go by and large in the order in which
/// they came, so a few stand for all. Count.
const PROBES: u64 = 4;
/// Most pieces that one vectored write takes on Linux. Count.
const CHUNKS_MAX: usize = 1024;

/// A directory of a real machine, locked for this process.
#[derive(Debug)]
pub struct MmapDisk {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// The directory itself, to be synced.
    handle: File,
    /// Held as long as anything of this directory is open.
    _lock: File,
}

#[derive(Debug)]
struct MmapRegion {
    name: String,
    file: File,
    /// The whole file. Only ranges that are never written again are looked at.
    map: Bytes,
    _directory: Arc<Directory>,
}

impl MmapDisk {
    /// Opens and locks an existing directory. The lock lives as long as this disk or any region of it.
    ///
    /// # Errors
    /// Absent, in use by another process, or an error of the file system.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenDirError> {
        let path = directory.as_ref().to_path_buf();
        let failed = |operation, source| OpenDirError::Io { operation, path: path.clone(), source };
        if !path.is_dir() {
            return Err(OpenDirError::Absent { path });
        }
        let handle = File::open(&path).map_err(|source| failed("open", source))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK));
        let lock = lock.map_err(|source| failed("make a lock in", source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory: Arc::new(Directory { path, handle, _lock: lock }) }),
            Err(TryLockError::WouldBlock) => Err(OpenDirError::InUse { path }),
            Err(TryLockError::Error(source)) => Err(failed("lock", source)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path.join(name)
    }

    fn region(&self, name: &str, file: File) -> io::Result<Arc<dyn Region>> {
        let map = match file.metadata()?.len() {
            0 => Bytes::new(),
            _ => Bytes::from_owner(map(&file)?),
        };
        Ok(Arc::new(MmapRegion { name: name.into(), file, map, _directory: Arc::clone(&self.directory) }))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.handle.sync_all()
    }
}

/// Maps a whole file for reading.
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: The directory is locked for this process, and this process never shortens a file that it has
    // mapped: files have a fixed length from the moment they are made, and are replaced by rename, not
    // rewritten. Bytes of the map that are still to be written are not looked at: the log reads a range only
    // after the write of it was synced, and never writes there again, so no slice that anybody holds changes
    // under its reader.
    unsafe { MmapOptions::new().map(file) }
}

/// Maps a whole file for writing: the path that was measured and not taken. It exists for the benchmark that measures
/// both once more; nothing else may use it, for a full disk would be a signal here and not an error.
///
/// # Errors
/// Whatever the file system answers.
#[cfg(feature = "mapped-writes")]
pub fn map_for_writing(file: &File) -> io::Result<memmap2::MmapMut> {
    // SAFETY: The benchmark makes the file for itself in a directory of its own, and nobody shortens or reads it
    // as long as the map lives.
    unsafe { MmapOptions::new().map_mut(file) }
}

/// Writes `bytes` zeros and syncs them.
///
/// They go past the page cache, if the file system lets them: it would get a page for each of them, and with most of those
/// nothing more is done until blocks are written over them, perhaps much later.
fn fill(path: &Path, file: &File, bytes: u64, haste: &Haste) -> io::Result<()> {
    let is_reserved = match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => true,
        // A file system that cannot reserve can still be filled. So can one that a signal interrupts, as fallocate(2) allows;
        // asking it again could go on for as long as signals come.
        Err(Errno::OPNOTSUPP | Errno::INTR) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::DIRECT.bits().try_into().expect("a flag of open is an int");
    let direct = OpenOptions::new().write(true).custom_flags(flags).open(path);
    // A map begins with a page, as such a write has to.
    let zeros = MmapMut::map_anon(FILL_BYTES)?;
    let mut filled = 0;
    if let Ok(direct) = direct {
        let mut taken = Duration::ZERO;
        while bytes - filled >= FILL_BYTES as u64 {
            // That there is no room for it is to be known soon.
            if is_reserved {
                pause(taken, haste);
            }
            let begun = Instant::now();
            match direct.write_all_at(&zeros, filled) {
                Ok(()) => {
                    filled += FILL_BYTES as u64;
                    taken = begun.elapsed();
                }
                // It has other rules for such writes than these, or knows no such writes after all.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    // Through the cache it is the sync that takes the disk, and that has no pieces.
    while filled < bytes {
        let piece = usize::try_from(bytes - filled).map_or(FILL_BYTES, |left| left.min(FILL_BYTES));
        file.write_all_at(&zeros[..piece], filled)?;
        filled += piece as u64;
    }
    file.sync_all()
}

/// Leaves the disk to others for a while, after it was taken for so long.
fn pause(taken: Duration, haste: &Haste) {
    if !haste.is_needed() {
        thread::sleep((taken * PAUSES).min(PAUSE_MAX));
    }
}

impl Disk for MmapDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.sync_directory()?;
        directory::names(&self.directory.path)
    }

    fn create(&self, name: &str, bytes: u64, haste: &Haste) -> io::Result<Arc<dyn Region>> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = fill(&path, &file, bytes, haste).and_then(|()| self.sync_directory()) {
            // What there is of it takes room that others may need. If even this fails, recovery removes it.
            fs::remove_file(&path)?;
            return Err(error);
        }
        self.region(name, file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Region>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(name))?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        self.region(name, file)
    }

    fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        directory::small_file(&self.path(name))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = self.path(&format!("{name}{TEMPORARY}"));
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path(name))?;
        self.sync_directory()
    }

    fn sector_bytes(&self) -> u32 {
        sector::bytes_below(&self.directory.path)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))?;
        self.sync_directory()
    }
}

impl MmapRegion {
    /// Whether a page is in memory, or beyond the end. Does not wait for the disk.
    fn is_cached(&self, position: u64) -> bool {
        preadv2(&self.file, &mut [IoSliceMut::new(&mut [0])], position, ReadWriteFlags::NOWAIT).is_ok()
    }

    /// Writes the chunks, and so many zeros after them.
    fn write(&self, position: u64, chunks: &[Bytes], zeros: usize) -> io::Result<()> {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        check_range(&self.name, self.bytes(), position, bytes as u64)?;
        let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        slices.push(IoSlice::new(&PAGE[..zeros]));
        let mut left = &mut slices[..];
        let mut position = position;
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let pieces = &left[..left.len().min(CHUNKS_MAX)];
            match rustix::io::pwritev(&self.file, pieces, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                // Interrupted before anything was written: not an error of the disk.
                Err(Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Region for MmapRegion {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    fn write_at(&self, position: u64, chunks: &[Bytes]) -> io::Result<()> {
        self.write(position, chunks, 0)
    }

    fn append_at(&self, position: u64, chunks: &[Bytes]) -> io::Result<()> {
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        check_range(&self.name, self.bytes(), position, bytes as u64)?;
        let end = position + bytes as u64;
        let page_end = end.next_multiple_of(PAGE_BYTES as u64).min(self.bytes());
        self.write(position, chunks, usize::try_from(page_end - end).expect("less than a page"))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn read(&self, position: u64, bytes: usize) -> io::Result<Bytes> {
        check_range(&self.name, self.bytes(), position, bytes as u64)?;
        let at = usize::try_from(position).expect("within a map");
        Ok(self.map.slice(at..at + bytes))
    }

    fn scan(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        check_range(&self.name, self.bytes(), position, into.len() as u64)?;
        self.file.read_exact_at(into, position)
    }

    fn forget(&self, position: u64, bytes: u64) {
        let end = position.saturating_add(bytes).min(self.bytes());
        let range = usize::try_from(position).ok().zip(usize::try_from(end).ok()).map(|(from, to)| from..to);
        let Some(pages) = range.and_then(|range| self.map.get(range)) else { return };
        // The page cache keeps what is mapped.
        let start = pages.as_ptr().cast_mut().cast();
        // SAFETY: The range is part of a map that is shared with a file and only read: whoever looks at it again is
        // given the same bytes, by the page cache or from the disk.
        let unmapped = unsafe { rustix::mm::madvise(start, pages.len(), MapAdvice::LinuxDontNeed) };
        // A hint that is not taken costs memory and nothing else; one of no length would mean the rest of the file.
        let length = NonZeroU64::new(pages.len() as u64);
        let _ = unmapped.and_then(|()| match length {
            Some(length) => rustix::fs::fadvise(&self.file, position, Some(length), Advice::DontNeed),
            None => Ok(()),
        });
    }

    fn expect(&self, position: u64, bytes: u64) {
        // The kernel takes longer to find that all pages are there than the log takes to read them.
        if (0..PROBES).all(|probe| self.is_cached(position + bytes / PROBES * probe)) {
            return;
        }
        // None would mean: to the end of the file. And a hint that is not taken costs time and nothing else.
        let _ = NonZeroU64::new(bytes)
            .map(|bytes| rustix::fs::fadvise(&self.file, position, Some(bytes), Advice::WillNeed));
    }
}
