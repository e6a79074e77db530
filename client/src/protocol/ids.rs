//! The field's integers, each its own type, so that an offset is never handed over as a sequence.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The number `by` places further on. Saturates: no counter of the system can reach the end of a u64.
            #[must_use]
            pub fn plus(self, by: u64) -> Self {
                Self(self.0.saturating_add(by))
            }
        }
    };
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

number! {
    /// Position of a record among all records of the log: dense from 0.
    Offset
}
number! {
    /// Position of a record in its producer's own stream: contiguous from 0, going on across epochs.
    Sequence
}
number! {
    /// Incarnation of a producer. 0 means "never opened"; the first `open` grants 1.
    Epoch
}
number! {
    /// The number that stands for a producer's name in batches. Drawn from the token counter when the name is new.
    ProducerId
}
number! {
    /// Fencing token: +1 per grant, never reused.
    Token
}
number! {
    /// Number of the key-value view: +1 per transaction that changes it.
    Revision
}
number! {
    /// A broker of the cluster. Never reused for another disk.
    BrokerId
}
number! {
    /// Chosen by a client, unique on one stream, carried back by the answer.
    RequestId
}

impl RequestId {
    /// Of what answers no request: a hello, and what a broker says unasked.
    pub const NONE: Self = Self(0);
}

id! {
    /// Names a cluster. Drawn once, by `certs init`.
    ClusterId
}
id! {
    /// Names one history of a cluster. Offsets, tokens and cursors mean something only within it.
    Lineage
}
id! {
    /// Names one life of a broker's data directory. Drawn at the first `serve`.
    Incarnation
}
id! {
    /// Names one opener of a producer: repeating an `open` with the same instance is harmless.
    Instance
}
