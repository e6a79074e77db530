//! One segment: a file of fixed length, filled with zeros and synced ahead of its use, then filled with
//! blocks.
//!
//! ```text
//!    0       4        6      8           12     16        24      32        48            64    68
//!    | magic | format | zero | alignment | zero | segment | bytes | cluster | incarnation | crc | zeros …
//!    | u32   | u16    | u16  | u32       | u32  | u64     | u64   | 16      | 16          | u32 |
//!
//!    | header | block | block | … | zeros                          each on a multiple of the alignment
//! ```
//!
//! Little endian; `crc` is the CRC32 of the 64 bytes before it. The header says whose file it is and nothing
//! of its place in the log: that is known only when the first block is written, and that block says it. A
//! segment without a block is a spare. Ids rise in the order of use, so a block in a segment is younger than
//! all blocks in segments with lower ids.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use crate::block::{self, ALIGNMENT_MAX, Block, Salt, Unlike};
use crate::disk::SECTOR_BYTES_MIN;
use crate::entry::{FORMAT_AT, u32_at, u64_at, was_written_as};
use crate::{Damage, Index, Region};

const MAGIC: u32 = u32::from_le_bytes(*b"sqSG");
pub(crate) const FORMAT: u16 = 1;
/// Where the header says its cluster and its incarnation. Bytes.
pub(crate) const CLUSTER_AT: usize = 32;
pub(crate) const INCARNATION_AT: usize = 48;
const CRC_AT: usize = 64;
pub(crate) const HEADER_BYTES: usize = 68;
const PREFIX: &str = "segment-";

/// Smallest alignment of blocks: the sector. Bytes.
pub(crate) const ALIGNMENT_MIN: u32 = SECTOR_BYTES_MIN;
/// Largest segment; recovery holds one in memory. Bytes.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Blocks begin on multiples of this. Bytes, a power of two.
    pub(crate) alignment: u32,
    /// Its id; the name of the file says the same.
    pub(crate) segment: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
    pub(crate) cluster: [u8; 16],
    pub(crate) incarnation: [u8; 16],
}

/// What the first bytes of a file named like a segment are.
#[derive(Debug)]
pub(crate) enum Found {
    /// A header of this format. Whose, is for the caller to compare.
    Header(Header),
    /// The header of another format.
    Format(u16),
    /// Zeros, or a header that does not fit: never finished, or damaged.
    Nothing(Unlike),
}

/// What lies in one segment.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) segment: u64,
    /// All good blocks, and the places where one is missing, in the order of the file.
    pub(crate) pieces: Vec<Piece>,
    /// Behind the last good block.
    end: u64,
}

/// A part of a segment.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A good block at this position.
    Block(u64, Block),
    /// No good block where one should begin.
    Fault(Fault),
}

/// Where the blocks of a segment stop before its bytes do.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) damage: Damage,
    /// A good block follows in the same segment: what is missing here was durable.
    pub(crate) proven: bool,
}

impl Header {
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
        bytes.put_u32_le(MAGIC);
        bytes.put_u16_le(FORMAT);
        bytes.put_u16_le(0);
        bytes.put_u32_le(self.alignment);
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.segment);
        bytes.put_u64_le(self.bytes);
        bytes.put_slice(&self.cluster);
        bytes.put_slice(&self.incarnation);
        let crc = crc32fast::hash(&bytes);
        bytes.put_u32_le(crc);
        bytes.freeze()
    }

    /// Judges the start of a file that is named like the segment `id` and has `file_bytes` bytes.
    pub(crate) fn read(from: &[u8], id: u64, file_bytes: u64) -> Found {
        let nothing = |expected: String, found: String| Found::Nothing(Unlike { expected, found });
        let Some(from) = from.first_chunk::<HEADER_BYTES>() else {
            return nothing("the header of a segment".into(), format!("{} bytes", from.len()));
        };
        let magic = u32_at(from, 0);
        if magic != MAGIC {
            return nothing(
                format!("the header of a segment (magic {MAGIC:#010x})"),
                format!("{magic:#010x}"),
            );
        }
        let (stored, computed) = (u32_at(from, CRC_AT), crc32fast::hash(&from[..CRC_AT]));
        let format = u16::from_le_bytes([from[FORMAT_AT], from[FORMAT_AT + 1]]);
        if format > FORMAT && !was_written_as(FORMAT, &from[..CRC_AT], stored) {
            return Found::Format(format);
        }
        if stored != computed {
            return nothing(
                format!("a header with checksum {stored:#010x}"),
                format!("checksum {computed:#010x}"),
            );
        }
        let header = Self {
            alignment: u32_at(from, 8),
            segment: u64_at(from, 16),
            bytes: u64_at(from, 24),
            cluster: from[CLUSTER_AT..][..16].try_into().expect("a slice of sixteen"),
            incarnation: from[INCARNATION_AT..][..16].try_into().expect("a slice of sixteen"),
        };
        if header.segment != id || header.bytes != file_bytes {
            let found = format!("segment {} of {} bytes", header.segment, header.bytes);
            return nothing(format!("segment {id} of {file_bytes} bytes"), found);
        }
        if !is_alignment(header.alignment) || !header.bytes.is_multiple_of(header.alignment.into()) {
            let found = format!("an alignment of {}", header.alignment);
            return nothing(format!("an alignment that {} bytes are a multiple of", header.bytes), found);
        }
        Found::Header(header)
    }

    /// Where the first block begins.
    pub(crate) fn first_position(&self) -> u64 {
        u64::from(self.alignment)
    }
}

