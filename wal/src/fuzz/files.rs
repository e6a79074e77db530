//! The small files: the vote, and what is made of sections.

use bytes::Bytes;

use crate::disk::memory::MemoryDisk;
use crate::sections::File;
use crate::vote::{self, VoteFile};
use crate::{Checkpoint, Disk, Identity, Vote};

use super::{INCARNATION, seal};

const PAGE_BYTES: usize = 4096;
const PAGES: usize = 4;
const VOTE_BYTES: usize = 36;
const CRC_AT: usize = 32;

/// The vote file: the input as the whole file, then as the votes of its four pages, then as those with good checksums.
pub fn vote(data: &[u8]) {
    judge_vote(data);
    let mut file = vec![0; PAGES * PAGE_BYTES];
    for (page, copy) in data.chunks(VOTE_BYTES).take(PAGES).enumerate() {
        file[page * PAGE_BYTES..][..copy.len()].copy_from_slice(copy);
    }
    judge_vote(&file);
    for page in 0..PAGES {
        let copy = &mut file[page * PAGE_BYTES..][..VOTE_BYTES];
        let mut crc = crc32fast::Hasher::new();
        crc.update(&INCARNATION);
        crc.update(&(page as u64).to_le_bytes());
        crc.update(&copy[..CRC_AT]);
        copy[CRC_AT..].copy_from_slice(&crc.finalize().to_le_bytes());
    }
    judge_vote(&file);
}

fn judge_vote(content: &[u8]) {
    let disk = MemoryDisk::new();
    disk.replace(vote::NAME, content).expect("this disk does not fail");
    let open = || disk.open(vote::NAME).expect("it was just written");
    let (shown, damages) = VoteFile::inspect(&*open(), INCARNATION).expect("this disk does not fail");
    match VoteFile::load(open(), INCARNATION).expect("this disk does not fail") {
        Err(damage) => assert_eq!((shown, damages), (None, vec![damage])),
        Ok((mut file, found)) => {
            assert_eq!(shown, Some(found), "who inspects it sees the vote that a start would use");
            // Two updates leave nothing of what was there, and are found again.
            let next = Vote { term: found.term.saturating_add(1), voted_for: 2 };
            for _ in 0..2 {
                let update = file.update(next);
                update.write().and_then(|()| update.sync()).expect("this disk does not fail");
            }
            let (shown, damages) = VoteFile::inspect(&*open(), INCARNATION).expect("this disk does not fail");
            assert_eq!((shown, damages), (Some(next), Vec::new()));
        }
    }
}

/// A sections file as such, as an identity and as the checkpoint at 0.
pub fn sections(data: &[u8]) {
    judge_sections(data);
    let mut sealed = data.to_vec();
    seal::sections(&mut sealed);
    judge_sections(&sealed);
}

fn judge_sections(content: &[u8]) {
    const AGAIN: &str = "again";
    let (disk, other) = (MemoryDisk::new(), MemoryDisk::new());
    for name in ["file", "identity", "checkpoint-00000000000000000000"] {
        disk.replace(name, content).expect("this disk does not fail");
    }
    if let Ok(file) = File::load(&disk, "file") {
        let file = file.expect("it was just written");
        file.save(&disk, AGAIN).expect("what was read is within the bounds of what is written");
        assert_eq!(disk.read(AGAIN).expect("this disk does not fail"), Some(Bytes::copy_from_slice(content)));
    }
    if let Ok(identity) = Identity::load(&disk) {
        Identity::create(&other, &identity).expect("there is none yet");
        assert_eq!(Identity::load(&other).expect("it was just written"), identity);
    }
    if let Ok(checkpoint) = Checkpoint::load_latest(&disk) {
        let checkpoint = checkpoint.expect("it was just written");
        checkpoint.save(&other).expect("what was read is within the bounds of what is written");
        assert_eq!(Checkpoint::load_latest(&other).expect("it was just written"), Some(checkpoint));
    }
}
