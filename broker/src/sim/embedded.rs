//! A cluster of this world for programs outside of it: no clients and no faults but theirs, and the judges look on.
//!
//! Whoever drives it says how late it is ([`Embedded::turn`]) and is told when it wants to be asked again
//! ([`Embedded::next`]). In between, programs connect, send and strike; answers go to their [`Port`]s.
//!
//! Brokers here are built as in real tests and not as in the simulator's own runs: segments that hold the largest entry,
//! timers as in `testing`, clocks that are right until they are told to jump.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sequor_client::protocol::frame::Frame;
use sequor_client::protocol::{ClusterId, Member, RequestId, Status};

use super::clock::Clock;
use super::cluster::slot;
pub(crate) use super::connection::Port;
use super::connection::{End, ToBroker};
use super::judge::Violation;
use super::machine::{Build, CLUSTER, Death, Machine};
use super::network::Node;
pub(crate) use super::network::Weather;
use super::world::{Event, World, genesis};
use crate::core::Timing;
use crate::core::time::Time;

/// Large enough for the largest entry. Timers as those of `testing`: a heartbeat every 50 ms, elections after 500 ms to
/// a second without one.
const BUILD: Build = Build {
    segment_bytes: 2 << 20,
    block_bytes_max: 1 << 20,
    tick_us: 25_000,
    timing: Timing { heartbeat_ticks: 2, election_ticks: 20 },
};
/// So long after a spell that was left out, all have made up for a few ticks and have heard of the leader: until then no
/// other one is left out, or the ticks would add up to an election. Microseconds, beside two delays.
const SETTLE_US: u64 = 3 * BUILD.tick_us;
/// What is late takes ten times as long.
const LATE: u64 = 10;

/// How a broker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As by SIGKILL: what was written stays.
    Kill,
    /// The power fails: of what was not synced, each sector is kept or lost.
    PowerCut,
    /// As by SIGTERM: it hands over, writes, and ends a little later.
    Terminate,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Embedded {
    world: World,
    /// Time is being left out, at most until then.
    asleep: Option<Time>,
    /// No time is left out before.
    settled: Time,
}

impl Embedded {
    /// A cluster of so many brokers, which start at once.
    pub(crate) fn new(seed: u64, brokers: u64) -> Self {
        let genesis = genesis(brokers);
        let machines = (1..=brokers).map(|id| Machine::new(id, &genesis, BUILD, Clock::right())).collect();
        let mut world = World::empty(machines, ChaCha8Rng::seed_from_u64(seed));
        for broker in world.brokers() {
            world.at(Time(0), Event::Start { broker });
        }
        Self { world, asleep: None, settled: Time(SETTLE_US) }
    }

