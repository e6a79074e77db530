//! A stream of frames, whole and in pieces.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::protocol::{
    Delivery, Placed, Refusal, RequestId, Response,
    frame::{
        Decoder, FRAME_BYTES_MAX, Frame, FrameError, HEADER_BYTES, RawFrame, encode_client_hello,
        encode_request, encode_response, encode_server_hello,
    },
    limits::BODY_BYTES_MAX,
};

/// The bytes of a frame that its length does not count.
const LENGTH_BYTES: usize = 4;
const CRC_AT: usize = 20;

/// A stream: the input itself, then the same with lengths and checksums that fit.
pub fn frames(data: &[u8]) {
    follow(data);
    let mut sealed = data.to_vec();
    seal(&mut sealed);
    follow(&sealed);
}

/// Makes the frames of a stream whole: the last one ends where the stream does, and all checksums fit.
pub(super) fn seal(stream: &mut [u8]) {
    let mut rest = stream;
    while rest.len() >= HEADER_BYTES {
        let counted = HEADER_BYTES - LENGTH_BYTES;
        let room = rest.len() - LENGTH_BYTES;
        let length = (u32_at(rest, 0) as usize).clamp(counted, FRAME_BYTES_MAX - LENGTH_BYTES).min(room);
        let body = (u32_at(rest, 16) as usize).min(length - counted).min(BODY_BYTES_MAX);
        let (frame, after) = rest.split_at_mut(LENGTH_BYTES + length);
        frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
        frame[16..20].copy_from_slice(&(body as u32).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&frame[..CRC_AT]);
        crc.update(&frame[HEADER_BYTES..][..body]);
        frame[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.finalize().to_le_bytes());
        rest = after;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The frames of a stream that arrives in these pieces, and how it ends.
pub(super) fn decode(pieces: &[Bytes]) -> (Vec<RawFrame>, Result<bool, FrameError>) {
    let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
    for piece in pieces {
        decoder.push(piece.clone());
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error.clone()), "after an error it stays in error");
                    return (frames, Err(error));
                }
            }
        }
    }
    (frames, Ok(decoder.is_between_frames()))
}

fn follow(stream: &[u8]) {
    let whole = decode(&[Bytes::copy_from_slice(stream)]);
    assert_eq!(decode(&pieces(stream)), whole, "it makes no difference how the bytes arrive");
    let (frames, end) = whole;
    let mut rest = stream;
    for frame in frames {
        let bytes;
        (bytes, rest) = rest.split_at(HEADER_BYTES + frame.body.len() + frame.payload.len());
        judge(&frame, bytes);
    }
    match end {
        Ok(between) => assert_eq!(between, rest.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Cuts a stream in places that depend on nothing but its bytes.
fn pieces(stream: &[u8]) -> Vec<Bytes> {
    let (mut pieces, mut rest, mut noise) = (Vec::new(), stream, xxh3_64(stream));
    while !rest.is_empty() {
        let most = if noise & 3 == 0 { 512 } else { 24 };
        let piece;
        (piece, rest) = rest.split_at((1 + (noise >> 8) as usize % most).min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        noise = xxh3_64(&noise.to_le_bytes());
    }
    pieces
}

/// Whatever is read from a frame is written as a frame that is read as the same, and written in the same way again: one
/// value has one form. (A frame that somebody else wrote may have another: postcard reads integers with needless bytes.)
fn judge(frame: &RawFrame, bytes: &[u8]) {
    let body_end = HEADER_BYTES + frame.body.len();
    assert_eq!((&bytes[HEADER_BYTES..body_end], &bytes[body_end..]), (&frame.body[..], &frame.payload[..]));
    match frame.clone().request() {
        Ok((id, context, request)) => {
            let written =
                encode_request(id, &context, &request).expect("what a broker reads, a client may send");
            assert_eq!(usual(written, bytes).request(), Ok((id, context, request)));
        }
        Err((id, refusal)) => refused(id, refusal),
    }
    if let Ok((id, response)) = frame.clone().response() {
        let written = encode_response(id, &response).expect("what a client reads, a broker may send");
        match &response {
            Response::Refused(refusal) => assert!(!refusal.to_string().is_empty()),
            Response::Delivery(delivery) => take_apart(delivery),
            _ => {}
        }
        assert_eq!(usual(written, bytes).response(), Ok((id, response)));
    }
    match frame.clone().client_hello() {
        Ok(hello) => {
            let written = encode_client_hello(&hello).expect("a hello that was read fits a frame");
            assert_eq!(reread(written).client_hello(), Ok(hello));
        }
        Err(refusal) => refused(frame.id, refusal),
    }
    if let Ok(hello) = frame.clone().server_hello() {
        let written = encode_server_hello(&hello).expect("a hello that was read fits a frame");
        assert_eq!(reread(written).server_hello(), Ok(hello));
    }
}

/// The batches of a delivery are what its stretches are made of, up to where one of them is none.
fn take_apart(delivery: &Delivery) {
    let sound: Vec<_> = delivery.placed().map_while(Result::ok).collect();
    let again: Vec<u8> = sound.iter().flat_map(Placed::to_bytes).collect();
    let stretches = delivery.stretches.concat();
    assert!(stretches.starts_with(&again));
    assert_eq!(stretches.len() == again.len(), delivery.placed().all(|placed| placed.is_ok()));
}

/// A broker can tell why it refuses.
fn refused(id: RequestId, refusal: Refusal) {
    let written = encode_response(id, &Response::Refused(refusal.clone())).expect("a refusal fits a frame");
    assert_eq!(reread(written).response(), Ok((id, Response::Refused(refusal))));
}

/// What was written for a message that was read from `bytes`: the same bytes, unless those had some that say nothing.
fn usual(written: Frame, bytes: &[u8]) -> RawFrame {
    let again: Vec<u8> = written.clone().into_chunks().flatten().collect();
    assert!(
        again.len() < bytes.len() || again == bytes,
        "the usual form is the shortest, and there is one of it"
    );
    reread(written)
}

fn reread(written: Frame) -> RawFrame {
    let bytes: Vec<u8> = written.into_chunks().flatten().collect();
    let (frames, end) = decode(&[bytes.into()]);
    let [frame] = <[RawFrame; 1]>::try_from(frames).expect("what was written is one frame");
    assert_eq!(end, Ok(true));
    frame
}
