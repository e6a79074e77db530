//! What a crash, a kill and a fault leave of the disk in memory.

use super::*;

fn written(disk: &MemoryDisk) -> Arc<dyn Region> {
    let region = disk.create("file", 4096, &Haste::at_once()).unwrap();
    region.write_at(512, &[Bytes::from(vec![1; 1024]), Bytes::from(vec![2; 512])]).unwrap();
    region
}

#[test]
fn a_crash_keeps_or_loses_each_unsynced_sector() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = MemoryDisk::new();
        written(&disk);
        disk.crash(seed);
        let image = disk.image("file").unwrap();
        seen.insert((image[512], image[1024], image[1536]));
    }
    assert_eq!(seen.len(), 8, "three sectors, kept or lost, each on its own");
}

#[test]
fn who_is_wrong_that_nothing_follows_loses_what_does() {
    let disk = MemoryDisk::new();
    let region = disk.create("file", 8192, &Haste::at_once()).unwrap();
    for at in [1024, 3000, 4096] {
        region.write_at(at, &[Bytes::from_static(b"there")]).unwrap();
    }
    region.sync().unwrap();
    region.append_at(512, &[Bytes::from(vec![1; 512])]).unwrap();
    let image = disk.image("file").unwrap();
    assert_eq!((image[1023], image[1024], image[3000], &image[4096..4101]), (1, 0, 0, &b"there"[..]));
    disk.crash(1);
    let kept = disk.image("file").unwrap()[1024];
    assert!(kept == 0 || kept == b't', "and a crash keeps the zeros or what they replaced");
    assert!(disk.open("file").unwrap().append_at(8192, &[Bytes::from_static(b"x")]).is_err());
}

#[test]
fn a_sync_survives_every_crash() {
    for seed in 0..32 {
        let disk = MemoryDisk::new();
        let region = written(&disk);
        region.sync().unwrap();
        disk.crash(seed);
        assert_eq!(&disk.image("file").unwrap()[1535..1537], [1, 2]);
    }
}

#[test]
fn the_durable_image_holds_what_was_synced_and_nothing_else() {
    let disk = MemoryDisk::new();
    let region = written(&disk);
    assert_eq!(disk.durable_image("file").unwrap(), vec![0; 4096]);
    region.sync().unwrap();
    assert_eq!(disk.durable_image("file"), disk.image("file"));
    assert_eq!(disk.durable_image("another"), None);
    region.write_at(0, &[Bytes::from(vec![3; 512])]).unwrap();
    let kept = disk.surely_kept();
    assert_eq!(kept.image("file"), disk.durable_image("file"));
    assert_ne!(kept.image("file"), disk.image("file"));
    kept.open("file").unwrap().write_at(0, &[Bytes::from(vec![4; 512])]).unwrap();
    assert_eq!(disk.image("file").unwrap()[0], 3, "it is another disk");
}

#[test]
fn after_a_kill_a_crash_can_still_lose_what_was_written() {
    let disk = MemoryDisk::new();
    written(&disk);
    disk.kill();
    assert_eq!(disk.image("file").unwrap()[512], 1);
    let lost = (0..32).any(|seed| {
        let disk = MemoryDisk::new();
        written(&disk);
        disk.kill();
        disk.crash(seed);
        disk.image("file").unwrap()[512] == 0
    });
    assert!(lost);
}

#[test]
fn regions_of_an_earlier_life_are_dead() {
    let disk = MemoryDisk::new();
    let region = written(&disk);
    disk.kill();
    assert!(region.sync().is_err());
    assert!(region.read(0, 1).is_err());
    assert!(disk.open("file").unwrap().read(0, 1).is_ok());
}

#[test]
fn a_fault_takes_the_disk_down_until_the_next_life() {
    let disk = MemoryDisk::new();
    let region = written(&disk);
    disk.fail_sync(1);
    assert!(region.sync().is_err());
    assert!(region.write_at(0, &[Bytes::from_static(b"x")]).is_err());
    assert!(disk.list().is_err());
    disk.crash(1);
    assert_eq!(disk.list().unwrap(), ["file"]);
}

#[test]
fn a_replaced_file_is_old_or_new_whatever_fails() {
    for seed in 0..16 {
        for fail in 1..=3 {
            let disk = MemoryDisk::new();
            disk.replace("small", &[1; 2000]).unwrap();
            match fail {
                1 => disk.fail_write(1),
                syncs => disk.fail_sync(syncs - 1),
            }
            assert!(disk.replace("small", &[2; 3000]).is_err());
            disk.crash(seed);
            let content = disk.read("small").unwrap().unwrap();
            assert!(content == vec![1; 2000] || content == vec![2; 3000], "seed {seed}, fault {fail}");
        }
    }
}

#[test]
fn a_flipped_bit_and_overwritten_bytes_survive_a_crash() {
    let disk = MemoryDisk::new();
    written(&disk);
    disk.flip("file", 512, 3);
    disk.overwrite("file", 4000, b"edited");
    disk.crash(5);
    let image = disk.image("file").unwrap();
    assert!(image[512] == 1 ^ 8 || image[512] == 8);
    assert_eq!(&image[4000..4006], b"edited");
}
