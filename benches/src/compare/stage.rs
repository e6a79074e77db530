//! Where a contestant runs: started afresh on a directory of its own, measured, ended, the directory removed.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use sequor_benches::{
    child::{ChildError, Dependant},
    delay::{Carries, Links},
    figure::{Figure, Figures},
    interruption::Interruption,
    point::Point,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use thiserror::Error;

use crate::contestant::Contestant;

/// Nodes of every contestant.
const NODES: usize = 3;
/// Links to each node of a peer: its clients' and its two to other nodes.
const LINKS_PER_NODE: usize = 3;
/// How long a peer is warmed up, if it is measured for at least as long: a Java machine takes its time. Seconds.
const WARM_UP_SECONDS_MAX: u64 = 10;
/// How durability begins of what is synced before it is acknowledged.
const SYNCED: &str = "fsync";
/// Pause between two looks whether somebody wants us to end.
const LOOK: Duration = Duration::from_millis(50);
/// The one segment of the null log in place is as long as that of the sketch that the goals count against.
const IN_PLACE_SEGMENT_BYTES: &str = "--segment-bytes=268435456";
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

/// What a system does before it acknowledges, in the words of its script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Begins with `fsync` if what is acknowledged is on stable storage.
    pub(crate) durability: String,
    /// What else was set.
    pub(crate) settings: String,
}

impl Setup {
    fn own(settings: &str) -> Self {
        Self { durability: format!("{SYNCED} by a majority"), settings: settings.to_owned() }
    }

    /// Whether what is acknowledged is on stable storage.
    pub(crate) fn is_synced(&self) -> bool {
        self.durability.starts_with(SYNCED)
    }
}

/// What a peer's script says when its nodes run.
#[derive(Debug, Deserialize)]
struct Started {
    #[serde(flatten)]
    setup: Setup,
    /// Ids of the nodes' processes.
    processes: Vec<u32>,
}

/// What one run gave.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) figure: Figure,
    pub(crate) setup: Setup,
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
    pub(crate) interruption: Interruption,
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
    ) -> Result<Measured, RunError> {
        let place = self.place()?;
        match &*contestant.system {
            "sequor" => {
                let figure = self.run_sequor(point, time, place.path())?;
                Ok(Measured { figure, setup: Setup::own("defaults, TLS") })
            }
            "null" => {
                let figure = self.run_null(point, time, place.path(), false)?;
                Ok(Measured { figure, setup: Setup::own("nothing but bytes, TLS") })
            }
            "null-in-place" => {
                let figure = self.run_null(point, time, place.path(), true)?;
                Ok(Measured { figure, setup: Setup::own("the same, one segment over and over") })
            }
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
        let mut bench = Command::new(&self.sequor);
        measured(bench.args(words).env("TMPDIR", place), "sequor bench append", &self.interruption)
    }

    fn run_null(
        &self,
        point: Point,
        time: Duration,
        place: &Path,
        in_place: bool,
    ) -> Result<Figure, RunError> {
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
        let mut null = Command::new(own.with_file_name("nulllog"));
        null.args(words);
        if in_place {
            null.args(["--in-place", IN_PLACE_SEGMENT_BYTES]);
        }
        measured(&mut null, "nulllog run", &self.interruption)
    }

    fn run_peer(
        &self,
        peer: &str,
        contestant: &Contestant,
        point: Point,
        time: Duration,
        place: &Path,
    ) -> Result<Measured, RunError> {
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
        let figure = measured(&mut driver, "peer-driver", &self.interruption)?;
        Ok(Measured { figure, setup: started.setup })
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
fn measured(command: &mut Command, program: &str, interruption: &Interruption) -> Result<Figure, RunError> {
    let name = || program.to_owned();
    let done = output(command, interruption);
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

/// What a program prints. If somebody wants us to end, it is asked to end, and waited for: it has things to remove.
fn output(command: &mut Command, interruption: &Interruption) -> io::Result<Output> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let process = Pid::from_child(&child);
    let (told, done) = mpsc::channel();
    thread::spawn(move || told.send(child.wait_with_output()));
    let mut is_asked = false;
    loop {
        match done.recv_timeout(LOOK) {
            Ok(done) => return done,
            Err(RecvTimeoutError::Timeout) if interruption.has_come() && !is_asked => {
                // One that has ended meanwhile, by the same Ctrl-C, is none to ask.
                let _gone = kill_process(process, Signal::TERM);
                is_asked = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("nobody waits for it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_what_it_does_before_it_acknowledges() {
        let text =
            r#"{"version":"1","durability":"page cache: no fsync","settings":"R3","processes":[1,2,3]}"#;
        let started: Started = serde_json::from_str(text).unwrap();
        assert_eq!((started.setup.settings.as_str(), started.setup.is_synced()), ("R3", false));
        assert!(Setup::own("").is_synced());
    }

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
        let never = Interruption::default();
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo first >&2; echo why >&2; exit 1"]);
        assert_eq!(measured(&mut failing, "it", &never).unwrap_err().to_string(), "failed: it: why");
        let mut silent = Command::new("true");
        assert!(matches!(measured(&mut silent, "it", &never), Err(RunError::Unread { .. })));
        assert!(matches!(
            measured(&mut Command::new("no-such-program"), "it", &never),
            Err(RunError::Child(_))
        ));
    }
}
