//! A cluster and its clients in one thread: one queue of events, ordered by virtual time.
//!
//! Everything that takes time in reality is an event here: a message on its way, a write, a sync, a tick. Where two
//! events fall on the same microsecond the seed decides which comes first. So a run is a function of its seed, and the
//! [trace](World::trace) of a run proves it.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sequor_client::protocol::BrokerId;

use super::chance::within;
use super::client::Client;
use super::connection::{Connections, ToBroker, ToClient};
use super::faults::{self, Fault, Profile};
use super::judge::{Judge, Violation};
use super::machine::{Death, Machine};
use super::network::{Network, Weather};
use crate::core::genesis::{Genesis, Member};
use crate::core::time::Time;
use crate::core::{Core, PeerMessage};

/// Brokers of the cluster.
pub(super) const BROKERS: u64 = 3;
/// Faults happen until then; afterwards everything must come to rest.
const FAULTS_UNTIL: Time = Time::from_ms(12_000);
/// By then everything must have come to rest.
const REST_UNTIL: Time = Time::from_ms(60_000);
/// A pass begins at most this long after the event that asks for it, so that events gather as they do in reality.
const PASS_WITHIN_US: u64 = 60;
/// How long the helper thread takes for the segments that were ordered.
const SPARES_US: (u64, u64) = (200, 5_000);
/// The wall clock at the beginning of every world. Milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;

/// Something that happens at a moment.
#[derive(Debug)]
pub(super) enum Event {
    Tick { broker: u64, life: u64 },
    Pass { broker: u64, life: u64 },
    Written { broker: u64, life: u64 },
    Synced { broker: u64, life: u64 },
    Spares { broker: u64, life: u64 },
    Datagram { from: u64, to: u64, bytes: Bytes },
    ToBroker { connection: u64, what: ToBroker },
    ToClient { connection: u64, what: ToClient },
    Wake { client: usize },
    Fault(Fault),
    Start { broker: u64 },
    Resume { broker: u64, life: u64 },
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that happened.
    pub events: u64,
    /// Batches that clients were told to be written.
    pub acknowledged: u64,
    /// Records that readers were given.
    pub delivered: u64,
    /// Batches that were recognised as written before.
    pub duplicates: u64,
    /// Elections won.
    pub elections: u64,
    /// Brokers that died.
    pub deaths: u64,
    /// Virtual time until everything was at rest. Microseconds.
    pub rest_us: u64,
    /// Checksum of all that happened, in order.
    pub trace: u32,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Time,
    pub(super) random: ChaCha8Rng,
    events: BTreeMap<(Time, u64), Event>,
    ties: u64,
    machines: Vec<Machine>,
    pub(super) clients: Vec<Client>,
    pub(super) connections: Connections,
    pub(super) network: Network,
    pub(super) judge: Judge,
    /// Events that a frozen broker will see when it thaws.
    held: BTreeMap<u64, Vec<Event>>,
    trace: crc32fast::Hasher,
    summary: Summary,
}

/// Runs the world of a seed to its end and judges it.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, profile: Profile) -> Result<Summary, Violation> {
    let mut world = World::new(seed, profile);
    world.turn(FAULTS_UNTIL)?;
    world.calm_down()?;
    world.turn_until_rest()?;
    world.conclude()
}

