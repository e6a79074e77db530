//! One reader of the log, on a stream of its own: fetch, write, wait for more, and again.
//!
//! Nothing is queued for it. The next piece of the log is looked at only when QUIC has taken the one before, so a
//! client that reads slowly costs one piece of memory and no one else's time. It may read as slowly as it likes while
//! its connection lives.

use std::rc::Rc;

use quinn::{Connection, SendStream, WriteError};
use sequor_client::protocol::{
    Feature, Refusal, Request, RequestId, Response, StreamKind, Subscribe,
    frame::{self, RawFrame},
};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    broker::Broker,
    client_stream::{Frames, StreamError, refuse},
    limits::{DELIVERY_BYTES, HANDSHAKE_TIMEOUT, LAST_ANSWERS_TIMEOUT},
};
use crate::core::Subscription;

/// Why a subscription ended.
#[derive(Debug, Error)]
pub(super) enum SubscriptionError {
    /// The client's request cannot be read.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The client no longer takes records.
    #[error("the client no longer takes records")]
    Write(#[from] WriteError),
}

/// Serves a subscription until the client leaves, or until this broker may not deliver any more.
pub(super) async fn serve(
    broker: &Rc<Broker>,
    connection: &Connection,
    mut frames: Frames,
    mut send: SendStream,
) -> Result<(), SubscriptionError> {
    let frame = match frames.next_within(HANDSHAKE_TIMEOUT).await {
        Ok(frame) => frame,
        Err(error) => {
            // A stream that only ended would look like a subscription that was served to its end.
            let _over = send.reset(error.close().code());
            return Err(error.into());
        }
    };
    let id = frame.id;
    let refusal = match begin(broker, frame).await {
        Ok((subscribe, agreed)) => match write(&mut send, id, &agreed).await? {
            Ok(()) => deliver(broker, connection, &mut send, id, subscribe).await?,
            Err(refusal) => Some(refusal),
        },
        Err(refusal) => Some(refusal),
    };
    if let Some(refusal) = refusal {
        refuse(&mut send, id, refusal).await;
    }
    Ok(())
}

/// Asks the core whether this reader may begin here, and there. Its consent is where the log ends.
async fn begin(broker: &Rc<Broker>, frame: RawFrame) -> Result<(Subscribe, Response), Refusal> {
    let (_, context, request) = frame.request().map_err(|(_, refusal)| refusal)?;
    let Request::Subscribe(subscribe) = request else {
        return Err(Refusal::Unsupported { what: Feature::Stream(StreamKind::Subscription as u8) });
    };
    let answer = timeout(LAST_ANSWERS_TIMEOUT, broker.ask(&context, request)).await;
    match answer.unwrap_or(Response::Refused(Refusal::Unavailable)) {
        Response::Refused(refusal) => Err(refusal),
        agreed => Ok((subscribe, agreed)),
    }
}

/// Sends the log on. Ends with a refusal if there is one to tell, with none if the client has left.
async fn deliver(
    broker: &Rc<Broker>,
    connection: &Connection,
    send: &mut SendStream,
    id: RequestId,
    subscribe: Subscribe,
) -> Result<Option<Refusal>, SubscriptionError> {
    let mut subscription = Subscription::new(subscribe.from);
    let mut progress = broker.progress();
    loop {
        // Before the look at the log: what is committed after it wakes the wait below.
        progress.mark_unchanged();
        match broker.deliver(&mut subscription, DELIVERY_BYTES) {
            Ok(Some(delivery)) => {
                if let Err(refusal) = write(send, id, &Response::Delivery(delivery)).await? {
                    return Ok(Some(refusal));
                }
            }
            Ok(None) => {
                let stopped = send.stopped();
                tokio::select! {
                    changed = progress.changed() => if changed.is_err() { return Ok(None) },
                    _ = stopped => return Ok(None),
                    _ = connection.closed() => return Ok(None),
                }
            }
            Err(refusal) => return Ok(Some(refusal)),
        }
    }
}

async fn write(
    send: &mut SendStream,
    id: RequestId,
    response: &Response,
) -> Result<Result<(), Refusal>, SubscriptionError> {
    let frame = match frame::encode_response(id, response) {
        Ok(frame) => frame,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut chunks = frame::gather(std::iter::once(frame));
    send.write_all_chunks(&mut chunks).await?;
    Ok(Ok(()))
}
