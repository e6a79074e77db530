//! The command line as a script sees it: exit codes, what is on stdout, what is on stderr.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    process::{Output, Stdio},
    time::Instant,
};

use cluster::{DEADLINE, paste, sequor};
use sequor_wal::disk::mmap::MmapDisk;

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_is_code_2() {
    let cases: [&[&str]; 13] = [
        &[],
        &["appendd"],
        &["append"],
        &["append", "--producer", "p", "--batch", "0"],
        &["append", "--producer", "p", "--in-flight", "none"],
        &["tail", "--from", "middle"],
        &["status", "--deadline", "30"],
        &["certs", "init", "x", "--listen", "localhost"],
        &["certs", "init", "x", "--brokers", "0"],
        &["certs", "init", "x", "--brokers", "10"],
        &["certs", "init", "x", "--listen", "0.0.0.0:7400"],
        &["certs", "init", "x", "--listen", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:1"],
        &["append", "--version"],
    ];
    let dir = tempfile::tempdir().unwrap();
    for args in cases {
        let output = sequor().current_dir(dir.path()).args(args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let level = sequor()
        .current_dir(dir.path())
        .args(["--log", "sequor=loud", "certs", "init", "x"])
        .output()
        .unwrap();
    assert_eq!(code(&level), 2, "{}", said(&level));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn help_and_version_are_data() {
    let help = sequor().arg("--help").output().unwrap();
    assert_eq!(code(&help), 0);
    let text = String::from_utf8(help.stdout).unwrap();
    for word in
        ["append", "tail", "status", "serve", "dev", "certs", "quickstart", "SEQUOR_CONTEXT", "Exit codes"]
    {
        assert!(text.contains(word), "{word} is not in the help");
    }
    let help = sequor().args(["certs", "init", "--help"]).output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("1 to 9"), "it says how many brokers");
    let help = sequor().args(["append", "--help"]).output().unwrap();
    let words: Vec<_> = str::from_utf8(&help.stdout).unwrap().split_whitespace().collect();
    let text = words.join(" ");
    for truth in [
        "the newest batches that the log remembers of this producer",
        "A last line without a line feed is stored as it is",
    ] {
        assert!(text.contains(truth), "{truth} is not in the help of append: {text}");
    }
    let version = sequor().arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("sequor {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_and_version_that_cannot_be_written_are_code_1() {
    for args in [&["--help"][..], &["--version"], &["append", "--help"], &["help", "tail"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = sequor().args(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(code(&output), 1, "{args:?}");
        assert!(said(&output).contains("cannot write to standard output"), "{args:?}: {}", said(&output));
        // And who reads no further has his reasons.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = sequor().args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((code(&output), said(&output)), (0, String::new()), "{args:?}");
    }
}

#[test]
fn a_number_that_is_none_is_told_what_it_has_to_be() {
    let cases: [&[&str]; 3] =
        [&["producer", "resolve", "p", "x"], &["tail", "-n", "-5.5"], &["wal", "dump", "d", "--from", "x"]];
    for args in cases {
        let output = sequor().args(args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}");
        assert!(!said(&output).contains("digit"), "{args:?}: {}", said(&output));
    }
    let output = sequor().args(cases[0]).output().unwrap();
    assert!(said(&output).contains("a whole number, from 0"), "{}", said(&output));
}

#[test]
fn what_is_no_input_or_no_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let output = sequor().args(["certs", "init", "--listen", "127.0.0.1:9"]).arg(&made).output().unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    let mut command = sequor();
    // Nobody is asked: there is nothing to append.
    let output = command
        .args(["append", "--context"])
        .arg(made.join("context.toml"))
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        said(&output).contains("cannot open") && said(&output).contains("directory"),
        "{}",
        said(&output)
    );
    let output = sequor().args(["wal", "verify"]).arg(made.join("broker-1.toml")).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("broker-1.toml is a file, and no data directory"), "{}", said(&output));
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
    let mut command = sequor();
    command.current_dir(dir.path()).env("HOME", dir.path()).env_remove("XDG_CONFIG_HOME");
    for name in ["SEQUOR_CONTEXT", "SEQUOR_DEADLINE", "SEQUOR_LOG"] {
        command.env(name, "");
    }
    let empty = command.arg("status").output().unwrap();
    assert_eq!((code(&empty), said(&empty)), (2, said(&output)), "an empty variable is none");
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
    let output = sequor().args(["quickstart", "--keep"]).arg(dir.path()).output().unwrap();
    assert_eq!(code(&output), 3);
    assert!(said(&output).contains("not empty"), "{}", said(&output));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "both left it alone");
}

#[test]
fn a_broker_whose_directory_is_in_use_is_code_3() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let output = sequor().args(["certs", "init", "--brokers", "1"]).arg(&made).output().unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    let _lock = MmapDisk::open(made.join("broker-1")).unwrap();
    let output = sequor().args(["serve", "--config"]).arg(made.join("broker-1.toml")).output().unwrap();
    assert_eq!(code(&output), 3, "{}", said(&output));
    assert!(said(&output).contains("in use by another process"), "{}", said(&output));
}

#[test]
fn the_printed_commands_can_be_pasted() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("it's $HOME; a demo");
    let output = sequor().args(["certs", "init", "--listen", "127.0.0.1:9"]).arg(&made).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let command = told.lines().find(|line| line.ends_with(" status")).expect("it is one of the commands");
    let output = paste(command);
    assert_eq!(code(&output), 4, "it finds the context, and nobody serves there: {}", said(&output));
}

#[test]
fn nothing_of_others_commands_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made");
    let output = sequor().args(["certs", "init", "--listen", "127.0.0.1:9"]).arg(&made).output().unwrap();
    assert_eq!(code(&output), 0, "{}", said(&output));
    let context = made.join("context.toml");
    let text = fs::read_to_string(&context).unwrap().replace("127.0.0.1:10", r"\u001b[2J127.0.0.1:10");
    fs::write(&context, text).unwrap();
    let mut command = sequor();
    let output = command.args(["--deadline", "100ms", "status", "--context"]).arg(&context).output().unwrap();
    assert_eq!(code(&output), 4, "{}", said(&output));
    for shown in [said(&output), String::from_utf8_lossy(&output.stdout).into_owned()] {
        assert!(shown.contains(r"\u{1b}[2J127.0.0.1:10"), "{shown:?}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
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
