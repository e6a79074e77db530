//! A batch, down to its records.

use bytes::Bytes;

use crate::protocol::{
    Codec, Epoch,
    batch::{Batch, BatchBuilder, HEADER_BYTES, Record},
    limits::BATCH_BYTES_MAX,
};

const CRC_AT: usize = 4;
const LENGTH_AT: usize = 8;

/// A batch: the input itself, then the same with a length and a checksum that fit.
pub fn batch(data: &[u8]) {
    judge(data);
    let mut sealed = data.to_vec();
    seal(&mut sealed);
    judge(&sealed);
}

/// Makes length and checksum fit the bytes.
pub fn seal(batch: &mut [u8]) {
    if batch.len() < HEADER_BYTES {
        return;
    }
    let length = batch.len() as u32;
    batch[LENGTH_AT..][..4].copy_from_slice(&length.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&batch[..CRC_AT]);
    crc.update(&batch[LENGTH_AT..]);
    let crc = crc.finalize();
    batch[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
}

fn judge(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let batch = match (Batch::parse(bytes.clone()), Batch::trusted(bytes.clone())) {
        (Ok(parsed), Ok(trusted)) => {
            assert_eq!(parsed, trusted);
            parsed
        }
        (Err(refusal), Ok(_) | Err(_)) => {
            assert!(!refusal.to_string().is_empty());
            return;
        }
        (Ok(_), Err(refusal)) => panic!("what is verified is not trusted: {refusal}"),
    };
    assert_eq!(batch.bytes(), &bytes);
    let again =
        Batch::parse(batch.clone().restamp(Epoch(7)).into_bytes()).expect("only the epoch is another one");
    assert_eq!((again.digest(), again.epoch()), (batch.digest(), Epoch(7)));
    match batch.unpacked() {
        Ok(readable) => judge_records(&readable),
        Err(refusal) => assert!(batch.is_packed(), "what is not packed needs no unpacking: {refusal}"),
    }
    if batch.is_packed() {
        assert!(batch.check_records().is_err() && batch.records().all(|record| record.is_err()));
    }
}

/// Three ways to read the records agree, and what they read has exactly one form.
fn judge_records(batch: &Batch) {
    assert!(!batch.is_packed() && batch.bytes().len() <= BATCH_BYTES_MAX, "unpacking is bounded");
    Batch::parse(batch.bytes().clone()).expect("an unpacked batch is a batch");
    let checked = batch.check_records();
    let records: Result<Vec<Record>, _> = batch.records().collect();
    let contents: Result<Vec<&[u8]>, _> = batch.contents().collect();
    assert_eq!(records.as_ref().err(), checked.as_ref().err(), "two ways to read it agree");
    let _either = batch.verify_digest();
    let Ok(records) = records else { return };
    let contents = contents.expect("the records could be read");
    assert_eq!((records.len(), contents.len()), (batch.count() as usize, batch.count() as usize));
    assert_eq!(contents.concat(), batch.records_bytes());

    let mut builder = BatchBuilder::new();
    for record in records {
        builder.push(&record.with_timestamp(0)).expect("they have fitted one batch before");
    }
    let seal = |builder: BatchBuilder| {
        let sealed = builder.seal(batch.producer(), batch.epoch(), batch.first_sequence());
        let sealed = Batch::parse(sealed).expect("what is sealed is a batch");
        sealed
            .verify_digest()
            .or_else(|refusal| if sealed.is_packed() { Ok(()) } else { Err(refusal) })
            .expect("its digest is right");
        sealed.unpacked().expect("what was packed here can be unpacked here")
    };
    for again in [seal(builder.clone()), seal(builder.packed(Codec::Lz4))] {
        assert_eq!(again.records_bytes(), batch.records_bytes(), "equal records have equal bytes");
        assert_eq!(again.verify_digest(), Ok(()));
        assert_eq!(again.end_sequence(), batch.end_sequence());
    }
}
