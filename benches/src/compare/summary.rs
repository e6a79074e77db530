//! The runs of all rounds, as medians with the least and the most.

use std::collections::{BTreeMap, BTreeSet};

use sequor_benches::{figure::Figure, point::Point};
use serde::Serialize;

use crate::{
    contestant::Contestant,
    machine::Machine,
    stage::{Measured, RunError, Setup},
};

/// One run of one contestant.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) contestant: Contestant,
    pub(crate) point: Point,
    pub(crate) round: u64,
    pub(crate) outcome: Result<Measured, RunError>,
}

/// Least, median and most of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { least, median: f64::midpoint(below, above), most })
    }
}

/// What the rounds gave for one contestant at one point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) contestant: Contestant,
    #[serde(flatten)]
    pub(crate) point: Point,
    pub(crate) runs: usize,
    pub(crate) records_per_s: Spread,
    pub(crate) bytes_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) broker_cpu_us_per_record: Option<f64>,
    pub(crate) client_cpu_us_per_record: Option<f64>,
    pub(crate) errors: u64,
    pub(crate) elections: u64,
    pub(crate) relay_overflowed: u64,
    /// What it does before it acknowledges.
    pub(crate) setup: Option<Setup>,
}

impl Row {
    /// Whether what it acknowledges is on stable storage, as far as is known.
    pub(crate) fn is_synced(&self) -> bool {
        self.setup.as_ref().is_none_or(Setup::is_synced)
    }

    /// What speaks against its figures, given how many rounds there were: nothing, if all went well.
    pub(crate) fn doubts(&self, rounds: u64) -> Vec<String> {
        let missing = rounds.saturating_sub(self.runs as u64);
        [
            (missing, "round without a figure", "rounds without a figure"),
            (self.errors, "error", "errors"),
            (self.elections, "election", "elections"),
            (self.relay_overflowed, "datagram dropped by the relay", "datagrams dropped by the relay"),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, more)| format!("{count} {}", if count == 1 { one } else { more }))
        .collect()
    }
}

/// Everything that is known so far.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) machine: Machine,
    pub(crate) size: u64,
    pub(crate) rtt_us: u64,
    pub(crate) rounds: u64,
    /// The one that the last run belongs to, from 1.
    rounds_begun: u64,
    /// How long a run was at least, and at most.
    pub(crate) seconds: (u64, u64),
    /// What each system that ran does before it acknowledges.
    pub(crate) setups: BTreeMap<String, Setup>,
    /// Who has no figures at all, and why.
    pub(crate) skipped: BTreeMap<String, String>,
    /// Runs that failed, and why.
    pub(crate) failed: BTreeSet<String>,
    figures: BTreeMap<Point, Vec<(Contestant, Vec<Figure>)>>,
}

impl Summary {
    /// Of nothing yet.
    pub(crate) fn new(machine: Machine, size: u64, rtt_us: u64, rounds: u64, seconds: (u64, u64)) -> Self {
        let (setups, skipped, failed, figures) = Default::default();
        Self { machine, size, rtt_us, rounds, rounds_begun: 0, seconds, setups, skipped, failed, figures }
    }

    /// How long a run was, in words.
    pub(crate) fn length(&self) -> String {
        let (least, most) = self.seconds;
        if least == most { format!("{least} s") } else { format!("{least} to {most} s") }
    }

    /// A system is out.
    pub(crate) fn skip(&mut self, contestant: &Contestant, why: &RunError) {
        self.skipped.insert(contestant.system.clone(), why.to_string());
    }

    /// Whether it is.
    pub(crate) fn is_out(&self, contestant: &Contestant) -> bool {
        self.skipped.contains_key(&contestant.system)
    }

    /// Takes what a run gave.
    pub(crate) fn add(&mut self, run: Run) {
        let Run { contestant, point, round, outcome } = run;
        self.rounds_begun = round;
        match outcome {
            Ok(Measured { figure, setup }) => {
                self.setups.insert(contestant.system.clone(), setup);
                let rows = self.figures.entry(point).or_default();
                match rows.iter_mut().find(|(known, _)| *known == contestant) {
                    Some((_, figures)) => figures.push(figure),
                    None => rows.push((contestant, vec![figure])),
                }
            }
            Err(error) => {
                let what = format!("{} at {point}, round {round}: {error}", contestant.title());
                self.failed.insert(what);
            }
        }
    }

    /// How many rounds a row can have figures of by now.
    pub(crate) fn rounds_begun(&self) -> u64 {
        self.rounds_begun
    }

    /// The points at which anybody has a figure, in order.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.figures.keys().copied().collect()
    }

    /// The rows of a point, in the order of the contestants.
    pub(crate) fn rows(&self, point: Point) -> Vec<Row> {
        self.figures
            .get(&point)
            .into_iter()
            .flatten()
            .filter_map(|(who, figures)| {
                let setup = self.setups.get(&who.system).cloned();
                Some(Row { setup, ..row(who, point, figures)? })
            })
            .collect()
    }

    /// What `system` does at a point, in records per second: the best of its rows.
    pub(crate) fn best(&self, system: &str, point: Point) -> Option<f64> {
        let rows = self.rows(point).into_iter().filter(|row| row.contestant.system == system);
        rows.map(|row| row.records_per_s.median).max_by(f64::total_cmp)
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<Row> = self.points().into_iter().flat_map(|point| self.rows(point)).collect();
        let all = serde_json::json!({
            "machine": self.machine, "size": self.size, "rtt_us": self.rtt_us, "rounds": self.rounds,
            "seconds": self.seconds.0, "seconds_max": self.seconds.1, "rows": rows, "skipped": self.skipped, "failed": self.failed,
        });
        format!("{all:#}\n")
    }
}

