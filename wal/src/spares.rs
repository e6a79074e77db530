//! Spares: segments made ahead, so that no append ever waits for one to be filled with zeros.
//!
//! They are also the reserve of a disk that is full. The first spare for which there is no room is reported while the
//! others are still there: whoever owns the log can stop taking more from outside, and write what must be written.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::segment::Header;
use crate::{Disk, Haste, Prepared, Settings, Spare, SpareOrder};

/// The segments that are ready, and the one that is being made.
///
/// Invariants:
/// - ids rise in the order of use without a gap, and no file is made twice under the same id;
/// - one order is out at a time, else a segment could be used after one with a higher id;
/// - `is_full` from the first order for which there was no room until as many spares are ready as are wanted.
#[derive(Debug)]
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    cluster: [u8; 16],
    incarnation: [u8; 16],
    ready: VecDeque<Spare>,
    ordered: Option<u64>,
    next: u64,
    is_full: bool,
    /// Of the one that is being made.
    haste: Haste,
}

impl Spares {
    /// The spares that recovery found; `next` is above every id that was ever seen.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        (cluster, incarnation): ([u8; 16], [u8; 16]),
        ready: VecDeque<Spare>,
        next: u64,
    ) -> Self {
        assert!(ready.iter().all(|spare| spare.header.segment < next), "ids are not given twice");
        Self {
            disk,
            cluster,
            incarnation,
            ready,
            ordered: None,
            next,
            is_full: false,
            haste: Haste::default(),
        }
    }

    /// Takes the next one into use.
    pub(crate) fn take(&mut self) -> Option<Spare> {
        self.hasten();
        self.ready.pop_front()
    }

    /// What is being made is made at full speed from now on: somebody may soon wait for it.
    pub(crate) fn hasten(&self) {
        self.haste.set(true);
    }

    /// An order for one more, if fewer are ready than are wanted and none is being made.
    pub(crate) fn order(&mut self, settings: &Settings) -> Option<SpareOrder> {
        if self.ordered.is_some() || self.ready.len() >= settings.spares {
            return None;
        }
        let header = Header {
            alignment: settings.alignment,
            segment: self.next,
            bytes: settings.segment_bytes,
            cluster: self.cluster,
            incarnation: self.incarnation,
        };
        // While all others are ready nobody waits for the last one, unless writes are refused until it is there.
        let is_last = !self.ready.is_empty() && self.ready.len() + 1 == settings.spares;
        self.haste.set(!is_last || self.is_full);
        self.ordered = Some(self.next);
        self.next += 1;
        Some(SpareOrder { disk: Arc::clone(&self.disk), header, haste: self.haste.clone() })
    }

    /// Takes what came of the order. `wanted` is how many are to be ready.
    pub(crate) fn prepared(&mut self, prepared: Prepared, wanted: usize) {
        let ordered = self.ordered.take().expect("a spare comes when it was ordered");
        match prepared {
            Prepared::Spare(spare) => {
                assert_eq!(spare.header.segment, ordered, "the spare is the one that was ordered");
                self.ready.push_back(spare);
                self.is_full &= self.ready.len() < wanted;
            }
            Prepared::NoRoom { .. } => {
                // Nothing was made under this id, and ids have no gap.
                self.next = ordered;
                self.is_full = true;
            }
        }
    }

    /// Whether the disk had no room for the last ones that were ordered.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;

    /// Has the next spare made, if one is wanted: whether there was haste when it was ordered, and after `meanwhile`.
    fn made(spares: &mut Spares, settings: &Settings, meanwhile: fn(&mut Spares)) -> Option<(bool, bool)> {
        let order = spares.order(settings)?;
        let at_first = order.haste.is_needed();
        meanwhile(spares);
        let in_the_end = order.haste.is_needed();
        spares.prepared(order.run().unwrap(), settings.spares);
        Some((at_first, in_the_end))
    }

    #[test]
    fn only_the_last_spare_is_made_without_haste_and_only_until_another_is_taken() {
        let settings = Settings { segment_bytes: 64 << 10, spares: 3, ..Settings::default() };
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut spares = Spares::new(disk, ([1; 16], [2; 16]), VecDeque::new(), 1);
        let nothing = |_: &mut Spares| {};
        let first: Vec<_> = std::iter::from_fn(|| made(&mut spares, &settings, nothing)).collect();
        assert_eq!(first, [(true, true), (true, true), (false, false)]);
        spares.take().unwrap();
        let take = |spares: &mut Spares| drop(spares.take().unwrap());
        assert_eq!(made(&mut spares, &settings, take), Some((false, true)), "one is taken while one is made");
    }

    #[test]
    fn who_refuses_writes_or_is_about_to_end_has_haste() {
        let settings = Settings { segment_bytes: 64 << 10, spares: 2, ..Settings::default() };
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut spares = Spares::new(disk, ([1; 16], [2; 16]), VecDeque::new(), 1);
        while made(&mut spares, &settings, |_| {}).is_some() {}
        spares.take().unwrap();
        assert!(!spares.order(&settings).unwrap().haste.is_needed());
        spares.prepared(Prepared::NoRoom { file: "segment".into(), bytes: 1 }, settings.spares);
        assert_eq!(made(&mut spares, &settings, |_| {}), Some((true, true)), "the disk was full");
        spares.take().unwrap();
        let end = |spares: &mut Spares| spares.hasten();
        assert_eq!(made(&mut spares, &settings, end), Some((false, true)), "it is about to end");
    }

    #[test]
    fn a_log_that_keeps_one_spare_waits_for_it() {
        let settings = Settings { segment_bytes: 64 << 10, spares: 1, ..Settings::default() };
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let mut spares = Spares::new(disk, ([1; 16], [2; 16]), VecDeque::new(), 1);
        assert_eq!(made(&mut spares, &settings, |_| {}), Some((true, true)));
    }
}
