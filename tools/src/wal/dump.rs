//! `sequor wal dump`: every block and every entry of a log, in the order in which they lie in the files.
//!
//! ```text
//! block segment-00000000000000000001 offset=512 bytes=249 reason=first entries=2 first_index=1 durable=0 commit=0 crc=0x…
//!   entry index=1 term=1 kind=no-op offset=576 bytes=0 chain=0x…
//!   entry index=2 term=1 kind=normal offset=604 bytes=129 chain=0x… log_time_ms=52 wall_ms=1767225600000 level=1
//!     open name="import/1" id=1 epoch=1 instance=…
//!     append id=1 epoch=1 first_sequence=0 last_sequence=9 settled=0 base_offset=0 records=10 bytes=345
//! ```
//!
//! `json` prints the same, one object a line, told apart by `type`: `block`, `entry` and `fault`. A fault is a place
//! without a good block, where one should begin: damage, or what a crash tore.

use std::path::PathBuf;

use clap::{ValueEnum, ValueHint};
use thiserror::Error;

use sequor_wal::{Item, WalkedBlock, WalkedEntry};

use super::{
    directory::{Directory, Locked},
    line::Line,
};
use crate::{
    cli::number,
    exit::{Exit, Failure, Verdict},
    output::Output,
    visible::visible_path,
    words::plain_count,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Entries that a later segment replaced are printed where they lie, and marked as hidden. What clients wrote, keys and \
values, is printed with --values alone. Nothing in the directory is changed, and a broker that runs on it has to be \
stopped first. The whole directory is read before the first line is printed.

Exit code 1: something is damaged; all that is good is printed, and `sequor wal verify` lists the damage. 3: the \
directory is in use.

Examples:
  sequor wal dump demo/broker-1 | less
  sequor wal dump demo/broker-1 --from 4711 -n 1 --values
  sequor wal dump demo/broker-1 -o json | jq 'select(.type == \"entry\" and .term == 3) | .index'")]
pub(super) struct DumpArgs {
    /// The data directory of a broker that does not run.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: PathBuf,

    /// Begin with this index.
    #[arg(long, value_name = "INDEX", default_value_t = 0, value_parser = number)]
    from: u64,

    /// Stop after this many entries.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = number)]
    count: Option<u64>,

    /// Print keys and values of records, too.
    #[arg(long)]
    values: bool,

    /// How to print it.
    #[arg(short, long, default_value = "text")]
    output: Format,
}

/// How to print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Not all is as it was written.
#[derive(Debug, Error)]
#[error("{} in {}: `sequor wal verify` lists them", plain_count(*.findings, "finding"), visible_path(.path))]
pub(super) struct DamagedError {
    path: PathBuf,
    findings: u64,
}

impl Verdict for DamagedError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

pub(super) async fn run(args: &DumpArgs) -> Result<(), Failure> {
    let Directory { path, inspection, findings, .. } = &Locked::open(&args.directory)?.inspect()?;
    let mut output = Output::new();
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut findings = findings.count();
    for item in inspection.walk(args.from) {
        if left == 0 {
            break;
        }
        match item {
            Ok(item) if is_before(&item, args.from) => {}
            Ok(item) => {
                left -= u64::from(matches!(item, Item::Entry(_)));
                let line = Line::new(&item, args.values);
                match args.output {
                    Format::Json => output.push_json(&line),
                    Format::Text => output.buffer().extend_from_slice(line.text().as_bytes()),
                }
                output.settle().await?;
            }
            // The segment cannot be read any more, although it was a moment ago.
            Err(_) => findings += 1,
        }
    }
    output.flush().await?;
    match findings {
        0 => Ok(()),
        findings => Err(DamagedError { path: path.clone(), findings }.into()),
    }
}

/// Whether all of it comes before the entry at `from`.
fn is_before(item: &Item, from: u64) -> bool {
    match item {
        Item::Entry(WalkedEntry { entry, .. }) => entry.index < from,
        Item::Block(WalkedBlock { previous, entries, .. }) => previous.index + u64::from(*entries) < from,
        Item::Fault(_) => false,
    }
}
