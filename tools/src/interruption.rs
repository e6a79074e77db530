//! A signal that ends a command with a cluster of its own: the cluster is stopped and its directory removed before the
//! program ends.
//!
//! Left to itself, the system would end the program on the spot, and two gigabytes would stay in the temporary directory.
//! The exit code is what a shell says of a program that the signal ended: 128 and the number of the signal.

use std::io;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Verdict};

/// A signal ended it: nothing is known about what was not told until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Interruption {
    /// SIGHUP: the terminal has gone.
    #[error("ended by SIGHUP before all was checked")]
    HungUp,
    /// SIGINT: Ctrl-C.
    #[error("ended by SIGINT before all was checked")]
    Interrupted,
    /// SIGTERM.
    #[error("ended by SIGTERM before all was checked")]
    Terminated,
}

impl Verdict for Interruption {
    fn exit(&self) -> Exit {
        match self {
            Self::HungUp => Exit::HungUp,
            Self::Interrupted => Exit::Interrupted,
            Self::Terminated => Exit::Terminated,
        }
    }
}

/// The system does not tell about signals.
#[derive(Debug, Error)]
#[error("cannot listen for signals")]
pub(crate) struct ListenError {
    #[from]
    source: io::Error,
}

impl Verdict for ListenError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// The signals that end such a command. From when it is made, they end the program no more by themselves.
#[derive(Debug)]
pub(crate) struct Interruptions {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Interruptions {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn listen() -> Result<Self, ListenError> {
        let (hangup, interrupt) = (signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?);
        Ok(Self { hangup, interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the first of them.
    pub(crate) async fn next(&mut self) -> Interruption {
        tokio::select! {
            _ = self.hangup.recv() => Interruption::HungUp,
            _ = self.interrupt.recv() => Interruption::Interrupted,
            _ = self.terminate.recv() => Interruption::Terminated,
        }
    }
}
