//! What clients write: a function of a producer's name and a sequence, so that whoever judges needs no copy of it.

use bytes::Bytes;
use sequor_client::protocol::{ProducerId, Sequence};

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
