//! A cluster and its clients in one thread: one queue of events, ordered by virtual time.
//!
//! Everything that takes time in reality is an event here: a message on its way, a write, a sync, a tick. Where two
//! events fall on the same microsecond the seed decides which comes first. So a run is a function of its seed and its
//! script of faults, and the [trace](Summary::trace) of a run proves it.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sequor_client::protocol::{BrokerId, Status};

use super::chance::within;
use super::client::Client;
use super::clock::Clock;
use super::connection::{Connections, End, ToBroker, ToClient};
use super::coverage::Reached;
use super::faults::{self, Fault, Profile, Script};
use super::judge::{Judge, Violation, violated};
use super::loss::Losses;
use super::machine::{Build, ELECTION_TIMEOUT_US, Machine};
use super::network::{Network, Weather};
use super::recorder::Recorder;
use crate::core::Core;
use crate::core::genesis::{Genesis, Member};
use crate::core::time::Time;

/// Faults happen until then; afterwards everything must come to rest.
const FAULTS_UNTIL: Time = Time::from_ms(60_000);
/// The cluster must be well again so long after the last fault.
pub(super) const WELL_WITHIN_US: u64 = 10 * ELECTION_TIMEOUT_US;
/// Messages of one broker to another that are on their way at the same time, at most. Few, so that it happens. Count.
const PEER_QUEUE_MAX: usize = 32;
/// More than a hundred times as many as a world sees on average. Events.
const EVENTS_MAX: u64 = 50_000_000;
/// By then everything must have come to rest.
const REST_UNTIL: Time = Time::from_ms(110_000);

/// Something that happens at a moment.
#[derive(Debug)]
pub(super) enum Event {
    Tick { broker: u64, life: u64 },
    Pass { broker: u64, life: u64 },
    Written { broker: u64, life: u64 },
    Synced { broker: u64, life: u64 },
    Spares { broker: u64, life: u64 },
    Datagram { from: u64, to: u64, bytes: Bytes },
    PeerLost { broker: u64, peer: u64 },
    ToBroker { connection: u64, what: ToBroker },
    ToClient { connection: u64, what: ToClient },
    Wake { client: usize },
    Fault(Fault),
    Start { broker: u64 },
    Resume { broker: u64, life: u64 },
    Drain { broker: u64, life: u64, down_us: Option<u64> },
    Stop { broker: u64, life: u64, down_us: Option<u64> },
    // A broker whose disk has lost something is to be started.
    ComeBack { broker: u64 },
    // By now a broker must have been told by its leader that it has lost entries.
    Told { broker: u64 },
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that happened.
    pub events: u64,
    /// Batches that clients were told to be written.
    pub acknowledged: u64,
    /// Records that readers were given.
    pub delivered: u64,
    /// Batches that were recognised as written before, by the last leaders.
    pub duplicates: u64,
    /// Brokers that died.
    pub deaths: u64,
    /// Virtual time until everything was at rest. Microseconds.
    pub rest_us: u64,
    /// Checksum of all that happened: the moment of each event, how much chance was drawn until then, and every byte that
    /// arrived.
    pub trace: u32,
    /// Which states were reached.
    pub reached: Reached,
}

impl Summary {
    /// Adds another run. Traces are not added.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.deaths += other.deaths;
        self.rest_us += other.rest_us;
        self.reached.add(&other.reached);
    }
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) random: ChaCha8Rng,
    pub(super) events: BTreeMap<(Time, u64), Event>,
    ties: u64,
    pub(super) machines: Vec<Machine>,
    pub(super) clients: Vec<Client>,
    pub(super) connections: Connections,
    pub(super) network: Network,
    pub(super) judge: Judge,
    pub(super) recorder: Recorder,
    pub(super) reached: Reached,
    pub(super) losses: Losses,
    /// Events that a frozen broker will see when it thaws, in their order.
    pub(super) held: BTreeMap<u64, Vec<Event>>,
    /// The same for frozen clients.
    held_for_clients: BTreeMap<usize, Vec<Event>>,
    pub(super) trace: crc32fast::Hasher,
    /// A world with more of them does not come to rest.
    events_max: u64,
    pub(super) summary: Summary,
}

/// Runs the world of a seed to its end and judges it.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, profile: Profile) -> Result<Summary, Violation> {
    let (world, script) = World::new(seed, profile);
    world.run_caught(script)
}

