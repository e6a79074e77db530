//! What the page cache keeps of the log.
//!
//! Whatever is written goes through the page cache, and stays there until the system wants the memory for something else.
//! For a log that is read, as a leader's, that is right. Nobody reads a follower's but the follower itself, an entry or two
//! behind, so its pages are better used again for what is written next. On a virtual machine this is more than tidiness:
//! there a page that was not used before has to be got from the host first, and that takes many times as long as what is
//! copied into it, while one that was used a moment ago is there.
//!
//! So a log that was told how much to keep ([`Log::keep_cached`](crate::Log::keep_cached)) lets go, with each block, of what
//! was written longest ago. That is a hint and no more: what is read later is the same, and comes from the disk.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::Region;

/// Pages are let go of in pieces of this size, from the start of a file on. Bytes.
const PIECE_BYTES: u64 = 1 << 20;
/// Most that is let go of with one block, which waits for it. Bytes.
const RELEASE_BYTES_MAX: u64 = 8 << 20;

/// What was written since the log was opened, and not let go of.
///
/// Invariants:
/// - `bytes` is the sum of the ranges, the oldest of which is at the front;
/// - each range begins at a multiple of [`PIECE_BYTES`].
#[derive(Debug, Default)]
pub struct Cached {
    written: VecDeque<(Arc<dyn Region>, Range<u64>)>,
    bytes: u64,
    /// How much of it to keep; all if there is no limit.
    limit: Option<u64>,
}

/// A part of a file that nobody is expected to read soon.
#[derive(Debug)]
pub struct Stale {
    region: Arc<dyn Region>,
    range: Range<u64>,
}

impl Cached {
    /// From now on so many bytes are kept; all of them if there is no limit.
    pub fn limit_to(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    /// A block is about to be written there.
    pub fn write(&mut self, region: &Arc<dyn Region>, block: Range<u64>) {
        if self.written.back().is_none_or(|(newest, _)| !Arc::ptr_eq(newest, region)) {
            let from = block.start / PIECE_BYTES * PIECE_BYTES;
            self.written.push_back((Arc::clone(region), from..from));
        }
        let (_, range) = self.written.back_mut().expect("one was just put there");
        self.bytes += block.end - range.end;
        range.end = block.end;
    }

    /// What to let go of before the next block is written.
    pub fn take_stale(&mut self) -> Option<Stale> {
        let surplus = self.bytes.checked_sub(self.limit?)?.min(RELEASE_BYTES_MAX) / PIECE_BYTES * PIECE_BYTES;
        if surplus == 0 {
            return None;
        }
        let (region, range) = self.written.front_mut()?;
        let stale = range.start..range.end.min(range.start + surplus);
        range.start = stale.end;
        self.bytes -= stale.end - stale.start;
        let region = Arc::clone(region);
        if range.is_empty() {
            self.written.pop_front();
        }
        Some(Stale { region, range: stale })
    }
}

impl Stale {
    /// Lets go of its pages.
    pub fn forget(&self) {
        self.region.forget(self.range.start, self.range.end - self.range.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;
    use crate::{Disk, Haste};

    const MIB: u64 = 1 << 20;

    fn file(name: &str) -> Arc<dyn Region> {
        MemoryDisk::default().create(name, 4 * MIB, &Haste::at_once()).unwrap()
    }

    /// Everything that is let go of before a block is written, as file and pieces.
    fn stale(cached: &mut Cached) -> Vec<(String, Range<u64>)> {
        let taken = std::iter::from_fn(|| cached.take_stale());
        taken
            .map(|stale| (stale.region.name().to_owned(), stale.range.start / MIB..stale.range.end / MIB))
            .collect()
    }

    #[test]
    fn without_a_limit_everything_is_kept() {
        let (mut cached, only) = (Cached::default(), file("a"));
        cached.write(&only, 0..4 * MIB);
        assert!(cached.take_stale().is_none());
    }

    #[test]
    fn what_was_written_longest_ago_goes_first_and_in_whole_pieces() {
        let (mut cached, first, second) = (Cached::default(), file("a"), file("b"));
        cached.limit_to(Some(2 * MIB));
        cached.write(&first, 512..3 * MIB - 512);
        assert_eq!(stale(&mut cached), [], "less than a piece too much");
        cached.write(&first, 3 * MIB - 512..4 * MIB);
        cached.write(&second, 512..MIB);
        assert_eq!(stale(&mut cached), [("a".into(), 0..3)]);
        cached.write(&second, MIB..4 * MIB);
        assert_eq!(stale(&mut cached), [("a".into(), 3..4), ("b".into(), 0..2)]);
        assert_eq!(cached.bytes, 2 * MIB);
    }

    #[test]
    fn a_log_that_goes_on_in_a_file_begins_there() {
        let (mut cached, only) = (Cached::default(), file("a"));
        cached.limit_to(Some(0));
        cached.write(&only, 2 * MIB + 512..3 * MIB);
        assert_eq!(stale(&mut cached), [("a".into(), 2..3)]);
        assert!(cached.written.is_empty());
    }

    #[test]
    fn whoever_waits_for_it_waits_for_a_few_pieces() {
        let mut cached = Cached::default();
        for name in ["a", "b", "c", "d"] {
            cached.write(&file(name), 0..4 * MIB);
        }
        cached.limit_to(Some(0));
        let each: Vec<_> =
            stale(&mut cached).into_iter().map(|(_, pieces)| pieces.end - pieces.start).collect();
        assert!(each.iter().all(|pieces| pieces * MIB <= RELEASE_BYTES_MAX), "{each:?}");
        assert_eq!(each.iter().sum::<u64>(), 16);
    }
}
