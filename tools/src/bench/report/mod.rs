//! The report: one page of HTML that needs nothing else, by day and by night.
//!
//! | file | noun |
//! |---|---|
//! | `chart.rs` | one chart, as SVG |
//! | `charts.rs` | which charts there are, from what was varied |
//!
//! No script, no font, no picture of others: the page can be kept, mailed and read in ten years.

mod chart;
mod charts;

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use thiserror::Error;

use self::chart::{BOUND, COLOURS, Chart, GRID, INK, colour, number};
use super::{
    append::Findings,
    outcome::{self, Outcome, short, time},
};
use crate::{
    exit::{Exit, Verdict},
    words::grouped,
};

/// Name of the page in its directory.
const NAME: &str = "index.html";
/// Colours of lines by day, that can be told apart by almost everybody, and by night.
const DAY: [&str; COLOURS] =
    ["#0072b2", "#c84e00", "#007a5a", "#a8437e", "#2d8fc4", "#a87400", "#5a4fa0", "#59666b"];
const NIGHT: [&str; COLOURS] =
    ["#56b4e9", "#ff9e5e", "#4fd1a5", "#f0a6cf", "#9ad7ff", "#f0c95a", "#b3a7f5", "#b4c0c5"];

/// The page cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the report {path}")]
pub(super) struct ReportError {
    path: String,
    source: io::Error,
}

impl Verdict for ReportError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Page(String);

/// Makes the directory of a page, and makes sure that it can be written there: before anything is measured for it.
pub(super) fn prepare(dir: &Path) -> Result<(), ReportError> {
    let path = dir.join(NAME);
    let tried = || {
        fs::create_dir_all(dir)?;
        match fs::exists(&path)? {
            // A page of before stays what it is until there is another.
            true => fs::OpenOptions::new().append(true).open(&path).map(drop),
            false => tempfile::tempfile_in(dir).map(drop),
        }
    };
    tried().map_err(|source| ReportError { path: path.display().to_string(), source })
}

/// Writes a page into a directory that was prepared; where it is then.
pub(super) fn write(dir: &Path, page: &Page) -> Result<PathBuf, ReportError> {
    let path = dir.join(NAME);
    fs::write(&path, &page.0).map_err(|source| ReportError { path: path.display().to_string(), source })?;
    Ok(path)
}

impl Page {
    /// The page of what was found.
    pub(super) fn of(findings: &Findings) -> Self {
        let mut body = String::new();
        for sentence in &findings.advice {
            body.push_str(&element("p class=\"advice\"", sentence));
        }
        for chart in charts::of(&findings.results, findings.limits.as_ref()) {
            body.push_str(&figure(&chart));
        }
        body.push_str(&element("h2", "Results"));
        body.push_str(&results(&findings.results));
        body.push_str(&element("h2", "What a cycle and a record cost"));
        body.push_str(&element("p", COSTS));
        body.push_str(&costs(&findings.results));
        if let Some(limits) = &findings.limits {
            body.push_str(&element("h2", "What this machine can do at all"));
            body.push_str(&pairs(limits.rows().into_iter()));
            for share in limits.shares(&findings.results) {
                body.push_str(&element("p", &share));
            }
        }
        body.push_str(&element("h2", "Machine and settings"));
        body.push_str(&pairs(about(findings).into_iter()));
        let doubts = findings.machine.doubts();
        for doubt in doubts.iter().chain(&findings.settings.left_out).chain(&findings.doubts) {
            body.push_str(&element("p class=\"doubt\"", doubt));
        }
        body.push_str(&element("h2", "How it was measured"));
        body.push_str(&element("p", METHOD));
        let csv = element("pre", &outcome::csv(&findings.results));
        let _ = writeln!(body, "<details><summary>All figures as CSV</summary>{csv}</details>");
        Self(format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
             <meta name=\"color-scheme\" content=\"light dark\"/>\
             <title>sequor bench append</title>\n<style>{}</style></head>\n<body><main>\
             <h1>sequor bench append</h1>\n{body}</main></body></html>\n",
            style()
        ))
    }
}

