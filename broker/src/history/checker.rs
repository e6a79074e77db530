//! The checker: takes a history event by event, and says at its end what was broken.
//!
//! What can be judged at once is judged at once: the logs against each other, readers against themselves, ends against
//! acknowledgements. The rest waits for [`Checker::finish`], when it is known what the log holds.

mod judgement;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{
    Event, Place, Run, Violation,
    attempts::{Attempt, Attempts, Fate},
    held::{Follows, Held, HeldRun, Mark, What},
};

/// Violations that are kept; the others are counted. Count.
const VIOLATIONS_MAX: usize = 100;

/// What a history holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Batches that were handed over.
    pub requests: u64,
    /// Of these, acknowledged.
    pub written: u64,
    /// Of the acknowledged ones, recognised as written before.
    pub duplicates: u64,
    /// Called written before, without their place.
    pub known: u64,
    /// Definitely refused.
    pub refused: u64,
    /// Of unknown outcome.
    pub unknown: u64,
    /// Records that were acknowledged, each counted once.
    pub records: u64,
    /// Records in the log.
    pub held: u64,
    /// Logs that were read to their ends.
    pub logs: u64,
    /// Records that readers were given.
    pub read: u64,
    /// Answers to the question where the log ends.
    pub ends: u64,
    /// Batches of the log whose content could not be compared, because no attempt was cut as they are.
    pub incomparable: u64,
    /// What was made to go wrong, or right again.
    pub faults: u64,
}

/// What became of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it holds.
    pub seen: Seen,
    /// The first hundred violations.
    pub violations: Vec<Violation>,
    /// How many there are.
    pub broken: u64,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.broken == 0
    }
}

/// How far another log than the first was compared.
#[derive(Debug, Default)]
struct Compared {
    runs: usize,
    marks: usize,
    differs: bool,
    end: Option<u64>,
}

/// What a reader was given.
#[derive(Debug, Default)]
struct Reading {
    runs: Vec<HeldRun>,
    next: Option<u64>,
}

/// What somebody was told of a single number.
#[derive(Debug)]
enum Told {
    Sealed { producer: u32, sequence: u64 },
    Committed { producer: u32, sequence: u64, offset: Option<u64> },
    UsedUpTo { producer: u32, next: u64 },
}

/// See the file's header.
#[derive(Debug, Default)]
pub struct Checker {
    /// How many brokers there are, once the history has said so.
    brokers: Option<u64>,
    ids: HashMap<String, u32>,
    attempts: Vec<Attempts>,
    /// Attempts without outcome: producer, and place in its list.
    open: HashMap<u64, (u32, usize)>,
    told: Vec<Told>,
    /// Open questions for the end, and what it was at least when they were asked.
    questions: HashMap<u64, u64>,
    /// Open questions about numbers: whose, and how far these were used up at least when they were asked.
    inquiries: HashMap<u64, (u32, u64)>,
    /// One past the highest offset that anybody knows to be written.
    known_end: u64,
    /// The furthest end that was told, and in answer to which question.
    told_end: (u64, u64),
    held: Held,
    /// Whose log `held` is.
    reference: Option<u64>,
    others: BTreeMap<u64, Compared>,
    readings: BTreeMap<u64, Reading>,
    seen: Seen,
    violations: Vec<Violation>,
    broken: u64,
}

