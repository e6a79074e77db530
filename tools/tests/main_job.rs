//! The main job without failures: what `append` is given, `tail` gives back; and what each of them refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
    time::Instant,
};

use cluster::{
    Cluster,
    appending::{Appending, Input, append, assert_log_is},
    is_ignored, paste, sequor, wait_for,
};
use serde_json::{Value, json};

fn json_lines(text: &[u8]) -> Vec<Value> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn every_input_comes_back_byte_for_byte() {
    let cluster = Cluster::start();
    let inputs: [&[u8]; 8] = [
        b"",
        b"\n",
        b"a\nb\n",
        b"\n\n\n",
        b"crlf\r\n\r\n",
        b"\0\xff\xfe\n\xc3(\n",
        b"a\n\nno newline",
        &[&[b'x'; 900_000][..], b"\n", &[b'y'; 900_000]].concat(),
    ];
    let mut start = 0;
    for (number, input) in inputs.iter().enumerate() {
        let (code, _, said) =
            append(&cluster, &["--producer", &format!("input/{number}"), "--batch", "2"], input);
        assert_eq!(code, 0, "{said}");
        let tailed = cluster.ok(&["tail", "--from", &start.to_string(), "--until-end", "-o", "raw"]);
        assert!(tailed == *input, "input {number} came back as {} bytes, not {}", tailed.len(), input.len());
        start += input.split_inclusive(|byte| *byte == b'\n').count();
    }
}

#[test]
fn a_second_run_goes_on_and_another_input_is_refused() {
    let cluster = Cluster::start();
    let run = |producer: &str, input: &str| {
        append(&cluster, &["--producer", producer, "-o", "json"], input.as_bytes())
    };

    let (code, printed, said) = run("p", "a\nb\nc\n");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("0 lines were already there"), "{said}");
    let batches = json_lines(printed.as_bytes());
    assert_eq!(batches.iter().map(|batch| batch["records"].as_u64().unwrap()).sum::<u64>(), 3);
    assert_eq!(batches[0]["first_offset"], 0);
    assert_eq!(batches.last().unwrap()["last_offset"], 2);
    assert!(batches.iter().all(|batch| batch["duplicate"] == false));

    let (code, printed, said) = run("p", "a\nb\nc\nd\ne");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("3 lines were already there"), "{said}");
    assert_eq!(json_lines(printed.as_bytes())[0]["first_offset"], 3);

    for (input, words) in [
        ("a\nb\nc\nd\nE", ["line 5", "sequence 4"]),
        ("a\nb\nc\nd\ne\n", ["line 5", "offset 4"]),
        ("a\nb\n", ["ends after 2 lines", "has written 5"]),
    ] {
        let (code, printed, said) = run("p", input);
        assert_eq!(code, 3, "{said}");
        assert_eq!(printed, "");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not in: {said}");
    }
    assert_eq!(run("another", "a\nb\n").0, 0, "another producer has numbers of its own");
    assert_log_is(&cluster, b"a\nb\nc\nd\nea\nb\n");
}

#[test]
fn tail_begins_and_ends_where_it_is_told() {
    let cluster = Cluster::start();
    let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
    assert_eq!(append(&cluster, &["--producer", "p", "--batch", "7"], lines.as_bytes()).0, 0);
    let tail = |args: &[&str]| String::from_utf8(cluster.ok(&[&["tail"], args].concat())).unwrap();
    assert_eq!(tail(&["-n", "3"]), "0\n1\n2\n");
    assert_eq!(tail(&["--from", "95", "--until-end"]), "95\n96\n97\n98\n99\n");
    assert_eq!(tail(&["--from", "-2", "--until-end"]), "98\n99\n");
    assert_eq!(tail(&["--from=-2", "-n", "1"]), "98\n");
    assert_eq!(tail(&["--from", "-1000", "-n", "1"]), "0\n");
    assert_eq!(tail(&["--from", "end", "--until-end"]), "");
    assert_eq!(tail(&["--from", "12", "-n", "0"]), "");
    assert_eq!(tail(&["--from", "100", "--until-end"]), "");

    for args in [&["tail", "--from", "101", "--until-end"][..], &["tail", "--from", "101"]] {
        let output = cluster.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout), (Some(3), vec![]), "{said}");
        assert!(said.contains("no offset 101: it holds 0 up to, not including, 100"), "{said}");
    }

    let printed = json_lines(&cluster.ok(&["tail", "--from", "42", "-n", "1", "-o", "json"]));
    let timestamp = printed[0]["timestamp"].as_i64().unwrap();
    assert!(timestamp > 1_700_000_000_000, "milliseconds since 1970");
    let expected = json!({ "offset": 42, "producer": "p", "sequence": 42, "timestamp": timestamp, "key": null,
                           "value": "42" });
    assert_eq!(printed, [expected]);
}

