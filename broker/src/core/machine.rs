//! The state that the log is folded into, and the one function that decides what a request does to it.
//!
//! [`Machine::decide`] is asked twice. At *admission* the leader asks it with a request and the head state: what comes
//! out, with its stamps, goes into the log. At *apply* every broker asks it again, with the request that the logged
//! effect describes and the applied state: the same effect must come out, stamp for stamp. If another one does, this
//! broker's state is not what the leader's was, and it stops before it can answer anybody.
//!
//! A refusal or a duplicate changes nothing and is never logged: the log holds only what happened.

use std::sync::Arc;

use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::limits::SESSION_TTL_MS_MAX;
use sequor_client::protocol::{
    Alive, Appended, Epoch, Instance, Offset, ProducerId, Refusal, Resolved, Response, Sequence, Token,
};
use thiserror::Error;

use super::effect::{Effect, Opening, Retiring, Sealing, SessionOpening, Written};
use super::genesis::Genesis;
use super::producers::{AppendVerdict, OpenVerdict, Producers};
use super::sessions::Sessions;

/// A request that can change the state.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Take a producer's name.
    Open {
        /// The name.
        name: Arc<str>,
        /// Who asks.
        instance: Instance,
        /// The epoch that must be current.
        expected: Epoch,
    },
    /// Write a batch.
    Append {
        /// The batch.
        batch: Batch,
        /// The lowest number that the producer may still resend.
        settled: Sequence,
    },
    /// Give up every open number through this one.
    Seal {
        /// The producer.
        producer: ProducerId,
        /// The epoch that must be current.
        epoch: Epoch,
        /// The last number to give up.
        through: Sequence,
    },
    /// Close a name for ever; or end a session before its time.
    Retire {
        /// The producer.
        producer: ProducerId,
        /// The epoch that must be current.
        epoch: Epoch,
    },
    /// Begin a session.
    OpenSession {
        /// Who asks.
        instance: Instance,
        /// How long it lives without being kept alive. Milliseconds of log time.
        ttl_ms: u64,
    },
    /// Keep a session alive.
    Renew(ProducerId),
    /// End a session that was not kept alive. No client asks for it: the leader does, when it is due.
    Expire(ProducerId),
}

impl Operation {
    /// The epoch that the caller believes to be current.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Open { expected, .. } => *expected,
            Self::Append { batch, .. } => batch.epoch(),
            Self::Seal { epoch, .. } | Self::Retire { epoch, .. } => *epoch,
            Self::OpenSession { .. } | Self::Renew(_) | Self::Expire(_) => Epoch(1),
        }
    }
}

/// What comes of an [`Operation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It changes the state like this.
    Write(Effect),
    /// It changes nothing and is answered like this: it was done before.
    Known(Response),
    /// It changes nothing: this batch's numbers are written, but were cut otherwise. Only the log can tell whether they
    /// hold the same.
    Recut(Batch),
    /// It is refused.
    Refuse(Refusal),
}

/// The state at one place of the log. A clone is O(1).
///
/// Invariants:
/// 1. `end` is the number of records in all entries folded so far: offsets are dense.
/// 2. `tokens` never falls; every id or token granted was drawn by raising it by one.
/// 3. `log_time_ms` is that of the last entry folded, and never falls.
/// 4. The producers without a name are those of `sessions`.
/// 5. `producers` holds at most `producers_max` names; beyond that new names are refused, nothing is evicted.
#[derive(Clone, Debug)]
pub struct Machine {
    producers_max: u64,
    log_time_ms: u64,
    end: Offset,
    tokens: Token,
    producers: Producers,
    sessions: Sessions,
}

/// An entry whose stamps are not what this broker's state gives.
#[derive(Debug, Error)]
#[error("this broker's state is not the leader's: the entry says {logged:?}, the state gives {decided:?}")]
pub struct Mismatch {
    /// What the leader decided.
    pub logged: Box<Effect>,
    /// What this broker would have decided.
    pub decided: Box<Verdict>,
}

impl Machine {
    /// The state before the first entry of a cluster.
    #[must_use]
    pub fn new(genesis: &Genesis) -> Self {
        Self {
            producers_max: genesis.settings().producers_max,
            log_time_ms: 0,
            end: Offset(0),
            tokens: Token(0),
            producers: Producers::default(),
            sessions: Sessions::default(),
        }
    }

    /// Log time of the last entry folded, in milliseconds.
    #[must_use]
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// Begins to fold an entry that carries this log time. False if it is earlier than that of the entry before.
    #[must_use]
    pub fn advance_to(&mut self, log_time_ms: u64) -> bool {
        let follows = log_time_ms >= self.log_time_ms;
        self.log_time_ms = self.log_time_ms.max(log_time_ms);
        follows
    }

    /// One past the offset of the last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Forgets the table of producers: a fault on purpose.
    #[cfg(feature = "bug-producers-lost-at-restart")]
    pub(super) fn forget_producers(&mut self) {
        self.producers = Producers::default();
    }

