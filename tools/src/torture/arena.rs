//! The cluster under attack: its processes, the network between them, and what can be done to both.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use thiserror::Error;
use tokio::time::sleep;

use sequor_broker::history::Event;
use sequor_client::{Client, Config, protocol::BrokerId};

use super::{disks::Disks, footprint::Footprint, writer::Desk};
use crate::{
    cluster::{Cluster, LOOK, wait_for_leader},
    exit::{Exit, Failure, Verdict},
    relay::Relay,
    status::{self, Row},
};

/// Longest wait for one broker to say how it is.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(150);
/// Longest wait until all is well again, when nothing is wrong any more.
pub(super) const HEALING_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause before more is granted to writers of whose batches too few were acknowledged.
const GRANT_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a broker that was told to stop.
const STOPPING_TIMEOUT: Duration = Duration::from_secs(30);

/// The cluster did not become well again.
#[derive(Debug, Error)]
pub(crate) enum ArenaError {
    /// Not all brokers follow one leader and have its log.
    #[error("nothing is wrong any more, and after {} s the brokers are not all well: {said}", HEALING_TIMEOUT.as_secs())]
    NotWell {
        /// What they say.
        said: String,
    },
    /// Not enough is acknowledged.
    #[error("nothing is wrong any more, and within {} s less than {more} records were acknowledged", HEALING_TIMEOUT.as_secs())]
    Stuck {
        /// How many it had to be.
        more: u64,
    },
    /// Who has to come to an end does not, and does nothing either.
    #[error("nothing is wrong any more, and {what} stood still for {seconds} s, before it was done")]
    Silent {
        /// What they do.
        what: &'static str,
        /// How long. Seconds.
        seconds: u64,
    },
}

impl Verdict for ArenaError {
    fn exit(&self) -> Exit {
        Exit::Unhealthy
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Arena {
    pub(super) cluster: Cluster,
    pub(super) relay: Relay,
    /// Only where power is cut.
    pub(super) disks: Option<Disks>,
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) desk: Arc<Desk>,
    pub(super) rng: ChaCha8Rng,
    /// How many producers write.
    pub(super) producers: u64,
    /// The most that a broker was seen to hold when all was well; none where the system does not say.
    pub(super) footprint: Option<Footprint>,
}

impl Arena {
    pub(super) fn brokers(&self) -> Vec<BrokerId> {
        self.cluster.ids()
    }

    /// One broker, by lot.
    pub(super) fn any(&mut self) -> BrokerId {
        let brokers = self.brokers();
        brokers[self.rng.random_range(0..brokers.len())]
    }

    /// All brokers, in an order by lot.
    pub(super) fn shuffled(&mut self) -> Vec<BrokerId> {
        let mut brokers = self.brokers();
        brokers.shuffle(&mut self.rng);
        brokers
    }

    /// A time in these bounds, in milliseconds, by lot.
    pub(super) fn time(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(ms))
    }

    /// Notes something in the history.
    pub(super) fn note(&self, what: impl Into<String>) {
        self.desk.recorder.record(&Event::Fault { what: what.into() });
    }

    /// Waits until a majority follows a leader.
    pub(super) async fn leader(&mut self) -> Result<BrokerId, Failure> {
        wait_for_leader(&mut self.cluster, &self.client, &self.config).await
    }

    /// Makes the network good, and waits until every broker follows one leader and has applied what that leader had
    /// committed when it was first seen, and no disk is full. Then it is looked what they hold.
    pub(super) async fn heal(&mut self) -> Result<(), Failure> {
        self.relay.heal();
        let start = Instant::now();
        let mut wanted = None;
        loop {
            self.cluster.check()?;
            let rows = self.look().await;
            if let Some(leader) = well(&rows) {
                let commit = *wanted.get_or_insert(leader.commit);
                if rows.iter().all(|row| row.applied >= commit && row.is_full == Some(false)) {
                    return self.weigh();
                }
            }
            if start.elapsed() > HEALING_TIMEOUT {
                return Err(ArenaError::NotWell { said: said(&rows) }.into());
            }
            sleep(LOOK).await;
        }
    }

