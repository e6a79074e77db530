//! The vote file: the two numbers that a broker must never forget.
//!
//! ```text
//!   page 0        page 1        page 2        page 3       4 KiB each: one sector, then zeros
//!   | copy a of   | copy a of   | copy b of   | copy b of   |
//!   | even        | odd         | even        | odd         |   generations
//!
//!   0       4        8            16     24          32    36
//!   | magic | format | generation | term | voted_for | crc |
//!   | u32   | u32    | u64        | u64  | u64       | u32 |   of incarnation, page number (u64), 32 bytes before
//! ```
//!
//! An update writes both copies of the older generation, then syncs once; only then may an answer leave.
//! Whatever a crash does to the update, the newer generation is untouched. The file is made whole, with
//! generations 0 and 1, so that no page is ever legitimately empty.
//!
//! # What the pages prove
//!
//! The highest generation with one good copy is the vote, unless *both* copies of the other generation are
//! bad. A sector is written whole or not at all, so an update that was torn by a crash leaves each copy old
//! or new, never bad: two bad copies are rot. They may have been the older generation, which nobody needs,
//! but also a newer one that was synced and answered; nothing tells which, and no witness elsewhere could (a
//! witness can show that a vote was answered, never that it was not). A broker that forgot a vote could elect
//! two leaders of one term, so the state is [`VoteState::Damaged`] and the broker does not vote. That a power
//! cut damages the two sectors of one update, in two pages, at once, is outside of what we trust the disk
//! for; it leads to the same refusal, which is safe.
//!
//! A vote read after a kill may be in the page cache alone. So recovery writes what it found as the next two
//! generations, both copies of each, and syncs before it shows it to anyone; that also heals a single bad
//! copy.
//!
//! # What the log proves
//!
//! A vote that comes with a block is synced before the block is written. So no entry, whether a later cut hides it or
//! not, has a term above that of the vote: if one has, the file is an older copy of itself, and the vote is
//! [`VoteState::Damaged`] too.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::entry::{u32_at, u64_at};
use crate::{Damage, Disk, Position, Region, Term};

pub(crate) const NAME: &str = "vote";
const MAGIC: u32 = u32::from_le_bytes(*b"sqVT");
const FORMAT: u32 = 1;
const PAGE_BYTES: usize = 4096;
const PAGES: usize = 4;
const CRC_AT: usize = 32;
const VOTE_BYTES: usize = 36;
/// No generation is above this: there is room for as many updates as any disk will ever see. Count.
const GENERATION_MAX: u64 = u64::MAX / 2;
/// What is written of a page: one sector.
const SECTOR_BYTES: usize = 512;

/// The latest term this broker knows, and whom it voted for in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// Broker number of the candidate; 0 is none.
    pub voted_for: u64,
}

/// What recovery found in the vote file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoteState {
    /// The last vote that may have been answered, or a later one.
    Known(Vote),
    /// The last vote is lost: this broker must never vote or campaign again under its id.
    Damaged(Damage),
}

/// The vote file, between its updates.
#[derive(Debug)]
pub(crate) struct VoteFile {
    region: Arc<dyn Region>,
    incarnation: [u8; 16],
    /// The newest generation written.
    generation: u64,
}

/// The vote that was set, and how far it is durable. Votes are numbered from 1 since the log was opened.
///
/// Invariants:
/// - the term never falls, and within a term a vote once given is not changed;
/// - `durable <= written <= set`.
#[derive(Debug)]
pub(crate) struct Votes {
    /// `None` if it was damaged: this broker never votes again.
    file: Option<VoteFile>,
    latest: Vote,
    set: u64,
    written: u64,
    durable: u64,
}

/// One update of the vote file.
#[derive(Debug)]
pub(crate) struct VoteWrite {
    region: Arc<dyn Region>,
    /// Position and content of each copy.
    copies: [(u64, Bytes); 2],
}

impl VoteFile {
    /// Makes the file, with no vote in it, whole and synced.
    pub(crate) fn create(disk: &dyn Disk, incarnation: [u8; 16]) -> io::Result<()> {
        let mut content = vec![0; PAGES * PAGE_BYTES];
        for generation in [0, 1] {
            for page in pages_of(generation) {
                let at = page * PAGE_BYTES;
                content[at..at + SECTOR_BYTES].copy_from_slice(&encode(
                    Vote::default(),
                    generation,
                    page,
                    &incarnation,
                ));
            }
        }
        disk.replace(NAME, &content)
    }

