//! The sizes of a log, and which of them are possible.

use crate::ENTRY_HEADER_BYTES;
use crate::block::HEADER_BYTES as BLOCK_HEADER_BYTES;
use crate::segment;

/// Sizes of a log. They may change from one start to the next: every segment remembers its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Length of a segment file. Bytes, a multiple of the alignment, at most 1 GiB.
    pub segment_bytes: u64,
    /// Largest block, unless a single entry is larger. Bytes.
    pub block_bytes_max: usize,
    /// Blocks begin on a multiple of this: the physical sector, at least 512. Bytes, a power of two.
    pub alignment: u32,
    /// Zero-filled segments to keep ready. Count, at least 1.
    pub spares: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, block_bytes_max: 4 << 20, alignment: 512, spares: 2 }
    }
}

impl Settings {
    /// Most data that one entry may have: with it, a block still fits into a segment of its own. Bytes.
    #[must_use]
    pub fn entry_data_bytes_max(&self) -> usize {
        let room = self.segment_bytes.saturating_sub(u64::from(self.alignment));
        usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(BLOCK_HEADER_BYTES + ENTRY_HEADER_BYTES)
    }

    /// What is impossible about them, if anything is.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let Self { segment_bytes, block_bytes_max, alignment, spares } = self;
        if !segment::is_alignment(*alignment) {
            return Some(format!("an alignment of {alignment} is not a power of two from 512 to 65536"));
        }
        if !segment_bytes.is_multiple_of(u64::from(*alignment)) || *segment_bytes > segment::SEGMENT_BYTES_MAX
        {
            return Some(format!("segments of {segment_bytes} bytes are not aligned or larger than 1 GiB"));
        }
        if self.entry_data_bytes_max() == 0 || *block_bytes_max == 0 || *spares == 0 {
            return Some("segments, blocks and spares must have room for an entry".into());
        }
        None
    }
}
