//! A batch in its place: as it lies in the log, and as it is delivered.
//!
//! ```text
//!  0          2           4        8            16            24
//!  | kind     | flags     | length | offset     | settled     | batch …            |
//!  | u16 = 2  | u16 = 0   | u32    | u64        | u64         | `length` - 16 bytes |
//! ```
//!
//! All numbers are little-endian. A broker delivers stretches of its log as they are: a hundred batches that were written
//! together are one piece of memory, which is not taken apart on its way to QUIC. So this layout belongs to the format of the
//! log (it is the *Append* of an entry's effects) and to the client protocol, and can only change with both.
//!
//! No checksum covers the place on its own: in the log that of the entry does, on the way QUIC does, and a reader compares
//! the length with the batch and the offset with the one that is due. It has no use for `settled`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Feature, Field, Offset, Refusal, Sequence, batch};

/// What lies in front of a batch. Bytes.
pub const PLACE_BYTES: usize = 24;
/// Says that what follows is a batch. (A log has other things in it, which are not delivered.)
pub const KIND: u16 = 2;
/// The part of the place that the length counts. Bytes.
const COUNTED_BYTES: usize = 16;

/// See the file's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record.
    pub offset: Offset,
    /// The lowest number that its producer could still resend when it was written.
    pub settled: Sequence,
    /// The batch, in the producer's bytes.
    pub batch: Bytes,
}

impl Placed {
    /// Writes a batch in its place.
    ///
    /// # Panics
    /// If the batch has 4 GiB.
    pub fn put(out: &mut impl BufMut, offset: Offset, settled: Sequence, batch: &[u8]) {
        out.put_u16_le(KIND);
        out.put_u16_le(0);
        out.put_u32_le(u32::try_from(COUNTED_BYTES + batch.len()).expect("a batch is below 4 GiB"));
        out.put_u64_le(offset.0);
        out.put_u64_le(settled.0);
        out.put_slice(batch);
    }

    /// All of it, as it lies in the log.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(PLACE_BYTES + self.batch.len());
        Self::put(&mut out, self.offset, self.settled, &self.batch);
        out.freeze()
    }

    /// Takes the first one from a stretch of the log; the batch itself is not looked at. After an error the stretch is
    /// empty: nobody knows where the next one begins.
    ///
    /// # Errors
    /// [`Refusal::Malformed`]; [`Refusal::Unsupported`] for a kind or flags of a later version.
    pub fn take(stretch: &mut Bytes) -> Result<Self, Refusal> {
        let placed = Self::read(stretch);
        if placed.is_err() {
            stretch.clear();
        }
        placed
    }

    fn read(stretch: &mut Bytes) -> Result<Self, Refusal> {
        let malformed = Refusal::Malformed { what: Field::Batch };
        if stretch.len() < PLACE_BYTES {
            return Err(malformed);
        }
        let (kind, flags) = (stretch.get_u16_le(), stretch.get_u16_le());
        let counted = stretch.get_u32_le() as usize;
        let (offset, settled) = (Offset(stretch.get_u64_le()), Sequence(stretch.get_u64_le()));
        if kind != KIND {
            return Err(Refusal::Unsupported { what: Feature::Place(kind) });
        }
        if flags != 0 {
            return Err(Refusal::Unsupported { what: Feature::Flags(flags) });
        }
        match counted.checked_sub(COUNTED_BYTES) {
            Some(bytes) if (batch::HEADER_BYTES..=stretch.len()).contains(&bytes) => {
                Ok(Self { offset, settled, batch: stretch.split_to(bytes) })
            }
            _ => Err(malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(offset: u64, bytes: usize) -> Placed {
        Placed { offset: Offset(offset), settled: Sequence(7), batch: vec![offset as u8; bytes].into() }
    }

    #[test]
    fn a_stretch_is_taken_apart_into_what_it_was_put_together_from() {
        let all = [placed(1, 64), placed(2, 100), placed(9, 65)];
        let mut stretch: Bytes = all.iter().flat_map(Placed::to_bytes).collect();
        assert_eq!(stretch.len(), 3 * PLACE_BYTES + 64 + 100 + 65);
        for expected in all {
            assert_eq!(Placed::take(&mut stretch), Ok(expected));
        }
        assert!(stretch.is_empty());
    }

    #[test]
    fn what_is_no_batch_in_its_place_is_refused_and_nothing_after_it_is_taken() {
        let sound = placed(1, 64).to_bytes();
        let changed = |at: usize, to: u8| {
            let mut bytes = sound.to_vec();
            bytes[at] = to;
            Bytes::from(bytes)
        };
        let unsupported = |what| Refusal::Unsupported { what };
        let malformed = Refusal::Malformed { what: Field::Batch };
        let cases = [
            (changed(0, 3), unsupported(Feature::Place(3))),
            (changed(2, 1), unsupported(Feature::Flags(1))),
            (changed(4, 81), malformed.clone()),
            (changed(4, 15), malformed.clone()),
            (placed(1, 63).to_bytes(), malformed.clone()),
            (sound.slice(..23), malformed),
        ];
        for (mut stretch, refusal) in cases {
            assert_eq!(Placed::take(&mut stretch), Err(refusal));
            assert!(stretch.is_empty());
        }
    }
}
