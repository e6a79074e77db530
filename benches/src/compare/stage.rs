//! Where a contestant runs: started afresh on a directory of its own, measured, ended, the directory removed.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use sequor_benches::{
    child::{ChildError, Dependant},
    delay::{Carries, Links},
    figure::{Figure, Figures},
    point::Point,
};
use serde::Deserialize;
use tempfile::TempDir;
use thiserror::Error;

use crate::contestant::Contestant;

/// Nodes of every contestant.
const NODES: usize = 3;
/// Links to each node of a peer: its clients' and its two to other nodes.
const LINKS_PER_NODE: usize = 3;
/// How long a peer is warmed up, if it is measured for at least as long: a Java machine takes its time. Seconds.
const WARM_UP_SECONDS_MAX: u64 = 10;
/// Exit code of a script that cannot install its peer.
const CANNOT_INSTALL: i32 = 69;

/// A contestant has no figure.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// It is not there.
    #[error("skipped: {why}")]
    Skipped {
        /// In the words of its script.
        why: String,
    },
    /// It, or its driver, failed.
    #[error("failed: {why}")]
    Failed {
        /// What was said.
        why: String,
    },
    /// A process could not be started.
    #[error("failed: {0}")]
    Child(#[from] ChildError),
    /// The system does not let us.
    #[error("failed: cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// What was printed is no figure.
    #[error("failed: what {program} printed is no figure: {source}")]
    Unread {
        /// Which program.
        program: String,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// What a peer's script says when its nodes run.
#[derive(Debug, Deserialize)]
pub(crate) struct Started {
    /// Ids of the nodes' processes.
    pub(crate) processes: Vec<u32>,
}

/// Where all of them run.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) sequor: PathBuf,
    pub(crate) driver: PathBuf,
    pub(crate) peers: PathBuf,
    pub(crate) data: Option<PathBuf>,
    pub(crate) size: u64,
    pub(crate) rtt_us: u64,
}

impl Stage {
    /// Makes sure that a contestant can run; installs it if that is wanted.
    ///
    /// # Errors
    /// [`RunError::Skipped`].
    pub(crate) fn prepare(&self, contestant: &Contestant, install: bool) -> Result<(), RunError> {
        if !contestant.is_peer() {
            return Ok(());
        }
        let script = self.peers.join(&contestant.system);
        if install {
            let done = Command::new(&script).arg("install").stdin(Stdio::null()).output();
            let done = done.map_err(|source| RunError::System { what: "run a script", source })?;
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stdout);
                let last = said.lines().last().unwrap_or("its script failed");
                let why = last.trim_start_matches("skipped: ").to_owned();
                return Err(match done.status.code() {
                    Some(CANNOT_INSTALL) => RunError::Skipped { why },
                    _ => RunError::Failed { why },
                });
            }
        }
        if self.version(&contestant.system).is_none() {
            let why = format!("it is not installed: `{} install` does that, or --install", script.display());
            return Err(RunError::Skipped { why });
        }
        Ok(())
    }

    /// The version of a peer, if it is installed.
    pub(crate) fn version(&self, peer: &str) -> Option<String> {
        let said = Command::new(self.peers.join(peer)).arg("version").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        (said.status.success() && !text.is_empty()).then_some(text)
    }

    /// Runs a contestant at a point for so long.
    ///
    /// # Errors
    /// [`RunError`].
    pub(crate) fn run(
        &self,
        contestant: &Contestant,
        point: Point,
        time: Duration,
    ) -> Result<Figure, RunError> {
        let place = self.place()?;
        match &*contestant.system {
            "sequor" => self.run_sequor(point, time, place.path()),
            "null" => self.run_null(point, time, place.path()),
            peer => self.run_peer(peer, contestant, point, time, place.path()),
        }
    }

    fn place(&self) -> Result<TempDir, RunError> {
        let made = match &self.data {
            Some(data) => std::fs::create_dir_all(data).and_then(|()| tempfile::tempdir_in(data)),
            None => tempfile::tempdir(),
        };
        made.map_err(|source| RunError::System { what: "make a directory for the data", source })
    }

    fn run_sequor(&self, point: Point, time: Duration, place: &Path) -> Result<Figure, RunError> {
        let words = [
            "bench".to_owned(),
            "append".to_owned(),
            format!("--batch={}", point.batch),
            format!("--in-flight={}", point.in_flight),
            format!("--size={}", self.size),
            format!("--seconds={}", time.as_secs()),
            format!("--rtt={}us", self.rtt_us),
            "-o=json".to_owned(),
        ];
        // It makes its cluster where temporary files go.
        measured(Command::new(&self.sequor).args(words).env("TMPDIR", place), "sequor bench append")
    }

    fn run_null(&self, point: Point, time: Duration, place: &Path) -> Result<Figure, RunError> {
        let own = std::env::current_exe()
            .map_err(|source| RunError::System { what: "find this program", source })?;
        let words: [OsString; 9] = [
            "run".into(),
            format!("--point={point}").into(),
            format!("--size={}", self.size).into(),
            format!("--seconds={}", time.as_secs()).into(),
            format!("--rtt-us={}", self.rtt_us).into(),
            "--sequor".into(),
            self.sequor.clone().into(),
            "-o=json".into(),
            OsString::from_iter([std::ffi::OsStr::new("--data="), place.as_os_str()]),
        ];
        measured(Command::new(own.with_file_name("nulllog")).args(words), "nulllog run")
    }

    fn run_peer(
        &self,
        peer: &str,
        contestant: &Contestant,
        point: Point,
        time: Duration,
        place: &Path,
    ) -> Result<Figure, RunError> {
        let links = Links::lay(&self.sequor, Carries::Tcp, NODES * LINKS_PER_NODE, self.rtt_us)?;
        let mut nodes = Dependant::start(
            self.peers.join(peer),
            ["start".as_ref(), place.as_os_str()],
            environment(&links, self.rtt_us),
        )?;
        let line = nodes.ready()?;
        let started: Started = serde_json::from_str(&line)
            .map_err(|source| RunError::Unread { program: format!("benches/peers/{peer}"), source })?;
        let joined = |ids: Vec<String>| ids.join(",");
        let endpoints = links.known[..NODES].iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut driver = Command::new(&self.driver);
        driver
            .arg(peer.split('-').next().unwrap_or(peer))
            .arg(format!("--endpoint={}", joined(endpoints)))
            .arg(format!("--point={point}"))
            .arg(format!("--how={}", contestant.how.word()))
            .arg(format!("--size={}", self.size))
            .arg(format!("--seconds={}", time.as_secs()))
            .arg(format!("--warm-up={}", WARM_UP_SECONDS_MAX.min(time.as_secs())))
            .arg(format!("--rtt-us={}", self.rtt_us))
            .arg(format!("--process={}", joined(started.processes.iter().map(u32::to_string).collect())));
        if peer == "kafka" {
            driver.arg("--flush-messages=1");
        }
        measured(&mut driver, "peer-driver")
    }
}

