//! Reading a lane.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::Notify;
use zstd::bulk::{Compressor, Decompressor};

use crate::frame::{HEADER_BYTES, Header, Kind, from_ms, smaller};
use crate::handle::Handle;
use crate::index::Place;
use crate::scan::{is_bad_sector, read_version};
use crate::stats::Pending;
use crate::{AppendError, Epoch, MAX_TALLY_BYTES, Position, ReadError, ReaderName, Storage};

/// How long the disk may fail to read a segment, while it does everything else, before entries that it cannot read count
/// as damaged: one bad sector must not hold up all that follows. Once for a segment, which may have hundreds of entries.
pub(crate) const BAD_SECTOR_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is logged that an entry cannot be read.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// One reader of a lane, with a cursor that survives restarts. There is one handle of it at a time.
///
/// Entries come in the order of their positions, each as often as it takes: an entry comes again after [`Reader::rewind`]
/// and after a restart, until it is committed. Methods that read files do so on the calling thread.
pub struct Reader {
    handle: Arc<Handle>,
    lane: u32,
    name: ReaderName,
    readable: Arc<Notify>,
    /// The last entry that was given out since the last rewind.
    at: Position,
    /// The last that was ever given out: commits reach no further.
    seen: Position,
    /// There while an entry cannot be read, and after that as long as the patience with its segment is used up.
    trouble: Option<Trouble>,
    decompressor: Option<Decompressor<'static>>,
}

/// A segment that a reader cannot read.
#[derive(Debug)]
struct Trouble {
    segment: u32,
    logged: Instant,
    /// Since when the disk says nothing but that it cannot read, while it writes.
    failing_since: Instant,
    /// The journal's writes until then.
    writes: u64,
    /// The disk has failed for so long that what it cannot read is lost.
    is_bad: bool,
}

/// One entry, as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub position: Position,
    /// The process that appended it.
    pub epoch: Epoch,
    /// When it was handed over, by the wall clock, in whole milliseconds.
    pub appended_at: SystemTime,
    /// What was appended.
    pub bytes: Bytes,
    /// What the caller counted in it.
    pub count: u32,
}

impl Reader {
    pub(crate) fn new(
        handle: Arc<Handle>,
        lane: u32,
        name: ReaderName,
        readable: Arc<Notify>,
        at: Position,
    ) -> Reader {
        Reader {
            handle,
            lane,
            name,
            readable,
            at,
            seen: at,
            trouble: None,
            decompressor: None,
        }
    }

    /// The name that the reader was opened by.
    #[must_use]
    pub fn name(&self) -> &ReaderName {
        &self.name
    }

    /// The next entry, as soon as there is one. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// As [`Reader::try_next`], and [`ReadError::Closed`] when everything was read from a closed journal.
    pub async fn next(&mut self) -> Result<Entry, ReadError> {
        let readable = Arc::clone(&self.readable);
        loop {
            // Made before looking, so that an entry that is appended in between is heard of.
            let appended = readable.notified();
            let stopped = self.handle.state().stopped.is_some();
            if let Some(entry) = self.try_next()? {
                return Ok(entry);
            }
            if stopped {
                return Err(ReadError::Closed);
            }
            appended.await;
        }
    }

    /// The next entry, if there is one.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] once for an entry whose bytes are lost: the next call goes on behind it.
    /// [`ReadError::Io`] when the entry cannot be read now: the next call tries it again.
    pub fn try_next(&mut self) -> Result<Option<Entry>, ReadError> {
        loop {
            let (place, cached) = {
                let state = self.handle.state();
                let Some(place) = state
                    .lanes
                    .get(&self.lane)
                    .and_then(|lane| lane.index.after(self.at))
                else {
                    return Ok(None);
                };
                (place, state.tail.get(place.position))
            };
            if let Some(bytes) = cached {
                // Only this process fills the tail.
                let (position, epoch) = (place.position, self.handle.epoch);
                return Ok(Some(self.give(Entry {
                    position,
                    epoch,
                    appended_at: from_ms(place.at_ms),
                    bytes,
                    count: place.count,
                })));
            }
            match self.read(place) {
                Ok(entry) => return Ok(Some(self.give(entry))),
                // Copied forward while we read.
                Err(_)
                    if self
                        .handle
                        .state()
                        .lanes
                        .get(&self.lane)
                        .and_then(|lane| lane.index.after(self.at))
                        != Some(place) => {}
                Err(Unreadable::Io(source)) if !self.is_lost(place, &source) => {
                    return Err(ReadError::Io {
                        position: place.position,
                        source,
                    });
                }
                Err(error) => return Err(self.pass(place, &error)),
            }
        }
    }

    /// Lets go of everything up to and including `through`, as far as it was given out. Returns at once; durable with
    /// the next append, or within [`crate::Options::commit_interval`]. A crash before that repeats entries. Going
    /// backwards is ignored, and so is everything after [`crate::Journal::close`].
    pub fn commit(&mut self, through: Position) {
        self.move_to(through, None);
    }

