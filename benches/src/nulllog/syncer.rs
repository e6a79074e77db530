//! The thread that writes: whatever has gathered becomes one block and one sync, the next begins when that returned.

use std::{io, sync::mpsc, thread};

use bytes::Bytes;
use sequor_wal::Settings;
use tokio::sync::watch;

use crate::segments::{SegmentError, Segments};

/// A log that stores what it is given.
#[derive(Debug)]
pub(crate) struct Durable {
    chunks: mpsc::Sender<Bytes>,
    bytes: watch::Receiver<u64>,
}

impl Durable {
    /// Hands over bytes. They are written in the order in which they were handed over.
    pub(crate) fn store(&self, chunk: Bytes) {
        // A thread that has ended has said why, and `bytes` tells it to whoever waits.
        let _ended = self.chunks.send(chunk);
    }

    /// How many bytes are durable. Closed when the thread has ended.
    pub(crate) fn bytes(&self) -> watch::Receiver<u64> {
        self.bytes.clone()
    }
}

/// Starts the thread over a log. It ends when nobody stores any more, or with the first error.
///
/// # Errors
/// [`SegmentError::System`].
pub(crate) fn start(mut segments: Segments) -> Result<Durable, SegmentError> {
    let (chunks, waiting) = mpsc::channel();
    let (told, bytes) = watch::channel(0);
    let write = move || {
        let mut total = 0;
        while let Some(block) = gather(&waiting) {
            total += block.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            if let Err(error) = segments.append(block) {
                return eprintln!("nulllog: {error}: {:?}", std::error::Error::source(&error));
            }
            if told.send(total).is_err() {
                return;
            }
        }
    };
    let started: io::Result<_> = thread::Builder::new().name("null-syncer".into()).spawn(write);
    started.map_err(|source| SegmentError::System { what: "start a thread", source })?;
    Ok(Durable { chunks, bytes })
}

/// Everything that waits, at least one chunk, up to the size of sequor's largest block. None when there will be no more.
fn gather(waiting: &mpsc::Receiver<Bytes>) -> Option<Vec<Bytes>> {
    let bytes_max = Settings::default().block_bytes_max;
    let mut block = vec![waiting.recv().ok()?];
    let mut bytes = block[0].len();
    while bytes < bytes_max
        && let Ok(chunk) = waiting.try_recv()
    {
        bytes += chunk.len();
        block.push(chunk);
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_stored_becomes_durable() {
        let place = tempfile::tempdir().unwrap();
        let durable = start(Segments::open(place.path(), 1 << 20).unwrap()).unwrap();
        let mut bytes = durable.bytes();
        for _ in 0..100 {
            durable.store(Bytes::from_static(&[7; 100]));
        }
        bytes.wait_for(|bytes| *bytes == 10_000).await.unwrap();
        drop(durable);
        bytes.wait_for(|_| false).await.unwrap_err();
    }
}
