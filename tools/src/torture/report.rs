//! What a torture tells at its end: what was done, what was seen, and what was broken.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use thiserror::Error;

use sequor_broker::history::{Seen, Verdict};

use super::footprint::Footprint;
use crate::{
    exit::{Exit, Verdict as HasExit},
    relay::Traffic,
    words::{count, grouped, time},
};

/// Width of the left column. Characters.
const TOPIC_WIDTH: usize = 16;

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) seed: u64,
    pub(super) brokers: usize,
    pub(super) producers: u64,
    /// Until the last fault was over.
    pub(super) seconds: f64,
    /// How often each thing went wrong.
    pub(super) faults: BTreeMap<String, u64>,
    /// What was asked for and could not be had, and why.
    pub(super) skipped: BTreeMap<String, String>,
    /// Clients that crashed.
    pub(super) client_crashes: u64,
    /// From when nothing was wrong any more until all brokers were well, at worst.
    pub(super) slowest_healing_ms: u128,
    /// The most of each that the process of one broker held when all was well; none where the system does not say.
    pub(super) footprint: Option<Footprint>,
    pub(super) relay: Traffic,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    /// None if only a history was checked.
    #[serde(flatten)]
    pub(super) done: Option<&'a Done>,
    pub(super) history: Seen,
    pub(super) violations: u64,
    pub(super) holds: bool,
    pub(super) listed: Vec<String>,
}

/// A promise was broken.
#[derive(Debug, Error)]
#[error("{broken} violations; the first: {first}")]
pub(crate) struct Broken {
    broken: u64,
    first: String,
}

impl HasExit for Broken {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(done: Option<&'a Done>, verdict: &Verdict) -> Self {
        let listed = verdict.violations.iter().map(ToString::to_string).collect();
        Self { done, history: verdict.seen, violations: verdict.broken, holds: verdict.holds(), listed }
    }

    /// One object.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("it has string keys") + "\n"
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut say = |topic: &str, what: String| text += &format!("  {topic:TOPIC_WIDTH$}  {what}\n");
        if let Some(done) = self.done {
            say_done(done, &mut say);
        }
        say_seen(&self.history, &mut say);
        for violation in &self.listed {
            say("", violation.clone());
        }
        let verdict = match self.holds {
            true => "0 lost, 0 doubled, order kept: every promise was kept".to_owned(),
            false => format!("{} violations", grouped(self.violations)),
        };
        say("verdict", verdict);
        text
    }

    /// Whether all promises were kept.
    ///
    /// # Errors
    /// If one was not.
    pub(super) fn verdict(&self) -> Result<(), Broken> {
        match self.listed.first() {
            None => Ok(()),
            Some(first) => Err(Broken { broken: self.violations, first: first.clone() }),
        }
    }
}

fn say_done(done: &Done, say: &mut impl FnMut(&str, String)) {
    let Done { seed, brokers, producers, .. } = done;
    say("cluster", format!("{brokers} brokers, {producers} producers, seed {seed}"));
    say("time", time(Duration::from_secs_f64(done.seconds)));
    for (fault, times) in &done.faults {
        say("fault", format!("{fault} {} times", grouped(*times)));
    }
    for (fault, why) in &done.skipped {
        say("skipped", format!("{fault}: {why}"));
    }
    say("clients", format!("crashed {} times", grouped(done.client_crashes)));
    say("healing", format!("{} ms at most", done.slowest_healing_ms));
    if let Some(footprint) = &done.footprint {
        say("each broker", footprint.to_string());
    }
    let Traffic { received, lost, doubled, reordered, .. } = done.relay;
    let [received, lost, doubled, reordered] = [received, lost, doubled, reordered].map(grouped);
    say("network", format!("{received} datagrams; {lost} lost, {doubled} doubled, {reordered} reordered"));
}

fn say_seen(seen: &Seen, say: &mut impl FnMut(&str, String)) {
    let Seen { requests, written, duplicates, known, refused, unknown, records, .. } = *seen;
    let [requests, written, duplicates] = [requests, written, duplicates].map(grouped);
    let [known, refused, unknown] = [known, refused, unknown].map(grouped);
    say("requests", format!("{requests}: {written} acknowledged, {refused} refused, {unknown} unknown"));
    say("", format!("{duplicates} of them recognised as written before, {known} more called written"));
    say("acknowledged", format!("{} records", grouped(records)));
    say("log", format!("{} records, read from the disks of {} brokers", grouped(seen.held), seen.logs));
    if seen.incomparable > 0 {
        let batches = count(seen.incomparable, "batch");
        say("not compared", format!("{batches} of it: nobody handed records over that are cut as they are"));
    }
    say("readers", format!("were given {} records", grouped(seen.read)));
    say("ends", format!("{} answers", grouped(seen.ends)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(seen: Seen) -> Verdict {
        Verdict { seen, violations: Vec::new(), broken: 0 }
    }

    #[test]
    fn what_could_not_be_compared_is_said() {
        let said = |incomparable| {
            let verdict = verdict(Seen { incomparable, ..Seen::default() });
            Report::new(None, &verdict).text()
        };
        assert!(!said(0).contains("not compared"), "{}", said(0));
        assert!(said(1234).contains("  not compared      1,234 batches of it: "), "{}", said(1234));
    }
}
