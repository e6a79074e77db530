//! The wire protocol: what clients and brokers say to each other, and in which bytes.
//!
//! | file | noun |
//! |---|---|
//! | `ids.rs` | the integers: offset, sequence, epoch, token, … |
//! | `limits.rs` | every bound, with its unit |
//! | `record.rs` | one record: what a user says |
//! | `batch.rs` | a batch of records: what a producer says |
//! | `placed.rs` | a batch in its place in the log |
//! | `message.rs` | requests and answers |
//! | `body.rs` | the bytes of each message |
//! | `frame.rs` | how they follow one another on a stream |
//! | `error.rs` | why a request was refused |
//!
//! This module imports nothing else of the library: a broker depends on it alone.

pub mod batch;
mod body;
mod codec;
mod error;
pub mod frame;
mod ids;
pub mod limits;
mod message;
pub mod placed;
mod record;

pub use codec::Codec;
pub use error::*;
pub use ids::*;
pub use message::*;
pub use placed::Placed;
