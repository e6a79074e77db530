//! Bad input gets a clear answer and costs nothing: one table for each way in that a broker itself guards. The command
//! line and the configuration files have theirs in `tools/tests/bad_input.rs`.
//!
//! After every case a good client appends one record and reads it back, at the very next offset: the broker serves, it
//! has lost nothing, and nothing bad has become a record. Few clients may be connected at once, so that a place that a
//! refused one keeps is missed by a later one.
//!
//! A clock that is set back is in `tests/wall_clock.rs`, since no test may set the clock of the machine. What a client's
//! clock does is one of the cases here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificates;
mod disk;
mod flood;
mod good;
mod peer;
mod requests;
mod silence;
mod streams;
mod wire;

use std::{fs, time::Duration};

use sequor_broker::{config::Layer, testing::Cluster};
use tokio::time::timeout;

/// No test takes longer, whatever hangs.
const TEST_TIMEOUT: Duration = Duration::from_secs(240);
/// Clients that may be connected at once: fewer than there are cases in any table. Count.
const CONNECTIONS_MAX: u32 = 6;
/// What bytes that lie about their length may make this process reserve: far below what they claim, far above what the
/// tests beside this one need. Every test that sends such a claim compares before and after: the peak never falls, and
/// only the first one that raises it can see that. Bytes.
const RESERVED_BYTES_MAX: u64 = 3 << 30;

/// The numbers of `sequor_broker::io::Close`, as the other end of a connection sees them.
const DONE: u64 = 0;
const WRONG_ROLE: u64 = 2;
const HELLO: u64 = 3;
const PROTOCOL: u64 = 4;
const BUSY: u64 = 5;
const TOO_SLOW: u64 = 6;
const OTHER_INCARNATION: u64 = 8;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(TEST_TIMEOUT, test).await.expect("the test hangs") });
}

async fn start(brokers: u64) -> Cluster {
    let settings = Layer {
        segment_bytes: Some(8 << 20),
        heartbeat_ms: Some(50),
        election_ms: Some(500),
        connections_max: Some(CONNECTIONS_MAX),
        ..Layer::default()
    };
    Cluster::builder().brokers(brokers).settings(settings).start().await.unwrap()
}

/// What this process has ever had reserved. Bytes.
fn reserved_ever() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
