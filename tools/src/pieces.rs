//! The pieces of an input: each becomes one record.
//!
//! ```text
//! input          "a\n"  "\n"  "b\r\n"  "c"
//! sequence         0      1      2      3        the number of the piece, counted from 0
//! value           "a"    ""    "b\r"   "c"       the line without its newline
//! header                             line-end: none
//! ```
//!
//! A last line that does not end with a newline is marked by a header, so that `tail -o raw` gives back the input byte
//! for byte. The mark is part of the content: a file that grew in the middle of its last line is another input.
//!
//! In binary, a piece is a length and as many bytes ([`Form`]). Where the input ends within one, there is no telling
//! what the rest would have been: that is an error, and nothing of it becomes a record.

use std::{io, time::SystemTime};

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use sequor_client::protocol::{
    batch::{HEADER_BYTES, Record},
    limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX},
};

use crate::{
    exit::{Exit, Verdict},
    form::{Form, LENGTH_BYTES},
    words::plain_count,
};

/// Room in a batch for what surrounds its only record: the batch's header, the record's lengths and its mark. Bytes.
const ENVELOPE_BYTES: usize = HEADER_BYTES + 64;
/// Longest piece, its key and the separator included. Bytes.
pub(crate) const PIECE_BYTES_MAX: usize = BATCH_BYTES_MAX - ENVELOPE_BYTES;

/// Name of the header on a line without a newline.
const LINE_END: &[u8] = b"line-end";
/// Its value.
const NONE: &[u8] = b"none";

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its number, counted from 0.
    pub(crate) number: u64,
    /// What stands before the separator, if there is one.
    pub(crate) key: Option<Bytes>,
    /// The rest.
    pub(crate) value: Bytes,
    /// False for a last line without a newline.
    pub(crate) ended: bool,
}

impl Piece {
    /// The record for this piece.
    pub(crate) fn record(&self, timestamp: i64) -> Record {
        let record =
            Record { key: self.key.clone(), ..Record::new(self.value.clone()).with_timestamp(timestamp) };
        if self.ended { record } else { record.with_header(LINE_END, NONE) }
    }
}

/// Whether a record was a last line without a newline.
pub(crate) fn is_marked_unended(record: &Record) -> bool {
    record.headers.iter().any(|header| header.name == LINE_END && header.value == NONE)
}

/// Milliseconds since 1970, for the records of pieces that are read now; 0 on a machine whose clock stands before.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Why a piece could not be read. Pieces are numbered from 0, and told from 1.
#[derive(Debug, Error)]
pub(crate) enum PieceError {
    /// The input failed.
    #[error("cannot read {word} {} of the input", .number + 1)]
    Read {
        /// What a piece is called.
        word: &'static str,
        /// Its number.
        number: u64,
        /// Why.
        source: io::Error,
    },
    /// A piece does not fit a batch.
    #[error(
        "{word} {} of the input, which begins at byte {offset}, is longer than {PIECE_BYTES_MAX} bytes, the most that \
         fits one batch",
        .number + 1
    )]
    TooLong {
        /// What a piece is called.
        word: &'static str,
        /// Its number.
        number: u64,
        /// Where it begins, in bytes from the start of the input.
        offset: u64,
    },
    /// A key is too long.
    #[error("the key of {word} {} of the input has {found} bytes, and may have {KEY_BYTES_MAX}", .number + 1)]
    KeyTooLong {
        /// What a piece is called.
        word: &'static str,
        /// Its number.
        number: u64,
        /// Length of the key in bytes.
        found: usize,
    },
    /// The input ends within a record.
    #[error(
        "the input ends within record {}: it begins at byte {offset} and {}. Nothing of it was sent",
        .number + 1, cut(*.length, *.found)
    )]
    Truncated {
        /// Its number.
        number: u64,
        /// Where it begins, in bytes from the start of the input.
        offset: u64,
        /// What its length says, unless that is cut off, too.
        length: Option<usize>,
        /// How many bytes of the record there are, its length included.
        found: usize,
    },
}

fn cut(length: Option<usize>, found: usize) -> String {
    match length {
        None => {
            format!("has {} of the {LENGTH_BYTES} that say its length", plain_count(found as u64, "byte"))
        }
        Some(length) => format!("has {} of {length}", plain_count((found - LENGTH_BYTES) as u64, "byte")),
    }
}

impl Verdict for PieceError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// The pieces of an input, one after the other.
#[derive(Debug)]
pub(crate) struct Pieces<R> {
    input: R,
    form: Form,
    number: u64,
    bytes: u64,
    /// What is read of the current piece.
    partial: BytesMut,
}

