//! One thread and its memory: checksums, and batches. Bytes a second.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use sequor_client::protocol::{Epoch, ProducerId, Sequence, batch::BatchBuilder};

/// How long each is measured.
const LENGTH: Duration = Duration::from_millis(300);
/// Size of what is worked on: more than the fast caches hold together. Bytes.
const BYTES: usize = 1 << 20;
/// Records of a batch, and bytes of each: a large request of small records.
const RECORDS: usize = 1000;
const RECORD_BYTES: usize = 256;

/// How many bytes a second some work does that does so many each time.
fn rate(bytes: usize, mut work: impl FnMut()) -> f64 {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < LENGTH {
        work();
        done += bytes;
    }
    done as f64 / start.elapsed().as_secs_f64()
}

/// CRC-32.
pub(super) fn crc() -> f64 {
    let bytes = vec![7; BYTES];
    rate(BYTES, || _ = black_box(crc32fast::hash(black_box(&bytes))))
}

fn pushed(value: &[u8]) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    for _ in 0..RECORDS {
        builder.push_value(None, value, 0).expect("they fit one batch");
    }
    builder
}

fn sealed(builder: BatchBuilder) {
    black_box(builder.seal(ProducerId(1), Epoch(1), Sequence(0)));
}

/// Copy, digest and checksum of a batch that is made before.
pub(super) fn seal() -> f64 {
    let builder = pushed(&[7; RECORD_BYTES]);
    rate(RECORDS * RECORD_BYTES, || sealed(black_box(&builder).clone()))
}

/// A batch made record by record.
pub(super) fn push() -> f64 {
    let value = [7; RECORD_BYTES];
    rate(RECORDS * RECORD_BYTES, || sealed(pushed(black_box(&value))))
}
