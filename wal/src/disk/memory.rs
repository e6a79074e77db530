//! A disk in memory that crashes on demand, always in the same way for the same seed.
//!
//! Every file has a live image, which reads see, and a durable one, which a crash leaves. They differ in the
//! sectors written since the last sync: of those, the old content is kept, and a crash puts some of it back.
//! The same holds for the names in the directory. A sync makes the file durable, never the name;
//! [`Disk::create`], [`Disk::replace`] and [`Disk::remove`] sync the name themselves, so that only a crash
//! *within* them can lose it. To crash there, let the n-th write or sync fail: the operation stops where it
//! is, and nothing works any more until [`MemoryDisk::crash`] or [`MemoryDisk::kill`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::{Disk, PAGE_BYTES, Region, SECTOR_BYTES_MIN, SMALL_FILE_BYTES_MAX, check_range};
use crate::Haste;

/// What is written whole or not at all. Bytes.
pub const SECTOR_BYTES: usize = SECTOR_BYTES_MIN as usize;

/// A directory in memory. Clones are handles of the same directory.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// What was done to a file, or to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileCounters {
    /// Syncs, also those within other operations.
    pub syncs: u64,
    /// Writes, also those within other operations.
    pub writes: u64,
    /// Bytes written by them.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Raised by every crash and kill: regions of an earlier life are dead.
    life: u64,
    names: BTreeMap<String, FileId>,
    /// Changes of names since the directory was last synced: the name and what it stood for before.
    unsynced_names: Vec<(String, Option<FileId>)>,
    files: Vec<File>,
    counters: FileCounters,
    /// How many more writes or syncs succeed, if one is to fail.
    writes_left: Option<u64>,
    syncs_left: Option<u64>,
    /// A fault has struck: nothing works until the next life.
    down: bool,
    is_full: bool,
}

type FileId = usize;

#[derive(Debug, Default)]
struct File {
    live: Vec<u8>,
    /// What unsynced sectors held when they were last synced.
    lost_content: BTreeMap<usize, Vec<u8>>,
    /// The length is not synced: a crash may leave less.
    length_unsynced: bool,
    counters: FileCounters,
}

/// One file, seen from one life of the process.
#[derive(Debug)]
struct MemoryRegion {
    state: Arc<Mutex<State>>,
    life: u64,
    id: FileId,
    name: String,
    bytes: u64,
}

impl MemoryDisk {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The power fails: every unsynced sector, and every unsynced change of a name, is kept or lost by the
    /// seed. What is then there is durable. All open regions are dead, all faults are forgotten.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        let mut random = Random(seed);
        for file in &mut state.files {
            file.crash(&mut random);
        }
        let unsynced = std::mem::take(&mut state.unsynced_names);
        for (name, before) in unsynced.into_iter().rev() {
            if random.coin() {
                match before {
                    Some(id) => state.names.insert(name, id),
                    None => state.names.remove(&name),
                };
            }
        }
        state.next_life();
    }

    /// The process is killed: all that was written stays, still unsynced, so that a later crash can lose it.
    /// All open regions are dead, all faults are forgotten.
    pub fn kill(&self) {
        self.lock().next_life();
    }

    /// Flips one bit (0 to 7) of a byte, in the live and in the durable image.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip(&self, name: &str, position: u64, bit: u8) {
        let mut state = self.lock();
        let at = usize::try_from(position).expect("a position in memory");
        let file = state.file_named(name);
        file.live[at] ^= 1 << bit;
        if let Some(old) = file.lost_content.get_mut(&(at / SECTOR_BYTES)) {
            old[at % SECTOR_BYTES] ^= 1 << bit;
        }
    }

    /// Overwrites bytes, in the live and in the durable image: a disk that forgot, or somebody with an
    /// editor.
    ///
    /// # Panics
    /// If there is no such file or range.
    pub fn overwrite(&self, name: &str, position: u64, content: &[u8]) {
        for (at, byte) in (position..).zip(content) {
            let found = self.lock().file_named(name).live[usize::try_from(at).expect("a position in memory")];
            (0..8).filter(|bit| (found ^ byte) >> bit & 1 == 1).for_each(|bit| self.flip(name, at, bit));
        }
    }

    /// The live image of a file.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(name).map(|&id| state.files[id].live.clone())
    }

    /// The durable image of a file: what a crash leaves that keeps nothing of what is not synced.
    #[must_use]
    pub fn durable_image(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(name).map(|&id| state.files[id].durable())
    }

    /// Another disk, with what this one is sure to keep: as after a crash that leaves nothing of what is not synced.
    #[must_use]
    pub fn surely_kept(&self) -> Self {
        let state = self.lock();
        let mut kept = state.names.clone();
        for (name, before) in state.unsynced_names.iter().rev() {
            match before {
                Some(id) => kept.insert(name.clone(), *id),
                None => kept.remove(name),
            };
        }
        let files = kept.values().map(|&id| File { live: state.files[id].durable(), ..File::default() });
        let (files, names) = (files.collect(), kept.into_keys().zip(0..).collect());
        Self { state: Arc::new(Mutex::new(State { names, files, ..State::default() })) }
    }

    /// Lets the `n`-th sync from now (1 is the next) fail, and every operation after it, until a crash or a
    /// kill.
    pub fn fail_sync(&self, n: u64) {
        self.lock().syncs_left = Some(n.saturating_sub(1));
    }

    /// Lets the `n`-th write from now (1 is the next) fail half done, and every operation after it, until a
    /// crash or a kill.
    pub fn fail_write(&self, n: u64) {
        self.lock().writes_left = Some(n.saturating_sub(1));
    }

    /// Whether the disk is full: it then makes no new files. A disk stays full through a crash.
    pub fn fill(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether a fault has struck: nothing works until a crash or a kill.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.lock().down
    }

    /// What was to fail and has not yet will not.
    pub fn forget_faults(&self) {
        let mut state = self.lock();
        (state.writes_left, state.syncs_left) = (None, None);
    }

    /// What was done to a file since it was made; nothing if there is none.
    #[must_use]
    pub fn counters(&self, name: &str) -> FileCounters {
        let state = self.lock();
        state.names.get(name).map(|&id| state.files[id].counters).unwrap_or_default()
    }

    /// What was done to all files and to the directory, ever.
    #[must_use]
    pub fn total(&self) -> FileCounters {
        self.lock().counters
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation of this disk panics half way")
    }

    fn region(&self, state: &State, name: &str, id: FileId) -> Arc<dyn Region> {
        Arc::new(MemoryRegion {
            state: Arc::clone(&self.state),
            life: state.life,
            id,
            name: name.into(),
            bytes: state.files[id].live.len() as u64,
        })
    }
}

