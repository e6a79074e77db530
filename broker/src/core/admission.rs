//! From requests to an entry: what a leader decides in one pass.
//!
//! Everything that is queued when a pass begins is decided, in order, against a *draft* of the head state, and becomes
//! **one** entry. The draft becomes the head only if raft takes the entry at the index and term that were expected;
//! else it is dropped as if nothing had been asked. Drafts cost nothing: a clone of the state is O(1).
//!
//! The head state is the applied state with every entry of this term on top that is proposed and not applied yet. It
//! exists only while this broker leads and has applied an entry of its own term.

use std::collections::VecDeque;
use std::sync::Arc;

use sequor_client::protocol::batch::Batch;
use sequor_client::protocol::limits::{
    BATCH_BYTES_MAX, DEADLINE_MS_MAX, ENTRY_BYTES_MAX, NAME_BYTES_MAX, SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN, TOKENS_MAX,
};
use sequor_client::protocol::{
    self as wire, Acks, Context, Feature, Field, Lineage, OpenSession, Refusal, Request, Resolve, Resolved,
    Response, Retire,
};
use sequor_wal::{Index, Term};

use super::Core;
use super::effect::{self, ENVELOPE_BYTES, Effect, Envelope, LEVEL, SMALL_EFFECT_BYTES_MAX};
use super::machine::{Machine, Operation, Verdict};
use super::questions::Question;
use super::time::Time;
use super::waiting::{Answer, Caller};

/// Most bytes of requests that wait for a pass.
pub(super) const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Sessions that one entry ends. The next pass ends the others. Count.
const EXPIRIES_PER_ENTRY_MAX: usize = 1024;
/// What a request costs in the queue beside its batch. Bytes.
const REQUEST_BYTES: usize = 256;

/// A request that was understood and waits for a pass.
#[derive(Debug)]
pub(super) struct Arrived {
    caller: Caller,
    until: Time,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Change {
        operation: Operation,
        /// Its caller also wants to know when this broker's own disk has it.
        early: bool,
    },
    Ask(Question),
}

impl Task {
    fn bytes(&self) -> usize {
        match self {
            Self::Change { operation: Operation::Append { batch, .. }, .. } => {
                REQUEST_BYTES + batch.bytes().len()
            }
            Self::Change { .. } | Self::Ask(_) => REQUEST_BYTES,
        }
    }

    /// Bytes that it may take in an entry.
    fn entry_bytes(&self) -> usize {
        match self {
            Self::Change { operation: Operation::Append { batch, .. }, .. } => {
                effect::append_bytes(batch.bytes().len())
            }
            Self::Change { .. } => SMALL_EFFECT_BYTES_MAX,
            Self::Ask(_) => 0,
        }
    }
}

/// Requests that wait for a pass, bounded in bytes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    arrived: VecDeque<Arrived>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, arrived: Arrived) -> Result<(), Refusal> {
        let bytes = arrived.task.bytes();
        if self.bytes + bytes > QUEUED_BYTES_MAX {
            return Err(Refusal::Busy { limit_bytes: QUEUED_BYTES_MAX as u64 });
        }
        self.bytes += bytes;
        self.arrived.push_back(arrived);
        Ok(())
    }

    fn pop(&mut self) -> Option<Arrived> {
        let arrived = self.arrived.pop_front()?;
        self.bytes -= arrived.task.bytes();
        Some(arrived)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    fn next_entry_bytes(&self) -> Option<usize> {
        self.arrived.front().map(|arrived| arrived.task.entry_bytes())
    }
}

/// The state that requests are decided against.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) term: Term,
    /// Index of the last entry that it holds.
    pub(super) index: Index,
    pub(super) machine: Machine,
}

/// One pass's decisions.
struct Draft {
    machine: Machine,
    effects: Vec<Effect>,
    bytes: usize,
    answers: Vec<(Caller, Answer)>,
    /// Provisional answers, for when this broker's own disk has the entry.
    early: Vec<(Caller, Response)>,
}

