//! What clients are told and readers are given, as a history, for the checker that judges real processes too.
//!
//! [`history`](crate::history) has the list of what must hold. What can be judged at once is: a client that was told
//! something that contradicts what was told before ends the run there, and its seed can be shrunk. The rest is judged when
//! all is at rest, and the logs of the brokers are read.
//!
//! A library may cut a batch, if a part of it turns out to be written; each part has an outcome then. [`Sent`] finds the
//! attempt that an outcome is for.

use std::collections::BTreeMap;

use sequor_client::core::ProducerKey;
use sequor_client::protocol::{Epoch, Offset, Refusal, Sequence, Span};

use super::coverage::Reached;
use super::judge::Violation;
use super::reading::{Reading, Stream};
use crate::core::Core;
use crate::history::{Checker, Event, Place, Seen, Violation as Broken};

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    checker: Checker,
    ids: u64,
    /// Batches that the library has cut.
    cuts: u64,
    /// What clients were told of names.
    told: Vec<(String, Standing)>,
}

/// Something that a client was told of a name. It never changes back, so that it is looked for in the log at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It was retired by who asks, and its stream ends here.
    Ends(Sequence),
    /// It is retired, or the session is over: there is an entry that ended it.
    Over,
    /// This epoch was given when the log ended here, and the stream reaches up to that number.
    Fenced { by: Epoch, at: Offset, next: Sequence },
}

impl Standing {
    fn is_of(self, stream: &Stream) -> bool {
        match self {
            Self::Ends(next) => stream.retired && stream.next == next,
            Self::Over => stream.retired,
            Self::Fenced { by, at, next } => stream.granted.contains(&(by, at)) && stream.next >= next,
        }
    }
}

impl Recorder {
    /// A number that was not given before.
    pub(super) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// The first promise that is broken by what was recorded so far.
    pub(super) fn record(&mut self, event: &Event) -> Result<(), Violation> {
        self.checker.push(event);
        self.checker.violation().map_or(Ok(()), |broken| Err(broken.into()))
    }

    /// A client was told that a name is closed for ever, and where its stream ends.
    pub(super) fn retired(&mut self, producer: &str, next: Sequence) {
        self.told.push((producer.to_owned(), Standing::Ends(next)));
    }

    /// A client was refused, and with these words.
    ///
    /// # Errors
    /// If they cannot be right whatever the log holds.
    pub(super) fn refused(&mut self, producer: &str, refusal: &Refusal) -> Result<(), Violation> {
        let standing = match refusal {
            Refusal::Retired | Refusal::SessionExpired => Standing::Over,
            Refusal::Fenced { by, at, next } => Standing::Fenced { by: *by, at: *at, next: *next },
            // Here a number has one content, for ever.
            Refusal::SequenceReused { .. } => {
                return Err(Violation(format!(
                    "{producer} was told that {refusal}; it never had another one"
                )));
            }
            _ => return Ok(()),
        };
        self.told.push((producer.to_owned(), standing));
        Ok(())
    }

    /// If a batch was refused because numbers of its are sealed, those are.
    pub(super) fn sealed(
        &mut self,
        producer: &str,
        batch: (Sequence, u32),
        refusal: &Refusal,
    ) -> Result<(), Violation> {
        let Refusal::Sealed { first, end } = refusal else { return Ok(()) };
        let (begin, count) = batch;
        let numbers = first.max(&begin).0..end.0.min(begin.0 + u64::from(count));
        for sequence in numbers {
            self.record(&Event::Sealed { producer: producer.to_owned(), sequence })?;
        }
        Ok(())
    }

    /// The last judgement, over brokers that have come to rest.
    pub(super) fn conclude(mut self, cores: &[&Core], reached: &mut Reached) -> Result<Seen, Violation> {
        if self.cuts > 0 {
            reached.note("cut by the library");
        }
        self.record(&Event::Began { brokers: cores.len() as u64 })?;
        for core in cores {
            let log = Reading::of(core, reached)?;
            self.check_told(&log)?;
            log.events.iter().try_for_each(|event| self.record(event))?;
        }
        let verdict = self.checker.finish();
        verdict.violations.first().map_or(Ok(verdict.seen), |broken| Err(broken.into()))
    }

