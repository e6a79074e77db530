//! Leader and follower: bytes in, bytes stored, a count of bytes out.

use std::net::SocketAddr;

use bytes::Bytes;
use quinn::{ConnectionError, Endpoint, ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use sequor_client::transport::Profile;
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    segments::SegmentError,
    syncer::Durable,
    wire::{self, Identity, WireError},
};

/// Pieces that one read takes, each at most a datagram long. Count.
const READ_CHUNKS_MAX: usize = 256;
/// Bytes of a count on the wire.
pub(crate) const COUNT_BYTES: usize = 8;

/// A node cannot go on.
#[derive(Debug, Error)]
pub(crate) enum NodeError {
    /// No connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No log.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// The connection broke.
    #[error("the connection broke")]
    Connection(#[from] ConnectionError),
    /// Nothing more can be read.
    #[error("the other side says nothing more")]
    Read(#[from] ReadError),
    /// Nothing more can be written.
    #[error("the other side hears nothing more")]
    Write(#[from] WriteError),
    /// The disk failed.
    #[error("the log stores nothing more")]
    Disk,
    /// The endpoint is closed.
    #[error("nobody connects any more")]
    Closed,
}

/// Stores what the leader sends, and tells it how much is durable.
///
/// # Errors
/// [`NodeError`].
pub(crate) async fn follow(endpoint: &Endpoint, durable: Durable) -> Result<(), NodeError> {
    let leader = endpoint.accept().await.ok_or(NodeError::Closed)?.await?;
    let (told, mut data) = leader.accept_bi().await?;
    tokio::spawn(tell(told, durable.bytes(), 0));
    while let Some(chunks) = read(&mut data).await? {
        chunks.into_iter().for_each(|chunk| durable.store(chunk));
    }
    Ok(())
}

/// Stores what a client sends, has the followers store it, and tells the client what two of three have. One client after
/// the other.
///
/// # Errors
/// [`NodeError`].
pub(crate) async fn lead(
    endpoint: &Endpoint,
    durable: Durable,
    followers: &[SocketAddr],
    identity: &Identity,
) -> Result<(), NodeError> {
    let mut connections = Vec::new();
    let mut streams = Vec::new();
    let mut counts = vec![durable.bytes()];
    for follower in followers {
        let connection = wire::connect(endpoint, *follower, identity, Profile::Peer).await?;
        let (data, told) = connection.open_bi().await?;
        let (count, heard) = watch::channel(0);
        tokio::spawn(hear(told, count));
        connections.push(connection);
        streams.push(data);
        counts.push(heard);
    }
    let (quorum, committed) = watch::channel(0);
    tokio::spawn(commit(counts, quorum));
    let mut stored = 0;
    loop {
        let client = endpoint.accept().await.ok_or(NodeError::Closed)?.await?;
        let (told, mut data) = client.accept_bi().await?;
        let teller = tokio::spawn(tell(told, committed.clone(), stored));
        while let Ok(Some(mut chunks)) = read(&mut data).await {
            stored += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
            // The disk first, for it takes longest.
            chunks.iter().for_each(|chunk| durable.store(chunk.clone()));
            for (at, stream) in streams.iter_mut().enumerate() {
                match at + 1 == followers.len() {
                    true => stream.write_all_chunks(&mut chunks).await?,
                    false => stream.write_all_chunks(&mut chunks.clone()).await?,
                }
            }
        }
        teller.abort();
    }
}

/// Everything that has arrived; at least one chunk. None at the end.
async fn read(stream: &mut RecvStream) -> Result<Option<Vec<Bytes>>, ReadError> {
    let mut chunks = vec![Bytes::new(); READ_CHUNKS_MAX];
    let Some(count) = stream.read_chunks(&mut chunks).await? else { return Ok(None) };
    chunks.truncate(count);
    Ok(Some(chunks))
}

/// Sends a count each time it grows, less `base`.
async fn tell(mut stream: SendStream, mut count: watch::Receiver<u64>, base: u64) -> Result<(), NodeError> {
    loop {
        let now = *count.borrow_and_update();
        if now > base {
            stream.write_all(&(now - base).to_le_bytes()).await?;
        }
        count.changed().await.map_err(|_| NodeError::Disk)?;
    }
}

/// Takes the counts of a follower.
async fn hear(mut stream: RecvStream, count: watch::Sender<u64>) -> Result<(), ReadExactError> {
    let mut bytes = [0; COUNT_BYTES];
    loop {
        stream.read_exact(&mut bytes).await?;
        count.send_replace(u64::from_le_bytes(bytes));
    }
}

/// Keeps the count of bytes that a majority has.
async fn commit(mut counts: Vec<watch::Receiver<u64>>, quorum: watch::Sender<u64>) {
    loop {
        let mut sorted: Vec<u64> = counts.iter_mut().map(|count| *count.borrow_and_update()).collect();
        sorted.sort_unstable();
        let majority = sorted[(sorted.len() - 1) / 2];
        quorum.send_if_modified(|known| std::mem::replace(known, majority) != majority);
        let [own, first, second] = &mut counts[..] else { return };
        let changed = tokio::select! {
            changed = own.changed() => changed,
            changed = first.changed() => changed,
            changed = second.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
