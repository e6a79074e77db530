//! What comes out of a session: work for the driver, and news for the caller.

use thiserror::Error;

use crate::protocol::{
    Acks, BrokerId, Context, End, Epoch, Listed, Offset, Producer, ProducerId, Refusal, Request, RequestId,
    Resolved, Retired, Sequence, Span, Status, Subscribe, batch::Batch,
};

/// What a producer's numbers mean to whoever writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// Nothing outside of the log: a batch that fails is sealed, so that "failed" is certain and the producer can go on.
    #[default]
    Own,
    /// Something (the line of a file): none is ever given up. What is not answered in time is unknown, and whoever opens
    /// the name next learns it.
    Meaningful,
}

/// How a producer writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// The number to begin with; none for the name's next one.
    pub from: Option<Sequence>,
    /// What its numbers mean.
    pub numbers: Numbers,
    /// With [`Acks::Leader`], [`Event::Accepted`] is told besides.
    pub acks: Acks,
}

/// A producer within one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerKey(pub(super) u64);

/// A subscription within one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionKey(pub(super) u64);

/// A question within one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call(pub(super) u64);

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// Connect, exchange hellos, then say `handle_connected`, or `handle_disconnected` if that fails.
    Connect {
        /// Whom to expect there.
        broker: BrokerId,
        /// Where: `host:port`.
        address: String,
    },
    /// Give the connection, or the attempt at one, up. The session has already forgotten it.
    Disconnect {
        /// To whom.
        broker: BrokerId,
    },
    /// Send on the stream of requests, in the order of these transmits.
    Request {
        /// To whom; there is a connection.
        broker: BrokerId,
        /// Its id, which the answer carries.
        id: RequestId,
        /// Its context.
        context: Context,
        /// The request.
        request: Request,
    },
    /// Open a stream for a subscription.
    Subscribe {
        /// At whom; there is a connection.
        broker: BrokerId,
        /// Its id, which every frame on the stream carries.
        id: RequestId,
        /// Its context.
        context: Context,
        /// From where.
        subscribe: Subscribe,
    },
    /// Stop a subscription's stream.
    Unsubscribe {
        /// At whom.
        broker: BrokerId,
        /// The id of the `Subscribe`.
        id: RequestId,
    },
}

/// What the caller should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A broker answered a hello.
    Connected {
        /// Who.
        broker: BrokerId,
    },
    /// A broker's hello shows that it is of no use to this client; the connection is given up.
    Rejected {
        /// Who.
        broker: BrokerId,
        /// What is wrong with it.
        why: Refusal,
    },
    /// A producer's name is ours.
    Opened {
        /// Which producer.
        producer: ProducerKey,
        /// What the brokers know of it.
        state: Producer,
    },
    /// A producer's name could not be taken.
    OpenFailed {
        /// Which producer; the key is of no further use.
        producer: ProducerKey,
        /// Why.
        why: OpenFailure,
    },
    /// The leader has a batch on stable storage; only for producers that want to know. Another event follows: the offset
    /// is provisional until then.
    Accepted {
        /// Whose.
        producer: ProducerKey,
        /// Its first number.
        first: Sequence,
        /// Its records.
        count: u32,
        /// Offset of its first record, if this leader stays.
        offset: Offset,
    },
    /// A batch, or a part of one that had to be cut, is written: durable on a majority.
    Acked {
        /// Whose.
        producer: ProducerKey,
        /// Its first number.
        first: Sequence,
        /// Its records.
        count: u32,
        /// Offset of its first record; the others follow, but for those in `rest`.
        offset: Offset,
        /// Whether an earlier attempt had written it.
        duplicate: bool,
        /// Where the last records lie, if they were written before in batches that were cut otherwise.
        rest: Vec<Span>,
    },
    /// A batch was written before, longer ago than the brokers remember: what it holds was not compared.
    Known {
        /// Whose.
        producer: ProducerKey,
        /// Its first number.
        first: Sequence,
        /// Its records.
        count: u32,
    },
    /// A batch is not written and never will be. If it was refused because its numbers hold something else
    /// ([`Refusal::SequenceReused`]), those from before its producer was opened may hold parts of it.
    Failed {
        /// Whose.
        producer: ProducerKey,
        /// Its first number.
        first: Sequence,
        /// Its records.
        count: u32,
        /// Why.
        why: Failure,
    },
    /// A batch may or may not be written, now or later. Open the name again, and its `next` tells; of a session's nobody can.
    Unknown {
        /// Whose.
        producer: ProducerKey,
        /// Its first number.
        first: Sequence,
        /// Its records.
        count: u32,
        /// The last thing a broker said about it.
        last: Option<Refusal>,
    },
    /// Answer to `lookup`: none if no such name was ever opened.
    Found {
        /// Which question.
        call: Call,
        /// What the brokers know.
        state: Option<Producer>,
    },
    /// Answer to `end`.
    EndIs {
        /// Which question.
        call: Call,
        /// Where the log ends.
        end: End,
    },
    /// Answer to `status`.
    StatusIs {
        /// Which question.
        call: Call,
        /// What the broker says of itself.
        status: Status,
    },
    /// Answer to `list`.
    Listed {
        /// Which question.
        call: Call,
        /// A page of the table of producers.
        listed: Listed,
    },
    /// Answer to `resolve`.
    Resolved {
        /// Which question.
        call: Call,
        /// What became of the number.
        resolved: Resolved,
    },
    /// Answer to `retire`: the name is closed for ever.
    Retired {
        /// Which call.
        call: Call,
        /// Where its stream ends.
        retired: Retired,
    },
    /// A call that changes something may or may not have done so, now or later. Repeat it: that is harmless.
    CallUnknown {
        /// Which call.
        call: Call,
        /// The last thing a broker said about it.
        last: Option<Refusal>,
    },
    /// A question has no answer, or a call was not carried out.
    CallFailed {
        /// Which question.
        call: Call,
        /// Why.
        why: Failure,
    },
    /// The next records of a subscription.
    Records {
        /// Which subscription.
        subscription: SubscriptionKey,
        /// In order, with neither gap nor repeat since the last ones.
        batches: Vec<Placed>,
        /// Names of producers that the subscription has not been told before.
        names: Vec<(ProducerId, String)>,
        /// End offset of the log as the broker knew it.
        end: Offset,
    },
    /// A subscription is over.
    SubscriptionEnded {
        /// Which.
        subscription: SubscriptionKey,
        /// Why.
        why: SubscriptionFailure,
    },
}

