//! A machine of the simulated world: a clock, a disk, and the broker that runs on them while it runs.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use sequor_client::protocol::{BrokerId, ClusterId, Incarnation, Lineage};
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{
    Damage, Identity, IdentityError, Index, Log, OpenError, Opened, Position, SpareOrder, SyncError, Ticket,
    Vote, VoteState,
};
use thiserror::Error;

use super::chance::{chance, within};
use super::clock::Clock;
use super::rot::{self, IDENTITY, Struck, VOTE};
use crate::core::genesis::Genesis;
use crate::core::time::Time;
use crate::core::{Core, Settings, Timing};

/// The longest that a follower waits for a leader before it wants to be one, in a [`Build::SMALL`]. Microseconds.
pub(super) const ELECTION_TIMEOUT_US: u64 =
    2 * Build::SMALL.timing.election_ticks as u64 * Build::SMALL.tick_us;

/// How long the disk takes for a write or a sync, in microseconds.
const DISK_US: (u64, u64) = (20, 400);
/// The same while it hangs.
const HUNG_DISK_US: (u64, u64) = (50_000, 2_000_000);

/// How large the parts of a broker's log are, and how patient it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build {
    /// Bytes.
    pub(super) segment_bytes: u64,
    /// Bytes.
    pub(super) block_bytes_max: usize,
    /// Microseconds.
    pub(super) tick_us: u64,
    pub(super) timing: Timing,
}

impl Build {
    /// Small segments, so that a run rolls often; small blocks, so that a backlog takes several tickets.
    pub(super) const SMALL: Self = Self {
        segment_bytes: 64 << 10,
        block_bytes_max: 16 << 10,
        tick_us: 10_000,
        timing: Timing { heartbeat_ticks: 3, election_ticks: 15 },
    };

    pub(super) fn wal_settings(&self) -> sequor_wal::Settings {
        sequor_wal::Settings {
            segment_bytes: self.segment_bytes,
            block_bytes_max: self.block_bytes_max,
            ..sequor_wal::Settings::default()
        }
    }
}

/// How a broker goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The power fails: what was not synced is kept or lost sector by sector.
    PowerCut,
    /// The process dies: what was written stays, but still not synced.
    Kill,
}

/// What the disk of a broker has confirmed: no crash may take it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Synced {
    /// The last entry, when the broker died.
    pub(super) last: Option<Position>,
    /// The last vote of which that is certain, or that a recovery said to be so.
    pub(super) vote: Vote,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: u64,
    pub(super) clock: Clock,
    build: Build,
    disk: MemoryDisk,
    genesis: Genesis,
    /// Counts the times it was started. Events of an earlier life do not reach a later one.
    pub(super) life: u64,
    pub(super) core: Option<Core>,
    /// Frozen: it gets no time, as after SIGSTOP.
    pub(super) paused: bool,
    pub(super) pass_due: bool,
    ticket: Option<Ticket>,
    spares: Vec<SpareOrder>,
    /// What was confirmed and not applied when it was last alive.
    confirmed: Vec<Position>,
    /// If that could not be read any more: up to where it was.
    vouched_for: Index,
    synced: Synced,
    /// Its disk hangs until then.
    pub(super) hangs_until: Time,
    /// Whatever its disk is asked before then is done just after.
    pub(super) thaws_at: Time,
    struck: Struck,
    /// The vote's file, as it was when it was last started.
    older_vote: Vec<u8>,
    /// It found that out and will not run again.
    pub(super) lost: bool,
    /// A leader knows it to have had entries that its disk has lost: it has to find that out.
    pub(super) forgetful: bool,
}

/// Why a broker does not start.
#[derive(Debug, Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Log(#[from] OpenError),
    /// It cannot be known for whom it voted.
    #[error("{0}")]
    Vote(Damage),
}

impl StartError {
    /// The file that it says is not what it should be, if it says so of one.
    pub(super) fn blames(&self) -> Option<&str> {
        match self {
            Self::Identity(_) => Some(IDENTITY),
            Self::Log(OpenError::Damaged(damage)) | Self::Vote(damage) => Some(&damage.file),
            Self::Log(_) => None,
        }
    }
}

