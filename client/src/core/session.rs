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
    AppendRefused, Call, Event, Failure, ProducerKey, SubscriptionKey, Time, Transmit,
    attempts::Attempts,
    consumer::Consumer,
    opening::{Opening, Progress},
    producer::{Bounds, News, Producer},
    routing::{Backoff, Route, Routing},
};
use crate::protocol::{
    BrokerId, Class, ClusterId, Context, Feature, Field, HighWater, Instance, Lineage, Lookup, Member,
    Offset, Refusal, Request, RequestId, Response, Sequence, ServerHello, Subscribe, VERSION,
    batch::BatchBuilder,
    limits::{DEADLINE_MS_MAX, IN_FLIGHT_BATCHES_MAX},
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
enum Owner {
    Opening(ProducerKey),
    Batch(ProducerKey, Sequence),
    Call(Call),
    Subscription(SubscriptionKey),
}

#[derive(Clone, Copy, Debug)]
struct Owned {
    owner: Owner,
    broker: BrokerId,
    /// 0 for what was not sent to the target of the routing.
    turn: u64,
    sent_at: Time,
}

#[derive(Debug)]
struct Question {
    /// Whom to ask; none for whoever leads.
    broker: Option<BrokerId>,
    request: Request,
    attempts: Attempts,
}

/// One client of one cluster.
///
/// Invariants: an id in `owners` is an attempt whose answer matters to its owner; every command that returns a key is
/// followed by exactly one final event for it (a batch: `Acked`, `Failed` or `Unknown`), unless the caller gives the
/// key up first.
#[derive(Debug)]
pub struct Session {
    config: Config,
    rng: ChaCha8Rng,
    routing: Routing,
    lineage: Option<Lineage>,
    seen: Option<HighWater>,
    openings: BTreeMap<ProducerKey, Opening>,
    producers: BTreeMap<ProducerKey, Producer>,
    questions: BTreeMap<Call, Question>,
    consumers: BTreeMap<SubscriptionKey, Consumer>,
    owners: BTreeMap<RequestId, Owned>,
    last_id: u64,
    last_key: u64,
    wake: Time,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
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
            questions: BTreeMap::new(),
            consumers: BTreeMap::new(),
            owners: BTreeMap::new(),
            last_id: 0,
            last_key: 0,
            wake: now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        session.flush(now);
        session
    }

    /// Takes the name of a producer. Ends with [`Event::Opened`] or [`Event::OpenFailed`].
    pub fn open_producer(&mut self, now: Time, name: &str, deadline: Time) -> ProducerKey {
        let key = ProducerKey(self.next_key());
        let instance = Instance(self.rng.random());
        self.openings.insert(key, Opening::new(name.to_owned(), instance, deadline));
        self.flush(now);
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
        let first = open.append(batch, deadline);
        self.flush(now);
        Ok(first)
    }

    /// Gives a producer up, with whatever is in flight: no further event speaks of it.
    pub fn close_producer(&mut self, producer: ProducerKey) {
        let opening = self.openings.remove(&producer);
        let open = self.producers.remove(&producer);
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
        self.flush(now);
        call
    }

    /// Follows the log from an offset on, for as long as it is not given up: [`Event::Records`], and at last perhaps
    /// [`Event::SubscriptionEnded`].
    pub fn subscribe(&mut self, now: Time, from: Offset) -> SubscriptionKey {
        let key = SubscriptionKey(self.next_key());
        self.consumers.insert(key, Consumer::new(from));
        self.flush(now);
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
        self.flush(now);
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
        self.flush(now);
    }

    /// Nothing that was sent to this broker will be answered any more.
    fn lose(&mut self, now: Time, broker: BrokerId) {
        self.owners.retain(|_, owned| owned.broker != broker);
        let mut news = News::default();
        self.producers.values_mut().for_each(|producer| producer.disconnected(broker, &mut news));
        self.openings.values_mut().for_each(|opening| opening.attempts.disconnected(broker));
        self.questions.values_mut().for_each(|question| question.attempts.disconnected(broker));
        for consumer in self.consumers.values_mut() {
            if consumer.disconnected(broker) {
                let pause = self.routing.pause(consumer.attempts.pauses());
                consumer.attempts.pause(now, pause);
            }
        }
        self.publish(news);
    }

    /// An answer, or a frame of a subscription: both carry the id of what was asked.
    pub fn handle_response(&mut self, now: Time, broker: BrokerId, id: RequestId, response: Response) {
        let Some(owned) = self.owners.get(&id).copied().filter(|owned| owned.broker == broker) else {
            return;
        };
        self.routing.heard(broker);
        self.learn(now, owned, &response);
        match owned.owner {
            Owner::Opening(key) => self.opening_answered(now, key, id, response),
            Owner::Batch(key, first) => {
                self.owners.remove(&id);
                self.routing.took(owned.sent_at.until(now));
                let mut news = News::default();
                if let Some(producer) = self.producers.get_mut(&key) {
                    let routing = &mut self.routing;
                    producer.answered(now, first, id, response, |n| routing.pause(n), &mut news);
                }
                self.publish(news);
            }
            Owner::Call(call) => self.question_answered(now, call, id, response),
            Owner::Subscription(key) => self.subscription_answered(now, key, owned, id, response),
        }
        self.flush(now);
    }

    /// The stream of a subscription ended without a word.
    pub fn handle_stream_closed(&mut self, now: Time, broker: BrokerId, id: RequestId) {
        let Some(owned) = self.owners.get(&id).copied().filter(|owned| owned.broker == broker) else {
            return;
        };
        if let Owner::Subscription(key) = owned.owner {
            self.subscription_closed(now, key, id);
            self.flush(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        for broker in self.routing.overdue(now) {
            self.transmits.push_back(Transmit::Disconnect { broker });
            self.lose(now, broker);
        }
        let mut news = News::default();
        let mut slow = Vec::new();
        for producer in self.producers.values_mut() {
            slow.extend(producer.overdue(now, &mut news));
        }
        let openings = self.openings.values_mut().map(|opening| &mut opening.attempts);
        let questions = self.questions.values_mut().map(|question| &mut question.attempts);
        slow.extend(openings.chain(questions).filter_map(|attempts| attempts.give_up(now)));
        self.publish(news);
        slow.into_iter().for_each(|turn| self.routing.too_slow(now, turn));
        self.expire(now);
        self.flush(now);
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
            self.events.push_back(Event::CallFailed { call, why: Failure::DeadlinePassed { last } });
            question.attempts.ids().for_each(|id| _ = self.owners.remove(&id));
        }
    }

    /// The next thing to do, if any. Requests to one broker are sent in this order.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next news, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Session::handle_timeout`], at the latest. [`Time::NEVER`] if nothing is waited for. Later than
    /// the moment of the last call of any other method.
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
            Owner::Opening(_) | Owner::Batch(..) | Owner::Call(_) => None,
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

    /// What an answer says about where to send, and about how far the log is.
    fn learn(&mut self, now: Time, owned: Owned, response: &Response) {
        match response {
            Response::Refused(Refusal::NotLeader { leader }) => {
                self.routing.turn_away(now, owned.turn, *leader);
            }
            Response::Refused(refusal) => match refusal.class() {
                Class::Elsewhere | Class::Unknown => self.routing.turn_away(now, owned.turn, None),
                Class::Later => {}
                Class::Final => self.routing.confirm(owned.turn),
            },
            Response::Appended(appended) => self.saw(owned.broker, appended.end),
            Response::End(end) => self.saw(owned.broker, end.end),
            _ => self.routing.succeeded(owned.broker),
        }
    }

    fn saw(&mut self, broker: BrokerId, end: Offset) {
        self.routing.succeeded(broker);
        let Some(lineage) = self.lineage else { return };
        let seen = self.seen.get_or_insert(HighWater { lineage, ..HighWater::default() });
        seen.end = seen.end.max(end);
    }

    fn opening_answered(&mut self, now: Time, key: ProducerKey, id: RequestId, response: Response) {
        self.owners.remove(&id);
        let Some(opening) = self.openings.get_mut(&key) else { return };
        match opening.answered(id, response) {
            Progress::Goes { pause: false } => {}
            Progress::Goes { pause: true } => {
                let pause = self.routing.pause(opening.attempts.pauses());
                opening.attempts.pause(now, pause);
            }
            Progress::Opened(state) => {
                self.end_opening(key);
                self.producers.insert(key, Producer::new(key, &state));
                self.events.push_back(Event::Opened { producer: key, state });
            }
            Progress::Failed(why) => {
                self.end_opening(key);
                self.events.push_back(Event::OpenFailed { producer: key, why });
            }
        }
    }

    fn end_opening(&mut self, key: ProducerKey) {
        let ids = self.openings.remove(&key).map(|opening| opening.attempts.ids().collect::<Vec<_>>());
        self.forget(ids.into_iter().flatten());
    }

    fn question_answered(&mut self, now: Time, call: Call, id: RequestId, response: Response) {
        self.owners.remove(&id);
        let Some(question) = self.questions.get_mut(&call) else { return };
        question.attempts.close(id);
        let event = match response {
            Response::Found(state) => Event::Found { call, state: Some(state) },
            Response::Refused(Refusal::UnknownProducer) => Event::Found { call, state: None },
            Response::End(end) => Event::EndIs { call, end },
            Response::Status(status) => Event::StatusIs { call, status },
            Response::Refused(refusal) if refusal.class() == Class::Final => {
                Event::CallFailed { call, why: Failure::Refused(refusal) }
            }
            Response::Refused(refusal) => {
                let pause = self.routing.pause(question.attempts.pauses());
                if refusal.class() == Class::Later || question.broker.is_some() {
                    question.attempts.pause(now, pause);
                }
                return question.attempts.refused(refusal);
            }
            _ => {
                let pause = self.routing.pause(question.attempts.pauses());
                return question.attempts.pause(now, pause);
            }
        };
        let ids: Vec<_> = question.attempts.ids().collect();
        self.questions.remove(&call);
        self.forget(ids);
        self.events.push_back(event);
    }

    fn subscription_answered(
        &mut self,
        now: Time,
        subscription: SubscriptionKey,
        owned: Owned,
        id: RequestId,
        response: Response,
    ) {
        let Some(consumer) = self.consumers.get_mut(&subscription) else { return };
        match response {
            Response::Delivery(delivery) => {
                let (names, end) = (delivery.names.clone(), delivery.end);
                if let Ok(batches) = consumer.delivered(delivery) {
                    self.events.push_back(Event::Records { subscription, batches, names, end });
                } else {
                    self.transmits.push_back(Transmit::Unsubscribe { broker: owned.broker, id });
                    self.subscription_closed(now, subscription, id);
                }
            }
            Response::Refused(refusal) if refusal.class() == Class::Final => {
                self.owners.remove(&id);
                self.consumers.remove(&subscription);
                self.events.push_back(Event::SubscriptionEnded { subscription, why: refusal });
            }
            Response::End(_) => {} // the broker agrees: deliveries follow
            _ => self.subscription_closed(now, subscription, id),
        }
    }

    fn subscription_closed(&mut self, now: Time, subscription: SubscriptionKey, id: RequestId) {
        self.owners.remove(&id);
        if let Some(consumer) = self.consumers.get_mut(&subscription)
            && consumer.closed(id)
        {
            let pause = self.routing.pause(consumer.attempts.pauses());
            consumer.attempts.pause(now, pause);
        }
    }

    /// Sends whatever may be sent now, and sets the alarm for the rest.
    fn flush(&mut self, now: Time) {
        self.flush_questions_to_one(now);
        if let Some(route) = self.routing.route(now, &mut self.transmits) {
            self.flush_openings(now, route);
            self.flush_questions(now, route);
            self.flush_producers(now, route);
            self.flush_subscriptions(now, route);
        }
        self.wake = self.next_wake(now);
    }

    fn next_wake(&self, now: Time) -> Time {
        let wanted: Vec<_> = self.questions.values().filter_map(|question| question.broker).collect();
        let attempts = (self.openings.values().map(|opening| &opening.attempts))
            .chain(self.questions.values().map(|question| &question.attempts))
            .chain(self.consumers.values().map(|consumer| &consumer.attempts));
        let attempts = attempts.map(|attempts| attempts.wake(now)).min().unwrap_or(Time::NEVER);
        let producers = self.producers.values().map(Producer::wake).min().unwrap_or(Time::NEVER);
        self.routing.wake(now, &wanted).min(attempts).min(producers)
    }

    fn flush_openings(&mut self, now: Time, route: Route) {
        let due = |opening: &Opening| opening.attempts.is_due(now, route.turn);
        for key in keys(&self.openings, due) {
            let opening = &self.openings[&key];
            let (request, deadline) = (opening.request(), opening.attempts.deadline());
            let id = self.send(now, route, Owner::Opening(key), request, deadline);
            let give_up_at = self.give_up_at(now);
            if let Some(opening) = self.openings.get_mut(&key) {
                opening.attempts.sent(id, route, give_up_at);
            }
        }
    }

    fn flush_questions(&mut self, now: Time, route: Route) {
        let due = |asked: &Question| asked.broker.is_none() && asked.attempts.is_due(now, route.turn);
        for call in keys(&self.questions, due) {
            self.send_question(now, route, call);
        }
    }

    /// What is asked of one broker has a route of its own, without turns.
    fn flush_questions_to_one(&mut self, now: Time) {
        let due = |asked: &Question| asked.broker.is_some() && asked.attempts.is_due(now, 0);
        for call in keys(&self.questions, due) {
            if let Some(broker) = self.questions[&call].broker
                && self.routing.link(now, broker, &mut self.transmits)
            {
                self.send_question(now, Route { broker, turn: 0 }, call);
            }
        }
    }

    fn send_question(&mut self, now: Time, route: Route, call: Call) {
        let question = &self.questions[&call];
        let (request, deadline) = (question.request.clone(), question.attempts.deadline());
        let id = self.send(now, route, Owner::Call(call), request, deadline);
        let give_up_at = self.give_up_at(now);
        if let Some(question) = self.questions.get_mut(&call) {
            question.attempts.sent(id, route, give_up_at);
        }
    }

    fn flush_producers(&mut self, now: Time, route: Route) {
        let give_up_at = self.give_up_at(now);
        let mut producers = std::mem::take(&mut self.producers);
        for (key, producer) in &mut producers {
            while let Some((request, deadline)) = producer.next_to_send(now, route.turn) {
                if !self.routing.is_confirmed() && producer.has_scout(route.turn) {
                    break;
                }
                let id = RequestId(self.last_id + 1);
                let first = producer.sent(id, route, give_up_at);
                let sent = self.send(now, route, Owner::Batch(*key, first), request, deadline);
                assert_eq!(sent, id, "ids are given in order");
            }
        }
        self.producers = producers;
    }

    fn flush_subscriptions(&mut self, now: Time, route: Route) {
        if self.routing.is_confirmed() {
            self.leave_former_leaders(now, route.broker);
        }
        for key in keys(&self.consumers, |consumer| consumer.wants_stream(now, route.turn)) {
            let id = self.own(now, route, Owner::Subscription(key));
            let context = self.context(now, Time::NEVER);
            if let Some(consumer) = self.consumers.get_mut(&key) {
                consumer.opened(id, route.broker);
                let subscribe = Subscribe { from: consumer.position() };
                let broker = route.broker;
                self.transmits.push_back(Transmit::Subscribe { broker, id, context, subscribe });
            }
        }
    }

    /// Streams of others than the leader are given up: one that is dead may take long to be known as such.
    fn leave_former_leaders(&mut self, now: Time, leader: BrokerId) {
        let streams = self.consumers.iter().filter_map(|(key, consumer)| Some((*key, consumer.stream()?)));
        let left: Vec<_> = streams.filter(|(_, (_, broker))| *broker != leader).collect();
        for (key, (id, broker)) in left {
            self.transmits.push_back(Transmit::Unsubscribe { broker, id });
            self.subscription_closed(now, key, id);
        }
    }

    fn send(&mut self, now: Time, route: Route, owner: Owner, request: Request, deadline: Time) -> RequestId {
        let id = self.own(now, route, owner);
        let (broker, context) = (route.broker, self.context(now, deadline));
        self.transmits.push_back(Transmit::Request { broker, id, context, request });
        id
    }

    fn own(&mut self, now: Time, route: Route, owner: Owner) -> RequestId {
        self.last_id += 1;
        let id = RequestId(self.last_id);
        let owned = Owned { owner, broker: route.broker, turn: route.turn, sent_at: now };
        self.owners.insert(id, owned);
        id
    }

    fn give_up_at(&self, now: Time) -> Time {
        now.after(self.routing.patience(self.config.attempt_timeout))
    }

    fn context(&self, now: Time, deadline: Time) -> Context {
        let left = u32::try_from(now.until(deadline).as_millis()).unwrap_or(u32::MAX);
        Context { deadline_ms: left.clamp(1, DEADLINE_MS_MAX), seen: self.seen, ..Context::default() }
    }

    fn publish(&mut self, news: News) {
        self.events.extend(news.events);
        self.forget(news.forget);
    }

    fn forget(&mut self, ids: impl IntoIterator<Item = RequestId>) {
        ids.into_iter().for_each(|id| _ = self.owners.remove(&id));
    }

    fn next_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }
}

/// The keys of what meets a condition.
fn keys<K: Copy + Ord, V>(map: &BTreeMap<K, V>, meets: impl Fn(&V) -> bool) -> Vec<K> {
    map.iter().filter(|(_, value)| meets(value)).map(|(key, _)| *key).collect()
}
