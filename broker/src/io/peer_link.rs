//! The way to one peer: a connection that is opened again and again, and a bounded queue for each of its lanes.
//!
//! ```text
//!  core ─► send ─► urgent queue ─► stream, high priority ─┐
//!               └► bulk queue   ─► stream, low priority  ─┴─► one connection
//! ```
//!
//! A message is a hint that raft repeats until it is answered, so a queue that is full drops, and a connection that
//! breaks takes what was on its way with it. The core is told of both: it begins again with that peer where it knows
//! it to be.
//!
//! A peer that was killed and started again does not answer on the old connection, and followers say so little to each
//! other that they would find out when one of them wants to be elected. But the peer connects to this broker as soon as
//! it runs, and says that this is another life of its process: the old connection is given up then, a pause between two
//! tries ends, and a try that was begun before is begun anew.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use quinn::{ConnectError, Connection, ConnectionError, WriteError};
use sequor_client::protocol::BrokerId;
use thiserror::Error;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    broker::Broker,
    causes::with_causes,
    close::Close,
    limits::{
        PEER_ANSWERS_WITHIN, PEER_CONNECT_TIMEOUT, PEER_QUEUE_BYTES_MAX, RECONNECT_PAUSE_MAX,
        RECONNECT_PAUSE_MIN,
    },
    peer_hello::{self, GreetingError},
    peer_stream::{framed, lane_byte},
    tls::{WrongRole, chain_of, server_name},
};
use crate::core::{Lane, PeerMessage, genesis::Member};

