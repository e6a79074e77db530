//! The vote file: term and vote, two generations of two copies.

use crate::{Damage, Term};

/// The latest term this broker knows, and whom it voted for in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: Term,
    /// Broker number of the candidate; 0 is none.
    pub voted_for: u64,
}

/// What recovery found in the vote file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoteState {
    /// The last vote that may have been answered, or a later one.
    Known(Vote),
    /// The last vote is lost: this broker must never vote or campaign again under its id.
    Damaged(Damage),
}
