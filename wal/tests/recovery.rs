//! One test for each thing that recovery may find, and for what it does then.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::sync::Arc;

use rig::{INCARNATION, Rig, all, entry, identity, segment, small};
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{
    Damage, Disk, Haste, Identity, OpenError, Opened, ReadError, Settings, Vote, VoteState, open,
};

/// Blocks of one small entry take one sector each, and the first begins after the header.
const SECTOR: u64 = 512;

fn rig_with(entries: u64) -> Rig {
    let mut rig = Rig::new();
    for n in 0..entries {
        rig.put(1, format!("entry {}", n + 1));
    }
    rig
}

fn damage(error: OpenError) -> Damage {
    match error {
        OpenError::Damaged(damage) => damage,
        other => panic!("expected damage, not: {other}"),
    }
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let rig = Rig::new();
    assert_eq!((rig.log.first_index(), rig.log.last_index(), rig.commit), (1, 0, 0));
    assert_eq!((rig.log.term(0), rig.log.term(1)), (Some(0), None));
    assert!(matches!(rig.log.entry(1), Err(ReadError::OutOfRange { index: 1, first: 1, last: 0 })));
}

#[test]
fn a_clean_end_is_continued_where_it_is() {
    let mut rig = rig_with(2).restart().unwrap();
    rig.put(1, "entry 3");
    assert_eq!(&rig.image(&segment(1))[3 * 512..][..4], b"sqBK");
    let rig = rig.restart().unwrap();
    assert_eq!(all(&rig.log).last().unwrap().data, "entry 3");
}

#[test]
fn a_torn_tail_is_cut_and_hidden_by_the_next_segment() {
    let mut rig = rig_with(2);
    rig.log.append(vec![entry(3, 1, vec![7; 1000])]).unwrap();
    rig.write_only();
    rig.disk.flip(&segment(1), 3 * SECTOR + 700, 0);

    let mut rig = rig.restart().unwrap();
    assert_eq!(rig.log.last_index(), 2);
    rig.put(2, "another entry 3");
    rig.witness();
    assert_eq!(
        &rig.image(&segment(2))[512..][..6],
        b"sqBK\x01\x03",
        "the block in the next segment is a cut"
    );

    let rig = rig.restart().unwrap();
    assert_eq!(all(&rig.log)[2].data, "another entry 3");
}

#[test]
fn a_flipped_bit_in_a_proven_block_is_refused_with_its_place() {
    let rig = rig_with(3);
    rig.disk.flip(&segment(1), 2 * SECTOR + 95, 4);
    let before = rig.image(&segment(1));
    let disk = rig.disk.clone();
    let error = rig.refused();
    assert!(error.to_string().contains("segment-00000000000000000001 is damaged at byte 1024: expected "));
    let Damage { file, offset, expected, found } = damage(error);
    assert_eq!((file, offset), (segment(1), 2 * SECTOR));
    assert!(expected.starts_with("a block with first index 2 and checksum 0x"), "{expected}");
    assert!(found.starts_with("checksum 0x"), "{found}");
    assert_eq!(disk.image(&segment(1)), Some(before), "nothing was changed");
}

#[test]
fn every_flipped_bit_of_a_proven_block_is_refused() {
    let rig = rig_with(2);
    let bytes = 64 + 28 + "entry 1".len() as u64;
    for bit in 0..bytes * 8 {
        rig.disk.flip(&segment(1), SECTOR + bit / 8, (bit % 8) as u8);
        let opened = open(Arc::new(rig.disk.clone()), &identity(), small());
        assert_eq!(damage(opened.unwrap_err()).offset, SECTOR, "bit {bit}");
        rig.disk.flip(&segment(1), SECTOR + bit / 8, (bit % 8) as u8);
    }
}

#[test]
fn rot_of_the_last_block_is_seen_thanks_to_the_witness() {
    let without = rig_with(2);
    without.disk.flip(&segment(1), 2 * SECTOR + 70, 0);
    assert_eq!(without.restart().unwrap().log.last_index(), 1, "without a witness it could have been torn");

    let mut with = rig_with(2);
    with.witness();
    with.disk.flip(&segment(1), 2 * SECTOR + 70, 0);
    assert_eq!(damage(with.refused()).offset, 2 * SECTOR);
}

