//! The library as a program uses it, over real sockets, against brokers that are a model behind.

#[path = "model/cluster.rs"]
mod cluster;
mod greeting;
mod stub;

use std::{error::Error, time::Duration};

use bytes::Bytes;
use sequor_client::{
    AppendError, Client, Config, ConnectError, Producer, Record, TailError,
    core::{Failure, SubscriptionFailure},
    protocol::{BrokerId, Offset, Refusal, batch::BatchBuilder},
};
use stub::Stub;

type Tested = Result<(), Box<dyn Error>>;

fn value(number: usize) -> Bytes {
    format!("record {number}").into()
}

/// Appends records one by one, without waiting for any, and then for all.
async fn append(producer: &Producer, numbers: std::ops::Range<usize>) -> Tested {
    let mut outcomes = Vec::new();
    for number in numbers {
        outcomes.push(producer.append(Record::new(value(number))).await?);
    }
    for outcome in outcomes {
        outcome.await?;
    }
    Ok(())
}

fn values(numbers: std::ops::Range<usize>) -> Vec<Bytes> {
    numbers.map(value).collect()
}

#[tokio::test]
async fn what_is_appended_is_tailed() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").open().await?;
    let mut tail = client.tail(Offset(0)).await?;
    append(&producer, 0..2_000).await?;
    for number in 0..2_000 {
        let entry = tail.next().await?;
        assert_eq!((entry.offset, entry.sequence.0), (Offset(number as u64), number as u64));
        assert_eq!(entry.record.value, Some(value(number)));
        assert!(entry.record.timestamp > 0, "the library stamps what the caller did not");
    }
    assert_eq!(client.end().await?.end, Offset(2_000));
    assert_eq!(client.lookup("one").await?.map(|known| known.next.0), Some(2_000));
    assert_eq!(client.lookup("two").await?, None);
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn records_that_come_during_a_flight_share_a_batch() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").open().await?;
    append(&producer, 0..5_000).await?;
    assert_eq!(stub.log(), values(0..5_000));
    assert!(stub.batches() < 1_000, "{} batches for 5000 records", stub.batches());
    Ok(())
}

#[tokio::test]
async fn a_receipt_says_where_each_record_is() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").open().await?;
    let mut batch = BatchBuilder::new();
    (0..3).try_for_each(|number| batch.push_value(None, &value(number), 0))?;
    let batch = producer.send_batch(batch).await?;
    let record = producer.append(Record::new("x")).await?;
    producer.flush().await?;
    let (batch, record) = (batch.await?, record.await?);
    assert_eq!((batch.first_offset, batch.last_offset, batch.records), (Offset(0), Offset(2), 3));
    assert_eq!((record.first_offset, record.last_offset, record.records), (Offset(3), Offset(3), 1));
    Ok(())
}

#[tokio::test]
async fn a_change_of_leader_is_not_seen() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").in_flight(4).batch_records(10).open().await?;
    let mut tail = client.tail(Offset(0)).await?;
    for (round, leader) in [2, 3, 1, 3].into_iter().enumerate() {
        let elect = async { stub.elect(Some(BrokerId(leader))) };
        let (appended, ()) = tokio::join!(append(&producer, round * 500..(round + 1) * 500), elect);
        appended?;
    }
    assert_eq!(stub.log(), values(0..2_000));
    for number in 0..2_000 {
        assert_eq!(tail.next().await?.record.value, Some(value(number)));
    }
    Ok(())
}

#[tokio::test]
async fn a_leader_that_hangs_up_or_falls_silent_is_left() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").open().await?;
    let mut tail = client.tail(Offset(0)).await?;
    append(&producer, 0..100).await?;
    stub.hang_up(BrokerId(1));
    stub.elect(Some(BrokerId(2)));
    append(&producer, 100..200).await?;
    stub.silence(BrokerId(2));
    stub.elect(Some(BrokerId(3)));
    append(&producer, 200..300).await?;
    for number in 0..300 {
        assert_eq!(tail.next().await?.record.value, Some(value(number)));
    }
    assert_eq!(stub.log(), values(0..300));
    Ok(())
}

