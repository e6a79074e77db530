//! What the routing does when brokers are silent, gone, or say who leads.

use rand::SeedableRng;

use super::*;

fn routing() -> Routing {
    let member = |id| Member { id: BrokerId(id), address: format!("broker-{id}:1") };
    let backoff = Backoff { min: Duration::from_millis(10), max: Duration::from_millis(500) };
    let rng = ChaCha8Rng::seed_from_u64(7);
    Routing::new(&[member(1), member(2), member(3)], backoff, Duration::from_secs(1), rng)
}

/// Runs until there is a route, answering each wish for a connection by `up`.
fn settle(routing: &mut Routing, now: &mut Time, leader: Option<BrokerId>) -> Route {
    loop {
        let mut out = Vec::new();
        if let Some(route) = routing.route(*now, &mut out) {
            return route;
        }
        for transmit in out {
            let Transmit::Connect { broker, .. } = transmit else { panic!("{transmit:?}") };
            routing.connected(*now, broker, &[], leader);
        }
        *now = (*now).max(routing.wake(*now, &[]).min(Time(now.0 + 1_000)));
    }
}

#[test]
fn it_finds_the_leader_that_a_hello_names() {
    let mut routing = routing();
    assert_eq!(settle(&mut routing, &mut Time(0), Some(BrokerId(3))).broker, BrokerId(3));
}

#[test]
fn only_the_first_refusal_of_a_turn_counts() {
    let (mut routing, mut now) = (routing(), Time(0));
    let route = settle(&mut routing, &mut now, None);
    let leader = BrokerId(route.broker.0 % 3 + 1);
    routing.turn_away(now, route.turn, Some(leader));
    let turned = settle(&mut routing, &mut now, None);
    assert_eq!(turned.broker, leader);
    routing.turn_away(now, route.turn, None);
    assert_eq!(routing.turn(), turned.turn);
}

#[test]
fn without_a_leader_it_never_runs_hot() {
    let (mut routing, mut now) = (routing(), Time(0));
    let mut turns = 0;
    while now < Time(10_000_000) {
        let route = settle(&mut routing, &mut now, None);
        routing.turn_away(now, route.turn, None);
        turns += 1;
    }
    assert!((20..80).contains(&turns), "{turns} turns in 10 s with a pause of at most 500 ms");
}

#[test]
fn a_broker_that_breaks_every_connection_is_not_tried_hot() {
    let (mut routing, mut now) = (routing(), Time(0));
    let mut tries = 0;
    while now < Time(10_000_000) {
        let mut out = Vec::new();
        assert_eq!(routing.route(now, &mut out), None);
        if out.is_empty() {
            now = routing.wake(now, &[]);
        }
        for transmit in out {
            let Transmit::Connect { broker, .. } = transmit else { panic!("{transmit:?}") };
            routing.disconnected(now, broker);
            tries += 1;
        }
    }
    assert!((20..120).contains(&tries), "{tries} tries in 10 s");
}

#[test]
fn a_silent_broker_is_not_believed_to_lead_because_others_say_so() {
    let (mut routing, mut now) = (routing(), Time(0));
    let silent = settle(&mut routing, &mut now, None);
    routing.too_slow(now, silent.turn);
    for _ in 0..5 {
        let route = settle(&mut routing, &mut now, Some(silent.broker));
        assert_ne!(route.broker, silent.broker);
        routing.turn_away(now, route.turn, Some(silent.broker));
    }
    routing.heard(silent.broker);
    let route = settle(&mut routing, &mut now, None);
    routing.turn_away(now, route.turn, Some(silent.broker));
    assert_eq!(settle(&mut routing, &mut now, None).broker, silent.broker);
}

#[test]
fn a_broker_that_does_not_answer_keeps_nobody_from_the_others() {
    let (mut routing, mut now) = (routing(), Time(0));
    let mut out = Vec::new();
    assert_eq!(routing.route(now, &mut out), None);
    let Some(Transmit::Connect { broker: dead, .. }) = out.pop() else { panic!("it wants to connect") };
    now = routing.wake(now, &[]);
    assert_eq!(routing.overdue(now), []);
    assert_ne!(settle(&mut routing, &mut now, None).broker, dead);
    assert!(now < Time(500_000), "{now:?}");
}

#[test]
fn far_away_brokers_are_given_more_time() {
    let mut routing = routing();
    let least = Duration::from_millis(300);
    (0..50).for_each(|_| routing.took(Duration::from_millis(2)));
    assert_eq!(routing.patience(least), least);
    (0..50).for_each(|_| routing.took(Duration::from_millis(400)));
    assert!(routing.patience(least) > Duration::from_millis(1_500));
}

#[test]
fn what_is_said_of_a_higher_term_ends_every_pause() {
    let (mut routing, mut now) = (routing(), Time(0));
    for _ in 0..10 {
        let route = settle(&mut routing, &mut now, None);
        routing.too_slow(now, route.turn);
    }
    assert_eq!(routing.route(now, &mut Vec::new()), None, "it pauses");
    for leader in [1, 2, 3].map(BrokerId) {
        let term = 10 + leader.0;
        // Those that let us wait are given up, and dialled anew.
        let _stale = routing.told(now, leader, Leads { term, leader });
        assert_eq!(settle(&mut routing, &mut now, None).broker, leader);
        let least = Duration::from_millis(300);
        assert_eq!(routing.patience(least), least, "the answers of others say nothing of this one's");
        assert!(!routing.told(now, leader, Leads { term, leader: BrokerId(leader.0 % 3 + 1) }));
        assert_eq!(routing.target, leader, "nobody else leads the same term");
    }
    assert!(!routing.told(now, BrokerId(9), Leads { term: 100, leader: BrokerId(9) }));
    assert_eq!(routing.target, BrokerId(3), "a broker that is not known cannot be turned to");
}

