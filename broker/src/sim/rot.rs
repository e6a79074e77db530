//! What a disk does to bytes that it had confirmed: flips a bit, forgets a sector, has another one there, of this file or of
//! another.
//!
//! Only bytes that a later block proves are touched, or one copy of a vote, or the identity: of a damaged last block nobody
//! can tell whether it was torn by a crash, and that is what a majority of other disks is for.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use sequor_wal::Disk;
use sequor_wal::disk::memory::{MemoryDisk, SECTOR_BYTES};

use super::chance::{chance, pick, within};

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
/// How often it is the identity.
const IDENTITIES_PER_MILLE: u64 = 50;

/// Damages something on the disk of a broker that is down: the file that has changed, if there is one that may.
pub(super) fn strike(disk: &MemoryDisk, random: &mut ChaCha8Rng) -> Option<String> {
    let names = disk.list().unwrap_or_default();
    let segments: Vec<&String> = names.iter().filter(|name| name.starts_with(SEGMENT)).collect();
    let old = segments.len().checked_sub(LAST_SEGMENTS).filter(|old| *old > 0)?;
    if chance(random, VOTES_PER_MILLE) {
        let copy = |random: &mut ChaCha8Rng| within(random, (0, VOTE_COPY_LAST)) * VOTE_COPY_BYTES;
        return damage(disk, VOTE, copy, random);
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

/// Damages one sector of those that `place` draws; the name of the file, if that changed anything.
fn damage(
    disk: &MemoryDisk,
    name: &str,
    place: impl Fn(&mut ChaCha8Rng) -> u64,
    random: &mut ChaCha8Rng,
) -> Option<String> {
    let image = disk.image(name).filter(|image| !image.is_empty())?;
    let sector = |image: &[u8], at: u64| {
        let at = usize::try_from(at).expect("within a file in memory");
        let mut sector = image.get(at..).unwrap_or_default().to_vec();
        sector.truncate(SECTOR_BYTES);
        sector
    };
    let at = place(random);
    let before = sector(&image, at);
    let mut after = match within(random, (0, 3)) {
        0 => {
            let byte = at + random.next_u64() % before.len() as u64;
            disk.flip(name, byte, u8::try_from(within(random, (0, 7))).expect("below eight"));
            return Some(name.to_owned());
        }
        1 => Vec::new(),
        2 => {
            let others = disk.list().unwrap_or_default();
            sector(&disk.image(pick::<String>(random, &others)).unwrap_or_default(), at)
        }
        _ => sector(&image, place(random)),
    };
    after.resize(before.len(), 0);
    disk.overwrite(name, at, &after);
    (after != before).then(|| name.to_owned())
}
