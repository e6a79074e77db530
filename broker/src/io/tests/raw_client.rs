//! A client that speaks the bare protocol: it opens streams, writes frames, and looks at what comes back.

use std::collections::BTreeMap;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt};
use sequor_client::protocol::{
    Acks, Append, Appended, ClientHello, ClusterId, Context, Epoch, Instance, Offset, Open, ProducerId,
    Refusal, Request, RequestId, Response, Sequence, StreamKind, Subscribe, VERSION,
    batch::BatchBuilder,
    frame::{Decoder, Frame, RawFrame, encode_client_hello, encode_request},
};

/// A connected client with a control stream and a stream of requests.
pub(super) struct RawClient {
    connection: Connection,
    control: Stream,
    requests: Stream,
    next: u64,
}

/// One stream.
pub(super) struct Stream {
    send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

/// One that reads the log.
pub(super) struct Tail(Stream);

/// A producer that is open.
pub(super) struct Producer {
    id: ProducerId,
    epoch: Epoch,
}

/// The code with which the other end closed a connection, once it did.
pub(super) async fn closed_with(connection: &Connection) -> VarInt {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => close.error_code,
        other => panic!("not closed by the other end, but: {other:?}"),
    }
}

impl RawClient {
    /// Says hello; gives the connection back if it is not answered by one.
    pub(super) async fn greet(connection: Connection, cluster: ClusterId) -> Result<Self, Connection> {
        let hello = ClientHello {
            version_min: VERSION,
            version_max: VERSION,
            cluster,
            lineage: None,
            capabilities: 0,
            software: "raw".into(),
        };
        let mut control = Stream::open(&connection, StreamKind::Control).await;
        control.send(encode_client_hello(&hello).unwrap()).await;
        match control.next().await {
            Ok(Some(frame)) if frame.clone().server_hello().is_ok() => {}
            _ => return Err(connection),
        }
        let requests = Stream::open(&connection, StreamKind::Requests).await;
        Ok(Self { connection, control, requests, next: 1 })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) async fn close_code(&self) -> VarInt {
        closed_with(&self.connection).await
    }

    pub(super) async fn ask(&mut self, request: Request) -> Response {
        self.ask_on(StreamKind::Requests, request).await
    }

    pub(super) async fn ask_on(&mut self, kind: StreamKind, request: Request) -> Response {
        let id = self.send(kind, request).await;
        let (answered, response) = self.stream(kind).response().await;
        assert_eq!(answered, id);
        response
    }

    pub(super) async fn open(&mut self, name: &str) -> Producer {
        let open = Open { name: name.into(), instance: Instance([1; 16]), expected_epoch: Epoch(0) };
        match self.ask(Request::Open(open)).await {
            Response::Opened(producer) => Producer { id: producer.id, epoch: producer.epoch },
            other => panic!("not opened: {other:?}"),
        }
    }

    pub(super) async fn append(&mut self, batch: &Bytes) -> Appended {
        self.send_append(batch).await;
        self.appended().await
    }

    pub(super) async fn send_append(&mut self, batch: &Bytes) {
        self.send(StreamKind::Requests, append(batch.clone())).await;
    }

    pub(super) async fn appended(&mut self) -> Appended {
        match self.requests.response().await.1 {
            Response::Appended(appended) => appended,
            other => panic!("not appended: {other:?}"),
        }
    }

    pub(super) async fn subscribe(&mut self, from: Offset) -> Tail {
        let mut stream = Stream::open(&self.connection, StreamKind::Subscription).await;
        let request = Request::Subscribe(Subscribe { from });
        stream.send(encode_request(RequestId(1), &context(), &request).unwrap()).await;
        Tail(stream)
    }

    /// Writes what is no frame on a stream of its own; gives the code with which that stream is reset.
    pub(super) async fn send_garbage(&mut self) -> Option<VarInt> {
        let mut stream = Stream::open(&self.connection, StreamKind::Requests).await;
        stream.send.write_all(&[0xff; 100]).await.unwrap();
        match stream.next().await {
            Err(ReadError::Reset(code)) => Some(code),
            _ => None,
        }
    }

    async fn send(&mut self, kind: StreamKind, request: Request) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.stream(kind).send(encode_request(id, &context(), &request).unwrap()).await;
        id
    }

    fn stream(&mut self, kind: StreamKind) -> &mut Stream {
        match kind {
            StreamKind::Control => &mut self.control,
            StreamKind::Requests => &mut self.requests,
            StreamKind::Subscription => panic!("a tail has its own"),
        }
    }
}

impl Producer {
    /// A batch of `count` records.
    pub(super) fn batch(&self, first: Sequence, count: u64) -> Bytes {
        let mut builder = BatchBuilder::new();
        for n in 0..count {
            builder.push_value(None, format!("record {}", first.0 + n).as_bytes(), 0).unwrap();
        }
        builder.seal(self.id, self.epoch, first)
    }

    pub(super) fn append(&self, first: Sequence, count: u64) -> Request {
        append(self.batch(first, count))
    }
}

impl Tail {
    /// Reads on until everything before `end` was delivered.
    pub(super) async fn read_to(&mut self, end: Offset) -> Vec<(Offset, Bytes)> {
        let mut read = BTreeMap::new();
        loop {
            match self.0.response().await.1 {
                Response::Delivery(delivery) => {
                    for placed in delivery.placed() {
                        let placed = placed.unwrap();
                        assert!(read.insert(placed.offset, placed.batch).is_none(), "delivered twice");
                    }
                    if delivery.next >= end {
                        return read.into_iter().collect();
                    }
                }
                Response::End(_) => {} // the broker agrees: deliveries follow
                other => panic!("not a delivery: {other:?}"),
            }
        }
    }

    pub(super) async fn refusal(&mut self) -> Refusal {
        match self.0.response().await.1 {
            Response::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }
}

impl Stream {
    async fn open(connection: &Connection, kind: StreamKind) -> Self {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&[kind as u8]).await.unwrap();
        Self { send, recv, decoder: Decoder::new() }
    }

    async fn send(&mut self, frame: Frame) {
        let mut chunks: Vec<_> = frame.into_chunks().collect();
        self.send.write_all_chunks(&mut chunks).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<RawFrame>, ReadError> {
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Ok(Some(frame));
            }
            match self.recv.read_chunk(usize::MAX, true).await? {
                Some(chunk) => self.decoder.push(chunk.bytes),
                None => return Ok(None),
            }
        }
    }

    async fn response(&mut self) -> (RequestId, Response) {
        let frame = self.next().await.expect("the stream lives").expect("an answer comes");
        frame.response().expect("an answer can be read")
    }
}

fn append(batch: Bytes) -> Request {
    Request::Append(Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch })
}

fn context() -> Context {
    Context { deadline_ms: 10_000, ..Context::default() }
}
