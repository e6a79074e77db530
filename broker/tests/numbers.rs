//! What becomes of numbers: those that come again in other batches, those that are given up, those of a closed name.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod trio;

use sequor_client::protocol::batch::BatchBuilder;
use sequor_client::protocol::{
    Acks, Append, Appended, Epoch, Offset, ProducerId, Refusal, Request, Resolve, Resolved, Response, Retire,
    Sequence, Span,
};

use self::trio::*;

/// Values at sequences from `first` on, each with another timestamp than any other time.
fn send(producer: ProducerId, first: u64, values: &[&str]) -> Request {
    let mut builder = BatchBuilder::new();
    for (value, at) in values.iter().zip(0..) {
        builder.push_value(None, value.as_bytes(), i64::from(values.len() as u32) * 100 + at).unwrap();
    }
    let batch = builder.seal(producer, Epoch(1), Sequence(first));
    Request::Append(Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch })
}

fn appended(response: Response) -> Appended {
    match response {
        Response::Appended(appended) => appended,
        other => panic!("not written: {other:?}"),
    }
}

/// Lets followers hear of the commit by a heartbeat.
fn catch_up(trio: &mut Trio) {
    for _ in 0..6 {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        (1..=3).for_each(|id| trio.core(id).handle_tick(now));
        trio.settle();
    }
}

fn span(offset: u64, count: u32) -> Span {
    Span { offset: Offset(offset), count }
}

/// Two producers. The first one's numbers 0 to 6 are written as `ab`, `c`, `defg`, with records of the other in between.
fn written() -> (Trio, ProducerId) {
    let mut trio = Trio::with_leader();
    let (ours, others) = (trio.open("ours"), trio.open("others"));
    for request in [
        send(ours, 0, &["a", "b"]),
        send(others, 0, &["1", "2", "3"]),
        send(ours, 2, &["c"]),
        send(ours, 3, &["d", "e", "f", "g"]),
    ] {
        assert!(!appended(trio.call(request)).duplicate);
    }
    (trio, ours)
}

#[test]
fn the_same_records_in_other_batches_are_recognised_wherever_they_lie() {
    let (mut trio, ours) = written();
    let last = trio.core(1).status().last_index;
    for (first, values, at, rest) in [
        (0, &["a", "b", "c", "d", "e", "f", "g"][..], 0, &[span(5, 5)][..]),
        (1, &["b", "c", "d"], 1, &[span(5, 2)]),
        (0, &["a"], 0, &[]),
        (1, &["b"], 1, &[]),
        (2, &["c", "d"], 5, &[]),
        (4, &["e", "f"], 7, &[]),
        (6, &["g"], 9, &[]),
    ] {
        let again = appended(trio.call(send(ours, first, values)));
        assert!(again.duplicate);
        assert_eq!((again.first, again.count as usize), (Offset(at), values.len()), "{values:?}");
        assert_eq!(again.rest, rest, "{values:?}");
        assert_eq!(again.end, Offset(10));
    }
    assert_eq!(trio.core(1).status().last_index, last, "nothing was written");
}

#[test]
fn one_record_that_differs_is_found_wherever_it_lies() {
    let (mut trio, ours) = written();
    for (first, values, sequence, offset) in [
        (0, &["a", "X", "c"][..], 1, 1),
        (0, &["X"], 0, 0),
        (1, &["b", "c", "d", "X"], 4, 7),
        (0, &["a", "b", "c", "d", "e", "f", "X"], 6, 9),
    ] {
        let reused = Refusal::SequenceReused { first: Sequence(sequence), offset: Offset(offset) };
        assert_eq!(trio.call(send(ours, first, values)), Response::Refused(reused), "{values:?}");
    }
}

#[test]
fn what_is_only_partly_written_is_told_how_far() {
    let (mut trio, ours) = written();
    let partly = Refusal::PartlyCommitted { up_to: Sequence(7) };
    assert_eq!(trio.call(send(ours, 5, &["f", "g", "h"])), Response::Refused(partly));
}

