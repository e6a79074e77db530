//! The log as the first broker holds it: what all others, all readers and all acknowledgements are compared with.

use super::{Digest, Run};

/// A batch, with its producer as a place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeldRun {
    pub(super) offset: u64,
    pub(super) producer: u32,
    pub(super) count: u32,
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) digest: Digest,
}

impl HeldRun {
    pub(super) fn new(producer: u32, run: &Run) -> Self {
        let Run { offset, epoch, first, count, digest, .. } = *run;
        Self { offset, producer, count, epoch, first, digest }
    }

    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }

    pub(super) fn end_offset(&self) -> u64 {
        self.offset.saturating_add(self.count.into())
    }
}

/// A producer's part of the log.
#[derive(Debug, Default)]
struct Stream {
    /// Places in [`Held::runs`]; their numbers ascend.
    runs: Vec<u32>,
    /// One past the highest number that is used up.
    next: u64,
    /// Which epoch it was given last, if it was ever opened.
    epoch: Option<u64>,
}

/// An entry that holds no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Batches in front of it.
    pub(super) behind: usize,
    pub(super) producer: u32,
    pub(super) what: What,
}

/// What such an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It gives numbers up.
    GaveUp { first: u64, end: u64 },
    /// It opens the name under this epoch.
    Granted { epoch: u64 },
}

/// How an entry follows those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    Well,
    /// It uses no number up.
    Empty,
    /// It carries another epoch than the one that was given last.
    Fenced {
        by: u64,
    },
    /// It gives an epoch that is not above the one that was given last.
    Reused {
        before: u64,
    },
    /// These are left out.
    Gap {
        from: u64,
        to: u64,
    },
    /// The first number is there already.
    Doubled,
    /// It is not there, but higher ones are.
    Reordered {
        before: u64,
    },
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) runs: Vec<HeldRun>,
    pub(super) marks: Vec<Mark>,
    streams: Vec<Stream>,
}

impl Held {
    /// The offset that comes next.
    pub(super) fn end(&self) -> u64 {
        self.runs.last().map_or(0, HeldRun::end_offset)
    }

    /// Takes the next batch.
    pub(super) fn push(&mut self, run: HeldRun) -> Follows {
        let place = u32::try_from(self.runs.len()).expect("less than four billion batches");
        let follows = self.use_up(run.producer, run.first, run.end());
        let stream = self.stream(run.producer);
        if !matches!(follows, Follows::Doubled | Follows::Reordered { .. }) {
            stream.runs.push(place);
        }
        let fenced = stream.epoch.filter(|epoch| *epoch != run.epoch);
        self.runs.push(run);
        match (follows, fenced) {
            (Follows::Well, Some(by)) => Follows::Fenced { by },
            _ => follows,
        }
    }

    /// Takes an entry that holds no batch.
    pub(super) fn mark(&mut self, producer: u32, what: What) -> Follows {
        self.marks.push(Mark { behind: self.runs.len(), producer, what });
        match what {
            What::GaveUp { first, end } => self.use_up(producer, first, end),
            What::Granted { epoch } => match self.stream(producer).epoch.replace(epoch) {
                Some(before) if before >= epoch => Follows::Reused { before },
                _ => Follows::Well,
            },
        }
    }

    fn use_up(&mut self, producer: u32, first: u64, end: u64) -> Follows {
        let is_there = self.find(producer, first).is_some();
        let stream = self.stream(producer);
        let next = stream.next;
        stream.next = next.max(end);
        match first {
            _ if first >= end => Follows::Empty,
            _ if first == next => Follows::Well,
            _ if first > next => Follows::Gap { from: next, to: first - 1 },
            _ if is_there => Follows::Doubled,
            _ => Follows::Reordered { before: next - 1 },
        }
    }

    fn stream(&mut self, producer: u32) -> &mut Stream {
        let at = producer as usize;
        if self.streams.len() <= at {
            self.streams.resize_with(at + 1, Stream::default);
        }
        &mut self.streams[at]
    }

    /// The batch that holds an offset.
    pub(super) fn at(&self, offset: u64) -> Option<&HeldRun> {
        let behind = self.runs.partition_point(|run| run.offset <= offset);
        self.runs[..behind].last().filter(|run| offset < run.end_offset())
    }

    /// Whether a number is written or given up: nothing can come to lie under it any more.
    pub(super) fn is_used_up(&self, producer: u32, sequence: u64) -> bool {
        self.streams.get(producer as usize).is_some_and(|stream| sequence < stream.next)
    }

    /// The offset at which a number lies.
    pub(super) fn find(&self, producer: u32, sequence: u64) -> Option<u64> {
        let places = &self.streams.get(producer as usize)?.runs;
        let behind = places.partition_point(|place| self.runs[*place as usize].first <= sequence);
        let run = &self.runs[*places[..behind].last()? as usize];
        (sequence < run.end()).then(|| run.offset + (sequence - run.first))
    }
}
