//! Crashes at every write and at every sync, and the log against a plain vector.
//!
//! A script of appends, cuts, votes, commits and tickets is run once to count what it writes and syncs; then
//! again and again, each time with the next write or sync failing, followed by a power cut (any subset of the
//! unsynced sectors stays), a kill (all that was written stays, unsynced), or one after the other. What the
//! log then shows must be what was synced, or that and the one ticket that was in flight. Nothing else,
//! nothing less.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use proptest::prelude::*;
use rig::{Rig, all, entry, known, positions, small};
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{Entry, Index, Opened, SyncError, Ticket, Vote, open};
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    /// So many entries of so many bytes each.
    Append {
        count: u8,
        bytes: u16,
    },
    /// Replaces the last entries, as far as they are not committed, in a new term.
    Replace {
        back: u8,
        count: u8,
        bytes: u16,
    },
    /// A vote in a new term, for this broker.
    Vote {
        candidate: u8,
    },
    /// Everything is committed, or everything that is durable here: a quorum may be ahead of this disk.
    Commit {
        ahead: bool,
    },
    Witness,
    /// Takes a ticket and writes it.
    Write,
    /// Syncs the ticket that was written.
    Sync,
    /// Everything that is staged.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5u8, 0..900u16).prop_map(|(count, bytes)| Step::Append { count, bytes }),
        2 => (1..9u8, 1..4u8, 0..600u16)
            .prop_map(|(back, count, bytes)| Step::Replace { back, count, bytes }),
        1 => (1..4u8).prop_map(|candidate| Step::Vote { candidate }),
        1 => any::<bool>().prop_map(|ahead| Step::Commit { ahead }),
        1 => Just(Step::Witness),
        3 => Just(Step::Write),
        3 => Just(Step::Sync),
        1 => Just(Step::Settle),
    ]
}

/// What the disk may show after a crash.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shown {
    entries: Vec<Entry>,
    vote: Vote,
}

/// A log, the vector that it has to equal, and what of both is durable.
struct World {
    rig: Rig,
    entries: Vec<Entry>,
    term: u64,
    synced: Shown,
    /// What is shown if the ticket that is out reaches the disk: first its vote, then its block.
    in_flight: Vec<Shown>,
    ticket: Option<Ticket>,
}

impl World {
    fn new(disk: MemoryDisk) -> Self {
        let rig = Rig::on(disk, small()).unwrap();
        let shown = Shown { entries: all(&rig.log), vote: rig.log.vote() };
        let term = shown.vote.term.max(shown.entries.last().map_or(0, |entry| entry.term));
        Self { rig, entries: shown.entries.clone(), term, synced: shown, in_flight: Vec::new(), ticket: None }
    }

