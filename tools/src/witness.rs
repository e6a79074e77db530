//! The producer's last committed batches, as witnesses that the input is the same one as before.
//!
//! A piece's number is its sequence, so a second run with another file would silently continue in the middle of it. The
//! log remembers a producer's newest batches with the digest of their content. The same pieces, put into a batch of the
//! same size, have the same digest; where they do not, the log is read and the first piece that differs is named.

use std::collections::VecDeque;

use bytes::Bytes;

use sequor_client::protocol::{
    Epoch, ProducerId, Remembered, Sequence,
    batch::{Batch, BatchBuilder, Record},
    limits::BATCH_BYTES_MAX,
};

use crate::pieces::Piece;

/// Compares pieces with what a producer wrote.
///
/// Invariants: `batches` ascend and do not overlap; `pieces` holds the pieces from the first number of the first batch
/// up to, not including, the next piece that [`take`](Self::take) wants.
#[derive(Debug)]
pub(crate) struct Witness {
    batches: VecDeque<Remembered>,
    pieces: Vec<Piece>,
}

/// A batch whose content is not what the input has in its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// What was written.
    pub(crate) batch: Remembered,
    /// The pieces of the input in its place.
    pub(crate) pieces: Vec<Piece>,
}

impl Witness {
    /// A witness of what `batches` say, as far as pieces from number `from` on can be compared with it.
    pub(crate) fn new(batches: &[Remembered], from: u64) -> Self {
        let batches = batches.iter().filter(|batch| batch.first.0 >= from).copied().collect();
        Self { batches, pieces: Vec::new() }
    }

    /// Compares the next piece, which may complete a batch.
    ///
    /// # Errors
    /// If the batch that it completes is another one. The witness is of no more use then.
    pub(crate) fn take(&mut self, piece: Piece) -> Result<(), Suspect> {
        let Some(batch) = self.batches.front().copied() else { return Ok(()) };
        if piece.number < batch.first.0 {
            return Ok(());
        }
        self.pieces.push(piece);
        if self.pieces.len() < batch.count as usize {
            return Ok(());
        }
        let pieces = std::mem::take(&mut self.pieces);
        self.batches.pop_front();
        match digest(&pieces) {
            Some(digest) if digest == batch.digest => Ok(()),
            _ => Err(Suspect { batch, pieces }),
        }
    }
}

impl Suspect {
    /// The number of the first piece that is not what `written` says; `written` are the records of the batch.
    pub(crate) fn first_difference(&self, written: &[Record]) -> u64 {
        let same = |(piece, record): &(&Piece, &Record)| piece.record(record.timestamp) == **record;
        let equal = self.pieces.iter().zip(written).take_while(same).count();
        self.batch.first.0 + equal as u64
    }
}

/// The digest of a batch of these pieces; none if they do not fit one.
fn digest(pieces: &[Piece]) -> Option<[u8; 16]> {
    let mut builder = BatchBuilder::with_limits(pieces.len(), BATCH_BYTES_MAX);
    for piece in pieces {
        builder.push(&piece.record(0)).ok()?;
    }
    let bytes: Bytes = builder.seal(ProducerId(0), Epoch(0), Sequence(0));
    Batch::trusted(bytes).ok().map(|batch| batch.digest())
}

#[cfg(test)]
mod tests {
    use sequor_client::protocol::Offset;

    use super::*;

    fn line(number: u64, content: &str) -> Piece {
        Piece { number, key: None, value: Bytes::copy_from_slice(content.as_bytes()), ended: true }
    }

    fn input(words: &[&str]) -> Vec<Piece> {
        (0..).zip(words).map(|(number, word)| line(number, word)).collect()
    }

    fn remembered(lines: &[Piece]) -> Remembered {
        Remembered {
            first: Sequence(lines[0].number),
            count: u32::try_from(lines.len()).unwrap(),
            offset: Offset(1000 + lines[0].number),
            digest: digest(lines).unwrap(),
        }
    }

    /// Gives `lines` to a witness of `batches`; the first batch it objects to, if any.
    fn compare(batches: &[Remembered], from: u64, lines: &[Piece]) -> Option<Suspect> {
        let mut witness = Witness::new(batches, from);
        lines[from as usize..].iter().find_map(|line| witness.take(line.clone()).err())
    }

    #[test]
    fn the_same_input_passes_from_any_point() {
        let lines = input(&["a", "b", "c", "d", "e", "f"]);
        let batches = [remembered(&lines[1..3]), remembered(&lines[3..6])];
        for from in [0, 1, 2, 3, 5] {
            assert_eq!(compare(&batches, from, &lines), None, "from {from}");
        }
    }

    #[test]
    fn the_first_line_that_differs_is_found() {
        let was = input(&["a", "b", "c", "d", "e", "f"]);
        let batches = [remembered(&was[1..3]), remembered(&was[3..6])];
        let is = input(&["x", "b", "c", "d", "E", "F"]);
        let suspect = compare(&batches, 0, &is).expect("line 4 differs");
        assert_eq!(suspect.batch, batches[1], "line 0 is older than what is remembered");
        let written: Vec<_> = was[3..6].iter().map(|line| line.record(77)).collect();
        assert_eq!(suspect.first_difference(&written), 4);
    }

    #[test]
    fn a_newline_that_was_added_later_is_a_difference() {
        let mut was = input(&["a", "b"]);
        was[1].ended = false;
        let is = input(&["a", "b"]);
        let suspect = compare(&[remembered(&was)], 0, &is).expect("the last line differs");
        let written: Vec<_> = was.iter().map(|line| line.record(77)).collect();
        assert_eq!(suspect.first_difference(&written), 1);
    }

    #[test]
    fn lines_that_fit_no_batch_together_are_a_difference() {
        let was = input(&["a", "b"]);
        let long = "x".repeat(BATCH_BYTES_MAX / 2);
        let suspect = compare(&[remembered(&was)], 0, &input(&[&long, &long]));
        let written: Vec<_> = was.iter().map(|line| line.record(77)).collect();
        assert_eq!(suspect.expect("both differ").first_difference(&written), 0);
    }

    #[test]
    fn a_key_is_compared_too() {
        let was = input(&["a", "b"]);
        let mut is = was.clone();
        is[1].key = Some(Bytes::new());
        let suspect = compare(&[remembered(&was)], 0, &is).expect("an empty key is not none");
        let written: Vec<_> = was.iter().map(|line| line.record(77)).collect();
        assert_eq!(suspect.first_difference(&written), 1);
    }
}