    /// Reads the file; the damage, if the vote cannot be known.
    pub(crate) fn load(
        region: Arc<dyn Region>,
        incarnation: [u8; 16],
    ) -> io::Result<Result<(Self, Vote), Damage>> {
        let content = read(&*region)?;
        Ok(judge(&content, &incarnation)
            .map(|(generation, vote)| (Self { region, incarnation, generation }, vote)))
    }

    /// Reads the file and says what is wrong with it, without keeping it open for updates: the vote if it can be
    /// known, and the damages. One bad copy does not hide the vote, and is damage all the same: an update that
    /// was torn by a crash leaves each copy old or new.
    pub(crate) fn inspect(
        region: &dyn Region,
        incarnation: [u8; 16],
    ) -> io::Result<(Option<Vote>, Vec<Damage>)> {
        let content = read(region)?;
        Ok(match judge(&content, &incarnation) {
            Err(damage) => (None, vec![damage]),
            Ok((_, vote)) => (Some(vote), bad_copies(&content, &incarnation)),
        })
    }

    /// Begins an update: the next generation.
    pub(crate) fn update(&mut self, vote: Vote) -> VoteWrite {
        self.generation += 1;
        let copy =
            |page| ((page * PAGE_BYTES) as u64, encode(vote, self.generation, page, &self.incarnation));
        VoteWrite { region: Arc::clone(&self.region), copies: pages_of(self.generation).map(copy) }
    }
}

impl Votes {
    /// What recovery found; nothing if the file is damaged.
    pub(crate) fn new(found: Option<(VoteFile, Vote)>) -> Self {
        let latest = found.as_ref().map_or(Vote::default(), |(_, vote)| *vote);
        Self { file: found.map(|(file, _)| file), latest, set: 0, written: 0, durable: 0 }
    }

    pub(crate) fn latest(&self) -> Vote {
        self.latest
    }

    /// Number of the last vote whose sync returned.
    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Takes a vote and gives it a number, unless it is the same as before.
    pub(crate) fn set(&mut self, vote: Vote) -> Option<u64> {
        if vote == self.latest {
            return None;
        }
        assert!(self.file.is_some(), "a broker whose vote file is damaged must not vote");
        let is_first_of_term = vote.term == self.latest.term && self.latest.voted_for == 0;
        assert!(vote.term > self.latest.term || is_first_of_term, "{vote:?} contradicts {:?}", self.latest);
        self.latest = vote;
        self.set += 1;
        Some(self.set)
    }

    /// Begins to write the latest vote, unless that was done. The update before must be synced.
    pub(crate) fn write(&mut self) -> Option<VoteWrite> {
        assert_eq!(self.written, self.durable, "one update at a time");
        if self.written == self.set {
            return None;
        }
        self.written = self.set;
        self.file.as_mut().map(|file| file.update(self.latest))
    }

    /// The update that was begun is synced.
    pub(crate) fn synced(&mut self) {
        self.durable = self.written;
    }
}

impl VoteWrite {
    pub(crate) fn write(&self) -> io::Result<()> {
        self.copies
            .iter()
            .try_for_each(|(position, copy)| self.region.write_at(*position, std::slice::from_ref(copy)))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.region.sync()
    }
}

/// Puts an empty file in the place of the one that is missing: its absence must not be forgotten when what proves it, the
/// first segment, is removed as a leftover.
pub(crate) fn keep_missing(disk: &dyn Disk) -> io::Result<()> {
    disk.replace(NAME, &[])
}

/// There is no file, although there must be one.
pub(crate) fn missing() -> Damage {
    let (expected, found) = ("the vote file".into(), "no file".into());
    Damage { file: NAME.into(), offset: 0, expected, found }
}

