//! One producer: which number comes next, and what became of the numbers before.
//!
//! ```text
//!   0                          window                        next
//!   │  written, forgotten  │ batch │ batch │ sealed │ batch │  not yet
//!   ▼  one by one          ▼       ▼       ▼        ▼       ▼
//!   ├──────────┬─sealed─┬──┼───────┼───────┼────────┼───────┼─ ─ ─
//! ```
//!
//! Every number below `next` has one of two fates, for ever: it is written, or it was sealed. Of the newest ones the
//! window tells where they lie and what they hold; of the older ones only the fate is known.
//!
//! A batch is judged in this order: retired, sealed, its numbers in *any* epoch, the epoch, overlap, gap. The numbers
//! come before the epoch so that a fenced producer still learns what became of what it had sent.

use std::sync::Arc;

use imbl::OrdMap;
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::limits::{
    IN_FLIGHT_BATCHES_MAX, SEAL_REACH_MAX, SEALS_MAX, SHOWN_BATCHES_MAX, SHOWN_SEALS_MAX,
};
use sequor_client::protocol::{
    self as wire, Epoch, Instance, Offset, ProducerId, Refusal, Remembered, Resolved, Sequence, Span,
};

use super::effect::{Opening, Sealing, Written};
use super::window::{Slot, Window};

/// What is known of one name, or of a session: that has an empty one.
///
/// Invariants:
/// 1. `epoch` is at least 1, and rises by exactly 1 with each opening by another instance.
/// 2. Every number below `next` is written or lies in `sealed`, never both; every number from `next` on is neither.
/// 3. From the first batch of `window` on, the window and `sealed` cover every number below `next`; offsets rise with
///    numbers.
/// 4. The newest batch stays in the window however much was settled, so that a successor can compare its input with it.
/// 5. Intervals in `sealed` neither overlap nor touch.
/// 6. A retired producer has an empty window and no intervals: nothing is ever looked up in it again.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    pub(super) name: Arc<str>,
    pub(super) epoch: Epoch,
    pub(super) instance: Instance,
    pub(super) opened_at: Offset,
    pub(super) next: Sequence,
    window: Window,
    /// First number of each interval, and one past its last.
    sealed: OrdMap<Sequence, Sequence>,
    pub(super) retired: bool,
}

/// What a producer says to a batch that it does not refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendVerdict {
    /// It is the next one.
    Next,
    /// It is written, with this cut and this digest.
    Known {
        /// Offset of its first record.
        first: Offset,
    },
    /// Its numbers are written, but another cut: whether it is the same content, only the log can tell.
    Recut {
        /// Where the log holds its numbers, in their order.
        places: Vec<Span>,
    },
}

impl Producer {
    pub(super) fn new(name: Arc<str>, end: Offset) -> Self {
        Self {
            name,
            epoch: Epoch(0),
            instance: Instance::default(),
            opened_at: end,
            next: Sequence(0),
            window: Window::default(),
            sealed: OrdMap::new(),
            retired: false,
        }
    }

    /// Judges a batch. See the module's header for the order.
    pub(super) fn judge_append(&self, batch: &Batch) -> Result<AppendVerdict, Refusal> {
        self.check_retired()?;
        let (first, end) = (batch.first_sequence(), batch.end_sequence());
        if let Some((first, end)) = self.sealed_within(first, end) {
            return Err(Refusal::Sealed { first, end });
        }
        if end <= self.next {
            return self.lookup(batch);
        }
        self.check_epoch(batch.epoch())?;
        if first < self.next {
            return Err(Refusal::PartlyCommitted { up_to: self.next });
        }
        if first > self.next {
            return Err(Refusal::SequenceGap { expected: self.next, found: first });
        }
        Ok(AppendVerdict::Next)
    }

    pub(super) fn check_retired(&self) -> Result<(), Refusal> {
        if self.retired { Err(Refusal::Retired) } else { Ok(()) }
    }

    pub(super) fn check_epoch(&self, epoch: Epoch) -> Result<(), Refusal> {
        if epoch == self.epoch { Ok(()) } else { Err(self.fenced()) }
    }

    pub(super) fn fenced(&self) -> Refusal {
        Refusal::Fenced { by: self.epoch, at: self.opened_at, next: self.next }
    }

    /// The first sealed interval that has a number in `first..end`.
    fn sealed_within(&self, first: Sequence, end: Sequence) -> Option<(Sequence, Sequence)> {
        if self.sealed.is_empty() {
            return None;
        }
        let before = self.sealed.get_prev(&first).filter(|&(_, &sealed_end)| sealed_end > first);
        let (&from, &to) =
            before.or_else(|| self.sealed.get_next(&first).filter(|&(&from, _)| from < end))?;
        Some((from, to))
    }

    /// What became of a batch whose numbers are all below `next` and not sealed.
    fn lookup(&self, batch: &Batch) -> Result<AppendVerdict, Refusal> {
        let (first, end) = (batch.first_sequence(), batch.end_sequence());
        let Some(slot) = self.window.at(first) else {
            return Err(Refusal::AlreadyCommitted { next: self.next });
        };
        if slot.first != first || slot.count != batch.count() {
            return Ok(AppendVerdict::Recut { places: self.places(first, end) });
        }
        if slot.digest != batch.digest() {
            return Err(Refusal::SequenceReused { first, offset: slot.offset });
        }
        Ok(AppendVerdict::Known { first: slot.offset })
    }

