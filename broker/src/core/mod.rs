//! The core: everything a broker decides, and nothing it does.
//!
//! # The life of an append
//!
//! 1. [`Core::handle_request`] takes it in. Its bytes are checked; it is queued.
//! 2. [`Core::pass`] decides everything that is queued, in order, against a draft of the head state (`admission.rs`).
//!    What is written becomes **one** raft entry with its offsets stamped in (`effect.rs`), and the request waits under
//!    the entry's index and term (`waiting.rs`).
//! 3. Raft wants the entry stored and sent (`node.rs`). It is staged in the log; its messages leave by
//!    [`Core::poll_peer`] at once; [`Core::poll_ticket`] hands out the write and the sync as a value.
//! 4. The driver runs the ticket and returns it by [`Core::handle_synced`]; followers do the same and acknowledge by
//!    [`Core::handle_peer`]. When a majority has it on stable storage, raft commits it.
//! 5. What the entry writes was known when it was proposed: the answer leaves by [`Core::poll_reply`].
//! 6. The entry is applied: every broker decides it once more, compares the stamps, and folds it (`machine.rs`). Readers
//!    may have it now.
//!
//! Events go in by `handle_*`, one `pass` works, work comes out by `poll_*` until it is dry. Time is an argument,
//! randomness a seed. Two drivers run this object: `io` on a machine, `sim` in a world of its own.
//!
//! # When it stops
//!
//! Some things must not be survived: an entry that this state cannot reproduce, a disk that returns other bytes than it
//! was given, a log that lost what it had acknowledged. The core then *halts*: it answers nobody any more, and
//! [`Core::halted`] says why.

mod admission;
pub mod effect;
pub mod genesis;
mod halt;
mod idle;
pub mod machine;
mod node;
mod peer;
mod positions;
mod producer;
pub mod producers;
mod questions;
mod recut;
mod replies;
mod room;
pub mod sessions;
mod stall;
mod storage;
mod subscription;
pub mod time;
mod waiting;
mod window;

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{Message, MessageType};
use sequor_client::protocol::{
    self as wire, BrokerId, ClusterId, Context, Counters, Incarnation, Leads, Lineage, Member, Offset,
    Request, Response, ServerHello, Status,
};
use sequor_wal::{Index, Log, ReadError};

use self::admission::{Head, Queue};
use self::effect::{Effects, LEVEL};
use self::genesis::Genesis;
use self::machine::Machine;
use self::node::{Node, Rejected, Work};
use self::positions::Positions;
use self::stall::Syncing;
use self::storage::LogStorage;
use self::time::{LogClock, Time};
use self::waiting::Waiting;

pub use self::halt::Halt;
pub use self::node::Timing;
pub use self::peer::{
    Lane, PEER_HELLO_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, PEER_VERSION, PeerError, PeerHello, PeerMessage,
};
pub use self::subscription::Subscription;
pub use self::waiting::{Caller, SessionId};

/// Entries that are applied before the driver gets to listen again. Count.
const ENTRIES_PER_PASS_MAX: u64 = 1024;
/// Idle time after which the last block of the log gets a witness. Microseconds.
const WITNESS_AFTER_US: u64 = 50_000;
/// Committed entries that are not applied yet, above which a broker is still replaying its log. It votes and replicates,
/// but does not ask to lead: it could decide nothing until it is done, and raft looks through all of them before it
/// campaigns. Count.
const REPLAY_ENTRIES_MIN: u64 = 4096;
/// Most ticks made up for after the driver was held up. More would count time in which peers were not listened to.
const TICKS_AT_ONCE_MAX: u64 = 3;

/// What a core is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its history.
    pub lineage: Lineage,
    /// Who this broker is.
    pub broker: BrokerId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// What the cluster was before its first entry.
    pub genesis: Genesis,
    /// Length of a tick. Microseconds.
    pub tick_us: u64,
    /// How long things take in raft.
    pub timing: Timing,
    /// Where all randomness of this core comes from.
    pub seed: u64,
}

