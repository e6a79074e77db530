//! Clients of the simulated world: the library's own decisions, driven by somebody who writes and reads all the time.
//!
//! Each client opens a producer's name, appends batches whose content is a function of name and sequence, and follows
//! the log from an offset on. When its producer ends, whatever the reason, it opens the name again and goes on where
//! the brokers say the name stands; or from a number before, so that what is written is sent once more, in other batches.
//! Each has clocks of its own, which run as wrong as those of brokers.
//! Sometimes its numbers are its own, to be given up when they fail, and sometimes not. Some write without a name, under
//! one session after the other. A name that was retired is followed by another one. That is all a real program would do,
//! and it must be enough.

mod news;

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sequor_client::core::{
    AppendRefused, Call, Config, Numbers, ProducerKey, Session, Style, SubscriptionKey, Time as ClientTime,
};
use sequor_client::protocol::batch::BatchBuilder;
use sequor_client::protocol::{
    Acks, BrokerId, Codec, Epoch, Member, Offset, ProducerId, Resolve, Retire, Sequence,
};

use super::chance::{chance, within};
use super::clock::Clock;
use super::content;
use super::judge::Violation;
use super::machine::CLUSTER;
use super::questions::Questions;
use super::recorder::{Recorder, Sent};
use crate::core::time::Time;
use crate::history::{Digest, Event};

/// Names that clients write under at the beginning; each has one client.
const NAMES: usize = 3;
/// Pause of a writer between two batches while it is busy, in microseconds.
const BUSY_US: (u64, u64) = (0, 25_000);
/// The same while it is idle.
const IDLE_US: (u64, u64) = (0, 2_000_000);
/// How often a writer turns from busy to idle, and how often back, per thousand batches.
const TURNS_IDLE_PER_MILLE: u64 = 70;
const TURNS_BUSY_PER_MILLE: u64 = 200;
/// How often it asks something after a batch, per thousand batches.
const ASKS_PER_MILLE: u64 = 60;
/// Pause before a writer opens its name again.
const REOPEN_US: (u64, u64) = (1_000, 300_000);
/// How long a writer waits for the outcome of a batch: it is patient, or it is not.
const DEADLINE_US: (u64, u64) = (500_000, 20_000_000);
const SHORT_DEADLINE_US: (u64, u64) = (1_000, 200_000);
/// How long a session lives without being kept alive: often not as long as what goes wrong.
const TTL_US: (u64, u64) = (500_000, 3_000_000);
/// Numbers that are sent once more after the name was opened, at most.
const RESENT_MAX: u64 = 40;
/// Records that a successor reads once more, at most.
const REREAD_MAX: u64 = 500;
/// How often it is as many as there are, per thousand.
const FROM_ANYWHERE_PER_MILLE: u64 = 200;
const BATCH_RECORDS: (u64, u64) = (1, 12);
const IN_FLIGHT_BATCHES: usize = 6;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Client {
    name: String,
    random: ChaCha8Rng,
    pub(super) clock: Clock,
    pub(super) session: Session,
    /// Counts its incarnations. What was sent to an earlier one does not reach a later one.
    pub(super) generation: u64,
    pub(super) connections: BTreeMap<BrokerId, u64>,
    writer: Writer,
    /// What it knows to be written of its name ends here.
    certain: Sequence,
    impatient: bool,
    /// It writes under sessions.
    nameless: bool,
    is_idle: bool,
    /// Names that are being closed.
    retiring: BTreeMap<Call, String>,
    /// Batches without an outcome.
    sent: Sent,
    questions: Questions,
    /// How many brokers there are.
    brokers: u64,
    subscription: SubscriptionKey,
    /// Unique in the world: the judge follows each subscription by itself.
    pub(super) reader: u64,
    names: BTreeMap<ProducerId, String>,
    pub(super) frozen_until: Time,
    pub(super) wake_at: Option<Time>,
    /// Somebody else has taken over: once fenced, it stops.
    has_heir: bool,
    /// The faults are over: it finishes what it began, and writes one more batch.
    stopping: bool,
    /// The last batch that it has begun since.
    begun_since_calm: Option<(ProducerKey, Sequence)>,
    /// One of those was written.
    written_since_calm: bool,
}

