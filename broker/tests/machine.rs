//! The state machine against a naive model, and its rules one by one.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use sequor_broker::core::effect::{self, Effect, Effects, Envelope, LEVEL};
use sequor_broker::core::genesis::{Genesis, Member, Settings};
use sequor_broker::core::machine::{Machine, Operation, Verdict};
use sequor_broker::core::producers::AppendVerdict;
use sequor_client::protocol::batch::{Batch, BatchBuilder};
use sequor_client::protocol::{
    Appended, BrokerId, Epoch, Instance, Offset, ProducerId, Refusal, Resolved, Response, Sequence, Span,
};

fn genesis(producers_max: u64) -> Genesis {
    let member = Member { id: BrokerId(1), address: "localhost:7400".into(), certificate: [1; 32] };
    Genesis::new(vec![member], Settings { producers_max, ..Settings::default() }).unwrap()
}

fn machine() -> Machine {
    Machine::new(&genesis(1000))
}

fn open(name: &str, instance: u8, expected: u64) -> Operation {
    Operation::Open { name: name.into(), instance: Instance([instance; 16]), expected: Epoch(expected) }
}

fn batch(producer: u64, epoch: u64, first: u64, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push_value(None, value.as_bytes(), 1_700_000_000_000).unwrap();
    }
    Batch::parse(builder.seal(ProducerId(producer), Epoch(epoch), Sequence(first))).unwrap()
}

fn append(producer: u64, epoch: u64, first: u64, values: &[&str]) -> Operation {
    Operation::Append { batch: batch(producer, epoch, first, values), settled: Sequence(0) }
}

fn seal(producer: u64, epoch: u64, through: u64) -> Operation {
    Operation::Seal { producer: ProducerId(producer), epoch: Epoch(epoch), through: Sequence(through) }
}

fn retire(producer: u64, epoch: u64) -> Operation {
    Operation::Retire { producer: ProducerId(producer), epoch: Epoch(epoch) }
}

/// Decides and, if there is something to write, writes it by way of its bytes, as a follower would.
fn run(machine: &mut Machine, operation: &Operation) -> Verdict {
    let verdict = machine.decide(operation);
    if let Verdict::Write(effect) = &verdict {
        let envelope = Envelope { level: LEVEL, log_time_ms: 1, wall_ms: 2 };
        let data = effect::encode(envelope, std::slice::from_ref(effect));
        for effect in Effects::open(data).unwrap() {
            machine.apply(&effect.unwrap()).unwrap();
        }
    }
    verdict
}

fn refusal(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn written_at(verdict: &Verdict) -> Offset {
    match verdict {
        Verdict::Write(Effect::Append(written)) => written.base,
        other => panic!("not written: {other:?}"),
    }
}

#[test]
fn offsets_are_dense_across_producers() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &open("b", 1, 0));
    assert_eq!(written_at(&run(&mut machine, &append(1, 1, 0, &["x", "y"]))), Offset(0));
    assert_eq!(written_at(&run(&mut machine, &append(2, 1, 0, &["z"]))), Offset(2));
    assert_eq!(written_at(&run(&mut machine, &append(1, 1, 2, &["w"]))), Offset(3));
    assert_eq!(machine.end(), Offset(4));
}

#[test]
fn a_repetition_gets_its_original_offset_even_from_a_fenced_epoch() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &append(1, 1, 0, &["x", "y"]));
    run(&mut machine, &append(1, 1, 2, &["z"]));
    run(&mut machine, &open("a", 2, 1));
    let verdict = run(&mut machine, &append(1, 1, 2, &["z"]));
    let Verdict::Known(Response::Appended(Appended { duplicate: true, first: Offset(2), .. })) = verdict
    else {
        panic!("not recognised: {verdict:?}");
    };
    assert_eq!(machine.end(), Offset(3));
}

#[test]
fn an_older_epoch_writes_nothing_new() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &append(1, 1, 0, &["x"]));
    run(&mut machine, &open("a", 2, 1));
    let fenced = Refusal::Fenced { by: Epoch(2), at: Offset(1), next: Sequence(1) };
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 1, &["late"]))), fenced);
    assert_eq!(written_at(&run(&mut machine, &append(1, 2, 1, &["new"]))), Offset(1));
}

