//! Files that are full of zeros before they are needed, as sequor's are.
//!
//! The same disk (`MmapDisk::create` writes the zeros and syncs file and directory), the same size, the same number of
//! spares, made by a thread of its own. What differs is that they hold no header: nobody ever reads them again; and that each
//! is made at full speed.
//!
//! Or there is one segment that is written over and over: the limit of a log that had all its space from the beginning, and
//! never needs a fresh page of memory.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use bytes::Bytes;
use sequor_wal::{
    Cached, Disk, Haste, Region, Settings,
    disk::mmap::{MmapDisk, OpenDirError},
};
use thiserror::Error;

/// What the page cache keeps of what was written last: as much as sequor's followers let it. Bytes.
const CACHED_BYTES: u64 = 8 << 20;
/// So much of a segment is read at once to have it in the page cache. Bytes.
const WARM_BYTES: usize = 1 << 20;

/// No log can be made, or it cannot be written to.
#[derive(Debug, Error)]
pub(crate) enum SegmentError {
    /// The directory cannot be used.
    #[error("cannot use the directory of the log")]
    Directory(#[from] OpenDirError),
    /// The system does not let us.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The thread that makes segments has ended, having said why.
    #[error("no more segments are made")]
    NoMore,
}

/// Where the next block goes.
#[derive(Debug)]
pub(crate) struct Segments {
    /// None if the first one is all there is.
    ready: Option<mpsc::Receiver<Arc<dyn Region>>>,
    active: Arc<dyn Region>,
    position: u64,
    alignment: u64,
    zeros: Bytes,
    /// Nobody reads what is written: its pages are used again, as a follower of sequor does it.
    cached: Cached,
}

impl Segments {
    /// Makes the first segment and the spares, as many as sequor keeps: when it returns, nobody writes to the disk until a
    /// segment is full. The directory must exist and hold no segments.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub(crate) fn open(directory: &Path, bytes: u64) -> Result<Self, SegmentError> {
        let disk = MmapDisk::open(directory)?;
        let spares = Settings::default().spares;
        // One is in the thread's hands, the others wait here: as many as sequor keeps.
        let (made, ready) = mpsc::sync_channel(spares - 1);
        let (told, filled) = mpsc::channel();
        let fill = move || fill(&disk, bytes, &told, &made);
        let filler = thread::Builder::new().name("null-filler".into()).spawn(fill);
        filler.map_err(|source| SegmentError::System { what: "start a thread", source })?;
        let active = ready.recv().map_err(|_| SegmentError::NoMore)?;
        (0..=spares).try_for_each(|_| filled.recv()).map_err(|_| SegmentError::NoMore)?;
        Ok(Self::begin(active, Some(ready)))
    }

    /// Makes one segment that is written over and over. The directory must exist and hold no segments.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub(crate) fn open_in_place(directory: &Path, bytes: u64) -> Result<Self, SegmentError> {
        let made = MmapDisk::open(directory)?.create(&file_name(1), bytes, &Haste::at_once());
        let active = made.map_err(|source| SegmentError::System { what: "make a segment", source })?;
        warm(&*active).map_err(|source| SegmentError::System { what: "read a segment", source })?;
        Ok(Self::begin(active, None))
    }

    fn begin(active: Arc<dyn Region>, ready: Option<mpsc::Receiver<Arc<dyn Region>>>) -> Self {
        let alignment = Settings::default().alignment;
        let zeros = vec![0; usize::try_from(alignment).expect("a few sectors")].into();
        let mut cached = Cached::default();
        cached.limit_to(ready.is_some().then_some(CACHED_BYTES));
        Self { ready, active, position: 0, alignment: alignment.into(), zeros, cached }
    }

    /// Writes one block, padded to whole sectors, and syncs it. Rolls to the next segment if it does not fit.
    ///
    /// # Errors
    /// [`SegmentError`]. Nothing is known about the block then.
    pub(crate) fn append(&mut self, mut chunks: Vec<Bytes>) -> Result<(), SegmentError> {
        let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let padded = bytes.next_multiple_of(self.alignment);
        chunks.push(self.zeros.slice(..usize::try_from(padded - bytes).expect("less than a sector")));
        if padded > self.active.bytes() - self.position {
            if let Some(ready) = &self.ready {
                self.active = ready.recv().map_err(|_| SegmentError::NoMore)?;
            }
            self.position = 0;
        }
        if let Some(stale) = self.cached.take_stale() {
            stale.forget();
        }
        let written = match self.ready {
            Some(_) => {
                self.cached.write(&self.active, self.position..self.position + padded);
                self.active.append_at(self.position, &chunks)
            }
            None => self.active.write_at(self.position, &chunks),
        };
        let synced = written.and_then(|()| self.active.sync());
        synced.map_err(|source| SegmentError::System { what: "write to the log", source })?;
        self.position += padded;
        Ok(())
    }
}

