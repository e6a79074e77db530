//! `compare`: sequor, the null log and every peer that is installed, at the same points, on this machine.
//!
//! ```text
//!   for each round                        interleaved: what the machine does meanwhile hits all alike
//!     for each point                      records of a request x requests in flight
//!       for each contestant               started afresh, measured, ended
//!   ─► medians with least and most ─► comparison.md, comparison.html, figures.json
//! ```
//!
//! Nothing runs beside what is measured. All are three nodes on loopback, on one disk, driven by one closed loop from one
//! process; the peers all by the same driver. What cannot be installed or started is a row that says so.
//!
//! | file | noun |
//! |---|---|
//! | `contestant.rs` | one row: a system, and what it takes a request for |
//! | `stage.rs` | where a contestant runs: its programs, its data, the delay of its links |
//! | `summary.rs` | the runs of all rounds as medians |
//! | `machine.rs` | what it was measured on |
//! | `markdown.rs`, `page.rs`, `curve.rs` | the summary for people |

mod contestant;
mod curve;
mod machine;
mod markdown;
mod page;
mod stage;
mod summary;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use sequor_benches::{
    interruption::{EXIT_INTERRUPTED, Interruption},
    point::Point,
};
use thiserror::Error;

use self::{
    contestant::Contestant,
    stage::{Measured, RunError, Stage},
    summary::{Run, Summary},
};

/// Longest that a point is measured in order to write more than what was filled ahead. Seconds.
const SECONDS_MAX: u64 = 120;
/// What three spare segments hold: a run that writes no more than this has not paid for its zeros. Bytes.
const PREFILLED_BYTES: f64 = (3 * (64 << 20)) as f64;
/// A run has to write so many times the bytes that were filled ahead.
const PREFILLED_TIMES: f64 = 4.0;
/// How long one that fills ahead is tried to learn how fast it is. Seconds.
const PROBE_SECONDS: u64 = 3;

/// Compares sequor with the null log and its peers. See benches/README.md.
#[derive(Debug, Parser)]
#[command(
    name = "compare",
    after_help = "\
Examples:
  benches/compare --quick
  benches/compare
  benches/compare --only sequor,null,etcd --point 1x1,1000x16 --rounds 5
  benches/compare --seconds 5 --seconds-max 5 --rounds 3
  benches/compare --rtt-us 5000 --point 1x1,1x1000"
)]
struct Cli {
    /// A look whether everything works: one round, 2 s each, three points. No figures to publish.
    #[arg(long)]
    quick: bool,

    /// Where to measure: records of a request, `x`, requests in flight. By commas.
    #[arg(long, value_delimiter = ',')]
    point: Vec<Point>,

    /// Bytes of a record.
    #[arg(long, default_value = "128")]
    size: u64,

    /// Times that everything is measured. Default: 3, or 1 if it is to be quick.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: Option<u64>,

    /// How long a contestant is measured at a point, at least. More if it takes that to write four times what is filled
    /// ahead, but no more than --seconds-max. Default: 30, or 2 if it is to be quick. Seconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,

    /// How long it is measured at most, however little it has written then. With less than 120 it is a look, and no figure
    /// to publish. Default: 120, or what --seconds says if that is more. Seconds.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds_max: Option<u64>,

    /// Delay of each link, there and back. Microseconds.
    #[arg(long, default_value = "0")]
    rtt_us: u64,

    /// Only these: names of contestants, by commas. `sequor`, `null`, `null-in-place`, or a script in benches/peers.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Install what is missing first.
    #[arg(long)]
    install: bool,

    /// Where the comparison is written.
    #[arg(long, default_value = "benches/out", value_name = "DIR")]
    out: PathBuf,

    /// Directory for the data of all contestants, on the disk that is to be measured. Default: the system's.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The program `sequor`.
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/sequor")]
    sequor: PathBuf,

    /// The program `peer-driver`.
    #[arg(long, value_name = "PROGRAM", default_value = "benches/peers/driver/target/release/peer-driver")]
    driver: PathBuf,

    /// The directory with the peers' scripts.
    #[arg(long, value_name = "DIR", default_value = "benches/peers")]
    peers: PathBuf,
}

