//! Which bound of the journal is reached where it has no room.

use bytesize::ByteSize;
use rtm_journal::Stats;

use super::health::{BOUND_BY_ENTRIES, NEARLY_FULL_PERCENT};
use crate::page::ROOM_FOR_A_PAGE;

/// Pages that may be in flight: the requests of one App ID in three seconds, which a slow response takes.
const IN_FLIGHT_PAGES: u64 = 32;

/// How full the journal is, by each of its bounds.
pub(crate) struct Room {
    pub(crate) bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) free_disk_bytes: Option<u64>,
    pub(crate) min_free_disk_bytes: u64,
    pub(crate) failing: bool,
}

impl Room {
    /// As the journal says.
    pub(crate) fn of(stats: &Stats) -> Room {
        Room {
            bytes: stats.bytes,
            used_bytes: stats.used_bytes,
            max_bytes: stats.max_bytes,
            free_disk_bytes: stats.free_bytes,
            min_free_disk_bytes: stats.min_free_bytes,
            failing: stats.failing,
        }
    }

    /// Why there is no room for another page: which bound is reached, and how far it is.
    pub(crate) fn why_full(&self) -> String {
        if self.failing {
            return "it cannot be written".to_owned();
        }
        let key = match self.is_bound_by_entries() {
            true => "journal.max_entries",
            false => "journal.max_bytes",
        };
        let percent = self.used_bytes.saturating_mul(100) / self.max_bytes.max(1);
        let is_full = percent >= NEARLY_FULL_PERCENT;
        // The room of requests in flight is taken of the disk, too. Where the journal has room, only they can have taken what
        // is lacking.
        let pages = if is_full { 1 } else { IN_FLIGHT_PAGES };
        let little = pages * ROOM_FOR_A_PAGE as u64;
        let left_alone = self.min_free_disk_bytes;
        let lacks = |free: &u64| *free < left_alone.saturating_add(little);
        match self.free_disk_bytes.filter(lacks) {
            Some(free) => format!(
                "the disk has {} free, and journal.min_free_bytes leaves {} for others",
                ByteSize(free),
                ByteSize(left_alone)
            ),
            None if is_full => format!("{percent} % of {key} is used"),
            None => format!("the App ID's part of {key} is used, and {percent} % of the whole"),
        }
    }

    /// Whether the number of entries bounds it, and not the size of its files.
    pub(crate) fn is_bound_by_entries(&self) -> bool {
        self.used_bytes as f64 > self.bytes as f64 * BOUND_BY_ENTRIES
    }
}
