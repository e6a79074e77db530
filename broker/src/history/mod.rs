//! A history: what clients were told, what readers were given and what logs hold; and the check that all of it agrees.
//!
//! ```text
//!   clients ─ Invoked, Written, Refused, Unknown … ─┐
//!   readers ─ Read ─────────────────────────────────┼─► Checker ─► Verdict: what was seen, and what was broken
//!   logs    ─ Held, GaveUp, Ended ──────────────────┘
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `event.rs` | one thing that happened |
//! | `digest.rs` | what records contain, as a number that adds up |
//! | `attempts.rs` | what was sent under one producer's name, and what became of it |
//! | `held.rs` | the log, as the first broker holds it |
//! | `violation.rs` | a broken promise |
//! | `checker.rs` | all of it held against each other |
//! | `checker/judgement.rs` | what can only be said at the end |
//!
//! Nothing here does I/O, knows a clock, or asks a broker: a history is judged the same when it happens, when it is read
//! from a file years later, and when a simulator wrote it. The checker keeps facts of batches and none of records, so
//! ten million records in a million requests fit a few hundred megabytes.
//!
//! # What has to hold
//!
//! 1. A batch that was acknowledged lies at the offsets that were told, in every log.
//! 2. A (producer, number) is in the log at most once; a producer's numbers lie there in their order, and none is left
//!    out but those that an entry of the log gives up.
//! 3. Nothing is there that nobody sent, under the epoch that it carries, or that its sender was told will never be; nor
//!    behind the opening that gave the name to somebody else. Each opening gives a higher epoch.
//! 4. Every batch has the content that was sent under its numbers.
//! 5. Offsets are dense from 0, and all logs are the same.
//! 6. Readers were given the log, from where they began, without gap or repeat.
//! 7. What was begun after something else was acknowledged, read, or told to be the end, lies behind it; so does the end of
//!    the log that is asked for after it. An end that was told is there.
//!    A number that is called open was not known to be used up before the question.
//! 8. A number that was called sealed is given up by an entry of the log; one that was called committed is in all logs.
//!
//! What is unknown may be there or not, once.

mod attempts;
mod checker;
mod digest;
mod event;
mod held;
#[cfg(test)]
mod tests;
mod violation;

pub use self::{
    checker::{Checker, Seen, Verdict},
    digest::Digest,
    event::{Event, Place, Run},
    violation::Violation,
};
