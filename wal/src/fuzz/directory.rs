//! A whole data directory: whatever lies in it, a start refuses it or opens a log that holds together.
//!
//! ```text
//! input   file …
//! file    | what u8 | length u8 | content length u16 | content … |      little endian; the rest of the file is zeros
//!
//! what    bit 7: seal it     bit 6: one byte shorter     bits 0 to 3: which file
//!         0 to 5  segments 1 to 6      6  vote, as the votes of its pages      7  identity
//!         8, 9    checkpoints 0, 1     10 the segment with the highest id      11 to 15  another name
//! length  of a segment, in sectors of 512 bytes (modulo 17)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::memory::MemoryDisk;
use crate::{
    Disk, Entry, Findings, Identity, Index, Inspection, Item, Kind, Log, OpenError, Position, Vote,
    VoteState, inspect, open, segment,
};

use super::{identity, seal, small};

const SECTOR_BYTES: usize = 512;
const SECTORS_MAX: usize = 16;
const FILE_HEADER_BYTES: usize = 4;
const SEALED: u8 = 1 << 7;
const SHORTER: u8 = 1 << 6;
const VOTE_BYTES: usize = 36;
const PAGE_BYTES: usize = 4096;

/// What a start showed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) entries: Vec<Entry>,
    /// None if it is damaged.
    pub(super) vote: Option<Vote>,
    pub(super) commit: Index,
}

/// See the module's header.
pub fn directory(data: &[u8]) {
    let disk = MemoryDisk::new();
    let mut rest = data;
    while let Some((head, after)) = rest.split_first_chunk::<FILE_HEADER_BYTES>() {
        let [what, sectors, ..] = *head;
        let length = usize::from(u16::from_le_bytes([head[2], head[3]])).min(after.len());
        let (content, after) = after.split_at(length);
        let (name, content) = file(what, usize::from(sectors) % (SECTORS_MAX + 1), content);
        disk.replace(&name, &content).expect("this disk does not fail");
        rest = after;
    }
    let identity = Identity::load(&disk).ok().filter(|identity| identity.incarnation.is_some());
    let identity = identity.unwrap_or_else(self::identity);
    start(&disk, &identity);
}

fn file(what: u8, sectors: usize, content: &[u8]) -> (String, Vec<u8>) {
    let number = what & 0xF;
    let mut bytes = content.to_vec();
    let id = match number {
        0..=5 => u64::from(number) + 1,
        _ => u64::MAX,
    };
    match number {
        0..=5 | 10 => bytes.resize(sectors * SECTOR_BYTES, 0),
        6 => {
            bytes = vec![0; 4 * PAGE_BYTES];
            for (page, copy) in content.chunks(VOTE_BYTES).take(4).enumerate() {
                bytes[page * PAGE_BYTES..][..copy.len()].copy_from_slice(copy);
            }
        }
        _ => {}
    }
    if what & SHORTER != 0 {
        bytes.pop();
    }
    if what & SEALED != 0 {
        match number {
            0..=5 | 10 => seal::segment(&mut bytes, id),
            7..=9 => seal::sections(&mut bytes),
            _ => {}
        }
    }
    let name = match number {
        0..=5 | 10 => segment::file_name(id),
        6 => "vote".into(),
        7 => "identity".into(),
        8 | 9 => format!("checkpoint-{:020}", number - 8),
        _ => "segment-1".into(),
    };
    (name, bytes)
}

/// One segment as a file of the input: its name is that of segment `id`, 1 to 6.
pub(super) fn describe(id: u64, content: &[u8]) -> Vec<u8> {
    let used = content.len() - content.iter().rev().take_while(|byte| **byte == 0).count();
    described(id as u8 - 1, (content.len() / SECTOR_BYTES) as u8, &content[..used])
}

/// Any file of the input.
pub(super) fn described(what: u8, sectors: u8, content: &[u8]) -> Vec<u8> {
    let mut file = vec![what, sectors];
    file.extend_from_slice(&(content.len() as u16).to_le_bytes());
    file.extend_from_slice(content);
    file
}

/// Starts on a directory. What it shows holds together, is what an inspection shows, is durable, and can be gone on
/// with; if the start is refused, nothing was changed, and an inspection has found why.
pub(super) fn start(disk: &MemoryDisk, identity: &Identity) -> Option<Shown> {
    let before = images(disk);
    let inspection = inspect(disk).ok();
    let walked = inspection.as_ref().map(visible);
    assert_eq!(images(disk), before, "who only looks changes nothing");
    let opened = match open(Arc::new(disk.clone()), identity, small()) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!matches!(error, OpenError::Sync(_)), "this disk does not fail");
            assert_eq!(images(disk), before, "a refused start changes nothing: {error}");
            let found = inspection.as_ref().map(Inspection::findings);
            assert!(found.is_none_or(|found| !found.is_empty()), "nothing was found, yet: {error}");
            return None;
        }
    };
    let shown = Shown { entries: all(&opened.log), vote: known(&opened.vote), commit: opened.commit };
    let last = must_be_one_history(&opened.log, &shown.entries, identity);
    assert!(shown.commit <= last.index && opened.log.commit() == shown.commit);
    if let (Some(inspection), Some(walked)) = (&inspection, walked) {
        must_agree(inspection, &shown, last, walked, identity);
    }
    drop(opened);
    disk.crash(1);
    let again = reopen(disk, identity);
    assert_eq!(again.1, shown, "what was shown once is durable");
    go_on(disk, identity, again);
    Some(shown)
}

