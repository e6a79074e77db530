//! The null log: what three copies on three disks cost with nothing else.
//!
//! ```text
//!                    ┌► follower: block, fdatasync ─► "durable up to" ─┐
//!   client ─► leader ┼► leader:   block, fdatasync ────────────────────┼► two of three have it: "durable up to" ─► client
//!                    └► follower: block, fdatasync ─► "durable up to" ─┘
//! ```
//!
//! Four processes, as with sequor: a client, a leader, two followers. The same QUIC (`sequor_client::transport`), the same
//! segments (`sequor_wal::disk`): zero-filled ahead by a thread of its own, two spares, blocks on 512-byte boundaries
//! that never span segments, a roll to the next one, one sync in flight. The same relay, if there is a delay.
//!
//! And nothing else: no Raft, no frames, no checksums, no numbers, no state, no recovery. Bytes come in, bytes are stored
//! three times, a count of bytes goes back. Whatever a replicated log does on top makes it slower than this (only that its
//! segments are made at full speed, while sequor gives way to syncs): the null log
//! is the line that sequor's figures are a share of. It is not a log that anybody could use.
//!
//! | file | noun |
//! |---|---|
//! | `segments.rs` | the files, and who fills them |
//! | `syncer.rs` | the thread that writes and syncs |
//! | `wire.rs` | endpoints of QUIC |
//! | `node.rs` | leader and follower |
//! | `load.rs` | the client |
//! | `run.rs` | all four of them, point by point |

mod load;
mod node;
mod run;
mod segments;
mod syncer;
mod wire;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use sequor_benches::{child::end_with_stdin, interruption::Signals};

use self::{run::RunArgs, wire::WireError};

/// The smallest thing that stores bytes on three disks and says so: the limit that sequor is held against.
#[derive(Debug, Parser)]
#[command(
    name = "nulllog",
    after_help = "\
Examples:
  nulllog run
  nulllog run --point 1x1,1x256,1000x16 --size 128 --seconds 10 -o json
  nulllog run --point 1x1 --rtt-us 5000 --sequor target/release/sequor"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a leader and two followers on loopback, and measure.
    Run(RunArgs),
    /// One of the two that store what the leader sends. Ends with its standard input.
    #[command(hide = true)]
    Follower(NodeArgs),
    /// The one that the client talks to. Ends with its standard input.
    #[command(hide = true)]
    Leader(NodeArgs),
}

#[derive(Debug, clap::Args)]
struct NodeArgs {
    /// UDP address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Directory of the log.
    #[arg(long)]
    data: PathBuf,
    /// Directory with `cert.der` and `key.der`.
    #[arg(long)]
    certs: PathBuf,
    /// Size of a segment. Bytes.
    #[arg(long)]
    segment_bytes: u64,
    /// Write one segment over and over.
    #[arg(long)]
    in_place: bool,
    /// The followers, for a leader.
    #[arg(long, value_delimiter = ',')]
    follower: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done: Result<(), Box<dyn std::error::Error>> = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => {
                let mut signals = Signals::listen()?;
                tokio::select! {
                    biased;
                    // What runs is ended, and its logs are removed.
                    () = signals.next() => Err("interrupted".into()),
                    done = run::run(args) => Ok(done?),
                }
            }
            Command::Follower(args) => Ok(node(args, false).await?),
            Command::Leader(args) => Ok(node(args, true).await?),
        }
    });
    done.map_or_else(|error| failed(error.as_ref()), |()| ExitCode::SUCCESS)
}

async fn node(args: NodeArgs, leads: bool) -> Result<(), node::NodeError> {
    end_with_stdin();
    let identity = wire::Identity::load(&args.certs).map_err(WireError::Identity)?;
    let endpoint = wire::endpoint(args.listen, Some(&identity))?;
    let segments = match args.in_place {
        true => segments::Segments::open_in_place(&args.data, args.segment_bytes)?,
        false => segments::Segments::open(&args.data, args.segment_bytes)?,
    };
    let durable = syncer::start(segments)?;
    println!("ready");
    match leads {
        true => node::lead(&endpoint, durable, &args.follower, &identity).await,
        false => node::follow(&endpoint, durable).await,
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    eprintln!("nulllog: {text}");
    ExitCode::FAILURE
}
