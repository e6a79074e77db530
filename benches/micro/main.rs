//! Micro-benchmarks: what each part of an append costs by itself.
//!
//! ```text
//!   cargo bench -p sequor-benches                     all of them, some minutes
//!   cargo bench -p sequor-benches -- wal              those whose names contain `wal`
//!   cargo bench -p sequor-benches -- --quick          a look
//! ```
//!
//! | file | what is measured |
//! |---|---|
//! | `batch.rs` | making a batch, and checking it when it arrives |
//! | `block.rs` | staging entries in the log, and making a block of them |
//! | `admission.rs` | deciding an append and taking it into the head state |
//! | `apply.rs` | folding a committed entry into the state |
//! | `wal.rs` | a block on a real disk, by each of the ways that there are |

#![allow(
    missing_docs,
    reason = "a program, not a library; `criterion_group!` makes functions without documentation"
)]

mod admission;
mod apply;
mod batch;
mod block;
mod load;
mod wal;

use criterion::{criterion_group, criterion_main};

criterion_group!(benches, batch::bench, block::bench, admission::bench, apply::bench, wal::bench);
criterion_main!(benches);
