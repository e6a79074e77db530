//! Raft, driven without I/O. The only file that calls the `raft` crate's state machine.
//!
//! What that crate leaves to its caller, and where it is done:
//!
//! * *Durability in order.* Each `Ready` that raft hands out is numbered. What it wants stored is staged in the log at
//!   once; its number is reported back, and the messages that rest on it leave, only when everything staged up to that
//!   point is durable ([`Node::settle`]). A `Ready` with nothing to store queues behind the ones before it.
//!   Two kinds of messages leave before that, for they promise nothing: those of a leader, which carry entries, and the
//!   answer to a heartbeat, which says that this broker listens. A hung disk makes nobody look dead. (etcd's raft does not
//!   hold it back either, where storage is asynchronous.)
//! * *Randomness.* The crate draws election timeouts from the operating system. They are overwritten, after every call,
//!   by one drawn from our own seed once per change of term or role.
//! * *Trust.* A message is checked before the crate sees it: it panics on some that a broken peer could send, and obeys
//!   some that no peer has a business sending ([`Node::step`]).
//! * *Silence.* A proposal is only made as leader (a follower would forward it); reads only after the first commit of
//!   the term (they would be dropped).

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};
use raft::{Config, RawNode, ReadOnlyOption, ReadState, StateRole};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sequor_client::protocol::Role;
use sequor_client::protocol::limits::ENTRY_BYTES_MAX;
use sequor_wal::{Index, Log, ReadError, Term, Vote};

use super::storage::{LogStorage, from_raft};

/// Most bytes of entries in one message to a peer.
const MESSAGE_BYTES_MAX: u64 = ENTRY_BYTES_MAX as u64;
/// Most append messages to one peer without an answer. Count.
const IN_FLIGHT_MESSAGES_MAX: usize = 256;
/// Most bytes of entries that a leader proposes beyond the commit.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of committed entries taken from raft at once, unless a single one is larger: a pass stays short, so that a broker that has much to
/// apply after a start still listens, votes and replicates meanwhile.
const COMMITTED_BYTES_PER_READY_MAX: u64 = 256 << 10;
/// How far the term of a message may be ahead of ours: more elections than a cluster holds in its life. One message with a
/// term at the end of a u64 would be the last election of the cluster, and raft adds one to it. Count.
const TERM_LEAP_MAX: Term = 1 << 32;

/// Most that a broker whose disk does not answer holds in memory for it: bytes of entries.
const UNSYNCED_BYTES_MAX: usize = 256 << 20;
/// The same: steps of raft that wait for it, of some hundred bytes. Heartbeats and questions make them too: so many that a
/// leader can stay for a disk that all share. Count.
const UNSETTLED_MAX: usize = 1 << 16;

/// How long things take in raft, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// Least ticks without a leader before an election; the most is twice that.
    pub election_ticks: u32,
}

/// Raft of one broker.
pub(super) struct Node {
    raw: RawNode<LogStorage>,
    timing: Timing,
    random: ChaCha8Rng,
    drawn_for: (Term, StateRole),
    timeout_ticks: usize,
    unsettled: VecDeque<Unsettled>,
}

/// A `Ready` whose storing is not confirmed yet.
struct Unsettled {
    number: u64,
    generation: u64,
    messages: Vec<Message>,
}

/// What raft wants done, after what it wants stored was staged.
#[derive(Default)]
pub(super) struct Work {
    /// Messages that may leave at once.
    pub messages: Vec<Message>,
    /// Entries that are committed, in order, each exactly once.
    pub committed: Vec<RaftEntry>,
    /// Reads whose leadership is proven.
    pub reads: Vec<ReadState>,
}

/// Why a message of a peer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It is not one that this peer may send; dropped.
    Foreign,
    /// A leader holds us to be further than we are: this disk has lost entries that it had acknowledged.
    LostEntries {
        /// What the leader knows us to have.
        commit: Index,
        /// What we have.
        last: Index,
    },
    /// A leader has another entry where it holds us to have its own: this disk has lost entries that it had acknowledged,
    /// and what was there before them is back.
    OtherAcknowledged {
        /// Where.
        index: Index,
    },
    /// A leader has another entry where ours is committed: one of the two disks lies.
    OtherCommitted {
        /// Where.
        index: Index,
    },
}

