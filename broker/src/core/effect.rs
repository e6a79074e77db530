//! What the leader decided, as the data of one Raft entry.
//!
//! ```text
//!  0        1       2        4         8            16          24
//!  | format | flags | level  | effects | log time   | wall time | effect … effect |
//!  | u8 = 1 | u8 = 0| u16    | u32     | u64 ms     | u64 ms    |                 |
//!
//!  effect                        Open body
//!  0      2       4        8     0    8       16         32
//!  | kind | flags | length |     | id | epoch | instance | name |
//!  | u16  | u16=0 | u32    |     | u64| u64   | 16 bytes | UTF-8|
//!
//!  Seal body                    Retire body     Session body             Renew, Expire body
//!  0     8       16      24     0    8          0    8          24       0
//!  | id  | epoch | first | end  | id | epoch |  | id | instance | ttl |  | id  |
//!  | u64 | u64   | u64   | u64  | u64| u64   |  | u64| 16 bytes | u64 |  | u64 |
//! ```
//!
//! All integers are little-endian. An Append is drawn in [`placed`]: it is delivered to readers as it lies here. The
//! numbers that the leader chose (`id` and `epoch` of an opening, the offset of a batch, `first`) are *stamps*: applying an
//! effect chooses them again and compares. The batch is the producer's own bytes, with the producer's checksum. An entry
//! without data is the no-op by which a new leader commits what its predecessors left.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::limits::NAME_BYTES_MAX;
use sequor_client::protocol::{Epoch, Instance, Offset, Placed, ProducerId, Refusal, Sequence, placed};
use thiserror::Error;

/// The newest feature level that this build knows.
pub const LEVEL: u16 = 1;
/// Bytes before the first effect of an entry.
pub const ENVELOPE_BYTES: usize = 24;
const FORMAT: u8 = 1;
const EFFECT_HEADER_BYTES: usize = 8;
const OPEN_FIXED_BYTES: usize = 32;
const APPEND_FIXED_BYTES: usize = placed::PLACE_BYTES - EFFECT_HEADER_BYTES;
const SEAL_BYTES: usize = 32;
const RETIRE_BYTES: usize = 16;
const SESSION_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const KIND_OPEN: u16 = 1;
const KIND_APPEND: u16 = placed::KIND;
const KIND_SEAL: u16 = 3;
const KIND_RETIRE: u16 = 4;
const KIND_SESSION: u16 = 5;
const KIND_RENEW: u16 = 6;
const KIND_EXPIRE: u16 = 7;

/// One change of the state, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A producer's name was taken.
    Open(Opening),
    /// A batch was written.
    Append(Written),
    /// Numbers were given up.
    Seal(Sealing),
    /// A name was closed for ever.
    Retire(Retiring),
    /// A session began.
    Session(SessionOpening),
    /// A session was kept alive: its time counts from this entry's log time.
    Renew(ProducerId),
    /// A session was over at this entry's log time.
    Expire(ProducerId),
}

/// See [`Effect::Open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Stamp: the number that stands for the name.
    pub id: ProducerId,
    /// Stamp: the epoch granted.
    pub epoch: Epoch,
    /// Who opened.
    pub instance: Instance,
    /// The name.
    pub name: Arc<str>,
}

/// See [`Effect::Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Stamp: offset of the first record.
    pub base: Offset,
    /// The lowest number that the producer may still resend.
    pub settled: Sequence,
    /// The batch.
    pub batch: Batch,
}

/// See [`Effect::Seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// The producer.
    pub id: ProducerId,
    /// Its current epoch.
    pub epoch: Epoch,
    /// Stamp: the first number given up, which was the next one to be written.
    pub first: Sequence,
    /// One past the last number given up.
    pub end: Sequence,
}

/// See [`Effect::Retire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retiring {
    /// The producer.
    pub id: ProducerId,
    /// Its current epoch.
    pub epoch: Epoch,
}

/// See [`Effect::Session`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOpening {
    /// Stamp: the number of its producer.
    pub id: ProducerId,
    /// Who opened.
    pub instance: Instance,
    /// How long it lives without being kept alive. Milliseconds of log time.
    pub ttl_ms: u64,
}

