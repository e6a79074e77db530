//! A broken promise, with everything that is needed to look for it in the logs.

use thiserror::Error;

use super::Run;

/// See the file's header. Numbers are those of a producer's stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// Acknowledged, and in no place of the log.
    #[error("LOST: {producer}/{sequence} was acknowledged at offset {offset} and is not in the log")]
    Lost {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// The offset that was told.
        offset: u64,
    },
    /// Called written, or used up, and the log knows nothing of it.
    #[error("LOST: {producer}/{sequence} was called written or used up, and the log has nothing of it")]
    Missing {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
    },
    /// Acknowledged at one offset, and found at another.
    #[error("MISPLACED: {producer}/{sequence} was acknowledged at offset {told} and lies at {found}")]
    Misplaced {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// The offset that was told.
        told: u64,
        /// Where it lies.
        found: u64,
    },
    /// In the log twice.
    #[error("DOUBLED: {producer}/{sequence} lies at offset {offset}, and in front of it too")]
    Doubled {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// Its second place.
        offset: u64,
    },
    /// Behind a higher number of its producer.
    #[error("REORDERED: {producer}/{sequence} lies at offset {offset}, behind number {before}")]
    Reordered {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// Its place.
        offset: u64,
        /// The highest number in front of it.
        before: u64,
    },
    /// Numbers are left out that nothing gave up.
    #[error("GAP: {producer}: numbers {from} to {to} are neither written nor given up")]
    Gap {
        /// Whose.
        producer: String,
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Written though its sender was told that it never will be.
    #[error("REFUSED AND WRITTEN: {producer}/{sequence} of epoch {epoch} lies at offset {offset}")]
    RefusedAndWritten {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// The epoch under which it was refused.
        epoch: u64,
        /// Its place.
        offset: u64,
    },
    /// Written though it was called sealed.
    #[error("SEALED AND WRITTEN: {producer}/{sequence} lies at offset {offset}")]
    SealedAndWritten {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// Its place.
        offset: u64,
    },
    /// Written under an epoch behind the opening that gave another one to somebody else.
    #[error(
        "FENCED AND WRITTEN: {producer}/{sequence} of epoch {epoch} lies at offset {offset}, behind epoch {by}"
    )]
    FencedAndWritten {
        /// Whose.
        producer: String,
        /// The first number of the batch.
        sequence: u64,
        /// The epoch that it carries.
        epoch: u64,
        /// Its place.
        offset: u64,
        /// The epoch that was given last.
        by: u64,
    },
    /// A name was opened under an epoch that is not above the one before.
    #[error("EPOCH REUSED: {producer} was opened under epoch {epoch}, behind epoch {before}")]
    EpochReused {
        /// Whose.
        producer: String,
        /// The epoch.
        epoch: u64,
        /// The one before.
        before: u64,
    },
    /// An entry that uses no number up.
    #[error("EMPTY: an entry of {producer} behind offset {offset} has no number")]
    Empty {
        /// Whose.
        producer: String,
        /// One past the last offset in front of it.
        offset: u64,
    },
    /// Told that numbers are not used up of which somebody knew that they are, before the question.
    #[error(
        "STALE: question {id} was told that {producer}/{told} is open, when all below {used} was used up"
    )]
    StaleStream {
        /// Which question.
        id: u64,
        /// Whose.
        producer: String,
        /// The number that was told.
        told: u64,
        /// One past the last number that was known to be used up.
        used: u64,
    },
    /// Called sealed, and neither written nor given up by any entry: it could still be written.
    #[error("SEALED AND OPEN: {producer}/{sequence} was called sealed, and nothing in the log gives it up")]
    SealedAndOpen {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
    },
    /// Nobody sent it, under this epoch.
    #[error(
        "FROM NOWHERE: nobody sent {producer}/{sequence} under epoch {epoch}; it lies at offset {offset}"
    )]
    FromNowhere {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// The epoch that it carries.
        epoch: u64,
        /// Its place.
        offset: u64,
    },
    /// Other bytes than were sent.
    #[error("CHANGED: {} records from {}/{} on, at offset {}, are not what was sent", .run.count, .run.producer, .run.first, .run.offset)]
    Changed {
        /// The batch, as the log holds it.
        run: Box<Run>,
    },
    /// An offset is left out or used twice.
    #[error("NOT DENSE: broker {broker} has offset {found} where {expected} comes next")]
    NotDense {
        /// Whose log.
        broker: u64,
        /// What comes next.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// Two logs differ.
    #[error("LOGS DIFFER: at offset {offset} broker {broker} has another entry than broker {reference}")]
    LogsDiffer {
        /// A broker.
        broker: u64,
        /// Another one.
        reference: u64,
        /// The first offset at which they differ.
        offset: u64,
    },
    /// Two logs end in different places.
    #[error("LOGS DIFFER: broker {broker} ends at offset {end}, broker {reference} at {expected}")]
    EndsDiffer {
        /// A broker.
        broker: u64,
        /// Its end.
        end: u64,
        /// Another one.
        reference: u64,
        /// Its end.
        expected: u64,
    },
    /// A reader was given another offset than the next one.
    #[error("MISREAD: reader {reader} was given offset {found} where {expected} comes next")]
    Misread {
        /// Which reader.
        reader: u64,
        /// What comes next.
        expected: u64,
        /// What it was given.
        found: u64,
    },
    /// A reader was given what is not in the log.
    #[error("MISREAD: what reader {reader} was given at offset {offset} is not what lies there")]
    ReadDiffers {
        /// Which reader.
        reader: u64,
        /// Where.
        offset: u64,
    },
    /// Begun after something was acknowledged, and written in front of it.
    #[error(
        "OUT OF TIME: {producer}/{sequence} lies at offset {offset}; the log ended at {end} before it was sent"
    )]
    OutOfTime {
        /// Whose.
        producer: String,
        /// The number.
        sequence: u64,
        /// Its place.
        offset: u64,
        /// Where the log had ended, at least.
        end: u64,
    },
    /// An end of the log that lies in front of what was acknowledged before the question.
    #[error(
        "STALE: question {id} was answered with end {told}, when the log ended at {end} before it was asked"
    )]
    StaleEnd {
        /// Which question.
        id: u64,
        /// The answer.
        told: u64,
        /// Where the log had ended, at least.
        end: u64,
    },
    /// An end of the log that the log does not reach.
    #[error("LOST: question {id} was answered with end {told}, and the log ends at {end}")]
    EndBeyond {
        /// Which question.
        id: u64,
        /// The answer.
        told: u64,
        /// Where the log ends.
        end: u64,
    },
    /// The history itself makes no sense: whoever wrote it is wrong.
    #[error("NO HISTORY: {0}")]
    Unsound(String),
}

impl Violation {
    /// Whether acknowledged records are not where they have to be.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. } | Self::Missing { .. } | Self::Misplaced { .. } | Self::EndBeyond { .. }
        )
    }

    /// Whether records are there twice.
    #[must_use]
    pub fn is_double(&self) -> bool {
        matches!(self, Self::Doubled { .. })
    }
}
