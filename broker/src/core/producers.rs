//! The table of producers: who may write which number next, and what became of the numbers before.
//!
//! How a duplicate slips into other logs, and what stops it here:
//!
//! * *The table forgets.* A window by time or by count of producers is forgotten one day, and a late retry is new
//!   again. Here a name leaves the table only when somebody retires it.
//! * *The sequence restarts.* If a new incarnation counts from 0 again, a retry of an older one can meet a number that
//!   is free. Here the sequence goes on across epochs: a (name, sequence) is written at most once, ever.
//! * *Two copies in flight pass one check.* Here the check runs against the head state, which holds every effect
//!   proposed so far, and runs again when the entry is applied.
//!
//! The order of checks of an append: retired, sealed, the number in *any* epoch, the epoch, overlap, gap. The number
//! comes before the epoch so that a fenced producer still learns what became of what it had sent.

use std::sync::Arc;

use imbl::OrdMap;
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::limits::{IN_FLIGHT_BATCHES_MAX, SHOWN_BATCHES_MAX};
use sequor_client::protocol::{
    self as wire, Appended, Epoch, Feature, Instance, Offset, ProducerId, Refusal, Remembered, Resolved,
    Sequence,
};

use super::effect::{Opening, Written};

/// What is known of one name.
///
/// Invariants:
/// 1. `epoch` is at least 1, and rises by exactly 1 with each opening by another instance.
/// 2. Every number below `next` is written, every number from `next` on is not.
/// 3. The batches in `window` lie side by side and end at `next`; their offsets rise with their numbers.
/// 4. The newest batch stays in the window however much was settled, so that a successor can compare its input with it.
#[derive(Clone, Debug)]
pub struct Producer {
    name: Arc<str>,
    epoch: Epoch,
    instance: Instance,
    opened_at: Offset,
    next: Sequence,
    window: OrdMap<Sequence, Slot>,
}

/// A batch in the window, under its first sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    count: u32,
    offset: Offset,
    digest: [u8; 16],
}

impl Producer {
    /// What the table says to a batch: `Ok(None)` if it is the next to be written.
    fn judge(&self, batch: &Batch, end: Offset) -> Result<Option<Appended>, Refusal> {
        let first = batch.first_sequence();
        if first < self.next && first.plus(batch.count().into()) <= self.next {
            return self.lookup(batch, end).map(Some);
        }
        if batch.epoch() != self.epoch {
            return Err(Refusal::Fenced { by: self.epoch, at: self.opened_at, next: self.next });
        }
        if first < self.next {
            return Err(Refusal::PartlyCommitted { up_to: self.next });
        }
        if first > self.next {
            return Err(Refusal::SequenceGap { expected: self.next, found: first });
        }
        Ok(None)
    }

    /// What became of a batch whose numbers are all below `next`.
    fn lookup(&self, batch: &Batch, end: Offset) -> Result<Appended, Refusal> {
        let first = batch.first_sequence();
        let Some((slot_first, slot)) = self.window.get_prev(&first) else {
            return Err(Refusal::AlreadyCommitted { next: self.next });
        };
        let same_cut = *slot_first == first && slot.count == batch.count();
        if same_cut && slot.digest == batch.digest() {
            return Ok(Appended {
                first: slot.offset,
                count: slot.count,
                duplicate: true,
                token: None,
                branch: None,
                end,
            });
        }
        if same_cut {
            return Err(Refusal::SequenceReused { first, offset: slot.offset });
        }
        Err(Refusal::Unsupported { what: Feature::OtherCut })
    }

    fn absorb(&mut self, written: &Written) {
        let (first, count) = (written.batch.first_sequence(), written.batch.count());
        debug_assert_eq!(first, self.next, "a batch is absorbed only where the table expects it");
        let slot = Slot { count, offset: written.base, digest: written.batch.digest() };
        self.window.insert(first, slot);
        self.next = first.plus(count.into());
        self.trim(written.settled);
    }

    /// Forgets one by one what the client will not resend, but never the newest batch.
    fn trim(&mut self, settled: Sequence) {
        while self.window.len() > 1 {
            let Some(&(first, slot)) = self.window.get_min() else { break };
            let over_limit = self.window.len() > IN_FLIGHT_BATCHES_MAX;
            if !over_limit && first.plus(slot.count.into()) > settled {
                break;
            }
            self.window.remove(&first);
        }
    }

