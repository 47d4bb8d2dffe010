//! What the process knows about its journal, behind one lock.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use zstd::bulk::Compressor;

use crate::change::{Appended, Change, Cursor};
use crate::disk::Lock;
use crate::frame::Header;
use crate::index::{Index, Place};
use crate::options::Limits;
use crate::tail::Tail;
use crate::{Epoch, LaneName, Options, Position, ReaderName, Storage};

/// What the handles and the writer share.
pub(crate) struct Shared {
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) limits: Limits,
    pub(crate) epoch: Epoch,
    pub(crate) unclean: bool,
    pub(crate) work: Work,
    /// Wakes those who wait for room.
    pub(crate) room: Notify,
    /// Wakes those who wait for the writer's end.
    pub(crate) ended: Notify,
    /// Idle compressors, lent to appends: making one takes longer than compressing a page.
    pub(crate) compressors: Mutex<Vec<Compressor<'static>>>,
    state: Mutex<State>,
    lock: Mutex<Option<Lock>>,
}

impl Shared {
    pub(crate) fn new(
        storage: Box<dyn Storage>,
        lock: Option<Lock>,
        options: Options,
        limits: Limits,
        epoch: Epoch,
        mut recovered: Recovered,
    ) -> Shared {
        recovered.state.tail = Tail::of(options.tail_bytes);
        Shared {
            storage,
            options,
            limits,
            epoch,
            unclean: recovered.unclean,
            work: Work::default(),
            room: Notify::new(),
            ended: Notify::new(),
            compressors: Mutex::new(Vec::new()),
            state: Mutex::new(recovered.state),
            lock: Mutex::new(lock),
        }
    }

