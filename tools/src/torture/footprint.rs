//! What the process of a broker holds: open files, threads, memory. The largest that was seen is reported, and has bounds.
//!
//! A broker that lives through a thousand deaths of its peers, and through all that clients do to it, must not keep
//! something of each. Those that are restarted forget; those that are not show it. It is looked at when all is well, so
//! nothing is held for what is going wrong just then.
//!
//! Where the system has no `/proc`, nothing is claimed.

use std::{fmt, fs, path::Path};

use serde::Serialize;
use thiserror::Error;

use sequor_client::protocol::BrokerId;

use crate::{
    exit::{Exit, Verdict},
    words::{count, grouped},
};

/// Most open files beside those of its data directory, of which each segment of the log is one for as long as the broker
/// runs. Measured: 13, whatever happens and however many clients there are, as they all share one socket. One that is not
/// given back at each of fifty faults is found. Count.
const OTHER_FILES_MAX: u64 = 64;
/// Most threads. Measured: 4, always. Count.
const THREADS_MAX: u64 = 16;
/// Most memory beside what producers have sent and nobody has read yet. Measured: 10 to 20 MiB under the usual load, 34
/// MiB with 200 producers that write without pause. A leak of 512 KiB at each of a thousand faults is found. Bytes.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// So much of one producer's may wait in a broker: the window of its stream. Bytes.
const WAITING_BYTES_MAX: u64 = 16 << 20;

/// See the file's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Footprint {
    /// Open files, sockets among them. Count.
    open_files: u64,
    threads: u64,
    /// Memory that is in no file. Bytes.
    memory_bytes: u64,
}

impl Footprint {
    /// Of a process; none where the system does not say.
    pub(super) fn of(process: u32) -> Option<Self> {
        let process = Path::new("/proc").join(process.to_string());
        let status = fs::read_to_string(process.join("status")).ok()?;
        Some(Self {
            open_files: entries(&process.join("fd"))?,
            threads: field(&status, "Threads:")?,
            memory_bytes: field(&status, "RssAnon:")? << 10,
        })
    }

    /// The larger one of each.
    pub(super) fn most(self, other: Self) -> Self {
        Self {
            open_files: self.open_files.max(other.open_files),
            threads: self.threads.max(other.threads),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }

    /// Whether a broker with this data directory and so many producers has use for so much.
    ///
    /// # Errors
    /// If it has not.
    pub(super) fn check(&self, id: BrokerId, data: &Path, producers: u64) -> Result<(), FootprintError> {
        let memory_max = MEMORY_BYTES_MAX + producers * WAITING_BYTES_MAX;
        let files_max = OTHER_FILES_MAX + entries(data).unwrap_or_default();
        [
            ("open files", self.open_files, files_max),
            ("threads", self.threads, THREADS_MAX),
            ("bytes of memory", self.memory_bytes, memory_max),
        ]
        .into_iter()
        .try_for_each(|(what, held, bound)| match held <= bound {
            true => Ok(()),
            false => Err(FootprintError { id, what, held, bound }),
        })
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open_files, threads, memory_bytes } = *self;
        let (files, threads) = (count(open_files, "open file"), count(threads, "thread"));
        write!(f, "{files}, {threads}, {} MiB of memory at most", memory_bytes.div_ceil(1 << 20))
    }
}

/// How many entries a directory has; none if it cannot be read.
fn entries(dir: &Path) -> Option<u64> {
    Some(fs::read_dir(dir).ok()?.count() as u64)
}

/// The number behind a name in the status of a process.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A broker holds more than it has use for.
#[derive(Debug, Error)]
#[error(
    "broker {id} holds {} {what} when all is well, and it has use for {} at most: something is not given back; run it \
     again with the same --seed, and look at the broker's process meanwhile, in /proc", grouped(*.held), grouped(*.bound)
)]
pub(crate) struct FootprintError {
    id: BrokerId,
    what: &'static str,
    held: u64,
    bound: u64,
}

impl Verdict for FootprintError {
    fn exit(&self) -> Exit {
        Exit::Unhealthy
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs::File, process};

    use super::*;

    #[test]
    fn what_a_process_holds_is_read() {
        if !fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("RssAnon:")) {
            assert_eq!(Footprint::of(process::id()), None, "the system does not say");
            return;
        }
        let before = Footprint::of(process::id()).unwrap();
        let files: Vec<_> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let after = Footprint::of(process::id()).unwrap();
        // Other tests open and close files meanwhile.
        assert!(after.open_files >= files.len() as u64, "{before:?}, {after:?}");
        assert!(before.threads > 0 && before.memory_bytes > 0, "{before:?}");
        assert_eq!(Footprint::of(u32::MAX), None);
    }

    #[test]
    fn who_does_not_give_back_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let told = |footprint: Footprint| {
            footprint.check(BrokerId(2), dir.path(), 0).map_err(|error| error.to_string()).unwrap_err()
        };
        let most =
            Footprint { open_files: OTHER_FILES_MAX, threads: THREADS_MAX, memory_bytes: MEMORY_BYTES_MAX };
        most.check(BrokerId(2), dir.path(), 0).unwrap();
        assert_eq!(most.most(Footprint::default()), most);
        let more = Footprint { open_files: OTHER_FILES_MAX + 1, ..most };
        assert!(told(more).starts_with("broker 2 holds 65 open files when all is well"), "{}", told(more));
        let more_threads = Footprint { threads: THREADS_MAX + 1, ..most };
        assert!(told(more_threads).contains("17 threads"), "{}", told(more_threads));
        let more_memory = Footprint { memory_bytes: MEMORY_BYTES_MAX + 1, ..most };
        assert!(told(more_memory).contains("bytes of memory"), "{}", told(more_memory));
        more_memory.check(BrokerId(2), dir.path(), 1).unwrap();
        // Each segment of its log is one that it keeps open.
        File::create(dir.path().join("segment-1")).unwrap();
        more.check(BrokerId(2), dir.path(), 0).unwrap();
    }
}
