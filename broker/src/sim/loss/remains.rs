//! What is left on a disk after a file was lost, and whether that can be told from the disk alone.
//!
//! A disk that nothing is wrong with is read block by block. What the loss does to it is then done to that list, not read
//! from the bytes that are left: whoever asks the program what it makes of a damaged directory has its opinion twice.
//!
//! What is left contradicts itself if
//!
//! * there is no identity;
//! * an id is missing among the segments: they are made one after the other, and none is ever deleted;
//! * a block is missing, a later one is there, and no later cut hides what is missing: blocks are written one after
//!   the other, each when the one before it is synced;
//! * there is no vote beside segments: it is there before the first of them;
//! * an entry has a later term than the vote: the vote of a term is synced before any entry of it is written.

use std::collections::BTreeMap;

use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{Disk, Index, Item, Position, Reason, Term, Vote, inspect};

use super::super::machine::Synced;
use super::super::rot::{IDENTITY, VOTE};

const SEGMENT: &str = "segment-";
const CHECKPOINT: &str = "checkpoint-";

/// All files of a directory, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The name of a segment's file.
pub(in super::super) fn segment(id: u64) -> String {
    format!("{SEGMENT}{id:020}")
}

/// The segment that a file holds by its name.
pub(in super::super) fn segment_id(name: &str) -> Option<u64> {
    name.strip_prefix(SEGMENT)?.parse().ok()
}

/// One write to a segment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    /// It hides all entries behind this index that were written before it.
    pub(super) cuts_behind: Option<Index>,
    pub(super) entries: Vec<Position>,
}

impl Block {
    /// The lowest index of which nobody can know without it; none for a witness.
    fn first(&self) -> Option<Index> {
        self.cuts_behind.map(|kept| kept + 1).or_else(|| self.entries.first().map(|entry| entry.index))
    }
}

/// What a directory holds. See the module's header.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remains {
    pub(super) has_identity: bool,
    pub(super) vote: Option<Vote>,
    /// The blocks of each segment; a spare has none.
    pub(super) segments: BTreeMap<u64, Vec<Block>>,
    /// The segments whose end a crash has torn, and the index of the entry that was due there. A cut hides each, but a cut can
    /// be lost.
    pub(super) torn: BTreeMap<u64, Index>,
}

/// What a loss comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loss {
    /// Everything that mattered is still there.
    Nothing,
    /// What is left contradicts itself, at this file.
    Contradiction { file: String },
    /// What is left might be all that ever was: the log as it was up to `left`, and what a start has to show.
    Unseen { left: Index, shown: Synced },
}

impl Remains {
    /// Reads a disk that nothing is wrong with but that a crash may have torn its end.
    pub(super) fn read(disk: &MemoryDisk) -> Self {
        let names = disk.list().expect("no disk fails in this profile");
        let inspection = inspect(disk).expect("no disk fails in this profile");
        // The worlds of the simulator have no checkpoints.
        let found = inspection.findings().listed().iter().find(|found| !found.file.starts_with(CHECKPOINT));
        assert_eq!(found, None, "there was damage before the loss");
        let ids = names.iter().filter_map(|name| segment_id(name));
        let mut segments: BTreeMap<u64, Vec<Block>> = ids.map(|id| (id, Vec::new())).collect();
        let mut torn = BTreeMap::new();
        let (mut last, mut reached) = (0, 0);
        for item in inspection.walk(0).filter_map(Result::ok) {
            match item {
                Item::Block(block) => {
                    last = segment_id(&block.file).expect("a block lies in a segment");
                    let cuts_behind = (block.reason == Reason::Cut).then_some(block.previous.index);
                    reached = block.previous.index;
                    let blocks = segments.get_mut(&last).expect("it is among the files");
                    blocks.push(Block { cuts_behind, entries: Vec::new() });
                }
                Item::Entry(walked) => {
                    let (index, term) = (walked.entry.index, walked.entry.term);
                    reached = index;
                    let block = segments.get_mut(&last).and_then(|blocks| blocks.last_mut());
                    let block = block.expect("an entry comes after its block");
                    block.entries.push(Position { index, term, chain: walked.chain });
                }
                Item::Fault(fault) => {
                    let id = segment_id(&fault.damage.file).expect("only segments are walked");
                    torn.insert(id, reached + 1);
                }
            }
        }
        let has_identity = inspection.identity().is_some();
        Self { has_identity, vote: inspection.vote(), segments, torn }
    }

