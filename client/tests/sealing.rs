//! How a producer gives numbers up, step by step: a session whose broker is the test itself.

#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

mod greeting;

use std::time::Duration;

use greeting::{CLUSTER, hello};
use sequor_client::core::{
    AppendRefused, Config, Event, Failure, Numbers, ProducerKey, Session, Style, Time, Transmit,
};
use sequor_client::protocol::{
    Appended, BrokerId, Epoch, Feature, Member, Offset, Producer, ProducerId, Refusal, Request, RequestId,
    Resolve, Resolved, Response, Sequence, Span,
    batch::{Batch, BatchBuilder},
};

const BROKER: BrokerId = BrokerId(1);
const PRODUCER: ProducerId = ProducerId(9);

/// The only broker, played by hand.
struct Played {
    session: Session,
    now: Time,
    key: ProducerKey,
}

impl Played {
    /// A producer that is open, whose next number is 10.
    fn open(numbers: Numbers, from: Option<Sequence>) -> Self {
        let member = Member { id: BROKER, address: "broker:7400".into() };
        let mut session = Session::new(Config::new(CLUSTER, vec![member]), 1, Time(0));
        let key = session.open_producer(
            Time(0),
            "name",
            Style { from, numbers, ..Style::default() },
            Time(30_000_000),
        );
        let mut played = Self { session, now: Time(1), key };
        played.connect();
        let (id, request) = played.request();
        assert!(matches!(request, Request::Lookup(_)));
        played.answer(id, Response::Found(state([0; 16])));
        let (id, Request::Open(open)) = played.request() else { panic!("it opens what it has looked up") };
        played.answer(id, Response::Opened(state(open.instance.0)));
        while played.event().is_some_and(|event| !matches!(event, Event::Opened { .. })) {}
        played
    }

    fn connect(&mut self) {
        while !matches!(self.session.poll_transmit(), Some(Transmit::Connect { .. })) {
            self.pass(Duration::from_millis(5));
        }
        self.session.handle_connected(self.now, BROKER, &hello(BROKER, Some(BROKER), Vec::new()));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.session.handle_timeout(self.now);
    }

    fn append(&mut self, values: &[&str], patience: Duration) -> Result<Sequence, AppendRefused> {
        let mut batch = BatchBuilder::new();
        values.iter().for_each(|value| batch.push_value(None, value.as_bytes(), 5).unwrap());
        self.session.append(self.now, self.key, batch, self.now.after(patience))
    }

    /// The next request, within a second.
    fn request(&mut self) -> (RequestId, Request) {
        for _ in 0..200 {
            match self.session.poll_transmit() {
                Some(Transmit::Request { id, request, .. }) => return (id, request),
                Some(other) => panic!("not a request: {other:?}"),
                None => self.pass(Duration::from_millis(5)),
            }
        }
        panic!("no request within a second");
    }

    fn batch(&mut self) -> (RequestId, Batch) {
        let (id, request) = self.request();
        let Request::Append(append) = request else { panic!("not an append: {request:?}") };
        (id, Batch::parse(append.batch).unwrap())
    }

    fn seal(&mut self) -> (RequestId, Sequence) {
        let (id, request) = self.request();
        let Request::Resolve(Resolve { producer: PRODUCER, epoch: Epoch(4), sequence, seal: true }) = request
        else {
            panic!("not a seal: {request:?}");
        };
        (id, sequence)
    }

    fn answer(&mut self, id: RequestId, response: Response) {
        self.session.handle_response(self.now, BROKER, id, response);
    }

    fn refuse(&mut self, id: RequestId, refusal: Refusal) {
        self.answer(id, Response::Refused(refusal));
    }

    fn event(&mut self) -> Option<Event> {
        self.session.poll_event()
    }
}

fn state(instance: [u8; 16]) -> Producer {
    Producer {
        id: PRODUCER,
        epoch: Epoch(4),
        instance: sequor_client::protocol::Instance(instance),
        next: Sequence(10),
        batches: Vec::new(),
        sealed: Vec::new(),
        retired: false,
    }
}

fn written(first: u64, count: u32, duplicate: bool) -> Response {
    let (first, end, rest) = (Offset(first), Offset(first + u64::from(count)), Vec::new());
    Response::Appended(Appended { first, count, duplicate, token: None, branch: None, end, rest })
}

fn for_good() -> Refusal {
    Refusal::Unsupported { what: Feature::Codec(7) }
}

const PATIENCE: Duration = Duration::from_secs(4);

