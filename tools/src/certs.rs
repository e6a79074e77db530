//! `sequor certs init`: everything that makes a cluster this cluster, in one directory.
//!
//! ```text
//! DIR/ca-peers.pem, .key       signs brokers; the key is needed again only to add one
//!     ca-clients.pem, .key     signs clients; the key is needed again only to add one
//!     broker-1.toml            configuration of broker 1
//!     broker-1.pem, .key       its certificate
//!     broker-1/                its data directory: identity, and the genesis as the checkpoint at index 0
//!     …                        the same for every other broker
//!     client.pem, .key         a client's certificate
//!     context.toml             what `--context` wants
//! ```
//!
//! `serve` never creates a data directory: an empty disk must not be taken for a broker that has not voted yet.
//! So it is here that a broker's identity is written, once.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use rustls::crypto::ring::default_provider;
use thiserror::Error;

use sequor_broker::core::genesis::{Genesis, GenesisError, Member, Settings};
use sequor_client::protocol::{BrokerId, ClusterId, Lineage};
use sequor_wal::{
    Checkpoint, CheckpointError, Identity, IdentityError, Section,
    disk::mmap::{MmapDisk, OpenDirError},
};

use crate::{
    authority::{Authority, Certified},
    exit::{Exit, Failure, Verdict},
    output, shell,
    visible::visible_path,
    words::plain_count,
};

/// Most brokers that `certs init` makes at once. Count.
const BROKERS_MAX: u64 = 9;

#[derive(Debug, clap::Args)]
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

