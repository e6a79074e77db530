//! A load: one producer, the same batch again and again, and a note of every answer.
//!
//! The content is made before the clock runs. What is left for each batch is a copy of its bytes, its digest and its
//! checksum: nothing is allocated or encoded for a record. (`bench append --raw-limits` says what that costs, and what it
//! would cost to push record by record.) Requests are never joined: a batch is the records of one request frame.
//!
//! Whoever sends and whoever listens are two: a producer that takes nothing more until something is answered holds up the
//! next request, and not the notes of what is answered meanwhile.
//!
//! ```text
//!   window               |◄───────────────►|◄── grace ──►|
//!   intended, open loop  │ │ │ │ │ │ │ │ │ │             |     what was meant to leave in the window is timed,
//!   sent                 │ │   │    │    │     │  │    │ |     however late its answer comes;
//!   never sent           |                 |             |     what has not left by the end of the grace is counted
//! ```

use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout_at,
};

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
/// How long an open loop goes on after its window to send what was meant to leave in it. Longer than an election.
pub(super) const GRACE: Duration = Duration::from_secs(5);
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

    /// Writes until the window is over and everything is answered; tells of each answer. How many requests were meant to
    /// leave in the window and never did: in a closed loop, none.
    pub(super) async fn run(self, window: Window, mut note: impl FnMut(Answered)) -> Result<u64, Failure> {
        match self.point.pressure {
            Pressure::InFlight(count) => {
                let in_flight = usize::try_from(count).expect("it has a limit");
                self.closed(in_flight, window, &mut note).await?;
                Ok(0)
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
        let room = &Semaphore::new(in_flight);
        let (flying, mut landing) = mpsc::unbounded_channel();
        let send = async move {
            loop {
                let place = room.acquire().await.expect("nobody closes it");
                let begun = Instant::now();
                // Whoever listens has failed, and says why.
                if begun >= window.to || flying.send((begun, self.send().await?, place)).is_err() {
                    return Ok(());
                }
            }
        };
        let listen = async {
            // They are answered in their order.
            while let Some((begun, next, place)) = landing.recv().await {
                next.await?;
                drop(place);
                note(Answered { begun, at: Instant::now(), records: self.point.batch });
            }
            Ok(())
        };
        tokio::try_join!(listen, send).map(drop)
    }

    /// Sends one more, unless that is not possible before a moment.
    async fn send_before(&self, moment: Instant) -> Result<Option<Acknowledgement>, AppendError> {
        if Instant::now() >= moment {
            return Ok(None);
        }
        timeout_at(moment.into(), self.send()).await.ok().transpose()
    }

    /// The next request leaves when the clock says so.
    async fn open(&self, rate: u64, window: Window, note: &mut impl FnMut(Answered)) -> Result<u64, Failure> {
        let timer = Timer::new()?;
        let (flying, mut landing) = mpsc::unbounded_channel();
        let pace = Pace::new(Instant::now(), self.point.batch, rate);
        let send = async move {
            let (first, end) = (pace.before(window.from), pace.before(window.to));
            for request in 0..end {
                let begun = pace.intended(request);
                timer.until(begun).await?;
                let Some(sent) = self.send_before(window.to + GRACE).await? else {
                    return Ok(end - request.max(first));
                };
                // Whoever listens has failed, and says why.
                if flying.send((begun, sent)).is_err() {
                    break;
                }
            }
            Ok(0)
        };
        let listen = async {
            while let Some((begun, next)) = landing.recv().await {
                next.await?;
                note(Answered { begun, at: Instant::now(), records: self.point.batch });
            }
            Ok::<(), Failure>(())
        };
        tokio::try_join!(send, listen).map(|(unsent, ())| unsent)
    }
}

#[cfg(test)]
mod tests {
    use sequor_broker::testing::Cluster;
    use sequor_client::Config;

    use super::*;

    /// A producer that has room for one request at a time, and a load that wants many.
    async fn held_up(pressure: Pressure) -> (Cluster, Load) {
        let point = Point { batch: 1, size: 100_000, pressure };
        let cluster = Cluster::start(1).await.unwrap();
        let config = Config { in_flight_bytes: batch(&point).unwrap().bytes(), ..cluster.client_config() };
        let client = Client::connect(&config).await.unwrap();
        let load = Load::prepare(&client, &point).await.unwrap();
        (cluster, load)
    }

    #[tokio::test]
    async fn what_is_answered_while_a_full_producer_holds_up_the_next_request_is_noted_at_once() {
        let (_cluster, load) = held_up(Pressure::InFlight(4096)).await;
        let from = Instant::now();
        let window = Window { from, to: from + Duration::from_millis(300) };
        let mut timely = 0;
        let noted = load.run(window, |answered| timely += u64::from(window.contains(answered.at)));
        assert_eq!(noted.await.unwrap(), 0);
        // No disk and no loopback take 4096 of these in this time: they would have been noted after it.
        assert!(timely > 0, "nothing was noted in the window");
    }

    #[tokio::test]
    async fn an_open_loop_that_fell_behind_stops_after_its_grace_and_counts_what_never_left() {
        let (_cluster, load) = held_up(Pressure::Rate(1_000_000)).await;
        let start = Instant::now();
        let window = Window { from: start + Duration::from_secs(1), to: start + Duration::from_millis(1100) };
        let mut meant = 0;
        let noted = load.run(window, |answered| meant += u64::from(window.contains(answered.begun)));
        let unsent = noted.await.unwrap();
        // The pace began a little after `start`, at a request each microsecond.
        assert_eq!(unsent + meant, 100_000);
        assert!(unsent > 0, "some were sent, not all: {unsent}");
        assert!(Instant::now() >= window.to + GRACE, "it went on until its grace was over");
    }

    #[test]
    fn what_does_not_fit_a_request_is_named() {
        let point = |batch, size| Point { batch, size, pressure: Pressure::InFlight(1) };
        assert_eq!(batch(&point(1024, 256)).unwrap().count(), 1024);
        let error = batch(&point(4096, 256)).unwrap_err().to_string();
        assert!(error.starts_with("4096 records of 256 bytes do not fit"), "{error}");
        assert!(batch(&point(1, 1 << 20)).is_err());
    }
}
