//! Sessions as the core keeps them: by log time, through its own entries only.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod trio;

use sequor_client::protocol::{
    Alive, Instance, KeepAlive, OpenSession, ProducerId, Refusal, Request, Response,
};

use self::trio::*;

const TTL_MS: u64 = 500;

fn open(trio: &mut Trio) -> ProducerId {
    let open = OpenSession { instance: Instance([5; 16]), ttl_ms: TTL_MS as u32 };
    match trio.call(Request::OpenSession(open)) {
        Response::Opened(producer) => producer.id,
        other => panic!("not opened: {other:?}"),
    }
}

fn keep_alive(trio: &mut Trio, session: ProducerId) -> Response {
    trio.call(Request::KeepAlive(KeepAlive { session }))
}

/// Lets so much time pass, tick by tick.
fn pass(trio: &mut Trio, ms: u64) {
    for _ in 0..ms * 1000 / TICK_US {
        trio.now = trio.now + TICK_US;
        let now = trio.now;
        (1..=3).for_each(|id| trio.core(id).handle_tick(now));
        trio.settle();
    }
}

fn sessions(trio: &mut Trio) -> Vec<usize> {
    (1..=3).map(|id| trio.core(id).state().sessions().len()).collect()
}

#[test]
fn a_session_ends_when_nobody_keeps_it_alive_and_not_before() {
    let mut trio = Trio::with_leader();
    let session = open(&mut trio);
    assert!(matches!(trio.call(append(session, 0, "x")), Response::Appended(_)));
    for _ in 0..10 {
        pass(&mut trio, TTL_MS - 50);
        assert_eq!(keep_alive(&mut trio, session), Response::Alive(Alive { ttl_ms: TTL_MS as u32 }));
    }
    pass(&mut trio, TTL_MS - 20);
    assert_eq!(sessions(&mut trio), [1, 1, 1]);
    pass(&mut trio, 100);
    assert_eq!(sessions(&mut trio), [0, 0, 0]);
    assert_eq!(keep_alive(&mut trio, session), Response::Refused(Refusal::SessionExpired));
    assert_eq!(trio.call(append(session, 0, "x")), Response::Refused(Refusal::SessionExpired));
    assert_eq!(trio.call(append(session, 1, "y")), Response::Refused(Refusal::SessionExpired));
}

#[test]
fn a_keep_alive_that_has_arrived_counts_although_its_session_is_due() {
    let mut trio = Trio::with_leader();
    let session = open(&mut trio);
    trio.now = trio.now + (TTL_MS + 10) * 1000;
    assert_eq!(keep_alive(&mut trio, session), Response::Alive(Alive { ttl_ms: TTL_MS as u32 }));
    assert_eq!(sessions(&mut trio)[0], 1);
}

#[test]
fn a_leader_without_sessions_writes_nothing_as_time_passes() {
    let mut trio = Trio::with_leader();
    pass(&mut trio, 200);
    let before = trio.core(1).status().last_index;
    pass(&mut trio, 5_000);
    assert_eq!(trio.core(1).status().last_index, before);
}

#[test]
fn a_life_that_is_too_short_or_too_long_is_refused_by_its_bounds() {
    let mut trio = Trio::with_leader();
    for found in [0, 499, 3_600_001] {
        let open = OpenSession { instance: Instance([5; 16]), ttl_ms: found };
        let refusal = Refusal::TtlOutOfRange { found, least: 500, most: 3_600_000 };
        assert_eq!(trio.call(Request::OpenSession(open)), Response::Refused(refusal));
    }
}
