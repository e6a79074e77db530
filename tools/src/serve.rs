//! `sequor serve`: one broker, until it is told to stop.

use std::path::PathBuf;

use crate::exit::Failure;

/// Run one broker.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The broker's configuration, as `certs init` writes one.
    #[arg(long, env = "SEQUOR_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn run(args: ServeArgs) -> Result<(), Failure> {
    let _ = args.config;
    Ok(())
}