#[test]
fn rot_of_the_witness_itself_loses_nothing() {
    let mut rig = rig_with(2);
    rig.witness();
    rig.disk.flip(&segment(1), 3 * SECTOR + 5, 1);
    assert_eq!(rig.restart().unwrap().log.last_index(), 2);
}

#[test]
fn a_write_that_was_lost_is_refused() {
    let rig = rig_with(3);
    rig.disk.overwrite(&segment(1), 2 * SECTOR, &[0; 512]);
    let Damage { offset, found, .. } = damage(rig.refused());
    assert_eq!((offset, found.as_str()), (2 * SECTOR, "zeros"));
}

#[test]
fn a_write_that_went_elsewhere_is_refused() {
    let rig = rig_with(3);
    let stray = rig.image(&segment(1))[512..1024].to_vec();
    rig.disk.overwrite(&segment(1), 2 * SECTOR, &stray);
    assert_eq!(damage(rig.refused()).offset, 2 * SECTOR);
}

#[test]
fn a_segment_that_rolled_proves_the_one_before() {
    let rig = rig_with(8);
    assert_eq!(rig.image(&segment(2))[512 + 5], 2, "the eighth block rolled");
    rig.disk.flip(&segment(1), 7 * SECTOR + 80, 2);
    let Damage { file, offset, .. } = damage(rig.refused());
    assert_eq!((file, offset), (segment(1), 7 * SECTOR));
}

#[test]
fn a_missing_segment_is_noticed_wherever_it_was() {
    for lost in 1..=3 {
        let rig = rig_with(20);
        assert!(rig.segments().len() > 3, "segment 3 is in use, and spares follow");
        rig.disk.remove(&segment(lost)).unwrap();
        let Damage { file, found, .. } = damage(rig.refused());
        assert_eq!((file, found.as_str()), (segment(lost), "no file"));
    }
}

#[test]
fn an_older_copy_of_a_segment_is_a_gap() {
    let rig = rig_with(5);
    let older = rig.image(&segment(1));
    let mut rig = rig;
    for _ in 0..5 {
        rig.put(1, "more");
    }
    rig.disk.overwrite(&segment(1), 0, &older);
    assert!(damage(rig.refused()).found.starts_with("Roll after entry 7 "));
}

#[test]
fn a_cut_hides_rot() {
    let mut rig = rig_with(5);
    rig.log.append(vec![entry(3, 2, "another 3")]).unwrap();
    rig.settle().unwrap();
    rig.disk.flip(&segment(1), 3 * SECTOR + 90, 0);
    rig.disk.flip(&segment(1), 4 * SECTOR + 90, 0);
    let rig = rig.restart().unwrap();
    assert_eq!(all(&rig.log).last().unwrap(), &entry(3, 2, "another 3"));
}

#[test]
fn a_cut_does_not_hide_rot_below_it() {
    let mut rig = rig_with(5);
    rig.log.append(vec![entry(4, 2, "another 4")]).unwrap();
    rig.settle().unwrap();
    rig.disk.flip(&segment(1), 3 * SECTOR + 90, 0);
    assert_eq!(damage(rig.refused()).offset, 3 * SECTOR);
}

#[test]
fn a_cut_of_a_cut_hides_what_the_first_one_wrote() {
    let mut rig = rig_with(5);
    for (index, term) in [(4, 2), (3, 3)] {
        rig.log.append(vec![entry(index, term, format!("of term {term}"))]).unwrap();
        rig.settle().unwrap();
    }
    rig.disk.flip(&segment(2), SECTOR + 90, 0);
    let rig = rig.restart().unwrap();
    assert_eq!(all(&rig.log).last().unwrap(), &entry(3, 3, "of term 3"));
}

#[test]
fn a_dirty_spare_is_deleted() {
    let mut rig = rig_with(7);
    rig.log.append(vec![entry(8, 1, "rolls")]).unwrap();
    rig.write_only();
    rig.disk.flip(&segment(2), SECTOR + 64, 0);
    let mut rig = rig.restart().unwrap();
    assert_eq!(rig.log.last_index(), 7);
    assert_eq!(rig.segments(), [segment(1)], "and what is above it, so that the ids have no gap");
    rig.make_spares().unwrap();
    rig.put(1, "again");
    let rig = rig.restart().unwrap();
    assert_eq!(all(&rig.log).last().unwrap(), &entry(8, 1, "again"));
}