/// A batch of a subscription: its checksum fitted, its records are unpacked and can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset of the batch's first record.
    pub offset: Offset,
    /// Records at its beginning that come before what was asked for. Count.
    pub skip: u32,
    /// The batch.
    pub batch: Batch,
}

/// Why something did not happen. It never will.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// A broker refused it.
    #[error("refused by the broker")]
    Refused(#[source] Refusal),
    /// The deadline passed, and no attempt is open.
    #[error("the deadline passed{}", .last.as_ref().map_or(String::new(), |last| format!("; the broker said last: {last}")))]
    DeadlinePassed {
        /// The last thing a broker said about it.
        last: Option<Refusal>,
    },
    /// The cluster has no such broker.
    #[error("the cluster has no broker {broker}")]
    NoSuchBroker {
        /// Who was asked for.
        broker: BrokerId,
    },
    /// A batch before it failed, so that its number can never follow.
    #[error("an earlier batch of this producer failed; open the producer again")]
    Abandoned,
}

/// Why a subscription cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubscriptionFailure {
    /// A broker refused it.
    #[error("the broker refused to deliver")]
    Refused(#[source] Refusal),
    /// A batch of the log cannot be read, from whomever it comes: it was asked for twice, over two connections. All that
    /// comes before it was handed out.
    #[error(
        "the batch at offset {offset} cannot be read: asked for again over another connection, broker {broker} \
         delivered it like this once more. All records before it were given out. {}", advice(.found)
    )]
    Unreadable {
        /// Offset of its first record; where not even that can be read, the one that comes next.
        offset: Offset,
        /// Who delivered it the second time.
        broker: BrokerId,
        /// What is wrong with it.
        #[source]
        found: Refusal,
    },
    /// A broker delivers other records than were asked for, and did so again over another connection.
    #[error(
        "asked twice, over two connections, for the records from offset {expected} on, broker {broker} delivered some \
         from offset {found} on. That is a fault of the broker: report it, with its version"
    )]
    Misplaced {
        /// The offset that comes next.
        expected: Offset,
        /// Who delivered others.
        broker: BrokerId,
        /// The offset that was delivered.
        found: Offset,
    },
}

/// What can be done about a batch that cannot be read.
fn advice(found: &Refusal) -> &'static str {
    match found {
        Refusal::Unsupported { .. } => {
            "It was written by a newer version of sequor: read it with that version"
        }
        _ => {
            "It is damaged where it is stored: stop this broker, look at its data directory with `sequor wal verify`, \
             and compare it with those of the others"
        }
    }
}

/// Why a producer's name was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenFailure {
    /// The name's next number lies before the one to begin with: there would be a gap.
    #[error("the producer's next sequence is {next}; it cannot begin at {from}")]
    Gap {
        /// Where it was to begin.
        from: Sequence,
        /// The name's next number.
        next: Sequence,
    },
    /// A broker refused it. If that was [`Refusal::Fenced`], an attempt of ours may have held the name in between;
    /// nothing was written under it.
    #[error("the broker refused to open the producer")]
    Refused(#[source] Refusal),
    /// The deadline passed. The name may have been taken by an attempt on its way; nothing is written under it, and
    /// the next `open` fences it.
    #[error("the deadline passed before the producer was open{}", .last.as_ref().map_or(String::new(), |last| format!("; the broker said last: {last}")))]
    DeadlinePassed {
        /// The last thing a broker said about it.
        last: Option<Refusal>,
    },
}

/// Why a batch was not taken into the window. It was never sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AppendRefused {
    /// The producer is not open (yet, or any more).
    #[error("the producer is not open")]
    NotOpen,
    /// As much is in flight as may be. Wait for an event about one of the batches.
    #[error("the producer's window is full")]
    Full,
    /// The batch holds no record.
    #[error("the batch holds no record")]
    Empty,
    /// Another epoch holds the name.
    #[error("the producer is fenced by epoch {by}")]
    Fenced {
        /// That epoch.
        by: Epoch,
    },
    /// An earlier batch failed or is unknown: no number can follow it. Open the producer again.
    #[error("an earlier batch failed or is unknown; open the producer again")]
    Broken,
}
