//! What is on its way, by the moment at which it arrives.
//!
//! A heap: whoever is due first comes out first, and of two that are due at the same moment the one that went in first.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

/// See the file's header.
#[derive(Debug)]
pub(super) struct DelayLine<T> {
    heap: BinaryHeap<Waiting<T>>,
    count: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    due: Instant,
    number: u64,
    item: T,
}

impl<T> DelayLine<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), count: 0 }
    }

    /// Puts something on its way.
    pub(super) fn push(&mut self, due: Instant, item: T) {
        self.count += 1;
        self.heap.push(Waiting { due, number: self.count, item });
    }

    /// The next thing that has arrived.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        self.heap.peek().filter(|first| first.due <= now)?;
        self.heap.pop().map(|first| first.item)
    }

    /// How long until something arrives.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.heap.peek().map(|first| first.due.saturating_duration_since(now))
    }
}

// The heap gives its greatest first: that is the one that is due first.
impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Waiting<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_out_by_time_and_then_by_order() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut line = DelayLine::new();
        for (ms, item) in [(5, 'd'), (2, 'a'), (2, 'b'), (3, 'c')] {
            line.push(at(ms), item);
        }
        assert_eq!(line.wait(now), Some(Duration::from_millis(2)));
        assert_eq!(line.pop(at(1)), None);
        let out: String = std::iter::from_fn(|| line.pop(at(3))).collect();
        assert_eq!(out, "abc");
        assert_eq!((line.pop(at(9)), line.pop(at(9)), line.wait(now)), (Some('d'), None, None));
    }
}
