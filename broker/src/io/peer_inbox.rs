//! One connection that a peer opened: its hello, then its lanes, straight into the core.
//!
//! A peer has one such connection. A newer one takes the older one's place: the peer has started anew, or has given
//! the old one up, and would not open two.

use std::rc::Rc;

use quinn::{Connection, RecvStream};
use sequor_client::protocol::BrokerId;
use thiserror::Error;

use super::{
    broker::Broker,
    causes::with_causes,
    close::Close,
    limits::{PEER_RECEIVE_WINDOW_BYTES, PEER_STREAMS_MAX},
    peer_hello,
    peer_stream::{Messages, PeerStreamError, lane_of},
};
use crate::core::{PEER_MESSAGE_BYTES_MAX, PeerError, PeerMessage};

/// Why a lane cannot be read any further.
#[derive(Debug, Error)]
enum LaneError {
    /// It broke off, or its lengths are impossible.
    #[error(transparent)]
    Stream(#[from] PeerStreamError),
    /// It begins as none that is known here.
    #[error("the peer opened a lane of kind {0}, and this broker knows 1 and 2: update whichever is older")]
    Unknown(u8),
    /// A message that is none.
    #[error("a message of the peer cannot be read")]
    Message(#[from] PeerError),
}

/// Takes a peer's messages until its connection ends.
pub(super) async fn serve(broker: &Rc<Broker>, peer: BrokerId, connection: Connection) {
    connection.set_receive_window(PEER_RECEIVE_WINDOW_BYTES.into());
    connection.set_max_concurrent_uni_streams(PEER_STREAMS_MAX.into());
    let life = match peer_hello::as_callee(broker, peer, &connection).await {
        Ok(life) => life,
        Err(error) => {
            tracing::warn!(%peer, error = with_causes(&error), "a peer was turned away");
            return error.close().close(&connection, &with_causes(&error));
        }
    };
    if let Some(older) = broker.replace_inbound(peer, connection.clone()) {
        Close::Replaced.close(&older, "a newer connection took its place");
    }
    tracing::info!(%peer, address = %connection.remote_address(), "peer connected");
    if let Some(link) = broker.links().get(&peer) {
        link.peer_lives(life);
    }
    while let Ok(recv) = connection.accept_uni().await {
        let (broker_too, connection) = (Rc::clone(broker), connection.clone());
        broker.spawn(async move {
            if let Err(error) = read_lane(&broker_too, peer, recv).await
                && !matches!(error, LaneError::Stream(PeerStreamError::Read(_)))
            {
                tracing::warn!(%peer, error = with_causes(&error), "a peer's lane cannot be followed");
                Close::Protocol.close(&connection, &with_causes(&error));
            }
        });
    }
}

/// Hands over one lane's messages. Which of the lanes it is makes no difference to who reads it.
async fn read_lane(broker: &Broker, peer: BrokerId, recv: RecvStream) -> Result<(), LaneError> {
    let mut messages = Messages::new(recv, PEER_MESSAGE_BYTES_MAX);
    let Some(lane) = messages.first_byte().await? else { return Ok(()) };
    lane_of(lane).ok_or(LaneError::Unknown(lane))?;
    while let Some(bytes) = messages.next().await? {
        broker.handle_peer(peer, PeerMessage::decode(bytes)?);
    }
    Ok(())
}