#[test]
fn a_number_that_is_taken_by_other_content_is_refused() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &append(1, 1, 0, &["x"]));
    let reused = Refusal::SequenceReused { first: Sequence(0), offset: Offset(0) };
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 0, &["y"]))), reused);
}

#[test]
fn a_gap_and_an_overlap_are_refused_with_the_next_number() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &append(1, 1, 0, &["x", "y"]));
    let gap = Refusal::SequenceGap { expected: Sequence(2), found: Sequence(3) };
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 3, &["z"]))), gap);
    let overlap = Refusal::PartlyCommitted { up_to: Sequence(2) };
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 1, &["y", "z"]))), overlap);
}

#[test]
fn a_delayed_open_fences_nobody() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &open("a", 2, 1));
    let late = refusal(run(&mut machine, &open("a", 3, 1)));
    assert!(matches!(late, Refusal::Fenced { by: Epoch(2), .. }), "{late:?}");
    let again = run(&mut machine, &open("a", 2, 1));
    assert!(matches!(again, Verdict::Known(Response::Opened(ref p)) if p.epoch == Epoch(2)), "{again:?}");
}

#[test]
fn what_is_settled_is_answered_without_its_offset() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    for first in 0..5 {
        let batch = batch(1, 1, first, &["x"]);
        run(&mut machine, &Operation::Append { batch, settled: Sequence(first) });
    }
    let settled = refusal(run(&mut machine, &append(1, 1, 1, &["x"])));
    assert_eq!(settled, Refusal::AlreadyCommitted { next: Sequence(5) });
    assert!(matches!(run(&mut machine, &append(1, 1, 4, &["x"])), Verdict::Known(_)));
}

#[test]
fn what_is_sealed_is_never_written_and_the_next_number_follows_it() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &append(1, 1, 0, &["x", "y"]));
    assert!(matches!(run(&mut machine, &seal(1, 1, 4)), Verdict::Write(_)));
    let sealed = Refusal::Sealed { first: Sequence(2), end: Sequence(5) };
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 2, &["late"]))), sealed);
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 1, &["y", "late"]))), sealed, "half of it is sealed");
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 4, &["late", "z"]))), sealed);
    assert_eq!(written_at(&run(&mut machine, &append(1, 1, 5, &["z"]))), Offset(2));
    assert_eq!(run(&mut machine, &seal(1, 1, 4)), Verdict::Known(Response::Resolved(Resolved::Sealed)));
    let written = Resolved::Committed { offset: Some(Offset(1)) };
    assert_eq!(run(&mut machine, &seal(1, 1, 1)), Verdict::Known(Response::Resolved(written)));
}

#[test]
fn seals_that_touch_are_one_interval_and_their_number_is_bounded() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &seal(1, 1, 0));
    run(&mut machine, &seal(1, 1, 6));
    assert_eq!(machine.producers().show("a").unwrap().sealed, [(Sequence(0), Sequence(7))]);
    let limit = sequor_client::protocol::limits::SEALS_MAX as u64;
    for at in 0..limit - 1 {
        run(&mut machine, &append(1, 1, 7 + 2 * at, &["x"]));
        assert!(matches!(run(&mut machine, &seal(1, 1, 8 + 2 * at)), Verdict::Write(_)), "{at}");
    }
    let next = 7 + 2 * (limit - 1);
    assert!(matches!(run(&mut machine, &seal(1, 1, next)), Verdict::Write(_)), "it touches the last one");
    run(&mut machine, &append(1, 1, next + 1, &["x"]));
    assert_eq!(refusal(run(&mut machine, &seal(1, 1, next + 2))), Refusal::SealsFull { limit });
}

#[test]
fn a_seal_reaches_no_further_than_a_window() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    let reach = sequor_client::protocol::limits::SEAL_REACH_MAX;
    let too_far = Refusal::SequenceGap { expected: Sequence(0), found: Sequence(reach) };
    assert_eq!(refusal(run(&mut machine, &seal(1, 1, reach))), too_far);
    assert!(matches!(run(&mut machine, &seal(1, 1, reach - 1)), Verdict::Write(_)));
    assert!(matches!(refusal(run(&mut machine, &seal(1, 1, u64::MAX))), Refusal::SequenceGap { .. }));
}

