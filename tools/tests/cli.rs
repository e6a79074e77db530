//! The command line as a script sees it: exit codes, what is on stdout, what is on stderr.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{fs, process::Output, time::Instant};

use cluster::{DEADLINE, sequor};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_is_code_2() {
    let cases: [&[&str]; 8] = [
        &[],
        &["appendd"],
        &["append"],
        &["append", "--producer", "p", "--batch", "0"],
        &["append", "--producer", "p", "--in-flight", "none"],
        &["tail", "--from", "middle"],
        &["status", "--deadline", "30"],
        &["certs", "init", "x", "--listen", "localhost"],
    ];
    for args in cases {
        let output = sequor().args(args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let level = sequor().args(["--log", "sequor=loud", "certs", "init", "x"]).output().unwrap();
    assert_eq!(code(&level), 2, "{}", said(&level));
}

#[test]
fn help_and_version_are_data() {
    let help = sequor().arg("--help").output().unwrap();
    assert_eq!(code(&help), 0);
    let text = String::from_utf8(help.stdout).unwrap();
    for word in ["append", "tail", "status", "serve", "certs", "quickstart", "SEQUOR_CONTEXT", "Exit codes"] {
        assert!(text.contains(word), "{word} is not in the help");
    }
    let version = sequor().arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("sequor {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn no_context_is_code_2_and_lists_the_places() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = sequor();
    command.current_dir(dir.path()).env("HOME", dir.path()).env_remove("XDG_CONFIG_HOME");
    let output = command.arg("status").output().unwrap();
    assert_eq!(code(&output), 2);
    for place in ["--context", "SEQUOR_CONTEXT", "./sequor-dev/context.toml", ".config/sequor/context.toml"] {
        assert!(said(&output).contains(place), "{place} is not in {}", said(&output));
    }
    let output = sequor().args(["--context", "nowhere.toml", "status"]).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("nowhere.toml"), "{}", said(&output));
}

#[test]
fn the_context_is_found_in_its_usual_place() {
    let dir = tempfile::tempdir().unwrap();
    let made =
        sequor().args(["certs", "init", "--brokers", "1"]).arg(dir.path().join("made")).output().unwrap();
    assert_eq!(code(&made), 0, "{}", said(&made));
    fs::rename(dir.path().join("made"), dir.path().join("sequor-dev")).unwrap();
    let output = sequor().current_dir(dir.path()).args(["--deadline", "100ms", "status"]).output().unwrap();
    assert_eq!(code(&output), 4, "found, but nobody serves there: {}", said(&output));
}

#[test]
fn a_directory_in_use_is_code_3() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "x").unwrap();
    let output = sequor().args(["certs", "init"]).arg(dir.path()).output().unwrap();
    assert_eq!(code(&output), 3);
    assert!(said(&output).contains("not empty"), "{}", said(&output));
}

#[test]
fn nobody_there_is_code_4_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    // Port 9 is `discard`: nothing of ours listens there.
    let output = sequor().args(["certs", "init", "--listen", "127.0.0.1:9"]).arg(&made).output().unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    let cases: [&[&str]; 3] =
        [&["append", "--producer", "p", "/dev/null"], &["tail", "--until-end"], &["status"]];
    for args in cases {
        let start = Instant::now();
        let mut command = sequor();
        command.args(["--deadline", "500ms", "--context"]).arg(made.join("context.toml"));
        let output = command.args(args).output().unwrap();
        assert_eq!(code(&output), 4, "{args:?}: {}", said(&output));
        assert!(said(&output).contains("127.0.0.1:9"), "{args:?} names whom it tried: {}", said(&output));
        assert!(start.elapsed() < DEADLINE / 2, "{args:?} took {:?}", start.elapsed());
    }
}

#[test]
fn a_broker_without_a_data_directory_does_not_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let output = sequor().args(["certs", "init", "--brokers", "1"]).arg(&made).output().unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    fs::remove_dir_all(made.join("broker-1")).unwrap();
    let output = sequor().args(["serve", "--config"]).arg(made.join("broker-1.toml")).output().unwrap();
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(said(&output).contains("certs init"), "it says who makes one: {}", said(&output));
    assert!(!made.join("broker-1").exists());
}