    /// As [`Reader::commit`], and replaces the reader's tally: bytes of the caller's, at most [`MAX_TALLY_BYTES`], which
    /// become durable in one with the cursor. After a crash the tally is exactly that of the cursor. With `through` where
    /// the cursor is already, the tally alone is replaced; further back, nothing is.
    ///
    /// # Errors
    ///
    /// [`AppendError::TooLarge`]: then nothing was committed.
    pub fn commit_with(&mut self, through: Position, tally: &[u8]) -> Result<(), AppendError> {
        check_tally(tally)?;
        self.move_to(through, Some(tally));
        Ok(())
    }

    /// Replaces the tally, and leaves the cursor where it is. Durable on return, and so is every commit before. Dropping
    /// the future does not undo it.
    ///
    /// # Errors
    ///
    /// [`AppendError`]. A failing disk is none: the tally is stored when it works again.
    pub async fn save(&mut self, tally: &[u8]) -> Result<(), AppendError> {
        check_tally(tally)?;
        let done = {
            let mut state = self.handle.state();
            if !state.is_open() {
                return Err(AppendError::Closed);
            }
            let committed = state.cursor(self.lane, &self.name).through;
            state.commit(self.lane, &self.name, committed, Some(tally));
            state
                .dirty_since
                .get_or_insert(self.handle.options.instant());
            state.flush()
        };
        self.handle.work.notify();
        done.await.map_err(|_| AppendError::Closed)
    }

    fn move_to(&mut self, through: Position, tally: Option<&[u8]>) {
        let through = through.min(self.seen);
        let mut state = self.handle.state();
        if !state.is_open() || !state.commit(self.lane, &self.name, through, tally) {
            return;
        }
        state
            .dirty_since
            .get_or_insert(self.handle.options.instant());
        if state.waiting > 0 {
            // What is not pending any more must not be held either.
            state.give_up_held(self.handle.options.instant());
        }
        // While writing fails, commits alone can free the room that it takes to write again.
        state.pressure |= state.failing;
        // A writer that wakes up by itself finds the change in time, and with the next entry at the latest.
        let wake = state.failing || state.sleeps;
        drop(state);
        if wake {
            self.handle.work.notify();
        }
    }

    /// Goes on behind `through`, an entry that another reader of the lane was given, without reading what lies before it:
    /// for a cursor that follows another one. Commits reach there from now on. Going backwards is ignored.
    pub fn skip_to(&mut self, through: Position) {
        self.at = self.at.max(through);
        self.seen = self.seen.max(through);
    }

    /// Goes back to the first entry that is not committed.
    pub fn rewind(&mut self) {
        self.at = self.committed();
        self.set_unreadable(None);
    }

    /// Everything up to here is committed.
    #[must_use]
    pub fn committed(&self) -> Position {
        self.handle.state().cursor(self.lane, &self.name).through
    }

    /// The tally of the latest [`Reader::commit_with`] or [`Reader::save`], durable or about to be; empty before the
    /// first.
    #[must_use]
    pub fn tally(&self) -> Bytes {
        self.handle.state().cursor(self.lane, &self.name).tally
    }

    /// What is not committed, given out or not.
    #[must_use]
    pub fn pending(&self) -> Pending {
        let committed = self.committed();
        let now = self.handle.options.now();
        let state = self.handle.state();
        Pending::of(
            state
                .lanes
                .get(&self.lane)
                .map(|lane| lane.index.behind(committed))
                .unwrap_or_default(),
            now,
        )
    }

    fn give(&mut self, entry: Entry) -> Entry {
        self.at = entry.position;
        self.seen = self.seen.max(entry.position);
        if self.trouble.is_some() {
            self.set_unreadable(None);
            self.trouble.take_if(|trouble| !trouble.is_bad);
        }
        entry
    }

    /// Whether the bytes of an entry that cannot be read are gone for good. Only the disk can tell, by failing to read
    /// the entry's segment for [`BAD_SECTOR_PATIENCE`] while it reads others and writes; whatever else there is may pass.
    fn is_lost(&mut self, place: Place, error: &io::Error) -> bool {
        let handle = Arc::clone(&self.handle);
        let now = handle.options.instant();
        let mut state = handle.state();
        let is_disk = is_bad_sector(error) && !state.failing;
        let trouble = match &mut self.trouble {
            Some(trouble) if trouble.segment == place.segment => trouble,
            other => other.insert(Trouble {
                segment: place.segment,
                logged: now.checked_sub(LOG_INTERVAL).unwrap_or(now),
                failing_since: now,
                writes: state.writes,
                is_bad: false,
            }),
        };
        let waited = now.saturating_duration_since(trouble.failing_since);
        let is_over = waited >= BAD_SECTOR_PATIENCE && state.writes > trouble.writes;
        if waited >= BAD_SECTOR_PATIENCE && !is_over {
            // So that there is a write: it proves that the disk is there.
            state.touch(self.lane, now);
            handle.work.notify();
        }
        let newest = state.segments.iter().rfind(|(_, other)| other.durable);
        let newest = newest.map(|(number, _)| *number);
        let writes = state.writes;
        drop(state);
        let reads = |newest| read_version(&*handle.storage, newest).is_ok();
        if !is_disk || (is_over && !newest.is_some_and(reads)) {
            (trouble.failing_since, trouble.writes) = (now, writes);
            trouble.is_bad = false;
        } else if is_over {
            trouble.is_bad = true;
        }
        if trouble.is_bad {
            return true;
        }
        if now.saturating_duration_since(trouble.logged) >= LOG_INTERVAL {
            trouble.logged = now;
            let Place {
                position, segment, ..
            } = place;
            tracing::error!(%position, segment, %error, "an entry of the journal cannot be read; it is kept, and tried on");
        }
        self.set_unreadable(Some((place.segment, now, error.to_string())));
        false
    }

