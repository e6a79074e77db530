//! What was measured, and how it is told: a table, JSON, or CSV.

use std::{borrow::Cow, time::Duration};

use serde::Serialize;
use serde_json::Value;

use super::{
    advice::doubt,
    gauges::Costs,
    lists::{Point, Pressure},
    meter::{Latency, Meter},
    target::Target,
    trial::Trial,
};
use crate::{
    table::{Table, Tone},
    words::grouped,
};

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Outcome {
    pub(super) brokers: u64,
    /// Absent if the brokers are not ours.
    pub(super) rtt_us: Option<u64>,
    /// When our own brokers lose patience. Milliseconds.
    pub(super) heartbeat_ms: Option<u64>,
    pub(super) election_ms: Option<u64>,
    /// `closed`: an answer lets the next request go. `open`: a clock does.
    pub(super) mode: &'static str,
    pub(super) batch: u64,
    /// Requests in flight in a closed loop.
    pub(super) in_flight: Option<u64>,
    /// Records a second that were wanted in an open loop.
    pub(super) rate: Option<u64>,
    pub(super) size: u64,
    pub(super) seconds: f64,
    /// Requests that were answered.
    pub(super) requests: u64,
    /// Records in them: `requests` times `batch`.
    pub(super) records: u64,
    /// What was answered in a second; absent if nothing was: such a window says nothing.
    pub(super) requests_per_s: Option<f64>,
    pub(super) records_per_s: Option<f64>,
    /// Of values, not of what is around them.
    pub(super) bytes_per_s: Option<f64>,
    #[serde(flatten)]
    pub(super) latency: Latency,
    #[serde(flatten)]
    pub(super) costs: Costs,
    /// Datagrams that the relay between them had no room for.
    pub(super) relay_overflowed: u64,
    /// Requests of an open loop that were meant to leave in the window, and never did. Absent in a closed loop.
    pub(super) unsent_requests: Option<u64>,
}

/// The columns of the CSV: every field of the JSON, in an order that stays.
pub(super) const COLUMNS: [&str; 38] = [
    "brokers",
    "rtt_us",
    "heartbeat_ms",
    "election_ms",
    "mode",
    "batch",
    "in_flight",
    "rate",
    "size",
    "seconds",
    "requests",
    "records",
    "requests_per_s",
    "records_per_s",
    "bytes_per_s",
    "mean_us",
    "p50_us",
    "p90_us",
    "p99_us",
    "p999_us",
    "max_us",
    "elections",
    "fdatasyncs",
    "cycles",
    "records_per_sync",
    "syncs_per_cycle",
    "sends_per_cycle",
    "datagrams_per_cycle",
    "net_bytes_per_cycle",
    "net_bytes_per_payload_byte",
    "log_bytes_per_cycle",
    "log_bytes_per_payload_byte",
    "disk_bytes_per_payload_byte",
    "broker_cpu_us_per_record",
    "client_cpu_us_per_record",
    "rss_bytes",
    "relay_overflowed",
    "unsent_requests",
];

impl Outcome {
    pub(super) fn new(
        target: &Target,
        point: &Point,
        length: Duration,
        Trial { recorder: meter, unsent, costs, overflowed }: &Trial<Meter>,
    ) -> Self {
        let seconds = length.as_secs_f64();
        let per_s = |count: u64| (meter.requests() > 0).then(|| count as f64 / seconds);
        let (mode, in_flight, rate) = match point.pressure {
            Pressure::InFlight(count) => ("closed", Some(count), None),
            Pressure::Rate(rate) => ("open", None, Some(rate)),
        };
        Self {
            brokers: target.stage.brokers,
            rtt_us: target.rtt_us(),
            heartbeat_ms: target.timing.map(|timing| timing.heartbeat_ms),
            election_ms: target.timing.map(|timing| timing.election_ms),
            mode,
            batch: point.batch,
            in_flight,
            rate,
            size: point.size,
            seconds,
            requests: meter.requests(),
            records: meter.records(),
            requests_per_s: per_s(meter.requests()),
            records_per_s: per_s(meter.records()),
            bytes_per_s: per_s(meter.records() * point.size),
            latency: meter.latency(*unsent),
            costs: *costs,
            relay_overflowed: *overflowed,
            unsent_requests: rate.map(|_| *unsent),
        }
    }