#[test]
fn a_retired_name_is_closed_for_ever_and_keeps_its_place() {
    let mut machine = Machine::new(&genesis(1));
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &append(1, 1, 0, &["x"]));
    assert!(matches!(refusal(run(&mut machine, &retire(1, 2))), Refusal::Fenced { by: Epoch(1), .. }));
    assert!(matches!(run(&mut machine, &retire(1, 1)), Verdict::Write(_)));
    let again = run(&mut machine, &retire(1, 1));
    assert!(
        matches!(again, Verdict::Known(Response::Retired(ref end)) if end.next == Sequence(1)),
        "{again:?}"
    );
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 0, &["x"]))), Refusal::Retired, "even a repetition");
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 1, &["y"]))), Refusal::Retired);
    assert_eq!(refusal(run(&mut machine, &open("a", 1, 0))), Refusal::Retired);
    assert_eq!(refusal(run(&mut machine, &seal(1, 1, 9))), Refusal::Retired);
    assert_eq!(refusal(run(&mut machine, &open("b", 1, 0))), Refusal::TableFull { limit_names: 1 });
}

fn session(instance: u8, ttl_ms: u64) -> Operation {
    Operation::OpenSession { instance: Instance([instance; 16]), ttl_ms }
}

/// As [`run`], in an entry of this log time.
fn run_at(machine: &mut Machine, log_time_ms: u64, operation: &Operation) -> Verdict {
    assert!(machine.advance_to(log_time_ms));
    run(machine, operation)
}

#[test]
fn a_session_writes_without_a_name_until_nobody_keeps_it_alive() {
    let mut machine = machine();
    run_at(&mut machine, 1000, &open("a", 1, 0));
    run_at(&mut machine, 1000, &session(7, 500));
    let again = run_at(&mut machine, 1100, &session(7, 500));
    assert!(matches!(again, Verdict::Known(Response::Opened(ref p)) if p.id == ProducerId(2)), "{again:?}");
    assert_eq!(machine.producers().len(), 1, "it takes no name");
    assert_eq!(written_at(&run_at(&mut machine, 1100, &append(2, 1, 0, &["x"]))), Offset(0));
    let expire = Operation::Expire(ProducerId(2));
    assert!(matches!(run_at(&mut machine, 1499, &expire), Verdict::Refuse(_)), "not yet");
    assert!(matches!(run_at(&mut machine, 1499, &Operation::Renew(ProducerId(2))), Verdict::Write(_)));
    assert!(matches!(run_at(&mut machine, 1998, &expire), Verdict::Refuse(_)), "it was kept alive");
    assert!(matches!(run_at(&mut machine, 1999, &expire), Verdict::Write(_)));
    for late in
        [append(2, 1, 0, &["x"]), append(2, 1, 1, &["y"]), Operation::Renew(ProducerId(2)), seal(2, 1, 5)]
    {
        assert_eq!(refusal(run_at(&mut machine, 2000, &late)), Refusal::SessionExpired, "{late:?}");
    }
    run_at(&mut machine, 2000, &session(7, 500));
    assert!(machine.producers().show_id(ProducerId(3)).is_some(), "a new session has a new number");
    assert_eq!(refusal(run(&mut machine, &Operation::Renew(ProducerId(1)))), Refusal::UnknownProducer);
    assert_eq!(refusal(run(&mut machine, &Operation::Renew(ProducerId(99)))), Refusal::UnknownProducer);
}

#[test]
fn a_session_that_is_retired_is_over_at_once() {
    let mut machine = machine();
    run_at(&mut machine, 1000, &session(7, 500));
    run_at(&mut machine, 1000, &append(1, 1, 0, &["x"]));
    assert!(matches!(run(&mut machine, &retire(1, 1)), Verdict::Write(_)));
    assert!(machine.sessions().is_empty());
    assert_eq!(refusal(run(&mut machine, &append(1, 1, 1, &["y"]))), Refusal::SessionExpired);
    assert_eq!(refusal(run(&mut machine, &retire(1, 1))), Refusal::SessionExpired);
}