const METHOD: &str = "Each load runs in a session of its own: first a warm-up that does not count, then a window in which \
    every record counts that is acknowledged as durable on a majority of the brokers. In a closed loop the next request \
    leaves when one is answered; in an open loop the clock decides, every request that was meant to leave in the window is \
    timed from the moment at which it was, and one that never left counts as later than any other. A batch is the records of one request frame, made before the clock runs; requests are not joined. A \
    round trip is made by a relay in user space that every link passes, between brokers and to the client; it shares the \
    processors with what it delays. Brokers, relay and client run on one machine, and share its disk.";

const COSTS: &str = "Summed over all brokers. A cycle is what one pass of the leader commits: one entry of the log, \
    whatever has gathered in it. The log is counted for each broker and byte of a value; the disk includes the zeros that \
    segments are filled with ahead.";

fn about(findings: &Findings) -> Vec<(&'static str, String)> {
    let (machine, settings) = (&findings.machine, &findings.settings);
    let build = if machine.optimised { "release" } else { "debug" };
    let mut about = vec![
        ("sequor", format!("{}, {build} build", machine.sequor)),
        ("date", humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
        ("system", machine.system.clone()),
        ("processor", format!("{}, {} of them", machine.processor, machine.processors)),
        ("memory", format!("{:.1} GB", machine.memory_bytes as f64 / 1e9)),
        ("file system of the logs", machine.filesystem.clone().unwrap_or_else(|| "not known".to_owned())),
        ("load average before", format!("{:.2}", machine.load_average)),
        ("cluster", settings.cluster.to_owned()),
        ("acknowledged by", format!("{} of the brokers, synced", settings.acks)),
        ("window", format!("{} s, after {} ms and 20 round trips", settings.seconds, settings.warm_up_ms)),
    ];
    let mut timings: Vec<_> = findings
        .results
        .iter()
        .filter_map(|outcome| Some((outcome.rtt_us?, outcome.heartbeat_ms?, outcome.election_ms?)))
        .collect();
    timings.dedup();
    let timing = |(rtt, heartbeat, election): &(u64, u64, u64)| {
        let longest = election * 2;
        format!(
            "round trip {}: heartbeat {heartbeat} ms, election after {election} to {longest} ms",
            time(*rtt)
        )
    };
    let timings: Vec<_> = timings.iter().map(timing).collect();
    if !timings.is_empty() {
        about.push(("brokers' patience", timings.join("; ")));
    }
    if !settings.set.is_empty() {
        about.push(("keys set", settings.set.join(", ")));
    }
    about
}

/// Text that stands for itself.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An element with text in it.
fn element(tag: &str, text: &str) -> String {
    let name = tag.split(' ').next().unwrap_or(tag);
    format!("<{tag}>{}</{name}>\n", escaped(text))
}

fn figure(chart: &Chart) -> String {
    let mut legend = String::new();
    for line in &chart.lines {
        let dashed = if line.is_dashed { " dashed" } else { "" };
        let _ = writeln!(
            legend,
            "<span class=\"name\"><span class=\"key l{}{dashed}\"></span>{}</span>",
            line.colour % COLOURS,
            escaped(&line.name)
        );
    }
    if !chart.bounds.is_empty() {
        legend.push_str(
            "<span class=\"name\"><span class=\"key bound dashed\"></span>what the machine allows</span>\n",
        );
    }
    let title = element("figcaption", &chart.title);
    format!("<figure>{title}{}<div class=\"legend\">{legend}</div></figure>\n", chart.svg())
}

fn grid(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = String>| {
        cells.map(|cell| element(tag, &cell)).collect::<String>()
    };
    let head = cells("th", &mut head.iter().map(|cell| (*cell).to_owned()));
    let rows: String = rows.map(|row| format!("<tr>{}</tr>\n", cells("td", &mut row.into_iter()))).collect();
    format!(
        "<div class=\"wide\"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>\n"
    )
}

fn pairs(rows: impl Iterator<Item = (&'static str, String)>) -> String {
    let rows: String = rows
        .map(|(name, value)| format!("<tr>{}{}</tr>\n", element("th", name), element("td", &value)))
        .collect();
    format!("<table class=\"pairs\"><tbody>{rows}</tbody></table>\n")
}

/// What was asked for: the first cells of a row.
fn load(outcome: &Outcome) -> Vec<String> {
    let pressure = match (outcome.in_flight, outcome.rate) {
        (Some(count), _) => format!("{count} in flight"),
        (None, rate) => format!("{}/s", grouped(rate.unwrap_or(0))),
    };
    vec![
        outcome.brokers.to_string(),
        outcome.rtt_us.map_or_else(|| "not known".to_owned(), time),
        outcome.size.to_string(),
        outcome.batch.to_string(),
        pressure,
    ]
}

/// What was measured, if it was.
fn measured(value: Option<f64>, written: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), written)
}

