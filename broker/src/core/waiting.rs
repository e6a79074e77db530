//! Who waits for what.
//!
//! * A request that wrote something waits for its entry, under the entry's **index and term**: after a change of leader
//!   the slot may hold somebody else's entry.
//! * An answer that leaves no entry waits too: a refusal or a read is worth nothing if this broker was deposed without
//!   knowing it. It rests on the head state it was decided against, and on a proof of leadership that began after the
//!   request arrived: an entry of the same pass if there is one, else one ReadIndex round for all of the pass.
//!
//! What an entry writes is known when it is proposed, so its request is answered as soon as it is committed; a question
//! waits until the state has got there. When leadership is lost, everything that is not committed gets an answer at
//! once: *unknown* if it may have written, *elsewhere* if it surely did not.

use std::collections::{BTreeMap, VecDeque};

use sequor_client::protocol::{BrokerId, Refusal, RequestId, Response};
use sequor_wal::{Index, Term};

use super::questions::Question;

/// One stream of one client, as the driver numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The stream.
    pub session: SessionId,
    /// The request on it.
    pub id: RequestId,
}

/// An answer that is not given yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The request wrote something; this says what.
    Wrote(Response),
    /// The request wrote nothing; this says why.
    Nothing(Response),
    /// A question, answered from the state once it may be.
    Question(Question),
}

impl Answer {
    /// What the caller is told when leadership is lost before this could be given.
    fn when_lost(self, leader: Option<BrokerId>) -> Response {
        Response::Refused(match self {
            Self::Wrote(_) => Refusal::OutcomeUnknown,
            Self::Nothing(_) | Self::Question(_) => Refusal::NotLeader { leader },
        })
    }
}

/// All answers that are not given yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    entries: BTreeMap<Index, (Term, Vec<(Caller, Answer)>)>,
    /// Up to this index only questions are left in `entries`.
    given: Index,
    /// Provisional answers, for when this broker's own disk has the entry.
    accepted: BTreeMap<Index, (Term, Vec<(Caller, Response)>)>,
    proofs: VecDeque<Proof>,
    next_proof: u64,
}

/// Answers of one pass that rest on a ReadIndex round.
#[derive(Debug)]
struct Proof {
    number: u64,
    /// Must be applied: the head that was decided against, and the commit at the time of the round.
    needs: Index,
    proven: bool,
    answers: Vec<(Caller, Answer)>,
}

impl Waiting {
    /// True if nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.accepted.is_empty() && self.proofs.is_empty()
    }

    /// Lets answers wait for the entry that was proposed at (index, term).
    pub(super) fn for_entry(&mut self, index: Index, term: Term, answers: Vec<(Caller, Answer)>) {
        let clash = self.entries.insert(index, (term, answers));
        debug_assert!(clash.is_none(), "two proposals of one leader at index {index}");
    }

    /// Lets provisional answers wait until this broker's own disk has the entry that was proposed at (index, term).
    pub(super) fn for_sync(&mut self, index: Index, term: Term, answers: Vec<(Caller, Response)>) {
        if !answers.is_empty() {
            self.accepted.insert(index, (term, answers));
        }
    }

    /// Takes the provisional answers of all entries up to `durable`, but for those whose callers know more by now.
    pub(super) fn synced(
        &mut self,
        durable: Index,
        term: impl Fn(Index) -> Option<Term>,
    ) -> Vec<(Caller, Response)> {
        let mut given = Vec::new();
        while let Some(entry) = self.accepted.first_entry().filter(|entry| *entry.key() <= durable) {
            let (index, (expected, answers)) = entry.remove_entry();
            if index > self.given && term(index) == Some(expected) {
                given.extend(answers);
            }
        }
        given
    }

    /// Lets answers wait for a proof of leadership; returns the number of the round to begin.
    pub(super) fn for_proof(&mut self, head: Index, answers: Vec<(Caller, Answer)>) -> u64 {
        self.next_proof += 1;
        let number = self.next_proof;
        self.proofs.push_back(Proof { number, needs: head, proven: false, answers });
        number
    }

    /// A round came back: leadership held when it began, and `commit` was committed then.
    pub(super) fn proven(&mut self, number: u64, commit: Index) {
        for proof in self.proofs.iter_mut().take_while(|proof| proof.number <= number) {
            proof.proven = true;
            if proof.number == number {
                proof.needs = proof.needs.max(commit);
            }
        }
    }

    /// Takes the answers of all entries up to `commit`: what an entry writes was known when it was proposed, and that it
    /// is committed is all that was missing. Only questions wait on, for the state. Answers that waited for an entry of
    /// another term than the one that is committed get the answer of the loser.
    pub(super) fn committed(&mut self, commit: Index, term: impl Fn(Index) -> Option<Term>) -> Released {
        let mut released = Released::default();
        if commit <= self.given {
            return released;
        }
        for (index, (expected, answers)) in self.entries.range_mut(self.given + 1..=commit) {
            if term(*index) != Some(*expected) && cfg!(not(feature = "bug-waiter-by-index")) {
                released.lost.extend(lost(std::mem::take(answers), None));
                continue;
            }
            let (questions, known): (Vec<_>, Vec<_>) =
                answers.drain(..).partition(|(_, answer)| matches!(answer, Answer::Question(_)));
            released.given.extend(known);
            *answers = questions;
        }
        self.given = commit;
        released
    }

    /// Takes the questions that waited for the entry at `index`, now that it is applied.
    pub(super) fn applied(&mut self, index: Index) -> Vec<(Caller, Answer)> {
        debug_assert!(index <= self.given, "what is applied is committed");
        self.entries.remove(&index).map(|(_, questions)| questions).unwrap_or_default()
    }

    /// Takes the answers whose round is proven and whose state is applied.
    pub(super) fn ready(&mut self, applied: Index) -> Vec<(Caller, Answer)> {
        let mut given = Vec::new();
        while self.proofs.front().is_some_and(|proof| proof.proven && proof.needs <= applied) {
            given.extend(self.proofs.pop_front().into_iter().flat_map(|proof| proof.answers));
        }
        given
    }

    /// Leadership is lost: everything that is not known to be committed is answered now.
    pub(super) fn deposed(&mut self, commit: Index, leader: Option<BrokerId>) -> Vec<(Caller, Response)> {
        self.accepted.clear();
        let first_lost = if cfg!(feature = "bug-waiter-by-index") { Index::MAX } else { commit + 1 };
        let above = self.entries.split_off(&first_lost);
        let entries = above.into_values().flat_map(|(_, answers)| answers);
        let proofs = std::mem::take(&mut self.proofs).into_iter().flat_map(|proof| proof.answers);
        lost(entries.chain(proofs).collect(), leader).collect()
    }
}

/// What committed entries release.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// Answers to give.
    pub given: Vec<(Caller, Answer)>,
    /// Answers of those who lost the slot.
    pub lost: Vec<(Caller, Response)>,
}

fn lost(
    answers: Vec<(Caller, Answer)>,
    leader: Option<BrokerId>,
) -> impl Iterator<Item = (Caller, Response)> {
    answers.into_iter().map(move |(caller, answer)| (caller, answer.when_lost(leader)))
}
