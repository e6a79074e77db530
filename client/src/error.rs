//! What can go wrong, one closed list per operation.
//!
//! Each of them says which of two things it is: *definitely not done*, or *unknown*.

use std::{io, sync::Arc};

use thiserror::Error;

use crate::{
    connection::LinkError,
    core::{Failure, OpenFailure, SubscriptionFailure},
    protocol::{BrokerId, Epoch, Refusal, Sequence},
    tls::TlsError,
};

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Certificates or key cannot be used.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The configuration names no broker.
    #[error("the configuration names no broker")]
    NoBroker,
    /// No UDP socket can be had.
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
    /// No broker answered in time.
    #[error("no broker answered within {seconds:.1} s; tried {tried}")]
    Unreachable {
        /// How long was waited, in seconds.
        seconds: f64,
        /// Which brokers there are.
        tried: String,
        /// The last thing that went wrong.
        source: Option<Arc<LinkError>>,
    },
}

/// Why a producer is not open.
#[derive(Clone, Debug, Error)]
pub enum OpenError {
    /// The name is not ours, and why. Nothing is written under it.
    #[error(transparent)]
    Failed(#[from] OpenFailure),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Why a batch is not, or not known to be, written.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// The record fits into no batch. Nothing was sent.
    #[error("the record cannot be sent")]
    Record(#[source] Refusal),
    /// The batch holds no record. Nothing was sent.
    #[error("the batch holds no record")]
    Empty,
    /// The producer cannot write any more, because another epoch holds its name. Nothing was sent.
    #[error("the producer is fenced by epoch {by}: somebody else opened its name")]
    Fenced {
        /// That epoch.
        by: Epoch,
    },
    /// The producer cannot write any more, because an earlier batch failed or is unknown. Nothing was sent.
    #[error("an earlier batch failed or is unknown; open the producer again")]
    Broken,
    /// Definitely not written, and never will be.
    #[error("not written")]
    Failed(#[source] Failure),
    /// Written before, longer ago than the brokers remember it: where it lies is not known, and its content was not
    /// compared. It was not written again.
    #[error("sequences {first} to {last} were written before, longer ago than the brokers remember")]
    AlreadyCommitted {
        /// First number of the batch, or of the part of it.
        first: Sequence,
        /// Last number.
        last: Sequence,
    },
    /// Some records of the batch are written, others are not, or not known to be. Only a batch that repeats numbers from
    /// before its producer was opened can meet this.
    #[error(
        "sequences {first} to {last} of the batch are not, or not known to be, written; others of it are"
    )]
    PartlyWritten {
        /// The first number that is not.
        first: Sequence,
        /// The last number that is not, side by side with the first.
        last: Sequence,
        /// What became of those.
        source: Box<AppendError>,
    },
    /// It may be written, now or later. Open the producer again: its next sequence tells.
    #[error("it is not known whether the batch is written{}", .last.as_ref().map_or(String::new(), |last| format!("; the broker said last: {last}")))]
    Unknown {
        /// The last thing a broker said about it.
        last: Option<Refusal>,
    },
    /// The client was closed before the outcome was known: it may be written.
    #[error("the client was closed before it was known whether the batch is written")]
    Closed,
}

impl AppendError {
    /// Whether the batch may be written all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Closed => true,
            Self::PartlyWritten { source, .. } => source.is_unknown(),
            _ => false,
        }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// A broker refused it.
    #[error("the broker refused to answer")]
    Refused(#[source] Refusal),
    /// The deadline passed.
    #[error("no answer within the deadline{}", .last.as_ref().map_or(String::new(), |last| format!("; the broker said last: {last}")))]
    Unanswered {
        /// The last thing a broker said about it.
        last: Option<Refusal>,
        /// The last thing that went wrong with a connection.
        source: Option<Arc<LinkError>>,
    },
    /// The call changes something, and it is not known whether it did, or will. Repeating it is harmless.
    #[error("it is not known whether this was done{}", .last.as_ref().map_or(String::new(), |last| format!("; the broker said last: {last}")))]
    Unknown {
        /// The last thing a broker said about it.
        last: Option<Refusal>,
    },
    /// The cluster has no such broker.
    #[error("the cluster has no broker {broker}")]
    NoSuchBroker {
        /// Who was asked for.
        broker: BrokerId,
    },
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Why a tail is over.
#[derive(Clone, Debug, Error)]
pub enum TailError {
    /// A broker refused it for good, or what comes next cannot be read from anybody.
    #[error("the tail cannot go on")]
    Failed(#[from] SubscriptionFailure),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}
