//! One run: everything is started, things go wrong until it is enough, everything is read, everything is stopped.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::{sync::watch, task::JoinSet};

use sequor_broker::history::Event;
use sequor_client::{Config, protocol::Offset};

use super::{
    TortureArgs,
    allowance::Allowance,
    arena::{Arena, HEALING_TIMEOUT},
    disks::Disks,
    faults::Fault,
    goal::{Goal, Reached},
    history::Recorder,
    nemesis::Nemesis,
    progress::{Progress, complain},
    reader::{self, ReaderError},
    report::Done,
    survey,
    vigil::{Vigil, found},
    writer::{Desk, Load, Writer, WriterError},
};
use crate::{
    cli::Global,
    cluster::{Cluster, connect, free_addresses},
    exit::{Failure, Verdict},
    place::Place,
    relay::Relay,
};

/// Name of the cluster in the directory of a run.
const CLUSTER: &str = "cluster";
/// Size of the brokers' segments: the smallest, so that there are many of them, and a start has little to fill. Bytes.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Share of the time in which nothing goes wrong; of a hundred.
const QUIET_SHARE: u32 = 25;
/// How often processes are attacked in a bad network; of a hundred.
const BAD_NETWORK_SHARE: u32 = 25;
/// Pause between two lines about how far it is, where there is no terminal.
const NEWS_PAUSE: Duration = Duration::from_secs(60);

/// See the file's header.
#[derive(Debug)]
pub(super) struct Attack {
    arena: Arena,
    nemesis: Nemesis,
    goal: Goal,
    faults: Vec<Fault>,
    /// Records to grant before each step; none if there is a rate.
    portion: Option<u64>,
    done: Done,
    load: Load,
    start: Instant,
}

