//! The checker is checked: a sound history passes, and each way to spoil it is found, and called by its name.

use super::{Checker, Digest, Event, Place, Run, Verdict, Violation};

const COUNT: u32 = 4;

fn digest(producer: &str, first: u64, count: u32) -> Digest {
    (first..first + u64::from(count))
        .map(|number| Digest::of_record(producer, number, None, Some(b"x")))
        .sum()
}

fn run(offset: u64, producer: &str, first: u64) -> Run {
    run_of(offset, producer, 1, first, COUNT)
}

fn run_of(offset: u64, producer: &str, epoch: u64, first: u64, count: u32) -> Run {
    Run { offset, producer: producer.into(), epoch, first, count, digest: digest(producer, first, count) }
}

fn invoked(id: u64, producer: &str, first: u64) -> Event {
    invoked_under(id, producer, 1, first, COUNT)
}

fn invoked_under(id: u64, producer: &str, epoch: u64, first: u64, count: u32) -> Event {
    let digest = digest(producer, first, count);
    Event::Invoked { id, producer: producer.into(), epoch, first, count, digest }
}

fn written(id: u64, offset: u64) -> Event {
    Event::Written { id, places: vec![Place { offset, count: COUNT }], duplicate: false }
}

fn refused(id: u64) -> Event {
    Event::Refused { id, why: "no".into() }
}

fn unknown(id: u64) -> Event {
    Event::Unknown { id, why: "who knows".into() }
}

fn log(broker: u64, runs: &[Run]) -> Vec<Event> {
    let held = runs.iter().map(|run| Event::Held { broker, run: run.clone() });
    let end = runs.last().map_or(0, |run| run.offset + u64::from(run.count));
    held.chain([Event::Ended { broker, end }]).collect()
}

fn judge(events: &[Event]) -> Verdict {
    let logs = events.iter().filter(|event| matches!(event, Event::Ended { .. })).count();
    judge_of(logs as u64, events)
}

fn judge_of(brokers: u64, events: &[Event]) -> Verdict {
    let mut checker = Checker::new();
    checker.push(&Event::Began { brokers });
    events.iter().for_each(|event| checker.push(event));
    checker.finish()
}

/// The history of clients, and the same log on three brokers.
fn judge_with(clients: &[Event], runs: &[Run]) -> Verdict {
    let mut events = clients.to_vec();
    (1..=3).for_each(|broker| events.extend(log(broker, runs)));
    judge(&events)
}

/// Three batches of `a` and one of `b`, all acknowledged.
fn clients() -> Vec<Event> {
    vec![
        invoked(1, "a", 0),
        invoked(2, "a", 4),
        written(1, 0),
        invoked(3, "b", 0),
        written(3, 4),
        written(2, 8),
        invoked(4, "a", 8),
        written(4, 12),
    ]
}

/// Their log.
fn runs() -> Vec<Run> {
    vec![run(0, "a", 0), run(4, "b", 0), run(8, "a", 4), run(12, "a", 8)]
}

#[track_caller]
fn assert_finds(verdict: &Verdict, found: impl Fn(&Violation) -> bool) {
    assert!(verdict.violations.iter().any(found), "{verdict:?}");
    assert_eq!(verdict.broken, verdict.violations.len() as u64);
}

#[test]
fn a_sound_history_holds() {
    let verdict = judge_with(&clients(), &runs());
    assert!(verdict.holds(), "{verdict:?}");
    let seen = verdict.seen;
    assert_eq!((seen.requests, seen.written, seen.records, seen.held, seen.logs), (4, 4, 16, 16, 3));
    assert_eq!(seen.incomparable, 0);
}

#[test]
fn a_lost_record_is_found() {
    let mut short = runs();
    short.pop();
    assert_finds(&judge_with(&clients(), &short), |violation| {
        matches!(violation, Violation::Lost { sequence: 8, offset: 12, .. }) && violation.is_loss()
    });
    // Out of the middle: what follows has moved up.
    let moved = [run(0, "a", 0), run(4, "a", 4), run(8, "a", 8)];
    let verdict = judge_with(&clients(), &moved);
    assert_finds(
        &verdict,
        |violation| matches!(violation, Violation::Lost { producer, .. } if producer == "b"),
    );
    assert_finds(&verdict, |violation| {
        matches!(violation, Violation::Misplaced { sequence: 4, found: 4, .. })
    });
}

