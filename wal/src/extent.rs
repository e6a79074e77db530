//! One extent: a stretch of the log that lies in one segment and is visible, and how an entry in it is found.
//!
//! There is no index of entries. A mark is kept for a block at most every 16 KiB of log; from the nearest
//! mark the headers of blocks and entries are followed to the entry that is wanted. Readers mostly go
//! forward, so the places where the last few readers stopped are remembered, and a reader that goes on finds
//! its entry at once.
//!
//! The page cache need not have what was written a while ago, and a page that has to come from the disk stops whoever reads
//! it, here the one thread that does everything. So what a reader of that comes to next is asked for ahead.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use crate::block::{self, HEADER_BYTES as BLOCK_HEADER_BYTES};
use crate::entry::{self, ENTRY_HEADER_BYTES};
use crate::log::ReadError;
use crate::{Damage, Entry, Index, Position, Region};

/// Least distance of two marks. Bytes of log.
const MARK_SPACING_BYTES: u64 = 16 << 10;

/// So much of a segment that is not in use any more is asked for before a reader gets there. Bytes.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// So much of what was written last is in the page cache, however little is kept there. Bytes.
const FRESH_BYTES: u64 = 4 << 20;

/// Most readers whose places are remembered. Count.
const PLACES_MAX: usize = 8;

/// A stretch of the log in one segment.
///
/// Invariants:
/// - the entries `first..=last` lie in it, in blocks one after another, each beginning where the one before
///   ended;
/// - the first mark is the block that holds `first`, and marks rise in index and in position;
/// - none of its bytes is ever written again.
#[derive(Debug)]
struct Extent {
    segment: u64,
    region: Arc<dyn Region>,
    alignment: u32,
    first: Index,
    last: Index,
    marks: Vec<Mark>,
}

/// A block with entries: where it is, and which of its entries are visible.
#[derive(Debug)]
pub(crate) struct BlockPlace {
    pub(crate) region: Arc<dyn Region>,
    pub(crate) segment: u64,
    pub(crate) alignment: u32,
    pub(crate) position: u64,
    pub(crate) first: Index,
    pub(crate) last: Index,
}

/// A block worth remembering.
#[derive(Clone, Copy, Debug)]
struct Mark {
    first_index: Index,
    position: u64,
}

/// Between two entries: the place from which a walk goes on.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    /// The entry that comes next.
    index: Index,
    /// Where it begins, unless the block ends here.
    position: u64,
    block_end: u64,
    /// Chain of the entry before.
    chain: u32,
}

/// The visible log on disk.
///
/// Invariant: the extents are in ascending order of segment and of index, and follow each other without gap.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    extents: Vec<Extent>,
    /// Where readers stopped, the latest last.
    places: RefCell<Vec<Place>>,
}

impl Extents {
    /// The last index on disk, 0 if there is none.
    pub(crate) fn last(&self) -> Index {
        self.extents.last().map_or(0, |extent| extent.last)
    }

    /// Adds a block that has visible entries.
    pub(crate) fn push(&mut self, block: BlockPlace) {
        let BlockPlace { region, segment, alignment, position, first, last } = block;
        assert_eq!(first, self.last() + 1, "a block must follow the log on disk");
        assert!(first <= last, "a block without entries is not looked up");
        let mark = Mark { first_index: first, position };
        match self.extents.last_mut().filter(|extent| extent.segment == segment) {
            Some(extent) => {
                extent.last = last;
                if extent.marks.last().is_none_or(|latest| position >= latest.position + MARK_SPACING_BYTES) {
                    extent.marks.push(mark);
                }
            }
            None => self.extents.push(Extent { segment, region, alignment, first, last, marks: vec![mark] }),
        }
    }

    /// Hides everything from `index` on.
    pub(crate) fn cut(&mut self, index: Index) {
        self.extents.retain(|extent| extent.first < index);
        if let Some(extent) = self.extents.last_mut().filter(|extent| extent.last >= index) {
            extent.last = index - 1;
            extent.marks.retain(|mark| mark.first_index < index);
        }
    }

    /// Reads the entry at `index`, verified, with its position.
    ///
    /// # Panics
    /// If it is not on disk: the log knows its bounds.
    pub(crate) fn read(&self, index: Index) -> Result<(Entry, Position), ReadError> {
        let extent = self.extent_of(index);
        let mark = extent.nearest_mark(index);
        let place = self.take_place(extent.segment, index).filter(|place| place.index > mark.index);
        let begins = place.is_none();
        let mut place = place.unwrap_or(mark);
        let from = place.position;
        loop {
            let head = extent.next_head(&mut place)?;
            if place.index == index {
                let newest = self.extents.last().filter(|newest| newest.segment == extent.segment);
                if newest.is_none_or(|newest| !newest.is_fresh(place.position)) {
                    extent.read_ahead(from..place.position + head.encoded_bytes(), begins);
                }
                let read = extent.read_entry(&place, &head)?;
                place.pass(&head);
                self.keep_place(place);
                return Ok(read);
            }
            place.pass(&head);
        }
    }

    /// Damage of the entry at `index`, which is on disk.
    pub(crate) fn damage(&self, index: Index, expected: String, found: String) -> ReadError {
        let extent = self.extent_of(index);
        extent.damage(extent.nearest_mark(index).position, expected, found)
    }

