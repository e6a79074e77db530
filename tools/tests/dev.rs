//! `sequor dev` as a developer has it: a process, other processes beside it, and the same data the next time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    collections::HashSet,
    fs,
    hash::{BuildHasher as _, RandomState},
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cluster::{sequor, wait_for};
use serde_json::Value;

/// Ports below those that the system gives to whoever asks for any.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// A `dev` that is ready, killed when it is dropped.
struct Dev {
    child: Child,
    ready: Value,
}

impl Dev {
    /// Starts one in the working directory `here`, and waits for the line that says that it is ready.
    fn start(here: &Path, args: &[&str]) -> Self {
        let mut command = dev(here, args);
        let mut child = command.args(["-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match serde_json::from_str(&line) {
            Ok(ready) => Self { child, ready },
            Err(error) => panic!("{line:?}: {error}: {:?}", child.wait_with_output()),
        }
    }

    fn address(&self, broker: usize) -> SocketAddr {
        self.ready["brokers"][broker]["address"].as_str().unwrap().parse().unwrap()
    }

    /// Sends a signal and waits for the end; the exit code, if it was none that ended it.
    fn end(mut self, signal: &str) -> Option<i32> {
        send(&self.child, signal);
        wait_for("dev to end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // One that has ended already is none to end.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

fn dev(here: &Path, args: &[&str]) -> Command {
    let mut command = sequor();
    command.current_dir(here).arg("dev").args(args).stdin(Stdio::null());
    command
}

/// A `dev` that is to refuse: its exit code, and what it said.
fn refused(here: &Path, args: &[&str]) -> (i32, String) {
    let output = dev(here, args).output().unwrap();
    assert!(output.stdout.is_empty());
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A command beside it, which is told nothing about the cluster.
fn beside(here: &Path, args: &[&str], input: &str) -> Output {
    let mut command = sequor();
    command.current_dir(here).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn append(here: &Path, input: &str) -> String {
    let output = beside(here, &["append", "--producer", "p"], input);
    String::from_utf8(output.stderr).unwrap()
}

fn tail(here: &Path) -> String {
    String::from_utf8(beside(here, &["tail", "--until-end"], "").stdout).unwrap()
}

/// The first of three free ports in a row, which no other test of this process is given.
fn free_ports() -> SocketAddr {
    static BEGIN: OnceLock<u64> = OnceLock::new();
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    let begin = BEGIN.get_or_init(|| RandomState::new().hash_one(()) % u64::from(PORTS.end - PORTS.start));
    wait_for("three free ports in a row", || {
        let next = begin + 3 * GIVEN.fetch_add(1, Ordering::Relaxed);
        let first = PORTS.start + u16::try_from(next % u64::from(PORTS.end - PORTS.start)).unwrap();
        let taken = taken_ports();
        (first..first + 3)
            .all(|port| !taken.contains(&port))
            .then(|| SocketAddr::from(([127, 0, 0, 1], first)))
    })
}

/// Ports that somebody receives datagrams on. To try would be to take them, also for any process that another thread is just
/// about to start: that has all open sockets for a moment, however soon they are closed here.
fn taken_ports() -> HashSet<u16> {
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    let local = table.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap());
    local.map(|address| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap()).collect()
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn what_was_appended_beside_it_is_there_the_next_time() {
    let place = tempfile::tempdir().unwrap();
    let (here, listen) = (place.path(), free_ports());
    let first = Dev::start(here, &["--listen", &listen.to_string()]);
    assert_eq!(first.ready["brokers"].as_array().unwrap().len(), 3);
    assert_eq!((first.address(0), first.address(2).port()), (listen, listen.port() + 2));
    assert_eq!(first.ready["context"], "./sequor-dev/context.toml");
    assert!(append(here, "a\nb\n").contains("appended 2 in"));
    assert_eq!(tail(here), "a\nb\n");
    assert_eq!(first.end("-TERM"), Some(0));

    let again = Dev::start(here, &[]);
    assert_eq!(again.address(0), listen, "a cluster keeps its addresses");
    assert_eq!(tail(here), "a\nb\n");
    let told = append(here, "a\nb\nc\n");
    assert!(told.contains("2 lines were already there; appended 1 in"), "{told}");
    assert_eq!(again.end("-INT"), Some(0));
}

#[test]
fn what_was_acknowledged_survives_its_death() {
    let place = tempfile::tempdir().unwrap();
    let (here, listen) = (place.path(), free_ports().to_string());
    let first = Dev::start(here, &["--brokers", "1", "--listen", &listen]);
    append(here, "a\n");
    assert_eq!(first.end("-KILL"), None);
    let again = Dev::start(here, &[]);
    assert_eq!(tail(here), "a\n");
    assert_eq!(again.end("-TERM"), Some(0));
}

#[test]
fn it_says_nothing_where_nobody_looks() {
    let place = tempfile::tempdir().unwrap();
    let (here, listen) = (place.path(), free_ports().to_string());
    // That the disk is slow would be said, and rightly.
    let mut command = dev(here, &["--brokers", "1", "--listen", &listen, "--log", "error"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the context file", || here.join("sequor-dev/context.toml").exists().then_some(()));
    append(here, "a\n");
    send(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout, &*said), (Some(0), vec![], ""));
}

#[test]
fn a_cluster_that_runs_or_is_another_is_code_3() {
    let place = tempfile::tempdir().unwrap();
    let (here, listen) = (place.path(), free_ports().to_string());
    let running = Dev::start(here, &["--brokers", "1", "--listen", &listen]);
    let (code, said) = refused(here, &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("./sequor-dev is in use"), "{said}");
    append(here, "a\n");
    assert_eq!(running.end("-TERM"), Some(0));

    for (args, found) in [(["--brokers", "3"], "1 broker,"), (["--listen", "127.0.0.1:1"], &*listen)] {
        let (code, said) = refused(here, &args);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains(found) && said.contains(args[1]), "{said}");
    }

    fs::create_dir(here.join("other")).unwrap();
    fs::write(here.join("other/precious"), "x").unwrap();
    let (code, said) = refused(here, &["--data", "other"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("other is not empty"), "{said}");
    assert_eq!(files(&here.join("other")), 1, "it is left alone");
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_made() {
    let place = tempfile::tempdir().unwrap();
    let (here, listen) = (place.path(), free_ports());
    let second = SocketAddr::new(listen.ip(), listen.port() + 1);
    let taken = UdpSocket::bind(second).unwrap();
    let (code, said) = refused(here, &["--listen", &listen.to_string()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("cannot listen on {second}")) && said.contains("--listen"), "{said}");
    assert_eq!(files(here), 0, "a cluster keeps its addresses, so there must be none with these");
    drop(taken);

    let made = Dev::start(here, &["--brokers", "1", "--listen", &listen.to_string()]);
    assert_eq!(made.end("-TERM"), Some(0));
    let _taken = UdpSocket::bind(listen).unwrap();
    let (code, said) = refused(here, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("cannot listen on {listen}")) && said.contains("--data"), "{said}");
}

#[test]
fn what_makes_no_sense_is_code_2_and_makes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let cases: [&[&str]; 4] = [
        &["--brokers", "2"],
        &["--listen", "localhost"],
        &["--listen", "0.0.0.0:7400"],
        &["--brokers", "3", "--listen", "127.0.0.1:65535"],
    ];
    for args in cases {
        let (code, said) = refused(place.path(), args);
        assert_eq!(code, 2, "{args:?}: {said}");
    }
    assert_eq!(files(place.path()), 0);
}
