//! The sequor client library.
pub mod core;
pub mod protocol;
#[cfg(feature = "driver")]
pub mod transport;
