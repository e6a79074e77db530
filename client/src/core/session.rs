//! One client: composes routing, producers, consumers and questions, and gives every attempt its id.
//!
//! The driver's loop is short: feed what happened, then carry out every transmit, hand over every event, and sleep
//! until `next_timeout`. All methods take the present moment; it never falls from one call to the next.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    AppendRefused, Call, Event, Failure, ProducerKey, Style, SubscriptionKey, Time, Transmit,
    attempts::Attempts,
    consumer::Consumer,
    keeping::Keeping,
    opening::Opening,
    producer::{Bounds, News, Producer},
    routing::{Backoff, Routing},
};
use crate::protocol::{
    Acks, BrokerId, ClusterId, Feature, Field, HighWater, Instance, Lineage, List, Lookup, Member, Offset,
    Refusal, Request, RequestId, Resolve, Response, Retire, Sequence, ServerHello, VERSION,
    batch::BatchBuilder, limits::IN_FLIGHT_BATCHES_MAX,
};

/// What a session is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster it means to talk to.
    pub cluster: ClusterId,
    /// Brokers to begin with, at least one. The others are learnt from them.
    pub brokers: Vec<Member>,
    /// Most batches in flight per producer. At most [`IN_FLIGHT_BATCHES_MAX`].
    pub in_flight_batches: usize,
    /// Most bytes in flight per producer. One batch is always possible.
    pub in_flight_bytes: usize,
    /// How long a connection may take to be made, hellos included.
    pub connect_timeout: Duration,
    /// How long an answer may take at least before the request is sent again, elsewhere first. Longer where answers
    /// usually take long, and as long as nothing succeeds. A little more than an election is a good value.
    pub attempt_timeout: Duration,
    /// First pause before a repetition. Doubles with each one.
    pub backoff_min: Duration,
    /// Longest pause before a repetition.
    pub backoff_max: Duration,
}

impl Config {
    /// The usual values.
    #[must_use]
    pub fn new(cluster: ClusterId, brokers: Vec<Member>) -> Self {
        Self {
            cluster,
            brokers,
            in_flight_batches: 16,
            in_flight_bytes: 16 << 20,
            connect_timeout: Duration::from_secs(2),
            attempt_timeout: Duration::from_millis(350),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(500),
        }
    }
}

/// Whose attempt a request is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Opening(ProducerKey),
    Batch(ProducerKey, Sequence),
    Seal(ProducerKey),
    KeepAlive(ProducerKey),
    Call(Call),
    Subscription(SubscriptionKey),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Owned {
    pub(super) owner: Owner,
    pub(super) broker: BrokerId,
    /// 0 for what was not sent to the target of the routing.
    pub(super) turn: u64,
    pub(super) sent_at: Time,
}

#[derive(Debug)]
pub(super) struct Question {
    /// Whom to ask; none for whoever leads.
    pub(super) broker: Option<BrokerId>,
    pub(super) request: Request,
    pub(super) attempts: Attempts,
}

impl Question {
    /// Whether the request changes anything.
    fn changes(&self) -> bool {
        matches!(self.request, Request::Retire(_) | Request::Resolve(Resolve { seal: true, .. }))
    }
}

/// One client of one cluster.
///
/// Invariants: an id in `owners` is an attempt whose answer matters to its owner; every command that returns a key is
/// followed by exactly one final event for it (a batch: `Acked`, `Known`, `Failed` or `Unknown`, or one of them for each
/// part if it had to be cut), unless the caller gives the key up first.
#[derive(Debug)]
pub struct Session {
    pub(super) config: Config,
    pub(super) rng: ChaCha8Rng,
    pub(super) routing: Routing,
    pub(super) lineage: Option<Lineage>,
    pub(super) seen: Option<HighWater>,
    pub(super) openings: BTreeMap<ProducerKey, Opening>,
    pub(super) producers: BTreeMap<ProducerKey, Producer>,
    /// Those whose sessions are kept alive.
    pub(super) kept: BTreeMap<ProducerKey, Keeping>,
    pub(super) questions: BTreeMap<Call, Question>,
    pub(super) consumers: BTreeMap<SubscriptionKey, Consumer>,
    pub(super) owners: BTreeMap<RequestId, Owned>,
    pub(super) last_id: u64,
    pub(super) last_key: u64,
    pub(super) wake: Time,
    /// When something last happened whose consequences were not looked for yet.
    touched: Option<Time>,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
}

