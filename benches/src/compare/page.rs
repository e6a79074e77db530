//! The comparison as one page: everything in it, nothing fetched, readable on light and dark.
//!
//! First the curves against the records of a request (`curve.rs`), then one chart for each point: a bar for each row on a
//! logarithmic scale, for they differ by powers of ten; the thin line in it goes from the least to the most of the rounds.

use std::fmt::Write;

use crate::{
    curve::curves,
    markdown::{delay, grouped, heading, share, time, times},
    stage::Setup,
    summary::{Row, Summary},
};

/// Sizes of a chart. Pixels of the picture's own scale.
const WIDTH: f64 = 900.0;
const LABELS: f64 = 200.0;
const FIGURES: f64 = 190.0;
const BAR: f64 = 18.0;
const STEP: f64 = 28.0;
const AXIS: f64 = 34.0;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c1c1e;--soft:#5f6368;--line:#d9dce1;--back:#fff;--own:#0b6e4f;--null:#8a8f98;--peer:#3b6fb6;--weak:#c98a1b}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ea;--soft:#a2a7b0;--line:#3a3d44;--back:#17181b;--own:#3fbf94;--null:#7d828c;--peer:#6fa3e8;--weak:#e0ad4f}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:1040px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}p{color:var(--soft)}
svg{width:100%;height:auto;font:13px system-ui,sans-serif}svg text{fill:var(--ink)}svg .soft{fill:var(--soft)}
svg .grid{stroke:var(--line)}svg .range{stroke:var(--ink);stroke-width:1.5}
.own{fill:var(--own)}.null{fill:var(--null)}.peer{fill:var(--peer)}.weak{fill:var(--weak)}
.curve{fill:none;stroke-width:2}.curve.own{stroke:var(--own);stroke-width:3}.curve.null{stroke:var(--null);stroke-dasharray:6 4}
.curve.peer{stroke:var(--peer)}.curve.weak{stroke:var(--weak)}
.key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1.2em}
.key .own{background:var(--own)}.key .null{background:var(--null)}.key .peer{background:var(--peer)}.key .weak{background:var(--weak)}
table{border-collapse:collapse;font-size:.78rem;width:100%}td,th{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}td:first-child,th:first-child{text-align:left}
";

/// The page.
pub(crate) fn html(summary: &Summary) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>sequor and its peers</title><style>{STYLE}</style></head><body>\n<h1>sequor and its peers</h1>\n\
         <p>Records of {} bytes acknowledged in a second, three nodes on loopback, {}. {} rounds, interleaved, {} \
         each: the bar is the median, the thin line goes from the least to the most. The scale is logarithmic.</p>\n\
         <p>{}<br>{}</p>\n<p class=\"key\"><span class=\"own\"></span>sequor<span class=\"null\"></span>null log: the \
         limit<span class=\"peer\"></span>peers that sync before they acknowledge<span class=\"weak\"></span>peers that \
         do not</p>\n",
        summary.size,
        delay(summary.rtt_us),
        summary.rounds,
        summary.length(),
        escaped(&summary.machine.line()),
        escaped(&summary.machine.versions()),
    );
    if let Some(doubt) = summary.machine.doubt() {
        page += &format!("<p><strong>Doubtful: {}.</strong></p>\n", escaped(&doubt));
    }
    page += &setups(summary);
    page += &curves(summary);
    for point in summary.points() {
        let rows = summary.rows(point);
        page += &format!("<h2>{}</h2>\n{}\n{}\n", heading(point), chart(&rows), table(summary, &rows));
    }
    let out = summary.skipped.iter().map(|(system, why)| format!("{system}: {why}"));
    let notes: String =
        out.chain(summary.failed.iter().cloned()).map(|why| format!("<p>{}</p>\n", escaped(&why))).collect();
    page + &notes + "</body></html>\n"
}

