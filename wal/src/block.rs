//! One block: what one write put on disk, and how a reader knows that it is whole and at its place.
//!
//! ```text
//!    0       4        5       6      8         12       16        24            32
//!    | magic | format | flags | zero | entries | length | segment | first_index | …
//!    | u32   | u8     | u8    | u16  | u32     | u32    | u64     | u64         |
//!
//!   32          40        48       56           60    64
//!    | prev_term | durable | commit | prev_chain | crc | entry … entry | zeros up to the alignment
//!    | u64       | u64     | u64    | u32        | u32 | `length` bytes |
//! ```
//!
//! Little endian. A block begins on a multiple of the alignment of its segment and never leaves the segment,
//! so that no sector holds bytes of two blocks. `flags` is the [`Reason`].
//!
//! Every block says what it builds on: the entry at `first_index - 1` with its term and chain. So there is no
//! special first block, and a block without entries is still a witness: the next block is written only after
//! the sync of the previous one returned, hence the mere presence of a block proves all blocks before it.
//! `durable` says the same as a number: the highest index that was synced here when the block was written;
//! `commit` is never above it.
//!
//! `crc` is the CRC32 of incarnation, segment and position (the salt), the first 60 bytes, and the entries.
//! With the salt no block of another disk, file or place passes, and no payload that looks like a block
//! either.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::disk::SECTOR_BYTES_MAX;
use crate::entry::{self, ENTRY_HEADER_BYTES, u32_at, u64_at};
use crate::{Entry, Index, Position, Term};

/// Bytes of a block before its entries.
pub(crate) const HEADER_BYTES: usize = 64;
const CRC_AT: usize = 60;
const MAGIC: u32 = u32::from_le_bytes(*b"sqBK");
const FORMAT: u8 = 1;

/// Largest alignment of a segment. Bytes.
pub(crate) const ALIGNMENT_MAX: u32 = SECTOR_BYTES_MAX;
static PADDING: [u8; ALIGNMENT_MAX as usize] = [0; ALIGNMENT_MAX as usize];

/// How a block comes to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It follows the block before it in its segment.
    Follows = 0,
    /// It is the first of the log.
    First = 1,
    /// The segment before had no room left.
    Roll = 2,
    /// It hides everything in older segments from its first index on.
    Cut = 3,
}

/// The fixed part of a block, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) reason: Reason,
    /// Count of entries; 0 in a witness.
    pub(crate) entries: u32,
    /// Bytes of entries.
    pub(crate) length: u32,
    /// Id of the segment it was written to.
    pub(crate) segment: u64,
    /// Index of the first entry, or of the next one to come.
    pub(crate) first_index: Index,
    /// Term of the entry before.
    pub(crate) prev_term: Term,
    /// Chain of the entry before.
    pub(crate) prev_chain: u32,
    /// Highest index synced when the block was written.
    pub(crate) durable: Index,
    /// min(commit, durable) when the block was written.
    pub(crate) commit: Index,
}

/// Where a block belongs; part of its checksum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Salt {
    pub(crate) incarnation: [u8; 16],
    pub(crate) segment: u64,
    /// Bytes from the start of the segment.
    pub(crate) position: u64,
}

/// What was found in place of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unlike {
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// A block that is whole, and at its place.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) header: Header,
    /// Its last entry, or the one before if it has none.
    pub(crate) last: Position,
    /// Each entry at which the term rises.
    pub(crate) rises: Vec<(Index, Term)>,
}

impl Header {
    /// The entry that the block builds on.
    pub(crate) fn predecessor(&self) -> Position {
        Position { index: self.first_index - 1, term: self.prev_term, chain: self.prev_chain }
    }

