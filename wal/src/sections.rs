//! A small file of numbered sections, replaced as a whole: identity, checkpoints, and whatever a broker pins
//! down.
//!
//! ```text
//!   0       4        6      8       12       16
//!   | magic | format | zero | count | length | section … section | crc |
//!   | u32   | u16    | u16  | u32   | u32    |                   | u32 |   `length`: bytes of all sections
//!
//!   section
//!   | id  | bytes | crc | content … |
//!   | u32 | u32   | u32 |                                                     `crc` of the content
//! ```
//!
//! Little endian. The last field is the CRC32 of everything before it; the one of a section says which
//! section it is that rotted. Sections keep their order; an id may stand there once only.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use crate::entry::{FORMAT_AT, u32_at, was_written_as};
use crate::{Damage, Disk};

const MAGIC: u32 = u32::from_le_bytes(*b"sqFS");
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 16;
const SECTION_HEADER_BYTES: usize = 12;
const CRC_BYTES: usize = 4;

/// Most sections in one file.
pub const SECTIONS_MAX: usize = 1024;
/// Largest file, header and checksums included. Bytes.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// One numbered piece of a file. What it means is its owner's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The number by which it is found.
    pub id: u32,
    /// Its bytes.
    pub content: Bytes,
}

/// The content of one sections file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// In the order of the file.
    pub sections: Vec<Section>,
}

/// Why a sections file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is not what was written.
    #[error(
        "{0}; it is never repaired by guessing: keep the directory as it is and do not run a broker on it"
    )]
    Damaged(#[from] Damage),
    /// A later version of the program wrote it.
    #[error(
        "{name} has format {found}, and this version reads up to {FORMAT}: run the version that wrote it"
    )]
    NewerFormat {
        /// The file.
        name: String,
        /// Its format.
        found: u16,
    },
    /// More than [`SECTIONS_MAX`] sections, more than [`FILE_BYTES_MAX`] bytes, or an id twice.
    #[error("{name} was not written: {why}")]
    Refused {
        /// The file.
        name: String,
        /// Which bound it breaks.
        why: String,
    },
    /// The disk failed.
    #[error("could not {operation} {name}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        name: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl FileError {
    /// The same as what was expected and found in the file `name`.
    #[must_use]
    pub fn into_damage(self, name: &str) -> Damage {
        let (offset, expected, found) = match self {
            Self::Damaged(damage) => return damage,
            Self::NewerFormat { found, .. } => {
                (FORMAT_AT, format!("a format up to {FORMAT}"), format!("format {found}"))
            }
            Self::Refused { why, .. } => (0, "a sections file within its bounds".into(), why),
            Self::Io { source, .. } => (0, "bytes that can be read".into(), source.to_string()),
        };
        Damage { file: name.into(), offset: offset as u64, expected, found }
    }
}

impl File {
    /// The content of the section `id`.
    #[must_use]
    pub fn section(&self, id: u32) -> Option<&Bytes> {
        self.sections.iter().find(|section| section.id == id).map(|section| &section.content)
    }

    /// Reads the file `name`; `None` if there is none.
    ///
    /// # Errors
    /// Damaged, of a newer format, or an error of the disk.
    pub fn load(disk: &dyn Disk, name: &str) -> Result<Option<Self>, FileError> {
        let bytes = disk.read(name).map_err(|source| FileError::Io {
            operation: "read",
            name: name.into(),
            source,
        })?;
        bytes.map(|bytes| Self::decode(name, &bytes)).transpose()
    }

    /// Makes this the content of the file `name`, whole and synced before it returns.
    ///
    /// # Errors
    /// Over a bound, or an error of the disk: the file then holds the old or the new content.
    pub fn save(&self, disk: &dyn Disk, name: &str) -> Result<(), FileError> {
        let bytes = self.encode(name)?;
        disk.replace(name, &bytes).map_err(|source| FileError::Io {
            operation: "write",
            name: name.into(),
            source,
        })
    }

