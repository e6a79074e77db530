//! What an inspection finds: all that recovery refuses, and not only the first of it; and nothing else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use std::sync::Arc;

use proptest::prelude::*;
use rig::{CLUSTER, Rig, all, entry, identity, positions, segment, small};
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{
    Checkpoint, Damage, Disk, Entry, FINDINGS_MAX, Identity, InspectError, Inspection, Item, OpenError,
    Reason, Vote, WalkedBlock, WalkedEntry, chain_start, inspect, open,
};

/// Blocks of one small entry take one sector each, and the first begins after the header.
const SECTOR: u64 = 512;

/// A directory as a broker has it: also with an identity and a genesis.
fn rig() -> Rig {
    let disk = MemoryDisk::new();
    genesis().save(&disk).unwrap();
    Identity::create(&disk, &identity()).unwrap();
    Rig::on(disk, small()).unwrap()
}

fn genesis() -> Checkpoint {
    Checkpoint { index: 0, term: 0, chain: chain_start(&CLUSTER), sections: Vec::new() }
}

fn rig_with(entries: u64) -> Rig {
    let mut rig = rig();
    for n in 1..=entries {
        rig.put(1, format!("entry {n}"));
    }
    rig
}

/// Inspects the directory of a rig, which must not notice it.
fn inspected(disk: &MemoryDisk) -> Inspection {
    let before = (images(disk), disk.total());
    let inspection = inspect(disk).unwrap();
    walk(&inspection);
    assert_eq!((images(disk), disk.total()), before, "an inspection changes nothing");
    inspection
}

fn images(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), disk.image(&name).unwrap())).collect()
}

fn places(inspection: &Inspection) -> Vec<(String, u64)> {
    inspection.findings().listed().iter().map(|damage| (damage.file.clone(), damage.offset)).collect()
}

fn walk(inspection: &Inspection) -> Vec<Item> {
    inspection.walk(0).map(Result::unwrap).collect()
}

fn blocks(inspection: &Inspection) -> Vec<WalkedBlock> {
    let block = |item| if let Item::Block(block) = item { Some(block) } else { None };
    walk(inspection).into_iter().filter_map(block).collect()
}

fn entries(inspection: &Inspection) -> Vec<WalkedEntry> {
    let entry = |item| if let Item::Entry(entry) = item { Some(entry) } else { None };
    walk(inspection).into_iter().filter_map(entry).collect()
}

fn visible(inspection: &Inspection) -> Vec<Entry> {
    entries(inspection).into_iter().filter(|entry| !entry.hidden).map(|entry| entry.entry).collect()
}

#[test]
fn a_sound_directory_has_no_findings() {
    let mut rig = rig_with(9);
    rig.log.set_vote(Vote { term: 1, voted_for: 2 });
    rig.log.set_commit(8);
    rig.put(1, "the last");
    rig.witness();
    let inspection = inspected(&rig.disk);
    assert!(inspection.findings().is_empty(), "{:?}", inspection.findings());
    assert_eq!(inspection.torn(), None);
    assert_eq!(inspection.identity(), Some(&identity()));
    assert_eq!(inspection.vote(), Some(Vote { term: 1, voted_for: 2 }));
    assert_eq!((inspection.last(), inspection.commit()), (rig.log.last(), 8));
    assert_eq!((inspection.segments(), inspection.spares()), (2, 2));
}

#[test]
fn a_directory_that_never_served_has_no_findings() {
    let disk = MemoryDisk::new();
    genesis().save(&disk).unwrap();
    Identity::create(&disk, &Identity { incarnation: None, ..identity() }).unwrap();
    let inspection = inspected(&disk);
    assert!(inspection.findings().is_empty());
    assert_eq!((inspection.vote(), inspection.last().index, inspection.segments()), (None, 0, 0));
    assert!(matches!(inspect(&MemoryDisk::new()), Err(InspectError::NoData)));
}

