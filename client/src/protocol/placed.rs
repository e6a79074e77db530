//! A batch in its place: as it lies in the log, and as it is delivered.
//!
//! ```text
//!  0          2           4        8            16            24
//!  | kind     | flags     | length | offset     | settled     | batch …            |
//!  | u16 = 2  | u16 = 0   | u32    | u64        | u64         | `length` - 16 bytes |
//! ```
//!
//! All numbers are little-endian. A broker delivers stretches of its log as they are: a hundred small batches that were
//! written together are one piece of memory, which is neither copied nor taken apart on its way to the socket.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Field, Offset, Refusal, Sequence, batch};

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
    /// If the batch has more than 4 GiB.
    pub fn put(out: &mut impl BufMut, offset: Offset, settled: Sequence, batch: &[u8]) {
        out.put_u16_le(KIND);
        out.put_u16_le(0);
        out.put_u32_le(u32::try_from(COUNTED_BYTES + batch.len()).expect("a batch has less than 1 MiB"));
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
    /// [`Refusal::Malformed`].
    pub fn take(stretch: &mut Bytes) -> Result<Self, Refusal> {
        let placed = Self::read(stretch);
        if placed.is_none() {
            stretch.clear();
        }
        placed.ok_or(Refusal::Malformed { what: Field::Batch })
    }

    fn read(stretch: &mut Bytes) -> Option<Self> {
        if stretch.len() < PLACE_BYTES {
            return None;
        }
        let (kind, flags) = (stretch.get_u16_le(), stretch.get_u16_le());
        let bytes = (stretch.get_u32_le() as usize).checked_sub(COUNTED_BYTES)?;
        let (offset, settled) = (Offset(stretch.get_u64_le()), Sequence(stretch.get_u64_le()));
        // None is shorter than its header, so that a list of them takes less memory than they do.
        let is_sound = (kind, flags) == (KIND, 0) && (batch::HEADER_BYTES..=stretch.len()).contains(&bytes);
        is_sound.then(|| Self { offset, settled, batch: stretch.split_to(bytes) })
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
        let shorter = placed(1, 63).to_bytes();
        let cases =
            [changed(0, 3), changed(2, 1), changed(4, 81), changed(4, 15), shorter, sound.slice(..23)];
        for (at, mut stretch) in cases.into_iter().enumerate() {
            let refusal = Refusal::Malformed { what: Field::Batch };
            assert_eq!(Placed::take(&mut stretch), Err(refusal), "case {at}");
            assert!(stretch.is_empty());
        }
    }
}
