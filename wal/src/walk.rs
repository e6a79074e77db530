//! The walk: every block and every entry of a log, in the order in which they lie in the segments.
//!
//! The log that a broker shows leaves out what a cut hides. Here it is part of the walk and marked, since whoever
//! looks at the bytes wants to see why they are there. What is not hidden comes in the order of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::block::{self, Block, HEADER_BYTES, Reason};
use crate::entry::{self, ENTRY_HEADER_BYTES};
use crate::fold::Cut;
use crate::segment::{self, Fault, Header, Piece};
use crate::survey::Used;
use crate::{Damage, Entry, Index, Position, Region};

/// A part of a segment.
#[derive(Clone, Debug)]
pub enum Item {
    /// A good block; its entries follow.
    Block(WalkedBlock),
    /// An entry of the block before.
    Entry(WalkedEntry),
    /// No good block where one should begin.
    Fault(WalkedFault),
}

/// A good block.
#[derive(Clone, Debug)]
pub struct WalkedBlock {
    /// Name of the segment.
    pub file: Arc<str>,
    /// Where it begins. Bytes from the start of the file.
    pub offset: u64,
    /// Its length without padding. Bytes.
    pub bytes: u64,
    /// How it comes to be there.
    pub reason: Reason,
    /// How many entries it has; none makes it a witness.
    pub entries: u32,
    /// The entry that it builds on.
    pub previous: Position,
    /// Highest index that was synced when it was written.
    pub durable: Index,
    /// Highest index that was then known to be committed.
    pub commit: Index,
    /// Its checksum.
    pub crc: u32,
    /// A later segment hides all of it.
    pub hidden: bool,
}

/// An entry in its place.
#[derive(Clone, Debug)]
pub struct WalkedEntry {
    /// Name of the segment.
    pub file: Arc<str>,
    /// Where it begins: its header, then its data. Bytes from the start of the file.
    pub offset: u64,
    /// The entry.
    pub entry: Entry,
    /// Its chained checksum.
    pub chain: u32,
    /// A later segment hides it.
    pub hidden: bool,
}

/// A place without a good block.
#[derive(Clone, Debug)]
pub struct WalkedFault {
    /// Where it is, and what is there.
    pub damage: Damage,
    /// A good block follows in the same segment.
    pub followed: bool,
    /// A later segment hides it.
    pub hidden: bool,
}

/// See [`Inspection::walk`](crate::Inspection::walk).
#[derive(Debug)]
pub struct Walk<'a> {
    segments: std::slice::Iter<'a, Used>,
    cuts: &'a [Cut],
    from: Index,
    current: Option<Current>,
    /// The rest of the block that was begun.
    entries: VecDeque<WalkedEntry>,
    /// The last index that was met.
    reached: Index,
}

/// The segment that is being walked.
#[derive(Debug)]
struct Current {
    file: Arc<str>,
    bytes: Bytes,
    pieces: std::vec::IntoIter<Piece>,
    /// What comes after this index is hidden.
    visible_to: Index,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(used: &'a [Used], cuts: &'a [Cut], from: Index) -> Self {
        let (current, entries) = (None, VecDeque::new());
        Self { segments: used.iter(), cuts, from, current, entries, reached: 0 }
    }

    /// Goes on to the next segment that is wanted. False if there is none.
    fn enter(&mut self) -> Result<bool, Damage> {
        let from = self.from;
        let wanted = |used: &&Used| used.last.is_none_or(|last| last >= from);
        let Some(Used { region, header, .. }) = self.segments.find(wanted) else { return Ok(false) };
        let bytes = read_whole(&**region)?;
        let later = self.cuts.iter().filter(|cut| cut.segment > header.segment);
        self.current = Some(Current {
            file: region.name().into(),
            pieces: pieces(header, &bytes),
            bytes,
            visible_to: later.map(|cut| cut.last).min().unwrap_or(Index::MAX),
        });
        Ok(true)
    }
}

impl Iterator for Walk<'_> {
    /// A segment that cannot be read any more is damage; the walk goes on with the next one.
    type Item = Result<Item, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.entries.pop_front() {
            return Some(Ok(Item::Entry(entry)));
        }
        loop {
            let Some(current) = &mut self.current else {
                match self.enter() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(damage) => return Some(Err(damage)),
                }
            };
            match current.pieces.next() {
                None => self.current = None,
                Some(Piece::Fault(fault)) => {
                    return Some(Ok(Item::Fault(current.fault(fault, self.reached))));
                }
                Some(Piece::Block(position, block)) => {
                    self.entries = current.entries(position, &block);
                    self.reached = block.last.index;
                    return Some(Ok(Item::Block(current.block(position, &block))));
                }
            }
        }
    }
}

impl Current {
    fn block(&self, position: u64, block: &Block) -> WalkedBlock {
        let Block { header, .. } = block;
        // A witness stands for the entry before it.
        let first = if header.entries == 0 { header.first_index - 1 } else { header.first_index };
        WalkedBlock {
            file: Arc::clone(&self.file),
            offset: position,
            bytes: header.bytes(),
            reason: header.reason,
            entries: header.entries,
            previous: header.predecessor(),
            durable: header.durable,
            commit: header.commit,
            crc: block::stored_crc(&self.bytes[at(position)..]),
            hidden: first > self.visible_to,
        }
    }

    fn entries(&self, position: u64, block: &Block) -> VecDeque<WalkedEntry> {
        let mut offset = position + HEADER_BYTES as u64;
        let mut entries = VecDeque::with_capacity(block.header.entries as usize);
        for _ in 0..block.header.entries {
            let head = entry::Header::decode(&self.bytes[at(offset)..]).expect("the block is good");
            let data_at = at(offset) + ENTRY_HEADER_BYTES;
            let data = self.bytes.slice(data_at..data_at + head.length as usize);
            entries.push_back(WalkedEntry {
                file: Arc::clone(&self.file),
                offset,
                entry: Entry { index: head.index, term: head.term, kind: head.kind, data },
                chain: head.chain,
                hidden: head.index > self.visible_to,
            });
            offset += head.encoded_bytes();
        }
        entries
    }

    fn fault(&self, Fault { damage, proven }: Fault, reached: Index) -> WalkedFault {
        WalkedFault { damage, followed: proven, hidden: reached >= self.visible_to }
    }
}

fn read_whole(region: &dyn Region) -> Result<Bytes, Damage> {
    let mut bytes = Vec::new();
    segment::read_whole(region, &mut bytes).map_err(|source| Damage {
        file: region.name().into(),
        offset: 0,
        expected: "bytes that can be read".into(),
        found: source.to_string(),
    })?;
    Ok(bytes.into())
}

fn pieces(header: &Header, bytes: &Bytes) -> std::vec::IntoIter<Piece> {
    segment::scan(header, bytes).pieces.into_iter()
}

fn at(position: u64) -> usize {
    usize::try_from(position).expect("the segment is in memory")
}
