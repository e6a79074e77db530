//! A batch: the records of one request, in the producer's bytes.
//!
//! It is made once, by [`BatchBuilder`], and from then on stored, replicated and delivered verbatim: the consumer
//! verifies the checksum that the producer computed. All numbers are little-endian.
//!
//! ```text
//!    0  format u8 = 1      1  flags u8          2  codec u8          3  digest hash u8
//!    4  crc u32            CRC-32 of everything but these four bytes
//!    8  length u32         of the whole batch, header included
//!   12  count u32          records, at least 1
//!   16  producer u64
//!   24  epoch u64
//!   32  first sequence u64 of the first record; the others follow without gap
//!   40  base timestamp i64 milliseconds since 1970
//!   48  digest [16]        of the records, uncompressed
//!   64  records            `record.rs` draws one; packed as `codec.rs` says
//!       timestamps         count x i32: milliseconds to add to the base; only with flag TIMESTAMPS
//! ```
//!
//! The timestamps come last and outside the digest. So a builder appends records to one buffer and nothing is moved
//! when the batch is sealed; and the same records, sent again by a process that reads its clock anew, have the same
//! digest: that is how a broker tells a repetition from a sequence used twice.
//!
//! What may come later has its place: other codecs, other digests, other formats. A reader refuses what it does not know
//! by name.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

pub use super::record::{Header, Record, RecordRef};
use super::{
    Codec, Epoch, Feature, Field, ProducerId, Refusal, Sequence, codec,
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
    record::{Parts, Shape},
};

/// Length of the header. Bytes.
pub const HEADER_BYTES: usize = 64;

const FORMAT: u8 = 1;
const FLAG_TIMESTAMPS: u8 = 1;
const DIGEST_XXH3_128: u8 = 1;
const DELTA_BYTES: usize = 4;

const CODEC_AT: usize = 2;
const CRC_AT: usize = 4;
const LENGTH_AT: usize = 8;
const COUNT_AT: usize = 12;
const PRODUCER_AT: usize = 16;
const EPOCH_AT: usize = 24;
const SEQUENCE_AT: usize = 32;
const TIMESTAMP_AT: usize = 40;
const DIGEST_AT: usize = 48;

/// A batch whose header is sound and whose checksum fits.
///
/// Invariants, established by [`Batch::parse`]:
/// - `bytes.len()` is the length in the header, at most [`BATCH_BYTES_MAX`];
/// - there is at least one record and at most [`BATCH_RECORDS_MAX`], and the last one has a sequence;
/// - the timestamps, if any, fit behind the records;
/// - the checksum fits.
///
/// The records themselves are looked at by [`Batch::records`], [`Batch::contents`] and [`Batch::check_records`] only, and
/// only where they are not packed: [`Batch::unpacked`] comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
}

impl Batch {
    /// Takes bytes for a batch if header, length and checksum are right: one pass over the bytes, no allocation.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooLarge`], [`Refusal::Unsupported`], [`Refusal::Malformed`] or [`Refusal::BadChecksum`].
    pub fn parse(bytes: Bytes) -> Result<Self, Refusal> {
        let batch = Self::trusted(bytes)?;
        let (expected, found) = (u32_at(&batch.bytes, CRC_AT), checksum(&batch.bytes));
        if expected != found {
            return Err(Refusal::BadChecksum { what: Field::Batch, expected, found });
        }
        Ok(batch)
    }

    /// As [`Batch::parse`], but without the pass over the bytes: for a batch out of a log that has verified it.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooLarge`], [`Refusal::Unsupported`] or [`Refusal::Malformed`].
    pub fn trusted(bytes: Bytes) -> Result<Self, Refusal> {
        let len = bytes.len();
        if len > BATCH_BYTES_MAX {
            return Err(too_large(Field::Batch, len, BATCH_BYTES_MAX));
        }
        if len < HEADER_BYTES {
            return Err(Refusal::Malformed { what: Field::Batch });
        }
        check_versions(&bytes)?;
        if u32_at(&bytes, LENGTH_AT) as usize != len {
            return Err(Refusal::Malformed { what: Field::Batch });
        }
        let batch = Self { bytes };
        batch.check_count()?;
        Ok(batch)
    }

    fn check_count(&self) -> Result<(), Refusal> {
        let count = self.count() as usize;
        if count > BATCH_RECORDS_MAX {
            return Err(too_large(Field::Records, count, BATCH_RECORDS_MAX));
        }
        // The smallest record is one byte; packed ones have a length at least.
        let least = self.column_bytes() + if self.is_packed() { codec::LENGTH_BYTES } else { count };
        let room = self.bytes.len() - HEADER_BYTES;
        if count == 0 || least > room || self.first_sequence().0.checked_add(count as u64).is_none() {
            return Err(Refusal::Malformed { what: Field::Records });
        }
        Ok(())
    }

