//! What goes wrong, one thing after the other, by lot.
//!
//! Everything that is made to go wrong is made good again before the next thing, and the cluster has to become well: that
//! is where a cluster that does not come back is found. At a quarter of its turns nothing happens. Often something
//! happens to processes while the network is bad.

use std::{
    collections::BTreeMap,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use thiserror::Error;
use tokio::{process::Command, time::sleep};

use sequor_client::protocol::BrokerId;

use super::{
    arena::Arena,
    disks::{DiskError, Disks},
    faults::Fault,
};
use crate::{
    cluster::{ClusterError, LOOK},
    exit::{Exit, Failure, Verdict},
    relay::{Conditions, End},
};

/// How long things last. Milliseconds.
const QUIET_MS: std::ops::Range<u64> = 100..1_500;
const DEATH_MS: std::ops::Range<u64> = 0..400;
const PAUSE_MS: std::ops::Range<u64> = 50..3_000;
const NETWORK_MS: std::ops::Range<u64> = 300..3_000;
const STANDSTILL_MS: std::ops::Range<u64> = 0..300;
const FULL_MS: std::ops::Range<u64> = 0..3_000;
/// Longest wait until somebody notices that a disk is full: a segment has to be written first.
const FULL_TIMEOUT: Duration = Duration::from_secs(30);
/// What may be written each time that it is looked whether somebody has. Records.
const FULL_GRANT: u64 = 1_000;
/// Longest wait until a broker has noticed that a sync failed: a sync has to come first.
const SYNC_TIMEOUT: Duration = Duration::from_secs(20);
/// The line that a broker has to say then.
const SYNC_WORD: &str = "Input/output error";

/// A broker did not do what it must.
#[derive(Debug, Error)]
pub(crate) enum NemesisError {
    /// A sync failed, and it went on, or ended as if nothing had happened, or said nothing of it.
    #[error("a sync of broker {id} failed, and {did}; its log ends with:\n{last}")]
    Sync {
        /// Which.
        id: BrokerId,
        /// What it did.
        did: String,
        /// The last lines of its log.
        last: String,
    },
    /// `strace` cannot be run.
    #[error("cannot run strace")]
    Strace(#[source] std::io::Error),
    /// It gave up, so no sync failed.
    #[error(
        "strace was to let a sync of broker {id} fail, and ended before it did ({status}): may it trace that process?"
    )]
    NotTraced {
        /// Which.
        id: BrokerId,
        /// How.
        status: ExitStatus,
    },
}

impl Verdict for NemesisError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// How often each thing happened.
#[derive(Debug, Default)]
pub(super) struct Nemesis {
    pub(super) done: BTreeMap<Fault, u64>,
    /// The longest time from when nothing was wrong any more until all brokers were well.
    pub(super) slowest: Duration,
}

impl Nemesis {
    /// Makes one thing go wrong, and good again.
    ///
    /// # Errors
    /// If the cluster does not become well, or something did not do what it must.
    pub(super) async fn strike(
        &mut self,
        arena: &mut Arena,
        fault: Fault,
        bad_network: bool,
    ) -> Result<(), Failure> {
        if bad_network {
            let bad = bad(arena);
            arena.relay.set_all(bad);
            arena.note(format!("the network becomes bad: {bad:?}"));
        }
        match fault {
            Fault::Leader => {
                let leader = arena.leader().await?;
                kill(arena, &[leader]).await?;
            }
            Fault::Broker => {
                let broker = arena.any();
                kill(arena, &[broker]).await?;
            }
            Fault::Cluster => {
                let all = arena.shuffled();
                kill(arena, &all).await?;
            }
            Fault::Pause => pause(arena).await?,
            Fault::Restart => {
                let broker = arena.any();
                arena.note(format!("SIGTERM to broker {broker}"));
                arena.stop_one(broker).await?;
                arena.cluster.launch(broker)?;
            }
            Fault::Partition => partition(arena).await?,
            Fault::OneWay => one_way(arena).await?,
            Fault::Network => {
                let (bad, time) = (bad(arena), arena.time(NETWORK_MS));
                arena.relay.set_all(bad);
                arena.note(format!("the network is bad for {time:?}: {bad:?}"));
                sleep(time).await;
            }
            Fault::Power => power(arena).await?,
            Fault::Full => {
                if !full(arena).await? {
                    arena.note("too little was written for anybody to notice");
                    return arena.heal().await;
                }
            }
            Fault::Sync => sync(arena).await?,
        }
        *self.done.entry(fault).or_default() += 1;
        arena.note(format!("{fault} is over"));
        let healed = Instant::now();
        arena.heal().await?;
        self.slowest = self.slowest.max(healed.elapsed());
        Ok(())
    }