impl Checker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event.
    pub fn push(&mut self, event: &Event) {
        match event {
            Event::Began { brokers } => self.brokers = Some(*brokers),
            Event::Invoked { .. } => self.invoked(event),
            Event::Cut { id, count, rest } => self.cut(*id, *count, *rest),
            Event::Written { id, places, duplicate } => self.written(*id, places, *duplicate),
            Event::Known { id } => {
                self.seen.known += 1;
                if let Some((producer, attempt)) = self.settle(*id, Fate::Known) {
                    self.attempts[producer as usize].use_up(attempt.end());
                }
            }
            Event::Refused { id, .. } => {
                self.seen.refused += 1;
                self.settle(*id, Fate::Refused);
            }
            // Those that are open at the end are counted then.
            Event::Unknown { id, .. } => {
                self.seen.unknown += 1;
                self.settle(*id, Fate::Unknown);
            }
            Event::Sealed { producer, sequence } => {
                let producer = self.used_up_to(producer, sequence.saturating_add(1));
                self.told.push(Told::Sealed { producer, sequence: *sequence });
            }
            Event::Committed { producer, sequence, offset } => {
                let producer = self.used_up_to(producer, sequence.saturating_add(1));
                self.told.push(Told::Committed { producer, sequence: *sequence, offset: *offset });
            }
            Event::Inquired { id, producer } => self.inquired(*id, producer),
            Event::Stands { id, next } => {
                if let Some(producer) = self.told_open(*id, *next) {
                    self.attempts[producer as usize].use_up(*next);
                    self.told.push(Told::UsedUpTo { producer, next: *next });
                }
            }
            Event::Open { id, sequence } => _ = self.told_open(*id, *sequence),
            Event::Asked { id } => {
                if self.questions.insert(*id, self.known_end).is_some() {
                    self.unsound(format!("question {id} is asked twice"));
                }
            }
            Event::Answered { id, end } => self.answered(*id, *end),
            Event::Subscribed { reader, from } => self.subscribed(*reader, *from),
            Event::Read { reader, run } => self.read(*reader, run),
            Event::Held { broker, run } => self.log_holds(*broker, run),
            Event::GaveUp { broker, producer, first, end } => {
                self.log_marks(*broker, producer, What::GaveUp { first: *first, end: *end });
            }
            Event::Granted { broker, producer, epoch } => {
                self.log_marks(*broker, producer, What::Granted { epoch: *epoch });
            }
            Event::Ended { broker, end } => self.log_ends(*broker, *end),
            Event::Fault { .. } => self.seen.faults += 1,
        }
    }

    /// The first thing so far that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violations.first()
    }

    /// Judges the whole.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        self.seen.unknown += self.open.len() as u64;
        match self.brokers {
            None => self.unsound("it does not say how many brokers there were".into()),
            Some(brokers) if brokers != self.seen.logs => {
                self.unsound(format!(
                    "of {brokers} brokers there are {} logs to compare it with",
                    self.seen.logs
                ));
            }
            Some(_) => {}
        }
        self.seen.held = self.held.end();
        self.seen.records = self.attempts.iter().map(Attempts::acknowledged).sum();
        for producer in 0..self.attempts.len() {
            if let Some(epoch) = self.attempts[producer].sort() {
                let name = &self.attempts[producer].name;
                self.unsound(format!("numbers of {name} were sent twice under epoch {epoch}"));
            }
        }
        self.check_ends();
        self.check_log();
        self.check_attempts();
        self.check_told();
        self.check_readings();
        Verdict { seen: self.seen, violations: self.violations, broken: self.broken }
    }

    fn violated(&mut self, violation: Violation) {
        self.broken += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    fn unsound(&mut self, what: String) {
        self.violated(Violation::Unsound(what));
    }

    fn id(&mut self, producer: &str) -> u32 {
        if let Some(id) = self.ids.get(producer) {
            return *id;
        }
        let id = u32::try_from(self.attempts.len()).expect("less than four billion producers");
        self.ids.insert(producer.to_owned(), id);
        self.attempts.push(Attempts::new(producer));
        id
    }

    fn name(&self, producer: u32) -> String {
        self.attempts[producer as usize].name.clone()
    }
}

/// What clients were told.
impl Checker {
    fn invoked(&mut self, event: &Event) {
        let Event::Invoked { id, producer, epoch, first, count, digest } = event else { return };
        self.seen.requests += 1;
        let (log_end, number) = (self.known_end, self.id(producer));
        let attempts = &mut self.attempts[number as usize];
        let place = attempts.count();
        let same = attempts.add(*epoch, *first, *count, *digest, log_end);
        if *count == 0 || !same {
            self.unsound(format!(
                "attempt {id}: {producer}/{first} was sent with other content before, or is empty"
            ));
        }
        if self.open.insert(*id, (number, place)).is_some() {
            self.unsound(format!("attempt {id} begins twice"));
        }
    }

    fn cut(&mut self, id: u64, count: u32, rest: u64) {
        let behind = self.open.get(&id).copied().and_then(|(producer, place)| {
            let place = self.attempts[producer as usize].cut(place, count)?;
            Some((producer, place))
        });
        let is_cut = behind.is_some_and(|behind| self.open.insert(rest, behind).is_none());
        if !is_cut {
            self.unsound(format!("attempt {id} cannot be cut behind {count} records, to begin {rest} there"));
        }
    }

    fn written(&mut self, id: u64, places: &[Place], duplicate: bool) {
        self.seen.written += 1;
        self.seen.duplicates += u64::from(duplicate);
        let told: u64 = places.iter().map(|place| u64::from(place.count)).sum();
        let Some((producer, attempt)) = self.settle(id, Fate::Written(places.to_vec())) else { return };
        let Attempt { floor, mut first, count, .. } = attempt;
        if told != u64::from(count) {
            self.unsound(format!("attempt {id} has {count} records, {told} were told to be written"));
        }
        self.attempts[producer as usize].use_up(attempt.end());
        for place in places {
            if place.offset < floor {
                let (producer, sequence, offset) = (self.name(producer), first, place.offset);
                self.violated(Violation::OutOfTime { producer, sequence, offset, end: floor });
            }
            first = first.saturating_add(place.count.into());
            self.known_end = self.known_end.max(place.end());
        }
    }

    /// Notes the outcome of an attempt; whose it is, and the attempt.
    fn settle(&mut self, id: u64, fate: Fate) -> Option<(u32, Attempt)> {
        let Some((producer, place)) = self.open.remove(&id) else {
            self.unsound(format!("attempt {id} has an outcome and did not begin, or has two"));
            return None;
        };
        let attempt = self.attempts[producer as usize].at(place);
        attempt.fate = fate;
        Some((producer, attempt.clone()))
    }