/// What goes wrong in the world of a seed.
#[must_use]
pub fn script(seed: u64, profile: Profile) -> Script {
    World::new(seed, profile).1
}

/// Runs the world of a seed under another script than its own.
///
/// # Errors
/// The first promise that was broken.
pub fn replay(seed: u64, profile: Profile, script: Script) -> Result<Summary, Violation> {
    World::new(seed, profile).0.run_caught(script)
}

/// Takes faults out of the script of a seed that breaks a promise for as long as it still breaks one: halves first,
/// single faults at last. What is left, and what it breaks.
///
/// # Errors
/// If the seed breaks nothing.
pub fn shrink(seed: u64, profile: Profile) -> Result<(Script, Violation), Summary> {
    let mut least = script(seed, profile);
    let mut violation = match replay(seed, profile, least.clone()) {
        Ok(summary) => return Err(summary),
        Err(violation) => violation,
    };
    let mut size = least.len().div_ceil(2);
    while size > 0 {
        let (before, mut at) = (least.len(), 0);
        while at < least.len() {
            let shorter = least.without(at..(at + size).min(least.len()));
            match replay(seed, profile, shorter.clone()) {
                Err(still) => (least, violation) = (shorter, still),
                Ok(_) => at += size,
            }
        }
        // What could not be taken out before may not matter any more.
        if size > 1 || least.len() == before {
            size /= 2;
        }
    }
    Ok((least, violation))
}

