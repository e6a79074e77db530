//! Which broker to talk to, and when to try another.
//!
//! All requests go to the leader; the others are only asked who that is. The routing has one *target* at a time. It
//! turns to another one when the target says that it does not lead (to the one that it names, if it names one), when
//! the connection breaks, or when an answer takes too long. Each turn has a number, and what was sent on an older turn
//! is sent again on the new one.
//!
//! Two turns are free, so that a client finds the new leader at once; from the third on without success each costs a
//! pause that doubles up to a limit. The pause has jitter, from the seed, so that a thousand clients of a dead leader
//! do not come back in the same millisecond.
//!
//! A turn is *confirmed* when the target did something that only a leader does, or said in its hello that it leads.
//! Until then a producer sends one batch as a scout and not its whole window.
//!
//! A broker that kept an answer waiting too long is *suspect* for a while: what others believe of it is older than what
//! happened to us. Its first sign of life ends that.
//!
//! Nobody has to find a new leader by waiting: brokers say unasked who was elected. So a client that is at work keeps
//! connections to all of them, and turns to the new leader in the moment in which the first of the others has heard of
//! it. What is said carries its term, and only a higher one is news.
//!
//! A leader that was killed leaves a connection behind on which it has not said a word since. If it is elected again, the
//! connection may belong to a process that is gone: QUIC asks such a one more and more rarely whether it is there, at last
//! once in seconds. So it is given up for a new one.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Time, Transmit};
use crate::protocol::{BrokerId, Leads, Member};

/// Turns without success that cost nothing.
const FREE_TURNS: u32 = 2;
/// How many times as long as usual an answer may take before the broker counts as silent.
const PATIENCE: u32 = 4;
/// How long a connection may take before another broker is tried besides.
const HEDGE: Duration = Duration::from_millis(250);
/// How long a silent broker is not asked again while there are others: a few elections.
const SUSPICION: Duration = Duration::from_secs(1);
/// How long after its first success a client connects to the other brokers too: one that asks one thing and leaves has
/// no use for them.
const STAND_BY_AFTER: Duration = Duration::from_millis(100);

/// How often in a row a broker that is not needed now may fail to come up before it is tried only once in
/// [`STAND_BY_PAUSE`]. That takes over ten seconds: one that is restarted must be found again before the next one fails.
const STAND_BY_TRIES: u32 = 40;
/// How often a broker is tried that has been down for long, and is not needed now.
const STAND_BY_PAUSE: Duration = Duration::from_secs(5);

/// A connected broker, and the number of the turn to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) broker: BrokerId,
    pub(super) turn: u64,
}

/// Pauses that double up to a limit, with jitter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// The pause before repetition number `repetition`, counted from 0: between half of the nominal one and all of it.
    pub(super) fn pause(&self, repetition: u32, rng: &mut ChaCha8Rng) -> Duration {
        let nominal = self.min.saturating_mul(1 << repetition.min(16)).min(self.max);
        let nominal = u64::try_from(nominal.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.random_range(nominal / 2..=nominal))
    }
}

#[derive(Debug)]
struct Broker {
    address: String,
    configured: bool,
    /// Connections that were not made or broke since it last did what it was asked.
    failures: u32,
    /// Connections that were not made since the last one that was.
    unreached: u32,
    link: Link,
    /// It was left without a word, and has not said one since.
    silent: bool,
}

