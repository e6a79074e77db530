//! Logs: on stderr, as text on a terminal and as JSON otherwise, never with a client's keys or values.

use std::io::{IsTerminal as _, stderr};

use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt};

use crate::{
    cli::{Cli, Command},
    exit::{Exit, Verdict},
};

/// Why there is no log.
#[derive(Debug, Error)]
pub(crate) enum LogError {
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
    let filter = EnvFilter::try_new(&filter).map_err(|source| LogError::Filter { filter, source })?;
    // A closed stderr is no reason to panic: `log_internal_errors` would print to it.
    let log = fmt().with_env_filter(filter).with_writer(stderr).log_internal_errors(false);
    if stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
    Ok(())
}

fn default_level(command: &Command) -> &'static str {
    match command {
        Command::Serve(_) => "info",
        _ => "warn",
    }
}