#[test]
fn a_cut_of_what_is_not_committed_yet_is_compared_when_it_is() {
    let mut trio = Trio::with_leader();
    let ours = trio.open("ours");
    trio.ask(send(ours, 0, &["a", "b", "c"]));
    let same = trio.ask(send(ours, 0, &["a", "b"]));
    let other = trio.ask(send(ours, 1, &["b", "X"]));
    trio.pass(1);
    assert_eq!(trio.answer(), None, "nothing of it is committed");
    trio.settle();
    let mut answers: Vec<_> = std::iter::from_fn(|| trio.answer()).collect();
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!((answers[1].0, answers[2].0), (same, other));
    assert_eq!(appended(answers[1].1.clone()).first, Offset(0));
    let reused = Refusal::SequenceReused { first: Sequence(2), offset: Offset(2) };
    assert_eq!(answers[2].1, Response::Refused(reused));
}

#[test]
fn many_small_batches_come_back_as_one() {
    let mut trio = Trio::with_leader();
    let (ours, others) = (trio.open("ours"), trio.open("others"));
    let values: Vec<String> = (0..2000).map(|at| format!("{at:0100}")).collect();
    for (at, value) in (0..).zip(&values) {
        trio.ask(send(ours, at, &[value]));
        if at % 3 == 0 {
            trio.ask(send(others, at / 3, &["in between"]));
        }
        if at % 100 == 0 {
            trio.settle();
        }
    }
    trio.settle();
    while trio.answer().is_some() {}
    let all: Vec<&str> = values.iter().map(String::as_str).collect();
    let again = appended(trio.call(send(ours, 0, &all)));
    assert!(again.duplicate);
    let scattered: u32 = again.rest.iter().map(|span| span.count).sum();
    assert_eq!((again.first, again.count - scattered), (Offset(0), 1));
    assert_eq!(again.rest.len(), 667, "one place between any two records of the other producer");
}

#[test]
fn what_is_sealed_is_sealed_on_every_broker() {
    let (mut trio, ours) = written();
    let seal = |sequence, seal| {
        Request::Resolve(Resolve { producer: ours, epoch: Epoch(1), sequence: Sequence(sequence), seal })
    };
    assert_eq!(trio.call(seal(8, false)), Response::Resolved(Resolved::Open));
    assert_eq!(trio.call(seal(8, true)), Response::Resolved(Resolved::Sealed));
    assert_eq!(trio.call(seal(7, false)), Response::Resolved(Resolved::Sealed));
    assert_eq!(trio.call(seal(6, true)), Response::Resolved(Resolved::Committed { offset: Some(Offset(9)) }));
    let sealed = Refusal::Sealed { first: Sequence(7), end: Sequence(9) };
    assert_eq!(trio.call(send(ours, 7, &["h"])), Response::Refused(sealed));
    assert_eq!(appended(trio.call(send(ours, 9, &["j"]))).first, Offset(10));
    catch_up(&mut trio);
    let prints: Vec<u32> = (1..=3).map(|id| trio.core(id).state().fingerprint()).collect();
    assert_eq!(prints, [prints[0]; 3]);
}

#[test]
fn a_retired_name_refuses_everything_on_every_broker() {
    let (mut trio, ours) = written();
    let retire = Request::Retire(Retire { producer: ours, epoch: Epoch(1) });
    let Response::Retired(retired) = trio.call(retire.clone()) else { panic!("it retires") };
    assert_eq!(retired.next, Sequence(7));
    assert_eq!(trio.call(retire), Response::Retired(retired), "once more is harmless");
    assert_eq!(trio.call(send(ours, 0, &["a", "b"])), Response::Refused(Refusal::Retired));
    catch_up(&mut trio);
    for id in 1..=3 {
        assert!(trio.core(id).state().producers().show("ours").unwrap().retired);
    }
}
