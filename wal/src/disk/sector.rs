//! The physical sector of a disk: what it writes whole or not at all, as far as it tells.
//!
//! A disk may take sectors of 512 bytes and write 4096 around them: a power cut in the midst of that may spoil what was
//! there, and synced, before. So a block of the log begins on a physical sector, and nothing else is ever written there.
//! The kernel tells how large it is in `/sys`; for what is no block device (a network, memory, layers of other file
//! systems, Btrfs) it tells nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{SECTOR_BYTES_MAX, SECTOR_BYTES_MIN};

/// Where the kernel tells of block devices.
const SYSTEM: &str = "/sys/dev/block";

/// The physical sector below a directory; [`SECTOR_BYTES_MIN`] where nobody tells. Bytes, a power of two.
pub(super) fn bytes_below(directory: &Path) -> u32 {
    let device = fs::metadata(directory).map(|metadata| metadata.dev());
    let told = device.ok().and_then(|device| {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        told(Path::new(SYSTEM), &format!("{major}:{minor}"))
    });
    told.unwrap_or(SECTOR_BYTES_MIN)
}

/// What the system says of a device, if it makes sense.
fn told(system: &Path, device: &str) -> Option<u32> {
    let device = system.join(device);
    // A partition has no queue: its disk, in whose directory it lies, has one.
    let queues = [device.join("queue"), device.join("../queue")];
    let text = queues.iter().find_map(|queue| fs::read_to_string(queue.join("physical_block_size")).ok())?;
    let bytes: u32 = text.trim().parse().ok()?;
    (bytes.is_power_of_two() && (SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&bytes)).then_some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_partition_has_the_sectors_of_its_disk() {
        let system = tempfile::tempdir().unwrap();
        let disk = system.path().join("devices/vda");
        fs::create_dir_all(disk.join("vda1")).unwrap();
        fs::create_dir(disk.join("queue")).unwrap();
        fs::write(disk.join("queue/physical_block_size"), "4096\n").unwrap();
        symlink(&disk, system.path().join("254:0")).unwrap();
        symlink(disk.join("vda1"), system.path().join("254:1")).unwrap();
        let told = |device| told(system.path(), device);
        assert_eq!((told("254:0"), told("254:1"), told("254:2")), (Some(4096), Some(4096), None));
    }

    #[test]
    fn what_makes_no_sense_is_not_believed() {
        let system = tempfile::tempdir().unwrap();
        let queue = system.path().join("8:0/queue");
        fs::create_dir_all(&queue).unwrap();
        for nonsense in ["", "0", "256", "4095", "131072", "4 KiB"] {
            fs::write(queue.join("physical_block_size"), nonsense).unwrap();
            assert_eq!(told(system.path(), "8:0"), None, "{nonsense}");
        }
    }

    #[test]
    fn a_real_directory_has_sectors_that_a_log_can_use() {
        let bytes = bytes_below(tempfile::tempdir().unwrap().path());
        assert!(bytes.is_power_of_two() && (SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&bytes), "{bytes}");
    }
}
