//! `compare` with a peer and a driver that are scripts: what it makes of what they say, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that starts, and says that it syncs nothing.
const PEER: &str = r#"case "$1" in
version) echo 1.2.3 ;;
start) echo '{"version":"1.2.3","durability":"page cache: nothing","settings":"as it comes","processes":[]}'; cat > /dev/null ;;
esac"#;

struct Fair {
    dir: TempDir,
}

impl Fair {
    /// A directory with a peer `etcd`, and a driver that does this.
    fn with_driver(driver: &str) -> Self {
        let fair = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(fair.path("peers")).unwrap();
        fs::create_dir(fair.path("data")).unwrap();
        for (name, script) in [("peers/etcd", PEER), ("driver", driver)] {
            fs::write(fair.path(name), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(fair.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fair
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
        command.args(["--quick", "--only", "etcd", "--point", "1x1", "--sequor", "no-such-program"]);
        for flag in ["peers", "data", "driver", "out"] {
            command.arg(format!("--{flag}")).arg(self.path(flag));
        }
        command.env("MARK", self.path("mark"));
        command
    }

    fn nothing_is_left(&self) {
        assert_eq!(fs::read_dir(self.path("data")).unwrap().count(), 0, "data of a run is left");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < PATIENCE, "{} does not come", path.display());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_script_says_of_its_durability_is_in_the_comparison() {
    let fair = Fair::with_driver(
        r#"echo '{"results":[{"batch":1,"in_flight":1,"size":128,"rtt_us":0,"records_per_s":10,"bytes_per_s":1280,
            "p50_us":1,"p99_us":2,"p999_us":3}]}'"#,
    );
    let output = fair.command().output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let read = |name: &str| fs::read_to_string(fair.path("out").join(name)).unwrap();
    assert!(read("comparison.md").contains("| etcd | page cache: nothing | as it comes |"));
    assert!(
        read("comparison.html").contains("<rect class=\"weak\""),
        "who does not sync has a colour of its own"
    );
    assert!(read("figures.json").contains("page cache: nothing"));
    fair.nothing_is_left();
}

#[test]
fn a_comparison_without_a_figure_has_failed() {
    let fair = Fair::with_driver("echo 'it does not answer' >&2; exit 1");
    let output = fair.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("it does not answer") && said(&output).contains("nobody has a figure"));
    fair.nothing_is_left();
}

#[test]
fn an_interruption_ends_what_runs_and_removes_its_data() {
    let driver =
        "trap 'kill $!; echo ended >> \"$MARK\"; exit 1' TERM\nsleep 600 &\necho runs > \"$MARK\"\nwait";
    let fair = Fair::with_driver(driver);
    let mut compare = fair.command().spawn().unwrap();
    wait_for(&fair.path("mark"));
    kill_process(Pid::from_child(&compare), Signal::TERM).unwrap();
    assert_eq!(compare.wait().unwrap().code(), Some(130));
    assert_eq!(
        fs::read_to_string(fair.path("mark")).unwrap(),
        "runs\nended\n",
        "the driver was asked to end"
    );
    fair.nothing_is_left();
}

#[test]
fn the_null_log_removes_its_data_when_it_is_interrupted() {
    let data = tempfile::tempdir().unwrap();
    let mut null = Command::new(env!("CARGO_BIN_EXE_nulllog"))
        .args(["run", "--point", "1x1", "--seconds", "600", "--segment-bytes", "1048576", "--data"])
        .arg(data.path())
        .spawn()
        .unwrap();
    let start = Instant::now();
    // The leader's directory is the last one: then all of them run, or are about to.
    while fs::read_dir(data.path()).unwrap().all(|place| !place.unwrap().path().join("node-0").exists()) {
        assert!(start.elapsed() < PATIENCE, "it does not start");
        thread::sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&null), Signal::TERM).unwrap();
    assert_eq!(null.wait().unwrap().code(), Some(1));
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0, "data of a run is left");
}
