//! What records contain, as a number that adds up.
//!
//! The digest of a batch is the sum of the digests of its records, and each of these covers the producer's name and the
//! record's number too. So the same records have the same digest however they are cut into batches, the digest of a part
//! is the difference of two sums, and two records that changed places do not go unnoticed.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, Sub},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use xxhash_rust::xxh3::Xxh3;

/// See the file's header. Written as 16 hexadecimal digits, because many readers of JSON round numbers of 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of one record. An absent key or value is not an empty one.
    #[must_use]
    pub fn of_record(producer: &str, sequence: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut hash = Xxh3::with_seed(sequence);
        for part in [Some(producer.as_bytes()), key, value] {
            // The length before each part keeps their borders; no part is as long as what stands for an absent one.
            hash.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        Self(hash.digest())
    }
}

impl Add for Digest {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl Sub for Digest {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl Sum for Digest {
    fn sum<I: Iterator<Item = Self>>(digests: I) -> Self {
        digests.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sequence: u64, value: &str) -> Digest {
        Digest::of_record("p", sequence, None, Some(value.as_bytes()))
    }

    #[test]
    fn cuts_do_not_matter_and_places_do() {
        let whole: Digest = [of(0, "a"), of(1, "b"), of(2, "c")].into_iter().sum();
        assert_eq!(whole - of(0, "a"), of(1, "b") + of(2, "c"));
        assert_ne!(whole, [of(0, "b"), of(1, "a"), of(2, "c")].into_iter().sum());
    }

    #[test]
    fn absent_is_not_empty_and_parts_have_borders() {
        let digest = |key, value| Digest::of_record("p", 0, key, value);
        assert_ne!(digest(None, Some(&b""[..])), digest(Some(&b""[..]), None));
        assert_ne!(digest(Some(&b"ab"[..]), Some(&b"c"[..])), digest(Some(&b"a"[..]), Some(&b"bc"[..])));
        assert_ne!(digest(None, None), digest(None, Some(&b""[..])));
    }
}
