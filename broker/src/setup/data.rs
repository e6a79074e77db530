//! A broker's data directory before its first start: who it is, and the genesis of its cluster.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path};

use sequor_wal::{Checkpoint, Identity, Section, disk::mmap::MmapDisk};

use super::SetupError;
use crate::core::genesis::Genesis;

/// Makes `dir`, and it the data directory of this broker.
///
/// # Errors
///
/// If it is there already, or cannot be written.
pub(crate) fn create(dir: &Path, identity: &Identity, genesis: &Genesis) -> Result<(), SetupError> {
    let wrong = |source| SetupError::Write { path: dir.to_path_buf(), source };
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(wrong)?;
    let disk = MmapDisk::open(dir)?;
    let sections = genesis.encode().into_iter().map(|(id, content)| Section { id, content }).collect();
    let chain = sequor_wal::chain_start(&identity.cluster);
    Checkpoint { index: 0, term: 0, chain, sections }.save(&disk)?;
    // Last: a directory that has an identity has all the rest.
    Ok(Identity::create(&disk, identity)?)
}