    /// The log that a start shows of a directory that does not contradict itself.
    pub(super) fn visible(&self) -> Vec<Position> {
        let mut log: Vec<Position> = Vec::new();
        for block in self.segments.values().flatten() {
            if let Some(kept) = block.cuts_behind {
                log.truncate(usize::try_from(kept).expect("an index fits a usize"));
            }
            log.extend(&block.entries);
        }
        log
    }

    /// The last index of that log.
    pub(super) fn last(&self) -> Index {
        self.visible().last().map_or(0, |last| last.index)
    }

    /// Whether a file is a segment without a block.
    pub(super) fn is_spare(&self, name: &str) -> bool {
        segment_id(name).and_then(|id| self.segments.get(&id)).is_some_and(Vec::is_empty)
    }

    /// What a loss that left `after` comes to.
    pub(super) fn judge(&self, after: &Self) -> Loss {
        if let Some(file) = self.contradiction(after) {
            return Loss::Contradiction { file };
        }
        let (old, new) = (self.visible(), after.visible());
        if old == new && self.vote == after.vote {
            return Loss::Nothing;
        }
        let left = old.iter().zip(&new).take_while(|(old, new)| old == new).count() as Index;
        let shown = Synced { last: new.last().copied(), vote: after.vote.unwrap_or_default() };
        Loss::Unseen { left, shown }
    }

    /// The file at which `after` contradicts itself, or the first one that is missing.
    fn contradiction(&self, after: &Self) -> Option<String> {
        if !after.has_identity {
            return Some(IDENTITY.into());
        }
        if let Some((due, _)) = (1..).zip(after.segments.keys()).find(|(due, id)| due != *id) {
            return Some(segment(due));
        }
        if let Some(id) = self.segments.iter().find_map(|(id, blocks)| after.misfit(*id, blocks)) {
            // What was torn before, and is not hidden any more, now looks like something that was synced.
            let torn = after.torn.iter().find(|(torn, due)| **torn < id && !after.is_hidden(**torn, **due));
            return Some(segment(torn.map_or(id, |(torn, _)| *torn)));
        }
        let is_outdated = match after.vote {
            None => !after.segments.is_empty(),
            Some(vote) => vote.term < after.latest_term(),
        };
        is_outdated.then(|| VOTE.into())
    }

    /// The segment whose first block shows that some of those that once were in the segment `id` are missing.
    fn misfit(&self, id: u64, blocks: &[Block]) -> Option<u64> {
        let left = self.segments.get(&id).map_or(0, Vec::len);
        let missing = blocks.get(left..).unwrap_or_default();
        let first = missing.iter().find_map(Block::first)?;
        let (next, _) = self.segments.range(id + 1..).find(|(_, blocks)| !blocks.is_empty())?;
        (!self.is_hidden(id, first)).then_some(*next)
    }

    /// Whether a segment after the segment `id` cuts off the entry at an index, and all behind it.
    fn is_hidden(&self, id: u64, index: Index) -> bool {
        let later = self.segments.range(id + 1..).flat_map(|(_, blocks)| blocks);
        later.filter_map(|block| block.cuts_behind).any(|kept| kept < index)
    }

    fn latest_term(&self) -> Term {
        let entries = self.segments.values().flatten().flat_map(|block| &block.entries);
        entries.map(|entry| entry.term).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(from: Index, to: Index, term: Term) -> Block {
        let entry = |index| Position { index, term, chain: u32::try_from(index * 10 + term).unwrap() };
        Block { cuts_behind: None, entries: (from..=to).map(entry).collect() }
    }

    fn cut(from: Index, to: Index, term: Term) -> Block {
        Block { cuts_behind: Some(from - 1), ..entries(from, to, term) }
    }

    const WITNESS: Block = Block { cuts_behind: None, entries: Vec::new() };

    fn vote(term: Term) -> Option<Vote> {
        Some(Vote { term, voted_for: 1 })
    }

    /// Two segments, of which the second is torn, a third that cuts off what the second ends with, and a spare.
    fn whole() -> Remains {
        let segments = [
            vec![entries(1, 3, 1), entries(4, 5, 1)],
            vec![entries(6, 6, 1), entries(7, 9, 1), WITNESS],
            vec![cut(8, 10, 2), entries(11, 11, 2)],
            vec![],
        ];
        let torn = BTreeMap::from([(2, 10)]);
        Remains { has_identity: true, vote: vote(3), segments: (1..).zip(segments).collect(), torn }
    }

    fn judged(change: impl FnOnce(&mut Remains)) -> Loss {
        let mut after = whole();
        change(&mut after);
        whole().judge(&after)
    }

    fn at(file: impl Into<String>) -> Loss {
        Loss::Contradiction { file: file.into() }
    }

    #[test]
    fn what_a_cut_hides_is_not_part_of_the_log() {
        let log = whole().visible();
        assert!((1..).zip(&log).all(|(index, entry)| entry.index == index));
        assert_eq!(log.iter().map(|entry| entry.term).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]);
    }