    /// The batch, byte for byte.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether its records are packed.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.bytes[CODEC_AT] != Codec::None as u8
    }

    /// The same batch with records that can be read: itself, if they are not packed.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] or [`Refusal::TooLarge`] if the records cannot be unpacked.
    pub fn unpacked(&self) -> Result<Self, Refusal> {
        if !self.is_packed() {
            return Ok(self.clone());
        }
        let records = codec::unpack(&self.bytes[HEADER_BYTES..self.records_end()])?;
        let column = &self.bytes[self.records_end()..];
        let length = HEADER_BYTES + records.len() + column.len();
        let mut bytes = BytesMut::with_capacity(length);
        bytes.put_slice(&self.bytes[..HEADER_BYTES]);
        bytes.put_slice(&records);
        bytes.put_slice(column);
        bytes[CODEC_AT] = Codec::None as u8;
        bytes[LENGTH_AT..COUNT_AT].copy_from_slice(&(length as u32).to_le_bytes());
        stamp_checksum(&mut bytes);
        Self::trusted(bytes.freeze())
    }

    /// The batch, byte for byte.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Number of records.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32_at(&self.bytes, COUNT_AT)
    }

    /// Who made it.
    #[must_use]
    pub fn producer(&self) -> ProducerId {
        ProducerId(u64_at(&self.bytes, PRODUCER_AT))
    }

    /// The incarnation of the producer that sent it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(u64_at(&self.bytes, EPOCH_AT))
    }

    /// Sequence of the first record.
    #[must_use]
    pub fn first_sequence(&self) -> Sequence {
        Sequence(u64_at(&self.bytes, SEQUENCE_AT))
    }

    /// One past the sequence of the last record.
    #[must_use]
    pub fn end_sequence(&self) -> Sequence {
        self.first_sequence().plus(self.count().into())
    }

    /// Timestamp that the records' own are relative to. Milliseconds since 1970.
    #[must_use]
    pub fn base_timestamp(&self) -> i64 {
        i64::from_le_bytes(array_at(&self.bytes, TIMESTAMP_AT))
    }

    /// XXH3-128 of the records, as the producer gave it. See [`Batch::verify_digest`].
    #[must_use]
    pub fn digest(&self) -> [u8; 16] {
        array_at(&self.bytes, DIGEST_AT)
    }

    /// The records as the digest covers them.
    #[must_use]
    pub fn records_bytes(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..self.records_end())
    }

    /// The records in order, as slices of the batch. Ends after the first that cannot be read. Packed ones are refused.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let unread = self.check_codec().err();
        Records { batch: self, at: HEADER_BYTES, read: 0, failed: false, unread }
    }

    /// The content of each record in order: its bytes as `record.rs` draws them. Equal contents have equal bytes. Ends
    /// after the first that cannot be read. Packed ones are refused.
    pub fn contents(&self) -> impl Iterator<Item = Result<&[u8], Refusal>> {
        let records = &self.bytes[..self.records_end()];
        let (mut at, codec) = (Some(HEADER_BYTES), self.check_codec());
        (0..self.count()).map_while(move |_| {
            let from = at?;
            if let Err(packed) = &codec {
                at = None;
                return Some(Err(packed.clone()));
            }
            let shape = Shape::read(records, from);
            at = shape.as_ref().ok().map(|shape| shape.end);
            Some(shape.map(|shape| &records[from..shape.end]))
        })
    }

    /// Walks all records without copying any and checks that they fill their place exactly.
    ///
    /// # Errors
    ///
    /// The refusal that the first bad record earns.
    pub fn check_records(&self) -> Result<(), Refusal> {
        self.check_codec()?;
        let end = self.records_end();
        let mut at = HEADER_BYTES;
        for _ in 0..self.count() {
            at = Shape::read(&self.bytes[..end], at)?.end;
        }
        if at == end { Ok(()) } else { Err(Refusal::Malformed { what: Field::Records }) }
    }

    /// Computes the digest of the records and compares.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] with [`Field::Digest`] if the records are not what the digest says.
    pub fn verify_digest(&self) -> Result<(), Refusal> {
        self.check_codec()?;
        if digest(&self.bytes[HEADER_BYTES..self.records_end()]) == self.digest() {
            return Ok(());
        }
        Err(Refusal::Malformed { what: Field::Digest })
    }

    /// The same batch under another epoch: what a client may send that keeps its batches and opens the name again.
    /// Everything that identifies the content stays: producer, sequences, digest.
    #[must_use]
    pub fn restamp(self, epoch: Epoch) -> Self {
        let mut bytes = self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        bytes[EPOCH_AT..][..8].copy_from_slice(&epoch.0.to_le_bytes());
        stamp_checksum(&mut bytes);
        Self { bytes: bytes.freeze() }
    }

    fn check_codec(&self) -> Result<(), Refusal> {
        if self.is_packed() {
            return Err(Refusal::Unsupported { what: Feature::Codec(self.bytes[CODEC_AT]) });
        }
        Ok(())
    }

    fn timestamp(&self, index: u32) -> i64 {
        if self.column_bytes() == 0 {
            return self.base_timestamp();
        }
        let at = self.records_end() + index as usize * DELTA_BYTES;
        self.base_timestamp().saturating_add(i32::from_le_bytes(array_at(&self.bytes, at)).into())
    }

    fn column_bytes(&self) -> usize {
        if self.bytes[1] & FLAG_TIMESTAMPS == 0 { 0 } else { self.count() as usize * DELTA_BYTES }
    }

    fn records_end(&self) -> usize {
        self.bytes.len() - self.column_bytes()
    }
}