/// Why no cluster was made.
#[derive(Debug, Error)]
pub(crate) enum InitError {
    /// The directory has something in it.
    #[error("{} is not empty: a new cluster overwrites nothing. Name another directory", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// There are neither one nor enough addresses.
    #[error(
        "for {}, give one address{}; {found} were given",
        plain_count(*.brokers, "broker"),
        if *.brokers == 1 { String::new() } else { format!(", or {brokers}") }
    )]
    Addresses {
        /// How many brokers.
        brokers: u64,
        /// How many addresses.
        found: usize,
    },
    /// The ports that follow the first go beyond the last one there is, or the port is 0.
    #[error(
        "{first} leaves no ports for {}: choose a port from 1 to {}",
        plain_count(*.brokers, "broker"),
        65_536 - .brokers
    )]
    Ports {
        /// Address of the first broker.
        first: SocketAddr,
        /// How many brokers.
        brokers: u64,
    },
    /// Nobody can connect to this address.
    #[error(
        "{address} is no address to connect to, and clients and the other brokers connect to what --listen says: give \
         one of the machine's own, such as 10.0.0.1:7400. `listen` in a broker's file may be 0.0.0.0 or [::]"
    )]
    NoPlace {
        /// The address.
        address: SocketAddr,
    },
    /// Two brokers are to listen in the same place.
    #[error("{address} is given twice: each broker needs an address of its own")]
    Twice {
        /// The address.
        address: SocketAddr,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for the cluster's id")]
    Random,
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The members make no cluster.
    #[error("these brokers make no cluster")]
    Genesis(#[from] GenesisError),
    /// A data directory could not be opened.
    #[error("cannot make a data directory")]
    Disk(#[from] OpenDirError),
    /// The genesis could not be written.
    #[error("cannot write the genesis")]
    Checkpoint(#[from] CheckpointError),
    /// The identity could not be written.
    #[error("cannot write a broker's identity")]
    Identity(#[from] IdentityError),
    /// A file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Verdict for InitError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotEmpty { .. } => Exit::Precondition,
            Self::Addresses { .. } | Self::Ports { .. } | Self::NoPlace { .. } | Self::Twice { .. } => {
                Exit::Usage
            }
            Self::Random
            | Self::Certificate(_)
            | Self::Genesis(_)
            | Self::Disk(_)
            | Self::Checkpoint(_)
            | Self::Identity(_)
            | Self::Write { .. } => Exit::Error,
        }
    }
}

pub(crate) fn run(args: CertsArgs) -> Result<(), Failure> {
    let CertsCommand::Init(args) = args.command;
    let addresses = addresses(&args.listen, args.brokers)?;
    let made = init(&args.dir, &addresses)?;
    output::print(&made.describe())
}

/// A cluster that [`init`] made.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Its id.
    pub(crate) cluster: ClusterId,
    /// Its brokers: id and address.
    pub(crate) brokers: Vec<(BrokerId, SocketAddr)>,
}

impl Made {
    /// The configuration of one broker.
    pub(crate) fn config(&self, id: BrokerId) -> PathBuf {
        self.dir.join(format!("broker-{id}.toml"))
    }

    /// The context file.
    pub(crate) fn context(&self) -> PathBuf {
        self.dir.join("context.toml")
    }

    fn describe(&self) -> String {
        let mut text = format!("cluster {} in {}\n\n", self.cluster, visible_path(&self.dir));
        for (id, address) in &self.brokers {
            text += &format!("  broker {id}  {address}  {}\n", visible_path(&self.config(*id)));
        }
        text += "\nThe keys of the two authorities, ca-peers.key and ca-clients.key, are needed again only to add a \
                 broker or a client: keep them elsewhere.\n\nNext, each in a terminal of its own:\n\n";
        for (id, _) in &self.brokers {
            text += &format!("  sequor serve --config {}\n", shell::word(&self.config(*id)));
        }
        let context = shell::word(&self.context());
        for command in ["status", "append --producer import/1 lines.txt", "tail --until-end"] {
            text += &format!("  sequor --context {context} {command}\n");
        }
        text
    }
}

/// One address for each broker, all different, and such that others can connect to them.
fn addresses(listen: &[SocketAddr], brokers: u64) -> Result<Vec<SocketAddr>, InitError> {
    if let Some(address) = listen.iter().find(|address| !is_place(address.ip().to_canonical())) {
        return Err(InitError::NoPlace { address: *address });
    }
    let addresses = one_for_each(listen, brokers)?;
    let place = |address: &SocketAddr| (address.ip().to_canonical(), address.port());
    let mut seen = HashSet::new();
    match addresses.iter().find(|address| !seen.insert(place(address))) {
        Some(address) => Err(InitError::Twice { address: *address }),
        None => Ok(addresses),
    }
}

/// Whether it is the address of one machine.
fn is_place(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != Ipv4Addr::BROADCAST
}

fn one_for_each(listen: &[SocketAddr], brokers: u64) -> Result<Vec<SocketAddr>, InitError> {
    let count = usize::try_from(brokers).unwrap_or(usize::MAX);
    match listen {
        [first] => {
            let ports = (u64::from(first.port())..).map(u16::try_from).take(count);
            let ports = ports.collect::<Result<Vec<_>, _>>().ok().filter(|ports| !ports.contains(&0));
            let ports = ports.ok_or(InitError::Ports { first: *first, brokers })?;
            Ok(ports.into_iter().map(|port| SocketAddr::new(first.ip(), port)).collect())
        }
        _ if listen.len() == count => match listen.iter().find(|address| address.port() == 0) {
            Some(address) => Err(InitError::Ports { first: *address, brokers: 1 }),
            None => Ok(listen.to_vec()),
        },
        _ => Err(InitError::Addresses { brokers, found: listen.len() }),
    }
}

/// Makes a cluster in `dir`, with one broker for each address; their ids count from 1.
///
/// # Errors
/// If the directory is not empty, or something cannot be written. What was written until then stays.
pub(crate) fn init(dir: &Path, addresses: &[SocketAddr]) -> Result<Made, InitError> {
    claim(dir)?;
    let (cluster, lineage) = (ClusterId(random()?), Lineage(random()?));
    let brokers: Vec<_> = (1..).map(BrokerId).zip(addresses.iter().copied()).collect();
    let (peers, clients) = (Authority::peers(cluster)?, Authority::clients(cluster)?);
    let certified = brokers.iter().map(|(id, _)| peers.certify_broker(*id)).collect::<Result<Vec<_>, _>>()?;
    let genesis = genesis(&brokers, &certified)?;

    for (name, authority) in [("ca-peers", &peers), ("ca-clients", &clients)] {
        write(&dir.join(format!("{name}.pem")), &authority.certificate(), Readers::Everybody)?;
        write(&dir.join(format!("{name}.key")), &authority.key(), Readers::Owner)?;
    }
    write_certified(dir, "client", &clients.certify_client()?)?;
    for ((id, address), certified) in brokers.iter().zip(&certified) {
        write_certified(dir, &format!("broker-{id}"), certified)?;
        write(&dir.join(format!("broker-{id}.toml")), &broker_toml(*id, *address), Readers::Everybody)?;
        let identity = Identity { cluster: cluster.0, lineage: lineage.0, broker: id.0, incarnation: None };
        write_data(&dir.join(format!("broker-{id}")), &identity, &genesis)?;
    }
    write(&dir.join("context.toml"), &context_toml(cluster, &brokers), Readers::Everybody)?;
    Ok(Made { dir: dir.to_path_buf(), cluster, brokers })
}

/// Makes the directory, or makes sure that it is empty.
fn claim(dir: &Path) -> Result<(), InitError> {
    let wrong = |source| InitError::Write { path: dir.to_path_buf(), source };
    fs::create_dir_all(dir).map_err(wrong)?;
    match fs::read_dir(dir).map_err(wrong)?.next() {
        None => Ok(()),
        Some(_) => Err(InitError::NotEmpty { dir: dir.to_path_buf() }),
    }
}

fn genesis(brokers: &[(BrokerId, SocketAddr)], certified: &[Certified]) -> Result<Genesis, GenesisError> {
    let members = brokers.iter().zip(certified).map(|((id, address), certified)| Member {
        id: *id,
        address: address.to_string(),
        certificate: certified.fingerprint.0,
    });
    Genesis::new(members.collect(), Settings::default())
}

/// Writes what makes a directory the data directory of this broker.
fn write_data(dir: &Path, identity: &Identity, genesis: &Genesis) -> Result<(), InitError> {
    let wrong = |source| InitError::Write { path: dir.to_path_buf(), source };
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(wrong)?;
    let disk = MmapDisk::open(dir)?;
    let sections = genesis.encode().into_iter().map(|(id, content)| Section { id, content }).collect();
    let chain = sequor_wal::chain_start(&identity.cluster);
    Checkpoint { index: 0, term: 0, chain, sections }.save(&disk)?;
    // Last: a directory that has an identity has all the rest.
    Ok(Identity::create(&disk, identity)?)
}

fn write_certified(dir: &Path, name: &str, certified: &Certified) -> Result<(), InitError> {
    write(&dir.join(format!("{name}.pem")), &certified.certificate, Readers::Everybody)?;
    write(&dir.join(format!("{name}.key")), &certified.key, Readers::Owner)
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    Owner,
    Everybody,
}

/// Writes a new file, and never a moment with more readers than asked for.
fn write(path: &Path, content: &str, readers: Readers) -> Result<(), InitError> {
    let mode = if readers == Readers::Owner { 0o600 } else { 0o644 };
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| InitError::Write { path: path.to_path_buf(), source })
}

