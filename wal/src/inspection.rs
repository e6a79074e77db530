//! The inspection: everything in a data directory, looked at and not touched.
//!
//! Recovery looks at a directory to go on from it, and stops at the first thing that forbids that. Who inspects it
//! wants to hear of all of them. Both read the segments in the same way (`survey.rs`, `fold.rs`): what recovery
//! refuses is among the findings, and where there are no findings, recovery opens the log.
//!
//! | file | what has to hold |
//! |---|---|
//! | `identity` | it is there and readable, with an incarnation if the broker was ever started |
//! | `checkpoint-…` | there is one; all are readable, hold after the entry that their name says, and its chain is the log's |
//! | `vote` | all four copies are good. One good copy of a generation suffices for a start, which heals the other. No entry has a later term |
//! | `segment-…` | all that recovery asks for: headers, blocks, entries, their order and their chain |
//!
//! A finding is damage: bytes that are not what was once made durable. The end of a log that a crash tore is none,
//! nor is anything that a cut hides: [`Inspection::torn`] says where it is.

use crate::checkpoint::{self, Checkpoint, CheckpointError};
use crate::entry;
use crate::fold::{Cut, FAULTS_MAX, Fold};
use crate::identity::{self, IdentityError};
use crate::segment::{self, Found, Header};
use crate::survey::{Owner, Survey, Used, segments_of};
use crate::vote::{self, VoteFile};
use crate::walk::Walk;
use crate::{Damage, Disk, Identity, Index, OpenError, Position, Vote};

/// Most findings of one directory that are kept; the others are counted. Count.
pub const FINDINGS_MAX: usize = FAULTS_MAX;

/// What is not as it was once made durable.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    listed: Vec<Damage>,
    count: u64,
}

/// A data directory that was looked at.
#[derive(Debug)]
pub struct Inspection {
    identity: Option<Identity>,
    vote: Option<Vote>,
    findings: Findings,
    torn: Option<Damage>,
    last: Position,
    commit: Index,
    used: Vec<Used>,
    spares: u64,
    cuts: Vec<Cut>,
}

/// Why a directory could not be inspected at all.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is nothing of a broker in it.
    #[error(
        "this is no data directory: it has neither an identity nor a checkpoint nor a log. The data directories of a \
         cluster are those that `data` names in the brokers' configurations"
    )]
    NoData,
    /// Its files could not be listed.
    #[error("could not list the files of the data directory")]
    List {
        /// What the disk said.
        source: std::io::Error,
    },
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, damage: Damage) {
        if self.listed.len() < FINDINGS_MAX {
            self.listed.push(damage);
        }
        self.count += 1;
    }

    /// The first [`FINDINGS_MAX`] of them.
    #[must_use]
    pub fn listed(&self) -> &[Damage] {
        &self.listed
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Looks at everything in a data directory. Reads every file once, and a segment whole (at most 1 GiB) into memory;
/// writes and syncs nothing.
///
/// # Errors
/// Only if there is nothing to look at: whatever is wrong with a file is a finding.
pub fn inspect(disk: &dyn Disk) -> Result<Inspection, InspectError> {
    let names = disk.list().map_err(|source| InspectError::List { source })?;
    let has_segments = segments_of(&names).next().is_some();
    if !has_segments && checkpoint::indexes(&names).next().is_none() && !has(&names, identity::NAME) {
        return Err(InspectError::NoData);
    }
    let mut findings = Findings::default();
    let was_started = has_segments || has(&names, vote::NAME);
    let identity = look_at_identity(disk, was_started, &mut findings);
    let owner = identity.as_ref().and_then(owner).or_else(|| first_owner(disk, &names));
    let mut vote = owner.and_then(|owner| look_at_vote(disk, &names, owner, &mut findings));
    // Without an owner there is no segment whose header can be read, but there may be segments.
    let start = owner.unwrap_or(Owner { cluster: [0; 16], incarnation: [0; 16] });
    let (survey, used, damages, more) = look_at_segments(disk, &names, start);
    let Survey { fold, blank, .. } = &survey;
    if let Some(Err(damage)) = vote.map(|vote| vote::check_age(vote, fold.latest)) {
        findings.push(damage);
        vote = None;
    }
    look_at_checkpoints(disk, &names, owner.map(|_| fold), &mut findings);
    damages.into_iter().for_each(|damage| findings.push(damage));
    findings.count += more;
    Ok(Inspection {
        identity,
        vote,
        torn: fold.torn().cloned(),
        last: fold.last,
        commit: fold.commit,
        spares: blank.len() as u64 + u64::from(survey.has_unfinished()),
        cuts: fold.cuts.clone(),
        used,
        findings,
    })
}

impl Inspection {
    /// Whose directory it is, if that can be read.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The vote, if it is known and the broker was ever started.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// What is not as it was once made durable.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Where a crash tore the end of the log. The next start hides it.
    #[must_use]
    pub fn torn(&self) -> Option<&Damage> {
        self.torn.as_ref()
    }

    /// The last entry that a start would show; with findings, the last one before the first of them.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// Highest commit index that a block up to there carries.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// Segments in which something was written.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.used.len() as u64
    }

    /// Segments that were made ahead of their use.
    #[must_use]
    pub fn spares(&self) -> u64 {
        self.spares
    }

    /// All blocks and entries in the order of the files, hidden ones included, from the first segment on that has
    /// an entry at or above `from`. Reads the segments again, one at a time and whole.
    #[must_use]
    pub fn walk(&self, from: Index) -> Walk<'_> {
        Walk::new(&self.used, &self.cuts, from)
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|found| found == name)
}

