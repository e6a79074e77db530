//! Requests and answers as bytes on a stream.
//!
//! ```text
//!    0  length u32      bytes of the frame after this field: 20 + body + payload
//!    4  kind u16        what it is: `Kind`
//!    6  flags u16       none yet
//!    8  request id u64  chosen by who asks, carried back by the answer; 0 in a hello
//!   16  body length u32
//!   20  crc u32         CRC-32 of bytes 0 to 20 and the body
//!   24  body            postcard; a request's body begins with the length of its context, and the context
//!       payload         raw: one batch (Append), or the batches of a Delivery, each in its place (`placed.rs`)
//! ```
//!
//! Numbers in the header are little-endian. The checksum leaves the payload out because a batch brings its own, which
//! covers it from producer to consumer; so a megabyte is summed up once where it is judged and not again here.
//!
//! Two kinds of failure are kept apart. A [`FrameError`] means that the stream cannot be followed any further: nobody
//! knows where the next frame begins. A [`Refusal`] speaks of one frame that is whole but not acceptable: it is
//! answered, and the stream goes on. A kind that is not known is of the second sort.
//!
//! `body.rs` tells what is in the bodies, and how they may grow.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

pub use super::body::{
    encode_client_hello, encode_request, encode_response, encode_server_hello, put_response,
};
use super::{
    Field, Refusal, RequestId,
    limits::{BATCH_BYTES_MAX, BODY_BYTES_MAX, DELIVERY_BYTES_MAX},
};

/// Length of a frame's header. Bytes.
pub const HEADER_BYTES: usize = 24;
/// The part of the header that the length field counts. Bytes.
const COUNTED_HEADER_BYTES: usize = HEADER_BYTES - 4;
const PAYLOAD_BYTES_MAX: usize =
    if BATCH_BYTES_MAX > DELIVERY_BYTES_MAX { BATCH_BYTES_MAX } else { DELIVERY_BYTES_MAX };
/// Largest frame. Bytes.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX + PAYLOAD_BYTES_MAX;

/// What a frame is. Answers have the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`ClientHello`](super::ClientHello).
    ClientHello = 0x0001,
    /// [`Request::Open`](super::Request::Open).
    Open = 0x0010,
    /// [`Request::Append`](super::Request::Append).
    Append = 0x0011,
    /// [`Request::Lookup`](super::Request::Lookup).
    Lookup = 0x0012,
    /// [`Request::Resolve`](super::Request::Resolve).
    Resolve = 0x0013,
    /// [`Request::End`](super::Request::End).
    End = 0x0014,
    /// [`Request::Status`](super::Request::Status).
    Status = 0x0015,
    /// [`Request::Subscribe`](super::Request::Subscribe).
    Subscribe = 0x0016,
    /// [`Request::KeepAlive`](super::Request::KeepAlive).
    KeepAlive = 0x0017,
    /// [`Request::Retire`](super::Request::Retire).
    Retire = 0x0018,
    /// [`Request::List`](super::Request::List).
    List = 0x0019,
    /// [`Request::OpenSession`](super::Request::OpenSession).
    OpenSession = 0x001a,
    /// A transaction on log and key-value view: reserved.
    Transact = 0x0020,
    /// A read of the key-value view: reserved.
    Range = 0x0021,
    /// A watch on the key-value view: reserved.
    Watch = 0x0022,
    /// [`ServerHello`](super::ServerHello).
    ServerHello = 0x8001,
    /// [`Response::Refused`](super::Response::Refused): the answer to a request of any kind.
    Refused = 0x8000,
    /// [`Response::Opened`](super::Response::Opened).
    Opened = 0x8010,
    /// [`Response::Appended`](super::Response::Appended).
    Appended = 0x8011,
    /// [`Response::Found`](super::Response::Found).
    Found = 0x8012,
    /// [`Response::Resolved`](super::Response::Resolved).
    Resolved = 0x8013,
    /// [`Response::End`](super::Response::End).
    EndIs = 0x8014,
    /// [`Response::Status`](super::Response::Status).
    StatusIs = 0x8015,
    /// [`Response::Delivery`](super::Response::Delivery).
    Delivery = 0x8016,
    /// [`Response::Alive`](super::Response::Alive).
    Alive = 0x8017,
    /// [`Response::Accepted`](super::Response::Accepted).
    Accepted = 0x801b,
    /// [`Response::Retired`](super::Response::Retired).
    Retired = 0x8018,
    /// [`Response::Listed`](super::Response::Listed).
    Listed = 0x8019,
    /// [`Response::Leads`](super::Response::Leads).
    Leads = 0x801c,
}

