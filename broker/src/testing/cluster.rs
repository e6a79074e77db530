//! An embedded cluster: its brokers, what may be done to them, and what they say.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sequor_client::{
    protocol::{BrokerId, Status},
    transport,
};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    board::{self, Board, State, States},
    builder::{Builder, Plan},
    error::ClusterError,
    network::Network,
    seat::{End, Seat, Start},
};
use crate::{config::Config, setup::ClusterDir};

/// Longest wait for all threads to end when a cluster is dropped. One that is still busy then, with a disk that does
/// not answer, is left alone.
const DROP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a thread that has said how it ended.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A whole cluster in this process. The [module](super) says what it is, and has an example.
///
/// All methods take `&self`, so that something can happen to the cluster while something else appends. They must be
/// called in a tokio runtime, of either flavour, with time enabled. To drop a cluster kills what runs of it, waits for
/// its threads, and removes its files, unless they are in a directory that was named.
///
/// # Invariants
///
/// - A data directory is in the hands of one thread at a time: a broker is started again only when the thread that it
///   had has ended.
/// - No port is given up while its broker is down, so that nobody else's client or cluster takes it.
#[derive(Debug)]
pub struct Cluster {
    seats: Mutex<BTreeMap<BrokerId, Slot>>,
    configs: BTreeMap<BrokerId, Config>,
    network: Arc<Network>,
    board: Arc<Board>,
    dir: ClusterDir,
    client: sequor_client::Config,
    deadline: Duration,
    /// Dropped after the threads have ended.
    _temporary: Option<TempDir>,
}

/// Where a broker is, or may be again.
#[derive(Debug)]
enum Slot {
    /// It has a thread, which may have ended by itself.
    Taken(Seat),
    /// It has none, and here is what keeps its port, if that could be had.
    Free { _port: Option<UdpSocket> },
}

impl Cluster {
    /// A cluster of so many brokers in a temporary directory, on free ports of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// See [`Builder::start`].
    pub async fn start(brokers: u64) -> Result<Self, ClusterError> {
        Self::builder().brokers(brokers).start().await
    }

