//! The sequor client library: append exactly once, tail without a gap.
//!
//! Begin with [`Client`]: it has an example, and so has the folder `examples/`.
//!
//! # What is promised
//!
//! * A batch that is acknowledged is durable on a majority of the brokers, once, at the offsets that were told.
//! * Every call ends by its deadline in one of three ways: done, definitely not (and why), or *unknown*. What is unknown
//!   is said to be; it is never reported as failed.
//! * A change of leader loses, doubles and reorders nothing, and is not seen but as a pause.
//! * A [`Tail`] has neither gap nor repeat, and every record's checksum is its producer's own.
//!
//! # The parts
//!
//! | module | |
//! |---|---|
//! | [`protocol`] | the bytes that clients and brokers exchange |
//! | [`core`] | what a client decides, without I/O: the simulator runs this very code |
//! | the rest (feature `driver`) | tokio and quinn around it: [`Client`], [`Producer`], [`Tail`] |

#[cfg(feature = "carrier")]
#[doc(hidden)]
pub mod carrier;
pub mod core;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
pub mod protocol;
#[cfg(feature = "driver")]
pub mod transport;

#[cfg(feature = "driver")]
mod client;
#[cfg(feature = "driver")]
mod command;
#[cfg(feature = "driver")]
mod config;
#[cfg(feature = "driver")]
mod connection;
#[cfg(feature = "driver")]
mod driver;
#[cfg(feature = "driver")]
mod error;
#[cfg(feature = "driver")]
mod outcome;
#[cfg(feature = "driver")]
mod pipeline;
#[cfg(feature = "driver")]
mod producer;
#[cfg(feature = "driver")]
mod tail;
#[cfg(feature = "driver")]
mod tls;

#[cfg(feature = "driver")]
pub use self::{
    client::Client,
    config::{Config, ConfigError, ContextBroker, ContextFile, TlsFiles},
    connection::LinkError,
    error::{AppendError, CallError, ConnectError, OpenError, TailError},
    producer::{Acknowledgement, Lost, OpenProducer, Producer, Receipt},
    tail::{Tail, TailBatch, TailRecord},
    tls::TlsError,
};
pub use protocol::batch::{Header, Record, RecordRef};
