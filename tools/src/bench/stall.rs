//! `sequor bench stall`: is there a moment at which it stands still?
//!
//! ```text
//!   intended   ││││││││││││││││││││││││││││││││││││    a steady rate, whatever the answers do
//!   answered   │ │ │ │ │ │ │           ││││││││ │ │
//!                           ◄─ a gap ─►                nothing was acknowledged for so long
//!   windows    |    .    |    .    |    .    |    .    100 ms each: answers, and the latest of them
//! ```
//!
//! A mean hides it, and so does a percentile of a short run: a log that is rolled over, a disk that is filled ahead, a
//! table that grows. So it runs for long at a rate far below what is possible, and tells of the worst moment when it was.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    advice::rate_doubt,
    append::Form,
    gauges::Costs,
    lists::{Point, Pressure, between},
    load::{Answered, Window},
    machine::Machine,
    meter::{Latency, histogram, latency, micros},
    outcome::{late, short, time},
    progress::Progress,
    target::{OneCluster, Target, place},
    trial::{Recorder, Trial},
};
use crate::{
    cli::Global,
    exit::Failure,
    interruption::Interruptions,
    output,
    table::{Table, Tone},
    words::{count, grouped},
};

/// Length of a window.
const WINDOW: Duration = Duration::from_millis(100);
/// Widest bar of the histogram for people. Characters.
const BAR_MAX: usize = 40;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each request is timed from the moment at which it was meant to leave. For each window of 100 ms it is noted how many \
requests were answered in it, and how late the latest of them was; and of the whole run, the longest time in which \
nothing was acknowledged. What had not left 5 s after the end counts as later than any other. The log is rolled over each time that a segment (--set segment_bytes=) is full.

Examples:
  sequor bench stall
  sequor bench stall --rate 20000 --size 1024 --seconds 600 -o json
  sequor bench stall --rate 1000 --batch 1 --set segment_bytes=8388608")]
pub(super) struct StallArgs {
    /// Records a second.
    #[arg(long, default_value = "10000", value_parser = between(1..=100_000_000))]
    rate: u64,

    /// Records in a request.
    #[arg(long, default_value = "10", value_parser = between(1..=65_536))]
    batch: u64,

    /// Bytes of a record's value.
    #[arg(long, default_value = "1024", value_parser = between(0..=900_000))]
    size: u64,

    /// How long.
    #[arg(long, value_name = "S", default_value = "30", value_parser = between(1..=86_400))]
    seconds: u64,

    #[command(flatten)]
    cluster: OneCluster,

    /// How to print it. CSV has a line for each window.
    #[arg(short, long, default_value = "table")]
    output: Form,
}

/// One hundred milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Slot {
    /// Requests that were answered in it.
    requests: u64,
    /// How long the latest of them took. Microseconds.
    max_us: u64,
}

/// What is noted of the answers.
#[derive(Debug)]
struct Stalls {
    window: Window,
    histogram: Histogram<u64>,
    slots: Vec<Slot>,
    last: Instant,
    /// Requests that were answered while the window lasted.
    timely: u64,
    /// The longest time without an answer, and when it began.
    gap: (Duration, Instant),
}

impl Stalls {
    fn new(window: Window) -> Self {
        let slots = (window.to - window.from).as_millis().div_ceil(WINDOW.as_millis());
        Self {
            window,
            histogram: histogram(),
            slots: vec![Slot::default(); usize::try_from(slots).expect("a day has fewer")],
            last: window.from,
            timely: 0,
            gap: (Duration::ZERO, window.from),
        }
    }

    /// Notes how long nothing was answered until a moment.
    fn quiet_until(&mut self, moment: Instant) {
        let gap = moment.saturating_duration_since(self.last);
        if gap > self.gap.0 {
            self.gap = (gap, self.last);
        }
        self.last = moment;
    }
}