#[derive(Clone, Copy, Debug)]
enum Writer {
    /// Opens its name at this moment.
    Closed { until: Time },
    /// Its name is being opened, to write from this number on, if not the next one; and which question that is, if it is
    /// known whose name.
    Opening { key: ProducerKey, from: Option<Sequence>, question: Option<u64> },
    /// Open; the next batch at this moment.
    Open {
        key: ProducerKey,
        id: ProducerId,
        epoch: Epoch,
        next: Sequence,
        /// Records without an outcome.
        in_flight: u64,
        until: Time,
    },
    /// Fenced by its heir, for good.
    Retired,
}

impl Client {
    /// The clients that a world begins with. They read from the start of the log.
    pub(super) fn crowd(brokers: u64, random: &mut ChaCha8Rng) -> Vec<Self> {
        let client = |number| {
            let name = format!("writer-{number}");
            let mut client = Self::new(brokers, name, 1 + number as u64, random.next_u64());
            client.nameless = number == 0 && chance(random, 500);
            client
        };
        (0..NAMES).map(client).collect()
    }

    /// Somebody who takes the name of `client` over.
    pub(super) fn heir_of(client: &Self, reader: u64, seed: u64) -> Self {
        Self { nameless: client.nameless, ..Self::new(client.brokers, client.name.clone(), reader, seed) }
    }

    fn new(brokers: u64, name: String, reader: u64, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let clock = Clock::draw(&mut random);
        let (session, subscription) = begin(brokers, &mut random, clock.read(Time(0)), Offset(0));
        Self {
            name,
            clock,
            session,
            generation: 0,
            connections: BTreeMap::new(),
            writer: Writer::Closed { until: Time(0) },
            certain: Sequence(0),
            impatient: chance(&mut random, 300),
            nameless: false,
            is_idle: false,
            retiring: BTreeMap::new(),
            sent: Sent::default(),
            questions: Questions::default(),
            brokers,
            subscription,
            reader: reader << 32,
            names: BTreeMap::new(),
            frozen_until: Time(0),
            wake_at: None,
            has_heir: false,
            stopping: false,
            begun_since_calm: None,
            written_since_calm: false,
            random,
        }
    }

    /// It dies; its successor has the same name, knows nothing, and reads on from a record that it has seen before.
    pub(super) fn replace(&mut self, now: Time, recorder: &mut Recorder) -> Result<(), Violation> {
        let position = self.session.position(self.subscription).unwrap_or_default();
        let back = if chance(&mut self.random, FROM_ANYWHERE_PER_MILLE) { position.0 } else { REREAD_MAX };
        let from = Offset(within(&mut self.random, (position.0.saturating_sub(back), position.0)));
        (self.session, self.subscription) = begin(self.brokers, &mut self.random, self.clock.read(now), from);
        self.retiring.clear();
        self.sent.forget();
        self.questions.forget();
        self.generation += 1;
        self.reader += 1;
        self.connections.clear();
        self.names.clear();
        if !matches!(self.writer, Writer::Retired) {
            self.writer = Writer::Closed { until: now };
        }
        recorder.record(&Event::Subscribed { reader: self.reader, from: from.0 })
    }

    /// It stops for a while, as after SIGSTOP, and is followed; false if it is stopped already or was followed.
    pub(super) fn leave_to_heir(&mut self, now: Time, until: Time) -> bool {
        if !self.has_no_heir(now) {
            return false;
        }
        self.has_heir = true;
        self.freeze(now, until);
        true
    }

    /// It stops for a while, if it is not stopped already.
    pub(super) fn freeze(&mut self, now: Time, until: Time) {
        if !self.is_frozen(now) {
            self.frozen_until = until;
        }
    }

    pub(super) fn is_frozen(&self, now: Time) -> bool {
        now < self.frozen_until
    }

    /// The faults are over.
    pub(super) fn calm_down(&mut self, now: Time) {
        self.stopping = true;
        self.frozen_until = Time(0);
        if let Writer::Open { until, .. } | Writer::Closed { until } = &mut self.writer {
            *until = now;
        }
    }

    /// Whether it has a name that it could close.
    pub(super) fn has_open_name(&self, now: Time) -> bool {
        !self.is_frozen(now) && matches!(self.writer, Writer::Open { .. })
    }

