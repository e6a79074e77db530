//! What the library makes of producers, on a cluster of real brokers: streams resumed in the middle, numbers given up,
//! names closed, sessions, and what was called accepted and got lost.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::error::Error;
use std::time::Duration;

use sequor_broker::testing::Cluster;
use sequor_client::protocol::batch::BatchBuilder;
use sequor_client::protocol::{Acks, Offset, Refusal, Resolved, Sequence};
use sequor_client::{AppendError, Client, OpenError, Producer, Receipt, Record, core};

type Outcome = Result<(), Box<dyn Error>>;

async fn one_broker() -> Result<(Cluster, Client), Box<dyn Error>> {
    let cluster = Cluster::start(1).await?;
    let client = Client::connect(&cluster.client_config()).await?;
    Ok((cluster, client))
}

/// Appends the values of these numbers as one batch.
async fn send(producer: &Producer, numbers: std::ops::Range<u32>) -> Result<Receipt, AppendError> {
    let mut batch = BatchBuilder::new();
    for number in numbers {
        batch.push(&Record::new(format!("value {number}"))).unwrap();
    }
    producer.send_batch(batch).await?.await
}

async fn everything(client: &Client, end: u64) -> Result<Vec<String>, Box<dyn Error>> {
    let mut tail = client.tail(Offset(0)).await?;
    let mut values = Vec::new();
    while (values.len() as u64) < end {
        values.push(String::from_utf8(tail.next().await?.record.value.unwrap().to_vec())?);
    }
    Ok(values)
}

fn places(receipt: &Receipt) -> Vec<(u64, u32)> {
    receipt.places().map(|place| (place.offset.0, place.count)).collect()
}

