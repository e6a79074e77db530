//! A relay: a network in user space that delays, loses, doubles, reorders and cuts, from a seed.
//!
//! ```text
//!   broker 1 ──┐              ┌───────── relay ─────────┐               ┌── broker 1
//!   broker 2 ──┼─► front of 3 │ link 1→3, 2→3, clients→3│ ─────────────►┼── broker 3
//!   clients  ──┘              └─────────────────────────┘               └── …
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `conditions.rs` | what a link does to what passes it |
//! | `link.rs` | one direction between two ends: when, whether, and how often something arrives |
//! | `delay_line.rs` | what is on its way, by the moment at which it arrives |
//! | `socket.rs` | a socket that takes and sends datagrams by the train |
//! | `visitors.rs` | the clients' ways through the relay |
//! | `post.rs` | the thread that receives and sends datagrams |
//! | `wire.rs` | the thread that carries what TCP connections say to each other |
//!
//! Each broker has a *front*: the address under which everybody else knows it, because that address is in the genesis and
//! in the clients' context. Brokers listen elsewhere (`--set listen=`). A broker has one socket, so the sender's address
//! says which broker it is, and whatever has another address is a client. So there is one link for each direction between
//! two brokers, and one for each direction between the clients and a broker; no configuration differs between brokers.
//!
//! What arrives at a broker from a peer comes from that peer's front, and what comes from a client has an address of its
//! own for that client: nobody can tell the relay from a network. It needs no rights.
//!
//! Links and delay line know nothing of UDP: they say when something arrives, whatever it is. The wire for TCP delays and
//! does nothing else: what it lost, the system that ends its connections would send again without anybody's noticing.

mod conditions;
mod delay_line;
mod link;
mod post;
mod socket;
mod visitors;
mod wire;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde::Serialize;
use thiserror::Error;

use sequor_client::protocol::BrokerId;

pub(crate) use self::{conditions::Conditions, wire::Wire};
use self::{
    link::Route,
    post::{Front, Post},
};
use crate::exit::{Exit, Verdict};

/// Any free port of the loopback interface.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// There is no relay.
#[derive(Debug, Error)]
pub(crate) enum RelayError {
    /// It cannot listen, most often because somebody else does.
    #[error("the relay cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is something else that the system does not let us.
    #[error("cannot start the relay")]
    System(#[from] io::Error),
}

impl RelayError {
    /// For `map_err`.
    fn at(address: SocketAddr) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Listen { address, source }
    }
}

impl Verdict for RelayError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum End {
    /// All clients.
    Clients,
    /// One broker.
    Broker(BrokerId),
}

/// What passed the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Traffic {
    /// Datagrams that were received.
    pub(crate) received: u64,
    /// Datagrams that were sent on: doubled ones count twice.
    pub(crate) forwarded: u64,
    /// Lost by the conditions of their link: cut, or by lot.
    pub(crate) lost: u64,
    /// Sent a second time.
    pub(crate) doubled: u64,
    /// Overtaken on purpose.
    pub(crate) reordered: u64,
    /// Lost because a queue or a socket was full.
    pub(crate) overflowed: u64,
}

/// What is shared with the relay's thread.
#[derive(Debug, Default)]
struct Shared {
    conditions: Mutex<BTreeMap<Route, Conditions>>,
    traffic: Mutex<Traffic>,
    stop: AtomicBool,
}

impl Shared {
    fn conditions(&self) -> MutexGuard<'_, BTreeMap<Route, Conditions>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running relay; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    fronts: Vec<SocketAddr>,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Relay {
    /// Starts a relay in front of brokers that listen, or will, at these addresses; their ids count from 1. All links
    /// are good at first. The same seed draws the same lots on each link.
    ///
    /// # Errors
    /// If there are no sockets or no thread.
    pub(crate) fn start(brokers: &[SocketAddr], seed: u64) -> Result<Self, RelayError> {
        let links: Vec<_> = brokers.iter().map(|broker| (ANYWHERE, *broker)).collect();
        Self::between(&links, seed)
    }

    /// The same with fronts at these addresses: pairs of where a broker is known, and where it listens.
    ///
    /// # Errors
    /// [`RelayError::Listen`] if an address is in use.
    pub(crate) fn between(links: &[(SocketAddr, SocketAddr)], seed: u64) -> Result<Self, RelayError> {
        let shared = Arc::new(Shared::default());
        let ids = (1..).map(BrokerId);
        let fronts = ids
            .zip(links)
            .map(|(id, (front, broker))| Front::bind(id, *front, *broker).map_err(RelayError::at(*front)));
        let fronts = fronts.collect::<Result<Vec<_>, _>>()?;
        let addresses = fronts.iter().map(Front::address).collect::<io::Result<Vec<_>>>()?;
        let post = Post::new(fronts, Arc::clone(&shared), seed);
        let thread = thread::Builder::new().name("relay".into()).spawn(move || post.run())?;
        Ok(Self { fronts: addresses, shared, thread: Some(thread) })
    }

    /// Where everybody reaches the brokers, in the order of their ids.
    pub(crate) fn fronts(&self) -> &[SocketAddr] {
        &self.fronts
    }

    /// Sets the conditions of one direction, for what comes from now on.
    pub(crate) fn set(&self, from: End, to: End, conditions: Conditions) {
        self.shared.conditions().insert(Route { from, to }, conditions);
    }

    /// Sets the conditions of all links.
    pub(crate) fn set_all(&self, conditions: Conditions) {
        let brokers = (1..).map(BrokerId).map(End::Broker).take(self.fronts.len());
        let ends: Vec<_> = brokers.chain([End::Clients]).collect();
        let mut all = self.shared.conditions();
        for from in &ends {
            for to in ends.iter().filter(|to| *to != from) {
                all.insert(Route { from: *from, to: *to }, conditions);
            }
        }
    }

    /// Makes all links good again. What is on its way arrives when it was to arrive.
    pub(crate) fn heal(&self) {
        self.shared.conditions().clear();
    }

    /// What passed until now.
    pub(crate) fn traffic(&self) -> Traffic {
        *self.shared.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so on stderr.
            let _panicked = thread.join();
        }
    }
}
