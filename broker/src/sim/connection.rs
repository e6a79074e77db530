//! Connections between clients and brokers.
//!
//! A connection carries frames in order, both ways, in the bytes that a real one carries. It ends by either side's
//! wish or when one of them dies; then what is on its way is lost, and the survivor learns of it late, as with a peer
//! that has fallen silent.

#[cfg(feature = "virtual")]
mod program;
mod reader;

use std::collections::BTreeMap;
use std::mem;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use sequor_client::protocol::batch::BatchBuilder;
use sequor_client::protocol::frame::{self, Decoder, Frame, RawFrame};
use sequor_client::protocol::limits::DELIVERY_BYTES_MAX;
use sequor_client::protocol::{
    Acks, Append, Context, Epoch, Leads, ProducerId, Refusal, Request, RequestId, Response, Sequence,
    ServerHello,
};

use super::chance::{chance, within};
use super::faults::Fault;
use super::judge::Violation;
use super::network::Node;
use super::world::{Event, World};
use crate::core::time::Time;
use crate::core::{Caller, Reply, SessionId};

#[cfg(feature = "virtual")]
pub(crate) use self::program::Port;
use self::reader::Reader;

/// How long it takes until somebody notices that the other side has fallen silent. Microseconds.
const SILENCE_US: (u64, u64) = (1_000, 1_500_000);
/// How long a storm leaves clients alone. Microseconds.
const STORM_US: (u64, u64) = (1_000, 100_000);
/// Deliveries on their way to a reader that does not read. Count.
const DELIVERIES_MAX: usize = 4;
/// Records in one delivery are about this many bytes.
const DELIVERY_BYTES: usize = 8 << 10;
const _: () = assert!(DELIVERY_BYTES <= DELIVERY_BYTES_MAX);

/// What arrives at a broker.
#[derive(Debug)]
pub(super) enum ToBroker {
    /// Somebody connects.
    Hello,
    /// A frame.
    Frame(Bytes),
    /// What nobody's library would send.
    Garbage(Bytes),
    /// The reader has had enough.
    Unsubscribe(RequestId),
    /// The client is gone.
    Closed,
}

/// What arrives at a client.
#[derive(Debug)]
pub(super) enum ToClient {
    /// The broker is there.
    Hello(Box<ServerHello>),
    /// A frame.
    Frame(Bytes),
    /// The broker is gone, or was never there.
    Closed,
}

/// Who made a connection.
#[derive(Debug)]
pub(super) enum End {
    /// A client of this world, in one of its incarnations.
    Client { number: usize, generation: u64 },
    /// Somebody outside of it.
    #[cfg(feature = "virtual")]
    Program(Box<dyn Port>),
}

#[derive(Debug)]
struct Connection {
    end: End,
    broker: u64,
    /// When the last message in each direction arrives: the next one cannot overtake it.
    last_to_broker: Time,
    last_to_client: Time,
    /// The client has forgotten it.
    forgotten: bool,
    /// The broker has.
    hung_up: bool,
    /// A message was lost on the way to the broker, or to the client: nothing arrives behind it.
    lost_to_broker: bool,
    lost_to_client: bool,
    readers: BTreeMap<RequestId, Reader>,
}

impl Connection {
    /// Its two ends, if both are in this world.
    fn link(&self) -> Option<(Node, Node)> {
        match self.end {
            End::Client { number, .. } => Some((Node::Client(number), Node::Broker(self.broker))),
            #[cfg(feature = "virtual")]
            End::Program(_) => None,
        }
    }

    fn hang_up(&mut self) {
        self.hung_up = true;
        self.readers.clear();
    }
}

/// All connections of the world.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: BTreeMap<u64, Connection>,
    next: u64,
    /// What muted brokers have sent.
    #[cfg(feature = "virtual")]
    stuck: BTreeMap<u64, program::Stuck>,
}

impl Connections {
    /// The broker that listens at a connection's other end.
    pub(super) fn broker_of(&self, connection: u64) -> Option<u64> {
        self.open.get(&connection).filter(|open| !open.hung_up).map(|open| open.broker)
    }

    fn of_broker(&self, broker: u64) -> Vec<u64> {
        self.open.iter().filter(|(_, connection)| connection.broker == broker).map(|(id, _)| *id).collect()
    }

    /// Where somebody reads from a broker.
    fn read_from(&self, broker: u64) -> Vec<u64> {
        let reads = |open: &Connection| open.broker == broker && !open.readers.is_empty();
        self.open.iter().filter(|(_, open)| reads(open)).map(|(id, _)| *id).collect()
    }

