//! The data of an entry, and what the replicated state makes of it.

use bytes::Bytes;

use super::core::genesis;
use crate::core::{
    effect::{self, Effect, Effects, EntryError},
    machine::{Machine, Verdict},
};

/// Several entries, one after the other, each with its length in front (u16, little endian): they are read, and folded
/// into one state. An effect that the state would have decided otherwise is then tried as the state would have it.
pub fn effects(data: &[u8]) {
    let mut machine = Machine::new(&genesis());
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let entry;
        (entry, rest) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        match read(&Bytes::copy_from_slice(entry)) {
            Ok(effects) => fold(&mut machine, &effects),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn read(data: &Bytes) -> Result<(effect::Envelope, Vec<Effect>), EntryError> {
    let effects = Effects::open(data.clone())?;
    let envelope = effects.envelope;
    let effects = effects.collect::<Result<Vec<_>, _>>()?;
    assert_eq!(&effect::encode(envelope, &effects), data, "an entry has one form");
    Ok((envelope, effects))
}

fn fold(machine: &mut Machine, (envelope, effects): &(effect::Envelope, Vec<Effect>)) {
    let before = machine.log_time_ms();
    assert_eq!(machine.advance_to(envelope.log_time_ms), envelope.log_time_ms >= before);
    for effect in effects {
        let (state, end) = (machine.fingerprint(), machine.end());
        let Err(mismatch) = machine.apply(effect) else { continue };
        assert_eq!(
            (machine.fingerprint(), machine.end()),
            (state, end),
            "what is not applied changes nothing"
        );
        assert!(!mismatch.to_string().is_empty());
        if let Verdict::Write(decided) = *mismatch.decided {
            machine.apply(&decided).expect("what the state decides, it applies");
        }
    }
    let again = machine.clone();
    assert_eq!(again.fingerprint(), machine.fingerprint());
}
