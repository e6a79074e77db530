//! The task behind a client: owns the session and the connections, and moves bytes, time and news between them.
//!
//! ```text
//!   handles ── commands ──►          ── transmits ──► connections
//!                           Session
//!   callers ◄── events ────          ◄──── news ───── connections
//! ```
//!
//! It decides nothing; the [`Session`] does. Each round takes all that has come, then carries out all that the session
//! wants, then sleeps until the next thing comes or the session's alarm.

use std::{
    collections::BTreeMap,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::AbortHandle,
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::{
    command::{Command, Deliveries, Identity, Opened, Question, Released, Reply},
    config::Config,
    connection::{Dial, FRAMES_MAX, Follow, Lines, LinkError, Network, News},
    core::{self, Call, Event, Failure, ProducerKey, Session, SubscriptionKey, Time, Transmit},
    error::{AppendError, CallError},
    pipeline::{Limits, Pipeline},
    producer::Receipt,
    protocol::{
        self, BrokerId, ClientHello, Context, Request, RequestId, VERSION, frame::encode_request,
        limits::IN_FLIGHT_BATCHES_MAX,
    },
    tail::Delivered,
};

/// News that wait for the driver. At the limit connections are not read. Count.
const NEWS_MAX: usize = 4096;
/// Things taken in one round, of each kind. Count.
const ROUND_MAX: usize = 256;
/// For the brokers to hear that the client closes.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);

/// How the client stands with its cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Whether a broker ever answered.
    pub(crate) connected: bool,
    /// The last thing that went wrong with a connection.
    pub(crate) trouble: Option<Arc<LinkError>>,
}

/// A connection, or the attempt at one. To drop it ends it.
#[derive(Debug)]
struct Link {
    number: u64,
    lines: Option<Lines>,
    task: AbortHandle,
    streams: BTreeMap<RequestId, AbortHandle>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.streams.values().for_each(AbortHandle::abort);
        if let Some(lines) = &self.lines {
            lines.close();
        }
        self.task.abort();
    }
}

#[derive(Debug)]
struct Tailing {
    places: Arc<Semaphore>,
    deliveries: Deliveries,
}

/// Begins the task of a client.
pub(crate) fn start(
    config: &Config,
    network: Network,
    commands: mpsc::Receiver<Command>,
    released: mpsc::UnboundedReceiver<Released>,
    health: watch::Sender<Health>,
) {
    let start = Instant::now();
    // The bounds of a producer are kept by its pipeline; the session's are what a broker remembers.
    let settings = core::Config {
        in_flight_batches: IN_FLIGHT_BATCHES_MAX,
        in_flight_bytes: config.in_flight_bytes.saturating_mul(2),
        ..core::Config::new(config.cluster, config.brokers.clone())
    };
    let (news_out, news) = mpsc::channel(NEWS_MAX);
    let driver = Driver {
        session: Session::new(settings, config.seed(), Time(0)),
        start,
        network: Arc::new(network),
        hello: ClientHello {
            version_min: VERSION,
            version_max: VERSION,
            cluster: config.cluster,
            lineage: None,
            capabilities: 0,
            software: concat!("sequor-client ", env!("CARGO_PKG_VERSION")).into(),
        },
        links: BTreeMap::new(),
        last_link: 0,
        news_out,
        health,
        opening: BTreeMap::new(),
        pipelines: BTreeMap::new(),
        questions: BTreeMap::new(),
        tails: BTreeMap::new(),
        closing: None,
    };
    tokio::spawn(driver.run(commands, released, news));
}

/// Invariants: `links` has an entry for each broker that the session believes connecting or connected; each entry of
/// `opening`, `questions` and `tails` stands for a key whose last event has not come yet.
struct Driver {
    session: Session,
    start: Instant,
    network: Arc<Network>,
    hello: ClientHello,
    links: BTreeMap<BrokerId, Link>,
    last_link: u64,
    news_out: mpsc::Sender<News>,
    health: watch::Sender<Health>,
    opening: BTreeMap<ProducerKey, (Limits, Reply<Opened>)>,
    pipelines: BTreeMap<ProducerKey, Pipeline>,
    questions: BTreeMap<Call, Question>,
    tails: BTreeMap<SubscriptionKey, Tailing>,
    closing: Option<Reply<()>>,
}