impl Session {
    /// A client that knows its brokers by configuration only. It asks for its first connection at once. Everything
    /// that looks like chance comes from `seed`.
    ///
    /// # Panics
    ///
    /// If the configuration names no broker.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Time) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let backoff = Backoff { min: config.backoff_min, max: config.backoff_max };
        let lot = ChaCha8Rng::from_rng(&mut rng);
        let routing = Routing::new(&config.brokers, backoff, config.connect_timeout, lot);
        let mut session = Self {
            config,
            rng,
            routing,
            lineage: None,
            seen: None,
            openings: BTreeMap::new(),
            producers: BTreeMap::new(),
            kept: BTreeMap::new(),
            questions: BTreeMap::new(),
            consumers: BTreeMap::new(),
            owners: BTreeMap::new(),
            last_id: 0,
            last_key: 0,
            wake: now,
            touched: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        session.touch(now);
        session
    }

    /// Takes the name of a producer, to write from its next number on, or from an earlier one: what is written already
    /// is compared and recognised. Ends with [`Event::Opened`] or [`Event::OpenFailed`].
    pub fn open_producer(&mut self, now: Time, name: &str, style: Style, deadline: Time) -> ProducerKey {
        let key = ProducerKey(self.next_key());
        let instance = Instance(self.rng.random());
        self.openings.insert(key, Opening::new(name.to_owned(), instance, style, deadline));
        self.touch(now);
        key
    }

