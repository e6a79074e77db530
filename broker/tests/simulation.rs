//! The whole cluster under attack, many times over. A failure prints the seed that shows it.
//!
//! `SEQUOR_SEEDS=17..18` runs that one alone, `SEQUOR_SEEDS=0..20000` (better with `--release`) is a long night's work.

use std::ops::Range;
use std::time::Instant;

use sequor_broker::sim::{Profile, Summary, run};

const SEEDS: Range<u64> = 0..200;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SEQUOR_SEEDS") else { return SEEDS };
    let (first, end) = text.split_once("..").expect("SEQUOR_SEEDS is FIRST..END");
    first.parse().expect("FIRST is a number")..end.parse().expect("END is a number")
}

fn must_hold(seed: u64, profile: Profile) -> Summary {
    match run(seed, profile) {
        Ok(summary) => summary,
        Err(violation) => panic!("seed {seed} ({profile:?}): {violation}"),
    }
}

#[test]
fn a_quiet_world_comes_to_rest_at_once() {
    let summary = must_hold(1, Profile::Quiet);
    assert_eq!(summary.elections, 1, "nobody has a reason to elect again");
    assert_eq!(summary.duplicates, 0, "nobody has a reason to resend");
    assert!(summary.acknowledged > 500, "{summary:?}");
}

#[test]
fn many_seeds() {
    let begun = Instant::now();
    let mut total = Summary::default();
    let seeds = seeds();
    for seed in seeds.clone() {
        let summary = must_hold(seed, Profile::Swarm);
        total.acknowledged += summary.acknowledged;
        total.delivered += summary.delivered;
        total.duplicates += summary.duplicates;
        total.elections += summary.elections;
        total.deaths += summary.deaths;
        total.events += summary.events;
    }
    let count = seeds.end - seeds.start;
    eprintln!("{count} seeds in {:.1} s: {total:?}", begun.elapsed().as_secs_f64());
    if count >= 100 {
        let reached = [total.deaths, total.elections, total.duplicates];
        assert!(reached.iter().all(|often| *often > count), "the faults do not bite: {total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1000..1005 {
        assert_eq!(must_hold(seed, Profile::Swarm), must_hold(seed, Profile::Swarm), "seed {seed}");
    }
}
