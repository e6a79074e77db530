//! The main job under failures of processes: a file is appended while brokers and the client are killed, and comes back
//! byte for byte.
//!
//! The size of the job comes from the environment, so that one test serves both a quick check and a long one:
//!
//! | variable | default | |
//! |---|---|---|
//! | `SEQUOR_TEST_LINES` | 20000 | lines of the file |
//! | `SEQUOR_TEST_KILLS` | 4 | times that the leader is killed |
//! | `SEQUOR_TEST_ROUNDS` | 3 | times that all brokers are killed at once |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use cluster::{
    Cluster,
    appending::{Appending, Input, assert_log_is, write},
};

/// Lines in a batch: few, so that many batches are in flight.
const BATCH: usize = 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Lines of the kinds that break naive tools: of all lengths, empty, with CR, not UTF-8; the last without a newline.
fn awkward(lines: u64) -> Input {
    let mut text = Vec::new();
    for number in 1..lines {
        match number % 7 {
            0 => text.extend_from_slice(format!("line {number}").as_bytes()),
            1 => {}
            2 => text.extend_from_slice(format!("{number}\r").as_bytes()),
            3 => text.extend_from_slice(&[0xff, 0xfe, 0, (number % 256) as u8 | 0x80]),
            4 => text.extend_from_slice("long ".repeat((number % 100) as usize).as_bytes()),
            _ => text.extend_from_slice(number.to_string().as_bytes()),
        }
        text.push(b'\n');
    }
    text.extend_from_slice(b"and no newline");
    Input::new(text)
}

#[test]
fn the_leader_is_killed_again_and_again_and_the_client_too() {
    let kills = setting("SEQUOR_TEST_KILLS", 4);
    let input = awkward(setting("SEQUOR_TEST_LINES", 20_000));
    let portion = input.lines() / (kills + 1);
    let mut cluster = Cluster::start();
    let mut append = Appending::start(&cluster, "import/1", BATCH, &input);
    for kill in 0..kills {
        let leader = cluster.leader();
        append.feed(portion * (kill + 1));
        if append.end == 0 {
            // It has just been started, and may have found all that it was fed before.
            cluster.reach(portion * kill + 1);
        } else {
            append.reach(portion * kill + 1);
        }
        cluster.kill(leader);
        if kill % 2 == 1 {
            append.kill();
            append = Appending::start(&cluster, "import/1", BATCH, &input);
            append.feed(portion * (kill + 1));
        }
        if kill % 3 != 2 {
            // The other two elect and go on without it; it comes back into a log that has moved.
            cluster.reach(portion * (kill + 1));
        }
        cluster.launch(leader);
        cluster.whole();
    }
    append.finish();
    assert_log_is(&cluster, &input.bytes);

    let file = cluster.path("input");
    write(&file, &input);
    let again = cluster.run(&["append", "-o", "json", "--producer", "import/1", file.to_str().unwrap()]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(again.stdout, b"", "another run writes nothing");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains(&format!("{} lines were already there", input.lines())), "{said}");
    assert_log_is(&cluster, &input.bytes);
}

#[test]
fn all_brokers_are_killed_at_once_under_load() {
    let rounds = setting("SEQUOR_TEST_ROUNDS", 3);
    let input = awkward(setting("SEQUOR_TEST_LINES", 20_000));
    let portion = input.lines() / (rounds + 1);
    let mut cluster = Cluster::start();
    cluster.leader();
    let mut append = Appending::start(&cluster, "import/1", BATCH, &input);
    for round in 0..rounds {
        append.feed(portion * (round + 1));
        append.reach(portion * round + 1);
        cluster.kill_all();
        // Every order of three comes up in six rounds.
        let mut order = [0, 1, 2];
        order.rotate_left(round as usize % 3);
        if round % 2 == 1 {
            order.reverse();
        }
        for broker in order {
            cluster.launch(broker);
        }
        let acknowledged = append.end;
        cluster.whole();
        let end = cluster.status()[0]["end_offset"].as_u64().unwrap();
        assert!(end >= acknowledged, "acknowledged up to offset {acknowledged}, the log ends at {end}");
    }
    append.finish();
    assert_log_is(&cluster, &input.bytes);
}
