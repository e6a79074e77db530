//! The other ways in which `append` reads: binary records, keys, all of the past compared, an input that goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use cluster::{
    Cluster,
    appending::{append, assert_log_is},
    sequor,
};
use serde_json::Value;

/// Length-prefixed.
fn framed(records: &[&[u8]]) -> Vec<u8> {
    records.iter().flat_map(|record| [&(record.len() as u32).to_be_bytes()[..], record].concat()).collect()
}

/// What `tail` prints of everything.
fn tailed(cluster: &Cluster, args: &[&str]) -> Vec<u8> {
    cluster.ok(&[&["tail", "--until-end"], args].concat())
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn json(cluster: &Cluster) -> Vec<Value> {
    json_lines(&String::from_utf8(tailed(cluster, &["-o", "json"])).unwrap())
}

#[test]
fn what_was_read_in_a_form_comes_back_in_it_byte_for_byte() {
    let cluster = Cluster::start();
    let big = [b'x'; 300_000];
    let binary =
        framed(&[b"", b"a\nb", b"\0\xff:", b":", b"k:v:w\n", b"none", &big, b"\xe2\x86\x92", b"end"]);
    let lines: &[u8] = b"k:v\n:v\nk:\nk:v:w\nnone\n\n\0:\xff\nlast:without line feed";
    let forms: [(&[&str], &[u8]); 5] = [
        (&["--length-prefixed"], &binary),
        (&["--length-prefixed", "--key-separator", ":"], &binary),
        (&["--length-prefixed", "--key-separator", r"\x0a"], &binary),
        (&["--key-separator", ":"], lines),
        (&["--key-separator", r"\0"], lines),
    ];
    let mut start = 0;
    for (number, (form, input)) in forms.iter().enumerate() {
        let producer = format!("import/{number}");
        let args = [&["--producer", &producer, "--batch", "2", "-o", "json"], *form].concat();
        let (code, printed, said) = append(&cluster, &args, input);
        assert_eq!(code, 0, "{said}");
        let from = start.to_string();
        start += printed
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["records"].as_u64().unwrap())
            .sum::<u64>();
        assert!(tailed(&cluster, &[&["--from", &from], *form].concat()) == *input, "{form:?}");

        let (code, printed, said) = append(&cluster, &args, input);
        assert_eq!((code, printed.as_str()), (0, ""), "{said}");
        let args = [&args[..], &["--verify"]].concat();
        assert_eq!(append(&cluster, &args, input).0, 0, "the whole past is the same");
    }
}

#[test]
fn a_key_is_a_key_and_a_rerun_with_another_one_is_refused() {
    let cluster = Cluster::start();
    let args = ["--producer", "p", "--key-separator", ":"];
    assert_eq!(append(&cluster, &args, b"a:1\n:2\n3\n").0, 0);
    let told: Vec<_> = json(&cluster).iter().map(|r| (r["key"].clone(), r["value"].clone())).collect();
    assert_eq!(told, [("a".into(), "1".into()), ("".into(), "2".into()), (Value::Null, "3".into())]);
    for verify in [&[][..], &["--verify"]] {
        for (input, line) in [(&b"b:1\n:2\n3\n"[..], 1), (b"a:1\n2\n3\n", 2), (b"a:1\n:2\n:3\n", 3)] {
            let (code, _, said) = append(&cluster, &[&args, verify].concat(), input);
            assert_eq!(code, 3, "{said}");
            assert!(said.contains(&format!("line {line} is not what producer \"p\" wrote")), "{said}");
        }
        let (code, _, said) = append(&cluster, &[&["--producer", "p"], verify].concat(), b"a:1\n:2\n3\n");
        assert_eq!(code, 3, "the separator is missing: {said}");
    }
    assert_log_is(&cluster, b"1\n2\n3\n");
}

#[test]
fn an_input_that_ends_within_a_record_is_appended_up_to_there() {
    let cluster = Cluster::start();
    let whole = framed(&[b"one", b"two two", b"three"]);
    let args = ["--producer", "p", "--length-prefixed", "--batch", "1"];
    for (cut, words) in [
        (2, "within record 3: it begins at byte 18 and has 3 bytes of 5. Nothing of it was sent"),
        (7, "within record 3: it begins at byte 18 and has 2 bytes of the 4 that say its length"),
        (10, "within record 2: it begins at byte 7 and has 6 bytes of 7."),
    ] {
        let (code, _, said) = append(&cluster, &args, &whole[..whole.len() - cut]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(words), "{words} is not in {said}");
        assert_eq!(tailed(&cluster, &["--length-prefixed"]), framed(&[b"one", b"two two"]));
    }
    let (code, _, said) = append(&cluster, &args, &whole);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("2 records were already there; appended 1 "), "{said}");
    assert_eq!(tailed(&cluster, &["--length-prefixed"]), whole);
    let shorter = append(&cluster, &args, &framed(&[b"one"]));
    assert_eq!(shorter.0, 3);
    assert!(shorter.2.contains("ends after 1 record, and"), "{}", shorter.2);
}