impl Kind {
    const ALL: [Self; 29] = [
        Self::ClientHello,
        Self::Open,
        Self::Append,
        Self::Lookup,
        Self::Resolve,
        Self::End,
        Self::Status,
        Self::Subscribe,
        Self::KeepAlive,
        Self::Retire,
        Self::List,
        Self::OpenSession,
        Self::Transact,
        Self::Range,
        Self::Watch,
        Self::ServerHello,
        Self::Refused,
        Self::Opened,
        Self::Appended,
        Self::Found,
        Self::Resolved,
        Self::EndIs,
        Self::StatusIs,
        Self::Delivery,
        Self::Accepted,
        Self::Alive,
        Self::Retired,
        Self::Listed,
        Self::Leads,
    ];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// One frame, ready to be written: the head, then the chunks of the payload, none of them copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Header and body.
    pub head: Bytes,
    /// The payload; empty for most kinds.
    pub payload: Vec<Bytes>,
}

impl Frame {
    /// Its whole length. Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.iter().map(Bytes::len).sum::<usize>()
    }

    /// Never: a frame has at least its header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What to write, in order.
    pub fn into_chunks(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.head).chain(self.payload)
    }

    pub(super) fn build(
        kind: Kind,
        id: RequestId,
        payload: Vec<Bytes>,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<Self, Refusal> {
        let mut head = BytesMut::with_capacity(HEAD_BYTES_USUAL);
        put_head(&mut head, kind, id, payload.iter().map(Bytes::len).sum(), body)?;
        Ok(Self { head: head.freeze(), payload })
    }
}

/// Room for the head of nearly any frame. Bytes.
const HEAD_BYTES_USUAL: usize = 128;

/// Puts the head of a frame behind what is there: its header, and the body that `body` writes.
///
/// # Errors
/// [`Refusal::TooLarge`]; nothing is put there then.
pub(super) fn put_head(
    into: &mut BytesMut,
    kind: Kind,
    id: RequestId,
    payload_bytes: usize,
    body: impl FnOnce(&mut BytesMut),
) -> Result<(), Refusal> {
    let begin = into.len();
    into.put_bytes(0, HEADER_BYTES);
    body(into);
    let body_bytes = into.len() - begin - HEADER_BYTES;
    let fits = within(Field::Body, body_bytes, BODY_BYTES_MAX)
        .and_then(|()| within(Field::Batch, payload_bytes, payload_bytes_max(kind)));
    if fits.is_err() {
        into.truncate(begin);
        return fits;
    }
    let (header, body) = into[begin..].split_at_mut(HEADER_BYTES);
    let (counted, mut crc) = header.split_at_mut(COUNTED_HEADER_BYTES);
    let mut fields = &mut *counted;
    fields.put_u32_le((COUNTED_HEADER_BYTES + body_bytes + payload_bytes) as u32);
    fields.put_u16_le(kind as u16);
    fields.put_u16_le(0);
    fields.put_u64_le(id.0);
    fields.put_u32_le(body_bytes as u32);
    crc.put_u32_le(checksum(counted, body));
    Ok(())
}

/// Largest piece that is copied to lie beside others. Bytes.
const GATHERED_BYTES_MAX: usize = 4 << 10;

