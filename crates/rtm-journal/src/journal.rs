//! The handle of a journal.

use std::fmt;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::disk::{Disk, Lock};
use crate::handle::Handle;
use crate::identity;
use crate::options::{Limits, MAX_LANES};
use crate::recover::recover;
use crate::state::{Ending, LaneState, Shared};
use crate::writer::{self, Writer};
use crate::{
    AppendError, CloseError, Driver, EntryFilter, Epoch, InspectError, Inspection, Lane, LaneError,
    LaneName, OpenError, Options, Stats, Storage, StoredEntries, Verification, inspect, verify,
};

/// An open journal. Cheap to clone; lanes and readers keep it open too.
///
/// When the last handle is dropped without [`Journal::close`], the writer stops as a crash would stop it: what was
/// durable is, the newest commits may be repeated, and the next opening is [`Journal::unclean`].
#[derive(Clone)]
pub struct Journal {
    handle: Arc<Handle>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made, restricted to its owner (0700) and locked, and recovers it.
    ///
    /// Reads the headers of all entries that are kept: some seconds for 4 GiB on a cold disk.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A full disk is none: entries then wait until it has room.
    pub fn open(dir: &Path, options: Options) -> Result<Journal, OpenError> {
        let limits = options.limits()?;
        let (disk, lock) = Disk::open(dir)?;
        Journal::start(Box::new(disk), Some(lock), options, limits)
    }

    /// Opens a journal on any storage, without a lock.
    #[cfg(test)]
    pub(crate) fn open_on(storage: impl Storage, options: Options) -> Result<Journal, OpenError> {
        let limits = options.limits()?;
        Journal::start(Box::new(storage), None, options, limits)
    }

    /// Opens a journal on any storage, without a lock and without a thread: the [`Driver`] does the writing, whenever it
    /// is run. For simulations, which own the disk and the time ([`Options::monotonic`]).
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open_driven(
        storage: impl Storage,
        options: Options,
    ) -> Result<(Journal, Driver), OpenError> {
        let limits = options.limits()?;
        let writer = Journal::prepare(Box::new(storage), None, options, limits)?;
        let journal = Journal::of(&writer.shared, None);
        Ok((journal, Driver::new(writer)))
    }

    fn start(
        storage: Box<dyn Storage>,
        lock: Option<Lock>,
        options: Options,
        limits: Limits,
    ) -> Result<Journal, OpenError> {
        let writer = Journal::prepare(storage, lock, options, limits)?;
        let shared = Arc::clone(&writer.shared);
        let thread = std::thread::Builder::new().name("rtm-journal".to_owned());
        let thread = thread
            .spawn(move || writer::run(writer))
            .map_err(OpenError::Thread)?;
        Ok(Journal::of(&shared, Some(thread)))
    }

    fn of(shared: &Arc<Shared>, thread: Option<JoinHandle<()>>) -> Journal {
        Journal {
            handle: Arc::new(Handle::new(Arc::clone(shared), thread)),
        }
    }

    /// Recovers, and begins this process's first segment.
    fn prepare(
        storage: Box<dyn Storage>,
        lock: Option<Lock>,
        options: Options,
        limits: Limits,
    ) -> Result<Writer, OpenError> {
        // In driven time nothing passes while a journal is opened.
        let is_driven = options.monotonic.is_some();
        let pause = |time| {
            if !is_driven {
                std::thread::sleep(time);
            }
        };
        let mut recovered = recover(&*storage, &pause)?;
        let unproven = std::mem::take(&mut recovered.unproven);
        // The keys of a RandomState come from the system's random numbers.
        let random = || Epoch(std::hash::RandomState::new().hash_one(std::process::id()));
        let epoch = options.epoch.unwrap_or_else(random);
        let shared = Arc::new(Shared::new(
            storage, lock, options, limits, epoch, recovered,
        ));
        {
            let mut state = shared.state();
            if state.identity().is_none() {
                // Where chance is another's, the same steps make the same files.
                let given = shared.options.epoch.map(|epoch| u128::from(epoch.0));
                let number = given.unwrap_or_else(identity::random);
                state.set_identity(number, shared.options.instant());
            }
        }
        let mut writer = Writer::new(shared);
        let failed = |operation| move |source| OpenError::Storage { operation, source };
        writer.copy(unproven).map_err(failed("read"))?;
        // Here and not in the thread, so that what a person has to put right is told at once.
        writer.begin().map_err(failed("write to"))?;
        Ok(writer)
    }

    /// The lane of this name, made if it is new. Any number of handles of one lane may be open.
    ///
    /// # Errors
    ///
    /// [`LaneError`].
    pub fn lane(&self, name: &LaneName) -> Result<Lane, LaneError> {
        let id = name.id();
        let mut state = self.handle.state();
        if !state.is_open() {
            return Err(LaneError::Closed);
        }
        if name.is_own() {
            return Err(LaneError::Reserved(name.clone()));
        }
        let lanes = state.lanes.len();
        let mut new = false;
        match state.lanes.get_mut(&id) {
            Some(LaneState {
                name: Some(other), ..
            }) if other != name => {
                return Err(LaneError::Collision {
                    name: name.clone(),
                    other: other.clone(),
                });
            }
            Some(lane) => {
                new |= lane.name.replace(name.clone()).is_none();
                lane.open = true;
            }
            None if lanes >= MAX_LANES => return Err(LaneError::TooMany(lanes)),
            None => {
                let lane = LaneState {
                    name: Some(name.clone()),
                    open: true,
                    ..LaneState::default()
                };
                state.lanes.insert(id, lane);
                new = true;
            }
        }
        if new {
            state.touch(id, self.handle.options.instant());
            self.handle.work.notify();
        }
        Ok(Lane::new(Arc::clone(&self.handle), name))
    }