#[test]
fn an_expiry_that_came_too_early_is_a_mismatch() {
    let mut machine = machine();
    run_at(&mut machine, 1000, &session(7, 500));
    assert!(machine.advance_to(1499));
    assert!(machine.apply(&Effect::Expire(ProducerId(1))).is_err());
    assert!(machine.advance_to(1500));
    assert!(machine.apply(&Effect::Expire(ProducerId(1))).is_ok());
}

#[test]
fn a_batch_cut_otherwise_is_neither_written_nor_refused_before_it_is_compared() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &open("b", 1, 0));
    run(&mut machine, &append(1, 1, 0, &["x", "y"]));
    run(&mut machine, &append(2, 1, 0, &["in between"]));
    run(&mut machine, &append(1, 1, 2, &["z"]));
    let again = batch(1, 1, 1, &["y", "z"]);
    let verdict = run(&mut machine, &append(1, 1, 1, &["y", "z"]));
    assert_eq!(verdict, Verdict::Recut(again.clone()));
    let places = [1, 3].map(|offset| Span { offset: Offset(offset), count: 1 }).to_vec();
    assert_eq!(machine.producers().judge_append(&again, 2), Ok(AppendVerdict::Recut { places }));
}

#[test]
fn the_table_is_listed_page_by_page_in_the_order_of_names() {
    let mut machine = machine();
    for name in ["c", "a", "b", "d"] {
        run(&mut machine, &open(name, 1, 0));
    }
    let names = |after: Option<&str>, limit| {
        let page = machine.producers().list(after, limit);
        (page.producers.into_iter().map(|known| known.name).collect::<Vec<_>>().concat(), page.more)
    };
    assert_eq!(names(None, 2), ("ab".into(), true));
    assert_eq!(names(Some("b"), 2), ("cd".into(), false));
    assert_eq!(names(Some("bb"), 9), ("cd".into(), false));
    assert_eq!(names(Some("d"), 9), (String::new(), false));
}

#[test]
fn a_full_table_refuses_new_names_and_evicts_nobody() {
    let mut machine = Machine::new(&genesis(2));
    run(&mut machine, &open("a", 1, 0));
    run(&mut machine, &open("b", 1, 0));
    assert_eq!(refusal(run(&mut machine, &open("c", 1, 0))), Refusal::TableFull { limit_names: 2 });
    assert!(matches!(run(&mut machine, &open("a", 2, 1)), Verdict::Write(_)));
}

#[test]
fn an_id_that_was_never_granted_is_unknown() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    assert_eq!(refusal(run(&mut machine, &append(0, 1, 0, &["x"]))), Refusal::UnknownProducer);
    assert_eq!(refusal(run(&mut machine, &append(2, 1, 0, &["x"]))), Refusal::UnknownProducer);
}

#[test]
fn a_stamp_that_this_state_does_not_give_is_a_mismatch() {
    let mut machine = machine();
    run(&mut machine, &open("a", 1, 0));
    let Verdict::Write(Effect::Append(mut written)) = machine.decide(&append(1, 1, 0, &["x"])) else {
        panic!("the batch is the next one");
    };
    written.base = Offset(7);
    let mismatch = machine.apply(&Effect::Append(written)).unwrap_err().to_string();
    assert!(mismatch.contains("Offset(7)") && mismatch.contains("Offset(0)"), "{mismatch}");
    assert_eq!(machine.end(), Offset(0), "nothing was folded");
}

