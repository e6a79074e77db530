//! The table of producers: who may write which number next, and what became of the numbers before.
//!
//! How a duplicate slips into other logs, and what stops it here:
//!
//! * *The table forgets.* A window by time or by count of producers is forgotten one day, and a late retry is new
//!   again. Here a name never leaves the table: one that is retired stays there, closed.
//! * *The sequence restarts.* If a new incarnation counts from 0 again, a retry of an older one can meet a number that
//!   is free. Here the sequence goes on across epochs: a (name, sequence) is written at most once, ever.
//! * *Two copies in flight pass one check.* Here the check runs against the head state, which holds every effect
//!   proposed so far, and runs again when the entry is applied.
//!
//! `producer.rs` judges what is sent under one name.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::limits::{LIST_MAX, LIST_NAMES_BYTES_MAX};
use sequor_client::protocol::{
    self as wire, Epoch, Instance, Listed, Offset, ProducerId, Refusal, Resolved, Retired, Sequence,
};

use super::effect::{Opening, Retiring, Sealing, SessionOpening, Written};
use super::producer::Producer;

pub use super::producer::AppendVerdict;

/// All producers. A clone is O(1): the maps share what they have in common.
///
/// Invariant: `by_name` holds the producers of `by_id` that have a name; the others are sessions. Every id is at most the
/// token counter's value.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    by_name: OrdMap<Arc<str>, ProducerId>,
    by_id: OrdMap<ProducerId, Producer>,
}

/// What the table says to an `open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenVerdict {
    /// The name is new: the first epoch, under an id that the caller draws.
    Create,
    /// Granted: this id goes on with this epoch.
    Raise(ProducerId, Epoch),
    /// The same instance opened it already; nothing changes.
    Held(wire::Producer),
}

impl Producers {
    /// Judges an `open`.
    ///
    /// # Errors
    /// [`Refusal::Retired`]; [`Refusal::Fenced`] if the name's epoch is not the one that the caller expects.
    pub fn judge_open(
        &self,
        name: &str,
        instance: Instance,
        expected: Epoch,
    ) -> Result<OpenVerdict, Refusal> {
        let Some((&id, producer)) = self.by_name.get(name).and_then(|id| Some((id, self.by_id.get(id)?)))
        else {
            return if expected == Epoch(0) {
                Ok(OpenVerdict::Create)
            } else {
                Err(Refusal::Fenced { by: Epoch(0), at: Offset(0), next: Sequence(0) })
            };
        };
        producer.check_retired()?;
        if producer.instance == instance {
            return Ok(OpenVerdict::Held(producer.show(id)));
        }
        producer.check_epoch(expected)?;
        Ok(OpenVerdict::Raise(id, producer.epoch.plus(cfg!(not(feature = "bug-epoch-reused")).into())))
    }

    /// Judges an append.
    ///
    /// `tokens` is the token counter: an id up to it that is not in the table belonged to a session that is over.
    ///
    /// # Errors
    /// Everything that the order of checks can refuse; see `producer.rs`.
    pub fn judge_append(&self, batch: &Batch, tokens: u64) -> Result<AppendVerdict, Refusal> {
        self.get(batch.producer(), tokens)?.judge_append(batch)
    }

    /// Judges a seal: `Ok(Err(…))` if the number's fate is known already, `Ok(Ok(first))` if all numbers from `first`
    /// through it would be sealed.
    ///
    /// # Errors
    /// If there is no such producer, if it is retired or the epoch not the current one, or if the number is too far.
    pub fn judge_seal(
        &self,
        id: ProducerId,
        epoch: Epoch,
        sequence: Sequence,
        tokens: u64,
    ) -> Result<Result<Sequence, Resolved>, Refusal> {
        self.get(id, tokens)?.judge_seal(epoch, sequence)
    }

    /// Judges a retirement: `Ok(Some(…))` if it was done before.
    ///
    /// # Errors
    /// If there is no such producer, or the epoch is not the current one.
    pub fn judge_retire(
        &self,
        id: ProducerId,
        epoch: Epoch,
        tokens: u64,
    ) -> Result<Option<Retired>, Refusal> {
        let producer = self.get(id, tokens)?;
        if producer.retired {
            return Ok(Some(Retired { next: producer.next }));
        }
        producer.check_epoch(epoch)?;
        Ok(None)
    }

