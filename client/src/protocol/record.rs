//! One record: what the user wrote, as it lies in a batch.
//!
//! ```text
//!   flags u8 | key length, key                                    if KEY
//!            | number of headers, then for each:                  if HEADERS
//!            |     name length, name, value length, value
//!            | value length, value                                unless TOMBSTONE
//! ```
//!
//! Every number is an unsigned LEB128 varint of at most 32 bits. One value has one encoding: a varint with a needless
//! last byte is refused, as is a flag that is not known, so that equal records always have equal bytes (and the
//! digest of a batch is a digest of its content).
//!
//! A key that is absent differs from an empty key, and a value that is absent (a tombstone) from an empty value.
//! Timestamps are not here but in the batch around the record: they are not content.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Feature, Field, Refusal,
    limits::{BATCH_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_MAX, KEY_BYTES_MAX},
};

const KEY: u8 = 1;
const TOMBSTONE: u8 = 1 << 1;
const HEADERS: u8 = 1 << 2;
const KNOWN: u8 = KEY | TOMBSTONE | HEADERS;

/// One user message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When it was made, as its producer says. Milliseconds since 1970; 0 if nobody said.
    pub timestamp: i64,
    /// Its key. None is not the same as empty. At most [`KEY_BYTES_MAX`].
    pub key: Option<Bytes>,
    /// Its headers, in the producer's order. At most [`HEADERS_MAX`].
    pub headers: Vec<Header>,
    /// Its value; None for a tombstone.
    pub value: Option<Bytes>,
}

/// A [`Record`] as it lies in its batch: nothing of it is counted or copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// As [`Record::timestamp`].
    pub timestamp: i64,
    /// As [`Record::key`].
    pub key: Option<&'a [u8]>,
    /// As [`Record::value`].
    pub value: Option<&'a [u8]>,
    header_count: usize,
    headers: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Names and values of its headers, in the producer's order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (bytes, count) = (self.headers, self.header_count);
        header_runs(bytes, 0, count).map(|(name, value)| (&bytes[name], &bytes[value]))
    }
}

/// A name and a value that travel with a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The name, by convention UTF-8. At most [`HEADER_NAME_BYTES_MAX`].
    pub name: Bytes,
    /// The value.
    pub value: Bytes,
}

impl Record {
    /// A record with a value and nothing else.
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The record that says: what this key stood for is gone.
    #[must_use]
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// The same record with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same record with one header more.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { name: name.into(), value: value.into() });
        self
    }

    /// The same record with a timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn with_timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts { key: self.key.as_deref(), headers: &self.headers, value: self.value.as_deref() }
    }
}

/// The content of a record, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) headers: &'a [Header],
    pub(super) value: Option<&'a [u8]>,
}

impl Parts<'_> {
    /// Bytes it takes in a batch, or which of its limits it breaks.
    pub(super) fn encoded_len(&self) -> Result<usize, Refusal> {
        let mut len = 1;
        if let Some(key) = self.key {
            within(Field::Key, key.len(), KEY_BYTES_MAX)?;
            len += prefixed(key);
        }
        if !self.headers.is_empty() {
            within(Field::Headers, self.headers.len(), HEADERS_MAX)?;
            len += varint_len(self.headers.len());
        }
        for header in self.headers {
            within(Field::Headers, header.name.len(), HEADER_NAME_BYTES_MAX)?;
            within(Field::Headers, header.value.len(), BATCH_BYTES_MAX)?;
            len += prefixed(&header.name) + prefixed(&header.value);
        }
        if let Some(value) = self.value {
            within(Field::Records, value.len(), BATCH_BYTES_MAX)?;
            len += prefixed(value);
        }
        Ok(len)
    }

    /// Writes it. `encoded_len` said yes before.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        let key = if self.key.is_some() { KEY } else { 0 };
        let tombstone = if self.value.is_none() { TOMBSTONE } else { 0 };
        let headers = if self.headers.is_empty() { 0 } else { HEADERS };
        out.put_u8(key | tombstone | headers);
        if let Some(key) = self.key {
            put_prefixed(out, key);
        }
        if !self.headers.is_empty() {
            put_varint(out, self.headers.len());
        }
        for header in self.headers {
            put_prefixed(out, &header.name);
            put_prefixed(out, &header.value);
        }
        if let Some(value) = self.value {
            put_prefixed(out, value);
        }
    }
}

/// Where the parts of one record lie, as positions in the bytes it was read from.
#[derive(Debug)]
pub(super) struct Shape {
    key: Option<Range<usize>>,
    header_count: usize,
    headers_at: usize,
    value: Option<Range<usize>>,
    /// One past its last byte.
    pub(super) end: usize,
}