    /// A cluster that is to be otherwise.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) async fn run(plan: Plan) -> Result<Self, ClusterError> {
        let Plan { temporary, dir, configs, sockets, client, deadline } = plan;
        let cluster = Self {
            seats: Mutex::default(),
            configs: configs.into_iter().collect(),
            network: Arc::new(Network::new(dir.brokers())),
            board: Arc::default(),
            dir,
            client,
            deadline,
            _temporary: temporary,
        };
        let mut sockets = sockets.into_iter();
        for id in cluster.configs.keys() {
            let seat = cluster.seat(*id, sockets.next())?;
            cluster.seats().insert(*id, Slot::Taken(seat));
        }
        cluster.serving(&cluster.brokers()).await?;
        Ok(cluster)
    }

    /// With which a client reaches this cluster. Its deadline and limits may be changed.
    #[must_use]
    pub fn client_config(&self) -> sequor_client::Config {
        self.client.clone()
    }

    /// The ids of all brokers, running or not, ascending from 1.
    #[must_use]
    pub fn brokers(&self) -> Vec<BrokerId> {
        self.configs.keys().copied().collect()
    }

    /// Where its files are, among them `context.toml`, with which the command `sequor` reaches it as well.
    #[must_use]
    pub fn dir(&self) -> &ClusterDir {
        &self.dir
    }

    /// What a broker said of itself after its last pass; none while it is down or reads its log. Asks nothing over the
    /// network.
    #[must_use]
    pub fn status(&self, id: BrokerId) -> Option<Status> {
        match self.board.state(id) {
            Some(State::Serving(status)) => Some(status),
            _ => None,
        }
    }

    /// Waits for a broker that leads and that a majority follows: neither one that is paused, nor one that a
    /// partition has cut off and that has not noticed yet.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Deadline`], or [`ClusterError::Broker`] when a broker has ended by itself.
    pub async fn leader(&self) -> Result<BrokerId, ClusterError> {
        self.find("a leader", |statuses| {
            let awake = statuses.iter().filter(|(id, _)| !self.is_paused(**id));
            let awake = awake.map(|(id, status)| (*id, status.clone())).collect();
            board::leader(&awake, self.configs.len(), |one, other| self.network.connects(one, other))
        })
        .await
    }

    /// Waits until what the brokers say of themselves fulfils a condition, such as that one of them has applied the
    /// log up to some offset. `what` names the condition in the error.
    ///
    /// # Errors
    ///
    /// As [`Cluster::leader`].
    pub async fn wait_until(
        &self,
        what: &str,
        mut condition: impl FnMut(&BTreeMap<BrokerId, Status>) -> bool,
    ) -> Result<(), ClusterError> {
        self.find(what, |statuses| condition(statuses).then_some(())).await
    }

    /// Waits, without a deadline, for a broker to end although nobody told it to, and says which and why.
    pub async fn failure(&self) -> ClusterError {
        let mut states = self.board.watch();
        loop {
            let failure = board::failure(&states.borrow_and_update());
            if let Some((id, source)) = failure {
                return ClusterError::Broker { id, source };
            }
            states.changed().await.expect("the board is this cluster's own");
        }
    }

    /// Ends a broker in the middle of whatever it does, as SIGKILL does: it says goodbye to nobody and writes nothing
    /// more; only what its disk is doing at that moment is done. One that is down already stays down.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`]; [`ClusterError::Broker`] if it had ended by itself before;
    /// [`ClusterError::Deadline`].
    pub async fn kill(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.end(id, End::Die).await
    }

    /// Ends a broker as SIGTERM does: it hands leadership over, answers what it can, syncs, and says goodbye. One that
    /// is down already stays down.
    ///
    /// # Errors
    ///
    /// As [`Cluster::kill`].
    pub async fn terminate(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.end(id, End::Stop).await
    }

    /// Starts a broker that is down, on its directory and its port, and waits until it has read its log.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`]; [`ClusterError::Running`]; [`ClusterError::Broker`] if it does not start.
    pub async fn restart(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.clear(id)?;
        {
            let mut seats = self.seats();
            let slot = seats.get_mut(&id).ok_or_else(|| self.no_such_broker(id))?;
            if matches!(slot, Slot::Taken(_)) {
                return Err(ClusterError::Running { id });
            }
            *slot = Slot::Free { _port: None };
            let address = self.configs[&id].listen;
            let socket = transport::socket(address);
            let socket = socket.map_err(|source| ClusterError::Listen { address, source })?;
            *slot = Slot::Taken(self.seat(id, Some(socket))?);
        }
        self.serving(&[id]).await
    }

    /// Lets a broker stand still, as SIGSTOP does, and waits until it does: its thread blocks. What is sent to it waits
    /// in its socket as long as there is room.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`], [`ClusterError::NotRunning`] or [`ClusterError::Deadline`].
    pub async fn pause(&self, id: BrokerId) -> Result<(), ClusterError> {
        let stands = self.running(id, Seat::pause)?;
        match timeout(self.deadline, stands).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ClusterError::NotRunning { id }),
            Err(_) => Err(self.too_late(&format!("broker {id} to stand still"))),
        }
    }

    /// Lets a broker go on that was paused. One that was not goes on anyway.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`] or [`ClusterError::NotRunning`].
    pub fn resume(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.running(id, Seat::resume)
    }

    /// Cuts these brokers off from all others: those on one side do not hear those on the other. Clients hear both. A
    /// partition takes the place of the one before, and stays through restarts until [`Cluster::heal`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn partition(&self, island: &[BrokerId]) -> Result<(), ClusterError> {
        if let Some(stranger) = island.iter().find(|id| !self.configs.contains_key(id)) {
            return Err(self.no_such_broker(*stranger));
        }
        self.network.set_island(island);
        Ok(())
    }

    /// Ends a partition. What was lost is lost, but QUIC and Raft send it again.
    pub fn heal(&self) {
        self.network.set_island(&[]);
    }

    /// Whether what this broker sends to clients is lost, while what they send arrives and is carried out.
    ///
    /// QUIC sends again what is not acknowledged, so an answer that is lost comes late when `lost` is false again. It
    /// never comes if the broker is killed before, or if the client has given its connection up, which it does after
    /// [`IDLE_TIMEOUT`](transport::IDLE_TIMEOUT).
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn drop_replies(&self, id: BrokerId, lost: bool) -> Result<(), ClusterError> {
        if !self.configs.contains_key(&id) {
            return Err(self.no_such_broker(id));
        }
        self.network.set_muted(id, lost);
        Ok(())
    }

    /// Stops all brokers at once, as SIGTERM does, and waits for them.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Broker`] if one had ended by itself; [`ClusterError::Deadline`], and the cluster is killed.
    pub async fn stop(self) -> Result<(), ClusterError> {
        for slot in self.seats().values() {
            if let Slot::Taken(seat) = slot {
                seat.end(End::Stop);
            }
        }
        let mut outcome = Ok(());
        for id in self.brokers() {
            outcome = outcome.and(self.ended(id).await);
        }
        outcome
    }

    async fn end(&self, id: BrokerId, how: End) -> Result<(), ClusterError> {
        if !self.configs.contains_key(&id) {
            return Err(self.no_such_broker(id));
        }
        if let Some(Slot::Taken(seat)) = self.seats().get(&id) {
            seat.end(how);
        }
        self.ended(id).await
    }

    /// Waits for the end of a broker that was told to end, and clears its seat.
    async fn ended(&self, id: BrokerId) -> Result<(), ClusterError> {
        let how = |states: &States| match states.get(&id) {
            Some(State::Ended(ended)) => Some(Ok(ended.clone())),
            Some(State::Opening | State::Serving(_)) => None,
            None => Some(Ok(Ok(()))),
        };
        let ended = self.wait(&format!("broker {id} to end"), how).await?;
        self.clear(id)?;
        ended.map_err(|source| ClusterError::Broker { id, source })
    }

    /// Waits until these brokers serve.
    async fn serving(&self, ids: &[BrokerId]) -> Result<(), ClusterError> {
        let all = |statuses: &BTreeMap<_, _>| ids.iter().all(|id| statuses.contains_key(id)).then_some(());
        self.find("brokers to read their logs", all).await
    }

    /// Waits for something in what the brokers say; ends when one of them has failed.
    async fn find<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&BTreeMap<BrokerId, Status>) -> Option<T>,
    ) -> Result<T, ClusterError> {
        let look = |states: &States| match board::failure(states) {
            Some((id, source)) => Some(Err(ClusterError::Broker { id, source })),
            None => look(&board::statuses(states)).map(Ok),
        };
        self.wait(what, look).await
    }

    async fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&States) -> Option<Result<T, ClusterError>>,
    ) -> Result<T, ClusterError> {
        let mut watched = self.board.watch();
        let found = async {
            loop {
                // A copy: whoever looks may take other locks.
                let states = watched.borrow_and_update().clone();
                if let Some(found) = look(&states) {
                    return found;
                }
                watched.changed().await.expect("the board is this cluster's own");
            }
        };
        timeout(self.deadline, found).await.unwrap_or_else(|_| Err(self.too_late(what)))
    }

    /// Gives a broker a thread.
    fn seat(&self, id: BrokerId, socket: Option<UdpSocket>) -> Result<Seat, ClusterError> {
        let start = Start {
            id,
            config: self.configs[&id].clone(),
            network: Arc::clone(&self.network),
            board: Arc::clone(&self.board),
            socket,
        };
        Seat::start(start).map_err(|source| ClusterError::Thread { id, source })
    }

    /// If a broker's thread has ended, takes it away and keeps the port.
    fn clear(&self, id: BrokerId) -> Result<(), ClusterError> {
        let mut seats = self.seats();
        let slot = seats.get_mut(&id).ok_or_else(|| self.no_such_broker(id))?;
        if !matches!(self.board.state(id), Some(State::Ended(_))) {
            return Ok(());
        }
        let port = UdpSocket::bind(self.configs[&id].listen).ok();
        if let Slot::Taken(seat) = std::mem::replace(slot, Slot::Free { _port: port })
            && seat.join(JOIN_TIMEOUT).is_err()
        {
            return Err(self.too_late(&format!("the thread of broker {id} to end")));
        }
        self.board.clear(id);
        Ok(())
    }

    fn running<T>(&self, id: BrokerId, act: impl FnOnce(&Seat) -> T) -> Result<T, ClusterError> {
        match self.seats().get(&id) {
            Some(Slot::Taken(seat)) => Ok(act(seat)),
            Some(Slot::Free { .. }) => Err(ClusterError::NotRunning { id }),
            None => Err(self.no_such_broker(id)),
        }
    }

    fn is_paused(&self, id: BrokerId) -> bool {
        matches!(self.seats().get(&id), Some(Slot::Taken(seat)) if seat.is_paused())
    }

    fn no_such_broker(&self, id: BrokerId) -> ClusterError {
        ClusterError::NoSuchBroker { id, count: self.configs.len() }
    }

    fn too_late(&self, what: &str) -> ClusterError {
        let said = board::describe(&self.board.watch().borrow());
        ClusterError::Deadline { what: what.to_owned(), waited: self.deadline, said }
    }

    fn seats(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Slot>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let seats = std::mem::take(&mut *self.seats());
        let running: Vec<_> = seats
            .into_iter()
            .filter_map(|(id, slot)| match slot {
                Slot::Taken(seat) => Some((id, seat)),
                Slot::Free { .. } => None,
            })
            .collect();
        for (_, seat) in &running {
            seat.end(End::Die);
        }
        let until = Instant::now() + DROP_TIMEOUT;
        for (id, seat) in running {
            if seat.join(until.saturating_duration_since(Instant::now())).is_err() {
                tracing::error!(broker = %id, "its thread does not end: its disk may not answer");
            }
        }
    }
}
