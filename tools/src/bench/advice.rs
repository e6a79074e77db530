//! What to do with the figures, one sentence for each round trip; and which of them are doubtful, and why.

use super::{
    load::GRACE,
    outcome::{Outcome, time},
};
use crate::words::{count, grouped};

/// A batch is large enough when it gives this share of what the best gives. Of a hundred.
const ENOUGH_SHARE: f64 = 90.0;
/// An open loop that gets less than this of its rate is beyond what the cluster does. Of a hundred.
const ACHIEVED_SHARE: f64 = 99.0;
/// Requests that are on their way at the ends of the window: so many less are none that is missing.
const EDGE_REQUESTS: f64 = 1.0;

/// With fewer requests than this the slowest of a thousand is no more than the slowest of all.
const REQUESTS_OF_P999: u64 = 1000;

/// All that speaks against a measurement.
pub(super) fn doubts(outcome: &Outcome) -> Vec<String> {
    let asked = outcome.asked();
    let elections = outcome.costs.elections.filter(|elections| *elections > 0);
    let elections = elections.map(|elections| {
        format!("{asked}: {} meanwhile: this is no steady load", count(elections, "election"))
    });
    let overflowed = (outcome.relay_overflowed > 0).then(|| {
        let dropped = count(outcome.relay_overflowed, "datagram");
        format!(
            "{asked}: the relay dropped {dropped}, which the network that it stands for would not have lost"
        )
    });
    let few = (1..REQUESTS_OF_P999).contains(&outcome.requests).then(|| {
        let requests = count(outcome.requests, "request");
        format!("{asked}: {requests} are too few for a p99.9; measure for longer (--seconds)")
    });
    doubt(outcome).into_iter().chain(elections).chain(overflowed).chain(few).collect()
}

/// Why a measurement is not what it was meant to be, if it is not.
pub(super) fn doubt(outcome: &Outcome) -> Option<String> {
    let (asked, seconds) = (outcome.asked(), outcome.seconds);
    let meant = outcome.rate.map(|rate| rate as f64 * seconds / outcome.batch as f64);
    let why = rate_doubt(meant, outcome.requests, outcome.unsent_requests.unwrap_or(0));
    if outcome.requests == 0 && why.is_none() {
        return Some(format!(
            "{asked}: no request was answered in the {seconds} s; measure for longer (--seconds)"
        ));
    }
    Some(format!("{asked}: {}", why?))
}

/// What is to be said of an open loop in whose window so many requests were `meant` to leave, and so many were answered.
pub(super) fn rate_doubt(meant: Option<f64>, answered: u64, unsent: u64) -> Option<String> {
    let meant = meant?;
    let is_achieved = answered as f64 + EDGE_REQUESTS >= meant * ACHIEVED_SHARE / 100.0;
    if is_achieved && unsent == 0 {
        return None;
    }
    let mut doubt = format!(
        "only {:.1} % of the rate was acknowledged in the window: the latencies are those of an overload",
        100.0 * answered as f64 / meant
    );
    if unsent > 0 {
        doubt.push_str(&format!(
            "; {} meant to leave in it had not left {} s after it, and count as later than any other",
            count(unsent, "request"),
            GRACE.as_secs()
        ));
    }
    Some(doubt)
}

