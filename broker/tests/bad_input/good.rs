//! A client that does everything right, among others that do not.

use sequor_broker::testing::Cluster;
use sequor_client::{Client, Producer, Record, Tail, protocol::Offset};

/// A client that does everything right.
pub(crate) struct Good {
    pub(crate) client: Client,
    pub(crate) producer: Producer,
    tail: Tail,
    pub(crate) end: u64,
}

impl Good {
    pub(crate) async fn new(cluster: &Cluster) -> Self {
        let client = Client::connect(&cluster.client_config()).await.unwrap();
        let producer = client.producer("good").open().await.unwrap();
        let tail = client.tail(Offset(0)).await.unwrap();
        Self { client, producer, tail, end: 0 }
    }

    /// Connects anew and reads one record.
    pub(crate) async fn new_reader(cluster: &Cluster) {
        let client = Client::connect(&cluster.client_config()).await.unwrap();
        client.tail(Offset(0)).await.unwrap().next().await.unwrap();
    }

    /// Appends one record and reads it back, where it belongs.
    pub(crate) async fn is_served_after(&mut self, case: &str) {
        let value = format!("after {case}");
        let receipt = self.producer.append(Record::new(value.clone())).await.unwrap().await;
        let receipt = receipt.unwrap_or_else(|error| panic!("after {case}: {error:?}"));
        assert_eq!(receipt.first_offset, Offset(self.end), "after {case}");
        self.end += 1;
        let read = self.tail.next().await.unwrap();
        assert_eq!((read.offset, read.record.value), (receipt.first_offset, Some(value.into())));
    }

    /// Reads a record that somebody else has written.
    pub(crate) async fn skip_one(&mut self) {
        self.tail.next().await.unwrap();
    }

    /// Reads the whole log again: everything is still there, once.
    pub(crate) async fn has_lost_nothing(&self) {
        let mut tail = self.client.tail(Offset(0)).await.unwrap();
        for offset in 0..self.end {
            assert_eq!(tail.next().await.unwrap().offset, Offset(offset));
        }
        assert_eq!(self.client.end().await.unwrap().end, Offset(self.end));
    }
}
