//! Files of one broker that are lost, or put back to what they were: whatever can be noticed has to be noticed, and
//! whatever cannot must do no harm.
//!
//! What a loss comes to is known here from the disk as it was before, and from what leaders were told (`remains.rs`):
//!
//! | what is left | what has to happen |
//! |---|---|
//! | contradicts itself | the broker does not start, twice in a row; it names the file; no block is changed |
//! | is less than a leader has counted, and that leader still leads | the broker stops when it hears of that leader, and says why |
//! | might be all that ever was | nobody can know: it starts, every promise is kept, and it is repaired |
//! | is all that mattered: a spare is gone, a file was put back that is the same | it starts, and remembers everything |
//!
//! A broker that was refused gets its files back, as an operator finds the right disk, and goes on. One that was stopped
//! while it ran stays away: since its loss it may have said things that the old files do not know of.
//!
//! # Why a loss that nobody can notice does no harm here
//!
//! In general it does: a broker that forgot an entry can vote for a leader that never had it, and one that forgot a
//! vote can give it twice. No code of that broker can prevent this, for its disk is in a state in which it once was. So
//! this profile judges under the one condition that an operator can keep, too: **a broker whose disk has lost something comes
//! back only when all others run, follow one leader, and have all that this leader had a while ago** ([`World::is_safe`]).
//! Then
//!
//! * whatever it ever acknowledged, and was or will be committed because of that, all others have on their disks. So it
//!   does not matter that the leader still counts its copy; and who is elected with its vote has every such entry;
//! * whatever it ever voted in, all others have left behind or follow the leader of: nobody is a candidate of
//!   that term any more, and nothing is on its way from then, for it was down longer than any message travels;
//! * what it says from now on rests on what it has now. It is a broker that was down for long, as others are.
//!
//! While it is away its copies still count as durable: as long as it does not come back, it votes for nobody, and to
//! commit anything else, all that share a copy with it have to be there. One broker alone is struck, and nothing else is
//! done to disks, so one good copy of all that is committed remains, and a majority of good disks.
//!
//! What cannot be noticed: the end of the log, if no leader has counted it or another one leads since; a vote, as long as no
//! entry has its term. Both at once, with a directory that is put back whole.

mod lost;
mod remains;

use std::collections::BTreeMap;

use raft::eraftpb::{Message, MessageType};
use rand_chacha::ChaCha8Rng;
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{Disk, IdentityError, Index, Position, Term};

pub(super) use self::lost::Lost;
use self::remains::{Files, Loss, Remains};
pub(super) use self::remains::{segment, segment_id};
use super::chance::{chance, pick, within};
use super::cluster::slot;
use super::faults::{Fault, Profile};
use super::judge::{Violation, violated};
use super::machine::{Death, Machine, StartError};
use super::rot::{IDENTITY, VOTE};
use super::world::{Event, WELL_WITHIN_US, World};
use crate::core::Core;
use crate::core::time::Time;

/// Copies of a disk that are kept. Count.
const COPIES_MAX: usize = 3;
/// How often it is looked whether a broker may come back. Microseconds.
const LOOK_AGAIN_US: u64 = 50_000;
/// How long a broker is down that got its files back. Microseconds.
const FOUND_AGAIN_US: u64 = 1_000;
/// How often it is one of the last segments that is removed, per thousand: there lies what nobody may miss.
const LATE_SEGMENT_PER_MILLE: u64 = 600;
/// How many of the last segments those are: the spares, the one in use, and the one before. Count.
const LATE_SEGMENTS: u64 = 4;
/// How often a segment that is put back has changed since, if there is such a one, per thousand.
const CHANGED_PER_MILLE: u64 = 800;

/// A disk as it was.
#[derive(Clone, Debug)]
struct Copy {
    files: Files,
    remains: Remains,
}

/// A broker whose disk has lost something, and which has not come back yet.
#[derive(Debug)]
struct Away {
    broker: u64,
    what: Lost,
    loss: Loss,
    /// Its disk before the loss.
    before: Copy,
    /// The latest term in which it may have voted.
    voted: Term,
    /// Who led when it was last looked, and what that one had.
    seen: Option<Leader>,
}

/// Who is followed by all that run.
#[derive(Clone, Copy, Debug)]
struct Leader {
    id: u64,
    term: Term,
    last: Position,
}

/// A broker that has to be told that it has lost entries.
#[derive(Clone, Copy, Debug)]
struct Telling {
    leader: Leader,
    /// Since when nothing else befell a broker.
    since: Time,
    counted: Index,
    left: Index,
}

