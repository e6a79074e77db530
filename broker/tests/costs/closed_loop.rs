//! The closed loop, in lock step, and what is counted in it.

use std::collections::VecDeque;

use allocation_counter::measure as count_allocations;
use bytes::{Bytes, BytesMut};
use sequor_broker::core::time::Time;
use sequor_broker::core::{Caller, Core, PeerMessage, SessionId};
use sequor_client::protocol::batch::BatchBuilder;
use sequor_client::protocol::{
    Acks, Append, BrokerId, Context, Counters, Epoch, ProducerId, Request, RequestId, Response, Sequence,
    frame,
};
use sequor_wal::Ticket;

use crate::trio::{TICK_US, Trio};

/// Fewest and most cycles that are counted. Count.
const CYCLES: (usize, usize) = (40, 400);
/// What the counted cycles write in between: the disks are in memory. Bytes.
const PAYLOAD_BYTES: usize = 16 << 20;
/// Time that passes in a cycle. Microseconds.
const CYCLE_US: u64 = 500;
const BROKERS: usize = 3;

const _: () = assert!(CYCLE_US < TICK_US, "no cycle skips a tick");

/// A closed loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Records of a request.
    pub(crate) batch: usize,
    /// Requests in flight.
    pub(crate) in_flight: usize,
    /// Bytes of a record's value.
    pub(crate) value_bytes: usize,
}

/// What a cycle, a payload byte and a request cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    /// Entries of a cycle.
    pub(crate) entries: f64,
    /// Syncs of a cycle.
    pub(crate) syncs_leader: f64,
    pub(crate) syncs_follower: f64,
    /// Blocks of a cycle, on the leader.
    pub(crate) blocks: f64,
    /// Messages of a cycle, to both followers together, heartbeats among them.
    pub(crate) messages_from_leader: f64,
    /// Messages of a cycle from both.
    pub(crate) messages_from_followers: f64,
    /// Bytes that the leader writes to its log for each byte of a record's value.
    pub(crate) log_bytes_per_byte: f64,
    /// Bytes that all brokers send each other for each of these.
    pub(crate) peer_bytes_per_byte: f64,
    /// Allocations of a core for each request.
    pub(crate) allocations_leader: f64,
    pub(crate) allocations_follower: f64,
}

impl Costs {
    pub(crate) fn each(&self) -> [(&'static str, f64); 10] {
        [
            ("entries per cycle", self.entries),
            ("syncs of the leader per cycle", self.syncs_leader),
            ("syncs of a follower per cycle", self.syncs_follower),
            ("blocks per cycle", self.blocks),
            ("messages of the leader per cycle", self.messages_from_leader),
            ("messages of the followers per cycle", self.messages_from_followers),
            ("log bytes per payload byte", self.log_bytes_per_byte),
            ("peer bytes per payload byte", self.peer_bytes_per_byte),
            ("allocations of the leader per request", self.allocations_leader),
            ("allocations of a follower per request", self.allocations_follower),
        ]
    }
}

impl Load {
    /// How many cycles are counted.
    fn cycles(&self) -> usize {
        (PAYLOAD_BYTES / (self.batch * self.in_flight * self.value_bytes)).clamp(CYCLES.0, CYCLES.1)
    }
}

/// Runs a load until it is steady, then counts.
pub(crate) fn measure(load: Load) -> Costs {
    measure_after(load, load.cycles() / 2)
}

/// Runs so many cycles of a load, then counts.
pub(crate) fn measure_after(load: Load, warm_up: usize) -> Costs {
    let mut running = Running::start(load);
    (0..warm_up).for_each(|_| running.cycle());
    let before = running.counters();
    running.spent = Spent::default();
    (0..load.cycles()).for_each(|_| running.cycle());
    running.costs(&before)
}

/// What the cycles so far took.
#[derive(Default)]
struct Spent {
    allocations: [u64; BROKERS],
    messages: [u64; BROKERS],
    peer_bytes: u64,
}

/// Three brokers under load. Broker 1 leads; the numbers of the others are their places in the lists plus one.
struct Running {
    load: Load,
    now: Time,
    cores: Vec<Core>,
    tickets: Vec<Option<Ticket>>,
    /// On its way: from, to, what.
    messages: VecDeque<(usize, usize, PeerMessage)>,
    producer: ProducerId,
    next: u64,
    last_id: u64,
    answers: usize,
    /// Their frames, as a stream's writer has them.
    answers_ready: BytesMut,
    spent: Spent,
}

impl Running {
    fn start(load: Load) -> Self {
        let mut trio = Trio::with_leader();
        let producer = trio.open("load");
        let Trio { now, cores, tickets, .. } = trio;
        let spent = Spent::default();
        let (messages, answers, answers_ready) = Default::default();
        let (next, last_id) = (0, 1000);
        Self { load, now, cores, tickets, messages, producer, next, last_id, answers, answers_ready, spent }
    }

    fn counters(&self) -> Vec<Counters> {
        self.cores.iter().map(|core| core.status().counters).collect()
    }

    /// Every request of the loop goes in, everything happens, every answer comes out.
    fn cycle(&mut self) {
        self.now = self.now + CYCLE_US;
        let requests = self.requests();
        let now = self.now;
        self.at(0, |core| {
            for (id, request) in requests {
                let context = Context { deadline_ms: 1000, ..Context::default() };
                core.handle_request(now, Caller { session: SessionId(1), id }, &context, request);
            }
        });
        self.answers = 0;
        while self.answers < self.load.in_flight {
            assert!(self.step(), "the loop stands still with {} answers", self.answers);
        }
        while self.step() {}
        for broker in 0..BROKERS {
            let due = self.cores[broker].next_tick() <= now;
            if due {
                self.at(broker, |core| core.handle_tick(now));
            }
        }
        while self.step() {}
    }

