//! What is read off a load: how many records in how long, and how long each request took.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    load::{Answered, Window},
    trial::Recorder,
};

/// Significant digits of the histogram.
const DIGITS: u8 = 3;
/// Longest time that it tells from longer ones. Microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Counts what was answered in a window.
#[derive(Debug)]
pub(super) struct Meter {
    window: Window,
    requests: u64,
    records: u64,
    histogram: Histogram<u64>,
}

/// How long requests took. Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) mean_us: f64,
    pub(super) p50_us: u64,
    pub(super) p90_us: u64,
    pub(super) p99_us: u64,
    pub(super) p999_us: u64,
    pub(super) max_us: u64,
}

impl Meter {
    pub(super) fn new(window: Window) -> Self {
        Self { window, requests: 0, records: 0, histogram: histogram() }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn latency(&self) -> Latency {
        latency(&self.histogram)
    }
}

impl Recorder for Meter {
    fn note(&mut self, answered: Answered) {
        if self.window.contains(answered.at) {
            self.requests += 1;
            self.records += answered.records;
            self.histogram.saturating_record(micros(answered.took()));
        }
    }
}

/// An empty one.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, DIGITS).expect("the bounds are possible")
}

pub(super) fn latency(histogram: &Histogram<u64>) -> Latency {
    Latency {
        mean_us: histogram.mean(),
        p50_us: histogram.value_at_quantile(0.5),
        p90_us: histogram.value_at_quantile(0.9),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
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

    #[test]
    fn only_what_is_answered_in_the_window_counts_and_time_runs_from_the_intended_moment() {
        let start = Instant::now();
        let mut meter = Meter::new(Window { from: start + MS * 100, to: start + MS * 200 });
        let mut answer = |begun, at| {
            meter.note(Answered { begun: start + MS * begun, at: start + MS * at, records: 10 });
        };
        answer(0, 99);
        answer(90, 100);
        // It was meant to leave at 110, and was held up until 190: all of that counts, however fast the answer came.
        answer(110, 191);
        answer(150, 200);
        assert_eq!((meter.requests(), meter.records()), (2, 20));
        let latency = meter.latency();
        assert!((10_000..10_010).contains(&latency.p50_us), "{latency:?}");
        assert!((81_000..81_100).contains(&latency.max_us), "{latency:?}");
    }
}
