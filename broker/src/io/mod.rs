//! The driver: one broker on a machine, with sockets, files, threads and a clock.
//!
//! ```text
//!  thread 1, one runtime                                                     thread 2     thread 3
//!  ┌───────────────────────────────────────────────────────────────────┐
//!  │ listener ─► session ─► requests ──┐            ┌─► exchange ─► QUIC│
//!  │          └► peer inbox ───────────┼─► driver ──┼─► peer link ─► QUIC│
//!  │                                   │   (core)   ├─► ticket ─────────┼─► syncer
//!  │             subscription ◄────────┘            └─► spare ──────────┼──────────────► filler
//!  └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Input, output *and* the core share one thread, so that nothing on the way of an acknowledgement is handed from one
//! thread to another but the one thing that blocks, the sync. No decision is made here that the core could make: what
//! is here is how bytes come in, how they go out, and how much of them is held.
//!
//! | file | noun |
//! |---|---|
//! | `host.rs` | whoever runs it: socket, observer, what a broken disk ends |
//! | `opening.rs` | from a configuration to a broker that can run |
//! | `driver.rs` | the loop |
//! | `causes.rs` | an error as one line of the log |
//! | `broker.rs` | what all tasks share |
//! | `listener.rs` | the door |
//! | `session.rs`, `requests.rs`, `exchange.rs`, `subscription.rs`, `client_stream.rs` | one client, its streams, what is unanswered on them |
//! | `peer_link.rs`, `peer_inbox.rs`, `peer_hello.rs`, `peer_stream.rs` | the way to a peer and the way from it |
//! | `pins.rs` | which data directory each peer is known by |
//! | `counted_socket.rs` | the one socket, and what passes it |
//! | `worker.rs` | the two threads that may block |
//! | `tls.rs`, `reset.rs`, `close.rs` | who may speak as what; how connections end |
//! | `limits.rs` | every bound, with its unit |

mod broker;
mod causes;
mod client_stream;
mod close;
mod counted_socket;
mod driver;
mod exchange;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
pub(crate) mod host;
mod limits;
mod listener;
mod opening;
mod peer_hello;
mod peer_inbox;
mod peer_link;
mod peer_stream;
mod pins;
mod requests;
mod reset;
mod session;
mod subscription;
#[cfg(test)]
mod tests;
pub mod tls;
mod worker;

use std::{io, net::SocketAddr, path::PathBuf, rc::Rc};

use sequor_client::protocol::BrokerId;
use sequor_wal::{CheckpointError, Damage, IdentityError, OpenError, SyncError, disk::mmap::OpenDirError};
use thiserror::Error;
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

pub use self::{
    close::Close,
    pins::{PINS, PinError, read_pins},
    tls::TlsError,
};
use self::{
    driver::Driver,
    host::{Host, Process},
};
use crate::{config::Config, core::genesis::GenesisError};

/// How many tasks run between two looks at the sockets. Small, so that acknowledgements of peers are seen soon.
const EVENT_INTERVAL: u32 = 31;
/// Shortest elections that leadership is waited for at a stop, in case nobody takes it. Count.
const ELECTIONS_PER_HAND_OVER: u32 = 4;

/// Why a data directory is not one to serve from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// Who this broker is cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state of the data directory cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is no first state.
    #[error("it has no checkpoint: keep it as it is and do not run a broker on it")]
    NoGenesis,
    /// The first state makes no sense.
    #[error("the first state of the cluster cannot be read")]
    Genesis(#[from] GenesisError),
    /// The pins of the peers cannot be read.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Nobody knows any more for whom this broker has voted.
    #[error(
        "the vote of broker {broker} is damaged: it could vote twice in one term and must not start; keep the \
         directory as it is, and let the other brokers go on without this one"
    )]
    VoteDamaged {
        /// This broker.
        broker: BrokerId,
        /// Where, and what was found there.
        #[source]
        damage: Damage,
    },
}

/// Why a broker did not start, or did not go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Directory(#[from] OpenDirError),
    /// The data directory was opened, and is not one to serve from.
    #[error("cannot serve from the data directory {}", .dir.display())]
    Data {
        /// Which.
        dir: PathBuf,
        /// What is wrong with it.
        source: DataError,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
    /// The socket cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A thread, the runtime or the signal handlers could not be made.
    #[error("cannot start the broker's {what}")]
    System {
        /// Which of them.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The core has met something that must not be survived.
    #[error("the broker has stopped: {why}")]
    Halted {
        /// What it met, with its causes.
        why: String,
    },
    /// A write or a sync failed, in a process that has more to do than this broker.
    #[error("the disk of this broker failed; what it had not acknowledged is not acknowledged")]
    Disk(#[from] SyncError),
    /// A task panicked: a fault in this program.
    #[error(
        "the broker has stopped: a part of it panicked, see above; what it had acknowledged is safe on disk"
    )]
    Panicked,
}

/// Runs a broker in this thread until SIGTERM or SIGINT, then hands leadership over, drains and syncs.
///
/// An error of the disk ends the process at once, with exit code 1.
///
/// # Errors
///
/// See [`ServeError`].
pub fn run(config: &Config) -> Result<(), ServeError> {
    new_runtime()?.block_on(async {
        let failed = |source| ServeError::System { what: "signal handlers", source };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        run_until(config, stop).await
    })
}

/// The runtime that a broker shares with nobody.
pub(crate) fn new_runtime() -> Result<Runtime, ServeError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build();
    runtime.map_err(|source| ServeError::System { what: "runtime", source })
}

/// Runs a broker on the current runtime until `stop` completes. What it has begun ends with it: when this future is
/// done or dropped, no task of the broker is left, and its threads have finished what they were doing.
///
/// An error of the disk ends the process at once, with exit code 1.
///
/// # Errors
///
/// See [`ServeError`].
pub async fn run_until(config: &Config, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    run_on(Rc::new(Process), config, stop).await
}

/// The same on a host of its own.
pub(crate) async fn run_on(
    host: Rc<dyn Host>,
    config: &Config,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    LocalSet::new().run_until(serve(host, config, stop)).await
}

async fn serve(
    host: Rc<dyn Host>,
    config: &Config,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let broker = opening::open(config, &*host)?;
    let hand_over_timeout = config.election() * ELECTIONS_PER_HAND_OVER;
    let driver = Driver::new(Rc::clone(&broker), host, hand_over_timeout);
    let driver = driver.map_err(|source| ServeError::System { what: "threads", source })?;
    for link in broker.links().values() {
        let (link, broker_too) = (Rc::clone(link), Rc::clone(&broker));
        broker.spawn(async move { match link.keep_up(broker_too).await {} });
    }
    broker.spawn(listener::listen(Rc::clone(&broker)));
    tracing::info!(address = %broker.listens_on(), data = %config.data.display(), "serving");
    driver.run(stop).await
}
