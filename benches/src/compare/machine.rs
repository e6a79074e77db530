//! What it was measured on: without it, no figure means anything.

use std::{collections::BTreeMap, fs, process::Command};

use sequor_benches::busy;
use serde::Serialize;

use crate::{contestant, stage::Stage};

/// The machine, and the versions of everything on it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Type of the file system with the data, and what the kernel thinks of the disk's cache.
    pub(crate) disk: String,
    /// Programs that wanted to run in the minute before it began.
    pub(crate) load_average: f64,
    /// Version of each contestant that is there.
    pub(crate) versions: BTreeMap<String, String>,
}

impl Machine {
    /// Looks.
    pub(crate) fn look(stage: &Stage) -> Self {
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let data = stage.data.clone().unwrap_or_else(std::env::temp_dir);
        let mut versions = BTreeMap::new();
        for system in contestant::all().into_iter().map(|row| row.system) {
            let version = match &*system {
                "null" | "null-in-place" => continue,
                "sequor" => said(Command::new(&stage.sequor).arg("--version")),
                peer => stage.version(peer),
            };
            versions.extend(version.map(|version| (system, version)));
        }
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: busy::load_average(),
            disk: said(Command::new("stat").args(["-f", "-c", "%T"]).arg(data)).unwrap_or_default(),
            versions,
        }
    }

    /// In a line.
    pub(crate) fn line(&self) -> String {
        let Self { processor, cores, memory_gib, kernel, disk, .. } = self;
        format!("{processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}, {disk}")
    }

    /// Why the figures are worth less than they look, if they are.
    pub(crate) fn doubt(&self) -> Option<String> {
        busy::doubt(self.load_average)
    }

    /// Who is there, in which version.
    pub(crate) fn versions(&self) -> String {
        let each = self.versions.iter().map(|(system, version)| format!("{system} {version}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned();
    (!text.is_empty()).then_some(text.trim_start_matches("sequor ").to_owned())
}
