//! Somebody who has a broker's key, and says what that broker would not say.
//!
//! The broker whose key it is hears nothing of the others meanwhile: else it would take its connection back, and who
//! spoke last would be chance.

use bytes::Bytes;
use quinn::{Connection, RecvStream};
use raft::eraftpb::{Message, MessageType};
use sequor_broker::{
    core::{PEER_HELLO_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, PEER_VERSION, PeerHello, PeerMessage},
    testing::Cluster,
};
use sequor_client::protocol::{ALPN_PEER, BrokerId, ClusterId, Incarnation, Lineage};

use super::{
    DONE, HELLO, OTHER_INCARNATION, PROTOCOL, RESERVED_BYTES_MAX,
    good::Good,
    reserved_ever, run, start,
    wire::{Ending, closed, connect, greeted},
};

/// The length that comes before a message.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_le_bytes()[..], message].concat()
}

/// A connection with a broker's own certificate, on which nothing was said yet.
async fn connect_as(cluster: &Cluster, from: BrokerId, to: BrokerId) -> Connection {
    let name = format!("broker-{from}");
    connect(cluster, to, ALPN_PEER, Some((cluster.dir().path(), &name))).await.expect("a peer's certificate")
}

/// What a broker truly says of itself.
async fn true_hello(cluster: &Cluster, of: BrokerId) -> PeerHello {
    let (_, _, said) = greeted(cluster, of).await;
    PeerHello {
        version: PEER_VERSION,
        cluster: said.cluster,
        lineage: said.lineage,
        broker: of,
        incarnation: said.incarnation,
        life: 0,
        level: said.level,
        first_index: 1,
        last: (0, 0, 0),
    }
}

/// Says it; gives back where the answer comes.
async fn say_hello(connection: &Connection, bytes: &[u8]) -> RecvStream {
    let (mut send, answer) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    answer
}

/// Hellos: what is sent, the number of the answer, and its reason.
fn hellos(sound: &PeerHello, other: BrokerId) -> Vec<(&'static str, Vec<u8>, u64, String)> {
    let changed = |change: &dyn Fn(&mut PeerHello)| {
        let mut hello = sound.clone();
        change(&mut hello);
        framed(&hello.encode())
    };
    let (cluster, lineage, incarnation) = (ClusterId([9; 16]), Lineage([9; 16]), Incarnation([0xff; 16]));
    let own = sound.broker;
    let cannot = "the peer's hello cannot be followed";
    vec![
        (
            "a newer version",
            changed(&|hello| hello.version = PEER_VERSION + 1),
            HELLO,
            "the peer speaks version 2 of the protocol between brokers, this broker 1".into(),
        ),
        (
            "another cluster",
            changed(&|hello| hello.cluster = cluster),
            HELLO,
            format!(
                "the peer's data belongs to another cluster: {cluster} where this broker has {}",
                sound.cluster
            ),
        ),
        (
            "another lineage",
            changed(&|hello| hello.lineage = lineage),
            HELLO,
            format!(
                "the peer's data belongs to another lineage: {lineage} where this broker has {}",
                sound.lineage
            ),
        ),
        (
            "the data of another broker",
            changed(&|hello| hello.broker = other),
            HELLO,
            format!("the peer has the certificate of broker {own} and the data of broker {other}"),
        ),
        (
            "a data directory that was made anew",
            changed(&|hello| hello.incarnation = incarnation),
            OTHER_INCARNATION,
            format!(
                "broker {own} came back with another data directory: its incarnation is {incarnation}, this broker knows \
                 it by {}. If the wrong directory was started, start the right one; if its disk was lost, it must not vote \
                 under its old id again, and the others go on without it",
                sound.incarnation
            ),
        ),
        (
            "bytes that are no hello",
            framed(&[0xff; 40]),
            PROTOCOL,
            "the peer's hello cannot be read: malformed message of a peer".into(),
        ),
        (
            "a hello that claims 4 GiB",
            vec![0xff; 4],
            PROTOCOL,
            format!(
                "{cannot}: a peer's message claims 4294967295 bytes, between 1 and {PEER_HELLO_BYTES_MAX} are possible"
            ),
        ),
        (
            "half a hello",
            framed(&sound.encode())[..20].to_vec(),
            PROTOCOL,
            format!("{cannot}: the peer's stream ended inside a message"),
        ),
        ("silence", Vec::new(), DONE, "the peer said nothing".into()),
    ]
}