    /// A panic of a thread that held the lock leaves nothing half done that going on could make worse.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets another process in. Nothing may be written afterwards.
    pub(crate) fn unlock(&self) {
        drop(
            self.lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

/// Wakes the writer, be it a thread or driven.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) thread: Condvar,
    pub(crate) driver: Notify,
}

impl Work {
    pub(crate) fn notify(&self) {
        self.thread.notify_one();
        self.driver.notify_one();
    }
}

#[derive(Default)]
pub(crate) struct State {
    /// By [`LaneName::id`].
    pub(crate) lanes: BTreeMap<u32, LaneState>,
    pub(crate) segments: BTreeMap<u32, SegmentState>,
    pub(crate) next_position: u64,
    pub(crate) next_segment: u32,
    pub(crate) tail: Tail,
    /// Handed over, not yet taken by the writer.
    pub(crate) queue: VecDeque<Append>,
    /// Waiting for all changes made so far to be durable.
    pub(crate) flushes: Vec<oneshot::Sender<()>>,
    /// Since when a change, or a cursor, waits to become durable.
    pub(crate) dirty_since: Option<Instant>,
    /// The writer waits for longer than a cursor may wait to become durable: it must be told when one moves.
    pub(crate) sleeps: bool,
    /// Somebody waits for room, and the files were in the way: the writer should try to make some.
    pub(crate) pressure: bool,
    /// Somebody waits for free space of the file system, which nobody tells us about.
    pub(crate) watch_free: bool,
    /// How many wait in [`crate::Lane::reserve`].
    pub(crate) waiting: usize,
    pub(crate) ending: Option<Ending>,
    /// The writer is gone; the result of closing, if that was it.
    pub(crate) stopped: Option<Option<Result<(), Arc<io::Error>>>>,
    /// The last write failed, and none has succeeded since.
    pub(crate) failing: bool,
    pub(crate) write_failures: u64,
    /// Writes that became durable.
    pub(crate) writes: u64,
    /// Entries copied forward.
    pub(crate) copied: u64,
    /// Frames found damaged, at opening and by readers.
    pub(crate) damaged: u64,
    pub(crate) last_id: u64,
}

/// What a journal was found to be.
pub(crate) struct Recovered {
    pub(crate) state: State,
    /// The process before this one did not close it.
    pub(crate) unclean: bool,
    /// Live entries that read back, and of which nobody knows whether they are durable: to be copied forward before
    /// they are believed.
    pub(crate) unproven: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Store what is queued, say goodbye in the log, stop.
    Close,
    /// Every handle is gone without a close: stop, as a crash would.
    Abandon,
}

#[derive(Default)]
pub(crate) struct LaneState {
    /// Unknown if all that told it is damaged, until it is opened by name.
    pub(crate) name: Option<LaneName>,
    /// Opened by this process; others are left over from an older configuration.
    pub(crate) open: bool,
    /// Everything up to here is dead.
    pub(crate) floor: Position,
    pub(crate) appended: Appended,
    pub(crate) mark: Option<Bytes>,
    pub(crate) readers: BTreeMap<ReaderName, ReaderState>,
    pub(crate) index: Index,
    /// Room that is reserved, or taken by entries that are not yet durable, by the reservation's number. A table and
    /// not a sum, so that it cannot drift.
    pub(crate) reserved: BTreeMap<u64, u64>,
    /// Wakes readers at the tail.
    pub(crate) readable: Arc<Notify>,
    /// Counts changes of name, floor and mark; `saved` of them are durable.
    pub(crate) changed: u64,
    pub(crate) saved: u64,
    /// Readers whose removal is not durable yet.
    pub(crate) removed: Vec<ReaderName>,
}

impl LaneState {
    /// The cursor of the slowest reader that does not yield.
    pub(crate) fn firm(&self) -> Option<Position> {
        let firm = self.readers.values().filter(|reader| !reader.yields);
        firm.map(|reader| reader.cursor.through).min()
    }

    /// The bytes of what only yielding readers hold.
    pub(crate) fn held_bytes(&self) -> u64 {
        let yields = self.readers.values().any(|reader| reader.yields);
        self.firm().filter(|_| yields).map_or(0, |firm| {
            let behind = self.index.behind(firm).bytes;
            self.index.bytes().saturating_sub(behind)
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ReaderState {
    pub(crate) cursor: Cursor,
    pub(crate) open: bool,
    /// What it holds is given up where room gets short.
    pub(crate) yields: bool,
    /// What keeps the reader from going on: a segment that it cannot read, since when, and why.
    pub(crate) unreadable: Option<(u32, Instant, String)>,
    /// Counts changes of the cursor; `saved` of them are durable.
    changed: u64,
    saved: u64,
    /// How far the log says it is, if it knows the reader.
    durable: Option<Position>,
    /// Tells apart two readers of one name, with a removal between.
    id: u64,
}

impl ReaderState {
    pub(crate) fn recovered(cursor: Cursor) -> ReaderState {
        ReaderState {
            durable: Some(cursor.through),
            cursor,
            open: false,
            yields: false,
            unreadable: None,
            changed: 0,
            saved: 0,
            id: 0,
        }
    }

    fn is_saved(&self) -> bool {
        self.durable.is_some() && self.changed == self.saved
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SegmentState {
    pub(crate) bytes: u64,
    /// Live ones, and their frames' bytes.
    pub(crate) entries: u64,
    pub(crate) live_bytes: u64,
    /// Prologue and head, which every segment has.
    pub(crate) head_bytes: u64,
    /// The head is durable, so it stands in for all segments before.
    pub(crate) durable: bool,
    /// It has live entries that cannot be read, so it is not cleaned before this.
    pub(crate) unreadable_until: Option<Instant>,
}

impl SegmentState {
    pub(crate) fn add(&mut self, place: Place) {
        self.entries += 1;
        self.live_bytes += u64::from(place.bytes);
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.entries -= 1;
        self.live_bytes -= u64::from(place.bytes);
    }

    /// Whether cleaning it is to be tried.
    pub(crate) fn is_readable(&self, now: Instant) -> bool {
        self.unreadable_until.is_none_or(|until| until <= now)
    }

    /// What cleaning it would free.
    pub(crate) fn dead_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.head_bytes + self.live_bytes)
    }
}

/// An entry on its way to the log.
pub(crate) struct Append {
    /// Its position, unless the writer is still to give one.
    pub(crate) header: Header,
    pub(crate) body: Bytes,
    pub(crate) from: From,
}

pub(crate) enum From {
    /// Handed over by a reservation.
    Lane {
        reservation: u64,
        entry: Bytes,
        reply: oneshot::Sender<Position>,
    },
    /// Copied forward out of an old segment.
    Segment(u32),
}

/// What a write made durable, to be noted once it has succeeded.
pub(crate) struct Saved {
    lanes: Vec<(u32, u64, usize)>,
    readers: Vec<SavedReader>,
}

struct SavedReader {
    lane: u32,
    name: ReaderName,
    id: u64,
    changed: u64,
    through: Position,
}

impl State {
    /// A number that was not given before.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// How far a reader is. A reader that does not exist is at the default, before everything.
    pub(crate) fn cursor(&self, lane: u32, name: &ReaderName) -> Cursor {
        let lane = self.lanes.get(&lane);
        lane.and_then(|lane| lane.readers.get(name))
            .map(|reader| reader.cursor.clone())
            .unwrap_or_default()
    }

    /// What the receiver gets tells that all changes made so far are durable.
    pub(crate) fn flush(&mut self) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.flushes.push(done);
        wait
    }

    /// The writer has gone, and not because the journal was closed.
    pub(crate) fn has_died(&self) -> bool {
        matches!(self.stopped, Some(None))
    }

    /// Neither closing nor closed.
    pub(crate) fn is_open(&self) -> bool {
        self.ending.is_none() && self.stopped.is_none()
    }

    pub(crate) fn touch(&mut self, lane: u32, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.changed += 1;
        }
        self.dirty_since.get_or_insert(now);
    }

    pub(crate) fn add_reader(&mut self, lane: u32, name: &ReaderName, now: Instant) {
        let id = self.fresh_id();
        if let Some(lane) = self.lanes.get_mut(&lane) {
            let through = lane.firm().map_or(lane.floor, |firm| firm.max(lane.floor));
            let pending = lane.index.behind(through).count;
            let reader = ReaderState {
                cursor: Cursor {
                    through,
                    before: lane.appended.counts.saturating_sub(pending),
                    ..Cursor::default()
                },
                durable: None,
                open: false,
                yields: false,
                unreadable: None,
                changed: 0,
                saved: 0,
                id,
            };
            lane.readers.insert(name.clone(), reader);
        }
        self.dirty_since.get_or_insert(now);
    }

    /// Moves a reader's cursor, with what it counts, and replaces its tally. Says whether that was a change.
    pub(crate) fn commit(
        &mut self,
        lane: u32,
        name: &ReaderName,
        through: Position,
        tally: Option<&[u8]>,
    ) -> bool {
        let Some(LaneState { index, readers, .. }) = self.lanes.get_mut(&lane) else {
            return false;
        };
        let Some(reader) = readers.get_mut(name) else {
            return false;
        };
        let cursor = &mut reader.cursor;
        if through < cursor.through || (through == cursor.through && tally.is_none()) {
            return false;
        }
        let passed = index.behind(cursor.through).count - index.behind(through).count;
        cursor.passed = cursor.passed.saturating_add(passed);
        cursor.through = through;
        if let Some(tally) = tally {
            cursor.tally = Bytes::copy_from_slice(tally);
        }
        reader.changed += 1;
        true
    }

    /// Whether some reader of the lane has so many entries before it, or there is no reader.
    pub(crate) fn is_behind(&self, lane: u32, entries: u64) -> bool {
        let Some(lane) = self.lanes.get(&lane) else {
            return true;
        };
        lane.firm()
            .is_none_or(|last| lane.index.behind(last).entries >= entries)
    }

    /// Lets go of all that only yielding readers hold. Says whether that was anything.
    pub(crate) fn give_up_held(&mut self, now: Instant) -> bool {
        let mut given_up = Vec::new();
        for (id, lane) in &self.lanes {
            let Some(firm) = lane.firm() else { continue };
            let readers = lane.readers.iter();
            let held = readers.filter(|(_, reader)| reader.yields && reader.cursor.through < firm);
            given_up.extend(held.map(|(name, _)| (*id, name.clone(), firm)));
        }
        for (lane, name, firm) in &given_up {
            self.commit(*lane, name, *firm, None);
            self.dirty_since.get_or_insert(now);
        }
        self.pressure |= !given_up.is_empty();
        !given_up.is_empty()
    }

    pub(crate) fn remove_reader(&mut self, lane: u32, name: &ReaderName, now: Instant) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.readers.remove(name);
            state.removed.push(name.clone());
        }
        // With the floor, which must outlive the lane's last reader.
        self.touch(lane, now);
    }

    /// What the log does not know yet, or everything.
    pub(crate) fn changes(&self, everything: bool) -> (Vec<Change>, Saved) {
        let mut changes = Vec::new();
        let mut saved = Saved {
            lanes: Vec::new(),
            readers: Vec::new(),
        };
        for (id, state) in &self.lanes {
            // A lane whose name nobody knows has nothing to tell but its entries.
            let Some(lane) = &state.name else { continue };
            if everything || state.changed != state.saved {
                // Removals first: a reader may have come back since.
                let removed = state.removed.iter().filter(|_| !everything);
                changes.extend(removed.map(|reader| Change::RemoveReader {
                    lane: lane.clone(),
                    reader: reader.clone(),
                }));
                changes.push(Change::Lane {
                    lane: lane.clone(),
                    floor: state.floor,
                    appended: state.appended,
                    mark: state.mark.clone(),
                });
                saved.lanes.push((*id, state.changed, state.removed.len()));
            }
            for (name, reader) in &state.readers {
                if everything || !reader.is_saved() {
                    changes.push(Change::Reader {
                        lane: lane.clone(),
                        reader: name.clone(),
                        cursor: reader.cursor.clone(),
                    });
                    saved.readers.push(SavedReader {
                        lane: *id,
                        name: name.clone(),
                        id: reader.id,
                        changed: reader.changed,
                        through: reader.cursor.through,
                    });
                }
            }
        }
        (changes, saved)
    }

    pub(crate) fn note(&mut self, saved: Saved, now: Instant) {
        for (id, changed, removed) in saved.lanes {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.saved = changed;
                lane.removed.drain(..removed);
            }
        }
        for saved in saved.readers {
            let reader = self
                .lanes
                .get_mut(&saved.lane)
                .and_then(|lane| lane.readers.get_mut(&saved.name));
            if let Some(reader) = reader.filter(|reader| reader.id == saved.id) {
                reader.saved = saved.changed;
                reader.durable = Some(saved.through);
            }
        }
        self.dirty_since = self.is_dirty().then_some(now);
    }

    fn is_dirty(&self) -> bool {
        self.lanes.values().any(|lane| {
            lane.changed != lane.saved || lane.readers.values().any(|reader| !reader.is_saved())
        })
    }

    /// Takes out of the index what every reader has committed, and says whether that was anything.
    ///
    /// What is committed is confirmed by every sink, so letting go of it loses nothing even where the log does not
    /// know of the commit. But while writing works, the durable cursors count, so that a crash finds every entry that
    /// its cursors point to. While writing fails, on a full disk say, the cursors in memory count: otherwise no room
    /// would ever become free to write the cursors into.
    pub(crate) fn release(&mut self) -> bool {
        let mut released = false;
        for lane in self.lanes.values_mut() {
            let cursor = |reader: &ReaderState| {
                if self.failing {
                    reader.cursor.through
                } else {
                    reader.durable.unwrap_or_default()
                }
            };
            let Some(floor) = lane.readers.values().map(cursor).min() else {
                continue;
            };
            lane.floor = lane.floor.max(floor);
            while let Some(place) = lane.index.pop_through(floor) {
                if let Some(segment) = self.segments.get_mut(&place.segment) {
                    segment.remove(place);
                }
                released = true;
            }
        }
        if released {
            let oldest = self
                .lanes
                .values()
                .filter_map(|lane| lane.index.after(Position(0)))
                .map(|place| place.position)
                .min();
            self.tail
                .forget_before(oldest.unwrap_or(Position(u64::MAX)));
        }
        released
    }
}

#[cfg(test)]
impl State {
    /// Panics unless what is kept twice agrees.
    pub(crate) fn check(&self) {
        let mut segments: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for place in self.lanes.values().flat_map(|lane| lane.index.places()) {
            let (entries, bytes) = segments.entry(place.segment).or_default();
            *entries += 1;
            *bytes += u64::from(place.bytes);
        }
        for (number, segment) in &self.segments {
            let counted = segments.remove(number).unwrap_or_default();
            assert_eq!(
                (segment.entries, segment.live_bytes),
                counted,
                "segment {number}"
            );
        }
        assert!(
            segments.is_empty(),
            "entries in segments that are gone: {segments:?}"
        );
    }
}