    /// Looks what each broker's process holds.
    fn weigh(&mut self) -> Result<(), Failure> {
        for id in self.brokers() {
            let Some(footprint) = self.cluster.process(id).and_then(Footprint::of) else { continue };
            footprint.check(id, &self.cluster.data(id), self.producers)?;
            self.footprint = Some(self.footprint.unwrap_or_default().most(footprint));
        }
        Ok(())
    }

    /// Whether one of these brokers says that its disk is full.
    pub(super) async fn is_full(&self, brokers: &[BrokerId]) -> bool {
        let is_full = |row: &Row| row.is_full == Some(true) && brokers.contains(&BrokerId(row.id));
        self.look().await.iter().any(is_full)
    }

    /// Waits until so many more records are acknowledged; grants so many, and again if that was not enough: of some the
    /// outcome is unknown.
    pub(super) async fn acknowledged(&mut self, more: u64, grant: u64) -> Result<(), Failure> {
        let before = self.desk.acknowledged.load(Ordering::Relaxed);
        let (start, mut granted) = (Instant::now(), None);
        while self.desk.acknowledged.load(Ordering::Relaxed) < before + more {
            if granted.is_none_or(|granted: Instant| granted.elapsed() > GRANT_PAUSE) {
                self.desk.allowance.grant(grant);
                granted = Some(Instant::now());
            }
            if start.elapsed() > HEALING_TIMEOUT {
                return Err(ArenaError::Stuck { more }.into());
            }
            self.cluster.check()?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until all brokers have the same log, all of it committed, when nobody writes any more; its last index.
    pub(super) async fn rest(&mut self) -> Result<u64, Failure> {
        let start = Instant::now();
        loop {
            self.cluster.check()?;
            let rows = self.look().await;
            if let Some(last) = well(&rows).and_then(|leader| leader.last_index)
                && rows.iter().all(|row| [row.last_index, row.commit, row.applied] == [Some(last); 3])
            {
                return Ok(last);
            }
            if start.elapsed() > HEALING_TIMEOUT {
                return Err(ArenaError::NotWell { said: said(&rows) }.into());
            }
            sleep(LOOK).await;
        }
    }

    /// Tells all brokers to stop, and waits until they have, and well.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        for id in self.brokers() {
            self.cluster.signal(id, Signal::TERM)?;
        }
        for id in self.brokers() {
            self.cluster.stopped(id, STOPPING_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Tells one broker to stop, and waits until it has, and well.
    pub(super) async fn stop_one(&mut self, id: BrokerId) -> Result<(), Failure> {
        self.cluster.signal(id, Signal::TERM)?;
        Ok(self.cluster.stopped(id, STOPPING_TIMEOUT).await?)
    }

    async fn look(&self) -> Vec<Row> {
        status::ask(&self.client, &self.config.brokers, ANSWER_TIMEOUT).await
    }
}

/// The leader, if every broker answers and follows it.
fn well(rows: &[Row]) -> Option<&Row> {
    let leader = status::leader(rows).ok()?;
    let leader = rows.iter().find(|row| row.id == leader)?;
    rows.iter().all(|row| row.leader == Some(leader.id) && row.term == leader.term).then_some(leader)
}

fn said(rows: &[Row]) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let row = |row: &Row| {
        let [term, leader, applied, last] = [row.term, row.leader, row.applied, row.last_index].map(number);
        match row.reachable {
            true if row.is_full == Some(true) => format!("the disk of broker {} is full", row.id),
            true => format!("broker {} is at {applied} of {last}, in term {term} of broker {leader}", row.id),
            false => format!("broker {} does not answer", row.id),
        }
    };
    rows.iter().map(row).collect::<Vec<_>>().join("; ")
}
