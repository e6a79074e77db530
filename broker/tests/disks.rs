//! Disks that are full, and disks that hang: three brokers whose disks and messages move only when the test says so.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod trio;

use raft::eraftpb::{Message, MessageType};
use sequor_broker::core::genesis::{Genesis, Member, Settings as Shared};
use sequor_broker::core::time::Time;
use sequor_broker::core::{Caller, Core, SessionId};
use sequor_client::protocol::{
    BrokerId, Context, Epoch, Instance, KeepAlive, Lookup, Offset, Open, OpenSession, ProducerId, Refusal,
    Request, RequestId, Resolve, Response, Sequence,
};
use sequor_wal::Ticket;
use sequor_wal::disk::memory::MemoryDisk;

use self::trio::*;

/// A value that soon fills a disk. Bytes.
const LARGE_BYTES: usize = 900 << 10;

fn open_session(trio: &mut Trio) -> ProducerId {
    match trio.call(Request::OpenSession(OpenSession { instance: Instance([2; 16]), ttl_ms: 5000 })) {
        Response::Opened(session) => session.id,
        other => panic!("not opened: {other:?}"),
    }
}

/// Writes until the disk of broker 1 has no room for the next segment; the next number.
fn write_until_full(trio: &mut Trio, producer: ProducerId) -> u64 {
    let large = "x".repeat(LARGE_BYTES);
    trio.disks[0].fill(true);
    (0..)
        .find(|next| {
            assert_eq!(offset_of(&trio.call(append(producer, *next, &large))), (Offset(*next), false));
            trio.core(1).is_full()
        })
        .unwrap()
        + 1
}

#[test]
fn a_leader_whose_disk_is_full_refuses_what_would_be_written_and_goes_on_by_itself() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let session = open_session(&mut trio);
    let next = write_until_full(&mut trio, producer);
    let large = "x".repeat(LARGE_BYTES);
    let full = Response::Refused(Refusal::Full { segment_bytes: 4 << 20 });
    assert!(trio.core(1).status().is_full);
    assert_eq!(trio.call_at_once(append(producer, next, "no room")), full);
    assert_eq!(trio.call_at_once(append(producer, next + 1, "what follows it is no gap")), full);
    let open = Open { name: "b".into(), instance: Instance([3; 16]), expected_epoch: Epoch(0) };
    assert_eq!(trio.call_at_once(Request::Open(open)), full);
    let resolve = Resolve { producer, epoch: Epoch(1), sequence: Sequence(next), seal: true };
    assert_eq!(trio.call_at_once(Request::Resolve(resolve)), full);
    assert_eq!(offset_of(&trio.call_at_once(append(producer, 0, &large))), (Offset(0), true), "a known fact");
    let alive = trio.call(Request::KeepAlive(KeepAlive { session }));
    assert!(matches!(alive, Response::Alive(_)), "the reserve is for this: {alive:?}");

    trio.disks[0].fill(false);
    assert_eq!(trio.call_at_once(append(producer, next, "tried again too early")), full);
    trio.now = trio.now + 1_000_000;
    trio.settle();
    assert!(!trio.core(1).is_full());
    assert_eq!(offset_of(&trio.call(append(producer, next, "room"))), (Offset(next), false));
}

#[test]
fn a_follower_whose_disk_is_full_for_good_acknowledges_nothing_and_catches_up_when_there_is_room() {
    let mut trio = Trio::start();
    trio.disks[2].fill(true);
    trio.elect_first();
    let producer = trio.open("a");
    let large = "x".repeat(LARGE_BYTES);
    for sequence in 0..16 {
        assert_eq!(offset_of(&trio.call(append(producer, sequence, &large))), (Offset(sequence), false));
    }
    let last = trio.core(1).status().last_index;
    assert!(trio.core(3).is_full() && trio.core(3).log().durable() < last, "its reserve is used up");
    trio.disks[2].fill(false);
    trio.now = trio.now + 1_000_000;
    for _ in 0..20 {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        trio.core(1).handle_tick(now);
        trio.settle();
    }
    assert_eq!(trio.core(3).log().durable(), trio.core(1).status().last_index);
    assert!(!trio.core(3).is_full());
}

/// A leader that has just been asked to write something: its sync is out, and so are the messages to the others.
fn asked() -> (Trio, ProducerId) {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.ask(append(producer, 0, "x"));
    trio.pass(1);
    (trio, producer)
}

/// The others write what the leader has sent them.
fn others_write(trio: &mut Trio) {
    (2..=3).for_each(|id| trio.deliver_to(id));
    (2..=3).for_each(|id| assert!(trio.sync(id)));
}

/// Lets time pass while all disks hang but those of `working` brokers.
fn hang(trio: &mut Trio, ms: u64, working: &[u64]) {
    hang_and_lose(trio, ms, working, |_| false);
}

