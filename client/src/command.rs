//! What handles say to the driver: commands, questions, and that they are gone.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::{
    core::{ProducerKey, Style, SubscriptionKey},
    error::{AppendError, CallError, OpenError, TailError},
    outcome::{Outcome, Room},
    pipeline::Limits,
    producer::Lost,
    protocol::{
        self, BrokerId, End, List, Listed, Member, Offset, Resolve, Resolved, Retire, Retired, Status,
        batch::{BatchBuilder, Record},
    },
    tail::Delivered,
};

pub(crate) type Reply<T> = oneshot::Sender<T>;
pub(crate) type Deliveries = mpsc::UnboundedSender<Result<Delivered, TailError>>;

/// Under what a producer writes.
#[derive(Debug)]
pub(crate) enum Identity {
    /// A durable name.
    Name(String),
    /// A session that lives this long without being kept alive.
    Session(Duration),
}

/// What a handle wants.
#[derive(Debug)]
pub(crate) enum Command {
    Open {
        identity: Identity,
        style: Style,
        deadline: Instant,
        limits: Limits,
        reply: Reply<Opened>,
    },
    Record {
        producer: ProducerKey,
        record: Record,
        deadline: Instant,
        reply: Reply<Outcome>,
        room: Room,
    },
    Batch {
        producer: ProducerKey,
        batch: BatchBuilder,
        deadline: Instant,
        reply: Reply<Outcome>,
        room: Room,
    },
    /// Asks what was lost since the last time.
    Lost {
        producer: ProducerKey,
        reply: Reply<Vec<Lost>>,
    },
    Flush {
        producer: ProducerKey,
        reply: Reply<Result<(), AppendError>>,
    },
    Ask {
        question: Question,
        deadline: Instant,
    },
    Tail {
        from: Offset,
        places: Arc<Semaphore>,
        deliveries: Deliveries,
        reply: Reply<SubscriptionKey>,
    },
    Brokers(Reply<Vec<Member>>),
    Close(Reply<()>),
}

pub(crate) type Opened = Result<(ProducerKey, protocol::Producer), OpenError>;

/// A question, and who asks.
#[derive(Debug)]
pub(crate) enum Question {
    Lookup(String, Reply<Result<Option<protocol::Producer>, CallError>>),
    End(Reply<Result<End, CallError>>),
    List(List, Reply<Result<Listed, CallError>>),
    Resolve(Resolve, Reply<Result<Resolved, CallError>>),
    Retire(Retire, Reply<Result<Retired, CallError>>),
    Status(BrokerId, Reply<Result<Status, CallError>>),
}

impl Question {
    /// Says that there is no answer.
    pub(crate) fn fail(self, why: CallError) {
        // A caller that is gone does not want to know.
        match self {
            Self::Lookup(_, reply) => _ = reply.send(Err(why)),
            Self::End(reply) => _ = reply.send(Err(why)),
            Self::List(_, reply) => _ = reply.send(Err(why)),
            Self::Resolve(_, reply) => _ = reply.send(Err(why)),
            Self::Retire(_, reply) => _ = reply.send(Err(why)),
            Self::Status(_, reply) => _ = reply.send(Err(why)),
        }
    }
}

/// A handle that is gone.
#[derive(Debug)]
pub(crate) enum Released {
    Producer(ProducerKey),
    Tail(SubscriptionKey),
}