/// The sentences, one for each cluster and size of records that was measured in a closed loop.
pub(super) fn advice(outcomes: &[Outcome]) -> Vec<String> {
    let mut groups: Vec<Vec<&Outcome>> = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.mode == "closed" && outcome.requests > 0) {
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
    // Only what was answered is here.
    let records_per_s = |outcome: &Outcome| outcome.records_per_s.unwrap_or(0.0);
    let best = group.iter().max_by(|one, other| records_per_s(one).total_cmp(&records_per_s(other)))?;
    // The smallest batch, and of these the fewest in flight, that is nearly as good.
    let enough = |outcome: &&&Outcome| records_per_s(outcome) >= records_per_s(best) * ENOUGH_SHARE / 100.0;
    let chosen = group.iter().filter(enough).min_by_key(|outcome| (outcome.batch, outcome.in_flight))?;
    let way = match best.rtt_us {
        None => "in the cluster of the context".to_owned(),
        Some(0) => "on this machine".to_owned(),
        Some(rtt) => format!("at a round trip of {}", time(rtt)),
    };
    let give = format!(
        "batches of {}, {} in flight, give {}/s at p99 {}",
        grouped(chosen.batch),
        chosen.in_flight.unwrap_or(0),
        grouped(records_per_s(chosen) as u64),
        chosen.late(chosen.latency.p99_us)
    );
    Some(match one {
        Some(one) => format!(
            "With {} {way} and records of {} bytes, one by one tops out at {}/s; {give}.",
            count(one.brokers, "broker"),
            one.size,
            grouped(records_per_s(one) as u64)
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
    use super::{
        super::{gauges::Costs, outcome::example},
        *,
    };

    #[test]
    fn the_smallest_batch_that_is_nearly_as_good_is_advised() {
        let outcomes = [example(1, 1, 2000.0), example(64, 16, 190_000.0), example(1024, 16, 200_000.0)];
        let told = advice(&outcomes);
        let expected = "With 3 brokers on this machine and records of 256 bytes, one by one tops out at 2,000/s; batches \
                        of 64, 16 in flight, give 190,000/s at p99 1.24 ms.";
        assert_eq!(told, [expected]);
    }

    #[test]
    fn an_open_loop_that_falls_behind_is_doubtful() {
        let open = |requests, unsent| Outcome {
            mode: "open",
            in_flight: None,
            rate: Some(1000),
            requests,
            unsent_requests: Some(unsent),
            ..example(10, 1, 0.0)
        };
        // 1,000 a second in tens, for 3 s: 300 requests.
        assert_eq!([300, 297, 296].map(|requests| doubt(&open(requests, 0))), [None, None, None]);
        let behind = doubt(&open(225, 0)).unwrap();
        assert!(
            behind.starts_with("batch 10 of 256 bytes, 1,000 records/s: only 75.0 % of the rate"),
            "{behind}"
        );
        let unsent = doubt(&open(225, 40)).unwrap();
        assert!(unsent.contains("40 requests meant to leave in it had not left 5 s after it"), "{unsent}");
    }

    #[test]
    fn a_window_without_an_answer_is_said_and_advises_nothing() {
        let silent = Outcome { requests: 0, records_per_s: None, ..example(1024, 4096, 0.0) };
        assert!(doubt(&silent).unwrap().contains("no request was answered in the 3 s"));
        assert!(advice(&[silent]).is_empty());
        assert_eq!(doubt(&example(1, 1, 2000.0)), None);
    }

    #[test]
    fn what_disturbed_a_window_is_said() {
        let steady = Outcome { requests: 5000, ..example(1, 1, 2000.0) };
        assert!(doubts(&steady).is_empty(), "{:?}", doubts(&steady));
        let costs = Costs { elections: Some(1), ..Costs::default() };
        let disturbed = Outcome { costs, relay_overflowed: 2, requests: 30, ..steady };
        let told = doubts(&disturbed).join("\n");
        for part in
            ["1 election meanwhile", "the relay dropped 2 datagrams", "30 requests are too few for a p99.9"]
        {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn each_round_trip_has_its_own_sentence_and_an_open_loop_has_none() {
        let far = Outcome { rtt_us: Some(5000), ..example(64, 16, 9000.0) };
        let open = Outcome { mode: "open", in_flight: None, rate: Some(5), ..example(64, 16, 9e9) };
        let others = Outcome { rtt_us: None, ..example(64, 16, 9000.0) };
        assert!(advice(&[others])[0].starts_with("With 3 brokers in the cluster of the context and records"));
        let told = advice(&[example(1, 1, 2000.0), far, open]);
        assert_eq!(told.len(), 2);
        assert!(
            told[1].contains("at a round trip of 5.00 ms and records of 256 bytes, batches of 64"),
            "{told:?}"
        );
    }
}
