//! One running broker, as the tasks of its thread share it: the core, and how to reach it, its clients and its peers.
//!
//! Everything here lives on one thread. A task that has something for the core hands it over directly and rings; the
//! driver (`driver.rs`) wakes when all tasks that had something to say have said it, and makes one pass for all of
//! them. No borrow of the core is ever held across a wait.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::{Connection, Endpoint};
use sequor_client::protocol::{
    BrokerId, Context, Delivery, Incarnation, Leads, Offset, Refusal, Request, RequestId, Response,
    ServerHello, StreamKind,
};
use tokio::sync::{Notify, oneshot, watch};

use super::{
    counted_socket::CountedSocket,
    exchange::{Budget, Exchange},
    limits::TOTAL_IN_FLIGHT_BYTES_MAX,
    peer_link::PeerLink,
    pins::{PinError, Pins},
    tls::Tls,
};
use crate::core::{
    Caller, Core, PeerHello, PeerMessage, Reply, SessionId, Subscription, Traffic, time::Time,
};

/// What a subscription waits for: a change of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// End of what may be delivered.
    pub(super) end: Offset,
    /// Whether this broker may deliver it.
    pub(super) leads: bool,
}

/// Where answers to a session's requests go.
pub(super) enum Mailbox {
    /// To a stream of requests of this kind.
    Exchange(StreamKind, Rc<Exchange>),
    /// To a task that asked one question.
    Once(oneshot::Sender<Response>),
}

/// How to reach the network. Fixed for the life of the process.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) endpoint: Endpoint,
    /// What the endpoint sends and receives through.
    pub(super) socket: Arc<CountedSocket>,
    pub(super) listens_on: SocketAddr,
    pub(super) tls: Tls,
    /// For links to peers.
    pub(super) peer_config: quinn::ClientConfig,
    pub(super) clients_max: usize,
}

/// A running broker. See the file's header.
pub(super) struct Broker {
    core: RefCell<Core>,
    started: Instant,
    life: u64,
    bell: Notify,
    progress: watch::Sender<Progress>,
    mailboxes: RefCell<HashMap<SessionId, Mailbox>>,
    sessions: Cell<u64>,
    requests: Rc<Budget>,
    controls: Rc<Budget>,
    pins: RefCell<Pins>,
    inbound: RefCell<BTreeMap<BrokerId, Connection>>,
    links: BTreeMap<BrokerId, Rc<PeerLink>>,
    network: Network,
    stopping: Cell<bool>,
    panicked: Cell<bool>,
    /// Handshakes under way.
    pub(super) handshakes: Gauge,
    /// Clients connected.
    pub(super) clients: Gauge,
}

impl Broker {
    /// A broker whose core was made at `started`, time 0 of its clock. Peers know the process by its `life`.
    pub(super) fn new(
        core: Core,
        started: Instant,
        life: u64,
        pins: Pins,
        links: BTreeMap<BrokerId, Rc<PeerLink>>,
        network: Network,
    ) -> Rc<Self> {
        Rc::new(Self {
            core: RefCell::new(core),
            started,
            life,
            bell: Notify::new(),
            progress: watch::Sender::default(),
            mailboxes: RefCell::default(),
            sessions: Cell::new(0),
            requests: Budget::new(TOTAL_IN_FLIGHT_BYTES_MAX),
            controls: Budget::new(usize::MAX),
            pins: RefCell::new(pins),
            inbound: RefCell::default(),
            links,
            network,
            stopping: Cell::new(false),
            panicked: Cell::new(false),
            handshakes: Gauge::default(),
            clients: Gauge::default(),
        })
    }

