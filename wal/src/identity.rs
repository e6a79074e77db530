//! Who this broker is: written once by whoever makes the data directory, never by the broker that serves from
//! it.
//!
//! `serve` refuses a directory without it. The incarnation is drawn at the first serve and synced before the
//! first word to a peer; peers pin it, so that a wiped or copied disk is told from the broker they knew.

use bytes::Bytes;

use crate::Disk;
use crate::sections::{File, FileError, Section};

pub(crate) const NAME: &str = "identity";
const CLUSTER: u32 = 1;
const LINEAGE: u32 = 2;
const BROKER: u32 = 3;
const INCARNATION: u32 = 4;

/// Identity of a broker and of the history it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the cluster.
    pub cluster: [u8; 16],
    /// Id of the cluster's history; a restore starts a new one.
    pub lineage: [u8; 16],
    /// Number of the broker in its cluster, from 1.
    pub broker: u64,
    /// Drawn at random at the first serve; `None` until then.
    pub incarnation: Option<[u8; 16]>,
}

/// Why an identity could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory has one already.
    #[error("this data directory already belongs to broker {broker}: choose an empty directory")]
    Exists {
        /// The broker it belongs to.
        broker: u64,
    },
    /// The directory has none.
    #[error(
        "this data directory was never initialised: mount its disk if it has one, or make the directories of a new \
         cluster with `sequor certs init`"
    )]
    NotInitialised,
    /// A section is missing or has the wrong length.
    #[error(
        "the file {NAME} has no valid section for the {field}: keep the directory as it is and do not run a broker on it"
    )]
    Incomplete {
        /// What is missing.
        field: &'static str,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Identity {
    /// Writes the identity into a directory that has none. Synced before it returns.
    ///
    /// # Errors
    /// `Exists` if there is one, whatever it says; else an error of the file.
    pub fn create(disk: &dyn Disk, identity: &Self) -> Result<(), IdentityError> {
        match Self::load(disk) {
            Err(IdentityError::NotInitialised) => Ok(identity.to_file().save(disk, NAME)?),
            Err(error) => Err(error),
            Ok(existing) => Err(IdentityError::Exists { broker: existing.broker }),
        }
    }

    /// Reads the identity of a directory.
    ///
    /// # Errors
    /// `NotInitialised` if there is none; else what is wrong with it.
    pub fn load(disk: &dyn Disk) -> Result<Self, IdentityError> {
        let file = File::load(disk, NAME)?.ok_or(IdentityError::NotInitialised)?;
        let id = |section, field| {
            let content = file.section(section).and_then(|content| <[u8; 16]>::try_from(&content[..]).ok());
            content.ok_or(IdentityError::Incomplete { field })
        };
        let broker = file.section(BROKER).and_then(|content| <[u8; 8]>::try_from(&content[..]).ok());
        Ok(Self {
            cluster: id(CLUSTER, "cluster")?,
            lineage: id(LINEAGE, "lineage")?,
            broker: broker.map(u64::from_le_bytes).ok_or(IdentityError::Incomplete { field: "broker" })?,
            incarnation: match file.section(INCARNATION) {
                Some(_) => Some(id(INCARNATION, "incarnation")?),
                None => None,
            },
        })
    }

    /// Sets the incarnation, once in the life of a directory. Synced before it returns.
    ///
    /// # Panics
    /// If there is one already: a broker keeps its incarnation.
    ///
    /// # Errors
    /// An error of the file; the identity is then unchanged.
    pub fn set_incarnation(&mut self, disk: &dyn Disk, incarnation: [u8; 16]) -> Result<(), IdentityError> {
        assert!(self.incarnation.is_none(), "broker {} already has an incarnation", self.broker);
        let with = Self { incarnation: Some(incarnation), ..self.clone() };
        with.to_file().save(disk, NAME)?;
        *self = with;
        Ok(())
    }

    fn to_file(&self) -> File {
        let section = |id, content: &[u8]| Section { id, content: Bytes::copy_from_slice(content) };
        let mut sections = vec![
            section(CLUSTER, &self.cluster),
            section(LINEAGE, &self.lineage),
            section(BROKER, &self.broker.to_le_bytes()),
        ];
        sections.extend(self.incarnation.map(|incarnation| section(INCARNATION, &incarnation)));
        File { sections }
    }
}
