//! The same log on the file system of this machine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rig::{all, entry, identity, small};
use sequor_wal::disk::mmap::{MmapDisk, OpenDirError};
use sequor_wal::disk::read_only::ReadOnlyDisk;
use sequor_wal::{
    Checkpoint, Disk, Haste, Identity, IdentityError, Log, Section, Settings, Vote, VoteState, open,
};

fn settle(log: &mut Log) {
    loop {
        while let Some(order) = log.poll_spare() {
            log.handle_spare(order.run().unwrap());
        }
        let Some(ticket) = log.poll_ticket() else { return };
        // Tickets are run by another thread.
        log.handle_synced(std::thread::spawn(move || ticket.run()).join().unwrap().unwrap());
    }
}

#[test]
fn a_log_is_appended_rolled_cut_and_found_again() {
    is_appended_rolled_cut_and_found_again(&small());
}

#[test]
fn so_is_one_whose_blocks_begin_on_sectors_of_4096_bytes() {
    let sectors = Settings { segment_bytes: 64 << 10, alignment: 4096, ..small() };
    is_appended_rolled_cut_and_found_again(&sectors);
}

fn is_appended_rolled_cut_and_found_again(settings: &Settings) {
    let directory = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for life in 0..3_u64 {
        let disk = MmapDisk::open(directory.path()).unwrap();
        let opened = open(Arc::new(disk), &identity(), settings.clone()).unwrap();
        let mut log = opened.log;
        assert_eq!(all(&log), expected);
        assert_eq!(opened.vote, VoteState::Known(Vote { term: life, voted_for: life % 2 }));
        for _ in 0..20 {
            let next = entry(log.last_index() + 1, life + 1, vec![life as u8; 700]);
            expected.push(next.clone());
            log.append(vec![next]).unwrap();
            settle(&mut log);
        }
        let instead = entry(log.last_index() - 2, life + 1, "instead");
        expected.truncate(expected.len() - 3);
        expected.push(instead.clone());
        log.append(vec![instead]).unwrap();
        log.set_vote(Vote { term: life + 1, voted_for: (life + 1) % 2 });
        settle(&mut log);
        assert_eq!(all(&log), expected);
    }
}

#[test]
fn what_makes_room_in_the_page_cache_is_read_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path()).unwrap();
    let settings = Settings { segment_bytes: 2 << 20, block_bytes_max: 1 << 20, ..small() };
    let mut log = open(Arc::new(disk), &identity(), settings).unwrap().log;
    log.keep_cached(Some(1 << 20));
    let mut expected = Vec::new();
    for index in 1..=40 {
        let next = entry(index, 1, vec![index as u8; 300_000]);
        expected.push(next.clone());
        log.append(vec![next]).unwrap();
        settle(&mut log);
        // Whoever holds a slice of the map keeps it; whoever reads anew gets the same.
        let held = log.entry(1).unwrap();
        assert_eq!((held, all(&log)), (expected[0].clone(), expected.clone()));
    }
    assert!(std::fs::read_dir(directory.path()).unwrap().count() > 5, "it has rolled");
    drop(log);
    let again = MmapDisk::open(directory.path()).unwrap();
    assert_eq!(all(&open(Arc::new(again), &identity(), small()).unwrap().log), expected);
}

#[test]
fn a_new_file_is_zeros_whatever_its_length() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path()).unwrap();
    for (bytes, haste) in [1, 4096, (1 << 20) - 1, 1 << 20, (5 << 20) + 4097]
        .into_iter()
        .flat_map(|bytes| [(bytes, Haste::at_once()), (bytes, Haste::default())])
    {
        let name = format!("file-{bytes}-{}", haste.is_needed());
        let region = disk.create(&name, bytes, &haste).unwrap();
        let content = region.read(0, usize::try_from(bytes).unwrap()).unwrap();
        assert!(content.len() as u64 == bytes && content.iter().all(|&byte| byte == 0), "{bytes} bytes");
        assert_eq!(disk.open(&name).unwrap().bytes(), bytes);
    }
}

#[test]
fn a_write_at_the_end_fills_its_last_page_with_zeros_and_no_other_does() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path()).unwrap();
    let region = disk.create("file", 10_000, &Haste::at_once()).unwrap();
    let full = [Bytes::from(vec![1; 10_000])];
    region.write_at(0, &full).unwrap();
    region.write_at(600, &[Bytes::from(vec![2; 100])]).unwrap();
    assert_eq!(region.read(700, 1).unwrap(), [1][..]);
    region.append_at(600, &[Bytes::from(vec![3; 100])]).unwrap();
    assert_eq!(region.read(600, 100).unwrap(), [3; 100][..]);
    assert_eq!(region.read(700, 4096 - 700).unwrap(), [0; 4096 - 700][..]);
    assert_eq!(region.read(4096, 1).unwrap(), [1][..]);
    region.append_at(9000, &[Bytes::from(vec![4; 10])]).unwrap();
    assert_eq!(region.read(9010, 990).unwrap(), [0; 990][..], "as far as the file goes");
    assert!(region.append_at(9999, &full).is_err());
    assert!(region.append_at(u64::MAX, &full).is_err());
}

#[test]
fn an_entry_is_read_without_a_copy() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path()).unwrap();
    let mut log = open(Arc::new(disk), &identity(), small()).unwrap().log;
    log.append(vec![entry(1, 1, "mapped")]).unwrap();
    settle(&mut log);
    let [a, b] = [log.entry(1).unwrap(), log.entry(1).unwrap()];
    assert_eq!(a.data, "mapped");
    assert_eq!(a.data.as_ptr(), b.data.as_ptr());
    drop(log);
    assert_eq!(b.data, "mapped", "the map lives as long as its readers");
}

