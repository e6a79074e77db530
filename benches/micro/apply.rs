//! Apply: an entry is read from its bytes, each effect is decided once more, compared with its stamp, and folded.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use sequor_broker::core::{
    effect::{Effects, Envelope, LEVEL, encode},
    machine::Machine,
};

use crate::load::{effects, machine};

const ENVELOPE: Envelope = Envelope { level: LEVEL, log_time_ms: 1, wall_ms: 1 };

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    for (requests, records) in [(1, 1), (256, 1), (16, 100), (7, 1000)] {
        let (mut state, producer) = machine();
        effects(&mut state, producer, 0, requests, records);
        let applied = state.clone();
        let next = effects(&mut state, producer, requests * records as u64, requests, records);
        group.throughput(Throughput::Elements(requests));
        group.bench_function(format!("encode/{requests} x {records}"), |bencher| {
            bencher.iter(|| encode(ENVELOPE, &next));
        });
        let entry = encode(ENVELOPE, &next);
        group.bench_function(format!("fold/{requests} x {records}"), |bencher| {
            bencher.iter_batched(
                || applied.clone(),
                |state| fold(state, entry.clone()),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn fold(mut state: Machine, entry: Bytes) -> Machine {
    for effect in Effects::open(entry).expect("it was just made") {
        state.apply(&effect.expect("it was just made")).expect("it was decided against this state");
    }
    state
}
