//! The client: so many requests in flight, each as many bytes as its records have, for a while.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{ReadExactError, RecvStream, SendStream, WriteError};
use sequor_benches::{figure::Tally, point::Point};
use thiserror::Error;
use tokio::time::timeout;

use crate::node::COUNT_BYTES;

/// Most requests that go out in one write. Bytes.
const WRITE_BYTES_MAX: u64 = 1 << 20;
/// Silence after which it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing is acknowledged any more.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// Nothing can be sent.
    #[error("the leader takes nothing more")]
    Write(#[from] WriteError),
    /// Nothing comes back.
    #[error("the leader acknowledges nothing more")]
    Read(#[from] ReadExactError),
    /// For too long.
    #[error("nothing was acknowledged for {} s", PATIENCE.as_secs())]
    Silence,
}

/// A closed loop over one stream to the leader.
#[derive(Debug)]
pub(crate) struct Load {
    data: SendStream,
    told: RecvStream,
    point: Point,
    request_bytes: u64,
    /// Many requests, ready to be sent.
    requests: Bytes,
    /// When each of those in flight was sent, the oldest first.
    sent: VecDeque<Instant>,
    done: u64,
}

impl Load {
    /// A load of records of `size` bytes.
    pub(crate) fn new((data, told): (SendStream, RecvStream), point: Point, size: u64) -> Self {
        // Of a record without bytes there would be nothing to acknowledge.
        let request_bytes = (point.batch * size).max(1);
        let many = (WRITE_BYTES_MAX / request_bytes).clamp(1, point.in_flight) * request_bytes;
        let requests = Bytes::from(vec![0x5a; usize::try_from(many).expect("it fits into memory")]);
        Self { data, told, point, request_bytes, requests, sent: VecDeque::new(), done: 0 }
    }

    /// Runs for so long. What is answered meanwhile is counted, also what was on its way when it began: the loop is closed,
    /// and as many are still on their way when it ends.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(crate) async fn run(&mut self, time: Duration) -> Result<(Tally, f64), LoadError> {
        let start = Instant::now();
        let mut tally = Tally::default();
        while start.elapsed() < time {
            self.fill().await?;
            let mut count = [0; COUNT_BYTES];
            timeout(PATIENCE, self.told.read_exact(&mut count)).await.map_err(|_| LoadError::Silence)??;
            let done = u64::from_le_bytes(count) / self.request_bytes;
            let now = Instant::now();
            for _ in self.done..done {
                let sent = self.sent.pop_front().expect("what is acknowledged was sent");
                let latency = now.duration_since(sent).as_micros();
                tally.answered(u64::try_from(latency).unwrap_or(u64::MAX));
            }
            self.done = done;
        }
        Ok((tally, start.elapsed().as_secs_f64()))
    }

    /// Sends until as many are in flight as there have to be.
    async fn fill(&mut self) -> Result<(), LoadError> {
        loop {
            let missing = self.point.in_flight - self.sent.len() as u64;
            let bytes = (missing * self.request_bytes).min(self.requests.len() as u64);
            if bytes == 0 {
                return Ok(());
            }
            let now = Instant::now();
            self.sent.extend((0..bytes / self.request_bytes).map(|_| now));
            let end = usize::try_from(bytes).expect("no more than `requests` has");
            self.data.write_chunk(self.requests.slice(..end)).await?;
        }
    }
}
