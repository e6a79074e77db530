//! `sequor append`: the lines of an input, each exactly once, however often the command is run.
//!
//! The sequence of a line is its number in the input. What is already in the log is therefore known without asking for
//! each line: the producer's next sequence is the number of the first line that is missing. So a rerun
//!
//! 1. looks the producer up, without opening it: who only made a typing error fences nobody;
//! 2. reads past the lines that are there, comparing the last batches of the log with them (`witness.rs`);
//! 3. opens the producer, which fences an earlier run that may still be alive somewhere; what that run had on its way
//!    until then is there now, and is compared too;
//! 4. appends the rest, many batches in flight.
//!
//! A number is never given up here (sealed): it means a line. If the outcome of a batch is not known at the deadline, the
//! command says so, and running it again finds out.

use std::{
    future::ready,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncRead, BufReader, stdin},
    sync::mpsc,
};

use sequor_client::{
    Client,
    protocol::{
        Producer, Remembered,
        batch::{BatchBuilder, PushError},
        limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX, NAME_BYTES_MAX},
    },
};

use crate::{
    cli::Global,
    confirmation::{Acks, Confirmation, OnItsWay},
    exit::{Exit, Failure, Verdict},
    lines::{Line, Lines, wall_clock_ms},
    remote,
    witness::{Suspect, Witness},
    words::plain_count,
};

/// What is read of the input at once. Bytes.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The sequence of a line is its number in the input, counted from 0. Running the same command again, after any crash of \
the client or the brokers, goes on where the log ends.

Before it writes, append compares the newest batches that the log remembers of this producer with the same lines of the \
input, and not its whole history. If they differ, it writes nothing and ends with code 3. A last line without a line \
feed is stored as it is: if the file has since grown on that line, running the same command again ends with code 3.

Examples:
  sequor append --producer import/1 lines.txt
  zcat dump.gz | sequor append --producer import/2 --batch 1000 -o json")]
pub(crate) struct AppendArgs {
    /// The producer: a durable name for this input, 1 to 255 bytes.
    #[arg(long, env = "SEQUOR_PRODUCER", value_name = "NAME", value_parser = name)]
    producer: String,

    /// Most records in a batch. It holds fewer when the input has no more lines for now.
    #[arg(long, default_value_t = 100, value_parser = up_to(BATCH_RECORDS_MAX))]
    batch: u64,

    /// Most batches on their way at once.
    #[arg(long, default_value_t = 16, value_parser = up_to(IN_FLIGHT_BATCHES_MAX))]
    in_flight: u64,

    /// What to print on stdout: nothing, or one JSON object for each batch when it is confirmed.
    #[arg(short, long, default_value = "none")]
    output: Acks,

    /// The input; standard input if it is absent or `-`.
    file: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=NAME_BYTES_MAX => Ok(text.to_owned()),
        found => Err(format!("it has {found} bytes, and must have 1 to {NAME_BYTES_MAX}")),
    }
}

fn up_to(most: usize) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=most as u64)
}

/// Why not all lines are in the log.
#[derive(Debug, Error)]
pub(crate) enum AppendError {
    /// The input cannot be opened.
    #[error("cannot open {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The input is not the one from which the producer wrote before.
    #[error(
        "the input is another one: line {} is not what producer {producer:?} wrote as sequence {number} (offset \
         {offset}). Nothing was written. Use another producer for another input",
        .number + 1
    )]
    Different {
        /// The producer.
        producer: String,
        /// The first line that differs, counted from 0.
        number: u64,
        /// Where the log has what was written.
        offset: u64,
    },
    /// The input ends before the producer's last record.
    #[error(
        "the input is another one: it ends after {}, and producer {producer:?} has written {written}. \
         Nothing was written. Use another producer for another input",
        plain_count(*.found, "line")
    )]
    Shorter {
        /// The producer.
        producer: String,
        /// Lines of the input.
        found: u64,
        /// Lines in the log.
        written: u64,
    },
    /// A line's number was given up.
    #[error(
        "lines {first} to {last} can never be written: producer {producer:?} has given their numbers up. Nothing was \
         written. Use another producer for this input"
    )]
    Sealed {
        /// The producer.
        producer: String,
        /// The first line, counted from 1.
        first: u64,
        /// The last line, counted from 1.
        last: u64,
    },
}

impl Verdict for AppendError {
    fn exit(&self) -> Exit {
        match self {
            Self::Open { .. } => Exit::Error,
            Self::Different { .. } | Self::Shorter { .. } | Self::Sealed { .. } => Exit::Precondition,
        }
    }
}

