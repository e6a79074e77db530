//! Somebody who reads along, and somebody who asks where the log ends.
//!
//! The reader is given every record once, through all that goes wrong, and goes on where it was when its connection is
//! lost for good. At the end of the run another one reads everything once more.
//!
//! What ends a tail as a rule ends only that one. But a connection carries no bytes that were changed on the way: so who is
//! told twice, over two connections, that a batch is not what it must be, or that the log ends before what it was given,
//! has found a broker that does not keep its promise, and the run is over.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use sequor_broker::history::{Event, Run};
use sequor_client::{
    Client, Config, Tail, TailBatch, TailError,
    core::SubscriptionFailure,
    protocol::{Offset, Refusal},
};

use super::{survey, writer::Desk};
use crate::exit::{Exit, Verdict};

/// Pause before a reader tries again.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause between two questions where the log ends.
const ASK_PAUSE: Duration = Duration::from_millis(40);
/// Longest wait for a batch before it is looked whether there is another one to wait for.
const LOOK: Duration = Duration::from_millis(100);

/// A reader was not given the log.
#[derive(Debug, Error)]
#[error("reader {reader} was given the log up to offset {position}, and then what no broker may give")]
pub(crate) struct ReaderError {
    reader: u64,
    position: Offset,
    source: SubscriptionFailure,
}

impl Verdict for ReaderError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// Reads from the beginning, under the number `reader`, up to the end that is told at last.
///
/// # Errors
/// If a broker does not keep its promise to a reader.
pub(super) async fn read(
    reader: u64,
    config: Config,
    desk: Arc<Desk>,
    until: watch::Receiver<Option<Offset>>,
) -> Result<(), ReaderError> {
    let mut position = Offset(0);
    desk.recorder.record(&Event::Subscribed { reader, from: position.0 });
    while until.borrow().is_none_or(|end| position < end) {
        let Ok(client) = Client::connect(&config).await else {
            sleep(PAUSE).await;
            continue;
        };
        if let Ok(mut tail) = client.tail(position).await {
            let over = follow(reader, &mut tail, &desk, &until).await;
            position = tail.position();
            if let Some(source) = over.err().and_then(broken_promise) {
                return Err(ReaderError { reader, position, source });
            }
        }
        client.close().await;
        sleep(PAUSE).await;
    }
    Ok(())
}

/// What ended a tail, if it must never happen, whatever goes wrong.
fn broken_promise(over: TailError) -> Option<SubscriptionFailure> {
    let TailError::Failed(why) = over else { return None };
    let is_broken = match &why {
        SubscriptionFailure::Unreadable { .. } | SubscriptionFailure::Misplaced { .. } => true,
        // It was given what comes before, so that is committed, and whoever answers has proven that it leads.
        SubscriptionFailure::Refused(refusal) => matches!(refusal, Refusal::OffsetOutOfRange { .. }),
    };
    is_broken.then_some(why)
}

async fn follow(
    reader: u64,
    tail: &mut Tail,
    desk: &Desk,
    until: &watch::Receiver<Option<Offset>>,
) -> Result<(), TailError> {
    while until.borrow().is_none_or(|end| tail.position() < end) {
        if let Ok(batch) = timeout(LOOK, tail.next_batch()).await {
            desk.recorder.record(&Event::Read { reader, run: run(&batch?) });
        }
    }
    Ok(())
}

fn run(read: &TailBatch) -> Run {
    let TailBatch { first_offset, producer, batch, skip } = read;
    Run {
        offset: first_offset.0,
        producer: producer.to_string(),
        epoch: batch.epoch().0,
        first: batch.first_sequence().0 + u64::from(*skip),
        count: batch.count() - skip,
        digest: survey::digest(producer, batch, *skip),
    }
}

/// Asks where the log ends, again and again, until the allowance is stopped.
pub(super) async fn ask(config: Config, desk: Arc<Desk>) {
    while !desk.allowance.is_stopped() {
        let Ok(client) = Client::connect(&config).await else {
            sleep(PAUSE).await;
            continue;
        };
        while !desk.allowance.is_stopped() {
            let id = desk.recorder.id();
            desk.recorder.record(&Event::Asked { id });
            let Ok(end) = client.end().await else { break };
            desk.recorder.record(&Event::Answered { id, end: end.end.0 });
            sleep(ASK_PAUSE).await;
        }
        client.close().await;
    }
}

#[cfg(test)]
mod tests {
    use sequor_client::protocol::{BrokerId, Field};

    use super::*;

    fn is_broken(why: SubscriptionFailure) -> bool {
        broken_promise(TailError::Failed(why)).is_some()
    }

    #[test]
    fn what_no_network_does_is_a_broken_promise() {
        let (offset, broker) = (Offset(70), BrokerId(2));
        let found = Refusal::BadChecksum { what: Field::Batch, expected: 1, found: 2 };
        assert!(is_broken(SubscriptionFailure::Unreadable { offset, broker, found }));
        let (expected, found) = (Offset(71), Offset(73));
        assert!(is_broken(SubscriptionFailure::Misplaced { expected, broker, found }));
        let shorter = Refusal::OffsetOutOfRange { asked: Offset(71), first: Offset(0), end: Offset(70) };
        assert!(is_broken(SubscriptionFailure::Refused(shorter)));
    }

    #[test]
    fn what_ends_one_tail_ends_no_run() {
        assert!(!is_broken(SubscriptionFailure::Refused(Refusal::DeadlinePassed)));
        assert!(broken_promise(TailError::Closed).is_none());
    }
}
