//! Lines of an input, as records, and back.
//!
//! ```text
//! input          "a\n"  "\n"  "b\r\n"  "c"
//! sequence         0      1      2      3        the number of the line, counted from 0
//! value           "a"    ""    "b\r"   "c"       the line without its newline
//! header                             line-end: none
//! ```
//!
//! A last line that does not end with a newline is marked by a header, so that `tail -o raw` gives back the input byte
//! for byte. The mark is part of the content: a file that grew in the middle of its last line is another input.

use std::{io, time::SystemTime};

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use sequor_client::protocol::{
    batch::{HEADER_BYTES, Record},
    limits::BATCH_BYTES_MAX,
};

use crate::exit::{Exit, Verdict};

/// Room in a batch for what surrounds its only record: the batch's header, the record's lengths and its mark. Bytes.
const ENVELOPE_BYTES: usize = HEADER_BYTES + 64;
/// Longest line. Bytes.
pub(crate) const LINE_BYTES_MAX: usize = BATCH_BYTES_MAX - ENVELOPE_BYTES;

/// Name of the header on a line without a newline.
const LINE_END: &[u8] = b"line-end";
/// Its value.
const NONE: &[u8] = b"none";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number, counted from 0.
    pub(crate) number: u64,
    /// Its bytes, without the newline.
    pub(crate) content: Bytes,
    /// False for a last line without a newline.
    pub(crate) ended: bool,
}

impl Line {
    /// The record for this line.
    pub(crate) fn record(&self, timestamp: i64) -> Record {
        let record = Record::new(self.content.clone()).with_timestamp(timestamp);
        if self.ended { record } else { record.with_header(LINE_END, NONE) }
    }
}

/// Adds the bytes of the line that `record` holds. A tombstone holds none.
pub(crate) fn write_line(record: &Record, out: &mut Vec<u8>) {
    let Some(value) = &record.value else { return };
    out.extend_from_slice(value);
    if !record.headers.iter().any(|header| header.name == LINE_END && header.value == NONE) {
        out.push(b'\n');
    }
}

/// Milliseconds since 1970, for the records of lines that are read now; 0 on a machine whose clock stands before.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Why a line could not be read.
#[derive(Debug, Error)]
pub(crate) enum LinesError {
    /// The input failed.
    #[error("cannot read line {} of the input", .number + 1)]
    Read {
        /// The line's number, from 0.
        number: u64,
        /// Why.
        source: io::Error,
    },
    /// A line does not fit a batch.
    #[error("line {} of the input is longer than {LINE_BYTES_MAX} bytes, the most that fits one batch", .number + 1)]
    TooLong {
        /// The line's number, from 0.
        number: u64,
    },
}

impl Verdict for LinesError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// The lines of an input, one after the other.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    number: u64,
    bytes: u64,
    /// What is read of the current line.
    partial: BytesMut,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, number: 0, bytes: 0, partial: BytesMut::new() }
    }

    /// Number of the line that comes next, counted from 0.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What was read so far. Bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line; none at the end. Nothing is lost when the future is dropped half way.
    ///
    /// # Errors
    /// If the input fails, or a line does not fit a batch.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, LinesError> {
        loop {
            let number = self.number;
            let read = self.input.fill_buf().await.map_err(|source| LinesError::Read { number, source })?;
            let newline = read.iter().position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or(read.len());
            if self.partial.len() + taken > LINE_BYTES_MAX {
                return Err(LinesError::TooLong { number });
            }
            let exhausted = read.is_empty();
            self.partial.extend_from_slice(&read[..taken]);
            let consumed = taken + usize::from(newline.is_some());
            self.input.consume(consumed);
            self.bytes += consumed as u64;
            if newline.is_some() {
                return Ok(Some(self.line(true)));
            }
            if exhausted {
                return Ok((!self.partial.is_empty()).then(|| self.line(false)));
            }
        }
    }

    fn line(&mut self, ended: bool) -> Line {
        let line = Line { number: self.number, content: self.partial.split().freeze(), ended };
        self.number += 1;
        line
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    /// Reads with a buffer of `capacity` bytes, so that lines cross its edges.
    fn read(input: &[u8], capacity: usize) -> Result<Vec<Line>, LinesError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, input));
            let mut all = Vec::new();
            while let Some(line) = lines.next().await? {
                assert_eq!(lines.number(), line.number + 1);
                all.push(line);
            }
            Ok(all)
        })
    }

    #[test]
    fn every_input_comes_back_byte_for_byte() {
        let inputs: [&[u8]; 9] = [
            b"",
            b"\n",
            b"\n\n\n",
            b"a",
            b"a\n",
            b"a\n\nb\r\nc",
            b"\r",
            b"\0\xff\xfe\n\xc3(\n",
            b"no newline at the very end, and a line that is longer than the buffer",
        ];
        for input in inputs {
            for capacity in [1, 2, 7, 4096] {
                let mut out = Vec::new();
                for line in read(input, capacity).unwrap() {
                    write_line(&line.record(0), &mut out);
                }
                assert_eq!(out, input, "read by {capacity}");
            }
        }
    }

    #[test]
    fn a_line_is_its_bytes_without_the_newline() {
        let lines = read(b"a\n\nb\r\nc", 3).unwrap();
        let told: Vec<_> = lines.iter().map(|line| (line.number, &line.content[..], line.ended)).collect();
        let expected: [(u64, &[u8], bool); 4] =
            [(0, b"a", true), (1, b"", true), (2, b"b\r", true), (3, b"c", false)];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_missing_newline_is_part_of_the_content() {
        let ended = &read(b"a\n", 9).unwrap()[0];
        let not = &read(b"a", 9).unwrap()[0];
        assert_ne!(ended.record(0), not.record(0));
    }

    #[test]
    fn a_line_that_fits_no_batch_is_named() {
        let mut input = b"short\n".to_vec();
        input.resize(input.len() + LINE_BYTES_MAX, b'x');
        assert_eq!(read(&input, 1 << 16).unwrap().len(), 2, "the longest that fits");
        input.push(b'x');
        let error = read(&input, 1 << 16).unwrap_err();
        assert!(matches!(error, LinesError::TooLong { number: 1 }));
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }

    #[test]
    fn the_longest_line_fits_a_batch() {
        let line = Line { number: 0, content: vec![b'x'; LINE_BYTES_MAX].into(), ended: false };
        let mut builder = sequor_client::protocol::batch::BatchBuilder::new();
        builder.push(&line.record(0)).unwrap();
    }
}