#[test]
fn a_single_lost_record_of_a_batch_is_found() {
    let mut short = runs();
    short[3] = run_of(12, "a", 1, 8, 3);
    assert_finds(&judge_with(&clients(), &short), |violation| {
        matches!(violation, Violation::Lost { sequence: 11, offset: 15, .. })
    });
}

#[test]
fn a_doubled_record_is_found() {
    let mut doubled = runs();
    doubled.push(run(16, "a", 4));
    assert_finds(&judge_with(&clients(), &doubled), |violation| {
        matches!(violation, Violation::Doubled { sequence: 4, offset: 16, .. }) && violation.is_double()
    });
    // Also when its numbers lie across two batches that are there.
    let mut across = runs();
    across.push(run(16, "a", 6));
    assert_finds(&judge_with(&clients(), &across), Violation::is_double);
}

#[test]
fn a_reordered_record_is_found() {
    let swapped = [run(0, "a", 4), run(4, "b", 0), run(8, "a", 0), run(12, "a", 8)];
    let verdict = judge_with(&clients(), &swapped);
    assert_finds(&verdict, |violation| {
        matches!(violation, Violation::Reordered { sequence: 0, offset: 8, before: 7, .. })
    });
    assert_finds(&verdict, |violation| matches!(violation, Violation::Gap { from: 0, to: 3, .. }));
}

#[test]
fn a_wrongly_refused_record_is_found() {
    let clients = [invoked(1, "a", 0), refused(1)];
    assert_finds(&judge_with(&clients, &[run(0, "a", 0)]), |violation| {
        matches!(violation, Violation::RefusedAndWritten { sequence: 0, epoch: 1, .. })
    });
    // It is another thing when it is sent again, under another epoch.
    let again = [invoked(1, "a", 0), refused(1), invoked_under(2, "a", 2, 0, COUNT), written(2, 0)];
    assert!(judge_with(&again, &[run_of(0, "a", 2, 0, COUNT)]).holds());
    assert!(!judge_with(&again, &[run(0, "a", 0)]).holds(), "that is the refused one");
}

#[test]
fn a_wrongly_sealed_number_is_found() {
    let sealed = Event::Sealed { producer: "a".into(), sequence: 3 };
    let clients = [invoked(1, "a", 0), unknown(1), sealed.clone()];
    assert_finds(&judge_with(&clients, &[run(0, "a", 0)]), |violation| {
        matches!(violation, Violation::SealedAndWritten { sequence: 3, offset: 3, .. })
    });
    assert_finds(&judge_with(&clients, &[]), |violation| {
        matches!(violation, Violation::SealedAndOpen { sequence: 3, .. })
    });
    let gave_up = Event::GaveUp { broker: 1, producer: "a".into(), first: 0, end: 4 };
    assert!(judge(&[&clients[..], &[gave_up], &log(1, &[])].concat()).holds());
    let committed = Event::Committed { producer: "a".into(), sequence: 3, offset: None };
    assert_finds(&judge_with(&[invoked(1, "a", 0), committed], &[]), Violation::is_loss);
}

#[test]
fn what_is_unknown_may_be_there_and_may_not() {
    let clients = [invoked(1, "a", 0), unknown(1), invoked(2, "b", 0)];
    for runs in [&[][..], &[run(0, "a", 0)], &[run(0, "b", 0), run(4, "a", 0)]] {
        assert!(judge_with(&clients, runs).holds(), "{runs:?}");
    }
    assert_eq!(judge_with(&clients, &[]).seen.unknown, 2);
}

#[test]
fn a_number_that_is_left_out_has_to_be_given_up() {
    let clients = [invoked(1, "a", 0), refused(1), invoked(2, "a", 4), written(2, 0)];
    let runs = [run(0, "a", 4)];
    assert_finds(&judge_with(&clients, &runs), |violation| {
        matches!(violation, Violation::Gap { from: 0, to: 3, .. })
    });
    let mut events = clients.to_vec();
    for broker in 1..=3 {
        events.push(Event::GaveUp { broker, producer: "a".into(), first: 0, end: 4 });
        events.extend(log(broker, &runs));
    }
    let verdict = judge(&events);
    assert!(verdict.holds(), "{verdict:?}");
    // On one broker it lies elsewhere.
    let last = events.iter().rposition(|event| matches!(event, Event::GaveUp { .. })).unwrap();
    events.swap(last, last + 1);
    assert_finds(&judge(&events), |violation| matches!(violation, Violation::LogsDiffer { broker: 3, .. }));
}