#[test]
fn the_walk_shows_every_block_and_entry_where_it_is() {
    let mut rig = rig_with(2);
    rig.log.set_commit(1);
    rig.enter(2);
    rig.log.append(vec![entry(3, 2, "three"), entry(4, 2, vec![4; 600])]).unwrap();
    rig.settle().unwrap();
    rig.witness();
    let inspection = inspected(&rig.disk);
    let told = |block: &WalkedBlock| (block.offset, block.reason, block.entries, block.durable, block.commit);
    assert_eq!(
        blocks(&inspection).iter().map(told).collect::<Vec<_>>(),
        [
            (SECTOR, Reason::First, 1, 0, 0),
            (2 * SECTOR, Reason::Follows, 1, 1, 0),
            (3 * SECTOR, Reason::Follows, 2, 2, 1),
            (5 * SECTOR, Reason::Follows, 0, 4, 1),
        ]
    );
    let image = rig.image(&segment(1));
    for block in blocks(&inspection) {
        let at = usize::try_from(block.offset).unwrap();
        assert_eq!(image[at + 60..at + 64], block.crc.to_le_bytes());
        assert_eq!(&*block.file, segment(1));
        assert!(block.bytes <= 2 * SECTOR);
    }
    let all = all(&rig.log);
    assert_eq!(visible(&inspection), all);
    for (walked, position) in entries(&inspection).iter().zip(positions(&all)) {
        assert_eq!((walked.entry.index, walked.chain), (position.index, position.chain));
        let at = usize::try_from(walked.offset).unwrap();
        assert_eq!(image[at + 8..at + 16], position.index.to_le_bytes(), "its header is there");
    }
}

