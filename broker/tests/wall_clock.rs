//! A wall clock that is set: forward, back, to before 1970. A broker is told what it shows, writes that down for people,
//! and decides nothing by it. So the same run under two clocks is the same run but for what was written down.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod trio;

use sequor_broker::core::{Subscription, effect::Effects};
use sequor_client::protocol::{
    Alive, Instance, KeepAlive, Offset, OpenSession, Refusal, Request, Response, batch::Batch,
};

use self::trio::*;

/// How long a session lives. Milliseconds.
const TTL_MS: u32 = 500;
/// Between two appends: less than a session lives, more than half of it. Milliseconds.
const STEP_MS: u64 = 300;
/// Now, as people count. Milliseconds since 1970.
const TODAY_MS: u64 = 1_800_000_000_000;
/// A day. Milliseconds.
const DAY_MS: u64 = 86_400_000;

/// What can be seen of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    responses: Vec<Response>,
    /// Log time of each entry that was proposed.
    log_times_ms: Vec<u64>,
    /// Offset and timestamp of each record, as a reader gets them.
    records: Vec<(Offset, i64)>,
    /// Sessions at the end, on each broker.
    sessions: Vec<usize>,
}

/// Lets one broker's proposals be on their way, and gives log time and wall time of their entries.
fn proposed(trio: &mut Trio) -> Vec<(u64, u64)> {
    trio.pass(1);
    let to_second = trio.messages.iter().filter(|(_, to, _)| *to == 2);
    let entries = to_second.flat_map(|(_, _, message)| message.raft.entries.iter());
    let envelopes = entries.filter(|entry| !entry.data.is_empty()).map(|entry| {
        let effects = Effects::open(entry.data.clone()).unwrap();
        (effects.envelope.log_time_ms, effects.envelope.wall_ms)
    });
    envelopes.collect()
}

/// A session is opened, used at every step, and then left alone, while the clock shows `walls_ms` one after the other.
/// What could be seen, and the wall times that were written down.
fn run(walls_ms: &[u64]) -> (Seen, Vec<u64>) {
    let mut trio = Trio::with_leader();
    let (mut responses, mut entries) = (Vec::new(), Vec::new());
    let mut step = |trio: &mut Trio, request: Request| {
        trio.ask(request);
        entries.extend(proposed(trio));
        trio.settle();
        responses.push(trio.answer().unwrap().1);
        responses.last().unwrap().clone()
    };
    trio.wall_ms = walls_ms[0];
    let open = Request::OpenSession(OpenSession { instance: Instance([5; 16]), ttl_ms: TTL_MS });
    let Response::Opened(session) = step(&mut trio, open) else { panic!("it is refused") };
    for (number, wall_ms) in (0..).zip(walls_ms) {
        trio.wall_ms = *wall_ms;
        pass(&mut trio, STEP_MS);
        let alive = step(&mut trio, Request::KeepAlive(KeepAlive { session: session.id }));
        assert_eq!(alive, Response::Alive(Alive { ttl_ms: TTL_MS }), "at {wall_ms}");
        step(&mut trio, append(session.id, number, "x"));
    }
    pass(&mut trio, u64::from(TTL_MS) * 2);
    let late = step(&mut trio, append(session.id, 1000, "x"));
    assert_eq!(late, Response::Refused(Refusal::SessionExpired), "no clock makes it live longer");

    let mut subscription = Subscription::new(Offset(0));
    let mut records = Vec::new();
    while let Some(delivery) = trio.core(1).deliver(&mut subscription, 1 << 20).unwrap() {
        for placed in delivery.placed() {
            let placed = placed.unwrap();
            let batch = Batch::parse(placed.batch).unwrap();
            records.extend(
                (placed.offset.0..)
                    .zip(batch.records())
                    .map(|(at, record)| (Offset(at), record.unwrap().timestamp)),
            );
        }
    }
    let sessions = (1..=3).map(|id| trio.core(id).state().sessions().len()).collect();
    let (log_times_ms, walls): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    (Seen { responses, log_times_ms, records, sessions }, walls)
}

/// Lets so much time pass on the monotonic clock.
fn pass(trio: &mut Trio, ms: u64) {
    for _ in 0..ms * 1000 / TICK_US {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        (1..=3).for_each(|id| trio.core(id).handle_tick(now));
        trio.settle();
    }
}

#[test]
fn a_clock_that_is_set_changes_nothing_but_what_is_written_down_of_it() {
    let steady: Vec<_> = (0..6).map(|step| TODAY_MS + step * STEP_MS).collect();
    let set = [TODAY_MS, TODAY_MS - DAY_MS, TODAY_MS + 365 * DAY_MS, 0, u64::MAX, TODAY_MS];
    let (expected, written) = run(&steady);
    let (seen, written_too) = run(&set);
    assert_eq!(seen, expected);
    assert!(seen.log_times_ms.is_sorted(), "log time never falls: {:?}", seen.log_times_ms);
    let passed = seen.log_times_ms.last().unwrap() - seen.log_times_ms[0];
    assert!(passed >= STEP_MS * 6, "log time goes on with the monotonic clock: {passed} ms");
    assert_eq!(seen.records.len(), 6);
    assert!(
        seen.records.iter().all(|(_, timestamp)| *timestamp == 0),
        "a record keeps its producer's: {:?}",
        seen.records
    );

    // What `sequor wal dump` shows to people is what the clock showed.
    for (clock, written) in [(&steady[..], written), (&set, written_too)] {
        let mut shown = written;
        shown.dedup();
        let mut expected = clock.to_vec();
        expected.dedup();
        assert_eq!(shown, expected);
    }
}