fn results(outcomes: &[Outcome]) -> String {
    let head = [
        "brokers",
        "round trip",
        "bytes",
        "batch",
        "load",
        "records/s",
        "requests/s",
        "MB/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "longest",
    ];
    let row = |outcome: &Outcome| {
        let latency = &outcome.latency;
        let times = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
        let times = times.map(|us| outcome.late(us));
        let rates = [
            measured(outcome.records_per_s, |records| grouped(records.round() as u64)),
            measured(outcome.requests_per_s, short),
            measured(outcome.bytes_per_s.map(|bytes| bytes / 1e6), short),
        ];
        [load(outcome), rates.to_vec(), times.to_vec()].concat()
    };
    grid(&head, outcomes.iter().map(row))
}

fn costs(outcomes: &[Outcome]) -> String {
    let head = [
        "brokers",
        "round trip",
        "bytes",
        "batch",
        "load",
        "records/sync",
        "syncs/cycle",
        "sendmsg/cycle",
        "datagrams/cycle",
        "net bytes/cycle",
        "net/payload",
        "log/payload",
        "disk/payload",
        "broker cpu us/record",
        "client cpu us/record",
        "RSS MB",
    ];
    let row = |outcome: &Outcome| {
        let costs = &outcome.costs;
        let ratios = [
            costs.records_per_sync,
            costs.syncs_per_cycle,
            costs.sends_per_cycle,
            costs.datagrams_per_cycle,
            costs.net_bytes_per_cycle,
            costs.net_bytes_per_payload_byte,
            costs.log_bytes_per_payload_byte,
            costs.disk_bytes_per_payload_byte,
            costs.broker_cpu_us_per_record,
            costs.client_cpu_us_per_record,
            costs.rss_bytes.map(|bytes| bytes as f64 / 1e6),
        ];
        let ratios = ratios.map(|ratio| measured(ratio, short));
        [load(outcome), ratios.to_vec()].concat()
    };
    grid(&head, outcomes.iter().map(row))
}

fn style() -> String {
    let mut style = String::from(STYLE);
    let mut paint = |stands_for, name: &str| {
        let number = number(stands_for);
        let _ = write!(
            style,
            "svg [stroke=\"{number}\"]{{stroke:var(--{name})}}svg [fill=\"{number}\"]{{fill:var(--{name})}}"
        );
    };
    paint(INK, "ink");
    paint(GRID, "grid");
    paint(BOUND, "bound");
    (0..COLOURS).for_each(|line| paint(colour(line), &format!("l{line}")));
    for (line, _) in DAY.iter().enumerate() {
        let _ = write!(style, ".l{line}{{border-color:var(--l{line})}}");
    }
    let colours = |colours: [&str; COLOURS]| {
        let named = colours.iter().enumerate().map(|(line, colour)| format!("--l{line}:{colour};"));
        named.collect::<String>()
    };
    let day = "--paper:#ffffff;--ink:#1b1f24;--faint:#59636e;--grid:#d9dee3;--bound:#b3261e;--band:#f4f6f8;";
    let night =
        "--paper:#14171a;--ink:#e6e9ec;--faint:#9aa4ad;--grid:#343a40;--bound:#ff8a80;--band:#1d2125;";
    let _ = write!(style, ":root{{{day}{}}}", colours(DAY));
    let _ = write!(style, "@media (prefers-color-scheme:dark){{:root{{{night}{}}}}}", colours(NIGHT));
    style
}