/// Whether blocks may be aligned like that.
pub(crate) fn is_alignment(alignment: u32) -> bool {
    alignment.is_power_of_two() && (ALIGNMENT_MIN..=ALIGNMENT_MAX).contains(&alignment)
}

/// The name of the file of a segment.
pub(crate) fn file_name(segment: u64) -> String {
    format!("{PREFIX}{segment:020}")
}

/// The segment that a file holds by its name.
pub(crate) fn file_segment(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Reads a whole file into `buffer`.
pub(crate) fn read_whole(region: &dyn Region, buffer: &mut Vec<u8>) -> io::Result<()> {
    if region.bytes() > SEGMENT_BYTES_MAX {
        let why =
            format!("{} has {} bytes, a segment at most {SEGMENT_BYTES_MAX}", region.name(), region.bytes());
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    buffer.resize(usize::try_from(region.bytes()).expect("bounded by SEGMENT_BYTES_MAX"), 0);
    region.scan(0, buffer)
}

/// Finds the blocks of a segment whose whole bytes are `bytes`. Past a fault it goes on from sector to
/// sector, to learn whether any good block follows.
pub(crate) fn scan(header: &Header, bytes: &[u8]) -> Scan {
    let mut scan = Scan { segment: header.segment, pieces: Vec::new(), end: header.first_position() };
    let mut gap: Option<Unlike> = None;
    let mut position = header.first_position();
    while position < header.bytes {
        let from = &bytes[usize::try_from(position).expect("the segment is in memory")..];
        if gap.is_some() && !block::may_begin(from) {
            position += u64::from(header.alignment);
            continue;
        }
        let salt = Salt { incarnation: header.incarnation, segment: header.segment, position };
        match block::read(from, &salt) {
            Ok(block) => {
                if let Some(unlike) = gap.take() {
                    scan.push_fault(unlike, true);
                }
                scan.end = block::align_up(position + block.header.bytes(), header.alignment);
                scan.pieces.push(Piece::Block(position, block));
                position = scan.end;
            }
            Err(unlike) => {
                gap.get_or_insert(unlike);
                position += u64::from(header.alignment);
            }
        }
    }
    let rest = &bytes[usize::try_from(scan.end).expect("the segment is in memory")..];
    if let Some(unlike) = gap.filter(|_| !is_zero(rest)) {
        scan.push_fault(unlike, false);
    }
    scan
}

impl Scan {
    /// Whether nothing was ever written to the segment, as far as its bytes tell.
    pub(crate) fn is_blank(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether it has bytes, but no good block.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.is_blank() && !self.pieces.iter().any(|piece| matches!(piece, Piece::Block(..)))
    }

    /// The highest index of an entry in it, or before it if it has none.
    pub(crate) fn last_index(&self) -> Option<Index> {
        let last = |piece: &Piece| match piece {
            Piece::Block(_, block) => Some(block.last.index),
            Piece::Fault(_) => None,
        };
        self.pieces.iter().filter_map(last).max()
    }

    fn push_fault(&mut self, unlike: Unlike, proven: bool) {
        let Unlike { expected, found } = unlike;
        let damage = Damage { file: file_name(self.segment), offset: self.end, expected, found };
        self.pieces.push(Piece::Fault(Fault { damage, proven }));
    }
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk == [0; 64]) && chunks.remainder().iter().all(|&byte| byte == 0)
}