    /// Where the numbers `first..end` lie.
    fn places(&self, first: Sequence, end: Sequence) -> Vec<Span> {
        let mut places: Vec<Span> = Vec::new();
        for slot in self.window.from(first).take_while(|slot| slot.first < end) {
            let skipped = first.0.saturating_sub(slot.first.0);
            let taken = end.min(slot.end()).0 - slot.first.0 - skipped;
            let offset = slot.offset.plus(skipped);
            let count = u32::try_from(taken).expect("no more than the batch's count, which is a u32");
            match places.last_mut() {
                Some(last) if last.offset.plus(last.count.into()) == offset => last.count += count,
                _ => places.push(Span { offset, count }),
            }
        }
        debug_assert_eq!(places.iter().map(|place| u64::from(place.count)).sum::<u64>(), end.0 - first.0);
        places
    }

    /// What a seal through `sequence` would do: `Ok(Err(…))` if its fate is known already, `Ok(Ok(first))` if all
    /// numbers from `first` through it would be sealed.
    pub(super) fn judge_seal(
        &self,
        epoch: Epoch,
        sequence: Sequence,
    ) -> Result<Result<Sequence, Resolved>, Refusal> {
        match self.resolve(sequence)? {
            Resolved::Open => {}
            known @ (Resolved::Committed { .. } | Resolved::Sealed) => return Ok(Err(known)),
        }
        self.check_epoch(epoch)?;
        if sequence.0 - self.next.0 >= SEAL_REACH_MAX {
            return Err(Refusal::SequenceGap { expected: self.next, found: sequence });
        }
        if self.sealed.len() >= SEALS_MAX && !self.ends_sealed() {
            return Err(Refusal::SealsFull { limit: SEALS_MAX as u64 });
        }
        Ok(Ok(self.next))
    }

    /// Whether the number before `next` is sealed.
    fn ends_sealed(&self) -> bool {
        self.sealed.get_max().is_some_and(|(_, end)| *end == self.next)
    }

    /// What became of one number.
    pub(super) fn resolve(&self, sequence: Sequence) -> Result<Resolved, Refusal> {
        self.check_retired()?;
        if sequence >= self.next {
            return Ok(Resolved::Open);
        }
        if self.sealed_within(sequence, sequence.plus(1)).is_some() {
            return Ok(Resolved::Sealed);
        }
        let slot = self.window.at(sequence);
        Ok(Resolved::Committed { offset: slot.map(|slot| slot.offset.plus(sequence.0 - slot.first.0)) })
    }

    pub(super) fn absorb_open(&mut self, opening: &Opening, end: Offset) {
        debug_assert_eq!(self.epoch.plus(1), opening.epoch, "an opening raises the epoch by one");
        self.epoch = opening.epoch;
        self.instance = opening.instance;
        self.opened_at = end;
    }

    pub(super) fn absorb_append(&mut self, written: &Written) {
        let (first, count) = (written.batch.first_sequence(), written.batch.count());
        debug_assert_eq!(first, self.next, "a batch is absorbed only where the table expects it");
        self.window.push(Slot { first, count, offset: written.base, digest: written.batch.digest() });
        self.next = first.plus(count.into());
        // Forgotten one by one is what the client will not resend.
        self.window.trim(|len, oldest| len > IN_FLIGHT_BATCHES_MAX || oldest.end() <= written.settled);
    }

    pub(super) fn absorb_seal(&mut self, sealing: &Sealing) {
        debug_assert_eq!(sealing.first, self.next, "a seal begins where nothing is written yet");
        let touching = self.sealed.get_max().filter(|(_, end)| *end == sealing.first);
        let first = touching.map_or(sealing.first, |(first, _)| *first);
        self.sealed.insert(first, sealing.end);
        self.next = sealing.end;
    }

    pub(super) fn absorb_retire(&mut self) {
        self.retired = true;
        self.window = Window::default();
        self.sealed = OrdMap::new();
    }

    pub(super) fn show(&self, id: ProducerId) -> wire::Producer {
        let hidden = self.window.len().saturating_sub(SHOWN_BATCHES_MAX);
        let batches = self.window.iter().skip(hidden).map(|slot| Remembered {
            first: slot.first,
            count: slot.count,
            offset: slot.offset,
            digest: slot.digest,
        });
        let hidden = self.sealed.len().saturating_sub(SHOWN_SEALS_MAX);
        let sealed = self.sealed.iter().skip(hidden).map(|(&first, &end)| (first, end));
        wire::Producer {
            id,
            epoch: self.epoch,
            instance: self.instance,
            next: self.next,
            batches: batches.collect(),
            sealed: sealed.collect(),
            retired: self.retired,
        }
    }

    pub(super) fn summary(&self, id: ProducerId) -> wire::Summary {
        wire::Summary {
            name: self.name.to_string(),
            id,
            epoch: self.epoch,
            next: self.next,
            sealed: self.sealed.iter().map(|(first, end)| end.0 - first.0).sum(),
            retired: self.retired,
        }
    }

    /// Everything, as bytes that are equal on two brokers exactly if their producers are.
    pub(super) fn fingerprint(&self, id: ProducerId, hasher: &mut crc32fast::Hasher) {
        let numbers = [id.0, self.epoch.0, self.opened_at.0, self.next.0, self.retired.into()];
        numbers.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
        hasher.update(&self.instance.0);
        hasher.update(self.name.as_bytes());
        for slot in self.window.iter() {
            for number in [slot.first.0, slot.count.into(), slot.offset.0] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&slot.digest);
        }
        for (first, end) in &self.sealed {
            hasher.update(&first.0.to_le_bytes());
            hasher.update(&end.0.to_le_bytes());
        }
    }
}