    /// Bytes of header and entries, without padding.
    pub(crate) fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }

    fn encode(&self, into: &mut BytesMut) {
        into.put_u32_le(MAGIC);
        into.put_u8(FORMAT);
        into.put_u8(self.reason as u8);
        into.put_u16_le(0);
        into.put_u32_le(self.entries);
        into.put_u32_le(self.length);
        into.put_u64_le(self.segment);
        into.put_u64_le(self.first_index);
        into.put_u64_le(self.prev_term);
        into.put_u64_le(self.durable);
        into.put_u64_le(self.commit);
        into.put_u32_le(self.prev_chain);
    }

    /// Reads a header and judges its shape alone: the checksum is not compared. `room` is what is left of the
    /// segment.
    pub(crate) fn decode(from: &[u8; HEADER_BYTES], room: u64) -> Result<Self, Unlike> {
        let magic = u32_at(from, 0);
        if magic != MAGIC {
            let found =
                if from.iter().all(|&byte| byte == 0) { "zeros".into() } else { format!("{magic:#010x}") };
            return Err(Unlike::new(format!("a block (magic {MAGIC:#010x})"), found));
        }
        if from[4] != FORMAT || from[6..8] != [0, 0] {
            return Err(Unlike::new(format!("block format {FORMAT}"), from[4]));
        }
        let reason = match from[5] {
            0 => Reason::Follows,
            1 => Reason::First,
            2 => Reason::Roll,
            3 => Reason::Cut,
            other => return Err(Unlike::new("a reason from 0 to 3", other)),
        };
        let header = Self {
            reason,
            entries: u32_at(from, 8),
            length: u32_at(from, 12),
            segment: u64_at(from, 16),
            first_index: u64_at(from, 24),
            prev_term: u64_at(from, 32),
            durable: u64_at(from, 40),
            commit: u64_at(from, 48),
            prev_chain: u32_at(from, 56),
        };
        if header.bytes() > room {
            return Err(Unlike::new(format!("a block of at most {room} bytes"), header.bytes()));
        }
        if header.commit > header.durable || header.durable >= header.first_index {
            let found = format!("{}, {} and {}", header.commit, header.durable, header.first_index);
            return Err(Unlike::new("commit <= durable < first index", found));
        }
        if header.first_index.checked_add(header.entries.into()).is_none() {
            let found = format!("{} entries from {} on", header.entries, header.first_index);
            return Err(Unlike::new("entries whose indexes fit 64 bits", found));
        }
        Ok(header)
    }
}

impl Salt {
    fn checksum(&self) -> crc32fast::Hasher {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.incarnation);
        crc.update(&self.segment.to_le_bytes());
        crc.update(&self.position.to_le_bytes());
        crc
    }
}

impl Unlike {
    fn new(expected: impl Into<String>, found: impl fmt::Display) -> Self {
        Self { expected: expected.into(), found: found.to_string() }
    }
}