impl Driver {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut released: mpsc::UnboundedReceiver<Released>,
        mut news: mpsc::Receiver<News>,
    ) {
        let mut alarm = pin!(sleep_until(self.start));
        let mut orphaned = false;
        while self.closing.is_none() && !(orphaned && self.pipelines.is_empty()) {
            self.settle();
            self.set(alarm.as_mut());
            // In this order, and not by chance: a simulated client does the same from the same seed. Nothing starves,
            // because each kind is taken again below.
            tokio::select! {
                biased;
                Some(news) = news.recv() => self.hear(news),
                command = commands.recv(), if !orphaned => match command {
                    Some(command) => self.obey(command),
                    None => orphaned = true,
                },
                Some(released) = released.recv() => self.release(&released),
                () = &mut alarm => {}
            }
            (1..ROUND_MAX).map_while(|_| news.try_recv().ok()).for_each(|news| self.hear(news));
            (1..ROUND_MAX).map_while(|_| commands.try_recv().ok()).for_each(|command| self.obey(command));
            (1..ROUND_MAX).map_while(|_| released.try_recv().ok()).for_each(|gone| self.release(&gone));
            let now = self.now();
            if self.session.next_timeout() <= now {
                self.session.handle_timeout(now);
            }
        }
        self.close().await;
    }

    fn now(&self) -> Time {
        Time(0).after(self.start.elapsed())
    }

    fn time(&self, at: Instant) -> Time {
        Time(0).after(at.saturating_duration_since(self.start))
    }

    fn set(&self, alarm: Pin<&mut Sleep>) {
        // An hour is as good as never: the alarm is set anew in each round.
        let at = self.session.next_timeout().min(self.now().after(Duration::from_secs(3600)));
        let at = self.start + Duration::from_micros(at.0);
        if alarm.deadline() != at || alarm.is_elapsed() {
            alarm.reset(at);
        }
    }

    async fn close(mut self) {
        self.links.clear();
        for endpoint in self.network.endpoints() {
            // Brokers that are not there do not hear it.
            let _silence = timeout(FAREWELL_TIMEOUT, endpoint.wait_idle()).await;
        }
        if let Some(reply) = self.closing.take() {
            let _gone = reply.send(());
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Open { identity, style, deadline, limits, reply } => {
                let deadline = self.time(deadline);
                let key = match identity {
                    Identity::Name(name) => self.session.open_producer(now, &name, style, deadline),
                    Identity::Session(ttl) => self.session.open_session(now, ttl, style.acks, deadline),
                };
                self.opening.insert(key, (limits, reply));
            }
            Command::Record { producer, record, deadline, reply, room } => {
                let deadline = self.time(deadline);
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    pipeline.record(&record, deadline, reply, room);
                }
            }
            Command::Batch { producer, batch, deadline, reply, room } => {
                let deadline = self.time(deadline);
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    pipeline.batch(batch, deadline, reply, room);
                }
            }
            Command::Flush { producer, reply } => {
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    pipeline.flush(reply);
                }
            }
            Command::Lost { producer, reply } => {
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    let _gone = reply.send(pipeline.take_lost());
                }
            }
            Command::Ask { question, deadline } => self.ask(now, question, deadline),
            Command::Tail { from, places, deliveries, reply } => {
                let key = self.session.subscribe(now, from);
                self.tails.insert(key, Tailing { places, deliveries });
                if reply.send(key).is_err() {
                    self.release(&Released::Tail(key));
                }
            }
            Command::Brokers(reply) => _ = reply.send(self.session.brokers().collect()),
            Command::Close(reply) => self.closing = Some(reply),
        }
    }

    fn ask(&mut self, now: Time, question: Question, deadline: Instant) {
        let deadline = self.time(deadline);
        let call = match &question {
            Question::Lookup(name, _) => self.session.lookup(now, name, deadline),
            Question::End(_) => self.session.end(now, deadline),
            Question::List(list, _) => self.session.list(now, list.clone(), deadline),
            Question::Resolve(resolve, _) => self.session.resolve(now, *resolve, deadline),
            Question::Retire(retire, _) => self.session.retire(now, *retire, deadline),
            Question::Status(broker, _) => self.session.status(now, *broker, deadline),
        };
        self.questions.insert(call, question);
    }

    fn release(&mut self, released: &Released) {
        match released {
            Released::Producer(key) => {
                if let Some(pipeline) = self.pipelines.get_mut(key) {
                    pipeline.release();
                }
            }
            Released::Tail(key) => {
                self.session.unsubscribe(*key);
                self.tails.remove(key);
            }
        }
    }

    /// Takes news of a connection, unless it was given up meanwhile.
    fn hear(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Connected { broker, link, hello, lines } => {
                let Some(link) = self.link(broker, link) else { return };
                link.lines = Some(lines);
                self.session.handle_connected(now, broker, &hello);
            }
            News::Response { broker, link, id, response, mut place } => {
                if self.link(broker, link).is_some() {
                    self.session.handle_response(now, broker, id, response);
                    self.announce(&mut place);
                }
            }
            News::StreamClosed { broker, link, id } => {
                let Some(link) = self.link(broker, link) else { return };
                link.streams.remove(&id);
                self.session.handle_stream_closed(now, broker, id);
            }
            News::Lost { broker, link, why } => {
                if self.link(broker, link).is_some() {
                    tracing::debug!(%broker, error = &why as &dyn std::error::Error, "connection lost");
                    self.lose(broker, why);
                }
            }
        }
    }

    fn link(&mut self, broker: BrokerId, number: u64) -> Option<&mut Link> {
        self.links.get_mut(&broker).filter(|link| link.number == number)
    }

    fn lose(&mut self, broker: BrokerId, why: LinkError) {
        self.links.remove(&broker);
        self.health.send_modify(|health| health.trouble = Some(Arc::new(why)));
        self.session.handle_disconnected(self.now(), broker);
    }

    /// Carries out what the session wants, until it wants nothing more.
    fn settle(&mut self) {
        loop {
            self.announce(&mut None);
            let now = self.now();
            for (key, pipeline) in &mut self.pipelines {
                pipeline.pump(&mut self.session, *key, now);
            }
            let mut done = true;
            while let Some(transmit) = self.session.poll_transmit() {
                self.carry_out(transmit);
                done = false;
            }
            if done {
                break;
            }
        }
        for (key, _) in self.pipelines.extract_if(.., |_, pipeline| pipeline.is_over()) {
            self.session.close_producer(key);
        }
    }

    fn carry_out(&mut self, transmit: Transmit) {
        match transmit {
            Transmit::Connect { broker, address } => self.connect(broker, address),
            Transmit::Disconnect { broker } => _ = self.links.remove(&broker),
            Transmit::Request { broker, id, context, request } => self.send(broker, id, &context, &request),
            Transmit::Subscribe { broker, id, context, subscribe } => {
                self.follow(broker, id, &context, &Request::Subscribe(subscribe));
            }
            Transmit::Unsubscribe { broker, id } => {
                let stream = self.links.get_mut(&broker).and_then(|link| link.streams.remove(&id));
                stream.into_iter().for_each(|stream| stream.abort());
            }
        }
    }

    fn connect(&mut self, broker: BrokerId, address: String) {
        self.last_link += 1;
        let number = self.last_link;
        let (network, hello, news) = (Arc::clone(&self.network), self.hello.clone(), self.news_out.clone());
        let dial = Dial { broker, link: number, address, network, hello, news };
        let task = tokio::spawn(dial.run()).abort_handle();
        self.links.insert(broker, Link { number, lines: None, task, streams: BTreeMap::new() });
    }

    fn send(&mut self, broker: BrokerId, id: RequestId, context: &Context, request: &Request) {
        let now = self.now();
        let frame = match encode_request(id, context, request) {
            Ok(frame) => frame,
            // What a broker would refuse to read is refused here.
            Err(refusal) => {
                return self.session.handle_unsendable(now, broker, id, refusal);
            }
        };
        let Some(lines) = self.links.get(&broker).and_then(|link| link.lines.as_ref()) else { return };
        let is_urgent = matches!(request, Request::Status | Request::KeepAlive(_) | Request::Resolve(_));
        if !lines.send(frame, is_urgent) {
            tracing::debug!(%broker, "{FRAMES_MAX} frames wait for a connection, or it is just over");
            self.lose(broker, LinkError::Ended);
        }
    }

    fn follow(&mut self, broker: BrokerId, id: RequestId, context: &Context, subscribe: &Request) {
        let frame =
            encode_request(id, context, subscribe).expect("a subscription has neither name nor batch");
        let tailing = self.session.subscription(id).and_then(|key| self.tails.get(&key));
        let Some(places) = tailing.map(|tailing| Arc::clone(&tailing.places)) else { return };
        let Some(link) = self.links.get_mut(&broker) else { return };
        let Some(lines) = &link.lines else { return };
        let (source, news) = (lines.source(), self.news_out.clone());
        let follow = Follow { broker, link: link.number, id, subscribe: frame, source, places, news };
        link.streams.insert(id, tokio::spawn(follow.run()).abort_handle());
    }

    /// Hands events to whom they concern. A delivery takes its place along.
    fn announce(&mut self, place: &mut Option<OwnedSemaphorePermit>) {
        while let Some(event) = self.session.poll_event() {
            self.tell(event, place);
        }
    }

    fn tell(&mut self, event: Event, place: &mut Option<OwnedSemaphorePermit>) {
        match event {
            Event::Connected { broker } => {
                tracing::debug!(%broker, "connected");
                self.health.send_modify(|health| health.connected = true);
            }
            Event::Rejected { broker, why } => {
                tracing::warn!(%broker, error = &why as &dyn std::error::Error, "this broker is of no use");
                self.health.send_modify(|health| health.trouble = Some(Arc::new(LinkError::Hello(why))));
            }
            Event::Opened { producer, state } => self.opened(producer, state),
            Event::OpenFailed { producer, why } => {
                if let Some((_, reply)) = self.opening.remove(&producer) {
                    let _gone = reply.send(Err(why.into()));
                }
            }
            Event::Accepted { producer, first, count, offset } => {
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    pipeline.accepted(&Receipt::provisional(first, offset, count));
                }
            }
            Event::Acked { producer, first, count, offset, duplicate, rest } => {
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    let receipt = Receipt::new(first, offset, count, duplicate, rest);
                    pipeline.concluded(first, count, Ok(receipt));
                }
            }
            Event::Known { producer, first, count } => {
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    let last = first.plus(u64::from(count.max(1)) - 1);
                    pipeline.concluded(first, count, Err(AppendError::AlreadyCommitted { first, last }));
                }
            }
            Event::Failed { producer, first, count, why } => {
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    pipeline.concluded(first, count, Err(AppendError::Failed(why)));
                }
            }
            Event::Unknown { producer, first, count, last } => {
                if let Some(pipeline) = self.pipelines.get_mut(&producer) {
                    pipeline.concluded(first, count, Err(AppendError::Unknown { last }));
                }
            }
            Event::Records { subscription, batches, names, end } => {
                if let Some(tailing) = self.tails.get(&subscription) {
                    let delivered = Delivered { batches, names, end, place: place.take() };
                    // A tail that was just dropped is released in a later round.
                    let _gone = tailing.deliveries.send(Ok(delivered));
                }
            }
            Event::SubscriptionEnded { subscription, why } => {
                if let Some(tailing) = self.tails.remove(&subscription) {
                    let _gone = tailing.deliveries.send(Err(why.into()));
                }
            }
            Event::Found { .. }
            | Event::EndIs { .. }
            | Event::StatusIs { .. }
            | Event::Listed { .. }
            | Event::Resolved { .. }
            | Event::Retired { .. }
            | Event::CallUnknown { .. }
            | Event::CallFailed { .. } => self.answer(event),
        }
    }

    fn opened(&mut self, producer: ProducerKey, state: protocol::Producer) {
        let Some((limits, reply)) = self.opening.remove(&producer) else { return };
        let mut pipeline = Pipeline::new(limits);
        if reply.send(Ok((producer, state))).is_err() {
            pipeline.release();
        }
        self.pipelines.insert(producer, pipeline);
    }

    fn answer(&mut self, event: Event) {
        let (Event::Found { call, .. }
        | Event::EndIs { call, .. }
        | Event::StatusIs { call, .. }
        | Event::Listed { call, .. }
        | Event::Resolved { call, .. }
        | Event::Retired { call, .. }
        | Event::CallUnknown { call, .. }
        | Event::CallFailed { call, .. }) = &event
        else {
            return;
        };
        let Some(question) = self.questions.remove(call) else { return };
        // A caller that is gone does not want to know.
        match (question, event) {
            (Question::Lookup(_, reply), Event::Found { state, .. }) => _ = reply.send(Ok(state)),
            (Question::End(reply), Event::EndIs { end, .. }) => _ = reply.send(Ok(end)),
            (Question::Status(_, reply), Event::StatusIs { status, .. }) => _ = reply.send(Ok(status)),
            (Question::List(_, reply), Event::Listed { listed, .. }) => _ = reply.send(Ok(listed)),
            (Question::Resolve(_, reply), Event::Resolved { resolved, .. }) => _ = reply.send(Ok(resolved)),
            (Question::Retire(_, reply), Event::Retired { retired, .. }) => _ = reply.send(Ok(retired)),
            (question, Event::CallUnknown { last, .. }) => question.fail(CallError::Unknown { last }),
            (question, Event::CallFailed { why, .. }) => question.fail(self.why(why)),
            (question, _) => question.fail(self.why(Failure::DeadlinePassed { last: None })),
        }
    }

    fn why(&self, failure: Failure) -> CallError {
        match failure {
            Failure::Refused(refusal) => CallError::Refused(refusal),
            Failure::NoSuchBroker { broker } => CallError::NoSuchBroker { broker },
            Failure::DeadlinePassed { last } => {
                CallError::Unanswered { last, source: self.health.borrow().trouble.clone() }
            }
            Failure::Abandoned => CallError::Unanswered { last: None, source: None },
        }
    }
}
