//! Messages between brokers as bytes on a stream.
//!
//! ```text
//! stream          opened by        carries
//! hello    bi     who connects     its PeerHello, and the other's in answer; then nothing more
//! lane     uni    who connects     one byte, the lane (1 urgent, 2 bulk), then messages one way
//!
//! frame:  | length u32, little endian | message |      length: bytes of the message, never 0
//! ```
//!
//! The two directions between two brokers are two connections, each opened by who sends. What a message means is
//! [`PeerMessage`](crate::core::PeerMessage)'s business.

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use thiserror::Error;

use crate::core::Lane;

const LENGTH_BYTES: usize = 4;
/// How much is taken from a stream at once. Bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a peer's stream cannot be read any further.
#[derive(Debug, Error)]
pub(super) enum PeerStreamError {
    /// The connection is gone, or the stream was reset.
    #[error("the peer's stream broke off")]
    Read(#[from] ReadError),
    /// It ended inside a message.
    #[error("the peer's stream ended inside a message")]
    Truncated,
    /// A length that no message has.
    #[error("a peer's message claims {found} bytes, between 1 and {limit} are possible")]
    Length {
        /// What it claims.
        found: usize,
        /// The most it may be.
        limit: usize,
    },
}

/// Puts the length in front of a message's chunks.
pub(super) fn framed(message: Vec<Bytes>) -> Vec<Bytes> {
    let bytes: usize = message.iter().map(Bytes::len).sum();
    let length = u32::try_from(bytes).expect("a message is far below 4 GiB");
    let mut chunks = Vec::with_capacity(1 + message.len());
    chunks.push(Bytes::copy_from_slice(&length.to_le_bytes()));
    chunks.extend(message);
    chunks
}

/// The first byte of a lane's stream.
pub(super) fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Urgent => 1,
        Lane::Bulk => 2,
    }
}

/// The lane of a stream with this first byte, if there is such a lane.
pub(super) fn lane_of(byte: u8) -> Option<Lane> {
    [Lane::Urgent, Lane::Bulk].into_iter().find(|lane| lane_byte(*lane) == byte)
}

/// Cuts what arrives on a stream into messages. A length is compared with the limit before anything is allocated.
#[derive(Debug)]
pub(super) struct Messages<S> {
    source: S,
    rest: Bytes,
    limit: usize,
}

/// Where the bytes come from: a stream, or a test's list.
pub(super) trait Source {
    /// The next bytes, in order; none at the end. They are never empty.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError>;
}

impl Source for RecvStream {
    async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        Ok(self.read_chunk(CHUNK_BYTES, true).await?.map(|chunk| chunk.bytes))
    }
}

impl<S: Source> Messages<S> {
    /// Messages of at most `limit` bytes each.
    pub(super) fn new(source: S, limit: usize) -> Self {
        Self { source, rest: Bytes::new(), limit }
    }

    /// The stream's first byte; none if it ended before.
    pub(super) async fn first_byte(&mut self) -> Result<Option<u8>, PeerStreamError> {
        Ok(if self.fill().await? { Some(self.rest.split_to(1)[0]) } else { None })
    }

    /// The next message; none if the stream ended where a message may end. One that lies in a single chunk is not
    /// copied.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, PeerStreamError> {
        if !self.fill().await? {
            return Ok(None);
        }
        let length = self.take(LENGTH_BYTES).await?;
        let length = u32::from_le_bytes(length[..].try_into().expect("four were asked for")) as usize;
        if length == 0 || length > self.limit {
            return Err(PeerStreamError::Length { found: length, limit: self.limit });
        }
        self.take(length).await.map(Some)
    }

    /// Makes sure that something is at hand; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        if self.rest.is_empty() {
            match self.source.chunk().await? {
                Some(chunk) => self.rest = chunk,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn take(&mut self, bytes: usize) -> Result<Bytes, PeerStreamError> {
        if self.rest.len() >= bytes {
            return Ok(self.rest.split_to(bytes));
        }
        let mut joined = BytesMut::with_capacity(bytes);
        while joined.len() < bytes {
            if !self.fill().await? {
                return Err(PeerStreamError::Truncated);
            }
            joined.extend_from_slice(&self.rest.split_to(self.rest.len().min(bytes - joined.len())));
        }
        Ok(joined.freeze())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, pin::pin, task};

    use proptest::prelude::*;

    use super::*;

    struct Chunks(VecDeque<Bytes>);

    impl Source for Chunks {
        async fn chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
            Ok(self.0.pop_front())
        }
    }

    /// Nothing here ever waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut task::Context::from_waker(task::Waker::noop())) {
            task::Poll::Ready(value) => value,
            task::Poll::Pending => panic!("a list of chunks never makes anybody wait"),
        }
    }

    fn reader(bytes: &[u8], step: usize) -> Messages<Chunks> {
        let chunks = bytes.chunks(step).map(Bytes::copy_from_slice).collect();
        Messages::new(Chunks(chunks), 1000)
    }

    proptest! {
        #[test]
        fn messages_arrive_however_the_bytes_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..1000), 0..8),
            step in 1_usize..700,
        ) {
            let mut wire = vec![lane_byte(Lane::Bulk)];
            for message in &messages {
                let halves = message.split_at(message.len() / 2);
                let chunks = vec![Bytes::copy_from_slice(halves.0), Bytes::copy_from_slice(halves.1)];
                framed(chunks).iter().for_each(|chunk| wire.extend_from_slice(chunk));
            }
            let mut reader = reader(&wire, step);
            prop_assert_eq!(now(reader.first_byte()).unwrap(), Some(2));
            for message in &messages {
                prop_assert_eq!(&now(reader.next()).unwrap().unwrap()[..], &message[..]);
            }
            prop_assert_eq!(now(reader.next()).unwrap(), None);
        }
    }

    #[test]
    fn a_length_is_checked_before_it_is_believed() {
        for (length, sound) in [(0_u32, false), (1000, true), (1001, false), (u32::MAX, false)] {
            let mut wire = length.to_le_bytes().to_vec();
            wire.resize(LENGTH_BYTES + 1000, 7);
            let read = now(reader(&wire, 64).next());
            assert_eq!(read.is_ok(), sound, "{length}: {read:?}");
        }
    }

    #[test]
    fn an_end_inside_a_message_is_an_error() {
        let wire = [&5_u32.to_le_bytes()[..], b"four"].concat();
        for end in 1..wire.len() {
            let read = now(reader(&wire[..end], 3).next());
            assert!(matches!(read, Err(PeerStreamError::Truncated)), "{end}: {read:?}");
        }
    }
}
