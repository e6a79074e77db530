//! The log: what is appended, what is durable, and where each entry is found.
//!
//! ```text
//!   1                       durable       written              last
//!   |--- on disk, proven ------|-- in flight --|--- staged -------|
//!   |        extents           |               tail               |
//! ```
//!
//! Three watermarks. Above `durable` entries are in the tail in memory, at or below it they are read from
//! disk. `written` is the end of the block that is in flight, if one is; the next block begins there.
//!
//! Nothing is ever overwritten. When raft replaces a suffix of which something was written, the next block
//! opens a new segment with the reason *cut*, which hides that suffix; replaced entries that were never
//! written just leave the tail. The suffix is hidden only when that block is durable: after a crash before
//! it, the old entries are there again, which is what a broker that never heard of the new ones would show.

use std::io;
use std::sync::Arc;

use crate::block::{self, HEADER_BYTES as BLOCK_HEADER_BYTES, Reason, Salt};
use crate::cache::Cached;
use crate::extent::{BlockPlace, Extents};
use crate::generations::Generations;
use crate::segment;
use crate::spares::Spares;
use crate::tail::Tail;
use crate::terms::Terms;
use crate::ticket::BlockWrite;
use crate::vote::Votes;
use crate::{
    Damage, Done, Entry, Index, Position, Prepared, Region, Settings, Spare, SpareOrder, Term, Ticket, Vote,
};

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log does not hold this index.
    #[error("index {index} is not in the log, which holds {first} to {last}")]
    OutOfRange {
        /// What was asked for.
        index: Index,
        /// First index of the log.
        first: Index,
        /// Last index of the log.
        last: Index,
    },
    /// What is there was not written like that.
    #[error("{0}; this broker must stop: its log is damaged")]
    Damaged(#[from] Damage),
    /// The disk failed.
    #[error("could not read {file}")]
    Io {
        /// The segment.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks synced.
    pub blocks: u64,
    /// Bytes of those blocks, padding included.
    pub block_bytes: u64,
    /// Syncs of segments.
    pub log_syncs: u64,
    /// Syncs of the vote file.
    pub vote_syncs: u64,
}

/// The log of one broker.
///
/// Invariants:
/// - indexes are contiguous from 1, terms never fall, each chain continues the one before;
/// - `commit` never falls, and nothing at or below it is ever cut;
/// - `durable <= written <= last`, and `durable == written` while no ticket is out;
/// - a block is made only when the sync of the one before has returned, so it begins at `durable + 1`;
/// - the tail holds exactly the entries above `durable`, the extents exactly those at or below it;
/// - no byte of a segment is written twice, but for zeros, where nothing but zeros is.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    incarnation: [u8; 16],
    start: Position,
    terms: Terms,
    extents: Extents,
    tail: Tail,
    written: Index,
    commit: Index,
    active: Option<Active>,
    /// Something that is not in the log lies after `written` in the active segment: the next block must hide
    /// it.
    cut_pending: bool,
    /// The last block holds entries, and no later block shows that it was synced.
    unproven: bool,
    witness_wanted: bool,
    spares: Spares,
    cached: Cached,
    votes: Votes,
    generations: Generations,
    outstanding: Option<Outstanding>,
    tickets: u64,
    counters: Counters,
}

/// The segment that takes the next block, if it has room.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) region: Arc<dyn Region>,
    pub(crate) header: segment::Header,
    /// Where the next block begins.
    pub(crate) position: u64,
}

/// The ticket that is out.
#[derive(Debug)]
struct Outstanding {
    number: u64,
    has_vote: bool,
    block: Option<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    place: BlockPlace,
    padded_bytes: u64,
    is_witness: bool,
}

/// What recovery found, as the start of a log.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) start: Position,
    pub(crate) last: Position,
    pub(crate) terms: Terms,
    pub(crate) extents: Extents,
    pub(crate) commit: Index,
    pub(crate) active: Option<Active>,
    pub(crate) cut_pending: bool,
    pub(crate) unproven: bool,
    pub(crate) spares: Spares,
    pub(crate) votes: Votes,
}

