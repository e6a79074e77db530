//! How to test your own retry code: it writes each event once, whatever happens to an answer, the leader or the program.
//!
//! The code under test is [`ship`]. The rest is the test of it, to be copied into your own `tests/`.
//!
//! ```text
//! cargo test -p sequor-broker --example retry_test
//! cargo run -p sequor-broker --features testing --example retry_test
//! ```

use std::{error::Error, time::Duration};

use sequor_broker::testing::{Cluster, ClusterError};
use sequor_client::{
    AppendError, Client, OpenError, Record,
    protocol::{Offset, Status},
};

/// The name under which the events are written, by whichever process does it.
const NAME: &str = "shop/events";
/// How long one attempt waits for an answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Attempts before somebody is woken up. Count.
const ATTEMPTS: u32 = 10;

/// Why an attempt was not the last one.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error("cannot open the producer")]
    Open(#[from] OpenError),
    #[error("cannot append")]
    Append(#[from] AppendError),
}

/// The code under test: writes all events, each once, in their order.
///
/// An event's number in the list is its number in the producer's stream. So the next attempt after one whose outcome is
/// unknown asks how far the stream goes, and neither repeats an event nor leaves one out. That is why numbers are kept:
/// none is ever given up.
async fn ship(client: &Client, events: &[String]) -> Result<(), ShipError> {
    for _ in 1..ATTEMPTS {
        if attempt(client, events).await.is_ok() {
            return Ok(());
        }
    }
    attempt(client, events).await
}

async fn attempt(client: &Client, events: &[String]) -> Result<(), ShipError> {
    let producer = client.producer(NAME).keep_numbers().deadline(ATTEMPT).open().await?;
    let written = producer.opened().next.0;
    for event in events.iter().skip(written as usize) {
        producer.append(Record::new(event.clone())).await?.await?;
    }
    Ok(())
}

/// An event is written, and the answer is lost: the attempt cannot know, and the next must not write it again.
async fn an_answer_is_lost() -> Result<(), Box<dyn Error>> {
    let events = events();
    let cluster = Cluster::start(1).await?;
    let client = Client::connect(&cluster.client_config()).await?;
    let only = cluster.leader().await?;
    let silence = async {
        half_way(&cluster).await?;
        cluster.drop_replies(only, true)
    };
    let (attempted, silent) = tokio::join!(attempt(&client, &events), silence);
    silent?;
    assert!(matches!(&attempted, Err(ShipError::Append(error)) if error.is_unknown()), "{attempted:?}");

    cluster.drop_replies(only, false)?;
    ship(&client, &events).await?;
    every_event_is_there_once(&client, &events).await?;
    Ok(cluster.stop().await?)
}

/// The leader dies: a pause, and nothing else.
async fn the_leader_dies() -> Result<(), Box<dyn Error>> {
    let events = events();
    let cluster = Cluster::start(3).await?;
    let client = Client::connect(&cluster.client_config()).await?;
    let leader = cluster.leader().await?;
    let death = async {
        half_way(&cluster).await?;
        cluster.kill(leader).await
    };
    let (shipped, dead) = tokio::join!(ship(&client, &events), death);
    dead?;
    shipped?;
    every_event_is_there_once(&client, &events).await?;
    Ok(cluster.stop().await?)
}

/// The program that ships dies, and is started again.
async fn the_program_dies() -> Result<(), Box<dyn Error>> {
    let events = events();
    let cluster = Cluster::start(1).await?;
    let client = Client::connect(&cluster.client_config()).await?;
    tokio::select! {
        shipped = ship(&client, &events) => panic!("it was not to get to the end: {shipped:?}"),
        reached = half_way(&cluster) => reached?,
    }
    drop(client);

    let client = Client::connect(&cluster.client_config()).await?;
    ship(&client, &events).await?;
    every_event_is_there_once(&client, &events).await?;
    Ok(cluster.stop().await?)
}

/// Enough of them that something can happen before the last one is written.
fn events() -> Vec<String> {
    (0..1000).map(|number| format!("event {number}")).collect()
}

async fn half_way(cluster: &Cluster) -> Result<(), ClusterError> {
    let written = |broker: &Status| broker.end >= Offset(100);
    cluster.wait_until("some events to be written", |brokers| brokers.values().any(written)).await
}

async fn every_event_is_there_once(client: &Client, events: &[String]) -> Result<(), Box<dyn Error>> {
    assert_eq!(client.end().await?.end, Offset(events.len() as u64));
    let mut tail = client.tail(Offset(0)).await?;
    for event in events {
        assert_eq!(tail.next().await?.record.value.as_deref(), Some(event.as_bytes()));
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    an_answer_is_lost().await?;
    println!("an answer was lost:  every event is there once");
    the_leader_dies().await?;
    println!("the leader died:     every event is there once");
    the_program_dies().await?;
    println!("the program died:    every event is there once");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ships_each_event_once_when_an_answer_is_lost() -> Result<(), Box<dyn Error>> {
        an_answer_is_lost().await
    }

    #[tokio::test]
    async fn ships_each_event_once_when_the_leader_dies() -> Result<(), Box<dyn Error>> {
        the_leader_dies().await
    }

    #[tokio::test]
    async fn ships_each_event_once_when_the_program_dies() -> Result<(), Box<dyn Error>> {
        the_program_dies().await
    }
}
