//! Entries, blocks and segments as bytes.

use bytes::Bytes;

use crate::block::{self, Block, HEADER_BYTES, Salt};
use crate::entry::{self, ENTRY_HEADER_BYTES};
use crate::segment::{self, Found, Piece};
use crate::{Entry, Position};

use super::{INCARNATION, seal};

const SALT: Salt = Salt { incarnation: INCARNATION, segment: 1, position: 512 };
const ALIGNMENT: u32 = 512;

/// A block, and the header of an entry.
pub fn block(data: &[u8]) {
    if let Some(header) = entry::Header::decode(data) {
        let mut again = Vec::new();
        header.encode(&mut again);
        assert_eq!(again, data[..ENTRY_HEADER_BYTES], "the header of an entry has one form");
    }
    judge_block(data, &SALT, ALIGNMENT);
    let mut sealed = data.to_vec();
    if seal::block(&mut sealed, &SALT).is_some() {
        judge_block(&sealed, &SALT, ALIGNMENT);
    }
}

fn judge_block(bytes: &[u8], salt: &Salt, alignment: u32) {
    if let Ok(block) = block::read(bytes, salt) {
        must_be_as_written(&block, bytes, salt, alignment);
    }
}

/// A block that was taken for good is, byte for byte, what the log would write for its entries.
fn must_be_as_written(block: &Block, bytes: &[u8], salt: &Salt, alignment: u32) {
    let end = usize::try_from(block.header.bytes()).expect("it lies in memory");
    let mut rest = &bytes[HEADER_BYTES..end];
    let mut last = block.header.predecessor();
    let mut entries = Vec::new();
    let mut rises = Vec::new();
    for _ in 0..block.header.entries {
        let head = entry::Header::decode(rest).expect("the block is good");
        let (whole, after) = rest.split_at(ENTRY_HEADER_BYTES + head.length as usize);
        let data = Bytes::copy_from_slice(&whole[ENTRY_HEADER_BYTES..]);
        let entry = Entry { index: head.index, term: head.term, kind: head.kind, data };
        assert_eq!(Some(entry.index), last.index.checked_add(1), "indexes are contiguous");
        assert!(entry.term >= last.term, "terms never fall");
        if entry.term > last.term {
            rises.push((entry.index, entry.term));
        }
        last = last.then(&entry);
        entries.push((entry, last.chain));
        rest = after;
    }
    assert_eq!(block.last, last, "the chain is that of the entries");
    assert_eq!(block.rises, rises);
    let again = block::encode(&block.header, salt, &entries, alignment).concat();
    assert_eq!(again[..end], bytes[..end], "a block has one form");
    let _may_be_built_on: Position = last;
}

/// A whole file named like segment 1.
pub fn segment(data: &[u8]) {
    judge_segment(data);
    let mut sealed = data.to_vec();
    seal::segment(&mut sealed, 1);
    judge_segment(&sealed);
}

fn judge_segment(bytes: &[u8]) {
    let Found::Header(header) = segment::Header::read(bytes, 1, bytes.len() as u64) else { return };
    match segment::Header::read(&header.encode(), 1, bytes.len() as u64) {
        Found::Header(again) => assert_eq!(again, header),
        other => panic!("a header that was read is written as none: {other:?}"),
    }
    let scan = segment::scan(&header, bytes);
    let mut from = header.first_position();
    for piece in &scan.pieces {
        match piece {
            Piece::Block(position, block) => {
                assert!(*position >= from && position.is_multiple_of(header.alignment.into()));
                let salt = Salt { incarnation: header.incarnation, segment: 1, position: *position };
                let at = usize::try_from(*position).expect("it lies in memory");
                must_be_as_written(block, &bytes[at..], &salt, header.alignment);
                from = position + block.header.bytes();
            }
            Piece::Fault(fault) => {
                assert!(fault.damage.offset >= from && fault.damage.offset < header.bytes, "{fault:?}");
            }
        }
    }
}
