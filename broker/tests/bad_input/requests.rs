//! Requests that can be read and may not be carried out: each has an answer that names what is wrong with it.

use sequor_client::protocol::{
    Acks, Append, Epoch, Feature, Field, Instance, Offset, Open, ProducerId, Refusal, Request, Response,
    Sequence, StreamKind, Subscribe,
    batch::BatchBuilder,
    limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX},
};
use sequor_client::{AppendError, CallError, Record};

use super::{
    good::Good,
    run, start,
    wire::{Stream, greeted, request, with_header},
};

/// A sound batch of one record.
pub(crate) fn batch(id: ProducerId) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push_value(None, b"never to be seen", 0).unwrap();
    builder.seal(id, Epoch(1), Sequence(0)).to_vec()
}

/// Changes a batch, and makes its checksum right again.
fn changed(mut batch: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut batch);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&batch[..4]);
    hasher.update(&batch[8..]);
    batch[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    batch
}

fn append_of(batch: Vec<u8>) -> Append {
    Append { acks: Acks::Quorum, settled: Sequence(0), expect_end: None, batch: batch.into() }
}

pub(crate) fn append(batch: Vec<u8>) -> Vec<u8> {
    request(7, &Request::Append(append_of(batch)))
}

/// An append whose batch is longer than any frame that this library would write.
fn oversized_append(id: ProducerId) -> Vec<u8> {
    let mut frame = append(batch(id));
    let more = BATCH_BYTES_MAX + 1 - batch(id).len();
    frame.resize(frame.len() + more, 0);
    let length = u32::try_from(frame.len() - 4).unwrap();
    with_header(frame, |header| header[..4].copy_from_slice(&length.to_le_bytes()))
}

/// Takes the last byte of the last record away.
fn cut_off(batch: &mut Vec<u8>) {
    batch.pop();
    let length = u32::try_from(batch.len()).unwrap();
    batch[8..12].copy_from_slice(&length.to_le_bytes());
}

/// A name that this library does not write: it begins with a zero.
fn reserved_name() -> Vec<u8> {
    let open = Open { name: "!locks".into(), instance: Instance([2; 16]), expected_epoch: Epoch(0) };
    let mut frame = request(7, &Request::Open(open));
    let at = frame.iter().position(|byte| *byte == b'!').unwrap();
    frame[at] = 0;
    with_header(frame, |_| ())
}

