//! One reader of the log: committed records, in order, straight from the map.
//!
//! A subscription remembers the Raft index at which its next offset lies, so that reading on costs no search. What leaves
//! is the log itself: of each entry the stretches in which batches lie side by side. The first batch may begin before the
//! offset that was asked for.

use std::collections::BTreeSet;

use bytes::Bytes;
use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::{Delivery, Offset, ProducerId, Refusal};
use sequor_wal::{Index, Kind};

use super::effect::{Effect, Effects, Written};
use super::{Core, Halt};

/// Producers whose names a subscription was told, before it begins to forget (and to repeat) them. Count.
const TOLD_MAX: usize = 4096;
/// Names in one delivery, so that they fit a frame's body. Bytes.
const NAMES_BYTES_MAX: usize = 32 << 10;
/// What a name costs beside its text. Bytes.
const NAME_OVERHEAD_BYTES: usize = 16;

/// A reader's place.
#[derive(Debug)]
pub struct Subscription {
    next: Offset,
    at: Option<Index>,
    told: BTreeSet<ProducerId>,
}

impl Subscription {
    /// A reader that begins at `from`.
    #[must_use]
    pub fn new(from: Offset) -> Self {
        Self { next: from, at: None, told: BTreeSet::new() }
    }

    /// The next offset it will deliver.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }
}

/// A delivery while it is put together.
struct Parcel<'a> {
    told: &'a mut BTreeSet<ProducerId>,
    delivery: Delivery,
    room_bytes: usize,
    names_bytes: usize,
    /// It has a batch.
    begun: bool,
    full: bool,
}

impl Parcel<'_> {
    /// Takes a batch that has so many bytes in the log, unless it is behind the reader or the parcel is full, and says
    /// whether it did. A parcel takes at least one batch.
    fn take(
        &mut self,
        written: &Written,
        bytes: usize,
        name: impl FnOnce(ProducerId) -> Option<String>,
    ) -> bool {
        let after = written.base.plus(written.batch.count().into());
        if after <= self.delivery.next {
            return false;
        }
        self.full = self.begun && (bytes > self.room_bytes || self.names_bytes >= NAMES_BYTES_MAX);
        if self.full {
            return false;
        }
        self.tell(&written.batch, name);
        self.room_bytes = self.room_bytes.saturating_sub(bytes);
        self.begun = true;
        self.delivery.next = after;
        true
    }

    fn put(&mut self, stretch: Bytes) {
        if !stretch.is_empty() {
            self.delivery.stretches.push(stretch);
        }
    }

    fn tell(&mut self, batch: &Batch, name: impl FnOnce(ProducerId) -> Option<String>) {
        let producer = batch.producer();
        if self.told.insert(producer)
            && let Some(name) = name(producer)
        {
            self.names_bytes += name.len() + NAME_OVERHEAD_BYTES;
            self.delivery.names.push((producer, name));
        }
    }
}

impl Core {
    /// The next records for a subscription: about `bytes_max` of them, at least one batch; `None` if there are none
    /// yet. Only what is committed is ever delivered.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`] on a broker that does not lead; [`Refusal::LogUnreadable`] if its disk is rotten, after
    /// which the broker has halted.
    pub fn deliver(
        &mut self,
        subscription: &mut Subscription,
        bytes_max: usize,
    ) -> Result<Option<Delivery>, Refusal> {
        if !self.node.leads() {
            return Err(Refusal::NotLeader { leader: self.leader() });
        }
        if subscription.told.len() > TOLD_MAX {
            subscription.told.clear();
        }
        let (next, end) = (subscription.next, self.end());
        let mut index = subscription.at.unwrap_or_else(|| self.positions.at_or_before(next));
        let mut parcel = Parcel {
            told: &mut subscription.told,
            delivery: Delivery { next, end, names: Vec::new(), stretches: Vec::new() },
            room_bytes: bytes_max,
            names_bytes: 0,
            begun: false,
            full: false,
        };
        while parcel.delivery.next < end && index <= self.applied_index && parcel.room_bytes > 0 {
            if let Err(halt) = self.take_entry(index, &mut parcel) {
                let at = parcel.delivery.next;
                self.halt(halt);
                return Err(Refusal::LogUnreadable { at });
            }
            if parcel.full {
                break;
            }
            index += 1;
        }
        let Parcel { delivery, begun, .. } = parcel;
        subscription.next = delivery.next;
        subscription.at = Some(index);
        Ok(begun.then_some(delivery))
    }

    /// Offers the batches of one entry. Those that lie side by side are one stretch.
    fn take_entry(&self, index: Index, parcel: &mut Parcel<'_>) -> Result<(), Halt> {
        let damaged = |cause| Halt::Entry { index, cause };
        let data = self.effects_at(index)?;
        if data.is_empty() {
            return Ok(());
        }
        let mut effects = Effects::open(data.clone()).map_err(damaged)?;
        let mut stretch = 0..0;
        while !parcel.full {
            let begin = data.len() - effects.left_bytes();
            let Some(effect) = effects.next() else { break };
            let Effect::Append(written) = effect.map_err(damaged)? else { continue };
            let end = data.len() - effects.left_bytes();
            let name = |id| self.applied.producers().name(id).map(ToString::to_string);
            if parcel.take(&written, end - begin, name) {
                if stretch.end != begin {
                    parcel.put(data.slice(stretch));
                    stretch = begin..begin;
                }
                stretch.end = end;
            }
        }
        parcel.put(data.slice(stretch));
        Ok(())
    }

    /// The batches of one entry, in order, straight from the log.
    pub(super) fn written_at(
        &self,
        index: Index,
    ) -> Result<impl Iterator<Item = Result<Written, Halt>>, Halt> {
        let damaged = move |cause| Halt::Entry { index, cause };
        let data = self.effects_at(index)?;
        let effects = (!data.is_empty()).then(|| Effects::open(data)).transpose().map_err(damaged)?;
        Ok(effects.into_iter().flatten().filter_map(move |effect| match effect {
            Ok(Effect::Append(written)) => Some(Ok(written)),
            Ok(_) => None,
            Err(cause) => Some(Err(damaged(cause))),
        }))
    }

    /// The data of one entry, straight from the log; nothing if it has no effects.
    fn effects_at(&self, index: Index) -> Result<Bytes, Halt> {
        let entry = self.node.log().entry(index)?;
        Ok(if entry.kind == Kind::Normal { entry.data } else { Bytes::new() })
    }
}