    /// All lanes, with those left over from an older configuration.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneName> {
        let mut lanes: Vec<LaneName> = self
            .handle
            .state()
            .lanes
            .values()
            .filter_map(|lane| lane.name.clone())
            .filter(|name| !name.is_own())
            .collect();
        lanes.sort_unstable();
        lanes
    }

    /// The random number of the journal, which a copy of it has too.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.handle.state().identity().unwrap_or_default()
    }

    /// Whether that number is durable. It is not yet where the disk was full when the journal got it: after a crash it would
    /// be another one.
    #[must_use]
    pub fn has_durable_id(&self) -> bool {
        self.handle.state().has_durable_identity()
    }

    /// Gives the journal another number: a copy that lives on its own is a journal of its own. Durable on return; returns
    /// the number. Dropping the future does not undo it.
    ///
    /// # Errors
    ///
    /// [`AppendError::Closed`].
    pub async fn renew_id(&self) -> Result<u128, AppendError> {
        let done = {
            let mut state = self.handle.state();
            if !state.is_open() {
                return Err(AppendError::Closed);
            }
            let now = self.handle.options.instant();
            state.set_identity(identity::random(), now);
            state.flush()
        };
        self.handle.work.notify();
        done.await.map_err(|_| AppendError::Closed)?;
        Ok(self.id())
    }

    /// The random number of this opening: entries appended now carry it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.handle.epoch
    }

    /// Whether the process before this one ended without [`Journal::close`]. Not of a new journal.
    #[must_use]
    pub fn unclean(&self) -> bool {
        self.handle.unclean
    }

    /// What the journal holds now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// Returns when the journal has stopped although nobody closed it: its writer has panicked, which is a bug. Nothing can
    /// be stored any more then, and nobody gets room; the process had better end. Dropping the future does nothing.
    pub async fn stopped(&self) {
        loop {
            // Made before looking, so that an end in between is heard of.
            let ended = self.handle.ended.notified();
            if self.handle.state().has_died() {
                return;
            }
            ended.await;
        }
    }

    /// Stores what was handed over and the cursors, notes that this was a clean end, stops the writer and lets go of
    /// the lock. Appends fail from now on; readers can still read. Again it returns the same; dropping the future does
    /// not undo it.
    ///
    /// # Errors
    ///
    /// [`CloseError::Storage`] when the disk does not take the last of it within some seconds. Appends that are still
    /// waiting fail, and the next opening is [`Journal::unclean`].
    pub async fn close(&self) -> Result<(), CloseError> {
        self.handle.state().ending.get_or_insert(Ending::Close);
        self.handle.work.notify();
        // A closed journal has no room to wait for: every `reserve` returns at once.
        self.handle.room.notify_waiters();
        loop {
            // Made before looking, so that an end in between is heard of.
            let ended = self.handle.ended.notified();
            let stopped = self.handle.state().stopped.clone();
            if let Some(result) = stopped {
                self.handle.join();
                return match result {
                    Some(result) => result.map_err(CloseError::Storage),
                    None => Err(CloseError::Stopped),
                };
            }
            ended.await;
        }
    }

    /// Looks at the journal in `dir` without a change to it, also while a process has it open: what that process
    /// writes meanwhile is seen in part.
    ///
    /// # Errors
    ///
    /// [`InspectError`].
    pub fn inspect(dir: &Path) -> Result<Inspection, InspectError> {
        inspect::inspect(dir, std::time::SystemTime::now())
    }

    /// Reads and checks every frame and every entry in `dir`, decompression included, without a change to it.
    ///
    /// # Errors
    ///
    /// [`InspectError`]; [`InspectError::InUse`] while a process has it open. Damage is none: it is what is told.
    pub fn verify(dir: &Path) -> Result<Verification, InspectError> {
        verify::verify(dir)
    }

    /// All entries in `dir` that are asked for, also those that every reader has committed and that are not reclaimed
    /// yet, by position. Reads without a change.
    ///
    /// # Errors
    ///
    /// [`InspectError`]; [`InspectError::InUse`] while a process has it open.
    pub fn stored(dir: &Path, filter: &EntryFilter) -> Result<StoredEntries, InspectError> {
        verify::stored(dir, filter)
    }

    /// As [`Journal::stored`], also while another process has it open: segments are only ever appended to and removed.
    ///
    /// Of what that process appends and commits meanwhile some may be seen, and of the last it wrote some may not be
    /// durable yet: what a reader has committed is. An entry that is reclaimed before it is read is an
    /// [`std::io::ErrorKind::NotFound`]; one that moved is found where it is now by another call.
    ///
    /// # Errors
    ///
    /// [`InspectError`].
    pub fn stored_beside(dir: &Path, filter: &EntryFilter) -> Result<StoredEntries, InspectError> {
        verify::stored_beside(dir, filter)
    }

    /// Panics unless what is kept twice agrees.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.handle.state().check();
    }

    /// So that readers have to read files.
    #[cfg(test)]
    pub(crate) fn forget_tail(&self) {
        self.handle.state().tail = crate::tail::Tail::of(self.handle.options.tail_bytes);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("epoch", &self.handle.epoch)
            .finish_non_exhaustive()
    }
}