/// Requests that can be read, and are refused by name: what is sent, and the answer.
fn refused_requests(id: ProducerId) -> Vec<(&'static str, Vec<u8>, Refusal)> {
    let unsupported = |what| Refusal::Unsupported { what };
    let malformed = |what| Refusal::Malformed { what };
    let sound = || batch(id);
    let corrupt = {
        let mut bytes = sound();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let says = u32::from_le_bytes(corrupt[4..8].try_into().unwrap());
    let gives = u32::from_le_bytes(changed(corrupt.clone(), |_| ())[4..8].try_into().unwrap());
    let limit = BATCH_BYTES_MAX as u64;
    vec![
        (
            "a batch over its limit",
            oversized_append(id),
            Refusal::TooLarge { what: Field::Batch, found: limit + 1, limit },
        ),
        (
            "more records than a batch may have",
            append(changed(sound(), |b| b[12..16].copy_from_slice(&65_537_u32.to_le_bytes()))),
            Refusal::TooLarge { what: Field::Records, found: 65_537, limit: 65_536 },
        ),
        ("no records", append(changed(sound(), |b| b[12..16].fill(0))), malformed(Field::Records)),
        (
            "an unknown flag of a record",
            append(changed(sound(), |b| b[64] = 0xff)),
            unsupported(Feature::Flags(0xff)),
        ),
        ("a record that ends early", append(changed(sound(), cut_off)), malformed(Field::Records)),
        ("a digest of other records", append(changed(sound(), |b| b[48] ^= 1)), malformed(Field::Digest)),
        ("an empty batch", append(Vec::new()), malformed(Field::Batch)),
        ("a batch that is cut off", append(sound()[..70].to_vec()), malformed(Field::Batch)),
        (
            "a bad checksum of a batch",
            append(corrupt),
            Refusal::BadChecksum { what: Field::Batch, expected: says, found: gives },
        ),
        (
            "an unknown batch format",
            append(changed(sound(), |b| b[0] = 9)),
            unsupported(Feature::BatchFormat(9)),
        ),
        (
            "an unknown flag of a batch",
            append(changed(sound(), |b| b[1] |= 0x80)),
            unsupported(Feature::Flags(0x80)),
        ),
        ("an unknown codec", append(changed(sound(), |b| b[2] = 77)), unsupported(Feature::Codec(77))),
        ("an unknown digest", append(changed(sound(), |b| b[3] = 5)), unsupported(Feature::DigestHash(5))),
        (
            "an unknown kind of request",
            with_header(append(sound()), |header| header[4..6].copy_from_slice(&0x7abc_u16.to_le_bytes())),
            unsupported(Feature::Kind(0x7abc)),
        ),
        (
            "an answer instead of a request",
            with_header(request(7, &Request::End), |header| {
                header[4..6].copy_from_slice(&0x8014_u16.to_le_bytes());
            }),
            unsupported(Feature::Kind(0x8014)),
        ),
        (
            "an unknown flag of a frame",
            with_header(append(sound()), |h| h[6] = 2),
            unsupported(Feature::Flags(2)),
        ),
        (
            "an append that wants no answer",
            request(7, &Request::Append(Append { acks: Acks::None, ..append_of(sound()) })),
            unsupported(Feature::NoAcks),
        ),
        (
            "an expected end",
            request(7, &Request::Append(Append { expect_end: Some(Offset(1)), ..append_of(sound()) })),
            unsupported(Feature::ExpectEnd),
        ),
        (
            "a subscription among requests",
            request(7, &Request::Subscribe(Subscribe { from: Offset(0) })),
            unsupported(Feature::Stream(StreamKind::Requests as u8)),
        ),
        (
            "an append of a producer that nobody opened",
            append(batch(ProducerId(999))),
            Refusal::UnknownProducer,
        ),
        (
            "a sequence far ahead",
            append(changed(sound(), |b| b[32] = 5)),
            Refusal::SequenceGap { expected: Sequence(0), found: Sequence(5) },
        ),
        ("a reserved name", reserved_name(), malformed(Field::Name)),
    ]
}

#[test]
fn requests_of_a_client() {
    run(async {
        let cluster = start(1).await;
        let leader = cluster.leader().await.unwrap();
        let mut good = Good::new(&cluster).await;
        let (connection, _control, _) = greeted(&cluster, leader).await;
        let mut stream = Stream::open(&connection, StreamKind::Requests as u8).await;
        let open = Open { name: "bad".into(), instance: Instance([1; 16]), expected_epoch: Epoch(0) };
        stream.write(&request(1, &Request::Open(open))).await;
        let Response::Opened(opened) = stream.response().await else { panic!("not opened") };
        for (case, bytes, refusal) in refused_requests(opened.id) {
            stream.write(&bytes).await;
            assert_eq!(stream.response().await, Response::Refused(refusal), "{case}");
            good.is_served_after(case).await;
        }
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}

#[test]
fn offsets_that_are_not_there() {
    run(async {
        let cluster = start(1).await;
        let leader = cluster.leader().await.unwrap();
        let mut good = Good::new(&cluster).await;
        let (connection, _control, _) = greeted(&cluster, leader).await;
        for asked in [1, 1 << 40, u64::MAX].map(Offset) {
            let mut stream = Stream::open(&connection, StreamKind::Subscription as u8).await;
            stream.write(&request(1, &Request::Subscribe(Subscribe { from: asked }))).await;
            let Response::Refused(refusal) = stream.response().await else { panic!("{asked} is not there") };
            let (first, end) = (Offset(0), Offset(good.end));
            assert_eq!(refusal, Refusal::OffsetOutOfRange { asked, first, end });
            assert_eq!(
                refusal.to_string(),
                format!("offset {asked} is out of range: the log holds 0 up to, not including, {end}")
            );
            good.is_served_after("an offset beyond the end").await;
        }
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}

#[test]
fn records_that_the_library_refuses_and_clocks_that_go_back() {
    run(async {
        let cluster = start(1).await;
        let mut good = Good::new(&cluster).await;
        let long = vec![0; KEY_BYTES_MAX + 1];
        let limits = [
            (Record::new("x").with_key(long.clone()), "record key is 65537, the limit is 65536"),
            (Record::new(vec![0; BATCH_BYTES_MAX]), "batch is "),
        ];
        for (record, said) in limits {
            let refused = good.producer.append(record).await.unwrap().await.unwrap_err();
            let AppendError::Record(refusal) = &refused else { panic!("{refused:?}") };
            assert!(matches!(refusal, Refusal::TooLarge { .. }), "{refusal:?}");
            assert!(refusal.to_string().starts_with(said), "{refusal}");
            good.is_served_after(said).await;
        }
        let refused = good.producer.send_batch(BatchBuilder::new()).await.unwrap_err();
        assert!(matches!(refused, AppendError::Empty), "{refused:?}");
        good.is_served_after("an empty batch").await;

        // A clock that jumps forth and back, and before 1970, further than one batch can say.
        for timestamp in [i64::MAX, -1, i64::MIN, 1_700_000_000_000] {
            let record = Record::new("timed").with_timestamp(timestamp);
            let receipt = good.producer.append(record).await.unwrap().await.unwrap();
            let mut tail = good.client.tail(receipt.first_offset).await.unwrap();
            assert_eq!(tail.next().await.unwrap().record.timestamp, timestamp);
            good.end += 1;
        }
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}

#[test]
fn brokers_that_do_not_lead_and_a_leader_without_a_majority() {
    run(async {
        let cluster = start(3).await;
        let leader = cluster.leader().await.unwrap();
        let others: Vec<_> = cluster.brokers().into_iter().filter(|id| *id != leader).collect();
        let mut good = Good::new(&cluster).await;
        let (connection, _control, _) = greeted(&cluster, others[0]).await;
        let refusal = Refusal::NotLeader { leader: Some(leader) };
        assert_eq!(refusal.to_string(), format!("this broker does not lead; broker {leader} does"));
        for (kind, asked) in [
            (StreamKind::Requests, Request::End),
            (StreamKind::Requests, Request::Append(append_of(batch(ProducerId(1))))),
            (StreamKind::Subscription, Request::Subscribe(Subscribe { from: Offset(0) })),
        ] {
            let mut stream = Stream::open(&connection, kind as u8).await;
            stream.write(&request(1, &asked)).await;
            assert_eq!(stream.response().await, Response::Refused(refusal.clone()), "{asked:?}");
            good.is_served_after("a question to a follower").await;
        }

        let mut config = cluster.client_config();
        config.deadline = std::time::Duration::from_secs(2);
        let hasty = sequor_client::Client::connect(&config).await.unwrap();
        let producer = hasty.producer("hasty").open().await.unwrap();
        for id in &others {
            cluster.kill(*id).await.unwrap();
        }
        let unknown = producer.append(Record::new("perhaps")).await.unwrap().await.unwrap_err();
        assert!(unknown.is_unknown(), "{unknown:?}");
        assert!(unknown.to_string().starts_with("it is not known whether the batch is written"), "{unknown}");
        let unanswered = hasty.end().await.unwrap_err();
        assert!(matches!(unanswered, CallError::Unanswered { .. }), "{unanswered:?}");
        for id in &others {
            cluster.restart(*id).await.unwrap();
        }
        // Whatever became of it, the number tells, and it is written once at most.
        let producer = good.client.producer("hasty").open().await.unwrap();
        good.end += producer.opened().next.0;
        if producer.opened().next == Sequence(1) {
            good.skip_one().await;
        }
        good.is_served_after("no majority").await;
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}