#[test]
fn a_spare_without_a_header_is_deleted() {
    let rig = rig_with(1);
    rig.disk.create(&segment(4), 100, &Haste::at_once()).unwrap();
    let rig = rig.restart().unwrap();
    assert_eq!(rig.segments(), [segment(1), segment(2), segment(3)]);
}

#[test]
fn a_segment_that_turned_to_zeros_is_noticed() {
    for lost in 1..=3 {
        let rig = rig_with(20);
        let bytes = rig.disk.image(&segment(lost)).unwrap().len();
        rig.disk.overwrite(&segment(lost), 0, &vec![0; bytes]);
        let Damage { file, found, .. } = damage(rig.refused());
        assert_eq!((file, found.as_str()), (segment(lost), "zeros"));
    }
}

#[test]
fn a_spare_whose_header_was_not_synced_is_synced_before_it_is_used() {
    for seed in 0..32 {
        let mut rig = Rig::new();
        rig.disk.fail_sync(3);
        assert!(rig.make_spares().is_err(), "after the file and its name comes the header");
        let mut rig = rig.restart().unwrap();
        assert_eq!(rig.segments(), [segment(1)]);
        rig.log.append(vec![entry(1, 1, "first")]).unwrap();
        rig.write_only();
        rig.disk.crash(seed);
        Rig::on(rig.disk, small()).unwrap();
    }
}

#[test]
fn a_removal_that_was_not_synced_is_not_undone_later() {
    for (nth, seed) in (1..4).flat_map(|nth| (0..8).map(move |seed| (nth, seed))) {
        let mut rig = rig_with(7);
        rig.log.append(vec![entry(8, 1, "rolls")]).unwrap();
        rig.write_only();
        rig.disk.flip(&segment(2), SECTOR + 64, 0);
        rig.disk.kill();
        rig.disk.fail_sync(nth);
        assert!(Rig::on(rig.disk.clone(), small()).is_err());
        rig.disk.kill();
        let mut rig = Rig::on(rig.disk, small()).unwrap();
        rig.make_spares().unwrap();
        rig.log.append(vec![entry(8, 1, "rolls again")]).unwrap();
        while let Some(ticket) = rig.log.poll_ticket() {
            rig.log.handle_synced(ticket.run().unwrap());
        }
        rig.disk.crash(seed);
        let rig = Rig::on(rig.disk, small()).unwrap();
        assert_eq!(rig.log.last_index(), 8, "sync {nth} failed, seed {seed}");
    }
}

#[test]
fn spares_are_used_again_and_replaced_when_sizes_change() {
    let rig = rig_with(1);
    let settings = Settings { segment_bytes: 8192, ..small() };
    rig.disk.kill();
    let mut rig = Rig::on(rig.disk, settings).unwrap();
    assert_eq!(rig.segments(), [segment(1)]);
    rig.make_spares().unwrap();
    assert_eq!(rig.segments(), [segment(1), segment(2), segment(3)], "the ids have no gap");
    for n in 0..30 {
        rig.put(1, format!("{n}"));
    }
    assert_eq!(rig.restart().unwrap().log.last_index(), 31);
}

#[test]
fn a_header_that_rotted_is_refused() {
    for bit in [0, 33, 47, 80, 300, 540] {
        let rig = rig_with(1);
        rig.disk.flip(&segment(1), bit / 8, (bit % 8) as u8);
        assert_eq!(damage(rig.refused()).offset, 0, "bit {bit}");
    }
}

