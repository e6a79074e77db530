//! What was sent under one producer's name, and what became of it.
//!
//! The content of numbers is known from *edges*: at each number where a batch began or ended, the sum of the digests of all
//! records in front of it. The content of any batch is the difference of the sums at its two edges, however the attempts
//! were cut; and a broker's log is cut nowhere but where some attempt was. An attempt that begins where none before it
//! began or ended starts a sum of its own.

use std::collections::BTreeMap;

use super::{Digest, Place};

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing is known; or nothing yet.
    Unknown,
    /// It is written, here.
    Written(Vec<Place>),
    /// It is written.
    Known,
    /// It is not written under its epoch, and never will be.
    Refused,
}

/// One batch that was handed over.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) fate: Fate,
    /// Where the log ended, at least, when the first attempt of these numbers began; 0 for a later attempt.
    pub(super) floor: u64,
}

impl Attempt {
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }
}

/// The sum of digests up to a number, among those that were added up together.
#[derive(Clone, Copy, Debug)]
struct Edge {
    together: u32,
    sum: Digest,
}

/// What the edges say of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Same,
    Changed,
    /// It is cut where no attempt was.
    Incomparable,
}

/// All attempts under one name.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) name: String,
    list: Vec<Attempt>,
    edges: BTreeMap<u64, Edge>,
    sums: u32,
    /// One past the highest number that was ever sent.
    sent: u64,
    /// One past the highest number of which anybody knows that it is used up.
    used: u64,
}

impl Attempts {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Adds one; `log_end` is where the log ends, at least. False if other content was sent under these numbers before.
    pub(super) fn add(&mut self, epoch: u64, first: u64, count: u32, digest: Digest, log_end: u64) -> bool {
        let floor = if first >= self.sent { log_end } else { 0 };
        let attempt = Attempt { epoch, first, count, fate: Fate::Unknown, floor };
        self.sent = self.sent.max(attempt.end());
        let same = self.join(first, attempt.end(), digest);
        self.list.push(attempt);
        same
    }

    /// Cuts the attempt in this place behind so many records; the place of the rest. None if it does not have more.
    pub(super) fn cut(&mut self, place: usize, count: u32) -> Option<usize> {
        let attempt = &mut self.list[place];
        if count == 0 || count >= attempt.count {
            return None;
        }
        let (first, rest) = (attempt.first + u64::from(count), attempt.count - count);
        let rest = Attempt { first, count: rest, ..attempt.clone() };
        attempt.count = count;
        self.list.push(rest);
        Some(self.list.len() - 1)
    }

    /// Somebody knows that all numbers below this one are used up.
    pub(super) fn use_up(&mut self, next: u64) {
        self.used = self.used.max(next);
    }

    fn join(&mut self, first: u64, end: u64, digest: Digest) -> bool {
        let sums = &mut self.sums;
        let from = *self.edges.entry(first).or_insert_with(|| {
            *sums += 1;
            Edge { together: *sums, sum: Digest::default() }
        });
        let sum = from.sum + digest;
        let to = *self.edges.entry(end).or_insert(Edge { together: from.together, sum });
        to.together != from.together || to.sum == sum
    }

    /// Whether a batch has the content that was sent under its numbers.
    pub(super) fn compare(&self, first: u64, end: u64, digest: Digest) -> Content {
        match (self.edges.get(&first), self.edges.get(&end)) {
            (Some(from), Some(to)) if from.together == to.together => {
                if to.sum - from.sum == digest {
                    Content::Same
                } else {
                    Content::Changed
                }
            }
            _ => Content::Incomparable,
        }
    }

    /// Numbers that were acknowledged, with their places, by any attempt.
    pub(super) fn acknowledged(&self) -> u64 {
        let written = self.list.iter().filter(|attempt| matches!(attempt.fate, Fate::Written(_)));
        let mut ranges: Vec<_> = written.map(|attempt| (attempt.first, attempt.end())).collect();
        ranges.sort_unstable();
        let (mut count, mut counted) = (0, 0);
        for (first, end) in ranges {
            count += end.saturating_sub(first.max(counted));
            counted = counted.max(end);
        }
        count
    }

    /// See [`Self::use_up`].
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// How many there are: the next one has this place.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// The attempt in this place, in the order in which they were added.
    pub(super) fn at(&mut self, place: usize) -> &mut Attempt {
        &mut self.list[place]
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Attempt] {
        &self.list
    }

    /// Puts them in the order of epochs and numbers. None may be added afterwards. An epoch in which a number was sent
    /// twice, if there is one: nothing can be said of it.
    pub(super) fn sort(&mut self) -> Option<u64> {
        self.list.sort_by_key(|attempt| (attempt.epoch, attempt.first));
        let twice = |pair: &&[Attempt]| pair[0].epoch == pair[1].epoch && pair[0].end() > pair[1].first;
        self.list.windows(2).find(twice).map(|pair| pair[0].epoch)
    }

    /// The attempts of an epoch in which these numbers lie, in order. Only when sorted.
    pub(super) fn covering(&self, epoch: u64, first: u64, end: u64) -> impl Iterator<Item = &Attempt> {
        let from = self.list.partition_point(|attempt| (attempt.epoch, attempt.end()) <= (epoch, first));
        self.list[from..].iter().take_while(move |attempt| attempt.epoch == epoch && attempt.first < end)
    }
}