    /// What became of one number.
    fn resolve(&self, sequence: Sequence) -> Resolved {
        if sequence >= self.next {
            return Resolved::Open;
        }
        let offset =
            self.window.get_prev(&sequence).map(|(first, slot)| slot.offset.plus(sequence.0 - first.0));
        Resolved::Committed { offset }
    }

    fn show(&self, id: ProducerId) -> wire::Producer {
        let hidden = self.window.len().saturating_sub(SHOWN_BATCHES_MAX);
        let batches = self.window.iter().skip(hidden).map(|(&first, slot)| Remembered {
            first,
            count: slot.count,
            offset: slot.offset,
            digest: slot.digest,
        });
        wire::Producer {
            id,
            epoch: self.epoch,
            instance: self.instance,
            next: self.next,
            batches: batches.collect(),
            sealed: Vec::new(),
        }
    }
}

/// All producers. A clone is O(1): the maps share what they have in common.
///
/// Invariant: `by_name` and `by_id` hold the same producers, and every id is at most the token counter's value.
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
    /// [`Refusal::Fenced`] if the name's epoch is not the one that the caller expects.
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
        if producer.instance == instance {
            return Ok(OpenVerdict::Held(producer.show(id)));
        }
        if producer.epoch != expected {
            return Err(Refusal::Fenced { by: producer.epoch, at: producer.opened_at, next: producer.next });
        }
        Ok(OpenVerdict::Raise(id, producer.epoch.plus(1)))
    }

    /// Judges an append: `Ok(None)` if the batch is the next of its producer, `Ok(Some(…))` if it is written already.
    ///
    /// `tokens` is the token counter: an id up to it that is not in the table belonged to a session that is over.
    ///
    /// # Errors
    /// Everything that DESIGN's order of checks can refuse; see the module's header.
    pub fn judge_append(&self, batch: &Batch, end: Offset, tokens: u64) -> Result<Option<Appended>, Refusal> {
        self.get(batch.producer(), tokens)?.judge(batch, end)
    }

    /// What became of one number of a producer.
    ///
    /// # Errors
    /// If there is no such producer.
    pub fn resolve(&self, id: ProducerId, sequence: Sequence, tokens: u64) -> Result<Resolved, Refusal> {
        Ok(self.get(id, tokens)?.resolve(sequence))
    }

    /// What is known of a name.
    #[must_use]
    pub fn show(&self, name: &str) -> Option<wire::Producer> {
        let id = *self.by_name.get(name)?;
        Some(self.by_id.get(&id)?.show(id))
    }

    /// The name that an id stands for.
    #[must_use]
    pub fn name(&self, id: ProducerId) -> Option<&Arc<str>> {
        Some(&self.by_id.get(&id)?.name)
    }

    /// Producers in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// True before the first `open`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Every producer in the order of ids, as bytes that are equal on two brokers exactly if their tables are.
    pub(super) fn fingerprint(&self, hasher: &mut crc32fast::Hasher) {
        for (id, producer) in &self.by_id {
            for number in [id.0, producer.epoch.0, producer.opened_at.0, producer.next.0] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&producer.instance.0);
            hasher.update(producer.name.as_bytes());
            for (first, slot) in &producer.window {
                for number in [first.0, slot.count.into(), slot.offset.0] {
                    hasher.update(&number.to_le_bytes());
                }
                hasher.update(&slot.digest);
            }
        }
    }

    pub(super) fn absorb_open(&mut self, opening: &Opening, end: Offset) {
        self.by_name.insert(Arc::clone(&opening.name), opening.id);
        let producer = self.by_id.entry(opening.id).or_insert_with(|| Producer {
            name: Arc::clone(&opening.name),
            epoch: Epoch(0),
            instance: Instance::default(),
            opened_at: end,
            next: Sequence(0),
            window: OrdMap::new(),
        });
        debug_assert_eq!(producer.epoch.plus(1), opening.epoch, "an opening raises the epoch by one");
        producer.epoch = opening.epoch;
        producer.instance = opening.instance;
        producer.opened_at = end;
    }

    pub(super) fn absorb_append(&mut self, written: &Written) {
        let producer = self.by_id.get_mut(&written.batch.producer());
        producer.expect("an append is absorbed only after the table judged it").absorb(written);
    }

    fn get(&self, id: ProducerId, tokens: u64) -> Result<&Producer, Refusal> {
        self.by_id.get(&id).ok_or(if id.0 != 0 && id.0 <= tokens {
            Refusal::SessionExpired
        } else {
            Refusal::UnknownProducer
        })
    }
}
