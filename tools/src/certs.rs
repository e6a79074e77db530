//! `sequor certs init`: everything that makes a cluster this cluster, in one directory.
//!
//! What is in there, and that `serve` never makes a data directory, is told in [`sequor_broker::setup`]. Here is what
//! the user says and is told.

use std::{net::SocketAddr, path::PathBuf};

use clap::Subcommand;

use sequor_broker::setup::{AddressError, ClusterDir, SetupError, addresses};

use crate::{
    exit::{Exit, Failure, Verdict},
    output, shell,
    visible::visible_path,
};

/// Most brokers that `certs init` makes at once. Count.
const BROKERS_MAX: u64 = 9;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sequor certs init demo --brokers 3")]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Make a new cluster in an empty directory.
    Init(InitArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sequor certs init demo --brokers 3 --listen 127.0.0.1:7400
  sequor certs init prod --listen 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400")]
struct InitArgs {
    /// Directory to make. If it exists it must be empty.
    dir: PathBuf,

    /// Number of brokers, 1 to 9. Best is 1, 3 or 5: an even number survives no more failures than the odd one below it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=BROKERS_MAX))]
    brokers: u64,

    /// Address of the first broker, the others taking the ports that follow; or one address for each, by commas.
    ///
    /// It is where clients and the other brokers connect to, so 0.0.0.0 and [::] will not do.
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',', default_value = "127.0.0.1:7400")]
    listen: Vec<SocketAddr>,
}

impl Verdict for AddressError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Verdict for SetupError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotEmpty { .. } | Self::NoCluster { .. } => Exit::Precondition,
            _ => Exit::Error,
        }
    }
}

pub(crate) fn run(args: CertsArgs) -> Result<(), Failure> {
    let CertsCommand::Init(args) = args.command;
    let addresses = addresses(&args.listen, args.brokers)?;
    let made = ClusterDir::create(&args.dir, &addresses)?;
    output::print(&describe(&made))
}

fn describe(made: &ClusterDir) -> String {
    let mut text = format!("cluster {} in {}\n\n", made.cluster(), visible_path(made.path()));
    for (id, address) in made.brokers() {
        text += &format!("  broker {id}  {address}  {}\n", visible_path(&made.config(*id)));
    }
    text += "\nThe keys of the two authorities, ca-peers.key and ca-clients.key, are needed again only to add a \
             broker or a client: keep them elsewhere.\n\nNext, each in a terminal of its own:\n\n";
    for (id, _) in made.brokers() {
        text += &format!("  sequor serve --config {}\n", shell::word(&made.config(*id)));
    }
    let context = shell::word(&made.context());
    for command in ["status", "append --producer import/1 lines.txt", "tail --until-end"] {
        text += &format!("  sequor --context {context} {command}\n");
    }
    text
}
