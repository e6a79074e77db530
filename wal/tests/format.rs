//! The bytes of format 1, and that no bytes whatever make `open` panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use rig::{CLUSTER, Rig, all, entry, identity, segment, small};
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::sections::{File, FileError};
use sequor_wal::{
    Checkpoint, Disk, Entry, Haste, Identity, Kind, OpenError, Position, Section, Vote, VoteState,
    chain_start, open,
};

const GOLDEN: &str = include_str!("golden/format-1.txt");

fn entries() -> Vec<Entry> {
    vec![
        entry(1, 1, ""),
        entry(2, 1, "second"),
        Entry { index: 3, term: 2, kind: Kind::ConfChange, data: Bytes::from_static(b"members") },
    ]
}

fn genesis() -> Checkpoint {
    let section = |id, content: &'static [u8]| Section { id, content: Bytes::from_static(content) };
    let sections = vec![section(1, b"broker 1"), section(7, b"")];
    Checkpoint { index: 0, term: 0, chain: chain_start(&CLUSTER), sections }
}

/// A directory with one file of each kind.
fn directory() -> MemoryDisk {
    let disk = MemoryDisk::new();
    Identity::create(&disk, &identity()).unwrap();
    genesis().save(&disk).unwrap();
    let mut rig = Rig::on(disk, small()).unwrap();
    rig.log.set_vote(Vote { term: 2, voted_for: 3 });
    let [one, two, three] = <[Entry; 3]>::try_from(entries()).unwrap();
    rig.log.append(vec![one, two]).unwrap();
    rig.settle().unwrap();
    rig.log.set_commit(1);
    rig.log.append(vec![three]).unwrap();
    rig.settle().unwrap();
    rig.witness();
    rig.disk
}

/// All files, sixteen bytes a line, lines of zeros left out.
fn dump(disk: &MemoryDisk) -> String {
    let mut text = String::new();
    for name in disk.list().unwrap() {
        let image = disk.image(&name).unwrap();
        writeln!(text, "{name} {}", image.len()).unwrap();
        for (line, bytes) in
            image.chunks(16).enumerate().filter(|(_, bytes)| bytes.iter().any(|&byte| byte != 0))
        {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "  {:06x}  {}", line * 16, hex.join(" ")).unwrap();
        }
    }
    text
}

/// The directory that a dump shows.
fn restore(text: &str) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let mut name = "";
    for line in text.lines() {
        match line.strip_prefix("  ") {
            Some(line) => {
                let (position, bytes) = line.split_once("  ").unwrap();
                let bytes: Vec<u8> =
                    bytes.split(' ').map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect();
                disk.overwrite(name, u64::from_str_radix(position, 16).unwrap(), &bytes);
            }
            None => {
                let (file, bytes) = line.split_once(' ').unwrap();
                name = file;
                disk.create(name, bytes.parse().unwrap(), &Haste::at_once()).unwrap();
            }
        }
    }
    disk
}

#[test]
fn the_bytes_are_those_of_format_1() {
    let dump = dump(&directory());
    assert_eq!(dump, GOLDEN, "\nthis is what is written now:\n{dump}");
}

#[test]
fn format_1_is_read_for_ever() {
    let disk = restore(GOLDEN);
    assert_eq!(Identity::load(&disk).unwrap(), identity());
    assert_eq!(Checkpoint::load_latest(&disk).unwrap(), Some(genesis()));
    let opened = open(Arc::new(disk), &identity(), small()).unwrap();
    assert_eq!(all(&opened.log), entries());
    assert_eq!(opened.vote, VoteState::Known(Vote { term: 2, voted_for: 3 }));
    assert_eq!(opened.commit, 1);
}

#[test]
fn the_chain_is_a_crc_over_plain_fields() {
    let bytes = |previous: u32, index: u64, term: u64, kind: u8, data: &[u8]| {
        let mut bytes = previous.to_le_bytes().to_vec();
        bytes.extend(index.to_le_bytes());
        bytes.extend(term.to_le_bytes());
        bytes.push(kind);
        bytes.extend(data);
        crc32fast::hash(&bytes)
    };
    let start = Position::start(&CLUSTER);
    assert_eq!(start.chain, crc32fast::hash(&CLUSTER));
    let [one, two, three] = <[Entry; 3]>::try_from(entries()).unwrap();
    let first = bytes(start.chain, 1, 1, 1, b"");
    let second = bytes(first, 2, 1, 1, b"second");
    let third = bytes(second, 3, 2, 2, b"members");
    assert_eq!(start.then(&one).then(&two).then(&three), Position { index: 3, term: 2, chain: third });
}

