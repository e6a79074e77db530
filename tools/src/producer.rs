//! `sequor producer`: what the brokers know of producers, and how a name or a number is closed.

use serde::Serialize;
use thiserror::Error;

use sequor_client::{
    Client,
    protocol::{self, Resolved, Sequence, Summary},
};

use crate::{
    cli::{Global, Shape, number},
    exit::{Exit, Failure, Verdict},
    output::{self, Output},
    remote,
    table::{Table, Tone},
    visible::visible,
    words::plain_count,
};

/// Producers that are asked for at once.
const PAGE: u32 = 512;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sequor producer list
  sequor producer show import/1
  sequor producer resolve import/1 41
  sequor producer retire import/1 --yes")]
pub(crate) struct ProducerArgs {
    #[command(subcommand)]
    command: ProducerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ProducerCommand {
    /// List all producers, in the order of their names.
    #[command(after_help = "\
Examples:
  sequor producer list
  sequor producer list -o json | jq -r 'select(.retired) | .name'")]
    List {
        /// Only names after this one.
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
        /// How to print it: a table, or one JSON object a line.
        #[arg(short, long, default_value = "table")]
        output: Shape,
    },
    /// Show what the brokers know of one producer.
    #[command(after_help = "\
Exit code 3: no such producer.

Examples:
  sequor producer show import/1
  sequor producer show import/1 -o json | jq .next")]
    Show {
        /// The producer's name.
        name: String,
        /// How to print it.
        #[arg(short, long, default_value = "table")]
        output: Shape,
    },
    /// Close a producer's name for ever: nobody can write under it or open it again.
    ///
    /// Its records stay. The name keeps its place in the table of producers, so that it is never taken for a new one.
    #[command(after_help = "\
Exit code 3: no such producer, or somebody else opened it at the same moment.

Examples:
  sequor producer retire import/1 --yes")]
    Retire {
        /// The producer's name.
        name: String,
        /// Do it: there is no way back.
        #[arg(long)]
        yes: bool,
    },
    /// Say what became of one number of a producer: committed, sealed, or open.
    #[command(after_help = "\
With --seal, an open number is given up for good, and every open number before it: whatever is still on its way under
them can never be written. Whoever writes under the name goes on with the next number.

Exit code 3: no such producer, or the name is retired.

Examples:
  sequor producer resolve import/1 41
  sequor producer resolve import/1 41 --seal -o json")]
    Resolve {
        /// The producer's name.
        name: String,
        /// The number, counted from 0.
        #[arg(value_parser = number)]
        sequence: u64,
        /// Give it up if it is open.
        #[arg(long)]
        seal: bool,
        /// How to print it.
        #[arg(short, long, default_value = "table")]
        output: Shape,
    },
}

/// Why a producer's command did nothing.
#[derive(Debug, Error)]
pub(crate) enum ProducerError {
    /// Nobody ever opened the name.
    #[error("there is no producer {name:?}: `sequor producer list` shows those that there are")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It is not said that it is meant.
    #[error(
        "producer {name:?} is not retired: nobody could ever write under the name or open it again, and there is no way \
         back. To do it, add --yes"
    )]
    Unsure {
        /// The name.
        name: String,
    },
}

impl Verdict for ProducerError {
    fn exit(&self) -> Exit {
        match self {
            Self::Unknown { .. } => Exit::Precondition,
            Self::Unsure { .. } => Exit::Usage,
        }
    }
}

/// A producer in a list, as JSON.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    id: u64,
    epoch: u64,
    next: u64,
    sealed: u64,
    retired: bool,
}

impl<'a> Listed<'a> {
    fn new(summary: &'a Summary) -> Self {
        let Summary { name, id, epoch, next, sealed, retired } = summary;
        Self { name, id: id.0, epoch: epoch.0, next: next.0, sealed: *sealed, retired: *retired }
    }
}

/// A producer by itself, as JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    name: &'a str,
    id: u64,
    epoch: u64,
    instance: String,
    next: u64,
    retired: bool,
    /// Newest intervals: first number, and one past the last.
    sealed: Vec<(u64, u64)>,
    /// Newest batches.
    batches: Vec<ShownBatch>,
}

/// A batch that is remembered, as JSON.
#[derive(Debug, Serialize)]
struct ShownBatch {
    first: u64,
    records: u32,
    offset: u64,
}

impl<'a> Shown<'a> {
    fn new(name: &'a str, known: &protocol::Producer) -> Self {
        let batch = |batch: &protocol::Remembered| ShownBatch {
            first: batch.first.0,
            records: batch.count,
            offset: batch.offset.0,
        };
        Self {
            name,
            id: known.id.0,
            epoch: known.epoch.0,
            instance: known.instance.to_string(),
            next: known.next.0,
            retired: known.retired,
            sealed: known.sealed.iter().map(|(first, end)| (first.0, end.0)).collect(),
            batches: known.batches.iter().map(batch).collect(),
        }
    }
}

