//! Exit codes, and the errors that lead to them.
//!
//! A script must be able to tell "somebody else was first" from "nobody answered" without reading prose. So every
//! error of this program names its exit code, by implementing [`Verdict`].

use std::{
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
};

use thiserror::Error;

use crate::visible::visible_lines;

/// What the program says with its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// It failed, in a way that has no code of its own.
    Error = 1,
    /// It was asked in a way that makes no sense (clap uses the same code).
    Usage = 2,
    /// A condition did not hold: a compare, a fence, a directory in use, an input other than the one before.
    Precondition = 3,
    /// Nobody answered, or not in time: the outcome may be unknown, and the message says so.
    Unreachable = 4,
    /// The cluster answered, and it is not well.
    Unhealthy = 5,
    /// The caller may not do this.
    #[expect(
        dead_code,
        reason = "permissions are not part of the protocol yet; scripts may rely on the number"
    )]
    NotAllowed = 6,
    /// SIGHUP ended a command that cleans up behind itself: 128 + 1, as a shell says it.
    HungUp = 129,
    /// SIGINT did: 128 + 2.
    Interrupted = 130,
    /// SIGTERM did: 128 + 15.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows its exit code.
pub(crate) trait Verdict: Error + Send + Sync + 'static {
    /// The code that the program ends with.
    fn exit(&self) -> Exit;
}

/// The system gives no event loop.
#[derive(Debug, Error)]
#[error("cannot start the runtime")]
pub(crate) struct RuntimeError {
    #[from]
    source: io::Error,
}

impl Verdict for RuntimeError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reader of stdout has gone, as in `tail | head`: that is its good right, and no error.
    ReaderGone,
    /// An error for the user to read.
    Told {
        /// The code that the program ends with.
        exit: Exit,
        /// What to say, with its causes as sources.
        error: Box<dyn Error + Send + Sync>,
    },
}

impl<E: Verdict> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Told { exit: error.exit(), error: Box::new(error) }
    }
}

impl Failure {
    /// Tells the user on stderr, in which nothing of others commands the terminal: one line for the error and one for each cause, and gives the code to end with.
    pub(crate) fn report(self) -> ExitCode {
        let Self::Told { exit, error } = self else {
            return Exit::Ok.into();
        };
        let mut text = format!("sequor: {error}\n");
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // Some libraries repeat their cause in their own message.
            if !said.contains(&message) {
                text.push_str(&format!("  because: {message}\n"));
            }
            said = message;
            cause = error.source();
        }
        // With stderr closed there is nobody left to tell; the code still says it.
        let _ = io::stderr().write_all(visible_lines(&text).as_bytes());
        exit.into()
    }
}
