//! What a disk does to bytes that it had confirmed: flips a bit, forgets a sector, returns an older one or another one.
//!
//! Only bytes that a later block proves are touched, or one copy of a vote: of a damaged last block nobody can tell
//! whether it was torn by a crash, and that is what a majority of other disks is for.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use sequor_wal::Disk;
use sequor_wal::disk::memory::{MemoryDisk, SECTOR_BYTES};

use super::chance::{pick, within};

/// Segments at the end of the list of files that are left alone: the spares, the one in use, and the one before, which may
/// hold the last block.
const LAST_SEGMENTS: usize = 4;
const SEGMENT: &str = "segment-";
const VOTE: &str = "vote";
/// Where the next copy of a vote begins; its first sector holds all of it. Bytes.
const VOTE_COPY_BYTES: u64 = 4096;

/// Damages something on the disk of a broker that is down; false if there is nothing that may be damaged yet.
pub(super) fn strike(disk: &MemoryDisk, random: &mut ChaCha8Rng) -> bool {
    let names = disk.list().unwrap_or_default();
    let segments: Vec<&String> = names.iter().filter(|name| name.starts_with(SEGMENT)).collect();
    let Some(old) = segments.len().checked_sub(LAST_SEGMENTS).filter(|old| *old > 0) else { return false };
    if within(random, (0, 9)) == 0 {
        let copy = within(random, (0, 3)) * VOTE_COPY_BYTES;
        return damage(disk, VOTE, copy, SECTOR_BYTES, random);
    }
    let name = *pick(random, &segments[..old]);
    let bytes = disk.image(name).map_or(0, |image| image.len());
    damage(disk, name, 0, bytes, random)
}

/// Damages one sector of a range.
fn damage(disk: &MemoryDisk, name: &str, from: u64, bytes: usize, random: &mut ChaCha8Rng) -> bool {
    let Some(image) = disk.image(name) else { return false };
    let sectors = (bytes / SECTOR_BYTES) as u64;
    if sectors == 0 {
        return false;
    }
    let place = |random: &mut ChaCha8Rng| from + random.next_u64() % sectors * SECTOR_BYTES as u64;
    let at = place(random);
    match within(random, (0, 2)) {
        0 => {
            let byte = at + random.next_u64() % SECTOR_BYTES as u64;
            disk.flip(name, byte, u8::try_from(within(random, (0, 7))).expect("below eight"));
        }
        1 => disk.overwrite(name, at, &[0; SECTOR_BYTES]),
        _ => {
            let other = usize::try_from(place(random)).expect("within a file in memory");
            disk.overwrite(name, at, &image[other..other + SECTOR_BYTES]);
        }
    }
    true
}