/// There is no comparison.
#[derive(Debug, Error)]
enum CompareError {
    /// It could not be written.
    #[error("cannot write the comparison to {}", .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody is not there.
    #[error("no contestant has the name {names}; there are {known}")]
    Nobody {
        /// What was asked for and is not there.
        names: String,
        /// What there is.
        known: String,
    },
    /// The shortest run would be longer than the longest.
    #[error("--seconds-max {most} is less than the {least} s that a run takes at least: give --seconds, too")]
    Seconds {
        /// How long a run takes at least. Seconds.
        least: u64,
        /// What was asked for. Seconds.
        most: u64,
    },
    /// Nobody could be measured.
    #[error("nobody has a figure: see above why each was skipped or failed")]
    Empty,
    /// The system does not tell of signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// Somebody wanted it to end.
    #[error("interrupted; what the rounds before gave is written")]
    Interrupted,
}

impl CompareError {
    fn exit(&self) -> ExitCode {
        match self {
            Self::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
            _ => ExitCode::FAILURE,
        }
    }
}

fn main() -> ExitCode {
    match compare(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("compare: {error}{cause}");
            error.exit()
        }
    }
}

fn compare(cli: &Cli) -> Result<(), CompareError> {
    let contestants = chosen(&cli.only)?;
    let stage = Stage {
        sequor: cli.sequor.clone(),
        driver: cli.driver.clone(),
        peers: cli.peers.clone(),
        data: cli.data.clone(),
        size: cli.size,
        rtt_us: cli.rtt_us,
        interruption: Interruption::listen().map_err(CompareError::Signals)?,
    };
    let quick = ["1x1", "1x256", "1000x16"];
    let full = ["1x1", "100x1", "1000x1", "1x16", "100x16", "1000x16", "1x256", "1x1000"];
    let points = match (&cli.point[..], cli.quick) {
        ([], true) => quick.map(parsed).to_vec(),
        ([], false) => full.map(parsed).to_vec(),
        (points, _) => points.to_vec(),
    };
    let rounds = cli.rounds.unwrap_or(if cli.quick { 1 } else { 3 });
    let seconds = lengths(cli)?;
    let mut summary = Summary::new(machine::Machine::look(&stage), cli.size, cli.rtt_us, rounds, seconds);
    if let Some(doubt) = summary.machine.doubt() {
        say(&format!("doubtful: {doubt}"));
    }
    for contestant in &contestants {
        if stage.interruption.has_come() {
            return Err(CompareError::Interrupted);
        }
        if let Err(error) = stage.prepare(contestant, cli.install) {
            say(&format!("{}: {error}", contestant.title()));
            summary.skip(contestant, &error);
        }
    }
    for round in 1..=rounds {
        for point in &points {
            for contestant in contestants.iter().filter(|contestant| contestant.takes(*point)) {
                if summary.is_out(contestant) {
                    continue;
                }
                let run = run(&stage, contestant, *point, seconds);
                if stage.interruption.has_come() {
                    return Err(CompareError::Interrupted);
                }
                say(&told(round, contestant, *point, &run));
                summary.add(Run { contestant: contestant.clone(), point: *point, round, outcome: run });
            }
        }
        // What there is after each round is of use already.
        write(&summary, &cli.out)?;
    }
    print!("{}", markdown::text(&summary));
    if summary.points().is_empty() { Err(CompareError::Empty) } else { Ok(()) }
}

/// How long a run takes at least and at most. Seconds.
fn lengths(cli: &Cli) -> Result<(u64, u64), CompareError> {
    let least = cli.seconds.unwrap_or(if cli.quick { 2 } else { 30 });
    match cli.seconds_max {
        Some(most) if most < least => Err(CompareError::Seconds { least, most }),
        Some(most) => Ok((least, most)),
        None if cli.quick => Ok((least, least)),
        None => Ok((least, SECONDS_MAX.max(least))),
    }
}