    fn of_client(&self, client: usize) -> Vec<u64> {
        let is_theirs = |end: &End| matches!(end, End::Client { number, .. } if *number == client);
        self.open.iter().filter(|(_, c)| is_theirs(&c.end) && !c.forgotten).map(|(id, _)| *id).collect()
    }
}

impl World {
    /// Somebody wants to talk to a broker.
    pub(super) fn connect(&mut self, end: End, broker: u64) -> u64 {
        self.connections.next += 1;
        let id = self.connections.next;
        let connection = Connection {
            end,
            broker,
            last_to_broker: self.now,
            last_to_client: self.now,
            forgotten: false,
            hung_up: false,
            lost_to_broker: false,
            lost_to_client: false,
            readers: BTreeMap::new(),
        };
        self.connections.open.insert(id, connection);
        self.send_to_broker(id, ToBroker::Hello);
        id
    }

    /// Sends something to a connection's broker. It arrives later than what was sent before: events of one moment happen in
    /// any order, and a stream keeps its own.
    pub(super) fn send_to_broker(&mut self, connection: u64, what: ToBroker) {
        let delay = self.network.delay(&mut self.random);
        let Some(open) = self.connections.open.get_mut(&connection) else { return };
        if let Some((client, broker)) = open.link()
            && (open.lost_to_broker || self.network.is_cut(client, broker))
        {
            let is_news = !mem::replace(&mut open.lost_to_broker, true);
            if matches!(what, ToBroker::Closed) {
                // The broker notices by itself.
                let notice = within(&mut self.random, SILENCE_US);
                return self.after(notice, Event::ToBroker { connection, what });
            }
            return self.starve(connection, is_news);
        }
        open.last_to_broker = (open.last_to_broker + 1).max(self.now + delay);
        let at = open.last_to_broker;
        self.at(at, Event::ToBroker { connection, what });
    }

    fn send_to_client(&mut self, connection: u64, what: ToClient) {
        let delay = self.network.delay(&mut self.random);
        let Some(open) = self.connections.open.get_mut(&connection) else { return };
        if let Some((client, broker)) = open.link()
            && (open.lost_to_client || self.network.is_cut(broker, client))
        {
            let is_news = !mem::replace(&mut open.lost_to_client, true);
            return self.starve(connection, is_news);
        }
        open.last_to_client = (open.last_to_client + 1).max(self.now + delay);
        let at = open.last_to_client;
        self.at(at, Event::ToClient { connection, what });
    }

    /// Something is lost on a connection that is cut: after a while of silence it is given up.
    fn starve(&mut self, connection: u64, is_news: bool) {
        if is_news {
            self.reached.note("lost between client and broker");
            self.fall_silent(connection);
        }
    }

    /// The client forgets a connection; the broker hears of it in its turn.
    pub(super) fn forget_connection(&mut self, connection: u64) {
        if let Some(open) = self.connections.open.get_mut(&connection) {
            open.forgotten = true;
        }
        self.send_to_broker(connection, ToBroker::Closed);
    }

    /// The client forgets all of its connections without knowing.
    pub(super) fn forget_connections(&mut self, client: usize) {
        for connection in self.connections.of_client(client) {
            self.forget_connection(connection);
        }
    }

    /// Whether a client has a connection that it knows of.
    pub(super) fn is_connected(&self, client: usize) -> bool {
        !self.connections.of_client(client).is_empty()
    }

    /// A client's connections break; it notices at once.
    pub(super) fn reset_client(&mut self, client: usize) {
        for connection in self.connections.of_client(client) {
            self.forget_connection(connection);
            let Some(open) = self.connections.open.get(&connection) else { continue };
            match open.end {
                End::Client { generation, .. } => self.client_lost(client, generation, open.broker),
                #[cfg(feature = "virtual")]
                End::Program(_) => {}
            }
        }
        self.at(self.now, Event::Wake { client });
    }

    /// All clients lose their connections, again and again, so that all of them come back at once.
    pub(super) fn storm(&mut self, times: u64) {
        for client in 0..self.clients.len() {
            self.reset_client(client);
        }
        if times > 1 {
            let next = within(&mut self.random, STORM_US);
            self.after(next, Event::Fault(Fault::Storm { times: times - 1 }));
        }
    }