impl Effect {
    /// Bytes that this effect takes in an entry.
    #[must_use]
    pub fn bytes(&self) -> usize {
        EFFECT_HEADER_BYTES
            + match self {
                Self::Open(opening) => OPEN_FIXED_BYTES + opening.name.len(),
                Self::Append(written) => append_body_bytes(written.batch.bytes().len()),
                Self::Seal(_) => SEAL_BYTES,
                Self::Retire(_) => RETIRE_BYTES,
                Self::Session(_) => SESSION_BYTES,
                Self::Renew(_) | Self::Expire(_) => ID_BYTES,
            }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Append(Written { base, settled, batch }) => {
                Placed::put(out, *base, *settled, batch.bytes());
            }
            Self::Open(opening) => {
                self.put_header(KIND_OPEN, out);
                out.put_u64_le(opening.id.0);
                out.put_u64_le(opening.epoch.0);
                out.put_slice(&opening.instance.0);
                out.put_slice(opening.name.as_bytes());
            }
            Self::Seal(Sealing { id, epoch, first, end }) => {
                self.put_header(KIND_SEAL, out);
                [id.0, epoch.0, first.0, end.0].into_iter().for_each(|number| out.put_u64_le(number));
            }
            Self::Retire(Retiring { id, epoch }) => {
                self.put_header(KIND_RETIRE, out);
                out.put_u64_le(id.0);
                out.put_u64_le(epoch.0);
            }
            Self::Session(SessionOpening { id, instance, ttl_ms }) => {
                self.put_header(KIND_SESSION, out);
                out.put_u64_le(id.0);
                out.put_slice(&instance.0);
                out.put_u64_le(*ttl_ms);
            }
            Self::Renew(id) => {
                self.put_header(KIND_RENEW, out);
                out.put_u64_le(id.0);
            }
            Self::Expire(id) => {
                self.put_header(KIND_EXPIRE, out);
                out.put_u64_le(id.0);
            }
        }
    }

    fn put_header(&self, kind: u16, out: &mut BytesMut) {
        let length = self.bytes() - EFFECT_HEADER_BYTES;
        out.put_u16_le(kind);
        out.put_u16_le(0);
        out.put_u32_le(u32::try_from(length).expect("an effect fits an entry of at most 1 MiB"));
    }

    fn decode(kind: u16, mut body: Bytes) -> Result<Self, EntryError> {
        match kind {
            KIND_OPEN if body.len() > OPEN_FIXED_BYTES => {
                let name = body.split_off(OPEN_FIXED_BYTES);
                let name = std::str::from_utf8(&name).map_err(|_| EntryError::Malformed)?;
                Ok(Self::Open(Opening {
                    id: ProducerId(u64_at(&body, 0)),
                    epoch: Epoch(u64_at(&body, 8)),
                    instance: instance_at(&body, 16),
                    name: name.into(),
                }))
            }
            KIND_APPEND if body.len() > APPEND_FIXED_BYTES => {
                let batch = body.split_off(APPEND_FIXED_BYTES);
                Ok(Self::Append(Written {
                    base: Offset(u64_at(&body, 0)),
                    settled: Sequence(u64_at(&body, 8)),
                    batch: Batch::trusted(batch).map_err(EntryError::Batch)?,
                }))
            }
            KIND_SEAL if body.len() == SEAL_BYTES => Ok(Self::Seal(Sealing {
                id: ProducerId(u64_at(&body, 0)),
                epoch: Epoch(u64_at(&body, 8)),
                first: Sequence(u64_at(&body, 16)),
                end: Sequence(u64_at(&body, 24)),
            })),
            KIND_RETIRE if body.len() == RETIRE_BYTES => Ok(Self::Retire(Retiring {
                id: ProducerId(u64_at(&body, 0)),
                epoch: Epoch(u64_at(&body, 8)),
            })),
            KIND_SESSION if body.len() == SESSION_BYTES => Ok(Self::Session(SessionOpening {
                id: ProducerId(u64_at(&body, 0)),
                instance: instance_at(&body, 8),
                ttl_ms: u64_at(&body, 24),
            })),
            KIND_RENEW if body.len() == ID_BYTES => Ok(Self::Renew(ProducerId(u64_at(&body, 0)))),
            KIND_EXPIRE if body.len() == ID_BYTES => Ok(Self::Expire(ProducerId(u64_at(&body, 0)))),
            KIND_OPEN..=KIND_EXPIRE => Err(EntryError::Malformed),
            other => Err(EntryError::UnknownEffect(other)),
        }
    }
}

/// Most bytes that an effect without a batch takes in an entry.
pub const SMALL_EFFECT_BYTES_MAX: usize = EFFECT_HEADER_BYTES + OPEN_FIXED_BYTES + NAME_BYTES_MAX;

/// Bytes that a batch of `batch_bytes` takes in an entry.
#[must_use]
pub fn append_bytes(batch_bytes: usize) -> usize {
    EFFECT_HEADER_BYTES + append_body_bytes(batch_bytes)
}

fn append_body_bytes(batch_bytes: usize) -> usize {
    APPEND_FIXED_BYTES + batch_bytes
}