impl Machine {
    /// A machine with a fresh data directory, not started.
    pub(super) fn new(id: u64, genesis: &Genesis, build: Build, clock: Clock) -> Self {
        let disk = MemoryDisk::new();
        Identity::create(&disk, &identity(id, None)).expect("the directory is empty");
        Self {
            id,
            clock,
            build,
            disk,
            genesis: genesis.clone(),
            life: 0,
            core: None,
            paused: false,
            pass_due: false,
            ticket: None,
            spares: Vec::new(),
            confirmed: Vec::new(),
            vouched_for: 0,
            synced: Synced::default(),
            hangs_until: Time(0),
            thaws_at: Time(0),
            struck: Struck::default(),
            older_vote: Vec::new(),
            lost: false,
            forgetful: false,
        }
    }

    /// Recovers the log and starts the broker.
    pub(super) fn start(&mut self, random: &mut ChaCha8Rng, now: Time) -> Result<(), StartError> {
        debug_assert!(self.core.is_none(), "a machine runs one broker at a time");
        let seed = random.next_u64();
        let mut identity = Identity::load(&self.disk)?;
        if identity.incarnation.is_none() {
            identity.set_incarnation(&self.disk, incarnation(self.id))?;
        }
        let incarnation = Incarnation(identity.incarnation.unwrap_or_default());
        let Opened { log, commit, vote } =
            sequor_wal::open(Arc::new(self.disk.clone()), &identity, self.build.wal_settings())?;
        if let VoteState::Damaged(damage) = vote {
            return Err(StartError::Vote(damage));
        }
        self.struck.heal();
        self.older_vote = self.disk.image(VOTE).unwrap_or_default();
        self.life += 1;
        self.core = Some(Core::new(self.settings(incarnation, seed), log, commit, self.clock.read(now)));
        Ok(())
    }

    fn settings(&self, incarnation: Incarnation, seed: u64) -> Settings {
        Settings {
            cluster: CLUSTER,
            lineage: LINEAGE,
            broker: BrokerId(self.id),
            incarnation,
            genesis: self.genesis.clone(),
            tick_us: self.build.tick_us,
            timing: self.build.timing,
            seed,
        }
    }

    /// The broker dies.
    pub(super) fn die(&mut self, death: Death, random: &mut ChaCha8Rng) {
        let Some(core) = self.core.take() else { return self.lose_power_or_not(death, random) };
        let (durable, behind) = (core.log().durable(), core.applied_index());
        self.synced.last = core.log().position(durable).ok().flatten();
        // A disk that has failed says nothing any more; what it keeps can be found all the same, if it has not rotted.
        let kept = self.disk.is_down().then(|| self.kept());
        let position = |index| match &kept {
            Some(log) => log.as_ref()?.position(index).ok().flatten(),
            None => core.log().position(index).ok().flatten(),
        };
        let confirmed: Option<Vec<_>> = (behind + 1..=durable).map(position).collect();
        self.vouched_for = if confirmed.is_none() { durable } else { 0 };
        self.confirmed = confirmed.unwrap_or_default();
        self.ticket = None;
        self.spares.clear();
        self.paused = false;
        self.pass_due = false;
        self.lose_power_or_not(death, random);
    }

    fn lose_power_or_not(&self, death: Death, random: &mut ChaCha8Rng) {
        let seed = random.next_u64();
        match death {
            Death::PowerCut => self.disk.crash(seed),
            Death::Kill => self.disk.kill(),
        }
    }

    /// True if a fault of the disk has struck: nothing works until the next crash or kill.
    pub(super) fn disk_is_down(&self) -> bool {
        self.disk.is_down()
    }

    /// True while the disk has something to do.
    #[cfg(feature = "virtual")]
    pub(super) fn is_writing(&self) -> bool {
        self.ticket.is_some()
    }

    /// True while the broker runs and gets time.
    pub(super) fn is_awake(&self) -> bool {
        self.core.is_some() && !self.paused
    }