/// Whose segments there must be, once a broker was started on the directory.
fn owner(identity: &Identity) -> Option<Owner> {
    identity.incarnation.map(|incarnation| Owner { cluster: identity.cluster, incarnation })
}

/// Whose segments there are: what the first one says of which that can be read.
fn first_owner(disk: &dyn Disk, names: &[String]) -> Option<Owner> {
    segments_of(names).find_map(|(name, id)| {
        let region = disk.open(name).ok()?;
        let mut head = [0; segment::HEADER_BYTES];
        region.scan(0, &mut head).ok()?;
        match Header::read(&head, id, region.bytes()) {
            Found::Header(Header { cluster, incarnation, .. }) => Some(Owner { cluster, incarnation }),
            Found::Format(_) | Found::Nothing(_) => None,
        }
    })
}

fn look_at_identity(disk: &dyn Disk, was_started: bool, findings: &mut Findings) -> Option<Identity> {
    let damage = |expected: &str, found: String| Damage {
        file: identity::NAME.into(),
        offset: 0,
        expected: expected.into(),
        found,
    };
    match Identity::load(disk) {
        Ok(identity) => {
            if was_started && identity.incarnation.is_none() {
                findings.push(damage("an incarnation, for the broker was started before", "none".into()));
            }
            return Some(identity);
        }
        Err(IdentityError::File(error)) => findings.push(error.into_damage(identity::NAME)),
        Err(IdentityError::NotInitialised) => {
            findings.push(damage("the identity of a broker", "no file".into()));
        }
        Err(error) => findings.push(damage("the identity of a broker", error.to_string())),
    }
    None
}

fn look_at_checkpoints(disk: &dyn Disk, names: &[String], fold: Option<&Fold>, findings: &mut Findings) {
    if checkpoint::indexes(names).next().is_none() {
        let (expected, found) = ("the first state of the cluster".into(), "no file".into());
        findings.push(Damage { file: checkpoint::file_name(0), offset: 0, expected, found });
    }
    for index in checkpoint::indexes(names) {
        let file = checkpoint::file_name(index);
        match Checkpoint::load(disk, index) {
            Ok(None) => {}
            Ok(Some(checkpoint)) => {
                // An entry that cannot be read is a finding of its segment.
                let logged = fold.and_then(|fold| fold.position(index).ok().flatten());
                let held = checkpoint.position();
                if let Some(logged) = logged.filter(|logged| *logged != held) {
                    let expected = format!("the state after the log's entry {logged:?}");
                    findings.push(Damage { file, offset: 0, expected, found: format!("after {held:?}") });
                }
            }
            Err(CheckpointError::File(error)) => findings.push(error.into_damage(&file)),
            Err(CheckpointError::NoPosition { .. }) => {
                let (expected, found) = (format!("a section that says: after entry {index}"), "none".into());
                findings.push(Damage { file, offset: 0, expected, found });
            }
        }
    }
}

fn look_at_vote(
    disk: &dyn Disk,
    names: &[String],
    Owner { incarnation, .. }: Owner,
    findings: &mut Findings,
) -> Option<Vote> {
    if !has(names, vote::NAME) {
        // The file is there before the first segment is made.
        if segments_of(names).next().is_some() {
            findings.push(vote::missing());
        }
        return None;
    }
    let region = disk.open(vote::NAME);
    match region.and_then(|region| VoteFile::inspect(&*region, incarnation)) {
        Ok((vote, damages)) => {
            damages.into_iter().for_each(|damage| findings.push(damage));
            vote
        }
        Err(source) => {
            findings.push(unreadable(vote::NAME, &source));
            None
        }
    }
}

/// Surveys all segments; what is used, the damages in the order of the files, and how many more there are.
fn look_at_segments(
    disk: &dyn Disk,
    names: &[String],
    owner: Owner,
) -> (Survey, Vec<Used>, Vec<Damage>, u64) {
    let mut survey = Survey::new(owner);
    let (mut used, mut obstacles) = (Vec::new(), Vec::new());
    for (name, id) in segments_of(names) {
        let known = obstacles.len();
        obstacles.extend(survey.expect_no_gap(id).err());
        obstacles.extend(survey.expect_finished().err());
        if obstacles.len() > known {
            survey.fold.lose_file();
        }
        match survey.add(disk, name, id) {
            Ok(found) => used.extend(found),
            Err(error) => {
                obstacles.push(damage_of(error, name));
                survey.fold.lose_file();
            }
        }
    }
    let (mut damages, more) = survey.fold.damages();
    damages.append(&mut obstacles);
    damages.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
    (survey, used, damages, more)
}

/// What is wrong with a segment that cannot be part of the log.
fn damage_of(error: OpenError, name: &str) -> Damage {
    let (offset, expected, found) = match error {
        OpenError::Damaged(damage) => return damage,
        OpenError::Io { source, .. } => return unreadable(name, &source),
        OpenError::WrongFormat { found, supported, .. } => {
            (entry::FORMAT_AT, format!("a segment of format {supported}"), format!("format {found}"))
        }
        OpenError::WrongCluster { .. } => (
            segment::CLUSTER_AT,
            "a segment of this cluster".into(),
            "one of another cluster: this directory was mixed with another one".into(),
        ),
        OpenError::WrongIncarnation { .. } => (
            segment::INCARNATION_AT,
            "a segment of this incarnation".into(),
            "one of another incarnation: this directory was mixed with another one".into(),
        ),
        error => (0, "a segment of this log".into(), error.to_string()),
    };
    Damage { file: name.into(), offset: offset as u64, expected, found }
}

fn unreadable(name: &str, source: &std::io::Error) -> Damage {
    let (expected, found) = ("bytes that can be read".into(), source.to_string());
    Damage { file: name.into(), offset: 0, expected, found }
}
