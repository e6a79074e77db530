//! Frames: every message comes back as it went, however the stream is cut, and noise does no harm.

mod messages;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};
use sequor_client::protocol::{
    Append, Context, Feature, Field, Lookup, Offset, Placed, Refusal, Request, RequestId, Response, Sequence,
    Token,
    frame::{
        Decoder, FRAME_BYTES_MAX, Frame, FrameError, HEADER_BYTES, Kind, RawFrame, encode_client_hello,
        encode_request, encode_response, encode_server_hello,
    },
    limits::{BATCH_BYTES_MAX, NAME_BYTES_MAX, TOKENS_MAX},
};

fn flat(frame: Frame) -> Bytes {
    let mut bytes = BytesMut::with_capacity(frame.len());
    frame.into_chunks().for_each(|chunk| bytes.extend_from_slice(&chunk));
    bytes.freeze()
}

fn decode_one(bytes: Bytes) -> RawFrame {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let frame = decoder.next().expect("a sound stream").expect("a whole frame");
    assert!(decoder.is_between_frames());
    frame
}

#[test]
fn every_request_comes_back() {
    for (name, context, request) in messages::requests() {
        let frame = decode_one(flat(encode_request(RequestId(5), &context, &request).unwrap()));
        assert_eq!(frame.request(), Ok((RequestId(5), context, request)), "{name}");
    }
}

#[test]
fn every_answer_comes_back() {
    for (name, response) in messages::responses() {
        let frame = decode_one(flat(encode_response(RequestId(5), &response).unwrap()));
        assert_eq!(frame.response(), Ok((RequestId(5), response)), "{name}");
    }
}

#[test]
fn hellos_come_back_and_may_be_longer_than_their_reader_knows() {
    let (client, server) = (messages::client_hello(), messages::server_hello());
    let frame = decode_one(flat(encode_client_hello(&client).unwrap()));
    let longer = RawFrame { body: [&frame.body[..], b"more"].concat().into(), ..frame.clone() };
    assert_eq!(frame.client_hello(), Ok(client.clone()));
    assert_eq!(longer.client_hello(), Ok(client));
    let frame = decode_one(flat(encode_server_hello(&server).unwrap()));
    assert_eq!(frame.server_hello(), Ok(server));
}

#[test]
fn a_refused_hello_is_that_refusal() {
    let refusal = Refusal::Unsupported { what: Feature::Version(9) };
    let answer = sequor_client::protocol::Response::Refused(refusal.clone());
    let frame = decode_one(flat(encode_response(RequestId(0), &answer).unwrap()));
    assert_eq!(frame.server_hello(), Err(refusal));
}

#[test]
fn a_request_with_more_than_is_known_is_refused() {
    let frame = decode_one(flat(encode_request(RequestId(5), &Context::default(), &Request::End).unwrap()));
    let longer = RawFrame { body: [&frame.body[..], b"!"].concat().into(), ..frame };
    assert_eq!(longer.request(), Err((RequestId(5), Refusal::Malformed { what: Field::Body })));
}

#[test]
fn an_unknown_kind_is_refused_and_the_stream_goes_on() {
    let unknown = RawFrame {
        kind: 0x7abc,
        flags: 0,
        id: RequestId(8),
        body: Bytes::new(),
        payload: Bytes::from_static(b"?"),
    };
    let next = flat(encode_request(RequestId(9), &Context::default(), &Request::Status).unwrap());
    let mut decoder = Decoder::new();
    decoder.push(raw_bytes(&unknown));
    decoder.push(next);
    let refusal = Refusal::Unsupported { what: Feature::Kind(0x7abc) };
    assert_eq!(decoder.next().unwrap().unwrap().request(), Err((RequestId(8), refusal)));
    assert_eq!(
        decoder.next().unwrap().unwrap().request(),
        Ok((RequestId(9), Context::default(), Request::Status))
    );
}

#[test]
fn what_is_reserved_is_refused_by_name() {
    let context = flat(encode_request(RequestId(1), &Context::default(), &Request::End).unwrap());
    let context = decode_one(context).body;
    for (kind, what) in [
        (Kind::Transact, Feature::KeyValue),
        (Kind::Watch, Feature::KeyValue),
        (Kind::Range, Feature::KeyValue),
        (Kind::Delivery, Feature::Kind(Kind::Delivery as u16)),
    ] {
        let frame = raw_frame(kind, context.clone());
        assert_eq!(frame.request(), Err((RequestId(1), Refusal::Unsupported { what })));
    }
}

#[test]
fn a_delivery_of_nothing_but_places_is_not_believed() {
    let body = Bytes::from_static(&[0, 0, 0]);
    for (length, believed) in [(0, false), (63, false), (64, true)] {
        let placed = Placed { offset: Offset(1), settled: Sequence(0), batch: vec![1; length].into() };
        let frame = RawFrame { payload: placed.to_bytes(), ..raw_frame(Kind::Delivery, body.clone()) };
        let Ok((_, Response::Delivery(delivery))) = frame.response() else { panic!("not a delivery") };
        assert_eq!(delivery.placed().all(|placed| placed.is_ok()), believed, "{length}");
        assert_eq!(delivery.placed().count(), 1);
    }
}

fn raw_frame(kind: Kind, body: Bytes) -> RawFrame {
    RawFrame { kind: kind as u16, flags: 0, id: RequestId(1), body, payload: Bytes::new() }
}

