//! `sequor wal`: the data directories of brokers that do not run, looked at and not touched.
//!
//! | file | noun |
//! |---|---|
//! | `verify.rs` | `wal verify`: is everything as it was written, and is the log the same in all directories? |
//! | `dump.rs` | `wal dump`: every block and entry, in order |
//! | `line.rs`, `effects.rs` | one line of it, and what an entry decided |
//! | `directory.rs` | one directory: opened, locked, its files looked at |
//! | `audit.rs` | what its entries hold, entry by entry |
//! | `comparison.rs` | the common committed prefix of several |
//! | `report.rs` | how a verification is told |
//!
//! What a log is, block by block, is read by `sequor-wal` in the way in which a broker reads it at its start; what its
//! entries mean, by `sequor-broker`. Nothing of either is known here a second time.

mod audit;
mod comparison;
mod directory;
mod dump;
mod effects;
mod line;
mod report;
mod verify;

use clap::Subcommand;

use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sequor wal verify sequor-dev/broker-?               what `sequor dev` has written, when it does not run
  sequor wal dump sequor-dev/broker-1 | less")]
pub(crate) struct WalArgs {
    #[command(subcommand)]
    command: WalCommand,
}

#[derive(Debug, Subcommand)]
enum WalCommand {
    /// Check everything in data directories, and that their logs are the same.
    Verify(verify::VerifyArgs),
    /// Print every block and every entry of a log.
    Dump(dump::DumpArgs),
}

pub(crate) async fn run(args: WalArgs) -> Result<(), Failure> {
    match args.command {
        WalCommand::Verify(args) => verify::run(&args),
        WalCommand::Dump(args) => dump::run(&args).await,
    }
}
