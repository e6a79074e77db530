//! The last judgement: all has been told, every log has been read, and each is held against the other.

use super::{Checker, Told};
use crate::history::{
    Place, Run, Violation,
    attempts::{Content, Fate},
    held::HeldRun,
};

impl Checker {
    pub(super) fn check_ends(&mut self) {
        let (told, id) = self.told_end;
        if told > self.held.end() {
            self.violated(Violation::EndBeyond { id, told, end: self.held.end() });
        }
        let Some(reference) = self.reference else { return };
        let (expected, runs, marks) = (self.held.end(), self.held.runs.len(), self.held.marks.len());
        let others: Vec<_> = std::mem::take(&mut self.others).into_iter().collect();
        for (broker, compared) in others {
            match compared.end {
                None => self.unsound(format!("the log of broker {broker} was not read to its end")),
                Some(_) if compared.differs => {}
                Some(end) if end != expected => {
                    self.violated(Violation::EndsDiffer { broker, end, reference, expected });
                }
                Some(_) if (compared.runs, compared.marks) != (runs, marks) => {
                    self.violated(Violation::LogsDiffer { broker, reference, offset: expected });
                }
                Some(_) => {}
            }
        }
    }

    /// Whatever is there was sent, as it is, and not refused.
    pub(super) fn check_log(&mut self) {
        for at in 0..self.held.runs.len() {
            let run = self.held.runs[at];
            let attempts = &self.attempts[run.producer as usize];
            let (mut next, mut refused) = (run.first, None);
            for attempt in attempts.covering(run.epoch, run.first, run.end()) {
                if attempt.first > next {
                    break;
                }
                if attempt.fate == Fate::Refused {
                    refused.get_or_insert(attempt.first.max(run.first));
                }
                next = next.max(attempt.end());
            }
            let content = attempts.compare(run.first, run.end(), run.digest);
            let (producer, epoch) = (attempts.name.clone(), run.epoch);
            let offset_of = |sequence: u64| run.offset + (sequence - run.first);
            if next < run.end() {
                let offset = offset_of(next);
                self.violated(Violation::FromNowhere { producer, sequence: next, epoch, offset });
            } else if let Some(sequence) = refused {
                let offset = offset_of(sequence);
                self.violated(Violation::RefusedAndWritten { producer, sequence, epoch, offset });
            } else if content == Content::Changed {
                let HeldRun { offset, first, count, digest, .. } = run;
                let run = Box::new(Run { offset, producer, epoch, first, count, digest });
                self.violated(Violation::Changed { run });
            }
            self.seen.incomparable += u64::from(content == Content::Incomparable);
        }
    }

    /// Whatever was acknowledged is there, where it was said to be.
    pub(super) fn check_attempts(&mut self) {
        for producer in 0..self.attempts.len() {
            let id = u32::try_from(producer).expect("less than four billion producers");
            for at in 0..self.attempts[producer].count() {
                let attempt = self.attempts[producer].all()[at].clone();
                match attempt.fate {
                    Fate::Unknown | Fate::Refused => {}
                    Fate::Written(places) => self.check_places(id, attempt.first, &places),
                    Fate::Known => {
                        self.check_known(id, attempt.first, attempt.end());
                    }
                }
            }
        }
    }

    /// Looks for the numbers from `first` on in their places; tells of the first that is not there.
    fn check_places(&mut self, producer: u32, first: u64, places: &[Place]) {
        let mut sequence = first;
        for place in places {
            let end = place.end();
            if end - place.offset != u64::from(place.count) {
                let (producer, offset) = (self.name(producer), place.offset);
                return self.violated(Violation::Lost { producer, sequence, offset });
            }
            let mut offset = place.offset;
            while offset < end {
                let run = self.held.at(offset).filter(|run| {
                    let number = run.first + (offset - run.offset);
                    run.producer == producer && number == sequence
                });
                let Some(run) = run else {
                    let found = self.held.find(producer, sequence);
                    let producer = self.name(producer);
                    return self.violated(match found {
                        Some(found) => Violation::Misplaced { producer, sequence, told: offset, found },
                        None => Violation::Lost { producer, sequence, offset },
                    });
                };
                let records = run.end_offset().min(end) - offset;
                (offset, sequence) = (offset + records, sequence + records);
            }
        }
    }

    fn check_known(&mut self, producer: u32, first: u64, end: u64) {
        if let Some(sequence) = (first..end).find(|number| self.held.find(producer, *number).is_none()) {
            let producer = self.name(producer);
            self.violated(Violation::Missing { producer, sequence });
        }
    }

    pub(super) fn check_told(&mut self) {
        for told in std::mem::take(&mut self.told) {
            match told {
                Told::Sealed { producer, sequence } => {
                    let offset = self.held.find(producer, sequence);
                    let is_used_up = self.held.is_used_up(producer, sequence);
                    let producer = self.name(producer);
                    match offset {
                        Some(offset) => {
                            self.violated(Violation::SealedAndWritten { producer, sequence, offset });
                        }
                        None if is_used_up => {}
                        None => self.violated(Violation::SealedAndOpen { producer, sequence }),
                    }
                }
                Told::Committed { producer, sequence, offset: None } => {
                    self.check_known(producer, sequence, sequence.saturating_add(1));
                }
                Told::UsedUpTo { producer, next } => {
                    let last = next.checked_sub(1);
                    if let Some(sequence) = last.filter(|last| !self.held.is_used_up(producer, *last)) {
                        let producer = self.name(producer);
                        self.violated(Violation::Missing { producer, sequence });
                    }
                }
                Told::Committed { producer, sequence, offset: Some(offset) } => {
                    self.check_places(producer, sequence, &[Place { offset, count: 1 }]);
                }
            }
        }
    }

    pub(super) fn check_readings(&mut self) {
        for (reader, reading) in std::mem::take(&mut self.readings) {
            // What a violation of the order told already needs no second one.
            let wrong = reading.runs.iter().find(|run| !self.lies_in_the_log(run));
            if let Some(HeldRun { offset, .. }) = wrong {
                self.violated(Violation::ReadDiffers { reader, offset: *offset });
            }
        }
    }

    /// Whether the log has this batch, or has it as the end of one.
    fn lies_in_the_log(&self, read: &HeldRun) -> bool {
        self.held.at(read.offset).is_some_and(|held| {
            let skip = read.offset - held.offset;
            let same = held.producer == read.producer && held.epoch == read.epoch;
            let fits = held.first + skip == read.first && held.end_offset() == read.end_offset();
            let sent = &self.attempts[read.producer as usize];
            let is_content = match skip {
                0 => held.digest == read.digest,
                _ => sent.compare(read.first, read.end(), read.digest) != Content::Changed,
            };
            same && fits && is_content
        })
    }
}