#[test]
fn the_walk_can_begin_at_a_later_segment() {
    let rig = rig_with(20);
    let inspection = inspected(&rig.disk);
    let first = |from| match inspection.walk(from).next() {
        Some(Ok(Item::Block(block))) => Some(block.previous.index + 1),
        None => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(["0", "7", "8", "20"].map(|from| first(from.parse().unwrap())), [1, 1, 8, 15].map(Some));
    assert_eq!(first(21), None);
}

#[test]
fn what_a_cut_hides_is_marked() {
    let mut rig = rig_with(5);
    rig.log.append(vec![entry(4, 2, "another 4")]).unwrap();
    rig.settle().unwrap();
    rig.put(2, "another 5");
    let inspection = inspected(&rig.disk);
    let told: Vec<_> = entries(&inspection).iter().map(|e| (e.entry.index, e.entry.term, e.hidden)).collect();
    let expected = [
        (1, 1, false),
        (2, 1, false),
        (3, 1, false),
        (4, 1, true),
        (5, 1, true),
        (4, 2, false),
        (5, 2, false),
    ];
    assert_eq!(told, expected);
    let hidden: Vec<_> = blocks(&inspection).iter().map(|block| block.hidden).collect();
    assert_eq!(hidden, expected.map(|(_, _, hidden)| hidden), "each has a block of its own");
    assert_eq!(visible(&inspection), all(&rig.log));
}

#[test]
fn every_damaged_block_is_a_finding() {
    let rig = rig_with(30);
    for (id, sector) in [(1, 2), (1, 3), (1, 6), (3, 1), (4, 7)] {
        rig.disk.flip(&segment(id), sector * SECTOR + 80, 3);
    }
    let inspection = inspected(&rig.disk);
    // Two that lie side by side are one place without a block.
    let expected = [(1, 2), (1, 6), (3, 1), (4, 7)].map(|(id, sector)| (segment(id), sector * SECTOR));
    assert_eq!(places(&inspection), expected, "{:?}", inspection.findings());
    assert_eq!(inspection.findings().count(), 4);
    assert_eq!(inspection.last().index, 1, "what a start would show before the first of them");
    assert_eq!(inspection.torn(), None);
    assert_eq!(entries(&inspection).len(), 25, "all others are still shown");
}

#[test]
fn a_block_that_is_lost_without_a_trace_is_a_finding() {
    let rig = rig_with(20);
    rig.disk.overwrite(&segment(2), 7 * SECTOR, &[0; 512]);
    rig.disk.overwrite(&segment(1), 4 * SECTOR, &[0; 512]);
    let inspection = inspected(&rig.disk);
    assert_eq!(places(&inspection), [(segment(1), 4 * SECTOR), (segment(3), SECTOR)]);
    let [first, second] = inspection.findings().listed() else { panic!() };
    assert_eq!(first.found, "zeros");
    assert!(second.found.starts_with("Roll after entry 14 "), "{second}");
}

#[test]
fn a_torn_end_is_no_finding() {
    let mut rig = rig_with(2);
    rig.log.append(vec![entry(3, 1, vec![7; 1000])]).unwrap();
    rig.write_only();
    rig.disk.flip(&segment(1), 3 * SECTOR + 700, 0);
    let inspection = inspected(&rig.disk);
    assert!(inspection.findings().is_empty(), "{:?}", inspection.findings());
    let torn = inspection.torn().unwrap();
    assert_eq!((torn.file.clone(), torn.offset), (segment(1), 3 * SECTOR));
    assert_eq!(inspection.last().index, 2);

    let mut rig = rig.restart().unwrap();
    rig.put(2, "another entry 3");
    let inspection = inspected(&rig.disk);
    assert!(inspection.findings().is_empty() && inspection.torn().is_none(), "the cut hides it");
    let faults = |item: &Item| matches!(item, Item::Fault(fault) if fault.hidden && !fault.followed);
    assert_eq!(walk(&inspection).iter().filter(|item| faults(item)).count(), 1);
}

#[test]
fn damage_and_a_torn_end_are_told_apart() {
    let mut rig = rig_with(5);
    rig.log.append(vec![entry(6, 1, vec![7; 700])]).unwrap();
    rig.write_only();
    rig.disk.flip(&segment(1), 2 * SECTOR + 90, 0);
    rig.disk.flip(&segment(1), 6 * SECTOR + 600, 0);
    let inspection = inspected(&rig.disk);
    assert_eq!(places(&inspection), [(segment(1), 2 * SECTOR)]);
    assert_eq!(inspection.torn().unwrap().offset, 6 * SECTOR);
}

#[test]
fn a_cut_behind_damage_hides_what_it_hides() {
    let mut rig = rig_with(12);
    rig.enter(2);
    rig.log.append(vec![entry(11, 2, "another 11")]).unwrap();
    rig.settle().unwrap();
    rig.disk.flip(&segment(1), 3 * SECTOR + 90, 0);
    rig.disk.flip(&segment(2), 5 * SECTOR + 90, 0);
    let inspection = inspected(&rig.disk);
    assert_eq!(places(&inspection), [(segment(1), 3 * SECTOR)], "entry 12 is hidden");
    let shown: Vec<_> = visible(&inspection).iter().map(|entry| (entry.index, entry.term)).collect();
    assert_eq!(shown.last(), Some(&(11, 2)));
    assert!(!shown.contains(&(11, 1)) && !shown.contains(&(12, 1)));
}

#[test]
fn a_lost_segment_is_one_finding_and_the_others_are_looked_at() {
    let rig = rig_with(30);
    rig.disk.remove(&segment(2)).unwrap();
    rig.disk.flip(&segment(4), 3 * SECTOR + 90, 0);
    let inspection = inspected(&rig.disk);
    assert_eq!(places(&inspection), [(segment(2), 0), (segment(4), 3 * SECTOR)]);
    assert_eq!(inspection.findings().listed()[0].found, "no file");
    assert_eq!(inspection.last().index, 7);
}

#[test]
fn a_segment_of_another_is_a_finding_by_name() {
    let rig = rig_with(20);
    let other = Identity { cluster: [9; 16], ..identity() };
    let disk = MemoryDisk::new();
    let mut log = open(Arc::new(disk.clone()), &other, small()).unwrap().log;
    while let Some(order) = log.poll_spare() {
        log.handle_spare(order.run().unwrap());
    }
    rig.disk.overwrite(&segment(2), 0, &disk.image(&segment(2)).unwrap());
    rig.write_as_later(&segment(3), 7);
    let inspection = inspected(&rig.disk);
    assert_eq!(places(&inspection), [(segment(2), 32), (segment(3), 4)]);
    assert!(inspection.findings().listed()[0].found.contains("another cluster"));
    assert_eq!(inspection.findings().listed()[1].found, "format 7");
}

#[test]
fn an_older_copy_of_the_vote_is_a_finding() {
    let mut rig = rig_with(1);
    let older = rig.image("vote");
    rig.put(3, "of a term that it does not know");
    rig.disk.replace("vote", &older).unwrap();
    let inspection = inspected(&rig.disk);
    assert_eq!((places(&inspection), inspection.vote()), (vec![("vote".into(), 0)], None));
}

#[test]
fn every_bad_copy_of_the_vote_is_a_finding() {
    let mut rig = rig_with(1);
    rig.log.set_vote(Vote { term: 3, voted_for: 2 });
    rig.settle().unwrap();
    rig.disk.flip("vote", 4096 + 17, 0);
    rig.disk.flip("vote", 2 * 4096 + 17, 0);
    let inspection = inspected(&rig.disk);
    assert_eq!(places(&inspection), [("vote".into(), 4096), ("vote".into(), 8192)]);
    assert_eq!(inspection.vote(), Some(Vote { term: 3, voted_for: 2 }), "each has a good twin");
    rig.disk.flip("vote", 3 * 4096 + 17, 0);
    let inspection = inspected(&rig.disk);
    assert_eq!((places(&inspection), inspection.vote()), (vec![("vote".into(), 4096)], None));
    rig.disk.remove("vote").unwrap();
    assert_eq!(inspected(&rig.disk).findings().listed()[0].found, "no file");
}

#[test]
fn the_small_files_are_looked_at_and_the_log_without_them() {
    let rig = rig_with(3);
    rig.disk.flip("identity", 20, 0);
    rig.disk.flip("checkpoint-00000000000000000000", 30, 0);
    rig.disk.flip(&segment(1), 2 * SECTOR + 90, 0);
    let inspection = inspected(&rig.disk);
    let files: Vec<_> = places(&inspection).into_iter().map(|(file, _)| file).collect();
    assert_eq!(files, ["identity", "checkpoint-00000000000000000000", &segment(1)]);
    assert!(inspection.identity().is_none());
    rig.disk.remove("identity").unwrap();
    rig.disk.remove("checkpoint-00000000000000000000").unwrap();
    let founds: Vec<_> = inspected(&rig.disk).findings().listed().iter().map(|f| f.found.clone()).collect();
    assert_eq!(founds[..2], ["no file", "no file"]);
}

#[test]
fn a_checkpoint_of_another_history_is_a_finding() {
    let rig = rig_with(3);
    let at = rig.log.position(2).unwrap().unwrap();
    let checkpoint = Checkpoint { index: 2, term: at.term, chain: at.chain, sections: Vec::new() };
    checkpoint.save(&rig.disk).unwrap();
    assert!(inspected(&rig.disk).findings().is_empty());
    Checkpoint { chain: at.chain ^ 1, ..checkpoint }.save(&rig.disk).unwrap();
    let inspection = inspected(&rig.disk);
    assert_eq!(places(&inspection), [("checkpoint-00000000000000000002".into(), 0)]);
}

#[test]
fn findings_beyond_the_limit_are_counted() {
    let rig = rig_with(7 * 2 * FINDINGS_MAX as u64);
    let segments = 2 * FINDINGS_MAX as u64;
    for id in 1..=segments {
        rig.disk.flip(&segment(id), 2 * SECTOR + 90, 0);
        rig.disk.flip(&segment(id), 5 * SECTOR + 90, 0);
    }
    let inspection = inspected(&rig.disk);
    assert_eq!(inspection.findings().listed().len(), FINDINGS_MAX);
    assert_eq!(inspection.findings().count(), 2 * segments);
}

/// What happens to a log before its directory is looked at.
#[derive(Clone, Debug)]
enum Step {
    Put(u16),
    Commit,
    Cut(u8),
    Vote,
    Witness,
    WriteOnly(u16),
    Restart,
}

/// What happens to its files.
#[derive(Clone, Debug)]
enum Rot {
    Flip(prop::sample::Index, prop::sample::Index, u8),
    Sector(prop::sample::Index, prop::sample::Index),
    Remove(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..1400_u16).prop_map(Step::Put),
        2 => Just(Step::Commit),
        3 => (1..6_u8).prop_map(Step::Cut),
        1 => Just(Step::Vote),
        2 => Just(Step::Witness),
        1 => (0..1400_u16).prop_map(Step::WriteOnly),
        1 => Just(Step::Restart),
    ]
}