/// What passed the socket of a broker since it started. Counts. The core knows of no socket: its driver tells it, so that
/// one answer holds all that a broker counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// System calls that sent something.
    pub sends: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of those datagrams.
    pub bytes_sent: u64,
    /// System calls that received something.
    pub receives: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Bytes of those datagrams.
    pub bytes_received: u64,
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whom it is for.
    pub caller: Caller,
    /// What it says.
    pub response: Response,
}

/// A broker's decisions. See the module's header.
///
/// Invariants:
/// 1. `applied` is the fold of the entries up to `applied_index`, all of them committed.
/// 2. `head`, while there is one, is `applied` with the entries from `applied_index + 1` to `head.index` on top, all of
///    them proposed by this broker in `head.term`, which it leads.
/// 3. No answer leaves before what it says is committed, or before leadership is proven by something that began after
///    the request arrived.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    node: Node,
    clock: LogClock,
    next_tick: Time,
    last_block: Option<Time>,
    syncing: Option<Syncing>,
    /// Peers whose last word of their disks was that they hang, and when it came.
    said_to_hang: BTreeMap<BrokerId, Time>,
    /// No session is ended before.
    no_expiry_before: Time,
    /// No segment is made ready before.
    next_spare: Time,
    applied: Machine,
    applied_index: Index,
    head: Option<Head>,
    positions: Positions,
    queue: Queue,
    waiting: Waiting,
    replies: VecDeque<Reply>,
    outbox: VecDeque<(BrokerId, PeerMessage)>,
    counters: Counters,
    traffic: Traffic,
    led_term: Option<u64>,
    /// What clients were last told of who leads.
    told: Option<Leads>,
    halt: Option<Halt>,
    #[cfg(feature = "bug-producers-lost-at-restart")]
    found_committed: Index,
}

impl Core {
    /// A core over a recovered log, of which everything up to `commit` was seen committed before.
    #[must_use]
    pub fn new(settings: Settings, log: Log, commit: Index, now: Time) -> Self {
        let voters = settings.genesis.members().iter().map(|member| member.id.0).collect();
        let storage = LogStorage::new(log, voters, commit);
        let node = Node::new(settings.broker.0, storage, settings.timing, settings.seed);
        Self {
            node,
            clock: LogClock::new(0, now),
            next_tick: now + settings.tick_us,
            last_block: None,
            syncing: None,
            said_to_hang: BTreeMap::new(),
            no_expiry_before: now,
            next_spare: now,
            applied: Machine::new(&settings.genesis),
            applied_index: 0,
            head: None,
            positions: Positions::default(),
            queue: Queue::default(),
            waiting: Waiting::default(),
            replies: VecDeque::new(),
            outbox: VecDeque::new(),
            counters: Counters::default(),
            traffic: Traffic::default(),
            led_term: None,
            told: None,
            halt: None,
            #[cfg(feature = "bug-producers-lost-at-restart")]
            found_committed: commit,
            settings,
        }
    }

    /// Lets time pass. Call it at [`Core::next_tick`], or as soon after as possible.
    pub fn handle_tick(&mut self, now: Time) {
        let due = now.since(self.next_tick) / self.settings.tick_us + u64::from(now >= self.next_tick);
        if !self.is_replaying() && !self.node.is_choked() {
            (0..due.min(TICKS_AT_ONCE_MAX)).for_each(|_| self.node.tick());
        }
        if due > 0 {
            self.next_tick = self.next_tick + due * self.settings.tick_us;
        }
        if self.last_block.is_some_and(|at| now.since(at) >= WITNESS_AFTER_US) {
            self.last_block = None;
            self.node.log_mut().request_witness();
        }
    }

    /// When the next tick is due.
    #[must_use]
    pub fn next_tick(&self) -> Time {
        self.next_tick
    }

