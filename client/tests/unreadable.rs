//! What a subscription does about batches that cannot be read, step by step: a session whose brokers are the test
//! itself. One bad stream is a fault of its connection until a second one brings the same.

#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

mod greeting;

use std::time::Duration;

use bytes::Bytes;
use greeting::{CLUSTER, hello};
use sequor_client::core::{Config, Event, Session, SubscriptionFailure, SubscriptionKey, Time, Transmit};
use sequor_client::protocol::{
    BrokerId, Delivery, Epoch, Feature, Field, Member, Offset, Placed, ProducerId, Refusal, RequestId,
    Response, Sequence, batch::BatchBuilder,
};

/// The last byte of the batch that [`good`] makes.
const LAST: usize = 69;
/// Longer than any pause of a session.
const PATIENCE: Duration = Duration::from_secs(10);
/// One look at the session's clock.
const STEP: Duration = Duration::from_millis(5);

/// Three brokers, played by hand: whoever is asked leads.
struct Played {
    session: Session,
    now: Time,
    key: SubscriptionKey,
    events: Vec<Event>,
    /// Connections that the session gave up.
    given_up: Vec<BrokerId>,
}

impl Played {
    fn subscribe(from: u64) -> Self {
        let member = |id| Member { id: BrokerId(id), address: format!("broker-{id}:7400") };
        let mut session = Session::new(Config::new(CLUSTER, (1..=3).map(member).collect()), 1, Time(0));
        let key = session.subscribe(Time(0), Offset(from));
        Self { session, now: Time(1), key, events: Vec::new(), given_up: Vec::new() }
    }

    /// The next stream that the session opens, if it does: at whom, its id, and from where.
    fn stream(&mut self) -> Option<(BrokerId, RequestId, Offset)> {
        let until = self.now.after(PATIENCE);
        while self.now < until {
            match self.session.poll_transmit() {
                Some(Transmit::Subscribe { broker, id, subscribe, .. }) => {
                    return Some((broker, id, subscribe.from));
                }
                Some(Transmit::Connect { broker, .. }) => {
                    self.session.handle_connected(self.now, broker, &hello(broker, Some(broker), Vec::new()));
                }
                Some(Transmit::Disconnect { broker }) => self.given_up.push(broker),
                Some(Transmit::Unsubscribe { .. }) => {}
                Some(other) => panic!("it only subscribes: {other:?}"),
                None => {
                    self.now = self.now.after(STEP);
                    self.session.handle_timeout(self.now);
                }
            }
        }
        None
    }

    /// Sends batches over a stream. Those that were handed out, by their offsets.
    fn deliver(
        &mut self,
        (broker, id, _): (BrokerId, RequestId, Offset),
        batches: &[(u64, &Bytes)],
    ) -> Vec<u64> {
        let placed = |(offset, batch): &(u64, &Bytes)| {
            let (offset, settled) = (Offset(*offset), Sequence(0));
            Placed { offset, settled, batch: Bytes::clone(batch) }.to_bytes()
        };
        let next = Offset(batches.last().unwrap().0 + 2);
        let stretches = batches.iter().map(placed).collect();
        self.deliver_stretches((broker, id), next, stretches)
    }

    /// The same with whatever bytes in the place of batches.
    fn deliver_stretches(
        &mut self,
        (broker, id): (BrokerId, RequestId),
        next: Offset,
        stretches: Vec<Bytes>,
    ) -> Vec<u64> {
        let delivery = Delivery { next, end: Offset(100), names: Vec::new(), stretches };
        self.session.handle_response(self.now, broker, id, Response::Delivery(delivery));
        let mut taken = Vec::new();
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Records { batches, .. } => taken.extend(batches.iter().map(|placed| placed.offset.0)),
                other => self.events.push(other),
            }
        }
        taken
    }

    /// Why the subscription ended, if it did.
    fn ended(&self) -> Option<&SubscriptionFailure> {
        self.events.iter().find_map(|event| match event {
            Event::SubscriptionEnded { subscription, why } if *subscription == self.key => Some(why),
            _ => None,
        })
    }
}

/// A batch of two records.
fn good() -> Bytes {
    let mut builder = BatchBuilder::new();
    ["a", "b"].iter().for_each(|value| builder.push_value(None, value.as_bytes(), 0).unwrap());
    builder.seal(ProducerId(1), Epoch(1), Sequence(0))
}

/// The same with another byte at `at`.
fn with(at: usize, byte: u8) -> Bytes {
    let mut bytes = good().to_vec();
    bytes[at] = byte;
    bytes.into()
}