impl Log {
    /// The log that recovery found. All of it is durable.
    pub(crate) fn new(settings: Settings, incarnation: [u8; 16], found: Found) -> Self {
        assert_eq!(found.extents.last(), found.last.index, "the visible blocks end with the last entry");
        assert!(found.commit <= found.last.index, "what was committed was durable");
        Self {
            settings,
            incarnation,
            start: found.start,
            terms: found.terms,
            extents: found.extents,
            tail: Tail::new(found.last),
            written: found.last.index,
            commit: found.commit,
            active: found.active,
            cut_pending: found.cut_pending,
            unproven: found.unproven,
            witness_wanted: false,
            spares: found.spares,
            cached: Cached::default(),
            votes: found.votes,
            generations: Generations::default(),
            outstanding: None,
            tickets: 0,
            counters: Counters::default(),
        }
    }

    /// Index of the first entry.
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.start.index + 1
    }

    /// The last entry appended, durable or not.
    #[must_use]
    pub fn last(&self) -> Position {
        self.tail.last()
    }

    /// Index of [`Self::last`].
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.last().index
    }

    /// Highest index whose block's sync returned.
    #[must_use]
    pub fn durable(&self) -> Index {
        self.tail.base().index
    }

    /// Highest commit index known, from [`Self::set_commit`] or from recovery.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The sizes it was opened with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Term of the entry at `index`; index 0 has term 0. `None` above the last.
    #[must_use]
    pub fn term(&self, index: Index) -> Option<Term> {
        (index <= self.last_index()).then(|| self.terms.at(index))
    }

    /// Term and chain of the entry at `index`, its data verified. `None` above the last.
    ///
    /// # Errors
    /// The entry is damaged or could not be read.
    pub fn position(&self, index: Index) -> Result<Option<Position>, ReadError> {
        if index > self.last_index() {
            return Ok(None);
        }
        if index == self.start.index {
            return Ok(Some(self.start));
        }
        match self.tail.position(index) {
            Some(position) => Ok(Some(position)),
            None => Ok(Some(self.read_durable(index)?.1)),
        }
    }

    /// The entry at `index`, verified. Its data is a slice of the segment's map, or of what was appended.
    ///
    /// # Errors
    /// It is not in the log, damaged, or could not be read.
    pub fn entry(&self, index: Index) -> Result<Entry, ReadError> {
        let (first, last) = (self.first_index(), self.last_index());
        if index < first || index > last {
            return Err(ReadError::OutOfRange { index, first, last });
        }
        match self.tail.entry(index) {
            Some(entry) => Ok(entry.clone()),
            None => Ok(self.read_durable(index)?.0),
        }
    }

    /// The entries from `from` up to but not with `to`, as many as fit into `bytes_max` (headers counted), at
    /// least one. None if `from == to`.
    ///
    /// # Errors
    /// One is not in the log, damaged, or could not be read.
    pub fn entries(&self, from: Index, to: Index, bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in from..to {
            let entry = self.entry(index)?;
            bytes += entry.encoded_bytes() as u64;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Reads from disk, and compares with what memory knows.
    fn read_durable(&self, index: Index) -> Result<(Entry, Position), ReadError> {
        let (entry, position) = self.extents.read(index)?;
        let term = self.terms.at(index);
        if entry.term != term {
            let expected = format!("entry {index} of term {term}");
            return Err(self.extents.damage(index, expected, format!("term {}", entry.term)));
        }
        Ok((entry, position))
    }

    /// Appends contiguous entries. If the first is not past the last, the log is first cut at it.
    ///
    /// # Errors
    /// Only a cut can fail: the entry before it could not be read back. The log is then unchanged.
    ///
    /// # Panics
    /// If there is a gap, if a term falls, if the cut is at or below commit, or if an entry is larger than
    /// [`Settings::entry_data_bytes_max`].
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), ReadError> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
        let (first, last) = (first.index, last.index);
        assert!(
            first > self.commit,
            "entry {first} is at or below commit {} and cannot be replaced",
            self.commit
        );
        if first <= self.last_index() {
            self.cut(first)?;
        }
        let data_bytes_max = self.settings.entry_data_bytes_max();
        for entry in entries {
            assert!(entry.data.len() <= data_bytes_max, "entry {} is larger than a segment", entry.index);
            let (index, term) = (entry.index, entry.term);
            self.tail.push(entry);
            self.terms.push(index, term);
        }
        self.generations.append(first, last);
        Ok(())
    }

    /// Forgets everything from `index` on. What of it was written is hidden by the next block.
    fn cut(&mut self, index: Index) -> Result<(), ReadError> {
        let last = index - 1;
        if last < self.durable() {
            let base = self.position(last)?.expect("a cut is not past the last entry");
            self.extents.cut(index);
            self.tail.restart(base);
        } else {
            self.tail.cut_after(last);
        }
        self.terms.cut(index);
        if self.written > last {
            self.written = last;
            self.cut_pending = cfg!(not(feature = "bug-cut-keeps-suffix"));
        }
        if let Some(block) = self.outstanding.as_mut().and_then(|outstanding| outstanding.block.as_mut()) {
            block.place.last = block.place.last.min(last);
        }
        Ok(())
    }

    /// Stages a vote. The same vote again stages nothing.
    ///
    /// # Panics
    /// If the term falls, if a vote is changed within its term, or if the vote file was damaged.
    pub fn set_vote(&mut self, vote: Vote) {
        if let Some(number) = self.votes.set(vote) {
            self.generations.vote(number);
        }
    }

    /// The vote last set, durable or not. Nothing at all if the vote file was damaged.
    #[must_use]
    pub fn vote(&self) -> Vote {
        self.votes.latest()
    }

    /// Raises the commit index that later blocks carry as min(commit, durable). Never falls, never needs a
    /// sync.
    ///
    /// # Panics
    /// Above the last index.
    pub fn set_commit(&mut self, commit: Index) {
        assert!(commit <= self.last_index(), "commit {commit} is above the last index {}", self.last_index());
        self.commit = self.commit.max(commit);
    }

    /// Asks for an empty block once nothing else is staged, if the last durable block is not yet proven by a
    /// later one. With it, rot in that block cannot be mistaken for a write that was torn by a crash.
    pub fn request_witness(&mut self) {
        self.witness_wanted = true;
    }

    /// A number that grows with every append and vote: "everything up to now".
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generations.current()
    }

    /// Everything up to this generation is durable, entries and votes.
    #[must_use]
    pub fn durable_generation(&self) -> u64 {
        self.generations.durable()
    }

    /// The next ticket, if there is anything to write: at most one is out at a time. Entries that need a new
    /// segment wait for a spare, votes do not.
    pub fn poll_ticket(&mut self) -> Option<Ticket> {
        if self.outstanding.is_some() {
            return None;
        }
        let block = self.next_block();
        let vote = self.votes.write();
        if block.is_none() && vote.is_none() {
            return None;
        }
        self.tickets += 1;
        self.outstanding = Some(Outstanding {
            number: self.tickets,
            has_vote: vote.is_some(),
            block: block.as_ref().map(|write| InFlight {
                place: BlockPlace {
                    region: Arc::clone(&write.region),
                    segment: write.header.segment,
                    alignment: write.alignment,
                    position: write.salt.position,
                    first: write.header.first_index,
                    last: write.header.first_index + u64::from(write.header.entries) - 1,
                },
                padded_bytes: write.padded_bytes(),
                is_witness: write.entries.is_empty(),
            }),
        });
        Some(Ticket { number: self.tickets, vote, block })
    }

    /// The next block, in its place: all that is staged, as far as it fits.
    fn next_block(&mut self) -> Option<BlockWrite> {
        assert!(self.written == self.durable(), "the block before must be durable");
        let first = self.tail.iter().next().map(|(entry, _)| entry.encoded_bytes());
        if first.is_none() {
            self.witness_wanted &= self.unproven;
            if !self.witness_wanted {
                return None;
            }
        }
        let reason = self.make_room(BLOCK_HEADER_BYTES + first.unwrap_or(0))?;
        let active = self.active.as_mut().expect("there is room in it");
        let room = active.header.bytes - active.position;
        let bytes_max = usize::try_from(room).unwrap_or(usize::MAX).min(self.settings.block_bytes_max);

        let mut entries = Vec::new();
        let mut bytes = BLOCK_HEADER_BYTES;
        for (entry, position) in self.tail.iter() {
            bytes += entry.encoded_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                bytes -= entry.encoded_bytes();
                break;
            }
            entries.push((entry.clone(), position.chain));
        }
        self.witness_wanted &= !entries.is_empty();
        let bounded = "a block is no larger than a segment";
        let base = self.tail.base();
        let header = block::Header {
            reason,
            entries: u32::try_from(entries.len()).expect(bounded),
            length: u32::try_from(bytes - BLOCK_HEADER_BYTES).expect(bounded),
            segment: active.header.segment,
            first_index: base.index + 1,
            prev_term: base.term,
            prev_chain: base.chain,
            durable: base.index,
            commit: self.commit.min(base.index),
        };
        let alignment = active.header.alignment;
        let salt = Salt { incarnation: self.incarnation, segment: header.segment, position: active.position };
        let stale = self.cached.take_stale();
        active.position += block::align_up(header.bytes(), alignment);
        self.cached.write(&active.region, salt.position..active.position);
        assert!(active.position <= active.header.bytes, "a block does not leave its segment");
        self.written = base.index + u64::from(header.entries);
        Some(BlockWrite { region: Arc::clone(&active.region), salt, alignment, header, entries, stale })
    }

    /// Sees to it that `bytes` fit into the active segment, with a spare if need be. `None` if there is none
    /// yet.
    fn make_room(&mut self, bytes: usize) -> Option<Reason> {
        let reason = match &self.active {
            _ if self.cut_pending => Reason::Cut,
            None => Reason::First,
            Some(active) if active.header.bytes - active.position < bytes as u64 => Reason::Roll,
            Some(_) => return Some(Reason::Follows),
        };
        let Spare { region, header } = self.spares.take()?;
        let position = header.first_position();
        self.active = Some(Active { region, header, position });
        self.cut_pending = false;
        Some(reason)
    }

    /// Takes back the ticket that is out: what is in it is durable.
    ///
    /// # Panics
    /// If it is not the one that is out.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is taken back once")]
    pub fn handle_synced(&mut self, done: Done) {
        let outstanding = self.outstanding.take().expect("a ticket is out");
        assert_eq!(outstanding.number, done.number(), "tickets are taken back in order");
        if outstanding.has_vote {
            self.votes.synced();
            self.counters.vote_syncs += 1;
        }
        if let Some(InFlight { place, padded_bytes, is_witness }) = outstanding.block {
            self.counters.blocks += 1;
            self.counters.block_bytes += padded_bytes;
            self.counters.log_syncs += 1;
            self.unproven = !is_witness;
            // What was cut while it was in flight is on disk, but not in the log.
            if place.last >= place.first {
                self.tail.retire(place.last);
                self.extents.push(place);
            }
        }
        self.generations.synced(self.durable(), self.votes.durable());
    }

    /// A segment to be made ahead, while fewer than [`Settings::spares`] are ready. One order is out at a
    /// time, so that segments are used in the order of their ids.
    pub fn poll_spare(&mut self) -> Option<SpareOrder> {
        self.spares.order(&self.settings)
    }

    /// Has the segment that is being made finished at full speed: this log is about to end, and whoever ends it waits for
    /// what is under way.
    pub fn hasten(&self) {
        self.spares.hasten();
    }

    /// How many bytes of what was written last the page cache is to keep, if this is nobody's to decide but the log's: at
    /// least what is still to be read soon. Without a limit it keeps what it likes. See `cache.rs` for what that saves.
    pub fn keep_cached(&mut self, limit: Option<u64>) {
        self.cached.limit_to(limit);
    }

    /// Takes what came of the order that is out.
    ///
    /// # Panics
    /// If it is not the one ordered.
    pub fn handle_spare(&mut self, prepared: Prepared) {
        self.spares.prepared(prepared, self.settings.spares);
    }

    /// True from the first order for which the disk had no room until as many spares are ready as are wanted. What
    /// is appended meanwhile uses up the reserve; when that is gone, it waits in memory.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.spares.is_full()
    }

    /// Bytes of the entries held in memory because they are not yet durable.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail.bytes()
    }

    /// What was done since the log was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
