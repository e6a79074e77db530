//! Ctrl-C and its like while an `append` runs: what was read is written, and how far it came is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use cluster::{Cluster, appending::append, is_ignored, wait_for};

/// An `append` whose input the test writes; killed when it is dropped.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    confirmed: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, confirmed: BufReader::new(output) }
    }

    fn write(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Writes two lines and waits until the first of them is on its way: the second is read after it was handed over.
    fn hand_over(&mut self, lines: [&str; 2]) {
        for line in lines {
            self.write(line);
            let input = self.input.as_ref().unwrap();
            wait_for("the line to be read", || {
                (rustix::io::ioctl_fionread(input).unwrap() == 0).then_some(())
            });
        }
    }

    /// Writes one line and waits until it is confirmed.
    fn append(&mut self, line: &str) {
        self.write(line);
        let mut confirmed = String::new();
        self.confirmed.read_line(&mut confirmed).unwrap();
        assert!(confirmed.contains(r#""records":1,"#), "{confirmed}");
    }

    fn send(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Its exit code, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let status = wait_for("append to end", || self.child.try_wait().unwrap());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is none to end.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn is_there(cluster: &Cluster) -> String {
    String::from_utf8(cluster.ok(&["tail", "--until-end"])).unwrap()
}

#[test]
fn what_was_read_is_written_and_how_far_it_came_is_told() {
    let cluster = Cluster::start();
    let signals = [("-INT", 130, "SIGINT"), ("-TERM", 143, "SIGTERM"), ("-HUP", 129, "SIGHUP")];
    let mut all = String::new();
    for (signal, code, name) in signals {
        if is_ignored(code - 128) {
            continue;
        }
        let mut running = Running::start(cluster.command(&["append", "-o", "json", "--producer", name]));
        running.append("a\n");
        running.append("b\n");
        running.write("half a line");
        running.send(signal);
        let (ended, said) = running.end();
        assert_eq!(ended, i32::try_from(code).ok(), "{said}");
        for told in ["only the lines up to 2 are known to be written. Run the same command again", name] {
            assert!(said.contains(told), "{told}: {said}");
        }
        let (code, _, said) = append(&cluster, &["--producer", name], b"a\nb\nhalf a line\n");
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("2 lines were already there; appended 1 in"), "{said}");
        all += "a\nb\nhalf a line\n";
    }
    assert_eq!(is_there(&cluster), all);
}

#[test]
fn who_must_not_repeat_the_command_is_told_so_also_then() {
    let cluster = Cluster::start();
    let mut rest =
        Running::start(cluster.command(&["append", "-o", "json", "--producer", "p", "--continue"]));
    let mut session = Running::start(cluster.command(&["append", "-o", "json"]));
    rest.append("a\n");
    session.append("b\n");
    let told = [
        "only the first 1 line of this input is known to be written. Do not run",
        "Running the same command again would",
    ];
    for (running, told) in [rest, session].into_iter().zip(told) {
        running.send("-TERM");
        let (code, said) = running.end();
        assert_eq!(code, Some(143), "{said}");
        assert!(said.contains(told) && said.contains("SIGTERM"), "{said}");
    }
}

#[test]
fn the_second_signal_does_not_wait_for_brokers_that_are_gone() {
    if is_ignored(2) {
        return;
    }
    let mut cluster = Cluster::start();
    let mut running = Running::start(cluster.command(&["append", "-o", "json", "--producer", "p"]));
    running.append("a\n");
    cluster.kill_all();
    running.hand_over(["b\n", "c\n"]);
    // Two of one kind might count as one. Which of these comes first, nobody says.
    running.send("-INT");
    running.send("-TERM");
    let (code, said) = running.end();
    assert!(matches!(code, Some(130 | 143)), "{code:?}: {said}");
    assert!(said.contains("may or may not be written") && said.contains("producer show"), "{said}");
}

#[test]
fn a_signal_that_is_to_be_ignored_is() {
    let cluster = Cluster::start();
    let plain = cluster.command(&["append", "-o", "json", "--producer", "p"]);
    let mut ignoring = Command::new("sh");
    ignoring
        .args(["-c", r#"trap "" INT HUP; exec "$0" "$@""#])
        .arg(plain.get_program())
        .args(plain.get_args());
    let mut running = Running::start(ignoring);
    running.append("a\n");
    running.send("-INT");
    running.send("-HUP");
    running.append("b\n");
    running.input = None;
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(is_there(&cluster), "a\nb\n");
}