    /// Does nothing for a while.
    pub(super) async fn rest(&self, arena: &mut Arena) -> Result<(), Failure> {
        let time = arena.time(QUIET_MS);
        sleep(time).await;
        // Nothing is wrong: something has to be written.
        arena.acknowledged(1, 1).await
    }
}

/// Kills brokers at once and starts them again one after the other.
async fn kill(arena: &mut Arena, brokers: &[BrokerId]) -> Result<(), Failure> {
    arena.note(format!("SIGKILL to {}", list(brokers)));
    arena.cluster.kill_all(brokers)?;
    for broker in brokers {
        let time = arena.time(DEATH_MS);
        sleep(time).await;
        arena.cluster.launch(*broker)?;
    }
    Ok(())
}

async fn pause(arena: &mut Arena) -> Result<(), Failure> {
    let broker = if arena.rng.random_ratio(1, 2) { arena.leader().await? } else { arena.any() };
    let time = arena.time(PAUSE_MS);
    arena.note(format!("SIGSTOP to broker {broker} for {time:?}"));
    arena.cluster.signal(broker, Signal::STOP)?;
    sleep(time).await;
    arena.cluster.signal(broker, Signal::CONT)?;
    Ok(())
}

/// An island of at least one broker and less than all.
async fn partition(arena: &mut Arena) -> Result<(), Failure> {
    let mut brokers = arena.shuffled();
    if arena.rng.random_ratio(1, 2) {
        // The leader alone is the island that matters most.
        let leader = arena.leader().await?;
        brokers = vec![leader];
    } else {
        let most = brokers.len() - 1;
        brokers.truncate(arena.rng.random_range(1..=most));
    }
    let (with_clients, time) = (arena.rng.random_ratio(1, 3), arena.time(NETWORK_MS));
    let clients = if with_clients { "nobody" } else { "clients alone" };
    arena.note(format!("{} heard by {clients} for {time:?}", list(&brokers)));
    let others: Vec<_> =
        arena.brokers().into_iter().filter(|id| !brokers.contains(id)).map(End::Broker).collect();
    let others: Vec<_> = others.into_iter().chain(with_clients.then_some(End::Clients)).collect();
    for broker in brokers.into_iter().map(End::Broker) {
        for other in &others {
            arena.relay.set(broker, *other, Conditions::CUT);
            arena.relay.set(*other, broker, Conditions::CUT);
        }
    }
    sleep(time).await;
    Ok(())
}

/// Some links of one broker, in one direction.
async fn one_way(arena: &mut Arena) -> Result<(), Failure> {
    let broker = if arena.rng.random_ratio(1, 2) { arena.leader().await? } else { arena.any() };
    let (speaks, time) = (arena.rng.random_ratio(1, 2), arena.time(NETWORK_MS));
    let others =
        arena.brokers().into_iter().filter(|id| *id != broker).map(End::Broker).chain([End::Clients]);
    let deaf = some(&mut arena.rng, others.collect());
    let direction = if speaks { "reaches" } else { "hears" };
    arena.note(format!("broker {broker} {direction} none of {deaf:?} for {time:?}"));
    for other in deaf {
        let (from, to) = if speaks { (End::Broker(broker), other) } else { (other, End::Broker(broker)) };
        arena.relay.set(from, to, Conditions::CUT);
    }
    sleep(time).await;
    Ok(())
}

/// Some of them, by lot: at least one, each choice as likely as the others. There must be one, and at most 32.
fn some(rng: &mut ChaCha8Rng, all: Vec<End>) -> Vec<End> {
    let chosen = rng.random_range(1..1u64 << all.len());
    all.into_iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, one)| one).collect()
}

/// Conditions under which a cluster has to work, badly.
fn bad(arena: &mut Arena) -> Conditions {
    let rng = &mut arena.rng;
    Conditions {
        delay: Duration::from_micros(rng.random_range(0..20_000)),
        jitter: Duration::from_micros(rng.random_range(0..20_000)),
        lost: rng.random_range(0..100),
        doubled: rng.random_range(0..50),
        reordered: rng.random_range(0..100),
        held_back: Duration::from_micros(rng.random_range(100..20_000)),
        cut: false,
    }
}