/// Frames as the chunks to write. Small pieces are copied side by side into one chunk: what sends them walks its chunks for
/// each packet, and a thousand small requests in flight would be thousands of them. Large ones are not copied.
pub fn gather(frames: impl Iterator<Item = Frame>) -> Vec<Bytes> {
    let (mut chunks, mut small) = (Vec::new(), BytesMut::new());
    for piece in frames.flat_map(Frame::into_chunks) {
        if piece.len() <= GATHERED_BYTES_MAX {
            small.extend_from_slice(&piece);
        } else {
            chunks.extend((!small.is_empty()).then(|| small.split().freeze()));
            chunks.push(piece);
        }
    }
    chunks.extend((!small.is_empty()).then(|| small.freeze()));
    chunks
}

pub(super) fn payload_bytes_max(kind: Kind) -> usize {
    match kind {
        Kind::Append => BATCH_BYTES_MAX,
        Kind::Delivery => DELIVERY_BYTES_MAX,
        _ => 0,
    }
}

/// Why a stream cannot be followed any further. Close it; what was in flight on it is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The lengths in a frame's header contradict each other.
    #[error("frame header claims {length} bytes with a body of {body}")]
    Lengths {
        /// What the length field says, in bytes.
        length: usize,
        /// What the field for the body says, in bytes.
        body: usize,
    },
    /// A frame claims more bytes than any frame may have.
    #[error("{what} is {found} bytes, the limit is {limit}")]
    TooLarge {
        /// What it is.
        what: Field,
        /// Its size, in bytes.
        found: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The checksum of header and body does not fit.
    #[error("bad checksum of frame header and body: it says {expected:#010x}, the bytes give {found:#010x}")]
    BadChecksum {
        /// The checksum that was sent.
        expected: u32,
        /// The checksum of what arrived.
        found: u32,
    },
    /// An answer that cannot be read, or that nobody may send here.
    #[error("frame of kind {kind:#06x} is not an answer that can be read")]
    Answer {
        /// The frame's kind.
        kind: u16,
    },
}

/// Cuts a stream of bytes into frames, however the bytes arrive.
///
/// Invariants: a length is compared with its limit before it is believed, and the checksum before the payload is
/// waited for; what is held is at most one frame and the chunks pushed since the last `next`; after an error it
/// stays in error.
#[derive(Debug, Default)]
pub struct Decoder {
    chunks: VecDeque<Bytes>,
    buffered: usize,
    head: Option<Head>,
    failed: Option<FrameError>,
}

#[derive(Debug)]
struct Head {
    kind: u16,
    flags: u16,
    id: RequestId,
    body: usize,
    payload: usize,
    crc: u32,
    bytes: [u8; COUNTED_HEADER_BYTES],
    checked: Option<Bytes>,
}

impl Decoder {
    /// A decoder at the beginning of a frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream. Call [`Decoder::next`] until it returns none before the next push.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.buffered += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole frame; none if more bytes are needed. A payload that lies in one chunk is not copied.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: the stream is of no further use.
    #[allow(clippy::should_implement_trait, reason = "an iterator ends; this one waits for bytes")]
    pub fn next(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.advance();
        if let Err(error) = &next {
            self.failed = Some(error.clone());
            self.chunks.clear();
        }
        next
    }

