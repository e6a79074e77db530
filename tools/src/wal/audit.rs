//! The audit of one log: what its entries hold, entry by entry, and how many there are.
//!
//! That blocks and entries are those that were written is known before; here it is asked whether a broker can make
//! sense of them. What a cut hides is counted and not judged.
//!
//! | what | has to |
//! |---|---|
//! | an entry for the state machine | decode: envelope, effects, batches |
//! | log time | not fall |
//! | a batch | have the checksum and the digest of its producer, and records that fill it |
//! | the offset of a batch | be the end of the one before |
//!
//! Behind a gap in the indexes the offsets begin anew: what is missing there is a finding of the log itself.

use sequor_broker::core::effect::{ENVELOPE_BYTES, Effect, Effects, EntryError, Written};
use sequor_client::protocol::{Refusal, batch::Batch};
use sequor_wal::{
    Damage, ENTRY_HEADER_BYTES, Entry, Findings, Index, Inspection, Item, Kind, Term, Walk, WalkedBlock,
    WalkedEntry,
};

/// How much of everything a log holds. What a cut hides is counted apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) blocks: u64,
    pub(super) hidden_blocks: u64,
    pub(super) entries: u64,
    pub(super) hidden_entries: u64,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) first: Option<Index>,
    pub(super) last: Option<Index>,
    /// Term of the last entry.
    pub(super) term: Option<Term>,
    /// Highest commit index that a block carries.
    pub(super) commit: Index,
    /// The last block, if it has entries: no later one proves that it was synced.
    pub(super) unproven: Option<WalkedBlock>,
}

/// The audit of a log, as far as it has come.
#[derive(Debug)]
pub(super) struct Audit<'a> {
    walk: Walk<'a>,
    pub(super) counts: Counts,
    findings: &'a mut Findings,
    /// Log time of the entry before, in milliseconds.
    log_time_ms: u64,
    /// The offset that the next batch must have. None after a gap.
    end: Option<u64>,
}

/// What is wrong with the data of an entry: where in it, what was expected, what was found.
type Fault = (usize, String, String);

impl<'a> Audit<'a> {
    /// Begins with the first entry.
    pub(super) fn new(inspection: &'a Inspection, findings: &'a mut Findings) -> Self {
        let (counts, walk) = (Counts::default(), inspection.walk(0));
        Self { walk, counts, findings, log_time_ms: 0, end: Some(0) }
    }

    /// Judges the next entry that is not hidden and hands it out. None at the end.
    pub(super) fn next_entry(&mut self) -> Option<WalkedEntry> {
        loop {
            match self.walk.next()? {
                Ok(Item::Block(block)) => self.take_block(block),
                Ok(Item::Fault(_)) => {}
                Ok(Item::Entry(entry)) if entry.hidden => self.counts.hidden_entries += 1,
                Ok(Item::Entry(entry)) => {
                    self.take_entry(&entry);
                    return Some(entry);
                }
                Err(damage) => self.findings.push(damage),
            }
        }
    }

    fn take_block(&mut self, block: WalkedBlock) {
        if block.hidden {
            self.counts.hidden_blocks += 1;
            return;
        }
        self.counts.blocks += 1;
        self.counts.commit = self.counts.commit.max(block.commit);
        self.counts.unproven = Some(block).filter(|block| block.entries > 0);
    }

    fn take_entry(&mut self, walked: &WalkedEntry) {
        let entry = &walked.entry;
        if entry.index != self.counts.last.unwrap_or(0) + 1 {
            self.end = None;
        }
        self.counts.entries += 1;
        self.counts.first.get_or_insert(entry.index);
        self.counts.last = Some(entry.index);
        self.counts.term = Some(entry.term);
        // The no-op of a new leader, and changes of membership, are raft's business.
        if entry.kind == Kind::ConfChange || entry.data.is_empty() {
            return;
        }
        for (at, expected, found) in self.judge(entry) {
            let offset = walked.offset + (ENTRY_HEADER_BYTES + at) as u64;
            self.findings.push(Damage { file: walked.file.to_string(), offset, expected, found });
        }
    }

    /// What is wrong with the data of an entry.
    fn judge(&mut self, entry: &Entry) -> Vec<Fault> {
        let mut faults = Vec::new();
        let unreadable = |at: usize, error: &EntryError| {
            (at, format!("effects that this version knows, in entry {}", entry.index), why(error))
        };
        let effects = match Effects::open(entry.data.clone()) {
            Ok(effects) => effects,
            Err(error) => {
                self.end = None;
                return vec![unreadable(0, &error)];
            }
        };
        let log_time_ms = effects.envelope.log_time_ms;
        if log_time_ms < self.log_time_ms {
            let expected = format!("log time of at least {} ms in entry {}", self.log_time_ms, entry.index);
            faults.push((0, expected, format!("{log_time_ms} ms")));
        }
        self.log_time_ms = self.log_time_ms.max(log_time_ms);
        let mut at = ENVELOPE_BYTES;
        for effect in effects {
            match effect {
                Ok(effect) => {
                    if let Effect::Append(written) = &effect {
                        faults.extend(self.judge_batch(at, written));
                    }
                    at += effect.bytes();
                }
                Err(error) => {
                    faults.push(unreadable(at, &error));
                    self.end = None;
                }
            }
        }
        faults
    }

    fn judge_batch(&mut self, at: usize, Written { base, batch, .. }: &Written) -> Vec<Fault> {
        self.counts.batches += 1;
        self.counts.records += u64::from(batch.count());
        let end = self.end.replace(base.0.saturating_add(batch.count().into()));
        let misplaced = end.filter(|end| *end != base.0);
        let misplaced =
            misplaced.map(|end| (format!("a batch at offset {end}"), format!("one at offset {base}")));
        let wrong = wrong_bytes(batch).into_iter().chain(misplaced);
        wrong.map(|(expected, found)| (at, expected, found)).collect()
    }
}

/// What is not as the producer made it: what was expected, and what was found.
fn wrong_bytes(batch: &Batch) -> Option<(String, String)> {
    let numbers = format!("{} to {}", batch.first_sequence(), batch.end_sequence().0.saturating_sub(1));
    match Batch::parse(batch.bytes().clone()) {
        Err(Refusal::BadChecksum { expected, found, .. }) => {
            let expected = format!("the batch of sequences {numbers} with checksum {expected:#010x}");
            return Some((expected, format!("checksum {found:#010x}")));
        }
        Err(refusal) => return Some((format!("the batch of sequences {numbers}"), refusal.to_string())),
        Ok(_) => {}
    }
    let batch = match batch.unpacked() {
        Ok(batch) => batch,
        Err(refusal) => {
            let expected = format!("records that can be unpacked in the batch of sequences {numbers}");
            return Some((expected, refusal.to_string()));
        }
    };
    if let Err(refusal) = batch.check_records() {
        return Some((format!("records that fill the batch of sequences {numbers}"), refusal.to_string()));
    }
    if batch.verify_digest().is_err() {
        let digest: String = batch.digest().iter().map(|byte| format!("{byte:02x}")).collect();
        return Some((format!("records with digest {digest}"), "others".into()));
    }
    None
}

/// An error with its cause.
pub(super) fn why(error: &EntryError) -> String {
    match error {
        EntryError::Batch(refusal) => format!("{error}: {refusal}"),
        _ => error.to_string(),
    }
}
