//! What a load costs: read before and after the window, from the brokers and from the system.
//!
//! | what | where from |
//! |---|---|
//! | syncs, blocks, entries, datagrams | the brokers' own counters, as `status` shows them |
//! | processor time, memory, bytes to the disk | `/proc` of the brokers' processes; absent if these are not ours |
//! | the client's processor time | the clock of the one thread that it is |
//!
//! A *cycle* is what one pass of the leader commits: one entry, whatever has gathered in it.

use std::{fs, io, time::Duration};

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};
use serde::Serialize;
use thiserror::Error;

use sequor_client::{Client, Config, protocol::Counters};

use crate::{
    exit::{Exit, Verdict},
    status,
};

/// Longest wait for one broker's counters, beside the round trip. It is under load.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Microseconds in a second.
const SECOND_US: u64 = 1_000_000;

/// A process that is measured cannot be looked at.
#[derive(Debug, Error)]
#[error("cannot read {path}, which says what a broker costs")]
pub(super) struct ProcError {
    path: String,
    source: io::Error,
}

impl Verdict for ProcError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// What the system says of some processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Processes {
    /// Processor time of all of them. Microseconds.
    cpu_us: u64,
    /// What they had written to the disk. Bytes.
    written: u64,
    /// Memory of the largest one that is its own and in no file. Bytes.
    memory: u64,
}

impl Processes {
    /// What is true of these now.
    pub(super) fn read(processes: &[u32]) -> Result<Self, ProcError> {
        let mut all = Self::default();
        for process in processes {
            let file = |name: &str| {
                let path = format!("/proc/{process}/{name}");
                fs::read_to_string(&path).map_err(|source| ProcError { path, source })
            };
            all.cpu_us += cpu_us(&file("stat")?);
            all.written += field(&file("io")?, "write_bytes:");
            let status = file("status")?;
            let memory = (field(&status, "RssAnon:") + field(&status, "RssShmem:")) << 10;
            all.memory = all.memory.max(memory);
        }
        Ok(all)
    }

    /// Processor time that they used since an earlier look. Microseconds.
    pub(super) fn cpu_us_since(&self, before: &Self) -> u64 {
        self.cpu_us.saturating_sub(before.cpu_us)
    }

    /// What they had written to the disk. Bytes.
    pub(super) fn written(&self) -> u64 {
        self.written
    }
}

/// Processor time in a line of `/proc/PID/stat`. The name of the program comes in brackets and may hold anything.
fn cpu_us(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    // The fourteenth and fifteenth of all: in user mode and in the kernel.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * SECOND_US / clock_ticks_per_second().max(1)
}

/// The number behind a name; 0 if the kernel does not give it.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Everything that is read at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// The sum over all brokers; none if one of them did not answer.
    counters: Option<Counters>,
    processes: Option<Processes>,
    client_cpu_us: u64,
}

impl Sample {
    /// To be taken in the thread that is the client.
    pub(super) async fn take(
        client: &Client,
        config: &Config,
        rtt: Duration,
        processes: Option<&[u32]>,
    ) -> Result<Self, ProcError> {
        // First what changes while the brokers are asked.
        let processes = processes.map(Processes::read).transpose()?;
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let rows = status::ask(client, &config.brokers, ANSWER_TIMEOUT + rtt * 2).await;
        let counters = rows.iter().try_fold(Counters::default(), |sum, row| Some(add(sum, row.counters?)));
        let client_cpu_us = cpu.tv_sec.unsigned_abs() * SECOND_US + cpu.tv_nsec.unsigned_abs() / 1000;
        Ok(Self { counters, processes, client_cpu_us })
    }
}

fn add(one: Counters, other: Counters) -> Counters {
    combine(one, other, u64::saturating_add)
}

fn combine(one: Counters, other: Counters, with: fn(u64, u64) -> u64) -> Counters {
    Counters {
        log_syncs: with(one.log_syncs, other.log_syncs),
        vote_syncs: with(one.vote_syncs, other.vote_syncs),
        blocks: with(one.blocks, other.blocks),
        block_bytes: with(one.block_bytes, other.block_bytes),
        proposals: with(one.proposals, other.proposals),
        batches: with(one.batches, other.batches),
        records: with(one.records, other.records),
        duplicates: with(one.duplicates, other.duplicates),
        elections_won: with(one.elections_won, other.elections_won),
        sends: with(one.sends, other.sends),
        datagrams_sent: with(one.datagrams_sent, other.datagrams_sent),
        bytes_sent: with(one.bytes_sent, other.bytes_sent),
        receives: with(one.receives, other.receives),
        datagrams_received: with(one.datagrams_received, other.datagrams_received),
        bytes_received: with(one.bytes_received, other.bytes_received),
    }
}

