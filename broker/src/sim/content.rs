//! What clients write: a function of a producer's name and a sequence, so that whoever judges needs no copy of it.

use std::fmt;

use bytes::Bytes;
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{Offset, ProducerId, Sequence};
use sequor_client::{Header, Record};

use super::judge::Violation;
use crate::history::{Digest, Run};

/// What a session's producer is called here: it has no name.
pub(super) fn session_name(id: ProducerId) -> String {
    format!("session {id}")
}

/// The record of a producer at a sequence. Some have a key, of these some no value, and some a header.
pub(super) fn record(producer: &str, sequence: Sequence) -> Record {
    let padding = padding(sequence);
    let value = || format!("{producer}/{sequence}/{:.<padding$}", "").into();
    Record {
        timestamp: timestamp(sequence),
        key: has_key(sequence).then(|| Bytes::copy_from_slice(&key(sequence))),
        headers: has_header(sequence).then(header).into_iter().collect(),
        value: has_value(sequence).then(value),
    }
}

fn timestamp(sequence: Sequence) -> i64 {
    i64::try_from(sequence.0).expect("a run is short") * 3 - 1000
}

fn has_key(sequence: Sequence) -> bool {
    sequence.0 % 3 == 1
}

fn key(sequence: Sequence) -> [u8; 2] {
    [b'k', sequence.0.to_le_bytes()[0] % 16]
}

/// What has no value has a key.
fn has_value(sequence: Sequence) -> bool {
    sequence.0 % 21 != 10
}

fn has_header(sequence: Sequence) -> bool {
    sequence.0 % 16 == 5
}

fn header() -> Header {
    Header { name: Bytes::from_static(b"about"), value: Bytes::from_static(b"nothing") }
}

/// The length varies so that batches and blocks do too.
fn padding(sequence: Sequence) -> usize {
    usize::try_from((sequence.0.wrapping_mul(2_654_435_761) >> 7) % 90).expect("below 90")
}

/// The digest of that record.
pub(super) fn digest(producer: &str, sequence: Sequence, record: &Record) -> Digest {
    Digest::of_record(producer, sequence.0, record.key.as_deref(), record.value.as_deref())
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
        if !is_content(&record, producer, sequence) {
            return Err(Violation(format!("{producer}/{sequence} holds something else than was sent")));
        }
        run.digest = run.digest + digest(producer, sequence, &record);
        run.count += 1;
    }
    Ok(run)
}

/// Whether a record is what [`record`] makes, without making it: this is asked more often than anything else.
fn is_content(record: &Record, producer: &str, sequence: Sequence) -> bool {
    let (key, headers) = (key(sequence), usize::from(has_header(sequence)));
    record.timestamp == timestamp(sequence)
        && record.key.as_deref() == has_key(sequence).then_some(&key[..])
        && record.headers.len() == headers
        && record.headers.iter().all(|found| *found == header())
        && record.value.is_some() == has_value(sequence)
        && record.value.as_deref().is_none_or(|value| is_value(value, producer, sequence))
}

fn is_value(value: &[u8], producer: &str, sequence: Sequence) -> bool {
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
            let made = record("a/1", sequence);
            let is = |other: &Record| is_content(other, "a/1", sequence);
            assert!(is(&made) && !is_content(&made, "a/1", sequence.plus(1)));
            assert!(!is(&Record { timestamp: made.timestamp + 1, ..made.clone() }));
            assert!(!is(&Record { headers: vec![Header::default()], ..made.clone() }));
            let key = made.key.is_none().then(Bytes::new);
            assert!(!is(&Record { key, ..made.clone() }));
            let Some(value) = &made.value else {
                assert!(!is(&Record { value: Some(Bytes::new()), ..made.clone() }));
                continue;
            };
            assert!(!is_content(&made, "a", sequence) && !is(&Record { value: None, ..made.clone() }));
            for at in 0..value.len() {
                let mut other = value.to_vec();
                other[at] ^= 1;
                assert!(!is_value(&other, "a/1", sequence), "{sequence}: byte {at} is another one");
            }
            assert!(!is_value(&value[..value.len() - 1], "a/1", sequence));
        }
        assert!(!is_value(b"a/00/", "a", Sequence(0)) && !is_value(b"a/+0/", "a", Sequence(0)));
    }
}
