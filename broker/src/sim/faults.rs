//! What goes wrong, and when: a schedule drawn from the seed before the world begins to turn.
//!
//! Each seed switches a random subset of the faults on, and about a quarter of the time is quiet: a world in which
//! everything goes wrong all the time never gets far enough to be interesting.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::chance::{chance, pick, within};
use super::machine::Death;
use super::network::Weather;
use crate::core::time::Time;

/// One thing that goes wrong, or right again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// A broker dies, and is started again after so many microseconds.
    Die { broker: u64, death: Death, down_us: u64 },
    /// All brokers die at the same moment.
    DieAll { death: Death, down_us: u64 },
    /// A broker freezes for so many microseconds.
    Pause { broker: u64, for_us: u64 },
    /// A broker is cut off from its peers, in one or both directions.
    Isolate { broker: u64, inward: bool, outward: bool },
    /// One link between two brokers is cut, in one direction.
    CutLink { from: u64, to: u64 },
    /// All links are mended.
    Heal,
    /// The network changes.
    Change(Weather),
    /// A client's connections break.
    Reset { client: usize },
    /// A client dies, and its successor comes back under the same name.
    Replace { client: usize },
    /// A client freezes; meanwhile a successor takes its name. Then it wakes up and goes on as if nothing had happened.
    Zombie { client: usize, for_us: u64 },
    /// A client closes its name for ever, and goes on under another one.
    Retire { client: usize },
    /// A broker's disk has no room for another segment.
    Fill { broker: u64 },
    /// Every disk has room again.
    Free,
}

/// Which kinds of faults a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// None: the network takes its time and that is all.
    Quiet,
    /// A random subset of everything.
    Swarm,
}

/// Draws the schedule of a run, in the order of time.
pub(super) fn schedule(
    random: &mut ChaCha8Rng,
    profile: Profile,
    brokers: u64,
    clients: usize,
    until: Time,
) -> Vec<(Time, Fault)> {
    if profile == Profile::Quiet {
        return Vec::new();
    }
    let kinds = enabled_kinds(random);
    let mut schedule = Vec::new();
    let mut now = Time::from_ms(within(random, (100, 600)));
    while now < until {
        let quiet = chance(random, 250);
        if quiet {
            schedule.push((now, Fault::Heal));
            schedule.push((now, Fault::Change(Weather::CALM)));
            schedule.push((now, Fault::Free));
        } else if let Some(kind) = (!kinds.is_empty()).then(|| *pick(random, &kinds)) {
            schedule.push((now, draw(random, kind, brokers, clients)));
        }
        now = now + 1000 * within(random, (20, 900));
    }
    schedule
}

const KINDS: usize = 12;

fn enabled_kinds(random: &mut ChaCha8Rng) -> Vec<usize> {
    (0..KINDS).filter(|_| chance(random, 500)).collect()
}

fn draw(random: &mut ChaCha8Rng, kind: usize, brokers: u64, clients: usize) -> Fault {
    let broker = within(random, (1, brokers));
    let other = broker % brokers + 1;
    let client = usize::try_from(random.next_u64() % clients as u64).expect("below the number of clients");
    let death = *pick(random, &[Death::PowerCut, Death::Kill]);
    let down_us = 1000 * within(random, (1, 1500));
    match kind {
        0 | 1 => Fault::Die { broker, death, down_us },
        2 => Fault::DieAll { death, down_us },
        3 => Fault::Pause { broker, for_us: down_us },
        4 => {
            let inward = chance(random, 700);
            Fault::Isolate { broker, inward, outward: !inward || chance(random, 500) }
        }
        5 => Fault::CutLink { from: broker, to: other },
        6 => Fault::Change(Weather::draw(random)),
        7 => Fault::Reset { client },
        8 => Fault::Replace { client },
        9 => Fault::Zombie { client, for_us: down_us * 2 },
        10 => Fault::Retire { client },
        _ => Fault::Fill { broker },
    }
}
