//! What the journal holds, computed from its state when asked.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::change::Cursor;
use bytes::Bytes;

use crate::frame::from_ms;
use crate::index::Behind;
use crate::state::{LaneState, Shared, State};
use crate::{LaneName, Position, ReaderName};

/// What a journal holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The size of all segments.
    pub bytes: u64,
    /// Of that, the entries that some reader has not committed.
    pub live_bytes: u64,
    /// What counts as taken of `max_bytes`: all segments, or the live entries where they count as more. An eighth is kept
    /// beside them, and each counts as a [`max_entries`](crate::Options::max_entries)th part at the least. What only
    /// [yielding readers](crate::Lane::yielding_reader) hold is left out.
    pub used_bytes: u64,
    /// [`crate::Options::max_bytes`].
    pub max_bytes: u64,
    /// [`crate::Options::min_free_bytes`].
    pub min_free_bytes: u64,
    /// What is free on the file system for this user; nothing where there is no telling.
    pub free_bytes: Option<u64>,
    /// How many segments there are.
    pub segments: usize,
    /// How many callers wait in [`crate::Lane::reserve`].
    pub waiting: usize,
    /// The last write failed: entries are kept in memory, and stored when it works again.
    pub failing: bool,
    /// Failed writes, syncs and creations since the journal was opened. A counter.
    pub write_failures: u64,
    /// Entries copied forward since the journal was opened, to free the segments they were in. A counter.
    pub copied: u64,
    /// What could not be read when a reader last tried; of several, what has been so for longest. Entries wait for it.
    pub unreadable: Option<Unreadable>,
    /// Damaged stretches found at opening, and damaged entries found by readers since. A counter.
    pub damaged: u64,
    /// By name.
    pub lanes: Vec<LaneStats>,
}

/// A segment that a reader cannot read now. Its entries are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The number of the segment.
    pub segment: u32,
    /// For how long the reader has tried.
    pub tried: Duration,
    /// What the system says.
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unreadable {
            segment,
            tried,
            why,
        } = self;
        let seconds = tried.as_secs();
        write!(f, "segment {segment} cannot be read for {seconds} s: {why}")
    }
}

/// What a lane holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStats {
    /// The lane.
    pub name: LaneName,
    /// Entries that some reader has not committed, or all where there is no reader.
    pub entries: u64,
    /// Their size on the disk.
    pub bytes: u64,
    /// What is reserved, or handed over and not yet durable.
    pub reserved: u64,
    /// The largest entry that could be reserved now.
    pub room_left: u64,
    /// The counts of all entries that ever became durable in the lane, across restarts.
    pub appended: u64,
    /// By name.
    pub readers: Vec<ReaderStats>,
}

/// How far a reader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderStats {
    /// The reader.
    pub name: ReaderName,
    /// Entries that it has not committed.
    pub pending_entries: u64,
    /// Their size on the disk.
    pub pending_bytes: u64,
    /// How long ago the first of them was appended, by the wall clock.
    pub oldest_pending_age: Option<Duration>,
    /// Everything up to here is committed.
    pub committed: Position,
    /// The counts of what is pending.
    pub pending_count: u64,
    /// The counts of what it has committed since it exists. Durable together with the cursor.
    pub passed: u64,
    /// The counts of what it was never given, or never got to commit durably: entries damaged beyond recognition, and
    /// entries that were let go of after a commit that a failing disk and then a crash made forgotten. What a lane has
    /// ever offered to a reader is `passed + pending_count + missing`, always.
    pub missing: u64,
    /// What was stored with the cursor: see [`crate::Reader::tally`].
    pub tally: Bytes,
}

/// What a reader has not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// How many entries.
    pub entries: u64,
    /// Their size on the disk, in bytes.
    pub bytes: u64,
    /// Their counts.
    pub count: u64,
    /// How long ago the first of them was appended, by the wall clock; zero if that has gone back since.
    pub oldest_age: Option<Duration>,
}

