//! The past of a producer: every record that it has written, read back from the beginning of the log.
//!
//! The log is one for all producers, so all of it is read; what others wrote is passed over, batch by batch. It is read
//! no further than what was committed when it was asked for: there is nothing to wait for.

use std::{collections::VecDeque, time::Duration};

use sequor_client::{
    Client, Tail, TailRecord,
    protocol::{Offset, ProducerId},
};

use crate::{exit::Failure, remote};

/// Reads a producer's records one after the other.
#[derive(Debug)]
pub(crate) struct Past<'a> {
    client: &'a Client,
    deadline: Duration,
    tail: Option<Tail>,
    /// Where the log ended when that was asked last.
    end: Offset,
    /// What is left of the producer's batch that was read last.
    records: VecDeque<TailRecord>,
}

impl<'a> Past<'a> {
    /// Reads nothing yet. Each answer of the cluster may take `deadline`.
    pub(crate) fn new(client: &'a Client, deadline: Duration) -> Self {
        Self { client, deadline, tail: None, end: Offset(0), records: VecDeque::new() }
    }

    /// The next record of `producer`, which has to be the same one each time. None if the log holds no other.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(crate) async fn next(&mut self, producer: ProducerId) -> Result<Option<TailRecord>, Failure> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            let tail = match &mut self.tail {
                Some(tail) => tail,
                none => none.insert(self.client.tail(self.client.end().await?.first).await?),
            };
            if tail.position() >= self.end {
                self.end = self.client.end().await?.end;
            }
            if tail.position() >= self.end {
                return Ok(None);
            }
            let batch = remote::within(self.deadline, tail.next_batch()).await??;
            if batch.batch.producer() == producer {
                self.records.extend(batch.records());
            }
        }
    }
}
