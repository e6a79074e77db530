//! Stdout: collected in memory, written in large pieces, and quiet about a reader that has gone.
//!
//! Standard output may be a pipe into a slow reader. Writing to it from the thread that drives the connections
//! would hold up their keep-alives, so it goes through tokio, which writes on a thread of its own.
//!
//! A write learns that the reader has gone, and only a write does. Whoever may wait for long without one ([`Reader`])
//! has to ask the system besides, or `sequor tail | head -1` would end with the record after the first.

use std::{
    future::pending,
    io::{self, ErrorKind},
    os::fd::AsFd as _,
};

use thiserror::Error;
use tokio::{
    io::{AsyncWriteExt as _, Interest, Stdout, stdout},
    net::unix::pipe::Sender,
};

use crate::exit::{Exit, Failure, Verdict};

/// What is collected before it is written. Bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    pending: Vec<u8>,
    out: Stdout,
}

/// Stdout does not take what we have to say.
#[derive(Debug, Error)]
#[error("cannot write to standard output")]
pub(crate) struct OutputError {
    #[from]
    source: io::Error,
}

impl Verdict for OutputError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { pending: Vec::with_capacity(PIECE_BYTES), out: stdout() }
    }

    /// What is collected, to add bytes to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Adds `value` as one line of JSON.
    pub(crate) fn push_json(&mut self, value: &impl serde::Serialize) {
        serde_json::to_writer(&mut self.pending, value)
            .expect("what is printed has string keys and goes to memory");
        self.pending.push(b'\n');
    }

    /// Writes what is collected, if it is enough to be worth it.
    pub(crate) async fn settle(&mut self) -> Result<(), Failure> {
        if self.pending.len() < PIECE_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    /// Writes all that is collected.
    ///
    /// # Errors
    /// [`Failure::ReaderGone`] when the other end of a pipe was closed.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        let written = async {
            self.out.write_all(&self.pending).await?;
            self.out.flush().await
        };
        let result = written.await;
        self.pending.clear();
        result.map_err(failed)
    }
}

/// What it means that stdout has refused something.
pub(crate) fn failed(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => OutputError::from(error).into(),
    }
}

/// Who reads what we write, as far as the system tells: of a pipe and of a terminal, it does.
#[derive(Debug)]
pub(crate) struct Reader {
    /// None where there is nothing to watch. Never written to: it shares the mode of stdout, which may block.
    out: Option<Sender>,
}

impl Reader {
    /// The reader of stdout. To be called in a runtime.
    pub(crate) fn of_stdout() -> Self {
        let out = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
        // A file cannot be watched (EPERM), and has no reader that could go. Where it fails otherwise, a write tells.
        Self { out: out.ok() }
    }

    /// Waits until nobody reads any more: the other end of the pipe is closed. Cancel safe.
    pub(crate) async fn gone(&self) -> Failure {
        match &self.out {
            Some(out) if out.ready(Interest::ERROR).await.is_ok() => Failure::ReaderGone,
            // Nothing to watch; or the runtime is shutting down.
            _ => pending().await,
        }
    }
}

/// As [`print`], and goes on when the reader has gone: for a command whose verdict counts also when nobody reads along.
///
/// # Errors
/// If stdout takes nothing for another reason.
pub(crate) fn tell(text: &str) -> Result<(), Failure> {
    match print(text) {
        Err(Failure::ReaderGone) => Ok(()),
        printed => printed,
    }
}

/// Writes `text` to stdout at once: for the commands that run without a runtime.
///
/// # Errors
/// As [`Output::flush`].
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    io::Write::write_all(&mut out, text.as_bytes()).and_then(|()| io::Write::flush(&mut out)).map_err(failed)
}