    /// Says in the journal's stats what keeps the reader from going on: a segment, since when, and why.
    fn set_unreadable(&mut self, new: Option<(u32, Instant, String)>) {
        let mut state = self.handle.state();
        let lane = state.lanes.get_mut(&self.lane);
        if let Some(reader) = lane.and_then(|lane| lane.readers.get_mut(&self.name)) {
            let since = reader.unreadable.as_ref().map(|(_, since, _)| *since);
            reader.unreadable = new.map(|(segment, now, why)| (segment, since.unwrap_or(now), why));
        }
    }

    fn pass(&mut self, place: Place, error: &Unreadable) -> ReadError {
        let Place {
            position,
            segment,
            offset,
            ..
        } = place;
        tracing::error!(%position, segment, offset, %error, "a journal entry is lost");
        self.set_unreadable(None);
        self.handle.state().damaged += u64::from(position > self.seen);
        self.at = position;
        self.seen = self.seen.max(position);
        ReadError::Damaged {
            position,
            count: place.count,
        }
    }

    fn read(&mut self, place: Place) -> Result<Entry, Unreadable> {
        read_entry(&*self.handle.storage, place, &mut self.decompressor)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.handle.state();
        if let Some(reader) = state
            .lanes
            .get_mut(&self.lane)
            .and_then(|lane| lane.readers.get_mut(&self.name))
        {
            reader.open = false;
            reader.unreadable = None;
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("name", &self.name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

fn check_tally(tally: &[u8]) -> Result<(), AppendError> {
    if tally.len() > MAX_TALLY_BYTES {
        return Err(AppendError::TooLarge {
            bytes: tally.len(),
            most: MAX_TALLY_BYTES,
        });
    }
    Ok(())
}

impl Entry {
    /// What it takes on the disk where it is compressed at the level that is the default, in bytes: no more than where it
    /// is not.
    #[must_use]
    pub fn compressed_bytes(&self) -> u64 {
        let level = crate::Options::default().compression_level;
        let compressor = Compressor::new(level).ok();
        let compressed =
            compressor.and_then(|mut compressor| smaller(&mut compressor, &self.bytes));
        let body = compressed.map_or(self.bytes.len(), |body| body.len());
        (HEADER_BYTES + body) as u64
    }
}

/// An entry, checked and as it was appended. The decompressor is made when it is first needed.
pub(crate) fn read_entry(
    storage: &dyn Storage,
    place: Place,
    decompressor: &mut Option<Decompressor<'static>>,
) -> Result<Entry, Unreadable> {
    let (header, body) = read_frame(storage, place)?;
    let bytes = if header.compressed {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(Unreadable::Io)?),
        };
        let entry = decompressor.decompress(&body[HEADER_BYTES..], header.entry_bytes as usize);
        Bytes::from(entry.map_err(|_| Unreadable::Damaged("its compression"))?)
    } else {
        Bytes::from(body).slice(HEADER_BYTES..)
    };
    if bytes.len() != header.entry_bytes as usize {
        return Err(Unreadable::Damaged("its length"));
    }
    Ok(Entry {
        position: header.position,
        epoch: header.epoch,
        appended_at: from_ms(header.at_ms),
        bytes,
        count: header.count,
    })
}

/// The frame of an entry, checked: its header, and the bytes of both.
pub(crate) fn read_frame(
    storage: &dyn Storage,
    place: Place,
) -> Result<(Header, Vec<u8>), Unreadable> {
    let mut bytes = vec![0; place.bytes as usize];
    let read = storage
        .read(place.segment, place.offset.into(), &mut bytes)
        .map_err(Unreadable::Io)?;
    if read < bytes.len() {
        return Err(Unreadable::Damaged("its end is missing"));
    }
    let header = Header::decode(&bytes, place.segment, place.offset)
        .ok_or(Unreadable::Damaged("its header"))?;
    if header.kind != Kind::Entry || header.position != place.position {
        return Err(Unreadable::Damaged("another frame is in its place"));
    }
    if !header.matches(&bytes[HEADER_BYTES..]) {
        return Err(Unreadable::Damaged("its bytes"));
    }
    Ok((header, bytes))
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("damaged: {0}")]
    Damaged(&'static str),
    #[error("the storage failed: {0}")]
    Io(io::Error),
}
