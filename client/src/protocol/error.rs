//! Why a request was refused: a closed list, the same on the wire, in the library and in the documents.
//!
//! A refusal speaks of **one attempt**. But for [`Refusal::OutcomeUnknown`] it says that this attempt wrote nothing and never will; it does not say
//! that an earlier attempt of the same number wrote nothing. [`Refusal::class`] says what a client may do next.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{BrokerId, Epoch, Lineage, Offset, Sequence};

/// What a client may do about a [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ask another broker: this one does not lead.
    Elsewhere,
    /// Ask again, here, after a pause.
    Later,
    /// Asking again gives the same answer.
    Final,
    /// This attempt may or may not have happened. Send the same number again to learn which.
    Unknown,
}

/// Why a broker did not do what one request asked.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// Another broker leads, or none does.
    #[error("this broker does not lead{}", .leader.map_or(String::from("; no leader is known"), |id| format!("; broker {id} does")))]
    NotLeader {
        /// Who leads, if this broker knows.
        leader: Option<BrokerId>,
    },
    /// The leader did not take it: it is handing over, just lost its place, or its disk does not answer.
    #[error("the leader is not ready yet")]
    Unavailable,
    /// A queue is full. Nothing was taken.
    #[error("the broker is busy: a queue of {limit_bytes} bytes is full")]
    Busy {
        /// The limit that was met, in bytes.
        limit_bytes: u64,
    },
    /// The request was taken, then the broker lost the leadership: it may or may not have happened.
    #[error("the leader lost its leadership before the outcome was known")]
    OutcomeUnknown,
    /// The deadline of the request passed before it was taken. It will not happen.
    #[error("the deadline passed before the request was taken")]
    DeadlinePassed,
    /// The producer was opened by somebody else since.
    #[error("producer is fenced: epoch {by} replaced this one, and its next sequence is {next}")]
    Fenced {
        /// The epoch that holds the name now.
        by: Epoch,
        /// End offset of the log when that epoch was granted.
        at: Offset,
        /// The sequence that comes next in the producer's stream.
        next: Sequence,
    },
    /// Numbers before this batch are missing; or a seal reaches further than a window can.
    #[error("sequence gap: the producer's next sequence is {expected}, and {found} was asked for")]
    SequenceGap {
        /// The only sequence that can be written next.
        expected: Sequence,
        /// Where the batch begins, or the seal ends.
        found: Sequence,
    },
    /// These numbers are taken by other content.
    #[error("sequence {first} was written before with other content, at offset {offset}")]
    SequenceReused {
        /// First number that is taken: of the batch, or, if it was cut otherwise, of the first record that differs.
        first: Sequence,
        /// Where it lies.
        offset: Offset,
    },
    /// These numbers were written, longer ago than the broker remembers one by one.
    #[error("sequences up to {next} were written before and are no longer remembered one by one")]
    AlreadyCommitted {
        /// The sequence that comes next.
        next: Sequence,
    },
    /// The first part of these numbers is written; the batch was cut in another way before.
    #[error("the batch was cut in another way before: written up to, not including, sequence {up_to}")]
    PartlyCommitted {
        /// The first number that is not written.
        up_to: Sequence,
    },
    /// These numbers were given up by a seal. They can never be written.
    #[error("sequences {first} up to, not including, {end} were sealed: they can never be written")]
    Sealed {
        /// First number of the interval.
        first: Sequence,
        /// One past its last number.
        end: Sequence,
    },
    /// The producer's name was retired. It can never write again.
    #[error("the producer's name was retired: nothing can be written under it any more; choose another name")]
    Retired,
    /// The session that the producer belonged to has ended.
    #[error("the producer's session has expired")]
    SessionExpired,
    /// No producer of this name or id was ever opened.
    #[error("no such producer")]
    UnknownProducer,
    /// The table of producers is full; nothing is ever evicted from it.
    #[error("the table of producers is full ({limit_names} names)")]
    TableFull {
        /// The limit, in names.
        limit_names: u64,
    },
    /// The end of the log is not where the request expects it.
    #[error("the log ends at offset {found}, the request expects {expected}")]
    EndMismatch {
        /// What the request asked for.
        expected: Offset,
        /// What is.
        found: Offset,
    },
    /// No record has this offset (yet, or any more).
    #[error("offset {asked} is out of range: the log holds {first} up to, not including, {end}")]
    OffsetOutOfRange {
        /// What was asked for.
        asked: Offset,
        /// First offset of the log.
        first: Offset,
        /// One past the last offset.
        end: Offset,
    },
    /// Something is larger than its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// What it is.
        what: Field,
        /// Its size in bytes; for records, headers and tokens their count, for a deadline milliseconds.
        found: u64,
        /// The limit in the same unit.
        limit: u64,
    },
    /// A checksum does not fit its bytes.
    #[error("bad checksum: {what} says {expected:#010x}, its bytes give {found:#010x}")]
    BadChecksum {
        /// What it is.
        what: Field,
        /// The checksum that was sent.
        expected: u32,
        /// The checksum of what arrived.
        found: u32,
    },
    /// Bytes that cannot be what they claim to be.
    #[error("malformed {what}")]
    Malformed {
        /// What could not be read.
        what: Field,
    },
    /// A part of the protocol that this broker does not have.
    #[error("not supported by this broker: {what}")]
    Unsupported {
        /// What it is.
        what: Feature,
    },
    /// The request belongs to another history of this cluster.
    #[error("the cluster's lineage is {found}, the request belongs to {expected}")]
    OtherLineage {
        /// What the request carries.
        expected: Lineage,
        /// What the cluster has.
        found: Lineage,
    },
    /// The client knows a later state than this broker does.
    #[error("this broker is behind what the session has already seen")]
    Behind,
    /// The broker cannot read what it stored. It is about to stop.
    #[error("the broker cannot read its log at offset {at}")]
    LogUnreadable {
        /// Where.
        at: Offset,
    },
    /// The producer has sealed too many intervals that do not touch.
    #[error("the producer has {limit} sealed intervals, and can have no more")]
    SealsFull {
        /// The limit, in intervals.
        limit: u64,
    },
    /// There are as many sessions as there may be.
    #[error("there are {limit} sessions, and can be no more at one time")]
    SessionsFull {
        /// The limit, in sessions.
        limit: u64,
    },
    /// A session asks to live shorter or longer than it may.
    #[error("a session lives {least} to {most} ms without being kept alive; {found} ms were asked for")]
    TtlOutOfRange {
        /// What was asked for. Milliseconds.
        found: u32,
        /// The shortest. Milliseconds.
        least: u32,
        /// The longest. Milliseconds.
        most: u32,
    },
    /// The leader's disk is full. Nothing was written; it goes on by itself when there is room.
    #[error(
        "the disk of the leading broker is full: it takes no writes until there is room again, \
         for {segment_bytes} bytes at least"
    )]
    Full {
        /// What has to be free on it, at least, in bytes.
        segment_bytes: u64,
    },
}

