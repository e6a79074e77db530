//! What goes wrong, and when: a schedule drawn from the seed before the world begins to turn.
//!
//! Each seed switches a random subset of the faults on, and about a quarter of the time is quiet: a world in which
//! everything goes wrong all the time never gets far enough to be interesting.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::chance::{chance, pick, within};
use super::loss::Lost;
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
    /// A broker is told to stop: it hands over, has its last block witnessed, and is started again later.
    Stop { broker: u64, down_us: u64 },
    /// A broker freezes for so many microseconds.
    Pause { broker: u64, for_us: u64 },
    /// A broker is cut off from its peers, in one or both directions.
    Isolate { broker: u64, inward: bool, outward: bool },
    /// One link between two brokers is cut, in one direction.
    CutLink { from: u64, to: u64 },
    /// A connection between two brokers breaks: what was on its way is lost, and both learn of it.
    BreakLink { from: u64, to: u64 },
    /// All links are mended.
    Heal,
    /// The network changes.
    Change(Weather),
    /// A broker's clocks jump, the monotonic one forwards by so many microseconds.
    Jump { broker: u64, by_us: u64 },
    /// A broker's disk has no room for another segment.
    Fill { broker: u64 },
    /// Every disk has room again.
    Free,
    /// One of the next writes or syncs of a broker's disk fails.
    FailDisk { broker: u64 },
    /// A broker's disk hangs for so many microseconds.
    Hang { broker: u64, for_us: u64 },
    /// A disk that all brokers share hangs for so many microseconds: all of them are answered at once then.
    HangAll { for_us: u64 },
    /// A broker dies, its disk changes what it had confirmed, and it is started again.
    Rot { broker: u64, down_us: u64 },
    /// Somebody copies the disk of a broker while it runs.
    Remember { broker: u64 },
    /// A broker dies, something on its disk is lost or put back to what it was, and it is started again.
    Lose { broker: u64, what: Lost, death: Death, down_us: u64 },
    /// A client's connections break.
    Reset { client: usize },
    /// The connections of all clients break, so many times in a row.
    Storm { times: u64 },
    /// What a client sends to a broker is lost; or what it is sent, if not `inward`.
    CutClient { client: usize, broker: u64, inward: bool },
    /// A client sends bytes that mean nothing.
    Garble { client: usize },
    /// A client dies, and its successor comes back under the same name.
    Replace { client: usize },
    /// A client freezes; meanwhile a successor takes its name. Then it wakes up and goes on as if nothing had happened.
    Zombie { client: usize, for_us: u64 },
    /// A client closes its name for ever, and goes on under another one.
    Retire { client: usize },
    /// A client freezes for so many microseconds.
    PauseClient { client: usize, for_us: u64 },
    /// A client's clocks jump, the monotonic one forwards by so many microseconds.
    JumpClient { client: usize, by_us: u64 },
}

impl Fault {
    /// What it is called where it is counted.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Die { .. } => "fault: one dies",
            Self::DieAll { .. } => "fault: all die",
            Self::Stop { .. } => "fault: told to stop",
            Self::Pause { .. } => "fault: paused",
            Self::Isolate { .. } => "fault: isolated",
            Self::CutLink { .. } => "fault: link cut",
            Self::BreakLink { .. } => "fault: connection of peers broken",
            Self::Heal => "links mended",
            Self::Change(_) => "network changed",
            Self::Jump { .. } => "fault: clock jumped",
            Self::Fill { .. } => "fault: disk filled",
            Self::Free => "disks freed",
            Self::FailDisk { .. } => "fault: disk to fail",
            Self::Hang { .. } => "fault: disk hung",
            Self::HangAll { .. } => "fault: all disks hung",
            Self::Rot { .. } => "disk rotten",
            Self::Remember { .. } => "disk copied",
            Self::Lose { .. } => "fault: files lost",
            Self::Reset { .. } => "fault: client reset",
            Self::Storm { .. } => "fault: retry storm",
            Self::CutClient { .. } => "fault: client cut off",
            Self::Garble { .. } => "fault: garbage sent",
            Self::Replace { .. } => "fault: client replaced",
            Self::Zombie { .. } => "fault: client frozen, and followed",
            Self::Retire { .. } => "fault: name retired",
            Self::PauseClient { .. } => "fault: client paused",
            Self::JumpClient { .. } => "fault: client's clock jumped",
        }
    }
}

