//! The simulated cluster, as the tests of a user have it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use sequor_broker::testing::{ClusterError, SimulatedCluster, Simulation, Weather, simulate};
use sequor_client::{
    AppendError, Client, Producer, Record,
    protocol::{BrokerId, Offset, Role},
};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Seeds of what may go wrong at any moment. Count.
const SEEDS: u64 = 20;

async fn connect(cluster: &SimulatedCluster) -> Client {
    Client::connect(&cluster.client_config()).await.unwrap()
}

async fn open(client: &Client) -> Producer {
    client.producer("p").open().await.unwrap()
}

async fn append(producer: &Producer, value: impl Into<String>) -> u64 {
    producer.append(Record::new(value.into())).await.unwrap().await.unwrap().first_offset.0
}

/// The whole log: each value and its timestamp.
async fn read(client: &Client) -> Vec<(String, i64)> {
    let end = client.end().await.unwrap().end;
    let mut tail = client.tail(Offset(0)).await.unwrap();
    let mut records = Vec::new();
    while tail.position() < end {
        let record = tail.next().await.unwrap().record;
        records.push((String::from_utf8(record.value.unwrap().to_vec()).unwrap(), record.timestamp));
    }
    records
}

async fn values(client: &Client) -> Vec<String> {
    read(client).await.into_iter().map(|(value, _)| value).collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("record {number}")).collect()
}

/// Appends one after the other.
async fn append_all(producer: &Producer, values: Vec<String>) {
    for value in values {
        append(producer, value).await;
    }
}

/// Waits until all brokers have the log up to `end`.
async fn everywhere(cluster: &SimulatedCluster, end: u64) {
    let brokers = cluster.brokers().len();
    let all = cluster.wait_until("all brokers to have the log", |statuses| {
        statuses.values().filter(|status| status.end == Offset(end)).count() == brokers
    });
    all.await.unwrap();
}

async fn written(cluster: &SimulatedCluster, count: u64) {
    let some = cluster.wait_until("some records to be written", |statuses| {
        statuses.values().any(|status| status.end >= Offset(count))
    });
    some.await.unwrap();
}

#[test]
fn a_leader_that_dies_in_the_middle_loses_and_doubles_nothing() {
    for seed in 0..SEEDS {
        simulate(seed, 3, |cluster| async move {
            let client = connect(&cluster).await;
            let producer = open(&client).await;
            let death = async {
                written(&cluster, 30).await;
                let dead = cluster.kill_leader().await.unwrap();
                assert_eq!(cluster.status(dead), None);
                dead
            };
            let (dead, ()) = tokio::join!(death, append_all(&producer, numbered(100)));
            assert_ne!(cluster.leader().await.unwrap(), dead);
            cluster.restart(dead).unwrap();
            everywhere(&cluster, 100).await;
            assert_eq!(values(&client).await, numbered(100), "seed {seed}");
        });
    }
}

#[test]
fn power_cuts_of_all_brokers_lose_nothing_that_was_acknowledged() {
    for seed in 0..SEEDS {
        simulate(seed, 3, |cluster| async move {
            let client = connect(&cluster).await;
            let producer = open(&client).await;
            let cuts = async {
                for round in 1..=3 {
                    written(&cluster, round * 20).await;
                    for id in cluster.brokers() {
                        cluster.cut_power(id).unwrap();
                    }
                    sleep(SECOND).await;
                    for id in cluster.brokers() {
                        cluster.restart(id).unwrap();
                    }
                }
            };
            tokio::join!(cuts, append_all(&producer, numbered(100)));
            everywhere(&cluster, 100).await;
            assert_eq!(values(&client).await, numbered(100), "seed {seed}");
        });
    }
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_catches_up() {
    simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        let leader = cluster.leader().await.unwrap();
        cluster.partition(&[leader]).unwrap();
        assert_eq!(append(&producer, "b").await, 1);
        assert_ne!(cluster.leader().await.unwrap(), leader);
        assert_eq!(cluster.status(leader).unwrap().end, Offset(1), "it hears of nothing");
        cluster.heal();
        everywhere(&cluster, 2).await;
        assert_eq!(values(&client).await, ["a", "b"]);
    });
}

