//! A cluster in memory, in virtual time: your program runs against it as against a real one, and from one seed always
//! the same.
//!
//! ```
//! use std::time::Duration;
//! use sequor_broker::testing::simulate;
//! use sequor_client::Record;
//!
//! // In a plain `#[test]`: no runtime, no port, no file, no thread.
//! let took = simulate(7, 3, |cluster| async move {
//!     let client = cluster.client().await?;
//!     let producer = client.producer("orders").open().await?;
//!     producer.append(Record::new("first")).await?.await?;
//!
//!     let leader = cluster.leader().await?;
//!     cluster.kill(leader)?;
//!     let receipt = producer.append(Record::new("second")).await?.await?;     // another broker has taken over
//!     assert_eq!(receipt.first_offset.0, 1);
//!
//!     cluster.restart(leader)?;
//!     tokio::time::sleep(Duration::from_secs(3600)).await;                    // a moment
//!     Ok::<_, Box<dyn std::error::Error>>(cluster.elapsed())
//! });
//! assert!(took.unwrap() > Duration::from_secs(3600));
//! ```
//!
//! The brokers are the project's simulator's: what they decide is the code of `sequor serve`, over the real log on
//! disks in memory. The client is the ordinary [`Client`](sequor_client::Client), and everything above the bytes
//! is what it always is. What is not here is the code that moves bytes: QUIC, TLS, files, threads; for that there is
//! [`Cluster`](super::Cluster), with the same names for the same things.
//!
//! # Time
//!
//! The clock of the program is tokio's, paused: when nobody has anything to do, it goes to the next moment at which somebody
//! has, be that in a millisecond or in a day. So use [`tokio::time`] and not [`std::time`] or [`std::thread::sleep`], and
//! leave the clock itself (`tokio::time::advance`, `resume`) alone. The program sees whole milliseconds, as tokio's
//! timers do; between brokers, and on the way to them, time has microseconds.
//!
//! Spells in which the brokers would exchange nothing but heartbeats are left out. An idle day takes no time at all; an
//! hour in which something is always going on takes seconds. Code that is not optimised takes ten times as long: let
//! your `Cargo.toml` say
//!
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 2
//! ```
//!
//! # The same seed
//!
//! From the seed come the delays of the network and of the disks, the elections, what a power cut loses, and all
//! randomness of the clients; [`SimulatedCluster::trace`] is a checksum over everything that happened, to compare. The
//! run is as deterministic as the program is. What makes a program differ from run to run:
//!
//! * threads, `tokio::task::spawn_blocking`, the machine's clocks, the order in a `HashMap`;
//! * `tokio::select!` without `biased;`: tokio draws which branch it looks at first. So it does for the order in which
//!   several waiters of one `tokio::sync::watch` wake up.
//!
//! The simulator's judges look on: two leaders in one term, something confirmed that a majority does not have on its
//! disks, two histories. If a promise breaks, the simulation panics and says which; that is a bug of sequor.
//!
//! # What can go wrong
//!
//! | method | |
//! |---|---|
//! | [`kill`](SimulatedCluster::kill), [`kill_leader`](SimulatedCluster::kill_leader), [`restart`](SimulatedCluster::restart) | the process dies: what was written is recovered |
//! | [`cut_power`](SimulatedCluster::cut_power) | the power fails: of what was not synced, each sector is kept or lost |
//! | [`terminate`](SimulatedCluster::terminate) | leadership is handed over |
//! | [`pause`](SimulatedCluster::pause), [`resume`](SimulatedCluster::resume) | a process that wakes up after the world has gone on |
//! | [`partition`](SimulatedCluster::partition), [`cut_link`](SimulatedCluster::cut_link), [`heal`](SimulatedCluster::heal) | brokers do not hear each other; in one direction, too |
//! | [`set_weather`](SimulatedCluster::set_weather) | the network delays, loses, doubles |
//! | [`drop_replies`](SimulatedCluster::drop_replies) | it is written, and the answer is lost |
//! | [`break_connections`](SimulatedCluster::break_connections) | all clients have to connect again |
//! | [`hang_disk`](SimulatedCluster::hang_disk), [`fill_disk`](SimulatedCluster::fill_disk) | a disk that takes seconds, or has no room |
//! | [`jump_clock`](SimulatedCluster::jump_clock) | as after a suspended virtual machine |
//!
//! | file | noun |
//! |---|---|
//! | `cluster.rs` | the cluster, as the program has it |
//! | `stage.rs` | where world and program meet: one lock, and tokio's clock |
//! | `wire.rs` | how clients reach the brokers |
//! | `weather.rs` | how good the network is |

mod cluster;
mod stage;
mod weather;
mod wire;

use std::{sync::Arc, time::Duration};

use sequor_client::protocol::limits::MEMBERS_MAX;

use self::stage::{Curtain, Stage};
pub use self::{cluster::SimulatedCluster, weather::Weather};

/// Virtual time after which a program is taken for one that waits for something that never comes, if nothing else is
/// said.
const LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs a program against a cluster of so many brokers, all of it made from a seed. See the [module](self).
///
/// The brokers start at the program's first moment, elect a leader within about a second of virtual time, and end with the
/// program; so do all tasks that it has spawned. What the program returns is returned.
///
/// # Panics
///
/// If the program panics (the seed is printed), if it has not ended after a virtual week, or if a promise breaks; with
/// less than 1 or more than [`MEMBERS_MAX`] brokers; when called in a tokio runtime: use `#[test]`, not `#[tokio::test]`.
pub fn simulate<T, P>(seed: u64, brokers: u64, program: impl FnOnce(SimulatedCluster) -> P) -> T
where
    P: Future<Output = T>,
{
    Simulation::new(seed).brokers(brokers).run(program)
}

/// A simulation before it runs: for what [`simulate`] leaves at its default.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `run`"]
pub struct Simulation {
    seed: u64,
    brokers: u64,
    limit: Duration,
}

impl Simulation {
    /// One from this seed, of three brokers.
    pub fn new(seed: u64) -> Self {
        Self { seed, brokers: 3, limit: LIMIT }
    }

    /// How many brokers. 1 to [`MEMBERS_MAX`].
    pub fn brokers(mut self, brokers: u64) -> Self {
        self.brokers = brokers;
        self
    }

    /// Virtual time after which a program that has not ended is given up. Default: 7 days.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the program.
    ///
    /// # Panics
    ///
    /// As [`simulate`].
    pub fn run<T, P>(self, program: impl FnOnce(SimulatedCluster) -> P) -> T
    where
        P: Future<Output = T>,
    {
        let Self { seed, brokers, limit } = self;
        assert!((1..=MEMBERS_MAX as u64).contains(&brokers), "a cluster has 1 to {MEMBERS_MAX} brokers");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O takes nothing of the system");
        let stage = {
            let _clock = runtime.enter();
            Arc::new(Stage::new(seed, brokers))
        };
        // Falls before the runtime does, which then drops what the program has left.
        let curtain = Curtain::new(Arc::clone(&stage));
        let outcome = runtime.block_on(async {
            let program = Box::pin(program(SimulatedCluster::new(Arc::clone(&stage))));
            tokio::select! {
                biased;
                over = stage.run(limit) => Err(over),
                outcome = program => Ok(outcome),
            }
        });
        let outcome = outcome.unwrap_or_else(|over| panic!("{over}"));
        drop(curtain);
        outcome
    }
}
