//! The sequor client library.
pub mod protocol;
#[cfg(feature = "driver")]
pub mod transport;
