//! A point of the sweep: how many records a request carries, and how many requests are in flight.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most records that a point may have in flight. Count.
const RECORDS_IN_FLIGHT_MAX: u64 = 64 << 20;

/// Where to measure. Written `1000x16`: 16 requests of 1000 records each in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    /// Records of one request.
    pub batch: u64,
    /// Requests that are sent and not yet answered.
    pub in_flight: u64,
}

/// A text that names no point.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{text:?} is no point: write records of a request, `x`, requests in flight, such as 1000x16, both at least 1"
)]
pub struct NotAPoint {
    text: String,
}

impl FromStr for Point {
    type Err = NotAPoint;

    fn from_str(text: &str) -> Result<Self, NotAPoint> {
        let not = || NotAPoint { text: text.to_owned() };
        let (batch, in_flight) = text.split_once('x').ok_or_else(not)?;
        let (batch, in_flight): (u64, u64) =
            (batch.parse().map_err(|_| not())?, in_flight.parse().map_err(|_| not())?);
        let records = batch.checked_mul(in_flight).ok_or_else(not)?;
        if !(1..=RECORDS_IN_FLIGHT_MAX).contains(&records) {
            return Err(not());
        }
        Ok(Self { batch, in_flight })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.batch, self.in_flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_as_it_is_written() {
        let point: Point = "1000x16".parse().unwrap();
        assert_eq!(point, Point { batch: 1000, in_flight: 16 });
        assert_eq!(point.to_string(), "1000x16");
    }

    #[test]
    fn what_is_no_point_is_refused() {
        for text in ["", "x", "1", "0x1", "1x0", "1x", "ax1", "1x1x1", "99999999999x99999999999"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }
}
