//! The fold: from the blocks of all segments, in the order of their ids, to the visible log and a verdict.
//! Pure.
//!
//! | after the last good block | and then                                            | verdict        |
//! |---------------------------|-----------------------------------------------------|----------------|
//! | zeros                     | nothing                                             | go on there    |
//! | zeros                     | a segment that rolls from that very block           | go on with it  |
//! | anything                  | a segment that cuts at or below the index due here  | hidden         |
//! | other bytes               | nothing good, here or in later segments             | torn: cut it   |
//! | other bytes or zeros      | a good block, here or in a later segment            | **damaged**    |
//!
//! The last line needs no guess. A block is written when the sync of the one before has returned, so a good
//! block that is later (further on in the segment, or in a segment with a higher id) proves that whatever
//! stood here was durable. The one exception is a tail that recovery itself found torn: the block after that
//! is a cut, which says so.
//!
//! What a cut hides is never judged. So a fault is only remembered when it is met, and judged at the end. A
//! cut counts if it begins at or below the index that is expected at the fault and builds on an entry that is
//! visible here, term and chain: then what lies in between is not part of its history.

use std::sync::Arc;

use crate::block::{Block, Reason};
use crate::extent::{BlockPlace, Extents};
use crate::log::{Active, ReadError};
use crate::segment::{Fault, Header, Scan, file_name};
use crate::terms::Terms;
use crate::{Damage, Index, Position, Region};

/// The visible log, as far as the segments were folded.
///
/// Invariants:
/// - terms and extents describe exactly the entries up to `last`, all verified;
/// - with a fault pending, the index expected at the fault is `last + 1`, and only a cut adds anything.
#[derive(Debug)]
pub(crate) struct Fold {
    pub(crate) start: Position,
    pub(crate) last: Position,
    pub(crate) terms: Terms,
    pub(crate) extents: Extents,
    /// Highest commit index that any folded block carries.
    pub(crate) commit: Index,
    /// The segment of the last block.
    pub(crate) active: Option<Active>,
    /// The last block has entries, and no later block proves it.
    pub(crate) unproven: bool,
    fault: Option<Fault>,
    /// Segments with bytes but without any good block.
    dirty: Vec<u64>,
}

/// What is to be done after all segments were folded without damage.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The tail of the active segment is torn: the next block must hide it.
    pub(crate) cut_pending: bool,
    /// Segments that hold nothing but a torn first block.
    pub(crate) remove: Vec<u64>,
}

impl Fold {
    pub(crate) fn new(start: Position) -> Self {
        Self {
            start,
            last: start,
            terms: Terms::new(start.term),
            extents: Extents::default(),
            commit: 0,
            active: None,
            unproven: false,
            fault: None,
            dirty: Vec::new(),
        }
    }

    /// Takes the next segment, which is not blank. Reads from an older one to check what a cut builds on.
    pub(crate) fn add(
        &mut self,
        region: &Arc<dyn Region>,
        header: Header,
        scan: Scan,
    ) -> Result<(), ReadError> {
        let Some((position, first)) = scan.blocks.first() else {
            let fault = scan.fault.expect("a segment without block and fault is blank");
            if !fault.proven {
                self.dirty.push(scan.segment);
            }
            self.note(fault);
            return Ok(());
        };
        if let Some((expected, found)) = self.misfit(first)? {
            let damage = Damage { file: file_name(scan.segment), offset: *position, expected, found };
            self.note(Fault { damage, proven: true });
            return Ok(());
        }
        if first.header.reason == Reason::Cut {
            self.cut(first.header.predecessor());
        }
        self.active = Some(Active { region: Arc::clone(region), header, position: scan.end });
        for (number, (position, block)) in scan.blocks.into_iter().enumerate() {
            let follows = block.header.reason == Reason::Follows && block.header.predecessor() == self.last;
            if number > 0 && !follows {
                let expected = format!("a block that follows {}", describe(self.last));
                let found = format!("one that follows {}", describe(block.header.predecessor()));
                let damage = Damage { file: file_name(scan.segment), offset: position, expected, found };
                self.note(Fault { damage, proven: true });
                return Ok(());
            }
            self.take(region, &header, position, &block);
        }
        if let Some(fault) = scan.fault {
            self.note(fault);
        }
        Ok(())
    }

    /// A segment whose header is not readable, but which holds bytes: a header is synced before its first
    /// use.
    pub(crate) fn add_unreadable(&mut self, damage: Damage) {
        self.note(Fault { damage, proven: true });
    }

    /// Judges what is left.
    pub(crate) fn verdict(&self) -> Result<Verdict, Damage> {
        match &self.fault {
            Some(fault) if fault.proven => Err(fault.damage.clone()),
            Some(_) => Ok(Verdict { cut_pending: true, remove: self.dirty.clone() }),
            None => Ok(Verdict { cut_pending: false, remove: self.dirty.clone() }),
        }
    }

    /// Why a block cannot begin the next segment, if it cannot: what was expected and what was found.
    fn misfit(&self, first: &Block) -> Result<Option<(String, String)>, ReadError> {
        let before = first.header.predecessor();
        let fits = match first.header.reason {
            Reason::Follows => false,
            Reason::First => self.active.is_none() && self.fault.is_none() && before == self.start,
            Reason::Roll => self.active.is_some() && self.fault.is_none() && before == self.last,
            Reason::Cut => before.index >= self.commit && self.position(before.index)? == Some(before),
        };
        if fits {
            return Ok(None);
        }
        let expected =
            format!("a segment that rolls from {} or cuts above {}", describe(self.last), self.commit);
        Ok(Some((expected, format!("{:?} after {}", first.header.reason, describe(before)))))
    }

    fn position(&self, index: Index) -> Result<Option<Position>, ReadError> {
        match index {
            _ if index == self.last.index => Ok(Some(self.last)),
            _ if index == self.start.index => Ok(Some(self.start)),
            _ if index > self.last.index => Ok(None),
            _ => Ok(Some(self.extents.read(index)?.1)),
        }
    }

    /// Hides everything after `last`.
    fn cut(&mut self, last: Position) {
        self.fault = None;
        if last.index < self.last.index {
            self.extents.cut(last.index + 1);
            self.terms.cut(last.index + 1);
            self.last = last;
        }
    }

    fn take(&mut self, region: &Arc<dyn Region>, header: &Header, position: u64, block: &Block) {
        let first = block.header.first_index;
        for &(index, term) in &block.rises {
            self.terms.push(index, term);
        }
        if block.header.entries > 0 {
            self.extents.push(BlockPlace {
                region: Arc::clone(region),
                segment: header.segment,
                alignment: header.alignment,
                position,
                first,
                last: block.last.index,
            });
        }
        self.last = block.last;
        self.commit = self.commit.max(block.header.commit);
        self.unproven = block.header.entries > 0;
    }

    /// Remembers the first fault; a later one can only prove it.
    fn note(&mut self, fault: Fault) {
        match &mut self.fault {
            Some(pending) => pending.proven |= fault.proven,
            None => self.fault = Some(fault),
        }
    }
}

fn describe(position: Position) -> String {
    let Position { index, term, chain } = position;
    format!("entry {index} (term {term}, chain {chain:#010x})")
}