    /// Whether it can be frozen and followed.
    pub(super) fn has_no_heir(&self, now: Time) -> bool {
        !self.is_frozen(now) && !self.has_heir
    }

    /// What its clock shows.
    pub(super) fn time(&self, now: Time) -> ClientTime {
        ClientTime(self.clock.read(now).0)
    }

    /// A moment after `now` on its clock.
    fn deadline(&mut self, now: Time, wait_us: (u64, u64)) -> ClientTime {
        let until = now + within(&mut self.random, wait_us);
        self.time(until)
    }

    /// When its library wants to be woken.
    pub(super) fn next_timeout(&self, now: Time) -> Time {
        let ClientTime(next) = self.session.next_timeout();
        if next == NEVER.0 { NEVER } else { self.clock.when(Time(next), now) }
    }

    /// True if it has nothing more to write and has read up to `end`.
    pub(super) fn is_done(&self, end: Offset) -> bool {
        let written = match self.writer {
            Writer::Open { in_flight, .. } => in_flight == 0 && self.written_since_calm,
            Writer::Retired => true,
            Writer::Closed { .. } | Writer::Opening { .. } => false,
        };
        written && self.session.position(self.subscription) == Some(end)
    }

    /// True if something was written that it had begun when the faults were over.
    pub(super) fn has_written(&self) -> bool {
        self.written_since_calm
    }

    /// What it is doing, for a report.
    pub(super) fn state(&self) -> String {
        let position = self.session.position(self.subscription);
        format!("{} writes {:?}, has read up to {position:?}", self.name, self.writer)
    }

    /// Writes what is due, and says when the next thing is.
    pub(super) fn write(&mut self, now: Time, recorder: &mut Recorder) -> Result<Time, Violation> {
        match self.writer {
            Writer::Closed { until } if until <= now => {
                self.open(now, recorder)?;
                Ok(NEVER)
            }
            Writer::Open { until, .. } if until <= now => {
                self.ask(now, recorder)?;
                self.append(now, recorder)
            }
            Writer::Closed { until } | Writer::Open { until, .. } => Ok(until),
            Writer::Opening { .. } | Writer::Retired => Ok(NEVER),
        }
    }

    fn open(&mut self, now: Time, recorder: &mut Recorder) -> Result<(), Violation> {
        let deadline = self.deadline(now, DEADLINE_US);
        if self.nameless {
            let ttl = Duration::from_micros(within(&mut self.random, TTL_US));
            let acks = if chance(&mut self.random, 300) { Acks::Leader } else { Acks::Quorum };
            let key = self.session.open_session(self.time(now), ttl, acks, deadline);
            self.writer = Writer::Opening { key, from: None, question: None };
            return Ok(());
        }
        let numbers = if chance(&mut self.random, 500) { Numbers::Own } else { Numbers::Meaningful };
        let certain = self.certain.0;
        let again = (certain.saturating_sub(RESENT_MAX), certain);
        let from = chance(&mut self.random, 400).then(|| Sequence(within(&mut self.random, again)));
        let acks = if chance(&mut self.random, 300) { Acks::Leader } else { Acks::Quorum };
        let style = Style { from, numbers, acks };
        let key = self.session.open_producer(self.time(now), &self.name, style, deadline);
        let id = recorder.id();
        self.writer = Writer::Opening { key, from, question: Some(id) };
        recorder.record(&Event::Inquired { id, producer: self.name.clone() })
    }