#[test]
fn what_is_refused_for_good_is_sealed_before_it_is_said_and_the_next_number_follows() {
    let mut played = Played::open(Numbers::Own, None);
    assert_eq!(played.append(&["a", "b"], PATIENCE), Ok(Sequence(10)));
    assert_eq!(played.append(&["c"], PATIENCE), Ok(Sequence(12)));
    let (first, _) = played.batch();
    let (second, _) = played.batch();
    played.refuse(first, for_good());
    played.refuse(second, Refusal::SequenceGap { expected: Sequence(10), found: Sequence(12) });
    assert_eq!(played.event(), None, "a refusal speaks of one attempt");
    let (seal, through) = played.seal();
    assert_eq!(through, Sequence(11));
    played.answer(seal, Response::Resolved(Resolved::Sealed));
    let Some(Event::Failed { first: Sequence(10), count: 2, why, .. }) = played.event() else {
        panic!("sealed: it has failed for certain");
    };
    assert_eq!(why, Failure::Refused(for_good()));
    let (again, batch) = played.batch();
    assert_eq!(batch.first_sequence(), Sequence(12));
    played.answer(again, written(70, 1, false));
    assert!(matches!(played.event(), Some(Event::Acked { first: Sequence(12), .. })));
}

#[test]
fn a_refusal_waits_for_the_batches_before_it() {
    let mut played = Played::open(Numbers::Own, None);
    played.append(&["a"], PATIENCE).unwrap();
    played.append(&["b"], PATIENCE).unwrap();
    let (first, _) = played.batch();
    let (second, _) = played.batch();
    played.refuse(second, for_good());
    assert_eq!(played.session.poll_transmit(), None, "to seal the second now would kill the first");
    played.answer(first, written(70, 1, false));
    assert!(matches!(played.event(), Some(Event::Acked { first: Sequence(10), .. })));
    assert_eq!(played.seal().1, Sequence(11));
}

#[test]
fn what_was_written_after_all_is_sent_once_more_and_recognised() {
    let mut played = Played::open(Numbers::Own, None);
    played.append(&["a", "b"], PATIENCE).unwrap();
    let _lost = played.batch();
    played.session.handle_disconnected(played.now, BROKER);
    played.connect();
    let (id, _) = played.batch();
    played.refuse(id, for_good());
    let (seal, _) = played.seal();
    played.answer(seal, Response::Resolved(Resolved::Committed { offset: Some(Offset(51)) }));
    assert_eq!(played.event(), Some(Event::Connected { broker: BROKER }));
    assert_eq!(played.event(), None, "somebody else may have written these numbers");
    let (id, batch) = played.batch();
    assert_eq!((batch.first_sequence(), batch.count()), (Sequence(10), 2));
    played.answer(id, written(50, 2, true));
    assert!(matches!(played.event(), Some(Event::Acked { offset: Offset(50), duplicate: true, .. })));
}

#[test]
fn a_batch_is_given_up_so_early_that_there_is_time_to_seal_it() {
    let mut played = Played::open(Numbers::Own, None);
    let begun = played.now;
    played.append(&["a"], PATIENCE).unwrap();
    while played.now < begun.after(PATIENCE.mul_f32(0.74)) {
        played.pass(Duration::from_millis(5));
        while let Some(transmit) = played.session.poll_transmit() {
            assert!(
                !matches!(transmit, Transmit::Request { request: Request::Resolve(_), .. }),
                "{transmit:?}"
            );
        }
    }
    let (seal, through) = played.seal();
    assert!(played.now < begun.after(PATIENCE));
    assert_eq!(through, Sequence(10));
    played.answer(seal, Response::Resolved(Resolved::Sealed));
    let failed = played.event();
    assert!(matches!(failed, Some(Event::Failed { why: Failure::DeadlinePassed { .. }, .. })), "{failed:?}");
    assert_eq!(played.append(&["b"], PATIENCE), Ok(Sequence(11)), "the producer goes on behind it");
}

#[test]
fn a_seal_without_an_answer_leaves_it_unknown() {
    let mut played = Played::open(Numbers::Own, None);
    let begun = played.now;
    played.append(&["a"], PATIENCE).unwrap();
    while played.now < begun.after(PATIENCE) {
        assert_eq!(played.event(), None);
        played.pass(Duration::from_millis(5));
        while played.session.poll_transmit().is_some() {}
    }
    assert!(matches!(played.event(), Some(Event::Unknown { .. })));
    assert_eq!(played.append(&["b"], PATIENCE), Err(AppendRefused::Broken));
}

#[test]
fn numbers_that_mean_something_are_never_given_up() {
    let mut played = Played::open(Numbers::Meaningful, None);
    let begun = played.now;
    played.append(&["a"], PATIENCE).unwrap();
    while played.now < begun.after(PATIENCE) {
        played.pass(Duration::from_millis(5));
        while let Some(transmit) = played.session.poll_transmit() {
            assert!(
                !matches!(transmit, Transmit::Request { request: Request::Resolve(_), .. }),
                "{transmit:?}"
            );
        }
    }
    assert!(matches!(played.event(), Some(Event::Unknown { .. })));
}

