//! One line of a dump: a block, an entry with what it decided, or a place where a block is missing.
//!
//! Text shows what people look for, in the order in which they look; JSON has every field.

use std::fmt::{self, Write as _};

use bytes::Bytes;
use serde::Serialize;

use sequor_broker::core::effect::{Effects, EntryError, Envelope};
use sequor_wal::{Item, Kind, Reason, WalkedBlock, WalkedEntry, WalkedFault};

use super::{audit::why, effects::Told};
use crate::visible::visible;

/// One line of the output, or several of text.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    Block(PrintedBlock<'a>),
    Entry(PrintedEntry<'a>),
    Fault(PrintedFault<'a>),
}

#[derive(Debug, Serialize)]
pub(super) struct PrintedBlock<'a> {
    file: &'a str,
    offset: u64,
    bytes: u64,
    reason: &'static str,
    entries: u32,
    first_index: u64,
    previous_term: u64,
    previous_chain: String,
    durable: u64,
    commit: u64,
    crc: String,
    hidden: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct PrintedEntry<'a> {
    index: u64,
    term: u64,
    kind: &'static str,
    file: &'a str,
    offset: u64,
    bytes: usize,
    chain: String,
    hidden: bool,
    #[serde(flatten)]
    envelope: Option<PrintedEnvelope>,
    effects: Vec<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct PrintedEnvelope {
    log_time_ms: u64,
    wall_ms: u64,
    level: u16,
}

#[derive(Debug, Serialize)]
pub(super) struct PrintedFault<'a> {
    file: &'a str,
    offset: u64,
    expected: &'a str,
    found: &'a str,
    hidden: bool,
}

impl<'a> PrintedBlock<'a> {
    fn new(block: &'a WalkedBlock) -> Self {
        Self {
            file: &block.file,
            offset: block.offset,
            bytes: block.bytes,
            reason: match block.reason {
                Reason::Follows => "follows",
                Reason::First => "first",
                Reason::Roll => "roll",
                Reason::Cut => "cut",
            },
            entries: block.entries,
            first_index: block.previous.index + 1,
            previous_term: block.previous.term,
            previous_chain: hex(block.previous.chain),
            durable: block.durable,
            commit: block.commit,
            crc: hex(block.crc),
            hidden: block.hidden,
        }
    }
}

impl<'a> PrintedEntry<'a> {
    /// With what it decided, as far as that can be read.
    fn new(walked: &'a WalkedEntry, values: bool) -> Self {
        let WalkedEntry { file, offset, entry, chain, hidden } = walked;
        let mut printed = Self {
            index: entry.index,
            term: entry.term,
            kind: match entry.kind {
                Kind::ConfChange => "conf-change",
                Kind::Normal if entry.data.is_empty() => "no-op",
                Kind::Normal => "normal",
            },
            file,
            offset: *offset,
            bytes: entry.data.len(),
            chain: hex(*chain),
            hidden: *hidden,
            envelope: None,
            effects: Vec::new(),
            error: None,
        };
        if entry.kind == Kind::Normal && !entry.data.is_empty() {
            printed.error = printed.decode(entry.data.clone(), values).err().map(|error| why(&error));
        }
        printed
    }

    fn decode(&mut self, data: Bytes, values: bool) -> Result<(), EntryError> {
        let effects = Effects::open(data)?;
        let Envelope { level, log_time_ms, wall_ms } = effects.envelope;
        self.envelope = Some(PrintedEnvelope { log_time_ms, wall_ms, level });
        for effect in effects {
            self.effects.push(Told::new(&effect?, values));
        }
        Ok(())
    }
}

impl<'a> PrintedFault<'a> {
    fn new(WalkedFault { damage, hidden, .. }: &'a WalkedFault) -> Self {
        let (file, expected, found) = (&damage.file, &damage.expected, &damage.found);
        Self { file, offset: damage.offset, expected, found, hidden: *hidden }
    }
}

impl<'a> Line<'a> {
    /// The line for a part of a segment, with the keys and values of records if `values` are wanted.
    pub(super) fn new(item: &'a Item, values: bool) -> Self {
        match item {
            Item::Block(block) => Self::Block(PrintedBlock::new(block)),
            Item::Entry(entry) => Self::Entry(PrintedEntry::new(entry, values)),
            Item::Fault(fault) => Self::Fault(PrintedFault::new(fault)),
        }
    }

    /// The same for people: as many lines as it takes.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let written = match self {
            Self::Block(block) => block.write(&mut text),
            Self::Entry(entry) => entry.write(&mut text),
            Self::Fault(PrintedFault { file, offset, expected, found, hidden }) => {
                let (expected, found) = (visible(expected), visible(found));
                writeln!(
                    text,
                    "fault {file} offset={offset} expected={expected:?} found={found:?}{}",
                    mark(*hidden)
                )
            }
        };
        written.expect("a string takes everything");
        text
    }
}

impl PrintedBlock<'_> {
    fn write(&self, text: &mut String) -> fmt::Result {
        let Self { file, offset, bytes, reason, entries, first_index, durable, commit, crc, hidden, .. } =
            self;
        writeln!(
            text,
            "block {file} offset={offset} bytes={bytes} reason={reason} entries={entries} \
             first_index={first_index} durable={durable} commit={commit} crc={crc}{}",
            mark(*hidden)
        )
    }
}

impl PrintedEntry<'_> {
    fn write(&self, text: &mut String) -> fmt::Result {
        let Self { index, term, kind, offset, bytes, chain, envelope, effects, error, hidden, .. } = self;
        write!(
            text,
            "  entry index={index} term={term} kind={kind} offset={offset} bytes={bytes} chain={chain}"
        )?;
        if let Some(PrintedEnvelope { log_time_ms, wall_ms, level }) = envelope {
            write!(text, " log_time_ms={log_time_ms} wall_ms={wall_ms} level={level}")?;
        }
        writeln!(text, "{}", mark(*hidden))?;
        effects.iter().try_for_each(|effect| write!(text, "{effect}"))?;
        error.iter().try_for_each(|error| writeln!(text, "    error={:?}", visible(error)))
    }
}

fn mark(hidden: bool) -> &'static str {
    if hidden { " hidden" } else { "" }
}

fn hex(number: u32) -> String {
    format!("{number:#010x}")
}
