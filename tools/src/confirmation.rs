//! What became of the batches of an `append`: each is waited for in order, told, and counted.

use std::{
    io::{self, IsTerminal as _, Write as _},
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

/// Not all of the input is known to be written.
#[derive(Debug, Error)]
pub(crate) enum StoppedError {
    /// Another run has taken the name.
    #[error("another run of producer {producer:?} has taken over; this one wrote nothing after line {line}")]
    Fenced {
        /// The producer.
        producer: String,
        /// The last line that is known to be written, counted from 1.
        line: u64,
        /// What the brokers or the library said.
        source: AppendError,
    },
    /// The outcome of some batches is not known, or they were refused.
    #[error(
        "producer {producer:?}: only the lines up to {line} are known to be written. Run the same command again: it \
         goes on where the log ends, and writes nothing twice"
    )]
    Unfinished {
        /// The producer.
        producer: String,
        /// The last line that is known to be written, counted from 1.
        line: u64,
        /// What the brokers or the library said.
        source: AppendError,
    },
}

impl Verdict for StoppedError {
    fn exit(&self) -> Exit {
        match self {
            Self::Fenced { .. } => Exit::Precondition,
            Self::Unfinished { source, .. } => source.exit(),
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
pub(crate) struct Confirmation<'a> {
    producer: &'a str,
    /// Lines that were in the log before.
    there: u64,
    acks: Acks,
    progress: ProgressBar,
    start: Instant,
    records: u64,
    batches: u64,
    duplicates: u64,
    /// First and last offset.
    offsets: Option<(u64, u64)>,
}

impl<'a> Confirmation<'a> {
    /// Begins after the lines that are `there`, in an input of so many bytes, if that is known.
    pub(crate) fn new(producer: &'a str, there: u64, bytes: Option<u64>, acks: Acks) -> Self {
        let (progress, start) = (progress(bytes), Instant::now());
        Self { producer, there, acks, progress, start, records: 0, batches: 0, duplicates: 0, offsets: None }
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
        let (producer, line) = (self.producer.to_owned(), self.there + self.records);
        match source {
            AppendError::Fenced { .. } | AppendError::Failed(NotDone::Refused(Refusal::Fenced { .. })) => {
                StoppedError::Fenced { producer, line, source }
            }
            _ => StoppedError::Unfinished { producer, line, source },
        }
    }

    /// Tells on stderr what was there and what is there now.
    fn tell(&self) {
        // With stderr closed there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{}", self.summary(self.start.elapsed()));
    }

    fn summary(&self, took: Duration) -> String {
        let Self { producer, there, records, batches, duplicates, .. } = *self;
        let (lines, were) = (plain_count(there, "line"), was_or_were(there));
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
        format!("{}: {lines} {were} already there; {done}{again}", visible(producer))
    }
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

    /// What is told of a producer when so many lines were there and these batches of one record each were confirmed.
    fn told(producer: &str, there: u64, batches: u64, duplicates: u64) -> String {
        let confirmation = Confirmation {
            records: batches,
            batches,
            duplicates,
            offsets: batches.checked_sub(1).map(|last| (0, last)),
            ..Confirmation::new(producer, there, None, Acks::None)
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
}
