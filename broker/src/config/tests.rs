//! Layers, relations, and what is said when they are wrong.

use std::{error::Error as _, ffi::OsString};

use super::*;

const FILE: &str = r#"
    data = "broker-1"
    listen = "127.0.0.1:7400"
    election_ms = 300

    [tls]
    ca_peers = "ca-peers.pem"
    ca_clients = "/etc/sequor/ca-clients.pem"
    cert = "broker-1.pem"
    key = "broker-1.key"
"#;

/// A file, an environment, and words that the complaint has to contain.
type Case<'a> = (String, &'a [(&'a str, &'a str)], &'a [&'a str]);

/// Loads `text` from a file in its own directory; gives the directory too, so that paths can be compared.
fn load(text: &str, environment: &[(&str, &str)], flags: Layer) -> (PathBuf, Result<Config, ConfigError>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.toml");
    fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    (directory.path().to_path_buf(), Config::load(&path, environment, flags))
}

/// The message of an error with those of its causes, as a log shows it.
fn complaint(text: &str, environment: &[(&str, &str)]) -> String {
    let error = load(text, environment, Layer::default()).1.unwrap_err();
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[test]
fn paths_of_the_file_are_relative_to_the_file() {
    let (directory, config) = load(FILE, &[], Layer::default());
    let config = config.unwrap();
    assert_eq!(config.data, directory.join("broker-1"));
    assert_eq!(config.tls.cert, directory.join("broker-1.pem"));
    assert_eq!(config.tls.ca_clients, Path::new("/etc/sequor/ca-clients.pem"));
}

#[test]
fn the_upper_layer_wins_key_by_key() {
    let environment =
        [("SEQUOR_ELECTION_MS", "600"), ("SEQUOR_TICK_MS", "5"), ("SEQUOR_TLS_KEY", "other.key")];
    let flags = Layer { tick_ms: Some(15), heartbeat_ms: Some(60), ..Layer::default() };
    let config = load(FILE, &environment, flags).1.unwrap();
    let got = (config.tick_ms, config.heartbeat_ms, config.election_ms, config.segment_bytes);
    assert_eq!(got, (15, 60, 600, 64 << 20), "flag over environment over file over default");
    assert_eq!(
        config.tls.key,
        Path::new("other.key"),
        "the environment is relative to the working directory"
    );
}

#[test]
fn variables_that_are_empty_or_of_others_are_skipped() {
    let environment = [("SEQUOR_ELECTION_MS", ""), ("SEQUOR_CONTEXT", "x.toml"), ("PATH", "/bin")];
    assert_eq!(load(FILE, &environment, Layer::default()).1.unwrap().election_ms, 300);
}

#[test]
fn every_key_has_a_variable_and_can_be_set() {
    let mut layer = Layer::default();
    for key in KEYS {
        let value = if key == "listen" { "[::1]:7400" } else { "1200" };
        layer.set(key, value).unwrap();
    }
    assert_eq!(layer.tls.ca_peers.as_deref(), Some(Path::new("1200")));
    assert_eq!(variable("tls.ca_peers"), "SEQUOR_TLS_CA_PEERS");
}

#[test]
fn what_is_wrong_is_named() {
    let with = |line: &str| format!("{line}\n{FILE}");
    let cases: [Case<'_>; 11] = [
        (String::new(), &[], &["`data` is not set", "SEQUOR_DATA"]),
        (with("tick = 10"), &[], &["line 1", "tick", "expected"]),
        (with("tick_ms = \"fast\""), &[], &["line 1", "fast"]),
        (FILE.replace("cert =", "certificate ="), &[], &["line 9", "certificate"]),
        (FILE.replace("127.0.0.1:7400", "localhost"), &[], &["line 3"]),
        (FILE.into(), &[("SEQUOR_MTU", "big")], &["SEQUOR_MTU=big", "bytes"]),
        (with("tick_ms = 0"), &[], &["tick_ms is 0", "between 1"]),
        (with("heartbeat_ms = 25"), &[], &["heartbeat_ms is 25", "multiple of tick_ms"]),
        (with("heartbeat_ms = 110"), &[], &["election_ms is 300", "3 times heartbeat_ms"]),
        (with("segment_bytes = 8388609"), &[], &["segment_bytes is 8388609", "4096"]),
        (with("mtu = 9000"), &[], &["mtu is 9000", "6550"]),
    ];
    for (text, environment, words) in cases {
        let said = complaint(&text, environment);
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Layer::from_file(Path::new("/nowhere/broker.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/broker.toml"), "{error}");
}