#[test]
fn a_record_from_nowhere_is_found() {
    let mut more = runs();
    more.push(run(16, "a", 12));
    assert_finds(&judge_with(&clients(), &more), |violation| {
        matches!(violation, Violation::FromNowhere { sequence: 12, .. })
    });
    let mut other_epoch = runs();
    other_epoch[3].epoch = 2;
    assert_finds(&judge_with(&clients(), &other_epoch), |violation| {
        matches!(violation, Violation::FromNowhere { sequence: 8, epoch: 2, .. })
    });
}

#[test]
fn changed_content_is_found_also_in_other_cuts() {
    let mut changed = runs();
    changed[2].digest = digest("a", 5, COUNT);
    assert_finds(&judge_with(&clients(), &changed), |violation| {
        matches!(violation, Violation::Changed { .. })
    });

    let resent = |id, first, count| invoked_under(id, "a", 2, first, count);
    let mut clients = vec![invoked(1, "a", 0), unknown(1), invoked(2, "a", 4), unknown(2)];
    clients.extend([resent(3, 0, 6), unknown(3), resent(4, 6, 2), unknown(4)]);
    let mut cut = vec![run_of(0, "a", 1, 0, 4), run_of(4, "a", 2, 4, 2), run_of(6, "a", 2, 6, 2)];
    let verdict = judge_with(&clients, &cut);
    assert!(verdict.holds() && verdict.seen.incomparable == 0, "{verdict:?}");
    cut[1].digest = Digest(1);
    assert_finds(&judge_with(&clients, &cut), |violation| matches!(violation, Violation::Changed { .. }));
}

#[test]
fn a_batch_in_several_places_is_looked_for_in_all_of_them() {
    let places = vec![Place { offset: 0, count: 1 }, Place { offset: 5, count: 3 }];
    let clients = [
        invoked_under(1, "a", 1, 0, 1),
        unknown(1),
        invoked(2, "b", 0),
        written(2, 1),
        invoked_under(3, "a", 2, 0, 4),
        Event::Written { id: 3, places, duplicate: true },
    ];
    let sound = [run_of(0, "a", 1, 0, 1), run(1, "b", 0), run_of(5, "a", 2, 1, 3)];
    let verdict = judge_with(&clients, &sound);
    assert!(verdict.holds(), "{verdict:?}");
    let again = [
        invoked_under(4, "a", 3, 1, 3),
        Event::Written { id: 4, places: vec![Place { offset: 5, count: 3 }], duplicate: true },
    ];
    let twice = judge_with(&[&clients[..], &again].concat(), &sound);
    assert_eq!((twice.holds(), twice.seen.records), (true, verdict.seen.records), "it is counted once");
    assert_finds(&judge_with(&clients, &sound[..2]), |violation| {
        matches!(violation, Violation::Lost { sequence: 1, offset: 5, .. })
    });
}

#[test]
fn the_parts_of_a_batch_that_was_cut_have_outcomes_of_their_own() {
    let part =
        |id, offset, count| Event::Written { id, places: vec![Place { offset, count }], duplicate: false };
    let cut = |id, count| Event::Cut { id, count, rest: 9 };
    let clients = [invoked(1, "a", 0), cut(1, 3), part(1, 0, 3), refused(9)];
    let verdict = judge_with(&clients, &[run_of(0, "a", 1, 0, 3)]);
    assert!(verdict.holds(), "{verdict:?}");
    assert_finds(&judge_with(&clients, &[run(0, "a", 0)]), |violation| {
        matches!(violation, Violation::RefusedAndWritten { sequence: 3, .. })
    });
    assert_finds(&judge_with(&clients, &[]), |violation| matches!(violation, Violation::Lost { .. }));
    for wrong in [cut(1, 0), cut(1, COUNT), cut(2, 1), Event::Cut { id: 1, count: 1, rest: 1 }] {
        let verdict = judge_with(&[invoked(1, "a", 0), wrong], &[]);
        assert_finds(&verdict, |violation| matches!(violation, Violation::Unsound(_)));
    }
}