impl State {
    fn next_life(&mut self) {
        self.life += 1;
        (self.writes_left, self.syncs_left, self.down) = (None, None, false);
    }

    fn alive(&self, life: u64) -> io::Result<()> {
        match self.down || life != self.life {
            true => Err(io::Error::other("this disk is down")),
            false => Ok(()),
        }
    }

    fn file_named(&mut self, name: &str) -> &mut File {
        let id = *self.names.get(name).unwrap_or_else(|| panic!("there is no file {name}"));
        &mut self.files[id]
    }

    fn find(&self, name: &str) -> io::Result<FileId> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"));
        self.names.get(name).copied().ok_or_else(missing)
    }

    /// Writes, or half of it if this is the write that fails.
    fn write(&mut self, id: FileId, position: usize, content: &[u8]) -> io::Result<()> {
        let fails = strikes(&mut self.writes_left);
        let done = if fails { content.len() / 2 / SECTOR_BYTES * SECTOR_BYTES } else { content.len() };
        self.files[id].write(position, &content[..done]);
        for counters in [&mut self.counters, &mut self.files[id].counters] {
            counters.writes += 1;
            counters.bytes += done as u64;
        }
        self.fail_if(fails, "this write was told to fail")
    }

    fn sync(&mut self, id: FileId) -> io::Result<()> {
        let fails = strikes(&mut self.syncs_left);
        self.counters.syncs += 1;
        self.files[id].counters.syncs += 1;
        self.fail_if(fails, "this sync was told to fail")?;
        self.files[id].sync();
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        if self.unsynced_names.is_empty() {
            return Ok(());
        }
        let fails = strikes(&mut self.syncs_left);
        self.counters.syncs += 1;
        self.fail_if(fails, "this sync was told to fail")?;
        self.unsynced_names.clear();
        Ok(())
    }

    fn fail_if(&mut self, fails: bool, why: &str) -> io::Result<()> {
        self.down |= fails;
        if fails { Err(io::Error::other(why)) } else { Ok(()) }
    }

    fn point(&mut self, name: &str, to: Option<FileId>) {
        let before = match to {
            Some(id) => self.names.insert(name.into(), id),
            None => self.names.remove(name),
        };
        self.unsynced_names.push((name.into(), before));
    }

    fn new_file(&mut self) -> FileId {
        self.files.push(File { length_unsynced: true, ..File::default() });
        self.files.len() - 1
    }
}

