//! A cluster, the network to it, and clients that are real sessions.

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sequor_client::{
    core::{
        Config, Event, Failure, Numbers, OpenFailure, ProducerKey, Session, Style, SubscriptionKey, Time,
        Transmit,
    },
    protocol::{
        BrokerId, Epoch, Member, Offset, Refusal, Request, RequestId, Response, Sequence,
        batch::{Batch, BatchBuilder},
    },
};

use crate::greeting::{CLUSTER, hello};
use cluster::Cluster;

const BROKERS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];
const MILLISECOND: u64 = 1_000;

fn members() -> Vec<Member> {
    BROKERS.map(|id| Member { id, address: format!("broker-{id}:7400") }).to_vec()
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Acked { offset: Offset },
    Failed(Failure),
    Known,
    Unknown,
}

struct Writer {
    name: String,
    batches: usize,
    patience: Duration,
    producer: ProducerKey,
    open: bool,
    /// Epoch under which it was opened, and what each of its batches was.
    sent: BTreeMap<Sequence, Vec<u8>>,
    outcomes: BTreeMap<Sequence, Outcome>,
}

struct Client {
    session: Session,
    links: BTreeMap<BrokerId, u64>,
    writer: Option<Writer>,
    tail: Option<(SubscriptionKey, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Happening {
    Connected { client: usize, broker: BrokerId, link: u64 },
    Broken { client: usize, broker: BrokerId, link: u64 },
    Request { client: usize, broker: BrokerId, link: u64, id: RequestId, request: Request },
    Response { client: usize, broker: BrokerId, link: u64, id: RequestId, response: Response },
    Deliver { client: usize, broker: BrokerId, link: u64, id: RequestId, from: Offset },
    Elect,
    Look,
}

/// Virtual time, the cluster, the network, the clients.
pub(crate) struct World {
    now: Time,
    rng: ChaCha8Rng,
    storm_until: Time,
    queue: BTreeMap<(Time, u64), Happening>,
    cluster: Cluster,
    clients: Vec<Client>,
    count: u64,
    trace: DefaultHasher,
    stopped: BTreeSet<(usize, RequestId)>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            now: Time(0),
            rng: ChaCha8Rng::seed_from_u64(seed),
            storm_until: Time(0),
            queue: BTreeMap::new(),
            cluster: Cluster::default(),
            clients: Vec::new(),
            count: 0,
            trace: DefaultHasher::new(),
            stopped: BTreeSet::new(),
        };
        world.after(0, Happening::Elect);
        world
    }

    pub(crate) fn storm_until(&mut self, milliseconds: u64) {
        self.storm_until = Time(milliseconds * MILLISECOND);
    }

    fn storm(&self) -> bool {
        self.now < self.storm_until
    }

    pub(crate) fn client(&mut self) -> usize {
        let config = Config {
            attempt_timeout: Duration::from_millis(200),
            connect_timeout: Duration::from_millis(200),
            ..Config::new(CLUSTER, members())
        };
        let session = Session::new(config, self.rng.random(), self.now);
        self.clients.push(Client { session, links: BTreeMap::new(), writer: None, tail: None });
        self.clients.len() - 1
    }

    pub(crate) fn write(
        &mut self,
        client: usize,
        name: &str,
        numbers: Numbers,
        batches: usize,
        patience: Duration,
    ) {
        let session = &mut self.clients[client].session;
        let deadline = self.now.after(Duration::from_secs(60));
        let producer = session.open_producer(self.now, name, Style { numbers, ..Style::default() }, deadline);
        let (sent, outcomes) = (BTreeMap::new(), BTreeMap::new());
        let name = name.to_owned();
        self.clients[client].writer =
            Some(Writer { name, batches, patience, producer, open: false, sent, outcomes });
    }

    pub(crate) fn tail(&mut self, client: usize, from: u64) {
        let key = self.clients[client].session.subscribe(self.now, Offset(from));
        self.clients[client].tail = Some((key, Vec::new()));
    }

    fn after(&mut self, microseconds: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((Time(self.now.0 + microseconds), self.count), happening);
    }

