//! Who handed a batch over, what became of it, and what they are told.
//!
//! As a rule a batch has one outcome, and everybody who handed something of it over is told that. A batch that begins
//! before the producer's next number may have to be cut where others cut theirs ([`crate::core::Event::Acked`]): then
//! its parts have outcomes of their own. Who handed over a single record is told that of the part in which it lies; who
//! handed over the whole batch is told when all parts have theirs.

use std::collections::BTreeMap;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    error::AppendError,
    producer::{Lost, Receipt},
    protocol::Sequence,
};

pub(crate) type Outcome = Result<Receipt, AppendError>;

/// Room that a record or a batch takes in its producer's bounds until it has its outcome.
#[derive(Debug)]
#[allow(dead_code, reason = "held, not read")]
pub(crate) struct Room {
    pub(crate) bytes: OwnedSemaphorePermit,
    pub(crate) batch: Option<OwnedSemaphorePermit>,
}

/// Somebody who handed a batch or a record over: who is told, unless that was done already, and the room it takes.
#[derive(Debug)]
pub(crate) struct Caller {
    reply: Option<oneshot::Sender<Outcome>>,
    #[allow(dead_code, reason = "held, not read")]
    room: Room,
}

impl Caller {
    pub(crate) fn new(reply: oneshot::Sender<Outcome>, room: Room) -> Self {
        Self { reply: Some(reply), room }
    }

    /// Tells it; false if it knows something else already, or does not want to know.
    fn tell(&mut self, outcome: Outcome) -> bool {
        self.reply.take().is_some_and(|reply| reply.send(outcome).is_ok())
    }
}

/// Who waits for a batch.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// The caller who made it.
    Whole(Caller),
    /// The callers of its records, in their order.
    Records(Vec<Caller>),
}

impl Waiting {
    /// Tells everybody that it was never sent.
    pub(crate) fn refuse(self, why: &AppendError) {
        match self {
            Self::Whole(mut caller) => _ = caller.tell(Err(why.clone())),
            Self::Records(callers) => {
                callers.into_iter().for_each(|mut caller| _ = caller.tell(Err(why.clone())));
            }
        }
    }
}

/// A batch in the session's window.
#[derive(Debug)]
pub(crate) struct InFlight {
    records: u32,
    waiting: Waiting,
    /// The outcomes of its parts, or of all of it.
    parts: BTreeMap<Sequence, Part>,
}

#[derive(Debug)]
struct Part {
    first: Sequence,
    records: u32,
    outcome: Outcome,
}

impl Part {
    /// Whether its records are in the log.
    fn is_written(&self) -> bool {
        matches!(self.outcome, Ok(_) | Err(AppendError::AlreadyCommitted { .. }))
    }

    fn last(&self) -> Sequence {
        self.first.plus(u64::from(self.records.max(1)) - 1)
    }

    /// What is lost with it, if its records are not written or not known to be.
    fn lost(&self) -> Option<Lost> {
        let why = self.outcome.as_ref().err().filter(|_| !self.is_written())?;
        Some(Lost { first: self.first, last: self.last(), why: why.clone() })
    }
}

/// What is left when everybody was told.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The first thing that went wrong.
    pub(crate) failure: Option<AppendError>,
    /// What failed and was told to nobody.
    pub(crate) lost: Vec<Lost>,
}

impl InFlight {
    pub(crate) fn new(records: u32, waiting: Waiting) -> Self {
        Self { records, waiting, parts: BTreeMap::new() }
    }

    /// How many records it has.
    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// The leader has all of it: the callers are told, and it stays in flight until a majority has it.
    pub(crate) fn accepted(&mut self, receipt: &Receipt) {
        if receipt.records != self.records {
            return;
        }
        match &mut self.waiting {
            Waiting::Whole(caller) => _ = caller.tell(Ok(receipt.clone())),
            Waiting::Records(callers) => {
                for (caller, receipt) in callers.iter_mut().zip(receipt.of_records()) {
                    caller.tell(Ok(receipt));
                }
            }
        }
    }

    /// Takes the outcome of a part. True once all parts have one.
    pub(crate) fn take(&mut self, first: Sequence, records: u32, outcome: Outcome) -> bool {
        self.parts.insert(first, Part { first, records, outcome });
        self.parts.values().map(|part| part.records).sum::<u32>() >= self.records
    }

    /// Tells everybody what became of it.
    pub(crate) fn settle(self) -> Settled {
        let parts: Vec<_> = self.parts.into_values().collect();
        match self.waiting {
            Waiting::Whole(mut caller) => {
                let outcome = whole(&parts);
                let failure = outcome.as_ref().err().cloned();
                let lost = match caller.tell(outcome) {
                    true => Vec::new(),
                    false => parts.iter().filter_map(Part::lost).collect(),
                };
                Settled { failure, lost }
            }
            Waiting::Records(callers) => tell_each(parts, callers),
        }
    }
}

/// Tells the callers of records, each what became of the part in which its record lies.
fn tell_each(parts: Vec<Part>, callers: Vec<Caller>) -> Settled {
    let mut settled = Settled::default();
    let mut callers = callers.into_iter();
    for part in parts {
        let own = callers.by_ref().take(part.records as usize);
        let lost = part.lost();
        let all_heard = match part.outcome {
            Ok(receipt) => {
                own.zip(receipt.of_records()).for_each(|(mut caller, receipt)| _ = caller.tell(Ok(receipt)));
                true
            }
            Err(why) => {
                let unheard =
                    own.map(|mut caller| caller.tell(Err(why.clone()))).filter(|heard| !heard).count();
                settled.failure.get_or_insert(why);
                unheard == 0
            }
        };
        settled.lost.extend(lost.filter(|_| !all_heard));
    }
    settled
}

