//! The report of a `wal verify`: how it is told to people and to programs.

use std::borrow::Cow;

use serde::Serialize;

use sequor_wal::Damage;

use super::{
    audit::Counts,
    comparison::{Common, Comparison, Held},
    directory::Directory,
    verify::Verified,
};
use crate::{
    table::{Table, Tone},
    visible::{visible, visible_path},
};

/// For people: a table, every finding, and what came of the comparison.
pub(super) fn text(verified: &[Verified], comparison: Option<&Comparison>) -> String {
    let mut text = table(verified);
    for Verified { directory, findings, .. } in verified {
        for damage in findings.listed() {
            text += &told(directory, damage);
        }
        let more = findings.count() - findings.listed().len() as u64;
        if more > 0 {
            text += &format!("\n{}: and {more} more\n", visible_path(&directory.path));
        }
    }
    if verified.iter().all(|verified| verified.findings.is_empty()) {
        text += "\nno damage\n";
    }
    match comparison {
        None | Some(Comparison::Strangers { .. }) => {}
        Some(Comparison::Same(Common { all, two })) => {
            text += &format!(
                "the log is the same wherever it was committed: up to index {all} in all, up to {two} in at least two\n"
            );
        }
        Some(Comparison::Differs { index, held }) => {
            text += &format!("\nthe logs differ at index {index}, which was committed:\n");
            for (at, Held { term, chain, data_bytes }) in held {
                let path = visible_path(&verified[*at].directory.path);
                text +=
                    &format!("  {path} has term {term}, chain {chain:#010x}, {data_bytes} bytes of data\n");
            }
        }
    }
    text
}

fn told(directory: &Directory, Damage { file, offset, expected, found }: &Damage) -> String {
    let path = visible_path(&directory.path.join(file));
    format!("\n{path} at byte {offset}\n  expected {}\n  found    {}\n", visible(expected), visible(found))
}

fn table(verified: &[Verified]) -> String {
    let mut table = Table::new([
        "directory",
        "unproven tail",
        "broker",
        "segments",
        "spares",
        "blocks",
        "entries",
        "batches",
        "records",
        "first",
        "last",
        "term",
        "commit",
    ]);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for Verified { directory, counts, findings, .. } in verified {
        let inspection = &directory.inspection;
        let cells = [
            visible_path(&directory.path),
            tail(directory, counts),
            number(directory.broker()),
            inspection.segments().to_string(),
            inspection.spares().to_string(),
            counts.blocks.to_string(),
            counts.entries.to_string(),
            counts.batches.to_string(),
            counts.records.to_string(),
            number(counts.first),
            number(counts.last),
            number(counts.term),
            counts.commit.to_string(),
        ];
        let tone = if findings.is_empty() { Tone::Plain } else { Tone::Bad };
        table.row(tone, cells);
    }
    table.text(2..)
}

/// What nothing proves to have been synced, for people.
fn tail(directory: &Directory, counts: &Counts) -> String {
    let unproven = counts.unproven.as_ref().map(|block| {
        let first = block.previous.index + 1;
        match block.entries {
            1 => format!("entry {first}"),
            entries => format!("entries {first} to {}", block.previous.index + u64::from(entries)),
        }
    });
    let torn = directory.inspection.torn().map(|_| "a torn write".to_owned());
    match [unproven, torn].into_iter().flatten().collect::<Vec<_>>() {
        nothing if nothing.is_empty() => "none".into(),
        something => something.join(", "),
    }
}

/// For programs: one object.
pub(super) fn json(verified: &[Verified], comparison: Option<&Comparison>) -> String {
    let printed = Printed::new(verified, comparison);
    serde_json::to_string(&printed).expect("what is printed has string keys") + "\n"
}

/// The whole of `-o json`.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    sound: bool,
    directories: Vec<PrintedDirectory<'a>>,
    /// Nothing for a single directory.
    common: Option<PrintedComparison<'a>>,
}

