//! Records a second, and the latency that goes with them, against the records of a request: a line for each system.
//!
//! There is one pair of charts for each number of requests in flight at which more than one batch was measured. A system that
//! has several ways to send a batch is there with the best of them at each point. Both axes are logarithmic.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use sequor_benches::point::Point;

use crate::{
    markdown::{grouped, time},
    page::{class, escaped},
    summary::{Row, Summary},
};

/// Sizes of a chart. Pixels of the picture's own scale.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 44.0;
/// Least distance of two names at the ends of their lines.
const NAME_STEP: f64 = 15.0;

/// One system: its row at each batch.
type Line = BTreeMap<u64, Row>;

/// What a chart shows of a row.
struct Measure {
    name: &'static str,
    of: fn(&Row) -> f64,
    words: fn(f64) -> String,
}

const MEASURES: [Measure; 2] = [
    Measure { name: "records/s", of: |row| row.records_per_s.median, words: grouped },
    Measure { name: "p99 of a request", of: |row| row.p99_us, words: time },
];

/// All charts that there is more than one batch for.
pub(crate) fn curves(summary: &Summary) -> String {
    let in_flight: BTreeSet<u64> = summary.points().iter().map(|point| point.in_flight).collect();
    let mut page = String::new();
    for in_flight in in_flight {
        let batches: Vec<u64> = summary
            .points()
            .iter()
            .filter(|point| point.in_flight == in_flight)
            .map(|point| point.batch)
            .collect();
        if batches.len() < 2 {
            continue;
        }
        let _ = writeln!(page, "<h2>Against the records of a request, {in_flight} in flight</h2>");
        let lines = lines(summary, in_flight, &batches);
        for measure in &MEASURES {
            page += &chart(measure, &batches, &lines);
        }
    }
    page
}

fn lines(summary: &Summary, in_flight: u64, batches: &[u64]) -> Vec<Line> {
    let mut lines: BTreeMap<(usize, String), Line> = BTreeMap::new();
    for &batch in batches {
        for (at, row) in summary.rows(Point { batch, in_flight }).into_iter().enumerate() {
            let known = lines.keys().find(|(_, system)| *system == row.contestant.system).cloned();
            let line = lines.entry(known.unwrap_or((at, row.contestant.system.clone()))).or_default();
            let is_better =
                line.get(&batch).is_none_or(|best| best.records_per_s.median < row.records_per_s.median);
            if is_better {
                line.insert(batch, row);
            }
        }
    }
    lines.into_values().collect()
}

fn chart(measure: &Measure, batches: &[u64], lines: &[Line]) -> String {
    let decade = |value: f64| value.max(1.0).log10();
    let values = || lines.iter().flat_map(BTreeMap::values).map(|row| decade((measure.of)(row)));
    let low = values().fold(f64::MAX, f64::min).floor();
    let high = values().fold(low + 1.0, f64::max).ceil();
    #[expect(clippy::cast_precision_loss, reason = "batches far below 2^52")]
    let place = |batch: u64| decade(batch as f64);
    let (first, last) = (place(batches[0]), batches.iter().map(|batch| place(*batch)).fold(0.0, f64::max));
    let across = |batch: u64| LEFT + (WIDTH - LEFT - RIGHT) * (place(batch) - first) / (last - first);
    let down = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - decade(value)) / (high - low);

    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", measure.name);
    let mut tick = low;
    // Writing to a string does not fail.
    while tick <= high {
        let value = 10_f64.powf(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            down(value) + 4.0,
            (measure.words)(value),
            y = down(value),
        );
        tick += 1.0;
    }
    for &batch in batches {
        let _ = write!(
            svg,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{batch}</text>",
            across(batch),
            HEIGHT - BOTTOM + 18.0,
        );
    }
    let _ = write!(
        svg,
        "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">records of a request</text>\
         <text x=\"{LEFT}\" y=\"16\">{}</text>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        HEIGHT - 8.0,
        measure.name,
    );
    for line in lines {
        svg += &drawn(line, |row| (across(row.point.batch), down((measure.of)(row))));
    }
    svg += &names(lines, |row| down((measure.of)(row)));
    svg + "</svg>\n"
}

fn drawn(line: &Line, place: impl Fn(&Row) -> (f64, f64)) -> String {
    let places: Vec<(f64, f64)> = line.values().map(place).collect();
    let corners: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let class = line.values().next().map_or("peer", class);
    let mut svg = format!("<polyline class=\"curve {class}\" points=\"{}\"/>", corners.join(" "));
    for (x, y) in places {
        let _ = write!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>");
    }
    svg
}

/// The names of the systems beside the ends of their lines, none upon another.
fn names(lines: &[Line], down: impl Fn(&Row) -> f64) -> String {
    let ends = lines.iter().filter_map(|line| line.values().next_back());
    let mut ends: Vec<(f64, &Row)> = ends.map(|row| (down(row) + 4.0, row)).collect();
    ends.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut lowest = f64::MIN;
    let mut svg = String::new();
    for (y, row) in ends {
        lowest = y.max(lowest + NAME_STEP);
        let title = match &*row.contestant.system {
            "null" | "null-in-place" => row.contestant.title(),
            system => system.to_owned(),
        };
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{lowest:.1}\">{}</text>",
            WIDTH - RIGHT + 10.0,
            escaped(&title)
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::{example, example_at};

    #[test]
    fn one_batch_makes_no_curve() {
        assert_eq!(curves(&example()), "");
    }

    #[test]
    fn every_system_has_one_line_with_its_best_at_each_batch() {
        let points = ["1x16", "100x16"].map(|point| point.parse().unwrap());
        let summary = example_at(&points);
        let found = lines(&summary, 16, &[1, 100]);
        let etcd = found.iter().find(|line| line[&1].contestant.system == "etcd").unwrap();
        assert_eq!(etcd.len(), 2);
        let best = summary.best("etcd", points[1]).unwrap();
        assert!((etcd[&100].records_per_s.median - best).abs() < 1e-9);
        let page = curves(&summary);
        assert_eq!(page.matches("<polyline").count(), 2 * found.len());
        assert_eq!(page.matches("<svg ").count(), 2);
        assert!(page.contains("16 in flight") && !page.contains("NaN"), "{page}");
    }

    #[test]
    fn names_do_not_lie_upon_one_another() {
        let summary = example_at(&["1x16", "100x16"].map(|point| point.parse().unwrap()));
        let svg = names(&lines(&summary, 16, &[1, 100]), |_| 100.0);
        let places: Vec<f64> =
            svg.split("y=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
        assert!(
            places.len() > 5 && places.windows(2).all(|two| two[1] - two[0] >= NAME_STEP - 0.2),
            "{places:?}"
        );
    }
}
