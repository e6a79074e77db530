//! Ctrl-C, and what else asks a program to end: it becomes an end like any other, so that children are ended and what
//! they have written is removed. Whoever asks twice gets it at once.

use std::{
    io,
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// The exit code of a program that was asked to end: as a shell says it of SIGINT.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Whether somebody wants this program to end.
#[derive(Clone, Debug, Default)]
pub struct Interruption(Arc<AtomicBool>);

impl Interruption {
    /// Listens from now on, in a thread of its own.
    ///
    /// # Errors
    /// If the system gives no thread, or does not tell of signals.
    pub fn listen() -> io::Result<Self> {
        let told = Self::default();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::listen() })?;
        let tell = told.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                signals.next().await;
                tell.0.store(true, Ordering::Relaxed);
                signals.next().await;
                exit(EXIT_INTERRUPTED.into());
            })
        })?;
        Ok(told)
    }

    /// Whether somebody has asked.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The signals that ask a program to end.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on. In a runtime.
    ///
    /// # Errors
    /// If the system does not tell of signals.
    pub fn listen() -> io::Result<Self> {
        let of = |kind| signal(kind);
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hang_up: of(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
