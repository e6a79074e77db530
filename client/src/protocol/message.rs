//! What a client and a broker say to each other, as types. The bytes are `frame.rs`'s business.
//!
//! ```text
//! stream       opened by   carries
//! Control      client      Hello first, then KeepAlive, Resolve, Status; small and urgent
//! Requests     client      Open, OpenSession, Append, Lookup, Retire, List, End; answers in any order, matched by request id
//! Subscription client      Subscribe once; the broker answers End if it agrees, then sends Delivery frames
//!                          until one side ends it, all under the id of the Subscribe
//! ```
//!
//! Each stream begins with one byte, its [`StreamKind`]. Every request carries a [`Context`]. A field that
//! would change what is done, and has no meaning in this version yet, is never ignored: a broker refuses a request that
//! uses it, by name ([`Refusal::Unsupported`]).

use std::iter;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    BrokerId, ClusterId, Epoch, Feature, Incarnation, Instance, Lineage, Offset, Placed, ProducerId, Refusal,
    Revision, Sequence, Token,
};

/// The version of the protocol that this library speaks.
pub const VERSION: u16 = 1;

/// ALPN protocol that a client offers.
pub const ALPN_CLIENT: &[u8] = b"sequor-client/1";
/// ALPN protocol between brokers.
pub const ALPN_PEER: &[u8] = b"sequor-peer/1";

/// First byte of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// Hello, then what is small and urgent.
    Control = 1,
    /// Requests and their answers.
    Requests = 2,
    /// One subscription.
    Subscription = 3,
}

impl TryFrom<u8> for StreamKind {
    type Error = Refusal;

    fn try_from(byte: u8) -> Result<Self, Refusal> {
        match byte {
            1 => Ok(Self::Control),
            2 => Ok(Self::Requests),
            3 => Ok(Self::Subscription),
            other => Err(Refusal::Unsupported { what: Feature::Stream(other) }),
        }
    }
}

/// First frame on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Oldest version the client speaks.
    pub version_min: u16,
    /// Newest version the client speaks.
    pub version_max: u16,
    /// The cluster it means to talk to.
    pub cluster: ClusterId,
    /// The history it belongs to, if it has seen one.
    pub lineage: Option<Lineage>,
    /// Bits of optional behaviour, all 0 so far.
    pub capabilities: u64,
    /// Name and version of the client software, for logs. At most 255 bytes.
    pub software: String,
}

/// The broker's answer to a [`ClientHello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    /// The version both will speak.
    pub version: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its history.
    pub lineage: Lineage,
    /// Who answers.
    pub broker: BrokerId,
    /// Its data directory's life.
    pub incarnation: Incarnation,
    /// Feature level that the broker knows.
    pub level: u16,
    /// Bits of optional behaviour, all 0 so far.
    pub capabilities: u64,
    /// Largest batch it takes. Bytes.
    pub batch_bytes_max: u32,
    /// Most batches in flight per producer. Count.
    pub in_flight_batches_max: u32,
    /// Who leads, if known.
    pub leader: Option<BrokerId>,
    /// All members.
    pub members: Vec<Member>,
}

/// One broker of the cluster, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: BrokerId,
    /// Where it listens: `host:port`.
    pub address: String,
}

/// Trace context in the sense of W3C: trace id, span id, flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// Id of the trace.
    pub trace: [u8; 16],
    /// Id of the caller's span.
    pub span: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

/// The furthest state a session has seen. No answer it gets later may come from before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// The history in which the two numbers mean something.
    pub lineage: Lineage,
    /// End offset seen.
    pub end: Offset,
    /// Revision seen.
    pub revision: Revision,
}

/// What every request carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Time from the receipt of the request after which its answer is of no use. Milliseconds.
    pub deadline_ms: u32,
    /// Trace context.
    pub trace: Option<TraceContext>,
    /// Fencing tokens the caller holds.
    pub tokens: Vec<Token>,
    /// What the session has seen; none before its first answer.
    pub seen: Option<HighWater>,
}

/// When the caller of an append is answered. Whatever this says, a client keeps what it sent, and sends it again, until a
/// majority has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acks {
    /// When a majority has it on stable storage.
    #[default]
    Quorum,
    /// When the leader has it on stable storage ([`Response::Accepted`]), and once more when a majority has it.
    Leader,
    /// When it was handed to the library. Says nothing to a broker: a request does not carry it.
    None,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take a producer's name, and fence whoever had it.
    Open(Open),
    /// Write a batch.
    Append(Append),
    /// What is known of a producer's name.
    Lookup(Lookup),
    /// What became of one number; on request, give it up.
    Resolve(Resolve),
    /// Close a producer's name for ever.
    Retire(Retire),
    /// Which producers there are.
    List(List),
    /// Where the log ends: linearizable.
    End,
    /// This broker's own view of itself. Answered by every broker, never by a quorum.
    Status,
    /// Send me the log from an offset on. Only as the first frame of a subscription.
    Subscribe(Subscribe),
    /// Begin a session, to write without a name.
    OpenSession(OpenSession),
    /// Keep a session alive.
    KeepAlive(KeepAlive),
}

