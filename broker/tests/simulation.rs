//! The whole cluster under attack, many times over. A failure prints the seed that shows it, and the fewest of its faults
//! that still do.
//!
//! `SEQUOR_SEEDS=17..18` runs that one alone, `SEQUOR_SEEDS=0..20000` (better with `--release`) is a long night's work.

use std::ops::Range;
use std::time::Instant;

use sequor_broker::sim::{Profile, Summary, run, shrink};

const SEEDS: Range<u64> = 0..300;
/// So many seeds must together have reached every state that is expected.
const SEEDS_THAT_REACH_ALL: u64 = 300;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SEQUOR_SEEDS") else { return SEEDS };
    let (first, end) = text.split_once("..").expect("SEQUOR_SEEDS is FIRST..END");
    first.parse().expect("FIRST is a number")..end.parse().expect("END is a number")
}

fn must_hold(seed: u64, profile: Profile) -> Summary {
    run(seed, profile).unwrap_or_else(|violation| {
        eprintln!("seed {seed} ({profile:?}): {violation}; looking for the fewest faults that show it");
        let Ok((script, still)) = shrink(seed, profile) else {
            panic!("seed {seed} fails only now and then")
        };
        let lines: Vec<String> = script.lines().collect();
        panic!("seed {seed} ({profile:?}): {violation}\n{}\nbreaks: {still}", lines.join("\n"));
    })
}

#[test]
fn a_quiet_world_comes_to_rest_at_once() {
    let summary = must_hold(1, Profile::Quiet);
    let often = |what| summary.reached.iter().find(|(name, _)| *name == what).map_or(0, |(_, often)| often);
    assert_eq!(often("elected"), 1, "nobody has a reason to elect again");
    assert_eq!(summary.duplicates, 0, "nobody has a reason to resend");
    assert!(summary.acknowledged > 500, "{summary:?}");
}

#[test]
fn many_seeds() {
    let begun = Instant::now();
    let mut total = Summary::default();
    let seeds = seeds();
    for seed in seeds.clone() {
        total.add(&must_hold(seed, Profile::Swarm));
    }
    let count = seeds.end - seeds.start;
    eprintln!(
        "{count} seeds in {:.1} s: {} events, {} batches acknowledged, {} records delivered, {:.0} s simulated",
        begun.elapsed().as_secs_f64(),
        total.events,
        total.acknowledged,
        total.delivered,
        total.rest_us as f64 / 1e6
    );
    total.reached.iter().for_each(|(what, often)| eprintln!("{often:>10}  {what}"));
    if count >= SEEDS_THAT_REACH_ALL {
        let missing: Vec<_> = total.reached.missing(Profile::Swarm).collect();
        assert!(missing.is_empty(), "never reached: {missing:?}");
        assert!(total.acknowledged > 500 * count, "the clients get too little done: {total:?}");
        assert!(total.rest_us > 60_000_000 * count, "the runs are too short: {total:?}");
    }
}

#[test]
fn files_that_are_lost_or_put_back_are_noticed_or_do_no_harm() {
    let mut total = Summary::default();
    (0..20).for_each(|seed| total.add(&must_hold(seed, Profile::Loss)));
    for outcome in ["no start: ", "stopped: ", "nobody knows: ", "nothing lost: "] {
        let met = total.reached.iter().any(|(what, _)| what.starts_with(outcome));
        assert!(met, "never met \"{outcome}\": {total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1000..1020 {
        assert_eq!(must_hold(seed, Profile::Swarm), must_hold(seed, Profile::Swarm), "seed {seed}");
        assert_eq!(must_hold(seed, Profile::Loss), must_hold(seed, Profile::Loss), "seed {seed}");
    }
}
