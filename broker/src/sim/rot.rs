//! What a disk does to bytes that it had confirmed: flips a bit, forgets a sector, has another one there, of this file, of
//! another, or (of a vote; a log has nothing older than zeros) what was there before.
//!
//! Only bytes that a later block proves are touched, or one copy of a vote, or the identity: of a damaged last block nobody
//! can tell whether it was torn by a crash, and that is what a majority of other disks is for.
//!
//! What was [struck](Struck) is remembered. A broker that refuses to start has to blame it, and one that starts must be able
//! to read all that it starts with.

use std::fmt;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use sequor_wal::Disk;
use sequor_wal::disk::memory::{MemoryDisk, SECTOR_BYTES};

use super::chance::{chance, pick, within};
use super::loss::{segment, segment_id};

/// Segments at the end of the list of files that are left alone: the spares, the one in use, and the one before, which may
/// hold the last block.
const LAST_SEGMENTS: usize = 4;
const SEGMENT: &str = "segment-";
pub(super) const VOTE: &str = "vote";
/// How far apart the copies of a vote lie; the first sector of each holds all of it. Bytes.
const VOTE_COPY_BYTES: u64 = 4096;
/// The last of the four copies.
const VOTE_COPY_LAST: u64 = 3;
/// How often it is a vote that is struck, per thousand: it is small, and what becomes of it weighs the most.
const VOTES_PER_MILLE: u64 = 400;
pub(super) const IDENTITY: &str = "identity";
/// How often it is an older copy that is there again, of those, if there is one. Never beside other damage of votes: nobody
/// could know that there was a newer vote, if both its copies were gone.
const OLDER_VOTES_PER_MILLE: u64 = 200;
const OLDER_VOTE: &str = "rot: an older vote";
/// How often it is the identity.
const IDENTITIES_PER_MILLE: u64 = 50;

/// The files of a disk in which bytes have changed that it had confirmed, each as often as that happened; without those
/// that were written anew since.
#[derive(Clone, Debug, Default)]
pub(super) struct Struck {
    files: Vec<String>,
    /// A copy of the vote is an older one.
    older_vote: bool,
}