/// See [`Request::Open`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The producer's name: 1 to 255 bytes of UTF-8. Names that begin with the byte 0 are reserved.
    pub name: String,
    /// Who opens. Repeating an `open` with the same instance is harmless.
    pub instance: Instance,
    /// The epoch the caller believes is current; 0 for a new name.
    pub expected_epoch: Epoch,
}

/// See [`Request::OpenSession`]. The answer is that of an `open`: a producer of epoch 1, without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Who opens. Repeating an `open` with the same instance is harmless.
    pub instance: Instance,
    /// How long the session lives without being kept alive. Milliseconds,
    /// [`SESSION_TTL_MS_MIN`](super::limits::SESSION_TTL_MS_MIN) to
    /// [`SESSION_TTL_MS_MAX`](super::limits::SESSION_TTL_MS_MAX).
    pub ttl_ms: u32,
}

/// See [`Request::KeepAlive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The session's producer.
    pub session: ProducerId,
}

/// See [`Request::Append`]. The batch itself names producer, epoch and sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// When to answer.
    pub acks: Acks,
    /// The lowest sequence that this client may still resend: older ones need not be remembered one by one.
    pub settled: Sequence,
    /// Only if the log ends here (not supported in this version).
    pub expect_end: Option<Offset>,
    /// The batch, as `batch.rs` draws it.
    pub batch: Bytes,
}

/// See [`Request::Lookup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The producer's name.
    pub name: String,
}

/// See [`Request::Resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// The producer.
    pub producer: ProducerId,
    /// The epoch the caller holds.
    pub epoch: Epoch,
    /// The number in question.
    pub sequence: Sequence,
    /// Give the number up if it is still open, and every open number before it: one entry, after which none of them can
    /// ever be written. Reaches at most [`SEAL_REACH_MAX`](super::limits::SEAL_REACH_MAX) numbers.
    pub seal: bool,
}

/// See [`Request::Retire`]. Repeating it is harmless. A session's producer may be retired too: the session is over then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// The producer.
    pub producer: ProducerId,
    /// The epoch the caller believes is current.
    pub epoch: Epoch,
}

/// See [`Request::List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Only names after this one, in the order of their bytes; none for all.
    pub after: Option<String>,
    /// Most producers wanted. The answer may hold fewer, and says whether there are more.
    pub limit: u32,
}

/// See [`Request::Subscribe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// First offset wanted.
    pub from: Offset,
}

/// What a broker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Open`].
    Opened(Producer),
    /// To [`Request::Append`].
    Appended(Appended),
    /// To [`Request::Append`] with [`Acks::Leader`], before the answer itself: the leader has it on stable storage. The
    /// offsets are provisional: another leader may put it elsewhere, or never hear of it.
    Accepted(Appended),
    /// To [`Request::Lookup`].
    Found(Producer),
    /// To [`Request::KeepAlive`].
    Alive(Alive),
    /// To [`Request::Resolve`].
    Resolved(Resolved),
    /// To [`Request::Retire`].
    Retired(Retired),
    /// To [`Request::List`].
    Listed(Listed),
    /// To [`Request::End`].
    End(End),
    /// To [`Request::Status`].
    Status(Status),
    /// On a subscription: the next records.
    Delivery(Delivery),
    /// To nothing, on the control stream, under request id 0: somebody leads who did not before.
    Leads(Leads),
    /// To anything: no, and why.
    Refused(Refusal),
}

impl Response {
    /// Whether no other answer to the same request follows.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Accepted(_) | Self::Delivery(_))
    }
}

/// A producer's state, as far as a client needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// The number that stands for the name in batches.
    pub id: ProducerId,
    /// The current epoch.
    pub epoch: Epoch,
    /// Who holds it.
    pub instance: Instance,
    /// The sequence that comes next.
    pub next: Sequence,
    /// Newest batches remembered, oldest first.
    pub batches: Vec<Remembered>,
    /// Newest intervals of numbers that were given up, oldest first: first, and one past the last.
    pub sealed: Vec<(Sequence, Sequence)>,
    /// Whether the name was retired: nothing can ever be written under it again.
    pub retired: bool,
}

/// Who leads. A broker says it unasked whenever it learns of another one, so that nobody has to find out by waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leads {
    /// In which term: of two brokers that say different things, the one that names the higher term is right.
    pub term: u64,
    /// Who.
    pub leader: BrokerId,
}

/// A session was kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// How long it lives from now on without being kept alive again. Milliseconds.
    pub ttl_ms: u32,
}

/// The end of a producer's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The sequence that would have come next.
    pub next: Sequence,
}