#[test]
fn a_seal_that_finds_the_name_taken_fails_what_is_not_written() {
    let mut played = Played::open(Numbers::Own, None);
    played.append(&["a"], PATIENCE).unwrap();
    let (id, _) = played.batch();
    played.refuse(id, for_good());
    let (seal, _) = played.seal();
    let fenced = Refusal::Fenced { by: Epoch(5), at: Offset(60), next: Sequence(10) };
    played.refuse(seal, fenced.clone());
    let Some(Event::Failed { why: Failure::Refused(why), .. }) = played.event() else {
        panic!("it has failed")
    };
    assert_eq!(why, fenced);
    assert_eq!(played.append(&["b"], PATIENCE), Err(AppendRefused::Fenced { by: Epoch(5) }));
}

#[test]
fn a_batch_that_is_partly_written_is_cut_there() {
    let mut played = Played::open(Numbers::Meaningful, Some(Sequence(7)));
    assert_eq!(played.append(&["h", "i", "j", "k", "l"], PATIENCE), Ok(Sequence(7)));
    let (id, _) = played.batch();
    played.refuse(id, Refusal::PartlyCommitted { up_to: Sequence(10) });
    let (lower, batch) = played.batch();
    assert_eq!((batch.first_sequence(), batch.count()), (Sequence(7), 3));
    let places = vec![Span { offset: Offset(44), count: 1 }];
    let (first, end) = (Offset(40), Offset(50));
    let appended =
        Appended { first, count: 3, duplicate: true, token: None, branch: None, end, rest: places.clone() };
    played.answer(lower, Response::Appended(appended));
    let (upper, batch) = played.batch();
    assert_eq!((batch.first_sequence(), batch.count()), (Sequence(10), 2));
    let values: Vec<_> = batch.records().map(|record| record.unwrap()).collect();
    assert_eq!(values[0].value.as_deref(), Some(&b"k"[..]));
    assert_eq!(values[0].timestamp, 5, "a record keeps its time");
    played.answer(upper, written(60, 2, false));
    let Some(Event::Acked { first: Sequence(7), count: 3, offset: Offset(40), rest, .. }) = played.event()
    else {
        panic!("the lower part is acknowledged");
    };
    assert_eq!(rest, places);
    let upper = played.event();
    assert!(matches!(upper, Some(Event::Acked { first: Sequence(10), count: 2, .. })), "{upper:?}");
}

#[test]
fn numbers_from_before_are_known_without_their_content_and_later_ones_are_not() {
    let mut played = Played::open(Numbers::Meaningful, Some(Sequence(7)));
    played.append(&["h"], PATIENCE).unwrap();
    let (id, _) = played.batch();
    played.refuse(id, Refusal::AlreadyCommitted { next: Sequence(10) });
    assert!(matches!(played.event(), Some(Event::Known { first: Sequence(7), count: 1, .. })));

    let mut played = Played::open(Numbers::Own, None);
    played.append(&["k"], PATIENCE).unwrap();
    let (id, _) = played.batch();
    played.refuse(id, Refusal::AlreadyCommitted { next: Sequence(30) });
    let event = played.event();
    assert!(matches!(event, Some(Event::Unknown { .. })), "somebody else wrote it, or we did: {event:?}");
}

#[test]
fn a_batch_that_is_sealed_in_the_middle_is_cut_around_it() {
    let mut played = Played::open(Numbers::Own, Some(Sequence(5)));
    played.append(&["f", "g", "h", "i", "j"], PATIENCE).unwrap();
    let (id, _) = played.batch();
    let sealed = Refusal::Sealed { first: Sequence(6), end: Sequence(8) };
    played.refuse(id, sealed.clone());
    let parts: Vec<_> = (0..3).map(|_| played.batch()).collect();
    let cuts: Vec<_> = parts.iter().map(|(_, batch)| (batch.first_sequence().0, batch.count())).collect();
    assert_eq!(cuts, [(5, 1), (6, 2), (8, 2)]);
    played.answer(parts[0].0, written(30, 1, true));
    played.refuse(parts[1].0, sealed);
    played.answer(parts[2].0, written(33, 2, true));
    assert!(matches!(played.event(), Some(Event::Acked { first: Sequence(5), .. })));
    assert!(matches!(played.event(), Some(Event::Failed { first: Sequence(6), count: 2, .. })));
    assert!(matches!(played.event(), Some(Event::Acked { first: Sequence(8), count: 2, .. })));
}

#[test]
fn what_a_fenced_producer_repeated_is_still_found_where_it_lies() {
    let mut played = Played::open(Numbers::Meaningful, Some(Sequence(8)));
    played.append(&["i", "j", "k"], PATIENCE).unwrap();
    let (id, _) = played.batch();
    let fenced = Refusal::Fenced { by: Epoch(5), at: Offset(60), next: Sequence(10) };
    played.refuse(id, fenced);
    assert!(matches!(played.event(), Some(Event::Failed { first: Sequence(10), count: 1, .. })));
    assert_eq!(played.event(), None, "what it repeats may be written");
    let (id, repeated) = played.batch();
    assert_eq!((repeated.first_sequence(), repeated.count()), (Sequence(8), 2));
    played.answer(id, written(40, 2, true));
    assert!(matches!(played.event(), Some(Event::Acked { first: Sequence(8), count: 2, .. })));
}