/// Which kinds of faults a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// None: the network takes its time and that is all.
    Quiet,
    /// A random subset of everything.
    Swarm,
    /// Files of one broker are lost or put back to what they were, while nothing else befalls disks.
    Loss,
}

/// What goes wrong in one run, in the order of time.
#[derive(Clone, Debug)]
pub struct Script(pub(super) Vec<(Time, Fault)>);

impl Script {
    /// How many faults there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing goes wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same without the faults in a range.
    #[must_use]
    pub fn without(&self, range: std::ops::Range<usize>) -> Self {
        let mut faults = self.0.clone();
        faults.drain(range);
        Self(faults)
    }

    /// One line for each fault: when, and what.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(at, fault)| format!("{:>9.3} s  {fault:?}", at.0 as f64 / 1e6))
    }
}

/// Draws the schedule of a run.
pub(super) fn schedule(
    random: &mut ChaCha8Rng,
    profile: Profile,
    brokers: u64,
    clients: usize,
    until: Time,
) -> Script {
    let mut schedule = Vec::new();
    if profile == Profile::Quiet {
        return Script(schedule);
    }
    if profile == Profile::Loss {
        return losses(random, brokers, clients, until);
    }
    let kinds = enabled_kinds(random);
    let mut now = Time::from_ms(within(random, (100, 600)));
    while now < until {
        if chance(random, CALMS_PER_MILLE) {
            schedule.extend([Fault::Heal, Fault::Change(Weather::CALM), Fault::Free].map(|calm| (now, calm)));
            now = now + 1000 * within(random, CALM_MS);
        } else if !kinds.is_empty() {
            let kind = *pick(random, &kinds);
            schedule.push((now, draw(random, kind, brokers, clients)));
        }
        now = now + 1000 * within(random, STEP_MS);
    }
    Script(schedule)
}

/// How long it is from one fault to the next. Milliseconds.
const STEP_MS: (u64, u64) = (20, 900);
/// How often all is made well instead, and how long it stays so beyond a step. Together this leaves a quarter of the time
/// quiet.
const CALMS_PER_MILLE: u64 = 150;
/// Milliseconds.
const CALM_MS: (u64, u64) = (100, 700);
const KINDS: usize = 23;
/// Those of them that hurt neither disks nor what is between brokers, but for a while.
const GENTLE_KINDS: [usize; 15] = [0, 1, 2, 3, SLOW_NETWORK, 7, 8, 9, 10, 12, 13, 18, 20, 21, 22];
/// Here it loses nothing.
const SLOW_NETWORK: usize = 6;
/// How long a broker that loses something is down at least: nothing that it said is still on its way then. Milliseconds.
const DOWN_FOR_LOSS_MS: (u64, u64) = (100, 2_500);
/// The same if its peers shall hardly notice that it was gone. Milliseconds.
const SHORTLY_DOWN_MS: (u64, u64) = (100, 300);
/// How long nothing else happens after a loss: time to come back, to hear of it, and to be repaired. Milliseconds.
const CALM_AFTER_LOSS_MS: (u64, u64) = (5_000, 8_000);
/// No loss is later than this. Microseconds.
const LAST_LOSS_BEFORE_END_US: u64 = 9_000_000;

fn enabled_kinds(random: &mut ChaCha8Rng) -> Vec<usize> {
    (0..KINDS).filter(|_| chance(random, 400)).collect()
}