#[test]
fn a_sections_file_says_what_is_wrong_with_it() {
    let disk = MemoryDisk::new();
    let section = |id, content: &'static [u8]| Section { id, content: Bytes::from_static(content) };
    let file = File { sections: vec![section(1, b"one"), section(2, b"two")] };
    file.save(&disk, "pins").unwrap();
    assert_eq!(File::load(&disk, "pins").unwrap(), Some(file));
    assert_eq!(File::load(&disk, "absent").unwrap(), None);

    disk.flip("pins", 16 + 12 + 3 + 12, 0);
    let error = File::load(&disk, "pins").unwrap_err().to_string();
    assert!(error.contains("pins is damaged at byte 31: expected section 2 with checksum"), "{error}");

    let twice = File { sections: vec![section(1, b"one"), section(1, b"two")] };
    assert!(matches!(twice.save(&disk, "pins"), Err(FileError::Refused { .. })));
    disk.flip("pins", 16 + 12 + 3 + 12, 0);
    disk.overwrite("pins", 4, &[2]);
    assert!(matches!(File::load(&disk, "pins"), Err(FileError::Damaged(damage)) if damage.offset == 4));
    // All else is as a later version would have written it.
    let mut later = disk.image("pins").unwrap();
    let crc_at = later.len() - 4;
    let crc = crc32fast::hash(&later[..crc_at]);
    later[crc_at..].copy_from_slice(&crc.to_le_bytes());
    disk.overwrite("pins", 0, &later);
    assert!(matches!(File::load(&disk, "pins"), Err(FileError::NewerFormat { found: 2, .. })));
}

/// Opens what is there and, if it opens, reads it: nothing but what was appended may come out.
fn open_and_read(disk: &MemoryDisk) -> Result<(), OpenError> {
    let opened = open(Arc::new(disk.clone()), &identity(), small())?;
    let (found, written) = (all(&opened.log), entries());
    assert!(written.starts_with(&found), "{found:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bits_are_never_served(flips in prop::collection::vec((0..4u64, 0..4096u64, 0..8u8), 1..4)) {
        let disk = restore(GOLDEN);
        for (place, position, bit) in flips {
            match place {
                0 => disk.flip("vote", position * 4, bit),
                1 => disk.flip(&segment(2), position, bit),
                // The blocks, more often than the zeros after them.
                2 => disk.flip(&segment(1), position, bit),
                _ => disk.flip(&segment(1), position % 2048, bit),
            }
        }
        let _refused_or_whole = open_and_read(&disk);
    }

    #[test]
    fn any_bytes_are_refused_or_read(
        id in 1..5u64,
        position in 0..4096u64,
        bytes in prop::collection::vec(any::<u8>(), 1..600),
        bytes_of_new_file in 0..5000u64,
    ) {
        let disk = restore(GOLDEN);
        let name = segment(id);
        if disk.image(&name).is_none() {
            disk.create(&name, bytes_of_new_file, &Haste::at_once()).unwrap();
        }
        let room = disk.image(&name).unwrap().len() as u64;
        let position = position.min(room);
        let bytes = &bytes[..bytes.len().min(usize::try_from(room - position).unwrap())];
        disk.overwrite(&name, position, bytes);
        let _refused_or_whole = open_and_read(&disk);
    }

    #[test]
    fn any_sections_file_is_refused_or_read(
        flips in prop::collection::vec((0..124u64, 0..8u8), 0..3),
        noise in prop::collection::vec(any::<u8>(), 0..64),
        at in 0..124u64,
    ) {
        let disk = restore(GOLDEN);
        disk.overwrite("identity", at, &noise[..noise.len().min(124 - usize::try_from(at).unwrap())]);
        flips.iter().for_each(|&(position, bit)| disk.flip("identity", position, bit));
        if let Ok(read) = Identity::load(&disk) {
            prop_assert_eq!(read, identity());
        }
        disk.replace("pins", &noise).unwrap();
        prop_assert!(File::load(&disk, "pins").is_err());
    }
}
