//! Spares: segments made ahead, so that no append ever waits for one to be filled with zeros.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::segment::Header;
use crate::{Disk, Settings, Spare, SpareOrder};

/// The segments that are ready, and the one that is being made.
///
/// Invariants:
/// - ids rise in the order of use, and no id is given twice;
/// - one order is out at a time, else a segment could be used after one with a higher id.
#[derive(Debug)]
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    cluster: [u8; 16],
    incarnation: [u8; 16],
    ready: VecDeque<Spare>,
    ordered: Option<u64>,
    next: u64,
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
        Self { disk, cluster, incarnation, ready, ordered: None, next }
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

    /// Takes the one that was ordered.
    pub(crate) fn add(&mut self, spare: Spare) {
        assert_eq!(self.ordered.take(), Some(spare.header.segment), "a spare is taken when it was ordered");
        self.ready.push_back(spare);
    }
}
