//! A running `append` whose input the test holds back: it gets line after line, as far as it was fed, so that what is
//! on its way when something is killed does not depend on how fast the machine is.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Stdio},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use serde_json::Value;

use super::{Cluster, DEADLINE};

/// The bytes of an input, and where its lines end.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) bytes: Arc<[u8]>,
    ends: Arc<[usize]>,
}

impl Input {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut ends: Vec<usize> =
            (1..).zip(&bytes).filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end).collect();
        if ends.last() != Some(&bytes.len()) {
            ends.push(bytes.len());
        }
        Self { bytes: bytes.into(), ends: ends.into() }
    }

    pub(crate) fn lines(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Where the first `lines` lines end, in bytes.
    fn end(&self, lines: u64) -> usize {
        lines.checked_sub(1).map_or(0, |last| self.ends[last as usize])
    }
}

/// A running `append`, with the batches that it acknowledged so far.
#[derive(Debug)]
pub(crate) struct Appending {
    input: Input,
    fed: usize,
    feed: Option<mpsc::Sender<Range<usize>>>,
    feeder: Option<JoinHandle<()>>,
    child: Child,
    acks: mpsc::Receiver<String>,
    errors: PathBuf,
    /// End offset of the last acknowledged batch.
    pub(crate) end: u64,
}

impl Appending {
    /// Runs `append` on an input, of which nothing is there yet.
    pub(crate) fn start(cluster: &Cluster, producer: &str, batch: usize, input: &Input) -> Self {
        let errors = cluster.path("append.err");
        let mut child = cluster
            .command(&["append", "-o", "json", "--producer", producer, "--batch", &batch.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let acks = lines_of(child.stdout.take().unwrap());
        let mut stdin = child.stdin.take().unwrap();
        let (feed, portions) = mpsc::channel::<Range<usize>>();
        let bytes = Arc::clone(&input.bytes);
        let feeder = thread::spawn(move || {
            for portion in portions {
                // The reader may have been killed.
                if stdin.write_all(&bytes[portion]).is_err() {
                    return;
                }
            }
        });
        let (feed, feeder) = (Some(feed), Some(feeder));
        Self { input: input.clone(), fed: 0, feed, feeder, child, acks, errors, end: 0 }
    }

    /// Lets it have the first `lines` lines.
    pub(crate) fn feed(&mut self, lines: u64) {
        let end = self.input.end(lines);
        if end > self.fed {
            let feed = self.feed.as_ref().expect("it is fed until it is finished");
            feed.send(self.fed..end).expect("the feeder takes what it gets until its reader is killed");
            self.fed = end;
        }
    }

    /// Waits until the log is acknowledged up to `end`.
    pub(crate) fn reach(&mut self, end: u64) {
        while self.end < end {
            assert!(self.next_ack(), "append ended after offset {}: {}", self.end, self.errors());
        }
    }

    /// Takes the next acknowledgement. False if there will be no other.
    fn next_ack(&mut self) -> bool {
        let line = match self.acks.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("no acknowledgement after offset {} within {DEADLINE:?}: {}", self.end, self.errors())
            }
        };
        let ack: Value = serde_json::from_str(&line).unwrap();
        let (first, last) = (ack["first_offset"].as_u64().unwrap(), ack["last_offset"].as_u64().unwrap());
        assert_eq!(last + 1 - first, ack["records"].as_u64().unwrap(), "{ack}");
        assert!(self.end == 0 || first == self.end, "acknowledged {ack} after offset {}", self.end);
        self.end = last + 1;
        true
    }

    /// Kills it with SIGKILL. What it had still printed was acknowledged, too.
    pub(crate) fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        while self.next_ack() {}
        self.end
    }

    /// Lets it have the rest, and waits for its own end, which has to be a good one.
    pub(crate) fn finish(mut self) -> u64 {
        self.feed(self.input.lines());
        self.feed = None;
        while self.next_ack() {}
        let status = self.child.wait().unwrap();
        assert!(status.success(), "append: {status}: {}", self.errors());
        self.end
    }

    /// Lets it have the rest, and waits for its end, which has to be with `code`; what it said.
    pub(crate) fn fail(mut self, code: i32) -> String {
        self.feed(self.input.lines());
        self.feed = None;
        while self.next_ack() {}
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "append: {}", self.errors());
        self.errors()
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.feed = None;
        let _ = self.feeder.take().map(JoinHandle::join);
    }
}

/// The whole lines that a command prints, so that they can be waited for with a deadline.
fn lines_of(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let (to_test, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        // The last line of a command that was killed may be cut off, in the middle of a character for all we know.
        while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if to_test.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    lines
}

/// The log, tailed to its end, has to be the input.
pub(crate) fn assert_log_is(cluster: &Cluster, expected: &[u8]) {
    let tailed = cluster.ok(&["tail", "--from", "start", "--until-end", "-o", "raw"]);
    if tailed != expected {
        let at = tailed.iter().zip(expected).take_while(|(a, b)| a == b).count();
        let (found, wanted) = (tailed.len(), expected.len());
        panic!("the log is not the input: {found} bytes, not {wanted}, and they differ at byte {at}");
    }
}

/// Writes an input to a file, for the commands that want one.
pub(crate) fn write(path: &Path, input: &Input) {
    fs::write(path, &input.bytes).unwrap();
}

/// Runs `append` on bytes; exit code, what it printed, what it said.
pub(crate) fn append(cluster: &Cluster, args: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut child = cluster
        .command(&[&["append"], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses its input does not read all of it.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}