/// What is common to all effects of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Feature level that the leader wrote at.
    pub level: u16,
    /// Log time, in milliseconds: see [`LogClock`](super::time::LogClock).
    pub log_time_ms: u64,
    /// The leader's wall clock, in milliseconds since 1970. Advisory: nothing is decided by it.
    pub wall_ms: u64,
}

/// The data of one entry.
#[must_use]
pub fn encode(envelope: Envelope, effects: &[Effect]) -> Bytes {
    let bytes = ENVELOPE_BYTES + effects.iter().map(Effect::bytes).sum::<usize>();
    let mut out = BytesMut::with_capacity(bytes);
    out.put_u8(FORMAT);
    out.put_u8(0);
    out.put_u16_le(envelope.level);
    out.put_u32_le(
        u32::try_from(effects.len()).expect("an entry of at most 1 MiB has fewer effects than a u32"),
    );
    out.put_u64_le(envelope.log_time_ms);
    out.put_u64_le(envelope.wall_ms);
    for effect in effects {
        effect.encode(&mut out);
    }
    debug_assert_eq!(out.len(), bytes);
    out.freeze()
}

/// Why the data of an entry cannot be applied. The entry was committed, so the broker that meets this must stop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// The bytes end early or contradict themselves.
    #[error("the entry's data is malformed")]
    Malformed,
    /// A newer format.
    #[error("entry format {0} is not known to this build (it knows {FORMAT})")]
    UnknownFormat(u8),
    /// Flags that this build does not know.
    #[error("entry flags {0:#06x} are not known to this build")]
    UnknownFlags(u16),
    /// A newer level.
    #[error("the entry needs level {0}, this build has level {LEVEL}: upgrade this broker")]
    NewerLevel(u16),
    /// An effect that this build does not know.
    #[error("effect kind {0} is not known at level {LEVEL}: upgrade this broker")]
    UnknownEffect(u16),
    /// A batch that is none.
    #[error("a batch in the entry cannot be read")]
    Batch(#[source] Refusal),
}

/// Reads the effects of an entry one after the other, without copying batches.
#[derive(Debug)]
pub struct Effects {
    /// What is common to them.
    pub envelope: Envelope,
    left: u32,
    rest: Bytes,
}

impl Effects {
    /// Begins to read `data`, which must not be empty (an empty entry is a no-op and has no envelope).
    ///
    /// # Errors
    /// If the envelope is not one that this build knows.
    pub fn open(mut data: Bytes) -> Result<Self, EntryError> {
        if data.len() < ENVELOPE_BYTES {
            return Err(EntryError::Malformed);
        }
        let rest = data.split_off(ENVELOPE_BYTES);
        if data[0] != FORMAT {
            return Err(EntryError::UnknownFormat(data[0]));
        }
        if data[1] != 0 {
            return Err(EntryError::UnknownFlags(data[1].into()));
        }
        let level = u16_at(&data, 2);
        if level > LEVEL {
            return Err(EntryError::NewerLevel(level));
        }
        let envelope = Envelope { level, log_time_ms: u64_at(&data, 8), wall_ms: u64_at(&data, 16) };
        Ok(Self { envelope, left: u32_at(&data, 4), rest })
    }

    /// Bytes of the entry's data that are not read yet.
    #[must_use]
    pub fn left_bytes(&self) -> usize {
        self.rest.len()
    }

    fn read(&mut self) -> Result<Effect, EntryError> {
        if self.rest.len() < EFFECT_HEADER_BYTES {
            return Err(EntryError::Malformed);
        }
        let header = self.rest.split_to(EFFECT_HEADER_BYTES);
        let flags = u16_at(&header, 2);
        if flags != 0 {
            return Err(EntryError::UnknownFlags(flags));
        }
        let length = u32_at(&header, 4) as usize;
        if self.rest.len() < length {
            return Err(EntryError::Malformed);
        }
        let body = self.rest.split_to(length);
        Effect::decode(u16_at(&header, 0), body)
    }
}

impl Iterator for Effects {
    type Item = Result<Effect, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return if self.rest.is_empty() { None } else { Some(Err(self.give_up())) };
        }
        self.left -= 1;
        let effect = self.read();
        if effect.is_err() {
            self.give_up();
        }
        Some(effect)
    }
}

impl Effects {
    /// Ends the iteration: after an error nothing that follows can be trusted.
    fn give_up(&mut self) -> EntryError {
        self.left = 0;
        self.rest = Bytes::new();
        EntryError::Malformed
    }
}

fn instance_at(bytes: &[u8], at: usize) -> Instance {
    Instance(bytes[at..at + 16].try_into().expect("the slice is 16 bytes long"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("the slice is 2 bytes long"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice is 4 bytes long"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice is 8 bytes long"))
}
