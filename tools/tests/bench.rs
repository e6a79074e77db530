//! `sequor bench append`, `tail`, `stall` and `relay`, small: that they measure at all, and that what they print is whole.
//!
//! No time is judged here, only counts: whoever runs the tests has other things to do, too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use cluster::{Cluster, is_ignored, sequor};

/// Runs a bench in a directory of its own, which it has to leave as it was.
fn bench(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let output = sequor().arg("bench").args(args).env("TMPDIR", dir.path()).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{args:?}: nothing is left");
    output
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Most datagrams that three brokers send for a commit of one request: two entries and what answers each, the answer to the
/// client, and what QUIC acknowledges on its own. Count.
const DATAGRAMS_PER_COMMIT: f64 = 12.0;
/// Most that they send beside that, however slow the machine: heartbeats and their answers. Count.
const DATAGRAMS_PER_SECOND_AT_REST: f64 = 500.0;

/// The smallest segments: less to fill with zeros.
const SMALL: [&str; 2] = ["--set", "segment_bytes=8388608"];

#[test]
fn a_sweep_tells_of_each_combination_and_writes_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = ["append", "--batch", "1,8,65536", "--in-flight", "1,4", "--seconds", "1", "-o", "json"];
    let args = [&args[..], &["--report", out.to_str().unwrap()], &SMALL].concat();
    let output = bench(&args);
    let told = json(&output);
    let results = told["results"].as_array().unwrap();
    assert_eq!(results.len(), 4, "{told}");
    assert_eq!(told["settings"]["left_out"].as_array().unwrap().len(), 1, "65,536 records fit no request");
    for result in results {
        let number = |field: &str| result[field].as_f64().unwrap_or_else(|| panic!("{field}: {result}"));
        assert!(number("requests") > 0.0, "{result}");
        assert_eq!(number("requests"), number("records") / number("batch"), "{result}");
        assert_eq!(number("records_per_s"), number("records") / number("seconds"));
        assert_eq!(number("bytes_per_s"), number("records_per_s") * 256.0);
        assert!(number("p50_us") > 0.0 && number("p50_us") <= number("p99_us"), "{result}");
        assert!(number("p99_us") <= number("p999_us") && number("p999_us") <= number("max_us"), "{result}");
        assert_eq!((number("rtt_us"), number("brokers")), (0.0, 3.0));
        // An entry is on three disks, and each disk was synced for it or for more than it.
        assert!(number("fdatasyncs") > 0.0 && number("syncs_per_cycle") > 0.0, "{result}");
        assert!(number("datagrams_per_cycle") > 1.0 && number("sends_per_cycle") > 1.0, "{result}");
        assert!(number("net_bytes_per_payload_byte") > 1.0, "two followers got it: {result}");
        assert!(number("log_bytes_per_payload_byte") > 1.0 && number("rss_bytes") > 100_000.0, "{result}");
        for field in ["broker_cpu_us_per_record", "client_cpu_us_per_record", "disk_bytes_per_payload_byte"] {
            assert!(number(field) >= 0.0, "{field}: {result}");
        }
    }
    let one_by_one = &results[0];
    assert_eq!((&one_by_one["batch"], &one_by_one["in_flight"]), (&1.into(), &1.into()));
    if one_by_one["elections"] == 0 {
        let number = |field: &str| one_by_one[field].as_f64().unwrap();
        let cycles = number("cycles");
        for field in ["datagrams_per_cycle", "sends_per_cycle"] {
            let most = DATAGRAMS_PER_COMMIT * cycles + DATAGRAMS_PER_SECOND_AT_REST * number("seconds");
            assert!(number(field) * cycles <= most, "{field}: more than {most} in all: {one_by_one}");
        }
    }
    assert!(told["limits"]["fdatasync_p50_us"].as_u64() > Some(0), "{told}");
    assert!(told["machine"]["processors"].as_u64() > Some(0), "{told}");
    assert!(told["advice"][0].as_str().unwrap().contains("one by one tops out at"), "{told}");
    let page = fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("one by one tops out at"));
    assert!(!page.contains("http"), "it fetches nothing");
}