#[test]
fn what_one_connection_damages_another_brings_whole() {
    let mut played = Played::subscribe(4);
    let first = played.stream().unwrap();
    let (good, bad) = (good(), with(LAST, 0xff));
    assert_eq!(
        played.deliver(first, &[(4, &good), (6, &bad), (8, &good)]),
        [4],
        "what comes before it is good"
    );
    let second = played.stream().unwrap();
    assert_eq!(
        (&*played.given_up, second.2),
        (&[first.0][..], Offset(6)),
        "over a new connection, from there on"
    );
    assert_eq!(played.deliver(second, &[(6, &good), (8, &good)]), [6, 8]);
    // A later batch has its own second chance.
    assert_eq!(played.deliver(second, &[(10, &bad)]), [0; 0]);
    let third = played.stream().unwrap();
    assert_eq!((third.2, played.deliver(third, &[(10, &good)])), (Offset(10), vec![10]));
    assert_eq!(played.ended(), None);
}

#[test]
fn what_everybody_has_damaged_ends_the_subscription_with_what_was_found() {
    let (damaged, codec, format) = (with(LAST, 0xff), with(2, 9), with(0, 2));
    let unsupported = |what| Refusal::Unsupported { what };
    let cases = [
        (damaged, None, "`sequor wal verify`"),
        (codec, Some(unsupported(Feature::Codec(9))), "written by a newer version"),
        (format, Some(unsupported(Feature::BatchFormat(2))), "written by a newer version"),
    ];
    for (bad, expected, advice) in cases {
        let mut played = Played::subscribe(4);
        let first = played.stream().unwrap();
        assert_eq!(played.deliver(first, &[(4, &good()), (6, &bad)]), [4]);
        assert_eq!(played.ended(), None, "not for what one connection says");
        let second = played.stream().unwrap();
        assert_eq!(played.deliver(second, &[(6, &bad)]), [0; 0]);
        let why = played.ended().unwrap().clone();
        let SubscriptionFailure::Unreadable { offset: Offset(6), broker, found } = &why else {
            panic!("{why:?}")
        };
        assert_eq!(*broker, second.0);
        match expected {
            Some(expected) => assert_eq!(*found, expected),
            None => assert!(matches!(found, Refusal::BadChecksum { what: Field::Batch, .. }), "{found:?}"),
        }
        let said = why.to_string();
        assert!(said.contains("offset 6") && said.contains(advice), "{said}");
        assert_eq!(played.stream(), None, "it asks no more");
        assert_eq!(played.session.position(played.key), None);
    }
}

#[test]
fn what_is_no_batch_in_its_place_ends_the_subscription_too() {
    let good = Placed { offset: Offset(4), settled: Sequence(0), batch: good() }.to_bytes();
    let unsupported = |what| Refusal::Unsupported { what };
    let cases = [
        (0, unsupported(Feature::Place(9)), "written by a newer version"),
        (2, unsupported(Feature::Flags(9)), "written by a newer version"),
        (4, Refusal::Malformed { what: Field::Batch }, "`sequor wal verify`"),
    ];
    for (at, expected, advice) in cases {
        let mut bad = good.to_vec();
        bad[at] = 9;
        let stretch = Bytes::from([good.clone(), bad.into(), good.clone()].concat());
        let mut played = Played::subscribe(4);
        let (first, id, _) = played.stream().unwrap();
        assert_eq!(played.deliver_stretches((first, id), Offset(10), vec![stretch.clone()]), [4]);
        assert_eq!(played.ended(), None, "not for what one connection says");
        let (second, id, from) = played.stream().unwrap();
        assert_eq!((&*played.given_up, from), (&[first][..], Offset(6)), "over a new connection");
        let taken = played.deliver_stretches((second, id), Offset(10), vec![stretch.slice(good.len()..)]);
        assert_eq!(taken, [0; 0]);
        let why = played.ended().unwrap().clone();
        assert_eq!(
            why,
            SubscriptionFailure::Unreadable { offset: Offset(6), broker: second, found: expected }
        );
        assert!(why.to_string().contains(advice), "{why}");
        assert_eq!(played.stream(), None, "it asks no more");
    }
}

#[test]
fn who_delivers_other_records_than_were_asked_for_is_given_up() {
    let mut played = Played::subscribe(4);
    let good = good();
    for _ in 0..2 {
        assert_eq!(played.ended(), None);
        let stream = played.stream().unwrap();
        assert_eq!(played.deliver(stream, &[(5, &good)]), [0; 0]);
    }
    let Some(SubscriptionFailure::Misplaced { expected, found, .. }) = played.ended() else {
        panic!("{:?}", played.events);
    };
    assert_eq!((*expected, *found), (Offset(4), Offset(5)));
    assert_eq!(played.stream(), None, "it asks no more");
}
