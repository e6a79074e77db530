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
//!
//! Behind a fault nothing is visible any more, for nobody knows what is missing there. The blocks that follow
//! are still compared with each other: recovery needs one good block to know that the fault is damage, and who
//! inspects a directory wants to hear of every fault in it and not of the first alone.

use std::sync::Arc;

use crate::block::{self, Block, Reason};
use crate::extent::{BlockPlace, Extents};
use crate::log::{Active, ReadError};
use crate::segment::{Fault, Header, Piece, Scan, file_name};
use crate::terms::Terms;
use crate::{Damage, Index, Position, Region};

/// Most faults that are remembered; the others are counted. Count.
pub(crate) const FAULTS_MAX: usize = 100;

/// The visible log, as far as the segments were folded.
///
/// Invariants:
/// - terms and extents describe exactly the entries up to `last`, all verified;
/// - with a fault pending, the index expected at the first one is `last + 1`, and only a cut adds anything;
/// - once a file is lost, nothing is added any more.
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
    /// Of the entries of all good blocks, visible or not, the last one of the highest term.
    pub(crate) latest: Position,
    /// The cuts that counted, in the order of their segments.
    pub(crate) cuts: Vec<Cut>,
    faults: Faults,
    /// Segments with bytes but without any good block.
    dirty: Vec<u64>,
    /// Where the last good block ends, visible or not.
    reached: Position,
    /// Something is missing between that block and the next one, which therefore need not build on it.
    missing: bool,
    /// A whole file is missing or not ours.
    file_lost: bool,
}

/// What is to be done after all segments were folded without damage.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The tail of the active segment is torn: the next block must hide it.
    pub(crate) cut_pending: bool,
    /// Segments that hold nothing but a torn first block.
    pub(crate) remove: Vec<u64>,
}

/// A segment that hides the entries behind `last` in all segments before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) segment: u64,
    pub(crate) last: Index,
}

/// The faults that no cut hides so far.
#[derive(Debug, Default)]
struct Faults {
    pending: Vec<Pending>,
    /// Those that had no place any more, and the lowest index that was expected at one of them.
    more: u64,
    more_due: Index,
}