#[test]
fn files_of_others_are_refused_by_name() {
    let opened =
        |disk: &MemoryDisk, identity: &Identity| open(Arc::new(disk.clone()), identity, small()).unwrap_err();
    let rig = rig_with(1);
    let other = Identity { cluster: [1; 16], ..identity() };
    assert!(matches!(opened(&rig.disk, &other), OpenError::WrongCluster { file } if file == segment(1)));
    let other = Identity { incarnation: Some([1; 16]), ..identity() };
    assert!(matches!(opened(&rig.disk, &other), OpenError::WrongIncarnation { file } if file == segment(1)));
    let other = Identity { incarnation: None, ..identity() };
    assert!(matches!(opened(&rig.disk, &other), OpenError::NoIncarnation { broker: 1 }));
    rig.write_as_later(&segment(1), 9);
    assert!(matches!(opened(&rig.disk, &identity()), OpenError::WrongFormat { found: 9, supported: 1, .. }));
}

#[test]
fn impossible_settings_are_refused() {
    for settings in [
        Settings { alignment: 500, ..small() },
        Settings { alignment: 256, ..small() },
        Settings { segment_bytes: 4000, ..small() },
        Settings { segment_bytes: 512, ..small() },
        Settings { segment_bytes: 2 << 30, ..small() },
        Settings { spares: 0, ..small() },
    ] {
        let opened = open(Arc::new(MemoryDisk::new()), &identity(), settings.clone());
        assert!(matches!(opened, Err(OpenError::Settings { .. })), "{settings:?}");
    }
}

#[test]
fn a_payload_that_holds_a_block_is_not_taken_for_one() {
    // A whole block, on the boundary of a sector, in the data of an entry whose own block is then torn.
    let mut rig = rig_with(1);
    let genuine = rig.image(&segment(1))[512..1024].to_vec();
    let mut data = vec![0; 512 - 64 - 28];
    data.extend_from_slice(&genuine);
    rig.log.append(vec![entry(2, 1, data)]).unwrap();
    rig.write_only();
    rig.disk.flip(&segment(1), 2 * SECTOR + 65, 0);
    assert_eq!(&rig.image(&segment(1))[3 * 512..4 * 512], &genuine[..]);
    assert_eq!(rig.restart().unwrap().log.last_index(), 1, "nothing good follows the torn block");
}

#[test]
fn what_was_recovered_after_a_kill_survives_a_power_cut() {
    for seed in 0..32 {
        let mut rig = rig_with(2);
        rig.log.append(vec![entry(3, 1, vec![1; 1200])]).unwrap();
        rig.write_only();
        let rig = rig.restart().unwrap();
        assert_eq!(rig.log.last_index(), 3);
        rig.disk.crash(seed);
        assert_eq!(Rig::on(rig.disk, small()).unwrap().log.last_index(), 3, "seed {seed}");
    }
}

#[test]
fn commit_is_found_again_from_the_blocks() {
    let mut rig = rig_with(3);
    rig.log.set_commit(2);
    assert_eq!(rig.commit, 0);
    rig.put(1, "carries the commit");
    assert_eq!(rig.restart().unwrap().commit, 2);
}

#[test]
fn rot_that_comes_while_the_log_is_open_is_not_served() {
    let rig = rig_with(3);
    rig.disk.flip(&segment(1), 2 * SECTOR + 64 + 28, 0);
    assert_eq!(rig.log.entry(1).unwrap().data, "entry 1");
    let Err(ReadError::Damaged(Damage { file, offset, expected, .. })) = rig.log.entry(2) else { panic!() };
    assert_eq!((file, offset), (segment(1), 2 * SECTOR + 64));
    assert!(expected.starts_with("entry 2 with chain 0x"), "{expected}");
    assert!(rig.log.position(2).is_err());
    assert!(rig.log.entries(1, 4, u64::MAX).is_err());
}

mod vote {
    use super::*;

    const PAGE: u64 = 4096;
    const VOTE: Vote = Vote { term: 7, voted_for: 2 };

    fn voted() -> Rig {
        let mut rig = rig_with(1);
        rig.log.set_vote(Vote { term: 6, voted_for: 0 });
        rig.settle().unwrap();
        rig.log.set_vote(VOTE);
        rig.settle().unwrap();
        rig
    }

    fn reopened(rig: &Rig) -> Opened {
        rig.disk.kill();
        open(Arc::new(rig.disk.clone()), &identity(), small()).unwrap()
    }

    #[test]
    fn it_is_found_again() {
        let opened = reopened(&voted());
        assert_eq!(opened.vote, VoteState::Known(VOTE));
        assert_eq!(opened.log.vote(), VOTE);
    }

