//! What this machine can do at all: nothing that is built on it is faster.
//!
//! | file | noun |
//! |---|---|
//! | `disk.rs` | fdatasync with one writer and with three, sequential writing |
//! | `quic.rs` | a small message there and back, and much in one direction |
//! | `memory.rs` | checksums, and what it costs to make a batch |
//!
//! From these follow two bounds, which the charts show as lines:
//!
//! ```text
//!   one by one    1 / ( client's way + q  +  way between brokers + q  +  F )      q: QUIC there and back, F: fdatasync
//!   the disk      D / brokers                                                     D: sequential writing; all brokers here
//! ```
//!
//! A leader syncs while its followers do, and a single broker asks nobody: its second way and second q are nothing.

mod disk;
mod memory;
mod quic;

use std::path::Path;

use serde::Serialize;
use thiserror::Error;

pub(super) use self::{disk::DiskError, quic::QuicError};
use super::outcome::{Outcome, short, time};
use crate::exit::{Exit, Verdict};

/// Microseconds in a second.
const SECOND_US: f64 = 1e6;

/// A limit could not be measured.
#[derive(Debug, Error)]
pub(super) enum LimitError {
    /// Of the disk.
    #[error("cannot measure what the disk can do")]
    Disk(#[from] DiskError),
    /// Of the network.
    #[error("cannot measure what QUIC can do")]
    Quic(#[from] QuicError),
}

impl Verdict for LimitError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// See the module's header.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Limits {
    /// 4 KiB written into a file that is there, and synced, by one writer.
    pub(super) fdatasync_p50_us: u64,
    pub(super) fdatasync_p99_us: u64,
    /// The same, by each of three writers at once.
    pub(super) fdatasync_3_p50_us: u64,
    pub(super) fdatasync_3_p99_us: u64,
    /// Written one after the other, and synced at the end.
    pub(super) write_bytes_per_s: f64,
    /// 256 bytes there and back, on one stream over loopback.
    pub(super) quic_ping_pong_p50_us: u64,
    pub(super) quic_ping_pong_p99_us: u64,
    /// One stream over loopback, a thread at each end.
    pub(super) quic_bulk_bytes_per_s: f64,
    /// CRC-32, one thread.
    pub(super) crc_bytes_per_s: f64,
    /// A batch that is made already: copied, digested, stamped. What a client of `bench` does for each batch.
    pub(super) seal_bytes_per_s: f64,
    /// The same batch of 256-byte values, pushed record by record.
    pub(super) push_bytes_per_s: f64,
}

impl Limits {
    /// Measures them; files are made in `dir`, and removed. Blocks for some seconds.
    ///
    /// # Errors
    /// [`LimitError`].
    pub(super) fn measure(dir: &Path) -> Result<Self, LimitError> {
        let (one, three) = (disk::fdatasync(dir, 1)?, disk::fdatasync(dir, 3)?);
        let write_bytes_per_s = disk::write(dir)?;
        let (ping_pong, quic_bulk_bytes_per_s) = quic::measure()?;
        Ok(Self {
            fdatasync_p50_us: one.value_at_quantile(0.5),
            fdatasync_p99_us: one.value_at_quantile(0.99),
            fdatasync_3_p50_us: three.value_at_quantile(0.5),
            fdatasync_3_p99_us: three.value_at_quantile(0.99),
            write_bytes_per_s,
            quic_ping_pong_p50_us: ping_pong.value_at_quantile(0.5),
            quic_ping_pong_p99_us: ping_pong.value_at_quantile(0.99),
            quic_bulk_bytes_per_s,
            crc_bytes_per_s: memory::crc(),
            seal_bytes_per_s: memory::seal(),
            push_bytes_per_s: memory::push(),
        })
    }

    /// Records a second that nobody can exceed who waits for each before the next.
    pub(super) fn one_by_one(&self, brokers: u64, rtt_us: u64) -> f64 {
        let way = rtt_us + self.quic_ping_pong_p50_us;
        let ways = if brokers > 1 { 2 * way } else { way };
        // Whichever was measured at the better moment: a bound must not depend on who else used the disk.
        let sync = self.fdatasync_p50_us.min(self.fdatasync_3_p50_us);
        SECOND_US / (ways + sync).max(1) as f64
    }

