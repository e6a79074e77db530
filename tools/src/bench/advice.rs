//! What to do with the figures: one sentence for each round trip.

use super::outcome::{Outcome, time};
use crate::words::{count, grouped};

/// A batch is large enough when it gives this share of what the best gives. Of a hundred.
const ENOUGH_SHARE: f64 = 90.0;

/// The sentences, one for each cluster and size of records that was measured in a closed loop.
pub(super) fn advice(outcomes: &[Outcome]) -> Vec<String> {
    let mut groups: Vec<Vec<&Outcome>> = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.mode == "closed") {
        let key = |outcome: &Outcome| (outcome.brokers, outcome.rtt_us, outcome.size);
        match groups.iter_mut().find(|group| key(group[0]) == key(outcome)) {
            Some(group) => group.push(outcome),
            None => groups.push(vec![outcome]),
        }
    }
    groups.iter().filter_map(|group| sentence(group)).collect()
}

fn sentence(group: &[&Outcome]) -> Option<String> {
    let one = group.iter().find(|outcome| outcome.batch == 1 && outcome.in_flight == Some(1));
    let best = group.iter().max_by(|one, other| one.records_per_s.total_cmp(&other.records_per_s))?;
    // The smallest batch, and of these the fewest in flight, that is nearly as good.
    let enough = |outcome: &&&Outcome| outcome.records_per_s >= best.records_per_s * ENOUGH_SHARE / 100.0;
    let chosen = group.iter().filter(enough).min_by_key(|outcome| (outcome.batch, outcome.in_flight))?;
    let way = match best.rtt_us {
        0 => "on this machine".to_owned(),
        rtt => format!("at a round trip of {}", time(rtt)),
    };
    let give = format!(
        "batches of {}, {} in flight, give {}/s at p99 {}",
        grouped(chosen.batch),
        chosen.in_flight.unwrap_or(0),
        grouped(chosen.records_per_s as u64),
        time(chosen.latency.p99_us)
    );
    Some(match one {
        Some(one) => format!(
            "With {} {way} and records of {} bytes, one by one tops out at {}/s; {give}.",
            count(one.brokers, "broker"),
            one.size,
            grouped(one.records_per_s as u64)
        ),
        None => format!(
            "With {} {way} and records of {} bytes, {give}.",
            count(best.brokers, "broker"),
            best.size
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::example, *};

    #[test]
    fn the_smallest_batch_that_is_nearly_as_good_is_advised() {
        let outcomes = [example(1, 1, 2000.0), example(64, 16, 190_000.0), example(1024, 16, 200_000.0)];
        let told = advice(&outcomes);
        let expected = "With 3 brokers on this machine and records of 256 bytes, one by one tops out at 2,000/s; batches \
                        of 64, 16 in flight, give 190,000/s at p99 1.24 ms.";
        assert_eq!(told, [expected]);
    }

    #[test]
    fn each_round_trip_has_its_own_sentence_and_an_open_loop_has_none() {
        let far = Outcome { rtt_us: 5000, ..example(64, 16, 9000.0) };
        let open = Outcome { mode: "open", in_flight: None, rate: Some(5), ..example(64, 16, 9e9) };
        let told = advice(&[example(1, 1, 2000.0), far, open]);
        assert_eq!(told.len(), 2);
        assert!(
            told[1].contains("at a round trip of 5.00 ms and records of 256 bytes, batches of 64"),
            "{told:?}"
        );
    }
}