    #[test]
    fn a_wiped_page_is_healed() {
        for page in 0..4 {
            let rig = voted();
            rig.disk.overwrite("vote", page * PAGE, &[0; 512]);
            assert_eq!(reopened(&rig).vote, VoteState::Known(VOTE));
            rig.disk.overwrite("vote", (page + 2) % 4 * PAGE, &[0; 512]);
            assert_eq!(reopened(&rig).vote, VoteState::Known(VOTE), "page {page} was written anew");
        }
    }

    #[test]
    fn two_bad_copies_of_one_generation_are_damage() {
        for (a, b) in [(0, 2), (1, 3)] {
            let rig = voted();
            rig.disk.flip("vote", a * PAGE + 17, 0);
            rig.disk.flip("vote", b * PAGE + 17, 0);
            let opened = reopened(&rig);
            let VoteState::Damaged(Damage { file, offset, .. }) = opened.vote else { panic!() };
            assert_eq!((file.as_str(), offset), ("vote", a * PAGE));
            assert_eq!(opened.log.last_index(), 1, "the log itself is whole");
        }
    }

    #[test]
    #[should_panic(expected = "must not vote")]
    fn a_broker_without_its_vote_cannot_vote() {
        let rig = voted();
        rig.disk.overwrite("vote", 0, &[0; 4 * 4096]);
        reopened(&rig).log.set_vote(Vote { term: 9, voted_for: 1 });
    }

    #[test]
    fn a_missing_file_is_damage_once_there_are_segments() {
        let rig = voted();
        rig.disk.remove("vote").unwrap();
        assert!(matches!(reopened(&rig).vote, VoteState::Damaged(_)));
    }

    #[test]
    fn an_older_copy_is_damage_once_an_entry_has_a_later_term() {
        let mut rig = voted();
        let older = rig.image("vote");
        rig.log.set_vote(Vote { term: 8, voted_for: 0 });
        rig.put(8, "of the term that the older copy does not know");
        rig.disk.replace("vote", &older).unwrap();
        for _ in 0..2 {
            let opened = reopened(&rig);
            let VoteState::Damaged(Damage { file, offset, expected, found }) = opened.vote else { panic!() };
            assert_eq!((file.as_str(), offset, found.as_str()), ("vote", 0, "one of term 7"));
            assert_eq!(expected, "a vote of term 8 or later, for entry 2 has that term");
            assert_eq!(rig.image("vote"), older, "nothing was changed");
            rig.disk.crash(1);
        }
    }

    #[test]
    fn an_entry_that_a_cut_hides_still_tells_of_its_term() {
        let mut rig = voted();
        let older = rig.image("vote");
        rig.log.set_vote(Vote { term: 8, voted_for: 0 });
        rig.put(8, "to be hidden");
        rig.log.append(vec![entry(2, 1, "an entry of a lower term in its place")]).unwrap();
        rig.settle().unwrap();
        rig.disk.replace("vote", &older).unwrap();
        assert!(matches!(reopened(&rig).vote, VoteState::Damaged(_)));
    }

    /// The only thing that proves the loss is a segment that recovery removes.
    #[test]
    fn a_vote_file_that_was_lost_stays_lost_when_the_last_segment_goes() {
        let disk = MemoryDisk::new();
        disk.create(&segment(1), 4096, &Haste::at_once()).unwrap();
        for _ in 0..2 {
            let opened = open(Arc::new(disk.clone()), &identity(), small()).unwrap();
            assert!(matches!(opened.vote, VoteState::Damaged(_)), "{:?}", opened.vote);
            assert_eq!(disk.list().unwrap(), ["vote"], "a segment without a header is removed");
            disk.crash(1);
        }
    }

    #[test]
    fn it_does_not_come_back_as_that_of_another_incarnation() {
        let disk = MemoryDisk::new();
        open(Arc::new(disk.clone()), &identity(), small()).unwrap();
        let other = Identity { incarnation: Some([INCARNATION[0]; 16]), ..identity() };
        assert!(matches!(open(Arc::new(disk), &other, small()).unwrap().vote, VoteState::Damaged(_)));
    }
}