/// Cuts the power of one broker, or of all of them: each goes on from what was on its disk at that moment.
async fn power(arena: &mut Arena) -> Result<(), Failure> {
    let all = arena.shuffled();
    let brokers = if arena.rng.random_ratio(1, 2) { all } else { all[..1].to_vec() };
    arena.note(format!("power cut of {}", list(&brokers)));
    for broker in &brokers {
        arena.cluster.signal(*broker, Signal::STOP)?;
    }
    let time = arena.time(STANDSTILL_MS);
    let images = copied(arena, &brokers, time).await?;
    arena.cluster.kill_all(&brokers)?;
    if let Some(disks) = &mut arena.disks {
        disks.restore(&brokers, images).await?;
    }
    for broker in brokers {
        arena.cluster.launch(broker)?;
    }
    Ok(())
}

async fn copied(
    arena: &mut Arena,
    brokers: &[BrokerId],
    standstill: Duration,
) -> Result<Vec<std::path::PathBuf>, DiskError> {
    sleep(standstill).await;
    match &mut arena.disks {
        Some(disks) => Disks::copy(disks, &in_order(brokers)).await,
        None => Ok(Vec::new()),
    }
}

/// As disks are kept.
fn in_order(brokers: &[BrokerId]) -> Vec<BrokerId> {
    let mut brokers = brokers.to_vec();
    brokers.sort_unstable();
    brokers
}

/// Takes all room from the disk of the leader, or from all, until somebody says that it is full, and then for a while.
/// Whether somebody did.
async fn full(arena: &mut Arena) -> Result<bool, Failure> {
    let leader = arena.leader().await?;
    let brokers = if arena.rng.random_ratio(1, 2) { arena.brokers() } else { vec![leader] };
    let time = arena.time(FULL_MS);
    let Some(disks) = &arena.disks else { return Ok(false) };
    arena.note(format!("the disks of {} are full", list(&brokers)));
    disks.fill(&brokers)?;
    let start = Instant::now();
    let mut noticed = false;
    while !noticed && start.elapsed() < FULL_TIMEOUT {
        arena.cluster.check()?;
        arena.desk.allowance.grant(FULL_GRANT);
        noticed = arena.is_full(&brokers).await;
        sleep(LOOK).await;
    }
    if noticed {
        arena.note(format!("noticed; for {time:?} more"));
        sleep(time).await;
    }
    if let Some(disks) = &arena.disks {
        disks.empty()?;
    }
    Ok(noticed)
}

/// Lets the next sync of a broker fail: it has to end at once, with the reason as its last word.
async fn sync(arena: &mut Arena) -> Result<(), Failure> {
    let id = arena.any();
    let Some(process) = arena.cluster.process(id) else { return Ok(()) };
    arena.note(format!("a sync of broker {id} fails"));
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO", "-p"])
        .arg(process.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(NemesisError::Strace)?;
    let ended = arena.cluster.ended(id, SYNC_TIMEOUT).await;
    if matches!(ended, Err(ClusterError::Lives { .. }))
        && let Ok(Some(status)) = strace.try_wait()
    {
        return Err(NemesisError::NotTraced { id, status }.into());
    }
    // It ends with what it traces; if that goes on, it must not go on failing.
    let _ended = strace.kill().await;
    let last = arena.cluster.last_lines(id);
    let wrong = |did: String| NemesisError::Sync { id, did, last: last.clone() };
    match ended {
        Err(ClusterError::Lives { .. }) => return Err(wrong("it went on".into()).into()),
        Err(error) => return Err(error.into()),
        Ok(status) if status.success() => return Err(wrong("it ended with code 0".into()).into()),
        Ok(_) if !last.contains(SYNC_WORD) => return Err(wrong("it did not say so".into()).into()),
        Ok(_) => {}
    }
    arena.cluster.launch(id)?;
    Ok(())
}

fn list(brokers: &[BrokerId]) -> String {
    let ids: Vec<_> = brokers.iter().map(ToString::to_string).collect();
    let noun = if ids.len() == 1 { "broker" } else { "brokers" };
    format!("{noun} {}", ids.join(", "))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn some_links_are_never_none() {
        let all = || vec![End::Broker(BrokerId(2)), End::Broker(BrokerId(3)), End::Clients];
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut lengths = [0; 4];
        for _ in 0..1000 {
            lengths[some(&mut rng, all()).len()] += 1;
        }
        assert_eq!(lengths[0], 0);
        assert!(lengths[1..].iter().all(|times| *times > 50), "{lengths:?}");
        assert_eq!(some(&mut rng, vec![End::Clients]), [End::Clients]);
    }
}