/// A heartbeat that means nothing to anybody.
fn message(from: BrokerId, to: BrokerId) -> Vec<u8> {
    let mut raft = Message::default();
    raft.set_msg_type(MessageType::MsgHeartbeatResponse);
    (raft.from, raft.to, raft.term) = (from.0, to.0, 1);
    let message = PeerMessage { raft, chain: 0, log_time_ms: 0, level: 1 };
    message.encode().into_iter().flat_map(Bytes::into_iter).collect()
}

/// Changes the header of a message without entries, and makes its checksum right again.
fn changed(mut message: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut message);
    let crc = crc32fast::hash(&message[4..]);
    message[..4].copy_from_slice(&crc.to_le_bytes());
    message
}

/// What follows a sound hello on a lane, and the reason of the answer.
fn lanes(from: BrokerId, to: BrokerId) -> Vec<(&'static str, Vec<u8>, String)> {
    let sound = message(from, to);
    let cannot = "a message of the peer cannot be read";
    let possible = format!("between 1 and {PEER_MESSAGE_BYTES_MAX} are possible");
    let mut corrupt = sound.clone();
    corrupt[0] ^= 1;
    let (says, gives) = (&corrupt[..4], &sound[..4]);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let checksum = format!(
        "{cannot}: bad checksum in a peer's message: it says {:#010x}, its bytes give {:#010x}",
        number(says),
        number(gives)
    );
    vec![
        (
            "an unknown kind of message",
            framed(&changed(sound.clone(), |m| m[4..6].copy_from_slice(&999_u16.to_le_bytes()))),
            format!("{cannot}: peer message kind 999 is not accepted"),
        ),
        ("a bad checksum", framed(&corrupt), checksum),
        (
            "more entries than bytes",
            framed(&changed(sound.clone(), |m| m[12..16].copy_from_slice(&5_u32.to_le_bytes()))),
            format!("{cannot}: malformed message of a peer"),
        ),
        (
            "more entries than there may be",
            framed(&changed(sound.clone(), |m| m[12..16].fill(0xff))),
            format!("{cannot}: a peer's message is over a limit"),
        ),
        (
            "a message that claims 4 GiB",
            vec![0xff; 4],
            format!("a peer's message claims 4294967295 bytes, {possible}"),
        ),
        ("an empty message", vec![0; 4], format!("a peer's message claims 0 bytes, {possible}")),
        ("half a message", framed(&sound)[..50].to_vec(), "the peer's stream ended inside a message".into()),
    ]
}

#[test]
fn what_no_peer_would_say() {
    run(async {
        let cluster = start(3).await;
        let leader = cluster.leader().await.unwrap();
        let others: Vec<_> = cluster.brokers().into_iter().filter(|id| *id != leader).collect();
        let (from, third) = (others[0], others[1]);
        let mut good = Good::new(&cluster).await;
        good.is_served_after("nothing").await;
        let sound = true_hello(&cluster, from).await;
        cluster.partition(&[from]).unwrap();
        let before = reserved_ever();
        for (case, bytes, code, reason) in hellos(&sound, third) {
            let connection = connect_as(&cluster, from, leader).await;
            let _answer = say_hello(&connection, &bytes).await;
            assert_eq!(closed(&connection).await, Ending::Closed(code, reason), "{case}");
            good.is_served_after(case).await;
        }
        let unknown =
            "the peer opened a lane of kind 9, and this broker knows 1 and 2: update whichever is older";
        let known = lanes(from, leader).into_iter().map(|(case, bytes, reason)| (case, 2, bytes, reason));
        let unknown = ("an unknown lane", 9, framed(&message(from, leader)), unknown.to_owned());
        for (case, lane_byte, bytes, reason) in known.chain([unknown]) {
            let connection = connect_as(&cluster, from, leader).await;
            let _answer = say_hello(&connection, &framed(&sound.encode())).await;
            let mut lane = connection.open_uni().await.unwrap();
            lane.write_all(&[lane_byte]).await.unwrap();
            lane.write_all(&bytes).await.unwrap();
            lane.finish().unwrap();
            assert_eq!(closed(&connection).await, Ending::Closed(PROTOCOL, reason), "{case}");
            good.is_served_after(case).await;
        }
        assert!(reserved_ever() - before < RESERVED_BYTES_MAX, "nothing is reserved for a claim");
        // The true one is let in again, under its own name, and misses nothing.
        cluster.heal();
        let end = good.end;
        let level = cluster.wait_until("all to have the whole log", |statuses| {
            statuses.values().filter(|status| status.end.0 >= end).count() == 3
        });
        level.await.unwrap();
        good.is_served_after("all of that").await;
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}
