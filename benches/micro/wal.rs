//! One block on a real disk, synced: by a positioned write (what the log does, by its own code), through a map, and past
//! the page cache.
//!
//! All write into a file that was made as the log makes a segment, of zeros that are on the disk, so that a sync has data
//! to commit and nothing else; only then is the comparison one of the write paths. Each block goes behind the one before,
//! as in the log.
//!
//! The directory is the system's for temporary files, or `SEQUOR_BENCH_DIR`: it has to be on the disk that is meant, and
//! a disk in memory syncs in no time.

use std::{
    env,
    fs::{File, OpenOptions},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use rustix::fs::{Mode, OFlags};
use sequor_wal::Haste;
use sequor_wal::disk::{
    Disk, Region,
    mmap::{MmapDisk, map_for_writing},
};

/// Length of the file: a segment. Bytes.
const FILE_BYTES: usize = 64 << 20;
/// What a write past the page cache must be aligned to, in memory and in the file. Bytes.
const DIRECT_ALIGNMENT: usize = 4096;
/// A disk that fails is no disk to measure.
const TAKES: &str = "the disk takes a block";

pub(crate) fn bench(criterion: &mut Criterion) {
    let place = place();
    let disk = MmapDisk::open(place.path()).expect("nobody else has the directory");
    let mut group = criterion.benchmark_group("wal");
    for bytes in [512_usize, 4 << 10, 128 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(bytes as u64));
        let block = Block::new(bytes);
        let name = format!("file-{bytes}");
        let path = place.path().join(&name);

        let region = filled(&disk, &name);
        let chunks = [Bytes::copy_from_slice(block.bytes())];
        let mut at = 0;
        group.bench_function(format!("write and fdatasync/{bytes}"), |bencher| {
            bencher.iter(|| {
                region.append_at(next(&mut at, bytes), &chunks).expect(TAKES);
                region.sync().expect(TAKES);
            });
        });

        drop(filled(&disk, &name));
        let mut map = map_for_writing(&opened(&path)).expect("the file is there");
        group.bench_function(format!("map and msync/{bytes}"), |bencher| {
            bencher.iter(|| {
                let from = usize::try_from(next(&mut at, bytes)).expect("within the file");
                map[from..from + bytes].copy_from_slice(block.bytes());
                map.flush_range(from, bytes).expect(TAKES);
            });
        });

        // A block of the log may begin on any sector; past the page cache only whole pages are sure to do.
        if bytes.is_multiple_of(DIRECT_ALIGNMENT) {
            drop(filled(&disk, &name));
            let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
            match rustix::fs::open(&path, flags, Mode::empty()).map(File::from) {
                Ok(direct) => {
                    group.bench_function(format!("direct write and fdatasync/{bytes}"), |bencher| {
                        bencher.iter(|| {
                            direct.write_all_at(block.bytes(), next(&mut at, bytes)).expect(TAKES);
                            direct.sync_data().expect(TAKES);
                        });
                    });
                }
                Err(error) => eprintln!("no direct writes to {}: {error}", path.display()),
            }
        }
    }
    group.throughput(Throughput::Bytes(FILE_BYTES as u64));
    group.sample_size(10);
    group.bench_function("fill a segment with zeros", |bencher| {
        let gone = || remove(&disk, "fill");
        bencher.iter_batched(gone, |()| filled(&disk, "fill"), BatchSize::PerIteration);
    });
    group.finish();
}

/// Where the next block goes; at the end it begins anew.
fn next(at: &mut usize, bytes: usize) -> u64 {
    let from = if *at + bytes > FILE_BYTES { 0 } else { *at };
    *at = from + bytes;
    from as u64
}

fn place() -> tempfile::TempDir {
    let made = match env::var_os("SEQUOR_BENCH_DIR").map(PathBuf::from) {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    };
    made.expect("the directory for the benchmark can be written to")
}

/// A file of zeros, made as the log makes a segment; the one before it of that name is removed.
fn filled(disk: &MmapDisk, name: &str) -> Arc<dyn Region> {
    remove(disk, name);
    disk.create(name, FILE_BYTES as u64, &Haste::at_once()).expect("the disk has room for a segment")
}

fn remove(disk: &MmapDisk, name: &str) {
    match disk.remove(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => panic!("cannot remove {name}: {error}"),
        Ok(()) | Err(_) => {}
    }
}

fn opened(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("the file was just made")
}

/// Bytes at an aligned address.
struct Block {
    memory: Vec<u8>,
    from: usize,
    bytes: usize,
}

impl Block {
    fn new(bytes: usize) -> Self {
        let memory = vec![0x5a; bytes + DIRECT_ALIGNMENT];
        let from = memory.as_ptr().align_offset(DIRECT_ALIGNMENT);
        Self { memory, from, bytes }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.bytes]
    }
}
