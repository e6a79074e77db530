//! The whole cluster under attack, many times over. A failure prints the seed that shows it; paste it into
//! `one_seed` to follow it.

use std::time::Instant;

use sequor_broker::sim::{Profile, Summary, run};

const SEEDS: u64 = 200;

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
    for seed in 0..SEEDS {
        let summary = must_hold(seed, Profile::Swarm);
        total.acknowledged += summary.acknowledged;
        total.delivered += summary.delivered;
        total.duplicates += summary.duplicates;
        total.elections += summary.elections;
        total.deaths += summary.deaths;
        total.events += summary.events;
    }
    eprintln!("{SEEDS} seeds in {:.1} s: {total:?}", begun.elapsed().as_secs_f64());
    assert!(total.deaths > SEEDS && total.elections > SEEDS && total.duplicates > SEEDS, "{total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1000..1005 {
        assert_eq!(must_hold(seed, Profile::Swarm), must_hold(seed, Profile::Swarm), "seed {seed}");
    }
}