    /// Begins a session that lives for `ttl` without being kept alive, and is kept alive until its producer is closed. It
    /// has a producer without a name. Ends with [`Event::Opened`] or [`Event::OpenFailed`].
    pub fn open_session(&mut self, now: Time, ttl: Duration, acks: Acks, deadline: Time) -> ProducerKey {
        let key = ProducerKey(self.next_key());
        let instance = Instance(self.rng.random());
        let ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX);
        self.openings
            .insert(key, Opening::session(instance, ttl_ms, Style { acks, ..Style::default() }, deadline));
        self.touch(now);
        key
    }

    /// Whether a batch of this size would be taken now.
    ///
    /// # Errors
    ///
    /// [`AppendRefused`]; after [`AppendRefused::Full`] ask again when a batch of the producer has an outcome.
    pub fn room(&self, producer: ProducerKey, bytes: usize) -> Result<(), AppendRefused> {
        let bounds = Bounds {
            batches: self.config.in_flight_batches.clamp(1, IN_FLIGHT_BATCHES_MAX),
            bytes: self.config.in_flight_bytes,
        };
        self.producers.get(&producer).ok_or(AppendRefused::NotOpen)?.room(bytes, bounds)
    }

    /// Gives a batch the producer's next numbers and sends it as soon as possible. Returns its first number, by which
    /// the events about it name it.
    ///
    /// # Errors
    ///
    /// [`AppendRefused`]; the batch is gone then. Ask [`Session::room`] first.
    pub fn append(
        &mut self,
        now: Time,
        producer: ProducerKey,
        batch: BatchBuilder,
        deadline: Time,
    ) -> Result<Sequence, AppendRefused> {
        if batch.is_empty() {
            return Err(AppendRefused::Empty);
        }
        self.room(producer, batch.bytes())?;
        let open = self.producers.get_mut(&producer).ok_or(AppendRefused::NotOpen)?;
        let first = open.append(now, batch, deadline);
        self.touch(now);
        Ok(first)
    }

    /// Gives a producer up, with whatever is in flight: no further event speaks of it.
    pub fn close_producer(&mut self, producer: ProducerKey) {
        let opening = self.openings.remove(&producer);
        let open = self.producers.remove(&producer);
        let kept = self.kept.remove(&producer).map(|kept| kept.attempts.ids().collect::<Vec<_>>());
        self.forget(kept.into_iter().flatten());
        let ids = opening.map(|opening| opening.attempts.ids().collect::<Vec<_>>());
        self.forget(ids.into_iter().flatten().chain(open.into_iter().flat_map(|open| open.ids())));
    }

    /// Asks what is known of a producer's name. Ends with [`Event::Found`] or [`Event::CallFailed`].
    pub fn lookup(&mut self, now: Time, name: &str, deadline: Time) -> Call {
        self.ask(now, None, Request::Lookup(Lookup { name: name.to_owned() }), deadline)
    }

    /// Asks where the log ends, linearizably. Ends with [`Event::EndIs`] or [`Event::CallFailed`].
    pub fn end(&mut self, now: Time, deadline: Time) -> Call {
        self.ask(now, None, Request::End, deadline)
    }

    /// Asks for a page of the table of producers. Ends with [`Event::Listed`] or [`Event::CallFailed`].
    pub fn list(&mut self, now: Time, list: List, deadline: Time) -> Call {
        self.ask(now, None, Request::List(list), deadline)
    }

    /// Asks what became of a number, and perhaps gives it up. Ends with [`Event::Resolved`], [`Event::CallFailed`] or, if
    /// it gives up, [`Event::CallUnknown`].
    pub fn resolve(&mut self, now: Time, resolve: Resolve, deadline: Time) -> Call {
        self.ask(now, None, Request::Resolve(resolve), deadline)
    }

    /// Closes a name for ever. Ends with [`Event::Retired`], [`Event::CallFailed`] or [`Event::CallUnknown`].
    pub fn retire(&mut self, now: Time, retire: Retire, deadline: Time) -> Call {
        self.ask(now, None, Request::Retire(retire), deadline)
    }

    /// Asks one broker how it is. Ends with [`Event::StatusIs`] or [`Event::CallFailed`].
    pub fn status(&mut self, now: Time, broker: BrokerId, deadline: Time) -> Call {
        if !self.routing.knows(broker) {
            let call = Call(self.next_key());
            self.events.push_back(Event::CallFailed { call, why: Failure::NoSuchBroker { broker } });
            return call;
        }
        self.ask(now, Some(broker), Request::Status, deadline)
    }

    fn ask(&mut self, now: Time, broker: Option<BrokerId>, request: Request, deadline: Time) -> Call {
        let call = Call(self.next_key());
        self.questions.insert(call, Question { broker, request, attempts: Attempts::new(deadline) });
        self.touch(now);
        call
    }

    /// Follows the log from an offset on, for as long as it is not given up: [`Event::Records`], and at last perhaps
    /// [`Event::SubscriptionEnded`].
    pub fn subscribe(&mut self, now: Time, from: Offset) -> SubscriptionKey {
        let key = SubscriptionKey(self.next_key());
        self.consumers.insert(key, Consumer::new(from));
        self.touch(now);
        key
    }

    /// Gives a subscription up: no further event speaks of it.
    pub fn unsubscribe(&mut self, subscription: SubscriptionKey) {
        let stream = self.consumers.remove(&subscription).and_then(|consumer| consumer.stream());
        if let Some((id, broker)) = stream {
            self.owners.remove(&id);
            self.transmits.push_back(Transmit::Unsubscribe { broker, id });
        }
    }

    /// A connection that was asked for stands, and the broker answered the hello.
    pub fn handle_connected(&mut self, now: Time, broker: BrokerId, hello: &ServerHello) {
        if let Err(why) = self.check_hello(broker, hello) {
            self.transmits.push_back(Transmit::Disconnect { broker });
            self.events.push_back(Event::Rejected { broker, why });
            return self.handle_disconnected(now, broker);
        }
        if self.routing.connected(now, broker, &hello.members, hello.leader) {
            self.lineage = Some(hello.lineage);
            self.events.push_back(Event::Connected { broker });
        }
        self.touch(now);
    }

    fn check_hello(&self, broker: BrokerId, hello: &ServerHello) -> Result<(), Refusal> {
        if hello.version != VERSION {
            return Err(Refusal::Unsupported { what: Feature::Version(hello.version) });
        }
        if hello.cluster != self.config.cluster || hello.broker != broker {
            return Err(Refusal::Malformed { what: Field::Hello });
        }
        match self.lineage {
            Some(expected) if expected != hello.lineage => {
                Err(Refusal::OtherLineage { expected, found: hello.lineage })
            }
            _ => Ok(()),
        }
    }

    /// A connection is gone, or was not made.
    pub fn handle_disconnected(&mut self, now: Time, broker: BrokerId) {
        self.routing.disconnected(now, broker);
        self.lose(now, broker);
        self.touch(now);
    }

    /// Gives a connection up that the routing does not count on any more.
    pub(super) fn give_up(&mut self, now: Time, broker: BrokerId) {
        self.transmits.push_back(Transmit::Disconnect { broker });
        self.lose(now, broker);
    }

    /// Nothing that was sent to this broker will be answered any more.
    fn lose(&mut self, now: Time, broker: BrokerId) {
        self.owners.retain(|_, owned| owned.broker != broker);
        let mut news = News::default();
        self.producers.values_mut().for_each(|producer| producer.disconnected(broker, &mut news));
        self.openings.values_mut().for_each(|opening| opening.attempts.disconnected(broker));
        self.questions.values_mut().for_each(|question| question.attempts.disconnected(broker));
        self.kept.values_mut().for_each(|kept| kept.attempts.disconnected(broker));
        for consumer in self.consumers.values_mut() {
            if consumer.disconnected(broker) {
                let pause = self.routing.pause(consumer.attempts.pauses());
                consumer.attempts.pause(now, pause);
            }
        }
        self.publish(news);
    }

    /// An answer, or a frame of a subscription: both carry the id of what was asked. Or what a broker says unasked.
    pub fn handle_response(&mut self, now: Time, broker: BrokerId, id: RequestId, response: Response) {
        // What is delivered may have lain here for long.
        if !matches!(response, Response::Delivery(_)) {
            self.routing.heard(broker);
        }
        if let Response::Leads(leads) = response {
            if self.routing.told(now, broker, leads) {
                self.give_up(now, leads.leader);
            }
            return self.touch(now);
        }
        self.take_answer(now, broker, id, response);
    }

    /// A request cannot be sent, because every broker would refuse to read it.
    pub fn handle_unsendable(&mut self, now: Time, broker: BrokerId, id: RequestId, refusal: Refusal) {
        self.take_answer(now, broker, id, Response::Refused(refusal));
    }

    fn take_answer(&mut self, now: Time, broker: BrokerId, id: RequestId, response: Response) {
        let Some(owned) = self.owners.get(&id).copied().filter(|owned| owned.broker == broker) else {
            return;
        };
        self.answered(now, id, owned, response);
        self.touch(now);
    }

    /// The stream of a subscription ended without a word.
    pub fn handle_stream_closed(&mut self, now: Time, broker: BrokerId, id: RequestId) {
        let Some(owned) = self.owners.get(&id).copied().filter(|owned| owned.broker == broker) else {
            return;
        };
        if let Owner::Subscription(key) = owned.owner {
            self.subscription_closed(now, key, id);
            self.touch(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        for broker in self.routing.overdue(now) {
            self.give_up(now, broker);
        }
        let mut news = News::default();
        let mut slow = Vec::new();
        for producer in self.producers.values_mut() {
            slow.extend(producer.overdue(now, &mut news));
        }
        let openings = self.openings.values_mut().map(|opening| &mut opening.attempts);
        let questions = self.questions.values_mut().map(|question| &mut question.attempts);
        let kept = self.kept.values_mut().map(|kept| &mut kept.attempts);
        slow.extend(openings.chain(questions).chain(kept).filter_map(|attempts| attempts.give_up(now)));
        self.publish(news);
        slow.into_iter().for_each(|turn| self.routing.too_slow(now, turn));
        self.expire(now);
        self.touch(now);
    }

    /// Ends the openings and questions whose deadline has passed.
    fn expire(&mut self, now: Time) {
        for (producer, opening) in
            self.openings.extract_if(.., |_, opening| opening.attempts.deadline() <= now)
        {
            self.events.push_back(Event::OpenFailed { producer, why: opening.overdue() });
            opening.attempts.ids().for_each(|id| _ = self.owners.remove(&id));
        }
        for (call, question) in self.questions.extract_if(.., |_, asked| asked.attempts.deadline() <= now) {
            let last = question.attempts.last().cloned();
            let may_have_happened = question.changes() && question.attempts.is_open();
            self.events.push_back(if may_have_happened {
                Event::CallUnknown { call, last }
            } else {
                Event::CallFailed { call, why: Failure::DeadlinePassed { last } }
            });
            question.attempts.ids().for_each(|id| _ = self.owners.remove(&id));
        }
    }

    /// The next thing to do, if any. Requests to one broker are sent in this order.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(now) = self.touched.take() {
            self.flush(now);
        }
        self.transmits.pop_front()
    }

    /// The next news, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Session::handle_timeout`], at the latest. [`Time::NEVER`] if nothing is waited for. To be asked when
    /// [`Session::poll_transmit`] has nothing more; it is later then than the moment of the last call of any method.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        self.wake
    }

    /// The brokers of the cluster as far as they are known, in the order of their ids.
    pub fn brokers(&self) -> impl Iterator<Item = Member> {
        self.routing.members()
    }

    /// Which subscription a stream belongs to.
    #[must_use]
    pub fn subscription(&self, id: RequestId) -> Option<SubscriptionKey> {
        match self.owners.get(&id)?.owner {
            Owner::Subscription(key) => Some(key),
            Owner::Opening(_) | Owner::Batch(..) | Owner::Seal(_) | Owner::KeepAlive(_) | Owner::Call(_) => {
                None
            }
        }
    }

    /// Whether a producer has batches without an outcome.
    #[must_use]
    pub fn is_idle(&self, producer: ProducerKey) -> bool {
        self.producers.get(&producer).is_none_or(Producer::is_idle)
    }

    /// The first offset that a subscription has not been given yet.
    #[must_use]
    pub fn position(&self, subscription: SubscriptionKey) -> Option<Offset> {
        self.consumers.get(&subscription).map(Consumer::position)
    }

    pub(super) fn publish(&mut self, news: News) {
        self.events.extend(news.events);
        self.forget(news.forget);
    }

    pub(super) fn forget(&mut self, ids: impl IntoIterator<Item = RequestId>) {
        ids.into_iter().for_each(|id| _ = self.owners.remove(&id));
    }

    /// Something has happened. What follows is looked for once, when everything that happened was handed in.
    fn touch(&mut self, now: Time) {
        self.touched = Some(now);
    }

    fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}
