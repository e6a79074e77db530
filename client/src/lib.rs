//! The sequor client library.
pub mod protocol;