#[tokio::test]
async fn a_stream_is_resumed_in_the_middle_in_whatever_batches() -> Outcome {
    let (_cluster, client) = one_broker().await?;
    let (ours, others) = (client.producer("ours").open().await?, client.producer("others").open().await?);
    send(&ours, 0..4).await?;
    send(&others, 0..3).await?;
    send(&ours, 4..6).await?;
    drop(ours);

    let again = client.producer("ours").from_sequence(Sequence(2)).open().await?;
    let known = send(&again, 2..4).await.unwrap_err();
    assert!(
        matches!(known, AppendError::AlreadyCommitted { first: Sequence(2), last: Sequence(3) }),
        "{known:?}"
    );
    let repeated = send(&again, 4..5).await?;
    assert_eq!(
        (repeated.duplicate, places(&repeated)),
        (true, vec![(7, 1)]),
        "the newest batch is remembered"
    );
    let both = send(&again, 5..8).await?;
    assert_eq!(
        (both.first_sequence, places(&both)),
        (Sequence(5), vec![(8, 3)]),
        "one old, two new, side by side"
    );
    assert!(both.duplicate);
    let new = send(&again, 8..9).await?;
    assert_eq!((new.duplicate, places(&new)), (false, vec![(11, 1)]));

    let values = everything(&client, 12).await?;
    let ours: Vec<_> = [0, 1, 2, 3, 7, 8, 9, 10, 11].map(|at| values[at].clone()).to_vec();
    assert_eq!(ours, (0..9).map(|number| format!("value {number}")).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_resumed_with_other_content_is_refused() -> Outcome {
    let (_cluster, client) = one_broker().await?;
    let producer = client.producer("ours").open().await?;
    send(&producer, 0..4).await?;
    let again = client.producer("ours").from_sequence(Sequence(1)).open().await?;
    let refused = send(&again, 7..9).await.unwrap_err();
    let AppendError::Failed(core::Failure::Refused(Refusal::SequenceReused { first, offset })) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((first, offset), (Sequence(1), Offset(1)));
    let gap = client.producer("ours").from_sequence(Sequence(5)).open().await.unwrap_err();
    assert!(matches!(gap, OpenError::Failed(core::OpenFailure::Gap { next: Sequence(4), .. })), "{gap:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_accepted_by_a_leader_that_nobody_follows_is_told_as_lost() -> Outcome {
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let client = Client::connect(&cluster.client_config()).await?;
    let producer = client.producer("ours").acks(Acks::Leader).deadline(Duration::from_secs(2)).open().await?;
    assert!(producer.lost().await?.is_empty());
    for id in cluster.brokers().into_iter().filter(|id| *id != leader) {
        cluster.kill(id).await?;
    }
    let receipt = send(&producer, 0..3).await?;
    assert!(receipt.provisional, "the leader's own disk has it");
    let failed = producer.flush().await.unwrap_err();
    assert!(failed.is_unknown(), "{failed:?}");
    let lost = producer.lost().await?;
    assert_eq!(lost.iter().map(|lost| (lost.first.0, lost.last.0)).collect::<Vec<_>>(), [(0, 2)]);
    assert!(producer.lost().await?.is_empty(), "it is told once");
    Ok(())
}

#[tokio::test]
async fn what_was_accepted_is_kept_through_a_change_of_leader() -> Outcome {
    let cluster = Cluster::start(3).await?;
    let client = Client::connect(&cluster.client_config()).await?;
    let producer = client.producer("ours").acks(Acks::Leader).open().await?;
    let leader = cluster.leader().await?;
    cluster.partition(&[leader])?;
    let receipt = send(&producer, 0..3).await?;
    assert!(receipt.provisional, "only the leader has it");
    cluster.kill(leader).await?;
    cluster.heal();
    producer.flush().await?;
    assert!(producer.lost().await?.is_empty());
    assert_eq!(everything(&client, 3).await?, ["value 0", "value 1", "value 2"]);
    assert_eq!(client.end().await?.end, Offset(3), "once");
    Ok(())
}

#[tokio::test]
async fn names_are_listed_given_up_and_closed() -> Outcome {
    let (_cluster, client) = one_broker().await?;
    let producer = client.producer("b").open().await?;
    send(&producer, 0..2).await?;
    client.producer("a").open().await?;
    let (id, epoch) = (producer.opened().id, producer.epoch());
    let resolve = |number, seal| client.resolve(id, epoch, Sequence(number), seal);
    assert_eq!(resolve(1, true).await?, Resolved::Committed { offset: Some(Offset(1)) });
    assert_eq!(resolve(3, false).await?, Resolved::Open);
    assert_eq!(resolve(3, true).await?, Resolved::Sealed);
    let listed = client.producers(None, 1).await?;
    assert_eq!((listed.producers[0].name.as_str(), listed.more), ("a", true));
    let listed = client.producers(Some("a".into()), 9).await?;
    assert_eq!((listed.producers[0].next, listed.producers[0].sealed, listed.more), (Sequence(4), 2, false));
    client.retire(id, epoch).await?;
    client.retire(id, epoch).await?;
    let closed = client.producer("b").open().await.unwrap_err();
    assert!(matches!(closed, OpenError::Failed(core::OpenFailure::Refused(Refusal::Retired))), "{closed:?}");
    Ok(())
}

#[tokio::test]
async fn a_session_lives_as_long_as_its_producer_and_not_much_longer() -> Outcome {
    let (_cluster, client) = one_broker().await?;
    let ttl = Duration::from_millis(500);
    let producer = client.session(ttl).open().await?;
    let id = producer.opened().id;
    tokio::time::sleep(ttl * 3).await;
    assert_eq!(places(&send(&producer, 0..2).await?), [(0, 2)], "it was kept alive meanwhile");
    drop(producer);
    let gone = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match client.resolve(id, sequor_client::protocol::Epoch(1), Sequence(0), false).await {
                Err(sequor_client::CallError::Refused(Refusal::SessionExpired)) => return,
                Ok(Resolved::Committed { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    });
    gone.await?;
    Ok(())
}
