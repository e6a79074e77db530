//! What a commit costs, in counts and not in time: a machine that is busy changes nothing about them.
//!
//! Three brokers in memory run a closed loop: so many requests are in flight, and each answer lets the next one go. All
//! is in lock step and from fixed seeds, so the counts are the same on every machine:
//!
//! | what | why it matters |
//! |---|---|
//! | entries, syncs, blocks per cycle | a sync is what a commit waits for: one per broker and cycle, however many requests |
//! | peer messages per cycle | each is at least a datagram, and packets are the bill of small batches |
//! | bytes in the log, and to peers, per payload byte | what the envelopes weigh |
//! | allocations per request | what the core does for each, on the leader and on a follower, and what leaves as bytes |
//!
//! `FIGURES` holds what they are. Who makes one worse by more than 3 % sees this test fail; who makes one better, too, and
//! writes the better figure down, so that it stays.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod closed_loop;
#[path = "../trio/mod.rs"]
mod trio;

use self::closed_loop::{Costs, Load, measure};

/// How far a count may be from its figure. Parts of it.
const TOLERANCE: f64 = 0.03;

/// What is known of one load.
struct Figures {
    load: Load,
    costs: Costs,
}

/// Requests of `batch` records of 128 bytes, `in_flight` of them.
const fn load(batch: usize, in_flight: usize) -> Load {
    Load { batch, in_flight, value_bytes: 128 }
}

const FIGURES: [Figures; 4] = [
    Figures {
        load: load(1, 1),
        costs: Costs {
            entries: 1.0,
            syncs_leader: 1.0,
            syncs_follower: 1.0,
            blocks: 1.0,
            messages_from_leader: 2.035,
            messages_from_followers: 2.035,
            log_bytes_per_byte: 4.0,
            peer_bytes_per_byte: 7.224,
            allocations_leader: 28.133,
            allocations_follower: 14.107,
        },
    },
    Figures {
        load: load(1, 256),
        costs: Costs {
            entries: 1.0,
            syncs_leader: 1.0,
            syncs_follower: 1.0,
            blocks: 1.0,
            messages_from_leader: 2.035,
            messages_from_followers: 2.035,
            log_bytes_per_byte: 1.719,
            peer_bytes_per_byte: 3.437,
            allocations_leader: 0.181,
            allocations_follower: 0.056,
        },
    },
    Figures {
        load: load(100, 16),
        costs: Costs {
            entries: 1.0,
            syncs_leader: 1.0,
            syncs_follower: 1.0,
            blocks: 1.0,
            messages_from_leader: 2.049,
            messages_from_followers: 2.049,
            log_bytes_per_byte: 1.0325,
            peer_bytes_per_byte: 2.063,
            allocations_leader: 2.155,
            allocations_follower: 0.901,
        },
    },
    Figures {
        load: load(1000, 4),
        costs: Costs {
            entries: 1.0,
            syncs_leader: 1.0,
            syncs_follower: 1.0,
            blocks: 1.0,
            messages_from_leader: 2.05,
            messages_from_followers: 2.05,
            log_bytes_per_byte: 1.025,
            peer_bytes_per_byte: 2.0492,
            allocations_leader: 7.188,
            allocations_follower: 3.700,
        },
    },
];

#[test]
fn a_commit_costs_what_it_did() {
    let mut wrong = Vec::new();
    for Figures { load, costs } in &FIGURES {
        let found = measure(*load);
        println!("{load:?}\n{found:#?}");
        for ((name, known), (_, found)) in costs.each().into_iter().zip(found.each()) {
            let at = format!("{} x {}: {name}", load.batch, load.in_flight);
            if found > known * (1.0 + TOLERANCE) {
                wrong.push(format!("{at} is worse: {found:.3} instead of {known:.3}"));
            } else if found < known * (1.0 - TOLERANCE) {
                wrong.push(format!(
                    "{at} is better: lower the figure in tests/costs/main.rs from {known:.3} to {found:.3}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_same_load_costs_the_same_again() {
    assert_eq!(measure(load(1, 16)), measure(load(1, 16)));
}

#[test]
fn the_costs_of_a_cycle_do_not_grow_with_the_log() {
    // Twice as many cycles before it is looked at: what is kept about the past must not be paid for in each.
    let (early, late) = (measure(load(4, 8)), closed_loop::measure_after(load(4, 8), 2000));
    for ((name, early), (_, late)) in early.each().into_iter().zip(late.each()) {
        assert!((late - early).abs() <= early * 0.05, "{name}: {early:.3} at first, {late:.3} later");
    }
}