/// What became of a number, as JSON.
#[derive(Debug, Serialize)]
struct Outcome {
    sequence: u64,
    outcome: &'static str,
    offset: Option<u64>,
}

pub(crate) async fn run(args: ProducerArgs, global: &Global) -> Result<(), Failure> {
    if let ProducerCommand::Retire { name, yes: false } = args.command {
        return Err(ProducerError::Unsure { name }.into());
    }
    let client = remote::connect(global).await?;
    match args.command {
        ProducerCommand::List { after, output } => list(&client, after, output).await?,
        ProducerCommand::Show { name, output } => show(&client, &name, output).await?,
        ProducerCommand::Retire { name, yes: _ } => retire(&client, &name).await?,
        ProducerCommand::Resolve { name, sequence, seal, output } => {
            resolve(&client, &name, Sequence(sequence), seal, output).await?;
        }
    }
    client.close().await;
    Ok(())
}

async fn list(client: &Client, mut after: Option<String>, shape: Shape) -> Result<(), Failure> {
    let mut output = Output::new();
    let mut table = Table::new(["name", "id", "epoch", "next", "sealed", "state"]);
    loop {
        let page = client.producers(after, PAGE).await?;
        for summary in &page.producers {
            match shape {
                Shape::Json => output.push_json(&Listed::new(summary)),
                Shape::Table => table.row(tone(summary.retired), row(summary)),
            }
        }
        output.settle().await?;
        after = page.producers.into_iter().next_back().map(|last| last.name);
        if !page.more || after.is_none() {
            break;
        }
    }
    if shape == Shape::Table {
        output.buffer().extend_from_slice(table.text(1..5).as_bytes());
    }
    output.flush().await
}

fn row(summary: &Summary) -> [String; 6] {
    let Summary { name, id, epoch, next, sealed, retired } = summary;
    let state = if *retired { "retired" } else { "open" };
    [visible(name), id.to_string(), epoch.to_string(), next.to_string(), sealed.to_string(), state.to_owned()]
}

fn tone(retired: bool) -> Tone {
    if retired { Tone::Faint } else { Tone::Plain }
}

async fn known(client: &Client, name: &str) -> Result<protocol::Producer, Failure> {
    let known = client.lookup(name).await?;
    known.ok_or_else(|| ProducerError::Unknown { name: name.to_owned() }.into())
}

async fn show(client: &Client, name: &str, shape: Shape) -> Result<(), Failure> {
    let known = known(client, name).await?;
    output::print(&match shape {
        Shape::Json => json(&Shown::new(name, &known)),
        Shape::Table => portrait(name, &known),
    })
}

/// What is known of a producer, for people.
fn portrait(name: &str, known: &protocol::Producer) -> String {
    let protocol::Producer { id, epoch, instance, next, batches, sealed, retired } = known;
    let mut facts = Table::new(["producer", &visible(name)]);
    let mut fact = |tone, name: &str, value: String| facts.row(tone, [name.to_owned(), value]);
    fact(Tone::Plain, "id", id.to_string());
    fact(Tone::Plain, "epoch", epoch.to_string());
    fact(Tone::Plain, "instance", instance.to_string());
    fact(Tone::Plain, "next sequence", next.to_string());
    let state = if *retired { "retired: closed for ever" } else { "open" };
    fact(tone(*retired), "state", state.to_owned());
    for (first, end) in sealed {
        fact(Tone::Plain, "sealed", format!("{first} to {}", end.0 - 1));
    }
    for batch in batches {
        let last = batch.first.0 + u64::from(batch.count.max(1)) - 1;
        let written = format!("{} to {last}, from offset {} on", batch.first, batch.offset);
        fact(Tone::Plain, "written", written);
    }
    facts.text(0..0)
}

async fn retire(client: &Client, name: &str) -> Result<(), Failure> {
    let known = known(client, name).await?;
    let retired = client.retire(known.id, known.epoch).await?;
    let records = plain_count(retired.next.0, "number");
    output::tell(&format!("{} is retired: {records} used, and none will follow\n", visible(name)))
}

async fn resolve(
    client: &Client,
    name: &str,
    sequence: Sequence,
    seal: bool,
    shape: Shape,
) -> Result<(), Failure> {
    let known = known(client, name).await?;
    let resolved = client.resolve(known.id, known.epoch, sequence, seal).await?;
    let (outcome, offset) = match resolved {
        Resolved::Committed { offset } => ("committed", offset.map(|offset| offset.0)),
        Resolved::Sealed => ("sealed", None),
        Resolved::Open => ("open", None),
    };
    output::print(&match shape {
        Shape::Json => json(&Outcome { sequence: sequence.0, outcome, offset }),
        Shape::Table => match offset {
            Some(offset) => format!("{outcome} at offset {offset}\n"),
            None => format!("{outcome}\n"),
        },
    })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is printed has string keys") + "\n"
}