impl<R: AsyncBufRead + Unpin> Pieces<R> {
    pub(crate) fn new(input: R, form: Form) -> Self {
        Self { input, form, number: 0, bytes: 0, partial: BytesMut::new() }
    }

    /// Number of the piece that comes next, counted from 0.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What a piece is called.
    pub(crate) fn word(&self) -> &'static str {
        self.form.word()
    }

    /// What was read so far. Bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece; none at the end. Nothing is lost when the future is dropped half way.
    ///
    /// # Errors
    /// If the input fails or ends within a piece, or a piece does not fit a batch.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, PieceError> {
        match self.form.length_prefixed {
            true => self.next_record().await,
            false => self.next_line().await,
        }
    }

    async fn next_line(&mut self) -> Result<Option<Piece>, PieceError> {
        loop {
            let (word, number) = (self.word(), self.number);
            let read = self.input.fill_buf().await;
            let read = read.map_err(|source| PieceError::Read { word, number, source })?;
            let newline = read.iter().position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or(read.len());
            if self.partial.len() + taken > PIECE_BYTES_MAX {
                let offset = self.bytes - self.partial.len() as u64;
                return Err(PieceError::TooLong { word, number, offset });
            }
            let exhausted = read.is_empty();
            self.partial.extend_from_slice(&read[..taken]);
            let consumed = taken + usize::from(newline.is_some());
            self.input.consume(consumed);
            self.bytes += consumed as u64;
            if newline.is_some() {
                return self.piece(true).map(Some);
            }
            if exhausted {
                return if self.partial.is_empty() { Ok(None) } else { self.piece(false).map(Some) };
            }
        }
    }

    async fn next_record(&mut self) -> Result<Option<Piece>, PieceError> {
        loop {
            let (word, number) = (self.word(), self.number);
            let (found, offset) = (self.partial.len(), self.bytes - self.partial.len() as u64);
            let length = self.partial.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
            if length.is_some_and(|length| length > PIECE_BYTES_MAX) {
                return Err(PieceError::TooLong { word, number, offset });
            }
            let missing = LENGTH_BYTES + length.unwrap_or(0) - found;
            if length.is_some() && missing == 0 {
                let _length = self.partial.split_to(LENGTH_BYTES);
                return self.piece(true).map(Some);
            }
            let read = self.input.fill_buf().await;
            let read = read.map_err(|source| PieceError::Read { word, number, source })?;
            if read.is_empty() {
                return match found {
                    0 => Ok(None),
                    _ => Err(PieceError::Truncated { number, offset, length, found }),
                };
            }
            let taken = missing.min(read.len());
            self.partial.extend_from_slice(&read[..taken]);
            self.input.consume(taken);
            self.bytes += taken as u64;
        }
    }

    /// The piece that was read.
    fn piece(&mut self, ended: bool) -> Result<Piece, PieceError> {
        let (word, number) = (self.word(), self.number);
        let (key, value) = self.form.split(self.partial.split().freeze());
        let found = key.as_ref().map_or(0, Bytes::len);
        if found > KEY_BYTES_MAX {
            return Err(PieceError::KeyTooLong { word, number, found });
        }
        self.number += 1;
        Ok(Piece { number, key, value, ended })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    /// Reads with a buffer of `capacity` bytes, so that pieces cross its edges.
    fn read(form: &Form, input: &[u8], capacity: usize) -> Result<Vec<Piece>, PieceError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pieces = Pieces::new(BufReader::with_capacity(capacity, input), form.clone());
            let mut all = Vec::new();
            while let Some(piece) = pieces.next().await? {
                assert_eq!(pieces.number(), piece.number + 1);
                all.push(piece);
            }
            assert_eq!(pieces.bytes(), input.len() as u64);
            Ok(all)
        })
    }

    fn lines(input: &[u8], capacity: usize) -> Result<Vec<Piece>, PieceError> {
        read(&Form::lines(), input, capacity)
    }

    /// Length-prefixed.
    fn framed(records: &[&[u8]]) -> Vec<u8> {
        records
            .iter()
            .flat_map(|record| [&(record.len() as u32).to_be_bytes()[..], record].concat())
            .collect()
    }

    #[test]
    fn every_input_comes_back_byte_for_byte() {
        let inputs: [&[u8]; 11] = [
            b"",
            b"\n",
            b"\n\n\n",
            b"a",
            b"a\n",
            b"a\n\nb\r\nc",
            b"\r",
            b"\0\xff\xfe\n\xc3(\n",
            b"no newline at the very end, and a line that is longer than the buffer",
            b"k:v\n:\n:v\nk:\nk:v:w\nnone\n\nk:no newline",
            b"::\n:",
        ];
        let binary = framed(&[b"", b"a\nb", b"\0\xff:", b":", b"k:v:w\n", b"none", &[7; 5000]]);
        let separators = [None, Some(":"), Some(r"\0"), Some("\u{fffd}")];
        for separator in separators {
            for (input, length_prefixed) in
                inputs.iter().map(|input| (*input, false)).chain([(&binary[..], true), (b"", true)])
            {
                let form = Form::new(length_prefixed, separator);
                for capacity in [1, 2, 7, 4096] {
                    let mut out = Vec::new();
                    for piece in read(&form, input, capacity).unwrap() {
                        form.write(&piece.record(0), &mut out);
                    }
                    assert_eq!(out, input, "{form:?} read by {capacity}");
                }
            }
        }
    }

    #[test]
    fn a_line_is_its_bytes_without_the_newline() {
        let lines = lines(b"a\n\nb\r\nc", 3).unwrap();
        let told: Vec<_> = lines.iter().map(|line| (line.number, &line.value[..], line.ended)).collect();
        let expected: [(u64, &[u8], bool); 4] =
            [(0, b"a", true), (1, b"", true), (2, b"b\r", true), (3, b"c", false)];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_key_is_part_of_the_record() {
        let pieces = read(&Form::new(true, Some("=")), &framed(&[b"k=v", b"v"]), 5).unwrap();
        let records: Vec<_> = pieces.iter().map(|piece| piece.record(3)).collect();
        let [with, without] = [Record::new("v").with_key("k"), Record::new("v")];
        assert_eq!(records, [with.with_timestamp(3), without.with_timestamp(3)]);
    }

    #[test]
    fn the_missing_newline_is_part_of_the_content() {
        let ended = &lines(b"a\n", 9).unwrap()[0];
        let not = &lines(b"a", 9).unwrap()[0];
        assert_ne!(ended.record(0), not.record(0));
    }

    #[test]
    fn a_line_that_fits_no_batch_is_named() {
        let mut input = b"short\n".to_vec();
        input.resize(input.len() + PIECE_BYTES_MAX, b'x');
        assert_eq!(lines(&input, 1 << 16).unwrap().len(), 2, "the longest that fits");
        input.push(b'x');
        let error = lines(&input, 1 << 16).unwrap_err();
        assert!(matches!(error, PieceError::TooLong { number: 1, offset: 6, .. }), "{error:?}");
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }

    #[test]
    fn a_record_that_fits_no_batch_is_named_before_it_is_read() {
        let mut input = framed(&[b"short"]);
        input.extend_from_slice(&(PIECE_BYTES_MAX as u32 + 1).to_be_bytes());
        let error = read(&Form::new(true, None), &input, 64).unwrap_err();
        assert!(matches!(error, PieceError::TooLong { word: "record", number: 1, offset: 9 }), "{error:?}");
    }

    #[test]
    fn a_record_that_is_cut_off_is_named_with_its_place() {
        let whole = framed(&[b"one", b"two two"]);
        for cut in 1..11 {
            let input = &whole[..whole.len() - cut];
            let error = read(&Form::new(true, None), input, 3).unwrap_err();
            let PieceError::Truncated { number: 1, offset: 7, length, found } = error else {
                panic!("{cut}: {error:?}")
            };
            assert_eq!((length, found), ((cut <= 7).then_some(7), 11 - cut));
        }
        let told = |length, found| PieceError::Truncated { number: 1, offset: 7, length, found }.to_string();
        assert_eq!(
            told(Some(7), 5),
            "the input ends within record 2: it begins at byte 7 and has 1 byte of 7. Nothing of it was sent"
        );
        assert!(told(None, 3).contains("begins at byte 7 and has 3 bytes of the 4 that say its length"));
    }

    #[test]
    fn a_key_that_is_too_long_is_named() {
        let input = [b"k:v\n", &[b'k'; KEY_BYTES_MAX + 1][..], b":v"].concat();
        let error = read(&Form::new(false, Some(":")), &input, 4096).unwrap_err();
        assert!(error.to_string().starts_with("the key of line 2 "), "{error}");
    }

    #[test]
    fn the_longest_piece_fits_a_batch() {
        let key = [b'k'; KEY_BYTES_MAX];
        let value = vec![b'x'; PIECE_BYTES_MAX - KEY_BYTES_MAX];
        for (key, value) in [(None, vec![b'x'; PIECE_BYTES_MAX]), (Some(key), value)] {
            let key = key.map(|key| Bytes::copy_from_slice(&key));
            let piece = Piece { number: 0, key, value: value.into(), ended: false };
            let mut builder = sequor_client::protocol::batch::BatchBuilder::new();
            builder.push(&piece.record(0)).unwrap();
        }
    }
}