/// A step of a random run: names, instances, epochs and numbers are drawn close together so that they collide.
#[derive(Clone, Debug)]
enum Step {
    Open { name: u8, instance: u8, expected: u64 },
    Append { name: u8, epoch: u64, first: u64, contents: Vec<u8> },
    Seal { name: u8, epoch: u64, through: u64 },
    Retire { name: u8, epoch: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let opens = (0..3u8, 0..3u8, 0..5u64).prop_map(|(name, instance, expected)| Step::Open {
        name,
        instance,
        expected,
    });
    let appends = (0..3u8, 0..5u64, 0..12u64, prop::collection::vec(0..2u8, 1..4))
        .prop_map(|(name, epoch, first, contents)| Step::Append { name, epoch, first, contents });
    let seals =
        (0..3u8, 0..5u64, 0..14u64).prop_map(|(name, epoch, through)| Step::Seal { name, epoch, through });
    let retirements = (0..3u8, 0..5u64).prop_map(|(name, epoch)| Step::Retire { name, epoch });
    prop::collection::vec(prop_oneof![20 => opens, 80 => appends, 20 => seals, 1 => retirements], 1..120)
}

/// The rules again, written as slowly and plainly as possible: it keeps everything.
#[derive(Default)]
struct Model {
    producers: Vec<Named>,
    log: Vec<(u8, u64, u8)>,
}

struct Named {
    name: u8,
    epoch: u64,
    instance: u8,
    /// First number and content of every batch.
    batches: Vec<(u64, Vec<u8>)>,
    /// What became of each number: the offset at which it is written, or nothing if it was sealed.
    fates: Vec<Option<u64>>,
    retired: bool,
}

/// What the model expects of a step.
#[derive(Debug, PartialEq)]
enum Expected {
    Write,
    /// The same as before, at this offset.
    Known(u64),
    /// Written in another cut.
    Recut,
    /// It is known already that this number is written (at an offset), or sealed.
    Fate(Option<u64>),
    Refuse,
}

impl Model {
    fn named(&mut self, name: u8) -> Option<&mut Named> {
        self.producers.iter_mut().find(|known| known.name == name)
    }

    fn id(&self, name: u8) -> u64 {
        self.producers.iter().position(|known| known.name == name).map_or(99, |at| at as u64 + 1)
    }

    fn open(&mut self, name: u8, instance: u8, expected: u64) -> bool {
        let Some(known) = self.named(name) else {
            if expected == 0 {
                let (batches, fates) = (Vec::new(), Vec::new());
                self.producers.push(Named { name, epoch: 1, instance, batches, fates, retired: false });
            }
            return expected == 0;
        };
        let granted = !known.retired && known.instance != instance && known.epoch == expected;
        if granted {
            known.epoch += 1;
            known.instance = instance;
        }
        granted
    }

    fn append(&mut self, name: u8, epoch: u64, first: u64, contents: &[u8]) -> Expected {
        let end = self.log.len() as u64;
        let Some(known) = self.named(name).filter(|known| !known.retired) else { return Expected::Refuse };
        let next = known.fates.len() as u64;
        let numbers = first..first + contents.len() as u64;
        let fates: Vec<_> = numbers.clone().filter_map(|n| known.fates.get(n as usize).copied()).collect();
        if fates.contains(&None) {
            return Expected::Refuse;
        }
        if fates.len() == contents.len() {
            return match known.batches.iter().find(|(f, c)| *f == first && c.len() == contents.len()) {
                Some((_, same)) if same == contents => Expected::Known(fates[0].expect("none is sealed")),
                Some(_) => Expected::Refuse,
                None => Expected::Recut,
            };
        }
        if first != next || epoch != known.epoch {
            return Expected::Refuse;
        }
        known.batches.push((first, contents.to_vec()));
        known.fates.extend((end..).take(contents.len()).map(Some));
        self.log.extend(contents.iter().zip(first..).map(|(content, sequence)| (name, sequence, *content)));
        Expected::Write
    }

    fn seal(&mut self, name: u8, epoch: u64, through: u64) -> Expected {
        let Some(known) = self.named(name).filter(|known| !known.retired) else { return Expected::Refuse };
        if let Some(fate) = known.fates.get(through as usize) {
            return Expected::Fate(*fate);
        }
        if epoch != known.epoch {
            return Expected::Refuse;
        }
        known.fates.resize(through as usize + 1, None);
        Expected::Write
    }