#[test]
fn verify_compares_what_the_log_no_longer_shows_at_once() {
    let cluster = Cluster::start();
    let input = |lines: u64| (0..lines).map(|number| format!("line {number}\n")).collect::<String>();
    let args = ["--producer", "p", "--batch", "1"];
    for lines in [20, 60] {
        assert_eq!(append(&cluster, &args, input(lines).as_bytes()).0, 0);
        let between = append(&cluster, &["--producer", "another", "--continue"], b"line 0\nof another\n");
        assert_eq!(between.0, 0, "{}", between.2);
    }
    let other = input(70).replace("line 3\n", "line three\n");
    let newest = other.lines().take(60).collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(append(&cluster, &args, newest.as_bytes()).0, 0, "the newest batches are the same");
    let (code, _, said) = append(&cluster, &[&args[..], &["--verify"]].concat(), other.as_bytes());
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("line 4 is not what producer \"p\" wrote as sequence 3 (offset 3)"), "{said}");
    let late = input(70).replace("line 30\n", "line thirty\n");
    let (code, _, said) = append(&cluster, &[&args[..], &["--verify"]].concat(), late.as_bytes());
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("line 31 is not what producer \"p\" wrote as sequence 30 (offset 32)"), "{said}");
    let (code, _, said) = append(&cluster, &[&args[..], &["--verify"]].concat(), input(59).as_bytes());
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("ends after 59 lines, and producer \"p\" has written 60"), "{said}");
    assert_eq!(json(&cluster).len(), 64, "nothing was written");

    let (code, _, said) = append(&cluster, &[&args[..], &["--verify"]].concat(), input(62).as_bytes());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("60 lines were already there; appended 2 "), "{said}");
    let (code, _, said) = append(&cluster, &["--producer", "new", "--verify"], b"a\n");
    assert_eq!(code, 0, "nothing is there to be compared: {said}");
}

