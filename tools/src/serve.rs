//! `sequor serve`: one broker, until it is told to stop.
//!
//! SIGTERM or Ctrl-C: it hands leadership over, answers what it can, syncs, and ends with code 0.

use std::{path::PathBuf, thread};

use thiserror::Error;

use sequor_broker::{
    config::{Config, ConfigError, KEYS, Layer},
    io,
};
use sequor_wal::disk::mmap::OpenDirError;

use crate::exit::{Exit, Failure, Verdict};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sequor serve --config demo/broker-1.toml
  sequor serve --config demo/broker-1.toml --set election_ms=300 --set heartbeat_ms=60
  SEQUOR_LOG=debug SEQUOR_LISTEN=10.0.0.1:7400 sequor serve --config demo/broker-1.toml")]
pub(crate) struct ServeArgs {
    /// The broker's configuration, as `certs init` writes one.
    #[arg(long, env = "SEQUOR_CONFIG", value_name = "FILE")]
    config: PathBuf,

    /// Set one key of the configuration, over the file and the environment. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,

    /// Die, as if killed, when standard input ends: whoever started this broker is gone.
    #[arg(long, hide = true)]
    die_with_stdin: bool,
}

/// Why a broker did not serve.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    /// A flag sets what cannot be set.
    #[error("--set {key}: the value {reason}")]
    Flag {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Its configuration is not one.
    #[error("cannot start the broker")]
    Config(#[from] ConfigError),
    /// It could not start, or not go on.
    #[error("the broker of {} does not run", .config.display())]
    Broker {
        /// Its configuration.
        config: PathBuf,
        /// Why.
        source: io::ServeError,
    },
}

impl Verdict for ServeError {
    fn exit(&self) -> Exit {
        match self {
            Self::Flag { .. } | Self::Config(_) => Exit::Usage,
            // Its lock is held: a condition, and no failure of this broker.
            Self::Broker { source: io::ServeError::Directory(OpenDirError::InUse { .. }), .. } => {
                Exit::Precondition
            }
            Self::Broker { .. } => Exit::Error,
        }
    }
}

pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut flags = Layer::default();
    for (key, value) in args.set {
        flags.set(&key, &value).map_err(|reason| ServeError::Flag { key, reason })?;
    }
    let config = Config::load(&args.config, std::env::vars_os(), flags).map_err(ServeError::from)?;
    if args.die_with_stdin {
        thread::spawn(die_with_stdin);
    }
    io::run(&config).map_err(|source| ServeError::Broker { config: args.config, source }.into())
}

pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    if KEYS.contains(&key) {
        return Ok((key.to_owned(), value.to_owned()));
    }
    Err(format!("there is no key `{key}`; the keys are {}", KEYS.join(", ")))
}

/// Ends the process when nobody holds the other end of stdin any more. A broker must survive that at any moment, so it
/// is not told beforehand.
fn die_with_stdin() {
    let _over = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(Exit::Error as i32);
}
