//! What every disk of a real machine has of its directory: the lock that keeps others out, the names of the
//! files, and the content of the small ones.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::SMALL_FILE_BYTES_MAX;

/// The file that a process locks for as long as it has the directory open. It is empty, and stays.
pub(super) const LOCK: &str = "LOCK";
/// Ending of a file that is being replaced.
pub(super) const TEMPORARY: &str = ".new";

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirError {
    /// It is not there.
    #[error(
        "there is no data directory at {path}: mount its disk if it had one, or make the directories of a new cluster \
         with `sequor certs init`"
    )]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("the data directory {path} is in use by another process: stop that one first")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("could not {operation} the data directory {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// The names of all files but the lock and what was being replaced, in ascending order.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if entry.file_type()?.is_file() && name != LOCK && !name.ends_with(TEMPORARY) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The content of a small file, `None` if it does not exist.
pub(super) fn small_file(path: &Path) -> io::Result<Option<Bytes>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(SMALL_FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > SMALL_FILE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is too large to be read whole", path.display()),
        ));
    }
    Ok(Some(content.into()))
}
