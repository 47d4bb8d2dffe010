use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::Storage;

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// What a journal asks of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// [`Storage::create`].
    Create,
    /// [`Storage::append`]. A failing one writes a part, which may be all.
    Append,
    /// [`Storage::sync`]. A failing one stores a part; the rest is forgotten by then, and no later sync stores it.
    Sync,
    /// [`Storage::read`].
    Read,
    /// [`Storage::list`].
    List,
    /// [`Storage::unlink`].
    Unlink,
    /// [`Storage::sync_dir`]. A failing one stores some of the names, and forgets the changes to the others.
    SyncDir,
    /// [`Storage::truncate`], which is durable only with the next sync.
    Truncate,
}

impl Op {
    /// Whether it changes anything.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Op::Read | Op::List)
    }
}

/// What reading a file fails with, though its bytes are there: descriptors or rights that are missing, a handle that has
/// gone stale, a file that is renamed for a while. The last is a bad sector's, or that of a disk that is away.
pub const READ_ERRORS: [Errno; 5] = [
    Errno::MFILE,
    Errno::ACCESS,
    Errno::STALE,
    Errno::NOENT,
    Errno::IO,
];

type Fault = Box<dyn FnMut(Op, u32) -> Option<io::Error> + Send>;

/// A disk in memory. See the [module](super).
#[derive(Default)]
pub struct SimDisk(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    image: Image,
    fault: Option<Fault>,
    recorded: Option<Vec<(Op, Image)>>,
}

/// All that a crash has to do with.
#[derive(Default, Clone)]
struct Image {
    files: BTreeMap<u64, File>,
    /// The directory as processes see it, and as it is on the disk: the file of each segment.
    names: BTreeMap<u32, u64>,
    names_on_disk: BTreeMap<u32, u64>,
    /// Names whose latest change a failed sync of the directory has forgotten.
    forgotten: BTreeSet<u32>,
    last_file: u64,
    random: u64,
    capacity: Option<u64>,
    drops_at_once: bool,
}

#[derive(Default, Clone)]
struct File {
    /// What reads give. Shared with the images that were recorded.
    cache: Arc<Vec<u8>>,
    /// What survives for certain.
    disk: Arc<Vec<u8>>,
    /// Sectors of `cache` that the next sync stores. Those that differ from the disk and are not here are lost.
    dirty: BTreeSet<usize>,
    /// The next sync stores the length.
    resized: bool,
    /// This process made it.
    own: bool,
    /// A write or sync of it failed.
    broken: bool,
}

/// Something that was not synced, and survives or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsynced {
    Sector(u64, usize),
    Length(u64),
    Name(u32),
}

impl SimDisk {
    /// An empty disk. Equal seeds fail, tear and lose equally.
    #[must_use]
    pub fn new(seed: u64) -> Arc<SimDisk> {
        SimDisk::with(Image {
            random: seed,
            ..Image::default()
        })
    }

    /// A disk with these segments, all durable.
    #[must_use]
    pub fn of(segments: BTreeMap<u32, Vec<u8>>) -> Arc<SimDisk> {
        let mut image = Image::default();
        for (segment, bytes) in segments {
            image.last_file += 1;
            let file = File {
                cache: Arc::new(bytes.clone()),
                disk: Arc::new(bytes),
                ..File::default()
            };
            image.files.insert(image.last_file, file);
            image.names.insert(segment, image.last_file);
        }
        image.names_on_disk = image.names.clone();
        SimDisk::with(image)
    }

    fn with(image: Image) -> Arc<SimDisk> {
        Arc::new(SimDisk(Mutex::new(Inner {
            image,
            ..Inner::default()
        })))
    }

    /// From now on each call is put to `fault`, which may fail it.
    pub fn fail<E: Into<io::Error>>(
        &self,
        mut fault: impl FnMut(Op, u32) -> Option<E> + Send + 'static,
    ) {
        let fault = move |op, segment| fault(op, segment).map(Into::into);
        self.inner().fault = Some(Box::new(fault));
    }

    /// From now on calls succeed, save for a full disk.
    pub fn heal(&self) {
        self.inner().fault = None;
    }