    /// Records of so many bytes a second that the one disk of all brokers takes.
    pub(super) fn disk(&self, brokers: u64, size: u64) -> f64 {
        self.write_bytes_per_s / (brokers * size.max(1)) as f64
    }

    /// Name and value of each, for people.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let pair = |p50, p99| format!("p50 {}, p99 {}", time(p50), time(p99));
        let rate = |bytes_per_s: f64| format!("{} MB/s", short(bytes_per_s / 1e6));
        vec![
            ("fdatasync of 4 KiB, one writer", pair(self.fdatasync_p50_us, self.fdatasync_p99_us)),
            ("fdatasync of 4 KiB, three writers", pair(self.fdatasync_3_p50_us, self.fdatasync_3_p99_us)),
            ("sequential writing, synced", rate(self.write_bytes_per_s)),
            ("QUIC there and back, 256 bytes", pair(self.quic_ping_pong_p50_us, self.quic_ping_pong_p99_us)),
            ("QUIC, one stream", rate(self.quic_bulk_bytes_per_s)),
            ("CRC-32, one thread", rate(self.crc_bytes_per_s)),
            ("client: seal a batch made before", rate(self.seal_bytes_per_s)),
            ("client: push 256-byte records, seal", rate(self.push_bytes_per_s)),
        ]
    }

    /// How near the best came to the bound, for each cluster that waited for one record at a time.
    pub(super) fn shares(&self, outcomes: &[Outcome]) -> Vec<String> {
        let one_by_one = |outcome: &&Outcome| outcome.batch == 1 && outcome.in_flight == Some(1);
        let share = |outcome: &Outcome| {
            // What this machine can do is no bound for brokers elsewhere.
            let (records_per_s, rtt_us) = (outcome.records_per_s?, outcome.rtt_us?);
            let bound = self.one_by_one(outcome.brokers, rtt_us);
            let share = 100.0 * records_per_s / bound;
            let rtt = time(rtt_us);
            let doubt = if share > 100.0 { "; the machine was busier while that was measured" } else { "" };
            Some(format!(
                "one by one, {} brokers, rtt {rtt}: {share:.0} % of the {} records/s that sync and network allow{doubt}",
                outcome.brokers,
                short(bound)
            ))
        };
        outcomes.iter().filter(one_by_one).filter_map(share).collect()
    }
}

#[cfg(test)]
pub(super) const EXAMPLE: Limits = Limits {
    fdatasync_p50_us: 100,
    fdatasync_p99_us: 200,
    fdatasync_3_p50_us: 150,
    fdatasync_3_p99_us: 400,
    write_bytes_per_s: 768e6,
    quic_ping_pong_p50_us: 50,
    quic_ping_pong_p99_us: 90,
    quic_bulk_bytes_per_s: 2e9,
    crc_bytes_per_s: 10e9,
    seal_bytes_per_s: 3e9,
    push_bytes_per_s: 1e9,
};

#[cfg(test)]
mod tests {
    use super::{super::outcome::example, *};

    #[test]
    fn bounds_follow_from_what_was_measured() {
        assert_eq!(EXAMPLE.one_by_one(3, 0), 5000.0);
        assert_eq!(EXAMPLE.one_by_one(1, 0), 1e6 / 150.0);
        assert_eq!(EXAMPLE.one_by_one(3, 4900), 100.0, "one way to the leader, one to a follower");
        assert_eq!(EXAMPLE.disk(3, 256), 1e6);
        let shares = EXAMPLE.shares(&[example(1, 1, 4000.0), example(8, 1, 9000.0)]);
        assert_eq!(shares.len(), 1);
        assert!(shares[0].ends_with("80 % of the 5,000 records/s that sync and network allow"), "{shares:?}");
        let impossible = EXAMPLE.shares(&[example(1, 1, 6000.0)]);
        assert!(impossible[0].contains("120 % of") && impossible[0].contains("was busier"), "{impossible:?}");
        let disturbed = Limits { fdatasync_p50_us: 3000, fdatasync_3_p50_us: 100, ..EXAMPLE };
        assert_eq!(disturbed.one_by_one(3, 0), EXAMPLE.one_by_one(3, 0));
    }

    #[test]
    fn this_machine_has_limits() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::measure(dir.path()).unwrap();
        let value = serde_json::to_value(limits).unwrap();
        assert!(value.as_object().unwrap().values().all(|value| value.as_f64() > Some(0.0)), "{value}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }
}