    /// Lets everything happen that is due until `now`.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub(crate) fn turn(&mut self, now: Time) -> Result<(), Violation> {
        if let Some(until) = self.asleep.take() {
            self.world.skip(now.min(until));
            let late = LATE * self.world.network.weather.delay_us.1;
            self.settled = self.world.now + SETTLE_US + 2 * late;
        }
        self.world.turn(now)
    }

    /// When it wants to be turned again, if nobody does anything before.
    pub(crate) fn next(&mut self) -> Time {
        let now = self.world.now;
        if now >= self.settled
            && let Some(spell) = self.world.quiet_us()
        {
            self.asleep = Some(now + spell);
            return now + spell;
        }
        self.world.events.first_key_value().map_or(Time(u64::MAX), |((at, _), _)| *at)
    }

    /// How many events have happened.
    pub(crate) fn events(&self) -> u64 {
        self.world.summary.events
    }

    /// Checksum of all that happened: the moment of each event, where the stream of chance was, and every byte
    /// between programs and brokers.
    pub(crate) fn trace(&self) -> u32 {
        self.world.trace.clone().finalize()
    }

    /// A number from the seed.
    pub(crate) fn draw(&mut self) -> u64 {
        self.world.random.next_u64()
    }

    /// The time of day. Milliseconds since 1970.
    pub(crate) fn wall_ms(&self) -> u64 {
        Clock::right().wall_ms(self.world.now)
    }

    /// Which cluster this is.
    pub(crate) fn cluster(&self) -> ClusterId {
        CLUSTER
    }

    /// Its brokers.
    pub(crate) fn members(&self) -> Vec<Member> {
        let genesis = genesis(self.world.machines.len() as u64);
        let members = genesis.members().iter();
        members.map(|member| Member { id: member.id, address: member.address.clone() }).collect()
    }

    /// What the brokers that run say of themselves.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = Status> {
        self.world.statuses()
    }

    /// True while a broker runs, be it paused.
    pub(crate) fn runs(&mut self, broker: u64) -> bool {
        self.world.core(broker).is_some()
    }

    /// True while a broker stands still.
    pub(crate) fn is_paused(&mut self, broker: u64) -> bool {
        self.world.machine(broker).paused
    }

    /// Whether two brokers hear each other, both ways.
    pub(crate) fn connects(&self, one: u64, other: u64) -> bool {
        let (one, other) = (Node::Broker(one), Node::Broker(other));
        !self.world.network.is_cut(one, other) && !self.world.network.is_cut(other, one)
    }

    /// A broker ends, and stays down.
    pub(crate) fn end(&mut self, broker: u64, ending: Ending) -> Result<(), Violation> {
        match ending {
            Ending::Kill => self.world.die(broker, Death::Kill, None),
            Ending::PowerCut if self.runs(broker) => self.world.die(broker, Death::PowerCut, None),
            Ending::PowerCut => {
                let World { machines, random, .. } = &mut self.world;
                machines[slot(broker)].die(Death::PowerCut, random);
                Ok(())
            }
            Ending::Terminate => {
                self.world.begin_to_stop(broker, None);
                Ok(())
            }
        }
    }

    /// A broker that is down starts.
    pub(crate) fn start(&mut self, broker: u64) -> Result<(), Violation> {
        self.world.start(broker)
    }

    /// A broker stands still from now on.
    pub(crate) fn pause(&mut self, broker: u64) {
        self.world.machine(broker).paused = true;
    }

    /// A broker goes on.
    pub(crate) fn resume(&mut self, broker: u64) -> Result<(), Violation> {
        self.world.resume(broker)
    }

    /// Nothing that one broker sends reaches the other any more.
    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        self.world.network.cut(Node::Broker(from), Node::Broker(to));
    }

    /// Every link is mended.
    pub(crate) fn heal(&mut self) {
        self.world.network.heal();
    }

    /// The network changes.
    pub(crate) fn change(&mut self, weather: Weather) {
        self.world.network.weather = weather;
    }

    /// A broker's disk hangs for so many microseconds.
    pub(crate) fn hang(&mut self, broker: u64, for_us: u64) {
        self.world.machine(broker).hangs_until = self.world.now + for_us;
    }

    /// A broker's disk is full, or is not any more.
    pub(crate) fn fill(&mut self, broker: u64, is_full: bool) {
        self.world.machine(broker).fill(is_full);
    }

    /// A broker's clocks jump: the monotonic one forwards by so many microseconds, the wall clock anywhere.
    pub(crate) fn jump(&mut self, broker: u64, by_us: u64) {
        let World { machines, random, .. } = &mut self.world;
        machines[slot(broker)].clock.jump(random, by_us);
    }

    /// What a broker sends to programs gets stuck, or is on its way again.
    pub(crate) fn mute(&mut self, broker: u64, is_muted: bool) {
        match is_muted {
            true => self.world.mute(broker),
            false => self.world.unmute(broker),
        }
    }

    /// All programs' connections break, and they learn of it at once.
    pub(crate) fn break_connections(&mut self) {
        self.world.break_connections_of_programs();
    }

    /// A program wants to talk to a broker.
    pub(crate) fn connect(&mut self, broker: u64, port: Box<dyn Port>) -> u64 {
        self.world.connect(End::Program(port), broker)
    }

    /// A program sends a request.
    pub(crate) fn send(&mut self, connection: u64, frame: Frame) {
        self.world.program_sends(connection, frame);
    }

    /// A program has taken a delivery of a subscription.
    pub(crate) fn took(&mut self, connection: u64, id: RequestId) {
        self.world.program_took(connection, id);
    }

    /// A program ends a subscription.
    pub(crate) fn unsubscribe(&mut self, connection: u64, id: RequestId) {
        self.world.send_to_broker(connection, ToBroker::Unsubscribe(id));
    }

    /// A program ends a connection.
    pub(crate) fn close(&mut self, connection: u64) {
        self.world.program_closes(connection);
    }
}
