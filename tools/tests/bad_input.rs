//! Bad input on the command line, in files and on the disk, as a user meets it: the exact message, the exit code, and a
//! cluster that serves on. What comes over the network has its tables in `broker/tests/bad_input/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod made;

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use cluster::{Cluster, DEADLINE, sequor};
use made::fingerprint;
use tempfile::TempDir;

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with a cluster of one broker that does not run.
struct Made {
    dir: TempDir,
}

impl Made {
    /// One that would listen here.
    fn new(listen: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut init = sequor();
        let output =
            init.args(["certs", "init", "--brokers", "1", "--listen", listen]).arg(dir.path().join("made"));
        let output = output.output().unwrap();
        assert_eq!(code(&output), 0, "{}", said(&output));
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("made").join(name)
    }

    /// A copy of a file beside it, with a change.
    fn changed(&self, name: &str, from: &str, to: &str) -> PathBuf {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        let changed = self.path("changed.toml");
        fs::write(&changed, text.replacen(from, to, 1)).unwrap();
        changed
    }

    /// Starts the broker with this configuration, which does not come to anything.
    fn serve(&self, config: &Path) -> Output {
        sequor().args(["serve", "--config"]).arg(config).stdin(Stdio::null()).output().unwrap()
    }
}

/// Checks the code, and that the message has these lines, in this order, one for each cause.
fn expect(case: &str, output: &Output, exit: i32, file: &Path, lines: &[&str]) {
    let said = said(output);
    assert_eq!(code(output), exit, "{case}: {said}");
    assert!(output.stdout.is_empty(), "{case}: {output:?}");
    let mut rest = said.lines();
    for line in lines {
        let line = line.replace("FILE", &file.display().to_string());
        assert!(
            rest.any(|found| found.starts_with(&line)),
            "{case}: {line:?} is not in, or not in its place: {said}"
        );
    }
}

#[test]
fn configuration_files_of_a_broker() {
    let made = Made::new("127.0.0.1:9");
    let not = ["sequor: cannot start the broker", "  because: FILE is not a broker's configuration"];
    let start = not[0];
    let cases: [(&str, &str, &str, &[&str]); 9] = [
        (
            "an unknown key",
            "data = ",
            "dada = ",
            &[
                not[0],
                not[1],
                "  because: TOML parse error at line 4, column 1",
                "unknown field `dada`, expected one of `data`, `listen`, ",
            ],
        ),
        (
            "an unknown key in a table",
            "cert = ",
            "crt = ",
            &[
                not[0],
                not[1],
                "  because: TOML parse error at line 17, column 1",
                "unknown field `crt`, expected one of `ca_peers`, `ca_clients`, `cert`, `key`",
            ],
        ),
        (
            "a text for a number",
            "# tick_ms = 10",
            "tick_ms = \"ten\"",
            &[
                not[0],
                not[1],
                "  because: TOML parse error at line 7, column 11",
                "invalid type: string \"ten\", expected u64",
            ],
        ),
        (
            "a number for an address",
            "\"127.0.0.1:9\"",
            "9",
            &[
                not[0],
                not[1],
                "  because: TOML parse error at line 5, column 10",
                "invalid type: integer `9`, expected socket address",
            ],
        ),
        (
            "no TOML",
            "data = ",
            "data ",
            &[
                not[0],
                not[1],
                "  because: TOML parse error at line 4, column 6",
                "key with no value, expected `=`",
            ],
        ),
        (
            "a number out of its bounds",
            "# mtu = 6500",
            "mtu = 9000",
            &[start, "  because: configuration: mtu is 9000, it has to be between 1200 and 6550"],
        ),
        (
            "two numbers that do not fit",
            "# election_ms = 150",
            "election_ms = 50",
            &[
                start,
                "  because: configuration: election_ms is 50, it has to be at least 3 times heartbeat_ms, which is 30: \
                 else one lost packet is an election",
            ],
        ),
        (
            "a key that is missing",
            "data = ",
            "# data = ",
            &[start, "  because: `data` is not set: give it in the configuration file, or as SEQUOR_DATA"],
        ),
        ("a configuration that is too long", "data = ", LONG.as_str(), &[start, "  because: FILE is "]),
    ];
    let before = fingerprint(&made.path("broker-1"));
    for (case, from, to, lines) in cases {
        let file = made.changed("broker-1.toml", from, to);
        expect(case, &made.serve(&file), 2, &file, lines);
        assert!(fingerprint(&made.path("broker-1")) == before, "{case}: the data were touched");
    }
    let nowhere = made.path("nowhere.toml");
    let lines = [
        start,
        "  because: cannot read the broker's configuration FILE",
        "  because: No such file or directory",
    ];
    expect("a configuration that is not there", &made.serve(&nowhere), 2, &nowhere, &lines);

    let config = made.path("broker-1.toml");
    let mut command = sequor();
    let output = command.env("SEQUOR_MTU", "big").args(["serve", "--config"]).arg(&config).output().unwrap();
    let line = "  because: SEQUOR_MTU=big in the environment: the value is not a number of bytes below 65536";
    expect("a variable of the wrong type", &output, 2, &config, &[start, line]);
    for (set, line) in [
        ("mtu=big", "sequor: --set mtu: the value is not a number of bytes below 65536"),
        (
            "mut=1",
            "error: invalid value 'mut=1' for '--set <KEY=VALUE>': there is no key `mut`; the keys are data, ",
        ),
    ] {
        let output = sequor().args(["serve", "--set", set, "--config"]).arg(&config).output().unwrap();
        expect(set, &output, 2, &config, &[line]);
    }
    assert!(fingerprint(&made.path("broker-1")) == before);
}