    /// How many bytes all segments together may have; none is no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner().image.capacity = bytes;
    }

    /// Whether reads miss at once what a failed sync has forgotten. Otherwise it reads back until the power is lost, as
    /// on most of Linux's file systems.
    pub fn set_drops_at_once(&self, drops: bool) {
        self.inner().image.drops_at_once = drops;
    }

    /// The segments as processes see them.
    #[must_use]
    pub fn files(&self) -> BTreeMap<u32, Vec<u8>> {
        let Image { files, names, .. } = &self.inner().image;
        let contents = |file: &u64| files.get(file).map(|file| file.cache.to_vec());
        names
            .iter()
            .map(|(segment, file)| (*segment, contents(file).unwrap_or_default()))
            .collect()
    }

    /// From now on the disk is remembered as it is before each call that changes it.
    pub fn record(&self) {
        self.inner().recorded = Some(Vec::new());
    }

    /// The disks remembered since the last time, each with the call that came then.
    #[must_use]
    pub fn recorded(&self) -> Vec<(Op, Arc<SimDisk>)> {
        let recorded = self.inner().recorded.as_mut().map(std::mem::take);
        let recorded = recorded.unwrap_or_default().into_iter();
        recorded
            .map(|(op, image)| (op, SimDisk::with(image)))
            .collect()
    }

    /// How many things are not synced, each of which a power loss may lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.inner().image.unsynced().len()
    }

    /// What there is after a power loss that only those of the [unsynced](SimDisk::unsynced) things survive that
    /// `survives` says, by number. All of it is durable.
    #[must_use]
    pub fn after_power_loss(&self, mut survives: impl FnMut(usize) -> bool) -> Arc<SimDisk> {
        let image = &self.inner().image;
        let unsynced = image.unsynced().into_iter().enumerate();
        let survivors: Vec<Unsynced> = unsynced
            .filter(|(number, _)| survives(*number))
            .map(|(_, thing)| thing)
            .collect();
        SimDisk::with(image.after_power_loss(&survivors))
    }

    /// What there is after a power loss in which chance decides: also where a file ends between its old and its new
    /// length, and which sectors are torn, or hold what was there long ago.
    #[must_use]
    pub fn after_random_power_loss(&self) -> Arc<SimDisk> {
        let mut inner = self.inner();
        let image = &mut inner.image;
        let likely = image.below(5);
        let mut survivors = image.unsynced();
        survivors.retain(|_| image.below(4) < likely);
        let mut after = image.after_power_loss(&survivors);
        for (segment, file) in after.names.clone() {
            after.tear(segment, file, image);
        }
        image.random = image.random.wrapping_add(1);
        SimDisk::with(after)
    }

    /// What the next process finds when this one is killed: everything that was written, durable or not.
    #[must_use]
    pub fn after_kill(&self) -> Arc<SimDisk> {
        let mut image = self.inner().image.clone();
        for file in image.files.values_mut() {
            (file.own, file.broken) = (false, false);
        }
        SimDisk::with(image)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, and whether the call is to fail.
    fn ask(&self, op: Op, segment: u32) -> (MutexGuard<'_, Inner>, io::Result<()>) {
        let mut inner = self.inner();
        if op.changes() {
            let Inner {
                recorded, image, ..
            } = &mut *inner;
            if let Some(recorded) = recorded {
                recorded.push((op, image.clone()));
            }
        }
        let failed = inner.fault.as_mut().and_then(|fault| fault(op, segment));
        (inner, failed.map_or(Ok(()), Err))
    }
}