/// A page of the table of producers, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The producers.
    pub producers: Vec<Summary>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// A producer in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// The number that stands for it.
    pub id: ProducerId,
    /// The current epoch.
    pub epoch: Epoch,
    /// The sequence that comes next.
    pub next: Sequence,
    /// Numbers that were given up. Count.
    pub sealed: u64,
    /// Whether the name was retired.
    pub retired: bool,
}

/// A batch as the broker remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Its first sequence.
    pub first: Sequence,
    /// Its records.
    pub count: u32,
    /// Offset of its first record.
    pub offset: Offset,
    /// Digest of its content.
    pub digest: [u8; 16],
}

/// An append that is written, now or before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Offset of the first record.
    pub first: Offset,
    /// Number of records. They lie side by side, but for those in `rest`.
    pub count: u32,
    /// True if an earlier attempt had written it: `first` is where that one put it.
    pub duplicate: bool,
    /// First token or lease that it granted, if any.
    pub token: Option<Token>,
    /// The branch it took, if it was a transaction: true for `then`.
    pub branch: Option<bool>,
    /// End offset of the log, once this was applied: the session's new high-water mark.
    pub end: Offset,
    /// Where the last records lie, if an earlier attempt was cut otherwise and others wrote in between. Else empty.
    pub rest: Vec<Span>,
}

/// Records that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Offset of the first one.
    pub offset: Offset,
    /// How many there are.
    pub count: u32,
}

/// What became of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolved {
    /// It is written.
    Committed {
        /// Where, if the broker still remembers it one by one.
        offset: Option<Offset>,
    },
    /// It was given up, for ever.
    Sealed,
    /// Neither: it may still be written by a request on its way.
    Open,
}

/// The committed end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// First offset that can be read.
    pub first: Offset,
    /// One past the last.
    pub end: Offset,
    /// Revision of the key-value view.
    pub revision: Revision,
    /// The history in which these mean something.
    pub lineage: Lineage,
}

/// Part a broker plays in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Replicates what the leader sends.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Decides and replicates.
    Leader,
    /// Replicates, but has no vote.
    Learner,
}

/// A broker's own view of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who speaks.
    pub id: BrokerId,
    /// The part it plays.
    pub role: Role,
    /// Raft term.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<BrokerId>,
    /// Last Raft index in its log.
    pub last_index: u64,
    /// Last Raft index it knows to be committed.
    pub commit: u64,
    /// Last Raft index it applied.
    pub applied: u64,
    /// End offset of what it applied.
    pub end: Offset,
    /// Its disk has no room for another segment: as leader it takes no writes until it has.
    pub is_full: bool,
    /// What it did since it started.
    pub counters: Counters,
}

/// What a broker did since it started. Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls of fdatasync on the log.
    pub log_syncs: u64,
    /// Calls of fdatasync on the vote file.
    pub vote_syncs: u64,
    /// Blocks written to the log, and their bytes.
    pub blocks: u64,
    /// Bytes of those blocks, padding included.
    pub block_bytes: u64,
    /// Entries it proposed as leader.
    pub proposals: u64,
    /// Batches it wrote as leader.
    pub batches: u64,
    /// Records in those batches.
    pub records: u64,
    /// Appends it answered as duplicates.
    pub duplicates: u64,
    /// Elections it won.
    pub elections_won: u64,
    /// System calls with which it sent to peers and clients.
    pub sends: u64,
    /// Datagrams that it sent.
    pub datagrams_sent: u64,
    /// Bytes of those datagrams: what UDP carried, without the headers of UDP and IP.
    pub bytes_sent: u64,
    /// System calls with which it received something.
    pub receives: u64,
    /// Datagrams that it received.
    pub datagrams_received: u64,
    /// Bytes of those datagrams.
    pub bytes_received: u64,
}

/// The next records of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Offset after the last record in `stretches`.
    pub next: Offset,
    /// End offset of the log as the broker knows it.
    pub end: Offset,
    /// Names of producers that this subscription has not been told yet.
    pub names: Vec<(ProducerId, String)>,
    /// Whole batches in order, each in its place, in stretches of the log; where one stretch ends and the next begins says
    /// nothing. The first batch may begin before the offset that was asked for: it is delivered as its producer made it.
    pub stretches: Vec<Bytes>,
}

impl Delivery {
    /// Its batches, one after the other. It ends with the first that is none.
    ///
    /// # Errors
    /// As [`Placed::take`].
    pub fn placed(&self) -> impl Iterator<Item = Result<Placed, Refusal>> {
        let mut stretches = self.stretches.iter().cloned();
        let mut stretch = Bytes::new();
        iter::from_fn(move || {
            while stretch.is_empty() {
                stretch = stretches.next()?;
            }
            let placed = Placed::take(&mut stretch);
            if placed.is_err() {
                stretches = [].iter().cloned();
            }
            Some(placed)
        })
    }
}
