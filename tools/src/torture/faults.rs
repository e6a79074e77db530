//! What can be made to go wrong, by name.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;

/// How long somebody who may trace a process takes to begin, at most, and how often it is looked.
const TRACE_TIMEOUT: Duration = Duration::from_secs(10);
const TRACE_LOOK: Duration = Duration::from_millis(5);

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Fault {
    /// SIGKILL to the leader.
    Leader,
    /// SIGKILL to any broker.
    Broker,
    /// SIGKILL to all brokers at once, and a start in any order.
    Cluster,
    /// SIGSTOP to a broker, and SIGCONT later: it wakes up and knows nothing of what it missed.
    Pause,
    /// SIGTERM to a broker, which hands over and stops by itself.
    Restart,
    /// Some brokers and the others do not hear each other; clients hear all, or only one side.
    Partition,
    /// Something does not arrive in one direction, and does in the other.
    OneWay,
    /// The network delays, loses, doubles and reorders.
    Network,
    /// Power cut: a broker, or all, go on from what was on their disks at a moment. As root.
    Power,
    /// The disk of a broker, or of all, is full for a while: nothing stops, and it goes on when there is room. As root.
    Full,
    /// A sync of a broker fails: it must stop at once, and the others go on. Needs strace, and the right to use it on others.
    Sync,
}

/// What one word of the list means.
#[derive(Clone, Debug)]
pub(super) struct Chosen(pub(super) Vec<Fault>);

impl Fault {
    /// Those that need no rights and no tool.
    pub(super) const USUAL: [Self; 8] = [
        Self::Leader,
        Self::Broker,
        Self::Cluster,
        Self::Pause,
        Self::Restart,
        Self::Partition,
        Self::OneWay,
        Self::Network,
    ];

    /// Whether each broker has to have a disk of its own for it.
    pub(super) fn needs_disks(self) -> bool {
        matches!(self, Self::Power | Self::Full)
    }

    /// Those that a list on the command line means: names, or `all`.
    pub(super) fn parse(name: &str) -> Result<Chosen, String> {
        if name == "all" {
            return Ok(Chosen(Self::value_variants().to_vec()));
        }
        let found = Self::from_str(name, false).map(|fault| Chosen(vec![fault]));
        found.map_err(|_| {
            let names: Vec<_> = Self::value_variants().iter().map(ToString::to_string).collect();
            format!("the faults are {}; or all", names.join(", "))
        })
    }

    /// Why this kind cannot be had here, if it cannot.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Power | Self::Full => missing_for_images(),
            Self::Sync => missing_tool("strace", "-V").or_else(missing_right_to_trace),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("no kind is hidden");
        f.write_str(value.get_name())
    }
}

fn missing_for_images() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root, to mount images of disks".into());
    }
    // Opening it makes no device.
    if let Err(error) = OpenOptions::new().read(true).write(true).open(Path::new("/dev/loop-control")) {
        return Some(format!("it needs loop devices: /dev/loop-control: {error}"));
    }
    missing_tool("mkfs.ext4", "-V").or_else(|| missing_tool("mount", "-V"))
}

/// A system may let a process trace only its children, or nobody: that is known when it was tried, with somebody who
/// sleeps.
fn missing_right_to_trace() -> Option<String> {
    let why = |error: io::Error| format!("it needs to trace a process, and that cannot be tried: {error}");
    let start = |name: &str, args: &[&str]| {
        let mut command = std::process::Command::new(name);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let mut sleeping = match start("sleep", &["60"]) {
        Ok(sleeping) => sleeping,
        Err(error) => return Some(why(error)),
    };
    let id = sleeping.id().to_string();
    let traced = start("strace", &["-qq", "-p", &id]).and_then(|mut tracing| {
        let traced = is_traced(&id, &mut tracing);
        // One that has ended already needs no end.
        let _ended = tracing.kill();
        tracing.wait()?;
        traced
    });
    let _ended = sleeping.kill();
    match sleeping.wait().and(traced) {
        Ok(true) => None,
        Ok(false) => {
            Some("it needs the right to trace a process that is not one's child: see ptrace(2)".into())
        }
        Err(error) => Some(why(error)),
    }
}

/// Waits until a process is traced, or whoever wants to has given up.
fn is_traced(id: &str, tracing: &mut Child) -> io::Result<bool> {
    let start = Instant::now();
    while start.elapsed() < TRACE_TIMEOUT && tracing.try_wait()?.is_none() {
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_some_and(|tracer| tracer.trim() != "0") {
            return Ok(true);
        }
        thread::sleep(TRACE_LOOK);
    }
    Ok(false)
}

fn missing_tool(name: &str, version: &str) -> Option<String> {
    let mut command = std::process::Command::new(name);
    let ran = command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.err().map(|error| format!("it needs {name}: {error}"))
}