    /// The broker died: its clients notice after a while.
    pub(super) fn break_connections_of_broker(&mut self, broker: u64) {
        #[cfg(feature = "virtual")]
        self.forget_stuck(broker);
        for connection in self.connections.of_broker(broker) {
            let Some(open) = self.connections.open.get_mut(&connection) else { continue };
            if open.forgotten {
                self.connections.open.remove(&connection);
                continue;
            }
            open.hang_up();
            self.fall_silent(connection);
        }
    }

    fn fall_silent(&mut self, connection: u64) {
        let notice = self.now + within(&mut self.random, SILENCE_US);
        self.at(notice, Event::ToClient { connection, what: ToClient::Closed });
    }

    pub(super) fn arrive_at_broker(&mut self, connection: u64, what: ToBroker) -> Result<(), Violation> {
        let Some(open) = self.connections.open.get(&connection) else { return Ok(()) };
        let (broker, hung_up) = (open.broker, open.hung_up);
        match what {
            ToBroker::Closed => {
                self.connections.open.remove(&connection);
            }
            // Who runs and does not know a connection says so at once.
            _ if hung_up && self.is_awake(broker) => self.send_to_client(connection, ToClient::Closed),
            _ if hung_up => {}
            _ if self.core(broker).is_none() => self.fall_silent(connection),
            ToBroker::Hello => {
                let hello = self.core(broker).map(|core| Box::new(core.hello()));
                hello.into_iter().for_each(|hello| self.send_to_client(connection, ToClient::Hello(hello)));
            }
            ToBroker::Frame(bytes) => self.take_request(connection, broker, decode(bytes)?)?,
            ToBroker::Garbage(bytes) => self.take_garbage(connection, broker, bytes)?,
            ToBroker::Unsubscribe(id) => {
                self.connections.open.get_mut(&connection).map(|open| open.readers.remove(&id));
            }
        }
        Ok(())
    }

    fn take_request(&mut self, connection: u64, broker: u64, frame: RawFrame) -> Result<(), Violation> {
        let (id, context, request) = frame.request().map_err(|(_, refusal)| unreadable(&refusal))?;
        if let (Request::Subscribe(subscribe), Some(open)) =
            (&request, self.connections.open.get_mut(&connection))
        {
            open.readers.insert(id, Reader::new(subscribe.from));
        }
        let now = self.time_at(broker);
        if let Some(core) = self.core(broker) {
            core.handle_request(now, Caller { session: SessionId(connection), id }, &context, request);
        }
        self.request_pass(broker);
        Ok(())
    }

    /// What has the form of a request is answered like one; on anything else the broker hangs up.
    fn take_garbage(&mut self, connection: u64, broker: u64, bytes: Bytes) -> Result<(), Violation> {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        if let Ok(Some(frame)) = decoder.next()
            && frame.clone().request().is_ok()
        {
            self.reached.note("garbage in the form of a request");
            return self.take_request(connection, broker, frame);
        }
        self.reached.note("broker hung up on garbage");
        if let Some(open) = self.connections.open.get_mut(&connection) {
            open.hang_up();
        }
        self.fall_silent(connection);
        Ok(())
    }

    /// A client sends what its library would never send.
    pub(super) fn garble(&mut self, client: usize) {
        let Some(&connection) = self.connections.of_client(client).first() else { return };
        let bytes = garbage(&mut self.random);
        self.send_to_broker(connection, ToBroker::Garbage(bytes));
    }

    /// Sends a broker's answer to whoever asked.
    pub(super) fn send_reply(&mut self, broker: u64, reply: &Reply) {
        let (connection, id) = (reply.caller.session.0, reply.caller.id);
        let mine = |open: &&mut Connection| open.broker == broker && !open.hung_up;
        let Some(open) = self.connections.open.get_mut(&connection).filter(mine) else {
            return;
        };
        match (open.readers.get_mut(&id), &reply.response) {
            (Some(reader), Response::End(_)) => reader.begun = true,
            (Some(_), _) => {
                open.readers.remove(&id);
            }
            (None, _) => {}
        }
        self.send_response(connection, id, &reply.response);
    }

    /// Tells everybody who is connected to a broker who leads.
    pub(super) fn announce(&mut self, broker: u64, leads: Leads) {
        self.reached.note("told who leads");
        for connection in self.connections.of_broker(broker) {
            if self.connections.broker_of(connection).is_some() {
                self.send_response(connection, RequestId::NONE, &Response::Leads(leads));
            }
        }
    }

    fn send_response(&mut self, connection: u64, id: RequestId, response: &Response) {
        let frame = frame::encode_response(id, response).expect("a broker's answers keep the limits");
        self.send_to_client(connection, ToClient::Frame(flatten(frame)));
    }

