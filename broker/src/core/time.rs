//! Time, as an argument: the core never asks a clock.

use std::ops::{Add, Sub};

/// A moment on the driver's monotonic clock, in microseconds since a start that the driver chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment `ms` milliseconds after the start.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1000)
    }

    /// Microseconds from `earlier` to `self`; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Time {
    type Output = Self;

    fn add(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl Sub for Time {
    type Output = u64;

    fn sub(self, earlier: Self) -> u64 {
        self.since(earlier)
    }
}

/// Log time: the only clock of the state machine, in milliseconds, never falling.
///
/// A leader stamps it into every entry and heartbeat. Everybody else remembers the last value heard and adds the time
/// that passed on their own monotonic clock since, so that a new leader goes on from there and no wall clock is ever
/// asked. Time during which no broker that remembers log time runs is not counted: leases live longer, never shorter.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    heard_ms: u64,
    at: Time,
}

impl LogClock {
    /// A clock that shows `heard_ms` at `now`.
    #[must_use]
    pub fn new(heard_ms: u64, now: Time) -> Self {
        Self { heard_ms, at: now }
    }

    /// Log time now, in milliseconds.
    #[must_use]
    pub fn read(&self, now: Time) -> u64 {
        self.heard_ms.saturating_add(now.since(self.at) / 1000)
    }

    /// Takes over a value that was heard, if it is ahead of ours.
    pub fn hear(&mut self, ms: u64, now: Time) {
        if ms > self.read(now) {
            *self = Self::new(ms, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_goes_on_with_own_time_and_never_falls() {
        let mut clock = LogClock::new(500, Time::from_ms(10));
        assert_eq!(clock.read(Time::from_ms(40)), 530);
        clock.hear(520, Time::from_ms(40));
        assert_eq!(clock.read(Time::from_ms(40)), 530, "a late heartbeat does not set it back");
        clock.hear(900, Time::from_ms(50));
        assert_eq!(clock.read(Time::from_ms(60)), 910);
        assert_eq!(clock.read(Time::from_ms(5)), 900, "a monotonic clock that fell counts as no time");
    }
}