    /// What was asked for, in words.
    pub(super) fn title(point: &Point) -> String {
        let Point { batch, size, pressure } = point;
        let how = match pressure {
            Pressure::InFlight(count) => format!("{count} in flight"),
            Pressure::Rate(rate) => format!("{} records/s", grouped(*rate)),
        };
        format!("batch {batch} of {size} bytes, {how}")
    }

    /// What came of it, in a line.
    pub(super) fn line(&self) -> String {
        match self.records_per_s {
            Some(records) => {
                format!("{} records/s, p99 {}", grouped(records as u64), self.late(self.latency.p99_us))
            }
            None => "nothing was answered".to_owned(),
        }
    }

    /// One of its latencies for people.
    pub(super) fn late(&self, us: Option<u64>) -> String {
        late(us, self.unsent_requests.unwrap_or(0))
    }

    /// What was asked for, in words, of what was measured.
    pub(super) fn asked(&self) -> String {
        let pressure = match (self.in_flight, self.rate) {
            (Some(count), _) => Pressure::InFlight(count),
            (None, rate) => Pressure::Rate(rate.unwrap_or(0)),
        };
        Self::title(&Point { batch: self.batch, size: self.size, pressure })
    }
}

/// A latency for people: of a request that never left, if there are so many of these that it falls on one.
pub(super) fn late(us: Option<u64>, unsent: u64) -> String {
    match us {
        Some(us) => time(us),
        None if unsent > 0 => "unsent".to_owned(),
        None => "-".to_owned(),
    }
}

/// A time for people: 0, 87 us, 1.24 ms, 12.4 ms, 1.24 s.
pub(super) fn time(us: u64) -> String {
    let (value, unit) = match us {
        0 => return "0".to_owned(),
        1..1_000 => return format!("{us} us"),
        1_000..1_000_000 => (us as f64 / 1e3, "ms"),
        _ => (us as f64 / 1e6, "s"),
    };
    if value < 10.0 { format!("{value:.2} {unit}") } else { format!("{value:.1} {unit}") }
}

/// What is told to people of each measurement.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new([
        "brokers",
        "rtt",
        "size",
        "batch",
        "in flight",
        "records/s",
        "MB/s",
        "p50",
        "p99",
        "p99.9",
        "rec/sync",
        "dgrams/cycle",
        "cpu us/rec",
        "client",
        "RSS MB",
    ]);
    let absent = || "-".to_owned();
    let ratio = |value: Option<f64>| value.map_or_else(absent, short);
    for outcome in outcomes {
        let Outcome { latency, costs, .. } = outcome;
        let pressure = match (outcome.in_flight, outcome.rate) {
            (Some(count), _) => count.to_string(),
            (None, rate) => format!("{}/s", rate.unwrap_or(0)),
        };
        let is_steady =
            costs.elections.unwrap_or(0) == 0 && outcome.relay_overflowed == 0 && doubt(outcome).is_none();
        table.row(
            if is_steady { Tone::Plain } else { Tone::Bad },
            [
                outcome.brokers.to_string(),
                outcome.rtt_us.map_or_else(absent, time),
                outcome.size.to_string(),
                outcome.batch.to_string(),
                pressure,
                outcome.records_per_s.map_or_else(absent, |records| grouped(records.round() as u64)),
                ratio(outcome.bytes_per_s.map(|bytes| bytes / 1e6)),
                outcome.late(latency.p50_us),
                outcome.late(latency.p99_us),
                outcome.late(latency.p999_us),
                ratio(costs.records_per_sync),
                ratio(costs.datagrams_per_cycle),
                ratio(costs.broker_cpu_us_per_record),
                ratio(costs.client_cpu_us_per_record),
                costs.rss_bytes.map_or_else(absent, |bytes| short(bytes as f64 / 1e6)),
            ],
        );
    }
    table.text(0..15)
}