#[derive(Debug, Serialize)]
struct PrintedDirectory<'a> {
    directory: Cow<'a, str>,
    broker: Option<u64>,
    segments: u64,
    spares: u64,
    blocks: u64,
    entries: u64,
    batches: u64,
    records: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
    term: Option<u64>,
    commit: u64,
    hidden_blocks: u64,
    hidden_entries: u64,
    vote: Option<PrintedVote>,
    unproven: Option<PrintedBlock<'a>>,
    torn: Option<PrintedDamage<'a>>,
    damage: Vec<PrintedDamage<'a>>,
    damage_count: u64,
}

#[derive(Debug, Serialize)]
struct PrintedVote {
    term: u64,
    voted_for: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PrintedBlock<'a> {
    file: &'a str,
    offset: u64,
    first_index: u64,
    last_index: u64,
}

#[derive(Debug, Serialize)]
struct PrintedDamage<'a> {
    file: &'a str,
    offset: u64,
    expected: &'a str,
    found: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum PrintedComparison<'a> {
    Same { same: bool, committed_in_all: u64, committed_in_two: u64 },
    Differs { same: bool, first_difference: u64, held: Vec<PrintedHeld<'a>> },
    Strangers { same: bool, other: &'a str },
}

#[derive(Debug, Serialize)]
struct PrintedHeld<'a> {
    directory: Cow<'a, str>,
    term: u64,
    chain: String,
    data_bytes: usize,
}

impl<'a> Printed<'a> {
    fn new(verified: &'a [Verified], comparison: Option<&'a Comparison>) -> Self {
        let damaged = verified.iter().any(|verified| !verified.findings.is_empty());
        let same = matches!(comparison, None | Some(Comparison::Same(_)));
        Self {
            sound: same && !damaged,
            directories: verified.iter().map(PrintedDirectory::new).collect(),
            common: comparison.map(|comparison| PrintedComparison::new(comparison, verified)),
        }
    }
}

impl<'a> PrintedDirectory<'a> {
    fn new(Verified { directory, counts, findings }: &'a Verified) -> Self {
        let inspection = &directory.inspection;
        Self {
            directory: directory.path.to_string_lossy(),
            broker: directory.broker(),
            segments: inspection.segments(),
            spares: inspection.spares(),
            blocks: counts.blocks,
            entries: counts.entries,
            batches: counts.batches,
            records: counts.records,
            first_index: counts.first,
            last_index: counts.last,
            term: counts.term,
            commit: counts.commit,
            hidden_blocks: counts.hidden_blocks,
            hidden_entries: counts.hidden_entries,
            vote: inspection.vote().map(|vote| PrintedVote {
                term: vote.term,
                voted_for: Some(vote.voted_for).filter(|broker| *broker != 0),
            }),
            unproven: counts.unproven.as_ref().map(|block| PrintedBlock {
                file: &block.file,
                offset: block.offset,
                first_index: block.previous.index + 1,
                last_index: block.previous.index + u64::from(block.entries),
            }),
            torn: inspection.torn().map(PrintedDamage::new),
            damage: findings.listed().iter().map(PrintedDamage::new).collect(),
            damage_count: findings.count(),
        }
    }
}

impl<'a> PrintedDamage<'a> {
    fn new(Damage { file, offset, expected, found }: &'a Damage) -> Self {
        Self { file, offset: *offset, expected, found }
    }
}

impl<'a> PrintedComparison<'a> {
    fn new(comparison: &'a Comparison, verified: &'a [Verified]) -> Self {
        match comparison {
            Comparison::Same(Common { all, two }) => {
                Self::Same { same: true, committed_in_all: *all, committed_in_two: *two }
            }
            Comparison::Strangers { what, .. } => Self::Strangers { same: false, other: what },
            Comparison::Differs { index, held } => {
                let held = held.iter().map(|(at, held)| PrintedHeld {
                    directory: verified[*at].directory.path.to_string_lossy(),
                    term: held.term,
                    chain: format!("{:#010x}", held.chain),
                    data_bytes: held.data_bytes,
                });
                Self::Differs { same: false, first_difference: *index, held: held.collect() }
            }
        }
    }
}
