//! The clocks of one machine: they run too fast or too slow, and jump.
//!
//! The monotonic clock drifts, and may jump forwards as after a machine was suspended. The wall clock jumps in both
//! directions, and nothing may depend on it.

use rand_chacha::ChaCha8Rng;

use super::chance::{chance, pick, within};
use crate::core::time::Time;

/// How wrong clocks run: not at all, as quartz does, or as no machine should. Parts per million.
const DRIFTS_PPM: [u64; 4] = [0, 50, 500, 50_000];
const PPM: u64 = 1_000_000;
/// The wall clock at the beginning of every world. Milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;
/// How far a wall clock jumps, in either direction. Milliseconds.
const WALL_JUMP_MS: u64 = 100_000_000;

/// See the module's header.
#[derive(Debug)]
pub(super) struct Clock {
    /// Ticks of its own in a million microseconds of the world.
    rate: u64,
    ahead_us: u64,
    wall_ms: u64,
}

impl Clock {
    /// A clock that may be wrong.
    pub(super) fn draw(random: &mut ChaCha8Rng) -> Self {
        let drift = *pick(random, &DRIFTS_PPM);
        let rate = if chance(random, 500) { PPM + drift } else { PPM - drift };
        Self { rate, ahead_us: 0, wall_ms: WALL_MS }
    }

    /// A clock that is right.
    #[cfg(feature = "virtual")]
    pub(super) fn right() -> Self {
        Self { rate: PPM, ahead_us: 0, wall_ms: WALL_MS }
    }

    /// What the monotonic clock shows at a moment of the world.
    pub(super) fn read(&self, now: Time) -> Time {
        Time(now.0 / PPM * self.rate + now.0 % PPM * self.rate / PPM + self.ahead_us)
    }

    /// When it will show `time`, in the world; not before `now`.
    pub(super) fn when(&self, time: Time, now: Time) -> Time {
        now + (time.since(self.read(now)) * PPM).div_ceil(self.rate)
    }

    /// What the wall clock shows. Milliseconds since 1970.
    pub(super) fn wall_ms(&self, now: Time) -> u64 {
        self.wall_ms + now.0 / 1000
    }

    /// The monotonic clock jumps forwards, the wall clock anywhere.
    pub(super) fn jump(&mut self, random: &mut ChaCha8Rng, by_us: u64) {
        self.ahead_us += by_us;
        self.wall_ms = within(random, (WALL_MS - WALL_JUMP_MS, WALL_MS + WALL_JUMP_MS));
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn a_clock_shows_what_was_waited_for_when_it_says_so() {
        for seed in 0..50 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut clock = Clock::draw(&mut random);
            clock.jump(&mut random, 1234);
            let (now, wanted) = (Time(17_000_003), clock.read(Time(17_000_003)) + 10_000);
            let at = clock.when(wanted, now);
            assert!(clock.read(at) >= wanted && clock.read(at) <= wanted + 2, "seed {seed}: {clock:?}");
        }
    }
}