impl Struck {
    pub(super) fn add(&mut self, hit: Hit) {
        self.files.push(hit.file);
        self.older_vote |= hit.how == OLDER_VOTE;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A start that succeeds writes all copies of the vote anew.
    pub(super) fn heal(&mut self) {
        self.files.retain(|file| file != VOTE);
        self.older_vote = false;
    }

    /// Whether this is a reason to refuse a start, and to blame that file for it. One bad copy of a vote is none. The last
    /// block of a segment is missed by the one behind it, and its first block by the one before it, if that was torn.
    pub(super) fn excuses(&self, blamed: Option<&str>) -> bool {
        let Some(file) = blamed else { return false };
        match segment_id(file) {
            Some(id) => (id - 1..=id + 1).any(|id| self.times(&segment(id)) > 0),
            None if file == VOTE => self.times(file) > 1,
            None => self.times(file) > 0,
        }
    }

    fn times(&self, name: &str) -> usize {
        self.files.iter().filter(|struck| *struck == name).count()
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.files.as_slice() {
            [] => f.write_str("no rot"),
            files => write!(f, "rot in {}", files.join(", ")),
        }
    }
}

/// What has changed on a disk.
#[derive(Debug)]
pub(super) struct Hit {
    /// In which file.
    pub(super) file: String,
    /// How, as it is counted.
    pub(super) how: &'static str,
}

/// Damages something on the disk of a broker that is down, if there is anything that may be. `older_vote` is the vote's file
/// as it was a while ago.
pub(super) fn strike(
    disk: &MemoryDisk,
    struck: &Struck,
    older_vote: &[u8],
    random: &mut ChaCha8Rng,
) -> Option<Hit> {
    let names = disk.list().unwrap_or_default();
    let segments: Vec<&String> = names.iter().filter(|name| name.starts_with(SEGMENT)).collect();
    let old = segments.len().checked_sub(LAST_SEGMENTS).filter(|old| *old > 0)?;
    if chance(random, VOTES_PER_MILLE) {
        let copy = |random: &mut ChaCha8Rng| within(random, (0, VOTE_COPY_LAST)) * VOTE_COPY_BYTES;
        if chance(random, OLDER_VOTES_PER_MILLE) {
            let at = copy(random);
            let alone = struck.times(VOTE) == 0;
            return alone.then(|| replace(disk, VOTE, at, sector(older_vote, at), OLDER_VOTE)).flatten();
        }
        return if struck.older_vote { None } else { damage(disk, VOTE, copy, random) };
    }
    if chance(random, IDENTITIES_PER_MILLE) {
        return damage(disk, IDENTITY, |_| 0, random);
    }
    let name = *pick(random, &segments[..old]);
    let sectors = disk.image(name).map_or(0, |image| image.len() / SECTOR_BYTES) as u64;
    if sectors == 0 {
        return None;
    }
    damage(disk, name, |random| random.next_u64() % sectors * SECTOR_BYTES as u64, random)
}

/// Damages one sector of those that `place` draws, if that changes anything.
fn damage(
    disk: &MemoryDisk,
    name: &str,
    place: impl Fn(&mut ChaCha8Rng) -> u64,
    random: &mut ChaCha8Rng,
) -> Option<Hit> {
    let image = disk.image(name).filter(|image| !image.is_empty())?;
    let at = place(random);
    match within(random, (0, 3)) {
        0 => {
            let byte = at + random.next_u64() % sector(&image, at).len() as u64;
            disk.flip(name, byte, u8::try_from(within(random, (0, 7))).expect("below eight"));
            Some(Hit { file: name.to_owned(), how: "rot: a bit" })
        }
        1 => replace(disk, name, at, Vec::new(), "rot: zeros"),
        2 => {
            let others = disk.list().unwrap_or_default();
            let other = disk.image(pick::<String>(random, &others)).unwrap_or_default();
            replace(disk, name, at, sector(&other, at), "rot: a sector of any file")
        }
        _ => replace(disk, name, at, sector(&image, place(random)), "rot: another sector"),
    }
}

fn sector(image: &[u8], at: u64) -> Vec<u8> {
    let at = usize::try_from(at).expect("within a file in memory");
    let mut sector = image.get(at..).unwrap_or_default().to_vec();
    sector.truncate(SECTOR_BYTES);
    sector
}

/// Puts this in the place of a sector, with zeros behind it, if that is anything else.
fn replace(disk: &MemoryDisk, name: &str, at: u64, mut by: Vec<u8>, how: &'static str) -> Option<Hit> {
    let before = sector(&disk.image(name)?, at);
    by.resize(before.len(), 0);
    disk.overwrite(name, at, &by);
    (by != before).then(|| Hit { file: name.to_owned(), how })
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    fn struck(file: &str, how: &'static str) -> Struck {
        let mut struck = Struck::default();
        struck.add(Hit { file: file.into(), how });
        struck
    }

    #[test]
    fn who_refuses_to_start_has_to_blame_what_was_struck() {
        let third = struck(&segment(3), "rot: zeros");
        assert!(third.excuses(Some(&segment(3))));
        assert!(third.excuses(Some(&segment(4))), "what follows it does not follow any more");
        assert!(third.excuses(Some(&segment(2))), "it may have hidden a torn end");
        assert!(!third.excuses(Some(&segment(1))) && !third.excuses(Some(&segment(5))));
        assert!(!third.excuses(Some(IDENTITY)) && !third.excuses(None));
        assert!(!Struck::default().excuses(Some(&segment(1))));
        let mut one = struck(VOTE, "rot: zeros");
        assert!(!one.excuses(Some(VOTE)), "three copies are left");
        one.add(Hit { file: VOTE.into(), how: "rot: a bit" });
        assert!(one.excuses(Some(VOTE)));
        one.heal();
        assert!(one.is_empty());
    }

    #[test]
    fn an_older_copy_of_a_vote_is_the_only_damage_of_votes() {
        let disk = MemoryDisk::new();
        let file =
            |name: &str, byte: u8| disk.replace(name, &vec![byte; 4 * VOTE_COPY_BYTES as usize]).unwrap();
        (1..10).for_each(|id| file(&segment(id), 1));
        file(VOTE, 2);
        let older = vec![3; 4 * VOTE_COPY_BYTES as usize];
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut hits = |before: &Struck| -> Vec<_> {
            let hits = (0..1000).filter_map(|_| strike(&disk, before, &older, &mut random));
            hits.filter(|hit| hit.file == VOTE).map(|hit| hit.how == OLDER_VOTE).collect()
        };
        let first = hits(&Struck::default());
        assert!(first.contains(&true) && first.contains(&false));
        assert!(hits(&struck(VOTE, "rot: zeros")).iter().all(|is_older| !is_older));
        assert_eq!(hits(&struck(VOTE, OLDER_VOTE)), [false; 0]);
    }
}