/// More than any configuration has.
static LONG: std::sync::LazyLock<String> =
    std::sync::LazyLock::new(|| format!("{}\ndata = ", "#".repeat(1 << 20)));

#[test]
fn files_of_certificates_and_contexts() {
    let made = Made::new("127.0.0.1:9");
    let no_file = "  because: I/O error: No such file or directory";
    let cases: [(&str, &str, &str, &[&str]); 3] = [
        (
            "an authority that is not there",
            "ca-peers.pem",
            "nowhere.pem",
            &[
                "sequor: the broker of FILE does not run",
                "  because: cannot read the peers' authority from ",
                no_file,
            ],
        ),
        (
            "a key of another certificate",
            "broker-1.key",
            "ca-peers.key",
            &[
                "sequor: the broker of FILE does not run",
                "  because: the certificates cannot be used: `tls.cert` and `tls.key`",
            ],
        ),
        (
            "a certificate of somebody else",
            "broker-1.pem",
            "client.pem",
            &[
                "sequor: the broker of FILE does not run",
                "  because: `data` and `tls.cert` do not belong together: the data directory is that of broker 1, whose",
            ],
        ),
    ];
    for (case, from, to, lines) in cases {
        let file = made.changed("broker-1.toml", from, to);
        expect(case, &made.serve(&file), 1, &file, lines);
    }
    let not = "sequor: FILE is not a context file";
    let cases: [(&str, &str, &str, i32, &[&str]); 6] = [
        (
            "an unknown key",
            "\ncluster =",
            "\nkluster =",
            2,
            &[
                not,
                "  because: TOML parse error at line 3, column 1",
                "unknown field `kluster`, expected one of ",
            ],
        ),
        (
            "a text for a number",
            "id = 1",
            "id = \"one\"",
            2,
            &[
                not,
                "  because: TOML parse error at line 6, column 6",
                "invalid type: string \"one\", expected u64",
            ],
        ),
        (
            "no brokers",
            "[[brokers]]",
            "[[borkers]]",
            2,
            &[not, "  because: TOML parse error at line 5, column 3", "unknown field `borkers`"],
        ),
        ("an id of no cluster", "cluster = \"", "cluster = \"zz", 2, &["sequor: FILE: cluster = \"zz"]),
        (
            "an authority that is not there",
            "ca-peers.pem",
            "nowhere.pem",
            1,
            &["sequor: cannot set up TLS", "  because: cannot read the brokers' authority from ", no_file],
        ),
        (
            "a key of another certificate",
            "client.key",
            "ca-peers.key",
            1,
            &[
                "sequor: cannot set up TLS",
                "  because: the client's certificate and key (tls.cert, tls.key) cannot be used",
            ],
        ),
    ];
    for (case, from, to, exit, lines) in cases {
        let file = made.changed("context.toml", from, to);
        let output =
            sequor().args(["--deadline", "200ms", "status", "--context"]).arg(&file).output().unwrap();
        expect(case, &output, exit, &file, lines);
    }
}