impl World {
    fn new(seed: u64, profile: Profile) -> (Self, Script) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let brokers = match (profile, within(&mut random, (1, 100))) {
            (Profile::Quiet, _) | (_, 31..) => 3,
            (_, 6..=30) => 5,
            (Profile::Loss, _) => 3,
            _ => 1,
        };
        let genesis = genesis(brokers);
        let mut machine = |id| Machine::new(id, &genesis, Build::SMALL, Clock::draw(&mut random));
        let machines = (1..=brokers).map(&mut machine).collect();
        let clients = Client::crowd(brokers, &mut random);
        let script = faults::schedule(&mut random, profile, brokers, clients.len(), FAULTS_UNTIL);
        let losses = Losses::new(profile);
        let network = Network::new(Weather::CALM, Some(PEER_QUEUE_MAX));
        (Self { clients, losses, network, events_max: EVENTS_MAX, ..Self::empty(machines, random) }, script)
    }

    /// A world in which nothing has happened yet, and nobody is but these machines.
    pub(super) fn empty(machines: Vec<Machine>, random: ChaCha8Rng) -> Self {
        Self {
            now: Time(0),
            random,
            events: BTreeMap::new(),
            ties: 0,
            machines,
            clients: Vec::new(),
            connections: Connections::default(),
            network: Network::new(Weather::CALM, None),
            judge: Judge::default(),
            recorder: Recorder::default(),
            reached: Reached::default(),
            losses: Losses::default(),
            held: BTreeMap::new(),
            held_for_clients: BTreeMap::new(),
            trace: crc32fast::Hasher::new(),
            events_max: u64::MAX,
            summary: Summary::default(),
        }
    }

    /// Runs to the end. Whoever panics, a broker or a client, breaks a promise too, and the run has a seed to tell.
    fn run_caught(self, script: Script) -> Result<Summary, Violation> {
        // Nothing of the world is left to be seen in a state that a panic interrupted.
        panic::catch_unwind(AssertUnwindSafe(|| self.run(script))).unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let why = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a word");
            Err(Violation(format!("somebody panicked: {why}")))
        })
    }

    fn run(mut self, script: Script) -> Result<Summary, Violation> {
        match self.brokers().end() {
            1 => self.reached.note("one broker"),
            5 => self.reached.note("five brokers"),
            _ => {}
        }
        for broker in self.brokers() {
            self.at(Time(0), Event::Start { broker });
        }
        for client in 0..self.clients.len() {
            self.begin_client(client)?;
        }
        for (at, fault) in script.0 {
            self.at(at, Event::Fault(fault));
        }
        self.turn(FAULTS_UNTIL)?;
        self.calm_down()?;
        let committed = self.statuses().map(|status| status.commit).max().unwrap_or_default();
        self.turn(FAULTS_UNTIL + WELL_WITHIN_US)?;
        let settled = self.machines.iter().filter(|machine| self.losses.is_settled(machine.id, FAULTS_UNTIL));
        let cores: Vec<_> = settled.filter_map(|machine| machine.core.as_ref()).collect();
        self.judge.is_well(&cores, committed)?;
        if !self.clients.iter().any(Client::has_written) {
            let clients: Vec<_> = self.clients.iter().map(Client::state).collect();
            return Err(Violation(format!(
                "nothing was written in the ten election timeouts after the last fault: {clients:?}"
            )));
        }
        self.turn_until_rest()?;
        self.conclude()
    }

    /// The ids of all brokers.
    pub(super) fn brokers(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.machines.len() as u64
    }

    /// Lets an event happen at a moment.
    pub(super) fn at(&mut self, at: Time, event: Event) {
        // The tie-break is drawn, but unique: its upper half is chance, its lower half a count.
        self.ties += 1;
        let tie = (self.random.next_u64() << 32) | self.ties;
        self.events.insert((at.max(self.now), tie), event);
    }

    /// Lets an event happen after so many microseconds.
    pub(super) fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    /// Lets events never happen.
    pub(super) fn forget_events(&mut self, which: impl Fn(&Event) -> bool) {
        self.events.retain(|_, event| !which(event));
    }

    /// Lets everything happen that is due until a moment.
    pub(super) fn turn(&mut self, until: Time) -> Result<(), Violation> {
        while let Some((&(at, _), _)) = self.events.first_key_value().filter(|((at, _), _)| *at <= until) {
            if self.summary.events == self.events_max {
                return violated(format!(
                    "the world turns for ever, {} s after its beginning",
                    at.0 / 1_000_000
                ));
            }
            self.now = at;
            let Some((_, event)) = self.events.pop_first() else { break };
            self.happen(event)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// The faults are over: every link is mended, every disk works and has room, everybody is awake.
    fn calm_down(&mut self) -> Result<(), Violation> {
        self.network.heal();
        self.network.weather = Weather::CALM;
        for machine in &mut self.machines {
            machine.calm_down();
        }
        self.forget_events(|event| {
            matches!(event, Event::Fault(_) | Event::Drain { .. } | Event::Stop { .. })
        });
        for broker in self.brokers() {
            self.start(broker)?;
            self.resume(broker)?;
        }
        for client in 0..self.clients.len() {
            self.clients[client].calm_down(self.now);
            self.at(self.now, Event::Wake { client });
        }
        Ok(())
    }

    fn turn_until_rest(&mut self) -> Result<(), Violation> {
        while !self.is_at_rest() {
            if self.now >= REST_UNTIL {
                let clients: Vec<String> = self.clients.iter().map(Client::state).collect();
                return Err(Violation(format!(
                    "{} s after the last fault the world is not at rest: {clients:?}, brokers {:?}",
                    (REST_UNTIL - FAULTS_UNTIL) / 1_000_000,
                    self.statuses().collect::<Vec<_>>()
                )));
            }
            self.turn(self.now + 50_000)?;
        }
        Ok(())
    }

    /// What each broker that runs says of itself.
    pub(super) fn statuses(&self) -> impl Iterator<Item = Status> {
        self.machines.iter().filter_map(|machine| machine.core.as_ref()).map(Core::status)
    }

    /// Everybody has done what it wanted to do, and all brokers applied all that any of them knows to be committed.
    fn is_at_rest(&self) -> bool {
        let commit = self.statuses().map(|status| status.commit).max().unwrap_or_default();
        let end = self.statuses().map(|status| status.end).max().unwrap_or_default();
        let run = self.machines.iter().all(|machine| machine.core.is_some() || machine.lost);
        run && self.losses.are_told()
            && self.statuses().all(|status| status.applied == commit)
            && self.clients.iter().all(|client| client.is_done(end))
    }

    fn conclude(mut self) -> Result<Summary, Violation> {
        let cores: Vec<&Core> = self.machines.iter().filter_map(|machine| machine.core.as_ref()).collect();
        self.judge.check_states(&cores)?;
        let seen = self.recorder.conclude(&cores, &mut self.reached)?;
        self.summary.duplicates = cores.iter().map(|core| core.status().counters.duplicates).sum();
        self.summary.acknowledged = seen.written;
        self.summary.delivered = seen.read;
        self.summary.rest_us = self.now.0;
        self.summary.trace = self.trace.finalize();
        self.summary.reached = self.reached;
        Ok(self.summary)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        self.summary.events += 1;
        self.trace.update(&self.now.0.to_le_bytes());
        self.trace.update(&self.random.get_word_pos().to_le_bytes());
        match &event {
            Event::Datagram { bytes, .. }
            | Event::ToBroker { what: ToBroker::Frame(bytes) | ToBroker::Garbage(bytes), .. }
            | Event::ToClient { what: ToClient::Frame(bytes), .. } => self.trace.update(bytes),
            _ => {}
        }
        if let Event::ToClient { connection, .. } = event {
            match self.end_of(connection) {
                Some(&End::Client { number, .. }) => self.thaw(number)?,
                #[cfg(feature = "virtual")]
                Some(End::Program(_)) => {}
                None => return Ok(()),
            }
        }
        match self.hold_if_frozen(event) {
            Some(event) => self.dispatch(event),
            None => Ok(()),
        }
    }

    pub(super) fn dispatch(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Tick { broker, life } => self.tick(broker, life),
            Event::Pass { broker, life } => self.pass(broker, life),
            Event::Written { broker, life } => self.written(broker, life),
            Event::Synced { broker, life } => self.synced(broker, life),
            Event::Spares { broker, life } => self.spares(broker, life),
            Event::Datagram { from, to, bytes } => self.datagram(from, to, bytes),
            Event::PeerLost { broker, peer } => self.peer_lost(broker, peer),
            Event::ToBroker { connection, what } => self.arrive_at_broker(connection, what),
            Event::ToClient { connection, what } => self.arrive_at_client(connection, what),
            Event::Wake { client } => {
                self.thaw(client)?;
                self.wake(client)
            }
            Event::Fault(fault) => self.strike(fault),
            Event::Start { broker } => self.start(broker),
            Event::Resume { broker, life } if self.machine(broker).life == life => self.resume(broker),
            Event::Resume { .. } => Ok(()),
            Event::Drain { broker, life, down_us } => self.drain(broker, life, down_us),
            Event::Stop { broker, life, down_us } => self.stop(broker, life, down_us),
            Event::ComeBack { broker } => self.come_back(broker),
            Event::Told { broker } => self.must_be_told(broker),
        }
    }

    /// A client that is not frozen any more gets what came meanwhile, before anything else.
    fn thaw(&mut self, client: usize) -> Result<(), Violation> {
        if self.frozen_until(client).is_some() {
            return Ok(());
        }
        for event in self.held_for_clients.remove(&client).unwrap_or_default() {
            self.dispatch(event)?;
        }
        Ok(())
    }

    /// What reaches a frozen broker or client is kept until it thaws.
    fn hold_if_frozen(&mut self, event: Event) -> Option<Event> {
        let broker = match &event {
            Event::Tick { broker, .. }
            | Event::Pass { broker, .. }
            | Event::Written { broker, .. }
            | Event::Synced { broker, .. }
            | Event::Spares { broker, .. }
            | Event::PeerLost { broker, .. }
            | Event::Drain { broker, .. } => *broker,
            Event::Datagram { to, .. } => *to,
            Event::ToBroker { connection, .. } => match self.connections.broker_of(*connection) {
                Some(broker) => broker,
                None => return Some(event),
            },
            Event::ToClient { connection, .. } => {
                let number = match self.end_of(*connection)? {
                    End::Client { number, .. } => *number,
                    #[cfg(feature = "virtual")]
                    End::Program(_) => return Some(event),
                };
                let Some(until) = self.frozen_until(number) else { return Some(event) };
                self.held_for_clients.entry(number).or_default().push(event);
                self.at(until, Event::Wake { client: number });
                return None;
            }
            _ => return Some(event),
        };
        if self.machine(broker).paused {
            self.held.entry(broker).or_default().push(event);
            return None;
        }
        Some(event)
    }
}

/// What a cluster of so many brokers begins with.
pub(super) fn genesis(brokers: u64) -> Genesis {
    let members = (1..=brokers).map(|id| Member {
        id: BrokerId(id),
        address: format!("broker-{id}:7400"),
        certificate: [u8::try_from(id).expect("there are few brokers"); 32],
    });
    Genesis::new(members.collect(), crate::core::genesis::Settings::default()).expect("it is sound")
}
