//! The files of sections that the broker gives a meaning to: the genesis and the pins.

use std::sync::Arc;

use sequor_wal::{Disk, disk::memory::MemoryDisk, fuzz::seal_sections, sections::File};

use super::core::genesis;
use crate::core::genesis::{Genesis, MEMBERS, SETTINGS};

/// A sections file, as the genesis and as the pins; then the input as the content of one section of a genesis.
pub fn sections(data: &[u8]) {
    judge(data);
    let mut sealed = data.to_vec();
    seal_sections(&mut sealed);
    judge(&sealed);
    let sound = genesis().encode();
    for id in [MEMBERS, SETTINGS] {
        let content = |section: u32, sound| if section == id { data } else { sound };
        judge_genesis(sound.iter().map(|(section, sound)| (*section, content(*section, sound))));
    }
}

fn judge(content: &[u8]) {
    let disk = MemoryDisk::new();
    for name in ["pins", "genesis"] {
        disk.replace(name, content).expect("this disk does not fail");
    }
    if let Ok(Some(file)) = File::load(&disk, "genesis") {
        judge_genesis(file.sections.iter().map(|section| (section.id, &section.content[..])));
    }
    crate::io::fuzz::pins(Arc::new(disk));
}

fn judge_genesis<'a>(sections: impl Iterator<Item = (u32, &'a [u8])>) {
    match Genesis::decode(sections) {
        Ok(genesis) => {
            assert!(genesis.members().iter().all(|member| member.id.0 != 0));
            assert!(genesis.members().is_sorted_by_key(|member| member.id));
            let again = genesis.encode();
            let again = Genesis::decode(again.iter().map(|(id, content)| (*id, &content[..])));
            assert_eq!(again, Ok(genesis));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