    /// True while this broker works off what it had committed before it was started.
    fn is_replaying(&self) -> bool {
        !self.leads() && self.node.commit() - self.applied_index > REPLAY_ENTRIES_MIN
    }

    /// Takes a request of a client.
    pub fn handle_request(&mut self, now: Time, caller: Caller, context: &Context, request: Request) {
        self.receive(now, caller, context, request);
    }

    /// Takes a message of the authenticated peer `from`.
    pub fn handle_peer(&mut self, now: Time, from: BrokerId, message: PeerMessage) {
        // What was lost on the way is sent again; what is held in memory has a limit.
        if self.node.is_choked() {
            return;
        }
        if let Err(halt) = self.check_chain(&message) {
            return self.halt(halt);
        }
        if message.raft.get_msg_type() == MessageType::MsgTimeoutNow && self.is_replaying() {
            return;
        }
        let (log_time_ms, term) = (message.log_time_ms, message.raft.term);
        let hangs = stall::is_said_to_hang(&message.raft);
        match self.node.step(from.0, message.raft) {
            Ok(()) if term == self.node.term() => {
                self.clock.hear(log_time_ms, now);
                if let Some(hangs) = hangs {
                    self.hear_of_disk(now, from, hangs);
                }
            }
            Ok(()) => {}
            Err(Rejected::Foreign) => {}
            Err(Rejected::LostEntries { commit, last }) => self.halt(Halt::LostEntries { commit, last }),
            Err(Rejected::OtherAcknowledged { index }) => self.halt(Halt::OtherAcknowledged { index }),
            Err(Rejected::OtherCommitted { index }) => self.halt(Halt::OtherCommitted { index }),
        }
    }

    /// Says that the connection to a peer broke: what was on its way may be lost.
    pub fn handle_peer_lost(&mut self, peer: BrokerId) {
        self.node.peer_lost(peer.0);
    }

    /// Gives up leadership to the follower that is furthest, if this broker leads; rather to one whose disk works.
    pub fn hand_over(&mut self, now: Time) {
        self.hand_over_beyond(now, 0);
    }

    /// Has the last block witnessed, before a clean stop.
    pub fn prepare_to_stop(&mut self) {
        self.node.log_mut().request_witness();
    }

    /// Has the segment that is under way finished soon, for whoever waits for the end.
    pub fn hasten(&self) {
        self.log().hasten();
    }

    /// True if the last pass left work behind, so that the driver could listen in between: give it another one.
    #[must_use]
    pub fn wants_pass(&self) -> bool {
        self.halt.is_none() && self.node.has_work()
    }

    /// Works on everything that was handed in, but applies only about so much that the driver is
    /// listening again after a few milliseconds. `wall_ms` is the wall clock, in milliseconds since 1970; it is only
    /// written down.
    pub fn pass(&mut self, now: Time, wall_ms: u64) {
        let most = self.applied_index + ENTRIES_PER_PASS_MAX;
        self.mind_the_disk(now);
        self.advance(now, most);
        if self.halt.is_none() {
            self.admit(now, wall_ms);
            self.advance(now, most);
        }
        if self.halt.is_none() {
            self.give_ready_answers();
        }
    }

    /// The next answer to a client.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    /// The next message to a peer.
    pub fn poll_peer(&mut self) -> Option<(BrokerId, PeerMessage)> {
        self.outbox.pop_front()
    }

    /// Who leads, if it is another one than the last time: for all clients that are connected.
    pub fn poll_leads(&mut self) -> Option<Leads> {
        let leads = Leads { term: self.node.term(), leader: self.leader()? };
        (self.told.replace(leads) != Some(leads)).then_some(leads)
    }

