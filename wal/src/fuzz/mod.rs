//! Bytes from a disk that nobody vouches for: one entry point for each thing that this crate reads back.
//!
//! The fuzz targets in `tools/fuzz` call these, and so does the test that replays their corpus (`broker/tests/corpus`).
//! Each takes any bytes and returns, or panics because something that must always hold does not. None of this is part of
//! a normal build.
//!
//! A checksum stops nearly every input that chance makes, long before the code behind it. So most entry points read their
//! input twice: as it is, and *sealed*, with every length and checksum in it made to fit (`seal.rs`). Sealed bytes are
//! forgeries. No disk makes them; what is asked of them is only that they are refused or opened, never a panic.
//! What a disk *can* do to a log that was really written is the business of `mutations.rs`, and there nothing is sealed.
//!
//! | target | file | |
//! |---|---|---|
//! | `wal_block` | `blocks.rs` | the header of an entry, a block |
//! | `wal_segment` | `blocks.rs` | the header of a segment, and the scan of one |
//! | `wal_vote` | `files.rs` | the vote file |
//! | `wal_sections` | `files.rs` | a sections file: as such, as an identity, as a checkpoint |
//! | `wal_directory` | `directory.rs` | recovery and inspection of a directory of any files |
//! | `wal_mutations` | `mutations.rs` | recovery of a log that was written and then damaged |

mod blocks;
mod directory;
mod files;
mod mutations;
mod seal;
mod seeds;

use crate::{Identity, Settings};

pub use blocks::{block, segment};
pub use directory::directory;
pub use files::{sections, vote};
pub use mutations::mutations;
pub use seal::sections as seal_sections;
pub use seeds::seeds;

/// The name of a target, and its entry point.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("wal_block", block),
    ("wal_segment", segment),
    ("wal_vote", vote),
    ("wal_sections", sections),
    ("wal_directory", directory),
    ("wal_mutations", mutations),
];

const CLUSTER: [u8; 16] = *b"cluster-of-three";
const INCARNATION: [u8; 16] = *b"first-incarnated";

fn identity() -> Identity {
    Identity { cluster: CLUSTER, lineage: [3; 16], broker: 1, incarnation: Some(INCARNATION) }
}

/// Segments so small that a handful of entries fills one.
fn small() -> Settings {
    Settings { segment_bytes: 4096, block_bytes_max: 1500, alignment: 512, spares: 2 }
}