fn row(contestant: &Contestant, point: Point, figures: &[Figure]) -> Option<Row> {
    let median = |of: fn(&Figure) -> Option<f64>| Spread::of(figures.iter().filter_map(of)).map(|s| s.median);
    #[expect(clippy::cast_precision_loss, reason = "latencies far below 2^52 us")]
    let latency = |of: fn(&Figure) -> u64| Spread::of(figures.iter().map(|figure| of(figure) as f64));
    Some(Row {
        contestant: contestant.clone(),
        point,
        runs: figures.len(),
        records_per_s: Spread::of(figures.iter().map(|figure| figure.records_per_s))?,
        bytes_per_s: median(|figure| Some(figure.bytes_per_s))?,
        p50_us: latency(|figure| figure.p50_us)?.median,
        p99_us: latency(|figure| figure.p99_us)?.median,
        p999_us: latency(|figure| figure.p999_us)?.median,
        broker_cpu_us_per_record: median(|figure| figure.broker_cpu_us_per_record),
        client_cpu_us_per_record: median(|figure| figure.client_cpu_us_per_record),
        errors: figures.iter().map(|figure| figure.errors).sum(),
        elections: figures.iter().map(|figure| figure.elections).sum(),
        relay_overflowed: figures.iter().map(|figure| figure.relay_overflowed).sum(),
        setup: None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::contestant;

    /// Three rounds of everybody at one point: the null log does 1,000, the others less and less.
    pub(crate) fn example() -> Summary {
        example_at(&["1x256".parse().unwrap()])
    }

    /// The same at several points.
    pub(crate) fn example_at(points: &[Point]) -> Summary {
        let mut summary = Summary::new(Machine::default(), 128, 0, 3, (30, 120));
        for point in points {
            add_example(&mut summary, *point);
        }
        summary
    }

    fn add_example(summary: &mut Summary, point: Point) {
        let stands = |who: &Contestant| who.takes(point) && who.system != "null-in-place";
        for (rank, contestant) in contestant::all().into_iter().filter(stands).enumerate() {
            if contestant.system == "kafka" {
                let why = RunError::Skipped { why: "cannot install kafka: <no> Maven".into() };
                summary.skip(&contestant, &why);
                continue;
            }
            for (round, share) in [(1, 0.9), (2, 1.0), (3, 1.2)] {
                let records_per_s = 1000.0 * share / (rank + 1) as f64;
                let figure = Figure {
                    point,
                    size: 128,
                    rtt_us: 0,
                    records_per_s,
                    bytes_per_s: records_per_s * 128.0,
                    p50_us: 100,
                    p99_us: 1000,
                    p999_us: 2000,
                    seconds: Some(30.0),
                    client_cpu_us_per_record: None,
                    broker_cpu_us_per_record: Some(3.25),
                    errors: 0,
                    elections: 0,
                    relay_overflowed: 0,
                };
                let durability = match &*contestant.system {
                    "nats" | "kafka-default" => "page cache: <none>",
                    _ => "fsync by a majority",
                };
                let setup = Setup { durability: durability.into(), settings: "defaults".into() };
                let outcome = Ok(Measured { figure, setup });
                summary.add(Run { contestant: contestant.clone(), point, round, outcome });
            }
        }
    }

    #[test]
    fn a_median_is_between_the_least_and_the_most() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { least: 1.0, median: 2.0, most: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { least: 1.0, median: 2.5, most: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_row_says_what_speaks_against_it() {
        let mut summary = example();
        let point = "1x256".parse().unwrap();
        assert!(summary.rows(point)[0].doubts(summary.rounds_begun()).is_empty());
        let contestant = summary.rows(point)[0].contestant.clone();
        let why = RunError::Failed { why: "no".into() };
        summary.add(Run { contestant, point, round: 4, outcome: Err(why) });
        assert_eq!(summary.rows(point)[0].doubts(summary.rounds_begun()), ["1 round without a figure"]);
        assert!(summary.failed.contains("null log at 1x256, round 4: failed: no"), "{:?}", summary.failed);
    }

    #[test]
    fn rounds_become_one_row() {
        let summary = example();
        let point = "1x256".parse().unwrap();
        let rows = summary.rows(point);
        assert_eq!((rows[0].contestant.system.as_str(), rows[0].runs), ("null", 3));
        assert_eq!(rows[0].records_per_s, Spread { least: 900.0, median: 1000.0, most: 1200.0 });
        assert_eq!(summary.best("sequor", point), Some(500.0));
        assert_eq!(summary.best("kafka", point), None);
    }
}
