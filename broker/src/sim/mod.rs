//! The simulator: a whole cluster in one thread, in virtual time, attacked from one seed and judged from outside.
//!
//! | file | noun |
//! |---|---|
//! | `world.rs` | the queue of events, from the first to rest |
//! | `machine.rs` | a clock, a disk, and the broker on them |
//! | `clock.rs` | clocks that drift and jump |
//! | `rot.rs` | what a disk does to bytes that it had confirmed |
//! | `loss.rs` | files that are lost or put back, and who has to notice |
//! | `cluster.rs` | the brokers in their world: when each works, what reaches it, what befalls it |
//! | `client.rs` | somebody who writes and reads, with the library's own decisions |
//! | `questions.rs` | what it asks beside its work |
//! | `crowd.rs` | the clients in their world: when each works, and what reaches it |
//! | `connection.rs` | between the two: frames in order, until it breaks |
//! | `network.rs` | between all of them: delay, loss, doubling, reordering, full queues, cuts |
//! | `faults.rs` | what goes wrong, and when |
//! | `judge.rs` | what brokers must never do, watched at each step |
//! | `recorder.rs` | what clients are told, for the checker of histories |
//! | `reading.rs` | a broker's log, as the events of a history |
//! | `coverage.rs` | which states were reached, and how often |
//! | `embedded.rs` | a world without clients of its own, for programs outside of it |
//! | `quiet.rs` | spells in which nothing happens, which are left out there |
//! | `chance.rs` | drawing from the seed |
//!
//! Brokers and clients are the real ones: [`core`](crate::core) and `sequor_client::core`, in the bytes that they use on
//! a wire, over the real log on a disk in memory. What is not reached from here is the code that moves bytes: sockets,
//! threads, files.
//!
//! A failure prints its seed. The same seed gives the same run, event by event; [`Summary::trace`] shows it.

mod chance;
mod client;
mod clock;
mod cluster;
mod connection;
mod content;
mod coverage;
mod crowd;
#[cfg(feature = "virtual")]
pub(crate) mod embedded;
mod faults;
mod judge;
mod loss;
mod machine;
mod network;
mod questions;
#[cfg(feature = "virtual")]
mod quiet;
mod reading;
mod recorder;
mod rot;
mod world;

pub use coverage::Reached;
pub use faults::{Profile, Script};
pub use judge::Violation;
pub use world::{Summary, replay, run, script, shrink};
