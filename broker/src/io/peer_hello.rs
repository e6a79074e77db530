//! How two brokers greet each other: who connects speaks first, then both know whether they belong together.
//!
//! TLS has proven that the other one holds a member's key. The hello adds what a certificate cannot say: which cluster
//! and history its data belongs to, which life of its data directory this is (see `pins.rs`), and which of its
//! process. Not one message of Raft is sent or taken before both are checked.

use std::rc::Rc;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, WriteError};
use sequor_client::protocol::BrokerId;
use thiserror::Error;
use tokio::time::timeout;

use super::{
    broker::Broker,
    close::Close,
    limits::HANDSHAKE_TIMEOUT,
    peer_stream::{Messages, PeerStreamError, framed},
    pins::PinError,
};
use crate::core::{PEER_HELLO_BYTES_MAX, PEER_VERSION, PeerError, PeerHello};

/// Why two brokers do not speak to each other.
#[derive(Debug, Error)]
pub(super) enum GreetingError {
    /// The connection is gone.
    #[error("the connection broke during the hello")]
    Connection(#[from] ConnectionError),
    /// The hello could not be read.
    #[error("the peer's hello cannot be followed")]
    Stream(#[from] PeerStreamError),
    /// The hello could not be written.
    #[error("the peer did not take our hello")]
    Write(#[from] WriteError),
    /// It ended before the hello.
    #[error("the peer said nothing")]
    Nothing,
    /// It took too long.
    #[error("the peer took more than {} seconds for its hello", HANDSHAKE_TIMEOUT.as_secs())]
    TooSlow,
    /// It is not a hello.
    #[error("the peer's hello cannot be read")]
    Unreadable(#[from] PeerError),
    /// It speaks another version.
    #[error("the peer speaks version {found} of the protocol between brokers, this broker {PEER_VERSION}")]
    Version {
        /// What it speaks.
        found: u16,
    },
    /// It belongs to another cluster or to another history of this one.
    #[error("the peer's data belongs to another {what}: {found} where this broker has {own}")]
    Foreign {
        /// "cluster" or "lineage".
        what: &'static str,
        /// What this broker has.
        own: String,
        /// What the peer has.
        found: String,
    },
    /// Certificate and data directory are of two different brokers.
    #[error("the peer has the certificate of broker {expected} and the data of broker {found}")]
    OtherBroker {
        /// Whom the certificate names.
        expected: BrokerId,
        /// Whom the hello names.
        found: BrokerId,
    },
    /// It came back with another data directory.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl GreetingError {
    /// What the other end is told.
    pub(super) fn close(&self) -> Close {
        match self {
            Self::Connection(_) | Self::Stream(PeerStreamError::Read(_)) | Self::Write(_) | Self::Nothing => {
                Close::Done
            }
            Self::TooSlow => Close::TooSlow,
            Self::Stream(PeerStreamError::Truncated | PeerStreamError::Length { .. })
            | Self::Unreadable(_) => Close::Protocol,
            Self::Version { .. } | Self::Foreign { .. } | Self::OtherBroker { .. } => Close::Hello,
            Self::Pin(_) => Close::OtherIncarnation,
        }
    }
}

/// Greets the peer that this broker connected to; gives the life of its process.
pub(super) async fn as_caller(
    broker: &Rc<Broker>,
    peer: BrokerId,
    connection: &Connection,
) -> Result<u64, GreetingError> {
    let greeting = async {
        let (mut send, recv) = connection.open_bi().await?;
        say(broker, &mut send).await?;
        hear(broker, peer, recv).await
    };
    timeout(HANDSHAKE_TIMEOUT, greeting).await.unwrap_or(Err(GreetingError::TooSlow))
}

/// Greets the peer that connected to this broker; gives the life of its process.
pub(super) async fn as_callee(
    broker: &Rc<Broker>,
    peer: BrokerId,
    connection: &Connection,
) -> Result<u64, GreetingError> {
    let greeting = async {
        let (mut send, recv) = connection.accept_bi().await?;
        let life = hear(broker, peer, recv).await?;
        say(broker, &mut send).await?;
        Ok(life)
    };
    timeout(HANDSHAKE_TIMEOUT, greeting).await.unwrap_or(Err(GreetingError::TooSlow))
}

async fn say(broker: &Broker, send: &mut SendStream) -> Result<(), GreetingError> {
    let mut chunks = framed(vec![broker.peer_hello().encode()]);
    Ok(send.write_all_chunks(&mut chunks).await?)
}

async fn hear(broker: &Broker, peer: BrokerId, recv: RecvStream) -> Result<u64, GreetingError> {
    let mut messages = Messages::new(recv, PEER_HELLO_BYTES_MAX);
    let bytes = messages.next().await?.ok_or(GreetingError::Nothing)?;
    let hello = PeerHello::decode(&bytes)?;
    check(&hello, &broker.peer_hello(), peer)?;
    broker.check_pin(peer, hello.incarnation)?;
    Ok(hello.life)
}

fn check(hello: &PeerHello, own: &PeerHello, peer: BrokerId) -> Result<(), GreetingError> {
    if hello.version != own.version {
        return Err(GreetingError::Version { found: hello.version });
    }
    if hello.cluster != own.cluster {
        let (own, found) = (own.cluster.to_string(), hello.cluster.to_string());
        return Err(GreetingError::Foreign { what: "cluster", own, found });
    }
    if hello.lineage != own.lineage {
        let (own, found) = (own.lineage.to_string(), hello.lineage.to_string());
        return Err(GreetingError::Foreign { what: "lineage", own, found });
    }
    if hello.broker != peer {
        return Err(GreetingError::OtherBroker { expected: peer, found: hello.broker });
    }
    Ok(())
}