impl Broker {
    /// When it is to be tried again, if it is down and nobody needs it.
    fn stands_by_from(&self) -> Option<Time> {
        match self.link {
            Link::Down { not_before } if self.unreached >= STAND_BY_TRIES => {
                Some(not_before.after(STAND_BY_PAUSE))
            }
            Link::Down { not_before } => Some(not_before),
            Link::Connecting { .. } | Link::Up => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        not_before: Time,
    },
    /// Counts as failed at `until`; another broker is tried from `hedge` on.
    Connecting {
        hedge: Time,
        until: Time,
    },
    Up,
}

/// Invariants: the target is one of the brokers; there is at least one broker.
#[derive(Debug)]
pub(super) struct Routing {
    brokers: BTreeMap<BrokerId, Broker>,
    target: BrokerId,
    turn: u64,
    confirmed: bool,
    suspect: Option<(BrokerId, Time)>,
    /// Turns since a target last did what it was asked, or somebody said whom to ask.
    unlucky: u32,
    /// How many of them were made because an answer took too long.
    slow: u32,
    /// The highest term of which somebody said who leads it.
    term: u64,
    /// From when on connections to all brokers are kept. None before the first success.
    stand_by_from: Option<Time>,
    /// How long answers take of late: a moving average.
    usual: Duration,
    not_before: Time,
    backoff: Backoff,
    connect_timeout: Duration,
    rng: ChaCha8Rng,
}

impl Routing {
    /// Routing among `members`, of which there is at least one; begins with one of them by lot.
    pub(super) fn new(
        members: &[Member],
        backoff: Backoff,
        connect_timeout: Duration,
        mut rng: ChaCha8Rng,
    ) -> Self {
        assert!(!members.is_empty(), "a client needs at least one broker to begin with");
        let target = members[rng.random_range(0..members.len())].id;
        let down = Link::Down { not_before: Time(0) };
        let brokers = members
            .iter()
            .map(|Member { id, address }| {
                (
                    *id,
                    Broker {
                        address: address.clone(),
                        configured: true,
                        failures: 0,
                        unreached: 0,
                        link: down,
                        silent: false,
                    },
                )
            })
            .collect();
        Self {
            brokers,
            target,
            turn: 1,
            confirmed: false,
            suspect: None,
            unlucky: 0,
            slow: 0,
            term: 0,
            stand_by_from: None,
            usual: Duration::ZERO,
            not_before: Time(0),
            backoff,
            connect_timeout,
            rng,
        }
    }

    /// Where to send now, if anywhere. Asks for the connection if it is missing.
    pub(super) fn route(&mut self, now: Time, out: &mut impl Extend<Transmit>) -> Option<Route> {
        if now < self.not_before {
            return None;
        }
        self.link(now, self.target, out).then_some(Route { broker: self.target, turn: self.turn })
    }

    /// Whether there is a connection to this broker. Asks for one if it is missing.
    pub(super) fn link(&mut self, now: Time, id: BrokerId, out: &mut impl Extend<Transmit>) -> bool {
        let Some(broker) = self.brokers.get_mut(&id) else { return false };
        if let Link::Down { not_before } = broker.link
            && not_before <= now
        {
            let (hedge, until) = (now.after(HEDGE), now.after(self.connect_timeout));
            broker.link = Link::Connecting { hedge, until };
            out.extend([Transmit::Connect { broker: id, address: broker.address.clone() }]);
        }
        broker.link == Link::Up
    }

    /// Asks for connections to the other brokers too, if this client is at work.
    pub(super) fn stand_by(&mut self, now: Time, out: &mut impl Extend<Transmit>) {
        if self.confirmed && self.stand_by_from.is_none() {
            self.stand_by_from = Some(now.after(STAND_BY_AFTER));
        }
        if self.stands_by(now) {
            let due = |broker: &Broker| broker.stands_by_from().is_none_or(|from| from <= now);
            let due: Vec<_> =
                self.brokers.iter().filter(|(_, broker)| due(broker)).map(|(id, _)| *id).collect();
            for id in due {
                self.link(now, id, out);
            }
        }
    }

    fn stands_by(&self, now: Time) -> bool {
        self.stand_by_from.is_some_and(|from| from <= now)
    }

    /// Whether this broker is known.
    pub(super) fn knows(&self, id: BrokerId) -> bool {
        self.brokers.contains_key(&id)
    }

    /// Everybody, in the order of their ids.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        self.brokers.iter().map(|(id, broker)| Member { id: *id, address: broker.address.clone() })
    }

    /// The number of the present turn.
    #[cfg(test)]
    pub(super) fn turn(&self) -> u64 {
        self.turn
    }