/// Compares a vote with `latest`, the entry of the highest term that is in any good block: an entry is written when the vote
/// of its term is synced.
pub(crate) fn check_age(vote: Vote, latest: Position) -> Result<(), Damage> {
    if vote.term >= latest.term {
        return Ok(());
    }
    let expected =
        format!("a vote of term {} or later, for entry {} has that term", latest.term, latest.index);
    Err(Damage { file: NAME.into(), offset: 0, expected, found: format!("one of term {}", vote.term) })
}

/// The pages of a generation's two copies.
fn pages_of(generation: u64) -> [usize; 2] {
    if generation.is_multiple_of(2) { [0, 2] } else { [1, 3] }
}

fn encode(vote: Vote, generation: u64, page: usize, incarnation: &[u8; 16]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(SECTOR_BYTES);
    bytes.put_u32_le(MAGIC);
    bytes.put_u32_le(FORMAT);
    bytes.put_u64_le(generation);
    bytes.put_u64_le(vote.term);
    bytes.put_u64_le(vote.voted_for);
    let crc = checksum(&bytes, page, incarnation);
    bytes.put_u32_le(crc);
    bytes.resize(SECTOR_BYTES, 0);
    bytes.freeze()
}

fn checksum(vote: &[u8], page: usize, incarnation: &[u8; 16]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(incarnation);
    crc.update(&(page as u64).to_le_bytes());
    crc.update(vote);
    crc.finalize()
}

fn read(region: &dyn Region) -> io::Result<Vec<u8>> {
    let bytes = usize::try_from(region.bytes()).unwrap_or(usize::MAX).min(PAGES * PAGE_BYTES);
    let mut content = vec![0; bytes];
    region.scan(0, &mut content)?;
    Ok(content)
}

/// The copies that are not good, in a file of which the vote is known.
fn bad_copies(content: &[u8], incarnation: &[u8; 16]) -> Vec<Damage> {
    let parity = |page: usize| page as u64 % 2;
    let bad = (0..PAGES).filter(|page| decode(content, *page, parity(*page), incarnation).is_none());
    let damage = |page: usize| {
        let [a, b] = pages_of(parity(page));
        let other = if page == a { b } else { a } * PAGE_BYTES;
        Damage {
            file: NAME.into(),
            offset: (page * PAGE_BYTES) as u64,
            expected: format!("a good copy of the vote, as the one at byte {other}"),
            found: "other bytes; the next start of the broker writes both copies anew".into(),
        }
    };
    bad.map(damage).collect()
}

/// The vote that the pages prove, with its generation.
fn judge(content: &[u8], incarnation: &[u8; 16]) -> Result<(u64, Vote), Damage> {
    let damage = |offset: usize, expected: String, found: String| Damage {
        file: NAME.into(),
        offset: offset as u64,
        expected,
        found,
    };
    if content.len() < PAGES * PAGE_BYTES {
        let expected = format!("a file of {} bytes", PAGES * PAGE_BYTES);
        return Err(damage(0, expected, format!("{} bytes", content.len())));
    }
    let mut newest: Option<(u64, Vote)> = None;
    for parity in [0, 1] {
        let [a, b] = pages_of(parity).map(|page| decode(content, page, parity, incarnation));
        let copies = if cfg!(feature = "bug-two-votes") { [a, None] } else { [a, b] };
        let best = copies.into_iter().flatten().max_by_key(|(generation, _)| *generation);
        if cfg!(feature = "bug-two-votes") && best.is_none() && (parity == 0 || newest.is_some()) {
            continue;
        }
        let Some(best) = best else {
            let at = pages_of(parity)[0] * PAGE_BYTES;
            let expected =
                format!("a good copy of the vote here or at byte {}", pages_of(parity)[1] * PAGE_BYTES);
            return Err(damage(at, expected, "none".into()));
        };
        newest = newest.filter(|newest| newest.0 > best.0).or(Some(best));
    }
    Ok(newest.expect("each parity gave one"))
}