/// One contestant at one point, long enough to pay for what it fills ahead, if it does.
fn run(
    stage: &Stage,
    contestant: &Contestant,
    point: Point,
    (least, most): (u64, u64),
) -> Result<Measured, RunError> {
    let long = match least == most || !contestant.fills_ahead() {
        true => least,
        false => {
            let probe = stage.run(contestant, point, Duration::from_secs(PROBE_SECONDS))?;
            seconds_for(probe.figure.bytes_per_s, (least, most))
        }
    };
    stage.run(contestant, point, Duration::from_secs(long))
}

/// How long a run takes that writes so many bytes in a second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to some seconds")]
fn seconds_for(bytes_per_s: f64, (least, most): (u64, u64)) -> u64 {
    let wanted = (PREFILLED_TIMES * PREFILLED_BYTES / bytes_per_s.max(1.0)).ceil();
    (wanted.min(1e9) as u64).clamp(least, most)
}

fn chosen(only: &[String]) -> Result<Vec<Contestant>, CompareError> {
    let mut all = contestant::all();
    if !only.is_empty() {
        let mut known: Vec<_> = all.iter().map(|contestant| contestant.system.clone()).collect();
        known.dedup();
        let unknown: Vec<_> = only.iter().filter(|name| !known.contains(name)).cloned().collect();
        if !unknown.is_empty() {
            return Err(CompareError::Nobody { names: unknown.join(", "), known: known.join(", ") });
        }
        all.retain(|contestant| only.contains(&contestant.system));
    }
    Ok(all)
}

fn parsed(point: &str) -> Point {
    point.parse().expect("it is written here")
}

fn told(round: u64, contestant: &Contestant, point: Point, run: &Result<Measured, RunError>) -> String {
    let who = format!("round {round}  {point:>8}  {:<28}", contestant.title());
    match run {
        Ok(Measured { figure, .. }) => {
            format!(
                "{who} {:>10.0} records/s  p50 {} us  p99 {} us",
                figure.records_per_s, figure.p50_us, figure.p99_us
            )
        }
        Err(error) => format!("{who} {error}"),
    }
}

fn write(summary: &Summary, out: &Path) -> Result<(), CompareError> {
    let put = |name: &str, text: String| {
        let path = out.join(name);
        fs::create_dir_all(out)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| CompareError::Write { path, source })
    };
    put("comparison.md", markdown::text(summary))?;
    put("comparison.html", page::html(summary))?;
    put("figures.json", summary.json())
}

/// To people who wait.
fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_writes_four_times_what_is_filled_ahead_if_it_can() {
        // 192 MiB four times: at 26.8 MB/s that takes 30 s.
        let usual = (30, SECONDS_MAX);
        assert_eq!(seconds_for(100e6, usual), 30);
        assert_eq!(seconds_for(10e6, usual), 81);
        assert_eq!(seconds_for(1e6, usual), SECONDS_MAX);
        assert_eq!(seconds_for(0.0, (300, 300)), 300);
    }

    #[test]
    fn a_run_is_as_long_as_is_wanted() {
        let lengths = |words: &[&str]| lengths(&Cli::parse_from([&["compare"], words].concat()));
        assert_eq!(lengths(&[]).unwrap(), (30, 120));
        assert_eq!(lengths(&["--quick"]).unwrap(), (2, 2));
        assert_eq!(lengths(&["--seconds", "300"]).unwrap(), (300, 300));
        assert_eq!(lengths(&["--seconds", "5", "--seconds-max", "5"]).unwrap(), (5, 5));
        let told = lengths(&["--seconds-max", "5"]).unwrap_err().to_string();
        assert!(told.contains("less than the 30 s"), "{told}");
    }

    #[test]
    fn contestants_are_chosen_by_name() {
        assert!(chosen(&[]).unwrap().len() > 10);
        assert!(chosen(&["etcd".to_owned()]).unwrap().iter().all(|contestant| contestant.system == "etcd"));
        let wrong = chosen(&["sequor".to_owned(), "etcdd".to_owned()]).unwrap_err().to_string();
        assert!(
            wrong.contains(
                "no contestant has the name etcdd; there are null, null-in-place, sequor, etcd, etcd-latest"
            ),
            "{wrong}"
        );
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
