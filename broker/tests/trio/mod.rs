//! Three cores whose disks and messages move only when a test says so.

#![allow(dead_code, reason = "each file of tests uses its part of this")]

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use sequor_broker::core::genesis::{Genesis, Member, Settings as Shared};
use sequor_broker::core::time::Time;
use sequor_broker::core::{Caller, Core, PeerMessage, SessionId, Settings, Timing};
use sequor_client::protocol::batch::BatchBuilder;
use sequor_client::protocol::{
    Acks, Append, Appended, BrokerId, ClusterId, Context, Epoch, Incarnation, Instance, Lineage, Offset,
    Open, ProducerId, Request, RequestId, Response, Sequence,
};
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{Identity, Opened, Ticket};

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
pub(crate) const LINEAGE: Lineage = Lineage([8; 16]);
pub(crate) const TICK_US: u64 = 10_000;

/// Three cores, and what is on its way between them.
pub(crate) struct Trio {
    pub now: Time,
    /// What the wall clock of every broker shows. Milliseconds since 1970.
    pub wall_ms: u64,
    pub cores: Vec<Core>,
    pub disks: Vec<MemoryDisk>,
    pub messages: VecDeque<(u64, u64, PeerMessage)>,
    pub tickets: Vec<Option<Ticket>>,
    pub next_id: u64,
}

impl Trio {
    pub(crate) fn start() -> Self {
        let genesis = genesis();
        let (cores, disks) = (1..=3).map(|id| core(id, &genesis)).unzip();
        let tickets = (0..3).map(|_| None).collect();
        Self { now: Time(0), wall_ms: 0, cores, disks, messages: VecDeque::new(), tickets, next_id: 0 }
    }

    /// Starts, and lets broker 1 become leader with its no-op applied.
    pub(crate) fn with_leader() -> Self {
        let mut trio = Self::start();
        trio.elect_first();
        trio
    }

    /// Lets time pass for broker 1 alone until it leads.
    pub(crate) fn elect_first(&mut self) {
        while !self.cores[0].leads() {
            self.now = self.now + TICK_US;
            self.cores[0].handle_tick(self.now);
            self.settle();
        }
        self.settle();
    }

    pub(crate) fn core(&mut self, id: u64) -> &mut Core {
        &mut self.cores[usize::try_from(id - 1).unwrap()]
    }

    /// One pass of a broker. Its messages and its ticket stay on their way.
    pub(crate) fn pass(&mut self, id: u64) {
        let (now, wall_ms) = (self.now, self.wall_ms);
        let core = self.core(id);
        core.pass(now, wall_ms);
        while core.wants_pass() {
            core.pass(now, wall_ms);
        }
        assert!(core.halted().is_none(), "{:?}", core.halted());
        let messages: Vec<_> = std::iter::from_fn(|| core.poll_peer()).collect();
        while let Some(order) = core.poll_spare(now) {
            core.handle_spare(now, order.run().unwrap());
        }
        let ticket = core.poll_ticket(now);
        self.messages.extend(messages.into_iter().map(|(to, message)| (id, to.0, message)));
        if ticket.is_some() {
            self.tickets[usize::try_from(id - 1).unwrap()] = ticket;
        }
    }

    /// Runs the ticket of a broker, if it has one; false if not.
    pub(crate) fn sync(&mut self, id: u64) -> bool {
        let Some(ticket) = self.tickets[usize::try_from(id - 1).unwrap()].take() else { return false };
        let (now, done) = (self.now, ticket.run().unwrap());
        self.core(id).handle_synced(now, done);
        self.pass(id);
        true
    }

    /// Delivers everything that is on its way to a broker.
    pub(crate) fn deliver_to(&mut self, id: u64) {
        let now = self.now;
        for (from, to, message) in std::mem::take(&mut self.messages) {
            if to == id {
                self.core(id).handle_peer(now, BrokerId(from), message);
            } else {
                self.messages.push_back((from, to, message));
            }
        }
        self.pass(id);
    }

    /// Lets everything happen until nothing more does.
    pub(crate) fn settle(&mut self) {
        (1..=3).for_each(|id| self.pass(id));
        loop {
            let synced = (1..=3).filter(|id| self.sync(*id)).count();
            if synced == 0 && self.messages.is_empty() {
                return;
            }
            (1..=3).for_each(|id| self.deliver_to(id));
        }
    }