impl Node {
    /// Raft over recovered storage.
    #[must_use]
    pub(super) fn new(id: u64, storage: LogStorage, timing: Timing, seed: u64) -> Self {
        let config = Config {
            id,
            election_tick: timing.election_ticks as usize,
            heartbeat_tick: timing.heartbeat_ticks as usize,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: IN_FLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            // Followers learn of a commit with the next append or heartbeat: a message of its own for each commit would
            // cost two datagrams a follower and hurry nobody.
            skip_bcast_commit: true,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_READY_MAX,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw =
            RawNode::new(&config, storage, &logger).expect("the configuration is checked by `Settings`");
        let mut node = Self {
            raw,
            timing,
            random: ChaCha8Rng::seed_from_u64(seed),
            drawn_for: (Term::MAX, StateRole::Follower),
            timeout_ticks: 0,
            unsettled: VecDeque::new(),
        };
        node.keep_own_timeout();
        node
    }

    fn storage_mut(&mut self) -> &mut LogStorage {
        self.raw.raft.mut_store()
    }

    /// The log.
    #[must_use]
    pub(super) fn log(&self) -> &Log {
        &self.raw.raft.store().log
    }

    /// The log.
    pub(super) fn log_mut(&mut self) -> &mut Log {
        &mut self.storage_mut().log
    }

    /// Current term.
    #[must_use]
    pub(super) fn term(&self) -> Term {
        self.raw.raft.term
    }

    /// Who leads this term, if known.
    #[must_use]
    pub(super) fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|&id| id != raft::INVALID_ID)
    }

    /// The part this broker plays.
    #[must_use]
    pub(super) fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if self.raw.raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
        }
    }

    /// True while this broker leads its term.
    #[must_use]
    pub(super) fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// True once this broker leads and has applied an entry of its own term: from then on it knows every entry that
    /// was ever committed.
    #[must_use]
    pub(super) fn may_decide(&self) -> bool {
        self.leads() && (cfg!(feature = "bug-admission-before-noop") || self.raw.raft.apply_to_current_term())
    }

    /// Last index known to be committed.
    #[must_use]
    pub(super) fn commit(&self) -> Index {
        self.raw.raft.raft_log.committed
    }

    /// Term of an entry as raft sees it: what was received and is not staged in the log yet counts.
    #[must_use]
    pub(super) fn term_of(&self, index: Index) -> Option<Term> {
        self.raw.raft.raft_log.term(index).ok()
    }

    /// Last index of the log as raft sees it.
    #[must_use]
    pub(super) fn log_end(&self) -> Index {
        self.raw.raft.raft_log.last_index()
    }

    /// True if another entry of the largest size may be proposed without passing the bound on what is uncommitted.
    #[must_use]
    pub(super) fn has_room(&self) -> bool {
        let uncommitted = self.raw.raft.uncommitted_size() as u64;
        uncommitted + ENTRY_BYTES_MAX as u64 <= UNCOMMITTED_BYTES_MAX
    }

    /// True if so much waits for the disk that nothing more may come in: to the others this broker is as good as gone.
    #[must_use]
    pub(super) fn is_choked(&self) -> bool {
        self.unsettled.len() >= UNSETTLED_MAX || self.log().tail_bytes() >= UNSYNCED_BYTES_MAX
    }

    /// Lets one tick of raft's own clock pass.
    pub(super) fn tick(&mut self) {
        self.raw.tick();
        self.keep_own_timeout();
    }

    /// Takes a message of the authenticated peer `from`.
    ///
    /// # Errors
    /// If the message is not taken. All but [`Rejected::Foreign`] must stop the broker.
    pub(super) fn step(&mut self, from: u64, mut message: Message) -> Result<(), Rejected> {
        self.check(from, &message)?;
        self.believe_what_was_acknowledged(&mut message);
        // An error here means that the sender is not a member: as with any message, losing it is harmless.
        let _lost = self.raw.step(message);
        self.keep_own_timeout();
        Ok(())
    }

    fn check(&self, from: u64, message: &Message) -> Result<(), Rejected> {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        let addressed = message.from == from && message.to == raft.id;
        let timely = message.term != 0 && message.term <= raft.term.saturating_add(TERM_LEAP_MAX);
        let sound = match message.get_msg_type() {
            MessageType::MsgAppend => {
                if let Some(index) = self.contradicts_commit(message) {
                    return Err(Rejected::OtherCommitted { index });
                }
                entries_follow(message)
            }
            MessageType::MsgAppendResponse => {
                message.term != raft.term
                    || (message.index <= last && message.reject_hint <= last && !self.is_denial(message))
            }
            MessageType::MsgHeartbeat if message.term >= raft.term && message.commit > last => {
                return Err(Rejected::LostEntries { commit: message.commit, last });
            }
            MessageType::MsgHeartbeat if self.denies_acknowledged(message) => {
                return Err(Rejected::OtherAcknowledged { index: message.commit });
            }
            MessageType::MsgTimeoutNow => raft.leader_id == from && message.term == raft.term,
            MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse => message.entries.is_empty(),
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgSnapshot
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp => false,
        };
        if addressed && timely && sound { Ok(()) } else { Err(Rejected::Foreign) }
    }

    /// Whether another entry lies here at the commit of a heartbeat: a leader commits no more there than it was told that we
    /// have. Leaders of older versions do not say of which term theirs is.
    fn denies_acknowledged(&self, message: &Message) -> bool {
        let is_current = message.term >= self.term() && message.log_term != 0;
        is_current && self.term_of(message.commit) != Some(message.log_term)
    }

    /// Says in a heartbeat of which term the entry is that it commits, so that who has another one there notices. Raft itself
    /// has no use for it.
    pub(super) fn sign(&self, message: &mut Message) {
        if message.get_msg_type() == MessageType::MsgHeartbeat {
            message.log_term = self.term_of(message.commit).unwrap_or_default();
        }
    }

    /// Up to where a peer has acknowledged the log in this term, which we lead.
    fn acknowledged(&self, peer: u64) -> Index {
        self.raw.raft.prs().get(peer).map_or(0, |progress| progress.matched)
    }

    /// Whether a follower does not find an entry that it has acknowledged in this term. Either the message was overtaken
    /// by the acknowledgement, and means nothing any more; or that disk has lost entries. Raft would send them once more,
    /// and the loss would be healed before a heartbeat could tell the follower of it.
    fn is_denial(&self, message: &Message) -> bool {
        self.leads() && message.reject && message.index <= self.acknowledged(message.from)
    }

    /// For the same reason nothing is sent again that a follower has acknowledged, wherever it says that its log ends.
    fn believe_what_was_acknowledged(&self, message: &mut Message) {
        let is_rejection = message.get_msg_type() == MessageType::MsgAppendResponse && message.reject;
        if !is_rejection || !self.leads() || message.term != self.term() {
            return;
        }
        let acknowledged = self.acknowledged(message.from);
        if message.reject_hint < acknowledged {
            (message.reject_hint, message.log_term) = (acknowledged, 0);
        }
    }

    /// The first entry of an append that is not the one we know to be committed at its index.
    fn contradicts_commit(&self, message: &Message) -> Option<Index> {
        let raft = &self.raw.raft;
        let current = message.term >= raft.term;
        let committed = message.entries.iter().take_while(|entry| current && entry.index <= self.commit());
        committed
            .filter(|entry| self.term_of(entry.index) != Some(entry.term))
            .map(|entry| entry.index)
            .next()
    }

    /// Proposes an entry; says where it will lie, or `None` if raft does not take it now. Only for a leader.
    pub(super) fn propose(&mut self, data: Bytes) -> Option<(Index, Term)> {
        debug_assert!(self.leads(), "a follower would forward the proposal around admission");
        let entry = RaftEntry { data, ..RaftEntry::default() };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        message.set_entries(vec![entry].into());
        self.raw.step(message).ok()?;
        Some((self.raw.raft.raft_log.last_index(), self.term()))
    }

    /// Begins a round that proves leadership; `number` comes back in [`Work::reads`]. Only once the leader may decide.
    pub(super) fn prove_leadership(&mut self, number: u64) {
        debug_assert!(self.may_decide(), "raft drops a read silently before the first commit of a term");
        self.raw.read_index(number.to_le_bytes().to_vec());
    }

    /// Hands leadership to a follower whose log is durable beyond `least`, if there is one and no handing over is under
    /// way: of those that are fit and were heard of lately to the one that is furthest. (Raft forgets now and then of whom it
    /// heard.)
    pub(super) fn hand_over_beyond(&mut self, least: Index, is_fit: impl Fn(u64) -> bool) {
        let raft = &self.raw.raft;
        if !self.leads() || raft.lead_transferee.is_some() {
            return;
        }
        let others = raft.prs().iter().filter(|(id, progress)| **id != raft.id && progress.matched > least);
        let best = others
            .max_by_key(|(id, progress)| (is_fit(**id), progress.recent_active, progress.matched))
            .map(|(&id, _)| id);
        if let Some(id) = best {
            self.raw.transfer_leader(id);
        }
    }

    /// Gives up leadership without knowing to whom. A sole voter keeps it.
    pub(super) fn step_down(&mut self) {
        let voters = self.raw.raft.prs().conf().voters().ids().len();
        if self.leads() && voters > 1 {
            let term = self.term();
            self.raw.raft.become_follower(term, raft::INVALID_ID);
            self.keep_own_timeout();
        }
    }

    /// Says that a message to this peer was lost.
    pub(super) fn peer_lost(&mut self, peer: u64) {
        self.raw.report_unreachable(peer);
    }

    /// Tells raft how far this broker has applied.
    pub(super) fn applied(&mut self, index: Index) {
        self.raw.advance_apply_to(index);
    }

    /// True if raft wants something done.
    #[must_use]
    pub(super) fn has_work(&self) -> bool {
        self.raw.has_ready()
    }

    /// The next thing that raft wants done, or `None` when it wants nothing. Everything it wants stored is staged in
    /// the log when this returns.
    ///
    /// # Errors
    /// If the log could not be read. The broker must stop.
    pub(super) fn work(&mut self) -> Result<Option<Work>, ReadError> {
        if let Some(error) = self.storage_mut().failure() {
            return Err(error);
        }
        if !self.raw.has_ready() {
            return Ok(None);
        }
        let mut ready = self.raw.ready();
        let (mut messages, mut promises) = (ready.take_messages(), ready.take_persisted_messages());
        messages.extend(promises.extract_if(.., |message| promises_nothing(message)));
        let work =
            Work { messages, committed: ready.take_committed_entries(), reads: ready.take_read_states() };
        if let Some(error) = self.storage_mut().failure() {
            return Err(error);
        }
        self.stage(&ready)?;
        self.unsettled.push_back(Unsettled {
            number: ready.number(),
            generation: self.log().generation(),
            messages: promises,
        });
        let number = ready.number();
        self.raw.advance_append_async(ready);
        if cfg!(feature = "bug-persist-early") || cfg!(feature = "bug-own-unsynced-copy") && self.leads() {
            self.raw.on_persist_ready(number);
        }
        Ok(Some(work))
    }

    fn stage(&mut self, ready: &raft::Ready) -> Result<(), ReadError> {
        let log = &mut self.raw.raft.mut_store().log;
        if !ready.entries().is_empty() {
            log.append(ready.entries().iter().map(from_raft).collect())?;
        }
        if let Some(hard_state) = ready.hs() {
            let vote = Vote { term: hard_state.term, voted_for: hard_state.vote };
            if vote != log.vote() {
                log.set_vote(vote);
            }
            log.set_commit(hard_state.commit);
        }
        Ok(())
    }

    /// Reports to raft what has become durable, and returns the messages that rested on it.
    pub(super) fn settle(&mut self) -> Vec<Message> {
        let durable = match cfg!(feature = "bug-ack-before-sync") && !self.leads() {
            true => self.log().generation(),
            false => self.log().durable_generation(),
        };
        let mut messages = Vec::new();
        while self.unsettled.front().is_some_and(|first| first.generation <= durable) {
            let Some(settled) = self.unsettled.pop_front() else { break };
            self.raw.on_persist_ready(settled.number);
            messages.extend(settled.messages);
        }
        messages
    }

    /// Overwrites raft's election timeout, which it draws from the operating system, by one from our seed.
    fn keep_own_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let now = (raft.term, raft.state);
        if now != self.drawn_for {
            let election = u64::from(self.timing.election_ticks);
            let drawn = election + self.random.next_u64() % election;
            self.timeout_ticks = usize::try_from(drawn).expect("twice a u32 fits a usize");
            self.drawn_for = now;
        }
        raft.set_randomized_election_timeout(self.timeout_ticks);
    }
}

/// Whether a message of a follower rests on nothing that it has stored. Nobody counts the answer to a heartbeat for a vote
/// or a commit, and the proof of leadership that is made of such answers asks who knows of no later term now, not who will
/// remember this one. (To raft it is also the word to send what is missing: each brings an append, mostly an empty one.)
fn promises_nothing(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgHeartbeatResponse
}

/// An append builds on an entry that can exist (only index 0 has term 0); its entries lie side by side after that, and
/// their terms never fall nor pass the sender's.
fn entries_follow(message: &Message) -> bool {
    let mut before = (message.index, message.log_term);
    let builds = (message.index == 0) == (message.log_term == 0) && message.log_term <= message.term;
    builds
        && message.entries.iter().all(|entry| {
            let follows = Some(entry.index) == before.0.checked_add(1)
                && entry.term >= before.1.max(1)
                && entry.term <= message.term;
            before = (entry.index, entry.term);
            follows
        })
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.raw.raft.id)
            .field("role", &self.role())
            .field("term", &self.term())
            .field("commit", &self.commit())
            .finish_non_exhaustive()
    }
}
