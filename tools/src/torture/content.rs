//! What is written: a function of the producer's name and the record's number, so that whoever sends a number again sends
//! the same.

use sequor_broker::history::Digest;
use sequor_client::protocol::batch::BatchBuilder;

/// Longest filling behind name and number. Bytes.
const FILLING_MAX: usize = 24;
const FILLING: [u8; FILLING_MAX] = [b'.'; FILLING_MAX];

/// A batch of these numbers, and its digest.
pub(super) fn batch(producer: &str, first: u64, count: u32) -> (BatchBuilder, Digest) {
    let mut builder = BatchBuilder::new();
    let mut digest = Digest::default();
    for sequence in first..first + u64::from(count) {
        let value = value(producer, sequence);
        builder.push_value(None, &value, 0).expect("thousands of such records fit a batch");
        digest = digest + Digest::of_record(producer, sequence, None, Some(&value));
    }
    (builder, digest)
}

fn value(producer: &str, sequence: u64) -> Vec<u8> {
    let mut value = format!("{producer}/{sequence}/").into_bytes();
    // The length varies, so that those of batches and blocks do too.
    let filling = sequence.wrapping_mul(2_654_435_761) >> 7;
    value.extend_from_slice(&FILLING[..(filling % (FILLING_MAX as u64 + 1)) as usize]);
    value
}
