//! The simulator: a whole cluster in one thread, in virtual time, attacked from one seed and judged from outside.
//!
//! | file | noun |
//! |---|---|
//! | `world.rs` | the queue of events, and what each of them does |
//! | `machine.rs` | a disk and the broker on it |
//! | `client.rs` | somebody who writes and reads, with the library's own decisions |
//! | `crowd.rs` | the clients in their world: when each works, and what reaches it |
//! | `connection.rs` | between the two: frames in order, until it breaks |
//! | `network.rs` | between brokers: delay, loss, doubling, reordering, cuts |
//! | `faults.rs` | what goes wrong, and when |
//! | `judge.rs` | what was promised, and whether it was kept |
//! | `chance.rs` | drawing from the seed |
//!
//! Brokers and clients are the real ones: [`core`](crate::core) and `sequor_client::core`, in the bytes that they use on
//! a wire, over the real log on a disk in memory. What is not reached from here is the code that moves bytes: sockets,
//! threads, files.
//!
//! A failure prints its seed. The same seed gives the same run, event by event; [`Summary::trace`] shows it.

mod chance;
mod client;
mod connection;
mod crowd;
mod faults;
mod judge;
mod machine;
mod network;
mod world;

pub use faults::Profile;
pub use judge::Violation;
pub use world::{Summary, run};