#[test]
fn what_is_written_behind_its_successor_is_found() {
    let granted = |broker, epoch| Event::Granted { broker, producer: "a".into(), epoch };
    let clients = [invoked(1, "a", 0), invoked_under(2, "a", 2, 0, COUNT)];
    let [old, new] = [1, 2].map(|epoch| run_of(0, "a", epoch, 0, COUNT));
    let with = |grants: &[u64], held: &Run| {
        let grants: Vec<_> = grants.iter().map(|epoch| granted(1, *epoch)).collect();
        judge(&[&clients[..], &grants, &log(1, std::slice::from_ref(held))].concat())
    };
    assert!(with(&[1], &old).holds() && with(&[1, 2], &new).holds());
    assert_finds(&with(&[1, 2], &old), |violation| {
        matches!(violation, Violation::FencedAndWritten { epoch: 1, by: 2, sequence: 0, .. })
    });
    assert_finds(&with(&[2, 2], &new), |violation| {
        matches!(violation, Violation::EpochReused { epoch: 2, before: 2, .. })
    });
    // One epoch, and two who write under it.
    let both = judge_with(&[invoked(1, "a", 0), invoked(2, "a", 2)], &[]);
    assert_finds(&both, |violation| matches!(violation, Violation::Unsound(_)));
}

#[test]
fn an_entry_without_a_number_is_found() {
    let mut empty = runs();
    empty.push(run_of(16, "a", 1, 12, 0));
    assert_finds(&judge_with(&clients(), &empty), |violation| matches!(violation, Violation::Empty { .. }));
    for first in [0, 1] {
        let gave_up = Event::GaveUp { broker: 1, producer: "a".into(), first, end: 0 };
        let verdict = judge(&[&[gave_up][..], &log(1, &[])].concat());
        assert_finds(&verdict, |violation| matches!(violation, Violation::Empty { .. }));
    }
}

#[test]
fn a_number_that_is_used_up_is_not_open() {
    let inquired = |id| Event::Inquired { id, producer: "a".into() };
    let sent = [invoked(1, "a", 0)];
    let with = |clients: &[Event]| judge_with(&[&sent[..], clients].concat(), &[run(0, "a", 0)]);
    let stale = |violation: &Violation| matches!(violation, Violation::StaleStream { used: 4, .. });
    for answer in [Event::Open { id: 9, sequence: 3 }, Event::Stands { id: 9, next: 3 }] {
        assert_finds(&with(&[written(1, 0), inquired(9), answer.clone()]), stale);
        let early = with(&[inquired(9), written(1, 0), answer.clone()]);
        assert!(early.holds(), "the question was asked before: {early:?}");
        assert_finds(&with(&[answer]), |violation| matches!(violation, Violation::Unsound(_)));
    }
    assert!(with(&[written(1, 0), inquired(9), Event::Open { id: 9, sequence: 4 }]).holds());
    assert_finds(&with(&[inquired(9), Event::Stands { id: 9, next: 6 }]), |violation| {
        matches!(violation, Violation::Missing { sequence: 5, .. })
    });
}

#[test]
fn a_place_beyond_all_numbers_is_no_place() {
    let verdict = judge_with(&[invoked(1, "a", 0), written(1, u64::MAX)], &[]);
    assert_finds(&verdict, Violation::is_loss);
}

#[test]
fn logs_that_differ_are_found() {
    let mut events = clients();
    events.extend(log(1, &runs()));
    let mut other = runs();
    other[1].epoch = 9;
    let with = |runs: &[Run]| judge(&[&events[..], &log(2, runs)].concat());
    assert_finds(&with(&other), |violation| {
        matches!(violation, Violation::LogsDiffer { broker: 2, reference: 1, offset: 4 })
    });
    assert_finds(&with(&runs()[..3]), |violation| {
        matches!(violation, Violation::EndsDiffer { broker: 2, end: 12, .. })
    });
    assert!(with(&runs()).holds());
    // One of which no end is known was not read to it.
    let unread = [&events[..], &log(2, &runs())[..3]].concat();
    assert_finds(&judge(&unread), |violation| matches!(violation, Violation::Unsound(_)));
}

#[test]
fn offsets_have_to_be_dense() {
    let mut gap = runs();
    gap[3].offset = 13;
    assert_finds(&judge_with(&clients(), &gap), |violation| {
        matches!(violation, Violation::NotDense { expected: 12, found: 13, .. })
    });
}