#[test]
fn a_port_that_is_taken() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let made = Made::new(&address);
    let config = made.path("broker-1.toml");
    let lines = [
        "sequor: the broker of FILE does not run",
        &format!("  because: cannot listen on {address}"),
        "  because: Address already in use",
    ];
    expect("a port that is taken", &made.serve(&config), 1, &config, &lines);
}

/// Puts a small disk under a broker, in a mount namespace of its own that leaves nothing behind, and fills it. Kills the
/// broker and starts it again while the disk is full. Then gives the disk more room, goes on with the same broker, and
/// reads the whole log. What is said last are the exit codes.
const FULL_DISK: &str = r#"
set -u
exec 3<&0
mount -t tmpfs -o size=30m none made/broker-1 && cp -r kept/. made/broker-1 || exit 77
serve() { exec "$SEQUOR" serve --die-with-stdin --config made/broker-1.toml --set segment_bytes=8388608 <&3; }
remote() { "$SEQUOR" --context made/context.toml "$@"; }
serve 2> first.log & broker=$!
remote --deadline 5s append --producer p lines > /dev/null 2> append.log; append=$?
remote status > status.log 2>&1
kill -9 $broker; wait $broker
serve 2> second.log & broker=$!
remote --deadline 2s append --producer p lines > /dev/null 2> killed.log; killed=$?
mount -o remount,size=200m none made/broker-1
remote append --producer p lines > /dev/null 2> again.log; again=$?
remote tail --from 0 --until-end > read 2> tail.log; tail=$?
remote status >> status.log 2>&1
kill $broker; wait $broker; second=$?
echo append $append, after a kill $killed, with room $again, tail $tail, serve $second
"#;
/// What the script ends with where nobody may mount anything.
const MAY_NOT_MOUNT: i32 = 77;

#[test]
fn a_full_disk_refuses_writes_until_there_is_room_and_loses_nothing() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let made = Made::new(&port.to_string());
    let dir = made.dir.path();
    let copied = Command::new("cp").args(["-r", "made/broker-1", "kept"]).current_dir(dir).status().unwrap();
    assert!(copied.success());
    let lines: String = (0..20_000).map(|n| format!("{n:01000}\n")).collect();
    fs::write(dir.join("lines"), &lines).unwrap();
    let mut shell = Command::new("unshare");
    shell.args(["--map-root-user", "--mount", "sh", "-c", FULL_DISK]).current_dir(dir);
    shell.env("SEQUOR", env!("CARGO_BIN_EXE_sequor")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
    // As long as it is held, the brokers live.
    let _stdin = shell.stdin.take();
    let output = shell.wait_with_output().unwrap();
    let log = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    if code(&output) == MAY_NOT_MOUNT || said(&output).starts_with("unshare: ") {
        return eprintln!("skipped: nobody may mount a small disk here: {}", said(&output));
    }
    let codes = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = ["first.log", "append.log", "second.log", "killed.log", "again.log", "status.log"];
    let logs = names.map(|name| format!("{name}:\n{}", log(name))).join("\n") + &said(&output);
    assert_eq!(codes.trim(), "append 4, after a kill 4, with room 0, tail 0, serve 0", "{logs}");
    for (name, words) in [
        ("first.log", "the disk is full: as leader this broker takes no writes"),
        (
            "append.log",
            "the disk of the leading broker is full: it takes no writes until there is room for another 8388608 bytes",
        ),
        ("second.log", "the disk has room again"),
    ] {
        assert!(log(name).contains(words), "{words} is not in {logs}");
    }
    let disks: Vec<_> = log("status.log")
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    assert_eq!(disks, ["disk", "full", "disk", "ok"], "{logs}");
    assert!(log("read") == lines, "every line once, in its order: {logs}");
}

/// Appends one line and reads it back: the cluster serves, and has everything that was ever appended.
fn is_served_after(case: &str, cluster: &Cluster, lines: &mut Vec<String>) {
    lines.push(format!("after {case}"));
    let path = cluster.path("good.txt");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    cluster.ok(&["append", "--producer", "good", path.to_str().unwrap()]);
    let read = cluster.ok(&["tail", "--from", "0", "--until-end", "-o", "json"]);
    assert_eq!(String::from_utf8(read).unwrap().lines().count(), lines.len(), "after {case}");
}