/// What the load cost between two samples, over all brokers. Absent is what could not be read, or has no meaning where
/// nothing was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Costs {
    /// Elections that were won meanwhile: if there were any, this is no steady load.
    pub(super) elections: Option<u64>,
    /// Calls of fdatasync.
    pub(super) fdatasyncs: Option<u64>,
    /// Entries that the leader made.
    pub(super) cycles: Option<u64>,
    /// Records that one fdatasync of one broker made durable.
    pub(super) records_per_sync: Option<f64>,
    pub(super) syncs_per_cycle: Option<f64>,
    /// System calls with which brokers sent.
    pub(super) sends_per_cycle: Option<f64>,
    /// Datagrams that brokers sent, to each other and to the client.
    pub(super) datagrams_per_cycle: Option<f64>,
    /// Bytes of those datagrams.
    pub(super) net_bytes_per_cycle: Option<f64>,
    pub(super) net_bytes_per_payload_byte: Option<f64>,
    /// Bytes of the log that brokers wrote.
    pub(super) log_bytes_per_cycle: Option<f64>,
    /// The same for a byte of a record's value, on one broker.
    pub(super) log_bytes_per_payload_byte: Option<f64>,
    /// What the system wrote to the disk for one broker, zeros of segments ahead included.
    pub(super) disk_bytes_per_payload_byte: Option<f64>,
    pub(super) broker_cpu_us_per_record: Option<f64>,
    pub(super) client_cpu_us_per_record: Option<f64>,
    /// RssAnon + RssShmem of the largest broker at the end. Bytes.
    pub(super) rss_bytes: Option<u64>,
}

impl Costs {
    /// Of a load of records of so many bytes.
    pub(super) fn between(before: &Sample, after: &Sample, brokers: u64, size: u64) -> Self {
        let rss_bytes = after.processes.map(|processes| processes.memory);
        let (Some(from), Some(to)) = (before.counters, after.counters) else {
            return Self { rss_bytes, ..Self::default() };
        };
        let did = combine(to, from, u64::saturating_sub);
        let per = |what: u64, of: u64| (of > 0).then(|| what as f64 / of as f64);
        let (cycles, payload) = (did.proposals, did.records * size);
        let syncs = did.log_syncs + did.vote_syncs;
        let processes = before.processes.zip(after.processes);
        let grown = |of: fn(&Processes) -> u64| {
            processes.map(|(before, after)| of(&after).saturating_sub(of(&before)))
        };
        Self {
            elections: Some(did.elections_won),
            fdatasyncs: Some(syncs),
            cycles: Some(cycles),
            records_per_sync: per(did.records * brokers, syncs),
            syncs_per_cycle: per(syncs, cycles),
            sends_per_cycle: per(did.sends, cycles),
            datagrams_per_cycle: per(did.datagrams_sent, cycles),
            net_bytes_per_cycle: per(did.bytes_sent, cycles),
            net_bytes_per_payload_byte: per(did.bytes_sent, payload),
            log_bytes_per_cycle: per(did.block_bytes, cycles),
            log_bytes_per_payload_byte: per(did.block_bytes, payload * brokers),
            disk_bytes_per_payload_byte: grown(Processes::written)
                .and_then(|written| per(written, payload * brokers)),
            broker_cpu_us_per_record: grown(|processes| processes.cpu_us)
                .and_then(|cpu| per(cpu, did.records)),
            client_cpu_us_per_record: per(
                after.client_cpu_us.saturating_sub(before.client_cpu_us),
                did.records,
            ),
            rss_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_read_as_it_writes() {
        let stat = "42 (a) b (c)) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 100 1 2 3";
        assert_eq!(cpu_us(stat), 300 * SECOND_US / clock_ticks_per_second());
        assert_eq!(field("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n", "write_bytes:"), 4096);
        assert_eq!(field("RssAnon:\t  1234 kB\n", "RssAnon:"), 1234);
        assert_eq!(field("", "RssAnon:"), 0);
        let own = Processes::read(&[std::process::id()]).unwrap();
        assert!(own.memory > 0);
        assert!(Processes::read(&[0]).is_err());
    }

    #[test]
    fn costs_are_what_was_added_for_each() {
        let sample = |scale: u64, cpu: u64| Sample {
            counters: Some(Counters {
                log_syncs: 30 * scale,
                proposals: 10 * scale,
                records: 1000 * scale,
                block_bytes: 330_000 * scale,
                sends: 60 * scale,
                datagrams_sent: 80 * scale,
                bytes_sent: 250_000 * scale,
                ..Counters::default()
            }),
            processes: Some(Processes { cpu_us: cpu, written: 660_000 * scale, memory: 1 << 20 }),
            client_cpu_us: cpu / 2,
        };
        let costs = Costs::between(&sample(1, 1000), &sample(2, 9000), 3, 100);
        assert_eq!((costs.fdatasyncs, costs.cycles, costs.elections), (Some(30), Some(10), Some(0)));
        assert_eq!(costs.records_per_sync, Some(100.0));
        assert_eq!((costs.syncs_per_cycle, costs.datagrams_per_cycle), (Some(3.0), Some(8.0)));
        assert_eq!((costs.sends_per_cycle, costs.net_bytes_per_payload_byte), (Some(6.0), Some(2.5)));
        assert_eq!(costs.log_bytes_per_payload_byte, Some(1.1));
        assert_eq!(costs.disk_bytes_per_payload_byte, Some(2.2));
        assert_eq!((costs.broker_cpu_us_per_record, costs.client_cpu_us_per_record), (Some(8.0), Some(4.0)));
        assert_eq!(costs.rss_bytes, Some(1 << 20));
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let foreign = Sample { counters: Some(Counters::default()), processes: None, client_cpu_us: 0 };
        let costs = Costs::between(&foreign, &foreign, 3, 100);
        assert_eq!((costs.rss_bytes, costs.broker_cpu_us_per_record), (None, None));
        assert_eq!((costs.cycles, costs.records_per_sync), (Some(0), None));
        let silent = Sample { counters: None, ..foreign.clone() };
        assert_eq!(Costs::between(&foreign, &silent, 3, 100), Costs::default());
    }
}
