//! Real bytes to begin with: logs that were written, cut from their disks.

use crate::disk::memory::MemoryDisk;
use crate::{Checkpoint, Identity, Section, Vote, open};

use super::directory::{describe, described, images, settle};
use super::{identity, small};

use std::sync::Arc;

use bytes::Bytes;

/// Named inputs for the targets of this crate: target, name, bytes.
#[must_use]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let disk = written();
    let files = images(&disk);
    let segment = |id: u64| &files[&crate::segment::file_name(id)];
    let vote = &files["vote"];
    let votes: Vec<u8> = (0..4).flat_map(|page| &vote[page * 4096..][..36]).copied().collect();
    let genesis = "checkpoint-00000000000000000000";
    let mut directory = described(7, 0, &files["identity"]);
    directory.extend(described(8, 0, &files[genesis]));
    directory.extend(described(6, 0, &votes));
    let whole = (1..=4).fold(directory.clone(), |whole, id| [whole, describe(id, segment(id))].concat());
    let sealed = (1..=2).fold(directory, |whole, id| {
        let mut file = describe(id, segment(id));
        file[0] |= 0x80;
        [whole, file].concat()
    });
    let entry = segment(1)[512 + 64..][..64].to_vec();
    vec![
        ("wal_block", "block", segment(1)[512..1536].to_vec()),
        ("wal_block", "entry", entry),
        ("wal_segment", "first", segment(1).clone()),
        ("wal_segment", "cut", segment(3).clone()),
        ("wal_vote", "pages", votes),
        ("wal_sections", "identity", files["identity"].clone()),
        ("wal_sections", "checkpoint", files[genesis].clone()),
        ("wal_directory", "whole", whole),
        ("wal_directory", "sealed", sealed),
        ("wal_mutations", "none", script(&[])),
        ("wal_mutations", "flip", script(&[0, 2, 2, 10])),
        ("wal_mutations", "zeroed", script(&[1, 3, 1, 0, 1, 2, 1, 0])),
        ("wal_mutations", "misdirected", script(&[3, 2, 1, 3])),
        ("wal_mutations", "stale", script(&[5, 2, 2, 1, 10, 3, 0, 4])),
        ("wal_mutations", "lost", script(&[8, 3, 0, 0])),
        ("wal_mutations", "resized", script(&[6, 2, 9, 1, 7, 3, 9, 1])),
    ]
}

/// Appends, a roll, a vote, a conflict, a commit, a witness; then these mutations.
fn script(mutations: &[u8]) -> Vec<u8> {
    let steps = [0, 0x23, 4, 1, 0, 0xF3, 1, 0xF1, 5, 0, 0, 0x41, 3 | 2 << 3, 0x42, 2, 9, 6, 0, 7, 0];
    [&[steps.len() as u8 / 2][..], &steps, mutations].concat()
}

/// A disk with segments that roll and one that cuts.
fn written() -> MemoryDisk {
    const WHY: &str = "this disk does not fail";
    let disk = MemoryDisk::new();
    Identity::create(&disk, &identity()).expect("the disk is empty");
    let sections = vec![
        Section { id: 1, content: Bytes::from_static(b"members") },
        Section { id: 2, content: Bytes::from_static(b"settings") },
    ];
    let chain = crate::chain_start(&identity().cluster);
    Checkpoint { index: 0, term: 0, chain, sections }.save(&disk).expect(WHY);
    let mut log = open(Arc::new(disk.clone()), &identity(), small()).expect("the disk is empty").log;
    let entries = |from: u64, count: u64, term, bytes: usize| {
        let entry = |index: u64| crate::Entry {
            index,
            term,
            kind: crate::Kind::Normal,
            data: vec![index as u8; bytes].into(),
        };
        (from..from + count).map(entry).collect::<Vec<_>>()
    };
    for (from, count, term, bytes) in
        [(1, 3, 1, 40), (4, 2, 1, 600), (6, 3, 1, 700), (7, 2, 2, 100), (9, 1, 3, 0)]
    {
        log.append(entries(from, count, term, bytes)).expect(WHY);
        log.set_vote(Vote { term, voted_for: 2 });
        settle(&mut log, |_| ());
    }
    log.set_commit(8);
    log.request_witness();
    settle(&mut log, |_| ());
    disk
}
