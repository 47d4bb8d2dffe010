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
use crate::stats::Pending;
use crate::{AppendError, Epoch, MAX_TALLY_BYTES, Position, ReadError, ReaderName, Storage};

/// How long an entry may be unreadable before it counts as damaged: long enough for a volume to come back, and not for
/// ever, since one bad sector must not hold up all that follows.
const READ_PATIENCE: Duration = Duration::from_secs(30);

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
    unreadable_since: Option<(Position, Instant)>,
    decompressor: Option<Decompressor<'static>>,
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
            unreadable_since: None,
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
    /// [`ReadError::Io`] when the storage fails: the next call tries the same entry again.
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
                Err(Unreadable::Io(source)) if self.is_patient(place.position) => {
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
        // While writing fails, commits alone can free the room that it takes to write again.
        state.pressure |= state.failing;
        // A writer that wakes up by itself finds the change in time, and with the next entry at the latest.
        let wake = state.failing || state.sleeps;
        drop(state);
        if wake {
            self.handle.work.notify();
        }
    }

    /// Goes back to the first entry that is not committed.
    pub fn rewind(&mut self) {
        self.at = self.committed();
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
        self.unreadable_since = None;
        entry
    }

    fn is_patient(&mut self, position: Position) -> bool {
        match self.unreadable_since {
            Some((at, since)) if at == position => {
                self.handle
                    .options
                    .instant()
                    .saturating_duration_since(since)
                    < READ_PATIENCE
            }
            _ => {
                self.unreadable_since = Some((position, self.handle.options.instant()));
                true
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Journal, Options};

    #[tokio::test]
    async fn what_stays_unreadable_counts_as_damaged_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(
            dir.path(),
            Options {
                min_free_bytes: 0,
                ..Options::default()
            },
        )
        .unwrap();
        let lane = journal.lane(&"a".parse().unwrap()).unwrap();
        for entry in [b"1", b"2"] {
            lane.reserve(1)
                .await
                .append(entry.to_vec(), 1)
                .await
                .unwrap();
        }
        let mut reader = lane.reader(&"r".parse().unwrap()).unwrap();
        assert!(reader.is_patient(Position(1)));
        assert!(reader.is_patient(Position(1)));
        let since = Instant::now().checked_sub(READ_PATIENCE).unwrap();
        reader.unreadable_since = Some((Position(1), since));
        assert!(!reader.is_patient(Position(1)));
        assert!(
            reader.is_patient(Position(2)),
            "the patience is each entry's own"
        );
        reader.unreadable_since = Some((Position(1), since));
        reader.try_next().unwrap();
        assert!(reader.unreadable_since.is_none(), "and ends with a success");
    }
}
