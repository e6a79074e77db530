//! What a record holds, as JSON and people can read it: text as it is, all other bytes in base64 and marked.
//!
//! ```json
//! "key":null,"value":"text"
//! "key":"text","value":"//4=","value_encoding":"base64"
//! ```
//!
//! An absent key, and the value of a tombstone, are `null`.

use std::{fmt, str};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;

use sequor_client::Record;

/// Key and value of a record, as fields of a JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct Content<'a> {
    key: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    value: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<&'static str>,
}

/// Bytes as JSON can hold them.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Text<'a> {
    Utf8(&'a str),
    Base64(String),
}

impl<'a> Text<'a> {
    fn new(bytes: &'a Bytes) -> Self {
        str::from_utf8(bytes).map_or_else(|_| Self::Base64(STANDARD.encode(bytes)), Self::Utf8)
    }

    fn encoding(&self) -> Option<&'static str> {
        matches!(self, Self::Base64(_)).then_some("base64")
    }
}

impl<'a> Content<'a> {
    pub(crate) fn new(record: &'a Record) -> Self {
        let key = record.key.as_ref().map(Text::new);
        let value = record.value.as_ref().map(Text::new);
        Self {
            key_encoding: key.as_ref().and_then(Text::encoding),
            key,
            value_encoding: value.as_ref().and_then(Text::encoding),
            value,
        }
    }
}

/// `key="text" value=base64://4=`, with nothing in it that a terminal would obey.
impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, name, text: &Option<Text<'_>>| match text {
            None => write!(f, "{name}=none"),
            Some(Text::Utf8(text)) => write!(f, "{name}={text:?}"),
            Some(Text::Base64(text)) => write!(f, "{name}=base64:{text}"),
        };
        write(f, "key", &self.key)?;
        f.write_str(" ")?;
        write(f, "value", &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_and_bytes_are_in_base64() {
        let told = |record: Record| Content::new(&record).to_string();
        assert_eq!(told(Record::new("a\"b\n\u{202e}").with_key("")), r#"key="" value="a\"b\n\u{202e}""#);
        assert_eq!(told(Record::new(vec![0xff, 0xfe])), "key=none value=base64://4=");
        assert_eq!(told(Record::tombstone("k")), r#"key="k" value=none"#);
    }
}
