//! The core, step by step: three brokers whose disks and messages move only when the test says so.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod trio;

use raft::eraftpb::{Entry, Message, MessageType};
use sequor_broker::core::effect::{Envelope, LEVEL, encode};
use sequor_broker::core::time::Time;
use sequor_broker::core::{Caller, SessionId, Subscription};
use sequor_client::protocol::batch::{Batch, BatchBuilder};
use sequor_client::protocol::{
    Acks, Append, BrokerId, Context, Epoch, Feature, HighWater, Lookup, Offset, Refusal, Request, RequestId,
    Response, Revision, Role, Sequence,
};
use sequor_wal::Identity;
use sequor_wal::disk::memory::MemoryDisk;

use self::trio::*;

#[test]
fn everything_that_waits_for_a_pass_becomes_one_entry() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let before = trio.core(1).status().last_index;
    for first in 0..100 {
        trio.ask(append(producer, first, "x"));
    }
    trio.settle();
    assert_eq!(trio.core(1).status().last_index, before + 1);
    for expected in 0..100 {
        let (_, response) = trio.answer().unwrap();
        assert_eq!(offset_of(&response), (Offset(expected), false));
    }
}

#[test]
fn nothing_is_acknowledged_before_a_majority_has_it_on_disk() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    trio.deliver_to(2);
    trio.deliver_to(1);
    assert_eq!(trio.answer(), None, "the follower has it in memory only, so it says nothing");
    trio.sync(1);
    assert_eq!(trio.answer(), None, "one disk of three is no majority");
    trio.sync(2);
    trio.deliver_to(1);
    let (_, response) = trio.answer().expect("two disks of three have it");
    assert_eq!(offset_of(&response), (Offset(0), false));
}

#[test]
fn whoever_asks_for_it_is_told_when_the_leaders_own_disk_has_it_and_again_when_it_is_committed() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let Request::Append(plain) = append(producer, 0, "x") else { unreachable!("it is an append") };
    let id = trio.ask(Request::Append(Append { acks: Acks::Leader, ..plain.clone() }));
    trio.pass(1);
    assert_eq!(trio.answer(), None, "no disk has it");
    trio.sync(1);
    let Some((told, Response::Accepted(accepted))) = trio.answer() else {
        panic!("the leader's disk has it")
    };
    assert_eq!((told, accepted.first), (id, Offset(0)));
    assert_eq!(trio.answer(), None, "one disk of three is no majority");
    trio.settle();
    let (told, response) = trio.answer().expect("a majority has it");
    assert_eq!((told, offset_of(&response)), (id, (Offset(0), false)));
    assert_eq!(trio.answer(), None, "that was the last word");

    let again = trio.call(Request::Append(Append { acks: Acks::Leader, ..plain }));
    assert_eq!(offset_of(&again), (Offset(0), true), "a repetition is answered once");
}

#[test]
fn what_a_majority_has_before_the_leader_is_told_once() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let Request::Append(plain) = append(producer, 0, "x") else { unreachable!("it is an append") };
    trio.ask(Request::Append(Append { acks: Acks::Leader, ..plain }));
    trio.pass(1);
    for follower in [2, 3] {
        trio.deliver_to(follower);
        trio.sync(follower);
    }
    trio.deliver_to(1);
    let (_, response) = trio.answer().expect("two disks of three have it");
    assert_eq!(offset_of(&response), (Offset(0), false));
    trio.sync(1);
    assert_eq!(trio.answer(), None, "the leader's own disk adds nothing");
}

#[test]
fn a_commit_alone_writes_nothing() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.call(append(producer, 0, "x"));
    let syncs: Vec<u64> = (1..=3).map(|id| trio.core(id).status().counters.log_syncs).collect();
    let last = trio.core(1).status().last_index;
    assert!(trio.core(2).status().commit < last, "followers learn of a commit with the next message");
    while trio.core(2).status().commit < last || trio.core(3).status().commit < last {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        trio.core(1).handle_tick(now);
        trio.settle();
        assert!(now < Time::from_ms(1000), "a heartbeat tells it");
    }
    let after: Vec<u64> = (1..=3).map(|id| trio.core(id).status().counters.log_syncs).collect();
    assert_eq!(syncs[1..], after[1..], "followers learnt of the commit without a write");
    assert!(after[0] <= syncs[0] + 1, "and so did the leader, but for the witness of an idle log");
}

