//! Another way for frames than QUIC: into a cluster that exists only in this process, in virtual time.
//!
//! The brokers' simulator implements [`Carrier`], names itself in [`Config::carrier`](crate::Config), and
//! [`Client::connect`](crate::Client::connect) is what it always is. Everything else of the library stays as it is, and
//! where it would ask the machine for chance or for the time of day, it asks the carrier.
//!
//! ```text
//!   driver ── Lines ──► Wire ──►  (a virtual network)  ──► broker
//!   driver ◄── News ─── serve, follow ◄── Arrivals ──────────┘
//! ```
//!
//! This is not for programs: it may change from one version to the next.

use std::{fmt::Debug, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    connection::{Dial, Follow, Lines, LinkError, Never, News},
    protocol::{BrokerId, RequestId, Response, ServerHello, frame::Frame},
};

/// A network of its own.
pub trait Carrier: Debug + Send + Sync {
    /// Begins a connection to a broker. What comes back is put into `arrivals`, first of all the broker's hello; that
    /// they are dropped says that the connection is over.
    fn connect(&self, broker: BrokerId, arrivals: Arrivals) -> Arc<dyn Wire>;

    /// Where the randomness of one client comes from: another number for each.
    fn seed(&self) -> u64;

    /// The time of day. Milliseconds since 1970.
    fn wall_clock_ms(&self) -> i64;
}

/// One connection of it. That it is dropped closes it.
pub trait Wire: Debug + Send + Sync {
    /// Sends a request.
    fn send(&self, frame: Frame);

    /// Sends the request that begins a subscription. Its answers go into `arrivals`, which are dropped when the broker
    /// has ended it.
    fn subscribe(&self, id: RequestId, frame: Frame, arrivals: Arrivals);

    /// An answer to a subscription was taken: there is room for another one.
    fn took(&self, id: RequestId);

    /// Nobody reads this subscription any more.
    fn unsubscribe(&self, id: RequestId);

    /// Ends the connection, and tells the broker.
    fn close(&self);
}

/// Where a carrier puts what arrives.
pub type Arrivals = mpsc::UnboundedSender<Arrival>;

/// What arrives.
#[derive(Debug)]
pub enum Arrival {
    /// The broker is there.
    Hello(Box<ServerHello>),
    /// An answer.
    Response(RequestId, Response),
}

/// Makes the connection and serves it until it ends.
pub(crate) async fn serve(dial: Dial, carrier: &dyn Carrier) -> Result<Never, LinkError> {
    let (broker, link, news) = (dial.broker, dial.link, dial.news);
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    let wire = carrier.connect(broker, sender);
    let Some(Arrival::Hello(hello)) = arrivals.recv().await else { return Err(LinkError::Ended) };
    let lines = Lines::Carried(wire);
    let _gone = news.send(News::Connected { broker, link, hello, lines }).await;
    while let Some(arrival) = arrivals.recv().await {
        if let Arrival::Response(id, response) = arrival {
            let _gone = news.send(News::Response { broker, link, id, response, place: None }).await;
        }
    }
    Err(LinkError::Ended)
}

/// Begins a subscription and hands on what arrives until it ends.
pub(crate) async fn follow(follow: Follow, wire: Arc<dyn Wire>) -> Result<(), LinkError> {
    let Follow { broker, link, id, subscribe, places, news, .. } = follow;
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    wire.subscribe(id, subscribe, sender);
    let reading = Reading { wire, id };
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let Some(Arrival::Response(id, response)) = arrivals.recv().await else {
            return Err(LinkError::Ended);
        };
        reading.wire.took(id);
        let response = News::Response { broker, link, id, response, place: Some(place) };
        if news.send(response).await.is_err() {
            return Ok(());
        }
    }
}

/// A subscription that is read. To drop it ends it, whoever drops it.
struct Reading {
    wire: Arc<dyn Wire>,
    id: RequestId,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.wire.unsubscribe(self.id);
    }
}