    fn latency(&mut self) -> u64 {
        let most = if self.storm() { 60 } else { 5 };
        self.rng.random_range(100..most * MILLISECOND)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.storm() && self.rng.random_range(0..100) < percent
    }

    pub(crate) fn run_until(&mut self, milliseconds: u64) {
        let end = Time(milliseconds * MILLISECOND);
        self.settle();
        while let Some((at, happening)) = self.queue.pop_first() {
            if at.0 > end {
                self.queue.insert(at, happening);
                break;
            }
            self.now = at.0;
            (self.now, format!("{happening:?}")).hash(&mut self.trace);
            self.happen(happening);
            self.settle();
        }
        self.now = end;
    }

    /// Runs until a writer has its name, and a little longer.
    pub(crate) fn run_until_open(&mut self, client: usize) {
        let is_open = |world: &Self| world.clients[client].writer.as_ref().is_some_and(|writer| writer.open);
        while !is_open(self) {
            self.run_until(self.now.0 / MILLISECOND + 100);
        }
        self.run_until(self.now.0 / MILLISECOND + 300);
    }

    /// Lets every session say what it wants, until none wants anything now.
    fn settle(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].session.next_timeout() <= self.now {
                self.clients[client].session.handle_timeout(self.now);
            }
            loop {
                self.feed(client);
                let (mut transmits, mut events) = (Vec::new(), Vec::new());
                let session = &mut self.clients[client].session;
                while let Some(transmit) = session.poll_transmit() {
                    transmits.push(transmit);
                }
                while let Some(event) = session.poll_event() {
                    events.push(event);
                }
                if transmits.is_empty() && events.is_empty() {
                    break;
                }
                transmits.into_iter().for_each(|transmit| self.carry(client, transmit));
                events.into_iter().for_each(|event| self.hear(client, event));
            }
            let next = self.clients[client].session.next_timeout();
            assert!(next > self.now, "a session that is never content runs hot");
            if next < Time::NEVER && !self.queue.range(..=(next, u64::MAX)).any(|(at, _)| at.0 == next) {
                self.after(next.0 - self.now.0, Happening::Look);
            }
        }
    }

    /// Appends as long as the session takes batches.
    fn feed(&mut self, client: usize) {
        let now = self.now;
        let Client { session, writer: Some(writer), .. } = &mut self.clients[client] else { return };
        while writer.open && writer.sent.len() < writer.batches && session.room(writer.producer, 100).is_ok()
        {
            let mut batch = BatchBuilder::new();
            let mut content = Vec::new();
            for at in 0..self.rng.random_range(1..5) {
                let value = format!("{client}/{}/{at};", writer.sent.len());
                content.extend_from_slice(value.as_bytes());
                batch.push_value(None, value.as_bytes(), 0).expect("it is small");
            }
            let deadline = now.after(writer.patience);
            let first = session.append(now, writer.producer, batch, deadline).expect("there was room");
            writer.sent.insert(first, content);
        }
    }

    /// The network.
    fn carry(&mut self, client: usize, transmit: Transmit) {
        match transmit {
            Transmit::Connect { broker, .. } => {
                self.count += 1;
                let link = self.count;
                self.clients[client].links.insert(broker, link);
                let latency = self.latency();
                if self.chance(30) {
                    self.after(latency, Happening::Broken { client, broker, link });
                } else if !self.chance(10) {
                    self.after(latency, Happening::Connected { client, broker, link });
                }
            }
            Transmit::Disconnect { broker } => _ = self.clients[client].links.remove(&broker),
            Transmit::Request { broker, id, request, .. } => {
                let link = self.clients[client].links[&broker];
                // A stream may lose its end, but it repeats nothing.
                if !self.chance(10) {
                    let latency = self.latency();
                    self.after(latency, Happening::Request { client, broker, link, id, request });
                }
                if self.chance(3) {
                    let latency = self.latency();
                    self.after(latency, Happening::Broken { client, broker, link });
                }
            }
            Transmit::Subscribe { broker, id, subscribe, .. } => {
                let (link, from) = (self.clients[client].links[&broker], subscribe.from);
                let latency = self.latency();
                self.after(latency, Happening::Deliver { client, broker, link, id, from });
            }
            Transmit::Unsubscribe { id, .. } => _ = self.stopped.insert((client, id)),
        }
    }

    /// How often an answer arrives.
    fn copies(&mut self) -> usize {
        if self.chance(10) {
            0
        } else if self.chance(10) {
            2
        } else {
            1
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connected { client, broker, link } => {
                if self.clients[client].links.get(&broker) == Some(&link) {
                    let hello = hello(broker, self.cluster.leader, members());
                    self.clients[client].session.handle_connected(self.now, broker, &hello);
                }
            }
            Happening::Broken { client, broker, link } => {
                if self.clients[client].links.get(&broker) == Some(&link) {
                    self.clients[client].links.remove(&broker);
                    self.clients[client].session.handle_disconnected(self.now, broker);
                }
            }
            // A request may still arrive after its connection broke: that is what makes outcomes unknown.
            Happening::Request { client, broker, link, id, request } => {
                let response = self.answer(broker, &request);
                for _ in 0..self.copies() {
                    let (latency, response) = (self.latency(), response.clone());
                    self.after(latency, Happening::Response { client, broker, link, id, response });
                }
            }
            Happening::Response { client, broker, link, id, response } => {
                if self.clients[client].links.get(&broker) == Some(&link) {
                    self.clients[client].session.handle_response(self.now, broker, id, response);
                }
            }
            Happening::Deliver { client, broker, link, id, from } => {
                self.deliver(client, broker, link, id, from);
            }
            Happening::Elect => {
                let lot = if self.storm() { self.rng.random_range(0..4) } else { 1 };
                self.cluster.leader = BROKERS.get(lot).copied();
                if self.storm() {
                    let pause = self.rng.random_range(20..400) * MILLISECOND;
                    self.after(pause, Happening::Elect);
                }
            }
            Happening::Look => {}
        }
    }

    fn answer(&mut self, broker: BrokerId, request: &Request) -> Response {
        if self.cluster.leader != Some(broker) {
            let leader = if self.chance(50) { None } else { self.cluster.leader };
            return Response::Refused(Refusal::NotLeader { leader });
        }
        if self.chance(5) {
            return Response::Refused(Refusal::Unavailable);
        }
        if self.chance(5) {
            return Response::Refused(Refusal::Busy { limit_bytes: 1 });
        }
        if self.chance(5) {
            return Response::Refused(Refusal::OutcomeUnknown);
        }
        let response = self.cluster.handle(request);
        let written = matches!(response, Response::Appended(_) | Response::Opened(_) | Response::Resolved(_));
        if written && self.chance(5) { Response::Refused(Refusal::OutcomeUnknown) } else { response }
    }

    /// A broker looks after a stream once: sends what there is, or looks again later.
    fn deliver(&mut self, client: usize, broker: BrokerId, link: u64, id: RequestId, from: Offset) {
        if self.stopped.contains(&(client, id)) || self.clients[client].links.get(&broker) != Some(&link) {
            return;
        }
        let latency = self.latency();
        if self.cluster.leader != Some(broker) {
            let response = Response::Refused(Refusal::NotLeader { leader: self.cluster.leader });
            return self.after(latency, Happening::Response { client, broker, link, id, response });
        }
        let (mut next, mut pause) = (from, 20 * MILLISECOND);
        if let Some(delivery) = self.cluster.read(from) {
            (next, pause) = (delivery.next, latency + 1);
            // A stream loses nothing but its end.
            if self.chance(5) {
                return self.after(latency, Happening::Broken { client, broker, link });
            }
            let response = Response::Delivery(delivery);
            self.after(latency, Happening::Response { client, broker, link, id, response });
        }
        self.after(pause, Happening::Deliver { client, broker, link, id, from: next });
    }

    /// The caller.
    fn hear(&mut self, client: usize, event: Event) {
        let client = &mut self.clients[client];
        match event {
            Event::Records { subscription, batches, .. } => {
                let (key, tailed) = client.tail.as_mut().expect("only a tail gets records");
                assert_eq!(*key, subscription);
                for placed in batches {
                    for record in placed.batch.records().skip(placed.skip as usize) {
                        let record = record.expect("the session has checked it");
                        tailed.extend_from_slice(&record.value.expect("no tombstones here"));
                    }
                }
            }
            Event::Opened { state, .. } => {
                let writer = client.writer.as_mut().expect("only a writer opens");
                (writer.open, writer.batches) = (true, writer.batches);
                assert!(state.epoch > Epoch(0));
            }
            Event::Acked { first, offset, .. } => client.outcome(first, Outcome::Acked { offset }),
            Event::Failed { first, why, .. } => client.outcome(first, Outcome::Failed(why)),
            Event::Known { first, .. } => client.outcome(first, Outcome::Known),
            Event::Unknown { first, .. } => client.outcome(first, Outcome::Unknown),
            Event::OpenFailed { why: OpenFailure::Refused(Refusal::Fenced { .. }), .. } => {}
            Event::Connected { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
    }

    pub(crate) fn outcomes(&self, client: usize) -> Vec<Outcome> {
        self.clients[client]
            .writer
            .as_ref()
            .map_or(Vec::new(), |writer| writer.outcomes.values().cloned().collect())
    }

    pub(crate) fn tailed(&self, client: usize) -> String {
        let tailed = self.clients[client].tail.as_ref().map(|(_, tailed)| tailed.clone());
        String::from_utf8(tailed.unwrap_or_default()).expect("the model writes text")
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn log(&self) -> String {
        self.cluster.log.iter().map(|(_, batch)| text(batch)).collect()
    }

    /// Compares everything that writers were told with the log.
    pub(crate) fn judge(&self) {
        for writer in self.clients.iter().filter_map(|client| client.writer.as_ref()) {
            let id = self.cluster.names.get(&writer.name).map(|name| name.id);
            assert_eq!(writer.outcomes.len(), writer.sent.len(), "each batch has one outcome");
            for (first, content) in &writer.sent {
                let is_it = |batch: &Batch| Some(batch.producer()) == id && batch.first_sequence() == *first;
                let written: Vec<_> = self.cluster.log.iter().filter(|(_, batch)| is_it(batch)).collect();
                let ours: Vec<_> =
                    written.iter().filter(|(_, batch)| text(batch).as_bytes() == content).collect();
                match &writer.outcomes[first] {
                    Outcome::Acked { offset } => {
                        assert_eq!(ours.len(), 1, "acknowledged and there once");
                        assert_eq!(ours[0].0, *offset, "where it was said to be");
                    }
                    Outcome::Failed(why) => assert_eq!(ours.len(), 0, "failed, yet written: {why:?}"),
                    Outcome::Known => assert_eq!(ours.len(), 1, "known as written, and there once"),
                    Outcome::Unknown => assert!(ours.len() <= 1),
                }
            }
        }
        for name in self.cluster.names.values() {
            let own = self.cluster.log.iter().filter(|(_, batch)| batch.producer() == name.id);
            let written = own.map(|(_, batch)| (batch.first_sequence(), batch.end_sequence()));
            let mut used: Vec<_> = written.chain(name.sealed.iter().copied()).collect();
            used.sort();
            let mut next = Sequence(0);
            for (first, end) in used {
                assert_eq!(first, next, "a producer's numbers are contiguous: written, or given up");
                next = end;
            }
        }
    }
}

impl Client {
    fn outcome(&mut self, first: Sequence, outcome: Outcome) {
        let writer = self.writer.as_mut().expect("only a writer has outcomes");
        let before = writer.outcomes.insert(first, outcome);
        assert_eq!(before, None, "a batch has one outcome");
    }
}

fn text(batch: &Batch) -> String {
    let value = |record: Result<_, _>| {
        let record: sequor_client::protocol::batch::Record = record.expect("checked when it was written");
        String::from_utf8(record.value.expect("no tombstones here").to_vec()).expect("the model writes text")
    };
    batch.records().map(value).collect()
}
