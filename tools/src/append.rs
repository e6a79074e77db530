//! `sequor append`: the pieces of an input, each exactly once, however often the command is run.
//!
//! The sequence of a piece (a line, or a record of a binary input) is its number in the input. What is already in the log
//! is therefore known without asking for each piece: the producer's next sequence is the number of the first one that is
//! missing. So a rerun
//!
//! 1. looks the producer up, without opening it: who only made a typing error fences nobody;
//! 2. reads past the pieces that are there, comparing the last batches of the log with them (`witness.rs`), or all that
//!    the producer has ever written (`--verify`, `past.rs`);
//! 3. opens the producer, which fences an earlier run that may still be alive somewhere; what that run had on its way
//!    until then is there now, and is compared too;
//! 4. appends the rest, many batches in flight.
//!
//! A number is never given up here (sealed): it means a piece. If the outcome of a batch is not known at the deadline, the
//! command says so, and running it again finds out.
//!
//! With `--continue` a number means nothing outside: the first piece gets the producer's next sequence. Within the run
//! everything is as before; but another run cannot know what became of this one, so there is nothing to read past.

use std::{
    future::ready,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use thiserror::Error;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncRead, BufReader, stdin},
    sync::{mpsc, watch},
};

use sequor_client::{
    Client, OpenError, OpenProducer,
    protocol::{
        self, Codec, Producer, Remembered,
        batch::{BatchBuilder, PushError},
        limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, IN_FLIGHT_BATCHES_MAX, NAME_BYTES_MAX},
    },
};

use crate::{
    cli::Global,
    confirmation::{Confirmation, Kind, OnItsWay, Print, Run},
    exit::{Exit, Failure, Verdict},
    form::Form,
    interruption::{Interruption, Interruptions},
    past::Past,
    pieces::{Piece, Pieces, wall_clock_ms},
    remote,
    witness::{Suspect, Witness},
    words::plain_count,
};

/// How long the session of a run without a producer lives when nobody keeps it alive: longer than a change of leader.
const SESSION_TTL: Duration = Duration::from_secs(30);
/// What is read of the input at once. Bytes.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The sequence of a line is its number in the input, counted from 0. Running the same command again, after any crash of \
the client or the brokers, goes on where the log ends.

Before it writes, append compares the newest batches that the log remembers of this producer with the same lines of the \
input, and not its whole history; with --verify, it compares all of that. If they differ, it writes nothing and ends \
with code 3. A last line without a line feed is stored as it is: if the file has since grown on that line, running the \
same command again ends with code 3.

With --length-prefixed the same holds for records instead of lines. An input that ends within a record is an error: the \
records before it are appended, of the last one nothing is. The flags that say how the input is read have to be the \
same each time; `sequor tail` has them too, and gives back what was read with them, byte for byte.

With --continue the input is only what comes after what is there: its first line gets the producer's next sequence. \
Nothing is compared, and each line is written once within this run alone: do NOT run such a command again when it did \
not end with code 0, since it would append again what was written. It says how many lines of the input were written \
for sure. To learn how many there are in the end, run `sequor append --continue --producer NAME /dev/null`: the number \
that were already there, less the number at the start of the run, is how many lines to leave out of the next input.

Ctrl-C ends the reading: what was read is still written, and the command says how far it came, with code 130. A second \
one does not wait for that.

Without --producer every run writes under a session of its own: each line once, through all retries, but nobody can go \
on where it stopped, and running the same command again writes the input once more.

Examples:
  sequor append --producer import/1 lines.txt
  date | sequor append
  zcat dump.gz | sequor append --producer import/2 --batch 1000 -o json
  sequor append --producer table --key-separator '\\t' --verify rows.tsv
  ./encode | sequor append --producer frames --length-prefixed
  date | sequor append --producer audit --continue")]
pub(crate) struct AppendArgs {
    /// The producer: a durable name for this input, 1 to 255 bytes. Without it, this run writes under a session of its own.
    #[arg(long, env = "SEQUOR_PRODUCER", value_name = "NAME", value_parser = name)]
    producer: Option<String>,

    /// Most records in a batch. It holds fewer when the input has no more lines for now.
    #[arg(long, default_value_t = 100, value_parser = up_to(BATCH_RECORDS_MAX))]
    batch: u64,

    /// Most batches on their way at once.
    #[arg(long, default_value_t = 16, value_parser = up_to(IN_FLIGHT_BATCHES_MAX))]
    in_flight: u64,

    #[command(flatten)]
    form: Form,

    /// Before writing, compare everything that the producer has ever written with the input. Reads the whole log.
    #[arg(long, conflicts_with = "goes_on", requires = "producer")]
    verify: bool,

    /// The input is what comes after all that is there. Do not repeat such a command: see below.
    #[arg(long = "continue", requires = "producer")]
    goes_on: bool,

