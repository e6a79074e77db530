//! On what was measured: without it a figure says nothing.

use std::{fs, path::Path, thread};

use rustix::{fs::statfs, system::uname};
use serde::Serialize;

/// Magic numbers of file systems, and their names.
const FILESYSTEMS: [(u64, &str); 7] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (TMPFS, "tmpfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x6969, "nfs"),
];
/// A file system that keeps nothing: its sync is none.
const TMPFS: u64 = 0x0102_1994;

/// See the file's header.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Machine {
    pub(super) sequor: &'static str,
    /// Whether it was built to be measured.
    pub(super) optimised: bool,
    pub(super) system: String,
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) memory_bytes: u64,
    /// Where the logs lie; absent if the brokers are not ours.
    pub(super) filesystem: Option<String>,
    /// Programs that wanted to run, of the last minute: others than ours make every figure worse.
    pub(super) load_average: f64,
}

impl Machine {
    /// The one that this runs on, with the logs in a directory.
    pub(super) fn read(dir: Option<&Path>) -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let named = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = named(&text("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let load = text("/proc/loadavg");
        let system = uname();
        let words = [system.sysname(), system.release(), system.machine()].map(|word| word.to_string_lossy());
        Self {
            sequor: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            system: words.join(" "),
            processor: named(&text("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: thread::available_parallelism().map_or(1, Into::into),
            memory_bytes: kib << 10,
            filesystem: dir.and_then(filesystem),
            load_average: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }

    /// What makes the figures worth less than they look; for people.
    pub(super) fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if !self.optimised {
            doubts.push("this is a debug build: measure with one made by `cargo build --release`".to_owned());
        }
        if self.filesystem.as_deref() == Some("tmpfs") {
            doubts.push(
                "the logs lie in memory (tmpfs), where a sync costs nothing: name a --dir on a disk"
                    .to_owned(),
            );
        }
        if self.load_average > self.processors as f64 / 2.0 {
            doubts.push(format!(
                "the machine was busy before it began: load average {:.1} on {} processors",
                self.load_average, self.processors
            ));
        }
        doubts
    }
}

fn filesystem(dir: &Path) -> Option<String> {
    let magic = statfs(dir).ok()?.f_type as u64 & 0xffff_ffff;
    let known = FILESYSTEMS.iter().find(|(number, _)| *number == magic);
    Some(known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_and_what_is_wrong_with_it_is_said() {
        let machine = Machine::read(Some(Path::new("/")));
        assert!(machine.processors > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.system.starts_with("Linux ") && machine.filesystem.is_some(), "{machine:?}");
        let bad = Machine {
            optimised: false,
            filesystem: Some("tmpfs".into()),
            load_average: 99.0,
            processors: 2,
            ..machine
        };
        assert_eq!(bad.doubts().len(), 3, "{:?}", bad.doubts());
        let good = Machine { optimised: true, filesystem: Some("ext4".into()), load_average: 0.1, ..bad };
        assert!(good.doubts().is_empty());
    }
}