    fn append(&mut self, now: Time, recorder: &mut Recorder) -> Result<Time, Violation> {
        let Writer::Open { key, id, epoch, next, in_flight, .. } = self.writer else { return Ok(NEVER) };
        if self.stopping && (self.written_since_calm || in_flight > 0) {
            return Ok(NEVER);
        }
        let codec = if chance(&mut self.random, 250) { Codec::Lz4 } else { Codec::None };
        let (mut builder, mut digest) = (BatchBuilder::new().packed(codec), Digest::default());
        for sequence in (next.0..).map(Sequence).take(count(&mut self.random)) {
            let record = content::record(&self.name, sequence);
            builder.push(&record).expect("a dozen small records fit a batch");
            digest = digest + content::digest(&self.name, sequence, &record);
        }
        let count = u32::try_from(builder.count()).expect("a dozen records");
        let patience = if self.impatient && !self.stopping { SHORT_DEADLINE_US } else { DEADLINE_US };
        let deadline = self.deadline(now, patience);
        let until = now + self.think();
        match self.session.append(self.time(now), key, builder, deadline) {
            Ok(first) => {
                assert_eq!(first, next, "the library numbers batches without gap");
                let (attempt, producer) = (recorder.id(), self.name.clone());
                self.sent.begin(key, first, attempt, count);
                self.begun_since_calm = self.stopping.then_some((key, first));
                recorder.record(&Event::Invoked {
                    id: attempt,
                    producer,
                    epoch: epoch.0,
                    first: first.0,
                    count,
                    digest,
                })?;
                let (next, in_flight) = (next.plus(count.into()), in_flight + u64::from(count));
                self.writer = Writer::Open { key, id, epoch, next, in_flight, until };
                Ok(until)
            }
            // There will be an event when there is room, or when the producer is over.
            Err(AppendRefused::Full) => Ok(NEVER),
            Err(_) => {
                self.reopen(now);
                Ok(now)
            }
        }
    }

    /// How long it waits before the next batch. It is busy for a while and then idle for a while.
    fn think(&mut self) -> u64 {
        let turns = if self.is_idle { TURNS_BUSY_PER_MILLE } else { TURNS_IDLE_PER_MILLE };
        self.is_idle ^= chance(&mut self.random, turns);
        within(&mut self.random, if self.is_idle && !self.stopping { IDLE_US } else { BUSY_US })
    }

    /// Asks for the end of the log, or what became of a number, now and then.
    fn ask(&mut self, now: Time, recorder: &mut Recorder) -> Result<(), Violation> {
        if !self.questions.has_room() || !chance(&mut self.random, ASKS_PER_MILLE) {
            return Ok(());
        }
        let deadline = self.deadline(now, DEADLINE_US);
        let Writer::Open { id, epoch, next, .. } = self.writer else { return Ok(()) };
        if chance(&mut self.random, 500) {
            self.questions.ask_end(self.session.end(self.time(now), deadline), recorder)
        } else {
            let sequence = Sequence(within(&mut self.random, (0, next.0 + 3)));
            let resolve = Resolve { producer: id, epoch, sequence, seal: false };
            let call = self.session.resolve(self.time(now), resolve, deadline);
            self.questions.ask_number(call, &self.name, sequence, recorder)
        }
    }

    /// Gives the producer up and opens the name again after a pause.
    fn reopen(&mut self, now: Time) {
        if let Writer::Open { key, .. } | Writer::Opening { key, .. } = self.writer {
            self.session.close_producer(key);
        }
        self.writer = Writer::Closed { until: now + within(&mut self.random, REOPEN_US) };
    }

    /// Its name is closed for ever: it goes on under another one.
    fn rename(&mut self, now: Time) {
        if !self.nameless {
            self.name.push('+');
        }
        self.certain = Sequence(0);
        self.reopen(now);
    }

    /// Closes its name, if it has it open.
    pub(super) fn retire(&mut self, now: Time) {
        if let Writer::Open { id, epoch, .. } = self.writer {
            let deadline = self.deadline(now, DEADLINE_US);
            let call = self.session.retire(self.time(now), Retire { producer: id, epoch }, deadline);
            self.retiring.insert(call, self.name.clone());
        }
    }
}

pub(super) const NEVER: Time = Time(u64::MAX);

fn count(random: &mut ChaCha8Rng) -> usize {
    let most = if chance(random, 50) { BATCH_RECORDS.1 * 20 } else { BATCH_RECORDS.1 };
    usize::try_from(within(random, (BATCH_RECORDS.0, most))).expect("a small number")
}

fn begin(brokers: u64, random: &mut ChaCha8Rng, now: Time, from: Offset) -> (Session, SubscriptionKey) {
    let member = |id| Member { id: BrokerId(id), address: format!("broker-{id}:7400") };
    let config = Config {
        in_flight_batches: IN_FLIGHT_BATCHES,
        connect_timeout: Duration::from_millis(500),
        attempt_timeout: Duration::from_millis(700),
        ..Config::new(CLUSTER, (1..=brokers).map(member).collect())
    };
    let now = ClientTime(now.0);
    let mut session = Session::new(config, random.next_u64(), now);
    let subscription = session.subscribe(now, from);
    (session, subscription)
}
