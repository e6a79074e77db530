//! A message of a peer as bytes.

use bytes::Bytes;
use sequor_client::protocol::limits::ENTRY_BYTES_MAX;

use crate::core::PeerMessage;

const HEADER_BYTES: usize = 96;
const ENTRIES_AT: usize = 12;
const CONTEXT_AT: usize = 92;
const CONTEXT_BYTES_MAX: usize = 64;
const ENTRY_HEADER_BYTES: usize = 24;

/// A message: the input itself, then the same with lengths, counts and a checksum that fit.
pub fn peer_message(data: &[u8]) {
    judge(data);
    let mut sealed = data.to_vec();
    seal(&mut sealed);
    judge(&sealed);
}

fn judge(bytes: &[u8]) {
    match PeerMessage::decode(Bytes::copy_from_slice(bytes)) {
        Ok(message) => {
            let again = message.encode().concat();
            assert_eq!(again, bytes, "a message has one form");
            assert_eq!(PeerMessage::decode(again.into()).as_ref(), Ok(&message));
            let _either = message.lane();
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Makes a message of bytes: as many entries as there are, the last one ends where the bytes do.
pub(super) fn seal(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let context = (u32_at(bytes, CONTEXT_AT) as usize).min(CONTEXT_BYTES_MAX).min(bytes.len() - HEADER_BYTES);
    put(bytes, CONTEXT_AT, context as u32);
    let mut at = HEADER_BYTES + context;
    let (head, mut heads) = (4..at, Vec::new());
    let mut entries = 0;
    while bytes.len() - at >= ENTRY_HEADER_BYTES {
        let room = bytes.len() - at - ENTRY_HEADER_BYTES;
        // What is too short for another entry belongs to this one.
        let wanted = u32_at(bytes, at) as usize;
        let data = if wanted + ENTRY_HEADER_BYTES <= room { wanted } else { room.min(ENTRY_BYTES_MAX) };
        put(bytes, at, data as u32);
        heads.push(at..at + ENTRY_HEADER_BYTES);
        at += ENTRY_HEADER_BYTES + data;
        entries += 1;
    }
    put(bytes, ENTRIES_AT, entries);
    let mut crc = crc32fast::Hasher::new();
    std::iter::once(head).chain(heads).for_each(|range| crc.update(&bytes[range]));
    put(bytes, 0, crc.finalize());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
