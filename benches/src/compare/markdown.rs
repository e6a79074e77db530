//! The comparison as a table in Markdown: what `benches/README.md` holds.

use std::fmt::Write;

use sequor_benches::point::Point;

use crate::{
    stage::Setup,
    summary::{Row, Summary},
};

/// The whole comparison.
pub(crate) fn text(summary: &Summary) -> String {
    let mut text = format!(
        "Records of {} bytes, three nodes on loopback, {}. {} rounds, interleaved, {} each; records/s is the \
         median, in parentheses the least and the most.\n\n{}. Versions: {}.\n",
        summary.size,
        delay(summary.rtt_us),
        summary.rounds,
        summary.length(),
        summary.machine.line(),
        summary.machine.versions(),
    );
    if let Some(doubt) = summary.machine.doubt() {
        let _ = writeln!(text, "\n**Doubtful: {doubt}.**");
    }
    if !summary.setups.is_empty() {
        text += "\n| | durable before it is acknowledged | settings |\n|---|---|---|\n";
    }
    for (system, Setup { durability, settings }) in &summary.setups {
        let _ = writeln!(text, "| {system} | {durability} | {settings} |");
    }
    for point in summary.points() {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n### {}\n\n| | records/s | p50 | p99 | p99.9 | CPU us/record: nodes, client | of the null log | sequor does |\n\
             |---|---|---|---|---|---|---|---|\n",
            heading(point)
        );
        for row in summary.rows(point) {
            text += &line(summary, &row);
        }
    }
    for (system, why) in &summary.skipped {
        let _ = writeln!(text, "\n{system}: {why}");
    }
    for why in &summary.failed {
        let _ = writeln!(text, "\n{why}");
    }
    text
}

fn line(summary: &Summary, row: &Row) -> String {
    let Row { contestant, records_per_s, p50_us, p99_us, p999_us, .. } = row;
    let cpu = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.2}"));
    let doubts: String =
        row.doubts(summary.rounds_begun()).iter().map(|doubt| format!(", {doubt}")).collect();
    format!(
        "| {}{doubts} | {} ({} - {}) | {} | {} | {} | {}, {} | {} | {} |\n",
        contestant.title(),
        grouped(records_per_s.median),
        grouped(records_per_s.least),
        grouped(records_per_s.most),
        time(*p50_us),
        time(*p99_us),
        time(*p999_us),
        cpu(row.broker_cpu_us_per_record),
        cpu(row.client_cpu_us_per_record),
        share(summary, row),
        times(summary, row),
    )
}

/// What a row is of the null log's records, in words.
pub(crate) fn share(summary: &Summary, row: &Row) -> String {
    let share = summary.best("null", row.point).map(|null| row.records_per_s.median / null);
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share))
}

/// How many times a peer's records sequor's are, in words.
pub(crate) fn times(summary: &Summary, row: &Row) -> String {
    let own = summary.best("sequor", row.point).filter(|_| row.contestant.is_peer());
    own.map_or_else(|| "-".to_owned(), |own| format!("{:.1} times as many", own / row.records_per_s.median))
}

/// What a point is, in words.
pub(crate) fn heading(point: Point) -> String {
    let Point { batch, in_flight } = point;
    let records = if batch == 1 { "1 record".to_owned() } else { format!("{batch} records") };
    format!("{records} to a request, {in_flight} in flight")
}

/// The delay, in words.
pub(crate) fn delay(rtt_us: u64) -> String {
    match rtt_us {
        0 => "no delay".to_owned(),
        _ => format!("a round trip of {} on every link", time(us(rtt_us))),
    }
}

#[expect(clippy::cast_precision_loss, reason = "delays far below 2^52 us")]
fn us(value: u64) -> f64 {
    value as f64
}

/// A time with its unit.
pub(crate) fn time(us: f64) -> String {
    match us {
        ..1000.0 => format!("{us:.0} us"),
        1000.0..1e6 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

/// A count with its thousands apart.
pub(crate) fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::example;

    #[test]
    fn the_table_says_how_many_times_as_many() {
        let text = text(&example());
        assert!(
            text.contains(
                "| null log | 1,000 (900 - 1,200) | 100 us | 1.0 ms | 2.0 ms | 3.25, - | 100 % | - |"
            ),
            "{text}"
        );
        assert!(text.contains("| sequor | 500 (450 - 600)"), "{text}");
        assert!(
            text.contains(
                "| etcd | 333 (300 - 400) | 100 us | 1.0 ms | 2.0 ms | 3.25, - | 33 % | 1.5 times as many |"
            ),
            "{text}"
        );
        assert!(text.contains("kafka: skipped: cannot install kafka"), "{text}");
        assert!(text.contains("| nats | page cache: <none> | defaults |"), "{text}");
        assert!(text.contains("30 to 120 s each"), "{text}");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0.0, 999.4, 1000.0, 1_234_567.0].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([87.0, 1240.0, 12_400.0, 2e6].map(time), ["87 us", "1.2 ms", "12.4 ms", "2.0 s"]);
    }
}