#[test]
fn a_duplicate_of_what_is_not_committed_waits_for_it() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let first = trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    let second = trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    assert_eq!(trio.answer(), None);
    trio.settle();
    let answers = [trio.answer().unwrap(), trio.answer().unwrap()];
    assert_eq!(offset_of(&answers.iter().find(|(id, _)| *id == first).unwrap().1), (Offset(0), false));
    assert_eq!(offset_of(&answers.iter().find(|(id, _)| *id == second).unwrap().1), (Offset(0), true));
}

#[test]
fn a_duplicate_of_what_is_applied_is_answered_at_once() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.call(append(producer, 0, "x"));
    trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    assert_eq!(offset_of(&trio.answer().unwrap().1), (Offset(0), true));
}

#[test]
fn a_refusal_waits_until_leadership_is_proven() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.ask(append(producer, 5, "too early"));
    trio.pass(1);
    assert_eq!(trio.answer(), None, "a deposed leader could not know that 0 to 4 are written by now");
    trio.settle();
    let gap = Refusal::SequenceGap { expected: Sequence(0), found: Sequence(5) };
    assert_eq!(trio.answer().unwrap().1, Response::Refused(gap));
}

#[test]
fn a_question_is_answered_from_what_was_committed_when_it_was_asked() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.call(append(producer, 0, "x"));
    let Response::End(end) = trio.call(Request::End) else { panic!("no end") };
    assert_eq!(end.end, Offset(1));
    let Response::Found(found) = trio.call(Request::Lookup(Lookup { name: "a".into() })) else {
        panic!("the name is not found")
    };
    assert_eq!((found.next, found.epoch), (Sequence(1), Epoch(1)));
    let unknown = trio.call(Request::Lookup(Lookup { name: "b".into() }));
    assert_eq!(unknown, Response::Refused(Refusal::UnknownProducer));
}

/// Deposes broker 1 behind its back: another is elected while nothing reaches broker 1. Says which.
fn depose(trio: &mut Trio) -> u64 {
    for _ in 0..100 {
        trio.now = trio.now + TICK_US;
        for id in [2, 3] {
            let now = trio.now;
            trio.core(id).handle_tick(now);
            trio.pass(id);
        }
        for _ in 0..4 {
            (2..=3).for_each(|id| _ = trio.sync(id));
            (2..=3).for_each(|id| trio.deliver_to(id));
        }
        trio.messages.retain(|(from, to, _)| *from != 1 && *to != 1);
        if let Some(leader) = [2, 3].into_iter().find(|id| trio.core(*id).leads()) {
            return leader;
        }
    }
    panic!("two of three elect nobody within a second");
}

#[test]
fn what_a_deposed_leader_did_not_commit_is_unknown_and_what_it_refused_is_asked_elsewhere() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let written = trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    let refused = trio.ask(append(producer, 9, "gap"));
    trio.pass(1);
    trio.messages.clear();
    let leader = depose(&mut trio);
    assert_eq!(trio.answer(), None, "broker 1 does not know yet");
    let now = trio.now;
    for id in [2, 3] {
        trio.core(id).handle_tick(now + 5 * TICK_US);
    }
    trio.settle();
    let mut answers = [trio.answer().unwrap(), trio.answer().unwrap()];
    answers.sort_by_key(|(id, _)| *id);
    assert_eq!(answers[0], (written, Response::Refused(Refusal::OutcomeUnknown)));
    let elsewhere = Response::Refused(Refusal::NotLeader { leader: Some(BrokerId(leader)) });
    assert_eq!(answers[1], (refused, elsewhere));
}

