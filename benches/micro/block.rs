//! The log without a disk: entries are staged, chained, made a block of, checksummed, and durable at once.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use sequor_wal::{Disk, Entry, Haste, Identity, Kind, Log, Prepared, Region, Settings, open};

const IDENTITY: Identity = Identity { cluster: [1; 16], lineage: [2; 16], broker: 1, incarnation: None };

/// Blocks of a measurement, on a log of its own: a log remembers where each of its blocks is. Count.
const BLOCKS: u64 = 64;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("block");
    for (entries, bytes) in [(1, 256_usize), (1, 4 << 10), (1, 64 << 10), (64, 1 << 10), (1, 1 << 20)] {
        let data = vec![Bytes::from(vec![0x5a; bytes]); entries];
        group.throughput(Throughput::Bytes(BLOCKS * (entries * bytes) as u64));
        group.bench_function(format!("{BLOCKS} blocks of/{entries} x {bytes}"), |bencher| {
            let write_all = |log: &mut Log| (0..BLOCKS).for_each(|_| write(log, &data));
            bencher.iter_batched_ref(log, write_all, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// The life of some entries until they are durable.
fn write(log: &mut Log, data: &[Bytes]) {
    let first = log.last_index() + 1;
    let entry =
        |(index, data): (u64, &Bytes)| Entry { index, term: 1, kind: Kind::Normal, data: data.clone() };
    log.append((first..).zip(data).map(entry).collect()).expect("nothing is cut");
    let ticket = log.poll_ticket().expect("there is something to write");
    log.handle_synced(ticket.run().expect("there is no disk that could fail"));
    while let Some(order) = log.poll_spare() {
        log.handle_spare(order.run().expect("there is no disk that could fail"));
    }
}

fn log() -> Log {
    let disk: Arc<dyn Disk> = Arc::new(NoDisk::default());
    Identity::create(&*disk, &IDENTITY).expect("there is no disk that could fail");
    let mut identity = Identity::load(&*disk).expect("it was just written");
    identity.set_incarnation(&*disk, [3; 16]).expect("there is no disk that could fail");
    let opened = open(disk, &identity, Settings { segment_bytes: 1 << 30, ..Settings::default() });
    let mut log = opened.expect("it is empty").log;
    while let Some(order) = log.poll_spare() {
        let spare: Prepared = order.run().expect("there is no disk that could fail");
        log.handle_spare(spare);
    }
    log
}

/// Remembers small files, and forgets what is written to segments.
#[derive(Debug, Default)]
struct NoDisk {
    small: Mutex<BTreeMap<String, Bytes>>,
}

impl NoDisk {
    fn small(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.small.lock().expect("nobody panics with it")
    }
}

#[derive(Debug)]
struct Nowhere {
    name: String,
    bytes: u64,
}

impl Disk for NoDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.small().keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64, _haste: &Haste) -> io::Result<Arc<dyn Region>> {
        Ok(Arc::new(Nowhere { name: name.into(), bytes }))
    }

    fn open(&self, _name: &str) -> io::Result<Arc<dyn Region>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        Ok(self.small().get(name).cloned())
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.small().insert(name.into(), Bytes::copy_from_slice(content));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.small().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Region for Nowhere {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write_at(&self, _position: u64, chunks: &[Bytes]) -> io::Result<()> {
        std::hint::black_box(chunks);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, _position: u64, bytes: usize) -> io::Result<Bytes> {
        Ok(vec![0; bytes].into())
    }

    fn scan(&self, _position: u64, into: &mut [u8]) -> io::Result<()> {
        into.fill(0);
        Ok(())
    }
}
