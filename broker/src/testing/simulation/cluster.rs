//! A simulated cluster, as the program has it: its brokers, what may be done to them, and what they say.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use sequor_client::{
    Client, Config, ConnectError, TlsFiles,
    protocol::{BrokerId, Status},
};
use tokio::time::timeout;

use super::{stage::Stage, weather::Weather, wire::Wires};
use crate::{
    sim::embedded::{Embedded, Ending},
    testing::{
        board::{self, State},
        error::ClusterError,
    },
};

/// Longest wait for anything that a cluster is asked to do, in virtual time.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest time that a disk hangs or a clock jumps.
const FAULT_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A cluster in memory, in virtual time. The [module](super) says what it is, and has an example.
///
/// Cheap to clone; all clones are the same cluster. All methods take `&self`, so that something can happen to the cluster
/// while something else appends. It is of use in the program that [`simulate`](super::simulate) runs, and ends with it.
/// All times are virtual.
#[derive(Clone, Debug)]
pub struct SimulatedCluster {
    stage: Arc<Stage>,
}

impl SimulatedCluster {
    pub(super) fn new(stage: Arc<Stage>) -> Self {
        Self { stage }
    }

    /// With which [`Client::connect`] reaches this cluster, and nothing else does. Its deadline and limits may be changed;
    /// `tls` and `mtu` mean nothing here.
    #[must_use]
    pub fn client_config(&self) -> Config {
        let none = PathBuf::new;
        let tls = TlsFiles { ca: none(), cert: none(), key: none() };
        let (cluster, brokers) = self.stage.with(|world| (world.cluster(), world.members()));
        let mut config = Config::new(cluster, brokers, tls);
        config.carrier = Some(Arc::new(Wires(Arc::clone(&self.stage))));
        config
    }

    /// A client with the usual limits. Each call makes another one.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Unreachable`] if no broker answers for 30 s.
    pub async fn client(&self) -> Result<Client, ConnectError> {
        Client::connect(&self.client_config()).await
    }

    /// The ids of all brokers, running or not, ascending from 1.
    #[must_use]
    pub fn brokers(&self) -> Vec<BrokerId> {
        self.stage.with(|world| world.members().iter().map(|member| member.id).collect())
    }

