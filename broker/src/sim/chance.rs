//! Drawing from the seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// True in about `per_mille` of a thousand draws. Draws even if the answer is known, so that switching a fault off
/// leaves the rest of a run as it was.
pub(super) fn chance(random: &mut ChaCha8Rng, per_mille: u64) -> bool {
    random.next_u64() % 1000 < per_mille
}

/// A number from `low` to `high`, both included.
pub(super) fn within(random: &mut ChaCha8Rng, (low, high): (u64, u64)) -> u64 {
    debug_assert!(low <= high);
    low + random.next_u64() % (high - low + 1)
}

/// One of `items`, which must not be empty.
pub(super) fn pick<'a, T>(random: &mut ChaCha8Rng, items: &'a [T]) -> &'a T {
    let last = items.len() as u64 - 1;
    &items[usize::try_from(within(random, (0, last))).expect("an index fits a usize")]
}