/// The same while some messages are lost.
fn hang_and_lose(trio: &mut Trio, ms: u64, working: &[u64], is_lost: impl Fn(&Message) -> bool) {
    for _ in 0..ms * 1000 / TICK_US {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        for id in 1..=3 {
            trio.core(id).handle_tick(now);
            trio.pass(id);
        }
        for id in [2, 3, 1] {
            trio.messages.retain(|(.., message)| !is_lost(&message.raft));
            trio.deliver_to(id);
            if working.contains(&id) {
                trio.sync(id);
            }
        }
    }
}

#[test]
fn a_leader_whose_disk_hangs_refuses_then_hands_over_to_a_broker_whose_disk_works() {
    let (mut trio, producer) = asked();
    others_write(&mut trio);
    trio.deliver_to(1);
    let (_, response) = trio.answer().expect("two disks of three have it, though not the leader's");
    assert_eq!(offset_of(&response), (Offset(0), false));
    hang(&mut trio, 80, &[2, 3]);
    assert_eq!(trio.call_at_once(append(producer, 1, "y")), Response::Refused(Refusal::Unavailable));
    assert!(trio.core(1).leads());
    hang(&mut trio, 150, &[2, 3]);
    assert!(!trio.core(1).leads() && (2..=3).any(|id| trio.core(id).leads()), "it is left");
}

#[test]
fn a_follower_whose_disk_hangs_answers_heartbeats_says_so_and_acknowledges_nothing() {
    let (mut trio, _) = asked();
    let asked = trio.core(1).status().last_index;
    let mut said = Vec::new();
    for _ in 0..30 {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        for id in 1..=2 {
            trio.core(id).handle_tick(now);
            trio.pass(id);
            trio.deliver_to(id);
        }
        said.extend(
            trio.messages.iter().filter(|(from, ..)| *from == 2).map(|(.., message)| message.raft.clone()),
        );
    }
    let is_answer = |message: &&Message| message.get_msg_type() == MessageType::MsgHeartbeatResponse;
    let hangs: Vec<_> = said.iter().filter(is_answer).map(|message| message.reject).collect();
    assert!(hangs.len() >= 9, "a heartbeat every 30 ms: {hangs:?}");
    assert_eq!((hangs[0], hangs.last()), (false, Some(&true)), "{hangs:?}");
    assert!(said.iter().all(|message| is_answer(&message) || message.index < asked), "{said:?}");
}

#[test]
fn a_stall_of_a_disk_that_all_share_deposes_nobody() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let term = trio.core(1).status().term;
    for (sequence, ms) in (0..).zip([150, 200, 250, 290, 310, 1000, 10_000]) {
        trio.ask(append(producer, 2 * sequence, "x"));
        trio.pass(1);
        hang(&mut trio, ms, &[]);
        let refused = trio.call_at_once(append(producer, 2 * sequence + 1, "y"));
        assert_eq!(refused, Response::Refused(Refusal::Unavailable), "{ms} ms");
        (1..=3).for_each(|id| assert!(trio.sync(id)));
        trio.settle();
        assert_eq!(offset_of(&trio.answer().unwrap().1), (Offset(2 * sequence), false), "{ms} ms");
        let written = trio.call(append(producer, 2 * sequence + 1, "y"));
        assert_eq!(offset_of(&written), (Offset(2 * sequence + 1), false), "{ms} ms");
    }
    assert!(trio.core(1).leads() && trio.core(1).status().term == term);
}

#[test]
fn who_had_written_all_learns_in_time_that_its_disk_hangs() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    for sequence in 0..6 {
        // At all times between two heartbeats.
        hang(&mut trio, 200 + 10 * sequence, &[1, 2, 3]);
        trio.ask(append(producer, sequence, "x"));
        trio.pass(1);
        others_write(&mut trio);
        hang(&mut trio, 1000, &[]);
        assert!(trio.core(1).leads(), "{sequence}");
        let (_, response) = trio.answer().expect("two disks had it");
        assert_eq!(offset_of(&response), (Offset(sequence), false));
        trio.sync(1);
    }
    assert_eq!(trio.core(1).status().counters.elections_won, 1);
}

#[test]
fn a_leader_whose_disk_does_not_come_back_goes_after_a_hundred_timeouts() {
    let (mut trio, _) = asked();
    hang(&mut trio, 14_900, &[]);
    assert!(trio.core(1).leads());
    hang(&mut trio, 200, &[]);
    assert!(!trio.core(1).leads());
    hang(&mut trio, 60_000, &[]);
    assert!((1..=3).all(|id| !trio.core(id).leads()), "nobody can vote");
    hang(&mut trio, 1000, &[1, 2, 3]);
    assert!((1..=3).any(|id| trio.core(id).leads()), "the disks are back");
}