    /// Whether the stream may end here: it holds no part of a frame.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.head.is_none() && self.buffered == 0
    }

    fn advance(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if self.head.is_none() {
            let Some(header) = self.take_header() else { return Ok(None) };
            self.head = Some(Head::read(&header)?);
        }
        let head = self.head.as_ref().expect("read just now or before");
        if head.checked.is_none() {
            let len = head.body;
            let Some(body) = self.take(len) else { return Ok(None) };
            self.head.as_mut().expect("as above").check(body)?;
        }
        let len = self.head.as_ref().expect("as above").payload;
        let Some(payload) = self.take(len) else { return Ok(None) };
        let Head { kind, flags, id, checked, .. } = self.head.take().expect("as above");
        let body = checked.expect("checked before the payload is taken");
        Ok(Some(RawFrame { kind, flags, id, body, payload }))
    }

    /// The next header once it is there.
    fn take_header(&mut self) -> Option<[u8; HEADER_BYTES]> {
        if self.buffered < HEADER_BYTES {
            return None;
        }
        self.buffered -= HEADER_BYTES;
        let (mut header, mut filled) = ([0; HEADER_BYTES], 0);
        while filled < HEADER_BYTES {
            let chunk = self.chunks.front_mut().expect("what is buffered lies in chunks");
            let bytes = chunk.len().min(HEADER_BYTES - filled);
            chunk.copy_to_slice(&mut header[filled..filled + bytes]);
            filled += bytes;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        Some(header)
    }

    /// The next `len` bytes once they are there: a slice if they lie in one chunk, else a copy.
    fn take(&mut self, len: usize) -> Option<Bytes> {
        if self.buffered < len {
            return None;
        }
        self.buffered -= len;
        if len == 0 {
            return Some(Bytes::new());
        }
        let first = self.chunks.front_mut().expect("what is buffered lies in chunks");
        if first.len() > len {
            return Some(first.split_to(len));
        }
        if first.len() == len {
            return self.chunks.pop_front();
        }
        let mut joined = BytesMut::with_capacity(len);
        while joined.len() < len {
            let chunk = self.chunks.front_mut().expect("what is buffered lies in chunks");
            joined.put(chunk.split_to(chunk.len().min(len - joined.len())));
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        Some(joined.freeze())
    }
}

impl Head {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let counted = *bytes.first_chunk().expect("the header is longer");
        let mut fields = &bytes[..];
        let length = fields.get_u32_le() as usize;
        let (kind, flags, id) = (fields.get_u16_le(), fields.get_u16_le(), RequestId(fields.get_u64_le()));
        let (body, crc) = (fields.get_u32_le() as usize, fields.get_u32_le());
        let limit = FRAME_BYTES_MAX - 4;
        if length > limit {
            return Err(FrameError::TooLarge { what: Field::FrameHeader, found: length, limit });
        }
        if body > BODY_BYTES_MAX {
            return Err(FrameError::TooLarge { what: Field::Body, found: body, limit: BODY_BYTES_MAX });
        }
        let payload = length.checked_sub(COUNTED_HEADER_BYTES + body);
        let payload = payload.ok_or(FrameError::Lengths { length, body })?;
        if payload > PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLarge {
                what: Field::Batch,
                found: payload,
                limit: PAYLOAD_BYTES_MAX,
            });
        }
        Ok(Self { kind, flags, id, body, payload, crc, bytes: counted, checked: None })
    }

    fn check(&mut self, body: Bytes) -> Result<(), FrameError> {
        let (expected, found) = (self.crc, checksum(&self.bytes, &body));
        if expected != found {
            return Err(FrameError::BadChecksum { expected, found });
        }
        self.checked = Some(body);
        Ok(())
    }
}

/// A frame that arrived whole; what it means is not looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// The number of its [`Kind`], which need not be one that is known here.
    pub kind: u16,
    /// Its flags. None has a meaning yet.
    pub flags: u16,
    /// The request it is, or answers.
    pub id: RequestId,
    /// The body.
    pub body: Bytes,
    /// The payload.
    pub payload: Bytes,
}

pub(super) fn within(what: Field, found: usize, limit: usize) -> Result<(), Refusal> {
    if found > limit {
        return Err(Refusal::TooLarge { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_put_side_by_side_and_large_ones_are_not_copied() {
        let (small, most, large) =
            ([1; 10], [2; GATHERED_BYTES_MAX], Bytes::from(vec![3; GATHERED_BYTES_MAX + 1]));
        let head = |byte: u8| Bytes::from(vec![byte; 3]);
        let frames = [
            Frame { head: head(4), payload: vec![small.to_vec().into(), most.to_vec().into()] },
            Frame { head: head(5), payload: vec![large.clone()] },
            Frame { head: head(6), payload: vec![] },
        ];
        let chunks = gather(frames.into_iter());
        let first = [&[4; 3][..], &small, &most, &[5; 3]].concat();
        assert_eq!(chunks, [first.into(), large.clone(), head(6)]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }
}