#[tokio::test]
async fn a_second_opener_fences_the_first() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let first = client.producer("one").open().await?;
    let second = Client::connect(&stub.config()).await?.producer("one").open().await?;
    assert!(second.epoch() > first.epoch());
    let fenced = first.append(Record::new("late")).await?.await;
    assert!(
        matches!(fenced, Err(AppendError::Failed(Failure::Refused(Refusal::Fenced { .. })))),
        "{fenced:?}"
    );
    let later = first.append(Record::new("later")).await?.await;
    assert!(matches!(later, Err(AppendError::Fenced { by }) if by == second.epoch()), "{later:?}");
    assert!(first.flush().await.is_err(), "a flush tells of the failure before it");
    append(&second, 0..10).await?;
    assert_eq!(stub.log(), values(0..10));
    Ok(())
}

#[tokio::test]
async fn without_a_leader_an_append_is_definitely_not_done_at_its_deadline() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").deadline(Duration::from_millis(600)).open().await?;
    stub.elect(None);
    let late = producer.append(Record::new("x")).await?.await;
    assert!(matches!(late, Err(AppendError::Failed(Failure::DeadlinePassed { .. }))), "{late:?}");
    assert!(stub.log().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_tail_that_is_not_read_stops_the_broker() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").open().await?;
    let big = vec![7; 300_000];
    for _ in 0..120 {
        producer.append(Record::new(big.clone())).await?.await?;
    }
    let mut tail = client.tail(Offset(0)).await?;
    let first = tail.next().await?;
    assert_eq!(first.record.value.map(|value| value.len()), Some(big.len()));
    // Questions on the same connection are answered all the while.
    for _ in 0..50 {
        client.end().await?;
    }
    assert!(stub.deliveries() < 25, "{} deliveries that nobody takes", stub.deliveries());
    for offset in 1..120 {
        assert_eq!(tail.next().await?.offset, Offset(offset));
    }
    Ok(())
}

#[tokio::test]
async fn a_tail_gives_records_or_the_rest_of_their_batch() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").open().await?;
    for round in 0..2 {
        let mut batch = BatchBuilder::new();
        (0..5).try_for_each(|number| batch.push_value(None, &value(round * 5 + number), 0))?;
        producer.send_batch(batch).await?.await?;
    }
    let mut tail = client.tail(Offset(1)).await?;
    assert_eq!(tail.next().await?.offset, Offset(1));
    let rest = tail.next_batch().await?;
    assert_eq!(rest.records().map(|entry| entry.offset.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(tail.next_batch().await?.first_offset, Offset(5));
    assert_eq!(tail.position(), Offset(10));
    Ok(())
}

#[tokio::test]
async fn a_tail_ends_at_a_batch_that_nobody_can_read() -> Tested {
    let stub = Stub::start();
    let client = Client::connect(&stub.config()).await?;
    let producer = client.producer("one").open().await?;
    append(&producer, 0..3).await?;
    stub.rot();
    append(&producer, 3..6).await?;
    let mut tail = client.tail(Offset(0)).await?;
    for number in 0..3 {
        assert_eq!(tail.next().await?.record.value, Some(value(number)));
    }
    let error = tail.next().await.err().ok_or("it read what is damaged")?;
    let TailError::Failed(SubscriptionFailure::Unreadable { offset: Offset(3), found, .. }) = &error else {
        return Err(error.into());
    };
    assert!(matches!(found, Refusal::BadChecksum { .. }), "{found}");
    assert!(matches!(tail.next().await, Err(TailError::Closed)), "it is over");
    // Others of the same client go on.
    append(&producer, 6..9).await
}

#[tokio::test]
async fn nobody_there_is_said_within_the_deadline() -> Tested {
    let stub = Stub::start();
    (1..=3).for_each(|broker| stub.silence(BrokerId(broker)));
    let config = Config { deadline: Duration::from_millis(300), ..stub.config() };
    let error = Client::connect(&config).await.err().ok_or("nobody was there, yet it connected")?;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("broker 2 at 127.0.0.1:"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_broker_whose_certificate_nobody_signed_is_not_talked_to() -> Tested {
    let (stub, other) = (Stub::start(), Stub::start());
    let mut config = Config { deadline: Duration::from_millis(500), ..stub.config() };
    config.tls.ca = other.config().tls.ca;
    let error = Client::connect(&config).await.err().ok_or("it trusts a stranger")?;
    let source = error.source().and_then(Error::source).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("certificate"), "{source}");
    Ok(())
}
