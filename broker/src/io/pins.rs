//! Which data directory each peer is known by.
//!
//! A vote and an acknowledgement are promises of a *disk*. A broker that comes back with one that was made
//! anew has forgotten promises that were counted on, and a cluster that let it in could lose what it confirmed.
//! So the incarnation of each peer is written down at the first contact, before anything else is said, and from then
//! on no other is accepted under that id.
//!
//! File `pins` in the data directory: a file of sections (see [`sequor_wal::sections`]), with one section per peer.
//!
//! ```text
//! section id     content
//! 1, 2, …        broker id u64 | incarnation 16 bytes       little endian, ascending by broker id
//! ```

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use sequor_client::protocol::{BrokerId, Incarnation};
use sequor_wal::{
    Disk,
    sections::{File, FileError, Section},
};
use thiserror::Error;

/// Name of the file, in the data directory.
pub const PINS: &str = "pins";
const CONTENT_BYTES: usize = 24;

/// The peers' incarnations, on disk before they count.
#[derive(Debug)]
pub(super) struct Pins {
    disk: Arc<dyn Disk>,
    known: BTreeMap<BrokerId, Incarnation>,
}

/// Why the pins cannot be used, or a peer not be let in.
#[derive(Debug, Error)]
pub enum PinError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A section that does not name one peer.
    #[error(
        "section {section} of the file {PINS} is not a pin of {CONTENT_BYTES} bytes, but has {bytes}: keep the directory \
         as it is and do not run a broker on it"
    )]
    Malformed {
        /// Which.
        section: u32,
        /// How many it has.
        bytes: usize,
    },
    /// Two sections name one peer.
    #[error(
        "the file {PINS} names broker {peer} twice: keep the directory as it is and do not run a broker on it"
    )]
    Twice {
        /// The peer.
        peer: BrokerId,
    },
    /// The peer has another data directory than the one it is known by.
    #[error(
        "broker {peer} came back with another data directory: its incarnation is {found}, this broker knows it by \
         {known}. If the wrong directory was started, start the right one; if its disk was lost, it must not vote under \
         its old id again, and the others go on without it"
    )]
    OtherIncarnation {
        /// The peer.
        peer: BrokerId,
        /// What it is known by.
        known: Incarnation,
        /// What it shows.
        found: Incarnation,
    },
}

impl Pins {
    /// Reads them; none if no peer was ever met.
    pub(super) fn load(disk: Arc<dyn Disk>) -> Result<Self, PinError> {
        let known = read_pins(&*disk)?;
        Ok(Self { disk, known })
    }

    /// Lets a peer in under the incarnation it is known by, or makes this one known.
    ///
    /// Blocks for a few milliseconds at the very first contact with a peer: once in the life of both.
    pub(super) fn check(&mut self, peer: BrokerId, found: Incarnation) -> Result<(), PinError> {
        match self.known.get(&peer) {
            Some(known) if *known == found => Ok(()),
            Some(known) => Err(PinError::OtherIncarnation { peer, known: *known, found }),
            None => self.add(peer, found),
        }
    }

    fn add(&mut self, peer: BrokerId, found: Incarnation) -> Result<(), PinError> {
        let mut known = self.known.clone();
        known.insert(peer, found);
        let sections = (1..).zip(&known).map(|(id, pin)| Section { id, content: content(pin) }).collect();
        File { sections }.save(&*self.disk, PINS)?;
        self.known = known;
        Ok(())
    }
}

/// What a data directory says of the peers of its broker; nothing if none was ever met.
///
/// # Errors
///
/// [`PinError::File`], [`PinError::Malformed`] or [`PinError::Twice`].
pub fn read_pins(disk: &dyn Disk) -> Result<BTreeMap<BrokerId, Incarnation>, PinError> {
    let sections = File::load(disk, PINS)?.unwrap_or_default().sections;
    let mut known = BTreeMap::new();
    for Section { id, content } in &sections {
        let malformed = || PinError::Malformed { section: *id, bytes: content.len() };
        let (peer, incarnation) = pin(content).ok_or_else(malformed)?;
        if known.insert(peer, incarnation).is_some() {
            return Err(PinError::Twice { peer });
        }
    }
    Ok(known)
}

fn content((peer, incarnation): (&BrokerId, &Incarnation)) -> Bytes {
    [&peer.0.to_le_bytes()[..], &incarnation.0].concat().into()
}

fn pin(content: &[u8]) -> Option<(BrokerId, Incarnation)> {
    let content: &[u8; CONTENT_BYTES] = content.try_into().ok()?;
    let (peer, incarnation) = content.split_first_chunk::<8>()?;
    Some((BrokerId(u64::from_le_bytes(*peer)), Incarnation(incarnation.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use sequor_wal::disk::memory::MemoryDisk;

    use super::*;

    const ONE: Incarnation = Incarnation([1; 16]);
    const TWO: Incarnation = Incarnation([2; 16]);

    #[test]
    fn a_peer_is_let_in_under_its_first_incarnation_only_even_after_a_crash() {
        let disk = MemoryDisk::new();
        let mut pins = Pins::load(Arc::new(disk.clone())).unwrap();
        pins.check(BrokerId(2), ONE).unwrap();
        pins.check(BrokerId(3), TWO).unwrap();
        pins.check(BrokerId(2), ONE).unwrap();
        disk.crash(7);

        let mut pins = Pins::load(Arc::new(disk)).unwrap();
        pins.check(BrokerId(2), ONE).unwrap();
        let refused = pins.check(BrokerId(2), TWO).unwrap_err();
        assert!(matches!(refused, PinError::OtherIncarnation { known: ONE, found: TWO, .. }), "{refused:?}");
        assert!(refused.to_string().contains("must not vote under its old id"), "{refused}");
        pins.check(BrokerId(3), TWO).unwrap();
    }

    #[test]
    fn a_section_that_is_no_pin_or_names_a_peer_again_is_refused() {
        let twice = [content((&BrokerId(2), &ONE)), content((&BrokerId(2), &TWO))];
        for contents in [&[Bytes::from_static(b"short")][..], &twice] {
            let disk = MemoryDisk::new();
            let sections = (1..).zip(contents).map(|(id, content)| Section { id, content: content.clone() });
            File { sections: sections.collect() }.save(&disk, PINS).unwrap();
            let refused = Pins::load(Arc::new(disk));
            assert!(matches!(refused, Err(PinError::Malformed { section: 1, .. } | PinError::Twice { .. })));
        }
    }
}
