//! A figure: what one run at one point gave.
//!
//! It has the names that `sequor bench append -o json` uses, so that figures of sequor, of the null log and of the peers
//! can stand in one table. What a program does not know is absent, and what another program says more is passed over.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::point::Point;

/// Significant digits of a histogram.
const DIGITS: u8 = 3;
/// Longest latency that a histogram tells from longer ones. Microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Some figures, as a program prints them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// One for each point.
    pub results: Vec<Figure>,
}

/// What one run at one point gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Where it was measured: as `batch` and `in_flight`.
    #[serde(flatten)]
    pub point: Point,
    /// Bytes of a record's value.
    pub size: u64,
    /// Delay put into each link, there and back. Microseconds.
    pub rtt_us: u64,
    /// Acknowledged records in a second.
    pub records_per_s: f64,
    /// Their bytes in a second.
    pub bytes_per_s: f64,
    /// Half of the requests were answered within this time. Microseconds.
    pub p50_us: u64,
    /// 99 of 100 requests were.
    pub p99_us: u64,
    /// 999 of 1,000 requests were.
    pub p999_us: u64,
    /// How long the measurement took, without warming up. Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// CPU time of the client for each record. Microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cpu_us_per_record: Option<f64>,
    /// CPU time of all brokers together for each record. Microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_cpu_us_per_record: Option<f64>,
    /// Requests that were answered with an error.
    #[serde(default)]
    pub errors: u64,
    /// Elections meanwhile, if the program knows.
    #[serde(default)]
    pub elections: u64,
    /// Datagrams that the relay had to drop, if there was one and the program knows.
    #[serde(default)]
    pub relay_overflowed: u64,
}

/// Counts the answers of one run.
#[derive(Debug)]
pub struct Tally {
    latencies: Histogram<u64>,
    requests: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies = Histogram::new_with_max(LATENCY_US_MAX, DIGITS);
        Self { latencies: latencies.expect("the bounds are valid"), requests: 0 }
    }
}

impl Tally {
    /// A request was answered after so many microseconds.
    pub fn answered(&mut self, latency_us: u64) {
        self.latencies.saturating_record(latency_us);
        self.requests += 1;
    }

    /// Requests that were answered.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The figure of this run, which took `seconds`. Records are of `size` bytes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub fn figure(&self, point: Point, size: u64, rtt_us: u64, seconds: f64) -> Figure {
        let records_per_s = (self.requests * point.batch) as f64 / seconds;
        Figure {
            point,
            size,
            rtt_us,
            records_per_s,
            bytes_per_s: records_per_s * size as f64,
            p50_us: self.latencies.value_at_quantile(0.5),
            p99_us: self.latencies.value_at_quantile(0.99),
            p999_us: self.latencies.value_at_quantile(0.999),
            seconds: Some(seconds),
            client_cpu_us_per_record: None,
            broker_cpu_us_per_record: None,
            errors: 0,
            elections: 0,
            relay_overflowed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_records_and_not_requests() {
        let mut tally = Tally::default();
        (1..=1000).for_each(|latency| tally.answered(latency));
        let figure = tally.figure(Point { batch: 10, in_flight: 4 }, 128, 0, 2.0);
        assert!((figure.records_per_s - 5000.0).abs() < 1e-9);
        assert!((figure.bytes_per_s - 640_000.0).abs() < 1e-6);
        assert_eq!((figure.p50_us, figure.p99_us, figure.p999_us), (500, 990, 999));
    }

    #[test]
    fn figures_of_a_program_that_says_more_and_less_are_understood() {
        let text = r#"{"results":[{"batch":1,"in_flight":2,"size":3,"rtt_us":0,"records_per_s":1.5,"bytes_per_s":4.5,
            "p50_us":1,"p99_us":2,"p999_us":3,"fdatasyncs":7}],"machine":"x"}"#;
        let figures: Figures = serde_json::from_str(text).unwrap();
        assert_eq!(figures.results[0].point, Point { batch: 1, in_flight: 2 });
        assert_eq!(figures.results[0].broker_cpu_us_per_record, None);
    }
}