#[test]
fn at_work_it_is_connected_to_all_brokers() {
    let (mut routing, mut now) = (routing(), Time(0));
    let route = settle(&mut routing, &mut now, None);
    let mut out = Vec::new();
    routing.stand_by(now, &mut out);
    assert_eq!(out, [], "who has not begun to work needs no others");
    routing.succeeded(route.broker);
    routing.stand_by(now, &mut out);
    assert_eq!(out, [], "nor does who is done soon");
    now = routing.wake(now, &[]);
    routing.stand_by(now, &mut out);
    assert_eq!(out.len(), 2, "{out:?}");
}

#[test]
fn who_was_elected_is_dialled_anew_where_a_dial_hangs() {
    let (mut routing, mut now) = (routing(), Time(0));
    let route = settle(&mut routing, &mut now, None);
    routing.succeeded(route.broker);
    let mut out = Vec::new();
    for _ in 0..2 {
        routing.stand_by(now, &mut out);
        now = now.after(STAND_BY_AFTER);
    }
    assert_eq!(out.len(), 2, "both others are being dialled, and neither has answered: {out:?}");
    let leader = BrokerId(route.broker.0 % 3 + 1);
    assert!(!routing.told(now, leader, Leads { term: 7, leader }));
    out.clear();
    assert_eq!(routing.route(now, &mut out), None);
    assert!(matches!(out[..], [Transmit::Connect { broker, .. }] if broker == leader), "{out:?}");
}

#[test]
fn a_leader_that_was_left_without_a_word_is_dialled_anew_when_it_is_elected_again() {
    let (mut routing, mut now) = (routing(), Time(0));
    let first = settle(&mut routing, &mut now, None).broker;
    routing.succeeded(first);
    let second = BrokerId(first.0 % 3 + 1);
    let third = BrokerId(second.0 % 3 + 1);
    let leads = |term, leader| Leads { term, leader };
    assert!(!routing.told(now, third, leads(2, second)), "there was no connection");
    assert_eq!(settle(&mut routing, &mut now, Some(second)).broker, second);
    assert!(!routing.told(now, third, leads(2, first)), "that is no news");
    let turn = routing.turn();
    assert!(routing.told(now, third, leads(3, first)), "it had not said itself that it leads no more");
    assert!(routing.turn() > turn, "what was sent there is sent again");
    let mut out = Vec::new();
    assert_eq!(routing.route(now, &mut out), None);
    assert!(matches!(out[..], [Transmit::Connect { broker, .. }] if broker == first), "{out:?}");
    routing.connected(now, first, &[], Some(first));

    assert!(routing.told(now, third, leads(4, second)), "nor had the second");
    assert_eq!(settle(&mut routing, &mut now, Some(second)).broker, second);
    routing.heard(first);
    assert!(!routing.told(now, third, leads(5, first)), "now it has said something");
    assert!(!routing.told(now, first, leads(6, third)), "there was no connection");
    assert_eq!(settle(&mut routing, &mut now, Some(third)).broker, third);
    assert!(!routing.told(now, third, leads(7, first)), "the first had said itself who leads");

    let turn = routing.turn();
    routing.too_slow(now, turn);
    assert!(routing.told(now, third, leads(8, first)), "it let us wait");
}

#[test]
fn a_broker_that_is_back_within_seconds_is_soon_found() {
    let (mut routing, mut now) = (routing(), Time(0));
    let route = settle(&mut routing, &mut now, None);
    routing.succeeded(route.broker);
    for restart in 1..=10_u64 {
        let back = Time(restart * 5_000_000);
        loop {
            let mut out = Vec::new();
            routing.stand_by(now, &mut out);
            for transmit in out {
                let Transmit::Connect { broker, .. } = transmit else { panic!("{transmit:?}") };
                match now < back {
                    true => routing.disconnected(now, broker),
                    false => _ = routing.connected(now, broker, &[], None),
                }
            }
            if routing.brokers.values().all(|broker| broker.link == Link::Up)
                || now > back.after(Duration::from_secs(1))
            {
                break;
            }
            now = routing.wake(now, &[]);
        }
        assert!(now < back.after(Duration::from_millis(600)), "restart {restart}: {now:?}");
        for broker in [1, 2, 3].map(BrokerId).into_iter().filter(|id| *id != route.broker) {
            routing.disconnected(now, broker);
        }
    }
}

#[test]
fn a_dead_broker_that_nobody_needs_is_seldom_tried() {
    let (mut routing, mut now) = (routing(), Time(0));
    let route = settle(&mut routing, &mut now, None);
    routing.succeeded(route.broker);
    let mut tries = 0;
    while now < Time(60_000_000) {
        let mut out = Vec::new();
        routing.stand_by(now, &mut out);
        for transmit in out {
            let Transmit::Connect { broker, .. } = transmit else { panic!("{transmit:?}") };
            routing.disconnected(now, broker);
            tries += 1;
        }
        now = routing.wake(now, &[]);
    }
    assert!((80..110).contains(&tries), "two brokers were tried {tries} times in a minute");
}

#[test]
fn success_makes_the_next_turns_free_again() {
    let (mut routing, mut now) = (routing(), Time(0));
    for _ in 0..10 {
        let route = settle(&mut routing, &mut now, None);
        routing.turn_away(now, route.turn, None);
    }
    let route = settle(&mut routing, &mut now, None);
    routing.succeeded(route.broker);
    routing.turn_away(now, route.turn, None);
    assert!(routing.route(now, &mut Vec::new()).is_some(), "the turn after a success waits for nothing");
}