/// What the first four bytes say must be known here.
fn check_versions(bytes: &[u8]) -> Result<(), Refusal> {
    let what = match (bytes[0], bytes[1], bytes[2], bytes[3]) {
        (format, ..) if format != FORMAT => Feature::BatchFormat(format),
        (_, flags, ..) if flags & !FLAG_TIMESTAMPS != 0 => Feature::Flags(flags.into()),
        (_, _, codec, _) if Codec::try_from(codec).is_err() => Feature::Codec(codec),
        (.., hash) if hash != DIGEST_XXH3_128 => Feature::DigestHash(hash),
        _ => return Ok(()),
    };
    Err(Refusal::Unsupported { what })
}

/// The records of a [`Batch`], in order.
#[derive(Debug)]
pub struct Records<'a> {
    batch: &'a Batch,
    at: usize,
    read: u32,
    failed: bool,
    /// Why nothing can be read.
    unread: Option<Refusal>,
}

impl<'a> Records<'a> {
    /// The same records, borrowed from the batch.
    pub fn borrowed(mut self) -> impl Iterator<Item = Result<RecordRef<'a>, Refusal>> {
        let bytes = &self.batch.bytes;
        std::iter::from_fn(move || {
            self.next_shape().map(|next| next.map(|(shape, timestamp)| shape.borrowed(bytes, timestamp)))
        })
    }

    /// Where the parts of the next record lie, and its timestamp.
    fn next_shape(&mut self) -> Option<Result<(Shape, i64), Refusal>> {
        let end = self.batch.records_end();
        if self.failed {
            return None;
        }
        if let Some(refusal) = self.unread.take() {
            self.failed = true;
            return Some(Err(refusal));
        }
        if self.read == self.batch.count() {
            self.failed = self.at != end;
            return self.failed.then_some(Err(Refusal::Malformed { what: Field::Records }));
        }
        let shape = Shape::read(&self.batch.bytes[..end], self.at);
        self.failed = shape.is_err();
        Some(shape.map(|shape| {
            let timestamp = self.batch.timestamp(self.read);
            self.at = shape.end;
            self.read += 1;
            (shape, timestamp)
        }))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_shape()?;
        Some(next.map(|(shape, timestamp)| shape.record(&self.batch.bytes, timestamp)))
    }
}

/// Why a [`BatchBuilder`] did not take a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// The record is sound but has no place in this batch: seal it and begin the next one.
    #[error("the batch is full; the record belongs into the next one")]
    Full,
    /// The record breaks a limit by itself: no batch can take it.
    #[error("the record fits into no batch")]
    Record(#[source] Refusal),
}