    /// Asks broker 1 something; the answer, if there is one, comes later.
    pub(crate) fn ask(&mut self, request: Request) -> RequestId {
        self.next_id += 1;
        let (now, id) = (self.now, RequestId(self.next_id));
        let context = Context { deadline_ms: 1000, ..Context::default() };
        self.core(1).handle_request(now, Caller { session: SessionId(1), id }, &context, request);
        id
    }

    /// The next answer of broker 1.
    pub(crate) fn answer(&mut self) -> Option<(RequestId, Response)> {
        self.core(1).poll_reply().map(|reply| (reply.caller.id, reply.response))
    }

    /// Asks, lets everything happen, and returns the answer.
    pub(crate) fn call(&mut self, request: Request) -> Response {
        let id = self.ask(request);
        self.settle();
        let (answered, response) = self.answer().expect("everything has happened");
        assert_eq!(answered, id);
        response
    }

    /// Asks, and returns an answer that needs nothing but one pass of the broker.
    pub(crate) fn call_at_once(&mut self, request: Request) -> Response {
        let id = self.ask(request);
        self.pass(1);
        let (answered, response) = self.answer().expect("it waits for nothing");
        assert_eq!(answered, id);
        response
    }

    pub(crate) fn open(&mut self, name: &str) -> ProducerId {
        match self.call(open(name)) {
            Response::Opened(producer) => producer.id,
            other => panic!("not opened: {other:?}"),
        }
    }
}

pub(crate) fn open(name: &str) -> Request {
    Request::Open(Open { name: name.into(), instance: Instance([1; 16]), expected_epoch: Epoch(0) })
}

pub(crate) fn genesis() -> Genesis {
    let member = |id: u8| Member {
        id: BrokerId(id.into()),
        address: format!("broker-{id}:7400"),
        certificate: [id; 32],
    };
    Genesis::new((1..=3).map(member).collect(), Shared::default()).unwrap()
}

/// A broker, and a disk of its own.
pub(crate) fn core(id: u64, genesis: &Genesis) -> (Core, MemoryDisk) {
    let disk = MemoryDisk::new();
    let identity = Identity { cluster: CLUSTER.0, lineage: LINEAGE.0, broker: id, incarnation: None };
    Identity::create(&disk, &identity).unwrap();
    Identity::load(&disk).unwrap().set_incarnation(&disk, [1; 16]).unwrap();
    (restart(&disk, id, genesis), disk)
}

/// A broker on a disk that has a log already.
pub(crate) fn restart(disk: &MemoryDisk, id: u64, genesis: &Genesis) -> Core {
    let identity = Identity::load(disk).unwrap();
    let sizes = sequor_wal::Settings { segment_bytes: 4 << 20, ..sequor_wal::Settings::default() };
    let Opened { log, commit, .. } = sequor_wal::open(Arc::new(disk.clone()), &identity, sizes).unwrap();
    let settings = Settings {
        cluster: CLUSTER,
        lineage: LINEAGE,
        broker: BrokerId(id),
        incarnation: Incarnation([1; 16]),
        genesis: genesis.clone(),
        tick_us: TICK_US,
        timing: Timing { heartbeat_ticks: 3, election_ticks: 15 },
        seed: id,
    };
    Core::new(settings, log, commit, Time(0))
}

pub(crate) fn batch(producer: ProducerId, first: u64, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push_value(None, value.as_bytes(), 0).unwrap();
    builder.seal(producer, Epoch(1), Sequence(first))
}

pub(crate) fn append(producer: ProducerId, first: u64, value: &str) -> Request {
    let batch = batch(producer, first, value);
    Request::Append(Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch })
}

pub(crate) fn offset_of(response: &Response) -> (Offset, bool) {
    match response {
        Response::Appended(Appended { first, duplicate, .. }) => (*first, *duplicate),
        other => panic!("not written: {other:?}"),
    }
}

/// A message of a peer that no broker of ours would send at this moment.
pub(crate) fn forged(kind: MessageType, from: u64, to: u64, term: u64) -> PeerMessage {
    let mut raft = Message { from, to, term, ..Message::default() };
    raft.set_msg_type(kind);
    PeerMessage { raft, chain: 0, log_time_ms: 0, level: 1 }
}