fn broker_toml(id: BrokerId, address: SocketAddr) -> String {
    format!(
        "\
# Broker {id}. Paths are relative to this file. Each key can be given in the environment too: SEQUOR_DATA, SEQUOR_LISTEN,
# SEQUOR_TLS_CERT, ... What is commented out has the value that is shown.

data = \"broker-{id}\"        # its log, its vote, its identity: never copy it, never share it
listen = \"{address}\"   # UDP, for clients and for the other brokers

# tick_ms = 10              # step of the broker's timers
# heartbeat_ms = 30         # pause between two heartbeats of a leader
# election_ms = 150         # shortest silence that starts an election; the longest is twice that
# segment_bytes = 67108864  # size of one file of the log; three of them exist from the start
# mtu = 6500                # largest UDP payload that path discovery may try, in bytes
# connections_max = 1000    # clients connected at once

[tls]                       # certificates and keys, as PEM
ca_peers = \"ca-peers.pem\"
ca_clients = \"ca-clients.pem\"
cert = \"broker-{id}.pem\"
key = \"broker-{id}.key\"
"
    )
}

fn context_toml(cluster: ClusterId, brokers: &[(BrokerId, SocketAddr)]) -> String {
    let mut text = format!(
        "# How a client reaches this cluster. Paths are relative to this file.\n\ncluster = \"{cluster}\"\n"
    );
    for (id, address) in brokers {
        text += &format!("\n[[brokers]]\nid = {id}\naddress = \"{address}\"\n");
    }
    text + "\n[tls]\nca = \"ca-peers.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"\n"
}