fn decode(content: &[u8], page: usize, parity: u64, incarnation: &[u8; 16]) -> Option<(u64, Vote)> {
    let vote = &content[page * PAGE_BYTES..][..VOTE_BYTES];
    let good = u32_at(vote, 0) == MAGIC
        && u32_at(vote, 4) == FORMAT
        && u32_at(vote, CRC_AT) == checksum(&vote[..CRC_AT], page, incarnation)
        && u64_at(vote, 8) % 2 == parity
        && u64_at(vote, 8) <= GENERATION_MAX;
    good.then(|| (u64_at(vote, 8), Vote { term: u64_at(vote, 16), voted_for: u64_at(vote, 24) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;

    const INCARNATION: [u8; 16] = [9; 16];

    fn pages(votes: &[(usize, u64, Vote)]) -> Vec<u8> {
        let mut content = vec![0; PAGES * PAGE_BYTES];
        for &(page, generation, vote) in votes {
            let copy = encode(vote, generation, page, &INCARNATION);
            content[page * PAGE_BYTES..][..SECTOR_BYTES].copy_from_slice(&copy);
        }
        content
    }

    const OLD: Vote = Vote { term: 4, voted_for: 1 };
    const NEW: Vote = Vote { term: 5, voted_for: 2 };

    #[test]
    fn the_newest_good_generation_is_the_vote() {
        let whole = pages(&[(0, 6, OLD), (2, 6, OLD), (1, 7, NEW), (3, 7, NEW)]);
        assert_eq!(judge(&whole, &INCARNATION), Ok((7, NEW)));
    }

    #[test]
    fn one_good_copy_suffices() {
        let mut content = pages(&[(0, 6, OLD), (2, 6, OLD), (1, 7, NEW), (3, 7, NEW)]);
        content[3 * PAGE_BYTES + 20] ^= 1;
        content[2 * PAGE_BYTES + 20] ^= 1;
        assert_eq!(judge(&content, &INCARNATION), Ok((7, NEW)));
    }

    #[test]
    fn a_torn_update_shows_the_old_or_the_new_vote() {
        let torn = pages(&[(0, 8, NEW), (2, 6, OLD), (1, 7, OLD), (3, 7, OLD)]);
        assert_eq!(judge(&torn, &INCARNATION), Ok((8, NEW)));
    }

    #[test]
    fn two_bad_copies_of_either_generation_are_damage() {
        let whole = pages(&[(0, 6, OLD), (2, 6, OLD), (1, 7, NEW), (3, 7, NEW)]);
        for (a, b) in [(0, 2), (1, 3)] {
            let mut content = whole.clone();
            content[a * PAGE_BYTES..][..SECTOR_BYTES].fill(0);
            content[b * PAGE_BYTES + 33] ^= 4;
            assert_eq!(judge(&content, &INCARNATION).unwrap_err().offset, (a * PAGE_BYTES) as u64);
        }
        assert!(judge(&whole[..100], &INCARNATION).is_err());
        assert!(judge(&whole, &[1; 16]).is_err());
    }

    #[test]
    fn a_generation_that_no_disk_reaches_is_not_a_copy() {
        let high = GENERATION_MAX + 1;
        let content = pages(&[(0, high, OLD), (2, high, OLD), (1, high + 1, NEW), (3, high + 1, NEW)]);
        assert!(judge(&content, &INCARNATION).is_err());
    }

    #[test]
    fn a_copy_in_the_wrong_page_is_not_a_copy() {
        let mut content = pages(&[(0, 6, OLD), (2, 6, OLD), (1, 7, NEW), (3, 7, NEW)]);
        content.copy_within(PAGE_BYTES..2 * PAGE_BYTES, 0);
        content.copy_within(PAGE_BYTES..2 * PAGE_BYTES, 2 * PAGE_BYTES);
        assert!(judge(&content, &INCARNATION).is_err());
    }

    #[test]
    fn updates_alternate_and_are_found_again() {
        let disk = MemoryDisk::new();
        VoteFile::create(&disk, INCARNATION).unwrap();
        let (mut file, vote) = VoteFile::load(disk.open(NAME).unwrap(), INCARNATION).unwrap().unwrap();
        assert_eq!(vote, Vote::default());
        for term in 1..10 {
            let update = file.update(Vote { term, voted_for: term % 3 });
            update.write().unwrap();
            update.sync().unwrap();
            disk.crash(term);
            let (reopened, vote) = VoteFile::load(disk.open(NAME).unwrap(), INCARNATION).unwrap().unwrap();
            assert_eq!(vote, Vote { term, voted_for: term % 3 });
            file = reopened;
        }
    }
}
