//! The form in which records lie in a stream of bytes: what `append` reads, and what `tail -o raw` writes.
//!
//! ```text
//! lines             "a\n"  "\n"  "b\r\n"  "c"        a record is a line without its line feed; the last may lack it
//! length-prefixed   | length u32 | bytes … |         big endian; any bytes, line feeds too
//!
//! with a key separator, say ':'
//!   "k:v"    key "k", value "v"          ":v"   key "" (which is not the same as none), value "v"
//!   "k:v:w"  key "k", value "v:w"        "v"    no key, value "v"
//! ```
//!
//! Whatever was read in a form comes back byte for byte when it is written in the same one. A record of another source
//! may not fit: a key with the separator in it, or a value with the separator and no key, would be read as another one.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use sequor_client::Record;

use crate::{
    exit::{Exit, Verdict},
    pieces::is_marked_unended,
};

/// Bytes of a length before a record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// How records lie in a stream of bytes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Form {
    /// Records are binary: each is its length (4 bytes, big endian) and then that many bytes, instead of a line.
    #[arg(long)]
    pub(crate) length_prefixed: bool,

    /// What stands before the first C is the record's key, the rest its value; without C it has no key.
    ///
    /// C is one character, or \t, \0, or \xHH for the byte HH.
    #[arg(long, value_name = "C", value_parser = separator)]
    key_separator: Option<Separator>,
}

/// What stands between a key and a value: at least one byte.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Separator(Bytes);

/// A form that cannot be.
#[derive(Debug, Error)]
#[error("--key-separator: a line has no line feed in it; use --length-prefixed, or another separator")]
pub(crate) struct FormError;

impl Verdict for FormError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

fn separator(text: &str) -> Result<Separator, String> {
    let wrong = || "it has to be one character, \\t, \\0, or \\xHH with two hexadecimal digits".to_owned();
    let bytes = match text {
        r"\t" => Bytes::from_static(b"\t"),
        r"\0" => Bytes::from_static(b"\0"),
        _ => match text.strip_prefix(r"\x") {
            Some(digits) if digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                Bytes::from(vec![u8::from_str_radix(digits, 16).map_err(|_| wrong())?])
            }
            _ if text.chars().count() == 1 => Bytes::copy_from_slice(text.as_bytes()),
            _ => return Err(wrong()),
        },
    };
    Ok(Separator(bytes))
}

impl Form {
    /// Lines without keys.
    pub(crate) fn lines() -> Self {
        Self::default()
    }

    /// Whether it is the one that is used without any flag.
    pub(crate) fn is_default(&self) -> bool {
        !self.length_prefixed && self.key_separator.is_none()
    }

    /// What to call a record of the input: line or record.
    pub(crate) fn word(&self) -> &'static str {
        if self.length_prefixed { "record" } else { "line" }
    }

    /// Whether records can have this form.
    ///
    /// # Errors
    /// If the separator could never stand in a line.
    pub(crate) fn check(&self) -> Result<(), FormError> {
        match &self.key_separator {
            Some(Separator(separator)) if !self.length_prefixed && separator[..] == *b"\n" => Err(FormError),
            _ => Ok(()),
        }
    }

    /// The key, if there is one, and the value of what lies between two records.
    pub(crate) fn split(&self, content: Bytes) -> (Option<Bytes>, Bytes) {
        let Some(Separator(separator)) = &self.key_separator else { return (None, content) };
        match content.windows(separator.len()).position(|window| window == separator) {
            Some(at) => (Some(content.slice(..at)), content.slice(at + separator.len()..)),
            None => (None, content),
        }
    }

    /// Adds a record in this form. A tombstone has no value, and adds nothing.
    pub(crate) fn write(&self, record: &Record, out: &mut Vec<u8>) {
        let Some(value) = &record.value else { return };
        let mut key = BytesMut::new();
        if let (Some(found), Some(Separator(separator))) = (&record.key, &self.key_separator) {
            key.extend_from_slice(found);
            key.extend_from_slice(separator);
        }
        if self.length_prefixed {
            let length = u32::try_from(key.len() + value.len()).expect("a record fits a batch");
            out.extend_from_slice(&length.to_be_bytes());
        }
        out.extend_from_slice(&key);
        out.extend_from_slice(value);
        if !self.length_prefixed && !is_marked_unended(record) {
            out.push(b'\n');
        }
    }

    #[cfg(test)]
    pub(crate) fn new(length_prefixed: bool, key_separator: Option<&str>) -> Self {
        Self { length_prefixed, key_separator: key_separator.map(|text| separator(text).unwrap()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_is_one_character_or_is_written_with_a_backslash() {
        for (text, bytes) in [
            (":", &b":"[..]),
            ("\t", b"\t"),
            (r"\t", b"\t"),
            (r"\0", b"\0"),
            (r"\x1f", b"\x1f"),
            (r"\xFF", b"\xff"),
            (r"\", b"\\"),
            ("→", "→".as_bytes()),
        ] {
            assert_eq!(separator(text), Ok(Separator(Bytes::copy_from_slice(bytes))), "{text}");
        }
        for wrong in ["", "::", r"\n", r"\x", r"\x1", r"\x123", r"\xg0", r"\x+1"] {
            assert!(separator(wrong).is_err(), "{wrong}");
        }
        assert!(Form::new(false, Some("\n")).check().is_err());
        assert!(Form::new(true, Some("\n")).check().is_ok());
    }

    #[test]
    fn the_key_is_what_stands_before_the_first_separator() {
        let split = |separator, content: &'static str| {
            let (key, value) =
                Form::new(false, Some(separator)).split(Bytes::from_static(content.as_bytes()));
            (
                key.map(|key| String::from_utf8(key.to_vec()).unwrap()),
                String::from_utf8(value.to_vec()).unwrap(),
            )
        };
        let key = |key: &str| Some(key.to_owned());
        assert_eq!(split(":", "k:v:w"), (key("k"), "v:w".into()));
        assert_eq!(split(":", ":v"), (key(""), "v".into()));
        assert_eq!(split(":", "k:"), (key("k"), String::new()));
        assert_eq!(split(":", "v"), (None, "v".into()));
        assert_eq!(split("→", "k→v"), (key("k"), "v".into()));
        assert_eq!(Form::lines().split("k:v".into()), (None, "k:v".into()));
    }

    #[test]
    fn a_key_is_written_only_with_a_separator_and_a_tombstone_not_at_all() {
        let written = |form: Form, record: &Record| {
            let mut out = Vec::new();
            form.write(record, &mut out);
            out
        };
        let record = Record::new("v").with_key("k");
        assert_eq!(written(Form::lines(), &record), b"v\n");
        assert_eq!(written(Form::new(false, Some(":")), &record), b"k:v\n");
        assert_eq!(written(Form::new(true, None), &record), b"\0\0\0\x01v");
        assert_eq!(written(Form::new(true, Some(":")), &record), b"\0\0\0\x03k:v");
        assert_eq!(written(Form::new(true, Some(":")), &Record::tombstone("k")), b"");
    }
}
