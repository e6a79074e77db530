//! Which cluster a command talks to: the look-up of the context file.
//!
//! ```text
//! 1  --context FILE, else SEQUOR_CONTEXT      what is named must exist: nothing else is tried
//! 2  ./sequor-dev/context.toml                a cluster that `sequor dev` runs right here
//! 3  <user's config dir>/sequor/context.toml  the user's usual cluster
//! ```

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use thiserror::Error;

use crate::{
    cli::Global,
    exit::{Exit, Verdict},
};

/// Where a development cluster keeps its context, relative to the working directory.
const DEV: &str = "sequor-dev/context.toml";
/// Where a user keeps one, relative to the configuration directory.
const USER: &str = "sequor/context.toml";

/// Whether commands that are given nothing else, in this working directory, find this context file.
pub(crate) fn is_dev(path: &Path) -> bool {
    path.strip_prefix(".").unwrap_or(path) == Path::new(DEV)
}

/// Why it is not known which cluster to talk to.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ContextError {
    /// The file that was named is not there.
    #[error("there is no context file {}: `--context` or SEQUOR_CONTEXT names it", .path.display())]
    Named {
        /// What was named.
        path: PathBuf,
    },
    /// No file was named, and no usual place has one.
    #[error(
        "no context file, so it is not known which cluster to talk to. Tried: --context (not given), SEQUOR_CONTEXT \
         (not set, or empty){}. `sequor dev` runs a cluster right here; `sequor certs init DIR` makes one with a \
         DIR/context.toml",
        .tried.iter().map(|path| format!(", {} (not there)", path.display())).collect::<String>()
    )]
    Nowhere {
        /// The places that were tried.
        tried: Vec<PathBuf>,
    },
}

impl Verdict for ContextError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// Finds the context file.
///
/// # Errors
/// If there is none; the message lists the places.
pub(crate) fn find(global: &Global) -> Result<PathBuf, ContextError> {
    let user = etcetera::choose_base_strategy().ok().map(|strategy| strategy.config_dir());
    look_up(global.context.as_deref(), user.as_deref(), &|path| path.is_file())
}

fn look_up(
    named: Option<&Path>,
    config_dir: Option<&Path>,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<PathBuf, ContextError> {
    if let Some(path) = named {
        let path = path.to_path_buf();
        return if exists(&path) { Ok(path) } else { Err(ContextError::Named { path }) };
    }
    let mut tried = vec![PathBuf::from("./").join(DEV)];
    tried.extend(config_dir.map(|directory| directory.join(USER)));
    match tried.iter().position(|path| exists(path)) {
        Some(at) => Ok(tried.swap_remove(at)),
        None => Err(ContextError::Nowhere { tried }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks up in a world that has only the files `there`.
    fn find_in(named: Option<&str>, there: &[&str]) -> Result<PathBuf, ContextError> {
        look_up(named.map(Path::new), Some(Path::new("/home/u/.config")), &|path| {
            there.iter().any(|file| Path::new(file) == path)
        })
    }

    #[test]
    fn the_named_file_wins_and_must_exist() {
        let all = ["a.toml", "./sequor-dev/context.toml", "/home/u/.config/sequor/context.toml"];
        assert_eq!(find_in(Some("a.toml"), &all), Ok("a.toml".into()));
        assert_eq!(find_in(None, &all), Ok("./sequor-dev/context.toml".into()));
        assert_eq!(find_in(None, &all[2..]), Ok("/home/u/.config/sequor/context.toml".into()));
        assert_eq!(find_in(Some("b.toml"), &all), Err(ContextError::Named { path: "b.toml".into() }));
    }

    #[test]
    fn a_dev_cluster_is_the_one_in_the_usual_place() {
        for (path, found) in
            [("sequor-dev", true), ("./sequor-dev/", true), ("other", false), ("/sequor-dev", false)]
        {
            assert_eq!(is_dev(&Path::new(path).join("context.toml")), found, "{path}");
        }
    }

    #[test]
    fn the_error_lists_the_places() {
        let message = find_in(None, &[]).unwrap_err().to_string();
        for place in [
            "--context",
            "SEQUOR_CONTEXT",
            "./sequor-dev/context.toml",
            "/home/u/.config/sequor/context.toml",
        ] {
            assert!(message.contains(place), "{place} is not in: {message}");
        }
    }
}
