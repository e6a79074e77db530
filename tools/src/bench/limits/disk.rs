//! The disk: how long it takes to sync a little, and how fast it takes much.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rustix::fs::{OFlags, fcntl_setfl as set_flags};
use thiserror::Error;

use super::super::meter::{histogram, micros};

/// How long each is measured.
const LENGTH: Duration = Duration::from_millis(500);
/// What is written before each sync. Bytes.
const BLOCK_BYTES: usize = 4096;
/// Size of a file that is written over: it is there before, as a segment of the log is. Bytes.
const FILE_BYTES: usize = 16 << 20;
/// What is written at once, where much is. Bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Where in memory a piece has to begin that goes past the page cache. Bytes.
const PAGE_BYTES: usize = 4096;
/// Most that is written to measure how fast it goes. Bytes.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// A file could not be made, written or synced.
#[derive(Debug, Error)]
#[error("cannot {what} a file in {dir}")]
pub(crate) struct DiskError {
    what: &'static str,
    dir: String,
    source: io::Error,
}

/// A step that may fail, with its name.
fn step<T>(dir: &Path, what: &'static str, result: io::Result<T>) -> Result<T, DiskError> {
    result.map_err(|source| DiskError { what, dir: dir.display().to_string(), source })
}

/// How long a small write and its sync take while so many writers do the same, each in its own file.
pub(super) fn fdatasync(dir: &Path, writers: usize) -> Result<Histogram<u64>, DiskError> {
    let all = thread::scope(|scope| {
        let writers: Vec<_> = (0..writers).map(|_| scope.spawn(|| sync_again_and_again(dir))).collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut together = histogram();
    for took in all.into_iter().flatten() {
        together.saturating_record(micros(took));
    }
    Ok(together)
}

fn sync_again_and_again(dir: &Path) -> Result<Vec<Duration>, DiskError> {
    let mut file = step(dir, "make", tempfile::tempfile_in(dir))?;
    step(dir, "fill", fill(&mut file, FILE_BYTES))?;
    let block = [7; BLOCK_BYTES];
    let (start, mut took) = (Instant::now(), Vec::new());
    let mut at = 0;
    while start.elapsed() < LENGTH {
        let begun = Instant::now();
        step(dir, "write", file.write_all_at(&block, at))?;
        step(dir, "sync", file.sync_data())?;
        took.push(begun.elapsed());
        at = (at + BLOCK_BYTES as u64) % FILE_BYTES as u64;
    }
    Ok(took)
}

fn fill(file: &mut File, bytes: usize) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES];
    (0..bytes / PIECE_BYTES).try_for_each(|_| file.write_all(&zeros))?;
    file.sync_all()
}

/// Bytes a second that are written one after the other, and are on the disk at the end: past the page cache, whose pages
/// can cost more than the disk does, or through it, which can have more on its way to the disk; by the better way here.
pub(super) fn write(dir: &Path) -> Result<f64, DiskError> {
    let through_cache = write_by(dir, OFlags::empty())?.expect("every file system knows this way");
    Ok(write_by(dir, OFlags::DIRECT)?.map_or(through_cache, |past_it| past_it.max(through_cache)))
}

/// The same by one way; none if the file system does not know it.
fn write_by(dir: &Path, way: OFlags) -> Result<Option<f64>, DiskError> {
    let file = step(dir, "make", tempfile::tempfile_in(dir))?;
    if set_flags(&file, way).is_err() {
        return Ok(None);
    }
    let memory = vec![7; PIECE_BYTES + PAGE_BYTES];
    let piece = &memory[memory.as_ptr().align_offset(PAGE_BYTES)..][..PIECE_BYTES];
    let (start, mut written) = (Instant::now(), 0);
    while start.elapsed() < LENGTH && written < WRITE_BYTES_MAX {
        match file.write_all_at(piece, written as u64) {
            Err(error) if !way.is_empty() && is_unknown(&error) => return Ok(None),
            result => step(dir, "write", result)?,
        }
        written += PIECE_BYTES;
    }
    step(dir, "sync", file.sync_data())?;
    Ok(Some(written as f64 / start.elapsed().as_secs_f64()))
}

/// A file system that has other rules for writes past the page cache, or knows none, says so at the first.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}