#[derive(Debug)]
struct Pending {
    fault: Fault,
    /// The index that was expected there.
    due: Index,
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
            latest: start,
            cuts: Vec::new(),
            faults: Faults::default(),
            dirty: Vec::new(),
            reached: start,
            missing: false,
            file_lost: false,
        }
    }

    /// Takes the next segment, which is not blank. Reads from an older one to check what a cut builds on.
    pub(crate) fn add(
        &mut self,
        region: &Arc<dyn Region>,
        header: &Header,
        scan: Scan,
    ) -> Result<(), ReadError> {
        if scan.is_dirty() {
            self.dirty.push(scan.segment);
        }
        for piece in scan.pieces {
            match piece {
                Piece::Fault(fault) => self.note(fault),
                Piece::Block(position, block) => self.add_block(region, header, position, &block)?,
            }
        }
        Ok(())
    }

    /// A segment whose header is not readable, but which holds bytes: a header is synced before its first
    /// use.
    pub(crate) fn add_unreadable(&mut self, damage: Damage) {
        self.note(Fault { damage, proven: true });
    }

    /// A file is missing or not ours: what follows cannot be tied to what is visible, whatever it holds.
    pub(crate) fn lose_file(&mut self) {
        self.missing = true;
        self.file_lost = true;
    }

    /// Judges what is left.
    pub(crate) fn verdict(&self) -> Result<Verdict, Damage> {
        match self.faults.pending.first() {
            Some(Pending { fault, .. }) if fault.proven && cfg!(not(feature = "bug-proven-block-cut")) => {
                Err(fault.damage.clone())
            }
            first => Ok(Verdict { cut_pending: first.is_some(), remove: self.dirty.clone() }),
        }
    }

    /// The places where something is not as it was made durable: the first [`FAULTS_MAX`] of them, and how many
    /// more there are.
    pub(crate) fn damages(&self) -> (Vec<Damage>, u64) {
        if self.verdict().is_ok() {
            return (Vec::new(), 0);
        }
        let proven = self.faults.pending.iter().filter(|pending| pending.fault.proven);
        (proven.map(|pending| pending.fault.damage.clone()).collect(), self.faults.more)
    }

    /// Where a crash tore the end of the log: what lies behind the last good block, and was never synced.
    pub(crate) fn torn(&self) -> Option<&Damage> {
        let unproven = self.faults.pending.iter().find(|pending| !pending.fault.proven);
        unproven.map(|pending| &pending.fault.damage)
    }

    /// The entry at `index`, if it is visible.
    pub(crate) fn position(&self, index: Index) -> Result<Option<Position>, ReadError> {
        match index {
            _ if index == self.last.index => Ok(Some(self.last)),
            _ if index == self.start.index => Ok(Some(self.start)),
            _ if index > self.last.index => Ok(None),
            _ => Ok(Some(self.extents.read(index)?.1)),
        }
    }

    fn add_block(
        &mut self,
        region: &Arc<dyn Region>,
        header: &Header,
        position: u64,
        block: &Block,
    ) -> Result<(), ReadError> {
        let misfit = match position == header.first_position() {
            true => self.misfit_of_first(block)?,
            false => self.misfit_of_further(block),
        };
        if let Some((expected, found)) = misfit {
            let damage = Damage { file: file_name(header.segment), offset: position, expected, found };
            self.note(Fault { damage, proven: true });
        } else if block.header.reason == Reason::Cut {
            self.cut(header.segment, block.header.predecessor());
        }
        self.faults.prove();
        if self.faults.pending.is_empty() && !self.file_lost {
            self.take(region, header, position, block);
        }
        if block.last.term >= self.latest.term {
            self.latest = block.last;
        }
        self.reached = block.last;
        self.missing = false;
        Ok(())
    }

    /// Why a block cannot begin the next segment, if it cannot: what was expected and what was found.
    fn misfit_of_first(&self, first: &Block) -> Result<Option<(String, String)>, ReadError> {
        let before = first.header.predecessor();
        let nothing_pending = self.faults.pending.is_empty() && !self.file_lost;
        let fits = match first.header.reason {
            Reason::Follows => false,
            Reason::First => self.active.is_none() && nothing_pending && before == self.start,
            Reason::Roll => {
                (self.active.is_some() || !nothing_pending) && (self.missing || before == self.reached)
            }
            // Behind a fault nothing can be looked up. The fault itself stays, whatever is cut there.
            Reason::Cut if before.index > self.last.index => !nothing_pending,
            Reason::Cut => before.index >= self.commit && self.position(before.index)? == Some(before),
        };
        if fits {
            return Ok(None);
        }
        let expected =
            format!("a segment that rolls from {} or cuts above {}", describe(self.reached), self.commit);
        Ok(Some((expected, format!("{:?} after {}", first.header.reason, describe(before)))))
    }

    /// The same for a block that is not the first of its segment.
    fn misfit_of_further(&self, block: &Block) -> Option<(String, String)> {
        let before = block.header.predecessor();
        if block.header.reason == Reason::Follows && (self.missing || before == self.reached) {
            return None;
        }
        let expected = format!("a block that follows {}", describe(self.reached));
        Some((expected, format!("one that follows {}", describe(before))))
    }

    /// Hides everything after `last`.
    fn cut(&mut self, segment: u64, last: Position) {
        self.faults.hide_behind(last.index);
        self.cuts.push(Cut { segment, last: last.index });
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
        let end = block::align_up(position + block.header.bytes(), header.alignment);
        self.active = Some(Active { region: Arc::clone(region), header: *header, position: end });
    }

    fn note(&mut self, fault: Fault) {
        if fault.proven {
            self.faults.prove();
        }
        self.faults.push(Pending { fault, due: self.reached.index + 1 });
        self.missing = true;
    }
}

impl Faults {
    fn push(&mut self, pending: Pending) {
        if self.pending.len() < FAULTS_MAX {
            self.pending.push(pending);
            return;
        }
        self.more_due = if self.more == 0 { pending.due } else { self.more_due.min(pending.due) };
        self.more += 1;
    }

    /// Something that was written later is good: all that is missing before it was durable.
    fn prove(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.fault.proven = true);
    }

    /// Forgets what a cut behind `last` hides.
    fn hide_behind(&mut self, last: Index) {
        self.pending.retain(|pending| pending.due <= last);
        if self.more_due > last {
            self.more = 0;
        }
    }
}

fn describe(position: Position) -> String {
    let Position { index, term, chain } = position;
    format!("entry {index} (term {term}, chain {chain:#010x})")
}
