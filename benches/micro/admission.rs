//! Admission: an append is decided against the head state and taken into it, request by request.

use criterion::{BatchSize, Criterion, Throughput};
use sequor_broker::core::machine::{Machine, Operation, Verdict};

use crate::load::{append, effects, machine};

/// Requests of a measurement: as many as one pass may find. Count.
const REQUESTS: u64 = 256;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admission");
    for records in [1_usize, 100] {
        // The producer has written a window full before: that is what a request meets.
        let (mut state, producer) = machine();
        effects(&mut state, producer, 0, REQUESTS, records);
        let first = REQUESTS * records as u64;
        let next = |number| append(producer, first + number * records as u64, records, REQUESTS);
        let requests: Vec<Operation> = (0..REQUESTS).map(next).collect();
        group.throughput(Throughput::Elements(REQUESTS));
        group.bench_function(format!("{REQUESTS} requests of/{records}"), |bencher| {
            bencher.iter_batched(|| state.clone(), |draft| admit(draft, &requests), BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn admit(mut draft: Machine, requests: &[Operation]) -> Machine {
    for request in requests {
        let Verdict::Write(effect) = draft.decide(request) else { panic!("it is the next number") };
        draft.absorb(&effect);
    }
    draft
}