/// Why there is no connection to a peer, or no more.
#[derive(Debug, Error)]
pub(super) enum LinkError {
    /// Its address is none.
    #[error("cannot resolve the address {address}")]
    Resolve {
        /// The address.
        address: String,
        /// What the resolver says.
        source: std::io::Error,
    },
    /// Its address has no form that this broker's socket can reach.
    #[error("the address {address} has no form that this broker's socket can reach")]
    Unreachable {
        /// The address.
        address: String,
    },
    /// No connection could be begun.
    #[error("cannot connect")]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection broke")]
    Connection(#[from] ConnectionError),
    /// Nobody answered.
    #[error("no answer within {} ms", PEER_CONNECT_TIMEOUT.as_millis())]
    NoAnswer,
    /// Somebody else answered.
    #[error("the wrong broker answered")]
    WrongRole(#[from] WrongRole),
    /// The hellos do not fit.
    #[error("the peer is not one to speak to")]
    Greeting(#[from] GreetingError),
    /// Its process is another one now.
    #[error("the peer has started again")]
    StartedAgain,
    /// It takes no more messages.
    #[error("the peer takes no more messages")]
    Write(#[from] WriteError),
}

/// The way to one peer.
#[derive(Debug)]
pub(super) struct PeerLink {
    peer: BrokerId,
    address: String,
    urgent: Queue,
    bulk: Queue,
    /// The life of the peer's process to which there is a connection.
    up: Cell<Option<u64>>,
    /// The peer has connected to this broker, in a life to which there is no connection.
    seen: Notify,
}

/// Framed messages of one lane, oldest first, bounded in bytes.
#[derive(Debug, Default)]
struct Queue {
    chunks: RefCell<Vec<Bytes>>,
    /// Bytes of `chunks` and of what the writer has taken and not yet written.
    bytes: Cell<usize>,
    filled: Notify,
}

impl PeerLink {
    /// The way to this member; it leads nowhere until [`PeerLink::keep_up`] runs.
    pub(super) fn new(member: &Member) -> Self {
        Self {
            peer: member.id,
            address: member.address.clone(),
            urgent: Queue::default(),
            bulk: Queue::default(),
            up: Cell::new(None),
            seen: Notify::new(),
        }
    }

    /// The peer has connected to this broker, in this life of its process.
    pub(super) fn peer_lives(&self, life: u64) {
        if self.up.get() != Some(life) {
            self.seen.notify_waiters();
        }
    }

    /// Returns when a try to connect was begun before the peer was there: it has had time to answer a new one by then, but
    /// QUIC's pauses between two packets double.
    async fn hangs(&self) {
        self.seen.notified().await;
        sleep(PEER_ANSWERS_WITHIN).await;
    }

    /// Queues a message. False if it was dropped although there is a connection: its queue is full.
    #[must_use]
    pub(super) fn send(&self, message: &PeerMessage) -> bool {
        self.up.get().is_none() || self.queue(message.lane()).push(framed(message.encode()))
    }

    /// Keeps a connection to the peer. Never ends.
    pub(super) async fn keep_up(self: Rc<Self>, broker: Rc<Broker>) -> Infallible {
        let mut pause = RECONNECT_PAUSE_MIN;
        let mut said = String::new();
        loop {
            let connected = tokio::select! {
                connected = self.connect(&broker) => connected,
                () = self.hangs() => continue,
            };
            let (error, was_up) = match connected {
                Ok((connection, life)) => {
                    tracing::info!(peer = %self.peer, address = self.address, "connected to peer");
                    (self.run(&connection, life).await, true)
                }
                Err(error) => (error, false),
            };
            self.go_down(&broker, was_up);
            // A peer that is away would fill the log: the same complaint is made once. At a stop all links end.
            let complaint = with_causes(&error);
            if !broker.is_stopping() && (was_up || said != complaint) {
                if is_farewell(&error) {
                    tracing::info!(peer = %self.peer, address = self.address, "the peer stops");
                } else {
                    tracing::warn!(peer = %self.peer, address = self.address, error = complaint, "no connection to peer");
                }
                said = complaint;
            }
            pause = next_pause(pause, was_up, &error);
            if !matches!(error, LinkError::StartedAgain) {
                // Over when the time is, or when the peer is there.
                let _either = timeout(pause, self.seen.notified()).await;
            }
        }
    }

    /// A connection, and the life of the peer at its other end.
    async fn connect(&self, broker: &Rc<Broker>) -> Result<(Connection, u64), LinkError> {
        let dial = async {
            let address = self.resolve(broker).await?;
            let name = server_name(self.peer);
            Ok::<_, LinkError>(broker.endpoint().connect_with(broker.peer_config(), address, &name)?.await?)
        };
        let connection = timeout(PEER_CONNECT_TIMEOUT, dial).await.unwrap_or(Err(LinkError::NoAnswer))?;
        if let Err(wrong) = broker.tls().check_peer(self.peer, &chain_of(&connection)) {
            Close::WrongRole.close(&connection, &wrong.to_string());
            return Err(wrong.into());
        }
        match peer_hello::as_caller(broker, self.peer, &connection).await {
            Ok(life) => Ok((connection, life)),
            Err(error) => {
                error.close().close(&connection, &error.to_string());
                Err(error.into())
            }
        }
    }

    async fn resolve(&self, broker: &Broker) -> Result<SocketAddr, LinkError> {
        let address = || self.address.clone();
        let found = tokio::net::lookup_host(&self.address).await;
        let mut found = found.map_err(|source| LinkError::Resolve { address: address(), source })?;
        let v4 = broker.listens_on().is_ipv4();
        found.find(|found| found.is_ipv4() == v4).ok_or_else(|| LinkError::Unreachable { address: address() })
    }

    /// Writes what is queued until the connection breaks, or leads to a life of the peer that is over.
    async fn run(&self, connection: &Connection, life: u64) -> LinkError {
        self.up.set(Some(life));
        let error = tokio::select! {
            error = connection.closed() => error.into(),
            () = self.seen.notified() => LinkError::StartedAgain,
            Err(error) = self.write(Lane::Urgent, connection) => error,
            Err(error) = self.write(Lane::Bulk, connection) => error,
        };
        Close::Done.close(connection, "this link ends");
        error
    }

    async fn write(&self, lane: Lane, connection: &Connection) -> Result<Infallible, LinkError> {
        let mut send = connection.open_uni().await?;
        // A stream that is already over shows itself at the first write.
        let _over = send.set_priority(if lane == Lane::Urgent { 1 } else { 0 });
        send.write_chunk(Bytes::copy_from_slice(&[lane_byte(lane)])).await?;
        loop {
            let (mut chunks, bytes) = self.queue(lane).take().await;
            send.write_all_chunks(&mut chunks).await?;
            self.queue(lane).written(bytes);
        }
    }

    fn go_down(&self, broker: &Broker, was_up: bool) {
        self.up.set(None);
        self.urgent.clear();
        self.bulk.clear();
        if was_up {
            broker.handle_peer_lost(self.peer);
        }
    }

    fn queue(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Bulk => &self.bulk,
        }
    }
}

impl Queue {
    fn push(&self, message: Vec<Bytes>) -> bool {
        let bytes = self.bytes.get() + message.iter().map(Bytes::len).sum::<usize>();
        if bytes > PEER_QUEUE_BYTES_MAX {
            return false;
        }
        self.bytes.set(bytes);
        self.chunks.borrow_mut().extend(message);
        self.filled.notify_one();
        true
    }

    /// Everything queued, once there is something, and how many bytes it is.
    async fn take(&self) -> (Vec<Bytes>, usize) {
        while self.chunks.borrow().is_empty() {
            self.filled.notified().await;
        }
        let chunks = self.chunks.take();
        let bytes = chunks.iter().map(Bytes::len).sum();
        (chunks, bytes)
    }

    fn written(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() - bytes);
    }

    fn clear(&self) {
        self.chunks.borrow_mut().clear();
        self.bytes.set(0);
    }
}

/// Whether the peer stops because it was told to, and says so: nothing is wrong then.
fn is_farewell(error: &LinkError) -> bool {
    matches!(error, LinkError::Connection(ConnectionError::ApplicationClosed(close))
        if close.error_code == Close::Stopping.code())
}

/// Grows from try to try. A peer that must not be spoken to is asked no more often than need be.
fn next_pause(pause: Duration, was_up: bool, error: &LinkError) -> Duration {
    match error {
        LinkError::Greeting(_) | LinkError::WrongRole(_) => RECONNECT_PAUSE_MAX,
        _ if was_up => RECONNECT_PAUSE_MIN,
        _ => (pause * 2).min(RECONNECT_PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[test]
    fn a_full_queue_drops_and_takes_again_what_was_written() {
        let queue = Queue::default();
        let half = Bytes::from(vec![0; PEER_QUEUE_BYTES_MAX / 2]);
        assert!(queue.push(vec![half.clone()]) && queue.push(vec![half.clone()]));
        assert!(!queue.push(vec![Bytes::from_static(b"x")]), "nothing over the limit");
        queue.written(half.len());
        assert!(queue.push(vec![Bytes::from_static(b"x")]));
        queue.clear();
        assert!(queue.push(vec![half.clone(), half]));
    }

    #[tokio::test]
    async fn a_peer_is_seen_where_no_connection_leads() {
        let link =
            PeerLink::new(&Member { id: BrokerId(2), address: "localhost:1".into(), certificate: [2; 32] });
        for (leads_to, is_news) in [(None, true), (Some(7), true), (Some(8), false)] {
            link.up.set(leads_to);
            let mut seen = pin!(link.seen.notified());
            assert!(!seen.as_mut().enable());
            link.peer_lives(8);
            let at_once = timeout(Duration::ZERO, seen).await;
            assert_eq!(at_once.is_ok(), is_news, "a connection to {leads_to:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew_after_a_connection() {
        let mut pause = RECONNECT_PAUSE_MIN;
        for _ in 0..10 {
            pause = next_pause(pause, false, &LinkError::NoAnswer);
        }
        assert_eq!(pause, RECONNECT_PAUSE_MAX);
        assert_eq!(next_pause(pause, true, &LinkError::NoAnswer), RECONNECT_PAUSE_MIN);
        assert_eq!(
            next_pause(RECONNECT_PAUSE_MIN, true, &GreetingError::TooSlow.into()),
            RECONNECT_PAUSE_MAX
        );
    }
}