#[test]
fn an_input_can_go_on_where_the_producer_is() {
    let cluster = Cluster::start();
    for (input, told) in [
        (&b"a\nb\n"[..], "0 records were already there; appended 2 "),
        (b"c\n", "2 records were already there; appended 1 "),
        (b"", "3 records were already there; nothing appended"),
        (b"a\n", "3 records were already there; appended 1 "),
    ] {
        let (code, _, said) = append(&cluster, &["--producer", "p", "--continue"], input);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(told), "{told} is not in {said}");
    }
    assert_log_is(&cluster, b"a\nb\nc\na\n");
    let sequences: Vec<_> =
        json(&cluster).iter().map(|record| record["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [0, 1, 2, 3]);
    let (code, _, said) = append(&cluster, &["--producer", "p", "--verify"], b"a\nb\nc\na\nd\n");
    assert_eq!(code, 0, "the numbers are one stream, however they were given: {said}");
}

#[test]
fn an_input_that_goes_on_and_ends_uncertainly_says_how_to_find_out() {
    let mut cluster = Cluster::start();
    assert_eq!(append(&cluster, &["--producer", "p", "--continue"], b"before\n").0, 0);
    let mut child = cluster
        .command(&[
            "--deadline",
            "1s",
            "append",
            "--producer",
            "p",
            "--continue",
            "--batch",
            "1",
            "-o",
            "json",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut acks = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(b"first\nsecond\n").unwrap();
    for _ in 0..2 {
        acks.next().unwrap().unwrap();
    }
    cluster.kill_all();
    stdin.write_all(b"third\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("1 record was already there; appended 2 "), "{said}");
    assert!(said.contains("only the first 2 lines of this input are known to be written"), "{said}");
    let command = "append --continue --producer p /dev/null";
    assert!(said.contains(command) && said.contains("all but 1 of those"), "{said}");

    for broker in 0..3 {
        cluster.launch(broker);
    }
    cluster.whole();
    let output = cluster.run(&command.split(' ').collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("3 records were already there"), "nobody was there to take the third: {said}");
    assert_log_is(&cluster, b"before\nfirst\nsecond\n");
}

#[test]
fn flags_that_contradict_each_other_are_code_2() {
    let cases: [&[&str]; 8] = [
        &["append", "--producer", "p", "--verify", "--continue"],
        &["append", "--producer", "p", "--key-separator", "::"],
        &["append", "--producer", "p", "--key-separator", ""],
        &["append", "--producer", "p", "--key-separator", "\n"],
        &["tail", "-o", "json", "--length-prefixed"],
        &["tail", "-o", "json", "--key-separator", ":"],
        &["tail", "--key-separator", "\n"],
        &["tail", "--key-separator", r"\n"],
    ];
    for args in cases {
        let output = sequor().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn without_a_producer_every_run_is_a_session_of_its_own() {
    let cluster = Cluster::start();
    for _ in 0..2 {
        let (code, printed, said) = append(&cluster, &["-o", "json"], b"a\nb\n");
        assert_eq!(code, 0, "{said}");
        assert_eq!(json_lines(&printed)[0]["records"], 2);
        assert!(!said.contains("already there"), "nobody was there before: {said}");
    }
    assert_eq!(cluster.ok(&["tail", "--until-end", "-o", "raw"]), b"a\nb\na\nb\n");
    let tailed = json(&cluster);
    let producers: Vec<_> = tailed.iter().map(|record| record["producer"].as_str().unwrap()).collect();
    assert_eq!(producers[0], producers[1]);
    assert_ne!(producers[1], producers[2], "the second run is another session");
    assert!(producers[0].starts_with('#'), "a session has a number and no name: {producers:?}");
    assert_eq!(cluster.ok(&["producer", "list", "-o", "json"]), b"", "and takes no place in the table");
    for flag in ["--verify", "--continue"] {
        let (code, _, said) = append(&cluster, &[flag], b"a\n");
        assert_eq!(code, 2, "{flag} is about what a producer wrote before: {said}");
    }
}

#[test]
fn acks_say_when_a_batch_is_confirmed_and_all_is_written_in_the_end() {
    let cluster = Cluster::start();
    let input: Vec<u8> = (0..5_000).flat_map(|at| format!("line {at}\n").into_bytes()).collect();
    let mut start = 0;
    for acks in ["quorum", "leader", "none"] {
        let args = ["--producer", acks, "--acks", acks, "--batch", "50", "-o", "json"];
        let (code, printed, said) = append(&cluster, &args, &input);
        assert_eq!(code, 0, "{said}");
        let batches = json_lines(&printed);
        assert_eq!(batches.iter().map(|batch| batch["records"].as_u64().unwrap()).sum::<u64>(), 5_000);
        match acks {
            "quorum" => assert!(batches.iter().all(|batch| batch.get("provisional").is_none())),
            "none" => assert!(batches.iter().all(|batch| batch["first_offset"].is_null())),
            _ => assert!(batches.iter().all(|batch| batch["first_offset"].is_u64())),
        }
        let tailed = cluster.ok(&["tail", "--from", &start.to_string(), "--until-end", "-o", "raw"]);
        assert!(tailed == input, "with {acks}, {} bytes of {} are there", tailed.len(), input.len());
        start += 5_000;
        let (code, _, said) = append(&cluster, &args[..4], &input);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("5000 lines were already there"), "{said}");
    }
}

#[test]
fn packed_batches_come_back_as_they_were_and_are_recognised_unpacked() {
    let cluster = Cluster::start();
    let input: Vec<u8> =
        (0..5_000).flat_map(|at| format!("the same again and again {}\n", at % 7).into_bytes()).collect();
    let (code, _, said) =
        append(&cluster, &["--producer", "p", "--compress", "lz4", "--batch", "500"], &input);
    assert_eq!(code, 0, "{said}");
    assert!(cluster.ok(&["tail", "--until-end", "-o", "raw"]) == input);
    let tailed = cluster.ok(&["tail", "--from", "4321", "-n", "2", "-o", "raw"]);
    let lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(tailed, lines[4321..4323].concat());
    for verify in [&[][..], &["--verify"]] {
        let (code, _, said) = append(&cluster, &[&["--producer", "p"], verify].concat(), &input);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("5000 lines were already there; nothing appended"), "{said}");
    }
}