impl Attack {
    /// Starts relay and brokers.
    ///
    /// # Errors
    /// If they cannot be started.
    pub(super) async fn prepare(
        args: &TortureArgs,
        global: &Global,
        (faults, skipped): (Vec<Fault>, BTreeMap<String, String>),
        place: &Place,
        history: &Path,
    ) -> Result<Self, Failure> {
        let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 32));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let goal = super::wanted(args);
        let portion = goal.portion(steps_per_kill(&faults));
        let listen = free_addresses(args.brokers)?;
        let relay = Relay::start(&listen, rng.next_u64())?;
        let mut cluster = Cluster::make(&place.path().join(CLUSTER), relay.fronts())?;
        for (id, address) in cluster.ids().into_iter().zip(&listen) {
            cluster.set(id, "listen", address.to_string());
            cluster.set(id, "segment_bytes", SEGMENT_BYTES.to_string());
        }
        let disks = match faults.iter().any(|fault| fault.needs_disks()) {
            true => Some(Disks::prepare(&mut cluster).await?),
            false => None,
        };
        let mut config = Config::load(cluster.context())?;
        config.deadline = global.deadline;
        let desk = Arc::new(Desk {
            recorder: Recorder::create(history)?,
            allowance: Allowance::new(portion.is_none().then_some(args.rate)),
            acknowledged: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
        });
        desk.recorder.record(&Event::Began { brokers: args.brokers as u64 });
        cluster.launch_all()?;
        let client = connect(&mut cluster, &config).await?;
        let load = Load { batch: args.batch, in_flight: args.in_flight as usize, crashes: true };
        let done = Done {
            seed,
            brokers: args.brokers,
            producers: args.producers,
            seconds: 0.0,
            faults: BTreeMap::new(),
            skipped,
            client_crashes: 0,
            slowest_healing_ms: 0,
            footprint: None,
            relay: relay.traffic(),
        };
        let producers = args.producers;
        let arena = Arena { cluster, relay, disks, config, client, desk, rng, producers, footprint: None };
        arena.note(format!("seed {seed}, {goal:?}, {faults:?}"));
        let (nemesis, start) = (Nemesis::default(), Instant::now());
        Ok(Self { arena, nemesis, goal, faults, portion, done, load, start })
    }

    /// Plays it to its end, or until something is wrong that must not be; what was done. The history is closed then.
    ///
    /// # Errors
    /// If the cluster does not become well again, or the library or a broker does what it must not.
    pub(super) async fn play(mut self) -> Result<Done, Failure> {
        let played = self.act().await;
        let closed = self.arena.desk.recorder.close();
        if let (Err(_), Err(error)) = (&played, &closed) {
            complain(&format!("its history is not whole: {error}"));
        }
        played?;
        closed?;
        Ok(self.done)
    }

    async fn act(&mut self) -> Result<(), Failure> {
        self.arena.heal().await?;
        let (ended, until) = watch::channel(None);
        let mut writers = JoinSet::new();
        for number in 1..=self.done.producers {
            let (config, desk) = (self.arena.config.clone(), Arc::clone(&self.arena.desk));
            let writer = Writer::new(number, self.done.seed, config, self.load, desk);
            writers.spawn(writer.live());
        }
        let mut readers = JoinSet::new();
        let own = || (self.arena.config.clone(), Arc::clone(&self.arena.desk));
        let (config, desk) = own();
        readers.spawn(reader::read(1, config, desk, until.clone()));
        let (config, desk) = own();
        readers.spawn(async {
            reader::ask(config, desk).await;
            Ok(())
        });

        let played = self.attack_and_end(&mut writers, &mut readers, (ended, until)).await;
        if played.is_err() {
            // What one of these has found weighs more, and may be why.
            found(&mut writers)?;
            found(&mut readers)?;
        }
        played
    }

    /// Attacks until it is enough, lets everybody end, and reads all disks.
    async fn attack_and_end(
        &mut self,
        writers: &mut JoinSet<Result<(), WriterError>>,
        readers: &mut JoinSet<Result<(), ReaderError>>,
        (ended, until): (watch::Sender<Option<Offset>>, watch::Receiver<Option<Offset>>),
    ) -> Result<(), Failure> {
        let progress = Progress::new();
        self.attack(writers, readers, &progress).await?;
        self.done.seconds = self.start.elapsed().as_secs_f64();

        progress.say("waiting for the last outcomes");
        self.arena.desk.allowance.stop();
        self.ended("the writing of what was begun", writers).await?;
        let committed = self.arena.rest().await?;
        progress.say("reading the log from all disks");
        let end = self.arena.client.end().await?.end;
        let (config, desk) = (self.arena.config.clone(), Arc::clone(&self.arena.desk));
        readers.spawn(reader::read(2, config, desk, until));
        // They all look at it as long as they read.
        let _nobody = ended.send(Some(end));
        self.ended("the reading of the log", readers).await?;
        self.survey(committed).await?;
        progress.finish();
        Ok(())
    }

    /// Waits until all of these have ended. Whatever they do is noted in the history, so that its growth is theirs.
    async fn ended<E: Verdict>(
        &mut self,
        what: &'static str,
        tasks: &mut JoinSet<Result<(), E>>,
    ) -> Result<(), Failure> {
        let Arena { cluster, desk, .. } = &mut self.arena;
        let vigil = Vigil { what, patience: HEALING_TIMEOUT };
        vigil.keep(tasks, || desk.recorder.lines(), || cluster.check()).await
    }

    /// Lets things go wrong until it is enough.
    async fn attack(
        &mut self,
        writers: &mut JoinSet<Result<(), WriterError>>,
        readers: &mut JoinSet<Result<(), ReaderError>>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mut news = Instant::now();
        loop {
            let reached = self.reached();
            progress.set(&self.goal, &reached);
            if news.elapsed() >= NEWS_PAUSE {
                news = Instant::now();
                progress.news(&reached);
            }
            if self.goal.is_reached(&reached) {
                return Ok(());
            }
            found(writers)?;
            found(readers)?;
            if let Some(portion) = self.portion {
                // Half of it is written before something goes wrong, and the rest while it does.
                self.arena.acknowledged(portion.div_ceil(2), portion).await?;
            }
            self.step(&reached).await?;
        }
    }

    async fn step(&mut self, reached: &Reached) -> Result<(), Failure> {
        let arena = &mut self.arena;
        let only_kills = self.portion.is_some() && self.faults == [Fault::Leader];
        let quiet = match only_kills {
            true => !self.goal.wants_kills(reached),
            false => arena.rng.random_ratio(QUIET_SHARE, 100),
        };
        if self.faults.is_empty() || quiet {
            return self.nemesis.rest(arena).await;
        }
        let fault = self.faults[arena.rng.random_range(0..self.faults.len())];
        let bad = self.faults.contains(&Fault::Network)
            && fault != Fault::Network
            && arena.rng.random_ratio(BAD_NETWORK_SHARE, 100);
        self.nemesis.strike(arena, fault, bad).await
    }

    fn reached(&self) -> Reached {
        Reached {
            time: self.start.elapsed(),
            kills: self.nemesis.done.get(&Fault::Leader).copied().unwrap_or(0),
            records: self.arena.desk.acknowledged.load(Ordering::Relaxed),
        }
    }

    /// Stops the brokers and reads their disks, up to an index of which all of them knew that it is committed.
    async fn survey(&mut self, committed: u64) -> Result<(), Failure> {
        let arena = &mut self.arena;
        arena.stop().await?;
        for broker in arena.brokers() {
            survey::survey(&arena.desk.recorder, broker, &arena.cluster.data(broker), committed)?;
        }
        let done = &mut self.done;
        done.faults = self.nemesis.done.iter().map(|(fault, times)| (fault.to_string(), *times)).collect();
        done.client_crashes = arena.desk.crashes.load(Ordering::Relaxed);
        done.slowest_healing_ms = self.nemesis.slowest.as_millis();
        done.footprint = arena.footprint;
        done.relay = arena.relay.traffic();
        Ok(())
    }
}

/// Steps to the next kill of a leader, on average.
fn steps_per_kill(faults: &[Fault]) -> f64 {
    match faults {
        // Nothing else happens, and no time is quiet.
        [Fault::Leader] => 1.0,
        _ => faults.len() as f64 * 100.0 / f64::from(100 - QUIET_SHARE),
    }
}
