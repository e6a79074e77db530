//! What became of the batches of an `append`: each is waited for in order, told, and counted.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::mpsc;

use sequor_client::{
    Acknowledgement, AppendError, Lost, Receipt, core::Failure as NotDone, protocol::Refusal,
};

use crate::{
    exit::{Exit, Failure, Verdict},
    interruption::Interruption,
    output::Output,
    shell::word,
    visible::visible,
    words::plain_count,
};

/// What to print for each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Print {
    /// Nothing; the summary is on stderr.
    None,
    /// `{"first_offset":…,"last_offset":…,"records":…,"duplicate":…}`, and `"provisional":true` if only the leader has it.
    Json,
}

/// A batch that was handed over.
#[derive(Debug)]
pub(crate) struct OnItsWay {
    /// Its outcome; none if nobody waits for it here.
    pub(crate) acknowledgement: Option<Acknowledgement>,
    /// How many records it has.
    pub(crate) records: u32,
    /// How much of the input was read when it was full. Bytes.
    pub(crate) read: u64,
}

/// One run of `append`.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Whose records are written.
    pub(crate) producer: String,
    /// What a piece of the input is called.
    pub(crate) word: &'static str,
    /// Records that were in the log before.
    pub(crate) there: u64,
    /// What the input is to the producer.
    pub(crate) kind: Kind,
}

/// What an input is to its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All of its stream: the input can be appended again and again.
    Whole,
    /// What comes after all that is there. It cannot be appended again.
    Rest,
    /// All that a session wrote. It cannot be appended again: nobody can go on under a session.
    Session,
}

/// Why not all of the input is known to be written.
#[derive(Debug, Error)]
pub(crate) enum Cause {
    /// What the brokers or the library said.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The rest was not read.
    #[error(transparent)]
    Interruption(#[from] Interruption),
}

impl Verdict for Cause {
    fn exit(&self) -> Exit {
        match self {
            Self::Append(error) => error.exit(),
            Self::Interruption(interruption) => interruption.exit(),
        }
    }
}

/// Not all of the input is known to be written.
#[derive(Debug, Error)]
pub(crate) enum StoppedError {
    /// Another run has taken the name.
    #[error(
        "another run of producer {:?} has taken over; this one wrote nothing after {} {written}",
        .run.producer, .run.word
    )]
    Fenced {
        /// This run.
        run: Run,
        /// The last piece of the input that is known to be written, counted from 1.
        written: u64,
        /// What the brokers or the library said.
        source: AppendError,
    },
    /// The outcome of some batches is not known, or they were refused.
    #[error(
        "producer {:?}: only the {}s up to {written} are known to be written. Run the same command again: it goes on \
         where the log ends, and writes nothing twice",
        .run.producer, .run.word
    )]
    Unfinished {
        /// This run.
        run: Run,
        /// The last piece of the input that is known to be written, counted from 1.
        written: u64,
        /// Why.
        source: Cause,
    },
    /// The same for an input that was written under a session.
    #[error(
        "only the first {} of this input {} known to be written. Running the same command again would write them once \
         more: with --producer NAME it would not",
        plain_count(*.written, .run.word), is_or_are(*.written)
    )]
    SessionEnded {
        /// This run.
        run: Run,
        /// How many pieces of the input are known to be written.
        written: u64,
        /// Why.
        source: Cause,
    },
    /// Some of what was confirmed early is not written.
    #[error(
        "{}s {first} to {last} of this input were handed over, and are not known to be written",
        .run.word
    )]
    Lost {
        /// This run.
        run: Run,
        /// The first piece of the input that was lost, counted from 1.
        first: u64,
        /// The last one.
        last: u64,
        /// What became of it.
        source: AppendError,
    },
    /// The same for an input that cannot be appended again.
    #[error(
        "producer {:?}: only the first {} of this input {} known to be written. Do not run the same command again, it \
         would write them once more: `sequor append --continue --producer {} /dev/null` tells how many are there in \
         the end, and all but {} of those are from this input",
        .run.producer, plain_count(*.written, .run.word), is_or_are(*.written),
        word(Path::new(&.run.producer)), .run.there
    )]
    Uncertain {
        /// This run.
        run: Run,
        /// How many pieces of the input are known to be written.
        written: u64,
        /// Why.
        source: Cause,
    },
}

