//! What is written in all of them: batches of one producer, and a state that knows it.

use std::sync::Arc;

use bytes::Bytes;
use sequor_broker::core::{
    effect::Effect,
    genesis::{Genesis, Member, Settings},
    machine::{Machine, Operation, Verdict},
};
use sequor_client::protocol::{
    BrokerId, Epoch, Instance, ProducerId, Response, Sequence,
    batch::{Batch, BatchBuilder},
};

/// Bytes of a record's value.
pub(crate) const VALUE_BYTES: usize = 128;

/// A state with one producer.
pub(crate) fn machine() -> (Machine, ProducerId) {
    let member = Member { id: BrokerId(1), address: "localhost:7400".into(), certificate: [1; 32] };
    let genesis = Genesis::new(vec![member], Settings::default()).expect("one member is a cluster");
    let mut machine = Machine::new(&genesis);
    let name: Arc<str> = "bench".into();
    let open = Operation::Open { name, instance: Instance([1; 16]), expected: Epoch(0) };
    let Verdict::Write(effect) = machine.decide(&open) else { panic!("the name is free") };
    let Response::Opened(producer) = machine.absorb(&effect) else { panic!("it was opened") };
    (machine, producer.id)
}

/// The bytes of a batch.
pub(crate) fn sealed(producer: ProducerId, first: u64, records: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push_value(None, &[0x5a; VALUE_BYTES], 1).expect("it has room");
    }
    builder.seal(producer, Epoch(1), Sequence(first))
}

/// An append as it comes in.
pub(crate) fn append(producer: ProducerId, first: u64, records: usize, in_flight: u64) -> Operation {
    let batch = Batch::parse(sealed(producer, first, records)).expect("it was just made");
    Operation::Append { batch, settled: Sequence(first.saturating_sub(in_flight * records as u64)) }
}

/// The effects of so many appends on this state, which takes them in.
pub(crate) fn effects(
    machine: &mut Machine,
    producer: ProducerId,
    first: u64,
    requests: u64,
    records: usize,
) -> Vec<Effect> {
    let write = |number: u64| {
        let append = append(producer, first + number * records as u64, records, requests);
        let Verdict::Write(effect) = machine.decide(&append) else { panic!("it is the next number") };
        machine.absorb(&effect);
        effect
    };
    (0..requests).map(write).collect()
}