impl Draft {
    /// Gives `caller` a provisional answer as well, if its request is the last one decided and wrote something.
    fn accept_last(&mut self, caller: Caller) {
        if let Some((last, Answer::Wrote(Response::Appended(appended)))) = self.answers.last()
            && *last == caller
        {
            self.early.push((caller, Response::Accepted(appended.clone())));
        }
    }
}

impl Core {
    /// Understands a request: it is queued for the next pass, or answered at once if its own bytes refuse it.
    pub(super) fn receive(&mut self, now: Time, caller: Caller, context: &Context, request: Request) {
        if matches!(request, Request::Status) {
            let status = self.status();
            return self.reply(caller, Response::Status(status));
        }
        let until = now + u64::from(context.deadline_ms) * 1000;
        let queued = check_context(context, self.settings.lineage)
            .and_then(|()| self.check_seen(context))
            .and_then(|()| understand(request))
            .and_then(|task| self.queue.push(Arrived { caller, until, task }));
        if let Err(refusal) = queued {
            self.reply(caller, Response::Refused(refusal));
        }
    }

    /// A session that has seen more than a broker has must not be answered by it. A leader that may decide has
    /// everything that was ever committed in its head state, unless it was deposed without knowing it.
    fn check_seen(&self, context: &Context) -> Result<(), Refusal> {
        match (context.seen, &self.head) {
            (Some(seen), Some(head)) if seen.end > head.machine.end() => Err(Refusal::Behind),
            _ => Ok(()),
        }
    }

    /// Decides everything that is queued.
    pub(super) fn admit(&mut self, now: Time, wall_ms: u64) {
        if !self.node.leads() {
            let leader = self.leader();
            while let Some(arrived) = self.queue.pop() {
                self.reply(arrived.caller, Response::Refused(Refusal::NotLeader { leader }));
            }
            return;
        }
        if cfg!(feature = "bug-overlay-dropped-at-commit") {
            self.head.take_if(|head| head.index <= self.node.commit());
        }
        if self.node.may_decide() && self.head.is_none() {
            self.head = Some(Head {
                term: self.node.term(),
                index: self.applied_index,
                machine: self.applied.clone(),
            });
        }
        while self.queue.next_entry_bytes().is_some() && self.node.has_room() {
            let Some(head) = &self.head else { return };
            let draft = self.draft(now, head.machine.clone());
            self.submit(wall_ms, draft);
        }
        if self.queue.next_entry_bytes().is_none() && self.node.has_room() {
            self.end_sessions(now, wall_ms);
        }
    }

    /// Ends the sessions that nobody kept alive. Only once nothing is queued: a keep-alive that has arrived counts. And not
    /// while keep-alives are refused, nor soon after.
    fn end_sessions(&mut self, now: Time, wall_ms: u64) {
        let Some(head) = self.head.as_ref().filter(|_| !self.is_stalled() && now >= self.no_expiry_before)
        else {
            return;
        };
        let due: Vec<_> =
            head.machine.sessions_due(self.clock.read(now)).take(EXPIRIES_PER_ENTRY_MAX).collect();
        if due.is_empty() {
            return;
        }
        let mut draft = self.draft(now, head.machine.clone());
        for id in due {
            if let Verdict::Write(effect) = draft.machine.decide(&Operation::Expire(id)) {
                draft.machine.absorb(&effect);
                draft.effects.push(effect);
            }
        }
        self.submit(wall_ms, draft);
    }

    /// Decides as much of the queue as one entry can hold.
    fn draft(&mut self, now: Time, machine: Machine) -> Draft {
        let (effects, answers, early) = (Vec::new(), Vec::new(), Vec::new());
        let mut draft = Draft { machine, effects, bytes: ENVELOPE_BYTES, answers, early };
        let follows = draft.machine.advance_to(self.clock.read(now));
        debug_assert!(follows, "a leader's clock goes on from the time of the last entry");
        while let Some(bytes) = self.queue.next_entry_bytes() {
            if draft.bytes + bytes > ENTRY_BYTES_MAX {
                break;
            }
            let Some(arrived) = self.queue.pop() else { break };
            if arrived.until < now {
                self.reply(arrived.caller, Response::Refused(Refusal::DeadlinePassed));
                continue;
            }
            match arrived.task {
                Task::Ask(question) => draft.answers.push((arrived.caller, Answer::Question(question))),
                Task::Change { operation, early } => {
                    self.decide(&mut draft, arrived.caller, &operation);
                    if early {
                        draft.accept_last(arrived.caller);
                    }
                }
            }
        }
        draft
    }