/// All that is known here of losses. See the module's header.
#[derive(Debug, Default)]
pub(super) struct Losses {
    is_on: bool,
    copies: Vec<Copy>,
    /// Up to which index the leader of a term was told that a broker has its log.
    counted: BTreeMap<(Term, u64), Index>,
    away: Option<Away>,
    telling: Option<Telling>,
    /// The broker that was struck, and when it last came back with less than it had.
    came_back: Option<(u64, Time)>,
    /// When something last befell a broker.
    disturbed: Time,
}

impl Losses {
    pub(super) fn new(profile: Profile) -> Self {
        Self { is_on: profile == Profile::Loss, ..Self::default() }
    }

    /// Whether a broker must not be started now.
    pub(super) fn keep_away(&self, broker: u64) -> bool {
        self.away.as_ref().is_some_and(|away| away.broker == broker)
    }

    /// Whether all that has to be noticed was.
    pub(super) fn are_told(&self) -> bool {
        self.telling.is_none()
    }

    /// Whether a broker was there at a moment, and has not come back from a loss since.
    pub(super) fn is_settled(&self, broker: u64, at: Time) -> bool {
        let is_late = self.came_back.is_some_and(|(struck, back)| struck == broker && back > at);
        !is_late && !self.keep_away(broker)
    }

    /// A message of a follower reaches a broker.
    pub(super) fn counts(&mut self, core: &Core, from: u64, message: &Message) {
        let is_told = self.is_on
            && message.get_msg_type() == MessageType::MsgAppendResponse
            && !message.reject
            && core.leads()
            && core.status().term == message.term;
        if is_told {
            let counted = self.counted.entry((message.term, from)).or_default();
            *counted = message.index.max(*counted);
        }
    }

    /// Something goes wrong, or right again.
    pub(super) fn note(&mut self, now: Time, fault: Fault) {
        let disturbs = matches!(
            fault,
            Fault::Die { .. }
                | Fault::DieAll { .. }
                | Fault::Stop { .. }
                | Fault::Pause { .. }
                | Fault::BreakLink { .. }
                | Fault::Lose { .. }
        );
        if disturbs {
            self.disturbed = now;
        }
    }
}

impl World {
    /// Somebody copies what a broker's disk has confirmed.
    pub(super) fn remember(&mut self, broker: u64) {
        if self.machine(broker).lost || self.losses.keep_away(broker) {
            return;
        }
        let copy = Copy::of(self.machine(broker).disk(), MemoryDisk::durable_image);
        let copies = &mut self.losses.copies;
        if copies.len() == COPIES_MAX {
            copies.remove(0);
        }
        copies.push(copy);
    }

    /// A broker dies, and something on its disk is lost.
    pub(super) fn lose_files(
        &mut self,
        broker: u64,
        what: Lost,
        death: Death,
        down_us: u64,
    ) -> Result<(), Violation> {
        if self.machine(broker).lost || self.machine(broker).forgetful || self.losses.away.is_some() {
            return Ok(());
        }
        self.die(broker, death, Some(down_us))?;
        let machine = &self.machines[slot(broker)];
        let before = Copy::of(machine.disk(), MemoryDisk::image);
        let Some(after) = before.without(what, &self.losses.copies, &mut self.random) else {
            // It is started again all the same, if it was running.
            return Ok(());
        };
        put(&after.files, machine.disk());
        self.reached.note(Fault::Lose { broker, what, death, down_us }.name());
        let loss = before.remains.judge(&after.remains);
        let voted = before.remains.vote.map_or(0, |vote| vote.term);
        self.losses.away = Some(Away { broker, what, loss, before, voted, seen: None });
        self.after(down_us, Event::ComeBack { broker });
        Ok(())
    }

    /// A broker whose disk has lost something is started, if that is safe by now.
    pub(super) fn come_back(&mut self, broker: u64) -> Result<(), Violation> {
        let Some(mut away) = self.losses.away.take() else { return Ok(()) };
        match away.loss.clone() {
            Loss::Nothing => {
                self.reached.note(away.what.when_nothing_is_lost());
                self.start(broker)
            }
            Loss::Contradiction { file } => {
                self.must_refuse(broker, &file, &away)?;
                put(&away.before.files, self.machine(broker).disk());
                self.after(FOUND_AGAIN_US, Event::Start { broker });
                Ok(())
            }
            Loss::Unseen { left, shown } => {
                let Some(leader) = self.is_safe(&mut away) else {
                    self.losses.away = Some(away);
                    self.after(LOOK_AGAIN_US, Event::ComeBack { broker });
                    return Ok(());
                };
                // Other copies are of a history that may not go on from here.
                self.losses.copies.clear();
                self.losses.came_back = Some((broker, self.now));
                self.machine(broker).settle_for(shown);
                let counted = self.losses.counted.get(&(leader.term, broker)).copied().unwrap_or_default();
                if counted > left {
                    self.machine(broker).forgetful = true;
                    self.losses.telling = Some(Telling { leader, since: self.now, counted, left });
                } else {
                    self.reached.note(away.what.when_nobody_knows(left < away.before.remains.last()));
                }
                self.start(broker)?;
                if counted > left {
                    self.after(WELL_WITHIN_US, Event::Told { broker });
                }
                Ok(())
            }
        }
    }

