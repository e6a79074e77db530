//! A cluster inside your own tests: real brokers, real QUIC with mutual TLS, real files, and everything that goes wrong.
//!
//! ```
//! use sequor_broker::testing::Cluster;
//! use sequor_client::{Client, Record};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::start(3).await?;
//! let client = Client::connect(&cluster.client_config()).await?;
//! let producer = client.producer("orders").open().await?;
//! producer.append(Record::new("first")).await?.await?;
//!
//! let leader = cluster.leader().await?;
//! cluster.kill(leader).await?;
//! let receipt = producer.append(Record::new("second")).await?.await?;     // another broker has taken over
//! assert_eq!(receipt.first_offset.0, 1);
//!
//! cluster.restart(leader).await?;
//! cluster.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/retry_test.rs` is a whole test of somebody's retry code.
//!
//! In `Cargo.toml`, the feature belongs to the tests alone; a test that calls the library names that crate too:
//!
//! ```toml
//! [dev-dependencies]
//! sequor-broker = { version = "0.1", features = ["testing"] }
//! sequor-client = "0.1"
//! ```
//!
//! # What it is
//!
//! Each broker has a thread of its own, with a runtime of its own, and runs the very code that `sequor serve` runs. The
//! network is that of the machine, on free ports of 127.0.0.1; a cluster's directory is temporary, its segments are
//! small, and its timers slower than by default (see [`Builder::settings`]). Nothing is shared between two clusters, so
//! tests with one each run beside each other. Three brokers take
//! 72 MiB of disk, and have a leader within about a second.
//!
//! | method | as | |
//! |---|---|---|
//! | [`kill`](Cluster::kill), [`restart`](Cluster::restart) | SIGKILL | nothing more is sent or written; what was written is recovered |
//! | [`terminate`](Cluster::terminate) | SIGTERM | leadership is handed over |
//! | [`pause`](Cluster::pause), [`resume`](Cluster::resume) | SIGSTOP | a process that wakes up after the world has gone on |
//! | [`partition`](Cluster::partition), [`heal`](Cluster::heal) | a switch that fails | both sides go on without each other; one of them may not write |
//! | [`drop_replies`](Cluster::drop_replies) | a bad network | it is written, and the answer is lost |
//!
//! # What it is not
//!
//! A thread cannot lose its power: the files keep what was written and not yet synced, as after the death of a process.
//! And a run of it takes its time, and is not the same run twice. For both there is `simulate` (feature `virtual`): a
//! cluster in memory, in virtual time, from a seed.
//!
//! | file | noun |
//! |---|---|
//! | `builder.rs` | what a cluster is to be |
//! | `cluster.rs` | the cluster |
//! | `seat.rs` | one broker in its thread |
//! | `board.rs` | what the brokers say of themselves |
//! | `network.rs`, `socket.rs` | who hears whom, and where datagrams are lost |
//! | `error.rs` | what can go wrong with it |
//! | `simulation/` | the other cluster: in memory, in virtual time |

mod board;
mod builder;
mod cluster;
mod error;
mod network;
mod seat;
#[cfg(feature = "virtual")]
pub mod simulation;
mod socket;

#[cfg(feature = "virtual")]
pub use self::simulation::{SimulatedCluster, Simulation, Weather, simulate};
pub use self::{builder::Builder, cluster::Cluster, error::ClusterError};
