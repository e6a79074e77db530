//! Bytes from peers and disks that nobody vouches for: one entry point for each thing that this crate reads.
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
//! | `broker_peer_message` | `peer.rs` | a message of a peer |
//! | `broker_peer_stream` | `io/fuzz.rs` | a peer's stream: its hello, its lanes |
//! | `broker_core` | `core.rs` | what a broker makes of messages that no peer should send |
//! | `broker_effects` | `effects.rs` | the data of an entry, and what the state makes of it |
//! | `broker_sections` | `sections.rs`, `io/fuzz.rs` | the genesis; the pins of the peers |
//! | `broker_config` | here | the configuration file |

mod core;
mod effects;
mod peer;
mod sections;

use std::path::Path;

pub use self::core::core;
pub use crate::io::fuzz::peer_stream;
pub use effects::effects;
pub use peer::peer_message;
pub use sections::sections;

use crate::config::{Config, Layer};

/// The name of a target, and its entry point.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("broker_peer_message", peer_message),
    ("broker_peer_stream", peer_stream),
    ("broker_core", core),
    ("broker_effects", effects),
    ("broker_sections", sections),
    ("broker_config", config),
];

/// A configuration file. What is taken is within its bounds; what is refused has a message.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let layer = match Layer::parse(Path::new("folder/broker.toml"), &text) {
        Ok(layer) => layer,
        Err(error) => return assert!(error.to_string().contains("broker.toml"), "{error}"),
    };
    match Config::resolve(layer) {
        Ok(config) => {
            assert!(config.election_ms >= 3 * config.heartbeat_ms && config.tick_ms > 0);
            assert!(config.election_ms.is_multiple_of(config.tick_ms) && config.segment_bytes >= 8 << 20);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