    /// When a batch counts as confirmed. Whatever this says, the command ends with 0 only if a majority has everything.
    #[arg(long, default_value = "quorum")]
    acks: Acks,

    /// How to pack batches. They are stored and delivered as they were packed.
    #[arg(long, value_name = "CODEC")]
    compress: Option<Compression>,

    /// What to print on stdout: nothing, or one JSON object for each batch when it is confirmed.
    #[arg(short, long, default_value = "none")]
    output: Print,

    /// The input; standard input if it is absent or `-`.
    file: Option<PathBuf>,
}

/// When a batch counts as confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Acks {
    /// When a majority of the brokers has it on stable storage.
    Quorum,
    /// When the leader has it on stable storage. Its offsets are provisional then.
    Leader,
    /// When it was handed over. Its offsets are not known then.
    None,
}

/// How batches are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compression {
    /// As one LZ4 block.
    Lz4,
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

impl AppendArgs {
    fn in_flight(&self) -> usize {
        usize::try_from(self.in_flight).expect("it has a limit")
    }

    fn codec(&self) -> Codec {
        self.compress.map_or(Codec::None, |Compression::Lz4| Codec::Lz4)
    }
}

impl From<Acks> for protocol::Acks {
    fn from(acks: Acks) -> Self {
        match acks {
            Acks::Quorum => Self::Quorum,
            Acks::Leader => Self::Leader,
            Acks::None => Self::None,
        }
    }
}

/// Why not all pieces are in the log. They are numbered from 0, and told from 1.
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
    /// The producer cannot be opened.
    #[error("cannot write as producer {producer:?}")]
    NotOpened {
        /// The producer.
        producer: String,
        /// Why.
        source: OpenError,
    },
    /// The input is not the one from which the producer wrote before.
    #[error(
        "the input is another one: {word} {} is not what producer {producer:?} wrote as sequence {number} (offset \
         {offset}). Nothing was written. Use another producer for another input",
        .number + 1
    )]
    Different {
        /// What a piece is called.
        word: &'static str,
        /// The producer.
        producer: String,
        /// The first piece that differs.
        number: u64,
        /// Where the log has what was written.
        offset: u64,
    },
    /// The input ends before the producer's last record.
    #[error(
        "the input is another one: it ends after {}, and producer {producer:?} has written {written}. \
         Nothing was written. Use another producer for another input",
        plain_count(*.found, word)
    )]
    Shorter {
        /// What a piece is called.
        word: &'static str,
        /// The producer.
        producer: String,
        /// Pieces of the input.
        found: u64,
        /// Records in the log.
        written: u64,
    },
    /// A number was given up.
    #[error(
        "{word}s {first} to {last} can never be written: producer {producer:?} has given their numbers up. Nothing was \
         written. Use another producer for this input"
    )]
    Sealed {
        /// What a piece is called.
        word: &'static str,
        /// The producer.
        producer: String,
        /// The first piece, counted from 1.
        first: u64,
        /// The last piece, counted from 1.
        last: u64,
    },
    /// Nobody waits for the outcome.
    #[error(
        "the {word}s on their way may or may not be written: it was not waited for. Of a producer with a name, \
         `sequor producer show NAME` tells how many are"
    )]
    Abandoned {
        /// What a piece is called.
        word: &'static str,
        /// Who did not wait.
        source: Interruption,
    },
    /// The log does not have all numbers of the producer.
    #[error(
        "the log has no record of producer {producer:?} with sequence {number}, which was given up or is no longer kept: \
         the input cannot be compared with all that the producer wrote. Nothing was written"
    )]
    Missing {
        /// The producer.
        producer: String,
        /// The first number that has no record.
        number: u64,
    },
}

impl Verdict for AppendError {
    fn exit(&self) -> Exit {
        match self {
            Self::Open { .. } => Exit::Error,
            Self::NotOpened { source, .. } => source.exit(),
            Self::Abandoned { source, .. } => source.exit(),
            Self::Different { .. } | Self::Shorter { .. } | Self::Sealed { .. } | Self::Missing { .. } => {
                Exit::Precondition
            }
        }
    }
}

pub(crate) async fn run(args: AppendArgs, global: &Global) -> Result<(), Failure> {
    args.form.check()?;
    let (input, bytes) = open(args.file.as_deref()).await?;
    let mut pieces = Pieces::new(BufReader::with_capacity(READ_BYTES, input), args.form.clone());
    let client = remote::connect(global).await?;
    let producer = begin(&args, global, &client, &mut pieces).await?;
    let pieces_word = pieces.word();
    let run = Run {
        producer: args.producer.clone().unwrap_or_else(|| format!("#{}", producer.opened().id)),
        word: pieces.word(),
        there: producer.opened().next.0,
        kind: match args.producer {
            None => Kind::Session,
            Some(_) if args.goes_on => Kind::Rest,
            Some(_) => Kind::Whole,
        },
    };
    let confirmation = Confirmation::new(run.clone(), bytes, args.output);
    let mut interruptions = Interruptions::listen()?;
    let (stop, stopped) = watch::channel(None);
    tokio::select! {
        written = write(&args, &mut pieces, &producer, (run, confirmation), stopped) => written?,
        abandoned = abandon(&mut interruptions, &stop, pieces_word) => return Err(abandoned.into()),
    }
    client.close().await;
    Ok(())
}