fn rot() -> impl Strategy<Value = Rot> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (index(), index(), 0..8_u8).prop_map(|(file, byte, bit)| Rot::Flip(file, byte, bit)),
        3 => (index(), index()).prop_map(|(file, sector)| Rot::Sector(file, sector)),
        1 => index().prop_map(Rot::Remove),
    ]
}

fn play(mut rig: Rig, steps: &[Step]) -> Rig {
    for (term, step) in (1..).zip(steps) {
        let next = rig.log.last_index() + 1;
        match step {
            Step::Put(bytes) => drop(rig.put(term, vec![term as u8; usize::from(*bytes)])),
            Step::Commit => rig.log.set_commit(next - 1),
            Step::Cut(back) => {
                let index = next.saturating_sub(u64::from(*back)).max(rig.log.commit() + 1);
                rig.enter(term);
                rig.log.append(vec![entry(index, term, "instead")]).unwrap();
                rig.settle().unwrap();
            }
            Step::Vote => {
                rig.log.set_vote(Vote { term, voted_for: 1 });
                rig.settle().unwrap();
            }
            Step::Witness => rig.witness(),
            Step::WriteOnly(bytes) => {
                rig.enter(term);
                rig.log.append(vec![entry(next, term, vec![9; usize::from(*bytes)])]).unwrap();
                rig.make_spares().unwrap();
                rig.write_only();
                rig.disk.crash(term);
                rig = Rig::on(rig.disk, small()).unwrap();
            }
            Step::Restart => rig = rig.restart().unwrap(),
        }
    }
    rig
}

