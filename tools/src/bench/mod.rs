//! `sequor bench`: how fast it is, and how fast it is back.
//!
//! | file | noun |
//! |---|---|
//! | `failover.rs` | `bench failover`: from the death of the leader to the next acknowledgement |
//!
//! Each measures a cluster of its own, of processes on this machine, so that what is measured is known; and says how, so
//! that it can be measured elsewhere.

mod failover;

use clap::Subcommand;

use crate::{cli::Global, exit::Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Kill the leader again and again under load, and measure how long nothing is acknowledged.
    Failover(failover::FailoverArgs),
}

pub(crate) async fn run(args: BenchArgs, global: &Global) -> Result<(), Failure> {
    match args.command {
        BenchCommand::Failover(args) => failover::run(args, global).await,
    }
}