impl Pending {
    pub(crate) fn of(behind: Behind, now: SystemTime) -> Pending {
        let age = |ms| now.duration_since(from_ms(ms)).unwrap_or_default();
        Pending {
            entries: behind.entries,
            bytes: behind.bytes,
            count: behind.count,
            oldest_age: behind.oldest_ms.map(age),
        }
    }
}

pub(crate) fn missing(appended: u64, cursor: &Cursor, pending: u64) -> u64 {
    appended
        .saturating_sub(cursor.before)
        .saturating_sub(cursor.passed)
        .saturating_sub(pending)
}

impl State {
    fn unreadable(&self, now: Instant) -> Option<Unreadable> {
        let readers = self.lanes.values().flat_map(|lane| lane.readers.values());
        let unreadable = readers.filter_map(|reader| reader.unreadable.as_ref());
        let (segment, since, why) = unreadable.min_by_key(|(_, since, _)| *since)?;
        Some(Unreadable {
            segment: *segment,
            tried: now.saturating_duration_since(*since),
            why: why.clone(),
        })
    }
}

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        let free_bytes = self
            .storage
            .free_bytes()
            .ok()
            .filter(|free| *free != u64::MAX);
        let spare_bytes = self.spare_bytes();
        let now = self.options.now();
        let state = self.state();
        let mut lanes: Vec<LaneStats> = state
            .lanes
            .iter()
            .filter(|(_, lane)| !lane.name.as_ref().is_some_and(LaneName::is_own))
            .filter_map(|(id, lane)| self.lane_stats(&state, *id, lane, spare_bytes, now))
            .collect();
        lanes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Stats {
            bytes: state.file_bytes(),
            live_bytes: state.lanes.values().map(|lane| lane.index.bytes()).sum(),
            used_bytes: state.used(&self.limits, self.options.max_bytes),
            max_bytes: self.options.max_bytes,
            min_free_bytes: self.options.min_free_bytes,
            free_bytes,
            segments: state.segments.len(),
            waiting: state.waiting,
            failing: state.failing,
            write_failures: state.write_failures,
            copied: state.copied,
            unreadable: state.unreadable(self.options.instant()),
            damaged: state.damaged,
            lanes,
        }
    }

    /// What the file system has free beyond [`crate::Options::min_free_bytes`].
    pub(crate) fn spare_bytes(&self) -> u64 {
        if self.options.min_free_bytes == 0 {
            return u64::MAX;
        }
        // Where it cannot be told it is no bound: a full disk is then met, and waited out, by the writer.
        self.storage.free_bytes().map_or(u64::MAX, |free| {
            free.saturating_sub(self.options.min_free_bytes)
        })
    }

    fn lane_stats(
        &self,
        state: &State,
        id: u32,
        lane: &LaneState,
        spare_bytes: u64,
        now: SystemTime,
    ) -> Option<LaneStats> {
        let readers = lane.readers.iter().map(|(name, reader)| {
            let cursor = &reader.cursor;
            let pending = Pending::of(lane.index.behind(cursor.through), now);
            ReaderStats {
                name: name.clone(),
                pending_entries: pending.entries,
                pending_bytes: pending.bytes,
                oldest_pending_age: pending.oldest_age,
                committed: cursor.through,
                pending_count: pending.count,
                passed: cursor.passed,
                missing: missing(lane.appended.counts, cursor, pending.count),
                tally: cursor.tally.clone(),
            }
        });
        Some(LaneStats {
            name: lane.name.clone()?,
            entries: lane.index.len() as u64,
            bytes: lane.index.bytes(),
            reserved: lane.reserved(),
            room_left: if state.failing {
                0
            } else {
                state
                    .room(&self.limits, self.options.lanes_expected, id, spare_bytes)
                    .entry_bytes()
            },
            appended: lane.appended.counts,
            readers: readers.collect(),
        })
    }
}