#[test]
fn a_follower_sends_clients_to_the_leader() {
    let mut trio = Trio::with_leader();
    let now = trio.now;
    let caller = Caller { session: SessionId(1), id: RequestId(1) };
    let context = Context { deadline_ms: 1000, ..Context::default() };
    trio.core(2).handle_request(now, caller, &context, Request::End);
    trio.pass(2);
    let response = trio.core(2).poll_reply().unwrap().response;
    assert_eq!(response, Response::Refused(Refusal::NotLeader { leader: Some(BrokerId(1)) }));
}

#[test]
fn what_has_no_meaning_yet_is_refused_by_name() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let Request::Append(plain) = append(producer, 0, "x") else { unreachable!("it is an append") };
    let cases = [
        (Append { acks: Acks::None, ..plain.clone() }, Feature::NoAcks),
        (Append { expect_end: Some(Offset(0)), ..plain }, Feature::ExpectEnd),
    ];
    for (append, what) in cases {
        assert_eq!(trio.call(Request::Append(append)), Response::Refused(Refusal::Unsupported { what }));
    }
}

#[test]
fn bytes_that_are_no_batch_are_refused_and_the_broker_lives() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let mut bad = batch(producer, 0, "x").to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let append_bad = Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch: bad.into() };
    let response = trio.call(Request::Append(append_bad));
    assert!(matches!(response, Response::Refused(Refusal::BadChecksum { .. })), "{response:?}");
    assert_eq!(offset_of(&trio.call(append(producer, 0, "x"))), (Offset(0), false));
}

#[test]
fn a_log_that_differs_from_the_leaders_stops_the_broker() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    let now = trio.now;
    for (from, to, mut message) in std::mem::take(&mut trio.messages) {
        if to == 2 {
            message.chain ^= 1;
            trio.core(2).handle_peer(now, BrokerId(from), message);
        }
    }
    let halt = trio.core(2).halted().expect("it must not go on").to_string();
    assert!(halt.contains("differs from the leader's"), "{halt}");
}

/// The next heartbeat from the leader, broker 1, to broker 2.
fn next_heartbeat(trio: &mut Trio) -> sequor_broker::core::PeerMessage {
    loop {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        trio.core(1).handle_tick(now);
        trio.pass(1);
        if let Some((.., message)) = trio.messages.iter().find(|(_, to, _)| *to == 2) {
            return message.clone();
        }
    }
}

#[test]
fn a_log_that_lost_its_end_stops_the_broker() {
    let mut trio = Trio::with_leader();
    let mut message = next_heartbeat(&mut trio);
    let now = trio.now;
    message.raft.commit = 99;
    trio.core(2).handle_peer(now, BrokerId(1), message);
    let halt = trio.core(2).halted().expect("it must not go on").to_string();
    assert!(halt.contains("has lost entries that it had acknowledged"), "{halt}");
}

#[test]
fn an_older_log_of_the_same_length_stops_the_broker() {
    let mut trio = Trio::with_leader();
    let mut message = next_heartbeat(&mut trio);
    let now = trio.now;
    assert_eq!((message.raft.commit, message.raft.log_term), (1, message.raft.term), "the no-op of its term");
    trio.core(2).handle_peer(now, BrokerId(1), message.clone());
    assert!(trio.core(2).halted().is_none(), "that is the entry that it has");
    message.raft.log_term = 0;
    trio.core(2).handle_peer(now, BrokerId(1), message.clone());
    assert!(trio.core(2).halted().is_none(), "a leader that does not say");
    message.raft.log_term = message.raft.term + 1;
    message.raft.term += 1;
    trio.core(2).handle_peer(now, BrokerId(1), message);
    let halt = trio.core(2).halted().expect("it must not go on").to_string();
    assert!(
        halt.contains("has lost entries that it had acknowledged: it had the leader's entry 1"),
        "{halt}"
    );
}