    fn extent_of(&self, index: Index) -> &Extent {
        let after = self.extents.partition_point(|extent| extent.first <= index);
        let extent = &self.extents[after - 1];
        assert!(index <= extent.last, "entry {index} is not on disk");
        extent
    }

    fn take_place(&self, segment: u64, index: Index) -> Option<Place> {
        let mut places = self.places.borrow_mut();
        let fits = |place: &Place| place.segment == segment && place.index <= index;
        let (at, place) = places
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, place)| fits(place))
            .max_by_key(|(_, p)| p.index)?;
        // A place far behind belongs to another reader, which will want it again.
        if place.index == index {
            places.remove(at);
        }
        Some(place)
    }

    fn keep_place(&self, place: Place) {
        let mut places = self.places.borrow_mut();
        if places.len() == PLACES_MAX {
            places.remove(0);
        }
        places.push(place);
    }
}

impl Extent {
    /// Asks for what a reader of `range` will come to, once for each stretch of [`READ_AHEAD_BYTES`]; for the stretch that
    /// it is in as well if it `begins` here.
    fn read_ahead(&self, range: Range<u64>, begins: bool) {
        let stretch = |position: u64| position / READ_AHEAD_BYTES;
        let next = (stretch(range.end) + 1) * READ_AHEAD_BYTES;
        if begins {
            self.region.expect(range.start, next + READ_AHEAD_BYTES - range.start);
        } else if stretch(range.start) != stretch(range.end) {
            self.region.expect(next, READ_AHEAD_BYTES);
        }
    }

    /// Whether what lies there was written lately, if this is the newest extent.
    fn is_fresh(&self, position: u64) -> bool {
        self.marks.last().is_some_and(|latest| position + FRESH_BYTES > latest.position)
    }

    fn nearest_mark(&self, index: Index) -> Place {
        let after = self.marks.partition_point(|mark| mark.first_index <= index);
        let mark = self.marks[after - 1];
        // As if a block had just ended there: the chain is then taken from the block that begins.
        Place {
            segment: self.segment,
            index: mark.first_index,
            position: mark.position,
            block_end: mark.position,
            chain: 0,
        }
    }

    /// The header of the entry that comes next, after the headers of blocks that begin before it.
    fn next_head(&self, place: &mut Place) -> Result<entry::Header, ReadError> {
        while place.position == place.block_end {
            self.enter_block(place)?;
        }
        let room = place.block_end - place.position;
        let bytes = self.bytes(place.position, ENTRY_HEADER_BYTES)?;
        let head = entry::Header::decode(&bytes);
        head.filter(|head| head.index == place.index && head.encoded_bytes() <= room).ok_or_else(|| {
            let found = head.map_or("other bytes".into(), |head| {
                format!("entry {} of {} bytes", head.index, head.length)
            });
            self.damage(place.position, format!("entry {} of at most {room} bytes", place.index), found)
        })
    }

    fn enter_block(&self, place: &mut Place) -> Result<(), ReadError> {
        let position = block::align_up(place.block_end, self.alignment);
        let bytes = self.bytes(position, BLOCK_HEADER_BYTES)?;
        let head = bytes.first_chunk().expect("as many bytes as asked for");
        let header = block::Header::decode(head, self.region.bytes() - position)
            .map_err(|unlike| self.damage(position, unlike.expected, unlike.found))?;
        if header.segment != self.segment || header.first_index != place.index {
            let expected = format!("a block of segment {} with first index {}", self.segment, place.index);
            let found = format!("one of segment {} with first index {}", header.segment, header.first_index);
            return Err(self.damage(position, expected, found));
        }
        place.position = position + BLOCK_HEADER_BYTES as u64;
        place.block_end = position + header.bytes();
        place.chain = header.prev_chain;
        Ok(())
    }

    fn read_entry(&self, place: &Place, head: &entry::Header) -> Result<(Entry, Position), ReadError> {
        let data = self.bytes(place.position + ENTRY_HEADER_BYTES as u64, head.length as usize)?;
        let computed = entry::chain_of(place.chain, head, &data);
        if computed != head.chain {
            let expected = format!("entry {} with chain {:#010x}", head.index, head.chain);
            return Err(self.damage(place.position, expected, format!("chain {computed:#010x}")));
        }
        let position = Position { index: head.index, term: head.term, chain: head.chain };
        Ok((Entry { index: head.index, term: head.term, kind: head.kind, data }, position))
    }

    fn bytes(&self, position: u64, bytes: usize) -> Result<bytes::Bytes, ReadError> {
        if position + bytes as u64 > self.region.bytes() {
            return Err(self.damage(position, format!("{bytes} bytes"), "the end of the file".into()));
        }
        self.region
            .read(position, bytes)
            .map_err(|source| ReadError::Io { file: self.region.name().into(), source })
    }

    fn damage(&self, offset: u64, expected: String, found: String) -> ReadError {
        ReadError::Damaged(Damage { file: self.region.name().into(), offset, expected, found })
    }
}

impl Place {
    /// Steps over the entry that comes next.
    fn pass(&mut self, head: &entry::Header) {
        self.index = head.index + 1;
        self.position += head.encoded_bytes();
        self.chain = head.chain;
    }
}