    /// Why this core stopped, if it did. The driver must stop the broker.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halt.as_ref()
    }

    /// True while this broker leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.node.leads()
    }

    /// Who leads, if known.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        self.node.leader().map(BrokerId)
    }

    /// One past the last offset that is committed and applied here.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.applied.end()
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.node.log()
    }

    /// The state up to [`Core::applied_index`].
    #[must_use]
    pub fn state(&self) -> &Machine {
        &self.applied
    }

    /// Raft index of the last applied entry.
    #[must_use]
    pub fn applied_index(&self) -> Index {
        self.applied_index
    }

    /// Takes what has passed the broker's socket until now, for [`Core::status`] to tell.
    pub fn handle_traffic(&mut self, traffic: Traffic) {
        self.traffic = traffic;
    }

    /// This broker's own view of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let log = self.node.log().counters();
        Status {
            id: self.settings.broker,
            role: self.node.role(),
            term: self.node.term(),
            leader: self.leader(),
            last_index: self.node.log_end(),
            commit: self.node.commit(),
            applied: self.applied_index,
            end: self.end(),
            is_full: self.is_full(),
            counters: Counters {
                log_syncs: log.log_syncs,
                vote_syncs: log.vote_syncs,
                blocks: log.blocks,
                block_bytes: log.block_bytes,
                sends: self.traffic.sends,
                datagrams_sent: self.traffic.datagrams_sent,
                bytes_sent: self.traffic.bytes_sent,
                receives: self.traffic.receives,
                datagrams_received: self.traffic.datagrams_received,
                bytes_received: self.traffic.bytes_received,
                ..self.counters
            },
        }
    }

    /// How this broker greets a client.
    #[must_use]
    pub fn hello(&self) -> ServerHello {
        let members = self.settings.genesis.members().iter();
        ServerHello {
            version: wire::VERSION,
            cluster: self.settings.cluster,
            lineage: self.settings.lineage,
            broker: self.settings.broker,
            incarnation: self.settings.incarnation,
            level: LEVEL,
            capabilities: 0,
            batch_bytes_max: u32::try_from(wire::limits::BATCH_BYTES_MAX).expect("it is below 1 MiB"),
            in_flight_batches_max: u32::try_from(wire::limits::IN_FLIGHT_BATCHES_MAX).expect("it is 4096"),
            leader: self.leader(),
            members: members
                .map(|member| Member { id: member.id, address: member.address.clone() })
                .collect(),
        }
    }

    /// How this broker greets a peer, in this life of its process.
    #[must_use]
    pub fn peer_hello(&self, life: u64) -> PeerHello {
        let last = self.node.log().last();
        PeerHello {
            version: PEER_VERSION,
            cluster: self.settings.cluster,
            lineage: self.settings.lineage,
            broker: self.settings.broker,
            incarnation: self.settings.incarnation,
            life,
            level: LEVEL,
            first_index: self.node.log().first_index(),
            last: (last.index, last.term, last.chain),
        }
    }

    /// Lets raft work until it wants nothing more, or until entries up to `most` are applied.
    fn advance(&mut self, now: Time, most: Index) {
        self.settle(now);
        while self.halt.is_none() && self.applied_index < most {
            self.notice_leadership();
            let work = match self.node.work() {
                Ok(Some(work)) => work,
                Ok(None) => break,
                Err(error) => return self.halt(Halt::Log(error)),
            };
            if let Err(halt) = self.carry_out(now, work) {
                return self.halt(halt);
            }
            self.settle(now);
        }
    }

    /// Reports what became durable, and sends the messages that waited for it.
    fn settle(&mut self, now: Time) {
        if self.halt.is_some() {
            return;
        }
        self.give_early_answers();
        let messages = self.node.settle();
        if let Err(halt) = self.send(now, messages) {
            self.halt(halt);
        }
    }

    fn carry_out(&mut self, now: Time, work: Work) -> Result<(), Halt> {
        self.send(now, work.messages)?;
        self.give_committed_answers();
        for read in work.reads {
            if let Ok(number) = read.request_ctx.as_slice().try_into() {
                self.waiting.proven(u64::from_le_bytes(number), read.index);
            }
        }
        for entry in work.committed {
            self.apply(now, &storage::from_raft(&entry))?;
        }
        self.node.applied(self.applied_index);
        Ok(())
    }

    /// Folds one committed entry and answers who waited for it.
    fn apply(&mut self, now: Time, entry: &sequor_wal::Entry) -> Result<(), Halt> {
        let index = entry.index;
        assert_eq!(index, self.applied_index + 1, "entries are applied in order, each once");
        if !entry.data.is_empty() {
            let damaged = |cause| Halt::Entry { index, cause };
            let first = self.applied.end();
            let effects = Effects::open(entry.data.clone()).map_err(damaged)?;
            let log_time_ms = effects.envelope.log_time_ms;
            if !self.applied.advance_to(log_time_ms) {
                return Err(Halt::TimeFell { index, before: self.applied.log_time_ms(), found: log_time_ms });
            }
            // A broker that becomes leader has applied everything before: it goes on from the latest time of the log.
            self.clock.hear(log_time_ms, now);
            for effect in effects {
                let effect = effect.map_err(damaged)?;
                self.applied.apply(&effect).map_err(|cause| Halt::Mismatch { index, cause })?;
            }
            if self.applied.end() > first {
                self.positions.note(first, index, entry.data.len());
            }
        }
        self.applied_index = index;
        #[cfg(feature = "bug-producers-lost-at-restart")]
        if index == self.found_committed {
            self.applied.forget_producers();
        }
        self.check_head();
        for (caller, question) in self.waiting.applied(index) {
            self.give(caller, question);
        }
        Ok(())
    }

    /// Once everything that was proposed is applied, head and applied state are the same. (Invariant 2; only in builds
    /// with assertions, for it looks at the whole state.)
    fn check_head(&self) {
        if cfg!(debug_assertions)
            && let Some(head) = self.head.as_ref().filter(|head| head.index == self.applied_index)
        {
            assert_eq!(
                head.machine.fingerprint(),
                self.applied.fingerprint(),
                "head and applied state differ"
            );
        }
    }

    fn send(&mut self, now: Time, messages: Vec<Message>) -> Result<(), Halt> {
        let log_time_ms = self.clock.read(now);
        for mut raft in messages {
            self.node.sign(&mut raft);
            self.say_of_disk(now, &mut raft);
            if let Some(chain) = self.chain_before(&raft)? {
                let message = PeerMessage { raft, chain, log_time_ms, level: LEVEL };
                self.outbox.push_back((BrokerId(message.raft.to), message));
            }
        }
        Ok(())
    }

    /// Checksum of the log up to the entry on which an append builds; 0 for other messages. `None` if that entry is not
    /// there any more: raft made the append before another leader's entries replaced it, and it is of no use now.
    fn chain_before(&self, message: &Message) -> Result<Option<u32>, ReadError> {
        if message.get_msg_type() != MessageType::MsgAppend {
            return Ok(Some(0));
        }
        let before = self.node.log().position(message.index)?;
        Ok(before.filter(|before| before.term == message.log_term).map(|before| before.chain))
    }

    /// Where both logs have an entry of the same index and term, everything up to it must be the same.
    fn check_chain(&self, message: &PeerMessage) -> Result<(), Halt> {
        let before = &message.raft;
        let is_current = before.term >= self.node.term();
        if before.get_msg_type() != MessageType::MsgAppend
            || !is_current
            || before.index > self.node.log_end()
        {
            return Ok(());
        }
        match self.node.log().position(before.index)? {
            Some(own) if own.term == before.log_term && own.chain != message.chain => {
                Err(Halt::OtherChain { index: own.index, expected: message.chain, found: own.chain })
            }
            _ => Ok(()),
        }
    }

    fn halt(&mut self, halt: Halt) {
        self.halt.get_or_insert(halt);
    }
}
