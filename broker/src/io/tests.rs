//! Three brokers in one process, over real sockets, files and certificates, and a client that speaks the bare protocol.
//!
//! What the core decides is the simulator's to judge. These tests are for what only this floor does: who gets in, what
//! a stream carries, what happens at a stop, and that a broker that comes back is found again.

mod cluster;
mod raw_client;

use std::time::Duration;

use sequor_client::protocol::{
    ALPN_PEER, BrokerId, ClusterId, Offset, Refusal, Request, Response, Sequence, StreamKind,
};
use tokio::time::timeout;

use self::{
    cluster::Cluster,
    raw_client::{RawClient, closed_with},
};
use super::close::Close;

/// No test takes longer, whatever hangs.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a test and its client. The brokers have threads of their own.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(TEST_TIMEOUT, test).await.expect("the test hangs") });
}

#[test]
fn what_is_appended_is_tailed_and_a_repeated_batch_is_recognised() {
    run(async {
        let cluster = Cluster::start(3).await;
        let leader = cluster.leader().await.unwrap();
        let mut client = cluster.client(leader).await;
        let mut tail = client.subscribe(Offset(0)).await;
        let producer = client.open("import/1").await;

        let batches: Vec<_> = (0..20).map(|n| producer.batch(Sequence(n * 3), 3)).collect();
        for batch in &batches {
            client.send_append(batch).await;
        }
        for n in 0..20 {
            let appended = client.appended().await;
            assert_eq!((appended.first, appended.count, appended.duplicate), (Offset(n * 3), 3, false));
        }
        let end = client.append(&batches[7]).await;
        assert_eq!((end.first, end.duplicate), (Offset(21), true));

        let read = tail.read_to(Offset(60)).await;
        let expected: Vec<_> = (0..).map(|n| Offset(n * 3)).zip(batches).collect();
        assert_eq!(read, expected, "whole batches, in the producer's bytes, in order");
        cluster.stop().await;
    });
}

#[test]
fn a_stopping_leader_hands_over_and_says_where_to_go() {
    run(async {
        let cluster = Cluster::start(3).await;
        let first = cluster.leader().await.unwrap();
        let mut client = cluster.client(first).await;
        let mut tail = client.subscribe(Offset(0)).await;
        let producer = client.open("import/1").await;
        client.append(&producer.batch(Sequence(0), 5)).await;
        tail.read_to(Offset(5)).await;

        cluster.terminate(first).await.unwrap();
        assert_eq!(client.close_code().await, Close::Stopping.code());
        let second = cluster.leader().await.unwrap();
        assert_ne!(first, second);
        let mut client = cluster.client(second).await;
        let again = client.append(&producer.batch(Sequence(0), 5)).await;
        assert!(again.duplicate, "the new leader knows what the old one confirmed");

        cluster.restart(first).await.unwrap();
        cluster.terminate(second).await.unwrap();
        let third = cluster.leader().await.unwrap();
        let mut client = cluster.client(third).await;
        let fresh = client.append(&producer.batch(Sequence(5), 5)).await;
        assert_eq!(
            (fresh.first, fresh.duplicate),
            (Offset(5), false),
            "the restarted broker makes up a quorum"
        );
        cluster.stop().await;
    });
}

#[test]
fn a_follower_sends_readers_and_writers_elsewhere() {
    run(async {
        let cluster = Cluster::start(3).await;
        let leader = cluster.leader().await.unwrap();
        let follower = cluster.brokers().into_iter().find(|id| *id != leader).unwrap();
        let mut client = cluster.client(follower).await;
        let refused = client.ask(Request::End).await;
        assert!(matches!(refused, Response::Refused(Refusal::NotLeader { .. })), "{refused:?}");
        let mut tail = client.subscribe(Offset(0)).await;
        let refused = tail.refusal().await;
        assert!(matches!(refused, Refusal::NotLeader { .. }), "{refused:?}");
        cluster.stop().await;
    });
}

#[test]
fn a_subscription_beyond_the_end_is_refused() {
    run(async {
        let cluster = Cluster::start(1).await;
        let leader = cluster.leader().await.unwrap();
        let mut client = cluster.client(leader).await;
        let refused = client.subscribe(Offset(1)).await.refusal().await;
        assert!(matches!(refused, Refusal::OffsetOutOfRange { end: Offset(0), .. }), "{refused:?}");
        cluster.stop().await;
    });
}

#[test]
fn who_may_not_come_in_is_told_why() {
    run(async {
        let cluster = Cluster::start(1).await;
        let leader = cluster.leader().await.unwrap();

        let as_peer = cluster.connect_as_client(leader, ALPN_PEER).await.unwrap();
        assert_eq!(closed_with(&as_peer).await, Close::WrongRole.code());

        let stranger = cluster.connect_as_stranger(leader).await;
        let closed = match stranger {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        };
        assert!(matches!(closed, quinn::ConnectionError::ConnectionClosed(_)), "TLS refuses: {closed:?}");

        let other = RawClient::greet(cluster.connect(leader).await, ClusterId([9; 16])).await.err().unwrap();
        assert_eq!(closed_with(&other).await, Close::Hello.code());
        cluster.stop().await;
    });
}

#[test]
fn what_does_not_belong_on_a_stream_is_refused_by_name() {
    run(async {
        let cluster = Cluster::start(1).await;
        let leader = cluster.leader().await.unwrap();
        let mut client = cluster.client(leader).await;
        let producer = client.open("import/1").await;

        let on_control = client.ask_on(StreamKind::Control, producer.append(Sequence(0), 1)).await;
        assert!(matches!(on_control, Response::Refused(Refusal::Unsupported { .. })), "{on_control:?}");
        let status = client.ask_on(StreamKind::Control, Request::Status).await;
        assert!(matches!(status, Response::Status(_)), "{status:?}");

        let garbage = client.send_garbage().await;
        assert_eq!(garbage, Some(Close::Protocol.code()), "a stream that cannot be followed is reset");
        let status = client.ask_on(StreamKind::Control, Request::Status).await;
        assert!(matches!(status, Response::Status(_)), "the other streams live on: {status:?}");
        cluster.stop().await;
    });
}

#[test]
fn a_wiped_broker_is_not_let_in_again() {
    run(async {
        let cluster = Cluster::start(3).await;
        let leader = cluster.leader().await.unwrap();
        let wiped = cluster.brokers().into_iter().find(|id| *id != leader).unwrap();
        let mut client = cluster.client(leader).await;
        let producer = client.open("import/1").await;
        client.append(&producer.batch(Sequence(0), 1)).await;
        // A quorum does not need this one: wait until both sides have met it.
        cluster.wait_until_all_follow(leader).await;

        cluster.terminate(wiped).await.unwrap();
        let lineage = cluster.wipe(wiped);
        cluster.restart(wiped).await.unwrap();
        let hello = cluster.greet_as_peer(wiped, lineage, leader).await;
        assert_eq!(hello, Close::OtherIncarnation.code());
        cluster.stop().await;
    });
}

#[test]
fn a_broker_that_is_killed_and_comes_back_resets_its_old_connections() {
    run(async {
        let cluster = Cluster::start(1).await;
        let id = BrokerId(1);
        let client = cluster.client(cluster.leader().await.unwrap()).await;
        cluster.kill(id).await.unwrap();
        cluster.restart(id).await.unwrap();
        let reset = timeout(Duration::from_secs(3), client.connection().closed()).await;
        let closed = reset.expect("well before the idle timeout");
        assert!(matches!(closed, quinn::ConnectionError::Reset), "{closed:?}");
        cluster.stop().await;
    });
}
