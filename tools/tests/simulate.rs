//! `sequor simulate` from the command line.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod cluster;

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
};

use cluster::{is_ignored, wait_for};

fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sequor")).arg("simulate").args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_few_seeds_on_two_threads() {
    let text = stdout(&simulate(&["--seeds", "4", "--start", "90", "--threads", "2", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["start"], &json["seeds"], &json["broken"]),
        (&90.into(), &4.into(), &serde_json::Value::Null)
    );
    assert!(json["acknowledged_batches"].as_u64().unwrap() > 400, "{json}");
    assert!(json["simulated_s"].as_f64().unwrap() > 240.0, "{json}");
    assert!(json["reached"]["acked"].as_u64().unwrap() > 400, "{json}");
}

#[test]
fn a_replay_shows_the_faults_and_is_the_same_every_time() {
    let replay = || {
        let text = stdout(&simulate(&["--replay", "4711"]));
        // The last line tells how long it took.
        let (same, _) = text.trim_end().rsplit_once('\n').unwrap();
        same.to_owned()
    };
    let first = replay();
    assert!(first.contains("What goes wrong:") && first.contains(" s  "), "{first}");
    assert_eq!(first, replay());
}

#[test]
fn seeds_that_do_not_exist_are_refused() {
    let last = u64::MAX.to_string();
    let cases = [
        (&["--start", &last, "--seeds", "1"][..], "are too many"),
        (&["--replay", &last], "are too many"),
        (&["--seeds", "0"], "0 is not in 1.."),
    ];
    for (args, why) in cases {
        let out = simulate(args);
        assert_eq!(out.status.code(), Some(2), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(why), "{out:?}");
    }
    let first = (u64::MAX - 1).to_string();
    stdout(&simulate(&["--start", &first, "--seeds", "1", "--threads", "2"]));
}

#[test]
fn files_are_lost_in_a_profile_of_its_own() {
    let text = stdout(&simulate(&["--seeds", "2", "--profile", "loss", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let reached = json["reached"].as_object().unwrap();
    assert!(reached.keys().any(|state| state.starts_with("no start: ")), "{json}");
}

#[test]
fn a_quiet_world_has_no_faults() {
    let text = stdout(&simulate(&["--replay", "1", "--profile", "quiet", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["script"], &json["deaths"]), (&serde_json::json!([]), &0.into()));
}

/// How long it has computed, in ticks of ten milliseconds.
fn computed(running: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", running.id())).unwrap();
    // Behind the name, which is in brackets, the user time is the twelfth.
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(11).unwrap().parse().unwrap()
}

#[test]
fn who_is_ended_tells_how_far_it_came() {
    if is_ignored(15) {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_sequor"));
    command.args(["simulate", "--seeds", "1000", "--threads", "2", "-o", "json"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the first seeds", || (computed(&running) > 20).then_some(()));
    let id = running.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let out = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(143), "{said}");
    assert!(said.contains("SIGTERM"), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!((1..1000).contains(&json["seeds"].as_u64().unwrap()), "{json}");
}