/// What a follower's disk has lost must not come back before the follower has noticed.
#[test]
fn what_a_follower_has_acknowledged_is_not_sent_to_it_again() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.call(append(producer, 0, "x"));
    let (last, term) = (trio.core(1).log().last_index(), trio.core(1).status().term);
    trio.core(1).handle_peer_lost(BrokerId(2));
    trio.ask(append(producer, 1, "y"));
    trio.pass(1);
    trio.messages.clear();
    for rejected in [last + 1, last, last + 1, last] {
        let now = trio.now;
        let mut denial = forged(MessageType::MsgAppendResponse, 2, 1, term);
        (denial.raft.reject, denial.raft.index, denial.raft.reject_hint) = (true, rejected, 0);
        trio.core(1).handle_peer(now, BrokerId(2), denial);
        trio.ask(append(producer, 2, "z"));
        trio.pass(1);
        let again = trio.messages.iter().find(|(_, to, message)| {
            *to == 2 && message.raft.entries.first().is_some_and(|first| first.index <= last)
        });
        assert!(again.is_none(), "{again:?}");
        trio.messages.clear();
    }
}

#[test]
fn a_leader_does_not_call_a_newer_epoch_fenced_without_a_proof() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let mut builder = BatchBuilder::new();
    builder.push_value(None, b"x", 0).unwrap();
    let batch = builder.seal(producer, Epoch(2), Sequence(0));
    trio.ask(Request::Append(Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch }));
    trio.pass(1);
    assert_eq!(trio.answer(), None, "another leader may have granted epoch 2");
}

#[test]
fn a_slot_that_another_leader_filled_within_one_pass_acknowledges_nobody() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let id = trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    trio.messages.clear();
    let status = trio.core(1).status();
    let (index, term, now) = (status.last_index, status.term, trio.now);
    let mut message = forged(MessageType::MsgAppend, 3, 1, term + 1);
    message.chain = trio.core(1).log().position(index - 1).unwrap().unwrap().chain;
    let no_op = Entry { index, term: term + 1, ..Entry::default() };
    message.raft = Message { index: index - 1, log_term: term, commit: index, ..message.raft };
    message.raft.set_entries(vec![no_op].into());
    trio.core(1).handle_peer(now, BrokerId(3), message);
    trio.pass(1);
    assert_eq!(trio.answer(), Some((id, Response::Refused(Refusal::OutcomeUnknown))));
}

#[test]
fn a_batch_that_nobody_could_read_is_refused_though_its_checksum_fits() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    for at in [64, 48] {
        let mut bytes = batch(producer, 0, "x").to_vec();
        bytes[at] ^= 0xff;
        let batch = Batch::trusted(bytes.into()).unwrap().restamp(Epoch(1)).into_bytes();
        let append = Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch };
        let response = trio.call(Request::Append(append));
        let refused = matches!(
            response,
            Response::Refused(Refusal::Malformed { .. } | Refusal::Unsupported { what: Feature::Flags(_) })
        );
        assert!(refused, "byte {at}: {response:?}");
    }
}

#[test]
fn an_append_that_builds_on_nothing_is_dropped() {
    let mut trio = Trio::with_leader();
    let (now, term) = (trio.now, trio.core(2).status().term);
    for (index, log_term) in [(10, 0), (u64::MAX, 1), (0, 1)] {
        let mut message = forged(MessageType::MsgAppend, 1, 2, term);
        let entry = Entry { index: 1, term: 1, ..Entry::default() };
        message.raft = Message { index, log_term, commit: 10, ..message.raft };
        message.raft.set_entries(vec![entry].into());
        trio.core(2).handle_peer(now, BrokerId(1), message);
        trio.pass(2);
    }
    assert_eq!(trio.core(2).status().last_index, trio.core(1).status().last_index);
}

#[test]
fn a_term_that_no_election_reaches_is_not_taken() {
    let mut trio = Trio::with_leader();
    let (now, term) = (trio.now, trio.core(2).status().term);
    for kind in [
        MessageType::MsgHeartbeat,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
    ] {
        let mut message = forged(kind, 3, 2, u64::MAX);
        message.chain = trio.core(2).log().position(0).unwrap().unwrap().chain;
        trio.core(2).handle_peer(now, BrokerId(3), message);
        trio.pass(2);
    }
    assert_eq!(trio.core(2).status().term, term);
}

