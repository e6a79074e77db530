//! `sequor producer` on a cluster of processes: names and numbers, listed, shown, given up and closed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::process::Output;

use cluster::{Cluster, appending};
use serde_json::{Value, json};

/// Appends under a name; exit code, and what was said.
fn append(cluster: &Cluster, producer: &str, input: &str) -> (Option<i32>, String) {
    let (code, _, said) = appending::append(cluster, &["--producer", producer], input.as_bytes());
    (Some(code), said)
}

fn value(cluster: &Cluster, args: &[&str]) -> Value {
    serde_json::from_slice(&cluster.ok(args)).unwrap()
}

fn text(cluster: &Cluster, args: &[&str]) -> String {
    String::from_utf8(cluster.ok(args)).unwrap()
}

/// Exit code, and what was said on stderr.
fn refused(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn producers_are_listed_and_shown() {
    let cluster = Cluster::start();
    assert_eq!(text(&cluster, &["producer", "list", "-o", "json"]), "", "no producer, no line");
    for (name, input) in [("b", "1\n2\n"), ("a", "1\n"), ("c\u{1b}[31m", "1\n")] {
        assert_eq!(append(&cluster, name, input).0, Some(0));
    }
    let listed = text(&cluster, &["producer", "list", "-o", "json"]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = listed.iter().map(|known| known["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c\u{1b}[31m"]);
    assert_eq!(
        listed[1],
        json!({"name": "b", "id": 1, "epoch": 1, "next": 2, "sealed": 0, "retired": false})
    );
    let table = text(&cluster, &["producer", "list", "--after", "a"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(!table.contains('\u{1b}'), "a name does not write on the terminal: {table}");
    let shown = value(&cluster, &["producer", "show", "b", "-o", "json"]);
    assert_eq!((&shown["next"], &shown["batches"][0]["records"]), (&json!(2), &json!(2)));
    let (code, said) = refused(&cluster.run(&["producer", "show", "nobody"]));
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("nobody"), "{said}");
}

#[test]
fn a_number_that_was_given_up_is_never_written() {
    let cluster = Cluster::start();
    assert_eq!(append(&cluster, "p", "1\n2\n").0, Some(0));
    let resolve = |number: &str, seal: &[&str]| {
        value(&cluster, &[&["producer", "resolve", "p", number, "-o", "json"], seal].concat())
    };
    assert_eq!(resolve("1", &[]), json!({"sequence": 1, "outcome": "committed", "offset": 1}));
    assert_eq!(resolve("3", &[]), json!({"sequence": 3, "outcome": "open", "offset": null}));
    assert_eq!(resolve("3", &["--seal"]), json!({"sequence": 3, "outcome": "sealed", "offset": null}));
    assert_eq!(resolve("2", &["--seal"]), json!({"sequence": 2, "outcome": "sealed", "offset": null}));
    assert_eq!(text(&cluster, &["producer", "resolve", "p", "1"]), "committed at offset 1\n");
    let (code, said) = append(&cluster, "p", "1\n2\n3\n4\n5\n");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("lines 3 to 4 can never be written"), "{said}");
    assert_eq!(value(&cluster, &["producer", "show", "p", "-o", "json"])["sealed"], json!([[2, 4]]));
}

#[test]
fn a_retired_name_is_closed_for_ever() {
    let cluster = Cluster::start();
    assert_eq!(append(&cluster, "p", "1\n2\n").0, Some(0));
    let (code, said) = refused(&cluster.run(&["producer", "retire", "p"]));
    assert_eq!(code, Some(2), "not without --yes: {said}");
    assert!(said.contains("there is no way back") && said.contains("--yes"), "{said}");
    let told = text(&cluster, &["producer", "retire", "p", "--yes"]);
    assert_eq!(told, "p is retired: 2 numbers used, and none will follow\n");
    assert_eq!(text(&cluster, &["producer", "retire", "p", "--yes"]), told, "once more is harmless");
    let (code, said) = append(&cluster, "p", "1\n2\n3\n");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("retired"), "{said}");
    let (code, said) = append(&cluster, "p", "");
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("retired"), "that is told before that the input is another one: {said}");
    assert_eq!(cluster.ok(&["tail", "--until-end", "-o", "raw"]), b"1\n2\n", "its records stay");
    assert_eq!(value(&cluster, &["producer", "show", "p", "-o", "json"])["retired"], json!(true));
}
