//! One connection of a client: its hello, then its streams.
//!
//! ```text
//! first stream   control        hello, then what is small and urgent
//! any other      requests       appends and questions                    lower priority
//!                subscription   one reader of the log                    lowest
//! ```
//!
//! No other stream is looked at before the hello was exchanged.

use std::rc::Rc;

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use sequor_client::protocol::{
    ClientHello, ClusterId, Feature, Refusal, RequestId, StreamKind, VERSION, frame::encode_server_hello,
};
use thiserror::Error;
use tokio::time::timeout;

use super::{
    broker::Broker,
    causes::with_causes,
    client_stream::{Frames, StreamError, refuse},
    close::Close,
    limits::HANDSHAKE_TIMEOUT,
    requests::{self, RequestsError},
    subscription::{self, SubscriptionError},
};

/// Why a client's connection came to nothing.
#[derive(Debug, Error)]
enum GreetingError {
    /// It is gone.
    #[error("the client left during its hello")]
    Connection(#[from] ConnectionError),
    /// What it said cannot be read.
    #[error("the client's hello cannot be read")]
    Stream(#[from] StreamError),
    /// It did not begin with a control stream.
    #[error("the client began with a stream of kind {0} instead of the control stream")]
    NotControl(u8),
    /// It means another cluster.
    #[error(
        "the client means cluster {meant}, this broker belongs to {own}: use the context file of this cluster"
    )]
    OtherCluster {
        /// Which it means.
        meant: ClusterId,
        /// Which this is.
        own: ClusterId,
    },
    /// It speaks no version that this broker speaks, and was told so.
    #[error(
        "the client speaks versions {least} to {most} of the protocol, this broker {VERSION}: update whichever is older"
    )]
    Version {
        /// The oldest that it speaks.
        least: u16,
        /// The newest.
        most: u16,
    },
    /// Its hello was refused, and it was told so.
    #[error("the client's hello was refused: {0}")]
    Refused(Refusal),
    /// The answer could not be written.
    #[error("the client left during its hello")]
    Write(#[from] quinn::WriteError),
    /// It took too long.
    #[error("the client took more than {} seconds for its hello", HANDSHAKE_TIMEOUT.as_secs())]
    TooSlow,
}

/// Why one stream of a client ended early.
#[derive(Debug, Error)]
enum EndOfStream {
    #[error(transparent)]
    Kind(#[from] StreamError),
    #[error(transparent)]
    Requests(#[from] RequestsError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// Serves a client until it leaves.
pub(super) async fn serve(broker: &Rc<Broker>, connection: Connection) {
    let greeted = timeout(HANDSHAKE_TIMEOUT, greet(broker, &connection)).await;
    let (frames, send) = match greeted.unwrap_or(Err(GreetingError::TooSlow)) {
        Ok(control) => control,
        Err(error) => return part(&connection, &error),
    };
    let control = Rc::clone(broker);
    broker.spawn(async move {
        let _ended = requests::serve(&control, StreamKind::Control, frames, send).await;
    });
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (broker_too, connection) = (Rc::clone(broker), connection.clone());
        broker.spawn(async move {
            if let Err(error) = serve_stream(&broker_too, &connection, recv, send).await {
                tracing::debug!(client = %connection.remote_address(), error = with_causes(&error),
                    "a client's stream ended early");
            }
        });
    }
    tracing::debug!(client = %connection.remote_address(), "client left");
}

async fn greet(broker: &Rc<Broker>, connection: &Connection) -> Result<(Frames, SendStream), GreetingError> {
    let (mut send, recv) = connection.accept_bi().await?;
    set_priority(&send, StreamKind::Control);
    let mut frames = Frames::new(recv);
    let kind = frames.kind().await?;
    if kind != StreamKind::Control as u8 {
        return Err(GreetingError::NotControl(kind));
    }
    // Whoever greets a client gives it so long for all of this.
    let frame = frames.next().await?.ok_or(StreamError::Truncated)?;
    let ours = broker.hello();
    let hello = match frame.client_hello() {
        Ok(hello) if hello.cluster != ours.cluster => {
            return Err(GreetingError::OtherCluster { meant: hello.cluster, own: ours.cluster });
        }
        Ok(hello) if !speaks(&hello, VERSION) => {
            let refusal = Refusal::Unsupported { what: Feature::Version(hello.version_max) };
            refuse(&mut send, RequestId::NONE, refusal).await;
            return Err(GreetingError::Version { least: hello.version_min, most: hello.version_max });
        }
        Ok(hello) => check_lineage(&hello, broker).map(|()| hello),
        Err(refusal) => Err(refusal),
    };
    let refused = match hello {
        Ok(hello) => {
            let frame = encode_server_hello(&ours).map_err(GreetingError::Refused)?;
            let mut chunks: Vec<_> = frame.into_chunks().collect();
            send.write_all_chunks(&mut chunks).await?;
            let software: String = hello.software.escape_debug().collect();
            tracing::debug!(client = %connection.remote_address(), software, "client connected");
            return Ok((frames, send));
        }
        Err(refused) => refused,
    };
    refuse(&mut send, RequestId::NONE, refused.clone()).await;
    Err(GreetingError::Refused(refused))
}

fn speaks(hello: &ClientHello, version: u16) -> bool {
    (hello.version_min..=hello.version_max).contains(&version)
}

fn check_lineage(hello: &ClientHello, broker: &Broker) -> Result<(), Refusal> {
    let found = broker.hello().lineage;
    match hello.lineage {
        Some(expected) if expected != found => Err(Refusal::OtherLineage { expected, found }),
        _ => Ok(()),
    }
}

/// Closes a connection that came to nothing, with the reason.
fn part(connection: &Connection, error: &GreetingError) {
    let close = match error {
        GreetingError::Connection(_) | GreetingError::Write(_) => Close::Done,
        GreetingError::Stream(error) => error.close(),
        GreetingError::NotControl(_) => Close::Protocol,
        GreetingError::OtherCluster { .. } | GreetingError::Version { .. } | GreetingError::Refused(_) => {
            Close::Hello
        }
        GreetingError::TooSlow => Close::TooSlow,
    };
    tracing::info!(client = %connection.remote_address(), error = with_causes(error),
        "a client was turned away");
    close.close(connection, &with_causes(error));
}

async fn serve_stream(
    broker: &Rc<Broker>,
    connection: &Connection,
    recv: RecvStream,
    mut send: SendStream,
) -> Result<(), EndOfStream> {
    let mut frames = Frames::new(recv);
    let kind = timeout(HANDSHAKE_TIMEOUT, frames.kind()).await;
    match kind.map_err(|_| StreamError::Silent(HANDSHAKE_TIMEOUT))?? {
        kind if kind == StreamKind::Requests as u8 => {
            set_priority(&send, StreamKind::Requests);
            Ok(requests::serve(broker, StreamKind::Requests, frames, send).await?)
        }
        kind if kind == StreamKind::Subscription as u8 => {
            set_priority(&send, StreamKind::Subscription);
            Ok(subscription::serve(broker, connection, frames, send).await?)
        }
        kind => {
            let refusal = Refusal::Unsupported { what: Feature::Stream(kind) };
            refuse(&mut send, RequestId::NONE, refusal).await;
            Ok(())
        }
    }
}

fn set_priority(send: &SendStream, kind: StreamKind) {
    let priority = match kind {
        StreamKind::Control => 2,
        StreamKind::Requests => 1,
        StreamKind::Subscription => 0,
    };
    // A stream that is already over needs none.
    let _over = send.set_priority(priority);
}
