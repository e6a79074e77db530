//! `sequor tail`: the log from some offset on, as bytes or as JSON, through all changes of leader.
//!
//! ```text
//! --from start      the first record that is still there
//!        end        what comes from now on
//!        OFFSET     this record
//!        -N         the last N records, and what comes
//! --until-end       up to where the log ends now: asked of a majority after the command began
//! ```
//!
//! An offset that the log does not hold is refused, except for its end, where the next record will be.
//!
//! `raw` prints the value of each record and a newline; the newline is missing where `append` found none at the end of
//! its input. A tombstone has no value and prints nothing. With the flags that `append` was given ([`Form`]) it prints
//! also keys, and records of any bytes. `json` prints one object a line:
//!
//! ```json
//! {"offset":7,"producer":"import/1","sequence":7,"timestamp":1767225600000,"key":null,"value":"text"}
//! {"offset":8,"producer":"import/1","sequence":8,"timestamp":0,"key":"text","value":"//4=","value_encoding":"base64"}
//! ```
//!
//! `producer` is a name, or `#` and the number of a session. `timestamp` is the producer's, in milliseconds since 1970. A key or value that is not UTF-8 is in base64, and marked
//! by `key_encoding` or `value_encoding`. An absent key, and the value of a tombstone, are `null`.

use clap::ValueEnum;
use serde::Serialize;
use thiserror::Error;

use sequor_client::{
    Client, TailRecord,
    protocol::{End, Offset},
};

use crate::{
    cli::{Global, number},
    content::Content,
    exit::{Exit, Failure, Verdict},
    form::Form,
    output::{Output, Reader},
    remote,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A record prints as its value and a line feed, without its key. With --key-separator and --length-prefixed, as `append` \
was given them, what `append` read comes back byte for byte. A record of another source whose key has the separator in \
it, or that has it in its value and has no key, would be read as another one. A record without value, a tombstone, \
prints nothing.

Examples:
  sequor tail                                         all of it, and what comes
  sequor tail --from -10 --until-end                  the last ten records
  sequor tail --until-end -o raw > copy               what `append` was given, byte for byte
  sequor tail --until-end --key-separator '\\t'        the same for lines with keys
  sequor tail --until-end --length-prefixed | ./decode
  sequor tail --from end -o json | jq .value")]
pub(crate) struct TailArgs {
    /// Where to begin: start, end, an offset, or -N for the last N records.
    #[arg(long, default_value = "start", value_parser = from, allow_hyphen_values = true)]
    from: From,

    /// Stop where the log ends at the beginning of this command.
    #[arg(long)]
    until_end: bool,

    /// Stop after this many records.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = number)]
    count: Option<u64>,

    /// How to print records.
    #[arg(short, long, default_value = "raw")]
    output: Format,

    #[command(flatten)]
    form: Form,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Start,
    End,
    Offset(u64),
    Last(u64),
}

/// How to print records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The bytes of the values, each with a newline.
    Raw,
    /// One object a line: offset, producer, sequence, timestamp, key, value.
    Json,
}

fn from(text: &str) -> Result<From, String> {
    let wrong = |_| format!("{text:?} is neither start nor end nor an offset nor -N");
    match text {
        "start" => Ok(From::Start),
        "end" => Ok(From::End),
        _ => match text.strip_prefix('-') {
            Some(count) => count.parse().map(From::Last).map_err(wrong),
            None => text.parse().map(From::Offset).map_err(wrong),
        },
    }
}

/// JSON has a form of its own.
#[derive(Debug, Error)]
#[error("--length-prefixed and --key-separator say how bytes are printed: they go with `-o raw` alone")]
pub(crate) struct FormWithoutRaw;

