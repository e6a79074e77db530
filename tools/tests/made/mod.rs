//! Data directories made by hand: a log in which every byte is known, written as a broker writes it, without a broker.
//!
//! It is written in memory and then saved. A directory that this process had locked would be locked a moment longer
//! whenever another test of it starts a child at the same time, since that has the same open files until it runs.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    fs::{self, OpenOptions},
    net::UdpSocket,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sequor_broker::core::effect::{self, Effect, Envelope, Opening, Written};
use sequor_client::{
    Record,
    protocol::{
        Codec, Epoch, Instance, Offset, ProducerId, Sequence,
        batch::{Batch, BatchBuilder},
    },
};
use sequor_wal::{Disk, Entry, Identity, Kind, Log, Settings, Vote, disk::memory::MemoryDisk, open};
use tempfile::TempDir;

use super::cluster::sequor;

/// Segments that a few entries fill.
pub(crate) fn small() -> Settings {
    Settings { segment_bytes: 8192, block_bytes_max: 4096, alignment: 512, spares: 1 }
}

/// The directories of a cluster as `certs init` makes them.
pub(crate) struct Made {
    dir: TempDir,
}

/// A log that is being written, in memory until it is saved.
pub(crate) struct Writing {
    directory: PathBuf,
    disk: MemoryDisk,
    pub(crate) log: Log,
    pub(crate) term: u64,
    end: u64,
    log_time_ms: u64,
}

impl Made {
    pub(crate) fn new(brokers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = sequor()
            .args(["certs", "init", "--brokers", &brokers.to_string()])
            .arg(dir.path().join("made"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self { dir }
    }

    /// One broker, on a free port.
    pub(crate) fn alone() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let made = sequor()
            .args(["certs", "init", "--brokers", "1", "--listen", &free])
            .arg(dir.path().join("made"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self { dir }
    }

    /// A path beside the cluster's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data directory of a broker, counted from 1.
    pub(crate) fn data(&self, broker: u64) -> PathBuf {
        self.dir.path().join(format!("made/broker-{broker}"))
    }

    /// Begins to write the log of a broker, or goes on with it.
    pub(crate) fn write(&self, broker: u64) -> Writing {
        let (directory, disk) = (self.data(broker), MemoryDisk::new());
        for file in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            disk.replace(file.file_name().to_str().unwrap(), &fs::read(file.path()).unwrap()).unwrap();
        }
        let mut identity = Identity::load(&disk).unwrap();
        if identity.incarnation.is_none() {
            identity.set_incarnation(&disk, [broker as u8; 16]).unwrap();
        }
        let log = open(Arc::new(disk.clone()), &identity, small()).unwrap().log;
        Writing { directory, disk, log, term: 1, end: 0, log_time_ms: 0 }
    }
}

impl Writing {
    /// Brings the files to where they belong.
    pub(crate) fn save(self) {
        for gone in fs::read_dir(&self.directory).unwrap() {
            fs::remove_file(gone.unwrap().path()).unwrap();
        }
        for name in self.disk.list().unwrap() {
            fs::write(self.directory.join(&name), self.disk.image(&name).unwrap()).unwrap();
        }
    }

    /// Makes everything durable that is staged.
    pub(crate) fn settle(&mut self) {
        loop {
            while let Some(order) = self.log.poll_spare() {
                self.log.handle_spare(order.run().unwrap());
            }
            let Some(ticket) = self.log.poll_ticket() else { return };
            self.log.handle_synced(ticket.run().unwrap());
        }
    }

    /// Writes an entry as a block of its own, and commits what was there before.
    pub(crate) fn put(&mut self, kind: Kind, data: impl Into<Bytes>) {
        let index = self.log.last_index() + 1;
        // A broker's disk knows of a term before it has an entry of it.
        if self.log.vote().term < self.term {
            self.log.set_vote(Vote { term: self.term, voted_for: 0 });
        }
        self.log.set_commit(index - 1);
        self.log.append(vec![Entry { index, term: self.term, kind, data: data.into() }]).unwrap();
        self.settle();
    }

    /// Writes a witness, which commits everything and proves it.
    pub(crate) fn witness(&mut self) {
        self.log.set_commit(self.log.last_index());
        self.log.request_witness();
        self.settle();
    }

    /// The data of an entry with these effects, one millisecond later than the one before.
    pub(crate) fn data(&mut self, effects: &[Effect]) -> Bytes {
        self.log_time_ms += 1;
        effect::encode(Envelope { level: 1, log_time_ms: self.log_time_ms, wall_ms: 0 }, effects)
    }

    /// Opens the producer `p`, whose id is 1.
    pub(crate) fn open(&mut self) {
        let (id, epoch, instance) = (ProducerId(1), Epoch(1), Instance([5; 16]));
        let data = self.data(&[Effect::Open(Opening { id, epoch, instance, name: "p".into() })]);
        self.put(Kind::Normal, data);
    }

    /// Appends values of that producer, which has written all there is.
    pub(crate) fn append(&mut self, values: &[&str]) {
        let written = self.written(values);
        let data = self.data(&[Effect::Append(written)]);
        self.put(Kind::Normal, data);
    }

    /// The effect of such an append whose batch is packed.
    pub(crate) fn packed(&mut self, values: &[String]) -> Written {
        let mut builder = BatchBuilder::new().packed(Codec::Lz4);
        values.iter().for_each(|value| builder.push(&Record::new(value.clone())).unwrap());
        let batch = Batch::parse(builder.seal(ProducerId(1), Epoch(1), Sequence(self.end))).unwrap();
        assert!(batch.is_packed(), "it is worth it");
        let base = Offset(self.end);
        self.end += values.len() as u64;
        Written { base, settled: Sequence(0), batch }
    }

    /// The effect of such an append.
    pub(crate) fn written(&mut self, values: &[&str]) -> Written {
        let mut builder = BatchBuilder::new();
        for value in values {
            builder.push(&Record::new((*value).to_owned()).with_key(format!("key of {value}"))).unwrap();
        }
        let batch = Batch::parse(builder.seal(ProducerId(1), Epoch(1), Sequence(self.end))).unwrap();
        let base = Offset(self.end);
        self.end += values.len() as u64;
        Written { base, settled: Sequence(0), batch }
    }
}

/// The file of a segment.
pub(crate) fn segment(data: &Path, id: u64) -> PathBuf {
    data.join(format!("segment-{id:020}"))
}

/// Flips one bit of a file.
pub(crate) fn flip(file: &Path, byte: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut found = [0];
    file.read_exact_at(&mut found, byte).unwrap();
    file.write_all_at(&[found[0] ^ 1 << bit], byte).unwrap();
}

/// Everything about a directory that an inspection could change: names, contents, times.
pub(crate) fn fingerprint(directory: &Path) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
    let changed = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let content = |path: &Path| fs::read(path).unwrap_or_default();
    files.push(directory.to_path_buf());
    files.into_iter().map(|path| (path.clone(), changed(&path), content(&path))).collect()
}
