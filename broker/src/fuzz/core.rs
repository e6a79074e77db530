//! A broker that is sent messages which no peer should send, at moments at which none should come.
//!
//! ```text
//! input    op …          one byte; bits 3 to 7 say how much
//!   0  a message of broker 2      1  of broker 3      each with its length in front (u16), sealed and addressed
//!   2  time passes                3  a client appends          4  a client asks
//!   5  a connection breaks        6  broker 2 gives its vote   7  broker 3 acknowledges all
//! ```
//!
//! Peers are authenticated, so this is more than is promised: not one of them is trusted not to be broken. A broker may
//! stop, with a reason; it must not panic, and must not lose or change what it has committed.

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use sequor_client::protocol::{
    Acks, Append, BrokerId, ClusterId, Context, Epoch, Incarnation, Instance, Lineage, Lookup, Open,
    ProducerId, Request, RequestId, Sequence, batch::BatchBuilder,
};
use sequor_wal::{Entry, Identity, Opened, Ticket, disk::memory::MemoryDisk};

use super::peer::seal;
use crate::core::{
    Caller, Core, PeerMessage, SessionId, Settings, Timing,
    genesis::{Genesis, Member, Settings as Shared},
    time::Time,
};

const CLUSTER: [u8; 16] = [7; 16];
const OPS_MAX: usize = 200;
const TICK_US: u64 = 10_000;
/// Passes that one event may want.
const PASSES_MAX: usize = 10_000;

/// A cluster of three.
pub(super) fn genesis() -> Genesis {
    let member = |id: u8| Member {
        id: BrokerId(id.into()),
        address: format!("broker-{id}:7400"),
        certificate: [id; 32],
    };
    Genesis::new((1..=3).map(member).collect(), Shared::default()).expect("three members are a cluster")
}

struct World {
    core: Core,
    now: Time,
    requests: u64,
    next: u64,
    /// What was committed, as it was read when it was.
    committed: Vec<Entry>,
}

/// See the module's header.
pub fn core(data: &[u8]) {
    let mut world = World { core: start(), now: Time(0), requests: 0, next: 0, committed: Vec::new() };
    let mut rest = data;
    for _ in 0..OPS_MAX {
        let Some((&op, after)) = rest.split_first() else { break };
        rest = world.step(op, after);
        if !world.work() {
            break;
        }
        world.judge();
    }
}

fn start() -> Core {
    let disk = MemoryDisk::new();
    let identity = Identity { cluster: CLUSTER, lineage: [8; 16], broker: 1, incarnation: Some([1; 16]) };
    let sizes =
        sequor_wal::Settings { segment_bytes: 64 << 10, spares: 1, ..sequor_wal::Settings::default() };
    let opened = sequor_wal::open(Arc::new(disk), &identity, sizes);
    let Opened { log, commit, .. } = opened.expect("the disk is empty");
    let settings = Settings {
        cluster: ClusterId(CLUSTER),
        lineage: Lineage([8; 16]),
        broker: BrokerId(1),
        incarnation: Incarnation([1; 16]),
        genesis: genesis(),
        tick_us: TICK_US,
        timing: Timing { heartbeat_ticks: 3, election_ticks: 15 },
        seed: 1,
    };
    Core::new(settings, log, commit, Time(0))
}

