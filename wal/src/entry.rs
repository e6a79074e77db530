//! One entry: the bytes that are identical on every broker.
//!
//! ```text
//!   0        4      5       6        8           16         24        28
//!   | length | kind | flags | zero   | index     | term     | chain   | data …
//!   | u32    | u8   | u8    | u16    | u64       | u64      | u32     | `length` bytes
//! ```
//!
//! Little endian. `flags` and `zero` are 0 in this format; an entry in which they are not is damaged or of a
//! later format, and is not served.
//!
//! `chain` ties every entry to all before it: `chain(i) = CRC32(chain(i-1), index, term, kind, data)`, and
//! `chain(0) = CRC32(cluster id)`. Two brokers with the same chain at an index hold the same log up to it. An
//! entry that is whole in itself but at the wrong place (a stale or misdirected write) breaks the chain,
//! which a checksum of the entry alone would not notice.

use bytes::{BufMut, Bytes};

/// Place of an entry in the log. The first entry has index 1; 0 is the place before it.
pub type Index = u64;

/// Number of a leadership. Never falls along the log; 0 is the term before the first election.
pub type Term = u64;

/// Bytes of an entry before its data.
pub const ENTRY_HEADER_BYTES: usize = 28;

/// What the data of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// For the state machine.
    Normal = 1,
    /// A change of membership: the bytes of a raft `ConfChangeV2`.
    ConfChange = 2,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Normal),
            2 => Some(Self::ConfChange),
            _ => None,
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: Index,
    /// The leadership that proposed it.
    pub term: Term,
    /// What its data is.
    pub kind: Kind,
    /// Opaque here. May be empty.
    pub data: Bytes,
}

impl Entry {
    /// Bytes of the entry in a block: header and data.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + self.data.len()
    }
}

/// An entry's place in the history, without its data: what the next entry builds on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Index of the entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The chained checksum up to and with it.
    pub chain: u32,
}

impl Position {
    /// The place before the first entry of a cluster's log.
    #[must_use]
    pub fn start(cluster: &[u8; 16]) -> Self {
        Self { index: 0, term: 0, chain: chain_start(cluster) }
    }

    /// The place of `entry`, which follows this one.
    #[must_use]
    pub fn then(self, entry: &Entry) -> Self {
        Self { index: entry.index, term: entry.term, chain: chain(self.chain, entry) }
    }
}

/// The chained checksum of `entry`, given that of the entry before it.
#[must_use]
pub fn chain(previous: u32, entry: &Entry) -> u32 {
    chain_link(previous, entry.index, entry.term, entry.kind, &entry.data)
}

/// The chained checksum at index 0, by which the logs of two clusters differ from the start.
#[must_use]
pub fn chain_start(cluster: &[u8; 16]) -> u32 {
    crc32fast::hash(cluster)
}

/// The chained checksum of the entry with this header (its own is not looked at) and this data.
pub(crate) fn chain_of(previous: u32, header: &Header, data: &[u8]) -> u32 {
    chain_link(previous, header.index, header.term, header.kind, data)
}

fn chain_link(previous: u32, index: Index, term: Term, kind: Kind, data: &[u8]) -> u32 {
    let mut fixed = [0; 21];
    fixed[..4].copy_from_slice(&previous.to_le_bytes());
    fixed[4..12].copy_from_slice(&index.to_le_bytes());
    fixed[12..20].copy_from_slice(&term.to_le_bytes());
    fixed[20] = kind as u8;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&fixed);
    crc.update(data);
    crc.finalize()
}

/// The fixed part of an entry, as it lies in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of data that follow.
    pub(crate) length: u32,
    pub(crate) kind: Kind,
    pub(crate) index: Index,
    pub(crate) term: Term,
    pub(crate) chain: u32,
}

impl Header {
    /// The header of `entry`, whose chained checksum is `chain`.
    pub(crate) fn of(entry: &Entry, chain: u32) -> Self {
        let length =
            u32::try_from(entry.data.len()).expect("append bounds an entry by the block, a block by u32");
        Self { length, kind: entry.kind, index: entry.index, term: entry.term, chain }
    }

    pub(crate) fn encode(&self, into: &mut impl BufMut) {
        into.put_u32_le(self.length);
        into.put_u8(self.kind as u8);
        into.put_u8(0);
        into.put_u16_le(0);
        into.put_u64_le(self.index);
        into.put_u64_le(self.term);
        into.put_u32_le(self.chain);
    }

    /// Reads a header. `None` if no entry of this format begins like that; the length is still to be compared
    /// with the room there is.
    pub(crate) fn decode(from: &[u8]) -> Option<Self> {
        let from: &[u8; ENTRY_HEADER_BYTES] = from.first_chunk()?;
        if from[5..8] != [0; 3] {
            return None;
        }
        Some(Self {
            length: u32_at(from, 0),
            kind: Kind::from_byte(from[4])?,
            index: u64_at(from, 8),
            term: u64_at(from, 16),
            chain: u32_at(from, 24),
        })
    }

    /// Bytes of the entry with its data.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        ENTRY_HEADER_BYTES as u64 + u64::from(self.length)
    }
}

/// Where the number of the format stands in the header of a segment and of a sections file, behind the magic.
pub(crate) const FORMAT_AT: usize = 4;

/// Whether a checksum is that of a file's first bytes, a magic and a format and what follows, if the format were this one.
/// Then they were written in it, and what stands there is no later format, but damage.
pub(crate) fn was_written_as(format: u16, bytes: &[u8], stored: u32) -> bool {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..FORMAT_AT]);
    crc.update(&format.to_le_bytes());
    crc.update(&bytes[FORMAT_AT + 2..]);
    crc.finalize() == stored
}

/// The little endian u32 at `at`. Panics if `from` is shorter: callers have compared lengths.
pub(crate) fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(from[at..at + 4].try_into().expect("a slice of four"))
}

/// The little endian u64 at `at`. Panics if `from` is shorter: callers have compared lengths.
pub(crate) fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(from[at..at + 8].try_into().expect("a slice of eight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, data: &'static [u8]) -> Entry {
        Entry { index, term: 3, kind: Kind::Normal, data: Bytes::from_static(data) }
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = Header::of(&entry(7, b"seven"), 0xAABB_CCDD);
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), ENTRY_HEADER_BYTES);
        assert_eq!(Header::decode(&bytes), Some(header));
    }

    #[test]
    fn a_header_with_unknown_kind_or_flags_is_none() {
        let mut bytes = Vec::new();
        Header::of(&entry(7, b""), 1).encode(&mut bytes);
        for (at, value) in [(4, 0), (4, 3), (5, 1), (6, 1), (7, 1)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            assert_eq!(Header::decode(&changed), None, "byte {at} = {value}");
        }
        assert_eq!(Header::decode(&bytes[..27]), None);
    }

    #[test]
    fn the_chain_depends_on_every_field_and_on_the_past() {
        let one = entry(1, b"a");
        let base = chain(5, &one);
        assert_ne!(base, chain(6, &one));
        assert_ne!(base, chain(5, &Entry { index: 2, ..one.clone() }));
        assert_ne!(base, chain(5, &Entry { term: 4, ..one.clone() }));
        assert_ne!(base, chain(5, &Entry { kind: Kind::ConfChange, ..one.clone() }));
        assert_ne!(base, chain(5, &entry(1, b"b")));
    }
}