#[test]
fn an_idle_day_passes() {
    let elapsed = simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "morning").await;
        let before = cluster.status(cluster.leader().await.unwrap()).unwrap();
        sleep(DAY).await;
        let after = cluster.status(before.id).unwrap();
        assert_eq!((after.role, after.term), (Role::Leader, before.term), "nobody had a reason to elect");
        append(&producer, "evening").await;
        let records = read(&client).await;
        let waited = Duration::from_millis((records[1].1 - records[0].1).try_into().unwrap());
        assert!(waited >= DAY && waited < DAY + SECOND, "timestamps are virtual, too: {records:?}");
        cluster.elapsed()
    });
    assert!(elapsed >= DAY && elapsed < DAY + 10 * SECOND, "{elapsed:?}");
}

/// Spells are left out whenever the program sleeps, however short: what brokers make up for after each of them must not add
/// up.
#[test]
fn nobody_is_elected_because_a_program_wakes_up_often() {
    for millis in [1, 40, 76, 101, 130, 260, 1000, 60_000] {
        simulate(millis, 5, |cluster| async move {
            let leader = cluster.leader().await.unwrap();
            sleep(SECOND).await;
            let before = cluster.status(leader).unwrap();
            for _ in 0..1000 {
                sleep(Duration::from_millis(millis)).await;
                let now = cluster.status(leader).unwrap();
                assert_eq!((now.role, now.term), (Role::Leader, before.term), "woken up each {millis} ms");
            }
        });
    }
}

#[test]
fn a_day_with_work_and_deaths_passes() {
    let elapsed = simulate(3, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        for hour in 0..24 {
            append(&producer, format!("record {hour}")).await;
            let dead = cluster.kill_leader().await.unwrap();
            sleep(HOUR / 6).await;
            cluster.restart(dead).unwrap();
            sleep(HOUR - HOUR / 6).await;
        }
        assert_eq!(values(&client).await, numbered(24));
        cluster.elapsed()
    });
    assert!(elapsed >= DAY && elapsed < DAY + 60 * SECOND, "{elapsed:?}");
}

/// Much goes wrong, some of it by chance; what came of it.
fn troubled(seed: u64) -> (u32, Duration, Vec<(String, i64)>) {
    simulate(seed, 3, |cluster| async move {
        cluster.set_weather(&Weather::default().lost(50).delay(Duration::ZERO..=20 * SECOND / 1000));
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        let trouble = async {
            for round in 1..=3 {
                written(&cluster, round * 10).await;
                let leader = cluster.leader().await.unwrap();
                cluster.cut_power(leader).unwrap();
                cluster.break_connections();
                sleep(SECOND).await;
                cluster.restart(leader).unwrap();
                cluster.hang_disk(leader, SECOND).unwrap();
            }
        };
        let reading = tokio::spawn({
            let client = client.clone();
            async move {
                let mut tail = client.tail(Offset(0)).await.unwrap();
                let mut seen = Vec::new();
                while seen.len() < 60 {
                    seen.push(tail.next().await.unwrap().record.value.unwrap());
                }
                seen
            }
        });
        tokio::join!(trouble, append_all(&producer, numbered(60)));
        assert_eq!(reading.await.unwrap(), numbered(60), "seed {seed}: a tail has neither gap nor repeat");
        let records = read(&client).await;
        (cluster.trace(), cluster.elapsed(), records)
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut traces = Vec::new();
    for seed in 0..5 {
        let (one, other) = (troubled(seed), troubled(seed));
        assert_eq!(one, other, "seed {seed}");
        let values: Vec<_> = one.2.into_iter().map(|(value, _)| value).collect();
        assert_eq!(values, numbered(60));
        traces.push(one.0);
    }
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 5, "another seed is another run");
}

#[test]
fn a_record_whose_answer_was_lost_is_there_once() {
    simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        let leader = cluster.leader().await.unwrap();
        cluster.drop_replies(leader, true).unwrap();
        let answer = producer.append(Record::new("b")).await.unwrap();
        everywhere(&cluster, 2).await;
        cluster.kill(leader).unwrap();
        cluster.drop_replies(leader, false).unwrap();
        let receipt = answer.await.unwrap();
        assert_eq!((receipt.first_offset, receipt.duplicate), (Offset(1), true), "sent again, written once");
        assert_eq!(values(&client).await, ["a", "b"]);
    });
}