impl Image {
    fn file(&mut self, segment: u32) -> io::Result<&mut File> {
        let file = self.names.get(&segment);
        file.and_then(|file| self.files.get_mut(file))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The next random number (SplitMix64), below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn used(&self) -> u64 {
        let files = self.names.values().filter_map(|file| self.files.get(file));
        files.map(|file| file.cache.len() as u64).sum()
    }

    fn unsynced(&self) -> Vec<Unsynced> {
        let mut all = Vec::new();
        for (number, file) in &self.files {
            let reachable = |names: &BTreeMap<u32, u64>| names.values().any(|file| file == number);
            if !reachable(&self.names) && !reachable(&self.names_on_disk) {
                continue;
            }
            all.extend(file.dirty.iter().map(|at| Unsynced::Sector(*number, *at)));
            if file.resized {
                all.push(Unsynced::Length(*number));
            }
        }
        let segments: BTreeSet<u32> = self
            .names
            .keys()
            .chain(self.names_on_disk.keys())
            .copied()
            .collect();
        let changed = segments.into_iter().filter(|segment| {
            self.names.get(segment) != self.names_on_disk.get(segment)
                && !self.forgotten.contains(segment)
        });
        all.extend(changed.map(Unsynced::Name));
        all
    }

    fn after_power_loss(&self, survivors: &[Unsynced]) -> Image {
        let mut after = self.clone();
        for thing in survivors {
            match *thing {
                Unsynced::Sector(file, at) => {
                    if let Some(file) = after.files.get_mut(&file) {
                        file.store(at);
                    }
                }
                Unsynced::Length(_) => {}
                Unsynced::Name(segment) => after.store_name(segment),
            }
        }
        for (number, file) in &mut after.files {
            let before = self.files.get(number).map_or(0, |file| file.disk.len());
            let stored = survivors.contains(&Unsynced::Length(*number));
            let length = if stored { file.cache.len() } else { before };
            file.resize(length);
            *file = File {
                cache: Arc::clone(&file.disk),
                disk: Arc::clone(&file.disk),
                ..File::default()
            };
        }
        after.names = after.names_on_disk.clone();
        after.forgotten.clear();
        let names = &after.names;
        after
            .files
            .retain(|number, _| names.values().any(|file| file == number));
        after
    }

    fn store_name(&mut self, segment: u32) {
        match self.names.get(&segment) {
            Some(file) => self.names_on_disk.insert(segment, *file),
            None => self.names_on_disk.remove(&segment),
        };
    }

    /// Makes a file that survived a power loss a little worse, where it was not durable `before`.
    fn tear(&mut self, segment: u32, number: u64, before: &mut Image) {
        let Some(durable) = before.files.get(&number).map(|file| file.disk.len()) else {
            return;
        };
        let Ok(file) = self.file(segment) else { return };
        if file.disk.len() > durable {
            let end = file.disk.len();
            match before.below(4) {
                // Shorter.
                0 => file.resize(durable + before.below((end - durable) as u64) as usize),
                // A torn sector, or one with what was there long ago.
                chance @ 1..3 => {
                    let from = durable + before.below((end - durable) as u64) as usize;
                    let to = (from / SECTOR_BYTES + 1) * SECTOR_BYTES;
                    for byte in &mut Arc::make_mut(&mut file.disk)[from..to.min(end)] {
                        *byte = if chance == 1 {
                            0
                        } else {
                            before.below(256) as u8
                        };
                    }
                }
                _ => {}
            }
            file.cache = Arc::clone(&file.disk);
        }
    }
}

impl File {
    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let first = self.cache.len() / SECTOR_BYTES;
        Arc::make_mut(&mut self.cache).extend_from_slice(bytes);
        self.dirty
            .extend(first..self.cache.len().div_ceil(SECTOR_BYTES));
        self.resized = true;
    }

    /// Puts a sector on the disk.
    fn store(&mut self, sector: usize) {
        let range = sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(self.cache.len());
        if range.is_empty() {
            return;
        }
        self.resize(self.disk.len().max(range.end));
        Arc::make_mut(&mut self.disk)[range.clone()].copy_from_slice(&self.cache[range]);
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.store(sector);
        }
        if std::mem::take(&mut self.resized) {
            self.resize(self.cache.len());
        }
    }

    /// What is on the disk.
    fn resize(&mut self, length: usize) {
        if self.disk.len() != length {
            Arc::make_mut(&mut self.disk).resize(length, 0);
        }
    }
}