#[test]
fn a_leader_whose_disk_hangs_is_left_once_the_disks_of_a_majority_work() {
    let (mut trio, _) = asked();
    hang(&mut trio, 1000, &[3]);
    assert!(trio.core(1).leads(), "of three disks one works: nobody else could lead");
    hang(&mut trio, 100, &[2, 3]);
    assert!(trio.core(1).leads(), "an election timeout is to pass from when they work");
    hang(&mut trio, 200, &[2, 3]);
    assert!(!trio.core(1).leads() && (2..=3).any(|id| trio.core(id).leads()), "it is left");
}

#[test]
fn a_peer_that_is_not_heard_of_any_more_is_not_taken_for_one_whose_disk_hangs() {
    let (mut trio, _) = asked();
    hang(&mut trio, 300, &[3]);
    assert!(trio.core(1).leads());
    hang_and_lose(&mut trio, 600, &[2, 3], |message| (message.from, message.to) == (2, 1));
    assert!(!trio.core(1).leads() && (2..=3).any(|id| trio.core(id).leads()), "it is left");
}

#[test]
fn a_leader_whose_disk_hangs_steps_down_after_two_timeouts_if_nobody_is_further() {
    let (mut trio, _) = asked();
    let is_append = |message: &Message| message.get_msg_type() == MessageType::MsgAppend;
    hang_and_lose(&mut trio, 280, &[2, 3], is_append);
    assert!(trio.core(1).leads());
    hang_and_lose(&mut trio, 30, &[2, 3], is_append);
    assert!(!trio.core(1).leads());
    assert_eq!(trio.answer().unwrap().1, Response::Refused(Refusal::OutcomeUnknown));
}

#[test]
fn a_leader_whose_reserve_is_used_up_is_left_like_one_whose_disk_hangs() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    let session = open_session(&mut trio);
    write_until_full(&mut trio, producer);
    while trio.core(1).log().durable() == trio.core(1).status().last_index {
        let alive = trio.call(Request::KeepAlive(KeepAlive { session }));
        assert!(matches!(alive, Response::Alive(_)), "{alive:?}");
    }
    trio.ask(Request::Lookup(Lookup { name: "a".into() }));
    hang(&mut trio, 320, &[2, 3]);
    assert!(!trio.core(1).leads());
    assert!(matches!(trio.answer(), Some((_, Response::Refused(_)))), "who asked may ask elsewhere");
    assert!((2..=3).any(|id| trio.core(id).leads()), "two brokers have room");
}

#[test]
fn what_waits_in_memory_for_a_disk_without_room_has_a_limit() {
    let mut trio = Trio::with_leader();
    let producer = trio.open("a");
    trio.disks[2].fill(true);
    for sequence in 0..16 {
        trio.call(append(producer, sequence, &"x".repeat(LARGE_BYTES)));
    }
    let (now, term) = (trio.now, trio.core(1).status().term);
    let follower = trio.core(3);
    let held = follower.log().tail_bytes();
    assert!(held > 0, "its reserve is used up");
    // More heartbeats than may wait, then more entries.
    let mut steps = 0;
    for _ in 0..100_000 {
        follower.handle_peer(now, BrokerId(1), forged(MessageType::MsgHeartbeat, 1, 3, term));
        steps += u64::from(follower.wants_pass());
        follower.pass(now, 0);
    }
    assert!(steps <= 1 << 16, "{steps} steps wait for the disk");
    trio.call(append(producer, 16, "it is not asked any more"));
    assert_eq!(trio.core(3).log().tail_bytes(), held);
    trio.disks[2].fill(false);
    trio.now = trio.now + 1_000_000;
    hang(&mut trio, 200, &[1, 2, 3]);
    trio.settle();
    assert_eq!(trio.core(3).log().durable(), trio.core(1).status().last_index, "it catches up");
}

#[test]
fn who_is_told_to_stop_hands_over_to_a_broker_whose_disk_works() {
    for (hung, working) in [(2, 3), (3, 2)] {
        let mut trio = Trio::with_leader();
        let producer = trio.open("a");
        assert_eq!(offset_of(&trio.call(append(producer, 0, "x"))), (Offset(0), false));
        // What the disk that hangs is asked now is no entry: its broker is as far as the other one.
        hang(&mut trio, 150, &[1, working]);
        let now = trio.now;
        trio.core(1).hand_over(now);
        trio.pass(1);
        let is_told = |message: &Message| message.get_msg_type() == MessageType::MsgTimeoutNow;
        let told = trio.messages.iter().filter(|(.., message)| is_told(&message.raft));
        assert_eq!(told.map(|(_, to, _)| *to).collect::<Vec<_>>(), [working], "{hung}");
    }
}