fn reopen(disk: &MemoryDisk, identity: &Identity) -> (Log, Shown) {
    let opened = open(Arc::new(disk.clone()), identity, small());
    let opened = opened.unwrap_or_else(|error| panic!("it was opened before: {error}"));
    let shown = Shown { entries: all(&opened.log), vote: known(&opened.vote), commit: opened.commit };
    (opened.log, shown)
}

/// Writes two entries and a vote, pulls the plug, and finds them again.
fn go_on(disk: &MemoryDisk, identity: &Identity, (mut log, mut shown): (Log, Shown)) {
    let last = log.last();
    if let Some(vote) = &mut shown.vote
        && vote.term < u64::MAX
    {
        *vote = Vote { term: vote.term + 1, voted_for: 1 };
        log.set_vote(*vote);
    }
    let entry = |index, data: &'static [u8]| Entry {
        index,
        term: last.term,
        kind: Kind::Normal,
        data: Bytes::from_static(data),
    };
    let entries = vec![entry(last.index + 1, b"one more"), entry(last.index + 2, b"")];
    shown.entries.extend(entries.clone());
    log.append(entries).expect("this disk does not fail");
    settle(&mut log, |_| ());
    log.request_witness();
    settle(&mut log, |_| ());
    drop(log);
    disk.crash(2);
    let (_log, found) = reopen(disk, identity);
    assert_eq!((found.entries, found.vote), (shown.entries, shown.vote), "what was synced is found again");
}

/// Runs all tickets; tells after each.
pub(super) fn settle(log: &mut Log, mut each: impl FnMut(&Log)) {
    const WHY: &str = "this disk does not fail";
    loop {
        while let Some(order) = log.poll_spare() {
            log.handle_spare(order.run().expect(WHY));
        }
        let Some(ticket) = log.poll_ticket() else { return };
        log.handle_synced(ticket.run().expect(WHY));
        each(log);
    }
}

/// All durable entries.
pub(super) fn all(log: &Log) -> Vec<Entry> {
    log.entries(1, log.durable() + 1, u64::MAX).expect("what recovery has read can be read")
}

fn known(state: &VoteState) -> Option<Vote> {
    match state {
        VoteState::Known(vote) => Some(*vote),
        VoteState::Damaged(_) => None,
    }
}

/// Every file of a directory.
pub(super) fn images(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().expect("this disk does not fail");
    names.into_iter().filter_map(|name| Some((name.clone(), disk.image(&name)?))).collect()
}

/// Entries, terms, positions and the chain tell of one history. Its last entry.
fn must_be_one_history(log: &Log, entries: &[Entry], identity: &Identity) -> Position {
    let mut last = Position::start(&identity.cluster);
    for entry in entries {
        assert_eq!(entry.index, last.index + 1, "indexes are contiguous from 1");
        assert!(entry.term >= last.term, "terms never fall");
        last = last.then(entry);
        assert_eq!(log.position(entry.index).expect("it was just read"), Some(last));
        assert_eq!(log.term(entry.index), Some(entry.term));
    }
    assert_eq!((log.last(), log.durable()), (last, last.index));
    last
}

/// What the inspection of a directory says is what a start shows.
fn must_agree(
    inspection: &Inspection,
    shown: &Shown,
    last: Position,
    walked: Vec<(Entry, u32)>,
    identity: &Identity,
) {
    // Without an identity it can be that the inspection believes another file about whose directory this is.
    if inspection.identity() != Some(identity) {
        return;
    }
    assert_eq!((inspection.last(), inspection.commit()), (last, shown.commit));
    assert!(
        !has_segments(inspection.findings()),
        "an opened log has sound segments: {:?}",
        inspection.findings()
    );
    let (walked, chains): (Vec<Entry>, Vec<u32>) = walked.into_iter().unzip();
    assert_eq!(walked, shown.entries, "the walk shows what is not hidden");
    assert_eq!(chains.last().copied().unwrap_or(last.chain), last.chain);
    if inspection.vote().is_some() {
        assert_eq!(inspection.vote(), shown.vote);
    }
}

fn has_segments(findings: &Findings) -> bool {
    findings.listed().iter().any(|damage| segment::file_segment(&damage.file).is_some())
}

/// Walks everything; the entries that are not hidden.
fn visible(inspection: &Inspection) -> Vec<(Entry, u32)> {
    let mut entries = Vec::new();
    for item in inspection.walk(0).flatten() {
        if let Item::Entry(walked) = item
            && !walked.hidden
        {
            entries.push((walked.entry, walked.chain));
        }
    }
    entries
}
