//! The bytes of every message and of a batch, pinned: `golden/<name>.hex`.
//!
//! A difference means that brokers and clients of two versions no longer understand each other. If that is meant, run
//! `SEQUOR_GOLDEN=write cargo test -p sequor-client --test golden`, look at what changed, and commit it with its reason.

#![allow(clippy::unwrap_used, reason = "all of this file is a test")]

mod messages;

use std::{fmt::Write as _, fs, path::PathBuf};

use sequor_client::protocol::{
    RequestId,
    frame::{Frame, encode_client_hello, encode_request, encode_response, encode_server_hello},
};

fn all() -> Vec<(String, Vec<u8>)> {
    let flat = |frame: Frame| frame.into_chunks().flatten().collect::<Vec<u8>>();
    let mut all = vec![
        ("batch".to_owned(), messages::batch().to_vec()),
        ("batch-packed".to_owned(), messages::packed_batch().to_vec()),
        ("batch-small".to_owned(), messages::small_batch().to_vec()),
        ("client-hello".to_owned(), flat(encode_client_hello(&messages::client_hello()).unwrap())),
        ("server-hello".to_owned(), flat(encode_server_hello(&messages::server_hello()).unwrap())),
    ];
    for (name, context, request) in messages::requests() {
        let frame = encode_request(RequestId(0x0a0b), &context, &request).unwrap();
        all.push((format!("request-{name}"), flat(frame)));
    }
    for (name, response) in messages::responses() {
        all.push((format!("answer-{name}"), flat(encode_response(RequestId(0x0a0b), &response).unwrap())));
    }
    all
}

/// 16 bytes a line.
fn hex(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x} ").expect("a string takes everything"));
        text.truncate(text.trim_end().len());
        text + "\n"
    })
}

#[test]
fn the_bytes_of_every_message_are_as_they_were() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let write = std::env::var("SEQUOR_GOLDEN").is_ok_and(|value| value == "write");
    for (name, bytes) in all() {
        let path = folder.join(format!("{name}.hex"));
        let found = hex(&bytes);
        if write {
            fs::write(&path, &found).unwrap();
        }
        let expected =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(found, expected, "{} differs from what the library writes now", path.display());
    }
    let found = fs::read_dir(folder).expect("the folder was just read").count();
    assert_eq!(found, all().len(), "a golden file is left over from a message that is gone");
}
