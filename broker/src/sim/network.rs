//! A network in virtual time: it delays, loses, doubles, reorders and cuts.
//!
//! Peers are connected by *datagrams*: each message has its own fate, so messages overtake each other. That is harsher
//! than the streams of a real cluster, and raft must stand it. Clients are connected by *connections*: what was sent
//! arrives in order, until the connection breaks and loses what was on its way.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;

use super::chance::{chance, within};
use crate::core::time::Time;

/// How bad the network is. Probabilities are per thousand, times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay_us: (u64, u64),
    pub(crate) loss_per_mille: u64,
    pub(crate) double_per_mille: u64,
    /// How often a message takes ten times as long.
    pub(crate) late_per_mille: u64,
}

impl Weather {
    /// A network that only takes its time.
    pub(super) const CALM: Self =
        Self { delay_us: (50, 500), loss_per_mille: 0, double_per_mille: 0, late_per_mille: 0 };

    /// Draws a network that takes more time, and loses nothing.
    pub(super) fn slow(random: &mut ChaCha8Rng) -> Self {
        Self { delay_us: (50, within(random, (1_000, 20_000))), ..Self::CALM }
    }

    /// Draws a network that is bad in some ways and not in others.
    pub(super) fn draw(random: &mut ChaCha8Rng) -> Self {
        let mut sometimes = |most: u64| if chance(random, 500) { within(random, (1, most)) } else { 0 };
        Self {
            loss_per_mille: sometimes(100),
            double_per_mille: sometimes(100),
            late_per_mille: sometimes(50),
            delay_us: (50, 500 + sometimes(20_000)),
        }
    }
}

/// Who is at one end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// A broker, by its id.
    Broker(u64),
    /// A client of this world, by its number.
    Client(usize),
}

/// Which links are cut, and how bad the others are.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) weather: Weather,
    cuts: BTreeSet<(Node, Node)>,
    /// So many messages of one broker to another are on their way at the same time, at most; the next one is lost, as in a
    /// queue that is full. Without it: any number. Count.
    queue_max: Option<usize>,
    /// When what is on its way between two brokers arrives; only where there is a limit.
    on_their_way: BTreeMap<(u64, u64), Vec<Time>>,
}

impl Network {
    pub(super) fn new(weather: Weather, queue_max: Option<usize>) -> Self {
        Self { weather, cuts: BTreeSet::new(), queue_max, on_their_way: BTreeMap::new() }
    }

    /// Cuts what travels from one to the other. The way back is another link.
    pub(super) fn cut(&mut self, from: Node, to: Node) {
        self.cuts.insert((from, to));
    }

    /// Mends every link.
    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether every link works, and nothing is lost on it.
    #[cfg(feature = "virtual")]
    pub(super) fn is_sound(&self) -> bool {
        self.cuts.is_empty() && self.weather.loss_per_mille == 0
    }

    /// When the copies of one datagram arrive: none if it is lost, two if it is doubled.
    pub(super) fn arrivals(&mut self, random: &mut ChaCha8Rng, now: Time, from: u64, to: u64) -> Vec<Time> {
        let is_cut = self.is_cut(Node::Broker(from), Node::Broker(to));
        if is_cut || chance(random, self.weather.loss_per_mille) {
            return Vec::new();
        }
        let mut arrivals = vec![now + self.delay(random)];
        if chance(random, self.weather.double_per_mille) {
            arrivals.push(now + self.delay(random));
        }
        if self.queue_max.is_some() {
            self.on_their_way.entry((from, to)).or_default().extend_from_slice(&arrivals);
        }
        arrivals
    }

    /// Whether so much is on its way from one broker to another that nothing more can be taken.
    pub(super) fn is_full(&mut self, now: Time, from: u64, to: u64) -> bool {
        let (Some(max), Some(queue)) = (self.queue_max, self.on_their_way.get_mut(&(from, to))) else {
            return false;
        };
        queue.retain(|at| *at > now);
        queue.len() >= max
    }

    /// What is on its way between two brokers will not arrive.
    pub(super) fn forget(&mut self, one: u64, other: u64) {
        self.on_their_way.retain(|link, _| *link != (one, other) && *link != (other, one));
    }

    /// How long one message takes.
    pub(super) fn delay(&self, random: &mut ChaCha8Rng) -> u64 {
        let delay = within(random, self.weather.delay_us);
        if chance(random, self.weather.late_per_mille) { delay * 10 } else { delay }
    }
}