/// What a script is told of its ports.
fn environment(links: &Links, rtt_us: u64) -> Vec<(String, OsString)> {
    let mut told = vec![("RTT_MS".to_owned(), rtt_us.div_ceil(1000).to_string().into())];
    for (at, what) in ["CLIENT", "PEER", "PEER2"].into_iter().enumerate() {
        for (ports, whose) in [(&links.own, "OWN"), (&links.known, "KNOWN")] {
            let three = ports[at * NODES..(at + 1) * NODES].iter().map(u16::to_string).collect::<Vec<_>>();
            told.push((format!("{what}_{whose}"), three.join(" ").into()));
        }
    }
    told
}

/// The one figure that a program prints.
fn measured(command: &mut Command, program: &str) -> Result<Figure, RunError> {
    let name = || program.to_owned();
    let done = command.stdin(Stdio::null()).output();
    let done = done.map_err(|source| ChildError::Start { program: name(), source })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let why = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(RunError::Failed { why: format!("{program}: {why}") });
    }
    let figures: Figures = serde_json::from_slice(&done.stdout)
        .map_err(|source| RunError::Unread { program: name(), source })?;
    let none = || RunError::Failed { why: format!("{program} measured nothing") };
    figures.results.into_iter().next().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_told_its_ports() {
        let links = Links::lay(Path::new("none"), Carries::Tcp, NODES * LINKS_PER_NODE, 0).unwrap();
        let told: std::collections::BTreeMap<_, _> = environment(&links, 1500).into_iter().collect();
        assert_eq!(told["RTT_MS"], "2");
        assert_eq!(told.len(), 7);
        let ports = |name: &str| told[name].to_str().unwrap().split(' ').count();
        assert!(["CLIENT_OWN", "PEER_KNOWN", "PEER2_OWN"].into_iter().all(|name| ports(name) == NODES));
        assert_ne!(told["CLIENT_OWN"], told["PEER_OWN"]);
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo first >&2; echo why >&2; exit 1"]);
        assert_eq!(measured(&mut failing, "it").unwrap_err().to_string(), "failed: it: why");
        let mut silent = Command::new("true");
        assert!(matches!(measured(&mut silent, "it"), Err(RunError::Unread { .. })));
        assert!(matches!(measured(&mut Command::new("no-such-program"), "it"), Err(RunError::Child(_))));
    }
}
