//! The clients in their world: when each of them works, and what reaches it.

use rand_chacha::rand_core::Rng;
use sequor_client::core::Transmit;
use sequor_client::protocol::{BrokerId, RequestId, Response, ServerHello};

use super::client::{Client, NEVER};
use super::connection::{End, ToBroker, encode};
use super::judge::Violation;
use super::world::{Event, World};
use crate::core::time::Time;
use crate::history;

impl World {
    /// Lets a client work until it has nothing more to do for now.
    pub(super) fn wake(&mut self, number: usize) -> Result<(), Violation> {
        let now = self.now;
        let client = &mut self.clients[number];
        if client.is_frozen(now) {
            let until = client.frozen_until;
            self.at(until, Event::Wake { client: number });
            return Ok(());
        }
        client.wake_at = client.wake_at.filter(|at| *at > now);
        client.session.handle_timeout(client.time(now));
        let mut next = client.write(now, &mut self.recorder)?;
        loop {
            let client = &mut self.clients[number];
            if let Some(news) = client.session.poll_event() {
                self.reached.note_news(&news);
                client.take(now, news, &mut self.recorder)?;
                next = next.min(client.write(now, &mut self.recorder)?);
            } else if let Some(transmit) = client.session.poll_transmit() {
                self.transmit(number, transmit);
            } else {
                break;
            }
        }
        let client = &mut self.clients[number];
        let next = next.min(client.next_timeout(now)).max(now + 1);
        if next != NEVER && client.wake_at.is_none_or(|at| next < at) {
            client.wake_at = Some(next);
            self.at(next, Event::Wake { client: number });
        }
        Ok(())
    }

    fn transmit(&mut self, number: usize, transmit: Transmit) {
        let generation = self.clients[number].generation;
        match transmit {
            Transmit::Connect { broker, .. } => {
                let connection = self.connect(End::Client { number, generation }, broker.0);
                let before = self.clients[number].connections.insert(broker, connection);
                before.into_iter().for_each(|before| self.forget_connection(before));
            }
            Transmit::Disconnect { broker } => {
                let connection = self.clients[number].connections.remove(&broker);
                connection.into_iter().for_each(|connection| self.forget_connection(connection));
            }
            Transmit::Request { broker, id, context, request } => {
                if let Some(&connection) = self.clients[number].connections.get(&broker) {
                    self.send_to_broker(connection, ToBroker::Frame(encode(id, &context, &request)));
                }
            }
            Transmit::Subscribe { broker, id, context, subscribe } => {
                if let Some(&connection) = self.clients[number].connections.get(&broker) {
                    let request = sequor_client::protocol::Request::Subscribe(subscribe);
                    self.send_to_broker(connection, ToBroker::Frame(encode(id, &context, &request)));
                }
            }
            Transmit::Unsubscribe { broker, id } => {
                if let Some(&connection) = self.clients[number].connections.get(&broker) {
                    self.send_to_broker(connection, ToBroker::Unsubscribe(id));
                }
            }
        }
    }

    /// Until when a client is frozen, if it is.
    pub(super) fn frozen_until(&self, number: usize) -> Option<Time> {
        Some(&self.clients[number])
            .filter(|client| client.is_frozen(self.now))
            .map(|client| client.frozen_until)
    }

    /// The client that a message is for, if it still is the one that it was sent to.
    fn addressee(&mut self, number: usize, generation: u64) -> Option<&mut Client> {
        Some(&mut self.clients[number]).filter(|client| client.generation == generation)
    }

    pub(super) fn client_connected(&mut self, number: usize, generation: u64, hello: &ServerHello) {
        let now = self.now;
        if let Some(client) = self.addressee(number, generation) {
            client.session.handle_connected(client.time(now), hello.broker, hello);
        }
    }

    pub(super) fn client_answered(
        &mut self,
        number: usize,
        generation: u64,
        broker: u64,
        id: RequestId,
        response: Response,
    ) {
        let now = self.now;
        if let Some(client) = self.addressee(number, generation) {
            client.session.handle_response(client.time(now), BrokerId(broker), id, response);
        }
    }

    pub(super) fn client_lost(&mut self, number: usize, generation: u64, broker: u64) {
        let now = self.now;
        if let Some(client) = self.addressee(number, generation) {
            client.connections.remove(&BrokerId(broker));
            client.session.handle_disconnected(client.time(now), BrokerId(broker));
        }
    }

    /// A client begins its life, and to read.
    pub(super) fn begin_client(&mut self, number: usize) -> Result<(), Violation> {
        let reader = self.clients[number].reader;
        self.at(self.now, Event::Wake { client: number });
        self.recorder.record(&history::Event::Subscribed { reader, from: 0 })
    }

    /// The client dies and somebody else takes its place.
    pub(super) fn replace_client(&mut self, number: usize) -> Result<(), Violation> {
        self.forget_connections(number);
        let now = self.now;
        self.clients[number].replace(now, &mut self.recorder)?;
        self.at(now, Event::Wake { client: number });
        Ok(())
    }

    /// The client closes its name.
    pub(super) fn retire_producer(&mut self, number: usize) {
        let now = self.now;
        if !self.clients[number].is_frozen(now) {
            self.clients[number].retire(now);
            self.at(now, Event::Wake { client: number });
        }
    }

    /// The client freezes, and nobody takes its name.
    pub(super) fn pause_client(&mut self, number: usize, for_us: u64) {
        let now = self.now;
        self.clients[number].freeze(now, now + for_us);
    }

    /// The client's clocks jump.
    pub(super) fn jump_client(&mut self, number: usize, by_us: u64) {
        self.clients[number].clock.jump(&mut self.random, by_us);
        self.at(self.now, Event::Wake { client: number });
    }

    /// The client freezes, and an heir takes its name.
    pub(super) fn make_zombie(&mut self, number: usize, for_us: u64) -> Result<(), Violation> {
        let now = self.now;
        if !self.clients[number].leave_to_heir(now, now + for_us) {
            return Ok(());
        }
        let reader = self.clients.len() as u64 + 1;
        let heir = Client::heir_of(&self.clients[number], reader, self.random.next_u64());
        self.clients.push(heir);
        self.begin_client(self.clients.len() - 1)
    }
}