impl World {
    fn new(seed: u64, profile: Profile) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let genesis = genesis();
        let machines = (1..=BROKERS).map(|id| Machine::new(id, &genesis)).collect();
        let mut judge = Judge::default();
        let clients = Client::crowd(&mut random, &mut judge);
        let schedule = faults::schedule(&mut random, profile, BROKERS, clients.len(), FAULTS_UNTIL);
        let mut world = Self {
            now: Time(0),
            random,
            events: BTreeMap::new(),
            ties: 0,
            machines,
            clients,
            connections: Connections::default(),
            network: Network::new(Weather::CALM),
            judge,
            held: BTreeMap::new(),
            trace: crc32fast::Hasher::new(),
            summary: Summary::default(),
        };
        for broker in 1..=BROKERS {
            world.at(Time(0), Event::Start { broker });
        }
        for client in 0..world.clients.len() {
            world.at(Time(0), Event::Wake { client });
        }
        for (at, fault) in schedule {
            world.at(at, Event::Fault(fault));
        }
        world
    }

    /// Lets an event happen at a moment.
    pub(super) fn at(&mut self, at: Time, event: Event) {
        // The tie-break is drawn, but unique: its upper half is chance, its lower half a count.
        self.ties += 1;
        let tie = (self.random.next_u64() << 32) | self.ties;
        self.events.insert((at.max(self.now), tie), event);
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    fn turn(&mut self, until: Time) -> Result<(), Violation> {
        while let Some((&(at, _), _)) = self.events.first_key_value().filter(|((at, _), _)| *at <= until) {
            self.now = at;
            let Some((_, event)) = self.events.pop_first() else { break };
            self.happen(event)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// The faults are over: every link is mended, everybody is awake.
    fn calm_down(&mut self) -> Result<(), Violation> {
        self.network.heal();
        self.network.weather = Weather::CALM;
        self.machines.iter().for_each(|machine| machine.fill(false));
        self.events.retain(|_, event| !matches!(event, Event::Fault(_)));
        for broker in 1..=BROKERS {
            if self.machine(broker).core.is_none() {
                self.start(broker)?;
            }
            self.resume(broker)?;
        }
        for client in &mut self.clients {
            client.calm_down();
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
                    self.machines
                        .iter()
                        .filter_map(|m| m.core.as_ref())
                        .map(Core::status)
                        .collect::<Vec<_>>()
                )));
            }
            self.turn(self.now + 50_000)?;
        }
        Ok(())
    }

    /// Everybody has done what it wanted to do, and all brokers applied all that any of them knows to be committed.
    fn is_at_rest(&self) -> bool {
        let status: Vec<_> = self.machines.iter().filter_map(|m| m.core.as_ref()).map(Core::status).collect();
        let commit = status.iter().map(|status| status.commit).max().unwrap_or_default();
        let end = status.iter().map(|status| status.end).max().unwrap_or_default();
        status.len() == self.machines.len()
            && status.iter().all(|status| status.applied == commit)
            && self.clients.iter().all(|client| client.is_done(end))
    }

    fn conclude(mut self) -> Result<Summary, Violation> {
        let cores: Vec<&Core> = self.machines.iter().filter_map(|machine| machine.core.as_ref()).collect();
        self.judge.conclude(&cores)?;
        for core in &cores {
            let counters = core.status().counters;
            self.summary.duplicates += counters.duplicates;
            self.summary.elections += counters.elections_won;
        }
        self.summary.acknowledged = self.judge.promises() as u64;
        self.summary.delivered = self.judge.reads() as u64;
        self.summary.rest_us = self.now.0;
        self.summary.trace = self.trace.finalize();
        Ok(self.summary)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        self.summary.events += 1;
        self.trace.update(&self.now.0.to_le_bytes());
        self.trace.update(&self.random.get_word_pos().to_le_bytes());
        let Some(event) = self.hold_if_frozen(event) else { return Ok(()) };
        match event {
            Event::Tick { broker, life } => self.tick(broker, life),
            Event::Pass { broker, life } => self.pass(broker, life),
            Event::Written { broker, life } => self.written(broker, life),
            Event::Synced { broker, life } => self.synced(broker, life),
            Event::Spares { broker, life } => self.spares(broker, life),
            Event::Datagram { from, to, bytes } => self.datagram(from, to, bytes),
            Event::ToBroker { connection, what } => self.arrive_at_broker(connection, what),
            Event::ToClient { connection, what } => self.arrive_at_client(connection, what),
            Event::Wake { client } => self.wake(client),
            Event::Fault(fault) => self.strike(fault),
            Event::Start { broker } => self.start(broker),
            Event::Resume { broker, life } => {
                if self.machine(broker).life == life {
                    self.resume(broker)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// What reaches a frozen broker is kept until it thaws.
    fn hold_if_frozen(&mut self, event: Event) -> Option<Event> {
        let broker = match &event {
            Event::Tick { broker, .. }
            | Event::Pass { broker, .. }
            | Event::Written { broker, .. }
            | Event::Synced { broker, .. }
            | Event::Spares { broker, .. } => *broker,
            Event::Datagram { to, .. } => *to,
            Event::ToBroker { connection, .. } => self.connections.broker_of(*connection)?,
            Event::ToClient { connection, .. } => {
                let client = self.client_of(*connection)?;
                return match self.frozen_until(client) {
                    Some(until) => {
                        self.at(until, event);
                        None
                    }
                    None => Some(event),
                };
            }
            _ => return Some(event),
        };
        if self.machine(broker).paused {
            self.held.entry(broker).or_default().push(event);
            return None;
        }
        Some(event)
    }

    fn machine(&mut self, broker: u64) -> &mut Machine {
        &mut self.machines[slot(broker)]
    }

    /// The machine, if it is still in that life.
    fn alive(&mut self, broker: u64, life: u64) -> Option<&mut Machine> {
        Some(self.machine(broker)).filter(|machine| machine.life == life && machine.core.is_some())
    }

    fn start(&mut self, broker: u64) -> Result<(), Violation> {
        if self.machine(broker).core.is_some() {
            return Ok(());
        }
        let started = self.machines[slot(broker)].start(&mut self.random, self.now);
        started.map_err(|error| Violation(format!("broker {broker} refuses to start: {error}")))?;
        self.judge.forget(broker);
        let life = self.machine(broker).life;
        self.after(0, Event::Tick { broker, life });
        self.request_pass(broker);
        Ok(())
    }

    fn tick(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        let Some(core) = &mut machine.core else { return Ok(()) };
        core.handle_tick(now);
        let next = core.next_tick();
        self.at(next, Event::Tick { broker, life });
        self.request_pass(broker);
        Ok(())
    }

    /// Lets a broker work soon; what arrives until then is worked on in the same pass.
    pub(super) fn request_pass(&mut self, broker: u64) {
        let machine = self.machine(broker);
        if machine.core.is_none() || machine.pass_due {
            return;
        }
        machine.pass_due = true;
        let life = machine.life;
        let wait = within(&mut self.random, (0, PASS_WITHIN_US));
        self.after(wait, Event::Pass { broker, life });
    }

    fn pass(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        machine.pass_due = false;
        let Some(core) = &mut machine.core else { return Ok(()) };
        core.pass(now, WALL_MS + now.0 / 1000);
        if let Some(halt) = core.halted() {
            return Err(Violation(format!("broker {broker} halted: {halt}")));
        }
        if core.wants_pass() {
            self.request_pass(broker);
        }
        self.collect(broker)
    }

    /// Carries out what a core wants after a pass.
    fn collect(&mut self, broker: u64) -> Result<(), Violation> {
        let machine = &mut self.machines[slot(broker)];
        let life = machine.life;
        let written_after = machine.begin_disk_work(&mut self.random, self.now);
        let Some(core) = &mut machine.core else { return Ok(()) };
        let messages: Vec<(BrokerId, PeerMessage)> = std::iter::from_fn(|| core.poll_peer()).collect();
        let replies: Vec<_> = std::iter::from_fn(|| core.poll_reply()).collect();
        if let Some(micros) = written_after {
            self.after(micros, Event::Written { broker, life });
        }
        let spares = within(&mut self.random, SPARES_US);
        self.after(spares, Event::Spares { broker, life });
        for (to, message) in messages {
            self.send_datagram(broker, to.0, &message);
        }
        for reply in replies {
            self.send_reply(broker, &reply);
        }
        self.pump_subscriptions(broker);
        self.watch(broker)
    }

    fn watch(&mut self, broker: u64) -> Result<(), Violation> {
        let durable: Vec<_> = self.machines.iter().map(Machine::durable).collect();
        match &self.machines[slot(broker)].core {
            Some(core) => self.judge.watch(broker, core, &durable),
            None => Ok(()),
        }
    }

    fn written(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        if self.alive(broker, life).is_none() {
            return Ok(());
        }
        let written = self.machines[slot(broker)].write(&mut self.random);
        let synced_after = written.map_err(|error| disk_error(broker, &error))?;
        self.after(synced_after, Event::Synced { broker, life });
        Ok(())
    }

    fn synced(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        machine.sync(now).map_err(|error| disk_error(broker, &error))?;
        self.request_pass(broker);
        Ok(())
    }

    fn spares(&mut self, broker: u64, life: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(machine) = self.alive(broker, life) else { return Ok(()) };
        if machine.make_spares(now).map_err(|error| disk_error(broker, &error))? {
            self.request_pass(broker);
        }
        Ok(())
    }

    fn send_datagram(&mut self, from: u64, to: u64, message: &PeerMessage) {
        let bytes: Bytes = message.encode().concat().into();
        for at in self.network.arrivals(&mut self.random, self.now, from, to) {
            self.at(at, Event::Datagram { from, to, bytes: bytes.clone() });
        }
    }

    fn datagram(&mut self, from: u64, to: u64, bytes: Bytes) -> Result<(), Violation> {
        let now = self.now;
        let Some(core) = &mut self.machine(to).core else { return Ok(()) };
        let message = PeerMessage::decode(bytes)
            .map_err(|error| Violation(format!("broker {to} cannot read what {from} sent: {error}")))?;
        core.handle_peer(now, BrokerId(from), message);
        self.request_pass(to);
        Ok(())
    }

    /// The core of a broker, if it runs.
    pub(super) fn core(&mut self, broker: u64) -> Option<&mut Core> {
        self.machine(broker).core.as_mut()
    }

    /// True if a broker runs and gets time.
    pub(super) fn is_awake(&mut self, broker: u64) -> bool {
        self.machine(broker).is_awake()
    }

    fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        match fault {
            Fault::Die { broker, death, down_us } => self.die(broker, death, down_us),
            Fault::DieAll { death, down_us } => {
                for broker in 1..=BROKERS {
                    self.die(broker, death, down_us * broker);
                }
            }
            Fault::Pause { broker, for_us } => self.pause(broker, for_us),
            Fault::Isolate { broker, inward, outward } => {
                for other in (1..=BROKERS).filter(|other| *other != broker) {
                    if inward {
                        self.network.cut(other, broker);
                    }
                    if outward {
                        self.network.cut(broker, other);
                    }
                }
            }
            Fault::CutLink { from, to } => self.network.cut(from, to),
            Fault::Heal => self.network.heal(),
            Fault::Change(weather) => self.network.weather = weather,
            Fault::Reset { client } => self.reset_client(client),
            Fault::Replace { client } => self.replace_client(client),
            Fault::Zombie { client, for_us } => self.make_zombie(client, for_us),
            Fault::Retire { client } => self.retire_producer(client),
            Fault::Fill { broker } => self.machine(broker).fill(true),
            Fault::Free => self.machines.iter().for_each(|machine| machine.fill(false)),
        }
        Ok(())
    }

    fn die(&mut self, broker: u64, death: Death, down_us: u64) {
        if self.machine(broker).core.is_none() {
            return;
        }
        self.machines[slot(broker)].die(death, &mut self.random);
        self.held.remove(&broker);
        self.summary.deaths += 1;
        self.break_connections_of_broker(broker);
        self.after(down_us, Event::Start { broker });
    }

    fn pause(&mut self, broker: u64, for_us: u64) {
        if !self.is_awake(broker) {
            return;
        }
        let machine = self.machine(broker);
        machine.paused = true;
        let life = machine.life;
        self.after(for_us, Event::Resume { broker, life });
    }

    fn resume(&mut self, broker: u64) -> Result<(), Violation> {
        self.machine(broker).paused = false;
        for event in self.held.remove(&broker).unwrap_or_default() {
            self.after(0, event);
        }
        Ok(())
    }
}

/// Where the machine of a broker stands in the list: ids count from 1.
fn slot(broker: u64) -> usize {
    usize::try_from(broker - 1).expect("an id fits a usize")
}

fn genesis() -> Genesis {
    let members = (1..=BROKERS).map(|id| Member {
        id: BrokerId(id),
        address: format!("broker-{id}:7400"),
        certificate: [u8::try_from(id).expect("there are few brokers"); 32],
    });
    Genesis::new(members.collect(), crate::core::genesis::Settings::default()).expect("it is sound")
}

fn disk_error(broker: u64, error: &dyn std::fmt::Display) -> Violation {
    Violation(format!("broker {broker} cannot use its disk: {error}"))
}