#[test]
fn readers_are_given_the_log() {
    let read = |reader, run: Run| Event::Read { reader, run };
    let with = |reads: &[Event]| judge_with(&[&clients()[..], reads].concat(), &runs());
    let rest = run_of(6, "b", 1, 2, 2);
    assert!(with(&[read(1, run(0, "a", 0)), read(2, rest), read(1, run(4, "b", 0))]).holds());
    assert_finds(&with(&[read(1, run(0, "a", 0)), read(1, run(8, "a", 4))]), |violation| {
        matches!(violation, Violation::Misread { expected: 4, found: 8, .. })
    });
    assert_finds(&with(&[read(1, run(0, "b", 0))]), |violation| {
        matches!(violation, Violation::ReadDiffers { reader: 1, offset: 0 })
    });
    assert_finds(&with(&[read(1, run(16, "a", 12))]), |violation| {
        matches!(violation, Violation::ReadDiffers { offset: 16, .. })
    });
    let subscribed = Event::Subscribed { reader: 1, from: 4 };
    assert!(with(&[subscribed.clone(), read(1, run(4, "b", 0))]).holds());
    assert_finds(&with(&[subscribed.clone(), read(1, run(8, "a", 4))]), |violation| {
        matches!(violation, Violation::Misread { expected: 4, found: 8, .. })
    });
    assert_finds(&with(&[subscribed.clone(), subscribed]), |violation| {
        matches!(violation, Violation::Unsound(_))
    });
}

#[test]
fn what_begins_later_lies_behind() {
    let clients = [invoked(1, "a", 0), written(1, 4), invoked(2, "b", 0), written(2, 0)];
    let runs = [run(0, "b", 0), run(4, "a", 0)];
    assert_finds(&judge_with(&clients, &runs), |violation| {
        matches!(violation, Violation::OutOfTime { sequence: 0, offset: 0, end: 8, .. })
    });
    let ask = |told| {
        let asked = [Event::Asked { id: 1 }, Event::Answered { id: 1, end: told }];
        judge_with(&[&self::clients()[..], &asked].concat(), &self::runs())
    };
    assert!(ask(16).holds());
    assert_finds(&ask(15), |violation| matches!(violation, Violation::StaleEnd { told: 15, end: 16, .. }));
    assert_finds(&ask(17), |violation| matches!(violation, Violation::EndBeyond { told: 17, end: 16, .. }));
    // Whoever was given a record, or told of an end, has no less to expect of the next question, nor of the next batch.
    let asked = |told| [Event::Asked { id: 1 }, Event::Answered { id: 1, end: told }];
    let read = Event::Read { reader: 1, run: run(0, "a", 0) };
    let late = judge_with(&[&[invoked(1, "a", 0), read][..], &asked(3)].concat(), &[run(0, "a", 0)]);
    assert_finds(&late, |violation| matches!(violation, Violation::StaleEnd { told: 3, end: 4, .. }));
    let clients = [&[invoked(1, "a", 0)][..], &asked(4), &[invoked(2, "b", 0), written(2, 0)]].concat();
    assert_finds(&judge_with(&clients, &[run(0, "b", 0), run(4, "a", 0)]), |violation| {
        matches!(violation, Violation::OutOfTime { sequence: 0, offset: 0, end: 4, .. })
    });
}

#[test]
fn a_history_that_makes_no_sense_is_none() {
    let unsound = |events: &[Event]| {
        assert_finds(&judge_with(events, &[]), |violation| matches!(violation, Violation::Unsound(_)));
    };
    unsound(&[written(1, 0)]);
    unsound(&[invoked(1, "a", 0), refused(1), refused(1)]);
    unsound(&[invoked(1, "a", 0), invoked(1, "b", 0)]);
    let other =
        Event::Invoked { id: 2, producer: "a".into(), epoch: 2, first: 0, count: COUNT, digest: Digest(7) };
    unsound(&[invoked(1, "a", 0), other]);
    let unsound = |violation: &Violation| matches!(violation, Violation::Unsound(_));
    assert_finds(&judge_of(3, &[]), unsound);
    assert_finds(&judge_of(1, &[invoked(1, "a", 0)]), unsound);
    assert_finds(&Checker::new().finish(), unsound);
    let two: Vec<Event> = [1, 2].into_iter().flat_map(|broker| log(broker, &runs())).collect();
    assert_finds(&judge_of(3, &[clients(), two.clone()].concat()), unsound);
    assert!(judge_of(2, &[clients(), two].concat()).holds());
}
