//! The main job, with everything that goes wrong in it: a file is appended, the leader dies half way, what was
//! acknowledged is sent again, a process that was replaced wakes up, the dead broker comes back; then the log is read
//! over another connection and compared with the file.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use indicatif::ProgressBar;
use thiserror::Error;
use tokio::time::{sleep, timeout};

use sequor_client::{
    Acknowledgement, AppendError, Client, Config, Producer, Receipt, Record,
    core::Failure as NotDone,
    protocol::{
        BrokerId, Class, Offset, Refusal, Response, Sequence,
        batch::{BatchBuilder, PushError},
        limits::BATCH_BYTES_MAX,
    },
};

use super::{input::Input, report::Report, wire::Wire};
use crate::{
    cluster::{ANSWER_TIMEOUT, Cluster, LOOK, PATIENCE, wait_for_leader},
    exit::{Exit, Failure, Verdict},
    form::Form,
    pieces::{Piece, wall_clock_ms},
    remote, status,
    words::{count, time},
};

/// The name under which the file is appended.
const PRODUCER: &str = "quickstart/file";
/// Batches in flight.
const IN_FLIGHT: usize = 16;
/// Most lines in a batch, so that a long file is written in a reasonable number of them.
const BATCH_LINES_MAX: usize = 100;
/// Fewest batches that make a story: something has to be in flight when the leader dies.
const BATCHES_MIN: usize = 50;
/// Batches that are sent again, from each end of the file. Count.
const REPLAYED: usize = 8;

/// Fewest lines that a scenario needs.
pub(crate) const LINES_MIN: usize = BATCHES_MIN;

/// The cluster did not do what it must.
#[derive(Debug, Error)]
pub(crate) enum ScenarioError {
    /// A broker that came back does not have what the others have.
    #[error("broker {id} did not catch up within {} s", PATIENCE.as_secs())]
    Behind {
        /// Which.
        id: BrokerId,
    },
}

impl Verdict for ScenarioError {
    fn exit(&self) -> Exit {
        Exit::Unhealthy
    }
}

/// The actors.
#[derive(Debug)]
pub(crate) struct Scenario<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) config: &'a Config,
    pub(crate) input: &'a Input,
    pub(crate) report: &'a mut Report,
    pub(crate) progress: &'a ProgressBar,
}

/// How far it is with the leader.
enum Death {
    /// It lives.
    NotYet,
    /// It is known who leads; it dies when more than so many batches are acknowledged.
    Near { leader: BrokerId, batches: usize },
    /// It died after so many batches and records.
    Done { leader: BrokerId, batches: usize, records: u64 },
}

const _: () = assert!(BATCHES_MIN / 2 + IN_FLIGHT + 2 < BATCHES_MIN);

/// What the first part leaves behind.
struct Written {
    receipts: Vec<Receipt>,
    /// How long it took.
    took: Duration,
    /// The broker that led when the play began.
    first: BrokerId,
    /// Lines that were acknowledged when the leader was killed.
    killed_after: u64,
    /// The broker that was killed.
    killed: BrokerId,
    /// The longest time between two acknowledgements after that.
    blocked: Duration,
}

