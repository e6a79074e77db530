//! Everything that makes a cluster this cluster, in one directory.
//!
//! ```text
//! DIR/ca-peers.pem, .key       signs brokers; the key is needed again only to add one
//!     ca-clients.pem, .key     signs clients; the key is needed again only to add one
//!     broker-1.toml            configuration of broker 1
//!     broker-1.pem, .key       its certificate
//!     broker-1/                its data directory: identity, and the genesis as the checkpoint at index 0
//!     …                        the same for every other broker
//!     client.pem, .key         a client's certificate
//!     context.toml             how a client reaches the cluster; written last
//! ```
//!
//! A broker never creates its data directory: an empty disk must not be taken for a broker that has not voted yet. So
//! it is here that a broker's identity is written, once. `sequor certs init`, `sequor dev`, `sequor quickstart` and
//! the clusters of `testing` all come from here.
//!
//! | file | noun |
//! |---|---|
//! | `addresses.rs` | where the brokers are to listen |
//! | `authority.rs` | who signs certificates, and under which names |
//! | `data.rs` | a broker's data directory before its first start |
//! | `texts.rs` | the configuration of a broker and of a client, as they are written |

mod addresses;
pub(crate) mod authority;
pub(crate) mod data;
mod texts;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustls::crypto::ring::default_provider;
use sequor_client::{
    Config, ConfigError,
    protocol::{BrokerId, ClusterId, Lineage},
};
use sequor_wal::{CheckpointError, Identity, IdentityError, disk::mmap::OpenDirError};
use thiserror::Error;

pub use self::addresses::{AddressError, addresses};
use self::authority::{Authority, Certified};
use crate::core::genesis::{Genesis, GenesisError, Member, Settings};

/// The name of the file that says how a client reaches the cluster.
const CONTEXT: &str = "context.toml";

/// Why there is no cluster in a directory.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The directory has something in it.
    #[error("{} is not empty: a new cluster overwrites nothing. Name another directory", .dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory has something in it, but no whole cluster.
    #[error(
        "{} is not empty and has no {CONTEXT}: it is no cluster's directory, or one that was not made to its end. Name \
         another directory, or remove this one if nothing in it is needed", .dir.display()
    )]
    NoCluster {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The context file of the directory is none.
    #[error("the cluster in {} cannot be used", .dir.display())]
    Context {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with the file.
        source: ConfigError,
    },
    /// The context file of the directory names a broker by something else than `ip:port`.
    #[error("{}: the address {address:?} of broker {broker} is not an IP address with a port", .path.display())]
    Address {
        /// The file.
        path: PathBuf,
        /// Whose.
        broker: BrokerId,
        /// What it says.
        address: String,
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

/// A directory with a cluster in it. See the module's header for what is in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDir {
    path: PathBuf,
    cluster: ClusterId,
    brokers: Vec<(BrokerId, SocketAddr)>,
}

impl ClusterDir {
    /// Makes a cluster in `path`, with one broker for each address; their ids count from 1. The directory is made if
    /// it is not there. Everything is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// [`SetupError::NotEmpty`], or something cannot be made or written: what was written until then stays.
    pub fn create(path: &Path, addresses: &[SocketAddr]) -> Result<Self, SetupError> {
        claim(path)?;
        let (cluster, lineage) = (ClusterId(random()?), Lineage(random()?));
        let brokers: Vec<_> = (1..).map(BrokerId).zip(addresses.iter().copied()).collect();
        let (peers, clients) = (Authority::peers(cluster)?, Authority::clients(cluster)?);
        let certified =
            brokers.iter().map(|(id, _)| peers.certify_broker(*id)).collect::<Result<Vec<_>, _>>()?;
        let genesis = genesis(&brokers, &certified)?;

        for (name, authority) in [("ca-peers", &peers), ("ca-clients", &clients)] {
            write(&path.join(format!("{name}.pem")), &authority.certificate_pem(), Readers::Everybody)?;
            write(&path.join(format!("{name}.key")), &authority.key_pem(), Readers::Owner)?;
        }
        write_certified(path, "client", &clients.certify_client()?)?;
        for ((id, address), certified) in brokers.iter().zip(&certified) {
            write_certified(path, &format!("broker-{id}"), certified)?;
            write(&config(path, *id), &texts::broker(*id, *address), Readers::Everybody)?;
            let identity =
                Identity { cluster: cluster.0, lineage: lineage.0, broker: id.0, incarnation: None };
            data::create(&data(path, *id), &identity, &genesis)?;
        }
        // Last: a directory that has a context has all the rest.
        write(&path.join(CONTEXT), &texts::context(cluster, &brokers), Readers::Everybody)?;
        Ok(Self { path: path.to_path_buf(), cluster, brokers })
    }

    /// Finds the cluster that was made in `path` before; none if the directory is not there, or empty.
    ///
    /// # Errors
    ///
    /// [`SetupError::NoCluster`] for a directory with something else in it; [`SetupError::Read`],
    /// [`SetupError::Context`] and [`SetupError::Address`] for a cluster that cannot be used.
    pub fn find(path: &Path) -> Result<Option<Self>, SetupError> {
        let context = path.join(CONTEXT);
        if !context.exists() {
            return if is_empty(path)? {
                Ok(None)
            } else {
                Err(SetupError::NoCluster { dir: path.to_path_buf() })
            };
        }
        let config = Config::load(&context)
            .map_err(|source| SetupError::Context { dir: path.to_path_buf(), source })?;
        let place = |member: &sequor_client::protocol::Member| match member.address.parse() {
            Ok(address) => Ok((member.id, address)),
            Err(_) => Err(SetupError::Address {
                path: context.clone(),
                broker: member.id,
                address: member.address.clone(),
            }),
        };
        let mut brokers = config.brokers.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        brokers.sort_unstable();
        Ok(Some(Self { path: path.to_path_buf(), cluster: config.cluster, brokers }))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its brokers, ascending by id, and where each is reached.
    #[must_use]
    pub fn brokers(&self) -> &[(BrokerId, SocketAddr)] {
        &self.brokers
    }

    /// The configuration of one broker.
    #[must_use]
    pub fn config(&self, id: BrokerId) -> PathBuf {
        config(&self.path, id)
    }

    /// The context file.
    #[must_use]
    pub fn context(&self) -> PathBuf {
        self.path.join(CONTEXT)
    }
}

fn config(dir: &Path, id: BrokerId) -> PathBuf {
    dir.join(format!("broker-{id}.toml"))
}

fn data(dir: &Path, id: BrokerId) -> PathBuf {
    dir.join(format!("broker-{id}"))
}

/// Makes the directory, or makes sure that it is empty.
fn claim(dir: &Path) -> Result<(), SetupError> {
    fs::create_dir_all(dir).map_err(|source| SetupError::Write { path: dir.to_path_buf(), source })?;
    if is_empty(dir)? { Ok(()) } else { Err(SetupError::NotEmpty { dir: dir.to_path_buf() }) }
}

/// Whether there is nothing in it. A directory that is not there counts as empty.
fn is_empty(dir: &Path) -> Result<bool, SetupError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(SetupError::Read { path: dir.to_path_buf(), source }),
    }
}