    /// A broker answered a hello. True if that was waited for.
    pub(super) fn connected(
        &mut self,
        now: Time,
        id: BrokerId,
        members: &[Member],
        leader: Option<BrokerId>,
    ) -> bool {
        match self.brokers.get_mut(&id) {
            Some(broker) if matches!(broker.link, Link::Connecting { .. }) => {
                (broker.link, broker.unreached) = (Link::Up, 0);
            }
            _ => return false,
        }
        self.learn(members);
        self.heard(id);
        if id == self.target {
            match leader.filter(|leader| self.is_good_hint(now, *leader)) {
                Some(leader) => self.turn_to(now, leader),
                None => {
                    self.turn += 1;
                    self.confirmed = leader == Some(id);
                }
            }
        }
        true
    }

    fn is_good_hint(&self, now: Time, leader: BrokerId) -> bool {
        leader != self.target && self.knows(leader) && !self.is_suspect(now, leader)
    }

    fn is_suspect(&self, now: Time, id: BrokerId) -> bool {
        self.suspect.is_some_and(|(suspect, until)| suspect == id && now < until)
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, id: BrokerId) {
        self.suspect.take_if(|(suspect, _)| *suspect == id);
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.silent = false;
        }
    }

    /// Whether the target is known to lead.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// What was sent on turn `turn` was answered as only a leader does.
    pub(super) fn confirm(&mut self, turn: u64) {
        self.confirmed |= turn == self.turn;
    }

    /// The members as a broker knows them, and those that the user named.
    fn learn(&mut self, members: &[Member]) {
        for Member { id, address } in members {
            let down = Link::Down { not_before: Time(0) };
            let unknown = Broker {
                address: String::new(),
                configured: false,
                failures: 0,
                unreached: 0,
                link: down,
                silent: false,
            };
            self.brokers.entry(*id).or_insert(unknown).address.clone_from(address);
        }
        let target = self.target;
        self.brokers.retain(|id, broker| {
            let gone = matches!(broker.link, Link::Down { .. }) && *id != target;
            broker.configured || !gone || members.iter().any(|member| member.id == *id)
        });
    }

    /// A connection broke, or was not made.
    pub(super) fn disconnected(&mut self, now: Time, id: BrokerId) {
        let Some(broker) = self.brokers.get_mut(&id) else { return };
        if matches!(broker.link, Link::Down { .. }) {
            return;
        }
        let pause = self.backoff.pause(broker.failures, &mut self.rng);
        broker.failures = broker.failures.saturating_add(1);
        broker.unreached = broker.unreached.saturating_add(u32::from(broker.link != Link::Up));
        broker.link = Link::Down { not_before: now.after(pause) };
        if id == self.target {
            let next = self.next_candidate(now);
            self.turn_to(now, next);
        }
    }

    /// Who did not come up in time; they count as disconnected from now on. A target that is merely slow to come up is
    /// left for another one.
    pub(super) fn overdue(&mut self, now: Time) -> Vec<BrokerId> {
        let slow = |broker: &Broker| matches!(broker.link, Link::Connecting { hedge, .. } if hedge <= now);
        if self.brokers.get(&self.target).is_some_and(slow) {
            let next = self.next_candidate(now);
            self.turn_to(now, next);
        }
        let overdue = |broker: &Broker| matches!(broker.link, Link::Connecting { until, .. } if until <= now);
        let late: Vec<_> =
            self.brokers.iter().filter(|(_, broker)| overdue(broker)).map(|(id, _)| *id).collect();
        late.iter().for_each(|id| self.disconnected(now, *id));
        late
    }

    /// A broker did what it was asked.
    pub(super) fn succeeded(&mut self, id: BrokerId) {
        if id == self.target {
            self.be_lucky();
            self.confirmed = true;
        }
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.failures = 0;
        }
    }

    /// What was sent on turn `turn` was not done there; perhaps the broker said who would. Only the first such news
    /// of a turn counts: the others say the same.
    pub(super) fn turn_away(&mut self, now: Time, turn: u64, leader: Option<BrokerId>) {
        if turn != self.turn {
            return;
        }
        let named = leader.filter(|leader| self.is_good_hint(now, *leader));
        let next = named.unwrap_or_else(|| self.next_candidate(now));
        self.turn_to(now, next);
    }

    fn be_lucky(&mut self) {
        (self.unlucky, self.slow) = (0, 0);
    }

    /// A broker says unasked who leads. Who was elected is alive, so it is dialled at once, also in place of a try that was
    /// begun while it was not: QUIC's pauses between two packets double. True if there is a connection to it that may
    /// belong to a process that is gone: the caller gives it up.
    #[must_use]
    pub(super) fn told(&mut self, now: Time, by: BrokerId, Leads { term, leader }: Leads) -> bool {
        let Some(broker) = self.brokers.get_mut(&leader).filter(|_| term > self.term) else { return false };
        let is_stale = broker.link == Link::Up && broker.silent;
        if broker.link != Link::Up || is_stale {
            broker.link = Link::Down { not_before: now };
        }
        self.term = term;
        self.heard(leader);
        self.be_lucky();
        if leader != self.target && by != self.target {
            self.leave_silent();
        }
        if leader != self.target || !self.confirmed || is_stale {
            self.turn_to(now, leader);
            self.confirmed = true;
        }
        is_stale
    }

    /// What was sent on turn `turn` has no answer yet, and it should.
    pub(super) fn too_slow(&mut self, now: Time, turn: u64) {
        if turn == self.turn {
            self.slow = self.slow.saturating_add(1);
            self.suspect = Some((self.target, now.after(SUSPICION)));
            self.leave_silent();
            self.turn_away(now, turn, None);
        }
    }

    /// The target is left, and not because of a word of its own.
    fn leave_silent(&mut self) {
        if let Some(left) = self.brokers.get_mut(&self.target) {
            left.silent = true;
        }
    }

    /// An answer took this long.
    pub(super) fn took(&mut self, sample: Duration) {
        self.usual = (self.usual * 7 + sample) / 8;
    }

    /// How long an answer may take: at least `least`, more where answers usually take long, and more with each one that
    /// took too long.
    pub(super) fn patience(&self, least: Duration) -> Duration {
        least.max(self.usual * PATIENCE).saturating_mul(1 << self.slow.min(3))
    }

    /// The next broker in a circle, rather one that is connected or may be tried now.
    fn next_candidate(&self, now: Time) -> BrokerId {
        let after = self.brokers.range((std::ops::Bound::Excluded(self.target), std::ops::Bound::Unbounded));
        let circle: Vec<_> = after.chain(self.brokers.range(..=self.target)).collect();
        let usable = |(id, broker): &&(&BrokerId, &Broker)| match broker.link {
            _ if self.is_suspect(now, **id) => false,
            Link::Up => true,
            Link::Connecting { .. } => false,
            Link::Down { not_before } => not_before <= now,
        };
        let best = circle.iter().find(usable).or(circle.first());
        best.map_or(self.target, |(id, _)| **id)
    }

    fn turn_to(&mut self, now: Time, target: BrokerId) {
        self.target = target;
        self.turn += 1;
        self.confirmed = false;
        self.not_before = match self.unlucky.checked_sub(FREE_TURNS) {
            Some(repetition) => now.after(self.backoff.pause(repetition, &mut self.rng)),
            None => now,
        };
        self.unlucky = self.unlucky.saturating_add(1);
    }

    /// A pause for a request that is refused for now.
    pub(super) fn pause(&mut self, repetition: u32) -> Duration {
        self.backoff.pause(repetition, &mut self.rng)
    }

    /// When to look at it again. `wanted` are the brokers besides the target that are waited for.
    pub(super) fn wake(&self, now: Time, wanted: &[BrokerId]) -> Time {
        let stands_by = self.stands_by(now);
        let later = |at: Time| if at > now { at } else { Time::NEVER };
        let link = |(id, broker): (&BrokerId, &Broker)| match broker.link {
            Link::Connecting { hedge, .. } if *id == self.target && hedge > now => hedge,
            Link::Connecting { until, .. } => until,
            Link::Down { not_before } if *id == self.target || wanted.contains(id) => later(not_before),
            Link::Down { .. } if stands_by => broker.stands_by_from().map_or(Time::NEVER, later),
            Link::Down { .. } | Link::Up => Time::NEVER,
        };
        let links = self.brokers.iter().map(link);
        let own = [self.not_before, self.stand_by_from.unwrap_or(Time::NEVER)].map(later);
        links.chain(own).min().unwrap_or(Time::NEVER)
    }
}