    /// What is left on a disk contradicts itself, at this file: no start succeeds, and none makes it worse.
    fn must_refuse(&mut self, broker: u64, file: &str, away: &Away) -> Result<(), Violation> {
        let (what, remains) = (away.what, &away.before.remains);
        let left = files_of(self.machine(broker).disk(), MemoryDisk::image);
        for _ in 0..2 {
            match self.machines[slot(broker)].start(&mut self.random, self.now) {
                Ok(()) => {
                    return violated(format!(
                        "broker {broker} starts, and {file} is not what it was: {what:?}"
                    ));
                }
                Err(error) if names(&error, file) => {}
                Err(error) => {
                    return violated(format!(
                        "broker {broker} does not start, but not because of {file} ({what:?}): {error}"
                    ));
                }
            }
            let found = files_of(self.machine(broker).disk(), MemoryDisk::image);
            if let Some(changed) = first_change(remains, &left, &found) {
                return violated(format!("broker {broker} does not start ({what:?}), and changes {changed}"));
            }
        }
        self.reached.note(what.when_refused());
        Ok(())
    }

    /// Whether a broker may come back with less than it had: all others run, follow one leader in no earlier term than it
    /// voted in, and have all that this leader had when it was last looked.
    fn is_safe(&self, away: &mut Away) -> Option<Leader> {
        let others: Vec<&Machine> =
            self.machines.iter().filter(|machine| machine.id != away.broker).collect();
        let cores: Vec<&Core> = others
            .iter()
            .filter(|machine| machine.is_awake())
            .filter_map(|machine| machine.core.as_ref())
            .collect();
        let status = cores.iter().find(|core| core.leads()).map(|core| (core.status(), core.log().last()));
        let leader = status.map(|(status, last)| Leader { id: status.id.0, term: status.term, last });
        let before = std::mem::replace(&mut away.seen, leader);
        let (leader, before) = (leader?, before?);
        let has_all = |core: &&Core| {
            core.leader().is_some_and(|followed| followed.0 == leader.id)
                && core.status().term == leader.term
                && core.log().durable() >= before.last.index
                && core.log().position(before.last.index).ok().flatten() == Some(before.last)
        };
        let is_safe = cores.len() == others.len()
            && (before.id, before.term) == (leader.id, leader.term)
            && leader.term >= away.voted
            && cores.iter().all(has_all);
        is_safe.then_some(leader)
    }

    /// A broker stops because its disk has lost something, and stays away.
    pub(super) fn stop_for_loss(&mut self, broker: u64) -> Result<(), Violation> {
        self.reached.note("stopped: a leader knew of more");
        let machine = self.machine(broker);
        machine.lost = true;
        machine.forgetful = false;
        self.losses.telling = None;
        self.die(broker, Death::Kill, Some(0))
    }

    /// A broker that came back with less than its leader has counted has run with it for a while.
    pub(super) fn must_be_told(&mut self, broker: u64) -> Result<(), Violation> {
        let now = self.now;
        let Some(Telling { leader, since, counted, left }) = self.losses.telling else { return Ok(()) };
        let leads = |core: &Core| core.leads() && core.status().term == leader.term;
        if !self.core(leader.id).is_some_and(|core| leads(core)) {
            // Whoever leads now has counted nothing yet, and repairs it.
            self.reached.note("not told: another broker leads");
            self.losses.telling = None;
            return Ok(());
        }
        if self.losses.disturbed > since || !self.is_awake(broker) {
            self.losses.telling = Some(Telling { leader, since: now, counted, left });
            self.after(WELL_WITHIN_US, Event::Told { broker });
            return Ok(());
        }
        let status = self.core(broker).map(|core| core.status());
        violated(format!(
            "broker {broker} has lost what it had behind entry {left}, its leader {} has counted {counted}, and it still \
             runs: {status:?}",
            leader.id
        ))
    }
}

impl Copy {
    /// Copies what `image` shows of each file of a disk.
    fn of(disk: &MemoryDisk, image: impl Fn(&MemoryDisk, &str) -> Option<Vec<u8>>) -> Self {
        let files = files_of(disk, image);
        let another = MemoryDisk::new();
        put(&files, &another);
        Self { remains: Remains::read(&another), files }
    }