impl Scenario<'_> {
    /// Plays it all.
    ///
    /// # Errors
    /// If something prevents the play; a check that does not hold is told to the report.
    pub(crate) async fn play(mut self) -> Result<(), Failure> {
        let client = Client::connect(self.config).await?;
        let leader = self.leader(&client).await?;
        self.report.say("cluster", &format!("three broker processes; broker {leader} leads"))?;
        let producer = client.producer(PRODUCER).in_flight(IN_FLIGHT).open().await?;

        let written = self.append(&client, &producer, leader).await?;
        self.replay(&client, &producer, &written).await?;
        self.zombie(&client, &producer).await?;
        self.restart(&client, written.killed).await?;
        client.close().await;
        self.tail().await
    }

    fn lines_per_batch(&self) -> usize {
        (self.input.lines.len() / BATCHES_MIN).clamp(1, BATCH_LINES_MAX)
    }

    /// Appends the file, and kills the leader when half of it is acknowledged.
    async fn append(
        &mut self,
        client: &Client,
        producer: &Producer,
        first: BrokerId,
    ) -> Result<Written, Failure> {
        let lines = &self.input.lines;
        let size = self.lines_per_batch();
        self.progress.set_length(lines.len() as u64);
        let start = Instant::now();
        let mut rest = &lines[..];
        let mut flying: VecDeque<Acknowledgement> = VecDeque::new();
        let (mut receipts, mut moments): (Vec<Receipt>, Vec<Instant>) = (Vec::new(), Vec::new());
        let mut acknowledged = 0;
        let mut death = Death::NotYet;
        loop {
            while flying.len() < IN_FLIGHT && !rest.is_empty() {
                let batch = batch_of(rest, size);
                rest = &rest[batch.count()..];
                flying.push_back(producer.send_batch(batch).await?);
            }
            let Some(next) = flying.pop_front() else { break };
            let receipt = next.await?;
            moments.push(Instant::now());
            acknowledged += u64::from(receipt.records);
            self.progress.set_position(acknowledged);
            receipts.push(receipt);
            match death {
                Death::NotYet if acknowledged >= lines.len() as u64 / 2 => {
                    // While the brokers are asked who leads, the window runs dry: it has to be full again.
                    let leader = self.leader(client).await?;
                    death = Death::Near { leader, batches: receipts.len() + flying.len() };
                }
                Death::Near { leader, batches } if receipts.len() > batches => {
                    self.cluster.kill(leader)?;
                    death = Death::Done { leader, batches: receipts.len(), records: acknowledged };
                }
                _ => {}
            }
        }
        let took = start.elapsed();
        self.progress.finish_and_clear();
        let Death::Done { leader: killed, batches, records: killed_after } = death else {
            unreachable!(
                "half of {BATCHES_MIN} batches and a window of {IN_FLIGHT} come before the last one"
            );
        };
        let gaps = moments[batches - 1..].windows(2).map(|pair| pair[1] - pair[0]);
        let blocked = gaps.max().unwrap_or_default();
        let written = Written { receipts, took, first, killed_after, killed, blocked };
        self.tell_append(client, &written, size).await?;
        Ok(written)
    }

    async fn tell_append(&mut self, client: &Client, written: &Written, size: usize) -> Result<(), Failure> {
        let Written { receipts, took, first, killed_after, killed, blocked } = written;
        let records: u64 = receipts.iter().map(|receipt| u64::from(receipt.records)).sum();
        let batches = receipts.len() as u64;
        self.report.say(
            "append",
            &format!(
                "{} in {} of up to {size}, {IN_FLIGHT} in flight, in {}",
                count(records, "record"),
                count(batches, "batch"),
                time(*took)
            ),
        )?;
        self.report.say("leader killed", &death(*first, *killed, *killed_after))?;
        let leader = self.leader(client).await?;
        self.report
            .say("", &format!("broker {leader} took over; writes were blocked for {}", time(*blocked)))?;
        let again = receipts.iter().filter(|receipt| receipt.duplicate).count() as u64;
        if again > 0 {
            let them = count(again, "batch");
            self.report
                .say("", &format!("{them} had been written when the answer was lost: not written again"))?;
        }
        let mut next = 0;
        let dense = receipts.iter().all(|receipt| {
            let follows = receipt.first_offset.0 == next && receipt.first_sequence.0 == next;
            next = receipt.last_offset.0 + 1;
            follows
        });
        let all = records == self.input.lines.len() as u64;
        self.report.check(dense && all, "every line was acknowledged, at the offset that its number demands")
    }

    /// Sends acknowledged batches again, by hand, to the new leader.
    async fn replay(
        &mut self,
        client: &Client,
        producer: &Producer,
        written: &Written,
    ) -> Result<(), Failure> {
        let before = client.end().await?.end;
        let mut wire = None;
        let last = written.receipts.len().saturating_sub(REPLAYED);
        let chosen = written.receipts.iter().enumerate().filter(|(at, _)| *at < REPLAYED || *at >= last);
        let (mut sent, mut duplicates, mut settled, mut other) = (0, 0, 0, 0);
        for (_, receipt) in chosen {
            let first = usize::try_from(receipt.first_sequence.0).expect("the lines are in memory");
            let batch = batch_of(&self.input.lines[first..], receipt.records as usize);
            let batch = batch.seal(producer.opened().id, producer.epoch(), receipt.first_sequence);
            sent += 1;
            match self.say_to_leader(client, &mut wire, batch).await? {
                Response::Appended(again) if again.duplicate && again.first == receipt.first_offset => {
                    duplicates += 1;
                }
                Response::Refused(Refusal::AlreadyCommitted { .. }) => settled += 1,
                _ => other += 1,
            }
        }
        if let Some(wire) = wire {
            wire.close().await;
        }
        self.report.say(
            "replay",
            &format!(
                "{} sent again by hand: {duplicates} recognised at their first offsets, {settled} as settled before",
                count(sent, "acknowledged batch")
            ),
        )?;
        let end = client.end().await?.end;
        self.report.check(other == 0 && end == before, "every one was recognised, and the log has not grown")
    }

    /// Sends a batch by hand to whoever leads; what a leader says to it.
    async fn say_to_leader(
        &mut self,
        client: &Client,
        wire: &mut Option<Wire>,
        batch: Bytes,
    ) -> Result<Response, Failure> {
        let start = Instant::now();
        loop {
            let connected = match wire {
                Some(connected) => connected,
                None => {
                    let leader = self.leader(client).await?;
                    let broker = self.config.brokers.iter().find(|broker| broker.id == leader);
                    let broker = broker.expect("the leader is one of the brokers");
                    wire.insert(Wire::connect(self.config, broker).await?)
                }
            };
            match connected.append(batch.clone()).await? {
                // It leads no more, or not yet.
                Response::Refused(refusal)
                    if refusal.class() != Class::Final && start.elapsed() < PATIENCE =>
                {
                    *wire = None;
                    sleep(LOOK).await;
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Lets somebody else take the name, and then the one who had it go on as if nothing had happened.
    async fn zombie(&mut self, client: &Client, older: &Producer) -> Result<(), Failure> {
        let elsewhere = Client::connect(self.config).await?;
        let newer = elsewhere.producer(PRODUCER).open().await?;
        let before = client.end().await?.end;
        let refused = zombie_append(older).await?;
        self.report.say(
            "zombie",
            &format!(
                "epoch {} opened the producer; the process with epoch {} woke up and appended: {}",
                newer.epoch(),
                older.epoch(),
                if refused { "refused" } else { "NOT refused" }
            ),
        )?;
        let end = client.end().await?.end;
        self.report.check(refused && end == before, "it was fenced, and the log has not grown")?;
        let next = newer.opened().next;
        elsewhere.close().await;
        self.report
            .check(next == Sequence(before.0), "its successor goes on with the number after the last line")
    }

    /// Starts the dead broker again and waits until it has what the others have.
    async fn restart(&mut self, client: &Client, dead: BrokerId) -> Result<(), Failure> {
        self.cluster.launch(dead)?;
        let start = Instant::now();
        let caught_up = async {
            loop {
                self.cluster.check()?;
                let rows = status::ask(client, &self.config.brokers, ANSWER_TIMEOUT).await;
                let leader = status::leader(&rows).ok().and_then(|id| rows.iter().find(|row| row.id == id));
                let back = rows.iter().find(|row| row.id == dead.0);
                if let (Some(leader), Some(back)) = (leader, back)
                    && back.end_offset >= leader.end_offset
                    && back.leader == Some(leader.id)
                {
                    return Ok::<(), Failure>(());
                }
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, caught_up)
            .await
            .unwrap_or_else(|_| Err(ScenarioError::Behind { id: dead }.into()))?;
        let took = time(start.elapsed());
        self.report
            .say("restart", &format!("broker {dead} came back and has the whole log again after {took}"))
    }

    /// Reads the whole log over another connection and compares it with the file.
    async fn tail(&mut self) -> Result<(), Failure> {
        let client = Client::connect(self.config).await?;
        let end = client.end().await?.end;
        self.progress.set_length(end.0);
        let start = Instant::now();
        let (mut bytes, mut records, mut ordered) = (Vec::with_capacity(self.input.bytes.len()), 0, true);
        let mut tail = client.tail(Offset(0)).await?;
        while tail.position() < end {
            let batch = remote::within(self.config.deadline, tail.next_batch()).await??;
            for record in batch.records() {
                ordered &= record.offset.0 == records
                    && record.sequence.0 == records
                    && &*record.producer == PRODUCER;
                Form::lines().write(&record.record, &mut bytes);
                records += 1;
            }
            self.progress.set_position(records);
        }
        let took = time(start.elapsed());
        client.close().await;
        self.progress.finish_and_clear();
        self.report
            .say("tail", &format!("{} over another connection in {took}", count(records, "record")))?;
        let lines = self.input.lines.len() as u64;
        self.report.check(records == lines, "there are as many records as the file has lines")?;
        self.report.check(ordered, "they are in the order of the file, without gap or repeat")?;
        self.report.check(bytes == self.input.bytes, "together they are the file, byte for byte")
    }

    /// Waits until a majority follows a leader.
    async fn leader(&mut self, client: &Client) -> Result<BrokerId, Failure> {
        wait_for_leader(self.cluster, client, self.config).await
    }
}

/// A batch of the first lines: `most` of them, or as many as fit one.
fn batch_of(lines: &[Piece], most: usize) -> BatchBuilder {
    let mut builder = BatchBuilder::with_limits(most, BATCH_BYTES_MAX);
    let now = wall_clock_ms();
    let full = lines.iter().find_map(|line| builder.push(&line.record(now)).err());
    assert!(!matches!(full, Some(PushError::Record(_))), "a line that was read fits a batch");
    builder
}

/// Who was killed and when; and, if it was not the one that was named as leader at first, why.
fn death(first: BrokerId, killed: BrokerId, after: u64) -> String {
    let after = count(after, "acknowledged record");
    match first == killed {
        true => format!("broker {killed}, with SIGKILL, after {after}"),
        false => {
            format!(
                "broker {killed}, to which the lead had moved from broker {first}, with SIGKILL, after {after}"
            )
        }
    }
}

/// Whether a producer that was replaced is kept from writing.
async fn zombie_append(older: &Producer) -> Result<bool, Failure> {
    let outcome =
        async { older.append(Record::new(Bytes::from_static(b"from the grave"))).await?.await }.await;
    match outcome {
        Ok(_) => Ok(false),
        Err(AppendError::Fenced { .. } | AppendError::Failed(NotDone::Refused(Refusal::Fenced { .. }))) => {
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_is_not_the_first_one_is_said_to_have_come_after_it() {
        let stayed = death(BrokerId(1), BrokerId(1), 500);
        assert_eq!(stayed, "broker 1, with SIGKILL, after 500 acknowledged records");
        let moved = death(BrokerId(1), BrokerId(3), 500);
        assert_eq!(
            moved,
            "broker 3, to which the lead had moved from broker 1, with SIGKILL, after 500 acknowledged records"
        );
    }
}