impl Shape {
    /// Reads the shape of the record at `at`; it must end within `bytes`. Allocates nothing.
    pub(super) fn read(bytes: &[u8], at: usize) -> Result<Self, Refusal> {
        let mut cursor = Cursor { bytes, at };
        let flags = cursor.byte(Field::Records)?;
        if flags & !KNOWN != 0 {
            return Err(Refusal::Unsupported { what: Feature::Flags(flags.into()) });
        }
        let key = if flags & KEY != 0 { Some(cursor.run(Field::Key, KEY_BYTES_MAX)?) } else { None };
        let header_count = if flags & HEADERS != 0 { cursor.varint(Field::Headers)? } else { 0 };
        within(Field::Headers, header_count, HEADERS_MAX)?;
        if flags & HEADERS != 0 && header_count == 0 {
            return Err(Refusal::Malformed { what: Field::Headers });
        }
        let headers_at = cursor.at;
        for _ in 0..header_count {
            cursor.run(Field::Headers, HEADER_NAME_BYTES_MAX)?;
            cursor.run(Field::Headers, BATCH_BYTES_MAX)?;
        }
        let value =
            if flags & TOMBSTONE == 0 { Some(cursor.run(Field::Records, BATCH_BYTES_MAX)?) } else { None };
        Ok(Self { key, header_count, headers_at, value, end: cursor.at })
    }

    /// The record itself: slices of `bytes`, the same bytes the shape was read from.
    pub(super) fn record(&self, bytes: &Bytes, timestamp: i64) -> Record {
        Record {
            timestamp,
            key: self.key.clone().map(|range| bytes.slice(range)),
            headers: self.headers(bytes),
            value: self.value.clone().map(|range| bytes.slice(range)),
        }
    }

    /// The record itself, borrowed from `bytes`, the same bytes the shape was read from.
    pub(super) fn borrowed<'a>(&self, bytes: &'a [u8], timestamp: i64) -> RecordRef<'a> {
        RecordRef {
            timestamp,
            key: self.key.clone().map(|range| &bytes[range]),
            value: self.value.clone().map(|range| &bytes[range]),
            header_count: self.header_count,
            headers: &bytes[self.headers_at..self.end],
        }
    }

    fn headers(&self, bytes: &Bytes) -> Vec<Header> {
        if self.header_count == 0 {
            return Vec::new();
        }
        header_runs(bytes, self.headers_at, self.header_count)
            .map(|(name, value)| Header { name: bytes.slice(name), value: bytes.slice(value) })
            .collect()
    }
}

/// Where names and values of headers lie that were read before, when the shape of their record was.
fn header_runs(bytes: &[u8], at: usize, count: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let mut cursor = Cursor { bytes, at };
    let mut run = move || cursor.run(Field::Headers, BATCH_BYTES_MAX).expect("read when the shape was made");
    (0..count).map(move |_| (run(), run()))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self, what: Field) -> Result<u8, Refusal> {
        let byte = *self.bytes.get(self.at).ok_or(Refusal::Malformed { what })?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self, what: Field) -> Result<usize, Refusal> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let overlong = byte == 0 && shift != 0;
                let value = u32::try_from(value).ok().filter(|_| !overlong);
                return value.map(|value| value as usize).ok_or(Refusal::Malformed { what });
            }
        }
        Err(Refusal::Malformed { what })
    }

    /// A length and as many bytes.
    fn run(&mut self, what: Field, limit: usize) -> Result<Range<usize>, Refusal> {
        let len = self.varint(what)?;
        within(what, len, limit)?;
        let start = self.at;
        if len > self.bytes.len() - start {
            return Err(Refusal::Malformed { what });
        }
        self.at += len;
        Ok(start..self.at)
    }
}

fn within(what: Field, found: usize, limit: usize) -> Result<(), Refusal> {
    if found > limit {
        return Err(Refusal::TooLarge { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

fn prefixed(bytes: &[u8]) -> usize {
    varint_len(bytes.len()) + bytes.len()
}

fn put_prefixed(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len());
    out.put_slice(bytes);
}

fn varint_len(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(bytes: &[u8]) -> Result<Shape, Refusal> {
        Shape::read(bytes, 0)
    }

    #[test]
    fn a_needless_varint_byte_is_refused() {
        assert!(shape(&[0, 1, b'x']).is_ok());
        assert_eq!(shape(&[0, 0x81, 0, b'x']).unwrap_err(), Refusal::Malformed { what: Field::Records });
    }

    #[test]
    fn a_varint_beyond_32_bits_is_refused() {
        assert_eq!(
            shape(&[0, 0xff, 0xff, 0xff, 0xff, 0x1f]).unwrap_err(),
            Refusal::Malformed { what: Field::Records }
        );
        assert_eq!(
            shape(&[0, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap_err(),
            Refusal::Malformed { what: Field::Records }
        );
    }

    #[test]
    fn an_unknown_flag_is_refused_by_name() {
        assert_eq!(shape(&[8, 0]).unwrap_err(), Refusal::Unsupported { what: Feature::Flags(8) });
    }

    #[test]
    fn the_header_flag_without_headers_is_refused() {
        assert_eq!(shape(&[HEADERS, 0, 0]).unwrap_err(), Refusal::Malformed { what: Field::Headers });
    }

    #[test]
    fn a_length_over_its_limit_is_refused_before_the_bytes_are_looked_for() {
        let mut bytes = BytesMut::new();
        bytes.put_u8(KEY);
        put_varint(&mut bytes, KEY_BYTES_MAX + 1);
        assert!(matches!(shape(&bytes).unwrap_err(), Refusal::TooLarge { what: Field::Key, .. }));
    }

    proptest! {
        #[test]
        fn a_varint_has_the_length_that_was_announced(value in 0..=u32::MAX as usize) {
            let mut bytes = BytesMut::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            let mut cursor = Cursor { bytes: &bytes, at: 0 };
            prop_assert_eq!(cursor.varint(Field::Records).unwrap(), value);
        }
    }
}
