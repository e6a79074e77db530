//! The pieces of an input, for every input that the fuzz target `cli_pieces` has kept. See `broker/tests/corpus` for the
//! corpus of the other targets.

#![allow(dead_code, reason = "the modules of the program are here for one of them")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod judge;

#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/form.rs"]
mod form;
#[path = "../../src/pieces.rs"]
mod pieces;
#[path = "../../src/visible.rs"]
mod visible;
#[path = "../../src/words.rs"]
mod words;

use std::{fs, path::Path};

#[test]
fn no_input_does_harm() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/cli_pieces");
    let inputs: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!inputs.is_empty());
    for input in inputs {
        println!("{}", input.display());
        judge::judge(&fs::read(input).unwrap());
    }
}