fn chart(rows: &[Row]) -> String {
    let decade = |value: f64| value.max(1.0).log10();
    let first = rows.iter().map(|row| decade(row.records_per_s.least)).fold(f64::MAX, f64::min).floor();
    let last =
        rows.iter().map(|row| decade(row.records_per_s.most)).fold(0.0, f64::max).ceil().max(first + 1.0);
    let room = WIDTH - LABELS - FIGURES;
    let across = |value: f64| LABELS + room * (decade(value) - first) / (last - first);
    #[expect(clippy::cast_precision_loss, reason = "a few rows")]
    let bottom = STEP * rows.len() as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"records per second of each system\">",
        bottom + AXIS
    );
    let mut tick = first;
    while tick <= last {
        let (x, value) = (across(10_f64.powf(tick)), grouped(10_f64.powf(tick)));
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom:.0}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{value}</text>",
            bottom + 16.0
        );
        tick += 1.0;
    }
    let _ = write!(
        svg,
        "<text class=\"soft\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">records/s</text>",
        LABELS + room / 2.0,
        bottom + 31.0
    );
    for (at, row) in rows.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few rows")]
        let top = STEP * at as f64 + (STEP - BAR) / 2.0;
        let (middle, end) = (top + BAR / 2.0, across(row.records_per_s.median));
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{LABELS}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
             <line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LABELS - 8.0,
            middle + 4.0,
            escaped(&row.contestant.title()),
            class(row),
            (end - LABELS).max(1.0),
            across(row.records_per_s.least),
            across(row.records_per_s.most),
            across(row.records_per_s.most) + 8.0,
            middle + 4.0,
            figures(row),
        );
    }
    svg + "</svg>"
}

/// What each system does before it acknowledges, in the words of its script.
fn setups(summary: &Summary) -> String {
    let row = |(system, setup): (&String, &Setup)| {
        let cells =
            [system, &setup.durability, &setup.settings].map(|cell| format!("<td>{}</td>", escaped(cell)));
        format!("<tr>{}</tr>", cells.concat())
    };
    let rows: String = summary.setups.iter().map(row).collect();
    format!(
        "<table><tr><th></th><th>durable before it is acknowledged</th><th>settings</th></tr>{rows}</table>\n"
    )
}

/// Which colour a row has.
pub(crate) fn class(row: &Row) -> &'static str {
    match &*row.contestant.system {
        "sequor" => "own",
        "null" | "null-in-place" => "null",
        _ if row.is_synced() => "peer",
        _ => "weak",
    }
}

fn figures(row: &Row) -> String {
    format!("{}, p99 {}", grouped(row.records_per_s.median), time(row.p99_us))
}

fn table(summary: &Summary, rows: &[Row]) -> String {
    let mut text = String::from(
        "<table><tr><th></th><th>records/s</th><th>MB/s</th><th>p50</th><th>p99</th><th>p99.9</th>\
         <th>CPU us/rec., nodes</th><th>client</th><th>of null log</th><th>sequor does</th><th>doubts</th></tr>",
    );
    let cpu = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.2}"));
    for row in rows {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&row.contestant.title()),
            grouped(row.records_per_s.median),
            row.bytes_per_s / 1e6,
            time(row.p50_us),
            time(row.p99_us),
            time(row.p999_us),
            cpu(row.broker_cpu_us_per_record),
            cpu(row.client_cpu_us_per_record),
            share(summary, row),
            times(summary, row),
            escaped(&row.doubts(summary.rounds_begun()).join(", ")),
        );
    }
    text + "</table>"
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::example;

    #[test]
    fn the_page_is_whole_and_fetches_nothing() {
        let page = html(&example());
        for forbidden in ["http", "src=", "<script", "@import", "url(", "NaN", "inf"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for (open, close) in
            [("<svg ", "</svg>"), ("<table>", "</table>"), ("<tr>", "</tr>"), ("<text ", "</text>")]
        {
            assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
        }
        assert!(page.contains("&lt;no&gt; Maven") && !page.contains("<no>"));
        assert!(page.contains("class=\"own\"") && page.contains("<rect class=\"weak\""));
        assert!(page.contains("<td>page cache: &lt;none&gt;</td>"));
    }

    #[test]
    fn who_does_not_sync_is_weak_whatever_its_name_is() {
        let mut summary = example();
        let chart_of = |summary: &Summary| chart(&summary.rows("1x256".parse().unwrap()));
        let before = chart_of(&summary).matches("class=\"weak\"").count();
        summary.setups.get_mut("etcd").unwrap().durability = "page cache".into();
        assert_eq!(chart_of(&summary).matches("class=\"weak\"").count(), before + 1);
    }

    #[test]
    fn bars_are_in_the_order_of_what_they_show() {
        let rows = example().rows("1x256".parse().unwrap());
        let chart = chart(&rows);
        let width = |class: &str| -> f64 {
            let rect = chart.split(&format!("<rect class=\"{class}\"")).nth(1).unwrap();
            rect.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert!(width("null") > width("own") && width("own") > width("peer"));
    }
}
