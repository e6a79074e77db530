//! Kafka: an idempotent producer on a topic of one partition and three replicas, `acks=all`.
//!
//! Its library puts records together as it likes. With one record to a request it is left to do so, without waiting
//! (`linger.ms=0`); with more, its batches are those of the requests.

use std::time::Duration;

use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
    producer::{FutureProducer, FutureRecord, Producer},
};

use crate::{
    How, Shape,
    load::{Peer, PeerError, until_it_works},
};

const TOPIC: &str = "bench";
const REPLICAS: i32 = 3;
/// Longest wait for an answer about the cluster.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a batch of more than one record may wait to be full. Milliseconds.
const LINGER_MS: u64 = 5;

/// A producer.
pub(crate) struct Kafka {
    producer: FutureProducer,
    shape: Shape,
}

impl Kafka {
    pub(crate) async fn connect(
        endpoints: &[String],
        shape: Shape,
        flush_messages: Option<u64>,
    ) -> Result<Self, PeerError> {
        if shape.how != How::Each {
            return Err(PeerError::cannot(
                "write",
                "Kafka has no transaction that is one request: use --how each",
            ));
        }
        let brokers = endpoints.join(",");
        until_it_works(|| make_topic(&brokers, flush_messages)).await?;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "1000000")
            .set("queue.buffering.max.kbytes", "1048576")
            .set("message.timeout.ms", "60000")
            .set("socket.nagle.disable", "true");
        if shape.point.batch == 1 {
            config.set("linger.ms", "0");
        } else {
            config
                .set("linger.ms", LINGER_MS.to_string())
                .set("batch.num.messages", shape.point.batch.to_string())
                .set("batch.size", "8000000")
                .set("message.max.bytes", "8000000");
        }
        let producer: FutureProducer = config.create().map_err(PeerError::to("make a producer"))?;
        until_it_works(|| async {
            let found = producer.client().fetch_metadata(Some(TOPIC), ASK_TIMEOUT);
            let found = found.map_err(PeerError::to("ask for the topic"))?;
            let partition = found.topics().first().and_then(|topic| topic.partitions().first());
            let replicas = partition.map_or(0, |partition| partition.isr().len());
            match usize::try_from(REPLICAS).is_ok_and(|wanted| replicas == wanted) {
                true => Ok(()),
                false => Err(PeerError::cannot("write", "not all replicas are in sync yet")),
            }
        })
        .await?;
        Ok(Self { producer, shape })
    }
}

async fn make_topic(brokers: &str, flush_messages: Option<u64>) -> Result<(), PeerError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    let admin: AdminClient<_> = config.create().map_err(PeerError::to("connect"))?;
    let flush = flush_messages.map(|count| count.to_string());
    let mut topic =
        NewTopic::new(TOPIC, 1, TopicReplication::Fixed(REPLICAS)).set("min.insync.replicas", "2");
    if let Some(flush) = &flush {
        topic = topic.set("flush.messages", flush);
    }
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let made = admin.create_topics([&topic], &options).await.map_err(PeerError::to("make the topic"))?;
    match made.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, error))) => Err(PeerError::cannot("make the topic", error)),
    }
}

impl Peer for Kafka {
    async fn request(&self, _slot: usize) -> Result<(), PeerError> {
        let record = || FutureRecord::<(), [u8]>::to(TOPIC).payload(&self.shape.record[..]);
        let mut stored = Vec::new();
        for _ in 0..self.shape.point.batch {
            let sent = self.producer.send_result(record());
            stored.push(sent.map_err(|(error, _)| PeerError::cannot("produce", error))?);
        }
        for delivered in try_join_all(stored).await.map_err(PeerError::to("produce"))? {
            delivered.map_err(|(error, _)| PeerError::cannot("produce", error))?;
        }
        Ok(())
    }
}
