//! A log that was really written, then damaged as disks damage: the judge knows every state that it ever had.
//!
//! ```text
//! input   | steps u8 | step … | mutation … |
//! step      2 bytes   what the log does; each is synced, and the state after each sync is remembered
//! mutation  4 bytes   | what u8 | which file u8 | a u8 | b u8 |
//! ```
//!
//! The judge:
//! 1. A start shows a state that the log had, to the byte, or refuses. It never shows an entry that was not written, nor
//!    one without those before it.
//! 2. If the last block that was written is still there, it is the last state or nothing: what a later block proves is
//!    never cut away.
//! 3. Without any mutation it is the last state, and an inspection finds nothing.
//! 4. The vote is one that was given, or damaged.
//!
//! No mutation lets the input choose what is written over bytes: the fuzzer would forge checksums with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::memory::MemoryDisk;
use crate::{
    Checkpoint, Disk, Entry, Identity, Index, Item, Kind, Log, Section, Term, Vote, inspect, open, segment,
};

use super::directory::{Shown, all, images, settle, start};
use super::{identity, small};

const SECTOR_BYTES: usize = 512;
const STEPS_MAX: usize = 24;
const MUTATIONS_MAX: usize = 12;

type Images = BTreeMap<String, Vec<u8>>;

/// A log, and everything that it ever was.
struct History {
    disk: MemoryDisk,
    /// The entries after each sync, the last ones last.
    states: Vec<Vec<Entry>>,
    votes: Vec<Vote>,
    /// The files after each sync.
    snapshots: Vec<Images>,
}

/// Where the last block lies.
struct Anchor {
    file: String,
    from: usize,
    to: usize,
}

/// See the module's header.
pub fn mutations(data: &[u8]) {
    let (steps, mutations) = split(data);
    let history = write(steps);
    let last = history.snapshots.last().expect("there is one from the beginning");
    let anchor = anchor(&history.disk);
    let mut files = last.clone();
    for mutation in mutations.chunks_exact(4).take(MUTATIONS_MAX) {
        mutate(&mut files, &history.snapshots, [mutation[0], mutation[1], mutation[2], mutation[3]]);
    }
    let disk = MemoryDisk::new();
    for (name, content) in &files {
        disk.replace(name, content).expect("this disk does not fail");
    }
    let untouched = files == *last;
    if untouched {
        let inspection = inspect(&disk).expect("there is a log");
        assert!(inspection.findings().is_empty(), "nothing was damaged: {:?}", inspection.findings());
    }
    let shown = start(&disk, &identity());
    judge(&history, untouched, anchor.is_some_and(|anchor| anchor.stands(&files, last)), shown);
}

fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((steps, rest)) = data.split_first() else { return (&[], &[]) };
    rest.split_at((usize::from(*steps) % (STEPS_MAX + 1) * 2).min(rest.len()))
}

fn judge(history: &History, untouched: bool, proven: bool, shown: Option<Shown>) {
    let last = history.states.last().expect("there is one from the beginning");
    let Some(shown) = shown else {
        assert!(!untouched, "a log that is as it was written must open");
        return;
    };
    assert!(history.states.contains(&shown.entries), "a state that the log never had: {:?}", shown.entries);
    assert!(
        !(proven || untouched) || shown.entries == *last,
        "the last block is there, and what it proves is not"
    );
    if let Some(vote) = shown.vote {
        assert!(history.votes.contains(&vote), "a vote that was never given: {vote:?}");
    }
    if untouched {
        assert_eq!(shown.vote.as_ref(), history.votes.last());
    }
}

/// Writes a log by the script.
fn write(script: &[u8]) -> History {
    let disk = MemoryDisk::new();
    Identity::create(&disk, &identity()).expect("the disk is empty");
    let section = Section { id: 1, content: Bytes::from_static(b"genesis") };
    let chain = crate::chain_start(&identity().cluster);
    let genesis = Checkpoint { index: 0, term: 0, chain, sections: vec![section] };
    genesis.save(&disk).expect("this disk does not fail");
    let mut log = open(Arc::new(disk.clone()), &identity(), small()).expect("the disk is empty").log;
    let mut history =
        History { disk, states: vec![Vec::new()], votes: vec![Vote::default()], snapshots: Vec::new() };
    settle(&mut log, |_| ());
    history.remember(&log);
    let mut term = 1;
    for step in script.chunks_exact(2) {
        do_step(&mut log, &mut term, step[0], step[1]);
        settle(&mut log, |log| history.remember(log));
    }
    history.remember(&log);
    history
}