    /// Runs a task beside the others. If it panics, the broker stops: a core that was left in the middle of something
    /// must not go on.
    pub(super) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let fuse = Fuse(Rc::clone(self));
        tokio::task::spawn_local(async move {
            let _fuse = fuse;
            task.await;
        });
    }

    /// The core, for the driver alone, which gives it back before it waits.
    pub(super) fn core(&self) -> std::cell::RefMut<'_, Core> {
        self.core.borrow_mut()
    }

    /// Has the disk finish what is under way: the threads that it runs in are about to be waited for.
    pub(super) fn hasten(&self) {
        // A core that somebody was just working with, who panicked, can be told nothing more.
        if let Ok(core) = self.core.try_borrow() {
            core.hasten();
        }
    }

    /// Now, on the core's clock.
    pub(super) fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_micros()).expect("half a million years of uptime"))
    }

    /// A moment of the core's clock on the machine's.
    pub(super) fn instant(&self, time: Time) -> Instant {
        self.started + Duration::from_micros(time.0)
    }

    /// Waits until somebody has rung.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes a client's request to the core.
    pub(super) fn handle_request(&self, caller: Caller, context: &Context, request: Request) {
        self.core().handle_request(self.now(), caller, context, request);
        self.bell.notify_one();
    }

    /// Takes a peer's message to the core.
    pub(super) fn handle_peer(&self, peer: BrokerId, message: PeerMessage) {
        self.core().handle_peer(self.now(), peer, message);
        self.bell.notify_one();
    }

    /// Tells the core that messages to this peer were lost.
    pub(super) fn handle_peer_lost(&self, peer: BrokerId) {
        self.core().handle_peer_lost(peer);
        self.bell.notify_one();
    }

    /// Asks the core one question and waits for its answer.
    pub(super) async fn ask(self: &Rc<Self>, context: &Context, request: Request) -> Response {
        let (answer, answered) = oneshot::channel();
        let mailbox = self.register(Mailbox::Once(answer));
        let caller = Caller { session: mailbox.session(), id: RequestId::NONE };
        self.handle_request(caller, context, request);
        answered.await.unwrap_or(Response::Refused(Refusal::OutcomeUnknown))
    }

    /// The next piece of the log for a subscription.
    pub(super) fn deliver(
        &self,
        subscription: &mut Subscription,
        bytes_max: usize,
    ) -> Result<Option<Delivery>, Refusal> {
        let delivery = self.core().deliver(subscription, bytes_max);
        if delivery.is_err() {
            // The core may have halted over what it read; the driver looks.
            self.bell.notify_one();
        }
        delivery
    }

    /// To wait on for the next piece.
    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Wakes the subscriptions if there is something new for them.
    pub(super) fn set_progress(&self, progress: Progress) {
        self.progress.send_if_modified(|known| std::mem::replace(known, progress) != progress);
    }

    /// Brings an answer to who asked. Whoever has left is not looked for.
    pub(super) fn hand_out(&self, reply: Reply) {
        let Caller { session, id } = reply.caller;
        let mut mailboxes = self.mailboxes.borrow_mut();
        match mailboxes.get(&session) {
            Some(Mailbox::Exchange(_, exchange)) => exchange.answer(id, &reply.response),
            Some(Mailbox::Once(_)) => {
                if let Some(Mailbox::Once(asker)) = mailboxes.remove(&session) {
                    let _left = asker.send(reply.response);
                }
            }
            None => {}
        }
    }

    /// Tells everybody who is connected who leads.
    pub(super) fn announce(&self, leads: Leads) {
        let leads = Response::Leads(leads);
        for mailbox in self.mailboxes.borrow().values() {
            if let Mailbox::Exchange(StreamKind::Control, exchange) = mailbox {
                exchange.say(&leads);
            }
        }
    }

    /// Opens a mailbox under a session of its own. It closes when the registration is dropped.
    pub(super) fn register(self: &Rc<Self>, mailbox: Mailbox) -> Registration {
        let session = SessionId(self.sessions.get());
        self.sessions.set(session.0 + 1);
        self.mailboxes.borrow_mut().insert(session, mailbox);
        Registration { broker: Rc::clone(self), session }
    }

    /// Whether no answer waits to be written.
    pub(super) fn has_answered_all(&self) -> bool {
        self.mailboxes.borrow().values().all(|mailbox| match mailbox {
            Mailbox::Exchange(_, exchange) => exchange.is_written(),
            Mailbox::Once(_) => true,
        })
    }

    /// What the requests of a stream count against. The small and urgent ones never wait for the large.
    pub(super) fn budget(&self, kind: StreamKind) -> Rc<Budget> {
        Rc::clone(if kind == StreamKind::Control { &self.controls } else { &self.requests })
    }

    /// How this broker greets clients.
    pub(super) fn hello(&self) -> ServerHello {
        self.core().hello()
    }

    /// How this broker greets peers.
    pub(super) fn peer_hello(&self) -> PeerHello {
        self.core().peer_hello(self.life)
    }

    /// Lets a peer in under the incarnation it is known by.
    pub(super) fn check_pin(&self, peer: BrokerId, incarnation: Incarnation) -> Result<(), PinError> {
        self.pins.borrow_mut().check(peer, incarnation)
    }

    /// Notes the connection that a peer opened; gives back the one it had before.
    pub(super) fn replace_inbound(&self, peer: BrokerId, connection: Connection) -> Option<Connection> {
        self.inbound.borrow_mut().insert(peer, connection)
    }

    /// The ways to the peers.
    pub(super) fn links(&self) -> &BTreeMap<BrokerId, Rc<PeerLink>> {
        &self.links
    }

    /// The socket.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.network.endpoint
    }

    /// What has passed the socket.
    pub(super) fn traffic(&self) -> Traffic {
        self.network.socket.traffic()
    }

    /// The socket's own address.
    pub(super) fn listens_on(&self) -> SocketAddr {
        self.network.listens_on
    }

    /// Certificates, own and others'.
    pub(super) fn tls(&self) -> &Tls {
        &self.network.tls
    }

    /// For links to peers.
    pub(super) fn peer_config(&self) -> quinn::ClientConfig {
        self.network.peer_config.clone()
    }

    /// Clients that may be connected at once.
    pub(super) fn clients_max(&self) -> usize {
        self.network.clients_max
    }

    /// Whether this broker lets nobody in any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// From now on nobody is let in.
    pub(super) fn close_door(&self) {
        self.stopping.set(true);
    }

    /// Whether a task panicked.
    pub(super) fn has_panicked(&self) -> bool {
        self.panicked.get()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("network", &self.network).finish_non_exhaustive()
    }
}

/// An open mailbox.
#[derive(Debug)]
pub(super) struct Registration {
    broker: Rc<Broker>,
    session: SessionId,
}

impl Registration {
    pub(super) fn session(&self) -> SessionId {
        self.session
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.broker.mailboxes.borrow_mut().remove(&self.session);
    }
}

/// How many are inside.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(Rc<Cell<usize>>);

/// One that is inside, until it is dropped.
#[derive(Debug)]
pub(super) struct Inside(Gauge);

impl Gauge {
    pub(super) fn count(&self) -> usize {
        self.0.get()
    }

    pub(super) fn enter(&self) -> Inside {
        self.0.set(self.0.get() + 1);
        Inside(self.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let gauge = &self.0.0;
        gauge.set(gauge.get() - 1);
    }
}

/// Notices that its task panicked.
struct Fuse(Rc<Broker>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.set(true);
            self.0.bell.notify_one();
        }
    }
}
