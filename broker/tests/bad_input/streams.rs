//! Bytes that make no frame, and hellos of somebody who does not belong here: the stream ends, or the connection.

use sequor_broker::testing::Cluster;
use sequor_client::protocol::{
    ClientHello, ClusterId, Feature, Field, Lineage, ProducerId, Refusal, Request, Response, StreamKind,
    frame::encode_client_hello,
};

use super::{
    HELLO, PROTOCOL, RESERVED_BYTES_MAX,
    good::Good,
    requests::{append, batch},
    reserved_ever, run, start,
    wire::{Ending, Stream, bytes_of, client, closed, greeted, hello, request, with_header},
};

/// Bytes after which a stream cannot be followed: what is sent, and whether the stream ends after it.
fn broken_streams() -> Vec<(&'static str, Vec<u8>, bool)> {
    let sound = append(batch(ProducerId(1)));
    let claims =
        |length: u32| with_header(sound.clone(), |header| header[..4].copy_from_slice(&length.to_le_bytes()));
    let mut corrupt = sound.clone();
    corrupt[20] ^= 1;
    vec![
        ("a frame that claims 4 GiB", claims(u32::MAX), false),
        ("a body that claims 4 GiB", with_header_body(&sound, u32::MAX), false),
        ("a frame that is shorter than its body", claims(21), false),
        ("a frame with a bad checksum", corrupt, false),
        ("bytes that are no frame", vec![0xff; 100], false),
        ("half a header", sound[..9].to_vec(), true),
        ("half a batch", sound[..sound.len() - 5].to_vec(), true),
    ]
}

fn with_header_body(frame: &[u8], body: u32) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[16..20].copy_from_slice(&body.to_le_bytes());
    frame
}

#[test]
fn streams_of_a_client_that_cannot_be_followed() {
    run(async {
        let cluster = start(1).await;
        let leader = cluster.leader().await.unwrap();
        let mut good = Good::new(&cluster).await;
        let before = reserved_ever();
        for kind in [StreamKind::Requests, StreamKind::Subscription] {
            let (connection, mut control, _) = greeted(&cluster, leader).await;
            for (case, bytes, ends) in broken_streams() {
                let mut stream = Stream::open(&connection, kind as u8).await;
                stream.write(&bytes).await;
                if ends {
                    stream.send.finish().unwrap();
                }
                assert_eq!(stream.next().await.unwrap_err(), Ending::Reset(PROTOCOL), "{kind:?}: {case}");
                control.write(&request(1, &Request::Status)).await;
                let status = control.response().await;
                assert!(matches!(status, Response::Status(_)), "the other streams live on: {status:?}");
                good.is_served_after(case).await;
            }
        }
        let (connection, _control, _) = greeted(&cluster, leader).await;
        let mut unknown = Stream::open(&connection, 9).await;
        let refusal = Refusal::Unsupported { what: Feature::Stream(9) };
        assert_eq!(unknown.response().await, Response::Refused(refusal));
        good.is_served_after("a stream of an unknown kind").await;
        assert!(reserved_ever() - before < RESERVED_BYTES_MAX, "nothing is reserved for a claim");
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}

/// The first bytes of a control stream: what is sent, the refusal if one comes, and how the connection ends.
fn refused_hellos(cluster: &Cluster) -> Vec<(&'static str, Vec<u8>, Option<Refusal>, Ending)> {
    let sound = hello(cluster);
    let encoded = |hello: ClientHello| bytes_of(encode_client_hello(&hello).unwrap());
    let own = cluster.dir().cluster();
    let other = ClusterId([9; 16]);
    let frame = encoded(sound.clone());
    let huge = with_header(frame.clone(), |header| header[..4].fill(0xff));
    let closed = |code, reason: String| Ending::Closed(code, reason);
    let kind = Refusal::Unsupported { what: Feature::Kind(0x0015) };
    let long = Refusal::TooLarge { what: Field::Hello, found: 256, limit: 255 };
    vec![
        (
            "a newer protocol",
            encoded(ClientHello { version_min: 2, version_max: 3, ..sound.clone() }),
            Some(Refusal::Unsupported { what: Feature::Version(3) }),
            closed(
                HELLO,
                "the client speaks versions 2 to 3 of the protocol, this broker 1: update whichever is older".into(),
            ),
        ),
        (
            "the id of another cluster",
            encoded(ClientHello { cluster: other, ..sound.clone() }),
            None,
            closed(
                HELLO,
                format!(
                    "the client means cluster {other}, this broker belongs to {own}: use the context file of this cluster"
                ),
            ),
        ),
        (
            "the longest name of a software, and one byte more",
            encoded(ClientHello { software: "x".repeat(256), ..sound }),
            Some(long.clone()),
            closed(HELLO, format!("the client's hello was refused: {long}")),
        ),
        (
            "a request instead of a hello",
            request(1, &Request::Status),
            Some(kind.clone()),
            closed(HELLO, format!("the client's hello was refused: {kind}")),
        ),
        (
            "a hello that claims 4 GiB",
            huge,
            None,
            closed(
                PROTOCOL,
                "the client's hello cannot be read: the client's stream cannot be followed: frame header is 4294967295 \
                 bytes, the limit is 1179668"
                    .into(),
            ),
        ),
    ]
}

#[test]
fn hellos_of_a_client() {
    run(async {
        let cluster = start(1).await;
        let leader = cluster.leader().await.unwrap();
        let mut good = Good::new(&cluster).await;
        let before = reserved_ever();
        // More rounds than there are places: none is kept by who was refused.
        for _ in 0..2 {
            for (case, bytes, refusal, ending) in refused_hellos(&cluster) {
                let connection = client(&cluster, leader).await;
                let mut control = Stream::open(&connection, StreamKind::Control as u8).await;
                control.write(&bytes).await;
                let answer = control.next().await;
                match refusal {
                    Some(refusal) => {
                        assert_eq!(answer.unwrap().server_hello().unwrap_err(), refusal, "{case}");
                    }
                    None => assert_eq!(answer.unwrap_err(), ending, "{case}"),
                }
                assert_eq!(closed(&connection).await, ending, "{case}");
                good.is_served_after(case).await;
            }
        }
        assert!(reserved_ever() - before < RESERVED_BYTES_MAX, "nothing is reserved for a claim");
        let lineage = Lineage([3; 16]);
        let connection = client(&cluster, leader).await;
        let mut control = Stream::open(&connection, StreamKind::Control as u8).await;
        let other = ClientHello { lineage: Some(lineage), ..hello(&cluster) };
        control.write(&bytes_of(encode_client_hello(&other).unwrap())).await;
        let refused = control.next().await.unwrap().server_hello().unwrap_err();
        assert!(
            matches!(refused, Refusal::OtherLineage { expected, .. } if expected == lineage),
            "{refused:?}"
        );
        good.is_served_after("another lineage").await;
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}
