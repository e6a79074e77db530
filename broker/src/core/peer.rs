//! What brokers say to each other, and in which bytes.
//!
//! Raft's messages have a codec of their own here: protobuf is not allowed near bytes from the network, and an entry's
//! data must pass from the frame of a message into the log without a copy.
//!
//! ```text
//!  0     4      6       8       10  12        16   24     32     40         48      56       64
//!  | crc | kind | flags | level | 0 | entries | to | from | term | log term | index | commit | commit term |
//!  | u32 | u16  | u16   | u16   |u16| u32     | u64 each                                                  |
//!  72            80         88      92        96
//!  | reject hint | log time | chain | context | context bytes … | entry … entry |
//!  | u64         | u64 ms   | u32   | u32     |
//!
//!  entry:  | data length u32 | kind u8 | 0 u8×3 | index u64 | term u64 | data |
//! ```
//!
//! `flags` has bit 0 for "rejected". `crc` covers everything before the entries' data; the data is covered by `chain`,
//! which is the checksum of the whole log up to and with the entry before the first one here, and which the receiver
//! continues over the entries.
//!
//! In an append `log term` is that of the entry before the first one, in a heartbeat that of the entry at `commit`; 0 in a
//! heartbeat means that the sender does not say. In the answer to a heartbeat "rejected" says that the sender's disk hangs.
//!
//! The frame around a message (its length) is the stream's business.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry as RaftEntry, EntryType, Message, MessageType};
use sequor_client::protocol::limits::ENTRY_BYTES_MAX;
use sequor_client::protocol::{BrokerId, ClusterId, Incarnation, Lineage};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the protocol between brokers.
pub const PEER_VERSION: u16 = 1;
/// Largest message between brokers: one append's worth of entries. Bytes.
pub const PEER_MESSAGE_BYTES_MAX: usize = 2 * ENTRY_BYTES_MAX + (64 << 10);
/// Largest hello between brokers. Bytes.
pub const PEER_HELLO_BYTES_MAX: usize = 1024;
/// Most entries in one message. Count.
const ENTRIES_MAX: u32 = 1 << 16;
/// Longest context. Bytes.
const CONTEXT_BYTES_MAX: u32 = 64;
const HEADER_BYTES: usize = 96;
const ENTRY_HEADER_BYTES: usize = 24;
const FLAG_REJECT: u16 = 1;
const ENTRY_NORMAL: u8 = 1;
const ENTRY_CONF_CHANGE: u8 = 2;

/// The first thing that two brokers tell each other on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// [`PEER_VERSION`].
    pub version: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its history.
    pub lineage: Lineage,
    /// Who speaks.
    pub broker: BrokerId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// The life of its process: drawn anew at each start. Who hears of another one than it is connected to is connected to
    /// nobody any more.
    pub life: u64,
    /// The newest feature level it knows.
    pub level: u16,
    /// First index of its log.
    pub first_index: u64,
    /// Index, term and chain of its last durable entry.
    pub last: (u64, u64, u32),
}

impl PeerHello {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        postcard::to_stdvec(self).expect("a hello has a fixed shape and writing to memory cannot fail").into()
    }

    /// Reads it.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, PeerError> {
        postcard::from_bytes(bytes).map_err(|_| PeerError::Malformed)
    }
}

/// Which stream a message travels on: votes and heartbeats must never wait behind a megabyte of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats and votes.
    Urgent,
    /// Entries and their acknowledgements.
    Bulk,
}

/// A message of raft with what our log adds to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerMessage {
    /// Raft's message.
    pub raft: Message,
    /// Checksum of the sender's log up to the entry before the first one in the message; 0 if it carries none.
    pub chain: u32,
    /// The sender's log time, in milliseconds.
    pub log_time_ms: u64,
    /// The sender's feature level.
    pub level: u16,
}

/// Why bytes of a peer are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// They end early or contradict themselves.
    #[error("malformed message of a peer")]
    Malformed,
    /// The checksum of the header is wrong.
    #[error("bad checksum in a peer's message: it says {expected:#010x}, its bytes give {found:#010x}")]
    BadChecksum {
        /// What it says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// A kind that this build does not know, or that must not travel between brokers.
    #[error("peer message kind {0} is not accepted")]
    UnknownKind(u16),
    /// More than the limit.
    #[error("a peer's message is over a limit")]
    OverLimit,
}