#[test]
fn unknown_flags_are_refused_and_the_stream_goes_on() {
    let frame = RawFrame { flags: 1, ..raw_frame(Kind::End, Bytes::from_static(&[0])) };
    assert_eq!(
        decode_one(raw_bytes(&frame)).request(),
        Err((RequestId(1), Refusal::Unsupported { what: Feature::Flags(1) }))
    );
}

/// A frame written by hand, as `frame.rs` draws it.
fn raw_bytes(frame: &RawFrame) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u32_le((20 + frame.body.len() + frame.payload.len()) as u32);
    bytes.put_u16_le(frame.kind);
    bytes.put_u16_le(frame.flags);
    bytes.put_u64_le(frame.id.0);
    bytes.put_u32_le(frame.body.len() as u32);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes);
    crc.update(&frame.body);
    bytes.put_u32_le(crc.finalize());
    bytes.put_slice(&frame.body);
    bytes.put_slice(&frame.payload);
    bytes.freeze()
}

#[test]
fn limits_hold_on_both_sides() {
    let long = Request::Lookup(Lookup { name: "x".repeat(NAME_BYTES_MAX + 1) });
    let refusal = encode_request(RequestId(1), &Context::default(), &long).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { what: Field::Name, .. }));

    let reserved = Request::Lookup(Lookup { name: "\0system".into() });
    let refusal = encode_request(RequestId(1), &Context::default(), &reserved).unwrap_err();
    assert_eq!(refusal, Refusal::Malformed { what: Field::Name });

    let context = Context { tokens: vec![Token(1); TOKENS_MAX + 1], ..Context::default() };
    let refusal = encode_request(RequestId(1), &context, &Request::End).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { what: Field::Tokens, .. }));

    let batch = Bytes::from(vec![0; BATCH_BYTES_MAX + 1]);
    let append = Append { acks: Default::default(), settled: Default::default(), expect_end: None, batch };
    let refusal = encode_request(RequestId(1), &Context::default(), &Request::Append(append)).unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { what: Field::Batch, .. }));
}

#[test]
fn a_frame_over_the_limit_ends_the_stream_before_its_bytes_are_waited_for() {
    let mut header = BytesMut::new();
    header.put_u32_le(FRAME_BYTES_MAX as u32);
    header.put_slice(&[0; HEADER_BYTES - 4]);
    let mut decoder = Decoder::new();
    decoder.push(header.freeze());
    assert!(matches!(decoder.next(), Err(FrameError::TooLarge { what: Field::FrameHeader, .. })));
    assert!(matches!(decoder.next(), Err(FrameError::TooLarge { .. })), "it stays in error");
}

#[test]
fn a_payload_that_lies_in_one_chunk_is_not_copied() {
    let (_, context, request) =
        messages::requests().into_iter().find(|(name, ..)| *name == "append").expect("it is there");
    let bytes = flat(encode_request(RequestId(1), &context, &request).unwrap());
    let within = bytes.as_ptr_range();
    let frame = decode_one(bytes);
    assert!(within.contains(&frame.payload.as_ptr()));
}

proptest! {
    #[test]
    fn the_cuts_of_the_stream_do_not_matter(cuts in vec(1usize..40, 1..200)) {
        let mut stream = BytesMut::new();
        let requests = messages::requests();
        for (at, (_, context, request)) in requests.iter().enumerate() {
            let frame = encode_request(RequestId(at as u64), context, request).unwrap();
            frame.into_chunks().for_each(|chunk| stream.extend_from_slice(&chunk));
        }
        let mut stream = stream.freeze();
        let mut decoder = Decoder::new();
        let mut seen = Vec::new();
        for cut in cuts.into_iter().cycle() {
            decoder.push(stream.split_to(cut.min(stream.len())));
            while let Some(frame) = decoder.next().unwrap() {
                seen.push(frame.request().unwrap());
            }
            if stream.is_empty() {
                break;
            }
        }
        prop_assert!(decoder.is_between_frames());
        prop_assert_eq!(seen.len(), requests.len());
        for (at, (id, context, request)) in seen.into_iter().enumerate() {
            prop_assert_eq!((id, context, request), (RequestId(at as u64), requests[at].1.clone(), requests[at].2.clone()));
        }
    }

    #[test]
    fn a_flipped_bit_in_head_or_body_is_noticed(which: prop::sample::Index, at: prop::sample::Index, bit in 0..8) {
        let requests = messages::requests();
        let (_, context, request) = &requests[which.index(requests.len())];
        let frame = encode_request(RequestId(3), context, request).unwrap();
        let head = frame.head.len();
        let mut bytes = flat(frame).to_vec();
        bytes[at.index(head)] ^= 1u8 << bit;
        let mut decoder = Decoder::new();
        decoder.push(bytes.into());
        prop_assert!(!matches!(decoder.next(), Ok(Some(_))));
    }

    #[test]
    fn noise_never_makes_a_decoder_panic(noise in vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::new();
        decoder.push(noise.into());
        while let Ok(Some(_)) = decoder.next() {}
    }

    /// Whole frames of every kind around random bodies: the readers of messages get to see them.
    #[test]
    fn noise_never_makes_a_reader_panic(
        kind in prop_oneof![0u16..0x30, 0x8000u16..0x8020],
        body in vec(any::<u8>(), 0..100),
        payload in vec(any::<u8>(), 0..100),
    ) {
        let frame = RawFrame { kind, flags: 0, id: RequestId(1), body: body.into(), payload: payload.into() };
        let frame = decode_one(raw_bytes(&frame));
        let _ = frame.clone().request();
        let _ = frame.clone().response();
        let _ = frame.clone().client_hello();
        let _ = frame.server_hello();
    }
}