fn random() -> Result<[u8; 16], InitError> {
    let mut bytes = [0; 16];
    default_provider().secure_random.fill(&mut bytes).map_err(|_| InitError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn parse(list: &str) -> Vec<SocketAddr> {
        list.split(',').map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn ports_follow_the_first_or_are_all_given() {
        let of = |list: &str, brokers| addresses(&parse(list), brokers);
        assert_eq!(of("127.0.0.1:7400", 3).unwrap(), parse("127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402"));
        assert_eq!(of("[::1]:9,127.0.0.1:9", 2).unwrap(), parse("[::1]:9,127.0.0.1:9"));
        assert_eq!(of("127.0.0.1:65535", 1).unwrap(), parse("127.0.0.1:65535"));
        assert!(matches!(of("127.0.0.1:65534", 3), Err(InitError::Ports { .. })));
        assert!(matches!(of("127.0.0.1:0", 1), Err(InitError::Ports { .. })));
        assert!(matches!(of("127.0.0.1:1,127.0.0.1:0", 2), Err(InitError::Ports { brokers: 1, .. })));
        assert!(matches!(of("127.0.0.1:1,127.0.0.1:2", 3), Err(InitError::Addresses { found: 2, .. })));
    }

    #[test]
    fn an_address_is_a_place_and_each_broker_has_its_own() {
        for nowhere in
            ["0.0.0.0:7400", "[::]:7400", "[::ffff:0.0.0.0]:7400", "224.0.0.1:7400", "255.255.255.255:7400"]
        {
            assert!(matches!(addresses(&parse(nowhere), 3), Err(InitError::NoPlace { .. })), "{nowhere}");
        }
        for twice in ["10.0.0.1:7400,10.0.0.1:7400", "10.0.0.1:7400,[::ffff:10.0.0.1]:7400"] {
            let refused = addresses(&parse(twice), 2).unwrap_err();
            assert!(matches!(refused, InitError::Twice { .. }), "{refused}");
        }
    }

    #[test]
    fn the_number_of_addresses_reads_well() {
        let told = |list, brokers| addresses(&parse(list), brokers).unwrap_err().to_string();
        assert_eq!(told("127.0.0.1:1,127.0.0.1:2", 3), "for 3 brokers, give one address, or 3; 2 were given");
        assert_eq!(told("127.0.0.1:1,127.0.0.1:2", 1), "for 1 broker, give one address; 2 were given");
    }

    #[test]
    fn a_directory_in_use_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let refused = init(dir.path(), &parse("127.0.0.1:7400")).unwrap_err();
        assert_eq!(refused.exit(), Exit::Precondition);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn private_keys_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = init(&dir.path().join("new"), &parse("127.0.0.1:7400,127.0.0.1:7401")).unwrap();
        let mut keys = 0;
        for entry in fs::read_dir(&made.dir).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let private = path.is_dir() || path.extension().is_some_and(|extension| extension == "key");
            assert_eq!(mode & 0o077 == 0, private, "{} has mode {mode:o}", path.display());
            keys += usize::from(private && path.is_file());
        }
        assert_eq!(keys, 5, "two authorities, two brokers, one client");
    }
}
