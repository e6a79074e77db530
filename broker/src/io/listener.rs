//! The door: who may come in, as what, and how many at once.
//!
//! ```text
//!  first packet ─► too many handshakes?  refused, or asked to prove its address
//!               ─► TLS                   a certificate of one of the two authorities
//!               ─► role                  what it asks to be is what its certificate allows (tls.rs)
//!               ─► client                a session, if there is room for one more
//!               └► peer                  an inbox; peers are never turned away for lack of room
//! ```

use std::rc::Rc;

use quinn::{Connection, Incoming};
use tokio::time::timeout;

use super::{
    broker::Broker,
    causes::with_causes,
    close::Close,
    limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX},
    peer_inbox, session,
    tls::{Role, chain_of, protocol_of},
};

/// Lets callers in until the socket is closed.
pub(super) async fn listen(broker: Rc<Broker>) {
    while let Some(incoming) = broker.endpoint().accept().await {
        let handshakes = broker.handshakes.count();
        if handshakes >= HANDSHAKES_MAX || broker.is_stopping() {
            incoming.refuse();
        } else if handshakes >= HANDSHAKES_BEFORE_RETRY && incoming.may_retry() {
            // One that cannot be asked again is let in: `may_retry` has just said that it can.
            let _asked = incoming.retry();
        } else {
            let broker_too = Rc::clone(&broker);
            broker.spawn(async move { receive(&broker_too, incoming).await });
        }
    }
}

async fn receive(broker: &Rc<Broker>, incoming: Incoming) {
    let address = incoming.remote_address();
    let handshake = broker.handshakes.enter();
    let shaken = async { incoming.accept()?.await };
    let connection = match timeout(HANDSHAKE_TIMEOUT, shaken).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return tracing::info!(%address, error = with_causes(&error), "a handshake failed");
        }
        Err(_) => return tracing::info!(%address, "a handshake took too long"),
    };
    drop(handshake);
    match broker.tls().role(protocol_of(&connection).as_deref(), &chain_of(&connection)) {
        Ok(Role::Client) => receive_client(broker, connection).await,
        Ok(Role::Peer(peer)) => peer_inbox::serve(broker, peer, connection).await,
        Err(wrong) => {
            tracing::warn!(%address, error = with_causes(&wrong), "a connection may not be what it asks to be");
            Close::WrongRole.close(&connection, &wrong.to_string());
        }
    }
}

async fn receive_client(broker: &Rc<Broker>, connection: Connection) {
    if broker.clients.count() >= broker.clients_max() {
        tracing::warn!(client = %connection.remote_address(), limit = broker.clients_max(),
            "a client was turned away: `connections_max` is reached");
        return Close::Busy.close(&connection, "too many clients are connected");
    }
    let _place = broker.clients.enter();
    session::serve(broker, connection).await;
}
