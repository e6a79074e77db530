//! `sequor quickstart`: the main job, on a cluster of its own, with everything that goes wrong in it.
//!
//! | file | noun |
//! |---|---|
//! | `input.rs` | the file |
//! | `scenario.rs` | what happens to them |
//! | `wire.rs` | a connection held by hand, to say what the library never would |
//! | `table.rs` | records per second against the size of a batch |
//! | `report.rs` | what is told, and whether all of it held |
//!
//! The verdict is the program's exit code, and its last line says *exactly once* only when every check held.

mod input;
mod report;
mod scenario;
mod table;
mod wire;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use sequor_client::{
    Client, Config,
    protocol::limits::{BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX},
};

use self::{
    input::Input,
    report::Report,
    scenario::{LINES_MIN, Scenario},
    table::{Load, Row},
};
use crate::{
    cli::{Global, Shape},
    cluster::{Cluster, wait_for_leader},
    exit::Failure,
    interruption::Interruptions,
    output,
    place::Place,
    shell,
    visible::visible,
    words::count,
};

/// Brokers in the cluster: the fewest that survive a death.
const BROKERS: usize = 3;
/// Largest record that the table can be asked for. Bytes.
const SIZE_MAX: u64 = 512 << 10;
/// Longest time for one row of the table. Seconds.
const SECONDS_MAX: f64 = 3600.0;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The cluster lives in a temporary directory (TMPDIR says where, and so on which disk) and is gone afterwards,
also when Ctrl-C (exit code 130), SIGTERM (143) or SIGHUP (129) ends it.

Examples:
  sequor quickstart
  sequor quickstart /var/log/syslog --keep ./kept
  sequor quickstart --only-table --batch 1,100 --in-flight 1,16,64 --size 512 --seconds 10")]
pub(crate) struct QuickstartArgs {
    /// The file to append: any, with at least 50 lines. Without it, one that comes with sequor.
    #[arg(conflicts_with = "only_table")]
    file: Option<PathBuf>,

    /// Make the cluster in this directory, and leave it there.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// Only measure.
    #[arg(long)]
    only_table: bool,

    /// Records in a batch, one row of the table for each.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,10,100,1000",
          value_parser = clap::value_parser!(u64).range(1..=BATCH_RECORDS_MAX as u64))]
    batch: Vec<u64>,

    /// Batches in flight, one row of the table for each.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16",
          value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_BATCHES_MAX as u64))]
    in_flight: Vec<u64>,

    /// Bytes of a record in the table.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u64).range(0..=SIZE_MAX))]
    size: u64,

    /// For how long each row of the table is measured.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    seconds: Duration,

    /// How to print the table when nothing else is asked for.
    #[arg(short, long, default_value = "table", requires = "only_table")]
    output: Shape,
}

pub(crate) async fn run(args: QuickstartArgs, global: &Global) -> Result<(), Failure> {
    let mut interruptions = Interruptions::listen()?;
    // Whichever comes first: the play that is not played to its end is dropped, and stops and removes its cluster.
    tokio::select! {
        biased;
        interruption = interruptions.next() => Err(interruption.into()),
        played = play(args, global) => played,
    }
}

async fn play(args: QuickstartArgs, global: &Global) -> Result<(), Failure> {
    let input = match args.only_table {
        true => None,
        false => Some(Input::read(args.file.as_deref(), LINES_MIN).await?),
    };
    let place = Place::new(args.keep.clone(), "sequor-quickstart-")?;
    let mut cluster = Cluster::start(place.path(), BROKERS)?;
    let mut config = Config::load(cluster.context())?;
    config.deadline = global.deadline;

    let mut report = Report::default();
    if let Some(input) = &input {
        let (lines, bytes) =
            (count(input.lines.len() as u64, "line"), count(input.bytes.len() as u64, "byte"));
        output::tell(&format!("sequor quickstart: {}, {lines}, {bytes}\n\n", visible(&input.name)))?;
        let progress = bar("{bar:40} {human_pos} of {human_len} lines");
        let (cluster, config, report) = (&mut cluster, &config, &mut report);
        Scenario { cluster, config, input, report, progress: &progress }.play().await?;
        output::tell("\n")?;
    }
    let rows = measure(&args, &mut cluster, &config).await?;
    match args.output {
        Shape::Table => output::tell(&(heading(&args) + &table::render(&rows)))?,
        Shape::Json => output::tell(&(json(&rows) + "\n"))?,
    }
    if let Some(input) = &input {
        output::tell(&next_commands(&place))?;
        let held = report.verdict()?;
        let lines = count(input.lines.len() as u64, "line");
        output::tell(&format!("\nexactly once: {lines}, and all {held} checks held\n"))?;
    }
    Ok(())
}

/// Measures every row of the table.
async fn measure(args: &QuickstartArgs, cluster: &mut Cluster, config: &Config) -> Result<Vec<Row>, Failure> {
    let client = Client::connect(config).await?;
    wait_for_leader(cluster, &client, config).await?;
    let size = |number: u64| usize::try_from(number).expect("it has a limit");
    let progress = bar("{bar:40} {pos} of {len} rows measured");
    progress.set_length((args.batch.len() * args.in_flight.len()) as u64);
    let mut rows = Vec::new();
    for &in_flight in &args.in_flight {
        for &batch in &args.batch {
            let (batch, in_flight, record_bytes) = (size(batch), size(in_flight), size(args.size));
            rows.push(
                table::measure(&client, Load { batch, in_flight, record_bytes, time: args.seconds }).await?,
            );
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    client.close().await;
    Ok(rows)
}

fn json(rows: &[Row]) -> String {
    serde_json::to_string(rows).expect("rows have string keys")
}

fn heading(args: &QuickstartArgs) -> String {
    format!(
        "Confirmed records of {} per second, {} s for each row; p50 and p99 of the time to confirm a batch:\n\n",
        count(args.size, "byte"),
        args.seconds.as_secs_f64()
    )
}

/// Three commands to paste.
fn next_commands(place: &Place) -> String {
    let program = shell::program();
    let (first, dir) = match place {
        Place::Kept(dir) => (String::new(), shell::word(dir)),
        Place::Temporary(_) => (format!("{program} certs init ./demo && "), "./demo".to_owned()),
    };
    format!(
        "
Next, to paste:

  {first}for n in 1 2 3; do {program} serve --config {dir}/broker-$n.toml 2> {dir}/broker-$n.log & done
  seq 100000 | {program} --context {dir}/context.toml append --producer numbers
  {program} --context {dir}/context.toml tail --until-end | tail -3
"
    )
}

/// A bar on a terminal, nothing elsewhere.
fn bar(template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the template is sound");
    ProgressBar::new(0).with_style(style)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= SECONDS_MAX {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(format!("it has to be more than 0 and at most {SECONDS_MAX}"))
}
