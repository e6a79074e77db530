//! A load: one producer, the same batch again and again, and a note of every answer.
//!
//! The content is made before the clock runs. What is left for each batch is a copy of its bytes, its digest and its
//! checksum: nothing is allocated or encoded for a record. (`bench append --raw-limits` says what that costs, and what it
//! would cost to push record by record.) Requests are never joined: a batch is the records of one request frame.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use tokio::sync::mpsc;

use sequor_client::{
    Acknowledgement, AppendError, Client, Producer,
    protocol::{
        batch::{BatchBuilder, PushError},
        limits::{BATCH_BYTES_MAX, IN_FLIGHT_BATCHES_MAX},
    },
};

use super::{
    lists::{Point, Pressure},
    pace::{Pace, Timer},
};
use crate::exit::{Exit, Failure, Verdict};

/// How long the session of a load lives when nobody keeps it alive: longer than any election.
const SESSION_TTL: Duration = Duration::from_secs(30);
/// What the content of records is drawn from: the same in each run, and nothing that could be packed.
const CONTENT_SEED: u64 = 7;

/// A batch has no place in a request.
#[derive(Debug, Error)]
#[error(
    "{batch} records of {size} bytes do not fit one request: its batch has at most {BATCH_BYTES_MAX} bytes"
)]
pub(super) struct TooLarge {
    pub(super) batch: u64,
    pub(super) size: u64,
}

impl Verdict for TooLarge {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// When answers count. Before it the load is warming up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Window {
    pub(super) fn contains(&self, moment: Instant) -> bool {
        (self.from..self.to).contains(&moment)
    }
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    /// When it left, or in an open loop was meant to.
    pub(super) begun: Instant,
    pub(super) at: Instant,
    /// Records in it.
    pub(super) records: u64,
}

impl Answered {
    /// How long it took.
    pub(super) fn took(&self) -> Duration {
        self.at.saturating_duration_since(self.begun)
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Load {
    producer: Producer,
    batch: BatchBuilder,
    point: Point,
}

/// The batch of a point.
///
/// # Errors
/// [`TooLarge`].
pub(super) fn batch(point: &Point) -> Result<BatchBuilder, TooLarge> {
    let Point { batch, size, .. } = *point;
    let mut value = vec![0; usize::try_from(size).expect("it has a limit")];
    ChaCha8Rng::seed_from_u64(CONTENT_SEED).fill_bytes(&mut value);
    let mut builder = BatchBuilder::new();
    for _ in 0..batch {
        match builder.push_value(None, &value, 0) {
            Ok(()) => {}
            Err(PushError::Full | PushError::Record(_)) => return Err(TooLarge { batch, size }),
        }
    }
    Ok(builder)
}

impl Load {
    /// Begins a session to write in.
    pub(super) async fn prepare(client: &Client, point: &Point) -> Result<Self, Failure> {
        let in_flight = match point.pressure {
            Pressure::InFlight(count) => usize::try_from(count).expect("it has a limit"),
            // The clock decides, and nothing else.
            Pressure::Rate(_) => IN_FLIGHT_BATCHES_MAX,
        };
        let batch = batch(point)?;
        let producer = client.session(SESSION_TTL).in_flight(in_flight).open().await?;
        Ok(Self { producer, batch, point: *point })
    }

    /// Writes until the window is over and everything is answered; tells of each answer.
    pub(super) async fn run(self, window: Window, mut note: impl FnMut(Answered)) -> Result<(), Failure> {
        match self.point.pressure {
            Pressure::InFlight(count) => {
                let in_flight = usize::try_from(count).expect("it has a limit");
                Ok(self.closed(in_flight, window, &mut note).await?)
            }
            Pressure::Rate(rate) => self.open(rate, window, &mut note).await,
        }
    }

    async fn send(&self) -> Result<Acknowledgement, AppendError> {
        self.producer.send_batch(self.batch.clone()).await
    }

    /// The next request leaves when one is answered.
    async fn closed(
        &self,
        in_flight: usize,
        window: Window,
        note: &mut impl FnMut(Answered),
    ) -> Result<(), AppendError> {
        let mut flying = VecDeque::with_capacity(in_flight);
        loop {
            while flying.len() < in_flight {
                let begun = Instant::now();
                if begun >= window.to {
                    break;
                }
                flying.push_back((begun, self.send().await?));
            }
            // They are answered in their order.
            let Some((begun, next)) = flying.pop_front() else { return Ok(()) };
            next.await?;
            note(Answered { begun, at: Instant::now(), records: self.point.batch });
        }
    }

    /// The next request leaves when the clock says so.
    async fn open(&self, rate: u64, window: Window, note: &mut impl FnMut(Answered)) -> Result<(), Failure> {
        let timer = Timer::new()?;
        let (flying, mut landing) = mpsc::unbounded_channel();
        let pace = Pace::new(Instant::now(), self.point.batch, rate);
        let send = async move {
            for request in 0.. {
                let begun = pace.intended(request);
                if begun >= window.to {
                    break;
                }
                timer.until(begun).await?;
                // Whoever listens has failed, and says why.
                if flying.send((begun, self.send().await?)).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let listen = async {
            while let Some((begun, next)) = landing.recv().await {
                next.await?;
                note(Answered { begun, at: Instant::now(), records: self.point.batch });
            }
            Ok::<(), Failure>(())
        };
        tokio::try_join!(send, listen).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_a_request_is_named() {
        let point = |batch, size| Point { batch, size, pressure: Pressure::InFlight(1) };
        assert_eq!(batch(&point(1024, 256)).unwrap().count(), 1024);
        let error = batch(&point(4096, 256)).unwrap_err().to_string();
        assert!(error.starts_with("4096 records of 256 bytes do not fit"), "{error}");
        assert!(batch(&point(1, 1 << 20)).is_err());
    }
}