    /// Whether this very entry lies on its disk, confirmed: as its broker says, or said when it was last alive. Only
    /// for an entry that it has not applied.
    pub(super) fn holds(&self, entry: Position) -> bool {
        let Some(core) = &self.core else {
            return self.confirmed.contains(&entry) || entry.index <= self.vouched_for;
        };
        let found = core.log().position(entry.index).ok().flatten();
        core.log().durable() >= entry.index && found == Some(entry)
    }

    /// Whether that is true: whether a recovery finds the entry if the power fails now, and nothing that is not synced is
    /// left.
    pub(super) fn would_keep(&self, entry: Position) -> bool {
        self.kept().is_some_and(|log| log.position(entry.index).ok().flatten() == Some(entry))
    }

    /// The log that a recovery finds if nothing that is not synced is left.
    fn kept(&self) -> Option<Log> {
        let disk = self.disk.surely_kept();
        let identity = Identity::load(&disk).ok()?;
        Some(sequor_wal::open(Arc::new(disk), &identity, self.build.wal_settings()).ok()?.log)
    }

    /// What its disk had confirmed when it was last alive.
    pub(super) fn synced(&self) -> Synced {
        self.synced
    }

    /// Its disk.
    pub(super) fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Its disk has lost some of what it had confirmed, and nobody could know: this is what it has to show now.
    pub(super) fn settle_for(&mut self, shown: Synced) {
        self.synced = shown;
    }

    /// Takes the vote with which the broker started for confirmed: so does the core, and acts on it.
    pub(super) fn trust_vote(&mut self) {
        self.synced.vote = self.core.as_ref().map_or(self.synced.vote, |core| core.log().vote());
    }

    /// Takes the work for the disk that the core has; says when the disk will have written it.
    pub(super) fn begin_disk_work(&mut self, random: &mut ChaCha8Rng, now: Time) -> Option<u64> {
        let local = self.clock.read(now);
        let core = self.core.as_mut()?;
        while let Some(order) = core.poll_spare(local) {
            self.spares.push(order);
        }
        if self.ticket.is_some() {
            return None;
        }
        self.ticket = core.poll_ticket(local);
        self.ticket.as_ref().map(|_| self.disk_us(random, now))
    }

    /// The disk writes the ticket that is out; says when it will have synced it.
    pub(super) fn write(&mut self, random: &mut ChaCha8Rng, now: Time) -> Result<u64, SyncError> {
        if let Some(ticket) = &self.ticket {
            ticket.write()?;
        }
        Ok(self.disk_us(random, now))
    }

    /// The disk syncs the ticket that is out.
    pub(super) fn sync(&mut self, now: Time) -> Result<(), SyncError> {
        if let (Some(ticket), Some(core)) = (self.ticket.take(), self.core.as_mut()) {
            core.handle_synced(self.clock.read(now), ticket.sync()?);
            let log = core.log();
            if log.durable_generation() == log.generation() {
                self.synced.vote = log.vote();
            }
        }
        Ok(())
    }

    /// Nothing is wrong with the disk any more but what it has done already.
    pub(super) fn calm_down(&mut self) {
        self.disk.fill(false);
        self.disk.forget_faults();
        self.hangs_until = Time(0);
        self.thaws_at = Time(0);
    }

    /// Lets the disk be full, or not any more.
    pub(super) fn fill(&self, is_full: bool) {
        self.disk.fill(is_full);
    }

    /// Lets one of the next few writes or syncs fail.
    pub(super) fn fail_disk(&self, random: &mut ChaCha8Rng) {
        let n = within(random, (1, 4));
        if chance(random, 500) {
            self.disk.fail_sync(n);
        } else {
            self.disk.fail_write(n);
        }
    }