pub(crate) async fn run(args: AppendArgs, global: &Global) -> Result<(), Failure> {
    let (input, bytes) = open(args.file.as_deref()).await?;
    let mut lines = Lines::new(BufReader::with_capacity(READ_BYTES, input));
    let client = remote::connect(global).await?;
    let job = Job { client: &client, producer: &args.producer, deadline: global.deadline };

    if let Some(known) = client.lookup(&args.producer).await? {
        job.skip(&mut lines, &known).await?;
    }
    let in_flight = usize::try_from(args.in_flight).expect("it has a limit");
    let producer = client.producer(&args.producer).in_flight(in_flight).keep_numbers().open().await?;
    job.skip(&mut lines, producer.opened()).await?;

    let confirmation = Confirmation::new(&args.producer, lines.number(), bytes, args.output);
    let (to_confirm, on_their_way) = mpsc::channel(in_flight);
    let batch = usize::try_from(args.batch).expect("it has a limit");
    let (sent, confirmed) =
        tokio::join!(send(&mut lines, batch, &producer, to_confirm), confirmation.run(on_their_way));
    // What could not be confirmed weighs more than what could not be read: its outcome may be unknown.
    confirmed?;
    sent?;
    client.close().await;
    Ok(())
}

/// The input, and its size in bytes if it is a file.
async fn open(file: Option<&Path>) -> Result<(Box<dyn AsyncRead + Unpin>, Option<u64>), AppendError> {
    let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
        return Ok((Box::new(stdin()), None));
    };
    let wrong = |source| AppendError::Open { path: path.to_path_buf(), source };
    let file = File::open(path).await.map_err(wrong)?;
    let metadata = file.metadata().await.map_err(wrong)?;
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Whose lines are appended where.
#[derive(Clone, Copy, Debug)]
struct Job<'a> {
    client: &'a Client,
    producer: &'a str,
    deadline: Duration,
}

impl Job<'_> {
    /// Reads past the lines that `known` says are there, and compares the last of them.
    async fn skip<R: AsyncBufRead + Unpin>(
        self,
        lines: &mut Lines<R>,
        known: &Producer,
    ) -> Result<(), Failure> {
        if let Some((first, end)) = known.sealed.first() {
            let producer = self.producer.to_owned();
            return Err(AppendError::Sealed { producer, first: first.0 + 1, last: end.0 }.into());
        }
        let mut witness = Witness::new(&known.batches, lines.number());
        while lines.number() < known.next.0 {
            let Some(line) = lines.next().await? else {
                let (producer, found) = (self.producer.to_owned(), lines.number());
                return Err(AppendError::Shorter { producer, found, written: known.next.0 }.into());
            };
            if let Err(suspect) = witness.take(line) {
                return Err(self.difference(&suspect).await?.into());
            }
        }
        Ok(())
    }

    /// Reads what was written in the place of these lines, and names the first that is another one.
    async fn difference(self, suspect: &Suspect) -> Result<AppendError, Failure> {
        let Remembered { first, offset, count, .. } = suspect.batch;
        let mut tail = self.client.tail(offset).await?;
        let mut written = Vec::new();
        while written.len() < count as usize {
            written.push(remote::within(self.deadline, tail.next()).await??.record);
        }
        let number = suspect.first_difference(&written);
        let offset = offset.plus(number - first.0).0;
        Ok(AppendError::Different { producer: self.producer.to_owned(), number, offset })
    }
}

/// Hands lines over in batches, until the input ends or nobody confirms any more.
async fn send<R: AsyncBufRead + Unpin>(
    lines: &mut Lines<R>,
    batch: usize,
    producer: &sequor_client::Producer,
    to_confirm: mpsc::Sender<OnItsWay>,
) -> Result<(), Failure> {
    let mut next = None;
    loop {
        let mut builder = BatchBuilder::with_limits(batch, BATCH_BYTES_MAX);
        let over = tokio::select! {
            filled = fill(&mut builder, lines, &mut next) => filled,
            () = to_confirm.closed() => return Ok(()),
        };
        if !builder.is_empty() {
            let read = lines.bytes();
            let acknowledgement = producer.send_batch(builder).await?;
            if to_confirm.send(OnItsWay { acknowledgement, read }).await.is_err() {
                return Ok(());
            }
        }
        if over? == Filled::InputOver {
            return Ok(());
        }
    }
}

/// Why a batch takes no more lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    Full,
    NoLineReady,
    InputOver,
}

/// Fills a batch: until it is full, or there is no line to be had at once. So the line of a slow input leaves without
/// waiting for others, and those of a fast one gather while earlier batches are on their way. A line that has no place
/// any more waits in `next`.
async fn fill<R: AsyncBufRead + Unpin>(
    builder: &mut BatchBuilder,
    lines: &mut Lines<R>,
    next: &mut Option<Line>,
) -> Result<Filled, Failure> {
    loop {
        let line = match next.take() {
            Some(line) => line,
            None => {
                let read = tokio::select! {
                    biased;
                    read = lines.next() => read?,
                    () = ready(()), if !builder.is_empty() => return Ok(Filled::NoLineReady),
                };
                match read {
                    Some(line) => line,
                    None => return Ok(Filled::InputOver),
                }
            }
        };
        match builder.push(&line.record(wall_clock_ms())) {
            Ok(()) => {}
            Err(PushError::Full) => {
                *next = Some(line);
                return Ok(Filled::Full);
            }
            Err(PushError::Record(refusal)) => return Err(sequor_client::AppendError::Record(refusal).into()),
        }
    }
}