impl Verdict for StoppedError {
    fn exit(&self) -> Exit {
        match self {
            Self::Fenced { .. } => Exit::Precondition,
            Self::Unfinished { source, .. }
            | Self::Uncertain { source, .. }
            | Self::SessionEnded { source, .. } => source.exit(),
            Self::Lost { source, .. } => source.exit(),
        }
    }
}

/// One line of `-o json`.
#[derive(Debug, Serialize)]
struct Printed {
    first_offset: Option<u64>,
    last_offset: Option<u64>,
    records: u32,
    duplicate: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    provisional: bool,
}

impl Printed {
    fn new(records: u32, receipt: Option<&Receipt>) -> Self {
        Self {
            first_offset: receipt.map(|receipt| receipt.first_offset.0),
            last_offset: receipt.map(|receipt| receipt.last_offset.0),
            records,
            duplicate: receipt.is_some_and(|receipt| receipt.duplicate),
            provisional: receipt.is_none_or(|receipt| receipt.provisional),
        }
    }
}

/// Counts what is confirmed.
#[derive(Debug)]
pub(crate) struct Confirmation {
    run: Run,
    print: Print,
    progress: ProgressBar,
    start: Instant,
    records: u64,
    batches: u64,
    duplicates: u64,
    /// First and last offset.
    offsets: Option<(u64, u64)>,
}

impl Confirmation {
    /// Begins after the records that are there, in an input of so many bytes, if that is known.
    pub(crate) fn new(run: Run, bytes: Option<u64>, print: Print) -> Self {
        let (progress, start) = (progress(bytes), Instant::now());
        Self { run, print, progress, start, records: 0, batches: 0, duplicates: 0, offsets: None }
    }

    /// Waits for each batch in order, until there will be no other or one is not written.
    ///
    /// # Errors
    /// [`StoppedError`], or one of stdout.
    pub(crate) async fn run(mut self, on_their_way: mpsc::Receiver<OnItsWay>) -> Result<Self, Failure> {
        let mut output = Output::new();
        let outcome = self.follow(on_their_way, &mut output).await;
        self.progress.finish_and_clear();
        let printed = match output.flush().await {
            Err(Failure::ReaderGone) => Ok(()),
            printed => printed,
        };
        self.tell();
        // What is not known to be written weighs more than what could not be printed.
        outcome.and(printed).map(|()| self)
    }