impl Recorder for Stalls {
    fn note(&mut self, answered: Answered) {
        // What comes after the window was meant to leave in it, and belongs to its last moments.
        let at = answered.at.min(self.window.to);
        let Some(since) = at.checked_duration_since(self.window.from) else { return };
        self.quiet_until(answered.at);
        self.timely += u64::from(self.window.contains(answered.at));
        let took = micros(answered.took());
        self.histogram.saturating_record(took);
        let slot = (since.as_millis() / WINDOW.as_millis()) as usize;
        let last = self.slots.len() - 1;
        let slot = &mut self.slots[slot.min(last)];
        slot.requests += 1;
        slot.max_us = slot.max_us.max(took);
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Findings {
    machine: Machine,
    brokers: u64,
    rtt_us: Option<u64>,
    rate: u64,
    batch: u64,
    size: u64,
    seconds: u64,
    requests: u64,
    records: u64,
    #[serde(flatten)]
    latency: Latency,
    /// The longest time in which nothing was acknowledged.
    longest_gap_us: u64,
    /// When it began, since the window did.
    longest_gap_at_ms: u64,
    /// Windows in which nothing was acknowledged.
    still_windows: u64,
    window_ms: u64,
    /// How many windows there are whose latest answer took at most so long: each bound twice the one before.
    histogram: Vec<Bin>,
    windows: Vec<Slot>,
    #[serde(flatten)]
    costs: Costs,
    relay_overflowed: u64,
    /// Requests that were meant to leave and never did: later than any latency here, and no answer of any window.
    unsent_requests: u64,
    /// What makes the figures worth less than they look.
    doubts: Vec<String>,
}

/// Windows that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Bin {
    up_to_us: u64,
    windows: u64,
}

/// Windows by their latest answer.
fn bins(slots: &[Slot]) -> Vec<Bin> {
    let times: Vec<_> =
        slots.iter().filter(|slot| slot.requests > 0).map(|slot| slot.max_us.max(1)).collect();
    let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) else { return Vec::new() };
    let (least, most) = (least.next_power_of_two().ilog2(), most.next_power_of_two().ilog2());
    let bin = |power: u32| {
        let windows = times.iter().filter(|time| time.next_power_of_two().ilog2() == power).count() as u64;
        Bin { up_to_us: 1 << power, windows }
    };
    (least..=most).map(bin).collect()
}

pub(super) async fn run(args: StallArgs, global: &Global) -> Result<(), Failure> {
    let mut interruptions = Interruptions::listen()?;
    let findings = tokio::select! {
        biased;
        interruption = interruptions.next() => return Err(interruption.into()),
        found = find(&args, global) => found?,
    };
    output::tell(&match args.output {
        Form::Table => text(&findings),
        Form::Json => serde_json::to_string(&findings).expect("it has string keys") + "\n",
        Form::Csv => csv(&findings.windows),
    })
}

async fn find(args: &StallArgs, global: &Global) -> Result<Findings, Failure> {
    let place = place(args.cluster.dir.as_ref())?;
    let machine = Machine::read((!args.cluster.existing).then(|| place.path()));
    let progress = Progress::new(1);
    machine.doubts().iter().for_each(|doubt| progress.news(doubt));
    let point = Point { batch: args.batch, size: args.size, pressure: Pressure::Rate(args.rate) };
    let mut target = args.cluster.target(&place, global, &progress).await?;
    progress.begin("a steady load");
    let length = Duration::from_secs(args.seconds);
    let trial = Trial::run(&mut target, &point, length, &progress, Stalls::new).await?;
    progress.finish();
    let findings = Findings::new(args, machine, &target, trial);
    target.end().await;
    Ok(findings)
}