    fn decide(&mut self, draft: &mut Draft, caller: Caller, operation: &Operation) {
        let verdict = draft.machine.decide(operation);
        let unproven = cfg!(feature = "bug-unproven-duplicate");
        if is_lasting(operation, &verdict) && (unproven || self.applied.decide(operation) == verdict) {
            return self.reply_nothing(caller, verdict);
        }
        if let Some(refusal) = self.cannot_write(operation, &verdict) {
            return self.reply(caller, Response::Refused(refusal));
        }
        match verdict {
            Verdict::Write(effect) => {
                let response = draft.machine.absorb(&effect);
                draft.bytes += effect.bytes();
                draft.effects.push(effect);
                draft.answers.push((caller, Answer::Wrote(response)));
            }
            Verdict::Known(response) => draft.answers.push((caller, Answer::Nothing(response))),
            Verdict::Refuse(refusal) => {
                draft.answers.push((caller, Answer::Nothing(Response::Refused(refusal))));
            }
            // To be compared when those numbers are applied here, and can be read.
            Verdict::Recut(batch) => {
                draft.answers.push((caller, Answer::Question(Question::Recut(batch))));
            }
        }
    }

    fn reply_nothing(&mut self, caller: Caller, verdict: Verdict) {
        match verdict {
            Verdict::Known(response) => self.reply(caller, response),
            Verdict::Refuse(refusal) => self.reply(caller, Response::Refused(refusal)),
            Verdict::Write(_) | Verdict::Recut(_) => {
                debug_assert!(false, "neither is a lasting fact");
            }
        }
    }

    /// Proposes the draft's entry, or begins a proof of leadership if there is nothing to propose.
    fn submit(&mut self, wall_ms: u64, draft: Draft) {
        let Some(head) = &mut self.head else { return };
        if draft.effects.is_empty() {
            if !draft.answers.is_empty() {
                let number = self.waiting.for_proof(head.index, draft.answers);
                self.node.prove_leadership(number);
            }
            return;
        }
        let expected = (self.node.log_end() + 1, head.term);
        let envelope = Envelope { level: LEVEL, log_time_ms: draft.machine.log_time_ms(), wall_ms };
        match self.node.propose(effect::encode(envelope, &draft.effects)) {
            Some(place) => {
                assert_eq!(place, expected, "raft put the entry elsewhere than admission decided it for");
                head.index = place.0;
                head.machine = draft.machine;
                self.counters.proposals += 1;
                self.count_written(&draft.effects);
                self.waiting.for_sync(place.0, place.1, draft.early);
                self.waiting.for_entry(place.0, place.1, draft.answers);
            }
            None => {
                for (caller, _) in draft.answers {
                    self.reply(caller, Response::Refused(Refusal::Unavailable));
                }
            }
        }
    }

    fn count_written(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Append(written) = effect {
                self.counters.batches += 1;
                self.counters.records += u64::from(written.batch.count());
            }
        }
    }
}

/// Facts that no later entry can change, if the applied state says them: they need no proof of leadership. That a
/// *newer* epoch than the one known here is not the current one is no such fact: a deposed leader would say so.
fn is_lasting(operation: &Operation, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Known(Response::Appended(appended)) => appended.duplicate,
        Verdict::Known(Response::Resolved(resolved)) => *resolved != Resolved::Open,
        Verdict::Known(Response::Retired(_)) => true,
        Verdict::Refuse(Refusal::Fenced { by, .. }) => operation.epoch() < *by,
        Verdict::Refuse(
            Refusal::SessionExpired
            | Refusal::Retired
            | Refusal::Sealed { .. }
            | Refusal::AlreadyCommitted { .. }
            | Refusal::SequenceReused { .. },
        ) => true,
        Verdict::Known(_) | Verdict::Refuse(_) | Verdict::Recut(_) | Verdict::Write(_) => false,
    }
}

