//! Disks that can lose their power, and be full: a file system of its own for each broker, on an image in a file.
//!
//! ```text
//!   broker ─► ext4, mounted ─► loop device ─► image-N, a file         what was synced is in the file; what only lies
//!                                              │  copied              in the kernel's memory of the mounted ext4 is not
//!                                              ▼
//!                                             image-N, the next one ─► mounted in its place
//! ```
//!
//! The broker stands still while its image is copied, and the copy is taken again if the kernel wrote to the image
//! meanwhile: so it is what the disk held at one moment, and nothing of what it was only told to hold.
//!
//! A disk is full when a file beside the broker's data takes all that is left of it.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::SystemTime,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use thiserror::Error;
use tokio::process::Command;

use sequor_client::protocol::BrokerId;

use crate::{
    cluster::Cluster,
    exit::{Exit, Verdict},
};

/// Size of an image: what is not used takes no room. Bytes.
const IMAGE_BYTES: u64 = 8 << 30;
/// Copies of an image that are tried: the kernel writes to it only every few seconds. Count.
const COPIES_MAX: usize = 20;

/// Name of the file that takes all that is left.
const FILLING: &str = "filling";
/// The largest piece that it is tried to take at once, and the smallest. Bytes.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// An image cannot be made, mounted or copied.
#[derive(Debug, Error)]
pub(crate) enum DiskError {
    /// The system does not let us.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A tool failed.
    #[error("{command} ended with {}: {}", .output.status, String::from_utf8_lossy(&.output.stderr).trim_end())]
    Tool {
        /// How it was called.
        command: String,
        /// What it said.
        output: Output,
    },
    /// Every copy was disturbed.
    #[error("the kernel wrote to {} each time that it was copied", .0.display())]
    Restless(PathBuf),
}

impl Verdict for DiskError {
    fn exit(&self) -> Exit {
        Exit::Error
    }
}

/// One broker's disk.
#[derive(Debug)]
struct Disk {
    broker: BrokerId,
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

/// The disks of all brokers. Dropped, they are unmounted.
#[derive(Debug)]
pub(super) struct Disks {
    disks: Vec<Disk>,
    cuts: u64,
}

impl Disks {
    /// Moves the data of brokers that were never started to disks of their own.
    ///
    /// # Errors
    /// If that cannot be done: it takes root, and loop devices.
    pub(super) async fn prepare(cluster: &mut Cluster) -> Result<Self, DiskError> {
        let mut disks = Self { disks: Vec::new(), cuts: 0 };
        for broker in cluster.ids() {
            let place = |name: &str| cluster.dir().join(format!("{name}-{broker}"));
            let disk = Disk { broker, image: place("image"), mount: place("disk"), mounted: false };
            let file = std::fs::File::create(&disk.image).and_then(|file| file.set_len(IMAGE_BYTES));
            file.map_err(system("make the image of a disk"))?;
            std::fs::create_dir(&disk.mount).map_err(system("make a directory"))?;
            let format = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
            run("mkfs.ext4", format.map(Path::new).into_iter().chain([&*disk.image])).await?;
            disks.disks.push(disk);
            let disk = disks.disks.last_mut().expect("it was just added");
            disk.mount().await?;
            let (before, data) = (cluster.data(broker), disk.mount.join("data"));
            run("cp", [Path::new("-a"), &before, &data]).await?;
            // What was made before the first start was durable; so it has to be here.
            run("sync", [Path::new("-f"), &data]).await?;
            cluster.set(broker, "data", data.to_string_lossy());
        }
        Ok(disks)
    }

    /// Copies the images of brokers that stand still: what a power cut leaves. They go on from there when they are
    /// killed, and [`Disks::restore`] was called.
    pub(super) async fn copy(&mut self, brokers: &[BrokerId]) -> Result<Vec<PathBuf>, DiskError> {
        let mut copies = Vec::new();
        for disk in self.disks.iter().filter(|disk| brokers.contains(&disk.broker)) {
            self.cuts += 1;
            let copy = disk.image.with_file_name(format!("image-{}-{}", disk.broker, self.cuts));
            disk.copy(&copy).await?;
            copies.push(copy);
        }
        Ok(copies)
    }

    /// Takes all that is left of the disks of these brokers.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(super) fn fill(&self, brokers: &[BrokerId]) -> Result<(), DiskError> {
        let mut disks = self.disks.iter().filter(|disk| brokers.contains(&disk.broker));
        disks.try_for_each(|disk| fill(&disk.mount.join(FILLING)).map_err(system("fill a disk")))
    }

    /// Gives back what was taken of all disks.
    ///
    /// # Errors
    /// If the system does not let us.
    pub(super) fn empty(&self) -> Result<(), DiskError> {
        for disk in &self.disks {
            match std::fs::remove_file(disk.mount.join(FILLING)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(system("give room back")(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Puts the copies in the places of the disks of brokers that do not run.
    pub(super) async fn restore(
        &mut self,
        brokers: &[BrokerId],
        copies: Vec<PathBuf>,
    ) -> Result<(), DiskError> {
        let disks = self.disks.iter_mut().filter(|disk| brokers.contains(&disk.broker));
        for (disk, copy) in disks.zip(copies) {
            disk.unmount().await?;
            std::fs::rename(copy, &disk.image).map_err(system("replace the image of a disk"))?;
            disk.mount().await?;
        }
        Ok(())
    }
}

impl Disk {
    async fn mount(&mut self) -> Result<(), DiskError> {
        run("mount", [Path::new("-o"), Path::new("loop"), &self.image, &self.mount]).await?;
        self.mounted = true;
        Ok(())
    }

    async fn unmount(&mut self) -> Result<(), DiskError> {
        run("umount", [&*self.mount]).await?;
        self.mounted = false;
        Ok(())
    }

    async fn copy(&self, to: &Path) -> Result<(), DiskError> {
        for _ in 0..COPIES_MAX {
            let before = self.changed()?;
            run("cp", [Path::new("--sparse=always"), &self.image, to]).await?;
            if self.changed()? == before {
                return Ok(());
            }
        }
        Err(DiskError::Restless(self.image.clone()))
    }

    /// When the image was last written to.
    fn changed(&self) -> Result<SystemTime, DiskError> {
        let changed = std::fs::metadata(&self.image).and_then(|file| file.modified());
        changed.map_err(system("look at the image of a disk"))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in self.disks.iter().filter(|disk| disk.mounted) {
            // A broker that is about to die may still hold it: it goes as soon as nobody does.
            let unmounted = std::process::Command::new("umount").arg("-l").arg(&disk.mount).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                tracing::warn!(path = %disk.mount.display(), "cannot unmount a disk");
            }
        }
    }
}

/// Takes all that is left, in pieces that become smaller.
fn fill(path: &Path) -> io::Result<()> {
    let file = std::fs::File::create(path)?;
    let (mut taken, mut piece) = (0, *PIECE_BYTES.end());
    while piece >= *PIECE_BYTES.start() {
        match fallocate(&file, FallocateFlags::empty(), taken, piece) {
            Ok(()) => taken += piece,
            Err(Errno::NOSPC) => piece /= 2,
            // A signal: once more.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a Path>) -> Result<(), DiskError> {
    let args: Vec<_> = args.into_iter().collect();
    let mut command = Command::new(program);
    let ran = command.args(&args).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = ran.map_err(system("run a tool"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = args.iter().map(|arg| arg.to_string_lossy());
    let command = std::iter::once(program.into()).chain(words).collect::<Vec<_>>().join(" ");
    Err(DiskError::Tool { command, output })
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DiskError {
    move |source| DiskError::System { what, source }
}
