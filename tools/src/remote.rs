//! The cluster, as commands see it from afar: how they connect, and which exit code each answer of it deserves.

use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use sequor_client::{
    AppendError, CallError, Client, Config, ConfigError, ConnectError, OpenError, TailError,
    core::{Failure as NotDone, OpenFailure, SubscriptionFailure},
    protocol::Refusal,
};

use crate::{
    cli::Global,
    context,
    exit::{Exit, Failure, Verdict},
};

/// What the context file says, with the deadline of the command line.
///
/// # Errors
/// If there is no context file, or it is not one.
pub(crate) fn config(global: &Global) -> Result<Config, Failure> {
    let mut config = Config::load(context::find(global)?)?;
    config.deadline = global.deadline;
    Ok(config)
}

/// Connects to the cluster of the context.
///
/// # Errors
/// As [`config`], or if no broker answers.
pub(crate) async fn connect(global: &Global) -> Result<Client, Failure> {
    Ok(Client::connect(&config(global)?).await?)
}

/// The rest of the log does not come, although it is there.
#[derive(Debug, Error)]
#[error("no broker has sent the next records within {} s", .deadline.as_secs_f64())]
pub(crate) struct Stalled {
    deadline: Duration,
}

impl Verdict for Stalled {
    fn exit(&self) -> Exit {
        Exit::Unreachable
    }
}

/// Waits for what is known to be there, and not for ever.
///
/// # Errors
/// After `deadline`.
pub(crate) async fn within<T>(deadline: Duration, wait: impl Future<Output = T>) -> Result<T, Stalled> {
    timeout(deadline, wait).await.map_err(|_| Stalled { deadline })
}

impl Verdict for ConfigError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Verdict for ConnectError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Tls(_) | Self::NoBroker | Self::Socket(_) => Exit::Error,
        }
    }
}

impl Verdict for OpenError {
    fn exit(&self) -> Exit {
        match self {
            Self::Failed(OpenFailure::Refused(refusal)) => refused(refusal),
            Self::Failed(OpenFailure::Gap { .. }) => Exit::Precondition,
            Self::Failed(OpenFailure::DeadlinePassed { .. }) => Exit::Unreachable,
            Self::Closed => Exit::Error,
        }
    }
}

impl Verdict for AppendError {
    fn exit(&self) -> Exit {
        match self {
            Self::Fenced { .. } | Self::AlreadyCommitted { .. } => Exit::Precondition,
            Self::PartlyWritten { source, .. } => source.exit(),
            Self::Failed(NotDone::Refused(refusal)) => refused(refusal),
            Self::Failed(NotDone::DeadlinePassed { .. }) | Self::Unknown { .. } => Exit::Unreachable,
            Self::Failed(NotDone::Abandoned | NotDone::NoSuchBroker { .. }) | Self::Broken => Exit::Error,
            Self::Record(_) | Self::Empty | Self::Closed => Exit::Error,
        }
    }
}

impl Verdict for CallError {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused(refusal) => refused(refusal),
            Self::Unanswered { .. } | Self::Unknown { .. } => Exit::Unreachable,
            Self::NoSuchBroker { .. } | Self::Closed => Exit::Error,
        }
    }
}

impl Verdict for TailError {
    fn exit(&self) -> Exit {
        match self {
            Self::Failed(SubscriptionFailure::Refused(refusal)) => refused(refusal),
            Self::Failed(SubscriptionFailure::Unreadable { .. } | SubscriptionFailure::Misplaced { .. })
            | Self::Closed => Exit::Error,
        }
    }
}

/// The code for a refusal: was a condition not met, was nobody there, or is it an error?
fn refused(refusal: &Refusal) -> Exit {
    match refusal {
        Refusal::Fenced { .. }
        | Refusal::SequenceReused { .. }
        | Refusal::Sealed { .. }
        | Refusal::Retired
        | Refusal::UnknownProducer
        | Refusal::EndMismatch { .. }
        | Refusal::OffsetOutOfRange { .. }
        | Refusal::OtherLineage { .. } => Exit::Precondition,
        Refusal::NotLeader { .. }
        | Refusal::Unavailable
        | Refusal::Busy { .. }
        | Refusal::Full { .. }
        | Refusal::OutcomeUnknown
        | Refusal::DeadlinePassed
        | Refusal::Behind => Exit::Unreachable,
        _ => Exit::Error,
    }
}