#[test]
fn a_rejection_that_points_beyond_the_log_is_not_taken() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let (now, status) = (trio.now, trio.core(1).status());
    for reject_hint in [status.last_index + 1, u64::MAX] {
        let mut message = forged(MessageType::MsgAppendResponse, 2, 1, status.term);
        message.raft = Message { reject: true, index: status.last_index, reject_hint, ..message.raft };
        trio.core(1).handle_peer(now, BrokerId(2), message);
        trio.pass(1);
    }
    offset_of(&trio.call(append(producer, 0, "x")));
}

#[test]
fn a_message_of_a_deposed_leader_halts_nobody() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.call(append(producer, 0, "x"));
    let (now, status) = (trio.now, trio.core(2).status());
    let mut message = forged(MessageType::MsgAppend, 1, 2, status.term - 1);
    message.raft = Message { index: status.last_index, log_term: status.term, ..message.raft };
    message.chain = 7;
    trio.core(2).handle_peer(now, BrokerId(1), message);
    trio.pass(2);
}

#[test]
fn a_session_that_has_seen_more_is_sent_away() {
    let mut trio = Trio::with_leader();
    trio.open("a");
    let seen = Some(HighWater { lineage: LINEAGE, end: Offset(9), revision: Revision(0) });
    let context = Context { deadline_ms: 1000, seen, ..Context::default() };
    let (now, caller) = (trio.now, Caller { session: SessionId(1), id: RequestId(77) });
    trio.core(1).handle_request(now, caller, &context, Request::End);
    assert_eq!(trio.answer(), Some((RequestId(77), Response::Refused(Refusal::Behind))));
}

#[test]
fn a_vote_is_remembered_through_a_power_cut() {
    let (disk, genesis) = (MemoryDisk::new(), genesis());
    let identity = Identity { cluster: CLUSTER.0, lineage: LINEAGE.0, broker: 2, incarnation: None };
    Identity::create(&disk, &identity).unwrap();
    Identity::load(&disk).unwrap().set_incarnation(&disk, [1; 16]).unwrap();
    let mut trio = Trio::start();
    *trio.core(2) = restart(&disk, 2, &genesis);
    assert_eq!(ask_for_vote(&mut trio, 1), Some(true), "the first who asks in term 5");
    disk.crash(3);
    *trio.core(2) = restart(&disk, 2, &genesis);
    assert_eq!(ask_for_vote(&mut trio, 3), Some(false), "it has voted in term 5");
    assert_eq!(ask_for_vote(&mut trio, 1), Some(true), "for that one");
}

/// Lets a candidate of term 5 ask broker 2 for its vote: whether it gets it.
fn ask_for_vote(trio: &mut Trio, candidate: u64) -> Option<bool> {
    let now = trio.now;
    trio.core(2).handle_peer(now, BrokerId(candidate), forged(MessageType::MsgRequestVote, candidate, 2, 5));
    trio.pass(2);
    let early = trio.messages.iter().any(|(from, _, message)| *from == 2 && !message.raft.reject);
    assert!(!early || trio.tickets[1].is_none(), "a vote that is not on disk is not given");
    trio.sync(2);
    let answer = trio.messages.iter().find(|(from, to, _)| *from == 2 && *to == candidate);
    let granted = answer.map(|(.., message)| !message.raft.reject);
    trio.messages.clear();
    granted
}

