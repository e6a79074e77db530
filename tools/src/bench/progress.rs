//! How far it is: a bar on a terminal, a line for each measurement elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

/// Steps of the bar for each measurement.
const STEPS: u64 = 50;
/// Least pause between two drawings of the bar: the client is measured, too.
const DRAW_PAUSE: Duration = Duration::from_millis(250);

/// See the file's header.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    count: usize,
    done: usize,
}

impl Progress {
    /// Of so many measurements.
    pub(super) fn new(count: usize) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {msg}").expect("the template is sound");
            ProgressBar::new(count as u64 * STEPS).with_style(style)
        });
        Self { bar, count, done: 0 }
    }

    /// What is done next.
    pub(super) fn begin(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.done as u64 * STEPS);
            bar.set_message(format!("{} of {}: {what}", (self.done + 1).min(self.count), self.count));
        }
    }

    /// Moves on while a measurement lasts. Never ends.
    pub(super) async fn follow(&self, start: Instant, length: Duration) -> std::convert::Infallible {
        loop {
            sleep(DRAW_PAUSE.max(length / 50)).await;
            if let Some(bar) = &self.bar {
                let share = start.elapsed().as_secs_f64() / length.as_secs_f64();
                bar.set_position(self.done as u64 * STEPS + (share.min(1.0) * STEPS as f64) as u64);
            }
        }
    }

    /// What came of it.
    pub(super) fn end(&mut self, what: &str) {
        self.done += 1;
        if self.bar.is_none() {
            say(&format!("{} of {}: {what}", self.done, self.count));
        }
    }

    /// Says something that has to be read.
    pub(super) fn news(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(what)),
            None => say(what),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on stderr, when there is no bar.
pub(super) fn say(what: &str) {
    // With stderr closed there is nobody to tell.
    let _nobody = io::stderr().write_all(format!("sequor bench: {what}\n").as_bytes());
}
