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

use sequor_client::{Acknowledgement, AppendError, Receipt, core::Failure as NotDone, protocol::Refusal};

use crate::{
    exit::{Exit, Failure, Verdict},
    output::Output,
    shell::word,
    visible::visible,
    words::plain_count,
};

/// What to print for each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Acks {
    /// Nothing; the summary is on stderr.
    None,
    /// `{"first_offset":…,"last_offset":…,"records":…,"duplicate":…}`
    Json,
}

/// A batch that was handed over.
#[derive(Debug)]
pub(crate) struct OnItsWay {
    /// Its outcome.
    pub(crate) acknowledgement: Acknowledgement,
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
    /// They are not the beginning of the input: that comes after them, and cannot be appended again.
    pub(crate) goes_on: bool,
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
        /// What the brokers or the library said.
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
        /// What the brokers or the library said.
        source: AppendError,
    },
}

impl Verdict for StoppedError {
    fn exit(&self) -> Exit {
        match self {
            Self::Fenced { .. } => Exit::Precondition,
            Self::Unfinished { source, .. } | Self::Uncertain { source, .. } => source.exit(),
        }
    }
}

/// One line of `-o json`.
#[derive(Debug, Serialize)]
struct Printed {
    first_offset: u64,
    last_offset: u64,
    records: u32,
    duplicate: bool,
}

/// Counts what is confirmed.
#[derive(Debug)]
pub(crate) struct Confirmation {
    run: Run,
    acks: Acks,
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
    pub(crate) fn new(run: Run, bytes: Option<u64>, acks: Acks) -> Self {
        let (progress, start) = (progress(bytes), Instant::now());
        Self { run, acks, progress, start, records: 0, batches: 0, duplicates: 0, offsets: None }
    }

    /// Waits for each batch in order, until there will be no other or one is not written.
    ///
    /// # Errors
    /// [`StoppedError`], or one of stdout.
    pub(crate) async fn run(mut self, on_their_way: mpsc::Receiver<OnItsWay>) -> Result<(), Failure> {
        let mut output = Output::new();
        let outcome = self.follow(on_their_way, &mut output).await;
        self.progress.finish_and_clear();
        let printed = match output.flush().await {
            Err(Failure::ReaderGone) => Ok(()),
            printed => printed,
        };
        self.tell();
        // What is not known to be written weighs more than what could not be printed.
        outcome.and(printed)
    }

    async fn follow(
        &mut self,
        mut on_their_way: mpsc::Receiver<OnItsWay>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        while let Some(OnItsWay { acknowledgement, read }) = on_their_way.recv().await {
            let receipt = acknowledgement.await.map_err(|error| self.stopped(error))?;
            self.take(&receipt);
            self.progress.set_position(read);
            if self.acks == Acks::Json {
                output.push_json(&Printed {
                    first_offset: receipt.first_offset.0,
                    last_offset: receipt.last_offset.0,
                    records: receipt.records,
                    duplicate: receipt.duplicate,
                });
                // Others wait for these lines: whatever is confirmed is printed before the next wait.
                let printed =
                    if on_their_way.is_empty() { output.flush().await } else { output.settle().await };
                match printed {
                    // The lines are what was asked for: they are appended to the last one, read about or not.
                    Err(Failure::ReaderGone) => self.acks = Acks::None,
                    printed => printed?,
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, receipt: &Receipt) {
        self.records += u64::from(receipt.records);
        self.batches += 1;
        self.duplicates += u64::from(receipt.duplicate);
        let first = self.offsets.map_or(receipt.first_offset.0, |(first, _)| first);
        self.offsets = Some((first, receipt.last_offset.0));
    }

    fn stopped(&self, source: AppendError) -> StoppedError {
        let run = self.run.clone();
        let written = if run.goes_on { self.records } else { run.there + self.records };
        match source {
            AppendError::Fenced { .. } | AppendError::Failed(NotDone::Refused(Refusal::Fenced { .. })) => {
                StoppedError::Fenced { run, written, source }
            }
            _ if run.goes_on => StoppedError::Uncertain { run, written, source },
            _ => StoppedError::Unfinished { run, written, source },
        }
    }

    /// Tells on stderr what was there and what is there now.
    fn tell(&self) {
        // With stderr closed there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{}", self.summary(self.start.elapsed()));
    }

    fn summary(&self, took: Duration) -> String {
        let Self { records, batches, duplicates, .. } = *self;
        let Run { producer, word, there, goes_on } = &self.run;
        // Those before need not have been lines.
        let pieces = plain_count(*there, if *goes_on { "record" } else { word });
        let were = was_or_were(*there);
        let done = match self.offsets {
            None => "nothing appended".to_owned(),
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
        format!("{}: {pieces} {were} already there; {done}{again}", visible(producer))
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

    fn run(producer: &str, there: u64, goes_on: bool) -> Run {
        Run { producer: producer.to_owned(), word: "line", there, goes_on }
    }

    /// What is told of a producer when so many lines were there and these batches of one record each were confirmed.
    fn told(producer: &str, there: u64, batches: u64, duplicates: u64) -> String {
        let confirmation = Confirmation {
            records: batches,
            batches,
            duplicates,
            offsets: batches.checked_sub(1).map(|last| (0, last)),
            ..Confirmation::new(run(producer, there, false), None, Acks::None)
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
        let stopped = |goes_on| {
            let confirmation = Confirmation::new(run("it's", 7, goes_on), None, Acks::None);
            Confirmation { records: 2, ..confirmation }.stopped(AppendError::Closed).to_string()
        };
        assert_eq!(
            stopped(false),
            "producer \"it's\": only the lines up to 9 are known to be written. Run the same command again: it goes on \
             where the log ends, and writes nothing twice"
        );
        assert_eq!(
            stopped(true),
            r#"producer "it's": only the first 2 lines of this input are known to be written. Do not run the same command again, it would write them once more: `sequor append --continue --producer 'it'\''s' /dev/null` tells how many are there in the end, and all but 7 of those are from this input"#
        );
    }
}
