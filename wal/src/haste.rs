//! How urgently a segment is wanted that is being made.
//!
//! To fill one takes the whole disk for a while, and every sync that somebody waits for stands behind it. As long as the
//! other spares are ready nobody waits for this one, and whoever fills it rests after each piece. When the log takes another
//! spare meanwhile, the rest of it is made at full speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared between the log, which knows how many spares are ready, and whoever makes one. At first there is no haste.
#[derive(Clone, Debug, Default)]
pub struct Haste(Arc<AtomicBool>);

impl Haste {
    /// For a file that is wanted now.
    #[must_use]
    pub fn now() -> Self {
        let haste = Self::default();
        haste.set(true);
        haste
    }

    pub(crate) fn set(&self, needed: bool) {
        self.0.store(needed, Ordering::Relaxed);
    }

    /// Whether somebody may soon wait for it.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