/// Counts down to a fault.
fn strikes(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

impl File {
    fn write(&mut self, position: usize, content: &[u8]) {
        let end = position + content.len();
        if end > self.live.len() {
            self.live.resize(end, 0);
        }
        if content.is_empty() || self.length_unsynced {
            self.live[position..end].copy_from_slice(content);
            return;
        }
        for sector in position / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.live.len());
            let live = &self.live;
            self.lost_content.entry(sector).or_insert_with(|| live[from..to].to_vec());
        }
        self.live[position..end].copy_from_slice(content);
    }

    /// Zeros from `end` to the end of its page, as a real disk writes them: whoever was wrong to say that nothing is there
    /// loses it here, too.
    fn fill_page(&mut self, end: usize) {
        let page_end = end.next_multiple_of(PAGE_BYTES).min(self.live.len());
        if self.live[end..page_end].iter().any(|&byte| byte != 0) {
            self.write(end, &vec![0; page_end - end]);
        }
    }

    fn sync(&mut self) {
        self.lost_content.clear();
        self.length_unsynced = false;
    }

    fn durable(&self) -> Vec<u8> {
        let mut image = self.live.clone();
        for (sector, old) in &self.lost_content {
            image[sector * SECTOR_BYTES..][..old.len()].copy_from_slice(old);
        }
        image
    }

    fn crash(&mut self, random: &mut Random) {
        for (sector, old) in std::mem::take(&mut self.lost_content) {
            if random.coin() {
                self.live[sector * SECTOR_BYTES..][..old.len()].copy_from_slice(&old);
            }
        }
        if std::mem::take(&mut self.length_unsynced) {
            // A file that was never synced may have any length, and any of its sectors may be zeros.
            let sectors = self.live.len() / SECTOR_BYTES + 1;
            let keep = random.below(sectors as u64 + 1) as usize * SECTOR_BYTES;
            self.live.truncate(keep);
            self.live.chunks_mut(SECTOR_BYTES).filter(|_| random.coin()).for_each(|sector| sector.fill(0));
        }
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.alive(state.life)?;
        state.sync_names()?;
        Ok(state.names.keys().filter(|name| !is_temporary(name)).cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64, _haste: &Haste) -> io::Result<Arc<dyn Region>> {
        let mut state = self.lock();
        state.alive(state.life)?;
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} is there already")));
        }
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = state.new_file();
        state.point(name, Some(id));
        state.write(id, 0, &vec![0; usize::try_from(bytes).expect("a file in memory")])?;
        state.sync(id)?;
        state.sync_names()?;
        Ok(self.region(&state, name, id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Region>> {
        let state = self.lock();
        state.alive(state.life)?;
        let id = state.find(name)?;
        Ok(self.region(&state, name, id))
    }

    fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        let state = self.lock();
        state.alive(state.life)?;
        let Some(&id) = state.names.get(name) else { return Ok(None) };
        let live = &state.files[id].live;
        if live.len() as u64 > SMALL_FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{name} is too large to be read whole"),
            ));
        }
        Ok(Some(Bytes::copy_from_slice(live)))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.alive(state.life)?;
        let id = state.new_file();
        let temporary = format!("{name}{TEMPORARY}");
        state.point(&temporary, Some(id));
        state.write(id, 0, content)?;
        state.sync(id)?;
        state.point(&temporary, None);
        state.point(name, Some(id));
        state.sync_names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.alive(state.life)?;
        state.find(name)?;
        state.point(name, None);
        state.sync_names()
    }
}

const TEMPORARY: &str = ".new";

fn is_temporary(name: &str) -> bool {
    name.ends_with(TEMPORARY)
}

impl MemoryRegion {
    fn lock(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().expect("no operation of this disk panics half way");
        state.alive(self.life)?;
        Ok(state)
    }

    fn check(&self, position: u64, bytes: usize) -> io::Result<usize> {
        check_range(&self.name, self.bytes, position, bytes as u64)?;
        Ok(usize::try_from(position).expect("within a file in memory"))
    }
}

impl Region for MemoryRegion {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write_at(&self, position: u64, chunks: &[Bytes]) -> io::Result<()> {
        let content = chunks.concat();
        let at = self.check(position, content.len())?;
        self.lock()?.write(self.id, at, &content)
    }

    fn append_at(&self, position: u64, chunks: &[Bytes]) -> io::Result<()> {
        self.write_at(position, chunks)?;
        let bytes: usize = chunks.iter().map(Bytes::len).sum();
        self.lock()?.files[self.id].fill_page(self.check(position, bytes)? + bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.lock()?.sync(self.id)
    }

    fn read(&self, position: u64, bytes: usize) -> io::Result<Bytes> {
        let at = self.check(position, bytes)?;
        Ok(Bytes::copy_from_slice(&self.lock()?.files[self.id].live[at..at + bytes]))
    }

    fn scan(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        let at = self.check(position, into.len())?;
        into.copy_from_slice(&self.lock()?.files[self.id].live[at..at + into.len()]);
        Ok(())
    }
}

/// A stream of numbers from a seed: splitmix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests;
