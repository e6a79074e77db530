//! The newest batches of a producer, in the order of their numbers: what a repetition is compared with.
//!
//! A batch is added at the new end and forgotten at the old one, and a window rarely holds more than is in flight: some
//! tens of batches, 4,096 at most. So it is one piece of memory that is shared until somebody writes. A leader copies it
//! once in each pass, because its draft begins as a clone of the head state; after that, and on a follower always, a batch
//! costs a few stores. A persistent map would spare that copy and pay for it with each batch.

use std::collections::VecDeque;
use std::sync::Arc;

use sequor_client::protocol::{Offset, Sequence};

/// Room for so many more batches is made with each copy. Count.
const ROOM: usize = 16;

/// A batch in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) first: Sequence,
    pub(super) count: u32,
    pub(super) offset: Offset,
    pub(super) digest: [u8; 16],
}

impl Slot {
    /// One past its last number.
    pub(super) fn end(&self) -> Sequence {
        self.first.plus(self.count.into())
    }
}

/// See the module's header.
///
/// Invariant: numbers rise from slot to slot, and no two slots share one.
#[derive(Clone, Debug, Default)]
pub(super) struct Window(Arc<VecDeque<Slot>>);

impl Window {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    /// The batch that holds this number, or the last one before it.
    pub(super) fn at(&self, sequence: Sequence) -> Option<&Slot> {
        self.0.get(self.above(sequence).checked_sub(1)?)
    }

    /// The batches from the one at `sequence` on.
    pub(super) fn from(&self, sequence: Sequence) -> impl Iterator<Item = &Slot> {
        self.0.range(self.above(sequence).saturating_sub(1)..)
    }

    /// Position of the first batch that begins above this number.
    fn above(&self, sequence: Sequence) -> usize {
        self.0.partition_point(|slot| slot.first <= sequence)
    }

    /// Adds a batch behind all others.
    pub(super) fn push(&mut self, slot: Slot) {
        debug_assert!(self.0.back().is_none_or(|last| last.end() <= slot.first), "numbers rise");
        self.own().push_back(slot);
    }

    /// Forgets the oldest batches, as long as `is_old` says so of them, but never the newest one. It is told how many there
    /// are.
    pub(super) fn trim(&mut self, is_old: impl Fn(usize, &Slot) -> bool) {
        while self.len() > 1 && self.0.front().is_some_and(|oldest| is_old(self.len(), oldest)) {
            self.own().pop_front();
        }
    }

    fn own(&mut self) -> &mut VecDeque<Slot> {
        if Arc::get_mut(&mut self.0).is_none() {
            let mut copy = VecDeque::with_capacity(self.0.len() + ROOM);
            copy.extend(self.0.iter().copied());
            self.0 = Arc::new(copy);
        }
        Arc::get_mut(&mut self.0).expect("nobody shares what was just made, or was not shared before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(first: u64, count: u32) -> Slot {
        Slot { first: Sequence(first), count, offset: Offset(100 + first), digest: [0; 16] }
    }

    fn firsts(window: &Window) -> Vec<u64> {
        window.iter().map(|slot| slot.first.0).collect()
    }

    #[test]
    fn a_number_is_found_in_the_batch_that_holds_it() {
        let mut window = Window::default();
        [slot(5, 2), slot(7, 1), slot(10, 3)].into_iter().for_each(|slot| window.push(slot));
        let at = |sequence| window.at(Sequence(sequence)).map(|slot| slot.first.0);
        assert_eq!(
            [4, 5, 6, 7, 9, 10, 99].map(at),
            [None, Some(5), Some(5), Some(7), Some(7), Some(10), Some(10)]
        );
        let from = |sequence| window.from(Sequence(sequence)).map(|slot| slot.first.0).collect::<Vec<_>>();
        assert_eq!(
            [from(0), from(6), from(7), from(50)],
            [vec![5, 7, 10], vec![5, 7, 10], vec![7, 10], vec![10]]
        );
    }

    #[test]
    fn what_shares_it_does_not_see_what_is_written_later() {
        let mut window = Window::default();
        window.push(slot(0, 1));
        let before = window.clone();
        window.push(slot(1, 1));
        window.trim(|_, oldest| oldest.first == Sequence(0));
        assert_eq!((firsts(&before), firsts(&window)), (vec![0], vec![1]));
    }

    #[test]
    fn the_newest_batch_stays() {
        let mut window = Window::default();
        (0..5).for_each(|first| window.push(slot(first, 1)));
        window.trim(|len, _| len > 3);
        assert_eq!(firsts(&window), [2, 3, 4]);
        window.trim(|_, _| true);
        assert_eq!(firsts(&window), [4]);
    }
}
