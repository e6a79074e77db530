//! `sequor bench`: how fast it is, and how fast it is back.
//!
//! | file | noun |
//! |---|---|
//! | `append.rs` | `bench append`: records a second and latency, over everything that can be varied |
//! | `tail.rs` | `bench tail`: records a second that consumers read |
//! | `stall.rs` | `bench stall`: the longest time in which nothing is acknowledged |
//! | `failover.rs` | `bench failover`: from the death of the leader to the next acknowledgement |
//! | `relay.rs` | `bench relay`: the long way between programs, for others who measure |
//! | `lists.rs` | what is swept |
//! | `target.rs` | the cluster that is measured |
//! | `load.rs`, `pace.rs` | who writes, and when in an open loop |
//! | `trial.rs` | one load on one cluster |
//! | `meter.rs`, `gauges.rs` | what is read off: times and counts, and what they cost |
//! | `limits/` | what the machine can do at all |
//! | `outcome.rs`, `advice.rs` | figures as a table, JSON or CSV, and what they mean |
//! | `report/` | the same as a page with charts |
//! | `machine.rs`, `progress.rs` | on what, and how far |
//!
//! Each measures a cluster of its own, of processes on this machine, so that what is measured is known; and says how, so
//! that it can be measured elsewhere. The client is one thread of this process, the relay another.

mod advice;
mod append;
mod failover;
mod gauges;
mod limits;
mod lists;
mod load;
mod machine;
mod meter;
mod outcome;
mod pace;
mod progress;
mod relay;
mod report;
mod stall;
mod tail;
mod target;
mod trial;

use clap::Subcommand;

use crate::{cli::Global, exit::Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Append records in batches, and measure how many a second, how long each takes, and what it costs.
    Append(append::AppendArgs),
    /// Read a log with several consumers, and measure how many records a second.
    Tail(tail::TailArgs),
    /// Append at a steady rate, and look for the moment at which it stands still.
    Stall(stall::StallArgs),
    /// Kill the leader again and again under load, and measure how long nothing is acknowledged.
    Failover(failover::FailoverArgs),
    /// Carry TCP and UDP between programs on this machine over a long way.
    Relay(relay::RelayArgs),
}

pub(crate) async fn run(args: BenchArgs, global: &Global) -> Result<(), Failure> {
    match args.command {
        BenchCommand::Append(args) => append::run(args, global).await,
        BenchCommand::Tail(args) => tail::run(args, global).await,
        BenchCommand::Stall(args) => stall::run(args, global).await,
        BenchCommand::Failover(args) => failover::run(args, global).await,
        BenchCommand::Relay(args) => relay::run(args).await,
    }
}
