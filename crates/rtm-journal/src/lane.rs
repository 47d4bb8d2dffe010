//! Lanes, and the room that an entry takes.

use std::fmt;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;
use zstd::bulk::Compressor;

use crate::frame::{HEADER_BYTES, Header, Kind, smaller};
use crate::handle::Handle;
use crate::options::{MAX_ENTRY_BYTES, MAX_MARK_BYTES, MAX_READERS};
use crate::state::{Append, From, Shared};
use crate::{AppendError, LaneName, Position, Reader, ReaderError, ReaderName, RemoveReaderError};

/// One lane: entries in order, with their readers and a mark. Cheap to clone.
#[derive(Clone)]
pub struct Lane {
    handle: Arc<Handle>,
    id: u32,
    name: LaneName,
}

impl Lane {
    pub(crate) fn new(handle: Arc<Handle>, name: &LaneName) -> Lane {
        Lane {
            handle,
            id: name.id(),
            name: name.clone(),
        }
    }

    /// The name that the lane was opened by.
    #[must_use]
    pub fn name(&self) -> &LaneName {
        &self.name
    }

    /// Reserves room for one entry of up to `bytes` bytes, and waits until there is some.
    ///
    /// Asking for more than [`MAX_ENTRY_BYTES`], or than the lane could have with the journal empty, reserves that
    /// much. While the journal cannot be written there is no room, and it goes on by itself when it can be. Of a closed
    /// journal it returns at once, and the append fails; of one that has stopped without being closed there is never room:
    /// see [`crate::Journal::stopped`]. Dropping the future reserves nothing.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        if let Some(reservation) = self.try_reserve(bytes) {
            return reservation;
        }
        let _waiting = Waiting::new(&self.handle);
        loop {
            // Made before trying, so that room that becomes free in between is heard of.
            let room = self.handle.room.notified();
            if let Some(reservation) = self.try_reserve(bytes) {
                return reservation;
            }
            room.await;
        }
    }

    /// Reserves room for one entry of up to `bytes` bytes, if there is some. Limits as for [`Lane::reserve`].
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let Shared {
            limits, options, ..
        } = &**self.handle;
        let spare_bytes = self.handle.spare_bytes();
        let mut state = self.handle.state();
        let most = state
            .most(limits, options.lanes_expected)
            .saturating_sub(HEADER_BYTES as u64);
        let bytes = bytes
            .min(MAX_ENTRY_BYTES)
            .min(usize::try_from(most).unwrap_or(usize::MAX));
        let charge = (bytes as u64 + HEADER_BYTES as u64).max(limits.least_charge);
        if state.has_died() {
            return None;
        }
        if state.is_open() {
            if state.failing {
                // What was asked for before is kept in memory: no more of that.
                state.give_up_held(options.instant());
                return None;
            }
            let room = state.room(limits, options.lanes_expected, self.id, spare_bytes);
            if room.share.min(room.disk).min(room.free) < limits.enough(charge)
                && state.give_up_held(options.instant())
            {
                self.handle.work.notify();
            }
            // The writer makes room out of what is dead, and looks after the file system.
            state.pressure |= charge > room.disk;
            state.watch_free |= charge > room.free;
            if charge > room.share.min(room.disk).min(room.free) {
                self.handle.work.notify();
                return None;
            }
        }
        let id = state.fresh_id();
        let lane = state.lanes.entry(self.id).or_default();
        lane.reserved.insert(id, charge);
        Some(Reservation {
            handle: Arc::clone(&self.handle),
            lane: self.id,
            id,
            bytes,
            held: true,
        })
    }

    /// The reader of this name. A new one starts at the oldest entry that is kept: the first that not every reader of
    /// the lane has committed.
    ///
    /// # Errors
    ///
    /// [`ReaderError`].
    pub fn reader(&self, name: &ReaderName) -> Result<Reader, ReaderError> {
        let mut state = self.handle.state();
        if !state.is_open() {
            return Err(ReaderError::Closed);
        }
        let lane = state.lanes.entry(self.id).or_default();
        if !lane.readers.contains_key(name) {
            if lane.readers.len() >= MAX_READERS {
                return Err(ReaderError::TooMany(lane.readers.len()));
            }
            state.add_reader(self.id, name, self.handle.options.instant());
            self.handle.work.notify();
        }
        let lane = state.lanes.entry(self.id).or_default();
        let readable = Arc::clone(&lane.readable);
        let Some(reader) = lane.readers.get_mut(name).filter(|reader| !reader.open) else {
            return Err(ReaderError::AlreadyOpen(name.clone()));
        };
        reader.open = true;
        let committed = reader.cursor.through;
        drop(state);
        Ok(Reader::new(
            Arc::clone(&self.handle),
            self.id,
            name.clone(),
            readable,
            committed,
        ))
    }

    /// As [`Lane::reader`], for a reader that holds entries only for as long as nobody needs their room: they never keep
    /// [`Lane::reserve`] waiting, nor are new entries compressed for their sake, and a new reader does not begin with them.
    /// Where room gets short, the reader's cursor goes to that of the slowest other one, without being asked.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn yielding_reader(&self, name: &ReaderName) -> Result<Reader, ReaderError> {
        let reader = self.reader(name)?;
        let mut state = self.handle.state();
        let lane = state.lanes.get_mut(&self.id);
        if let Some(reader) = lane.and_then(|lane| lane.readers.get_mut(name)) {
            reader.yields = true;
        }
        drop(state);
        Ok(reader)
    }

    /// Forgets a reader, which stops holding room back. Durable on return; dropping the future does not undo it.
    ///
    /// What the other readers have committed is reclaimed. When the lane's last reader goes, all that is pending is
    /// kept, for a reader to come.
    ///
    /// # Errors
    ///
    /// [`RemoveReaderError`].
    pub async fn remove_reader(&self, name: &ReaderName) -> Result<(), RemoveReaderError> {
        let done = {
            let mut state = self.handle.state();
            if !state.is_open() {
                return Err(RemoveReaderError::Closed);
            }
            match state
                .lanes
                .get(&self.id)
                .and_then(|lane| lane.readers.get(name))
            {
                None => return Err(RemoveReaderError::Unknown(name.clone())),
                Some(reader) if reader.open => return Err(RemoveReaderError::Open(name.clone())),
                Some(_) => {}
            }
            state.remove_reader(self.id, name, self.handle.options.instant());
            state.flush()
        };
        self.handle.work.notify();
        done.await.map_err(|_| RemoveReaderError::Closed)
    }

    /// The lane's mark: the latest that was set, durable or about to be.
    #[must_use]
    pub fn mark(&self) -> Option<Bytes> {
        self.handle
            .state()
            .lanes
            .get(&self.id)
            .and_then(|lane| lane.mark.clone())
    }

    /// Sets the lane's mark, or removes it. Durable on return. Dropping the future does not
    /// undo it.
    ///
    /// # Errors
    ///
    /// [`AppendError`]. A failing disk is none: the mark is stored when it works again.
    pub async fn set_mark(&self, mark: Option<Bytes>) -> Result<(), AppendError> {
        if let Some(bytes) = mark
            .as_ref()
            .map(Bytes::len)
            .filter(|bytes| *bytes > MAX_MARK_BYTES)
        {
            return Err(AppendError::TooLarge {
                bytes,
                most: MAX_MARK_BYTES,
            });
        }
        let done = {
            let mut state = self.handle.state();
            if !state.is_open() {
                return Err(AppendError::Closed);
            }
            // A copy: the bytes may be a slice of something large.
            state.lanes.entry(self.id).or_default().mark =
                mark.map(|mark| Bytes::copy_from_slice(&mark));
            state.touch(self.id, self.handle.options.instant());
            state.flush()
        };
        self.handle.work.notify();
        done.await.map_err(|_| AppendError::Closed)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Room for one entry. Dropping it gives the room back.
#[must_use = "dropping a reservation gives its room back"]
pub struct Reservation {
    handle: Arc<Handle>,
    lane: u32,
    id: u64,
    bytes: usize,
    /// The room is still ours to give back.
    held: bool,
}

impl Reservation {
    /// The largest entry that fits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stores an entry, which is durable on return. `count` is what the caller counts in it, the events of a page say: it
    /// is summed, and comes back with the entry. Room that it does not need is given back at once.
    ///
    /// A failing disk is no error: the entry is kept in memory, goes to a new segment, and this waits until it is
    /// durable. What `entry` is a part of stays in memory with it. An entry that may stay for long is compressed, on the
    /// calling thread (0.2 ms for a page): see [`compress_from`](crate::Options::compress_from).
    ///
    /// Dropping the future after it was first polled does not undo the append: the entry may be stored all the same.
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub async fn append(
        self,
        entry: impl Into<Bytes>,
        count: u32,
    ) -> Result<Position, AppendError> {
        let entry = entry.into();
        if entry.len() > self.bytes {
            return Err(AppendError::TooLarge {
                bytes: entry.len(),
                most: self.bytes,
            });
        }
        let durable = self.hand_over(entry, count)?;
        durable.await.map_err(|_| AppendError::Closed)
    }

    fn hand_over(
        mut self,
        entry: Bytes,
        count: u32,
    ) -> Result<oneshot::Receiver<Position>, AppendError> {
        let many = self.handle.options.compress_from;
        let may_stay = self.handle.state().is_behind(self.lane, many);
        let compressed = may_stay.then(|| compress(&self.handle, &entry)).flatten();
        let mut header = Header::of(
            Kind::Entry,
            compressed.as_ref().unwrap_or(&entry),
            self.handle.epoch,
            self.handle.options.now(),
        );
        header.compressed = compressed.is_some();
        header.entry_bytes = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        header.lane = self.lane;
        header.count = count;
        let body = compressed.unwrap_or_else(|| entry.clone());
        let charge = u64::from(header.frame_bytes()).max(self.handle.limits.least_charge);
        let (reply, durable) = oneshot::channel();
        let mut state = self.handle.state();
        if !state.is_open() {
            return Err(AppendError::Closed);
        }
        if let Some(reserved) = state
            .lanes
            .get_mut(&self.lane)
            .and_then(|lane| lane.reserved.get_mut(&self.id))
        {
            *reserved = charge.min(*reserved);
        }
        // The room is the writer's to give back from here on.
        self.held = false;
        let from = From::Lane {
            reservation: self.id,
            entry,
            reply,
        };
        state.queue.push_back(Append { header, body, from });
        drop(state);
        self.handle.work.notify();
        self.handle.room.notify_waiters();
        Ok(durable)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held {
            if let Some(lane) = self.handle.state().lanes.get_mut(&self.lane) {
                lane.reserved.remove(&self.id);
            }
            self.handle.room.notify_waiters();
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The entry compressed, where that makes it smaller.
fn compress(shared: &Shared, entry: &Bytes) -> Option<Bytes> {
    let pool = || {
        shared
            .compressors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    let pooled = pool().pop();
    let mut compressor = match pooled {
        Some(compressor) => compressor,
        None => Compressor::new(shared.options.compression_level).ok()?,
    };
    let compressed = smaller(&mut compressor, entry);
    pool().push(compressor);
    compressed.map(Bytes::from)
}

/// Counted in [`crate::Stats::waiting`] while it lives.
struct Waiting<'a>(&'a Shared);

impl Waiting<'_> {
    fn new(shared: &Shared) -> Waiting<'_> {
        shared.state().waiting += 1;
        Waiting(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}