    fn retire(&mut self, name: u8, epoch: u64) -> bool {
        let known = self.named(name).filter(|known| known.epoch == epoch && !known.retired);
        known.map(|known| known.retired = true).is_some()
    }
}

fn outcome(verdict: &Verdict) -> Expected {
    match verdict {
        Verdict::Write(_) => Expected::Write,
        Verdict::Known(Response::Appended(appended)) => Expected::Known(appended.first.0),
        Verdict::Known(Response::Resolved(Resolved::Sealed)) => Expected::Fate(None),
        Verdict::Known(Response::Resolved(Resolved::Committed { offset })) => {
            Expected::Fate(Some(offset.expect("nothing is forgotten here").0))
        }
        Verdict::Recut(_) => Expected::Recut,
        Verdict::Refuse(_) => Expected::Refuse,
        Verdict::Known(other) => panic!("no step is answered so: {other:?}"),
    }
}

proptest! {
    #[test]
    fn the_machine_writes_exactly_what_the_model_writes(steps in steps()) {
        let (mut machine, mut model) = (machine(), Model::default());
        for step in steps {
            match step {
                Step::Open { name, instance, expected } => {
                    let verdict = run(&mut machine, &open(&format!("p{name}"), instance + 1, expected));
                    let wrote = matches!(verdict, Verdict::Write(_));
                    prop_assert_eq!(wrote, model.open(name, instance, expected), "{:?}", verdict);
                }
                Step::Append { name, epoch, first, contents } => {
                    let values: Vec<String> = contents.iter().map(u8::to_string).collect();
                    let values: Vec<&str> = values.iter().map(String::as_str).collect();
                    let end = model.log.len() as u64;
                    let verdict = run(&mut machine, &append(model.id(name), epoch, first, &values));
                    prop_assert_eq!(outcome(&verdict), model.append(name, epoch, first, &contents), "{:?}", verdict);
                    if let Verdict::Write(_) = verdict {
                        prop_assert_eq!(written_at(&verdict), Offset(end));
                    }
                }
                Step::Seal { name, epoch, through } => {
                    let verdict = run(&mut machine, &seal(model.id(name), epoch, through));
                    prop_assert_eq!(outcome(&verdict), model.seal(name, epoch, through), "{:?}", verdict);
                }
                Step::Retire { name, epoch } => {
                    let verdict = run(&mut machine, &retire(model.id(name), epoch));
                    let wrote = matches!(verdict, Verdict::Write(_));
                    prop_assert_eq!(wrote, model.retire(name, epoch), "{:?}", verdict);
                }
            }
            prop_assert_eq!(machine.end(), Offset(model.log.len() as u64));
        }
        for known in &model.producers {
            let shown = machine.producers().show(&format!("p{}", known.name)).unwrap();
            prop_assert_eq!((shown.next, shown.retired), (Sequence(known.fates.len() as u64), known.retired));
            let in_intervals = |at: u64| shown.sealed.iter().any(|(first, end)| (first.0..end.0).contains(&at));
            for (at, fate) in (0..).zip(&known.fates).filter(|_| !known.retired) {
                prop_assert_eq!(in_intervals(at), fate.is_none(), "number {} of {:?}", at, shown.sealed);
            }
        }
    }

    #[test]
    fn entries_survive_their_bytes(
        level in 0..=LEVEL,
        time: u64,
        wall: u64,
        name in "[a-z]{1,20}",
        values in prop::collection::vec("[a-z]{0,9}", 1..9),
    ) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let (id, epoch, instance) = (ProducerId(7), Epoch(3), Instance([9; 16]));
        let batch = batch(7, 3, 2, &values);
        let effects = [
            Effect::Open(effect::Opening { id, epoch, instance, name: Arc::from(name) }),
            Effect::Append(effect::Written { base: Offset(5), settled: Sequence(2), batch }),
            Effect::Seal(effect::Sealing { id, epoch, first: Sequence(7), end: Sequence(9) }),
            Effect::Retire(effect::Retiring { id, epoch }),
            Effect::Session(effect::SessionOpening { id, instance, ttl_ms: time }),
            Effect::Renew(id),
            Effect::Expire(id),
        ];
        let envelope = Envelope { level, log_time_ms: time, wall_ms: wall };
        let data = effect::encode(envelope, &effects);
        let read = Effects::open(data).unwrap();
        prop_assert_eq!(read.envelope, envelope);
        let read: Result<Vec<_>, _> = read.collect();
        prop_assert_eq!(read.unwrap(), effects.to_vec());
    }

    #[test]
    fn no_bytes_make_the_reader_of_entries_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        sound_header: bool,
    ) {
        if sound_header && bytes.len() >= 24 {
            bytes[..8].copy_from_slice(&[1, 0, 1, 0, 3, 0, 0, 0]);
        }
        if let Ok(effects) = Effects::open(Bytes::from(bytes)) {
            let read = effects.count();
            prop_assert!(read <= 3, "{read} effects where the header says 3");
        }
    }
}
