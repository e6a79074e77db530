//! The state of the machine at an index, as one sections file: the log before that index is not needed to
//! rebuild it.
//!
//! The one at index 0 is the genesis: who the first members are. Every directory has it from the start. What
//! the sections mean is the broker's business; this file only remembers after which entry they hold.

use bytes::{BufMut, Bytes, BytesMut};

use crate::entry::{u32_at, u64_at};
use crate::sections::{File, FileError, Section};
use crate::{Disk, Index, Position, Term};

const PREFIX: &str = "checkpoint-";

/// The section that holds the position. Taken: no other section may have this id.
const POSITION: u32 = u32::MAX;
const POSITION_BYTES: usize = 20;

/// A state and the entry after which it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Index of the last entry in it; 0 for the genesis.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Chained checksum of that entry.
    pub chain: u32,
    /// The state. The id `u32::MAX` is taken.
    pub sections: Vec<Section>,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file has no valid position, or that of another index than its name says.
    #[error(
        "{name} does not say after which entry it holds: keep the directory as it is and do not run a broker on it"
    )]
    NoPosition {
        /// The file.
        name: String,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Checkpoint {
    /// The entry after which the state holds.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { index: self.index, term: self.term, chain: self.chain }
    }

    /// The content of the section `id`.
    #[must_use]
    pub fn section(&self, id: u32) -> Option<&Bytes> {
        self.sections.iter().find(|section| section.id == id).map(|section| &section.content)
    }

    /// Writes it to its file, whole and synced before it returns. Older checkpoints stay.
    ///
    /// # Errors
    /// An error of the file, also when a section has the id that is taken.
    pub fn save(&self, disk: &dyn Disk) -> Result<(), CheckpointError> {
        let mut position = BytesMut::with_capacity(POSITION_BYTES);
        position.put_u64_le(self.index);
        position.put_u64_le(self.term);
        position.put_u32_le(self.chain);
        let mut sections = vec![Section { id: POSITION, content: position.freeze() }];
        sections.extend(self.sections.iter().cloned());
        Ok(File { sections }.save(disk, &file_name(self.index))?)
    }

    /// Reads the checkpoint with the highest index; `None` if the directory has none.
    ///
    /// # Errors
    /// What is wrong with the highest. An older one is not taken in its place.
    pub fn load_latest(disk: &dyn Disk) -> Result<Option<Self>, CheckpointError> {
        let names = disk.list().map_err(|source| FileError::Io {
            operation: "list",
            name: "the data directory".into(),
            source,
        })?;
        indexes(&names).max().map_or(Ok(None), |index| Self::load(disk, index))
    }

    /// Reads the checkpoint at `index`; `None` if the directory has none there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(disk: &dyn Disk, index: Index) -> Result<Option<Self>, CheckpointError> {
        let name = file_name(index);
        let Some(mut file) = File::load(disk, &name)? else { return Ok(None) };
        let position = file.section(POSITION).filter(|content| content.len() == POSITION_BYTES).cloned();
        let position = position.filter(|content| u64_at(content, 0) == index);
        let Some(position) = position else { return Err(CheckpointError::NoPosition { name }) };
        file.sections.retain(|section| section.id != POSITION);
        let (term, chain) = (u64_at(&position, 8), u32_at(&position, 16));
        Ok(Some(Self { index, term, chain, sections: file.sections }))
    }
}

/// After which entries there are checkpoints, by the names of the files.
pub(crate) fn indexes(names: &[String]) -> impl Iterator<Item = Index> {
    names.iter().filter_map(|name| file_index(name))
}

pub(crate) fn file_name(index: Index) -> String {
    format!("{PREFIX}{index:020}")
}

fn file_index(name: &str) -> Option<Index> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}
