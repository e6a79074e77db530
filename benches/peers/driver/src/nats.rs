//! NATS JetStream: publishes to one stream of three replicas, at its leader.

use std::{cell::Cell, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        context::{Context, ContextBuilder},
        stream::{Config, StorageType},
    },
};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;

use crate::{
    How, Shape,
    load::{Peer, PeerError, until_it_works},
};

const STREAM: &str = "bench";
const REPLICAS: usize = 3;
/// Longest wait for the acknowledgement of one message.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages of which nobody knows yet whether they are stored. Count.
const UNACKNOWLEDGED_MAX: usize = 1 << 20;
/// Oldest bytes are dropped above this, so that a long run does not fill the disk. Bytes.
const STREAM_BYTES_MAX: i64 = 4 << 30;

/// A connection to the leader of the stream.
pub(crate) struct Nats {
    jetstream: Context,
    shape: Shape,
    /// Atomic batches so far: each has a name of its own.
    batches: Cell<u64>,
}

/// What comes back when a message was stored, or was not.
#[derive(Deserialize)]
struct Acknowledged {
    #[serde(default)]
    error: Option<serde_json::Value>,
}

impl Nats {
    pub(crate) async fn connect(endpoints: &[String], shape: Shape) -> Result<Self, PeerError> {
        let leader = until_it_works(|| leader(endpoints, shape.how)).await?;
        let jetstream = context(&endpoints[leader]).await?;
        Ok(Self { jetstream, shape, batches: Cell::new(0) })
    }

    /// All messages of a request, or none: they carry the name of the batch, and the last one says that it is complete.
    async fn publish_atomically(&self, record: &Bytes, count: u64) -> Result<(), PeerError> {
        let number = self.batches.get() + 1;
        self.batches.set(number);
        let client = self.jetstream.client();
        let batch = format!("{}-{number}", std::process::id());
        let headers = |sequence: u64| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", sequence.to_string());
            headers
        };
        for sequence in 1..count {
            let sent = client.publish_with_headers(STREAM, headers(sequence), record.clone()).await;
            sent.map_err(PeerError::to("publish"))?;
        }
        let mut last = headers(count);
        last.insert("Nats-Batch-Commit", "1");
        let answer = client.request_with_headers(STREAM, last, record.clone()).await;
        let answer = answer.map_err(PeerError::to("publish a batch"))?;
        let answer: Acknowledged =
            serde_json::from_slice(&answer.payload).map_err(PeerError::to("read an acknowledgement"))?;
        answer.error.map_or(Ok(()), |error| Err(PeerError::cannot("publish a batch", error)))
    }
}

async fn context(endpoint: &str) -> Result<Context, PeerError> {
    let options = async_nats::ConnectOptions::new().request_timeout(Some(ACK_TIMEOUT));
    let client = options.connect(endpoint).await.map_err(PeerError::to("connect"))?;
    Ok(ContextBuilder::new()
        .timeout(ACK_TIMEOUT)
        .ack_timeout(ACK_TIMEOUT)
        .max_ack_inflight(UNACKNOWLEDGED_MAX)
        .build(client))
}

/// Makes the stream, unless it is there, and says which node leads it. Nodes are named by their number.
async fn leader(endpoints: &[String], how: How) -> Result<usize, PeerError> {
    let context = context(&endpoints[0]).await?;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec![STREAM.to_owned()],
        storage: StorageType::File,
        num_replicas: REPLICAS,
        max_bytes: STREAM_BYTES_MAX,
        allow_atomic_publish: how == How::Txn,
        ..Config::default()
    };
    let stream = context.get_or_create_stream(config).await.map_err(PeerError::to("make the stream"))?;
    let mut stream: jetstream::stream::Stream = stream;
    let info = stream.info().await.map_err(PeerError::to("ask for the stream"))?;
    let name = info.cluster.as_ref().and_then(|cluster| cluster.leader.as_deref());
    let number = name.and_then(|name| name.strip_prefix("node-")).and_then(|number| number.parse().ok());
    let number: usize =
        number.ok_or_else(|| PeerError::cannot("find the leader", "the stream has none yet"))?;
    let stored = context.publish(STREAM, Bytes::new()).await.map_err(PeerError::to("publish"))?;
    stored.await.map_err(PeerError::to("publish"))?;
    Ok(number.min(endpoints.len() - 1))
}

impl Peer for Nats {
    async fn request(&self, _slot: usize) -> Result<(), PeerError> {
        let Shape { how, point, record, whole } = &self.shape;
        let (payload, count) = match how {
            How::Each => (record, point.batch),
            How::Txn => return self.publish_atomically(record, point.batch).await,
            How::Value => (whole, 1),
        };
        let mut stored = Vec::new();
        for _ in 0..count {
            let sent = self.jetstream.publish(STREAM, payload.clone()).await;
            stored.push(sent.map_err(PeerError::to("publish"))?.into_future());
        }
        try_join_all(stored).await.map(drop).map_err(PeerError::to("publish"))
    }
}