#[test]
fn a_muted_broker_is_heard_again() {
    simulate(1, 1, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        let only = cluster.leader().await.unwrap();
        for (number, silence) in [SECOND, 20 * SECOND].into_iter().enumerate() {
            cluster.drop_replies(only, true).unwrap();
            let answer = producer.append(Record::new("a")).await.unwrap();
            written(&cluster, number as u64 + 1).await;
            sleep(silence).await;
            cluster.drop_replies(only, false).unwrap();
            assert_eq!(answer.await.unwrap().first_offset, Offset(number as u64));
        }
    });
}

#[test]
fn an_outcome_that_nobody_can_tell_is_unknown_at_the_deadline() {
    let elapsed = simulate(1, 1, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = client.producer("p").deadline(60 * SECOND).open().await.unwrap();
        cluster.drop_replies(BrokerId(1), true).unwrap();
        let outcome = producer.append(Record::new("a")).await.unwrap().await;
        assert!(matches!(outcome, Err(AppendError::Unknown { .. })), "{outcome:?}");
        cluster.elapsed()
    });
    assert!(elapsed >= 60 * SECOND && elapsed < 70 * SECOND, "{elapsed:?}");
}

#[test]
fn a_session_lives_while_it_is_kept_alive_and_ends_in_its_time() {
    simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let session = client.session(HOUR / 6).open().await.unwrap();
        sleep(DAY / 4).await;
        append(&session, "still there").await;
        client.close().await;
        let last = |cluster: &SimulatedCluster| cluster.status(BrokerId(1)).unwrap().last_index;
        // The last keep-alive is at most a third of its life ago.
        sleep(HOUR / 10).await;
        let before = last(&cluster);
        sleep(HOUR / 10).await;
        assert_eq!(last(&cluster), before + 1, "its end is an entry");
    });
}

#[test]
fn a_paused_leader_is_replaced_and_knows_it_when_it_wakes_up() {
    simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        let leader = cluster.leader().await.unwrap();
        cluster.pause(leader).unwrap();
        let before = cluster.status(leader).unwrap();
        assert_eq!(append(&producer, "b").await, 1);
        assert_ne!(cluster.leader().await.unwrap(), leader);
        assert_eq!(cluster.status(leader).unwrap(), before, "it stands still");
        cluster.resume(leader).unwrap();
        everywhere(&cluster, 2).await;
        assert_eq!(values(&client).await, ["a", "b"]);
    });
}

#[test]
fn a_broker_that_is_told_to_stop_hands_over() {
    simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        let leader = cluster.leader().await.unwrap();
        cluster.terminate(leader).await.unwrap();
        assert_eq!(cluster.status(leader), None);
        append(&producer, "b").await;
        cluster.restart(leader).unwrap();
        everywhere(&cluster, 2).await;
    });
}

#[test]
fn a_leader_whose_disk_hangs_is_replaced() {
    simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        let leader = cluster.leader().await.unwrap();
        cluster.hang_disk(leader, HOUR).unwrap();
        let replaced = cluster.wait_until("another leader", |statuses| {
            statuses.values().any(|status| status.role == Role::Leader && status.id != leader)
        });
        let (replaced, ()) = tokio::join!(replaced, append_all(&producer, numbered(100)));
        replaced.unwrap();
        assert_eq!(client.end().await.unwrap().end, Offset(101));
    });
}

