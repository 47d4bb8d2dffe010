//! What can be set, and the limits that cannot.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::{Epoch, OpenError};

/// The largest entry, before compression. A page of the source is at most 2 MiB.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;
/// The largest mark: marks are copied into the head of every segment.
pub const MAX_MARK_BYTES: usize = 4 << 10;
/// The largest tally of a reader, for the same reason.
pub const MAX_TALLY_BYTES: usize = 1 << 10;
/// The most lanes of one journal: all are copied into the head of every segment.
pub const MAX_LANES: usize = 1024;
/// The most readers of one lane, for the same reason.
pub const MAX_READERS: usize = 16;

/// The least `max_bytes`: below it the heads of the segments are most of the journal.
const LEAST_MAX_BYTES: u64 = 64 << 10;
/// For each lane beyond two, for the same reason: a head takes about 1 KiB a lane with two readers, there are some twenty
/// segments, and the heads are to stay below a sixteenth of it all.
const LEAST_LANE_BYTES: u64 = 256 << 10;
/// Segments are unlinked whole, so a journal of few segments frees its room in few large steps.
const LEAST_SEGMENTS: u64 = 16;
/// Offsets in a segment are 32 bits; a group may go past the end of one.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// The least `max_entries`.
const LEAST_MAX_ENTRIES: u64 = 1 << 10;

/// How a journal is kept. `Options::default()` suits a bridge.
#[derive(Clone)]
pub struct Options {
    /// The bound on the size of all segment files, in bytes. Default 4 GiB, at least 64 KiB, and 256 KiB for each lane
    /// that is expected beyond two. Entries never take it
    /// past the bound; an eighth of it is kept for what is dead but not yet reclaimed.
    pub max_bytes: u64,
    /// The bound on live entries, so that many tiny ones cannot outgrow memory: the index takes 40 bytes for each. An entry
    /// counts as at least this part of `max_bytes`, of which an eighth is kept here too. Default 1,048,576, at least
    /// 1,024: less is raised to that.
    pub max_entries: u64,
    /// The size in bytes at which a new segment is begun. Default 64 MiB; at most a sixteenth of `max_bytes` and 1 GiB,
    /// larger values are lowered to that.
    pub segment_bytes: u64,
    /// Free bytes of the file system to leave to others: below it no room is reserved. Default 256 MiB; 0 turns it off.
    pub min_free_bytes: u64,
    /// How late a commit may become durable, when no append takes it along earlier. Default 200 ms: where entries come
    /// every 100 ms, the next one does, and neither a wake-up nor a sync is spent on the commit alone.
    pub commit_interval: Duration,
    /// The zstd level of entries that are compressed. Default 1: some four to one on pages of random ids, in 0.2 ms.
    pub compression_level: i32,
    /// New entries are compressed once some reader has so many before it, or where there is no reader. Others are read and
    /// done with before their size counts, and compressing them would be a twentieth of what a busy bridge spends. Default
    /// 10, which is a second at ten a second; 0 compresses every entry.
    pub compress_from: u64,
    /// The newest entries are kept in memory up to so many bytes, so that a reader that keeps up reads no file. Default
    /// 4 MiB: 40 full pages, which is seconds of a storm. With 0 every entry is read from its file.
    pub tail_bytes: usize,
    /// How many lanes will be opened. Half of the room is guaranteed to them in equal shares, and the rest is common;
    /// when more are opened, the shares shrink. Default 1.
    pub lanes_expected: usize,
    /// Called by the writer with the duration of each successful group commit (write and fdatasync). It must not
    /// block. Default none.
    pub on_sync: Option<Arc<dyn Fn(Duration) + Send + Sync>>,
    /// The wall clock that entries are stamped with and ages are told by. Default none, which is the system's.
    pub clock: Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>,
    /// The monotonic clock that everything waits by: cursors, tries again, patience. Default none, which is the
    /// system's. Another one goes with [`crate::Journal::open_driven`] only: the writer's thread sleeps by the system's.
    pub monotonic: Option<Arc<dyn Fn() -> Instant + Send + Sync>>,
    /// The epoch of this opening, for a simulation that has to repeat itself. Default none, which is a random one.
    pub epoch: Option<Epoch>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_bytes: 4 << 30,
            max_entries: 1 << 20,
            segment_bytes: 64 << 20,
            min_free_bytes: 256 << 20,
            commit_interval: Duration::from_millis(200),
            compression_level: 1,
            compress_from: 10,
            tail_bytes: 4 << 20,
            lanes_expected: 1,
            on_sync: None,
            clock: None,
            monotonic: None,
            epoch: None,
        }
    }
}

