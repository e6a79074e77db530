//! Spares: segments made ahead, so that no append ever waits for one to be filled with zeros.
//!
//! They are also the reserve of a disk that is full. The first spare for which there is no room is reported while the
//! others are still there: whoever owns the log can stop taking more from outside, and write what must be written.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::segment::Header;
use crate::{Disk, Prepared, Settings, Spare, SpareOrder};

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
        Self { disk, cluster, incarnation, ready, ordered: None, next, is_full: false }
    }

    /// Takes the next one into use.
    pub(crate) fn take(&mut self) -> Option<Spare> {
        self.ready.pop_front()
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
        self.ordered = Some(self.next);
        self.next += 1;
        Some(SpareOrder { disk: Arc::clone(&self.disk), header })
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