impl Verdict for FormWithoutRaw {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// The log has no such place.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("the log has no offset {asked}: it holds {first} up to, not including, {end}")]
pub(crate) struct OutOfRange {
    /// What was asked for.
    asked: Offset,
    /// First offset of the log.
    first: Offset,
    /// One past the last offset.
    end: Offset,
}

impl Verdict for OutOfRange {
    fn exit(&self) -> Exit {
        // As when a broker refuses it.
        Exit::Precondition
    }
}

impl From {
    /// The offset that this means in a log of this extent.
    ///
    /// # Errors
    /// If it lies before the first record, or beyond where the next one will be.
    fn offset(self, log: &End) -> Result<Offset, OutOfRange> {
        let End { first, end, .. } = *log;
        match self {
            Self::Start => Ok(first),
            Self::End => Ok(end),
            Self::Offset(offset) if (first.0..=end.0).contains(&offset) => Ok(Offset(offset)),
            Self::Offset(offset) => Err(OutOfRange { asked: Offset(offset), first, end }),
            Self::Last(count) => Ok(Offset(end.0.saturating_sub(count)).max(first)),
        }
    }
}

pub(crate) async fn run(args: TailArgs, global: &Global) -> Result<(), Failure> {
    args.form.check()?;
    if args.output != Format::Raw && !args.form.is_default() {
        return Err(FormWithoutRaw.into());
    }
    let client = remote::connect(global).await?;
    let log = client.end().await?;
    let first = args.from.offset(&log)?;
    let mut end = if args.until_end { log.end } else { Offset(u64::MAX) };
    if let Some(count) = args.count {
        end = end.min(first.plus(count));
    }

    let mut output = Output::new();
    let followed = match first < end {
        true => follow(&args, global, &client, (first, end, log.end), &mut output).await,
        false => Ok(()),
    };
    // What came before that which ended it is printed, too.
    followed.and(output.flush().await)?;
    client.close().await;
    Ok(())
}

/// Prints the records from `first` up to `end`, those below `there` without waiting for them to be appended.
async fn follow(
    args: &TailArgs,
    global: &Global,
    client: &Client,
    (first, end, there): (Offset, Offset, Offset),
    output: &mut Output,
) -> Result<(), Failure> {
    let reader = Reader::of_stdout();
    let mut tail = client.tail(first).await?;
    while tail.position() < end {
        // What is in the log has to come in time; what is not yet there is waited for.
        let batch = match tail.position() < there {
            true => remote::within(global.deadline, tail.next_batch()).await??,
            false => tokio::select! {
                batch = tail.next_batch() => batch?,
                gone = reader.gone() => return Err(gone),
            },
        };
        for record in batch.records().take_while(|record| record.offset < end) {
            match args.output {
                Format::Raw => args.form.write(&record.record, output.buffer()),
                Format::Json => output.push_json(&Printed::new(&record)),
            }
        }
        // At the end of what there is, nothing is held back; before it, pieces are large.
        if tail.position() >= tail.end() { output.flush().await? } else { output.settle().await? }
    }
    Ok(())
}

/// One line of `-o json`.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    offset: u64,
    producer: &'a str,
    sequence: u64,
    timestamp: i64,
    #[serde(flatten)]
    content: Content<'a>,
}

impl<'a> Printed<'a> {
    fn new(record: &'a TailRecord) -> Self {
        Self {
            offset: record.offset.0,
            producer: &record.producer,
            sequence: record.sequence.0,
            timestamp: record.record.timestamp,
            content: Content::new(&record.record),
        }
    }
}

#[cfg(test)]
mod tests {
    use sequor_client::{
        Record,
        protocol::{Lineage, Revision, Sequence},
    };

    use super::*;

    #[test]
    fn from_is_a_place_in_the_log() {
        let log =
            End { first: Offset(10), end: Offset(50), revision: Revision(0), lineage: Lineage::default() };
        let offset = |text| from(text).unwrap().offset(&log).map(|offset| offset.0);
        assert_eq!(
            ["start", "end", "10", "42", "50", "-1", "-40", "-1000"].map(offset),
            [10, 50, 10, 42, 50, 49, 10, 10].map(Ok)
        );
        for (text, asked) in [("9", 9), ("51", 51)] {
            let refused = OutOfRange { asked: Offset(asked), first: Offset(10), end: Offset(50) };
            assert_eq!(offset(text), Err(refused));
        }
        for wrong in ["", "-", "middle", "-x", "1.5", "--1"] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
    }

    fn print(record: Record) -> String {
        let record = TailRecord { offset: Offset(7), producer: "p".into(), sequence: Sequence(3), record };
        serde_json::to_string(&Printed::new(&record)).unwrap()
    }

    #[test]
    fn json_says_what_is_text_and_what_is_not() {
        let text = Record::new("a\nb").with_key("").with_timestamp(5);
        let expected = r#"{"offset":7,"producer":"p","sequence":3,"timestamp":5,"key":"","value":"a\nb"}"#;
        assert_eq!(print(text), expected);

        let bytes = Record::new(vec![0xff, 0xfe]).with_key(vec![0x80]);
        assert_eq!(
            print(bytes),
            r#"{"offset":7,"producer":"p","sequence":3,"timestamp":0,"key":"gA==","key_encoding":"base64","value":"//4=","value_encoding":"base64"}"#
        );

        let tombstone = Record::tombstone("k");
        assert_eq!(
            print(tombstone),
            r#"{"offset":7,"producer":"p","sequence":3,"timestamp":0,"key":"k","value":null}"#
        );
    }
}