impl Options {
    pub(crate) fn now(&self) -> SystemTime {
        self.clock
            .as_ref()
            .map_or_else(SystemTime::now, |clock| clock())
    }

    pub(crate) fn instant(&self) -> Instant {
        self.monotonic
            .as_ref()
            .map_or_else(Instant::now, |clock| clock())
    }

    pub(crate) fn limits(&self) -> Result<Limits, OpenError> {
        let beyond = (self.lanes_expected as u64).saturating_sub(2);
        let least = LEAST_MAX_BYTES.saturating_add(beyond.saturating_mul(LEAST_LANE_BYTES));
        if self.max_bytes < least {
            return Err(OpenError::TooSmall {
                max_bytes: self.max_bytes,
                least,
            });
        }
        let largest = (self.max_bytes / LEAST_SEGMENTS).min(MAX_SEGMENT_BYTES);
        let segment_bytes = self.segment_bytes.clamp(1, largest);
        if segment_bytes < self.segment_bytes {
            tracing::debug!(
                segment_bytes,
                asked = self.segment_bytes,
                "the journal's segments are made smaller"
            );
        }
        let capacity = self.max_bytes - self.max_bytes / 8;
        Ok(Limits {
            segment_bytes,
            disk_bytes: self.max_bytes - segment_bytes,
            capacity,
            guaranteed: capacity / 2,
            least_charge: self.max_bytes / self.max_entries.max(LEAST_MAX_ENTRIES),
        })
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_bytes", &self.max_bytes)
            .field("max_entries", &self.max_entries)
            .field("segment_bytes", &self.segment_bytes)
            .field("min_free_bytes", &self.min_free_bytes)
            .field("commit_interval", &self.commit_interval)
            .field("compression_level", &self.compression_level)
            .field("compress_from", &self.compress_from)
            .field("lanes_expected", &self.lanes_expected)
            .finish_non_exhaustive()
    }
}

/// What follows from the options, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) segment_bytes: u64,
    /// Reservations are given while the files and what is reserved stay below this: one segment below `max_bytes`, so
    /// that a segment can be cleaned when the journal is full.
    pub(crate) disk_bytes: u64,
    /// What live entries and reservations may take. The rest up to `disk_bytes` is at least a segment, so that a full
    /// journal always has something dead to reclaim.
    pub(crate) capacity: u64,
    /// The part of `capacity` that is divided into the lanes' shares.
    pub(crate) guaranteed: u64,
    /// What an entry counts as, at the least.
    pub(crate) least_charge: u64,
}

impl Limits {
    /// Room that is plenty beside a reservation of `charge` bytes: with less, what yields is given up, and there is time to
    /// let go of its segments before anybody waits.
    pub(crate) fn enough(&self, charge: u64) -> u64 {
        (self.capacity / 8).max(charge.saturating_mul(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_leave_room_to_clean() {
        for max_bytes in [LEAST_MAX_BYTES, 1 << 20, 100 << 20, 4 << 30, 1 << 40] {
            for segment_bytes in [0, 1, 4 << 10, 64 << 20, u64::MAX] {
                let limits = Options {
                    max_bytes,
                    segment_bytes,
                    ..Options::default()
                }
                .limits()
                .unwrap();
                assert!(limits.segment_bytes >= 1 && limits.segment_bytes <= MAX_SEGMENT_BYTES);
                assert!(limits.capacity + limits.segment_bytes <= limits.disk_bytes);
                assert!(limits.disk_bytes + limits.segment_bytes <= max_bytes);
            }
        }
        let tiny = Options {
            max_bytes: LEAST_MAX_BYTES - 1,
            ..Options::default()
        };
        assert!(matches!(tiny.limits(), Err(OpenError::TooSmall { .. })));
        let crowded = Options {
            max_bytes: 100 << 20,
            lanes_expected: 1000,
            ..Options::default()
        };
        assert!(matches!(crowded.limits(), Err(OpenError::TooSmall { .. })));
    }
}