    /// Delivers what is on its way, and lets the disks work, once. False if there was nothing.
    fn step(&mut self) -> bool {
        let on_their_way = std::mem::take(&mut self.messages);
        let tickets: Vec<_> = self.tickets.iter_mut().map(Option::take).collect();
        let is_idle = on_their_way.is_empty() && tickets.iter().all(Option::is_none);
        let now = self.now;
        for (from, to, message) in on_their_way {
            self.at_without_pass(to, |core| core.handle_peer(now, BrokerId(from as u64 + 1), message));
        }
        for (broker, ticket) in tickets.into_iter().enumerate() {
            if let Some(ticket) = ticket {
                let done = ticket.run().unwrap();
                self.at_without_pass(broker, |core| core.handle_synced(now, done));
            }
        }
        (0..BROKERS).for_each(|broker| self.at(broker, |_| {}));
        !is_idle
    }

    /// The next requests, made where nothing is counted.
    fn requests(&mut self) -> Vec<(RequestId, Request)> {
        let Load { batch, in_flight, value_bytes } = self.load;
        let value = vec![0x5a; value_bytes];
        let settled = Sequence(self.next);
        let make = |_| {
            let mut builder = BatchBuilder::new();
            (0..batch).for_each(|_| builder.push_value(None, &value, 1).unwrap());
            let batch_bytes: Bytes = builder.seal(self.producer, Epoch(1), Sequence(self.next));
            self.next += batch as u64;
            self.last_id += 1;
            let append = Append { acks: Acks::Quorum, settled, expect_end: None, batch: batch_bytes };
            (RequestId(self.last_id), Request::Append(append))
        };
        (0..in_flight).map(make).collect()
    }

    /// Does something with a core, and counts what it allocates.
    fn at_without_pass(&mut self, broker: usize, work: impl FnOnce(&mut Core)) {
        let core = &mut self.cores[broker];
        self.spent.allocations[broker] += count_allocations(|| work(core)).count_total;
    }

    /// The same, then a pass, and takes out what comes of it.
    fn at(&mut self, broker: usize, work: impl FnOnce(&mut Core)) {
        let now = self.now;
        self.at_without_pass(broker, |core| {
            work(core);
            core.pass(now, 0);
            while core.wants_pass() {
                core.pass(now, 0);
            }
        });
        let core = &mut self.cores[broker];
        assert!(core.halted().is_none(), "{:?}", core.halted());
        let mut told = (Vec::with_capacity(16), Vec::with_capacity(self.load.in_flight));
        let (messages, answers) = (&mut told.0, &mut told.1);
        // What leaves is turned into bytes on the way, as the broker's own loop does it.
        let leaving = count_allocations(|| {
            while let Some((to, message)) = core.poll_peer() {
                messages.push((to, message.encode(), message));
            }
            while let Some(reply) = core.poll_reply() {
                frame::put_response(&mut self.answers_ready, reply.caller.id, &reply.response).unwrap();
                answers.push(reply.response);
            }
        });
        self.spent.allocations[broker] += leaving.count_total;
        for (to, pieces, message) in told.0 {
            self.spent.messages[broker] += 1;
            self.spent.peer_bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            self.messages.push_back((broker, usize::try_from(to.0).unwrap() - 1, message));
        }
        for response in told.1 {
            assert!(matches!(response, Response::Appended(_)), "{response:?}");
            self.answers += 1;
        }
        self.answers_ready.clear();
        while let Some(order) = core.poll_spare(now) {
            core.handle_spare(now, order.run().unwrap());
        }
        let mut ticket = None;
        self.spent.allocations[broker] += count_allocations(|| ticket = core.poll_ticket(now)).count_total;
        if ticket.is_some() {
            self.tickets[broker] = ticket;
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn costs(&self, before: &[Counters]) -> Costs {
        let after = self.counters();
        let grown =
            |broker: usize, of: fn(&Counters) -> u64| (of(&after[broker]) - of(&before[broker])) as f64;
        let cycles = self.load.cycles() as f64;
        let requests = cycles * self.load.in_flight as f64;
        let payload = requests * (self.load.batch * self.load.value_bytes) as f64;
        let Spent { allocations, messages, peer_bytes } = &self.spent;
        let followers = |of: &[u64; BROKERS]| of[1..].iter().sum::<u64>() as f64;
        let syncs = |broker| grown(broker, |counters| counters.log_syncs + counters.vote_syncs) / cycles;
        Costs {
            entries: grown(0, |counters| counters.proposals) / cycles,
            syncs_leader: syncs(0),
            syncs_follower: f64::midpoint(syncs(1), syncs(2)),
            blocks: grown(0, |counters| counters.blocks) / cycles,
            messages_from_leader: messages[0] as f64 / cycles,
            messages_from_followers: followers(messages) / cycles,
            log_bytes_per_byte: grown(0, |counters| counters.block_bytes) / payload,
            peer_bytes_per_byte: *peer_bytes as f64 / payload,
            allocations_leader: allocations[0] as f64 / requests,
            allocations_follower: followers(allocations) / 2.0 / requests,
        }
    }
}