/// Losses of one broker, and between them what leaves it provable who has what.
fn losses(random: &mut ChaCha8Rng, brokers: u64, clients: usize, until: Time) -> Script {
    let victim = within(random, (1, brokers));
    let kinds: Vec<usize> = GENTLE_KINDS.iter().copied().filter(|_| chance(random, 400)).collect();
    let mut schedule = Vec::new();
    let calm = |now| [Fault::Heal, Fault::Change(Weather::CALM)].map(|calm| (now, calm));
    let mut now = Time::from_ms(within(random, (1_000, 3_000)));
    while now < until {
        match within(random, (0, 9)) {
            0 => {
                schedule.extend(calm(now));
                now = now + 1000 * within(random, (100, 1_500));
            }
            1..=3 => schedule.push((now, Fault::Remember { broker: victim })),
            4..=6 if now + LAST_LOSS_BEFORE_END_US < until => {
                schedule.extend(calm(now));
                schedule.push((now, draw_loss(random, victim)));
                now = now + 1000 * within(random, CALM_AFTER_LOSS_MS);
            }
            _ if !kinds.is_empty() => {
                let kind = *pick(random, &kinds);
                let fault = match kind {
                    SLOW_NETWORK => Fault::Change(Weather::slow(random)),
                    kind => draw(random, kind, brokers, clients),
                };
                schedule.push((now, fault));
            }
            _ => {}
        }
        now = now + 1000 * within(random, STEP_MS);
    }
    Script(schedule)
}

fn draw_loss(random: &mut ChaCha8Rng, broker: u64) -> Fault {
    let death = *pick(random, &[Death::PowerCut, Death::Kill]);
    let is_short = chance(random, 500);
    let down_us = 1000 * within(random, if is_short { SHORTLY_DOWN_MS } else { DOWN_FOR_LOSS_MS });
    Fault::Lose { broker, what: Lost::draw(random), death, down_us }
}

/// A broker that is not this one, if there is such a one.
fn other_than(broker: u64, brokers: u64, random: &mut ChaCha8Rng) -> u64 {
    (broker + within(random, (0, brokers.max(2) - 2))) % brokers + 1
}

fn draw(random: &mut ChaCha8Rng, kind: usize, brokers: u64, clients: usize) -> Fault {
    let broker = within(random, (1, brokers));
    let other = other_than(broker, brokers, random);
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
        11 => Fault::Fill { broker },
        12 => Fault::Stop { broker, down_us },
        13 => Fault::BreakLink { from: broker, to: other },
        14 => Fault::Jump { broker, by_us: down_us },
        15 => Fault::FailDisk { broker },
        16 if down_us.is_multiple_of(3) => Fault::HangAll { for_us: down_us },
        16 => Fault::Hang { broker, for_us: down_us },
        17 => Fault::Rot { broker, down_us },
        18 => Fault::Storm { times: within(random, (2, 12)) },
        19 => Fault::CutClient { client, broker, inward: chance(random, 500) },
        20 => Fault::Garble { client },
        21 => Fault::PauseClient { client, for_us: down_us },
        _ => Fault::JumpClient { client, by_us: down_us },
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_quarter_of_the_time_is_quiet() {
        const SEEDS: u64 = 200;
        let until = Time::from_ms(60_000);
        let mut quiet_us = 0;
        for seed in 0..SEEDS {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let Script(faults) = schedule(&mut random, Profile::Swarm, 3, 3, until);
            // From when all is made well to what happens next.
            let times = faults.iter().zip(faults.iter().skip(1));
            quiet_us += times
                .filter(|((_, fault), _)| matches!(fault, Fault::Free))
                .map(|((since, _), (next, _))| next.since(*since))
                .sum::<u64>();
        }
        let per_mille = 1000 * quiet_us / (SEEDS * until.0);
        assert!((220..280).contains(&per_mille), "{per_mille} of a thousand");
    }
}