#[test]
fn commands_to_a_cluster() {
    let mut cluster = Cluster::start();
    let mut lines = Vec::new();
    is_served_after("nothing", &cluster, &mut lines);
    let long = cluster.path("long.txt");
    fs::write(&long, "x".repeat(1 << 20) + "\n").unwrap();
    let long = long.to_str().unwrap().to_owned();
    let name = "n".repeat(256);
    let cases: [(&str, &[&str], i32, &str); 6] = [
        (
            "a line over its limit",
            &["append", "--producer", "bad", &long],
            1,
            "sequor: line 1 of the input, which begins at byte 0, is longer than 982912 bytes, the most that fits one batch",
        ),
        (
            "an offset out of range",
            &["tail", "--from", "1000", "--until-end"],
            3,
            "sequor: the log has no offset 1000: it holds 0 up to, not including, 2",
        ),
        (
            "a name over its limit",
            &["append", "--producer", &name, &long],
            2,
            "for '--producer <NAME>': it has 256 bytes, and must have 1 to 255",
        ),
        ("a name without a letter", &["append", "--producer", "", &long], 2, "for '--producer <NAME>': "),
        ("a file that is not there", &["append", "--producer", "bad", "/nowhere"], 1, "/nowhere"),
        (
            "an offset that is none",
            &["tail", "--from", "middle", "--until-end"],
            2,
            "'middle' for '--from <FROM>'",
        ),
    ];
    for (case, args, exit, told) in cases {
        let output = cluster.run(args);
        contains(case, &output, exit, told);
        is_served_after(case, &cluster, &mut lines);
    }

    // Right certificates, and the id of another cluster.
    let text = fs::read_to_string(cluster.path("made/context.toml")).unwrap();
    let id = text.split('"').nth(1).unwrap().to_owned();
    let other = "0123456789abcdef0123456789abcdef";
    let context = cluster.path("made/other.toml");
    fs::write(&context, text.replace(&id, other)).unwrap();
    let output = sequor()
        .args(["--deadline", "2s", "append", "--producer", "bad", &long, "--context"])
        .arg(&context)
        .output();
    let told = format!(
        "the client means cluster {other}, this broker belongs to {id}: use the context file of this cluster"
    );
    contains("the id of another cluster", &output.unwrap(), 4, &told);
    is_served_after("the id of another cluster", &cluster, &mut lines);

    // The certificate of another cluster's client.
    let made = Made::new("127.0.0.1:9");
    for file in ["client.pem", "client.key"] {
        fs::copy(made.path(file), cluster.path("made").join(format!("other-{file}"))).unwrap();
    }
    fs::write(&context, text.replace("client.", "other-client.")).unwrap();
    let output = sequor()
        .args(["--deadline", "2s", "append", "--producer", "bad", &long, "--context"])
        .arg(&context)
        .output();
    contains("another cluster's certificate", &output.unwrap(), 4, "invalid peer certificate: UnknownIssuer");
    is_served_after("another cluster's certificate", &cluster, &mut lines);

    let leader = cluster.leader();
    let others: Vec<_> = (0..3).filter(|broker| *broker != leader).collect();
    others.iter().for_each(|broker| cluster.kill(*broker));
    let short = cluster.path("short.txt");
    fs::write(&short, "short\n").unwrap();
    let begun = Instant::now();
    let output = cluster.run(&["--deadline", "2s", "append", "--producer", "bad", short.to_str().unwrap()]);
    contains("no majority", &output, 4, "deadline");
    assert!(begun.elapsed() < DEADLINE / 2, "it ended at its deadline");
    others.iter().for_each(|broker| cluster.launch(*broker));
    is_served_after("no majority", &cluster, &mut lines);
}

/// Checks the code, and that the message has these words.
fn contains(case: &str, output: &Output, exit: i32, words: &str) {
    assert_eq!(code(output), exit, "{case}: {}", said(output));
    assert!(said(output).contains(words), "{case}: {words} is not in {}", said(output));
}
