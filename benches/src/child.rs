//! Child processes that end with us.
//!
//! A child holds the other end of a pipe as its standard input and ends when that closes: so nothing is left behind,
//! however we end. It says that it is ready by one line on its standard output.

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader, Read},
    net::{TcpListener, UdpSocket},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use thiserror::Error;

/// Longest wait for a child to be ready: three nodes of a peer, and who leads them.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// Longest wait for a child that was told to end. Then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// A child could not be started, or is not what it has to be.
#[derive(Debug, Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot start {program}: is it installed and in PATH?")]
    Start {
        /// Which program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended, or closed its output, before it was ready.
    #[error("{program} ended before it was ready; what it wrote to stderr says why")]
    NotReady {
        /// Which program.
        program: String,
    },
    /// It does not say that it is ready.
    #[error("{program} was not ready within {} s", .patience.as_secs())]
    Late {
        /// Which program.
        program: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// No port is free.
    #[error("there is no free port on 127.0.0.1")]
    NoPort(#[source] io::Error),
}

/// A process that ends with this one.
#[derive(Debug)]
pub struct Dependant {
    child: Child,
    output: BufReader<ChildStdout>,
    program: String,
}

impl Dependant {
    /// Starts a program. Its stderr is ours.
    ///
    /// # Errors
    /// [`ChildError::Start`].
    pub fn start<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        environment: impl IntoIterator<Item = (String, OsString)>,
    ) -> Result<Self, ChildError> {
        let name = program.as_ref().to_string_lossy().into_owned();
        let started = Command::new(program.as_ref())
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|source| ChildError::Start { program: name.clone(), source })?;
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Self { child, output, program: name })
    }

    /// Waits for the line that says that it is ready.
    ///
    /// # Errors
    /// [`ChildError::NotReady`], [`ChildError::Late`].
    pub fn ready(&mut self) -> Result<String, ChildError> {
        self.ready_within(READY_TIMEOUT)
    }

    fn ready_within(&mut self, patience: Duration) -> Result<String, ChildError> {
        let until = Instant::now() + patience;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let program = self.program.clone();
            if !is_readable(self.output.get_ref(), until.saturating_duration_since(Instant::now())) {
                return Err(ChildError::Late { program, patience });
            }
            // What is there may be half a line; what follows it is not ours to take.
            let there = self.output.fill_buf().unwrap_or_default();
            let bytes = there.iter().position(|&byte| byte == b'\n').map_or(there.len(), |end| end + 1);
            if bytes == 0 {
                return Err(ChildError::NotReady { program });
            }
            line.extend_from_slice(&there[..bytes]);
            self.output.consume(bytes);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    /// Everything else that it writes, until it closes its output.
    ///
    /// # Errors
    /// Whatever the pipe answers.
    pub fn rest(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Dependant {
    fn drop(&mut self) {
        // Its input is closed, so it ends by itself, and ends what depends on it.
        drop(self.child.stdin.take());
        let until = Instant::now() + END_TIMEOUT;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(LOOK),
                _ => return,
            }
        }
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

/// Whether anything comes out of a pipe within `patience`, its end included.
fn is_readable(pipe: &ChildStdout, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).expect("a few minutes");
    loop {
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&patience)) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Ends this process when its standard input closes: what a dependant starts with.
pub fn end_with_stdin() {
    thread::spawn(|| {
        let _over = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

/// Ports of 127.0.0.1 that are free now, for UDP and TCP alike. All are held at once, so that they differ.
///
/// # Errors
/// [`ChildError::NoPort`].
pub fn free_ports(count: usize) -> Result<Vec<u16>, ChildError> {
    let mut held = Vec::new();
    while held.len() < count {
        let tcp = TcpListener::bind("127.0.0.1:0").map_err(ChildError::NoPort)?;
        let port = tcp.local_addr().map_err(ChildError::NoPort)?.port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            held.push((port, tcp, udp));
        }
    }
    Ok(held.into_iter().map(|(port, ..)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependant_says_when_it_is_ready_and_ends_with_its_input() {
        let script = "echo ready; cat > /dev/null; exit 0";
        let mut child = Dependant::start("sh", ["-c", script], []).unwrap();
        assert_eq!(child.ready().unwrap(), "ready");
        let process = child.id();
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{process}")).exists());
    }

    #[test]
    fn one_that_never_becomes_ready_is_told() {
        let mut child = Dependant::start("sh", ["-c", "exit 3"], []).unwrap();
        assert!(matches!(child.ready(), Err(ChildError::NotReady { .. })));
        assert!(matches!(Dependant::start("no-such-program-here", ["x"], []), Err(ChildError::Start { .. })));
    }

    #[test]
    fn one_that_says_half_a_line_is_not_waited_for_for_ever() {
        let mut child = Dependant::start("sh", ["-c", "printf rea; cat > /dev/null"], []).unwrap();
        let ready = child.ready_within(Duration::from_millis(50));
        assert!(matches!(ready, Err(ChildError::Late { .. })), "{ready:?}");
    }

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(16).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 16);
    }
}
