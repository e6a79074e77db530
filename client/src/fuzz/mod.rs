//! Bytes from the network that nobody vouches for: one entry point for each thing that this crate reads.
//!
//! The fuzz targets in `tools/fuzz` call these, and so does the test that replays their corpus (`broker/tests/corpus`).
//! Each takes any bytes and returns, or panics because something that must always hold does not. None of this is part of
//! a normal build.
//!
//! A checksum stops nearly every input that chance makes, long before the code behind it. So the input is read twice: as
//! it is, and *sealed*, with lengths and checksums made to fit.
//!
//! | target | file | |
//! |---|---|---|
//! | `client_frames` | `frames.rs` | a stream of frames: hellos, requests, answers, refusals |
//! | `client_batch` | `batch.rs` | a batch, its records, packed ones too |
//! | `client_session` | `session.rs` | what a client makes of answers that no broker should give |
//! | `client_context` | here | the context file |

mod batch;
mod frames;
mod session;

use std::path::Path;

use crate::Config;

pub use batch::{batch, seal as seal_batch};
pub use frames::frames;
pub use session::session;

/// The name of a target, and its entry point.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("client_frames", frames),
    ("client_batch", batch),
    ("client_session", session),
    ("client_context", context),
];

/// A context file. What is taken has an id and brokers; what is refused has a message that names the file.
pub fn context(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(Path::new("folder/context.toml"), &text) {
        Ok(config) => assert!(!config.brokers.is_empty() && config.tls.ca != Path::new("")),
        Err(error) => assert!(error.to_string().contains("context.toml"), "{error}"),
    }
}
