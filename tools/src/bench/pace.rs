//! An open loop's clock: when each request is meant to leave, and a timer that wakes for it.
//!
//! ```text
//!   intended   │    │    │    │    │    │        every interval, whatever the answers do
//!   sent       │    │    │         │││  │        the sender was held up, and then caught up
//!   latency    └──► └──► └────────►└───────►     from the intended moment: the wait is part of it
//! ```
//!
//! Whoever times a late request from the moment at which it left measures how fast the system is when nobody wants
//! anything of it. So a latency begins when the request was meant to leave. The timer is the kernel's, by nanoseconds:
//! that of the runtime rounds up to the next millisecond, and would be most of what is measured.

use std::{
    io,
    time::{Duration, Instant},
};

use rustix::{
    event::Timespec,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use thiserror::Error;
use tokio::net::unix::pipe::Receiver;

use crate::exit::{Exit, Verdict};

/// Nanoseconds in a second.
const SECOND_NS: u128 = 1_000_000_000;

/// What a timer has to say: how often it has expired. Bytes.
const EXPIRATIONS_BYTES: usize = 8;

/// The system gives no timer.
#[derive(Debug, Error)]
#[error("cannot make a timer")]
pub(super) struct TimerError {
    #[from]
    source: io::Error,
}

impl Verdict for TimerError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// When requests of `batch` records leave, so that there are `rate` records a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    batch: u64,
    rate: u64,
}

impl Pace {
    pub(super) fn new(start: Instant, batch: u64, rate: u64) -> Self {
        Self { start, batch, rate }
    }

    /// When a request is meant to leave; they count from 0. Each is computed from the start: no rounding adds up.
    pub(super) fn intended(&self, request: u64) -> Instant {
        let since = u128::from(request) * u128::from(self.batch) * SECOND_NS / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// How many requests are meant to leave before a moment.
    pub(super) fn before(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.start).as_nanos();
        let requests = (since * u128::from(self.rate)).div_ceil(u128::from(self.batch) * SECOND_NS);
        u64::try_from(requests).unwrap_or(u64::MAX)
    }
}

/// Wakes its task at a moment. To the runtime the kernel's timer is something that is read when it can be, like a pipe.
#[derive(Debug)]
pub(super) struct Timer(Receiver);

impl Timer {
    pub(super) fn new() -> Result<Self, TimerError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(io::Error::from)?;
        Ok(Self(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Waits for a moment; not at all, if it is over.
    pub(super) async fn until(&self, moment: Instant) -> Result<(), TimerError> {
        let wait = moment.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let once = Timespec { tv_sec: seconds, tv_nsec: i64::from(wait.subsec_nanos()) };
        let set = Itimerspec { it_interval: never, it_value: once };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &set).map_err(io::Error::from)?;
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; EXPIRATIONS_BYTES]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_meant_to_leave_when_its_share_of_the_rate_is_due() {
        let start = Instant::now();
        let pace = Pace::new(start, 10, 3000);
        assert_eq!(pace.intended(0), start);
        assert_eq!(
            pace.intended(300),
            start + Duration::from_secs(1),
            "thirds of a millisecond do not add up"
        );
        assert_eq!(pace.intended(1), start + Duration::from_nanos(3_333_333));
        let years = Pace::new(start, 1, 1).intended(100_000_000);
        assert_eq!(years, start + Duration::from_secs(100_000_000));
    }

    #[test]
    fn as_many_are_meant_before_a_moment_as_have_an_earlier_one() {
        let start = Instant::now();
        for (batch, rate) in [(10, 3000), (1, 1), (7, 1_000_000), (1, 3)] {
            let pace = Pace::new(start, batch, rate);
            assert_eq!(pace.before(start), 0);
            for ms in [1, 3, 4, 999, 1000, 1001] {
                let moment = start + Duration::from_millis(ms);
                let count = pace.before(moment);
                assert!(pace.intended(count) >= moment, "{batch}, {rate}, {ms}");
                assert!(pace.intended(count - 1) < moment, "{batch}, {rate}, {ms}");
            }
        }
    }

    #[tokio::test]
    async fn the_timer_wakes_between_two_milliseconds_and_never_early() {
        let timer = Timer::new().unwrap();
        let wait = Duration::from_micros(300);
        let mut took = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            timer.until(start + wait).await.unwrap();
            took.push(start.elapsed());
        }
        took.sort_unstable();
        assert!(took[0] >= wait && took[0] < Duration::from_millis(1), "{took:?}");
        timer.until(Instant::now() - wait).await.unwrap();
    }
}
