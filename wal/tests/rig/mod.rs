//! The rig: a log on a memory disk, driven the way a broker drives it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "the rig stands in for a test")]

use std::sync::Arc;

use bytes::Bytes;
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{
    Disk, Entry, Identity, Index, Kind, Log, OpenError, Opened, Position, Settings, SyncError, Term, Ticket,
    Vote, VoteState, open,
};

pub(crate) const CLUSTER: [u8; 16] = *b"cluster-of-three";
pub(crate) const INCARNATION: [u8; 16] = *b"first-incarnated";

pub(crate) fn identity() -> Identity {
    Identity { cluster: CLUSTER, lineage: [3; 16], broker: 1, incarnation: Some(INCARNATION) }
}

/// Segments so small that a handful of entries fills one.
pub(crate) fn small() -> Settings {
    Settings { segment_bytes: 4096, block_bytes_max: 1500, alignment: 512, spares: 2 }
}

pub(crate) fn entry(index: Index, term: Term, data: impl Into<Bytes>) -> Entry {
    Entry { index, term, kind: Kind::Normal, data: data.into() }
}

/// The chain over `entries`, computed the slow way.
pub(crate) fn positions(entries: &[Entry]) -> Vec<Position> {
    let mut last = Position::start(&CLUSTER);
    entries
        .iter()
        .map(|entry| {
            last = last.then(entry);
            last
        })
        .collect()
}

pub(crate) fn all(log: &Log) -> Vec<Entry> {
    log.entries(1, log.last_index() + 1, u64::MAX).unwrap()
}

pub(crate) fn known(state: &VoteState) -> Vote {
    match state {
        VoteState::Known(vote) => *vote,
        VoteState::Damaged(damage) => panic!("{damage}"),
    }
}

pub(crate) struct Rig {
    pub(crate) disk: MemoryDisk,
    pub(crate) settings: Settings,
    pub(crate) log: Log,
    pub(crate) commit: Index,
}

impl Rig {
    /// Gives a segment's header a later format, and the checksum that who wrote it would have given it.
    pub(crate) fn write_as_later(&self, name: &str, format: u8) {
        self.disk.overwrite(name, 4, &[format]);
        let header = self.disk.image(name).unwrap();
        self.disk.overwrite(name, 64, &crc32fast::hash(&header[..64]).to_le_bytes());
    }

    pub(crate) fn new() -> Self {
        Self::on(MemoryDisk::new(), small()).unwrap()
    }

    pub(crate) fn on(disk: MemoryDisk, settings: Settings) -> Result<Self, OpenError> {
        let Opened { log, vote: _, commit } = open(Arc::new(disk.clone()), &identity(), settings.clone())?;
        Ok(Self { disk, settings, log, commit })
    }

    /// Kills the process and starts it again.
    pub(crate) fn restart(self) -> Result<Self, OpenError> {
        self.disk.kill();
        Self::on(self.disk, self.settings)
    }

    /// Kills the process and starts it again, which must be refused.
    pub(crate) fn refused(self) -> OpenError {
        self.disk.kill();
        match Self::on(self.disk, self.settings) {
            Ok(_) => panic!("this log must not open"),
            Err(error) => error,
        }
    }

    /// Knows of a term, as raft does before it has an entry of it.
    pub(crate) fn enter(&mut self, term: Term) {
        if self.log.vote().term < term {
            self.log.set_vote(Vote { term, voted_for: 0 });
        }
    }

    /// Makes all spares that are wanted.
    pub(crate) fn make_spares(&mut self) -> Result<(), SyncError> {
        while let Some(order) = self.log.poll_spare() {
            self.log.handle_spare(order.run()?);
        }
        Ok(())
    }

    /// Makes everything durable that is staged.
    pub(crate) fn settle(&mut self) -> Result<(), SyncError> {
        self.make_spares()?;
        while let Some(ticket) = self.log.poll_ticket() {
            self.log.handle_synced(ticket.run()?);
            self.make_spares()?;
        }
        Ok(())
    }

    /// The same, while nobody makes spares.
    pub(crate) fn put_without_spares(&mut self, term: Term, data: impl Into<Bytes>) {
        self.enter(term);
        self.log.append(vec![entry(self.log.last_index() + 1, term, data)]).unwrap();
        while let Some(ticket) = self.log.poll_ticket() {
            self.log.handle_synced(ticket.run().unwrap());
        }
    }

    /// Appends one entry, durable at once and in a block of its own.
    pub(crate) fn put(&mut self, term: Term, data: impl Into<Bytes>) -> Index {
        let index = self.log.last_index() + 1;
        self.enter(term);
        self.log.append(vec![entry(index, term, data)]).unwrap();
        self.settle().unwrap();
        index
    }

    pub(crate) fn witness(&mut self) {
        self.log.request_witness();
        self.settle().unwrap();
    }

    /// A ticket that is written and not synced.
    pub(crate) fn write_only(&mut self) -> Ticket {
        let ticket = self.log.poll_ticket().unwrap();
        ticket.write().unwrap();
        ticket
    }

    pub(crate) fn segments(&self) -> Vec<String> {
        self.disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-")).collect()
    }

    pub(crate) fn image(&self, name: &str) -> Vec<u8> {
        self.disk.image(name).unwrap()
    }
}

/// The name of the segment file with this id.
pub(crate) fn segment(id: u64) -> String {
    format!("segment-{id:020}")
}
