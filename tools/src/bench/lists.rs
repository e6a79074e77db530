//! What is swept: values of flags, and the combinations of them that are measured.

use std::{ops::RangeInclusive, time::Duration};

use serde::Serialize;

/// Longest round trip that can be asked for.
const RTT_MAX: Duration = Duration::from_secs(2);
/// Shortest one, if there is any: figures name it in whole microseconds, and it would be told as none.
const RTT_MIN: Duration = Duration::from_micros(1);
/// Heartbeats in the shortest silence that starts an election: as many as by default.
const HEARTBEATS_PER_ELECTION: u64 = 5;
/// Pause between two heartbeats by default. Milliseconds.
const HEARTBEAT_MS: u64 = 30;
/// What the brokers' times are multiples of. Milliseconds.
const TICK_MS: u64 = 10;

/// Reads a round trip: 0, 500us, 5ms.
///
/// # Errors
/// If it is no time, too short to be told, or too long.
pub(super) fn round_trip(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 5ms"))?;
    if !time.is_zero() && time < RTT_MIN {
        return Err(format!("it is 0, or at least {}", humantime::format_duration(RTT_MIN)));
    }
    if time > RTT_MAX {
        return Err(format!("it is at most {}", humantime::format_duration(RTT_MAX)));
    }
    Ok(time)
}

/// Reads a number between bounds.
pub(super) fn between(bounds: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| match text.parse() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => Err(format!("it has to be a whole number, {} to {}", bounds.start(), bounds.end())),
    }
}

/// A cluster to measure: how many brokers, and how long the way between any two programs is, there and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) brokers: u64,
    pub(super) rtt: Duration,
}

/// When brokers speak up and when they lose patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Timing {
    pub(super) heartbeat_ms: u64,
    /// The shortest silence that starts an election; the longest is twice that.
    pub(super) election_ms: u64,
}

impl Timing {
    /// The same, but for what keys of the brokers' configuration say. One that makes no sense is for the brokers to refuse.
    pub(super) fn with(self, set: &[(String, String)]) -> Self {
        let said =
            |name: &str| set.iter().rfind(|(key, _)| key == name).and_then(|(_, value)| value.parse().ok());
        Self {
            heartbeat_ms: said("heartbeat_ms").unwrap_or(self.heartbeat_ms),
            election_ms: said("election_ms").unwrap_or(self.election_ms),
        }
    }
}

impl Stage {
    /// The brokers' times for this way: the defaults, until a heartbeat would be a round trip old when the next one
    /// leaves; from there on they grow with the round trip. An election takes two of them, and has to be over before
    /// somebody else begins one.
    pub(super) fn timing(&self) -> Timing {
        let rtt_ms = u64::try_from(self.rtt.as_millis()).unwrap_or(u64::MAX);
        let heartbeat_ms = rtt_ms.next_multiple_of(TICK_MS).max(HEARTBEAT_MS);
        Timing { heartbeat_ms, election_ms: heartbeat_ms * HEARTBEATS_PER_ELECTION }
    }
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Records in a request.
    pub(super) batch: u64,
    /// Bytes of a record.
    pub(super) size: u64,
    pub(super) pressure: Pressure,
}

/// What decides when the next request leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    /// Closed loop: an answer, when so many requests are on their way.
    InFlight(u64),
    /// Open loop: the clock, so many records a second.
    Rate(u64),
}

/// Every combination of the lists, clusters outermost: each is started once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) stages: Vec<Stage>,
    pub(super) points: Vec<Point>,
}

impl Sweep {
    pub(super) fn new(
        (brokers, rtts): (&[u64], &[Duration]),
        (sizes, batches): (&[u64], &[u64]),
        pressures: &[Pressure],
    ) -> Self {
        let stage = |brokers: u64| rtts.iter().map(move |rtt| Stage { brokers, rtt: *rtt });
        let stages = brokers.iter().flat_map(|brokers| stage(*brokers)).collect();
        let mut points = Vec::new();
        for size in sizes {
            for pressure in pressures {
                let point = |batch: &u64| Point { batch: *batch, size: *size, pressure: *pressure };
                points.extend(batches.iter().map(point));
            }
        }
        Self { stages, points }
    }

    /// How many measurements that is.
    pub(super) fn count(&self) -> usize {
        self.stages.len() * self.points.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_has_a_unit_unless_it_is_nothing() {
        assert_eq!(round_trip("0"), Ok(Duration::ZERO));
        assert_eq!(round_trip("0s"), Ok(Duration::ZERO));
        assert_eq!(round_trip("500us"), Ok(Duration::from_micros(500)));
        for wrong in ["", "5", "3s", "-1ms", "1ns"] {
            assert!(round_trip(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn election_timeouts_follow_the_round_trip() {
        let timing = |ms| {
            let Timing { heartbeat_ms, election_ms } =
                Stage { brokers: 3, rtt: Duration::from_millis(ms) }.timing();
            (heartbeat_ms, election_ms)
        };
        assert_eq!(timing(0), (30, 150), "the defaults");
        assert_eq!(timing(30), (30, 150));
        assert_eq!(timing(31), (40, 200));
        assert_eq!(timing(200), (200, 1000));
    }

    #[test]
    fn a_sweep_is_every_combination() {
        let pressures = [Pressure::InFlight(1), Pressure::Rate(1000)];
        let sweep = Sweep::new((&[1, 3], &[Duration::ZERO]), (&[256], &[1, 10, 100]), &pressures);
        assert_eq!((sweep.stages.len(), sweep.points.len(), sweep.count()), (2, 6, 12));
        assert_eq!(sweep.points[3], Point { batch: 1, size: 256, pressure: Pressure::Rate(1000) });
    }

    #[test]
    fn what_is_set_is_the_timing_that_is_told() {
        let set = |words: &[(&str, &str)]| -> Vec<(String, String)> {
            words.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let own = Stage { brokers: 3, rtt: Duration::ZERO }.timing();
        assert_eq!(own.with(&set(&[("spares", "3")])), own);
        let slow = own.with(&set(&[("election_ms", "400"), ("election_ms", "500"), ("heartbeat_ms", "100")]));
        assert_eq!(slow, Timing { heartbeat_ms: 100, election_ms: 500 });
    }
}