/// Has the whole of a file in the page cache.
fn warm(region: &dyn Region) -> io::Result<()> {
    let mut piece = vec![0; WARM_BYTES];
    for position in (0..region.bytes()).step_by(WARM_BYTES) {
        let bytes =
            usize::try_from(region.bytes() - position).map_or(WARM_BYTES, |left| left.min(WARM_BYTES));
        region.scan(position, &mut piece[..bytes])?;
    }
    Ok(())
}

fn file_name(number: u64) -> String {
    format!("segment-{number:020}")
}

/// Makes segments until nobody wants one any more, and tells of each before it hands it over.
fn fill(disk: &MmapDisk, bytes: u64, told: &mpsc::Sender<()>, made: &mpsc::SyncSender<Arc<dyn Region>>) {
    for number in 1_u64.. {
        match disk.create(&file_name(number), bytes, &Haste::at_once()) {
            Ok(region) => {
                // Only the first ones are waited for.
                let _nobody = told.send(());
                if made.send(region).is_err() {
                    return;
                }
            }
            Err(error) => return eprintln!("nulllog: cannot make segment {number}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spares_are_there_before_anybody_is_told_that_it_is_ready() {
        let place = tempfile::tempdir().unwrap();
        let _segments = Segments::open(place.path(), 1 << 20).unwrap();
        let whole = |number: usize| {
            let file = place.path().join(file_name(number as u64));
            std::fs::metadata(file).is_ok_and(|file| file.len() == 1 << 20)
        };
        let spares = Settings::default().spares;
        assert!((1..=1 + spares).all(whole) && !whole(2 + spares));
    }

    #[test]
    fn in_place_there_is_one_segment() {
        let place = tempfile::tempdir().unwrap();
        let mut segments = Segments::open_in_place(place.path(), 2048).unwrap();
        for byte in [1, 2, 3] {
            segments.append(vec![Bytes::from(vec![byte; 1100])]).unwrap();
            assert_eq!(segments.position, 1536);
        }
        let only = std::fs::read(place.path().join(file_name(1))).unwrap();
        assert!(only.len() == 2048 && only[..1100].iter().all(|byte| *byte == 3));
        assert!(!place.path().join(file_name(2)).exists());
    }

    #[test]
    fn blocks_are_padded_and_roll() {
        let place = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(place.path(), 2048).unwrap();
        segments.append(vec![Bytes::from_static(&[1; 700]), Bytes::from_static(&[2; 700])]).unwrap();
        assert_eq!(segments.position, 1536);
        segments.append(vec![Bytes::from_static(&[3; 512])]).unwrap();
        assert_eq!(segments.position, 2048);
        segments.append(vec![Bytes::from_static(&[4; 513])]).unwrap();
        assert_eq!(segments.position, 1024);
        let first = std::fs::read(place.path().join(format!("segment-{:020}", 1))).unwrap();
        assert_eq!(first.len(), 2048);
        assert!(first[..700].iter().all(|byte| *byte == 1) && first[700..1400].iter().all(|byte| *byte == 2));
        assert!(
            first[1400..1536].iter().all(|byte| *byte == 0) && first[1536..].iter().all(|byte| *byte == 3)
        );
    }
}
