//! Why this broker closes a connection, as the number that the other end sees.
//!
//! A code says what the other end may do next; the reason beside it is for people. The numbers are part of the
//! protocol: they are never given another meaning.

use quinn::{Connection, VarInt};

/// An application close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Close {
    /// Nothing more to say; nothing went wrong.
    Done = 0,
    /// This broker stops. Go to another one.
    Stopping = 1,
    /// The certificate does not allow what the connection asked to be.
    WrongRole = 2,
    /// The hello does not fit: another cluster, another history, no common version.
    Hello = 3,
    /// Bytes that cannot be what they claim to be, or in an order that nobody may send.
    Protocol = 4,
    /// Too many connections. Come back later.
    Busy = 5,
    /// Nothing was said, or nothing read, for too long.
    TooSlow = 6,
    /// A newer connection of the same peer took this one's place.
    Replaced = 7,
    /// A peer came back with another data directory than the one this broker knows it by.
    OtherIncarnation = 8,
}

impl Close {
    /// Its number.
    #[must_use]
    pub fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Closes a connection. What was written and not acknowledged may be lost.
    pub fn close(self, connection: &Connection, reason: &str) {
        connection.close(self.code(), reason.as_bytes());
    }
}
