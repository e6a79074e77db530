//! A sequor broker.
//!
//! ```text
//!            +------------------------------ core ------------------------------+
//!  requests  |  admission ──► draft of an entry ──► node (raft) ──► wal::Log     |  replies
//!  peers  ──►|                                          │                        |──► peers
//!  ticks     |            machine ◄── committed entries ┘                        |  tickets (I/O as a value)
//!            +-------------------------------------------------------------------+
//!                       ▲ the same object, two drivers ▲
//!            io: QUIC, timers, threads          sim: virtual time, network and disks from one seed
//! ```
//!
//! Everything a broker decides is in [`core`]: synchronous, without socket, file, thread, clock or unseeded
//! randomness. `io` (feature `io`) runs it on a machine, `sim` (feature `sim`) runs a whole cluster of it in one
//! thread and judges it from outside. `history` (feature `history`) judges what clients were told and logs hold, whoever
//! wrote it down. `setup` (feature `setup`) makes what a broker needs before its first start, and
//! `testing` (feature `testing`) runs a real cluster inside somebody's tests; with feature `virtual`, also one in memory, in
//! virtual time.

#[cfg(feature = "io")]
pub mod config;
pub mod core;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
#[cfg(feature = "history")]
pub mod history;
#[cfg(feature = "io")]
pub mod io;
#[cfg(feature = "setup")]
pub mod setup;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "testing")]
pub mod testing;

/// The examples in the project's README, so that they compile.
#[cfg(all(doctest, feature = "virtual"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