    fn check_told(&self, log: &Reading) -> Result<(), Violation> {
        let is_true = |name: &str, told: Standing| log.streams.get(name).is_some_and(|it| told.is_of(it));
        let wrong = self.told.iter().find(|(name, told)| !is_true(name, *told));
        wrong.map_or(Ok(()), |(name, told)| {
            let found = log.streams.get(name);
            Err(Violation(format!("of {name} was told {told:?}, and the log has {found:?}")))
        })
    }
}

impl From<&Broken> for Violation {
    fn from(broken: &Broken) -> Self {
        Self(broken.to_string())
    }
}

/// Where the records of a batch lie, in their order.
pub(super) fn places(count: u32, offset: Offset, rest: &[Span]) -> Vec<Place> {
    let scattered: u32 = rest.iter().map(|span| span.count).sum();
    let spans = [Span { offset, count: count - scattered }].into_iter().chain(rest.iter().copied());
    spans.map(|Span { offset, count }| Place { offset: offset.0, count }).collect()
}

/// The batches that one life of a client has sent, and that have no outcome yet.
#[derive(Debug, Default)]
pub(super) struct Sent(BTreeMap<(ProducerKey, Sequence), Attempt>);

#[derive(Clone, Copy, Debug)]
struct Attempt {
    id: u64,
    count: u32,
}

impl Sent {
    /// An attempt begins.
    pub(super) fn begin(&mut self, producer: ProducerKey, first: Sequence, id: u64, count: u32) {
        self.0.insert((producer, first), Attempt { id, count });
    }

    /// The attempt whose outcome is told, which may have to be cut out of a larger one.
    ///
    /// # Errors
    /// If nothing of the kind was sent.
    pub(super) fn end(
        &mut self,
        producer: ProducerKey,
        first: Sequence,
        count: u32,
        recorder: &mut Recorder,
    ) -> Result<u64, Violation> {
        let nothing =
            || Violation(format!("{count} records from {first} on have an outcome, and were not sent"));
        let (&(owner, begin), _) = self.0.range(..=(producer, first)).next_back().ok_or_else(nothing)?;
        if owner == producer && begin < first {
            self.cut(producer, begin, first.0 - begin.0, recorder)?;
        }
        self.cut(producer, first, count.into(), recorder)?;
        let whole = self.0.remove(&(producer, first)).filter(|attempt| attempt.count == count);
        whole.map(|attempt| attempt.id).ok_or_else(nothing)
    }

    /// Cuts an attempt behind so many records, if it has more.
    fn cut(
        &mut self,
        producer: ProducerKey,
        first: Sequence,
        keep: u64,
        recorder: &mut Recorder,
    ) -> Result<(), Violation> {
        let Some(attempt) = self.0.get_mut(&(producer, first)).filter(|it| u64::from(it.count) > keep) else {
            return Ok(());
        };
        let count = u32::try_from(keep).expect("less than the attempt has");
        let (id, rest) = (attempt.id, Attempt { id: recorder.id(), count: attempt.count - count });
        attempt.count = count;
        self.begin(producer, first.plus(keep), rest.id, rest.count);
        recorder.cuts += 1;
        recorder.record(&Event::Cut { id, count, rest: rest.id })
    }

    /// The client is no more, and so nobody is told.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use sequor_client::core::{Config, Numbers, Session, Style, Time};
    use sequor_client::protocol::{Acks, BrokerId, Epoch, Member, ProducerId};

    use super::super::machine::CLUSTER;
    use super::super::reading::tests::opened;
    use super::*;
    use crate::core::effect::{Effect, Retiring};
    use crate::history::Digest;

