//! A batch: what its producer does to make it, and what a broker and a consumer do to trust it.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use sequor_client::protocol::{ProducerId, batch::Batch};

use crate::load::{VALUE_BYTES, sealed};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    for records in [1_usize, 100, 1000] {
        let bytes = sealed(ProducerId(1), 0, records);
        group.throughput(Throughput::Bytes((records * VALUE_BYTES) as u64));
        group.bench_function(format!("make/{records}"), |bencher| {
            bencher.iter(|| sealed(black_box(ProducerId(1)), 0, records));
        });
        group.bench_function(format!("parse/{records}"), |bencher| {
            bencher.iter_batched(
                || bytes.clone(),
                |bytes| Batch::parse(bytes).is_ok(),
                BatchSize::SmallInput,
            );
        });
        let batch = Batch::parse(bytes).expect("it was just made");
        group.bench_function(format!("check records/{records}"), |bencher| {
            bencher.iter(|| black_box(&batch).check_records().is_ok());
        });
        group.bench_function(format!("check digest/{records}"), |bencher| {
            bencher.iter(|| black_box(&batch).verify_digest().is_ok());
        });
    }
    group.finish();
}
