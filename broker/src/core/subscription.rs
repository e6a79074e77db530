//! One reader of the log: committed records, in order, straight from the map.
//!
//! A subscription remembers the Raft index at which its next offset lies, so that reading on costs no search. Batches
//! leave in their producer's bytes; the first one may begin before the offset that was asked for.

use std::collections::BTreeSet;

use sequor_client::protocol::{Delivery, Offset, Placed, ProducerId, Refusal};
use sequor_wal::Index;

use super::effect::{Effect, Effects};
use super::{Core, Halt};

/// Producers whose names a subscription was told, before it begins to forget (and to repeat) them. Count.
const TOLD_MAX: usize = 4096;

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
        let mut delivery =
            Delivery { next: subscription.next, end: self.end(), names: Vec::new(), batches: Vec::new() };
        let mut index = subscription.at.unwrap_or_else(|| self.positions.at_or_before(subscription.next));
        let mut room = bytes_max;
        while delivery.next < delivery.end && index <= self.applied_index && room > 0 {
            let whole = match self.take_from(index, &mut delivery, &mut room) {
                Ok(whole) => whole,
                Err(halt) => {
                    self.halt(halt);
                    return Err(Refusal::LogUnreadable { at: delivery.next });
                }
            };
            index += Index::from(whole);
        }
        subscription.next = delivery.next;
        subscription.at = Some(index);
        if delivery.batches.is_empty() {
            return Ok(None);
        }
        self.tell_names(subscription, &mut delivery);
        Ok(Some(delivery))
    }

    /// Takes the wanted batches of one entry; true if it took all of them.
    fn take_from(&self, index: Index, delivery: &mut Delivery, room: &mut usize) -> Result<bool, Halt> {
        let entry = self.node.log().entry(index)?;
        if entry.data.is_empty() || entry.kind != sequor_wal::Kind::Normal {
            return Ok(true);
        }
        let damaged = |cause| Halt::Entry { index, cause };
        for effect in Effects::open(entry.data).map_err(damaged)? {
            let Effect::Append(written) = effect.map_err(damaged)? else { continue };
            let after = written.base.plus(written.batch.count().into());
            if after <= delivery.next {
                continue;
            }
            let bytes = written.batch.bytes().len();
            if bytes > *room && !delivery.batches.is_empty() {
                *room = 0;
                return Ok(false);
            }
            *room = room.saturating_sub(bytes);
            delivery.batches.push(Placed { offset: written.base, batch: written.batch.bytes().clone() });
            delivery.next = after;
        }
        Ok(true)
    }

    fn tell_names(&self, subscription: &mut Subscription, delivery: &mut Delivery) {
        if subscription.told.len() > TOLD_MAX {
            subscription.told.clear();
        }
        for placed in &delivery.batches {
            let producer = sequor_client::protocol::batch::Batch::trusted(placed.batch.clone())
                .expect("the batch was read a moment ago")
                .producer();
            if subscription.told.insert(producer)
                && let Some(name) = self.applied.producers().name(producer)
            {
                delivery.names.push((producer, name.to_string()));
            }
        }
    }
}