    /// The table of producers.
    #[must_use]
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// The sessions that live.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What became of one number of a producer.
    ///
    /// # Errors
    /// If there is no such producer.
    pub fn resolve(&self, id: ProducerId, sequence: Sequence) -> Result<Resolved, Refusal> {
        self.producers.resolve(id, sequence, self.tokens.0)
    }

    /// What `operation` does to this state. Changes nothing.
    #[must_use]
    pub fn decide(&self, operation: &Operation) -> Verdict {
        match operation {
            Operation::Open { name, instance, expected } => self.decide_open(name, *instance, *expected),
            Operation::Append { batch, settled } => self.decide_append(batch, *settled),
            Operation::Seal { producer, epoch, through } => self.decide_seal(*producer, *epoch, *through),
            Operation::Retire { producer, epoch } => self.decide_retire(*producer, *epoch),
            Operation::OpenSession { instance, ttl_ms } => self.decide_session(*instance, *ttl_ms),
            Operation::Renew(id) => self.decide_renewal(*id),
            Operation::Expire(id) if self.sessions.is_due(*id, self.log_time_ms) => {
                Verdict::Write(Effect::Expire(*id))
            }
            Operation::Expire(_) => Verdict::Refuse(Refusal::UnknownProducer),
        }
    }

    fn decide_open(&self, name: &Arc<str>, instance: Instance, expected: Epoch) -> Verdict {
        let (id, epoch) = match self.producers.judge_open(name, instance, expected) {
            Err(refusal) => return Verdict::Refuse(refusal),
            Ok(OpenVerdict::Held(producer)) => return Verdict::Known(Response::Opened(producer)),
            Ok(OpenVerdict::Create) if self.producers.len() as u64 >= self.producers_max => {
                return Verdict::Refuse(Refusal::TableFull { limit_names: self.producers_max });
            }
            Ok(OpenVerdict::Create) => (ProducerId(self.tokens.plus(1).0), Epoch(1)),
            Ok(OpenVerdict::Raise(id, epoch)) => (id, epoch),
        };
        Verdict::Write(Effect::Open(Opening { id, epoch, instance, name: Arc::clone(name) }))
    }

    fn decide_append(&self, batch: &Batch, settled: Sequence) -> Verdict {
        match self.judge_append(batch) {
            Err(refusal) => Verdict::Refuse(refusal),
            Ok(AppendVerdict::Known { first }) => {
                Verdict::Known(Response::Appended(self.appended(first, batch.count(), true)))
            }
            Ok(AppendVerdict::Recut { .. }) => Verdict::Recut(batch.clone()),
            Ok(AppendVerdict::Next) => {
                // What is not written yet cannot be settled.
                let settled = settled.min(batch.first_sequence());
                Verdict::Write(Effect::Append(Written { base: self.end, settled, batch: batch.clone() }))
            }
        }
    }

    /// What the table says to a batch.
    ///
    /// # Errors
    /// Why it refuses it.
    pub(super) fn judge_append(&self, batch: &Batch) -> Result<AppendVerdict, Refusal> {
        self.producers.judge_append(batch, self.tokens.0)
    }

    fn decide_seal(&self, id: ProducerId, epoch: Epoch, through: Sequence) -> Verdict {
        match self.producers.judge_seal(id, epoch, through, self.tokens.0) {
            Err(refusal) => Verdict::Refuse(refusal),
            Ok(Err(known)) => Verdict::Known(Response::Resolved(known)),
            Ok(Ok(first)) => Verdict::Write(Effect::Seal(Sealing { id, epoch, first, end: through.plus(1) })),
        }
    }

    fn decide_retire(&self, id: ProducerId, epoch: Epoch) -> Verdict {
        match self.producers.judge_retire(id, epoch, self.tokens.0) {
            Err(refusal) => Verdict::Refuse(refusal),
            Ok(Some(retired)) => Verdict::Known(Response::Retired(retired)),
            Ok(None) => Verdict::Write(Effect::Retire(Retiring { id, epoch })),
        }
    }

    fn decide_session(&self, instance: Instance, ttl_ms: u64) -> Verdict {
        match self.sessions.judge_open(instance) {
            Err(refusal) => Verdict::Refuse(refusal),
            Ok(Some(id)) => {
                let shown = self.producers.show_id(id);
                Verdict::Known(Response::Opened(shown.expect("a session has its producer")))
            }
            Ok(None) => {
                let id = ProducerId(self.tokens.plus(1).0);
                Verdict::Write(Effect::Session(SessionOpening { id, instance, ttl_ms }))
            }
        }
    }

    fn decide_renewal(&self, id: ProducerId) -> Verdict {
        match self.sessions.ttl_ms(id) {
            Some(_) => Verdict::Write(Effect::Renew(id)),
            None => Verdict::Refuse(self.producers.why_unknown(id, self.tokens.0)),
        }
    }