/// Writes the pieces of the input, to its end or until it is stopped, and waits until it is known what became of them.
async fn write<R: AsyncBufRead + Unpin>(
    args: &AppendArgs,
    pieces: &mut Pieces<R>,
    producer: &sequor_client::Producer,
    (run, confirmation): (Run, Confirmation),
    stopped: watch::Receiver<Option<Interruption>>,
) -> Result<(), Failure> {
    let (to_confirm, on_their_way) = mpsc::channel(args.in_flight());
    let (sent, confirmed) =
        tokio::join!(send(args, pieces, producer, to_confirm, stopped), confirmation.run(on_their_way));
    // What could not be confirmed weighs more than what could not be read: its outcome may be unknown.
    let (confirmation, interruption) = (confirmed?, sent?);
    if args.acks != Acks::Quorum {
        // What was confirmed early has its outcome only now; what was lost says more than that something failed.
        let flushed = producer.flush().await;
        if let Some(lost) = producer.lost().await?.into_iter().next() {
            return Err(Confirmation::lost(run, lost).into());
        }
        flushed?;
    }
    match interruption {
        Some(interruption) => Err(confirmation.stopped(interruption.into()).into()),
        None => Ok(()),
    }
}

/// Stops the reading of the input at the first signal. Done at the second one: who sends it does not wait.
async fn abandon(
    interruptions: &mut Interruptions,
    stop: &watch::Sender<Option<Interruption>>,
    word: &'static str,
) -> AppendError {
    stop.send_replace(Some(interruptions.next().await));
    let source = interruptions.next().await;
    AppendError::Abandoned { word, source }
}

/// Opens the producer behind all that it has written, which is compared with the input; or a session.
async fn begin<R: AsyncBufRead + Unpin>(
    args: &AppendArgs,
    global: &Global,
    client: &Client,
    pieces: &mut Pieces<R>,
) -> Result<sequor_client::Producer, Failure> {
    let style = |producer: OpenProducer| producer.in_flight(args.in_flight()).acks(args.acks.into());
    let Some(name) = &args.producer else { return Ok(style(client.session(SESSION_TTL)).open().await?) };
    let mut job = Job {
        client,
        producer: name,
        deadline: global.deadline,
        past: args.verify.then(|| Past::new(client, global.deadline)),
    };
    if !args.goes_on
        && let Some(known) = client.lookup(name).await?
    {
        job.skip(pieces, &known).await?;
    }
    let opened = style(client.producer(name)).keep_numbers().open().await;
    let producer = opened.map_err(|source| AppendError::NotOpened { producer: name.clone(), source })?;
    if !args.goes_on {
        job.skip(pieces, producer.opened()).await?;
    }
    Ok(producer)
}

/// The input, and its size in bytes if it is a file.
async fn open(file: Option<&Path>) -> Result<(Box<dyn AsyncRead + Unpin>, Option<u64>), AppendError> {
    let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
        tell_who_types();
        return Ok((Box::new(stdin()), None));
    };
    let wrong = |source| AppendError::Open { path: path.to_path_buf(), source };
    let file = File::open(path).await.map_err(wrong)?;
    let metadata = file.metadata().await.map_err(wrong)?;
    if metadata.is_dir() {
        // Before anything is opened under the producer's name.
        return Err(wrong(io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Tells who started it without an input that it waits for one.
fn tell_who_types() {
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        // With stderr closed there is nobody to tell.
        let _ = writeln!(io::stderr(), "reading what you type; Ctrl-D at the beginning of a line ends it");
    }
}

/// Whose pieces are appended where, and with what they are compared before.
#[derive(Debug)]
struct Job<'a> {
    client: &'a Client,
    producer: &'a str,
    deadline: Duration,
    /// All that the producer wrote, if all of it is compared.
    past: Option<Past<'a>>,
}

impl Job<'_> {
    /// Reads past the pieces that `known` says are there, and compares all of them or the last.
    async fn skip<R: AsyncBufRead + Unpin>(
        &mut self,
        pieces: &mut Pieces<R>,
        known: &Producer,
    ) -> Result<(), Failure> {
        // Whoever opens it is told so.
        if known.retired {
            return Ok(());
        }
        if let Some((first, end)) = known.sealed.first() {
            let (word, producer) = (pieces.word(), self.producer.to_owned());
            return Err(AppendError::Sealed { word, producer, first: first.0 + 1, last: end.0 }.into());
        }
        let mut witness = Witness::new(&known.batches, pieces.number());
        while pieces.number() < known.next.0 {
            let Some(piece) = pieces.next().await? else {
                let (producer, found) = (self.producer.to_owned(), pieces.number());
                let (word, written) = (pieces.word(), known.next.0);
                return Err(AppendError::Shorter { word, producer, found, written }.into());
            };
            if let Some(past) = &mut self.past {
                compare(past, known, self.producer, &piece, pieces.word()).await?;
            } else if let Err(suspect) = witness.take(piece) {
                return Err(self.difference(&suspect, pieces.word()).await?.into());
            }
        }
        Ok(())
    }

    /// Reads what was written in the place of these pieces, and names the first that is another one.
    async fn difference(&self, suspect: &Suspect, word: &'static str) -> Result<AppendError, Failure> {
        let Remembered { first, offset, count, .. } = suspect.batch;
        let mut tail = self.client.tail(offset).await?;
        let mut written = Vec::new();
        while written.len() < count as usize {
            written.push(remote::within(self.deadline, tail.next()).await??.record);
        }
        let number = suspect.first_difference(&written);
        let offset = offset.plus(number - first.0).0;
        Ok(AppendError::Different { word, producer: self.producer.to_owned(), number, offset })
    }
}