    async fn follow(
        &mut self,
        mut on_their_way: mpsc::Receiver<OnItsWay>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        while let Some(OnItsWay { acknowledgement, records, read }) = on_their_way.recv().await {
            let receipt = match acknowledgement {
                Some(acknowledgement) => {
                    Some(acknowledgement.await.map_err(|error| self.stopped(error.into()))?)
                }
                None => None,
            };
            self.take(records, receipt.as_ref());
            self.progress.set_position(read);
            if self.print == Print::Json {
                output.push_json(&Printed::new(records, receipt.as_ref()));
                // Others wait for these lines: whatever is confirmed is printed before the next wait.
                let printed =
                    if on_their_way.is_empty() { output.flush().await } else { output.settle().await };
                match printed {
                    // The lines are what was asked for: they are appended to the last one, read about or not.
                    Err(Failure::ReaderGone) => self.print = Print::None,
                    printed => printed?,
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, records: u32, receipt: Option<&Receipt>) {
        self.records += u64::from(records);
        self.batches += 1;
        let Some(receipt) = receipt else { return };
        self.duplicates += u64::from(receipt.duplicate);
        let first = self.offsets.map_or(receipt.first_offset.0, |(first, _)| first);
        self.offsets = Some((first, receipt.last_offset.0));
    }

    /// What of the input was lost, if anything, though it was confirmed.
    pub(crate) fn lost(run: Run, lost: Lost) -> StoppedError {
        let before = if run.kind == Kind::Rest { run.there } else { 0 };
        let (first, last) = (lost.first.0 - before + 1, lost.last.0 - before + 1);
        StoppedError::Lost { run, first, last, source: lost.why }
    }

    /// How far it came when it was stopped.
    pub(crate) fn stopped(&self, source: Cause) -> StoppedError {
        let run = self.run.clone();
        let written = if run.kind == Kind::Whole { run.there + self.records } else { self.records };
        match source {
            Cause::Append(
                source @ (AppendError::Fenced { .. }
                | AppendError::Failed(NotDone::Refused(Refusal::Fenced { .. }))),
            ) => StoppedError::Fenced { run, written, source },
            _ => match run.kind {
                Kind::Whole => StoppedError::Unfinished { run, written, source },
                Kind::Rest => StoppedError::Uncertain { run, written, source },
                Kind::Session => StoppedError::SessionEnded { run, written, source },
            },
        }
    }

    /// Tells on stderr what was there and what is there now.
    fn tell(&self) {
        // With stderr closed there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{}", self.summary(self.start.elapsed()));
    }

    fn summary(&self, took: Duration) -> String {
        let Self { records, batches, duplicates, .. } = *self;
        let Run { producer, word, there, kind } = &self.run;
        let before = match kind {
            Kind::Whole => {
                format!("{} {} already there; ", plain_count(*there, word), was_or_were(*there))
            }
            // Those before need not have been lines.
            Kind::Rest => {
                format!("{} {} already there; ", plain_count(*there, "record"), was_or_were(*there))
            }
            Kind::Session => String::new(),
        };
        let done = match self.offsets {
            None if records == 0 => "nothing appended".to_owned(),
            None => format!("appended {records} in {}", plain_count(batches, "batch")),
            Some((first, last)) => format!(
                "appended {records} in {}, offsets {first} to {last}, in {:.2} s",
                plain_count(batches, "batch"),
                took.as_secs_f64()
            ),
        };
        let again = match duplicates {
            0 => String::new(),
            _ => format!(
                "; {} {} written when the answer was lost, and not written again",
                plain_count(duplicates, "batch"),
                was_or_were(duplicates)
            ),
        };
        format!("{}: {before}{done}{again}", visible(producer))
    }
}

fn is_or_are(number: u64) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

fn was_or_were(number: u64) -> &'static str {
    if number == 1 { "was" } else { "were" }
}

/// A bar on a terminal, nothing elsewhere.
fn progress(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = |template| ProgressStyle::with_template(template).expect("the template is sound");
    match bytes {
        Some(bytes) => ProgressBar::new(bytes)
            .with_style(style("{bar:40} {binary_bytes} of {binary_total_bytes}, {elapsed}, {eta} to go")),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {binary_bytes} appended, {elapsed}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(producer: &str, there: u64, kind: Kind) -> Run {
        Run { producer: producer.to_owned(), word: "line", there, kind }
    }

    /// What is told of a producer when so many lines were there and these batches of one record each were confirmed.
    fn told(producer: &str, there: u64, batches: u64, duplicates: u64) -> String {
        let confirmation = Confirmation {
            records: batches,
            batches,
            duplicates,
            offsets: batches.checked_sub(1).map(|last| (0, last)),
            ..Confirmation::new(run(producer, there, Kind::Whole), None, Print::None)
        };
        confirmation.summary(Duration::from_millis(1500))
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(told("p", 0, 0, 0), "p: 0 lines were already there; nothing appended");
        assert_eq!(
            told("p", 1, 1, 1),
            "p: 1 line was already there; appended 1 in 1 batch, offsets 0 to 0, in 1.50 s; 1 batch was written when \
             the answer was lost, and not written again"
        );
        assert_eq!(
            told("p", 20_000, 3, 2),
            "p: 20000 lines were already there; appended 3 in 3 batches, offsets 0 to 2, in 1.50 s; 2 batches were \
             written when the answer was lost, and not written again"
        );
    }

    #[test]
    fn the_producer_cannot_command_the_terminal() {
        assert!(told("\u{1b}[2Jp\n", 0, 0, 0).starts_with(r"\u{1b}[2Jp\n: "));
    }

    #[test]
    fn who_may_not_repeat_the_command_is_told_so() {
        let stopped = |kind| {
            let confirmation = Confirmation::new(run("it's", 7, kind), None, Print::None);
            Confirmation { records: 2, ..confirmation }.stopped(AppendError::Closed.into()).to_string()
        };
        assert_eq!(
            stopped(Kind::Whole),
            "producer \"it's\": only the lines up to 9 are known to be written. Run the same command again: it goes on \
             where the log ends, and writes nothing twice"
        );
        assert_eq!(
            stopped(Kind::Rest),
            r#"producer "it's": only the first 2 lines of this input are known to be written. Do not run the same command again, it would write them once more: `sequor append --continue --producer 'it'\''s' /dev/null` tells how many are there in the end, and all but 7 of those are from this input"#
        );
        assert_eq!(
            stopped(Kind::Session),
            "only the first 2 lines of this input are known to be written. Running the same command again would write \
             them once more: with --producer NAME it would not"
        );
    }
}
