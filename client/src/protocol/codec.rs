//! How the records of a batch may be packed: not at all, or as one LZ4 block.
//!
//! ```text
//!   codec 0   records
//!   codec 1   length u32 of the records, little-endian | LZ4 block
//! ```
//!
//! A batch is stored, replicated and delivered as its producer packed it. Its checksum covers the packed bytes, its
//! digest the records themselves: so the same records have the same digest, packed or not. A broker unpacks a batch once,
//! when it arrives, and throws the result away: what nobody could read must not get into the log.

use super::{Feature, Field, Refusal, limits::BATCH_BYTES_MAX};

/// How records are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// They are not.
    #[default]
    None = 0,
    /// One LZ4 block.
    Lz4 = 1,
}

/// Length of the records before the block. Bytes.
pub(super) const LENGTH_BYTES: usize = 4;

impl TryFrom<u8> for Codec {
    type Error = Refusal;

    fn try_from(byte: u8) -> Result<Self, Refusal> {
        match byte {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            other => Err(Refusal::Unsupported { what: Feature::Codec(other) }),
        }
    }
}

/// Packs records; none if that would not make them smaller.
pub(super) fn pack(records: &[u8]) -> Option<Vec<u8>> {
    let mut packed = vec![0; LENGTH_BYTES + lz4_flex::block::get_maximum_output_size(records.len())];
    packed[..LENGTH_BYTES].copy_from_slice(&(records.len() as u32).to_le_bytes());
    let block = lz4_flex::block::compress_into(records, &mut packed[LENGTH_BYTES..]);
    let length = LENGTH_BYTES + block.expect("there is room for the worst case");
    packed.truncate(length);
    (length < records.len()).then_some(packed)
}

/// Unpacks records. Allocates no more than a batch may hold, whatever the bytes claim.
///
/// # Errors
///
/// [`Refusal::TooLarge`] if they claim to be more than a batch may hold, [`Refusal::Malformed`] if they are not what they
/// claim.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let malformed = Refusal::Malformed { what: Field::Records };
    let (length, block) = packed.split_first_chunk::<LENGTH_BYTES>().ok_or(malformed.clone())?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > BATCH_BYTES_MAX {
        let (found, limit) = (length as u64, BATCH_BYTES_MAX as u64);
        return Err(Refusal::TooLarge { what: Field::Records, found, limit });
    }
    let mut records = vec![0; length];
    match lz4_flex::block::decompress_into(block, &mut records) {
        Ok(written) if written == length => Ok(records),
        _ => Err(malformed),
    }
}
