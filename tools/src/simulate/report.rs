//! What a simulation came to, for people and for programs.

use std::{collections::BTreeMap, panic, time::Duration};

use sequor_broker::sim::{self, Profile, Summary, Violation};
use serde::Serialize;

use crate::{
    table::{Table, Tone},
    words::{count, grouped},
};

/// See the file's header.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) start: u64,
    pub(super) profile: Profile,
    /// Seeds that broke nothing.
    pub(super) done: u64,
    pub(super) took: Duration,
    pub(super) total: Summary,
    /// The faults of the one seed that was asked for.
    pub(super) script: Option<Vec<String>>,
    pub(super) broken: Option<Broken>,
}

/// A seed that breaks a promise.
#[derive(Debug, Serialize)]
pub(super) struct Broken {
    pub(super) seed: u64,
    /// What it breaks with all of its faults.
    pub(super) what: String,
    /// The fewest faults that still break a promise.
    script: Vec<String>,
    /// Nobody looked for fewer.
    is_whole: bool,
    /// What those break.
    still: String,
}

impl Broken {
    /// A seed that breaks a promise, with the fewest of its faults that do. Takes many runs of it.
    pub(super) fn shrunk(seed: u64, profile: Profile, violation: &Violation) -> Self {
        let what = violation.to_string();
        // If it was a panic, it has been told once, with its place; from now on it is expected.
        let tell = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let shrunk = sim::shrink(seed, profile);
        panic::set_hook(tell);
        match shrunk {
            Ok((script, still)) => {
                let (script, still) = (script.lines().collect(), still.to_string());
                Self { seed, what, script, is_whole: false, still }
            }
            // A run is a function of its seed. If it were not, that would be the first thing to know.
            Err(_) => Self {
                seed,
                still: "nothing the second time".to_owned(),
                what,
                script: Vec::new(),
                is_whole: false,
            },
        }
    }

    /// A seed that breaks a promise, with all of its faults.
    pub(super) fn whole(seed: u64, profile: Profile, violation: &Violation) -> Self {
        let what = violation.to_string();
        let script = sim::script(seed, profile).lines().collect();
        Self { seed, still: what.clone(), what, script, is_whole: true }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    start: u64,
    seeds: u64,
    seconds: f64,
    seeds_per_s: f64,
    simulated_s: f64,
    events: u64,
    acknowledged_batches: u64,
    delivered_records: u64,
    deaths: u64,
    reached: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    script: &'a Option<Vec<String>>,
    broken: &'a Option<Broken>,
}

impl Report {
    fn seeds_per_s(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    fn simulated(&self) -> Duration {
        Duration::from_micros(self.total.rest_us)
    }

    pub(super) fn json(&self) -> String {
        let json = Json {
            start: self.start,
            seeds: self.done,
            seconds: self.took.as_secs_f64(),
            seeds_per_s: self.seeds_per_s(),
            simulated_s: self.simulated().as_secs_f64(),
            events: self.total.events,
            acknowledged_batches: self.total.acknowledged,
            delivered_records: self.total.delivered,
            deaths: self.total.deaths,
            reached: self.total.reached.iter().collect(),
            script: &self.script,
            broken: &self.broken,
        };
        serde_json::to_string(&json).expect("a report has string keys") + "\n"
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        if let Some(script) = &self.script {
            text += "What goes wrong:\n\n";
            text.extend(script.iter().map(|line| format!("{line}\n")));
            text += "\n";
        }
        text += &self.reached();
        text += &format!(
            "\n{} without a broken promise in {:.1} s ({:.1} seeds/s): {} of virtual time, {} acknowledged, {} delivered, \
             {} of brokers\n",
            count(self.done, "seed"),
            self.took.as_secs_f64(),
            self.seeds_per_s(),
            humantime::format_duration(Duration::from_secs(self.simulated().as_secs())),
            count(self.total.acknowledged, "batch"),
            count(self.total.delivered, "record"),
            count(self.total.deaths, "death"),
        );
        if let Some(Broken { seed, script, is_whole, still, .. }) = &self.broken {
            let which = if *is_whole { "What goes wrong in it" } else { "The fewest of its faults that do" };
            text += &format!("\nSeed {seed} breaks a promise. {which}:\n\n");
            text.extend(script.iter().map(|line| format!("{line}\n")));
            text += &format!("\nThey break this one: {still}\n");
        }
        text
    }

    fn reached(&self) -> String {
        let mut table = Table::new(["state", "times"]);
        for (state, times) in self.total.reached.iter() {
            table.row(Tone::Plain, [state.to_owned(), grouped(times)]);
        }
        for state in self.total.reached.missing(self.profile) {
            table.row(Tone::Bad, [state.to_owned(), "never".to_owned()]);
        }
        table.text(1..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_told_with_the_fewest_faults() {
        let broken = Broken {
            seed: 17,
            what: "a record was lost".to_owned(),
            script: vec!["1.000 s  Die".to_owned()],
            is_whole: false,
            still: "a record was doubled".to_owned(),
        };
        let took = Duration::from_secs(2);
        let report = Report {
            start: 10,
            profile: Profile::Swarm,
            done: 7,
            took,
            total: Summary::default(),
            script: None,
            broken: Some(broken),
        };
        let table = report.table();
        assert!(table.contains("acked") && table.contains("never"), "{table}");
        assert!(table.contains("7 seeds without a broken promise in 2.0 s (3.5 seeds/s)"), "{table}");
        assert!(
            table.ends_with("do:\n\n1.000 s  Die\n\nThey break this one: a record was doubled\n"),
            "{table}"
        );
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["broken"]["script"], serde_json::json!(["1.000 s  Die"]));
    }
}