fn spoil(disk: &MemoryDisk, rot: &Rot) {
    let names: Vec<_> =
        disk.list().unwrap().into_iter().filter(|name| name.starts_with("segment-")).collect();
    if names.is_empty() {
        return;
    }
    let used = |name: &str| {
        let image = disk.image(name).unwrap();
        image.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1
    };
    match rot {
        Rot::Flip(file, byte, bit) => {
            let name = file.get(&names);
            disk.flip(name, byte.index(used(name)) as u64, *bit);
        }
        Rot::Sector(file, sector) => {
            let name = file.get(&names);
            let sector = sector.index(used(name).div_ceil(512)) as u64;
            let left = disk.image(name).unwrap().len() as u64 - sector * SECTOR;
            disk.overwrite(name, sector * SECTOR, &vec![0; left.min(SECTOR) as usize]);
        }
        Rot::Remove(file) => disk.remove(file.get(&names).as_str()).unwrap(),
    }
}

/// The same files on a disk of their own.
fn copy(disk: &MemoryDisk) -> MemoryDisk {
    let copy = MemoryDisk::new();
    for (name, image) in images(disk) {
        copy.replace(&name, &image).unwrap();
    }
    copy
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever was done and whatever rotted: recovery refuses exactly what has findings, and what it refuses first
    /// is one of them; what it opens is what the walk shows.
    #[test]
    fn an_inspection_and_a_recovery_say_the_same(
        steps in prop::collection::vec(step(), 0..40),
        rots in prop::collection::vec(rot(), 0..4),
    ) {
        let rig = play(rig(), &steps);
        rots.iter().for_each(|rot| spoil(&rig.disk, rot));
        let inspection = inspected(&rig.disk);
        match open(Arc::new(copy(&rig.disk)), &identity(), small()) {
            Ok(opened) => {
                prop_assert!(inspection.findings().is_empty(), "{:?}", inspection.findings());
                prop_assert_eq!(inspection.last(), opened.log.last());
                prop_assert_eq!(inspection.commit(), opened.commit);
                prop_assert_eq!(visible(&inspection), all(&opened.log));
            }
            Err(OpenError::Damaged(damage)) => {
                let found: &[Damage] = inspection.findings().listed();
                prop_assert!(found.contains(&damage), "{} is not among {:?}", damage, found);
            }
            Err(OpenError::WrongFormat { file, .. } | OpenError::WrongCluster { file } | OpenError::WrongIncarnation { file }) => {
                prop_assert!(places(&inspection).iter().any(|(found, _)| *found == file));
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
