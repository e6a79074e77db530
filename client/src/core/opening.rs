//! How a producer's name is taken: look its epoch up, then open it if that is still the epoch.
//!
//! ```text
//!   Lookup ── epoch e ──► Open(e) ──► Opened: ours
//!     ▲                      │
//!     └── Fenced, and no ────┴──── Fenced, and an earlier attempt is open ──► refused
//!         attempt is open
//!
//!   OpenSession ──────────────────► Opened: ours
//! ```
//!
//! The bug this shape avoids: our first attempt is granted but its answer is lost; somebody else then opens the name,
//! rightly; our second attempt is told `Fenced`. To look up and open again now would throw out the one who came after
//! us. So that is done only when it is certain that none of our attempts ever held the name.

use std::time::Duration;

use super::{OpenFailure, Style, Time, attempts::Attempts};
use crate::protocol::{
    Class, Epoch, Instance, Lookup, Open, OpenSession, Producer, Refusal, Request, RequestId, Response,
    Sequence,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Lookup,
    Open {
        expected_epoch: Epoch,
    },
    /// A session has no name that anybody else could hold.
    Session {
        ttl_ms: u32,
    },
}

/// What an answer means for an opening.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not there yet. With true, only after a pause.
    Goes { pause: bool },
    /// The name is ours.
    Opened(Producer),
    /// It will not be ours.
    Failed(OpenFailure),
}

/// A producer's name on the way to being ours.
///
/// Invariant: the instance never changes, so that a repeated `Open` is granted the same epoch.
#[derive(Debug)]
pub(super) struct Opening {
    name: String,
    instance: Instance,
    pub(super) style: Style,
    step: Step,
    pub(super) attempts: Attempts,
}

impl Opening {
    pub(super) fn new(name: String, instance: Instance, style: Style, deadline: Time) -> Self {
        Self { name, instance, style, step: Step::Lookup, attempts: Attempts::new(deadline) }
    }

    /// A session, to write without a name.
    pub(super) fn session(instance: Instance, ttl_ms: u32, style: Style, deadline: Time) -> Self {
        let step = Step::Session { ttl_ms };
        let attempts = Attempts::new(deadline);
        Self { name: String::new(), instance, style, step, attempts }
    }

    /// How long the session lives, if it is one.
    pub(super) fn ttl(&self) -> Option<Duration> {
        match self.step {
            Step::Session { ttl_ms } => Some(Duration::from_millis(ttl_ms.into())),
            Step::Lookup | Step::Open { .. } => None,
        }
    }

    /// What to send now.
    pub(super) fn request(&self) -> Request {
        let (name, instance) = (self.name.clone(), self.instance);
        match self.step {
            Step::Lookup => Request::Lookup(Lookup { name }),
            Step::Open { expected_epoch } => Request::Open(Open { name, instance, expected_epoch }),
            Step::Session { ttl_ms } => Request::OpenSession(OpenSession { instance, ttl_ms }),
        }
    }

    /// Takes the answer to an attempt.
    pub(super) fn answered(&mut self, id: RequestId, response: Response) -> Progress {
        if !self.attempts.ids().any(|known| known == id) {
            return Progress::Goes { pause: false }; // of a step that is behind us
        }
        match (self.step, response) {
            (Step::Lookup, Response::Found(producer)) => self.open(producer.epoch, producer.next),
            (Step::Lookup, Response::Refused(Refusal::UnknownProducer)) => {
                self.open(Epoch::default(), Sequence(0))
            }
            (Step::Open { .. } | Step::Session { .. }, Response::Opened(producer))
                if producer.instance == self.instance =>
            {
                Progress::Opened(producer)
            }
            (_, Response::Refused(refusal)) => self.refused(id, refusal),
            _ => {
                self.attempts.lose(id);
                Progress::Goes { pause: true }
            }
        }
    }

    /// A number that would leave a gap is noticed here, before anybody is fenced. The name's next number never falls, so
    /// one that fits now fits later.
    fn open(&mut self, expected_epoch: Epoch, next: Sequence) -> Progress {
        if let Some(from) = self.style.from.filter(|from| *from > next) {
            return Progress::Failed(OpenFailure::Gap { from, next });
        }
        self.step = Step::Open { expected_epoch };
        self.attempts = self.attempts.anew();
        Progress::Goes { pause: false }
    }

    fn refused(&mut self, id: RequestId, refusal: Refusal) -> Progress {
        let class = refusal.class();
        match class {
            Class::Unknown => self.attempts.lose(id),
            Class::Elsewhere | Class::Later | Class::Final => self.attempts.close(id),
        }
        self.attempts.refused(refusal.clone());
        match (class, &refusal) {
            (_, Refusal::Fenced { .. }) if !self.attempts.is_open() => {
                self.step = Step::Lookup;
                self.attempts = self.attempts.anew();
                Progress::Goes { pause: true }
            }
            (Class::Elsewhere | Class::Unknown, _) => Progress::Goes { pause: false },
            (Class::Later, _) | (_, Refusal::DeadlinePassed) => Progress::Goes { pause: true },
            (Class::Final, _) => Progress::Failed(OpenFailure::Refused(refusal)),
        }
    }

    /// What to say when the deadline has passed.
    pub(super) fn overdue(&self) -> OpenFailure {
        OpenFailure::DeadlinePassed { last: self.attempts.last().cloned() }
    }
}