impl PeerMessage {
    /// The stream that it travels on.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self.raft.get_msg_type() {
            MessageType::MsgAppend | MessageType::MsgAppendResponse => Lane::Bulk,
            _ => Lane::Urgent,
        }
    }

    /// Its bytes, in chunks: the entries' data is not copied.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let raft = &self.raft;
        let heads = HEADER_BYTES + raft.context.len() + raft.entries.len() * ENTRY_HEADER_BYTES;
        let mut out = BytesMut::with_capacity(heads);
        out.put_u32_le(0);
        out.put_u16_le(kind_of(raft.get_msg_type()));
        out.put_u16_le(if raft.reject { FLAG_REJECT } else { 0 });
        out.put_u16_le(self.level);
        out.put_u16_le(0);
        out.put_u32_le(small(raft.entries.len()));
        for number in [raft.to, raft.from, raft.term, raft.log_term, raft.index] {
            out.put_u64_le(number);
        }
        for number in [raft.commit, raft.commit_term, raft.reject_hint, self.log_time_ms] {
            out.put_u64_le(number);
        }
        out.put_u32_le(self.chain);
        out.put_u32_le(small(raft.context.len()));
        out.put_slice(&raft.context);
        for entry in &raft.entries {
            out.put_u32_le(small(entry.data.len()));
            out.put_u8(match entry.get_entry_type() {
                EntryType::EntryNormal => ENTRY_NORMAL,
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => ENTRY_CONF_CHANGE,
            });
            out.put_slice(&[0; 3]);
            out.put_u64_le(entry.index);
            out.put_u64_le(entry.term);
        }
        let crc = crc32fast::hash(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        interleave(&out.freeze(), HEADER_BYTES + raft.context.len(), &raft.entries)
    }

    /// Reads a message; the entries' data is sliced out of `bytes`, not copied.
    ///
    /// # Errors
    /// If the bytes are none, or over a limit.
    pub fn decode(mut bytes: Bytes) -> Result<Self, PeerError> {
        if bytes.len() < HEADER_BYTES {
            return Err(PeerError::Malformed);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[4..HEADER_BYTES]);
        let mut head = bytes.split_to(HEADER_BYTES);
        let expected = head.get_u32_le();
        let kind = head.get_u16_le();
        let flags = head.get_u16_le();
        let level = head.get_u16_le();
        let zero = head.get_u16_le();
        let entries = head.get_u32_le();
        // The fields of a struct expression are evaluated in the order they are written in: that of the drawing.
        let mut raft = Message {
            to: head.get_u64_le(),
            from: head.get_u64_le(),
            term: head.get_u64_le(),
            log_term: head.get_u64_le(),
            index: head.get_u64_le(),
            commit: head.get_u64_le(),
            commit_term: head.get_u64_le(),
            reject_hint: head.get_u64_le(),
            ..Message::default()
        };
        let log_time_ms = head.get_u64_le();
        let chain = head.get_u32_le();
        let context_bytes = head.get_u32_le();
        if entries > ENTRIES_MAX || context_bytes > CONTEXT_BYTES_MAX {
            return Err(PeerError::OverLimit);
        }
        let context = split(&mut bytes, context_bytes as usize)?;
        crc.update(&context);
        raft.context = context;
        let mut decoded = Vec::new();
        for _ in 0..entries {
            decoded.push(decode_entry(&mut bytes, &mut crc)?);
        }
        let found = crc.finalize();
        if found != expected {
            return Err(PeerError::BadChecksum { expected, found });
        }
        if !bytes.is_empty() || flags & !FLAG_REJECT != 0 || zero != 0 {
            return Err(PeerError::Malformed);
        }
        raft.set_msg_type(message_type(kind).ok_or(PeerError::UnknownKind(kind))?);
        raft.set_entries(decoded.into());
        raft.reject = flags & FLAG_REJECT != 0;
        Ok(Self { raft, chain, log_time_ms, level })
    }
}

/// Puts each entry's data behind its header.
fn interleave(heads: &Bytes, first_header: usize, entries: &[RaftEntry]) -> Vec<Bytes> {
    let mut chunks = Vec::with_capacity(1 + 2 * entries.len());
    chunks.push(heads.slice(..first_header));
    for (at, entry) in entries.iter().enumerate() {
        let header = first_header + at * ENTRY_HEADER_BYTES;
        chunks.push(heads.slice(header..header + ENTRY_HEADER_BYTES));
        chunks.push(entry.data.clone());
    }
    chunks
}

fn decode_entry(bytes: &mut Bytes, crc: &mut crc32fast::Hasher) -> Result<RaftEntry, PeerError> {
    let mut head = split(bytes, ENTRY_HEADER_BYTES)?;
    crc.update(&head);
    let length = head.get_u32_le() as usize;
    if length > ENTRY_BYTES_MAX {
        return Err(PeerError::OverLimit);
    }
    let mut entry = RaftEntry::default();
    entry.set_entry_type(match head.get_u8() {
        ENTRY_NORMAL => EntryType::EntryNormal,
        ENTRY_CONF_CHANGE => EntryType::EntryConfChangeV2,
        _ => return Err(PeerError::Malformed),
    });
    if head.split_to(3)[..] != [0; 3] {
        return Err(PeerError::Malformed);
    }
    entry.index = head.get_u64_le();
    entry.term = head.get_u64_le();
    entry.data = split(bytes, length)?;
    Ok(entry)
}

fn split(bytes: &mut Bytes, length: usize) -> Result<Bytes, PeerError> {
    if bytes.len() < length { Err(PeerError::Malformed) } else { Ok(bytes.split_to(length)) }
}

fn small(length: usize) -> u32 {
    u32::try_from(length).expect("raft's limits keep messages below 4 GiB")
}

/// The numbers that message kinds have on the wire. They are ours, so that raft's may change.
const KINDS: [(u16, MessageType); 9] = [
    (1, MessageType::MsgAppend),
    (2, MessageType::MsgAppendResponse),
    (3, MessageType::MsgHeartbeat),
    (4, MessageType::MsgHeartbeatResponse),
    (5, MessageType::MsgRequestVote),
    (6, MessageType::MsgRequestVoteResponse),
    (7, MessageType::MsgRequestPreVote),
    (8, MessageType::MsgRequestPreVoteResponse),
    (9, MessageType::MsgTimeoutNow),
];

/// The number of a kind; 0 for those that never travel.
fn kind_of(message_type: MessageType) -> u16 {
    KINDS.iter().find(|(_, known)| *known == message_type).map_or(0, |(kind, _)| *kind)
}

fn message_type(kind: u16) -> Option<MessageType> {
    KINDS.iter().find(|(known, _)| *known == kind).map(|(_, message_type)| *message_type)
}
