//! What a link does to what passes it.

use std::time::Duration;

use serde::Serialize;

/// The conditions of one direction between two ends. By default everything passes at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Conditions {
    /// How long everything takes.
    pub(crate) delay: Duration,
    /// How much longer it may take: a lot is drawn each time. What is late holds up what follows.
    pub(crate) jitter: Duration,
    /// Lost, of a thousand.
    pub(crate) lost: u32,
    /// Arriving twice, of a thousand.
    pub(crate) doubled: u32,
    /// Overtaken by what follows, of a thousand.
    pub(crate) reordered: u32,
    /// How much later than it would have what is overtaken arrives.
    pub(crate) held_back: Duration,
    /// Nothing passes.
    pub(crate) cut: bool,
}

impl Conditions {
    /// Nothing passes.
    pub(crate) const CUT: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        lost: 0,
        doubled: 0,
        reordered: 0,
        held_back: Duration::ZERO,
        cut: true,
    };

    /// Whether they do the same to whatever comes: no lot decides.
    pub(super) fn are_equal_for_all(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.reordered == 0 && self.jitter.is_zero()
    }
}