    /// Somebody was told that all numbers of a producer below `next` are used up.
    fn used_up_to(&mut self, producer: &str, next: u64) -> u32 {
        let producer = self.id(producer);
        self.attempts[producer as usize].use_up(next);
        producer
    }

    fn inquired(&mut self, id: u64, producer: &str) {
        let producer = self.id(producer);
        let used = self.attempts[producer as usize].used();
        if self.inquiries.insert(id, (producer, used)).is_some() {
            self.unsound(format!("question {id} is asked twice"));
        }
    }

    /// The answer to a question: this number is not used up. Whose it is.
    fn told_open(&mut self, id: u64, told: u64) -> Option<u32> {
        let Some((producer, used)) = self.inquiries.remove(&id) else {
            self.unsound(format!("question {id} is answered and was not asked"));
            return None;
        };
        if told < used {
            let producer = self.name(producer);
            self.violated(Violation::StaleStream { id, producer, told, used });
        }
        Some(producer)
    }

    fn answered(&mut self, id: u64, told: u64) {
        self.seen.ends += 1;
        self.known_end = self.known_end.max(told);
        self.told_end = self.told_end.max((told, id));
        match self.questions.remove(&id) {
            Some(end) if told < end => self.violated(Violation::StaleEnd { id, told, end }),
            Some(_) => {}
            None => self.unsound(format!("question {id} is answered and was not asked")),
        }
    }

    fn subscribed(&mut self, reader: u64, from: u64) {
        let reading = Reading { next: Some(from), runs: Vec::new() };
        if self.readings.insert(reader, reading).is_some() {
            self.unsound(format!("reader {reader} begins twice"));
        }
    }

    fn read(&mut self, reader: u64, run: &Run) {
        self.seen.read += u64::from(run.count);
        let run = HeldRun::new(self.id(&run.producer), run);
        let reading = self.readings.entry(reader).or_default();
        let expected = reading.next.replace(run.end_offset()).unwrap_or(run.offset);
        self.known_end = self.known_end.max(run.end_offset());
        reading.runs.push(run);
        if expected != run.offset {
            self.violated(Violation::Misread { reader, expected, found: run.offset });
        }
    }
}

/// What logs hold.
impl Checker {
    fn log_holds(&mut self, broker: u64, run: &Run) {
        let producer = self.id(&run.producer);
        let held = HeldRun::new(producer, run);
        if *self.reference.get_or_insert(broker) != broker {
            return self.compare(broker, held.offset, |compared, reference| {
                compared.runs += 1;
                reference.runs.get(compared.runs - 1) == Some(&held)
            });
        }
        let expected = self.held.end();
        if held.offset != expected {
            self.violated(Violation::NotDense { broker, expected, found: held.offset });
        }
        let follows = self.held.push(held);
        self.check_follows(follows, producer, held.epoch, held.first, held.offset);
    }

    fn log_marks(&mut self, broker: u64, producer: &str, what: What) {
        let producer = self.id(producer);
        let offset = self.held.end();
        if *self.reference.get_or_insert(broker) != broker {
            return self.compare(broker, offset, |compared, reference| {
                compared.marks += 1;
                let mark = Mark { behind: compared.runs, producer, what };
                reference.marks.get(compared.marks - 1) == Some(&mark)
            });
        }
        let follows = self.held.mark(producer, what);
        let (epoch, sequence) = match what {
            What::GaveUp { first, .. } => (0, first),
            What::Granted { epoch } => (epoch, 0),
        };
        self.check_follows(follows, producer, epoch, sequence, offset);
    }

    fn check_follows(&mut self, follows: Follows, producer: u32, epoch: u64, sequence: u64, offset: u64) {
        let producer = self.name(producer);
        self.violated(match follows {
            Follows::Well => return,
            Follows::Empty => Violation::Empty { producer, offset },
            Follows::Fenced { by } => Violation::FencedAndWritten { producer, sequence, epoch, offset, by },
            Follows::Reused { before } => Violation::EpochReused { producer, epoch, before },
            Follows::Gap { from, to } => Violation::Gap { producer, from, to },
            Follows::Doubled => Violation::Doubled { producer, sequence, offset },
            Follows::Reordered { before } => Violation::Reordered { producer, sequence, offset, before },
        });
    }

    /// Compares the next thing of another log; of one that differs, nothing more.
    fn compare(&mut self, broker: u64, offset: u64, same: impl FnOnce(&mut Compared, &Held) -> bool) {
        let compared = self.others.entry(broker).or_default();
        if compared.differs || same(compared, &self.held) {
            return;
        }
        compared.differs = true;
        let reference = self.reference.unwrap_or(broker);
        self.violated(Violation::LogsDiffer { broker, reference, offset });
    }

    fn log_ends(&mut self, broker: u64, end: u64) {
        self.seen.logs += 1;
        if *self.reference.get_or_insert(broker) == broker {
            let found = self.held.end();
            if found != end {
                self.violated(Violation::NotDense { broker, expected: end, found });
            }
        } else {
            self.others.entry(broker).or_default().end = Some(end);
        }
    }
}
