//! The corpus of the fuzz targets, replayed: every input that was ever worth keeping must still do no harm.
//!
//! `tools/fuzz` lets inputs grow for hours, with a nightly toolchain and a sanitizer. Here those that they grow from, and what
//! was kept of them, go through the same entry points, with the stable one, in seconds. An input that once showed a bug stays
//! here for ever, as `bug-…`.
//!
//! The inputs that all others grew from, `seed-…`, are made by `seeds.rs`. If a format has changed on purpose, or there
//! is a new target, run `SEQUOR_CORPUS=write cargo test -p sequor-broker --test corpus`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod seeds;
#[path = "../trio/mod.rs"]
mod trio;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Most that may be committed. Bytes.
const CORPUS_BYTES_MAX: u64 = 300 << 10;
/// Ahead of the name of an input that `seeds.rs` makes.
const SEED: &str = "seed-";

fn targets() -> Vec<sequor_wal::fuzz::Target> {
    let parts = [sequor_client::fuzz::TARGETS, sequor_wal::fuzz::TARGETS, sequor_broker::fuzz::TARGETS];
    parts.concat()
}

/// The one whose entry point is in another package, with the test that replays its corpus.
const ELSEWHERE: &str = "cli_pieces";

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/fuzz")
}

/// The inputs of a target.
fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = fuzz().join("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn no_input_does_harm() {
    let mut harmful = Vec::new();
    for (name, run) in targets() {
        for path in inputs(name) {
            let input = fs::read(&path).unwrap();
            if catch_unwind(AssertUnwindSafe(|| run(&input))).is_err() {
                harmful.push(path);
            }
        }
    }
    assert!(harmful.is_empty(), "see above for what went wrong with: {harmful:#?}");
}

#[test]
fn the_seeds_are_what_the_library_writes() {
    let write = std::env::var("SEQUOR_CORPUS").is_ok_and(|value| value == "write");
    let mut made = BTreeSet::new();
    for (target, name, bytes) in seeds::all() {
        let path = fuzz().join("corpus").join(target).join(format!("{SEED}{name}"));
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(found, bytes, "{} is not what the library writes now", path.display());
        assert!(made.insert(path), "{target}/{name} is made twice");
    }
    for (target, _) in targets() {
        let seeds = inputs(target).into_iter().filter(|path| file_name(path).starts_with(SEED));
        let left_over: Vec<_> = seeds.clone().filter(|path| !made.contains(path)).collect();
        assert!(left_over.is_empty(), "nobody makes these any more: {left_over:?}");
        assert!(seeds.count() > 0, "{target} has nothing to begin with");
    }
}

#[test]
fn every_entry_point_has_a_target_and_a_small_corpus() {
    let named = targets().into_iter().map(|(name, _)| name.to_owned());
    let names: BTreeSet<String> = named.chain([ELSEWHERE.to_owned()]).collect();
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let limits = fs::read_to_string(fuzz().join("targets")).unwrap();
    let limits: BTreeSet<String> = limits
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect();
    assert_eq!(limits, names, "tools/fuzz/targets tells the limits of every target");
    for name in &names {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name} is not in tools/fuzz/Cargo.toml");
        let source = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        let (package, entry) = name.split_once('_').unwrap();
        let call = format!("sequor_{package}::fuzz::{entry}(data)");
        assert!(name == ELSEWHERE || source.contains(&call), "{source}");
    }
    let folders = fs::read_dir(fuzz().join("corpus")).unwrap();
    let folders: BTreeSet<String> = folders.map(|folder| file_name(&folder.unwrap().path())).collect();
    assert_eq!(folders, names, "a corpus is left over from a target that is gone");
    let bytes: u64 =
        names.iter().flat_map(|name| inputs(name)).map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes, and may have {CORPUS_BYTES_MAX}");
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