    /// The same after a loss; `None` if there is nothing yet that can be lost like that.
    fn without(&self, what: Lost, copies: &[Self], random: &mut ChaCha8Rng) -> Option<Self> {
        let mut after = self.clone();
        match what {
            Lost::Segment => {
                let id = self.pick_segment(random)?;
                after.files.remove(&segment(id));
                after.remains.segments.remove(&id);
                after.remains.torn.remove(&id);
                return Some(after);
            }
            Lost::Vote => {
                after.files.remove(VOTE)?;
                after.remains.vote = None;
                return Some(after);
            }
            Lost::Identity => {
                after.files.remove(IDENTITY)?;
                after.remains.has_identity = false;
                return Some(after);
            }
            Lost::OlderSegment | Lost::OlderVote | Lost::OlderIdentity | Lost::OlderDirectory => {}
        }
        if copies.is_empty() {
            return None;
        }
        let older = pick(random, copies);
        match what {
            Lost::OlderDirectory => return Some(older.clone()),
            Lost::OlderVote => {
                after.files.insert(VOTE.into(), older.files.get(VOTE)?.clone());
                after.remains.vote = older.remains.vote;
            }
            Lost::OlderIdentity => {
                after.files.insert(IDENTITY.into(), older.files.get(IDENTITY)?.clone());
            }
            _ => {
                let id = self.pick_common(older, random)?;
                after.files.insert(segment(id), older.files.get(&segment(id))?.clone());
                after.remains.segments.insert(id, older.remains.segments.get(&id)?.clone());
                match older.remains.torn.get(&id) {
                    Some(due) => after.remains.torn.insert(id, *due),
                    None => after.remains.torn.remove(&id),
                };
            }
        }
        Some(after)
    }

    fn pick_segment(&self, random: &mut ChaCha8Rng) -> Option<u64> {
        let highest = *self.remains.segments.keys().next_back()?;
        let is_late = chance(random, LATE_SEGMENT_PER_MILLE);
        let back = within(random, (0, if is_late { LATE_SEGMENTS.min(highest) - 1 } else { highest - 1 }));
        Some(highest - back)
    }

    /// A segment that there was before, too.
    fn pick_common(&self, older: &Self, random: &mut ChaCha8Rng) -> Option<u64> {
        let (now, then) = (&self.remains.segments, &older.remains.segments);
        let common: Vec<u64> = now.keys().copied().filter(|id| then.contains_key(id)).collect();
        let changed: Vec<u64> = common.iter().copied().filter(|id| now.get(id) != then.get(id)).collect();
        let wants_change = chance(random, CHANGED_PER_MILLE);
        let from = if wants_change && !changed.is_empty() { &changed } else { &common };
        (!from.is_empty()).then(|| *pick(random, from))
    }
}

/// What `image` shows of each file of a disk.
fn files_of(disk: &MemoryDisk, image: impl Fn(&MemoryDisk, &str) -> Option<Vec<u8>>) -> Files {
    let names = disk.list().expect("no disk fails in this profile");
    names.into_iter().filter_map(|name| Some((name.clone(), image(disk, &name)?))).collect()
}

/// Lets a disk hold these files, and no others.
fn put(files: &Files, disk: &MemoryDisk) {
    const WHY: &str = "no disk fails in this profile";
    let there = files_of(disk, MemoryDisk::image);
    for name in there.keys().filter(|name| !files.contains_key(*name)) {
        disk.remove(name).expect(WHY);
    }
    for (name, bytes) in files.iter().filter(|(name, bytes)| there.get(*name) != Some(bytes)) {
        disk.replace(name, bytes).expect(WHY);
    }
}

/// Whether a start was refused because of this file.
fn names(error: &StartError, file: &str) -> bool {
    let is_of_its_kind = match error {
        StartError::Identity(error) => matches!(error, IdentityError::NotInitialised),
        StartError::Log(_) => file != VOTE,
        StartError::Vote(_) => file == VOTE,
    };
    is_of_its_kind && error.blames() == Some(file)
}

/// What a start that was refused has changed and must not: anything but that spares go, and that an empty file keeps the
/// place of a vote that is missing.
fn first_change(remains: &Remains, left: &Files, found: &Files) -> Option<String> {
    let is_kept = |name: &&String| match found.get(*name) {
        Some(bytes) => {
            left.get(*name) == Some(bytes) || (*name == VOTE && bytes.is_empty() && !left.contains_key(VOTE))
        }
        None => remains.is_spare(name),
    };
    left.keys().chain(found.keys()).find(|name| !is_kept(name)).cloned()
}
