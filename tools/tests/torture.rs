//! `sequor torture` and `sequor bench failover`, small: a few kills, a few thousand records; and the checker on a history
//! that somebody has tampered with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use cluster::sequor;

/// A torture in a directory of its own.
fn torture(args: &[&str]) -> Command {
    let mut command = sequor();
    command.args(["torture", "-o", "json", "--seed", "7"]).args(args);
    command
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn check(history: &Path) -> (Output, Value) {
    let output = sequor().args(["torture", "-o", "json", "--check"]).arg(history).output().unwrap();
    let report = report(&output);
    (output, report)
}

/// The lines of a history after something was done to each.
fn tampered(lines: &[Value], tamper: impl Fn(&Value) -> Option<Value>) -> String {
    lines.iter().filter_map(tamper).map(|line| line.to_string() + "\n").collect()
}

#[test]
fn a_small_torture_holds_and_its_history_tells_what_was_tampered_with() {
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("history.ndjson");
    let faults = "leader,cluster,pause,one-way,network";
    let mut command = torture(&["--kills", "2", "--records", "4000", "--faults", faults, "--history"]);
    let output = command.arg(&history).env("TMPDIR", dir.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = report(&output);
    assert_eq!((&told["holds"], &told["violations"]), (&json!(true), &json!(0)), "{told}");
    assert!(told["faults"]["leader"].as_u64() >= Some(2), "{told}");
    let seen = &told["history"];
    assert!(
        seen["records"].as_u64() >= Some(4000) && seen["held"].as_u64() >= seen["records"].as_u64(),
        "{told}"
    );
    assert_eq!((&seen["logs"], &seen["incomparable"]), (&json!(3), &json!(0)), "{told}");
    assert_eq!(
        seen["read"].as_u64(),
        seen["held"].as_u64().map(|held| held * 2),
        "both readers read all: {told}"
    );
    if fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("RssAnon:")) {
        let held = ["open_files", "threads", "memory_bytes"].map(|what| told["footprint"][what].as_u64());
        assert!(held.iter().all(|held| *held > Some(0)), "{told}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");

    let (checked, again) = check(&history);
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(again["history"], told["history"], "offline it is the same");

    let lines: Vec<Value> = fs::read_to_string(&history)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let written = lines.iter().find(|line| line["event"] == "written").unwrap();
    let offset = &written["places"][0]["offset"];
    let spoilt = dir.path().join("spoilt.ndjson");
    let found = |text: String| {
        fs::write(&spoilt, text).unwrap();
        let (output, told) = check(&spoilt);
        assert_eq!((output.status.code(), &told["holds"]), (Some(1), &json!(false)), "{told}");
        told["listed"].to_string()
    };
    // It was on no disk.
    let lost = found(tampered(&lines, |line| {
        (line["event"] != "held" || line["offset"] != *offset).then(|| line.clone())
    }));
    assert!(lost.contains("LOST: "), "{lost}");
    // Its sender was told that it is not written.
    let refused = found(tampered(&lines, |line| {
        let refused = json!({ "at_us": line["at_us"], "event": "refused", "id": written["id"], "why": "no" });
        Some(if line == written { refused } else { line.clone() })
    }));
    assert!(refused.contains("REFUSED AND WRITTEN: "), "{refused}");
    // One broker has another one.
    let other = found(tampered(&lines, |line| {
        let mut line = line.clone();
        if line["event"] == "held" && line["broker"] == 2 && line["offset"] == *offset {
            line["digest"] = json!("0000000000000001");
        }
        Some(line)
    }));
    assert!(other.contains("LOGS DIFFER: "), "{other}");
}

#[test]
fn what_cannot_be_done_here_is_skipped_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = torture(&["--records", "200", "--faults", "sync,leader"]);
    let output = command.env("PATH", dir.path()).env("TMPDIR", dir.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = report(&output);
    assert!(told["skipped"]["sync"].as_str().unwrap().contains("strace"), "{told}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

/// Each of them once at least: with this seed the first turn is not a quiet one.
#[test]
fn what_needs_rights_over_the_machine_is_done_where_there_are_such_rights() {
    for fault in ["power", "full", "sync"] {
        let output = sequor()
            .args(["torture", "-o", "json", "--seed", "2", "--seconds", "1", "--faults", fault])
            .output()
            .unwrap();
        if output.status.code() == Some(2) {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains(fault) && said.contains("needs"), "{said}");
            continue;
        }
        assert!(output.status.success(), "{output:?}");
        let told = report(&output);
        assert!(told["faults"][fault].as_u64() >= Some(1) && told["holds"] == true, "{told}");
    }
}

#[test]
fn a_torture_in_which_nothing_can_go_wrong_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = torture(&["--faults", "sync"]);
    let output = command.env("PATH", dir.path()).env("TMPDIR", dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(
        said.contains("none of the faults of --faults can be had here (`sync`: it needs strace"),
        "{said}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, told) in [
        (&["--kills", "3", "--faults", "pause"][..], "name it in --faults too"),
        (&["--faults", "leader,earthquake"], "the faults are leader, broker, "),
        (&["--brokers", "4"], "it is 3 or 5"),
        (&["--check", "/nonexistent", "--kills", "1"], "cannot be used with"),
    ] {
        let output = sequor().arg("torture").args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
    }
    let missing = sequor().args(["torture", "--check", "/nonexistent"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
}

#[test]
fn the_way_back_after_a_kill_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = sequor();
    command.args(["bench", "failover", "--kills", "2", "-o", "json"]).env("TMPDIR", dir.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = report(&output);
    let each: Vec<_> = told["each_ms"].as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()).collect();
    let longest = each.iter().copied().fold(0.0, f64::max);
    assert_eq!(each.len(), 2);
    // The others wait at least for the silence that starts an election, which began with the last heartbeat.
    assert!(each.iter().all(|ms| *ms > 50.0), "{told}");
    assert!((told["max_ms"].as_f64().unwrap() - longest).abs() <= longest / 500.0, "{told}");
    assert!(told["batches"].as_u64() >= Some(200), "{told}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}
