//! How urgently a segment is wanted that is being made.
//!
//! To fill one takes the whole disk for a while, and every sync that somebody waits for stands behind it. As long as all
//! other spares are ready nobody waits for this one, and whoever fills it may pause between its pieces. When the log takes
//! another spare meanwhile, what is left is made at full speed. It is late then for a log that is much faster than the
//! filling; but both write the same bytes to the same disk, and the log has to sync in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared between the log, which knows how many spares are ready, and whoever makes one. At first there is no haste.
#[derive(Clone, Debug, Default)]
pub struct Haste(Arc<AtomicBool>);

impl Haste {
    /// For a file that somebody waits for.
    #[must_use]
    pub fn at_once() -> Self {
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