    fn run(&mut self, script: &[Step]) -> Result<(), SyncError> {
        script.iter().try_for_each(|step| {
            self.rig.make_spares()?;
            self.step(step)?;
            self.compare();
            Ok(())
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), SyncError> {
        match *step {
            Step::Append { count, bytes } => self.append(self.entries.len(), count, bytes),
            Step::Replace { back, count, bytes } => {
                let commit = usize::try_from(self.rig.log.commit()).unwrap();
                self.term += 1;
                self.append(self.entries.len().saturating_sub(usize::from(back)).max(commit), count, bytes);
            }
            Step::Vote { candidate } => {
                self.term += 1;
                self.rig.log.set_vote(Vote { term: self.term, voted_for: u64::from(candidate) });
            }
            Step::Commit { ahead: true } => self.rig.log.set_commit(self.rig.log.last_index()),
            Step::Commit { ahead: false } => self.rig.log.set_commit(self.rig.log.durable()),
            Step::Witness => self.rig.log.request_witness(),
            Step::Write => self.write()?,
            Step::Sync => self.sync()?,
            Step::Settle => loop {
                self.rig.make_spares()?;
                self.write()?;
                if self.ticket.is_none() {
                    break;
                }
                self.sync()?;
            },
        }
        Ok(())
    }

    fn append(&mut self, keep: usize, count: u8, bytes: u16) {
        self.term = self.term.max(1);
        self.rig.enter(self.term);
        self.entries.truncate(keep);
        let first = keep as Index + 1;
        let entries: Vec<Entry> = (0..u64::from(count))
            .map(|n| entry(first + n, self.term, vec![(first + n) as u8 ^ 0x5A; usize::from(bytes)]))
            .collect();
        self.entries.extend_from_slice(&entries);
        self.rig.log.append(entries).unwrap();
    }

    fn write(&mut self) -> Result<(), SyncError> {
        let Some(ticket) = self.rig.log.poll_ticket() else { return Ok(()) };
        let mut shown = self.synced.clone();
        if ticket.has_vote() {
            shown.vote = self.rig.log.vote();
            self.in_flight.push(shown.clone());
        }
        if let Some((first, last)) = ticket.range() {
            let (first, last) = (usize::try_from(first).unwrap(), usize::try_from(last).unwrap());
            shown.entries.truncate(first - 1);
            shown.entries.extend_from_slice(&self.entries[first - 1..last]);
        } else if ticket.bytes() > 0 {
            // A witness in a segment of its own may be what hides a cut suffix.
            shown.entries.truncate(usize::try_from(self.rig.log.durable()).unwrap());
        }
        self.in_flight.push(shown);
        let before = self.images();
        let ticket = self.ticket.insert(ticket);
        let written = ticket.write();
        for ((name, before), (_, after)) in before.iter().zip(self.images()) {
            let kept = before.iter().zip(&after).all(|(before, after)| *before == 0 || before == after);
            assert!(kept, "bytes of {name} were overwritten");
        }
        written
    }

    fn images(&self) -> Vec<(String, Vec<u8>)> {
        let names = (1..100).map(rig::segment);
        names.filter_map(|name| Some((name.clone(), self.rig.disk.image(&name)?))).collect()
    }

    fn sync(&mut self) -> Result<(), SyncError> {
        let Some(ticket) = self.ticket.take() else { return Ok(()) };
        self.rig.log.handle_synced(ticket.sync()?);
        self.synced = self.in_flight.pop().unwrap();
        self.in_flight.clear();
        Ok(())
    }

    /// The log in memory is the vector.
    fn compare(&self) {
        let log = &self.rig.log;
        assert_eq!(all(log), self.entries);
        assert_eq!(log.last_index(), self.entries.len() as Index);
        for (entry, position) in self.entries.iter().zip(positions(&self.entries)) {
            assert_eq!(log.term(entry.index), Some(entry.term));
            assert_eq!(log.position(entry.index).unwrap(), Some(position));
            assert_eq!(log.entry(entry.index).unwrap(), *entry);
        }
        assert_eq!(log.term(log.last_index() + 1), None);
        assert!(log.durable() <= log.last_index());
        let durable_bytes: usize =
            self.entries.iter().skip(log.durable() as usize).map(Entry::encoded_bytes).sum();
        assert_eq!(log.tail_bytes(), durable_bytes);
        if self.ticket.is_none() && log.durable_generation() == log.generation() {
            assert_eq!(self.synced, Shown { entries: self.entries.clone(), vote: log.vote() });
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Write(u64),
    Sync(u64),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Crash(u64),
    Kill,
    KillThenCrash(u64),
}

fn fail(disk: &MemoryDisk, fault: Fault) {
    match fault {
        Fault::Write(n) => disk.fail_write(n),
        Fault::Sync(n) => disk.fail_sync(n),
    }
}

fn end(disk: &MemoryDisk, end: End) {
    match end {
        End::Crash(seed) => disk.crash(seed),
        End::Kill => disk.kill(),
        End::KillThenCrash(seed) => {
            disk.kill();
            disk.crash(seed);
        }
    }
}

/// Runs the script until the fault strikes, ends the process, and checks what it finds when it starts again.
fn strike(script: &[Step], fault: Fault, how: End) {
    let disk = MemoryDisk::new();
    let mut world = World::new(disk.clone());
    fail(&disk, fault);
    let _struck = world.run(script);
    let (synced, mut allowed) = (world.synced.clone(), std::mem::take(&mut world.in_flight));
    allowed.push(synced);
    end(&disk, how);
    drop(world);

    // Starting again is hit as well, at its first writes and syncs.
    for n in 1..4 {
        for fault in [Fault::Write(n), Fault::Sync(n)] {
            fail(&disk, fault);
            if let Ok(opened) = open(Arc::new(disk.clone()), &rig::identity(), small()) {
                allowed = vec![check(&opened, &allowed)];
            }
            disk.crash(n);
        }
    }
    let opened = open(Arc::new(disk.clone()), &rig::identity(), small()).unwrap();
    let shown = check(&opened, &allowed);
    drop(opened);

    // What was shown once is durable.
    disk.crash(4);
    check(&open(Arc::new(disk.clone()), &rig::identity(), small()).unwrap(), std::slice::from_ref(&shown));

    // Life goes on, and what is now written is found by the next start.
    let mut world = World::new(disk.clone());
    world
        .run(&[
            Step::Append { count: 2, bytes: 300 },
            Step::Vote { candidate: 2 },
            Step::Settle,
            Step::Replace { back: 1, count: 3, bytes: 700 },
            Step::Settle,
            Step::Witness,
            Step::Settle,
        ])
        .unwrap();
    assert!(world.synced.entries.len() >= shown.entries.len());
    let synced = world.synced;
    disk.crash(0);
    check(&open(Arc::new(disk), &rig::identity(), small()).unwrap(), &[synced]);
}

fn check(opened: &Opened, allowed: &[Shown]) -> Shown {
    let Opened { log, vote, commit } = opened;
    let shown = Shown { entries: all(log), vote: known(vote) };
    assert!(allowed.contains(&shown), "found {shown:?}\nallowed {allowed:?}");
    assert_eq!(log.vote(), shown.vote);
    assert_eq!(log.durable(), log.last_index());
    assert!(*commit <= log.last_index());
    assert_eq!(
        Some(&log.last()),
        positions(&shown.entries).last().or(Some(&log.position(0).unwrap().unwrap()))
    );
    shown
}

fn strike_everywhere(script: &[Step], seeds: &[u64]) {
    let disk = MemoryDisk::new();
    let mut world = World::new(disk.clone());
    let before = disk.total();
    world.run(script).unwrap();
    let after = disk.total();
    let writes = (1..=after.writes - before.writes).map(Fault::Write);
    let syncs = (1..=after.syncs - before.syncs).map(Fault::Sync);
    for fault in writes.chain(syncs).chain([Fault::Sync(u64::MAX)]) {
        strike(script, fault, End::Kill);
        for &seed in seeds {
            strike(script, fault, End::Crash(seed));
        }
        strike(script, fault, End::KillThenCrash(seeds[0]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_synced_is_lost_and_nothing_else_is_shown(
        script in prop::collection::vec(step(), 1..30),
        seed in any::<u64>(),
    ) {
        strike_everywhere(&script, &[seed, seed ^ 1, seed ^ 2]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vector(scripts in prop::collection::vec(prop::collection::vec(step(), 1..40), 1..5)) {
        let disk = MemoryDisk::new();
        for script in &scripts {
            let mut world = World::new(disk.clone());
            world.run(script).unwrap();
            world.run(&[Step::Sync, Step::Settle]).unwrap();
            prop_assert_eq!(&world.synced.entries, &world.entries);
            disk.kill();
        }
    }
}

#[test]
fn a_long_script_survives_many_power_cuts() {
    let script: Vec<Step> = (0..10)
        .flat_map(|round| {
            [
                Step::Append { count: 3, bytes: 100 * round },
                Step::Write,
                Step::Replace { back: 2, count: 1, bytes: 50 },
                Step::Sync,
                Step::Vote { candidate: 1 },
                Step::Write,
                Step::Sync,
                Step::Commit { ahead: round % 3 == 2 },
                Step::Witness,
                Step::Settle,
            ]
        })
        .collect();
    strike_everywhere(&script, &[1, 2, 3, 4, 5, 6]);
}
