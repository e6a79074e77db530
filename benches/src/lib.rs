//! What the programs in `benches/` share: how a figure is written down, and how processes and delays are run.
//!
//! | file | noun |
//! |---|---|
//! | `figure.rs` | one measured point, in the form that `sequor bench append -o json` has too |
//! | `point.rs` | batch and batches in flight: where to measure |
//! | `child.rs` | a process that ends with us |
//! | `cpu.rs` | what a process used of the CPU |
//! | `busy.rs` | who else wants the machine |
//! | `interruption.rs` | Ctrl-C, and how it becomes an end like any other |
//! | `delay.rs` | links that take time: `sequor bench relay` as a child |
//!
//! `nulllog` and `compare` are the programs; `micro/` holds the micro-benchmarks. The driver of the peers, a workspace of
//! its own, takes `figure.rs`, `point.rs` and `cpu.rs` in as files.

pub mod busy;
pub mod child;
pub mod cpu;
pub mod delay;
pub mod figure;
pub mod interruption;
pub mod point;
