#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sequor_wal::fuzz::vote(data));