/// Compares a piece with the next record of the producer's past, which has to be the one of its number.
async fn compare(
    past: &mut Past<'_>,
    known: &Producer,
    producer: &str,
    piece: &Piece,
    word: &'static str,
) -> Result<(), Failure> {
    let (producer, number) = (producer.to_owned(), piece.number);
    let written = past.next(known.id).await?.filter(|written| written.sequence.0 == number);
    match written {
        None => Err(AppendError::Missing { producer, number }.into()),
        Some(written) if piece.record(written.record.timestamp) == written.record => Ok(()),
        Some(written) => {
            let offset = written.offset.0;
            Err(AppendError::Different { word, producer, number, offset }.into())
        }
    }
}

/// Hands pieces over in batches, until the input ends, nobody confirms any more, or it is stopped: by what, then.
async fn send<R: AsyncBufRead + Unpin>(
    args: &AppendArgs,
    pieces: &mut Pieces<R>,
    producer: &sequor_client::Producer,
    to_confirm: mpsc::Sender<OnItsWay>,
    mut stopped: watch::Receiver<Option<Interruption>>,
) -> Result<Option<Interruption>, Failure> {
    let (mut next, mut interruption) = (None, None);
    let batch = usize::try_from(args.batch).expect("it has a limit");
    loop {
        let mut builder = BatchBuilder::with_limits(batch, BATCH_BYTES_MAX).packed(args.codec());
        let over = tokio::select! {
            filled = fill(&mut builder, pieces, &mut next) => filled,
            () = to_confirm.closed() => return Ok(None),
            // Whole pieces that were read are sent; half a one is not.
            Ok(found) = stopped.wait_for(Option::is_some) => {
                interruption = *found;
                Ok(Filled::InputOver)
            }
        };
        if !builder.is_empty() {
            let (read, records) = (pieces.bytes(), builder.count() as u32);
            let acknowledgement =
                Some(producer.send_batch(builder).await?).filter(|_| args.acks != Acks::None);
            if to_confirm.send(OnItsWay { acknowledgement, records, read }).await.is_err() {
                return Ok(None);
            }
        }
        if over? == Filled::InputOver {
            return Ok(interruption);
        }
    }
}

/// Why a batch takes no more pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    Full,
    NothingReady,
    InputOver,
}

/// Fills a batch: until it is full, or there is no piece to be had at once. So the piece of a slow input leaves without
/// waiting for others, and those of a fast one gather while earlier batches are on their way. A piece that has no place
/// any more waits in `next`.
async fn fill<R: AsyncBufRead + Unpin>(
    builder: &mut BatchBuilder,
    pieces: &mut Pieces<R>,
    next: &mut Option<Piece>,
) -> Result<Filled, Failure> {
    loop {
        let piece = match next.take() {
            Some(piece) => piece,
            None => {
                let read = tokio::select! {
                    biased;
                    read = pieces.next() => read?,
                    () = ready(()), if !builder.is_empty() => return Ok(Filled::NothingReady),
                };
                match read {
                    Some(piece) => piece,
                    None => return Ok(Filled::InputOver),
                }
            }
        };
        match builder.push(&piece.record(wall_clock_ms())) {
            Ok(()) => {}
            Err(PushError::Full) => {
                *next = Some(piece);
                return Ok(Filled::Full);
            }
            Err(PushError::Record(refusal)) => return Err(sequor_client::AppendError::Record(refusal).into()),
        }
    }
}
