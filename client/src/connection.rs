//! One connection to one broker, from the first packet to its end.
//!
//! ```text
//!   control stream   kind 1   hello ─►  ◄─ hello    then status and other small questions
//!   request stream   kind 2   appends and the rest  ─►  ◄─  answers in any order
//!   subscription     kind 3   one stream each: Subscribe ─►  ◄─ deliveries
//! ```
//!
//! Where the configuration names a carrier (`carrier.rs`), frames travel by it instead, one by one.
//!
//! A connection is a task. It reports what happens to it as [`News`], under the number that it was given, so that
//! news of a connection that was given up can be told from news of its successor.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime};
use thiserror::Error;
use tokio::{
    net::lookup_host,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

#[cfg(feature = "carrier")]
use crate::carrier::{self, Carrier, Wire};
use crate::{
    protocol::{
        BrokerId, ClientHello, Refusal, RequestId, Response, ServerHello, StreamKind,
        frame::{self, Decoder, Frame, FrameError, RawFrame, encode_client_hello},
    },
    tls::server_name,
    transport::{endpoint_config, socket},
};

/// How much is taken from a stream at once. Bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Frames that are put together into one write. Count.
const FRAMES_PER_WRITE: usize = 256;
/// Frames that may wait for a stream: the largest window twice, and some. Count.
pub(crate) const FRAMES_MAX: usize = 16_384;

/// Why a connection ended, or never was.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The broker's host name has no address.
    #[error("cannot resolve {address:?}")]
    Resolve {
        /// The name, with the port.
        address: String,
        /// What the system says; none if it knows the name but no address.
        source: Option<io::Error>,
    },
    /// No socket for this kind of address.
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
    /// The connection was not even tried.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: quinn::ConnectError,
    },
    /// It failed, or ended.
    #[error("the connection failed")]
    Connection(#[from] quinn::ConnectionError),
    /// The broker stopped reading.
    #[error("the broker stopped reading")]
    Write(#[from] quinn::WriteError),
    /// The broker stopped writing.
    #[error("the broker stopped writing")]
    Read(#[from] quinn::ReadError),
    /// The broker ended a stream.
    #[error("the broker ended the stream")]
    Ended,
    /// What the broker sends cannot be followed.
    #[error("what the broker sends cannot be understood")]
    Frame(#[from] FrameError),
    /// The broker refused the hello, or sent none.
    #[error("the hello was refused")]
    Hello(#[source] Refusal),
}

/// What happens to a connection.
#[derive(Debug)]
pub(crate) enum News {
    /// It stands.
    Connected { broker: BrokerId, link: u64, hello: Box<ServerHello>, lines: Lines },
    /// A frame arrived. A delivery holds its place among those that the caller has not taken yet.
    Response {
        broker: BrokerId,
        link: u64,
        id: RequestId,
        response: Response,
        place: Option<OwnedSemaphorePermit>,
    },
    /// A subscription's stream is over.
    StreamClosed { broker: BrokerId, link: u64, id: RequestId },
    /// It is over, or was not made.
    Lost { broker: BrokerId, link: u64, why: LinkError },
}

/// The driver's end of a connection.
#[derive(Debug)]
pub(crate) enum Lines {
    /// Two streams, and the connection for those of subscriptions.
    Quic { connection: Connection, control: mpsc::Sender<Frame>, requests: mpsc::Sender<Frame> },
    /// A wire of the carrier.
    #[cfg(feature = "carrier")]
    Carried(Arc<dyn Wire>),
}

impl Lines {
    /// Hands a frame over; false if too many wait already, or the connection is just over.
    pub(crate) fn send(&self, frame: Frame, is_urgent: bool) -> bool {
        match self {
            Self::Quic { control, requests, .. } => {
                let line = if is_urgent { control } else { requests };
                line.try_send(frame).is_ok()
            }
            #[cfg(feature = "carrier")]
            Self::Carried(wire) => {
                wire.send(frame);
                true
            }
        }
    }

    /// Where subscriptions begin.
    pub(crate) fn source(&self) -> Source {
        match self {
            Self::Quic { connection, .. } => Source::Quic(connection.clone()),
            #[cfg(feature = "carrier")]
            Self::Carried(wire) => Source::Carried(Arc::clone(wire)),
        }
    }

    /// Ends the connection, and tells the broker.
    pub(crate) fn close(&self) {
        match self {
            Self::Quic { connection, .. } => connection.close(0_u32.into(), b""),
            #[cfg(feature = "carrier")]
            Self::Carried(wire) => wire.close(),
        }
    }
}

/// Where a subscription begins.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A stream of its own on this connection.
    Quic(Connection),
    /// A wire of the carrier.
    #[cfg(feature = "carrier")]
    Carried(Arc<dyn Wire>),
}

/// How brokers are reached.
#[derive(Debug)]
pub(crate) enum Network {
    /// As they are in reality.
    Quic(Box<Endpoints>),
    /// In a world where there are no sockets.
    #[cfg(feature = "carrier")]
    Carried(Arc<dyn Carrier>),
}

impl Network {
    /// The sockets that were opened.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        match self {
            Self::Quic(endpoints) => endpoints.opened(),
            #[cfg(feature = "carrier")]
            Self::Carried(_) => Vec::new(),
        }
    }
}

/// The sockets of a client: one for each kind of address, opened when it is needed.
#[derive(Debug)]
pub(crate) struct Endpoints {
    config: quinn::ClientConfig,
    mtu: u16,
    v4: Mutex<Option<Endpoint>>,
    v6: Mutex<Option<Endpoint>>,
}

impl Endpoints {
    pub(crate) fn new(config: quinn::ClientConfig, mtu: u16) -> Self {
        Self { config, mtu, v4: Mutex::new(None), v6: Mutex::new(None) }
    }

    fn endpoint(&self, address: SocketAddr) -> io::Result<Endpoint> {
        let (place, any): (_, SocketAddr) = match address {
            SocketAddr::V4(_) => (&self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*place {
            return Ok(endpoint.clone());
        }
        let mut endpoint =
            Endpoint::new(endpoint_config(self.mtu), None, socket(any)?, Arc::new(TokioRuntime))?;
        endpoint.set_default_client_config(self.config.clone());
        *place = Some(endpoint.clone());
        Ok(endpoint)
    }

    fn opened(&self) -> Vec<Endpoint> {
        [&self.v4, &self.v6]
            .into_iter()
            .filter_map(|place| place.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }
}

/// A connection that is wanted.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) broker: BrokerId,
    pub(crate) link: u64,
    pub(crate) address: String,
    pub(crate) network: Arc<Network>,
    pub(crate) hello: ClientHello,
    pub(crate) news: mpsc::Sender<News>,
}

impl Dial {
    /// Makes the connection and serves it until it ends. Only who drops it ends it without news.
    pub(crate) async fn run(self) {
        let (broker, link, news) = (self.broker, self.link, self.news.clone());
        let network = Arc::clone(&self.network);
        let Err(why) = match &*network {
            Network::Quic(endpoints) => self.serve(endpoints).await,
            #[cfg(feature = "carrier")]
            Network::Carried(carrier) => carrier::serve(self, &**carrier).await,
        };
        // If nobody listens any more, nobody wants to know.
        let _gone = news.send(News::Lost { broker, link, why }).await;
    }

    async fn serve(self, endpoints: &Endpoints) -> Result<Never, LinkError> {
        let connection = self.connect(endpoints).await?;
        let (mut control, recv) = connection.open_bi().await?;
        let hello = encode_client_hello(&self.hello).map_err(LinkError::Hello)?;
        begin(&mut control, StreamKind::Control, hello).await?;
        let mut answers = Frames::new(recv);
        let hello = answers.next().await?.server_hello().map_err(LinkError::Hello)?;
        let (mut requests, recv) = connection.open_bi().await?;
        requests.write_chunk(Bytes::from_static(&[StreamKind::Requests as u8])).await?;
        // What is small and urgent goes first.
        let _closed = control.set_priority(1);
        let (control_tx, control_rx) = mpsc::channel(FRAMES_MAX);
        let (requests_tx, requests_rx) = mpsc::channel(FRAMES_MAX);
        let lines =
            Lines::Quic { connection: connection.clone(), control: control_tx, requests: requests_tx };
        let (broker, link, hello) = (self.broker, self.link, Box::new(hello));
        let _gone = self.news.send(News::Connected { broker, link, hello, lines }).await;
        tokio::select! {
            over = write(control, control_rx) => over,
            over = write(requests, requests_rx) => over,
            over = self.read(answers) => over,
            over = self.read(Frames::new(recv)) => over,
        }
    }

    async fn connect(&self, endpoints: &Endpoints) -> Result<Connection, LinkError> {
        let address = resolve(&self.address).await?;
        let endpoint = endpoints.endpoint(address).map_err(LinkError::Socket)?;
        let connecting = endpoint.connect(address, &server_name(self.broker));
        Ok(connecting.map_err(|source| LinkError::Connect { address, source })?.await?)
    }

    async fn read(&self, mut frames: Frames) -> Result<Never, LinkError> {
        loop {
            let (id, response) = frames.next().await?.response()?;
            let (broker, link) = (self.broker, self.link);
            let _gone = self.news.send(News::Response { broker, link, id, response, place: None }).await;
        }
    }
}

/// The result of what only ends by failing.
#[derive(Debug)]
pub(crate) enum Never {}

async fn resolve(address: &str) -> Result<SocketAddr, LinkError> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let none = |source| LinkError::Resolve { address: address.to_owned(), source };
    let mut found = lookup_host(address).await.map_err(|source| none(Some(source)))?;
    found.next().ok_or_else(|| none(None))
}

async fn begin(send: &mut SendStream, kind: StreamKind, frame: Frame) -> Result<(), LinkError> {
    let mut chunks = vec![Bytes::copy_from_slice(&[kind as u8])];
    chunks.extend(frame.into_chunks());
    Ok(send.write_all_chunks(&mut chunks).await?)
}

/// Writes frames as they come, all that wait in one go.
async fn write(mut send: SendStream, mut frames: mpsc::Receiver<Frame>) -> Result<Never, LinkError> {
    let mut waiting = Vec::new();
    loop {
        if frames.recv_many(&mut waiting, FRAMES_PER_WRITE).await == 0 {
            return Err(LinkError::Ended);
        }
        let mut chunks = frame::gather(waiting.drain(..));
        send.write_all_chunks(&mut chunks).await?;
    }
}

/// The frames of one stream.
#[derive(Debug)]
struct Frames {
    recv: RecvStream,
    decoder: Decoder,
}

impl Frames {
    fn new(recv: RecvStream) -> Self {
        Self { recv, decoder: Decoder::new() }
    }

    async fn next(&mut self) -> Result<RawFrame, LinkError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            let chunk = self.recv.read_chunk(CHUNK_BYTES, true).await?.ok_or(LinkError::Ended)?;
            self.decoder.push(chunk.bytes);
        }
    }
}