    #[test]
    fn a_name_that_was_not_retired_where_it_was_said_to_be_is_seen() {
        let mut reading = opened();
        reading.take(0, &Effect::Retire(Retiring { id: ProducerId(1), epoch: Epoch(1) })).unwrap();
        let says = |next| {
            let mut recorder = Recorder::default();
            recorder.retired("a", Sequence(next));
            recorder
        };
        assert!(says(0).check_told(&reading).is_ok());
        assert!(says(1).check_told(&reading).is_err(), "elsewhere");
        assert!(says(0).check_told(&opened()).is_err(), "never");
    }

    #[test]
    fn a_refusal_without_a_reason_in_the_log_is_seen() {
        let says = |refusal: &Refusal| {
            let mut recorder = Recorder::default();
            recorder.refused("a", refusal).map(|()| recorder)
        };
        let holds = |refusal, log: &Reading| says(&refusal).unwrap().check_told(log).is_ok();
        let fenced = |by, at, next| Refusal::Fenced { by: Epoch(by), at: Offset(at), next: Sequence(next) };
        assert!(holds(fenced(1, 0, 0), &opened()));
        assert!(!holds(fenced(2, 0, 0), &opened()), "that epoch was not given");
        assert!(!holds(fenced(1, 1, 0), &opened()), "it was given elsewhere");
        assert!(!holds(fenced(1, 0, 1), &opened()), "the stream does not reach so far");
        let mut over = opened();
        over.take(0, &Effect::Retire(Retiring { id: ProducerId(1), epoch: Epoch(1) })).unwrap();
        assert!(holds(Refusal::Retired, &over) && !holds(Refusal::Retired, &opened()));
        assert!(holds(Refusal::SessionExpired, &over) && !holds(Refusal::SessionExpired, &opened()));
        let reused = Refusal::SequenceReused { first: Sequence(0), offset: Offset(0) };
        assert!(says(&reused).is_err(), "nobody sends other content under a number");
    }

    #[test]
    fn numbers_that_a_refusal_calls_sealed_have_to_be() {
        let mut recorder = Recorder::default();
        let refusal = Refusal::Sealed { first: Sequence(2), end: Sequence(9) };
        recorder.sealed("a", (Sequence(0), 4), &refusal).unwrap();
        let told = Event::Open { id: 1, sequence: 3 };
        recorder.record(&Event::Inquired { id: 1, producer: "a".into() }).unwrap();
        assert!(recorder.record(&told).is_err(), "3 was called sealed before");
    }

    #[test]
    fn what_contradicts_what_was_told_before_is_seen_at_once() {
        let mut recorder = Recorder::default();
        let member = Member { id: BrokerId(1), address: "broker-1:7400".into() };
        let mut session = Session::new(Config::new(CLUSTER, vec![member]), 1, Time(0));
        let style = Style { from: None, numbers: Numbers::Own, acks: Acks::Quorum };
        let key = session.open_producer(Time(0), "a", style, Time(1));
        let digest = Digest(1);
        let invoked =
            |id, first| Event::Invoked { id, producer: "a".into(), epoch: 1, first, count: 6, digest };
        recorder.record(&invoked(7, 0)).unwrap();
        let mut sent = Sent::default();
        sent.begin(key, Sequence(0), 7, 6);
        // The middle is told first: the attempt is cut in three.
        let told = [(2, 3), (0, 2), (5, 1)];
        for (first, count) in told {
            let id = sent.end(key, Sequence(first), count, &mut recorder).unwrap();
            let places = vec![Place { offset: 10 + first, count }];
            recorder.record(&Event::Written { id, places, duplicate: false }).unwrap();
        }
        assert!(sent.end(key, Sequence(5), 1, &mut recorder).is_err(), "it has its outcome");
        recorder.record(&Event::Asked { id: 1 }).unwrap();
        assert!(recorder.record(&Event::Answered { id: 1, end: 15 }).is_err(), "it was at 16 before");
    }
}