const STYLE: &str = "\
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;margin:0}\
main{max-width:1080px;margin:0 auto;padding:24px}\
h1{font-size:26px;margin:0 0 12px}h2{font-size:19px;margin:36px 0 8px}\
.advice{font-size:18px;border-left:4px solid var(--l0);padding-left:12px}\
.doubt{color:var(--bound)}\
figure{margin:28px 0}figcaption{font-weight:600;margin-bottom:4px}\
svg{display:block;width:100%;height:auto}\
svg text{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}\
.legend{color:var(--faint);font-size:14px;padding-left:86px}\
.key{display:inline-block;width:26px;border-top:3px solid;vertical-align:middle;margin-right:6px}\
.key.dashed{border-top-style:dashed}.bound{border-color:var(--bound)}.name{margin-right:18px;white-space:nowrap;display:inline-block}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}\
th,td{padding:3px 9px;text-align:right;white-space:nowrap}th{color:var(--faint);font-weight:600}\
tbody tr:nth-child(odd){background:var(--band)}\
.pairs th,.pairs td{text-align:left;white-space:normal}\
pre{overflow-x:auto;font-size:12px}";

#[cfg(test)]
mod tests {
    use super::{
        super::{append::Settings, limits::EXAMPLE, machine::Machine, outcome::example},
        *,
    };

    fn findings() -> Findings {
        let settings = Settings {
            seconds: 3,
            warm_up_ms: 500,
            acks: "quorum",
            cluster: "own",
            set: vec!["mtu=1452".into()],
            left_out: vec!["left out: <one> & another".into()],
        };
        let results = [1, 16, 256].map(|batch| example(batch, 1, 2000.0 * batch as f64)).to_vec();
        let advice = vec!["Take batches of 256.".into()];
        let doubts = vec!["batch 16: only 75 % & no more".into()];
        Findings { machine: Machine::read(None), settings, limits: Some(EXAMPLE), results, advice, doubts }
    }

    #[test]
    fn a_place_where_no_page_can_be_is_refused_before_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        prepare(&dir.path().join("new/deep")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("new/deep")).unwrap().count(), 0, "nothing is left behind");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare(&file).unwrap_err().to_string();
        assert!(error.contains("cannot write the report") && error.contains("file/index.html"), "{error}");
        fs::create_dir_all(dir.path().join("taken").join(NAME)).unwrap();
        assert!(prepare(&dir.path().join("taken")).is_err(), "a directory has the page's name");
    }

    /// The tags of a page, each without its attributes; `/` before one that closes.
    fn tags(page: &str) -> Vec<&str> {
        let inner = page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap());
        let opened = inner.filter(|tag| !tag.starts_with('!') && !tag.ends_with('/'));
        opened.map(|tag| tag.split([' ', '\n']).next().unwrap()).collect()
    }

    #[test]
    fn the_page_is_well_formed() {
        let Page(page) = Page::of(&findings());
        let mut open = Vec::new();
        for tag in tags(&page) {
            match tag.strip_prefix('/') {
                Some(closed) => assert_eq!(open.pop(), Some(closed), "{open:?}"),
                None => open.push(tag),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert_eq!(page.matches("<svg").count(), 2, "records and latency over batches");
        assert!(page.contains("&lt;one&gt; &amp; another"), "text of others is text");
        assert!(page.contains("only 75 % &amp; no more"), "what is doubtful is said");
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let Page(page) = Page::of(&findings());
        for reference in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script", "<link"] {
            assert!(!page.contains(reference), "{reference} in {page}");
        }
    }

    #[test]
    fn every_colour_has_one_by_day_and_one_by_night() {
        let Page(page) = Page::of(&findings());
        let body = page.split("</style>").nth(1).unwrap();
        let used = body.split(['"', ' ']).filter(|word| word.starts_with('#') && word.len() == 7);
        for colour in used {
            assert!(page.contains(&format!("svg [fill=\"{colour}\"]")), "{colour} is not painted");
        }
        for line in 0..COLOURS {
            assert_eq!(page.matches(&format!("--l{line}:#")).count(), 2);
        }
    }
}
