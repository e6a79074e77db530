//! A batch against a plain list of records, and against damage.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use sequor_client::protocol::{
    Codec, Epoch, Feature, Field, ProducerId, Refusal, Sequence,
    batch::{Batch, BatchBuilder, HEADER_BYTES, Header, PushError, Record, RecordRef},
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, KEY_BYTES_MAX},
};

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    let header = (bytes(), bytes()).prop_map(|(name, value)| Header { name, value });
    (-1_000_000i64..1_000_000, option::of(bytes()), vec(header, 0..3), option::of(bytes()))
        .prop_map(|(timestamp, key, headers, value)| Record { timestamp, key, headers, value })
}

fn seal(records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in records {
        builder.push(record).expect("a few small records fit");
    }
    let announced = builder.bytes();
    let bytes = builder.seal(ProducerId(7), Epoch(3), Sequence(41));
    assert_eq!(bytes.len(), announced);
    bytes
}

fn read(batch: &Batch) -> Vec<Record> {
    batch.records().map(Result::unwrap).collect()
}

fn owned(record: RecordRef<'_>) -> Record {
    let header = |(name, value)| Header { name: copy(name), value: copy(value) };
    Record {
        timestamp: record.timestamp,
        key: record.key.map(copy),
        headers: record.headers().map(header).collect(),
        value: record.value.map(copy),
    }
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(records in vec(record(), 1..20)) {
        let batch = Batch::parse(seal(&records)).unwrap();
        prop_assert_eq!(read(&batch), records.clone());
        let borrowed: Vec<_> = batch.records().borrowed().map(|record| owned(record.unwrap())).collect();
        prop_assert_eq!(&borrowed, &records);
        prop_assert_eq!(batch.count() as usize, records.len());
        prop_assert_eq!((batch.producer(), batch.epoch()), (ProducerId(7), Epoch(3)));
        prop_assert_eq!(batch.end_sequence(), Sequence(41 + records.len() as u64));
        prop_assert_eq!(batch.check_records(), Ok(()));
        prop_assert_eq!(batch.verify_digest(), Ok(()));
    }

    #[test]
    fn any_flipped_bit_is_noticed(records in vec(record(), 1..5), at: prop::sample::Index, bit in 0..8) {
        let mut bytes = seal(&records).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(Batch::parse(bytes.into()).is_err());
    }

    #[test]
    fn a_shortened_batch_is_refused(records in vec(record(), 1..5), len: prop::sample::Index) {
        let bytes = seal(&records);
        prop_assert!(Batch::parse(bytes.slice(..len.index(bytes.len()))).is_err());
    }

    #[test]
    fn random_bytes_never_make_a_reader_panic(noise in vec(any::<u8>(), 0..300)) {
        prop_assert!(Batch::parse(noise.into()).is_err());
    }

    /// The checksum is made right again, so that the damage reaches the reader of the records.
    #[test]
    fn damaged_records_never_make_a_reader_panic(
        records in vec(record(), 1..5),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut bytes = seal(&records).to_vec();
        let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
        let damaged = bytes[at] != byte;
        bytes[at] = byte;
        // A new stamp, under the same epoch, corrects the checksum and nothing else.
        let crc = { let mut h = crc32fast::Hasher::new(); h.update(&bytes[..4]); h.update(&bytes[8..]); h.finalize() };
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        let batch = Batch::parse(bytes.into()).unwrap();
        let read: Result<Vec<_>, _> = batch.records().collect();
        prop_assert_eq!(read.is_ok(), batch.check_records().is_ok());
        if damaged && read.as_ref().is_ok_and(|read| *read == records) {
            prop_assert!(false, "damage went unnoticed");
        }
    }
}

#[test]
fn a_new_epoch_changes_epoch_and_checksum_only() {
    let old = Batch::parse(seal(&[Record::new("a").with_timestamp(5), Record::new("b")])).unwrap();
    let new = old.clone().restamp(Epoch(9));
    assert_eq!(Batch::parse(new.bytes().clone()), Ok(new.clone()));
    assert_eq!(new.epoch(), Epoch(9));
    assert_eq!(new.digest(), old.digest());
    let differs: Vec<usize> =
        (0..old.bytes().len()).filter(|at| old.bytes()[*at] != new.bytes()[*at]).collect();
    assert!(differs.iter().all(|at| (4..8).contains(at) || (24..32).contains(at)), "{differs:?}");
}

#[test]
fn timestamps_are_not_content() {
    let early = Batch::parse(seal(&[Record::new("a").with_timestamp(5), Record::new("b").with_timestamp(6)]));
    let late =
        Batch::parse(seal(&[Record::new("a").with_timestamp(70), Record::new("b").with_timestamp(70)]));
    assert_eq!(early.unwrap().digest(), late.unwrap().digest());
}

#[test]
fn an_absent_key_is_not_an_empty_key() {
    let records = [Record::new("a"), Record::new("a").with_key(""), Record::tombstone("k")];
    let batch = Batch::parse(seal(&records)).unwrap();
    assert_eq!(read(&batch), records);
}

#[test]
fn slices_are_taken_from_the_batch_itself() {
    let batch = Batch::parse(seal(&[Record::new("some value")])).unwrap();
    let within = batch.bytes().as_ptr_range();
    let value = batch.records().next().unwrap().unwrap().value.unwrap();
    assert!(within.contains(&value.as_ptr()));
}