/// What the caller of a whole batch is told.
fn whole(parts: &[Part]) -> Outcome {
    if let Some(failed) = parts.iter().find(|part| !part.is_written())
        && let Err(why) = &failed.outcome
    {
        return Err(match parts.iter().any(Part::is_written) {
            false => why.clone(),
            true => {
                let (first, last) = (failed.first, failed.last());
                AppendError::PartlyWritten { first, last, source: Box::new(why.clone()) }
            }
        });
    }
    let receipts: Result<Vec<_>, _> = parts.iter().map(|part| part.outcome.clone()).collect();
    receipts?.into_iter().reduce(Receipt::joined).ok_or(AppendError::Empty)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::protocol::Offset;

    fn caller() -> (Caller, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let bytes = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Caller::new(reply, Room { bytes, batch: None }), outcome)
    }

    fn receipt(first: u64, offset: u64, records: u32) -> Receipt {
        Receipt::new(Sequence(first), Offset(offset), records, true, Vec::new())
    }

    fn unknown() -> AppendError {
        AppendError::Unknown { last: None }
    }

    fn already(first: u64, last: u64) -> AppendError {
        AppendError::AlreadyCommitted { first: Sequence(first), last: Sequence(last) }
    }

    /// A batch of the numbers 5 to 8, handed over as a whole, with outcomes for 5 to 6 and 7 to 8.
    fn whole_of(lower: Outcome, upper: Outcome) -> (Outcome, Settled) {
        let (caller, mut told) = caller();
        let mut batch = InFlight::new(4, Waiting::Whole(caller));
        assert!(!batch.take(Sequence(7), 2, upper));
        assert!(batch.take(Sequence(5), 2, lower));
        let settled = batch.settle();
        (told.try_recv().unwrap(), settled)
    }

    #[test]
    fn the_receipts_of_two_parts_are_one() {
        let (told, settled) = whole_of(Ok(receipt(5, 10, 2)), Ok(receipt(7, 30, 2)));
        let told = told.unwrap();
        let places: Vec<_> = told.places().map(|place| (place.offset.0, place.count)).collect();
        assert_eq!((told.first_sequence, told.last_offset), (Sequence(5), Offset(31)));
        assert_eq!(places, [(10, 2), (30, 2)]);
        assert!(settled.failure.is_none() && settled.lost.is_empty());
    }

    #[test]
    fn what_is_written_in_part_is_never_called_not_written() {
        let (told, settled) = whole_of(Ok(receipt(5, 10, 2)), Err(unknown()));
        let Err(AppendError::PartlyWritten { first: Sequence(7), last: Sequence(8), source }) = told else {
            panic!("{told:?}");
        };
        assert!(source.is_unknown() && settled.failure.is_some() && settled.lost.is_empty());
        let (told, _) = whole_of(Err(already(5, 6)), Err(unknown()));
        assert!(matches!(told, Err(AppendError::PartlyWritten { .. })), "{told:?}");
        let (told, _) = whole_of(Err(already(5, 6)), Ok(receipt(7, 30, 2)));
        assert!(matches!(told, Err(AppendError::AlreadyCommitted { first: Sequence(5), .. })), "{told:?}");
        let (told, _) = whole_of(Err(unknown()), Err(AppendError::Broken));
        assert!(matches!(told, Err(AppendError::Unknown { .. })), "{told:?}");
    }

    #[test]
    fn each_record_is_told_what_became_of_its_part() {
        let (callers, mut told): (Vec<_>, Vec<_>) = (0..4).map(|_| caller()).unzip();
        let mut batch = InFlight::new(4, Waiting::Records(callers));
        batch.take(Sequence(5), 1, Err(already(5, 5)));
        batch.take(Sequence(6), 2, Ok(receipt(6, 40, 2)));
        drop(told.remove(3));
        assert!(batch.take(Sequence(8), 1, Err(unknown())));
        let settled = batch.settle();
        assert!(matches!(told[0].try_recv().unwrap(), Err(AppendError::AlreadyCommitted { .. })));
        assert_eq!(told[1].try_recv().unwrap().unwrap().first_offset, Offset(40));
        assert_eq!(told[2].try_recv().unwrap().unwrap().first_offset, Offset(41));
        let lost: Vec<_> = settled.lost.iter().map(|lost| (lost.first.0, lost.last.0)).collect();
        assert_eq!(lost, [(8, 8)], "nobody waited for it");
    }

    #[test]
    fn what_was_called_accepted_and_is_not_written_is_lost() {
        let (caller, mut told) = caller();
        let mut batch = InFlight::new(4, Waiting::Whole(caller));
        batch.accepted(&Receipt::provisional(Sequence(5), Offset(10), 4));
        assert!(told.try_recv().unwrap().unwrap().provisional);
        assert!(batch.take(Sequence(5), 4, Err(unknown())));
        let settled = batch.settle();
        assert_eq!(settled.lost.len(), 1);
        assert_eq!((settled.lost[0].first, settled.lost[0].last), (Sequence(5), Sequence(8)));
    }
}
