//! An error as one line of the log. Written as JSON, an error shows its own message alone: the causes, which are what
//! somebody can do something about, have to be put behind it.

use std::error::Error;

/// An error's message, followed by those of its causes.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |all, cause| format!("{all}: {cause}"))
}