    /// The sessions that may be ended at this log time, those that are due longest first.
    pub(super) fn sessions_due(&self, log_time_ms: u64) -> impl Iterator<Item = ProducerId> {
        self.sessions.due(log_time_ms)
    }

    /// Nothing is remembered of a session that is over: its number is not above the token counter, and not in the table.
    fn end_session(&mut self, id: ProducerId) {
        self.sessions.absorb_expiry(id);
        self.producers.absorb_expiry(id);
    }

    /// How long a session lives from now on.
    fn alive(&self, id: ProducerId) -> Response {
        let ttl_ms = self.sessions.ttl_ms(id).and_then(|ttl_ms| u32::try_from(ttl_ms).ok());
        Response::Alive(Alive { ttl_ms: ttl_ms.unwrap_or(SESSION_TTL_MS_MAX) })
    }

    /// The answer to an append whose records lie side by side from `first` on.
    pub(super) fn appended(&self, first: Offset, count: u32, duplicate: bool) -> Appended {
        Appended { first, count, duplicate, token: None, branch: None, end: self.end, rest: Vec::new() }
    }

    /// Folds an effect that [`Machine::decide`] just gave for this state, and says how its request is answered.
    pub fn absorb(&mut self, effect: &Effect) -> Response {
        match effect {
            Effect::Open(opening) => {
                self.tokens = self.tokens.max(Token(opening.id.0));
                self.producers.absorb_open(opening, self.end);
                let shown = self.producers.show(&opening.name);
                Response::Opened(shown.expect("the name was absorbed a line above"))
            }
            Effect::Append(written) => {
                debug_assert_eq!(written.base, self.end, "offsets are dense");
                let count = written.batch.count();
                self.producers.absorb_append(written);
                self.end = self.end.plus(count.into());
                Response::Appended(self.appended(written.base, count, false))
            }
            Effect::Seal(sealing) => {
                self.producers.absorb_seal(sealing);
                Response::Resolved(Resolved::Sealed)
            }
            Effect::Retire(retiring) => {
                let retired = self.producers.absorb_retire(retiring);
                if self.sessions.ttl_ms(retiring.id).is_some() {
                    self.end_session(retiring.id);
                }
                Response::Retired(retired)
            }
            Effect::Session(opening) => {
                self.tokens = self.tokens.max(Token(opening.id.0));
                self.producers.absorb_session(opening, self.end);
                self.sessions.absorb_open(opening, self.log_time_ms);
                let shown = self.producers.show_id(opening.id);
                Response::Opened(shown.expect("it was absorbed two lines above"))
            }
            Effect::Renew(id) => {
                self.sessions.absorb_renewal(*id, self.log_time_ms);
                self.alive(*id)
            }
            Effect::Expire(id) => {
                self.end_session(*id);
                Response::Refused(Refusal::SessionExpired)
            }
        }
    }

    /// Applies a committed effect: decides again, compares every stamp, and folds.
    ///
    /// # Errors
    /// [`Mismatch`] if this state decides otherwise than the leader's did. The broker must stop.
    pub fn apply(&mut self, effect: &Effect) -> Result<(), Mismatch> {
        let decided = self.decide(&self.operation_of(effect));
        if !matches!(&decided, Verdict::Write(again) if again == effect) {
            return Err(Mismatch { logged: Box::new(effect.clone()), decided: Box::new(decided) });
        }
        self.absorb(effect);
        Ok(())
    }

    /// The request that an effect answers.
    fn operation_of(&self, effect: &Effect) -> Operation {
        match effect {
            Effect::Open(opening) => Operation::Open {
                name: Arc::clone(&opening.name),
                instance: opening.instance,
                expected: Epoch(opening.epoch.0.saturating_sub(1)),
            },
            Effect::Append(written) => {
                Operation::Append { batch: written.batch.clone(), settled: written.settled }
            }
            Effect::Seal(Sealing { id, epoch, end, .. }) => {
                let through = Sequence(end.0.saturating_sub(1));
                Operation::Seal { producer: *id, epoch: *epoch, through }
            }
            Effect::Retire(Retiring { id, epoch }) => Operation::Retire { producer: *id, epoch: *epoch },
            Effect::Session(SessionOpening { instance, ttl_ms, .. }) => {
                Operation::OpenSession { instance: *instance, ttl_ms: *ttl_ms }
            }
            Effect::Renew(id) => Operation::Renew(*id),
            Effect::Expire(id) => Operation::Expire(*id),
        }
    }

    /// A checksum of the whole state: equal on two brokers that applied the same entries.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.log_time_ms.to_le_bytes());
        hasher.update(&self.end.0.to_le_bytes());
        hasher.update(&self.tokens.0.to_le_bytes());
        self.producers.fingerprint(&mut hasher);
        self.sessions.fingerprint(&mut hasher);
        hasher.finalize()
    }
}
