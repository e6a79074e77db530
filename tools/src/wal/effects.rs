//! What an entry decided, as it is printed: one line or one object for each effect.
//!
//! Whatever kind of effect there is has one arm in [`Told::new`], with its name and its fields in the order in which
//! they are printed; text and JSON follow from that. Of what a client wrote, an arm names lengths and numbers alone:
//! keys and values are printed only where they were asked for, by [`records`].

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use sequor_broker::core::effect::{Effect, Opening, Retiring, Sealing, SessionOpening, Written};

use crate::content::Content;

/// One effect: its name, and what it says.
#[derive(Debug)]
pub(super) struct Told {
    name: &'static str,
    fields: Vec<(&'static str, Field)>,
    records: Option<Vec<ToldRecord>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Field {
    Number(u64),
    Text(String),
    Id(String),
}

/// One record of a batch, which was asked for.
#[derive(Debug)]
struct ToldRecord {
    offset: u64,
    sequence: u64,
    record: sequor_client::Record,
}

impl Told {
    /// The effect, with the keys and values of its records if `values` are wanted.
    pub(super) fn new(effect: &Effect, values: bool) -> Self {
        use Field::{Id, Number, Text};
        let told = |name, fields| Self { name, fields, records: None };
        match effect {
            Effect::Open(Opening { id, epoch, instance, name }) => told(
                "open",
                vec![
                    ("name", Text(name.to_string())),
                    ("id", Number(id.0)),
                    ("epoch", Number(epoch.0)),
                    ("instance", Id(instance.to_string())),
                ],
            ),
            Effect::Append(written @ Written { base, settled, batch }) => Self {
                records: values.then(|| records(written)),
                ..told(
                    "append",
                    vec![
                        ("id", Number(batch.producer().0)),
                        ("epoch", Number(batch.epoch().0)),
                        ("first_sequence", Number(batch.first_sequence().0)),
                        ("last_sequence", Number(batch.end_sequence().0 - 1)),
                        ("settled", Number(settled.0)),
                        ("base_offset", Number(base.0)),
                        ("records", Number(batch.count().into())),
                        ("bytes", Number(batch.bytes().len() as u64)),
                    ],
                )
            },
            Effect::Seal(Sealing { id, epoch, first, end }) => told(
                "seal",
                vec![
                    ("id", Number(id.0)),
                    ("epoch", Number(epoch.0)),
                    ("first_sequence", Number(first.0)),
                    ("last_sequence", Number(end.0.saturating_sub(1))),
                ],
            ),
            Effect::Retire(Retiring { id, epoch }) => {
                told("retire", vec![("id", Number(id.0)), ("epoch", Number(epoch.0))])
            }
            Effect::Session(SessionOpening { id, instance, ttl_ms }) => told(
                "session",
                vec![
                    ("id", Number(id.0)),
                    ("instance", Id(instance.to_string())),
                    ("ttl_ms", Number(*ttl_ms)),
                ],
            ),
            Effect::Renew(id) => told("renew", vec![("id", Number(id.0))]),
            Effect::Expire(id) => told("expire", vec![("id", Number(id.0))]),
        }
    }
}

/// The records of a batch, as far as they can be read.
fn records(Written { base, batch, .. }: &Written) -> Vec<ToldRecord> {
    let first = batch.first_sequence();
    let Ok(unpacked) = batch.unpacked() else { return Vec::new() };
    let numbered = (0..).zip(unpacked.records().map_while(Result::ok));
    numbered
        .map(|(at, record)| ToldRecord { offset: base.plus(at).0, sequence: first.plus(at).0, record })
        .collect()
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "    {}", self.name)?;
        for (name, field) in &self.fields {
            match field {
                Field::Number(number) => write!(f, " {name}={number}")?,
                Field::Text(text) => write!(f, " {name}={text:?}")?,
                Field::Id(id) => write!(f, " {name}={id}")?,
            }
        }
        f.write_str("\n")?;
        for ToldRecord { offset, sequence, record } in self.records.iter().flatten() {
            let (timestamp, content) = (record.timestamp, Content::new(record));
            writeln!(f, "      record offset={offset} sequence={sequence} timestamp={timestamp} {content}")?;
        }
        Ok(())
    }
}

impl Serialize for Told {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("effect", self.name)?;
        for (name, field) in &self.fields {
            map.serialize_entry(name, field)?;
        }
        if let Some(records) = &self.records {
            map.serialize_entry("content", records)?;
        }
        map.end()
    }
}

impl Serialize for ToldRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            offset: u64,
            sequence: u64,
            timestamp: i64,
            #[serde(flatten)]
            content: Content<'a>,
        }
        let Self { offset, sequence, record } = self;
        let (offset, sequence, timestamp) = (*offset, *sequence, record.timestamp);
        Fields { offset, sequence, timestamp, content: Content::new(record) }.serialize(serializer)
    }
}
