//! Which states were reached, and how often: a simulator that never comes near a rare path proves nothing about it.
//!
//! Every place of the simulator that sees something interesting happen notes it under a name. A run of many seeds is
//! only worth something if all was met that is listed here for its profile; that is checked at its end.

use std::collections::BTreeMap;

use sequor_client::core::{Event as News, Failure};
use sequor_client::protocol::{Refusal, Resolved, Response};

use super::faults::Profile;
use crate::core::effect::Effect;

/// What a run of a thousand seeds must have met, each at least once.
const fn expected(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::Quiet => QUIET,
        Profile::Swarm => SWARM,
        Profile::Loss => LOSS,
    }
}

const QUIET: &[&str] = &["acked", "elected", "told who leads", "wrote append"];

const LOSS: &[&str] = &[
    "acked",
    "elected",
    "five brokers",
    "no start: a segment is as it was",
    "no start: a segment is gone",
    "no start: the identity is gone",
    "no start: the vote is as it was",
    "no start: the vote is gone",
    "nobody knows: entries and votes are gone",
    "nobody knows: entries are gone",
    "nothing lost: a segment is as it was",
    "nothing lost: a spare is gone",
    "nothing lost: everything is as it was",
    "nothing lost: the identity is as it was",
    "nothing lost: the vote is as it was",
    "fault: files lost",
    "fault: paused",
    "power cut",
    "process killed",
    "stopped: a leader knew of more",
    "wrote append",
];

const SWARM: &[&str] = &[
    "acked",
    "accepted early",
    "answered as a duplicate",
    "answered as scattered",
    "broker hung up on garbage",
    "conflict cut the log",
    "cut by the library",
    "disk error",
    "disk full",
    "disk rotten",
    "disks asked themselves",
    "elected",
    "fault: all die",
    "fault: all disks hung",
    "fault: client cut off",
    "fault: client frozen, and followed",
    "fault: client replaced",
    "fault: client paused",
    "fault: client reset",
    "fault: client's clock jumped",
    "fault: clock jumped",
    "fault: connection of peers broken",
    "fault: disk filled",
    "fault: disk hung",
    "fault: disk to fail",
    "fault: garbage sent",
    "fault: isolated",
    "fault: link cut",
    "fault: name retired",
    "fault: one dies",
    "fault: paused",
    "fault: retry storm",
    "fault: told to stop",
    "five brokers",
    "found damage and refused to start",
    "found no damage in rot",
    "handed over",
    "lost between client and broker",
    "network changed",
    "one broker",
    "peer queue full",
    "power cut",
    "process killed",
    "refused: already committed",
    "refused: deadline passed",
    "refused: fenced",
    "refused: full",
    "refused: not leader",
    "refused: outcome unknown",
    "refused: partly committed",
    "refused: retired",
    "refused: sealed",
    "refused: sequence gap",
    "refused: session expired",
    "refused: unavailable",
    "resolved",
    "resolved as sealed",
    "rot: a bit",
    "rot: a sector of any file",
    "rot: an older vote",
    "rot: another sector",
    "rot: zeros",
    "told that it is fenced",
    "told who leads",
    "unknown to its caller",
    "unsynced entries lost",
    "wrote append",
    "wrote expire",
    "wrote renew",
    "wrote retire",
    "wrote seal",
];

/// How often each state was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached(BTreeMap<&'static str, u64>);

impl Reached {
    /// One more time.
    pub(super) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (what, often) in &other.0 {
            *self.0.entry(what).or_default() += often;
        }
    }

    /// What a thousand seeds of a profile have to meet, and was never met.
    pub fn missing(&self, profile: Profile) -> impl Iterator<Item = &'static str> {
        expected(profile).iter().copied().filter(|what| !self.0.contains_key(what))
    }

    /// Every state that was reached, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(what, often)| (*what, *often))
    }

    /// Notes an answer to a client.
    pub(super) fn note_response(&mut self, response: &Response) {
        match response {
            Response::Appended(appended) if !appended.rest.is_empty() => self.note("answered as scattered"),
            Response::Appended(appended) if appended.duplicate => self.note("answered as a duplicate"),
            Response::Accepted(_) => self.note("accepted early"),
            Response::Refused(refusal) => self.note_refusal(refusal),
            _ => {}
        }
    }

    fn note_refusal(&mut self, refusal: &Refusal) {
        self.note(match refusal {
            Refusal::NotLeader { .. } => "refused: not leader",
            Refusal::Unavailable => "refused: unavailable",
            Refusal::OutcomeUnknown => "refused: outcome unknown",
            Refusal::DeadlinePassed => "refused: deadline passed",
            Refusal::Fenced { .. } => "refused: fenced",
            Refusal::SequenceGap { .. } => "refused: sequence gap",
            Refusal::AlreadyCommitted { .. } => "refused: already committed",
            Refusal::PartlyCommitted { .. } => "refused: partly committed",
            Refusal::Sealed { .. } => "refused: sealed",
            Refusal::Retired => "refused: retired",
            Refusal::SessionExpired => "refused: session expired",
            Refusal::Full { .. } => "refused: full",
            _ => "refused otherwise",
        });
    }

    /// Notes what a client is told by its library.
    pub(super) fn note_news(&mut self, news: &News) {
        match news {
            News::Acked { .. } => self.note("acked"),
            News::Unknown { .. } => self.note("unknown to its caller"),
            News::Resolved { resolved: Resolved::Sealed, .. } => self.note("resolved as sealed"),
            News::Resolved { .. } => self.note("resolved"),
            News::Failed { why: Failure::Refused(Refusal::Fenced { .. }), .. } => {
                self.note("told that it is fenced");
            }
            _ => {}
        }
    }

    /// Notes an effect of the log.
    pub(super) fn note_effect(&mut self, effect: &Effect) {
        self.note(match effect {
            Effect::Open(_) => "wrote open",
            Effect::Append(_) => "wrote append",
            Effect::Seal(_) => "wrote seal",
            Effect::Retire(_) => "wrote retire",
            Effect::Session(_) => "wrote session",
            Effect::Renew(_) => "wrote renew",
            Effect::Expire(_) => "wrote expire",
        });
    }
}