fn genesis(brokers: &[(BrokerId, SocketAddr)], certified: &[Certified]) -> Result<Genesis, GenesisError> {
    let members = brokers.iter().zip(certified).map(|((id, address), certified)| Member {
        id: *id,
        address: address.to_string(),
        certificate: certified.fingerprint().0,
    });
    Genesis::new(members.collect(), Settings::default())
}

fn write_certified(dir: &Path, name: &str, certified: &Certified) -> Result<(), SetupError> {
    write(&dir.join(format!("{name}.pem")), &certified.certificate_pem(), Readers::Everybody)?;
    write(&dir.join(format!("{name}.key")), &certified.key_pem(), Readers::Owner)
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    Owner,
    Everybody,
}

/// Writes a new file, and never a moment with more readers than asked for.
fn write(path: &Path, content: &str, readers: Readers) -> Result<(), SetupError> {
    let mode = if readers == Readers::Owner { 0o600 } else { 0o644 };
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
            file.write_all(content.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| SetupError::Write { path: path.to_path_buf(), source })
}

fn random() -> Result<[u8; 16], SetupError> {
    let mut bytes = [0; 16];
    default_provider().secure_random.fill(&mut bytes).map_err(|_| SetupError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config;

    fn parse(list: &str) -> Vec<SocketAddr> {
        list.split(',').map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn what_was_made_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        assert_eq!(ClusterDir::find(&path).unwrap(), None);
        let made = ClusterDir::create(&path, &parse("127.0.0.1:7400,[::1]:7401")).unwrap();
        assert_eq!(ClusterDir::find(&path).unwrap(), Some(made.clone()));
        for (id, address) in made.brokers() {
            let config = config::Config::load(&made.config(*id), [], config::Layer::default()).unwrap();
            assert_eq!((config.listen, config.data), (*address, data(&path, *id)));
        }
    }

    #[test]
    fn a_directory_with_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let refused = ClusterDir::create(dir.path(), &parse("127.0.0.1:7400")).unwrap_err();
        assert!(matches!(refused, SetupError::NotEmpty { .. }), "{refused}");
        let refused = ClusterDir::find(dir.path()).unwrap_err();
        assert!(matches!(refused, SetupError::NoCluster { .. }), "{refused}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_host_name_in_the_context_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let made = ClusterDir::create(&dir.path().join("new"), &parse("127.0.0.1:7400")).unwrap();
        let text = fs::read_to_string(made.context()).unwrap().replace("127.0.0.1", "localhost");
        fs::write(made.context(), text).unwrap();
        let refused = ClusterDir::find(made.path()).unwrap_err();
        assert!(refused.to_string().contains("localhost:7400"), "{refused}");
    }

    #[test]
    fn private_keys_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made =
            ClusterDir::create(&dir.path().join("new"), &parse("127.0.0.1:7400,127.0.0.1:7401")).unwrap();
        let mut keys = 0;
        for entry in fs::read_dir(made.path()).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let private = path.is_dir() || path.extension().is_some_and(|extension| extension == "key");
            assert_eq!(mode & 0o077 == 0, private, "{} has mode {mode:o}", path.display());
            keys += usize::from(private && path.is_file());
        }
        assert_eq!(keys, 5, "two authorities, two brokers, one client");
    }
}