    fn encode(&self, name: &str) -> Result<Bytes, FileError> {
        let refused = |why: String| FileError::Refused { name: name.into(), why };
        if self.sections.len() > SECTIONS_MAX {
            return Err(refused(format!("{} sections are more than {SECTIONS_MAX}", self.sections.len())));
        }
        let length: usize = self.sections.iter().map(|s| SECTION_HEADER_BYTES + s.content.len()).sum();
        if HEADER_BYTES + length + CRC_BYTES > FILE_BYTES_MAX {
            return Err(refused(format!("{length} bytes of sections do not fit into {FILE_BYTES_MAX}")));
        }
        if let Some(twice) = self.first_repeated_id() {
            return Err(refused(format!("section {twice} is there twice")));
        }
        let fits = "bounded by FILE_BYTES_MAX";
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + length + CRC_BYTES);
        bytes.put_u32_le(MAGIC);
        bytes.put_u16_le(FORMAT);
        bytes.put_u16_le(0);
        bytes.put_u32_le(u32::try_from(self.sections.len()).expect(fits));
        bytes.put_u32_le(u32::try_from(length).expect(fits));
        for Section { id, content } in &self.sections {
            bytes.put_u32_le(*id);
            bytes.put_u32_le(u32::try_from(content.len()).expect(fits));
            bytes.put_u32_le(crc32fast::hash(content));
            bytes.put_slice(content);
        }
        let crc = crc32fast::hash(&bytes);
        bytes.put_u32_le(crc);
        Ok(bytes.freeze())
    }

    fn first_repeated_id(&self) -> Option<u32> {
        let mut ids: Vec<u32> = self.sections.iter().map(|section| section.id).collect();
        ids.sort_unstable();
        ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    fn decode(name: &str, bytes: &Bytes) -> Result<Self, FileError> {
        let damage = |offset: usize, expected: String, found: String| {
            FileError::Damaged(Damage { file: name.into(), offset: offset as u64, expected, found })
        };
        if bytes.len() < HEADER_BYTES + CRC_BYTES {
            return Err(damage(0, "a sections file".into(), format!("{} bytes", bytes.len())));
        }
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(damage(0, format!("the magic {MAGIC:#010x}"), format!("{magic:#010x}")));
        }
        let format = u16::from_le_bytes([bytes[4], bytes[5]]);
        let crc_at = bytes.len() - CRC_BYTES;
        let stored = u32_at(bytes, crc_at);
        if format > FORMAT && !was_written_as(FORMAT, &bytes[..crc_at], stored) {
            return Err(FileError::NewerFormat { name: name.into(), found: format });
        }
        if format != FORMAT || bytes[6..8] != [0, 0] {
            let found = format!("format {format}, {:?}", &bytes[6..8]);
            return Err(damage(FORMAT_AT, format!("format {FORMAT} and two zeros"), found));
        }
        let length = u32_at(bytes, 12) as usize;
        if length != bytes.len() - HEADER_BYTES - CRC_BYTES {
            let expected = format!("a file of {length} bytes of sections");
            return Err(damage(12, expected, format!("{} bytes", bytes.len() - HEADER_BYTES - CRC_BYTES)));
        }
        let file = Self::decode_sections(name, bytes, HEADER_BYTES + length)?;
        let computed = crc32fast::hash(&bytes[..crc_at]);
        if stored != computed {
            return Err(damage(crc_at, format!("checksum {stored:#010x}"), format!("{computed:#010x}")));
        }
        if file.sections.len() != u32_at(bytes, 8) as usize || file.first_repeated_id().is_some() {
            let expected = format!("{} different sections", u32_at(bytes, 8));
            return Err(damage(8, expected, format!("{}", file.sections.len())));
        }
        Ok(file)
    }

    fn decode_sections(name: &str, bytes: &Bytes, end: usize) -> Result<Self, FileError> {
        let mut file = Self::default();
        let mut at = HEADER_BYTES;
        while at < end {
            let damage = |expected: String, found: String| {
                FileError::Damaged(Damage { file: name.into(), offset: at as u64, expected, found })
            };
            let room = (end - at).checked_sub(SECTION_HEADER_BYTES);
            let length = room.map(|_| u32_at(bytes, at + 4) as usize);
            let (Some(room), Some(length)) = (room, length) else {
                return Err(damage("the header of a section".into(), format!("{} bytes", end - at)));
            };
            if length > room || file.sections.len() == SECTIONS_MAX {
                return Err(damage(format!("a section of at most {room} bytes"), format!("{length} bytes")));
            }
            let from = at + SECTION_HEADER_BYTES;
            let content = bytes.slice(from..from + length);
            let (stored, computed) = (u32_at(bytes, at + 8), crc32fast::hash(&content));
            if stored != computed {
                let id = u32_at(bytes, at);
                return Err(damage(
                    format!("section {id} with checksum {stored:#010x}"),
                    format!("{computed:#010x}"),
                ));
            }
            file.sections.push(Section { id: u32_at(bytes, at), content });
            at = from + length;
        }
        Ok(file)
    }
}
