//! Logs: on stderr, as text on a terminal and as JSON otherwise, never with a client's keys or values.

use std::io::{IsTerminal as _, stderr};

use thiserror::Error;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, ParseError, Targets},
    fmt,
    layer::SubscriberExt as _,
    registry,
    util::SubscriberInitExt as _,
};

use crate::{
    cli::{Cli, Command},
    exit::{Exit, Verdict},
};

/// Why there is no log.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    /// A word that is neither a level nor says of whom one is meant.
    #[error(
        "{word:?} is not a log level: it is error, warn, info, debug, trace, or a filter such as sequor_broker=debug"
    )]
    Level {
        /// What was given.
        word: String,
    },
    /// The filter cannot be read.
    #[error("{filter:?} is not a log level (error, warn, info, debug, trace) and not a filter")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
}

impl Verdict for LogError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// Sends the log of the whole process to stderr.
///
/// # Errors
/// If the level is none.
pub(crate) fn start(cli: &Cli) -> Result<(), crate::Failure> {
    let filter = cli.global.log.clone().unwrap_or_else(|| default_level(&cli.command).to_owned());
    let filter = read(&filter)?;
    // A closed stderr is no reason to panic: `log_internal_errors` would print to it.
    let log = fmt::layer().with_writer(stderr).log_internal_errors(false);
    let log = match stderr().is_terminal() {
        true => log.with_target(false).boxed(),
        false => log.json().flatten_event(true).boxed(),
    };
    registry().with(log).with(filter).init();
    Ok(())
}

/// To the library a word that is no level is somebody of whom all is meant: a level with a wrong letter would be silence.
fn read(filter: &str) -> Result<Targets, LogError> {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_path = |word: &str| {
        !word.is_empty() && word.chars().all(|letter| letter.is_alphanumeric() || "_:".contains(letter))
    };
    let is_sound = |word: &str| match word.split_once('=') {
        Some((path, level)) => is_path(path) && is_level(level),
        None => is_level(word),
    };
    match filter.split(',').find(|word| !is_sound(word)) {
        Some(word) => Err(LogError::Level { word: word.into() }),
        None => filter.parse().map_err(|source| LogError::Filter { filter: filter.into(), source }),
    }
}

fn default_level(command: &Command) -> &'static str {
    match command {
        Command::Serve(_) => "info",
        _ => "warn",
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_levels_for_all_or_for_some() {
        let filter = read("warn,sequor_broker=debug").unwrap();
        assert!(filter.would_enable("sequor_broker::io", &Level::DEBUG));
        assert!(filter.would_enable("quinn", &Level::WARN) && !filter.would_enable("quinn", &Level::INFO));
        assert!(!read("off").unwrap().would_enable("sequor_broker", &Level::ERROR));
        for wrong in [
            "",
            "wran",
            "warn,sequor_broker",
            "warn,",
            "=x",
            "sequor_broker=loud",
            "sequor_broker=",
            "warn, quinn=info",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
