//! What a quickstart tells: each thing as it happens, in plain words, and at the end whether every check held.

use thiserror::Error;

use crate::{
    exit::{Exit, Failure, Verdict},
    output,
    words::count,
};

/// Width of the left column. Characters.
const TOPIC_WIDTH: usize = 16;

/// The checks so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    held: usize,
    broken: Vec<String>,
}

/// At least one check did not hold.
#[derive(Debug, Error)]
#[error("{} of {} did not hold: {}", .broken.len(), count(*.all as u64, "check"), .broken.join("; "))]
pub(crate) struct ChecksFailed {
    broken: Vec<String>,
    all: usize,
}

impl Verdict for ChecksFailed {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

impl Report {
    /// Tells one thing.
    pub(crate) fn say(&self, topic: &str, text: &str) -> Result<(), Failure> {
        output::tell(&format!("  {topic:TOPIC_WIDTH$}  {text}\n"))
    }

    /// Tells whether something that must hold does, and remembers it.
    pub(crate) fn check(&mut self, holds: bool, claim: &str) -> Result<(), Failure> {
        let mark = if holds { "yes" } else { "NO" };
        output::tell(&format!("  {:TOPIC_WIDTH$}  {mark:>3}: {claim}\n", ""))?;
        if holds {
            self.held += 1;
        } else {
            self.broken.push(claim.to_owned());
        }
        Ok(())
    }

    /// The verdict: how many checks held.
    ///
    /// # Errors
    /// If one did not.
    pub(crate) fn verdict(self) -> Result<usize, ChecksFailed> {
        if self.broken.is_empty() {
            return Ok(self.held);
        }
        Err(ChecksFailed { all: self.held + self.broken.len(), broken: self.broken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_check_breaks_the_whole() {
        assert_eq!(Report { held: 3, broken: vec![] }.verdict().unwrap(), 3);
        let failed = Report { held: 3, broken: vec!["order".into()] }.verdict().unwrap_err();
        assert_eq!(failed.to_string(), "1 of 4 checks did not hold: order");
    }
}