    /// Lets the disk change what it had confirmed; false if there is nothing yet that it may change.
    pub(super) fn rot(&mut self, random: &mut ChaCha8Rng) -> Option<&'static str> {
        debug_assert!(self.core.is_none(), "it is done to a disk at rest");
        let hit = rot::strike(&self.disk, &self.struck, &self.older_vote, random)?;
        let how = hit.how;
        self.struck.add(hit);
        Some(how)
    }

    /// What its disk has changed that it had confirmed.
    pub(super) fn struck(&self) -> &Struck {
        &self.struck
    }

    /// Whether it can read all that it started with, and is who it was.
    pub(super) fn is_whole(&self) -> bool {
        let is_itself =
            Identity::load(&self.disk).is_ok_and(|it| it == identity(self.id, Some(incarnation(self.id))));
        let log = self.core.as_ref().map(Core::log);
        is_itself && log.is_some_and(|log| (1..=log.last_index()).all(|index| log.entry(index).is_ok()))
    }

    /// True if segments are ordered.
    pub(super) fn has_orders(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Makes the segments that were ordered.
    pub(super) fn make_spares(&mut self, now: Time) -> Result<bool, SyncError> {
        let local = self.clock.read(now);
        let Some(core) = self.core.as_mut() else { return Ok(false) };
        let made = !self.spares.is_empty();
        for order in self.spares.drain(..) {
            core.handle_spare(local, order.run()?);
        }
        Ok(made)
    }

    /// A disk is quick, and now and then it is not.
    fn disk_us(&self, random: &mut ChaCha8Rng, now: Time) -> u64 {
        let usual = within(random, DISK_US);
        let slow = chance(random, 5);
        let hung = within(random, HUNG_DISK_US);
        match now < self.hangs_until {
            _ if now < self.thaws_at => self.thaws_at.since(now) + usual,
            true => hung,
            false if slow => usual * 50,
            false => usual,
        }
    }
}

/// Who a broker is, before and after its first start.
pub(super) fn identity(id: u64, incarnation: Option<[u8; 16]>) -> Identity {
    Identity { cluster: CLUSTER.0, lineage: LINEAGE.0, broker: id, incarnation }
}

/// What it draws then.
fn incarnation(id: u64) -> [u8; 16] {
    u128::from(id).to_le_bytes()
}

/// The simulated cluster.
pub(super) const CLUSTER: ClusterId = ClusterId(*b"simulated world.");
/// Its history.
pub(super) const LINEAGE: Lineage = Lineage(*b"the first lineag");

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;
    use sequor_wal::{Disk, Haste};

    use super::super::world::genesis;
    use super::*;

    #[test]
    fn a_disk_is_believed_to_keep_what_it_has_synced() {
        let (mut random, mut now) = (ChaCha8Rng::seed_from_u64(1), Time(0));
        let mut machine = Machine::new(1, &genesis(1), Build::SMALL, Clock::right());
        machine.start(&mut random, now).unwrap();
        // Alone, it elects itself, and writes the entry that begins its term.
        let entry = loop {
            now = now + Build::SMALL.tick_us;
            assert!(now < Time::from_ms(5_000), "it does not lead");
            let core = machine.core.as_mut().unwrap();
            core.handle_tick(now);
            core.pass(now, 0);
            let has_work = machine.begin_disk_work(&mut random, now).is_some();
            machine.make_spares(now).unwrap();
            if !has_work {
                continue;
            }
            machine.write(&mut random, now).unwrap();
            match machine.ticket.as_ref().and_then(Ticket::range) {
                Some((_, last)) => {
                    break machine.core.as_ref().unwrap().log().position(last).unwrap().unwrap();
                }
                None => machine.sync(now).unwrap(),
            }
        };
        assert!(!machine.holds(entry) && !machine.would_keep(entry), "it is written, and not synced");
        machine.sync(now).unwrap();
        assert!(machine.holds(entry) && machine.would_keep(entry));
        let other = Position { chain: entry.chain ^ 1, ..entry };
        assert!(!machine.holds(other) && !machine.would_keep(other));
        // It has not applied it when its disk fails, and with it the broker.
        machine.disk.fail_sync(1);
        assert!(machine.disk.create("a", 512, &Haste::at_once()).is_err() && machine.disk_is_down());
        machine.die(Death::PowerCut, &mut random);
        assert!(machine.holds(entry) && machine.would_keep(entry) && !machine.holds(other));
    }
}