/// A subscription that is wanted on a connection.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) broker: BrokerId,
    pub(crate) link: u64,
    pub(crate) id: RequestId,
    pub(crate) subscribe: Frame,
    pub(crate) source: Source,
    /// Places for deliveries that the caller has not taken yet: without a free one, nothing is read.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) news: mpsc::Sender<News>,
}

impl Follow {
    /// Opens the stream and hands on what arrives until it ends.
    pub(crate) async fn run(self) {
        let (broker, link, id, news) = (self.broker, self.link, self.id, self.news.clone());
        let over = match self.source.clone() {
            Source::Quic(connection) => self.read(connection).await,
            #[cfg(feature = "carrier")]
            Source::Carried(wire) => carrier::follow(self, wire).await,
        };
        if let Err(why) = over {
            tracing::debug!(%broker, error = &why as &dyn std::error::Error, "a subscription's stream ended");
        }
        let _gone = news.send(News::StreamClosed { broker, link, id }).await;
    }

    async fn read(self, connection: Connection) -> Result<(), LinkError> {
        let (mut send, recv) = connection.open_bi().await?;
        begin(&mut send, StreamKind::Subscription, self.subscribe).await?;
        let mut frames = Frames::new(recv);
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return Ok(()) };
            let (id, response) = frames.next().await?.response()?;
            let (broker, link, place) = (self.broker, self.link, Some(place));
            let response = News::Response { broker, link, id, response, place };
            if self.news.send(response).await.is_err() {
                return Ok(());
            }
        }
    }
}
