//! Sealing: lengths and checksums made to fit the bytes around them, so that a reader looks further.

use crate::block::{self, Salt};
use crate::entry::{self, ENTRY_HEADER_BYTES, u32_at};
use crate::segment;

use super::{CLUSTER, INCARNATION};

const BLOCK_BYTES: usize = 64;
const SECTIONS_HEADER_BYTES: usize = 16;
const SECTION_HEADER_BYTES: usize = 12;
const CRC_BYTES: usize = 4;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Seals the block that begins where `bytes` does: as many entries as there are, their chain, the lengths, the checksum.
/// How many bytes it has; none if it cannot be one.
pub(super) fn block(bytes: &mut [u8], salt: &Salt) -> Option<usize> {
    if bytes.len() < BLOCK_BYTES {
        return None;
    }
    let length = (u32_at(bytes, 12) as usize).min(bytes.len() - BLOCK_BYTES);
    let end = BLOCK_BYTES + length;
    let wanted = u32_at(bytes, 8);
    let (mut at, mut entries, mut chain) = (BLOCK_BYTES, 0, u32_at(bytes, 56));
    while entries < wanted && at + ENTRY_HEADER_BYTES <= end {
        let data = (u32_at(bytes, at) as usize).min(end - at - ENTRY_HEADER_BYTES);
        put(bytes, at, &(data as u32).to_le_bytes());
        let Some(header) = entry::Header::decode(&bytes[at..]) else { break };
        chain = entry::chain_of(chain, &header, &bytes[at + ENTRY_HEADER_BYTES..][..data]);
        put(bytes, at + 24, &chain.to_le_bytes());
        at += ENTRY_HEADER_BYTES + data;
        entries += 1;
    }
    put(bytes, 8, &entries.to_le_bytes());
    put(bytes, 12, &((at - BLOCK_BYTES) as u32).to_le_bytes());
    put(bytes, 16, &salt.segment.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.incarnation);
    crc.update(&salt.segment.to_le_bytes());
    crc.update(&salt.position.to_le_bytes());
    crc.update(&bytes[..60]);
    crc.update(&bytes[BLOCK_BYTES..at]);
    put(bytes, 60, &crc.finalize().to_le_bytes());
    Some(at)
}

/// Seals a file as the segment `id`: its header, and every block that may begin in it.
pub(super) fn segment(bytes: &mut [u8], id: u64) {
    if bytes.len() < segment::HEADER_BYTES {
        return;
    }
    let file_bytes = bytes.len() as u64;
    put(bytes, 16, &id.to_le_bytes());
    put(bytes, 24, &file_bytes.to_le_bytes());
    put(bytes, segment::CLUSTER_AT, &CLUSTER);
    put(bytes, segment::INCARNATION_AT, &INCARNATION);
    let crc = crc32fast::hash(&bytes[..64]);
    put(bytes, 64, &crc.to_le_bytes());
    let alignment = u32_at(bytes, 8);
    if !segment::is_alignment(alignment) {
        return;
    }
    let mut position = alignment as usize;
    while position < bytes.len() {
        let salt = Salt { incarnation: INCARNATION, segment: id, position: position as u64 };
        let may = block::may_begin(&bytes[position..]);
        let sealed = if may { block(&mut bytes[position..], &salt) } else { None };
        position += sealed.unwrap_or(1).next_multiple_of(alignment as usize);
    }
}

/// Seals a sections file: the lengths, the number of sections, and all checksums.
pub fn sections(bytes: &mut [u8]) {
    if bytes.len() < SECTIONS_HEADER_BYTES + CRC_BYTES {
        return;
    }
    let end = bytes.len() - CRC_BYTES;
    let (mut at, mut count) = (SECTIONS_HEADER_BYTES, 0_u32);
    while at + SECTION_HEADER_BYTES <= end {
        let room = end - at - SECTION_HEADER_BYTES;
        // What is too short for another section belongs to this one.
        let length =
            Some(u32_at(bytes, at + 4) as usize).filter(|length| length + SECTION_HEADER_BYTES <= room);
        let length = length.unwrap_or(room);
        put(bytes, at + 4, &(length as u32).to_le_bytes());
        let crc = crc32fast::hash(&bytes[at + SECTION_HEADER_BYTES..][..length]);
        put(bytes, at + 8, &crc.to_le_bytes());
        at += SECTION_HEADER_BYTES + length;
        count += 1;
    }
    put(bytes, 8, &count.to_le_bytes());
    put(bytes, 12, &((end - SECTIONS_HEADER_BYTES) as u32).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..end]);
    put(bytes, end, &crc.to_le_bytes());
}
