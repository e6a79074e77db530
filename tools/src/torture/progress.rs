//! How far it is: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

use super::goal::{Goal, Reached};
use crate::words::count;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{bar:40} {msg}").expect("the template is sound");
        Self(Some(ProgressBar::new(1000).with_style(style)))
    }

    pub(super) fn set(&self, goal: &Goal, reached: &Reached) {
        if let Some(bar) = &self.0 {
            bar.set_position(goal.share(reached));
            bar.set_message(words(reached));
        }
    }

    pub(super) fn news(&self, reached: &Reached) {
        if self.0.is_none() {
            self.say(&words(reached));
        }
    }

    pub(super) fn say(&self, what: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(what.to_owned()),
            None => complain(what),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Says something on stderr.
pub(super) fn complain(what: &str) {
    // With stderr closed there is nobody to tell.
    let _nobody = io::stderr().write_all(format!("sequor torture: {what}\n").as_bytes());
}

fn words(reached: &Reached) -> String {
    let Reached { time, kills, records } = reached;
    format!("{} s, {}, {}", time.as_secs(), count(*kills, "kill"), count(*records, "record"))
}
