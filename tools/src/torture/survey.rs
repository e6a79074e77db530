//! What each broker's disk holds at the end, read when the broker has stopped.
//!
//! Clients only ever see the leader's log. Here the committed part of every broker's own log is read, entry by entry, as
//! `wal verify` reads it, and becomes events: what is held, and what was given up. A disk may know of less to be committed
//! than its broker did, as the last commits of a log need not be written down; so whoever asked the brokers at the end
//! says how far it goes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use thiserror::Error;

use sequor_broker::{
    core::effect::{Effect, Effects, EntryError, Sealing, Written},
    history::{Digest, Event, Run},
};
use sequor_client::protocol::{BrokerId, ProducerId, batch::Batch};
use sequor_wal::{
    Damage, Index, InspectError, Item, Kind,
    disk::{mmap::OpenDirError, read_only::ReadOnlyDisk},
    inspect,
};

use super::history::Recorder;
use crate::{
    exit::{Exit, Verdict},
    visible::visible_path,
};

/// A broker's disk does not hold what it must.
#[derive(Debug, Error)]
pub(crate) enum SurveyError {
    /// It cannot be opened: does the broker still run?
    #[error(transparent)]
    Open(#[from] OpenDirError),
    /// There is nothing of a broker in it.
    #[error("cannot look at {}", visible_path(.path))]
    Inspect {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: InspectError,
    },
    /// Something in it is not as it was written.
    #[error("{} is damaged: {} at {}: expected {}, found {}", visible_path(.path), .damage.file, .damage.offset, .damage.expected, .damage.found)]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// The first finding.
        damage: Box<Damage>,
    },
    /// An entry cannot be read.
    #[error("entry {index} in {} cannot be read", visible_path(.path))]
    Entry {
        /// The directory.
        path: PathBuf,
        /// Its index.
        index: u64,
        /// Why.
        source: EntryError,
    },
}

impl Verdict for SurveyError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// Records what the log in a data directory holds, up to the last index of which the broker knew that it is committed.
///
/// # Errors
/// If it is damaged, or cannot be read.
pub(super) fn survey(
    recorder: &Recorder,
    broker: BrokerId,
    path: &Path,
    committed: Index,
) -> Result<(), SurveyError> {
    let own = || path.to_path_buf();
    let disk = ReadOnlyDisk::open(path)?;
    let inspection = inspect(&disk).map_err(|source| SurveyError::Inspect { path: own(), source })?;
    let damaged = |damage| SurveyError::Damaged { path: own(), damage: Box::new(damage) };
    if let Some(damage) = inspection.findings().listed().first() {
        return Err(damaged(damage.clone()));
    }
    let commit = committed.max(inspection.commit());
    let mut log = Log { recorder, broker: broker.0, names: HashMap::new(), end: 0 };
    for item in inspection.walk(0) {
        let entry = match item.map_err(damaged)? {
            Item::Entry(walked) if !walked.hidden && walked.entry.index <= commit => walked.entry,
            _ => continue,
        };
        if entry.kind == Kind::ConfChange || entry.data.is_empty() {
            continue;
        }
        let unreadable = |source| SurveyError::Entry { path: own(), index: entry.index, source };
        for effect in Effects::open(entry.data.clone()).map_err(unreadable)? {
            log.take(&effect.map_err(unreadable)?);
        }
    }
    recorder.record(&Event::Ended { broker: broker.0, end: log.end });
    Ok(())
}

struct Log<'a> {
    recorder: &'a Recorder,
    broker: u64,
    names: HashMap<ProducerId, String>,
    end: u64,
}

impl Log<'_> {
    fn take(&mut self, effect: &Effect) {
        let broker = self.broker;
        match effect {
            Effect::Open(opening) => {
                let (producer, epoch) = (opening.name.to_string(), opening.epoch.0);
                self.names.insert(opening.id, producer.clone());
                self.recorder.record(&Event::Granted { broker, producer, epoch });
            }
            Effect::Append(Written { base, batch, .. }) => {
                let producer = self.name(batch.producer());
                let run = Run {
                    offset: base.0,
                    epoch: batch.epoch().0,
                    first: batch.first_sequence().0,
                    count: batch.count(),
                    digest: digest(&producer, batch, 0),
                    producer,
                };
                self.end = base.0 + u64::from(run.count);
                self.recorder.record(&Event::Held { broker, run });
            }
            Effect::Seal(Sealing { id, first, end, .. }) => {
                let (producer, first, end) = (self.name(*id), first.0, end.0);
                self.recorder.record(&Event::GaveUp { broker, producer, first, end });
            }
            // Nobody here retires a name or writes under a session.
            Effect::Retire(_) | Effect::Session(_) | Effect::Renew(_) | Effect::Expire(_) => {}
        }
    }

    fn name(&self, id: ProducerId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("#{id}"))
    }
}

/// The digest of a batch behind its first `skip` records. If not all of it can be read, it is another one.
pub(super) fn digest(producer: &str, batch: &Batch, skip: u32) -> Digest {
    let Ok(unpacked) = batch.unpacked() else { return Digest::default() };
    let records = (batch.first_sequence().0..).zip(unpacked.records().map_while(Result::ok));
    let records = records.skip(skip as usize);
    let of = |(sequence, record): (u64, sequor_client::Record)| {
        Digest::of_record(producer, sequence, record.key.as_deref(), record.value.as_deref())
    };
    records.map(of).sum()
}