/// A number with as many digits as it deserves.
pub(super) fn short(value: f64) -> String {
    match value {
        _ if value >= 1000.0 => grouped(value.round() as u64),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// All of it, for a spreadsheet.
pub(super) fn csv(outcomes: &[Outcome]) -> String {
    let mut text = COLUMNS.join(",") + "\n";
    for outcome in outcomes {
        let value = serde_json::to_value(outcome).expect("it has string keys");
        let cells = COLUMNS.map(|column| match &value[column] {
            Value::Null => Cow::Borrowed(""),
            // No text of ours has a comma.
            Value::String(text) => Cow::Owned(text.clone()),
            number => Cow::Owned(number.to_string()),
        });
        text.push_str(&(cells.join(",") + "\n"));
    }
    text
}

#[cfg(test)]
pub(super) fn example(batch: u64, in_flight: u64, records_per_s: f64) -> Outcome {
    Outcome {
        brokers: 3,
        rtt_us: Some(0),
        heartbeat_ms: Some(30),
        election_ms: Some(150),
        mode: "closed",
        batch,
        in_flight: Some(in_flight),
        rate: None,
        size: 256,
        seconds: 3.0,
        requests: 30,
        records: 30 * batch,
        requests_per_s: Some(records_per_s / batch as f64),
        records_per_s: Some(records_per_s),
        bytes_per_s: Some(records_per_s * 256.0),
        latency: Latency {
            mean_us: Some(410.5),
            p50_us: Some(400),
            p90_us: Some(500),
            p99_us: Some(1240),
            p999_us: Some(12_400),
            max_us: Some(20_000),
        },
        costs: Costs { records_per_sync: Some(12.5), ..Costs::default() },
        relay_overflowed: 0,
        unsent_requests: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_json_have_the_same_fields() {
        let value = serde_json::to_value(example(10, 1, 1e4)).unwrap();
        let mut fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut columns = COLUMNS.to_vec();
        fields.sort_unstable();
        columns.sort_unstable();
        assert_eq!(fields, columns);
    }

    #[test]
    fn csv_is_as_it_was() {
        let text = csv(&[example(10, 1, 1e4)]);
        let lines: Vec<_> = text.lines().collect();
        let head = "brokers,rtt_us,heartbeat_ms,election_ms,mode,batch,in_flight,rate,size,seconds,requests,records,\
                    requests_per_s,records_per_s,bytes_per_s,mean_us,p50_us,p90_us,p99_us,p999_us,max_us,elections,\
                    fdatasyncs,cycles,records_per_sync,syncs_per_cycle,sends_per_cycle,datagrams_per_cycle,\
                    net_bytes_per_cycle,net_bytes_per_payload_byte,log_bytes_per_cycle,log_bytes_per_payload_byte,\
                    disk_bytes_per_payload_byte,broker_cpu_us_per_record,client_cpu_us_per_record,rss_bytes,\
                    relay_overflowed,unsent_requests";
        let row = "3,0,30,150,closed,10,1,,256,3.0,30,300,1000.0,10000.0,2560000.0,410.5,400,500,1240,12400,20000,\
                   ,,,12.5,,,,,,,,,,,,0,";
        assert_eq!(lines, [head, row]);
    }

    #[test]
    fn times_and_numbers_read_well() {
        let times: Vec<_> = [0, 87, 1_240, 12_400, 1_240_000].map(time).to_vec();
        assert_eq!(times, ["0", "87 us", "1.24 ms", "12.4 ms", "1.24 s"]);
        let numbers: Vec<_> = [0.5, 12.345, 123.4, 12_345.6].map(short).to_vec();
        assert_eq!(numbers, ["0.50", "12.3", "123", "12,346"]);
        assert_eq!(table(&[example(10, 1, 1e4), example(1, 1, 1e3)]).lines().count(), 3);
        assert_eq!([late(Some(87), 3), late(None, 3), late(None, 0)], ["87 us", "unsent", "-"]);
    }
}