#[test]
fn what_was_measured_before_a_signal_is_told() {
    const SIGINT: u8 = 2;
    if is_ignored(SIGINT.into()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Twenty seconds, of which the test waits for the first.
    let in_flight: Vec<String> = (1..=20).map(|count| count.to_string()).collect();
    let args = ["bench", "append", "--brokers", "1", "--batch", "1", "--seconds", "1", "-o", "json"];
    let mut sweep = sequor()
        .args(args)
        .args(["--in-flight", &in_flight.join(",")])
        .args(SMALL)
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(sweep.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains(": 1 of 20: ")), "the first is done");
    assert!(Command::new("kill").args(["-INT", &sweep.id().to_string()]).status().unwrap().success());
    let rest: Vec<_> = said.map(Result::unwrap).collect();
    let output = sweep.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + i32::from(SIGINT)), "{rest:?}");
    let told = json(&output);
    let measured = told["results"].as_array().unwrap().len();
    assert!((1..20).contains(&measured), "{told}");
    let doubts = told["doubts"].as_array().unwrap();
    assert!(doubts.last().unwrap().as_str().unwrap().contains("this is not all"), "{told}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_long_way_is_longer_and_an_open_loop_keeps_its_rate() {
    let args = ["append", "--rate", "500", "--batch", "5", "--rtt", "10ms", "--seconds", "1", "-o", "csv"];
    let output = bench(&[&args[..], &["--brokers", "1"], &SMALL].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let head: Vec<_> = lines.next().unwrap().split(',').collect();
    let row: Vec<_> = lines.next().unwrap().split(',').collect();
    assert_eq!((lines.next(), head.len()), (None, row.len()), "{text}");
    let cell = |name: &str| row[head.iter().position(|column| *column == name).unwrap()];
    let number = |name: &str| cell(name).parse::<f64>().unwrap();
    assert_eq!((cell("mode"), cell("rate"), cell("in_flight"), cell("rtt_us")), ("open", "500", "", "10000"));
    assert!(number("p50_us") >= 10_000.0, "no answer is faster than the way: {text}");
    // Those that were meant to leave in the second, give or take those in flight at both of its ends.
    assert!((0.0..=200.0).contains(&number("requests")), "{text}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("round trip 10.0 ms: heartbeats every 30 ms, elections after 150 to 300 ms"),
        "{said}"
    );
}

#[test]
fn an_open_loop_beyond_what_is_possible_says_so_and_ends_soon_after_its_window() {
    // Nobody encrypts a million requests a second in one thread.
    let args =
        ["append", "--rate", "1000000", "--batch", "1", "--size", "100", "--seconds", "1", "-o", "json"];
    let start = Instant::now();
    let told = json(&bench(&[&args[..], &["--brokers", "1"], &SMALL].concat()));
    assert!(start.elapsed() < Duration::from_secs(60), "the whole of the backlog is not sent");
    let result = &told["results"][0];
    let unsent = result["unsent_requests"].as_u64().unwrap();
    assert!(0 < unsent && unsent <= 1_000_000, "{result}");
    // It counts as later than all others: what falls on it is no figure.
    assert_eq!((&result["max_us"], &result["p999_us"]), (&Value::Null, &Value::Null), "{result}");
    assert!(result["records_per_s"].as_f64().unwrap() < 990_000.0, "{result}");
    let doubt = told["doubts"][0].as_str().unwrap();
    assert!(doubt.contains("% of the rate was acknowledged in the window"), "{doubt}");
    assert!(doubt.contains("had not left 5 s after it"), "{doubt}");
}

#[test]
fn a_cluster_that_is_there_is_measured_and_what_cannot_be_seen_is_absent() {
    let cluster = Cluster::start();
    let context = cluster.path("made/context.toml");
    let run = |args: &[&str]| {
        let output = sequor().arg("--context").arg(&context).arg("bench").args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        json(&output)
    };
    let told =
        run(&["append", "--existing", "--batch", "10", "--in-flight", "2", "--seconds", "1", "-o", "json"]);
    let result = &told["results"][0];
    for absent in
        ["broker_cpu_us_per_record", "rss_bytes", "disk_bytes_per_payload_byte", "election_ms", "rtt_us"]
    {
        assert_eq!(result[absent], Value::Null, "{absent}: {result}");
    }
    assert!(result["fdatasyncs"].as_u64() > Some(0), "what brokers say of themselves is there: {result}");
    assert_eq!(told["machine"]["filesystem"], Value::Null);
    assert!(told["advice"][0].as_str().unwrap().contains("in the cluster of the context"), "{told}");

    let read = run(&["tail", "--existing", "--consumers", "2", "-o", "json"]);
    let read = &read["results"][0];
    assert!(read["records"].as_u64() >= result["records"].as_u64(), "{read}, {result}");
    assert_eq!((&read["consumers"], &read["broker_cpu_us_per_record"]), (&2.into(), &Value::Null));
    assert_eq!(read["rtt_us"], Value::Null, "how far they are is not known");
}

#[test]
fn consumers_read_what_the_log_was_filled_with() {
    let args =
        ["tail", "--consumers", "1,3", "--bytes", "1000000", "--size", "100", "--batch", "50", "-o", "json"];
    let told = json(&bench(&[&args[..], &SMALL].concat()));
    let results = told["results"].as_array().unwrap();
    let consumers: Vec<_> = results.iter().map(|result| result["consumers"].as_u64().unwrap()).collect();
    assert_eq!(consumers, [1, 3]);
    for result in results {
        assert_eq!(result["records"], 10_000, "{result}");
        let (values, batches) = (&result["bytes_per_s"], &result["batch_bytes_per_s"]);
        assert!(batches.as_f64() > values.as_f64() && values.as_f64() > Some(0.0), "{result}");
    }
}

#[test]
fn a_steady_load_is_looked_at_in_windows() {
    let args = ["stall", "--rate", "2000", "--batch", "10", "--size", "100", "--seconds", "2", "-o", "json"];
    let told = json(&bench(&[&args[..], &SMALL].concat()));
    let windows = told["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 20);
    let answered: u64 = windows.iter().map(|window| window["requests"].as_u64().unwrap()).sum();
    assert_eq!(told["requests"].as_u64(), Some(answered), "{told}");
    assert_eq!(told["records"].as_u64(), Some(answered * 10), "{told}");
    // 200 requests a second were meant to leave; all of them are answered, some that left before the window in it.
    assert!((380..=800).contains(&answered), "{answered}");
    assert!(told["longest_gap_us"].as_u64() > Some(0) && told["max_us"].as_u64() > Some(0), "{told}");
    let busy = windows.iter().filter(|window| window["requests"].as_u64() > Some(0)).count() as u64;
    let binned: u64 =
        told["histogram"].as_array().unwrap().iter().map(|bin| bin["windows"].as_u64().unwrap()).sum();
    assert_eq!((binned, told["still_windows"].as_u64()), (busy, Some(20 - busy)), "{told}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, told) in [
        (&["append", "--batch", "65536"][..], "do not fit one request"),
        (&["failover", "--batch", "10000", "--size", "4096"], "do not fit one request"),
        (&["append", "--rate", "5", "--in-flight", "1"], "cannot be used with"),
        (&["append", "--rtt", "5"], "time unit needed"),
        (&["append", "--existing", "--rtt", "5ms"], "cannot be used with"),
        (&["tail", "--consumers", "0"], "it has to be a whole number, 1 to 256"),
        (&["append", "--rtt", "1ns"], "it is 0, or at least 1us"),
        (&["append", "--dir", "/no/such/disk"], "there is no directory /no/such/disk: make it first"),
        (&["relay", "--rtt", "5ms", "--link", "tcp:1=2"], "write it as tcp:"),
    ] {
        let output = sequor().arg("bench").args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(told), "{args:?}: {said}");
    }
}

#[test]
fn a_key_that_brokers_refuse_is_told_with_their_reason_at_once() {
    for command in ["append", "failover"] {
        let dir = tempfile::tempdir().unwrap();
        let args = ["bench", command, "--set", "election_ms=1"];
        let start = Instant::now();
        let output = sequor().args(args).env("TMPDIR", dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("ended by itself"), "{command}: {said}");
        assert!(said.contains("election_ms"), "{command}: the broker's reason is shown: {said}");
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "nobody waits for a deadline: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn what_cannot_be_written_is_told_before_anything_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let output = sequor().args(["bench", "append", "--report"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the report"), "{said}");
    assert!(!said.contains("1 of 12"), "nothing was measured: {said}");
}

#[test]
fn a_relay_that_cannot_listen_says_where() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let taken = [("tcp", tcp.local_addr().unwrap()), ("udp", udp.local_addr().unwrap())];
    for (protocol, address) in taken {
        let link = format!("{protocol}:{address}=127.0.0.1:1");
        let args = ["bench", "relay", "--rtt", "5ms", "--link", &link];
        let output = sequor().args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(&format!("the relay cannot listen on {address}")), "{said}");
    }
}

#[test]
fn the_relay_delays_until_its_stdin_ends() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = format!("tcp:127.0.0.1:0={}", target.local_addr().unwrap());
    let mut relay = sequor()
        .args(["bench", "relay", "--rtt", "40ms", "--link", &link])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(relay.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("tcp", target.local_addr().unwrap().to_string().as_str()));
    let mut client = TcpStream::connect(words[1]).unwrap();
    let (mut server, _) = target.accept().unwrap();
    let start = Instant::now();
    client.write_all(b"there").unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).unwrap();
    server.write_all(b"back!").unwrap();
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"back!");
    assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
    drop(relay.stdin.take());
    assert!(relay.wait().unwrap().success());
}
