//! Frames of a client as they come out of a QUIC stream, and the one frame that ends a stream with a reason.

use std::time::Duration;

use quinn::{ReadError, RecvStream, SendStream};
use sequor_client::protocol::{
    Refusal, RequestId, Response,
    frame::{self, Decoder, FrameError, RawFrame},
};
use thiserror::Error;
use tokio::time::timeout;

use super::{close::Close, limits::REFUSAL_TIMEOUT};

/// How much is taken from a stream at once. Bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a client's stream cannot be read any further.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    /// The client reset the stream, or the connection is gone.
    #[error("the client's stream broke off")]
    Read(#[from] ReadError),
    /// What arrives is not a frame.
    #[error("the client's stream cannot be followed")]
    Frame(#[from] FrameError),
    /// It ended inside a frame.
    #[error("the client's stream ended inside a frame")]
    Truncated,
    /// Nothing came in time.
    #[error("the client said nothing for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// A request id that is not answered yet was used again.
    #[error("request id {0} was used again before it was answered")]
    IdInUse(RequestId),
}

impl StreamError {
    /// What the client is told.
    pub(super) fn close(&self) -> Close {
        match self {
            Self::Read(_) => Close::Done,
            Self::Silent(_) => Close::TooSlow,
            Self::Frame(_) | Self::Truncated | Self::IdInUse(_) => Close::Protocol,
        }
    }
}

/// The frames of one stream.
#[derive(Debug)]
pub(super) struct Frames {
    recv: RecvStream,
    decoder: Decoder,
}

impl Frames {
    /// The frames of a stream whose first byte may already be read.
    pub(super) fn new(recv: RecvStream) -> Self {
        Self { recv, decoder: Decoder::new() }
    }

    /// The byte that says what kind of stream this is: to be read before any frame.
    pub(super) async fn kind(&mut self) -> Result<u8, StreamError> {
        let chunk = self.recv.read_chunk(1, true).await?.ok_or(StreamError::Truncated)?;
        chunk.bytes.first().copied().ok_or(StreamError::Truncated)
    }

    /// The next whole frame; none if the stream ended after one.
    pub(super) async fn next(&mut self) -> Result<Option<RawFrame>, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(Some(frame));
            }
            match self.recv.read_chunk(CHUNK_BYTES, true).await? {
                Some(chunk) => self.decoder.push(chunk.bytes),
                None if self.decoder.is_between_frames() => return Ok(None),
                None => return Err(StreamError::Truncated),
            }
        }
    }

    /// The next whole frame, which has to come within `limit`.
    pub(super) async fn next_within(&mut self, limit: Duration) -> Result<RawFrame, StreamError> {
        let frame = timeout(limit, self.next()).await.map_err(|_| StreamError::Silent(limit))??;
        frame.ok_or(StreamError::Truncated)
    }

    /// Says that nothing more will be read.
    pub(super) fn stop(&mut self, why: Close) {
        // A stream that is already over needs no stop.
        let _over = self.recv.stop(why.code());
    }
}

/// Writes a refusal as a stream's last frame, and waits a moment for it to arrive.
pub(super) async fn refuse(send: &mut SendStream, id: RequestId, refusal: Refusal) {
    let frame = frame::encode_response(id, &Response::Refused(refusal));
    let Ok(frame) = frame else { return };
    let mut chunks: Vec<_> = frame.into_chunks().collect();
    let farewell = async {
        if send.write_all_chunks(&mut chunks).await.is_ok() && send.finish().is_ok() {
            // Whether it arrived or the client left: there is nothing more to do.
            let _either = send.stopped().await;
        }
    };
    let _in_time_or_not = timeout(REFUSAL_TIMEOUT, farewell).await;
}