#[test]
fn many_chunks_are_one_write_to_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path()).unwrap();
    let region = disk.create("file", 1 << 20, &Haste::at_once()).unwrap();
    let chunks: Vec<Bytes> = (0..5000_u32).map(|n| Bytes::from(n.to_le_bytes().to_vec())).collect();
    region.write_at(100, &chunks).unwrap();
    region.sync().unwrap();
    assert_eq!(region.read(100, 20_000).unwrap(), chunks.concat());
    assert_eq!(region.read(20_100, 4).unwrap(), [0; 4][..]);
    assert!(region.write_at((1 << 20) - 3, &chunks[..1]).is_err());
    assert!(region.read(1 << 20, 1).is_err());
    assert!(disk.create("file", 10, &Haste::at_once()).is_err());
    disk.remove("file").unwrap();
    assert_eq!(region.read(100, 4).unwrap(), chunks[0], "a removed file stays readable");
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn a_directory_is_opened_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = MmapDisk::open(directory.path()).unwrap();
    assert!(matches!(MmapDisk::open(directory.path()), Err(OpenDirError::InUse { .. })));
    let region = first.create("file", 512, &Haste::at_once()).unwrap();
    drop(first);
    let error = MmapDisk::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "a region holds the lock too: {error}");
    drop(region);
    MmapDisk::open(directory.path()).unwrap();
}

#[test]
fn a_directory_is_never_created() {
    let directory = tempfile::tempdir().unwrap();
    let error = MmapDisk::open(directory.path().join("absent")).unwrap_err();
    assert!(error.to_string().contains("sequor certs init"));
    assert!(!directory.path().join("absent").exists());
}

#[test]
fn identity_and_genesis_are_written_once() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path()).unwrap();
    assert!(matches!(Identity::load(&disk), Err(IdentityError::NotInitialised)));
    let mut mine = Identity { incarnation: None, ..identity() };
    Identity::create(&disk, &mine).unwrap();
    assert!(matches!(Identity::create(&disk, &mine), Err(IdentityError::Exists { broker: 1 })));
    assert_eq!(Identity::load(&disk).unwrap(), mine);
    mine.set_incarnation(&disk, [5; 16]).unwrap();
    assert_eq!(Identity::load(&disk).unwrap().incarnation, Some([5; 16]));

    assert_eq!(Checkpoint::load_latest(&disk).unwrap(), None);
    let sections = vec![Section { id: 1, content: Bytes::from_static(b"members") }];
    let genesis = Checkpoint { index: 0, term: 0, chain: 17, sections };
    let later = Checkpoint { index: 30, term: 2, chain: 99, sections: Vec::new() };
    genesis.save(&disk).unwrap();
    assert_eq!(Checkpoint::load_latest(&disk).unwrap(), Some(genesis));
    later.save(&disk).unwrap();
    assert_eq!(Checkpoint::load_latest(&disk).unwrap(), Some(later));
}

#[test]
fn who_only_looks_keeps_brokers_out_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path()).unwrap();
    let region = disk.create("file", 4096, &Haste::at_once()).unwrap();
    region.write_at(100, &[Bytes::from_static(b"content")]).unwrap();
    region.sync().unwrap();
    disk.replace("small", b"small content").unwrap();
    assert!(matches!(ReadOnlyDisk::open(directory.path()), Err(OpenDirError::InUse { .. })));
    drop((disk, region));

    let before = fingerprint(directory.path());
    let looking = ReadOnlyDisk::open(directory.path()).unwrap();
    let too = ReadOnlyDisk::open(directory.path()).unwrap();
    assert!(matches!(MmapDisk::open(directory.path()), Err(OpenDirError::InUse { .. })));
    assert_eq!(looking.list().unwrap(), ["file", "small"]);
    assert_eq!(too.read("small").unwrap().unwrap(), "small content");
    assert_eq!(too.read("nothing").unwrap(), None);
    let region = looking.open("file").unwrap();
    assert_eq!(
        (region.name(), region.bytes(), region.read(100, 7).unwrap()),
        ("file", 4096, "content".into())
    );
    assert!(region.read(4090, 7).is_err());

    let refused = |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::ReadOnlyFilesystem;
    assert!(refused(region.write_at(0, &[Bytes::from_static(b"x")])));
    assert!(refused(region.sync()));
    assert!(refused(looking.create("other", 1, &Haste::at_once()).map(drop)));
    assert!(refused(looking.replace("small", b"x")));
    assert!(refused(looking.remove("small")));
    drop((looking, too));
    assert!(matches!(MmapDisk::open(directory.path()), Err(OpenDirError::InUse { .. })), "a region is held");
    drop(region);
    assert_eq!(fingerprint(directory.path()), before);
    MmapDisk::open(directory.path()).unwrap();
}

#[test]
fn a_copy_without_a_lock_can_be_looked_at_and_gets_none() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(ReadOnlyDisk::open(directory.path().join("nothing")), Err(OpenDirError::Absent { .. })));
    std::fs::write(directory.path().join("file"), "content").unwrap();
    let disk = ReadOnlyDisk::open(directory.path()).unwrap();
    assert_eq!(disk.open("file").unwrap().read(0, 7).unwrap(), "content");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// Name, length, content and times of all files, and the times of the directory.
fn fingerprint(directory: &Path) -> Vec<(PathBuf, i64, i64, Vec<u8>)> {
    let times = |path: &Path| {
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.mtime_nsec(), metadata.ctime_nsec())
    };
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let content = |path: &Path| std::fs::read(path).unwrap_or_default();
    files.push(directory.to_path_buf());
    files.into_iter().map(|path| (path.clone(), times(&path).0, times(&path).1, content(&path))).collect()
}