impl Findings {
    fn new(args: &StallArgs, machine: Machine, target: &Target, trial: Trial<Stalls>) -> Self {
        let Trial { recorder: mut stalls, unsent, costs, overflowed } = trial;
        let meant = args.rate as f64 * args.seconds as f64 / args.batch as f64;
        let doubt = rate_doubt(Some(meant), stalls.timely, unsent);
        // Nothing came at the end either.
        stalls.quiet_until(stalls.last.max(stalls.window.to));
        let (gap, begun) = stalls.gap;
        let requests = stalls.histogram.len();
        Self {
            machine,
            brokers: target.stage.brokers,
            rtt_us: target.rtt_us(),
            rate: args.rate,
            batch: args.batch,
            size: args.size,
            seconds: args.seconds,
            requests,
            records: requests * args.batch,
            latency: latency(&stalls.histogram, unsent),
            longest_gap_us: micros(gap),
            longest_gap_at_ms: micros(begun - stalls.window.from) / 1000,
            still_windows: stalls.slots.iter().filter(|slot| slot.requests == 0).count() as u64,
            window_ms: WINDOW.as_millis() as u64,
            histogram: bins(&stalls.slots),
            windows: stalls.slots,
            costs,
            relay_overflowed: overflowed,
            unsent_requests: unsent,
            doubts: doubt.into_iter().collect(),
        }
    }
}

fn csv(slots: &[Slot]) -> String {
    let line = |(at, slot): (usize, &Slot)| {
        format!("{},{},{}\n", at as u128 * WINDOW.as_millis(), slot.requests, slot.max_us)
    };
    "at_ms,requests,max_us\n".to_owned() + &slots.iter().enumerate().map(line).collect::<String>()
}

fn text(findings: &Findings) -> String {
    let Findings { latency, rate, batch, size, seconds, unsent_requests: unsent, .. } = findings;
    let mut text = format!(
        "{} a second of {size} bytes, {batch} in a request, for {seconds} s; {} brokers\n\n",
        count(*rate, "record"),
        findings.brokers
    );
    let mut table = Table::new(["p50", "p99", "p99.9", "longest", "longest gap", "at s", "still windows"]);
    table.row(
        Tone::Plain,
        [
            late(latency.p50_us, *unsent),
            late(latency.p99_us, *unsent),
            late(latency.p999_us, *unsent),
            late(latency.max_us, *unsent),
            time(findings.longest_gap_us),
            short(findings.longest_gap_at_ms as f64 / 1e3),
            grouped(findings.still_windows),
        ],
    );
    text.push_str(&table.text(0..7));
    text.push_str("\nWindows of 100 ms by the latest answer in them:\n\n");
    let most = findings.histogram.iter().map(|bin| bin.windows).max().unwrap_or(1).max(1);
    for Bin { up_to_us, windows } in &findings.histogram {
        let width = (*windows as usize * BAR_MAX).div_ceil(most as usize);
        text.push_str(&format!(
            "  up to {:>8}  {:>7}  {}\n",
            time(*up_to_us),
            grouped(*windows),
            "#".repeat(width)
        ));
    }
    for doubt in &findings.doubts {
        text.push_str(&format!("\n{doubt}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_longest_gap_is_found_and_when_it_was() {
        let start = Instant::now();
        let from = start + MS * 1000;
        let mut stalls = Stalls::new(Window { from, to: from + MS * 500 });
        let mut answer = |begun: u32, at: u32| {
            stalls.note(Answered { begun: start + MS * begun, at: start + MS * at, records: 1 });
        };
        answer(900, 950);
        answer(1000, 1010);
        answer(1020, 1030);
        answer(1040, 1250);
        answer(1240, 1260);
        answer(1490, 1510);
        assert_eq!(stalls.gap, (MS * 250, start + MS * 1260), "until after the window");
        let requests: Vec<_> = stalls.slots.iter().map(|slot| slot.requests).collect();
        assert_eq!(requests, [2, 0, 2, 0, 1], "what was answered before the window does not count");
        assert_eq!(stalls.slots[2].max_us, 210_000);
        assert_eq!((stalls.histogram.len(), stalls.timely), (5, 4), "one answer came after the window");
    }

    #[test]
    fn windows_are_sorted_by_powers_of_two() {
        let slot = |max_us| Slot { requests: 1, max_us };
        let bins = bins(&[slot(300), slot(400), slot(1025), slot(512), Slot::default()]);
        let told: Vec<_> = bins.iter().map(|bin| (bin.up_to_us, bin.windows)).collect();
        assert_eq!(told, [(512, 3), (1024, 0), (2048, 1)]);
        assert_eq!(csv(&[slot(3), slot(4)]), "at_ms,requests,max_us\n0,1,3\n100,1,4\n");
    }
}
