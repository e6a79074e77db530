//! Whoever runs a broker: gives it its socket, hears how it is doing, and ends with its disk or survives it.
//!
//! A broker that is a process of its own has [`Process`]. One that lives beside others in a process of somebody else,
//! as in the tests of a user, has a host that can take its network away and must not be ended with it.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use sequor_client::{protocol::Status, transport};

/// What a broker is given that is not in its configuration.
pub(crate) trait Host: fmt::Debug {
    /// Its one socket, bound. Called once, on the broker's runtime, when everything else is open.
    fn socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Hears of the broker after each pass.
    fn observe(&self, status: &Status);

    /// What an error of the disk ends.
    fn disk_failure(&self) -> DiskFailure;
}

/// What an error of the disk ends. In either case nothing is acknowledged that waited for the failed write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFailure {
    /// The process, there and then: no destructor runs.
    Process,
    /// The broker, which tells its host why.
    #[cfg(feature = "testing")]
    Broker,
}

/// A process that is one broker and nothing else.
#[derive(Debug)]
pub(super) struct Process;

impl Host for Process {
    fn socket(&self, listen: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(transport::socket(listen)?)
    }

    fn observe(&self, _: &Status) {}

    fn disk_failure(&self) -> DiskFailure {
        DiskFailure::Process
    }
}
