//! What clients write: a function of a producer's name and a sequence, so that whoever judges needs no copy of it.

use std::fmt;

use bytes::Bytes;
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{Offset, ProducerId, Sequence};

use super::judge::Violation;
use crate::history::{Digest, Run};

/// What a session's producer is called here: it has no name.
pub(super) fn session_name(id: ProducerId) -> String {
    format!("session {id}")
}

/// What the record of a producer at a sequence must contain.
pub(super) fn content(producer: &str, sequence: Sequence) -> Bytes {
    let padding = padding(sequence);
    format!("{producer}/{sequence}/{:.<padding$}", "").into()
}

/// The length varies so that batches and blocks do too.
fn padding(sequence: Sequence) -> usize {
    usize::try_from((sequence.0.wrapping_mul(2_654_435_761) >> 7) % 90).expect("below 90")
}

/// The digest of that record.
pub(super) fn digest(producer: &str, sequence: Sequence, value: &[u8]) -> Digest {
    Digest::of_record(producer, sequence.0, None, Some(value))
}

/// A batch of a log, or what of it is left behind its first `skip` records.
///
/// # Errors
/// If a record holds something else than its producer sent.
pub(super) fn run(producer: &str, base: Offset, batch: &Batch, skip: u32) -> Result<Run, Violation> {
    let first = batch.first_sequence().plus(skip.into());
    let mut run = Run {
        offset: base.plus(skip.into()).0,
        producer: producer.to_owned(),
        epoch: batch.epoch().0,
        first: first.0,
        count: 0,
        digest: Digest::default(),
    };
    let unreadable =
        |cause: &dyn fmt::Display| Violation(format!("{producer}/{first} cannot be read: {cause}"));
    let unpacked = batch.unpacked().map_err(|error| unreadable(&error))?;
    for (at, record) in (0..).zip(unpacked.records().skip(skip as usize)) {
        let (sequence, record) = (first.plus(at), record.map_err(|error| unreadable(&error))?);
        let value = record.value.unwrap_or_default();
        if !is_content(&value, producer, sequence) {
            return Err(Violation(format!("{producer}/{sequence} holds something else than was sent")));
        }
        run.digest = run.digest + digest(producer, sequence, &value);
        run.count += 1;
    }
    Ok(run)
}

/// Whether a record holds what [`content`] made, without making it: this is asked more often than anything else.
pub(super) fn is_content(value: &[u8], producer: &str, sequence: Sequence) -> bool {
    let matches = || {
        let value = value.strip_prefix(producer.as_bytes())?.strip_prefix(b"/")?;
        let digits = value.iter().position(|byte| *byte == b'/')?;
        let (number, dots) = (&value[..digits], &value[digits + 1..]);
        let is_plain = number == b"0" || number.first().is_some_and(|digit| (b'1'..=b'9').contains(digit));
        let number: u64 = std::str::from_utf8(number).ok()?.parse().ok()?;
        let is_padded = dots.len() == padding(sequence) && dots.iter().all(|dot| *dot == b'.');
        Some(is_plain && number == sequence.0 && is_padded)
    };
    matches().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_is_taken_for_content() {
        for sequence in (0..2_000).map(Sequence) {
            let value = content("a/1", sequence);
            assert!(is_content(&value, "a/1", sequence));
            assert!(!is_content(&value, "a", sequence) && !is_content(&value, "a/1", sequence.plus(1)));
            for at in 0..value.len() {
                let mut other = value.to_vec();
                other[at] ^= 1;
                assert!(!is_content(&other, "a/1", sequence), "{sequence}: byte {at} is another one");
            }
            assert!(!is_content(&value[..value.len() - 1], "a/1", sequence));
        }
        assert!(!is_content(b"a/00/", "a", Sequence(0)) && !is_content(b"a/+0/", "a", Sequence(0)));
    }
}