#[test]
fn full_disks_refuse_until_there_is_room() {
    simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        for id in cluster.brokers() {
            cluster.fill_disk(id, true).unwrap();
        }
        let megabytes: Vec<_> = (0..12).map(|_| "x".repeat(900 << 10)).collect();
        let room = async {
            let full = cluster.wait_until("a full disk", |all| all.values().any(|status| status.is_full));
            full.await.unwrap();
            sleep(5 * SECOND).await;
            let end = cluster.status(BrokerId(1)).unwrap().end;
            assert!(end < Offset(12), "{end} records found room where there is none");
            for id in cluster.brokers() {
                cluster.fill_disk(id, false).unwrap();
            }
        };
        tokio::join!(room, append_all(&producer, megabytes));
        everywhere(&cluster, 12).await;
    });
}

#[test]
fn a_clock_that_jumps_moves_nobody_but_itself() {
    let elapsed = simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        for id in cluster.brokers() {
            append(&producer, format!("before {id} jumps")).await;
            cluster.jump_clock(id, DAY).unwrap();
        }
        append(&producer, "after").await;
        cluster.elapsed()
    });
    assert!(elapsed < 60 * SECOND, "{elapsed:?}");
}

#[test]
fn a_link_is_cut_in_one_direction() {
    simulate(2, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        let leader = cluster.leader().await.unwrap();
        let follower = cluster.brokers().into_iter().find(|id| *id != leader).unwrap();
        cluster.cut_link(leader, follower).unwrap();
        append(&producer, "a").await;
        assert_eq!(cluster.status(follower).unwrap().end, Offset(0), "it hears nothing of the leader");
        cluster.heal();
        everywhere(&cluster, 1).await;
    });
}

#[test]
fn the_network_may_be_slow() {
    let delay = Duration::from_millis(40);
    let took = simulate(1, 3, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        cluster.set_weather(&Weather::default().delay(delay..=delay));
        let before = cluster.elapsed();
        append(&producer, "b").await;
        cluster.elapsed() - before
    });
    assert!(took >= 4 * delay, "there and back, twice: {took:?}");
}

#[test]
fn what_a_cluster_does_not_have_is_named() {
    simulate(1, 1, |cluster| async move {
        let nobody = BrokerId(2);
        for refused in [
            cluster.kill(nobody),
            cluster.cut_power(nobody),
            cluster.terminate(nobody).await,
            cluster.restart(nobody),
            cluster.pause(nobody),
            cluster.resume(nobody),
            cluster.partition(&[nobody]),
            cluster.cut_link(BrokerId(1), nobody),
            cluster.drop_replies(nobody, true),
            cluster.hang_disk(nobody, SECOND),
            cluster.fill_disk(nobody, true),
            cluster.jump_clock(nobody, SECOND),
        ] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, ClusterError::NoSuchBroker { id: BrokerId(2), count: 1 }), "{refused}");
        }
        let only = BrokerId(1);
        assert!(matches!(cluster.restart(only), Err(ClusterError::Running { .. })));
        cluster.kill(only).unwrap();
        cluster.kill(only).unwrap();
        cluster.cut_power(only).unwrap();
        assert!(matches!(cluster.pause(only), Err(ClusterError::NotRunning { .. })));
        assert!(matches!(cluster.resume(only), Err(ClusterError::NotRunning { .. })));
        let late = cluster.leader().await.unwrap_err().to_string();
        assert!(late.contains("waited 30 s in vain for a leader"), "{late}");
    });
}

#[test]
#[should_panic(expected = "seed 5: the program has not ended after 3600s of virtual time")]
fn a_program_that_waits_for_ever_is_given_up() {
    Simulation::new(5).limit(HOUR).run(|_| std::future::pending::<()>());
}

#[test]
fn what_a_program_leaves_behind_ends_with_it() {
    let cluster = simulate(1, 1, |cluster| async move {
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        let _unanswered = producer.append(Record::new("a")).await.unwrap();
        let _reading = tokio::spawn(async move {
            let mut tail = client.tail(Offset(0)).await.unwrap();
            loop {
                tail.next().await.unwrap();
            }
        });
        sleep(SECOND).await;
        cluster
    });
    drop(cluster);
}