    /// What became of one number of a producer.
    ///
    /// # Errors
    /// If there is no such producer, or it is retired.
    pub fn resolve(&self, id: ProducerId, sequence: Sequence, tokens: u64) -> Result<Resolved, Refusal> {
        self.get(id, tokens)?.resolve(sequence)
    }

    /// What is known of a name.
    #[must_use]
    pub fn show(&self, name: &str) -> Option<wire::Producer> {
        let id = *self.by_name.get(name)?;
        Some(self.by_id.get(&id)?.show(id))
    }

    /// A page of the table: at most `limit` producers, in the order of their names, after the name `after`.
    #[must_use]
    pub fn list(&self, after: Option<&str>, limit: u32) -> Listed {
        let limit = (limit as usize).min(LIST_MAX);
        let mut producers = Vec::new();
        let mut names_bytes = 0;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (name, id) in self.by_name.range::<_, str>((from, Bound::Unbounded)) {
            names_bytes += name.len();
            if producers.len() >= limit || names_bytes > LIST_NAMES_BYTES_MAX {
                return Listed { producers, more: true };
            }
            producers.extend(self.by_id.get(id).map(|producer| producer.summary(*id)));
        }
        Listed { producers, more: false }
    }

    /// What is known of a producer, named or not.
    #[must_use]
    pub fn show_id(&self, id: ProducerId) -> Option<wire::Producer> {
        Some(self.by_id.get(&id)?.show(id))
    }

    /// The name that an id stands for; none for that of a session.
    #[must_use]
    pub fn name(&self, id: ProducerId) -> Option<&Arc<str>> {
        Some(&self.by_id.get(&id)?.name).filter(|name| !name.is_empty())
    }

    /// Names in the table, retired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True before the first `open`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Every producer in the order of ids, as bytes that are equal on two brokers exactly if their tables are.
    pub(super) fn fingerprint(&self, hasher: &mut crc32fast::Hasher) {
        self.by_id.iter().for_each(|(id, producer)| producer.fingerprint(*id, hasher));
    }

    pub(super) fn absorb_open(&mut self, opening: &Opening, end: Offset) {
        self.by_name.insert(Arc::clone(&opening.name), opening.id);
        let new = || Producer::new(Arc::clone(&opening.name), end);
        self.by_id.entry(opening.id).or_insert_with(new).absorb_open(opening, end);
    }

    /// A session begins: a producer without a name, in its first and only epoch.
    pub(super) fn absorb_session(&mut self, opening: &SessionOpening, end: Offset) {
        let SessionOpening { id, instance, .. } = *opening;
        let name: Arc<str> = Arc::from("");
        let mut producer = Producer::new(Arc::clone(&name), end);
        producer.absorb_open(&Opening { id, epoch: Epoch(1), instance, name }, end);
        self.by_id.insert(id, producer);
    }

    /// A session is over: nothing is remembered of it. That its id is not above the token counter says enough.
    pub(super) fn absorb_expiry(&mut self, id: ProducerId) {
        self.by_id.remove(&id);
    }

    pub(super) fn absorb_append(&mut self, written: &Written) {
        self.judged(written.batch.producer()).absorb_append(written);
    }

    pub(super) fn absorb_seal(&mut self, sealing: &Sealing) {
        self.judged(sealing.id).absorb_seal(sealing);
    }

    /// Closes a name for ever. Where its stream ends.
    pub(super) fn absorb_retire(&mut self, retiring: &Retiring) -> Retired {
        let producer = self.judged(retiring.id);
        producer.absorb_retire();
        Retired { next: producer.next }
    }

    fn judged(&mut self, id: ProducerId) -> &mut Producer {
        self.by_id.get_mut(&id).expect("an effect is absorbed only after the table judged it")
    }

    fn get(&self, id: ProducerId, tokens: u64) -> Result<&Producer, Refusal> {
        self.by_id.get(&id).ok_or_else(|| self.why_unknown(id, tokens))
    }

    /// Why there is no session of this id: an id that was granted, and is not in the table, was that of one.
    pub(super) fn why_unknown(&self, id: ProducerId, tokens: u64) -> Refusal {
        let was_granted = id.0 != 0 && id.0 <= tokens && !self.by_id.contains_key(&id);
        if was_granted { Refusal::SessionExpired } else { Refusal::UnknownProducer }
    }
}