#[test]
fn rot_that_is_met_while_running_halts_the_broker() {
    let (disk, genesis) = (MemoryDisk::new(), genesis());
    let identity = Identity { cluster: CLUSTER.0, lineage: LINEAGE.0, broker: 1, incarnation: None };
    Identity::create(&disk, &identity).unwrap();
    Identity::load(&disk).unwrap().set_incarnation(&disk, [1; 16]).unwrap();
    let mut trio = Trio::start();
    *trio.core(1) = restart(&disk, 1, &genesis);
    trio.elect_first();
    let producer = trio.open("a");
    trio.call(append(producer, 0, "a value that is found again on the disk"));
    let name = "segment-00000000000000000001";
    let image = disk.image(name).unwrap();
    let at = image.windows(7).position(|bytes| bytes == b"a value").unwrap();
    disk.flip(name, at as u64, 0);
    let read = trio.core(1).deliver(&mut Subscription::new(Offset(0)), 1 << 20);
    assert_eq!(read, Err(Refusal::LogUnreadable { at: Offset(0) }));
    let halt = trio.core(1).halted().expect("it must not go on").to_string();
    assert!(halt.contains("the log cannot be read"), "{halt}");
}

#[test]
fn a_broker_that_replays_a_long_log_votes_meanwhile_and_does_not_campaign() {
    let (disk, genesis) = (MemoryDisk::new(), genesis());
    let identity = Identity { cluster: CLUSTER.0, lineage: LINEAGE.0, broker: 2, incarnation: None };
    Identity::create(&disk, &identity).unwrap();
    Identity::load(&disk).unwrap().set_incarnation(&disk, [1; 16]).unwrap();
    let mut trio = Trio::start();
    *trio.core(2) = restart(&disk, 2, &genesis);
    trio.elect_first();
    let producer = trio.open("a");
    for first in 0..8000 {
        trio.call(append(producer, first, "x"));
    }
    trio.core(2).prepare_to_stop();
    trio.settle();
    *trio.core(2) = restart(&disk, 2, &genesis);
    let now = trio.now;
    trio.core(2).pass(now, 0);
    let status = trio.core(2).status();
    assert!(status.applied + 4096 < status.commit, "one pass does not apply everything: {status:?}");
    trio.core(2).handle_tick(now + 100 * TICK_US);
    assert_eq!(trio.core(2).status().role, Role::Follower);
    trio.pass(2);
    assert_eq!(trio.core(2).status().applied, status.commit, "it gets there pass by pass");
}

#[test]
fn a_halt_in_the_middle_of_a_long_log_says_why_and_stays() {
    let (disk, genesis) = (MemoryDisk::new(), genesis());
    let identity = Identity { cluster: CLUSTER.0, lineage: LINEAGE.0, broker: 2, incarnation: None };
    Identity::create(&disk, &identity).unwrap();
    Identity::load(&disk).unwrap().set_incarnation(&disk, [1; 16]).unwrap();
    let mut core = restart(&disk, 2, &genesis);
    while let Some(order) = core.poll_spare(Time(1)) {
        core.handle_spare(Time(1), order.run().unwrap());
    }
    // A leader whose second entry is earlier, by log time, than its first; thousands of sound ones follow.
    let times = [9, 1].into_iter().chain(std::iter::repeat_n(9, 4000));
    let entry = |(index, log_time_ms)| {
        let data = encode(Envelope { level: LEVEL, log_time_ms, wall_ms: 0 }, &[]);
        Entry { index, term: 1, data, ..Entry::default() }
    };
    let entries: Vec<Entry> = (1..).zip(times).map(entry).collect();
    let mut message = forged(MessageType::MsgAppend, 1, 2, 1);
    message.raft.commit = entries.len() as u64;
    message.raft.set_entries(entries.into());
    message.chain = core.log().position(0).unwrap().unwrap().chain;
    core.handle_peer(Time(1), BrokerId(1), message);
    for _ in 0..10 {
        core.pass(Time(1), 0);
        if let Some(ticket) = core.poll_ticket(Time(1)) {
            core.handle_synced(Time(1), ticket.run().unwrap());
        }
    }
    let halt = core.halted().expect("log time must never fall").to_string();
    assert!(halt.starts_with("entry 2 carries log time 1 ms"), "{halt}");
    assert_eq!(core.applied_index(), 1, "nothing after it was applied");
    assert!(core.poll_ticket(Time(1)).is_none() && !core.wants_pass());
}