fn do_step(log: &mut Log, term: &mut Term, what: u8, how: u8) {
    let count = u64::from(how & 3) + 1;
    let bytes = usize::from(how >> 2) * 16;
    match what % 8 {
        0..=2 => append(log, log.last_index(), count, bytes, *term),
        3 => {
            *term += 1;
            let keep = log.last_index().saturating_sub(u64::from(what >> 3) % 8).max(log.commit());
            append(log, keep, count, bytes / 4, *term);
        }
        4 => {
            *term += 1;
            log.set_vote(Vote { term: *term, voted_for: count });
        }
        5 => log.set_commit(log.last_index()),
        6 => log.request_witness(),
        _ => append(log, log.last_index(), 1, 0, *term),
    }
}

fn append(log: &mut Log, keep: Index, count: u64, bytes: usize, term: Term) {
    let entry = |index: Index| Entry {
        index,
        term,
        kind: Kind::Normal,
        data: vec![(index * 7 + term) as u8; bytes].into(),
    };
    if log.vote().term < term {
        log.set_vote(Vote { term, voted_for: 0 });
    }
    log.append((keep + 1..=keep + count).map(entry).collect()).expect("this disk does not fail");
}

impl History {
    fn remember(&mut self, log: &Log) {
        self.states.push(all(log));
        self.votes.push(log.vote());
        self.snapshots.push(images(&self.disk));
    }
}

/// The last block that was written, if there is one.
fn anchor(disk: &MemoryDisk) -> Option<Anchor> {
    let inspection = inspect(disk).expect("there is a log");
    let mut last = None;
    for item in inspection.walk(0) {
        if let Ok(Item::Block(block)) = item {
            let from = usize::try_from(block.offset).expect("it lies in memory");
            let to = from + usize::try_from(block.bytes).expect("it lies in memory");
            last = Some(Anchor { file: block.file.to_string(), from, to });
        }
    }
    last
}

impl Anchor {
    /// Whether the block and the header of its segment are as they were written.
    fn stands(&self, files: &Images, written: &Images) -> bool {
        let (Some(now), Some(then)) = (files.get(&self.file), written.get(&self.file)) else { return false };
        let parts = [0..segment::HEADER_BYTES, self.from..self.to];
        now.len() == then.len() && parts.into_iter().all(|part| now[part.clone()] == then[part])
    }
}

/// What a disk, or somebody with a file manager, does to one file.
fn mutate(files: &mut Images, snapshots: &[Images], [what, which, a, b]: [u8; 4]) {
    let names: Vec<String> = files.keys().cloned().collect();
    let pick = |which: u8| names[usize::from(which) % names.len()].clone();
    if names.is_empty() {
        return;
    }
    let name = pick(which);
    let snapshot = &snapshots[usize::from(b) % snapshots.len()];
    let other = pick(b);
    let from = files[&other].clone();
    let file = files.get_mut(&name).expect("it was just listed");
    let sector = |file: &[u8], number: u8| {
        let sectors = file.len().div_ceil(SECTOR_BYTES).max(1);
        let at = usize::from(number) % sectors * SECTOR_BYTES;
        at..(at + SECTOR_BYTES).min(file.len())
    };
    match what % 12 {
        0 if !file.is_empty() => {
            let at = (usize::from(a) << 8 | usize::from(b)) % file.len();
            file[at] ^= 1 << (what >> 4 & 7);
        }
        1 => {
            let range = sector(file, a);
            file[range].fill(0);
        }
        2 => {
            let range = sector(file, a);
            let mut noise = u64::from(b);
            for byte in &mut file[range] {
                noise = noise.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                *byte = (noise >> 56) as u8;
            }
        }
        // Misdirected: a sector of another file, or of another place.
        3 | 4 => {
            let content = from[sector(&from, what >> 4)].to_vec();
            let range = sector(file, a);
            if range.len() == content.len() {
                file[range].copy_from_slice(&content);
            }
        }
        // Stale: a write that never reached the disk.
        5 => {
            let range = sector(file, a);
            if let Some(old) = snapshot.get(&name).and_then(|old| old.get(range.clone())) {
                file[range].copy_from_slice(old);
            }
        }
        6 => file.truncate(usize::from(a) * 64 + usize::from(b)),
        7 => file.resize(file.len() + usize::from(a) * 8, b),
        8 => drop(files.remove(&name)),
        9 => *file = from,
        10 => match snapshot.get(&name) {
            Some(old) => *file = old.clone(),
            None => drop(files.remove(&name)),
        },
        11 => {
            let next = names.iter().filter_map(|name| segment::file_segment(name)).max().unwrap_or(0) + 1;
            files.insert(segment::file_name(next), from);
        }
        _ => {}
    }
}
