//! Which charts there are: for each thing that was varied, records a second over it, and latency over it.
//!
//! What else was varied makes the lines. Bounds are drawn where they mean something: over batches, and over round trips.

use super::{
    super::{
        limits::Limits,
        outcome::{Outcome, short, time},
    },
    chart::{Across, Bound, Chart, Line, Scale},
};

/// Most things that are drawn across: each gives two charts.
const ACROSS_MAX: usize = 3;
/// Fewest values of a second thing to draw across: two make no curve, and are lines in the other charts.
const VALUES_MIN: usize = 3;

/// Something that can be varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dimension {
    Batch,
    RoundTrip,
    Rate,
    InFlight,
    Size,
    Brokers,
}

impl Dimension {
    /// In the order of their interest.
    const ALL: [Self; 6] =
        [Self::Batch, Self::RoundTrip, Self::Rate, Self::Size, Self::Brokers, Self::InFlight];

    fn value(self, outcome: &Outcome) -> u64 {
        match self {
            Self::Batch => outcome.batch,
            Self::RoundTrip => outcome.rtt_us.unwrap_or(0),
            Self::Rate => outcome.rate.unwrap_or(0),
            Self::InFlight => outcome.in_flight.unwrap_or(0),
            Self::Size => outcome.size,
            Self::Brokers => outcome.brokers,
        }
    }