impl World {
    /// Lets one thing happen; what is left of the input.
    fn step<'a>(&mut self, op: u8, rest: &'a [u8]) -> &'a [u8] {
        let how = u64::from(op >> 3);
        match op & 7 {
            from @ (0 | 1) => return self.message(u64::from(from) + 2, rest),
            2 => {
                for _ in 0..=how {
                    self.now = self.now + TICK_US;
                    self.core.handle_tick(self.now);
                }
            }
            3 => self.ask(append(self.next + how / 8)),
            4 => self.ask(question(how)),
            5 => self.core.handle_peer_lost(BrokerId(2 + how % 2)),
            6 => {
                let kinds = [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse];
                let term = self.core.status().term + (how + 1) % 2;
                self.send(2, forged(kinds[(how % 2) as usize], term));
            }
            _ => {
                let status = self.core.status();
                let mut message = forged(MessageType::MsgAppendResponse, status.term);
                message.index = status.last_index.saturating_sub(how % 4);
                self.send(3, message);
            }
        }
        rest
    }

    fn message<'a>(&mut self, from: u64, rest: &'a [u8]) -> &'a [u8] {
        let Some((length, rest)) = rest.split_first_chunk::<2>() else { return &[] };
        let (message, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        let mut message = message.to_vec();
        seal(&mut message);
        if let Ok(mut message) = PeerMessage::decode(Bytes::from(message)) {
            (message.raft.to, message.raft.from) = (1, from);
            self.core.handle_peer(self.now, BrokerId(from), message);
        }
        rest
    }

    fn send(&mut self, from: u64, mut raft: Message) {
        (raft.to, raft.from) = (1, from);
        let message = PeerMessage { raft, chain: 0, log_time_ms: 0, level: 1 };
        self.core.handle_peer(self.now, BrokerId(from), message);
    }

    fn ask(&mut self, request: Request) {
        self.requests += 1;
        let caller = Caller { session: SessionId(1), id: RequestId(self.requests) };
        let context = Context { deadline_ms: 1000, ..Context::default() };
        self.core.handle_request(self.now, caller, &context, request);
    }

    /// Lets the broker work until it wants nothing more. False if it has stopped.
    fn work(&mut self) -> bool {
        for passes in 0.. {
            assert!(passes < PASSES_MAX, "there is no end to its work");
            self.core.pass(self.now, 0);
            while self.core.poll_peer().is_some() || self.core.poll_reply().is_some() {}
            while let Some(order) = self.core.poll_spare(self.now) {
                self.core.handle_spare(self.now, order.run().expect("this disk does not fail"));
            }
            let ticket = self.core.poll_ticket(self.now);
            if let Some(done) = ticket.as_ref().map(Ticket::run) {
                self.core.handle_synced(self.now, done.expect("this disk does not fail"));
            } else if !self.core.wants_pass() {
                break;
            }
        }
        if let Some(halt) = self.core.halted() {
            assert!(!halt.to_string().is_empty());
        }
        self.core.halted().is_none()
    }

    /// What is committed stays as it was.
    fn judge(&mut self) {
        let log = self.core.log();
        let known = self.committed.len() as u64;
        assert!(self.core.applied_index() >= known, "what is applied stays applied");
        assert!(log.last_index() >= self.core.applied_index());
        if let Some(last) = self.committed.last() {
            assert_eq!(log.entry(known).as_ref().ok(), Some(last), "what is committed stays as it was");
        }
        let new = log.entries(known + 1, self.core.applied_index() + 1, u64::MAX);
        self.committed.extend(new.expect("what is applied can be read"));
        let written = self.core.state().producers().show("name").map_or(0, |producer| producer.next.0);
        assert!(written >= self.next, "numbers never fall");
        self.next = written;
    }
}

fn forged(kind: MessageType, term: u64) -> Message {
    let mut message = Message { term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn append(first: u64) -> Request {
    let mut builder = BatchBuilder::new();
    for at in 0..2 {
        builder.push_value(None, &[at; 20], 0).expect("two small records fit");
    }
    let batch = builder.seal(ProducerId(1), Epoch(1), Sequence(first));
    Request::Append(Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch })
}

fn question(how: u64) -> Request {
    match how % 4 {
        0 => Request::End,
        1 => Request::Lookup(Lookup { name: "name".into() }),
        2 => Request::Status,
        _ => {
            Request::Open(Open { name: "name".into(), instance: Instance([9; 16]), expected_epoch: Epoch(0) })
        }
    }
}