impl Storage for SimDisk {
    fn create(&self, segment: u32) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Create, segment);
        failed?;
        let image = &mut inner.image;
        if image.names.contains_key(&segment) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        image.last_file += 1;
        let file = File {
            own: true,
            ..File::default()
        };
        image.files.insert(image.last_file, file);
        image.names.insert(segment, image.last_file);
        image.forgotten.remove(&segment);
        Ok(())
    }

    fn append(&self, segment: u32, bytes: &[u8]) -> io::Result<()> {
        let (mut inner, mut failed) = self.ask(Op::Append, segment);
        let image = &mut inner.image;
        let mut written = bytes.len();
        if failed.is_err() {
            written = image.below(bytes.len() as u64 + 1) as usize;
        }
        let room = image
            .capacity
            .map_or(u64::MAX, |most| most.saturating_sub(image.used()));
        if written as u64 > room {
            written = room as usize;
            failed = Err(io::ErrorKind::StorageFull.into());
        }
        let file = image.file(segment)?;
        assert!(file.own, "the journal appends to a segment that it found");
        assert!(!file.broken, "the journal writes to a segment that failed");
        file.write(&bytes[..written]);
        file.broken = failed.is_err();
        failed
    }

    fn sync(&self, segment: u32) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Sync, segment);
        let image = &mut inner.image;
        if failed.is_ok() {
            let file = image.file(segment)?;
            assert!(
                !file.broken,
                "the journal asks again for a sync that failed"
            );
            file.sync();
            return Ok(());
        }
        let drops_at_once = image.drops_at_once;
        let mut file = image.file(segment)?.clone();
        for sector in std::mem::take(&mut file.dirty) {
            if image.below(2) == 0 {
                file.store(sector);
            } else if drops_at_once {
                let end = ((sector + 1) * SECTOR_BYTES).min(file.cache.len());
                for at in sector * SECTOR_BYTES..end {
                    Arc::make_mut(&mut file.cache)[at] =
                        file.disk.get(at).copied().unwrap_or_default();
                }
            }
        }
        file.broken = true;
        file.resized = false;
        *image.file(segment)? = file;
        failed
    }

    fn read(&self, segment: u32, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let (mut inner, failed) = self.ask(Op::Read, segment);
        failed?;
        let cache = &inner.image.file(segment)?.cache;
        let bytes = usize::try_from(offset).ok().and_then(|at| cache.get(at..));
        let bytes = bytes.unwrap_or_default();
        let read = bytes.len().min(into.len());
        into[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        let (mut inner, failed) = self.ask(Op::List, 0);
        failed?;
        let segments: Vec<u32> = inner.image.names.keys().copied().collect();
        segments
            .into_iter()
            .map(|segment| Ok((segment, inner.image.file(segment)?.cache.len() as u64)))
            .collect()
    }

    fn unlink(&self, segment: u32) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Unlink, segment);
        failed?;
        let image = &mut inner.image;
        image.forgotten.remove(&segment);
        let removed = image.names.remove(&segment);
        removed.map_or(Err(io::ErrorKind::NotFound.into()), |_| Ok(()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::SyncDir, 0);
        let image = &mut inner.image;
        for thing in image.unsynced() {
            let Unsynced::Name(segment) = thing else {
                continue;
            };
            if failed.is_ok() || image.below(2) == 0 {
                image.store_name(segment);
            } else {
                image.forgotten.insert(segment);
            }
        }
        failed
    }

    fn truncate(&self, segment: u32, bytes: u64) -> io::Result<()> {
        let (mut inner, failed) = self.ask(Op::Truncate, segment);
        failed?;
        let file = inner.image.file(segment)?;
        Arc::make_mut(&mut file.cache).truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        let sectors = file.cache.len().div_ceil(SECTOR_BYTES);
        file.dirty.retain(|sector| *sector < sectors);
        file.resized = true;
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let image = &self.inner().image;
        Ok(image
            .capacity
            .map_or(u64::MAX, |most| most.saturating_sub(image.used())))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner();
        f.debug_struct("SimDisk")
            .field("segments", &inner.image.names.len())
            .field("bytes", &inner.image.used())
            .finish_non_exhaustive()
    }
}
