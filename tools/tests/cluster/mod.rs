//! A cluster of real broker processes for the tests, and the program under test as its user runs it.
//!
//! Nothing here waits for time to pass: it waits for a condition, with a deadline.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod appending;

use std::{
    fs::{self, File},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything. The slowest thing is an election on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The smallest segments: less to fill with zeros at each start, and more of them.
const SEGMENT_BYTES: &str = "segment_bytes=8388608";
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// The program, without the environment of whoever runs the tests.
pub(crate) fn sequor() -> Command {
    without_own_variables(Command::new(env!("CARGO_BIN_EXE_sequor")))
}

fn without_own_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SEQUOR_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a line that the program printed to be pasted, with the program under test first in the path, and not for long.
pub(crate) fn paste(line: &str) -> Output {
    let own = Path::new(env!("CARGO_BIN_EXE_sequor")).parent().unwrap().to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).unwrap();
    let mut shell = without_own_variables(Command::new("sh"));
    shell.args(["-c", line]).env("PATH", path).env("SEQUOR_DEADLINE", "100ms").output().unwrap()
}

/// Whether the program is started to ignore a signal, because whoever runs the tests does, as under `nohup`. It then does.
pub(crate) fn is_ignored(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (number - 1) != 0
}

/// Waits until `condition` gives something.
///
/// # Panics
/// At the deadline, with the name of the condition.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Three broker processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: TempDir,
    brokers: Vec<Option<Child>>,
}

impl Cluster {
    /// Makes a cluster with free ports and starts it.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> =
            sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
        drop(sockets);
        let made = sequor()
            .args(["certs", "init", "--listen", &addresses.join(",")])
            .arg(dir.path().join("made"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut cluster = Self { dir, brokers: vec![None, None, None] };
        for broker in 0..3 {
            cluster.launch(broker);
        }
        cluster
    }

    /// A path in the test's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a broker that does not run. Brokers count from 0 here; their ids count from 1.
    pub(crate) fn launch(&mut self, broker: usize) {
        assert!(self.brokers[broker].is_none(), "broker {} runs already", broker + 1);
        let log = self.path(&format!("broker-{}.log", broker + 1));
        let child = sequor()
            .args(["serve", "--die-with-stdin", "--set", SEGMENT_BYTES, "--config"])
            .arg(self.path(&format!("made/broker-{}.toml", broker + 1)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(log).unwrap())
            .spawn()
            .unwrap();
        self.brokers[broker] = Some(child);
    }

    /// Kills a broker with SIGKILL.
    pub(crate) fn kill(&mut self, broker: usize) {
        if let Some(mut child) = self.brokers[broker].take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Hands a running broker over to the test, which has to end it.
    pub(crate) fn take(&mut self, broker: usize) -> Child {
        self.brokers[broker].take().expect("it runs")
    }

    /// Kills all brokers with SIGKILL, as nearly at once as one can.
    pub(crate) fn kill_all(&mut self) {
        for child in self.brokers.iter_mut().flatten() {
            child.kill().unwrap();
        }
        for mut child in self.brokers.iter_mut().filter_map(Option::take) {
            child.wait().unwrap();
        }
    }

    /// A command on this cluster.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = sequor();
        command.arg("--context").arg(self.path("made/context.toml")).args(args);
        command
    }

    /// Runs a command on this cluster to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that has to succeed; what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// What each broker says of itself.
    pub(crate) fn status(&self) -> Vec<Value> {
        // A broker that is dead says nothing: this is how long it is waited for.
        let output = self.run(&["--deadline", "1s", "status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}\n{}", self.logs()));
        status["brokers"].as_array().unwrap().clone()
    }

    /// The broker that leads, once a majority of those that run follow it. Counted from 0.
    pub(crate) fn leader(&self) -> usize {
        let leader = wait_for("a leader", || {
            let status = self.status();
            let leader = status.iter().find(|broker| broker["role"] == "leader")?["id"].as_u64()?;
            let followers = status.iter().filter(|broker| broker["leader"] == leader).count();
            (followers >= 2).then_some(leader)
        });
        usize::try_from(leader).unwrap() - 1
    }

    /// Waits until some broker has applied the log up to `end`.
    pub(crate) fn reach(&self, end: u64) {
        wait_for(&format!("the log to reach offset {end}"), || {
            let ends = self.status().into_iter().filter_map(|broker| broker["end_offset"].as_u64());
            ends.max().filter(|found| *found >= end)
        });
    }

    /// Waits until every broker answers and has applied what the leader has.
    pub(crate) fn whole(&self) {
        wait_for("all brokers to be level", || {
            let status = self.status();
            let leader = status.iter().find(|broker| broker["role"] == "leader")?;
            let level = |broker: &Value| {
                broker["leader"] == leader["id"]
                    && broker["end_offset"].as_u64() >= leader["end_offset"].as_u64()
            };
            status.iter().all(level).then_some(())
        });
    }

    /// The brokers' logs, for the message of a test that failed.
    pub(crate) fn logs(&self) -> String {
        let log = |id: usize| {
            let text = fs::read_to_string(self.path(&format!("broker-{id}.log"))).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("broker {id}:\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        };
        (1..=3).map(log).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for child in self.brokers.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