    /// What stands beside the axis.
    fn title(self) -> &'static str {
        match self {
            Self::Batch => "batch (records in a request)",
            Self::RoundTrip => "round trip",
            Self::Rate => "offered load (records a second)",
            Self::InFlight => "requests in flight",
            Self::Size => "size of a record (bytes)",
            Self::Brokers => "brokers",
        }
    }

    /// How a value is written at the axis.
    fn mark(self, value: u64) -> String {
        match self {
            Self::RoundTrip => time(value),
            Self::Rate => human(value as f64),
            Self::Batch | Self::InFlight | Self::Size | Self::Brokers => value.to_string(),
        }
    }

    /// How a line is named after it.
    fn name(self, value: u64) -> String {
        let mark = self.mark(value);
        match self {
            Self::Batch => format!("batch {mark}"),
            Self::RoundTrip => format!("round trip {mark}"),
            Self::Rate => format!("{mark}/s"),
            Self::InFlight => format!("{mark} in flight"),
            Self::Size => format!("{mark} bytes"),
            Self::Brokers => format!("{mark} brokers"),
        }
    }

    /// The values that were measured, in order.
    fn values(self, outcomes: &[Outcome]) -> Vec<u64> {
        let mut values: Vec<_> = outcomes.iter().map(|outcome| self.value(outcome)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn across(self, outcomes: &[Outcome]) -> Across {
        let values = self.values(outcomes);
        let scale = if values.contains(&0) || self == Self::Brokers { Scale::Each } else { Scale::Log };
        let marks = values.iter().map(|value| (*value as f64, self.mark(*value))).collect();
        Across { title: self.title().to_owned(), scale, marks }
    }
}

/// A number of records for an axis: 500, 20 k, 1.5 M.
fn human(value: f64) -> String {
    let (value, unit) = match value {
        _ if value >= 1e6 => (value / 1e6, " M"),
        _ if value >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{value:.1}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// A time for an axis, from microseconds: 200 us, 5 ms, 1 s.
fn human_time(us: f64) -> String {
    let (value, unit) = match us {
        _ if us >= 999_999.0 => (us / 1e6, "s"),
        _ if us >= 999.9 => (us / 1e3, "ms"),
        _ => (us, "us"),
    };
    let text = format!("{value:.1}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// The charts of these measurements.
pub(super) fn of(outcomes: &[Outcome], limits: Option<&Limits>) -> Vec<Chart> {
    let varied: Vec<_> =
        Dimension::ALL.into_iter().filter(|dimension| dimension.values(outcomes).len() > 1).collect();
    // One measurement is a point, and a point is a chart too.
    let across = if varied.is_empty() { &[Dimension::Batch][..] } else { &varied };
    let pair = |dimension: &Dimension| {
        let lines = lines(outcomes, *dimension, &varied);
        [records(outcomes, *dimension, &lines, limits), latency(outcomes, *dimension, &lines)]
    };
    let is_curve = |(at, dimension): &(usize, &Dimension)| {
        *at == 0 || **dimension == Dimension::RoundTrip || dimension.values(outcomes).len() >= VALUES_MIN
    };
    let across = across.iter().enumerate().filter(is_curve).take(ACROSS_MAX);
    across.flat_map(|(_, dimension)| pair(dimension)).collect()
}

/// Measurements that differ in nothing but what is drawn across, with a name.
type Group<'a> = (String, Vec<&'a Outcome>);

fn lines<'a>(outcomes: &'a [Outcome], across: Dimension, varied: &[Dimension]) -> Vec<Group<'a>> {
    let others: Vec<_> = varied.iter().copied().filter(|dimension| *dimension != across).collect();
    let key = |outcome: &Outcome| others.iter().map(|other| other.value(outcome)).collect::<Vec<_>>();
    let mut groups: Vec<(Vec<u64>, Vec<&Outcome>)> = Vec::new();
    for outcome in outcomes {
        match groups.iter_mut().find(|(of, _)| *of == key(outcome)) {
            Some((_, group)) => group.push(outcome),
            None => groups.push((key(outcome), vec![outcome])),
        }
    }
    let name = |values: &[u64]| {
        let names: Vec<_> = others.iter().zip(values).map(|(other, value)| other.name(*value)).collect();
        if names.is_empty() { "measured".to_owned() } else { names.join(", ") }
    };
    let mut named: Vec<Group<'_>> =
        groups.into_iter().map(|(values, group)| (name(&values), group)).collect();
    for (_, group) in &mut named {
        group.sort_by_key(|outcome| across.value(outcome));
    }
    named
}

fn line(
    name: String,
    (colour, is_dashed): (usize, bool),
    (across, group): (Dimension, &[&Outcome]),
    measured: impl Fn(&Outcome) -> Option<f64>,
) -> Line {
    let point = |outcome: &&Outcome| Some((across.value(outcome) as f64, measured(outcome)?));
    Line { name, points: group.iter().filter_map(point).collect(), colour, is_dashed }
}

fn records(outcomes: &[Outcome], across: Dimension, groups: &[Group<'_>], limits: Option<&Limits>) -> Chart {
    let lines = (0..).zip(groups).map(|(colour, (name, group))| {
        line(name.clone(), (colour, false), (across, group), |outcome| outcome.records_per_s)
    });
    Chart {
        title: format!("Records a second over {}", across.title()),
        across: across.across(outcomes),
        upwards: "records a second".to_owned(),
        written: human,
        lines: lines.collect(),
        bounds: limits.map_or_else(Vec::new, |limits| bounds(outcomes, across, limits)),
    }
}

fn latency(outcomes: &[Outcome], across: Dimension, groups: &[Group<'_>]) -> Chart {
    let both = |(colour, (name, group)): (usize, &Group<'_>)| {
        let of = |what: &str, is_dashed, measured: fn(&Outcome) -> Option<f64>| {
            line(format!("{name}, {what}"), (colour, is_dashed), (across, group), measured)
        };
        [
            of("p99", false, |outcome| outcome.latency.p99_us.map(|us| us as f64)),
            of("p50", true, |outcome| outcome.latency.p50_us.map(|us| us as f64)),
        ]
    };
    Chart {
        title: format!("Latency of a request over {}", across.title()),
        across: across.across(outcomes),
        upwards: "latency (time to the acknowledgement)".to_owned(),
        written: human_time,
        lines: groups.iter().enumerate().flat_map(both).collect(),
        bounds: Vec::new(),
    }
}

/// What the machine allows, over batches or round trips, for the first cluster and size that were measured.
fn bounds(outcomes: &[Outcome], across: Dimension, limits: &Limits) -> Vec<Bound> {
    let Some(first) = outcomes.first() else { return Vec::new() };
    // This machine bounds nobody elsewhere.
    let Some(rtt_us) = first.rtt_us else { return Vec::new() };
    let values = across.values(outcomes);
    let over =
        |bound: &dyn Fn(u64) -> f64| values.iter().map(|value| (*value as f64, bound(*value))).collect();
    let disk = limits.disk(first.brokers, first.size);
    let disk_bound = || Bound {
        name: format!("disk, {} brokers: {}/s", first.brokers, short(disk)),
        points: over(&|_| disk),
    };
    match across {
        Dimension::Batch => {
            let one = limits.one_by_one(first.brokers, rtt_us);
            // Beyond what the disk takes the other bound says nothing.
            let one_request = |batch: u64| (one * batch as f64).min(disk);
            let name = format!("1 request at a time, round trip {}: sync and network", time(rtt_us));
            vec![disk_bound(), Bound { name, points: over(&one_request) }]
        }
        Dimension::RoundTrip => vec![
            disk_bound(),
            Bound {
                name: "one by one: sync and network".to_owned(),
                points: over(&|rtt| limits.one_by_one(first.brokers, rtt)),
            },
        ],
        Dimension::Rate | Dimension::InFlight | Dimension::Size | Dimension::Brokers => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{limits::EXAMPLE, meter::Latency, outcome::example},
        *,
    };

    #[test]
    fn what_is_varied_is_drawn_across_and_the_rest_makes_lines() {
        let near: Vec<_> =
            [1, 16].iter().flat_map(|batch| [1, 8].map(|flying| example(*batch, flying, 1e3))).collect();
        let charts = of(&near, Some(&EXAMPLE));
        let titles: Vec<_> = charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(
            titles.len(),
            2,
            "over batches; two counts of requests in flight are no curve: {titles:?}"
        );
        let names: Vec<_> = charts[0].lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["1 in flight", "8 in flight"]);
        assert_eq!(charts[0].bounds.len(), 2);
        assert_eq!(charts[0].bounds[1].points, [(1.0, 5000.0), (16.0, 80_000.0)]);
        assert_eq!(charts[1].lines.len(), 4, "p50 and p99 of each");
        assert!(charts.iter().all(|chart| chart.svg().starts_with("<svg ")));
    }

    #[test]
    fn a_round_trip_of_nothing_has_a_place() {
        let far = Outcome { rtt_us: Some(5000), ..example(1, 1, 90.0) };
        let charts = of(&[example(1, 1, 4000.0), far], Some(&EXAMPLE));
        assert_eq!((charts.len(), charts[0].across.scale), (2, Scale::Each));
        assert_eq!(charts[0].across.marks[1].1, "5.00 ms");
        assert_eq!(charts[0].bounds[1].points[0], (0.0, 5000.0));
        let others = Outcome { rtt_us: None, ..example(1, 1, 4000.0) };
        assert!(of(&[others], Some(&EXAMPLE))[0].bounds.is_empty(), "this machine bounds nobody elsewhere");
    }

    #[test]
    fn one_measurement_is_a_chart() {
        assert_eq!(of(&[example(1, 1, 4000.0)], None).len(), 2);
        assert!(of(&[], None).iter().all(|chart| chart.svg().ends_with("</svg>\n")));
        let silent = Outcome { records_per_s: None, latency: Latency::default(), ..example(1, 1, 0.0) };
        let charts = of(&[silent], Some(&EXAMPLE));
        assert!(charts.iter().flat_map(|chart| &chart.lines).all(|line| line.points.is_empty()));
        assert!(
            charts.iter().all(|chart| chart.svg().ends_with("</svg>\n")),
            "what is not known has no place"
        );
    }

    #[test]
    fn axes_read_well() {
        assert_eq!([200.0, 20_000.0, 1.5e6].map(human), ["200", "20 k", "1.5 M"]);
        assert_eq!([200.0, 5_000.0, 1e6].map(human_time), ["200 us", "5 ms", "1 s"]);
    }
}