#[test]
fn a_leader_that_was_held_up_itself_hears_its_peers_before_it_goes() {
    let (mut trio, _) = asked();
    hang(&mut trio, 140, &[]);
    trio.now = trio.now + 1_000_000;
    hang(&mut trio, 500, &[]);
    assert!(trio.core(1).leads());
}

/// A broker that votes alone, and its disk.
struct Sole {
    core: Core,
    disk: MemoryDisk,
    now: Time,
    ticket: Option<Ticket>,
    asked: u64,
}

impl Sole {
    fn leading() -> Self {
        let member = Member { id: BrokerId(1), address: "broker-1:7400".into(), certificate: [1; 32] };
        let genesis = Genesis::new(vec![member], Shared::default()).unwrap();
        let (core, disk) = core(1, &genesis);
        let mut sole = Self { core, disk, now: Time(0), ticket: None, asked: 0 };
        while !sole.core.leads() {
            sole.wait(TICK_US / 1000, true);
        }
        sole.wait(50, true);
        sole
    }

    /// Lets time pass; the disk works or hangs.
    fn wait(&mut self, ms: u64, works: bool) {
        for _ in 0..ms * 1000 / TICK_US {
            self.now = self.now + TICK_US;
            self.core.handle_tick(self.now);
            self.core.pass(self.now, 0);
            while let Some(order) = self.core.poll_spare(self.now) {
                self.core.handle_spare(self.now, order.run().unwrap());
            }
            self.ticket = self.ticket.take().or_else(|| self.core.poll_ticket(self.now));
            if let Some(ticket) = self.ticket.take_if(|_| works) {
                self.core.handle_synced(self.now, ticket.run().unwrap());
                self.core.pass(self.now, 0);
            }
        }
    }

    fn ask(&mut self, request: Request) {
        self.asked += 1;
        let caller = Caller { session: SessionId(1), id: RequestId(self.asked) };
        let context = Context { deadline_ms: 1000, ..Context::default() };
        self.core.handle_request(self.now, caller, &context, request);
    }

    fn answer(&mut self) -> Option<Response> {
        self.core.poll_reply().map(|reply| reply.response)
    }
}

#[test]
fn a_session_whose_keep_alives_were_refused_by_a_stall_gets_as_long_to_ask_again() {
    let mut sole = Sole::leading();
    sole.ask(Request::OpenSession(OpenSession { instance: Instance([2; 16]), ttl_ms: 5000 }));
    sole.wait(50, true);
    let Some(Response::Opened(session)) = sole.answer() else { panic!("not opened") };
    let alive = Request::KeepAlive(KeepAlive { session: session.id });
    sole.ask(Request::Open(Open { name: "b".into(), instance: Instance([3; 16]), expected_epoch: Epoch(0) }));
    for _ in 0..12 {
        sole.wait(500, false);
        sole.ask(alive.clone());
    }
    sole.wait(10, false);
    let refused = std::iter::from_fn(|| sole.answer()).collect::<Vec<_>>();
    assert_eq!(
        refused,
        vec![Response::Refused(Refusal::Unavailable); 12],
        "the disk has hung for longer than the ttl"
    );
    assert!(sole.core.leads(), "a sole voter has nobody to step down for");
    sole.wait(2000, true);
    assert!(matches!(sole.answer(), Some(Response::Opened(_))), "what was taken before is done");
    sole.ask(alive.clone());
    sole.wait(50, true);
    assert!(matches!(sole.answer(), Some(Response::Alive(_))));
    sole.wait(9000, true);
    sole.ask(alive);
    sole.wait(50, true);
    assert_eq!(sole.answer(), Some(Response::Refused(Refusal::SessionExpired)), "nobody kept it alive since");
}

#[test]
fn a_session_whose_keep_alives_were_refused_for_want_of_room_gets_as_long_to_ask_again() {
    let mut sole = Sole::leading();
    sole.ask(Request::OpenSession(OpenSession { instance: Instance([2; 16]), ttl_ms: 5000 }));
    sole.wait(50, true);
    let Some(Response::Opened(session)) = sole.answer() else { panic!("not opened") };
    let alive = Request::KeepAlive(KeepAlive { session: session.id });
    sole.disk.fill(true);
    while sole.core.log().durable() == sole.core.status().last_index {
        sole.ask(alive.clone());
        sole.wait(50, true);
        assert!(matches!(sole.answer(), Some(Response::Alive(_)) | None), "the reserve is for this");
    }
    sole.wait(6000, true);
    sole.disk.fill(false);
    sole.wait(2000, true);
    while sole.answer().is_some() {}
    sole.ask(alive);
    sole.wait(50, true);
    assert!(matches!(sole.answer(), Some(Response::Alive(_))));
}