/// Gathers records into the bytes of one batch.
///
/// Invariants: `buffer` begins with room for the header; `deltas` is empty as long as all records have the base
/// timestamp, else it has one entry per record; what `seal` will make is never larger than `bytes_max`.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    buffer: BytesMut,
    deltas: Vec<i32>,
    count: usize,
    base_timestamp: i64,
    records_max: usize,
    bytes_max: usize,
    codec: Codec,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch with the limits of the protocol.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(BATCH_RECORDS_MAX, BATCH_BYTES_MAX)
    }

    /// An empty batch that is full at `records_max` records or when it would take more than `bytes_max` bytes.
    /// What exceeds the limits of the protocol is lowered to them; one record is always possible.
    #[must_use]
    pub fn with_limits(records_max: usize, bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::zeroed(HEADER_BYTES),
            deltas: Vec::new(),
            count: 0,
            base_timestamp: 0,
            records_max: records_max.clamp(1, BATCH_RECORDS_MAX),
            bytes_max: bytes_max.min(BATCH_BYTES_MAX),
            codec: Codec::None,
        }
    }

    /// Packs the records when the batch is sealed, if that makes it smaller. The limits count them as they are.
    #[must_use]
    pub fn packed(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// [`PushError`]; the builder is unchanged then.
    pub fn push(&mut self, record: &Record) -> Result<(), PushError> {
        self.push_parts(record.parts(), record.timestamp)
    }

    /// Adds a record that has a value and perhaps a key, from borrowed bytes.
    ///
    /// # Errors
    ///
    /// [`PushError`]; the builder is unchanged then.
    pub fn push_value(&mut self, key: Option<&[u8]>, value: &[u8], timestamp: i64) -> Result<(), PushError> {
        self.push_parts(Parts { key, headers: &[], value: Some(value) }, timestamp)
    }

    fn push_parts(&mut self, parts: Parts<'_>, timestamp: i64) -> Result<(), PushError> {
        let len = parts.encoded_len().map_err(PushError::Record)?;
        if HEADER_BYTES + len > BATCH_BYTES_MAX {
            let refusal = too_large(Field::Batch, HEADER_BYTES + len, BATCH_BYTES_MAX);
            return Err(PushError::Record(refusal));
        }
        let base = if self.count == 0 { timestamp } else { self.base_timestamp };
        let delta = timestamp.checked_sub(base).and_then(|delta| i32::try_from(delta).ok());
        let delta = delta.ok_or(PushError::Full)?;
        if self.count == self.records_max || (self.count > 0 && self.bytes_with(len, delta) > self.bytes_max)
        {
            return Err(PushError::Full);
        }
        parts.encode(&mut self.buffer);
        if delta != 0 || !self.deltas.is_empty() {
            self.deltas.resize(self.count, 0);
            self.deltas.push(delta);
        }
        self.base_timestamp = base;
        self.count += 1;
        Ok(())
    }

    /// Size of the sealed batch if a record of `len` bytes and this delta were added.
    fn bytes_with(&self, len: usize, delta: i32) -> usize {
        let column = if delta == 0 && self.deltas.is_empty() { 0 } else { (self.count + 1) * DELTA_BYTES };
        self.buffer.len() + len + column
    }

    /// Number of records so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether it holds no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size that the batch would have if it were sealed now. Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.deltas.len() * DELTA_BYTES
    }

    /// Packs the records in place, if that is wanted and makes them smaller.
    fn pack(&mut self) -> Codec {
        let packed = match self.codec {
            Codec::None => None,
            Codec::Lz4 => codec::pack(&self.buffer[HEADER_BYTES..]),
        };
        let Some(packed) = packed else { return Codec::None };
        self.buffer.truncate(HEADER_BYTES);
        self.buffer.extend_from_slice(&packed);
        self.codec
    }

    /// Makes the batch: the bytes that [`Batch::parse`] takes. Nothing is moved, unless it is packed.
    ///
    /// # Panics
    ///
    /// If it holds no record: an empty batch has no bytes.
    #[must_use]
    pub fn seal(mut self, producer: ProducerId, epoch: Epoch, first_sequence: Sequence) -> Bytes {
        assert!(!self.is_empty(), "a batch holds at least one record");
        let content = digest(&self.buffer[HEADER_BYTES..]);
        let codec = self.pack();
        for delta in &self.deltas {
            self.buffer.put_i32_le(*delta);
        }
        let flags = if self.deltas.is_empty() { 0 } else { FLAG_TIMESTAMPS };
        let length = self.buffer.len() as u32;
        let mut header = &mut self.buffer[..HEADER_BYTES];
        header.put_slice(&[FORMAT, flags, codec as u8, DIGEST_XXH3_128]);
        header.put_u32_le(0);
        header.put_u32_le(length);
        header.put_u32_le(self.count as u32);
        header.put_u64_le(producer.0);
        header.put_u64_le(epoch.0);
        header.put_u64_le(first_sequence.0);
        header.put_i64_le(self.base_timestamp);
        header.put_slice(&content);
        stamp_checksum(&mut self.buffer);
        self.buffer.freeze()
    }
}

fn digest(records: &[u8]) -> [u8; 16] {
    xxh3_128(records).to_le_bytes()
}

fn checksum(batch: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&batch[..CRC_AT]);
    hasher.update(&batch[LENGTH_AT..]);
    hasher.finalize()
}

fn stamp_checksum(batch: &mut [u8]) {
    let crc = checksum(batch);
    batch[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
}

fn too_large(what: Field, found: usize, limit: usize) -> Refusal {
    Refusal::TooLarge { what, found: found as u64, limit: limit as u64 }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
