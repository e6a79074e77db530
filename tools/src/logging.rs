//! Logs: on stderr, as text on a terminal and as JSON otherwise, never with a client's keys or values.

use std::io::{IsTerminal as _, stderr};

use thiserror::Error;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    registry,
    util::SubscriberInitExt as _,
};

use crate::{
    cli::{Cli, Command},
    exit::{Exit, Verdict},
};

/// Why there is no log: a word of its filter is neither a level nor says of whom one is meant.
#[derive(Debug, Error)]
#[error(
    "{word:?} is not a log level: it is error, warn, info, debug, trace, or a filter such as sequor_broker=debug"
)]
pub(crate) struct LogError {
    /// The word.
    word: String,
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

/// Reads levels by commas: for all, or for one part of the program. To the library's own reader a word that is no level is
/// somebody of whom all is meant: a level with a wrong letter would be silence.
fn read(filter: &str) -> Result<Targets, LogError> {
    filter.split(',').try_fold(Targets::new(), |targets, word| {
        let unlike = || LogError { word: word.to_owned() };
        let level = |of: &str| of.parse::<LevelFilter>().ok().filter(|_| !of.is_empty()).ok_or_else(unlike);
        match word.split_once('=') {
            None => Ok(targets.with_default(level(word)?)),
            Some((part, of)) if is_path(part) => Ok(targets.with_target(part, level(of)?)),
            Some(_) => Err(unlike()),
        }
    })
}

/// Whether it can be the name of a module.
fn is_path(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|letter| letter.is_alphanumeric() || "_:".contains(letter))
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
