//! What each broker's disk holds at the end, read when the broker has stopped.
//!
//! Clients only ever see the leader's log. Here the committed part of every broker's own log is read, entry by entry, as
//! `wal verify` reads it, and becomes events: what is held, and what was given up. A disk may know of less to be committed
//! than its broker did, as the last commits of a log need not be written down; so whoever asked the brokers at the end
//! says how far it goes.
//!
//! Two promises can be judged by one log alone, and are, here: an opening is granted once, however often its client asks
//! ([`SurveyError::GrantedTwice`]); and nobody gives numbers up under an epoch that another one has replaced
//! ([`SurveyError::Fenced`]). The rest is for the checker.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use thiserror::Error;

use sequor_broker::{
    core::effect::{Effect, Effects, EntryError, Opening, Sealing, Written},
    history::{Digest, Event, Run},
};
use sequor_client::protocol::{BrokerId, Epoch, Instance, ProducerId, Sequence, batch::Batch};
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
    /// Whoever asks again for a name that is already its own must be given what it has.
    #[error(
        "broker {broker}: entry {index} in {} grants {name} epoch {epoch}, to an opening that entry {before} granted it \
         already: one opening has two epochs; `sequor wal dump` shows both entries", visible_path(.path)
    )]
    GrantedTwice {
        /// Whose log.
        broker: BrokerId,
        /// The directory.
        path: PathBuf,
        /// The entry.
        index: Index,
        /// The name.
        name: String,
        /// What it grants.
        epoch: Epoch,
        /// The entry that granted it before.
        before: Index,
    },
    /// Numbers are given up by whoever holds the name, and by nobody who held it before.
    #[error(
        "broker {broker}: entry {index} in {} gives up the numbers {first} up to, not including, {end} of {name} under \
         epoch {epoch}, and epoch {current} holds the name; `sequor wal dump` shows the entries", visible_path(.path)
    )]
    Fenced {
        /// Whose log.
        broker: BrokerId,
        /// The directory.
        path: PathBuf,
        /// The entry.
        index: Index,
        /// The name.
        name: String,
        /// The first number.
        first: Sequence,
        /// One past the last number.
        end: Sequence,
        /// Under which epoch.
        epoch: Epoch,
        /// The epoch that the entries before it leave; 0 if none of them opens the name.
        current: Epoch,
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
    let mut log = Log::new(recorder, broker, path);
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
            log.take(entry.index, &effect.map_err(unreadable)?)?;
        }
    }
    recorder.record(&Event::Ended { broker: broker.0, end: log.end });
    Ok(())
}

struct Log<'a> {
    recorder: &'a Recorder,
    broker: BrokerId,
    path: &'a Path,
    names: HashMap<ProducerId, String>,
    /// The epoch that holds each name.
    epochs: HashMap<ProducerId, Epoch>,
    /// Where each opening was granted.
    openings: HashMap<(ProducerId, Instance), Index>,
    end: u64,
}

impl<'a> Log<'a> {
    fn new(recorder: &'a Recorder, broker: BrokerId, path: &'a Path) -> Self {
        let (names, epochs, openings) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { recorder, broker, path, names, epochs, openings, end: 0 }
    }

    fn take(&mut self, index: Index, effect: &Effect) -> Result<(), SurveyError> {
        let broker = self.broker.0;
        match effect {
            Effect::Open(opening) => {
                let (producer, epoch) = (opening.name.to_string(), opening.epoch.0);
                self.names.insert(opening.id, producer.clone());
                self.recorder.record(&Event::Granted { broker, producer, epoch });
                self.granted(index, opening)?;
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
            Effect::Seal(sealing) => {
                let (producer, first, end) = (self.name(sealing.id), sealing.first.0, sealing.end.0);
                self.recorder.record(&Event::GaveUp { broker, producer, first, end });
                self.gave_up(index, *sealing)?;
            }
            // Nobody here retires a name or writes under a session.
            Effect::Retire(_) | Effect::Session(_) | Effect::Renew(_) | Effect::Expire(_) => {}
        }
        Ok(())
    }

    fn granted(&mut self, index: Index, opening: &Opening) -> Result<(), SurveyError> {
        let Opening { id, epoch, instance, ref name } = *opening;
        self.epochs.insert(id, epoch);
        let Some(before) = self.openings.insert((id, instance), index) else { return Ok(()) };
        let (broker, path, name) = (self.broker, self.path.to_path_buf(), name.to_string());
        Err(SurveyError::GrantedTwice { broker, path, index, name, epoch, before })
    }

    fn gave_up(&self, index: Index, sealing: Sealing) -> Result<(), SurveyError> {
        let Sealing { id, epoch, first, end } = sealing;
        let current = self.epochs.get(&id).copied().unwrap_or_default();
        if epoch == current {
            return Ok(());
        }
        let (broker, path, name) = (self.broker, self.path.to_path_buf(), self.name(id));
        Err(SurveyError::Fenced { broker, path, index, name, first, end, epoch, current })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An opening of a name of its own number, by the client of this number.
    fn opening(id: u64, epoch: u64, client: u8) -> Effect {
        let (id, epoch, name) = (ProducerId(id), Epoch(epoch), format!("writer-{id}"));
        Effect::Open(Opening { id, epoch, instance: Instance([client; 16]), name: name.into() })
    }

    fn sealing(id: u64, epoch: u64) -> Effect {
        let (first, end) = (Sequence(3), Sequence(5));
        Effect::Seal(Sealing { id: ProducerId(id), epoch: Epoch(epoch), first, end })
    }

    /// What is said of a log of these entries.
    fn surveyed(effects: &[Effect]) -> Result<(), SurveyError> {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(&dir.path().join("history")).unwrap();
        let mut log = Log::new(&recorder, BrokerId(2), Path::new("cluster/broker-2"));
        (11..).zip(effects).try_for_each(|(index, effect)| log.take(index, effect))
    }

    #[test]
    fn openings_and_seals_of_who_holds_the_name_are_well() {
        let both = [opening(1, 1, 7), opening(2, 1, 7), sealing(1, 1), opening(1, 2, 8), sealing(1, 2)];
        surveyed(&both).unwrap();
    }

    #[test]
    fn one_opening_is_granted_once() {
        let twice = [opening(1, 1, 7), opening(1, 2, 8), opening(1, 3, 7)];
        let said = surveyed(&twice).unwrap_err().to_string();
        let expected =
            "broker 2: entry 13 in cluster/broker-2 grants writer-1 epoch 3, to an opening that entry 11";
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn who_was_replaced_gives_nothing_up() {
        let fenced = [opening(1, 1, 7), opening(1, 2, 8), sealing(1, 1)];
        let said = surveyed(&fenced).unwrap_err().to_string();
        let expected = "broker 2: entry 13 in cluster/broker-2 gives up the numbers 3 up to, not including, 5 of \
                        writer-1 under epoch 1, and epoch 2 holds the name";
        assert!(said.starts_with(expected), "{said}");
        let nobody = surveyed(&[sealing(9, 1)]).unwrap_err();
        assert!(matches!(nobody, SurveyError::Fenced { current: Epoch(0), .. }), "{nobody}");
    }
}
