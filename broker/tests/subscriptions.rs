//! Readers of the log, step by step: what a delivery holds, and where the next one goes on.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod trio;

use sequor_broker::core::Subscription;
use sequor_client::protocol::placed::PLACE_BYTES;
use sequor_client::protocol::{BrokerId, Offset, Refusal, Request, Response};

use self::trio::*;

#[test]
fn a_subscription_reads_on_where_it_stopped() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let mut subscription = Subscription::new(Offset(0));
    assert_eq!(trio.core(1).deliver(&mut subscription, 1 << 20), Ok(None));
    for first in 0..3 {
        trio.call(append(producer, first, "x"));
    }
    let first = trio.core(1).deliver(&mut subscription, 1).unwrap().expect("there are records");
    assert_eq!((first.placed().count(), first.next, first.end), (1, Offset(1), Offset(3)));
    assert_eq!(first.names, [(producer, "a".to_owned())]);
    let rest = trio.core(1).deliver(&mut subscription, 1 << 20).unwrap().expect("there are more");
    assert_eq!((rest.placed().count(), rest.next), (2, Offset(3)));
    assert!(rest.names.is_empty(), "it knows the name");
    let refused = trio.core(2).deliver(&mut Subscription::new(Offset(0)), 1 << 20);
    assert_eq!(refused, Err(Refusal::NotLeader { leader: Some(BrokerId(1)) }));
}

/// Ten batches in one entry, and a name that is opened between the sixth and the seventh.
#[test]
fn what_lies_side_by_side_in_an_entry_is_delivered_in_one_stretch() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let before = trio.core(1).status().last_index;
    for first in 0..6 {
        trio.ask(append(producer, first, "x"));
    }
    trio.ask(open("b"));
    for first in 6..10 {
        trio.ask(append(producer, first, "x"));
    }
    trio.settle();
    assert_eq!(trio.core(1).status().last_index, before + 1);
    let bytes = PLACE_BYTES + batch(producer, 0, "x").len();
    let mut shapes = |from, bytes_max| {
        let delivery = trio.core(1).deliver(&mut Subscription::new(Offset(from)), bytes_max);
        let delivery = delivery.unwrap().expect("there are records");
        let offsets: Vec<_> = delivery.placed().map(|placed| placed.unwrap().offset.0).collect();
        assert_eq!(offsets, (from..delivery.next.0).collect::<Vec<_>>());
        delivery.stretches.iter().map(|stretch| stretch.len() / bytes).collect::<Vec<_>>()
    };
    assert_eq!(shapes(0, 1 << 20), [6, 4]);
    assert_eq!(shapes(4, 1 << 20), [2, 4], "what is behind the reader is left out");
    assert_eq!(shapes(4, 3 * bytes), [2, 1], "and so is what does not fit");
    assert_eq!(shapes(8, 1), [1], "but for one batch, which always does");
    for (at_once, expected) in [(3, &[3, 3, 3, 1][..]), (4, &[4, 2, 2, 2]), (5, &[5, 1, 4]), (10, &[6, 4])] {
        let (mut subscription, mut next, mut stretches) = (Subscription::new(Offset(0)), 0, Vec::new());
        while let Some(delivery) = trio.core(1).deliver(&mut subscription, at_once * bytes).unwrap() {
            for placed in delivery.placed() {
                assert_eq!(placed.unwrap().offset, Offset(next), "each once, in order");
                next += 1;
            }
            stretches.extend(delivery.stretches.iter().map(|stretch| stretch.len() / bytes));
        }
        assert_eq!((next, &stretches[..]), (10, expected), "{at_once} at once");
    }
}

#[test]
fn a_subscription_beyond_the_end_is_told_where_the_end_is() {
    let mut trio = Trio::with_leader();
    let beyond = sequor_client::protocol::Subscribe { from: Offset(4) };
    let refusal = Refusal::OffsetOutOfRange { asked: Offset(4), first: Offset(0), end: Offset(0) };
    assert_eq!(trio.call(Request::Subscribe(beyond)), Response::Refused(refusal));
}
