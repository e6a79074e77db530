//! Whole sessions against a small model of a cluster, over a network that loses, delays, repeats and reorders.
//!
//! The model knows nothing of Raft: it is one list of batches, and at most one of three brokers leads at a time. What
//! it does have is every way in which an answer can fail to come. The judge compares what sessions were told with that
//! list.

mod greeting;
mod model;

use std::time::Duration;

use model::{Outcome, World};
use proptest::prelude::*;
use sequor_client::core::{Failure, Numbers};
use sequor_client::protocol::Refusal;

fn numbers() -> impl Strategy<Value = Numbers> {
    prop_oneof![Just(Numbers::Own), Just(Numbers::Meaningful)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Through three seconds of storm and then calm weather: every batch is acknowledged, once, at its place, and a
    /// tail sees exactly the log.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(seed: u64, numbers in numbers()) {
        let mut world = World::new(seed);
        world.storm_until(3_000);
        let writer = world.client();
        world.write(writer, "one", numbers, 80, Duration::from_secs(60));
        let reader = world.client();
        world.tail(reader, 0);
        world.run_until(40_000);

        let outcomes = world.outcomes(writer);
        prop_assert_eq!(outcomes.len(), 80);
        for outcome in outcomes {
            let Outcome::Acked { .. } = outcome else { panic!("{outcome:?}") };
        }
        world.judge();
        prop_assert_eq!(world.tailed(reader), world.log());
    }

    /// Deadlines pass in the storm: what failed is not there, what is unknown may be, and nothing else is.
    #[test]
    fn every_outcome_is_true(seed: u64, numbers in numbers()) {
        let mut world = World::new(seed);
        world.storm_until(8_000);
        let writer = world.client();
        world.write(writer, "one", numbers, 200, Duration::from_millis(900));
        world.run_until(30_000);
        world.judge();
    }

    /// Another client takes the name half way: from then on the first one writes nothing, and is told so.
    #[test]
    fn a_fenced_producer_writes_nothing_more(seed: u64, numbers in numbers()) {
        let mut world = World::new(seed);
        world.storm_until(4_000);
        let old = world.client();
        world.write(old, "one", numbers, 400, Duration::from_secs(30));
        world.run_until_open(old);
        let new = world.client();
        world.write(new, "one", numbers, 20, Duration::from_secs(30));
        world.run_until(40_000);
        world.judge();
        for outcome in world.outcomes(new) {
            let Outcome::Acked { .. } = outcome else { panic!("{outcome:?}") };
        }
        for outcome in world.outcomes(old) {
            let told = match &outcome {
                Outcome::Acked { .. } | Outcome::Known | Outcome::Unknown | Outcome::Failed(Failure::Abandoned) => true,
                Outcome::Failed(Failure::Refused(why)) => {
                    matches!(why, Refusal::Fenced { .. } | Refusal::SequenceReused { .. } | Refusal::PartlyCommitted { .. } | Refusal::AlreadyCommitted { .. })
                }
                _ => false,
            };
            prop_assert!(told, "{:?}", outcome);
        }
    }

    /// The same seed gives the same run, to the microsecond.
    #[test]
    fn the_seed_decides_everything(seed: u64) {
        let run = || {
            let mut world = World::new(seed);
            world.storm_until(2_000);
            let writer = world.client();
            world.write(writer, "one", Numbers::Own, 40, Duration::from_secs(5));
            world.run_until(8_000);
            (world.outcomes(writer), world.trace())
        };
        prop_assert_eq!(run(), run());
    }
}
