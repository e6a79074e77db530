//! The file of a quickstart: its bytes, and its lines as `append` sees them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::io::BufReader;

use crate::{
    exit::{Exit, Failure, Verdict},
    form::Form,
    pieces::{Piece, Pieces},
    words::plain_count,
};

/// Largest file: it is kept in memory, and compared with what comes back. Bytes.
const INPUT_BYTES_MAX: u64 = 1 << 30;

/// The file that comes with sequor.
const UNICODE_DATA: &[u8] = include_bytes!("../../data/UnicodeData.txt");

/// A file, whole.
#[derive(Debug)]
pub(crate) struct Input {
    /// What to call it.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// Its lines.
    pub(crate) lines: Vec<Piece>,
}

/// Why there is no input.
#[derive(Debug, Error)]
pub(crate) enum InputError {
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too large.
    #[error("{} is larger than {INPUT_BYTES_MAX} bytes, the most that a quickstart takes: use `append` and `tail`", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It has too few lines for anything to happen half way.
    #[error(
        "{name} has {}, a quickstart needs at least {least}: something has to be half done when the leader dies",
        plain_count(*.found as u64, "line")
    )]
    TooShort {
        /// The file.
        name: String,
        /// Its lines.
        found: usize,
        /// How many it takes.
        least: usize,
    },
}

impl Verdict for InputError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

impl Input {
    /// Reads `path`, or takes the file that comes with sequor.
    ///
    /// # Errors
    /// If it cannot be read, is too large, or has fewer lines than `least`.
    pub(crate) async fn read(path: Option<&Path>, least: usize) -> Result<Self, Failure> {
        let (name, bytes) = match path {
            Some(path) => (path.display().to_string(), read(path)?),
            None => ("UnicodeData.txt (comes with sequor)".to_owned(), UNICODE_DATA.to_vec()),
        };
        let lines = split(&bytes).await?;
        if lines.len() < least {
            return Err(InputError::TooShort { name, found: lines.len(), least }.into());
        }
        Ok(Self { name, bytes, lines })
    }
}

async fn split(bytes: &[u8]) -> Result<Vec<Piece>, Failure> {
    let mut lines = Pieces::new(BufReader::new(bytes), Form::lines());
    let mut all = Vec::new();
    while let Some(line) = lines.next().await? {
        all.push(line);
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, InputError> {
    let wrong = |source| InputError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(wrong)?;
    let found = file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if found as u64 > INPUT_BYTES_MAX {
        return Err(InputError::TooLarge { path: path.to_path_buf() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    const README: &str = include_str!("../../data/README.md");
    const LICENCE: &str = include_str!("../../data/LICENSE-UNICODE");

    #[test]
    fn the_data_is_shown_with_the_copyright_of_its_licence() {
        let notice = LICENCE.lines().find(|line| line.starts_with("Copyright ©")).expect("it has a notice");
        assert!(README.contains(notice), "the README does not say: {notice}");
    }
}