impl Refusal {
    /// What a client may do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotLeader { .. } | Self::Behind | Self::LogUnreadable { .. } => Class::Elsewhere,
            Self::Unavailable | Self::Busy { .. } | Self::Full { .. } => Class::Later,
            Self::OutcomeUnknown => Class::Unknown,
            Self::DeadlinePassed
            | Self::Fenced { .. }
            | Self::SequenceGap { .. }
            | Self::SequenceReused { .. }
            | Self::AlreadyCommitted { .. }
            | Self::PartlyCommitted { .. }
            | Self::Sealed { .. }
            | Self::Retired
            | Self::SessionExpired
            | Self::UnknownProducer
            | Self::TableFull { .. }
            | Self::SealsFull { .. }
            | Self::SessionsFull { .. }
            | Self::TtlOutOfRange { .. }
            | Self::EndMismatch { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::TooLarge { .. }
            | Self::BadChecksum { .. }
            | Self::Malformed { .. }
            | Self::Unsupported { .. }
            | Self::OtherLineage { .. } => Class::Final,
        }
    }
}

/// The part of a request that a [`Refusal`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Field {
    /// A frame's header.
    FrameHeader,
    /// A frame's control part.
    Body,
    /// A hello.
    Hello,
    /// A batch as a whole.
    Batch,
    /// The records in a batch.
    Records,
    /// A record's key.
    Key,
    /// A record's headers.
    Headers,
    /// A producer's name.
    Name,
    /// The list of fencing tokens.
    Tokens,
    /// The deadline.
    Deadline,
    /// The digest of a batch's records.
    Digest,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FrameHeader => "frame header",
            Self::Body => "request body",
            Self::Hello => "hello",
            Self::Batch => "batch",
            Self::Records => "record list",
            Self::Key => "record key",
            Self::Headers => "record headers",
            Self::Name => "producer name",
            Self::Tokens => "token list",
            Self::Deadline => "deadline",
            Self::Digest => "content digest",
        })
    }
}

/// Parts of the protocol that have a place in its bytes before every broker has a meaning for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Feature {
    /// A protocol version.
    Version(u16),
    /// A kind of frame.
    Kind(u16),
    /// A kind of stream.
    Stream(u8),
    /// A batch format.
    BatchFormat(u8),
    /// Flags that are not known.
    Flags(u16),
    /// A compression codec.
    Codec(u8),
    /// A digest hash.
    DigestHash(u8),
    /// [`Acks::None`](super::Acks::None) on the wire.
    NoAcks,
    /// Fencing tokens on a request.
    Tokens,
    /// An append that expects the end of the log.
    ExpectEnd,
    /// The key-value view.
    KeyValue,
    /// A subscription served by a broker that does not lead.
    FollowerReads,
    /// What lies in a stretch of the log.
    Place(u16),
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(v) => write!(f, "protocol version {v}"),
            Self::Kind(k) => write!(f, "frame kind {k}"),
            Self::Stream(k) => write!(f, "stream kind {k}"),
            Self::BatchFormat(v) => write!(f, "batch format {v}"),
            Self::Flags(bits) => write!(f, "flags {bits:#06x}"),
            Self::Codec(c) => write!(f, "compression codec {c}"),
            Self::DigestHash(h) => write!(f, "digest hash {h}"),
            Self::NoAcks => f.write_str("a request that wants no answer"),
            Self::Tokens => f.write_str("fencing tokens"),
            Self::ExpectEnd => f.write_str("an expected end offset"),
            Self::KeyValue => f.write_str("the key-value view"),
            Self::FollowerReads => f.write_str("reads from a follower"),
            Self::Place(kind) => write!(f, "kind {kind} of what lies in the log"),
        }
    }
}