/// The bytes of a block as chunks that share the data of its entries. `entries` are with their chains.
pub(crate) fn encode(header: &Header, salt: &Salt, entries: &[(Entry, u32)], alignment: u32) -> Vec<Bytes> {
    let mut heads = BytesMut::with_capacity(HEADER_BYTES + entries.len() * ENTRY_HEADER_BYTES);
    header.encode(&mut heads);
    let mut crc = salt.checksum();
    crc.update(&heads);
    heads.put_u32_le(0);
    for (entry, chain) in entries {
        let at = heads.len();
        entry::Header::of(entry, *chain).encode(&mut heads);
        crc.update(&heads[at..]);
        crc.update(&entry.data);
    }
    heads[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.finalize().to_le_bytes());

    let heads = heads.freeze();
    let mut chunks = Vec::with_capacity(entries.len() * 2 + 2);
    let mut from = 0;
    let mut to = HEADER_BYTES;
    for (entry, _) in entries {
        to += ENTRY_HEADER_BYTES;
        if !entry.data.is_empty() {
            chunks.push(heads.slice(from..to));
            chunks.push(entry.data.clone());
            from = to;
        }
    }
    let padding =
        usize::try_from(align_up(header.bytes(), alignment) - header.bytes()).expect("below the alignment");
    chunks.push(heads.slice(from..to));
    chunks.push(Bytes::from_static(&PADDING[..padding]));
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

/// The checksum that the block says it has which begins where `from` does.
pub(crate) fn stored_crc(from: &[u8]) -> u32 {
    u32_at(from, CRC_AT)
}

/// Whether a block may begin here, as far as its first bytes tell.
pub(crate) fn may_begin(from: &[u8]) -> bool {
    from.starts_with(&MAGIC.to_le_bytes())
}

/// Judges the block that begins where `from` does; `from` reaches to the end of the segment.
pub(crate) fn read(from: &[u8], salt: &Salt) -> Result<Block, Unlike> {
    let Some(head) = from.first_chunk::<HEADER_BYTES>() else {
        return Err(Unlike::new("a block", format!("{} bytes", from.len())));
    };
    let header = Header::decode(head, from.len() as u64)?;
    if header.segment != salt.segment {
        return Err(Unlike::new(format!("a block of segment {}", salt.segment), header.segment));
    }
    let body = &from[HEADER_BYTES..HEADER_BYTES + header.length as usize];
    let mut crc = salt.checksum();
    crc.update(&head[..CRC_AT]);
    crc.update(body);
    let (stored, computed) = (u32_at(head, CRC_AT), crc.finalize());
    if stored != computed && cfg!(not(feature = "bug-torn-block-accepted")) {
        let expected = format!("a block with first index {} and checksum {stored:#010x}", header.first_index);
        return Err(Unlike::new(expected, format!("checksum {computed:#010x}")));
    }
    read_entries(header, body)
}

/// Follows the entries of a block whose checksum is right: indexes, terms and chain must be those of one
/// history.
fn read_entries(header: Header, mut body: &[u8]) -> Result<Block, Unlike> {
    let mut block = Block { header, last: header.predecessor(), rises: Vec::new() };
    for _ in 0..header.entries {
        let Some(head) = entry::Header::decode(body).filter(|head| head.encoded_bytes() <= body.len() as u64)
        else {
            return Err(Unlike::new(format!("entry {}", block.last.index + 1), "no entry of this format"));
        };
        let (whole, rest) = body.split_at(ENTRY_HEADER_BYTES + head.length as usize);
        body = rest;
        if head.index != block.last.index + 1 || head.term < block.last.term {
            let expected = format!("entry {} of term {} or later", block.last.index + 1, block.last.term);
            return Err(Unlike::new(expected, format!("entry {} of term {}", head.index, head.term)));
        }
        let computed = entry::chain_of(block.last.chain, &head, &whole[ENTRY_HEADER_BYTES..]);
        if head.chain != computed && cfg!(not(feature = "bug-torn-block-accepted")) {
            let expected = format!("entry {} with chain {:#010x}", head.index, head.chain);
            return Err(Unlike::new(expected, format!("{computed:#010x}")));
        }
        if head.term > block.last.term {
            block.rises.push((head.index, head.term));
        }
        block.last = Position { index: head.index, term: head.term, chain: head.chain };
    }
    match body.len() {
        0 => Ok(block),
        left => Err(Unlike::new(
            format!("{} entries in {} bytes", header.entries, header.length),
            format!("{left} more bytes"),
        )),
    }
}

/// The next multiple of `alignment`, a power of two, that is not below `position`.
pub(crate) fn align_up(position: u64, alignment: u32) -> u64 {
    position.next_multiple_of(u64::from(alignment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const SALT: Salt = Salt { incarnation: [7; 16], segment: 3, position: 512 };

    fn sample() -> (Header, Vec<(Entry, u32)>) {
        let start = Position { index: 4, term: 2, chain: 99 };
        let mut last = start;
        let mut entries = Vec::new();
        for (term, data) in [(2, &b"five"[..]), (3, b""), (3, b"seven")] {
            let entry =
                Entry { index: last.index + 1, term, kind: Kind::Normal, data: Bytes::from_static(data) };
            last = last.then(&entry);
            entries.push((entry, last.chain));
        }
        let length: usize = entries.iter().map(|(entry, _)| entry.encoded_bytes()).sum();
        let header = Header {
            reason: Reason::Roll,
            entries: 3,
            length: u32::try_from(length).unwrap(),
            segment: 3,
            first_index: 5,
            prev_term: start.term,
            prev_chain: start.chain,
            durable: 4,
            commit: 2,
        };
        (header, entries)
    }

    #[test]
    fn a_block_survives_the_round_trip() {
        let (header, entries) = sample();
        let bytes = encode(&header, &SALT, &entries, 512).concat();
        assert_eq!(bytes.len(), 512);
        let block = read(&bytes, &SALT).unwrap();
        assert_eq!(block.header, header);
        assert_eq!(block.last, Position { index: 7, term: 3, chain: entries[2].1 });
        assert_eq!(block.rises, [(6, 3)]);
    }

    #[test]
    fn the_data_of_entries_is_not_copied() {
        let (header, entries) = sample();
        let chunks = encode(&header, &SALT, &entries, 512);
        assert!(chunks.iter().any(|chunk| chunk.as_ptr() == entries[2].0.data.as_ptr()));
    }

    #[test]
    fn indexes_that_do_not_fit_are_refused() {
        let (header, _) = sample();
        for (first_index, fits) in [(u64::MAX - 3, true), (u64::MAX - 2, false), (u64::MAX, false)] {
            let mut bytes = BytesMut::new();
            Header { first_index, ..header }.encode(&mut bytes);
            bytes.put_u32_le(0);
            let read = Header::decode(bytes[..].first_chunk().unwrap(), 4096);
            assert_eq!(read.is_ok(), fits, "{first_index}: {read:?}");
        }
    }

    #[test]
    fn a_block_at_another_place_is_not_a_block() {
        let (header, entries) = sample();
        let bytes = encode(&header, &SALT, &entries, 512).concat();
        for other in [
            Salt { position: 1024, ..SALT },
            Salt { segment: 4, ..SALT },
            Salt { incarnation: [8; 16], ..SALT },
        ] {
            assert!(read(&bytes, &other).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_before_the_padding_is_seen() {
        let (header, entries) = sample();
        let bytes = encode(&header, &SALT, &entries, 512).concat();
        for bit in 0..header.bytes() * 8 {
            let mut rotten = bytes.clone();
            rotten[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
            assert!(read(&rotten, &SALT).is_err(), "bit {bit}");
        }
    }
}
