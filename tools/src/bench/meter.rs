//! What is read off a load: how many records in how long, and how long each request took.
//!
//! What counts for records a second was acknowledged in the window, in either loop. In a closed loop these are also the
//! requests that are timed. In an open loop every request is that was *meant* to leave in the window: those whose answers
//! come too late for it are the very ones that percentiles are there for. What never left counts as later than all others.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    lists::Pressure,
    load::{Answered, Window},
    trial::Recorder,
};

/// Significant digits of the histogram.
const DIGITS: u8 = 3;
/// Longest time that it tells from longer ones. Microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Meter {
    window: Window,
    pressure: Pressure,
    requests: u64,
    records: u64,
    histogram: Histogram<u64>,
}

/// How long requests took. Microseconds. Absent is what falls on a request that never left, and all of it without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) mean_us: Option<f64>,
    pub(super) p50_us: Option<u64>,
    pub(super) p90_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    pub(super) p999_us: Option<u64>,
    pub(super) max_us: Option<u64>,
}

impl Meter {
    pub(super) fn new(window: Window, pressure: Pressure) -> Self {
        Self { window, pressure, requests: 0, records: 0, histogram: histogram() }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// How long they took, and so many that never left.
    pub(super) fn latency(&self, unsent: u64) -> Latency {
        latency(&self.histogram, unsent)
    }
}

impl Recorder for Meter {
    fn note(&mut self, answered: Answered) {
        let is_timely = self.window.contains(answered.at);
        if is_timely {
            self.requests += 1;
            self.records += answered.records;
        }
        let is_timed = match self.pressure {
            Pressure::InFlight(_) => is_timely,
            Pressure::Rate(_) => self.window.contains(answered.begun),
        };
        if is_timed {
            self.histogram.saturating_record(micros(answered.took()));
        }
    }
}

/// An empty one.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, DIGITS).expect("the bounds are possible")
}

/// Of these, and so many that never left, which are later than all of them.
pub(super) fn latency(histogram: &Histogram<u64>, unsent: u64) -> Latency {
    let answered = histogram.len();
    let all = answered + unsent;
    let quantile = |share: f64| {
        let rank = ((share * all as f64).ceil() as u64).max(1);
        // Half a rank less: no rounding makes it the next one.
        (rank <= answered).then(|| histogram.value_at_quantile((rank as f64 - 0.5) / answered as f64))
    };
    let is_whole = answered > 0 && unsent == 0;
    Latency {
        mean_us: is_whole.then(|| histogram.mean()),
        p50_us: quantile(0.5),
        p90_us: quantile(0.9),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        max_us: is_whole.then(|| histogram.max()),
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A meter of the window from 100 to 200 ms, and what it was told: when requests were begun and answered.
    fn meter(pressure: Pressure, answers: &[(u32, u32)]) -> Meter {
        let start = Instant::now();
        let mut meter = Meter::new(Window { from: start + MS * 100, to: start + MS * 200 }, pressure);
        for (begun, at) in answers {
            meter.note(Answered { begun: start + MS * *begun, at: start + MS * *at, records: 10 });
        }
        meter
    }

    fn ms(us: Option<u64>) -> Option<u64> {
        us.map(|us| us / 1000)
    }

    #[test]
    fn in_a_closed_loop_only_what_is_answered_in_the_window_counts() {
        let meter = meter(Pressure::InFlight(1), &[(0, 99), (90, 100), (110, 191), (150, 200)]);
        assert_eq!((meter.requests(), meter.records()), (2, 20));
        let latency = meter.latency(0);
        assert_eq!((ms(latency.p50_us), ms(latency.max_us)), (Some(10), Some(81)));
    }

    #[test]
    fn in_an_open_loop_what_was_meant_in_the_window_is_timed_however_late_its_answer_is() {
        // Meant before it, meant and answered in it, and meant in it and answered long after it.
        let meter = meter(Pressure::Rate(10), &[(90, 150), (110, 120), (190, 900), (200, 210)]);
        assert_eq!((meter.requests(), meter.records()), (2, 20), "throughput is of the window");
        let latency = meter.latency(0);
        assert_eq!((ms(latency.p50_us), ms(latency.p99_us)), (Some(10), Some(710)));
    }

    #[test]
    fn what_never_left_is_later_than_all_others_and_no_latency_is_not_zero() {
        let answers: Vec<_> = (0..90).map(|at| (101, 102 + at)).collect();
        let meter = meter(Pressure::Rate(10), &answers);
        let latency = meter.latency(10);
        assert_eq!((ms(latency.p50_us), ms(latency.p90_us)), (Some(50), Some(90)), "of a hundred");
        assert_eq!((latency.p99_us, latency.p999_us, latency.max_us), (None, None, None));
        assert_eq!(latency.mean_us, None, "a mean of what is not known is none");
        assert_eq!(self::meter(Pressure::Rate(10), &[]).latency(5), Latency::default());
        assert_eq!(self::meter(Pressure::InFlight(1), &[]).latency(0), Latency::default());
    }
}