    /// Time since the beginning of the simulation.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.stage.elapsed()
    }

    /// Checksum of all that happened until now: when each event was, what was drawn, and every byte between clients and
    /// brokers. Two runs of the same program from the same seed have the same.
    #[must_use]
    pub fn trace(&self) -> u32 {
        self.stage.with(|world| world.trace())
    }

    /// What a broker says of itself; none while it is down.
    #[must_use]
    pub fn status(&self, id: BrokerId) -> Option<Status> {
        self.stage.with(|world| statuses(world).remove(&id))
    }

    /// Waits for a broker that leads and that a majority follows: neither one that is paused, nor one that a
    /// partition has cut off and that has not noticed yet.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Deadline`] after 30 s.
    pub async fn leader(&self) -> Result<BrokerId, ClusterError> {
        self.wait("a leader", leader).await
    }

    /// Waits until what the brokers say of themselves fulfils a condition, such as that one of them has applied the
    /// log up to some offset. `what` names the condition in the error.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Deadline`] after 30 s.
    pub async fn wait_until(
        &self,
        what: &str,
        mut condition: impl FnMut(&BTreeMap<BrokerId, Status>) -> bool,
    ) -> Result<(), ClusterError> {
        self.wait(what, |world| condition(&statuses(world)).then_some(())).await
    }

    /// Ends a broker in the middle of whatever it does, as SIGKILL does. What it has written stays, synced or not. One that
    /// is down already stays down. It stays down until [`SimulatedCluster::restart`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn kill(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.end(id, Ending::Kill)
    }

    /// Waits for a leader and kills it; who that was.
    ///
    /// # Errors
    ///
    /// As [`SimulatedCluster::leader`].
    pub async fn kill_leader(&self) -> Result<BrokerId, ClusterError> {
        let leader = self.leader().await?;
        self.kill(leader)?;
        Ok(leader)
    }

    /// The power of a broker's machine fails: it ends, and of everything that was written and not yet synced, each sector
    /// of 512 bytes is kept or lost as the seed has it; also of what was written before it was killed, if it is down already. Cut the
    /// power of all brokers for that of a whole site.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn cut_power(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.end(id, Ending::PowerCut)
    }

    /// Ends a broker as SIGTERM does: it hands leadership over, syncs, and ends within about half a second. One that is
    /// down already stays down.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`]; [`ClusterError::Deadline`] after 30 s, if it is paused.
    pub async fn terminate(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.end(id, Ending::Terminate)?;
        self.wait(&format!("broker {id} to end"), |world| (!world.runs(id.0)).then_some(())).await
    }

    /// Starts a broker that is down, on what its disk holds. It has read its log when this returns.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`]; [`ClusterError::Running`].
    pub fn restart(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.known(id)?;
        if self.runs(id) {
            return Err(ClusterError::Running { id });
        }
        self.stage.strike(|world| world.start(id.0));
        Ok(())
    }

    /// Lets a broker stand still, as SIGSTOP does. What is sent to it waits.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`] or [`ClusterError::NotRunning`].
    pub fn pause(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.running(id)?;
        self.stage.with(|world| world.pause(id.0));
        Ok(())
    }

    /// Lets a broker go on that was paused. One that was not goes on anyway.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`] or [`ClusterError::NotRunning`].
    pub fn resume(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.running(id)?;
        self.stage.strike(|world| world.resume(id.0));
        Ok(())
    }

    /// Cuts these brokers off from all others: those on one side do not hear those on the other. Clients hear both. A
    /// partition takes the place of everything that was cut before, and stays through restarts until
    /// [`SimulatedCluster::heal`].
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn partition(&self, island: &[BrokerId]) -> Result<(), ClusterError> {
        island.iter().try_for_each(|id| self.known(*id))?;
        let (inside, outside): (Vec<_>, Vec<_>) =
            self.brokers().into_iter().partition(|id| island.contains(id));
        self.stage.with(|world| {
            world.heal();
            for (one, other) in inside.iter().flat_map(|one| outside.iter().map(move |other| (one, other))) {
                world.cut(one.0, other.0);
                world.cut(other.0, one.0);
            }
        });
        Ok(())
    }

    /// Nothing that one broker sends reaches the other any more; what the other sends does.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn cut_link(&self, from: BrokerId, to: BrokerId) -> Result<(), ClusterError> {
        self.known(from)?;
        self.known(to)?;
        self.stage.with(|world| world.cut(from.0, to.0));
        Ok(())
    }

    /// Mends every link. What was lost is lost, but Raft sends it again.
    pub fn heal(&self) {
        self.stage.with(Embedded::heal);
    }

    /// Changes the network, for all messages that are sent from now on.
    pub fn set_weather(&self, weather: &Weather) {
        self.stage.with(|world| world.change(weather.of_world()));
    }

    /// Whether what this broker sends to clients gets lost, while what they send arrives and is carried out.
    ///
    /// An answer that is lost comes late when `lost` is false again. It never comes if the broker ends before, or if `lost`
    /// was true for more than 5 s: connections that were silent for so long are given up.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn drop_replies(&self, id: BrokerId, lost: bool) -> Result<(), ClusterError> {
        self.known(id)?;
        self.stage.with(|world| world.mute(id.0, lost));
        Ok(())
    }

    /// Breaks all connections of all clients: what is on its way is lost. They connect again by themselves.
    pub fn break_connections(&self) {
        self.stage.with(Embedded::break_connections);
    }

    /// For so long, each write and each sync of a broker's disk takes from 50 ms to 2 s.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn hang_disk(&self, id: BrokerId, time: Duration) -> Result<(), ClusterError> {
        self.known(id)?;
        self.stage.with(|world| world.hang(id.0, micros(time)));
        Ok(())
    }

    /// Whether a broker's disk has no room for another segment of 2 MiB. Two that are made ahead are its reserve.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn fill_disk(&self, id: BrokerId, is_full: bool) -> Result<(), ClusterError> {
        self.known(id)?;
        self.stage.with(|world| world.fill(id.0, is_full));
        Ok(())
    }

    /// A broker's monotonic clock jumps forwards by so much, and its wall clock by up to a day in either direction. On a
    /// leader that ends sessions that nobody has kept alive for that long, by its clock.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoSuchBroker`].
    pub fn jump_clock(&self, id: BrokerId, by: Duration) -> Result<(), ClusterError> {
        self.known(id)?;
        self.stage.with(|world| world.jump(id.0, micros(by)));
        Ok(())
    }

    fn end(&self, id: BrokerId, ending: Ending) -> Result<(), ClusterError> {
        self.known(id)?;
        self.stage.strike(|world| world.end(id.0, ending));
        Ok(())
    }

    async fn wait<T>(
        &self,
        what: &str,
        look: impl FnMut(&mut Embedded) -> Option<T>,
    ) -> Result<T, ClusterError> {
        timeout(DEADLINE, self.stage.wait(look)).await.map_err(|_| {
            let said = self.stage.with(|world| statuses(world));
            let said = said.into_iter().map(|(id, status)| (id, State::Serving(status))).collect();
            let said = board::describe(&said);
            ClusterError::Deadline { what: what.to_owned(), waited: DEADLINE, said }
        })
    }

    fn known(&self, id: BrokerId) -> Result<(), ClusterError> {
        let count = self.brokers().len();
        match (1..=count as u64).contains(&id.0) {
            true => Ok(()),
            false => Err(ClusterError::NoSuchBroker { id, count }),
        }
    }

    fn runs(&self, id: BrokerId) -> bool {
        self.stage.with(|world| world.runs(id.0))
    }

    fn running(&self, id: BrokerId) -> Result<(), ClusterError> {
        self.known(id)?;
        if self.runs(id) { Ok(()) } else { Err(ClusterError::NotRunning { id }) }
    }
}

fn statuses(world: &Embedded) -> BTreeMap<BrokerId, Status> {
    world.statuses().map(|status| (status.id, status)).collect()
}

fn leader(world: &mut Embedded) -> Option<BrokerId> {
    let members = world.members().len();
    let mut awake = statuses(world);
    awake.retain(|id, _| !world.is_paused(id.0));
    board::leader(&awake, members, |one, other| world.connects(one.0, other.0))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.min(FAULT_MAX).as_micros()).expect("a century has fewer than 2^64 microseconds")
}
