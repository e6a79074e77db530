//! What a disk loses.

use rand_chacha::ChaCha8Rng;

use super::super::chance::within;

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Lost {
    /// A segment is gone.
    Segment,
    /// The vote is gone.
    Vote,
    /// The identity is gone.
    Identity,
    /// A segment is as it was.
    OlderSegment,
    /// The vote is as it was.
    OlderVote,
    /// The identity is as it was.
    OlderIdentity,
    /// Everything is as it was.
    OlderDirectory,
}

impl Lost {
    pub(in super::super) fn draw(random: &mut ChaCha8Rng) -> Self {
        match within(random, (0, 15)) {
            0..=3 => Self::Segment,
            4 => Self::Vote,
            5 => Self::Identity,
            6..=8 => Self::OlderSegment,
            9 | 10 => Self::OlderVote,
            11 => Self::OlderIdentity,
            _ => Self::OlderDirectory,
        }
    }

    pub(super) fn when_refused(self) -> &'static str {
        match self {
            Self::Segment => "no start: a segment is gone",
            Self::Vote => "no start: the vote is gone",
            Self::Identity => "no start: the identity is gone",
            Self::OlderSegment => "no start: a segment is as it was",
            Self::OlderVote => "no start: the vote is as it was",
            Self::OlderIdentity | Self::OlderDirectory => "no start: and nothing contradicts itself",
        }
    }

    pub(super) fn when_nothing_is_lost(self) -> &'static str {
        match self {
            Self::Segment => "nothing lost: a spare is gone",
            Self::OlderSegment => "nothing lost: a segment is as it was",
            Self::OlderVote => "nothing lost: the vote is as it was",
            Self::OlderIdentity => "nothing lost: the identity is as it was",
            _ => "nothing lost: everything is as it was",
        }
    }

    pub(super) fn when_nobody_knows(self, entries: bool) -> &'static str {
        match (self, entries) {
            (Self::OlderDirectory, true) => "nobody knows: entries and votes are gone",
            (_, true) => "nobody knows: entries are gone",
            (_, false) => "nobody knows: a vote is gone",
        }
    }
}
