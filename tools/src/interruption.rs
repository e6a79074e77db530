//! A signal that ends a command which has something to do before it ends: a quickstart stops its cluster and removes its
//! directory, an `append` waits for what is on its way and tells how far it came.
//!
//! Left to itself, the system would end the program on the spot. The exit code is what a shell says of a program that the
//! signal ended: 128 and the number of the signal.

use std::{fs, future::pending, io};

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Verdict};

/// A signal that ends a command. As an error: the command is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Interruption {
    /// SIGHUP: the terminal has gone.
    #[error("ended by SIGHUP before all was done")]
    HungUp,
    /// SIGINT: Ctrl-C.
    #[error("ended by SIGINT before all was done")]
    Interrupted,
    /// SIGTERM.
    #[error("ended by SIGTERM before all was done")]
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

/// The signals that end a command. From when this is made, they end the program no more by themselves. One that whoever
/// started the program has it ignore, as `nohup` does, stays ignored.
#[derive(Debug)]
pub(crate) struct Interruptions {
    hangup: Option<Signal>,
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Interruptions {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(crate) fn listen() -> Result<Self, ListenError> {
        let ignored = ignored();
        let listen = |kind: SignalKind| match ignored & 1 << (kind.as_raw_value() - 1) {
            0 => signal(kind).map(Some),
            _ => Ok(None),
        };
        let (hangup, interrupt) = (listen(SignalKind::hangup())?, listen(SignalKind::interrupt())?);
        Ok(Self { hangup, interrupt, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the first of them. Cancel safe.
    pub(crate) async fn next(&mut self) -> Interruption {
        tokio::select! {
            () = come(&mut self.hangup) => Interruption::HungUp,
            () = come(&mut self.interrupt) => Interruption::Interrupted,
            () = come(&mut self.terminate) => Interruption::Terminated,
        }
    }
}

async fn come(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => pending().await,
    }
}

/// The signals that this program was started to ignore: one bit for each, from number 1 on. None where the system has no
/// `/proc` to say so.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
