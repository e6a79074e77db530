//! What can go wrong with an embedded cluster.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use sequor_client::{ConfigError as ContextError, protocol::BrokerId};
use thiserror::Error;

use crate::{
    config::ConfigError,
    io::ServeError,
    setup::{AddressError, SetupError},
};

/// Why an embedded cluster does not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// There is no place for its files.
    #[error("cannot make a temporary directory")]
    Temporary(#[source] io::Error),
    /// Its files could not be made, or not be read.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Its brokers cannot listen where they are to.
    #[error(transparent)]
    Addresses(#[from] AddressError),
    /// Its brokers cannot listen where they are to, because somebody else does.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The directory holds another cluster than the one that was asked for.
    #[error(
        "the cluster in {} has {found}, not {asked}, and that cannot be changed: ask for what it has, or name another \
         directory", .dir.display()
    )]
    Other {
        /// The directory.
        dir: PathBuf,
        /// What it has.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// The configuration of a broker is none.
    #[error("cannot configure broker {id}")]
    Config {
        /// Which.
        id: BrokerId,
        /// What is wrong.
        source: ConfigError,
    },
    /// The context file is none.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The system gives no thread.
    #[error("cannot start a thread for broker {id}")]
    Thread {
        /// Whose.
        id: BrokerId,
        /// What the system says.
        source: io::Error,
    },
    /// A broker did not start, or ended by itself.
    #[error("broker {id} does not run")]
    Broker {
        /// Which.
        id: BrokerId,
        /// Why.
        source: Arc<ServeError>,
    },
    /// The cluster has no such broker.
    #[error("the cluster has no broker {id}; it has 1 to {count}")]
    NoSuchBroker {
        /// Who was asked for.
        id: BrokerId,
        /// How many there are.
        count: usize,
    },
    /// Only a broker that runs can be paused, or resumed.
    #[error("broker {id} does not run: restart it first")]
    NotRunning {
        /// Which.
        id: BrokerId,
    },
    /// Only a broker that does not run can be restarted.
    #[error("broker {id} runs: kill it first")]
    Running {
        /// Which.
        id: BrokerId,
    },
    /// It did not happen in time.
    #[error("waited {} s in vain for {what}; the brokers say: {said}", .waited.as_secs_f64())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What the brokers said of themselves at the end.
        said: String,
    },
}