    #[test]
    fn a_missing_file_contradicts_those_that_are_there() {
        assert_eq!(judged(|after| after.has_identity = false), at(IDENTITY));
        assert_eq!(judged(|after| after.vote = None), at(VOTE));
        for id in 1..=3 {
            assert_eq!(judged(|after| drop(after.segments.remove(&id))), at(segment(id)));
        }
    }

    #[test]
    fn a_spare_is_nothing_and_a_last_segment_is_not_missed() {
        assert_eq!(judged(|after| drop(after.segments.remove(&4))), Loss::Nothing);
        let last_two = |after: &mut Remains| after.segments.retain(|id, _| *id < 3);
        let last = Position { index: 9, term: 1, chain: 91 };
        let shown = Synced { last: Some(last), vote: whole().vote.unwrap() };
        assert_eq!(judged(last_two), Loss::Unseen { left: 7, shown }, "what had been cut off is back");
    }

    #[test]
    fn an_older_segment_contradicts_the_next_one_unless_that_hides_the_difference() {
        let keep =
            |id, blocks| move |after: &mut Remains| after.segments.get_mut(&id).unwrap().truncate(blocks);
        assert_eq!(judged(keep(1, 1)), at(segment(2)));
        assert_eq!(judged(keep(1, 0)), at(segment(2)));
        assert_eq!(judged(keep(2, 1)), at(segment(3)), "entry 7 is not hidden");
        assert_eq!(judged(keep(2, 2)), Loss::Nothing, "only the witness is missing");
        assert!(matches!(judged(keep(3, 1)), Loss::Unseen { left: 10, .. }));
        assert!(matches!(judged(keep(3, 0)), Loss::Unseen { left: 7, .. }));
        let mut before = whole();
        before.segments.get_mut(&2).unwrap()[1] = entries(7, 7, 1);
        before.segments.get_mut(&2).unwrap()[2] = entries(8, 9, 1);
        let mut after = before.clone();
        after.segments.get_mut(&2).unwrap().truncate(2);
        assert_eq!(before.judge(&after), Loss::Nothing, "the cut hides all that is missing");
    }

    #[test]
    fn without_its_cut_a_torn_end_is_the_first_contradiction() {
        let mut before = whole();
        before.segments.insert(4, vec![entries(12, 12, 2)]);
        let mut after = before.clone();
        after.segments.insert(3, vec![]);
        assert_eq!(before.judge(&after), at(segment(2)));
        after.torn.clear();
        assert_eq!(before.judge(&after), at(segment(4)));
    }

    #[test]
    fn a_vote_is_missed_if_an_entry_has_a_later_term() {
        assert_eq!(judged(|after| after.vote = vote(1)), at(VOTE));
        let shown = Synced { last: whole().visible().last().copied(), vote: vote(2).unwrap() };
        assert_eq!(judged(|after| after.vote = vote(2)), Loss::Unseen { left: 11, shown });
        let hidden = |after: &mut Remains| {
            after.segments.get_mut(&2).unwrap()[2] = entries(10, 10, 4);
        };
        let mut before = whole();
        hidden(&mut before);
        assert_eq!(before.judge(&before), at(VOTE), "a cut hides no term");
    }

    #[test]
    fn an_older_directory_never_contradicts_itself() {
        let older = |after: &mut Remains| {
            after.segments.remove(&4);
            after.segments.insert(3, vec![]);
            after.segments.insert(2, vec![entries(6, 6, 1)]);
            after.vote = vote(1);
        };
        assert!(matches!(judged(older), Loss::Unseen { left: 6, .. }));
    }
}