    /// Sends readers what they may have.
    pub(super) fn pump_subscriptions(&mut self, broker: u64) {
        for connection in self.connections.read_from(broker) {
            let Some(open) = self.connections.open.get_mut(&connection) else { continue };
            let mut readers = mem::take(&mut open.readers);
            let mut frames = Vec::new();
            readers.retain(|id, reader| match self.read_on(broker, reader) {
                Ok(deliveries) => {
                    frames.extend(deliveries.into_iter().map(|delivery| (*id, delivery)));
                    true
                }
                Err(refusal) => {
                    frames.push((*id, Response::Refused(refusal)));
                    false
                }
            });
            if let Some(open) = self.connections.open.get_mut(&connection) {
                open.readers = readers;
            }
            for (id, response) in frames {
                self.send_response(connection, id, &response);
            }
        }
    }

    fn read_on(&mut self, broker: u64, reader: &mut Reader) -> Result<Vec<Response>, Refusal> {
        let mut deliveries = Vec::new();
        let Some(core) = self.core(broker).filter(|_| reader.begun) else { return Ok(deliveries) };
        while reader.on_their_way < DELIVERIES_MAX {
            let Some(delivery) = core.deliver(&mut reader.subscription, DELIVERY_BYTES)? else { break };
            reader.on_their_way += 1;
            deliveries.push(Response::Delivery(delivery));
        }
        Ok(deliveries)
    }

    pub(super) fn arrive_at_client(&mut self, connection: u64, what: ToClient) -> Result<(), Violation> {
        let Some(open) = self.connections.open.get_mut(&connection) else { return Ok(()) };
        if open.forgotten {
            return Ok(());
        }
        let broker = open.broker;
        let (client, generation) = match open.end {
            End::Client { number, generation } => (number, generation),
            #[cfg(feature = "virtual")]
            End::Program(_) => return self.arrive_at_program(connection, what),
        };
        match what {
            ToClient::Hello(hello) => self.client_connected(client, generation, &hello),
            ToClient::Frame(bytes) => {
                let (id, response) = decode(bytes)?.response().map_err(|error| unreadable(&error))?;
                if let (Response::Delivery(delivery), Some(reader)) = (&response, open.readers.get_mut(&id)) {
                    reader.take(delivery)?;
                    self.request_pass(broker);
                }
                self.client_answered(client, generation, broker, id, response);
            }
            ToClient::Closed => {
                self.connections.open.remove(&connection);
                self.client_lost(client, generation, broker);
            }
        }
        self.wake(client)
    }

    /// Whom something on its way will reach; none if the connection is over.
    pub(super) fn end_of(&self, connection: u64) -> Option<&End> {
        self.connections.open.get(&connection).map(|open| &open.end)
    }
}

/// A batch that is not what its checksum says, in a sound request; or noise.
fn garbage(random: &mut ChaCha8Rng) -> Bytes {
    let noise: Vec<u8> = (0..within(random, (1, 300))).map(|_| random.next_u64().to_le_bytes()[0]).collect();
    if chance(random, 500) {
        return noise.into();
    }
    let mut builder = BatchBuilder::new();
    builder.push_value(None, &noise, 0).expect("it is small");
    let (producer, epoch) = (ProducerId(within(random, (0, 4))), Epoch(within(random, (0, 3))));
    let sealed = builder.seal(producer, epoch, Sequence(within(random, (0, 1000))));
    let mut batch = sealed.to_vec();
    let at = usize::try_from(random.next_u64() % batch.len() as u64).expect("an index fits a usize");
    batch[at] ^= 1 << (random.next_u64() % 8);
    let append = Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch: batch.into() };
    let context = Context { deadline_ms: 1000, ..Context::default() };
    encode(RequestId(u64::MAX), &context, &Request::Append(append))
}

fn flatten(frame: Frame) -> Bytes {
    frame.into_chunks().collect::<Vec<_>>().concat().into()
}

/// A request's frame, as bytes.
pub(super) fn encode(id: RequestId, context: &sequor_client::protocol::Context, request: &Request) -> Bytes {
    flatten(frame::encode_request(id, context, request).expect("the library's requests keep the limits"))
}

fn decode(bytes: Bytes) -> Result<RawFrame, Violation> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let frame = decoder.next().map_err(|error| Violation(format!("a frame cannot be read: {error}")))?;
    frame.ok_or_else(|| Violation("a frame is not whole".into()))
}

fn unreadable(why: &dyn std::fmt::Display) -> Violation {
    Violation(format!("a frame does not hold what it should: {why}"))
}
