//! One thing that happened. A history is a list of them in the order in which one observer saw them.
//!
//! As JSON an event is one object, its kind in `event`:
//!
//! ```json
//! {"event":"invoked","id":7,"producer":"w1","epoch":2,"first":40,"count":10,"digest":"00f1…"}
//! {"event":"written","id":7,"places":[{"offset":120,"count":10}],"duplicate":false}
//! ```
//!
//! The order is what point 7 of the module's header rests on: `invoked` has to be noted before the batch is handed over,
//! and `written` after its caller was told.

use serde::{Deserialize, Serialize};

use super::Digest;

/// Records side by side in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Offset of the first.
    pub offset: u64,
    /// How many.
    pub count: u32,
}

/// A batch in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Offset of its first record.
    pub offset: u64,
    /// Name of its producer.
    pub producer: String,
    /// The epoch that it carries.
    pub epoch: u64,
    /// Number of its first record.
    pub first: u64,
    /// How many records.
    pub count: u32,
    /// Of its records.
    pub digest: Digest,
}

/// See the file's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The history of a cluster begins. At its end there is to be a log of each broker.
    Began {
        /// How many brokers.
        brokers: u64,
    },
    /// A batch is about to be handed over. Within an epoch the numbers of batches follow each other.
    Invoked {
        /// Of this attempt, never used again in the history.
        id: u64,
        /// Name of its producer.
        producer: String,
        /// The epoch under which it is sent.
        epoch: u64,
        /// Number of its first record.
        first: u64,
        /// How many records.
        count: u32,
        /// Of its records.
        digest: Digest,
    },
    /// The library cut an attempt in two, to get an outcome for each: it ends earlier, and the rest is another one.
    Cut {
        /// Which attempt.
        id: u64,
        /// How many records it keeps.
        count: u32,
        /// Number of the attempt that has the others; never used before.
        rest: u64,
    },
    /// Its caller was told that it is written.
    Written {
        /// Which attempt.
        id: u64,
        /// Where, in the order of the records.
        places: Vec<Place>,
        /// An earlier attempt wrote it.
        duplicate: bool,
    },
    /// Its caller was told that it was written before, and not where.
    Known {
        /// Which attempt.
        id: u64,
    },
    /// Its caller was told that it is not written and never will be.
    Refused {
        /// Which attempt.
        id: u64,
        /// Why, in words.
        why: String,
    },
    /// Its caller knows nothing, or is no more.
    Unknown {
        /// Which attempt.
        id: u64,
        /// Why, in words.
        why: String,
    },
    /// Somebody was told that this number will never be written.
    Sealed {
        /// Name of the producer.
        producer: String,
        /// The number.
        sequence: u64,
    },
    /// Somebody was told that this number is written.
    Committed {
        /// Name of the producer.
        producer: String,
        /// The number.
        sequence: u64,
        /// Where, if that was told.
        offset: Option<u64>,
    },
    /// Somebody is about to ask about the numbers of a producer, or to open its name.
    Inquired {
        /// Of this question, never used again in the history.
        id: u64,
        /// Name of the producer.
        producer: String,
    },
    /// The answer: all numbers below this one are used up.
    Stands {
        /// Which question.
        id: u64,
        /// The first number that is not.
        next: u64,
    },
    /// The answer: this number is not used up.
    Open {
        /// Which question.
        id: u64,
        /// The number.
        sequence: u64,
    },
    /// Somebody is about to ask where the log ends.
    Asked {
        /// Of this question, never used again in the history.
        id: u64,
    },
    /// The answer.
    Answered {
        /// Which question.
        id: u64,
        /// One past the last offset.
        end: u64,
    },
    /// A reader begins here.
    Subscribed {
        /// Which reader: another one for each beginning.
        reader: u64,
        /// The offset that it is to be given first.
        from: u64,
    },
    /// A reader was given a batch. Without a `subscribed` before, the first one says where it began.
    Read {
        /// Which reader: another one for each beginning.
        reader: u64,
        /// The batch, or the rest of it, if the reader began in its middle.
        #[serde(flatten)]
        run: Run,
    },
    /// A broker's log holds a batch. One log after the other, each from its beginning, in order.
    Held {
        /// Which broker.
        broker: u64,
        /// The batch.
        #[serde(flatten)]
        run: Run,
    },
    /// An entry of a broker's log, in its place among those that hold batches, gives numbers up.
    GaveUp {
        /// Which broker.
        broker: u64,
        /// Name of the producer.
        producer: String,
        /// The first number.
        first: u64,
        /// One past the last number.
        end: u64,
    },
    /// An entry of a broker's log, in its place among those that hold batches, opens a name: from here on its batches carry
    /// this epoch.
    Granted {
        /// Which broker.
        broker: u64,
        /// Name of the producer.
        producer: String,
        /// The epoch.
        epoch: u64,
    },
    /// A broker's log was read to its end.
    Ended {
        /// Which broker.
        broker: u64,
        /// One past the last offset.
        end: u64,
    },
    /// Something was made to go wrong, or right again. For people: it is not judged.
    Fault {
        /// What, in words.
        what: String,
    },
}

impl Place {
    /// One past its last offset.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.count.into())
    }
}

impl Run {
    /// One past its last number.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }
}
