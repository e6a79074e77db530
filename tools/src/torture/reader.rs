//! Somebody who reads along, and somebody who asks where the log ends.
//!
//! The reader is given every record once, through all that goes wrong, and goes on where it was when its connection is
//! lost for good. At the end of the run another one reads everything once more.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use sequor_broker::history::{Event, Run};
use sequor_client::{Client, Config, Tail, TailBatch, TailError, protocol::Offset};

use super::{survey, writer::Desk};

/// Pause before a reader tries again.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause between two questions where the log ends.
const ASK_PAUSE: Duration = Duration::from_millis(40);
/// Longest wait for a batch before it is looked whether there is another one to wait for.
const LOOK: Duration = Duration::from_millis(100);

/// Reads from the beginning, under the number `reader`, up to the end that is told at last.
pub(super) async fn read(
    reader: u64,
    config: Config,
    desk: Arc<Desk>,
    until: watch::Receiver<Option<Offset>>,
) {
    let mut position = Offset(0);
    desk.recorder.record(&Event::Subscribed { reader, from: position.0 });
    while until.borrow().is_none_or(|end| position < end) {
        let Ok(client) = Client::connect(&config).await else {
            sleep(PAUSE).await;
            continue;
        };
        if let Ok(mut tail) = client.tail(position).await {
            // What ends a tail ends only this one.
            let _over = follow(reader, &mut tail, &desk, &until).await;
            position = tail.position();
        }
        client.close().await;
        sleep(PAUSE).await;
    }
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