fn check_context(context: &Context, lineage: Lineage) -> Result<(), Refusal> {
    if context.deadline_ms > DEADLINE_MS_MAX {
        return Err(too_large(Field::Deadline, context.deadline_ms as usize, DEADLINE_MS_MAX as usize));
    }
    if context.tokens.len() > TOKENS_MAX {
        return Err(too_large(Field::Tokens, context.tokens.len(), TOKENS_MAX));
    }
    if !context.tokens.is_empty() {
        return Err(Refusal::Unsupported { what: Feature::Tokens });
    }
    match context.seen {
        Some(seen) if seen.lineage != lineage => {
            Err(Refusal::OtherLineage { expected: seen.lineage, found: lineage })
        }
        _ => Ok(()),
    }
}

fn understand(request: Request) -> Result<Task, Refusal> {
    match request {
        Request::Open(open) => {
            check_name(&open.name)?;
            Ok(change(Operation::Open {
                name: Arc::from(open.name),
                instance: open.instance,
                expected: open.expected_epoch,
            }))
        }
        Request::Append(append) => understand_append(append),
        Request::Lookup(lookup) => check_name(&lookup.name).map(|()| Task::Ask(Question::Lookup(lookup))),
        Request::Resolve(Resolve { producer, epoch, sequence, seal: true }) => {
            Ok(change(Operation::Seal { producer, epoch, through: sequence }))
        }
        Request::Resolve(resolve) => Ok(Task::Ask(Question::Resolve(resolve))),
        Request::Retire(Retire { producer, epoch }) => Ok(change(Operation::Retire { producer, epoch })),
        Request::List(list) => {
            list.after.as_deref().map_or(Ok(()), check_name)?;
            Ok(Task::Ask(Question::List(list)))
        }
        Request::End => Ok(Task::Ask(Question::End)),
        Request::Subscribe(subscribe) => Ok(Task::Ask(Question::Subscribe(subscribe.from))),
        Request::OpenSession(OpenSession { instance, ttl_ms }) => {
            check_ttl(ttl_ms)?;
            Ok(change(Operation::OpenSession { instance, ttl_ms: ttl_ms.into() }))
        }
        Request::KeepAlive(alive) => Ok(change(Operation::Renew(alive.session))),
        Request::Status => unreachable!("a status was answered when it arrived"),
    }
}

fn change(operation: Operation) -> Task {
    Task::Change { operation, early: false }
}

fn understand_append(append: wire::Append) -> Result<Task, Refusal> {
    if append.acks == Acks::None {
        return Err(Refusal::Unsupported { what: Feature::NoAcks });
    }
    if append.expect_end.is_some() {
        return Err(Refusal::Unsupported { what: Feature::ExpectEnd });
    }
    if append.batch.len() > BATCH_BYTES_MAX {
        return Err(too_large(Field::Batch, append.batch.len(), BATCH_BYTES_MAX));
    }
    let batch = Batch::parse(append.batch)?;
    // What is written stays written: records that no reader could read, or a digest that would let other content pass
    // for a repetition, must not get in.
    let readable = batch.unpacked()?;
    readable.check_records()?;
    readable.verify_digest()?;
    let operation = Operation::Append { batch, settled: append.settled };
    Ok(Task::Change { operation, early: append.acks == Acks::Leader })
}

fn check_ttl(ttl_ms: u32) -> Result<(), Refusal> {
    let (least, most) = (SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX);
    if (least..=most).contains(&ttl_ms) {
        return Ok(());
    }
    Err(Refusal::TtlOutOfRange { found: ttl_ms, least, most })
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        return Err(too_large(Field::Name, name.len(), NAME_BYTES_MAX));
    }
    if name.is_empty() || name.starts_with('\0') {
        return Err(Refusal::Malformed { what: Field::Name });
    }
    Ok(())
}

fn too_large(what: Field, found: usize, limit: usize) -> Refusal {
    Refusal::TooLarge { what, found: found as u64, limit: limit as u64 }
}
