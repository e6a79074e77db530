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

mod cluster;

use std::{fmt::Write as _, fs, path::Path};

use cluster::{Appending, Cluster};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Lines of the kinds that break naive tools: of all lengths, empty, with CR, not UTF-8; the last without a newline.
fn awkward_lines(count: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for number in 0..count {
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
    text
}

/// The log, tailed to its end, has to be the file.
fn assert_log_is(cluster: &Cluster, file: &Path) {
    let expected = fs::read(file).unwrap();
    let tailed = cluster.ok(&["tail", "--from", "start", "--until-end", "-o", "raw"]);
    if tailed != expected {
        let at = tailed.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let mut message = format!("the log is not the file: {} bytes, not {}", tailed.len(), expected.len());
        write!(message, ", and they differ at byte {at}").unwrap();
        panic!("{message}");
    }
}

#[test]
fn the_leader_is_killed_again_and_again_and_the_client_too() {
    let (lines, kills) = (setting("SEQUOR_TEST_LINES", 20_000), setting("SEQUOR_TEST_KILLS", 4));
    let mut cluster = Cluster::start();
    let file = cluster.path("input");
    fs::write(&file, awkward_lines(lines)).unwrap();
    cluster.leader();

    let mut append = Appending::start(&cluster, "import/1", 20, &file);
    let mut killed = 0;
    for kill in 1..=kills {
        if !append.reach(lines * kill / (kills + 1)) {
            break;
        }
        let leader = cluster.leader();
        cluster.kill(leader);
        killed += 1;
        if kill % 2 == 0 {
            append.kill();
            append = Appending::start(&cluster, "import/1", 20, &file);
        }
        // It is down while the other two elect and go on, and comes back into a log that has moved.
        append.reach(lines * (2 * kill + 1) / (2 * (kills + 1)));
        cluster.launch(leader);
        cluster.whole();
    }
    append.finish();
    assert_eq!(killed, kills, "the append ended before all kills were done: use more lines");
    assert_log_is(&cluster, &file);

    let again = cluster.run(&["append", "-o", "json", "--producer", "import/1", file.to_str().unwrap()]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(again.stdout, b"", "a second run writes nothing");
    assert_log_is(&cluster, &file);
}

#[test]
fn all_brokers_are_killed_at_once_under_load() {
    let (lines, rounds) = (setting("SEQUOR_TEST_LINES", 20_000), setting("SEQUOR_TEST_ROUNDS", 3));
    let mut cluster = Cluster::start();
    let file = cluster.path("input");
    fs::write(&file, awkward_lines(lines)).unwrap();
    cluster.leader();

    let mut append = Appending::start(&cluster, "import/1", 20, &file);
    for round in 1..=rounds {
        assert!(append.reach(lines * round / (rounds + 1)), "the append ended: use more lines");
        cluster.kill_all();
        // Every order of three comes up in six rounds.
        let mut order = [0, 1, 2];
        order.rotate_left(round as usize % 3);
        if round % 2 == 0 {
            order.reverse();
        }
        for broker in order {
            cluster.launch(broker);
        }
        let acknowledged = append.end;
        cluster.leader();
        cluster.whole();
        let end = cluster.status()[0]["end_offset"].as_u64().unwrap();
        assert!(end >= acknowledged, "acknowledged up to offset {acknowledged}, the log ends at {end}");
    }
    append.finish();
    assert_log_is(&cluster, &file);
}