#[test]
fn a_full_batch_says_so_and_stays_as_it_is() {
    let mut builder = BatchBuilder::with_limits(2, BATCH_BYTES_MAX);
    builder.push(&Record::new("a")).unwrap();
    builder.push(&Record::new("b")).unwrap();
    assert_eq!(builder.push(&Record::new("c")), Err(PushError::Full));
    assert_eq!(builder.count(), 2);

    let mut builder = BatchBuilder::with_limits(BATCH_RECORDS_MAX, 100);
    builder.push_value(None, &[0; 20], 0).unwrap();
    assert_eq!(builder.push_value(None, &[0; 20], 0), Err(PushError::Full));
    assert_eq!(builder.push_value(None, &[0; 10], 0), Ok(()));
    assert!(builder.bytes() <= 100);
}

#[test]
fn timestamps_too_far_apart_belong_into_two_batches() {
    let mut builder = BatchBuilder::new();
    builder.push(&Record::new("a").with_timestamp(i64::MIN)).unwrap();
    assert_eq!(builder.push(&Record::new("b").with_timestamp(i64::MAX)), Err(PushError::Full));
}

#[test]
fn a_record_that_fits_into_no_batch_is_refused_by_name() {
    let mut builder = BatchBuilder::new();
    let key = Record::new("").with_key(vec![0; KEY_BYTES_MAX + 1]);
    assert!(matches!(builder.push(&key), Err(PushError::Record(Refusal::TooLarge { what: Field::Key, .. }))));
    let value = Record::new(vec![0; BATCH_BYTES_MAX]);
    assert!(matches!(
        builder.push(&value),
        Err(PushError::Record(Refusal::TooLarge { what: Field::Batch, .. }))
    ));
    assert!(builder.is_empty());
}

#[test]
fn what_a_later_version_may_bring_is_refused_by_name() {
    let sound = seal(&[Record::new("a")]);
    for (at, value, what) in [
        (0, 2, Feature::BatchFormat(2)),
        (1, 2, Feature::Flags(2)),
        (2, 2, Feature::Codec(2)),
        (3, 2, Feature::DigestHash(2)),
    ] {
        let mut bytes = sound.to_vec();
        bytes[at] = value;
        assert_eq!(Batch::parse(bytes.into()), Err(Refusal::Unsupported { what }));
    }
}

fn sealed(values: &[String], timestamps: bool, codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new().packed(codec);
    for (value, at) in values.iter().zip(0..) {
        builder
            .push_value(Some(b"key"), value.as_bytes(), if timestamps { at } else { 7 })
            .expect("a few small records fit");
    }
    builder.seal(ProducerId(3), Epoch(2), Sequence(5))
}

proptest! {
    #[test]
    fn a_packed_batch_holds_the_same_records_under_the_same_digest(
        values in vec("[a-c]{0,60}", 1..40),
        timestamps: bool,
    ) {
        let plain = Batch::parse(sealed(&values, timestamps, Codec::None)).unwrap();
        let packed = Batch::parse(sealed(&values, timestamps, Codec::Lz4)).unwrap();
        prop_assert!(packed.bytes().len() <= plain.bytes().len());
        prop_assert_eq!(packed.digest(), plain.digest());
        prop_assert_eq!(packed.count(), plain.count());
        let unpacked = packed.unpacked().unwrap();
        prop_assert_eq!(unpacked.bytes(), plain.bytes(), "to the byte what it would have been");
        prop_assert_eq!(unpacked.verify_digest(), Ok(()));
        prop_assert_eq!(unpacked.check_records(), Ok(()));
    }

    #[test]
    fn a_packed_batch_whose_bytes_were_changed_is_never_taken_for_another(
        at in 64..200_usize,
        bit in 0..8_u8,
    ) {
        let values: Vec<_> = (0..200).map(|at| format!("value {at}")).collect();
        let packed = Batch::parse(sealed(&values, false, Codec::Lz4)).unwrap();
        let mut bytes = packed.bytes().to_vec();
        bytes[at] ^= 1 << bit;
        // Also where somebody repairs the checksum: the digest is of what the producer meant.
        let changed = Batch::trusted(bytes.into()).unwrap();
        let found = changed.unpacked().and_then(|batch| batch.check_records().and_then(|()| batch.verify_digest()));
        prop_assert!(found.is_err());
    }
}

#[test]
fn a_packed_batch_is_not_read_before_it_is_unpacked() {
    let values: Vec<_> = (0..200).map(|at| format!("value {at}")).collect();
    let packed = Batch::parse(sealed(&values, false, Codec::Lz4)).unwrap();
    assert!(packed.is_packed());
    let refusal = Refusal::Unsupported { what: Feature::Codec(1) };
    assert_eq!(packed.check_records(), Err(refusal.clone()));
    assert_eq!(packed.verify_digest(), Err(refusal.clone()));
    assert_eq!(packed.records().collect::<Vec<_>>(), [Err(refusal.clone())]);
    assert_eq!(packed.contents().collect::<Vec<_>>(), [Err(refusal)]);
}

#[test]
fn what_packing_makes_no_smaller_stays_as_it_is() {
    let noise: Vec<String> = vec!["q8Z".into()];
    assert_eq!(sealed(&noise, false, Codec::Lz4), sealed(&noise, false, Codec::None));
}

#[test]
fn a_packed_batch_that_claims_more_than_a_batch_may_hold_is_refused_before_anything_is_allocated() {
    let values: Vec<_> = (0..200).map(|at| format!("value {at}")).collect();
    let mut bytes = sealed(&values, false, Codec::Lz4).to_vec();
    bytes[64..68].copy_from_slice(&u32::MAX.to_le_bytes());
    let refusal = Batch::trusted(bytes.into()).unwrap().unpacked().unwrap_err();
    assert!(matches!(refusal, Refusal::TooLarge { what: Field::Records, .. }), "{refusal:?}");
}
