#![no_main]
#![allow(dead_code, reason = "the modules of the program are here for one of them")]

#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/form.rs"]
mod form;
#[path = "../../tests/pieces/judge.rs"]
mod judge;
#[path = "../../src/pieces.rs"]
mod pieces;
#[path = "../../src/visible.rs"]
mod visible;
#[path = "../../src/words.rs"]
mod words;

libfuzzer_sys::fuzz_target!(|data: &[u8]| judge::judge(data));
