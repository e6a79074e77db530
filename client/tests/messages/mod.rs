//! One example of every message, with every field set to something that can be told apart.

#![allow(dead_code, reason = "each test file uses the part it needs")]

use bytes::Bytes;
use sequor_client::protocol::{
    Acks, Alive, Append, Appended, BrokerId, ClientHello, ClusterId, Codec, Context, Counters, Delivery, End,
    Epoch, Feature, Field, HighWater, Incarnation, Instance, KeepAlive, Leads, Lineage, List, Listed, Lookup,
    Member, Offset, Open, OpenSession, Placed, Producer, ProducerId, Refusal, Remembered, Request, Resolve,
    Resolved, Response, Retire, Retired, Revision, Role, Sequence, ServerHello, Span, Status, Subscribe,
    Summary, Token, TraceContext,
    batch::{BatchBuilder, Record},
};

/// Three records: all parts present, a tombstone, an empty value; two timestamps.
pub(crate) fn batch() -> Bytes {
    let mut builder = BatchBuilder::new();
    let full =
        Record::new("value").with_key("key").with_header("name", "content").with_timestamp(1_700_000_000_000);
    builder.push(&full).expect("a few small records fit");
    builder
        .push(&Record::tombstone("gone").with_timestamp(1_700_000_000_000))
        .expect("a few small records fit");
    builder.push(&Record::new("").with_timestamp(1_700_000_000_250)).expect("a few small records fit");
    builder.seal(ProducerId(0x0102), Epoch(3), Sequence(0x0405))
}

/// One record, no key, no timestamp column: the smallest usual batch.
pub(crate) fn small_batch() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(&Record::new("x")).expect("a few small records fit");
    builder.seal(ProducerId(1), Epoch(1), Sequence(0))
}

/// Records that LZ4 makes smaller.
pub(crate) fn packed_batch() -> Bytes {
    let mut builder = BatchBuilder::new().packed(Codec::Lz4);
    for _ in 0..4 {
        builder.push(&Record::new("the same value again and again")).expect("a few small records fit");
    }
    builder.seal(ProducerId(1), Epoch(1), Sequence(0))
}

pub(crate) fn client_hello() -> ClientHello {
    ClientHello {
        version_min: 1,
        version_max: 1,
        cluster: ClusterId([0xc1; 16]),
        lineage: Some(Lineage([0x11; 16])),
        capabilities: 0,
        software: "sequor-client 0.1.0".into(),
    }
}

pub(crate) fn server_hello() -> ServerHello {
    ServerHello {
        version: 1,
        cluster: ClusterId([0xc1; 16]),
        lineage: Lineage([0x11; 16]),
        broker: BrokerId(2),
        incarnation: Incarnation([0x1c; 16]),
        level: 1,
        capabilities: 0,
        batch_bytes_max: 983_040,
        in_flight_batches_max: 4096,
        leader: Some(BrokerId(3)),
        members: vec![
            Member { id: BrokerId(2), address: "127.0.0.1:7401".into() },
            Member { id: BrokerId(3), address: "127.0.0.1:7402".into() },
        ],
    }
}

pub(crate) fn requests() -> Vec<(&'static str, Context, Request)> {
    let plain = Context { deadline_ms: 5_000, ..Context::default() };
    let full = Context {
        deadline_ms: 30_000,
        trace: Some(TraceContext { trace: [0x7a; 16], span: [0x59; 8], flags: 1 }),
        tokens: vec![Token(300), Token(301)],
        seen: Some(HighWater { lineage: Lineage([0x11; 16]), end: Offset(1_000), revision: Revision(9) }),
    };
    let open =
        Open { name: "migrations/db7".into(), instance: Instance([0x15; 16]), expected_epoch: Epoch(2) };
    let append =
        Append { acks: Acks::Quorum, settled: Sequence(512), expect_end: Some(Offset(77)), batch: batch() };
    let resolve =
        Resolve { producer: ProducerId(0x0102), epoch: Epoch(3), sequence: Sequence(513), seal: true };
    let open_session = OpenSession { instance: Instance([0x15; 16]), ttl_ms: 10_000 };
    let retire = Retire { producer: ProducerId(0x0102), epoch: Epoch(3) };
    let list = List { after: Some("migrations/db6".into()), limit: 100 };
    vec![
        ("open", plain.clone(), Request::Open(open)),
        ("append", full.clone(), Request::Append(append)),
        ("lookup", plain.clone(), Request::Lookup(Lookup { name: "migrations/db7".into() })),
        ("resolve", plain.clone(), Request::Resolve(resolve)),
        ("retire", plain.clone(), Request::Retire(retire)),
        ("list", plain.clone(), Request::List(list)),
        ("end", full, Request::End),
        ("status", plain.clone(), Request::Status),
        ("subscribe", plain.clone(), Request::Subscribe(Subscribe { from: Offset(70_000) })),
        ("open-session", plain.clone(), Request::OpenSession(open_session)),
        ("keep-alive", plain, Request::KeepAlive(KeepAlive { session: ProducerId(0x0102) })),
    ]
}

fn producer() -> Producer {
    Producer {
        id: ProducerId(0x0102),
        epoch: Epoch(3),
        instance: Instance([0x15; 16]),
        next: Sequence(520),
        batches: vec![Remembered { first: Sequence(512), count: 8, offset: Offset(900), digest: [0xd1; 16] }],
        sealed: vec![(Sequence(100), Sequence(110))],
        retired: false,
    }
}

pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let appended = Appended {
        first: Offset(900),
        count: 8,
        duplicate: true,
        token: Some(Token(300)),
        branch: Some(false),
        end: Offset(908),
        rest: vec![Span { offset: Offset(905), count: 3 }],
    };
    let listed = Listed {
        producers: vec![Summary {
            name: "migrations/db7".into(),
            id: ProducerId(0x0102),
            epoch: Epoch(3),
            next: Sequence(520),
            sealed: 10,
            retired: true,
        }],
        more: true,
    };
    let end =
        End { first: Offset(10), end: Offset(908), revision: Revision(9), lineage: Lineage([0x11; 16]) };
    let status = Status {
        id: BrokerId(2),
        role: Role::Leader,
        term: 4,
        leader: Some(BrokerId(2)),
        last_index: 33,
        commit: 32,
        applied: 31,
        end: Offset(908),
        is_full: false,
        counters: Counters {
            log_syncs: 1,
            vote_syncs: 2,
            blocks: 3,
            block_bytes: 4,
            proposals: 5,
            batches: 6,
            records: 7,
            duplicates: 8,
            elections_won: 9,
            sends: 10,
            datagrams_sent: 11,
            bytes_sent: 12,
            receives: 13,
            datagrams_received: 14,
            bytes_received: 15,
        },
    };
    let delivery = Delivery {
        next: Offset(904),
        end: Offset(908),
        names: vec![(ProducerId(0x0102), "migrations/db7".into())],
        stretches: vec![
            [
                Placed { offset: Offset(900), settled: Sequence(520), batch: batch() }.to_bytes(),
                Placed { offset: Offset(903), settled: Sequence(523), batch: small_batch() }.to_bytes(),
            ]
            .concat()
            .into(),
        ],
    };
    vec![
        ("opened", Response::Opened(producer())),
        ("accepted", Response::Accepted(appended.clone())),
        ("appended", Response::Appended(appended)),
        ("found", Response::Found(producer())),
        ("resolved-committed", Response::Resolved(Resolved::Committed { offset: Some(Offset(901)) })),
        ("resolved-sealed", Response::Resolved(Resolved::Sealed)),
        ("resolved-open", Response::Resolved(Resolved::Open)),
        ("alive", Response::Alive(Alive { ttl_ms: 10_000 })),
        ("retirement", Response::Retired(Retired { next: Sequence(520) })),
        ("listed", Response::Listed(listed)),
        ("end-is", Response::End(end)),
        ("status-is", Response::Status(status)),
        ("delivery", Response::Delivery(delivery)),
        ("leads", Response::Leads(Leads { term: 7, leader: BrokerId(3) })),
    ]
    .into_iter()
    .chain(refusals().into_iter().map(|(name, refusal)| (name, Response::Refused(refusal))))
    .collect()
}

/// Every refusal there is.
pub(crate) fn refusals() -> Vec<(&'static str, Refusal)> {
    let (expected, found) = (Lineage([0x11; 16]), Lineage([0x22; 16]));
    vec![
        ("not-leader", Refusal::NotLeader { leader: Some(BrokerId(3)) }),
        ("unavailable", Refusal::Unavailable),
        ("busy", Refusal::Busy { limit_bytes: 1 << 20 }),
        ("outcome-unknown", Refusal::OutcomeUnknown),
        ("deadline-passed", Refusal::DeadlinePassed),
        ("fenced", Refusal::Fenced { by: Epoch(4), at: Offset(900), next: Sequence(520) }),
        ("sequence-gap", Refusal::SequenceGap { expected: Sequence(520), found: Sequence(528) }),
        ("sequence-reused", Refusal::SequenceReused { first: Sequence(512), offset: Offset(900) }),
        ("already-committed", Refusal::AlreadyCommitted { next: Sequence(520) }),
        ("partly-committed", Refusal::PartlyCommitted { up_to: Sequence(515) }),
        ("sealed", Refusal::Sealed { first: Sequence(100), end: Sequence(110) }),
        ("retired", Refusal::Retired),
        ("session-expired", Refusal::SessionExpired),
        ("unknown-producer", Refusal::UnknownProducer),
        ("table-full", Refusal::TableFull { limit_names: 1_000_000 }),
        ("end-mismatch", Refusal::EndMismatch { expected: Offset(77), found: Offset(908) }),
        (
            "offset-out-of-range",
            Refusal::OffsetOutOfRange { asked: Offset(5), first: Offset(10), end: Offset(908) },
        ),
        ("too-large", Refusal::TooLarge { what: Field::Key, found: 70_000, limit: 65_536 }),
        ("bad-checksum", Refusal::BadChecksum { what: Field::Batch, expected: 1, found: 2 }),
        ("malformed", Refusal::Malformed { what: Field::Digest }),
        ("unsupported", Refusal::Unsupported { what: Feature::Codec(1) }),
        ("other-lineage", Refusal::OtherLineage { expected, found }),
        ("behind", Refusal::Behind),
        ("sessions-full", Refusal::SessionsFull { limit: 100_000 }),
        ("full", Refusal::Full { segment_bytes: 64 << 20 }),
        ("ttl-out-of-range", Refusal::TtlOutOfRange { found: 1, least: 500, most: 3_600_000 }),
        ("seals-full", Refusal::SealsFull { limit: 65_536 }),
        ("log-unreadable", Refusal::LogUnreadable { at: Offset(900) }),
    ]
}
