//! `wal verify` and `wal dump`: what they find, what they show, and that they change nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod made;

use std::{
    fs::{self, OpenOptions},
    hash::{BuildHasher as _, RandomState},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use bytes::{Bytes, BytesMut};
use cluster::{
    Cluster,
    appending::{Appending, Input, assert_log_is},
    sequor,
};
use made::{Made, Writing, fingerprint, flip, segment};
use sequor_broker::core::effect::{Effect, Written};
use sequor_client::protocol::{Epoch, Offset, batch::Batch};
use sequor_wal::Kind;
use serde_json::Value;

fn wal(args: &[&str], directories: &[&Path]) -> Output {
    sequor().arg("wal").args(args).args(directories).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Verifies as JSON; the exit code has to be `code`, and nothing may have changed.
fn verified(directories: &[&Path], code: i32) -> Value {
    let before: Vec<_> = directories.iter().map(|directory| fingerprint(directory)).collect();
    let output = wal(&["verify", "-o", "json"], directories);
    assert_eq!(output.status.code(), Some(code), "{}{}", told(&output), said(&output));
    let after: Vec<_> = directories.iter().map(|directory| fingerprint(directory)).collect();
    assert!(before == after, "verify changes nothing");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["sound"], code == 0, "{printed}");
    printed
}

/// The places of all findings.
fn places(printed: &Value) -> Vec<(String, u64)> {
    let damage = printed["directories"][0]["damage"].as_array().unwrap();
    let place = |finding: &Value| {
        let words = ["expected", "found"].map(|word| finding[word].as_str().unwrap().is_empty());
        assert_eq!(words, [false, false], "{finding}");
        (finding["file"].as_str().unwrap().to_owned(), finding["offset"].as_u64().unwrap())
    };
    damage.iter().map(place).collect()
}

/// Dumps as JSON; the exit code has to be `code`.
fn dumped(data: &Path, args: &[&str], code: i32) -> Vec<Value> {
    let output = wal(&[&["dump", "-o", "json"], args].concat(), &[data]);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    told(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

/// A log of a few segments, all of it proven.
fn some_log(made: &Made, broker: u64) {
    let mut writing = made.write(broker);
    writing.put(Kind::Normal, "");
    writing.open();
    for number in 0..30 {
        writing.append(&[&format!("{number} of broker"), &"long ".repeat(60)]);
    }
    writing.witness();
    writing.save();
}

#[test]
fn the_directories_of_a_cluster_that_ran_are_sound_and_the_same() {
    let mut cluster = Cluster::start();
    let lines: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    let input = Input::new(lines.clone().into_bytes());
    let leader = cluster.leader();
    let mut append = Appending::start(&cluster, "import/1", 20, &input);
    append.feed(2000);
    append.reach(1000);
    cluster.kill(leader);
    append.feed(3000);
    append.reach(2500);
    cluster.launch(leader);
    append.finish();
    cluster.whole();
    let data: Vec<_> = (1..=3).map(|id| cluster.path(&format!("made/broker-{id}"))).collect();
    let directories: Vec<_> = data.iter().map(PathBuf::as_path).collect();

    let in_use = wal(&["verify"], &directories[..1]);
    assert_eq!(in_use.status.code(), Some(3), "{}", said(&in_use));
    assert!(said(&in_use).contains("in use by another process"), "{}", said(&in_use));
    assert_eq!(wal(&["dump"], &directories[..1]).status.code(), Some(3));
    assert_log_is(&cluster, lines.as_bytes());

    cluster.kill_all();
    let printed = verified(&directories, 0);
    for (id, directory) in (1..).zip(printed["directories"].as_array().unwrap()) {
        assert_eq!(directory["broker"], id);
        assert_eq!(directory["damage_count"], 0);
        assert_eq!(directory["first_index"], 1);
        assert_eq!(directory["records"], 3000);
        assert!(directory["batches"].as_u64() >= Some(150), "{directory}");
        assert_eq!(directory["entries"], directory["last_index"]);
        let vote = directory["vote"]["term"].as_u64();
        assert!(vote >= directory["term"].as_u64() && vote >= Some(2), "{directory}");
    }
    let common = &printed["common"];
    assert_eq!(common["same"], true);
    let (all, two) = (common["committed_in_all"].as_u64(), common["committed_in_two"].as_u64());
    assert!(all > Some(0) && two >= all, "{common}");

    let table = wal(&["verify"], &directories);
    assert_eq!(table.status.code(), Some(0));
    for word in ["unproven tail", "broker-3", "no damage", "the log is the same wherever it was committed"] {
        assert!(told(&table).contains(word), "{word} is not in {}", told(&table));
    }

    for broker in 0..3 {
        cluster.launch(broker);
    }
    cluster.whole();
    assert_log_is(&cluster, lines.as_bytes());
}

#[test]
fn a_flipped_bit_anywhere_in_a_proven_block_is_found_and_refused_by_a_broker() {
    let made = Made::new(1);
    some_log(&made, 1);
    let data = made.data(1);
    let lines = dumped(&data, &[], 0);
    let blocks = of_type(&lines, "block");
    let proven = &blocks[..blocks.len() - 1];
    assert!(proven.len() > 30 && blocks.last().unwrap()["entries"] == 0, "the witness proves all others");
    let seed = RandomState::new().hash_one(0);
    let mut random = seed;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for _ in 0..20 {
        let block = proven[below(proven.len() as u64) as usize];
        let number = |field: &str| block[field].as_u64().unwrap();
        let file = block["file"].as_str().unwrap();
        let (byte, bit) = (number("offset") + below(number("bytes")), below(8) as u8);
        flip(&data.join(file), byte, bit);
        let what = format!("bit {bit} of byte {byte} of {file}, seed {seed}");
        let printed = verified(&[&data], 1);
        assert_eq!(places(&printed), [(file.to_owned(), number("offset"))], "{what}");
        let good = dumped(&data, &[], 1);
        assert_eq!(of_type(&good, "fault").len(), 1, "{what}");
        assert_eq!(of_type(&good, "block").len(), blocks.len() - 1, "{what}: all others are shown");
        flip(&data.join(file), byte, bit);
    }
    verified(&[&data], 0);

    let block = proven[below(proven.len() as u64) as usize];
    let (file, offset) = (block["file"].as_str().unwrap(), block["offset"].as_u64().unwrap());
    flip(&data.join(file), offset + 70, 3);
    let config = made.path("made/broker-1.toml");
    let served =
        sequor().args(["serve", "--set", "listen=127.0.0.1:0", "--config"]).arg(config).output().unwrap();
    assert_eq!(served.status.code(), Some(1), "{}", said(&served));
    let words = format!("{file} is damaged at byte {offset}");
    assert!(said(&served).contains(&words), "{words} is not in {}", said(&served));
    let table = wal(&["verify"], &[&data]);
    assert!(told(&table).contains(&format!("{file} at byte {offset}\n  expected ")), "{}", told(&table));
    assert!(said(&table).contains("1 finding in"), "{}", said(&table));
}

#[test]
fn all_findings_are_named_and_those_beyond_the_limit_are_counted() {
    let made = Made::new(1);
    let mut writing = made.write(1);
    for _ in 0..500 {
        writing.put(Kind::Normal, "");
    }
    writing.witness();
    writing.save();
    let data = made.data(1);
    let lines = dumped(&data, &[], 0);
    // Every second one, so that no two lie side by side.
    let chosen: Vec<_> =
        of_type(&lines, "block").into_iter().filter(|b| b["offset"].as_u64().unwrap() % 1024 == 0).collect();
    assert!(chosen.len() > 150);
    for block in &chosen[..150] {
        flip(&data.join(block["file"].as_str().unwrap()), block["offset"].as_u64().unwrap() + 20, 1);
    }
    flip(&data.join("identity"), 20, 0);
    flip(&data.join("vote"), 20, 0);
    let printed = verified(&[&data], 1);
    let listed = places(&printed);
    assert_eq!((listed.len(), &printed["directories"][0]["damage_count"]), (100, &152.into()));
    let files: Vec<_> = listed.iter().map(|(file, _)| file.as_str()).take(3).collect();
    assert_eq!(files, ["identity", "vote", "segment-00000000000000000001"]);
    assert!(told(&wal(&["verify"], &[&data])).contains("and 52 more"));
}

#[test]
fn a_torn_end_is_shown_and_is_no_damage() {
    let made = Made::new(1);
    let mut writing = made.write(1);
    writing.put(Kind::Normal, "");
    writing.open();
    writing.append(&["a", "b"]);
    writing.save();
    let data = made.data(1);
    let printed = &verified(&[&data], 0)["directories"][0];
    assert_eq!((&printed["unproven"]["first_index"], &printed["torn"]), (&3.into(), &Value::Null));

    // The beginning of a block, as if the power had gone before all of it was on the disk.
    let lines = dumped(&data, &[], 0);
    let end = of_type(&lines, "block").last().unwrap()["offset"].as_u64().unwrap() + 512;
    let file = OpenOptions::new().read(true).write(true).open(segment(&data, 1)).unwrap();
    let mut block = [0; 512];
    file.read_exact_at(&mut block, 512).unwrap();
    file.write_all_at(&block, end).unwrap();
    drop(file);
    let printed = &verified(&[&data], 0)["directories"][0];
    assert_eq!(printed["torn"]["offset"], end, "{printed}");
    assert_eq!((&printed["entries"], &printed["records"]), (&3.into(), &2.into()));
    assert!(told(&wal(&["verify"], &[&data])).contains("entry 3, a torn write"));
    let faults = dumped(&data, &[], 0);
    assert_eq!(of_type(&faults, "fault")[0]["offset"], end);

    let mut writing = made.write(1);
    writing.term = 2;
    writing.put(Kind::Normal, "");
    writing.save();
    let printed = &verified(&[&data], 0)["directories"][0];
    assert_eq!(
        (&printed["torn"], &printed["segments"]),
        (&Value::Null, &2.into()),
        "the next segment hides it"
    );
    let lines = dumped(&data, &[], 0);
    assert_eq!(of_type(&lines, "fault")[0]["hidden"], true);
    assert_eq!(of_type(&lines, "block").last().unwrap()["reason"], "cut");
}

/// An entry whose checksums and chain are right, and whose content is not.
fn spoilt(writing: &mut Writing, spoil: impl Fn(&mut BytesMut)) -> Bytes {
    let written = writing.written(&["a", "b"]);
    let mut batch = BytesMut::from(&written.batch.bytes()[..]);
    spoil(&mut batch);
    let batch = Batch::trusted(batch.freeze()).unwrap();
    writing.data(&[Effect::Append(Written { batch, ..written })])
}

#[test]
fn an_entry_of_which_a_broker_can_make_no_sense_is_found() {
    let offset_of_batch = 512 + 64 + 28 + 24 + 8 + 16;
    type Make = fn(&mut Writing) -> Bytes;
    let cases: [(&str, u64, &str, Make); 7] = [
        ("a flipped checksum", 24, "with checksum 0x", |w| spoilt(w, |batch| batch[4] ^= 1)),
        ("a value that is another one", 24, "with checksum 0x", |w| {
            spoilt(w, |batch| *batch.last_mut().unwrap() ^= 1)
        }),
        ("no effects", 0, "effects that this version knows", |_| "nonsense".into()),
        ("an effect that is not known", 24, "effects that this version knows", |w| {
            let mut data = BytesMut::from(&spoilt(w, |_| ())[..]);
            data[24..26].copy_from_slice(&999_u16.to_le_bytes());
            data.freeze()
        }),
        ("a log time that falls", 0, "log time of at least 2 ms", |w| {
            let written = w.written(&["a"]);
            let envelope = sequor_broker::core::effect::Envelope { level: 1, log_time_ms: 1, wall_ms: 0 };
            sequor_broker::core::effect::encode(envelope, &[Effect::Append(written)])
        }),
        ("an offset that leaves a gap", 24, "a batch at offset 1", |w| {
            let written = w.written(&["a"]);
            w.data(&[Effect::Append(Written { base: Offset(7), ..written })])
        }),
        ("a digest of other records", 24, "records with digest", |w| {
            spoilt(w, |batch| {
                batch[50] ^= 1;
                let mut crc = crc32(&batch[..4], &batch[8..]);
                batch[4..8].copy_from_slice(crc.as_mut());
            })
        }),
    ];
    for (what, at, expected, make) in cases {
        let made = Made::new(1);
        let mut writing = made.write(1);
        writing.open();
        writing.append(&["before"]);
        let data = make(&mut writing);
        writing.put(Kind::Normal, data);
        writing.witness();
        writing.save();
        let printed = verified(&[&made.data(1)], 1);
        let offset = offset_of_batch - 24 - 24 + 1024 + at;
        assert_eq!(places(&printed), [(format!("segment-{:020}", 1), offset)], "{what}: {printed}");
        let found = printed["directories"][0]["damage"][0]["expected"].as_str().unwrap();
        assert!(found.contains(expected), "{what}: {found}");
        let lines = dumped(&made.data(1), &[], 0);
        assert_eq!(of_type(&lines, "entry").len(), 3, "{what}: the log itself is sound, and dumped whole");
    }
}

/// CRC32 (IEEE) of two pieces, bit by bit.
fn crc32(a: &[u8], b: &[u8]) -> [u8; 4] {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    };
    (!a.iter().chain(b).fold(!0, step)).to_le_bytes()
}

#[test]
fn the_first_index_at_which_logs_differ_is_named() {
    let made = Made::new(3);
    for broker in 1..=3 {
        let mut writing = made.write(broker);
        writing.put(Kind::Normal, "");
        writing.open();
        writing.append(&["same", "same"]);
        writing.append(&[if broker == 2 { "other" } else { "right" }]);
        writing.append(&["same"]);
        writing.witness();
        writing.save();
    }
    let data: Vec<_> = (1..=3).map(|broker| made.data(broker)).collect();
    let directories: Vec<_> = data.iter().map(PathBuf::as_path).collect();
    let printed = verified(&directories, 1);
    assert_eq!(printed["common"]["first_difference"], 4, "{printed}");
    let chains: Vec<_> = (0..3).map(|at| &printed["common"]["held"][at]["chain"]).collect();
    assert!(chains[0] == chains[2] && chains[0] != chains[1], "{printed}");
    let table = wal(&["verify"], &directories);
    assert!(said(&table).contains("the logs differ at index 4"), "{}", said(&table));
    assert_eq!(told(&table).matches("bytes of data").count(), 3, "{}", told(&table));
    assert_eq!(verified(&[&data[0], &data[2]], 0)["common"]["committed_in_two"], 5);

    let others = Made::new(1);
    some_log(&others, 1);
    let strangers = verified(&[&data[0], &others.data(1)], 1);
    assert_eq!(strangers["common"]["other"], "cluster");
}

#[test]
fn what_is_not_committed_may_differ() {
    let made = Made::new(3);
    for broker in 1..=3 {
        let mut writing = made.write(broker);
        writing.open();
        writing.append(&["same"]);
        writing.witness();
        // Broker 3 has something of a leader that was deposed before it could commit it.
        writing.append(&[if broker == 3 { "deposed" } else { "committed" }]);
        if broker != 3 {
            writing.append(&["more"]);
        }
        writing.save();
    }
    let data: Vec<_> = (1..=3).map(|broker| made.data(broker)).collect();
    let directories: Vec<_> = data.iter().map(PathBuf::as_path).collect();
    let common = &verified(&directories, 0)["common"];
    assert_eq!(
        (&common["committed_in_all"], &common["committed_in_two"]),
        (&2.into(), &3.into()),
        "{common}"
    );
}

#[test]
fn a_dump_shows_what_was_decided_and_no_payload_unless_asked() {
    let made = Made::new(1);
    let mut writing = made.write(1);
    writing.put(Kind::Normal, "");
    writing.open();
    writing.append(&["first value", "second value"]);
    writing.put(Kind::ConfChange, "x");
    writing.save();
    let data = made.data(1);
    let text = told(&wal(&["dump"], &[&data]));
    for part in [
        "block segment-00000000000000000001 offset=512 ",
        "reason=first entries=1 first_index=1 durable=0 commit=0 crc=0x",
        "  entry index=1 term=1 kind=no-op ",
        "    open name=\"p\" id=1 epoch=1 instance=05050505",
        "    append id=1 epoch=1 first_sequence=0 last_sequence=1 settled=0 base_offset=0 records=2 bytes=",
        "log_time_ms=2 ",
        "  entry index=4 term=1 kind=conf-change ",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    for args in [&["dump"][..], &["dump", "-o", "json"]] {
        let without = told(&wal(args, &[&data]));
        assert!(!without.contains("value") && !without.contains("key"), "{without}");
        let with = told(&wal(&[args, &["--values"]].concat(), &[&data]));
        assert!(with.contains("second value") && with.contains("key of first value"), "{with}");
    }
    let record = &dumped(&data, &["--values"], 0)[5]["effects"][0]["content"][1];
    assert_eq!(record["offset"], 1);
    assert_eq!((&record["key"], &record["value"]), (&"key of second value".into(), &"second value".into()));
}

#[test]
fn a_dump_begins_and_ends_where_it_is_told() {
    let made = Made::new(1);
    some_log(&made, 1);
    let data = made.data(1);
    let indexes = |args: &[&str]| -> Vec<u64> {
        let lines = dumped(&data, args, 0);
        of_type(&lines, "entry").iter().map(|entry| entry["index"].as_u64().unwrap()).collect()
    };
    assert_eq!(indexes(&[]), (1..=32).collect::<Vec<_>>());
    assert_eq!(indexes(&["--from", "30"]), [30, 31, 32]);
    assert_eq!(indexes(&["--from", "7", "-n", "2"]), [7, 8]);
    assert_eq!(indexes(&["--from", "33"]), [0; 0]);
    assert_eq!(indexes(&["-n", "0"]), [0; 0]);
    let first = &dumped(&data, &["--from", "7"], 0)[0];
    assert_eq!((&first["type"], &first["first_index"]), (&"block".into(), &7.into()));
}

#[test]
fn packed_batches_are_sound_and_their_bytes_are_judged() {
    let made = Made::new(1);
    let mut writing = made.write(1);
    writing.open();
    let sound = writing.packed(&["a".repeat(500), "b".repeat(500)]);
    let data = writing.data(&[Effect::Append(sound.clone())]);
    writing.put(Kind::Normal, data);
    // One whose packed bytes are nonsense under a checksum that fits.
    let mut bytes = sound.batch.bytes().to_vec();
    let end = bytes.len();
    bytes[64..end].fill(0xff);
    let nonsense = Batch::trusted(bytes.into()).unwrap().restamp(Epoch(1));
    writing.witness();
    writing.save();
    let printed = verified(&[&made.data(1)], 0);
    let totals = &printed["directories"][0];
    assert_eq!((&totals["batches"], &totals["records"]), (&1.into(), &2.into()));

    let made = Made::new(1);
    let mut writing = made.write(1);
    writing.open();
    let data = writing.data(&[Effect::Append(sound.clone())]);
    writing.put(Kind::Normal, data);
    let bad = Written { base: Offset(2), batch: nonsense, ..sound };
    let data = writing.data(&[Effect::Append(bad)]);
    writing.put(Kind::Normal, data);
    writing.witness();
    writing.save();
    let printed = verified(&[&made.data(1)], 1);
    assert_eq!(places(&printed).len(), 1, "{printed}");
    let finding = &printed["directories"][0]["damage"][0];
    let expected = finding["expected"].as_str().unwrap();
    assert!(
        expected.starts_with("records that can be unpacked in the batch of sequences 0 to 1"),
        "{finding}"
    );
}

#[test]
fn a_tail_ends_at_a_batch_whose_checksum_does_not_fit() {
    let made = Made::alone();
    let mut writing = made.write(1);
    writing.open();
    writing.append(&["one", "two"]);
    let mut rotten = writing.written(&["three"]);
    let mut bytes = rotten.batch.bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    rotten.batch = Batch::trusted(bytes.into()).unwrap();
    let data = writing.data(&[Effect::Append(rotten)]);
    writing.put(Kind::Normal, data);
    writing.append(&["four"]);
    writing.witness();
    writing.save();

    let log = fs::File::create(made.path("log")).unwrap();
    let mut serve = sequor();
    serve.args(["serve", "--die-with-stdin", "--config"]).arg(made.path("made/broker-1.toml"));
    let mut broker = serve.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut tail = sequor();
    let output = tail.arg("--context").arg(made.path("made/context.toml")).arg("tail").output().unwrap();
    broker.kill().unwrap();
    broker.wait().unwrap();
    let log = fs::read_to_string(made.path("log")).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}{log}", said(&output));
    assert_eq!(told(&output), "one\ntwo\n", "what comes before it is printed");
    for word in ["the batch at offset 2 cannot be read", "`sequor wal verify`", "bad checksum"] {
        assert!(said(&output).contains(word), "{word} is not in {}", said(&output));
    }
}

#[test]
fn a_dump_ends_quietly_when_its_reader_leaves() {
    let made = Made::new(1);
    let mut writing = made.write(1);
    for _ in 0..8000 {
        let index = writing.log.last_index() + 1;
        let (term, kind, data) = (1, Kind::Normal, Bytes::new());
        writing.log.append(vec![sequor_wal::Entry { index, term, kind, data }]).unwrap();
    }
    writing.settle();
    writing.save();
    let mut dump = sequor()
        .args(["wal", "dump"])
        .arg(made.data(1))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(dump.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("block "), "{first}");
    let output = dump.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["verify", "dump"] {
        let output = wal(&[command], &[dir.path()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("this is no data directory"), "{}", said(&output));
        let output = wal(&[command], &[&dir.path().join("nothing")]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("there is no data directory at"), "{}", said(&output));
        assert_eq!(wal(&[command], &[]).status.code(), Some(2));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_small_files_of_a_broker_are_looked_at() {
    let made = Made::new(1);
    some_log(&made, 1);
    let data = made.data(1);
    let genesis = format!("checkpoint-{:020}", 0);
    for (file, byte) in [("identity", 20), (genesis.as_str(), 40), ("vote", 4096 + 18)] {
        flip(&data.join(file), byte, 2);
        let printed = verified(&[&data], 1);
        assert_eq!(places(&printed).len(), 1, "{printed}");
        assert_eq!(places(&printed)[0].0, file);
        flip(&data.join(file), byte, 2);
    }
    fs::File::create(data.join("pins")).unwrap().write_all(b"no pins").unwrap();
    assert_eq!(places(&verified(&[&data], 1)), [("pins".to_owned(), 0)]);
    fs::remove_file(data.join("pins")).unwrap();

    // A copy without a lock can be looked at, and gets none.
    fs::remove_file(data.join("LOCK")).unwrap();
    verified(&[&data], 0);
}
