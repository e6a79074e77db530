//! Connections of programs outside of this world.
//!
//! They are like those of its own clients, but that nobody here knows who is at the other end: what arrives is put into
//! a [`Port`]. And a broker can be *muted*: what it sends to programs gets stuck, as if its packets were lost and sent
//! again and again.

use std::fmt::Debug;

use bytes::Bytes;
use sequor_client::protocol::frame::Frame;
use sequor_client::protocol::{RequestId, Response, ServerHello};

use super::{Connection, End, ToBroker, ToClient, decode, flatten, unreadable};
use crate::core::time::Time;
use crate::sim::judge::Violation;
use crate::sim::world::World;

/// Silence after which a real connection is given up, with all that is stuck in it. Microseconds.
const PATIENCE_US: u64 = 5_000_000;

/// Where answers go. That it is dropped says that the connection is over.
pub(crate) trait Port: Debug + Send {
    /// The broker is there.
    fn greet(&mut self, hello: Box<ServerHello>);
    /// It answers a request.
    fn take(&mut self, id: RequestId, response: Response);
}

/// What a muted broker has sent.
#[derive(Debug)]
pub(super) struct Stuck {
    since: Time,
    messages: Vec<(u64, ToClient)>,
}

impl Connection {
    fn is_of_program(&self) -> bool {
        matches!(self.end, End::Program(_)) && !self.forgotten
    }
}

impl World {
    /// A program sends a request.
    pub(in crate::sim) fn program_sends(&mut self, connection: u64, frame: Frame) {
        let bytes: Bytes = flatten(frame);
        self.trace.update(&bytes);
        self.send_to_broker(connection, ToBroker::Frame(bytes));
    }

    /// Something arrives at a program.
    pub(super) fn arrive_at_program(&mut self, connection: u64, what: ToClient) -> Result<(), Violation> {
        let Some(open) = self.connections.open.get_mut(&connection) else { return Ok(()) };
        if matches!(what, ToClient::Closed) {
            self.connections.open.remove(&connection);
            return Ok(());
        }
        if let Some(stuck) = self.connections.stuck.get_mut(&open.broker) {
            stuck.messages.push((connection, what));
            return Ok(());
        }
        let End::Program(port) = &mut open.end else { return Ok(()) };
        match what {
            ToClient::Hello(hello) => port.greet(hello),
            ToClient::Frame(bytes) => {
                self.trace.update(&bytes);
                let (id, response) = decode(bytes)?.response().map_err(|error| unreadable(&error))?;
                port.take(id, response);
            }
            ToClient::Closed => {}
        }
        Ok(())
    }

    /// A program has taken a delivery: there is room for another one.
    pub(in crate::sim) fn program_took(&mut self, connection: u64, id: RequestId) {
        let Some(open) = self.connections.open.get_mut(&connection) else { return };
        let broker = open.broker;
        if let Some(reader) = open.readers.get_mut(&id) {
            // What says that it begins is no delivery, and is taken like one.
            reader.on_their_way = reader.on_their_way.saturating_sub(1);
            self.request_pass(broker);
        }
    }

    /// A program ends a connection; the broker hears of it in its turn.
    pub(in crate::sim) fn program_closes(&mut self, connection: u64) {
        let is_open = self.connections.open.get(&connection).is_some_and(Connection::is_of_program);
        if is_open {
            self.forget_connection(connection);
        }
    }

    /// All connections of programs break, and they learn of it at once.
    pub(in crate::sim) fn break_connections_of_programs(&mut self) {
        let of_programs = self.connections.open.iter().filter(|(_, open)| open.is_of_program());
        let broken: Vec<u64> = of_programs.map(|(id, _)| *id).collect();
        for connection in broken {
            self.connections.open.remove(&connection);
        }
    }

    /// What a broker sends to programs gets stuck from now on.
    pub(in crate::sim) fn mute(&mut self, broker: u64) {
        let since = self.now;
        self.connections.stuck.entry(broker).or_insert(Stuck { since, messages: Vec::new() });
    }

    /// What is stuck is on its way again, if nobody has lost patience.
    pub(in crate::sim) fn unmute(&mut self, broker: u64) {
        let Some(Stuck { since, messages }) = self.connections.stuck.remove(&broker) else { return };
        if self.now.since(since) > PATIENCE_US {
            return self.break_connections_of_broker(broker);
        }
        for (connection, what) in messages {
            self.send_to_client(connection, what);
        }
    }

    /// What a broker has sent, and is stuck, will never arrive.
    pub(super) fn forget_stuck(&mut self, broker: u64) {
        if let Some(stuck) = self.connections.stuck.get_mut(&broker) {
            stuck.messages.clear();
        }
    }

    /// True if what some broker sends gets stuck.
    pub(in crate::sim) fn is_muted(&self) -> bool {
        !self.connections.stuck.is_empty()
    }
}