#[test]
fn tail_follows_and_sees_what_comes() {
    let cluster = Cluster::start();
    cluster.leader();
    let mut tail = cluster.command(&["tail", "-n", "2"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(append(&cluster, &["--producer", "p"], b"first\n").0, 0);
    assert_eq!(lines.next().unwrap().unwrap(), "first", "it is printed before the second one exists");
    assert_eq!(append(&cluster, &["--producer", "p"], b"first\nsecond\n").0, 0);
    assert_eq!(lines.next().unwrap().unwrap(), "second");
    assert!(tail.wait().unwrap().success());
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let cluster = Cluster::start();
    let lines: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(append(&cluster, &["--producer", "p", "--batch", "1000"], lines.as_bytes()).0, 0);
    let mut tail = cluster.command(&["tail"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "line 0\n");
    let output = tail.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]), "quiet, and with code 0");
}

#[test]
fn a_tail_with_nothing_to_print_sees_its_reader_leave() {
    let cluster = Cluster::start();
    assert_eq!(append(&cluster, &["--producer", "p"], b"first\n").0, 0);
    let mut tail =
        Running(cluster.command(&["tail"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(tail.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    // The pipe is closed now, and nothing more is appended.
    let status = wait_for("tail to end", || tail.0.try_wait().unwrap());
    let mut said = String::new();
    tail.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), &*said), (Some(0), ""), "quiet, and with code 0");
}

/// A command that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[test]
fn lines_are_appended_to_the_last_one_also_when_nobody_reads_about_them() {
    let cluster = Cluster::start();
    cluster.leader();
    let mut child = cluster
        .command(&["append", "--producer", "p", "--batch", "1", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let lines: String = (0..1000).map(|number| format!("line {number}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("appended 1000 "), "{said}");
    assert_log_is(&cluster, lines.as_bytes());
}

#[test]
fn who_opens_the_name_fences_who_had_it() {
    let cluster = Cluster::start();
    let input = Input::new(b"a\nb\nc\nd\n".to_vec());
    let mut first = Appending::start(&cluster, "p", 1, &input);
    first.feed(2);
    first.reach(2);
    let (code, _, said) = append(&cluster, &["--producer", "p"], b"a\nb\nc\n");
    assert_eq!(code, 0, "{said}");
    let said = first.fail(3);
    assert!(said.contains("fenced"), "{said}");
    assert_log_is(&cluster, b"a\nb\nc\n");
}

#[test]
fn a_broker_that_is_told_to_stop_hands_over_and_ends_well() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    assert_eq!(append(&cluster, &["--producer", "p"], b"a\n").0, 0);
    let mut child = cluster.take(leader);
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let status = wait_for("the broker to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", cluster.logs());
    assert_ne!(cluster.leader(), leader);
    assert_eq!(append(&cluster, &["--producer", "p"], b"a\nb\n").0, 0);
    assert_log_is(&cluster, b"a\nb\n");
}

#[test]
fn the_quickstart_says_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    let lines: String = (0..5_000).map(|number| format!("line {number}\n")).collect();
    fs::write(&file, lines).unwrap();
    let kept = dir.path().join("it's kept");
    let output =
        sequor().args(["quickstart", "--seconds", "0.1", "--keep"]).arg(&kept).arg(&file).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.lines().last().unwrap().starts_with("exactly once"), "{told}");
    assert!(kept.join("context.toml").exists(), "it was asked to keep the cluster");
    let command = told.lines().find(|line| line.contains("append --producer")).expect("it is one to paste");
    assert_eq!(paste(command).status.code(), Some(4), "the cluster is found, and does not run: {command}");

    let short = dir.path().join("short");
    fs::write(&short, "a\nb\n").unwrap();
    let output = sequor().arg("quickstart").arg(&short).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("exactly once"));
}

#[test]
fn a_quickstart_checks_to_the_end_also_when_nobody_reads() {
    let start = Instant::now();
    let mut child = sequor()
        .args(["quickstart", "--batch", "1", "--in-flight", "1", "--seconds", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
    assert!(start.elapsed().as_secs() >= 2, "the table comes last, and takes that long");
}

#[test]
fn a_quickstart_that_is_interrupted_leaves_nothing() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        if is_ignored(code - 128) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut child = sequor()
            .args(["quickstart", "--seconds", "600"])
            .env("TMPDIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = lines.find(|line| line.as_ref().unwrap().contains("leads"));
        assert!(told.is_some(), "it plays");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "its cluster is where TMPDIR says");
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            i32::try_from(code).ok(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{signal} leaves nothing");
    }
}

#[test]
fn the_table_alone_has_the_rows_that_were_asked_for() {
    let args = [
        "quickstart",
        "--only-table",
        "--batch",
        "1,50",
        "--in-flight",
        "4",
        "--size",
        "64",
        "--seconds",
        "0.1",
    ];
    let output = sequor().args(args).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Vec<&str>> = told
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<_>| row.len() == 6)
        .collect();
    let asked: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(asked, [("1", "4"), ("50", "4")], "{told}");

    let output = sequor().args(args).args(["-o", "json"]).output().unwrap();
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[1]["batch"], 50);
    assert!(rows[1]["records_per_second"].as_f64().unwrap() > 0.0, "{rows}");
}
