//! Whether someone else reads our App ID's events: two bridges with different journals silently take them from each
//! other.
//!
//! One proof, which we cannot cause ourselves, and one hint:
//!
//! **429s.** The limiter keeps our requests within the limit by the server's own clock, whatever the network does. A 429
//! therefore means that other requests count against the same App ID, or that Agora has trouble. Trouble passes, so one
//! is not enough: there have to be [`REFUSALS`], each a minute or more after the one before, within [`MEMORY`]. Trouble
//! of less than two minutes never alarms, and the alarm ends [`MEMORY`] after the last one at the latest.
//!
//! **Holes.** A poll empties a ring, so the next page begins right after where the last one ended: its first event
//! follows the last event of the page before, by the events' own `ms`, at about the distance at which its events follow
//! each other. Who reads in between leaves a hole. A page counts if it and the one before, of the poll just before, are
//! neither empty nor full, and if it has [`ENOUGH`] events; it has a hole if there is more than half of its own length
//! between it and the page before. A poller at our pace leaves one before two pages of three, and more than one page of
//! five has to have one for them to be told.
//!
//! How often that happens by itself: events that come independently leave such a hole before a page of n with a chance of
//! e^(-(n-1)/2), one in 33 at worst, and then ten of them come together less than once in 10^12 pages. A quiet hour has no page with enough events, so it shows nothing. Lulls
//! show as empty pages, which are left out. What remains is traffic that itself comes in bunches, one to a poll and
//! evenly so: bunches 0.1 s apart, such as timers make, look like holes at our own pace, for as long as they come. So holes
//! are told once, for people to look, and are no alarm.
//!
//! What is not seen: a poller much slower than ours (it takes little), one that always reads just before us (then pages
//! are all but empty, as in a quiet hour) or just after us (then it is the one that sees holes), and one at a ring with fewer than [`ENOUGH`] events to a poll. At the full pace of two
//! bridges the 429s tell in any case; at half of it each only the hint does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many 429s, [`APART`] from each other, make an alarm.
const REFUSALS: usize = 3;
const APART: Duration = Duration::from_secs(60);
/// How long a sign is remembered.
const MEMORY: Duration = Duration::from_secs(600);

/// The events of a page that can have a hole before it.
const ENOUGH: usize = 8;
/// A hole counts four, a page without one takes one back; they are told at so many, and again after there were none.
const HOLE: u32 = 4;
const HINT: u32 = 10 * HOLE;
/// No more are remembered, so that a hint does not outlast its reason by more than a hundred pages.
const MOST: u32 = 25 * HOLE;

/// The signs so far, of one App ID. Pure: takes the time, and asks no clock.
#[derive(Debug, Default)]
pub(crate) struct SecondPoller {
    refusals: VecDeque<Instant>,
    holes: u32,
    /// When the last hole was seen.
    hole_at: Option<Instant>,
    by_holes: bool,
}

/// Where the last page of a ring ended, if the next one may have a hole before it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PageEnd(Option<i64>);

impl SecondPoller {
    /// The far end said 429.
    pub(crate) fn refused(&mut self, now: Instant) {
        let apart = |last: &Instant| now.saturating_duration_since(*last) >= APART;
        if self.refusals.back().is_none_or(apart) {
            self.refusals.push_back(now);
        }
    }

    /// A page came, of the ring whose page before ended at `end`.
    pub(crate) fn page(
        &mut self,
        now: Instant,
        end: &mut PageEnd,
        count: usize,
        full: bool,
        span: Option<(i64, i64)>,
    ) {
        let before = end.0;
        end.0 = span.map(|(_, last)| last).filter(|_| count > 0 && !full);
        let (Some(before), Some((first, last)), false) = (before, span, full) else {
            return;
        };
        let length = last.saturating_sub(first);
        if count < ENOUGH || length <= 0 {
            return;
        }
        if first.saturating_sub(before) > length / 2 {
            self.holes = (self.holes + HOLE).min(MOST);
            self.hole_at = Some(now);
        } else {
            self.holes = self.holes.saturating_sub(1);
        }
    }

    /// Whether someone else reads: 429s prove it. Stays until they are gone.
    pub(crate) fn suspected(&mut self, now: Instant) -> bool {
        let old = |at: &Instant| now.saturating_duration_since(*at) >= MEMORY;
        while self.refusals.front().is_some_and(old) {
            self.refusals.pop_front();
        }
        self.refusals.len() >= REFUSALS
    }

    /// Whether pages have holes before them, as if someone else read, or as if events came in bunches. Stays until they
    /// are gone.
    pub(crate) fn has_holes(&mut self, now: Instant) -> bool {
        let old = |at: &Instant| now.saturating_duration_since(*at) >= MEMORY;
        if self.hole_at.as_ref().is_some_and(old) {
            (self.holes, self.hole_at) = (0, None);
        }
        self.by_holes = match self.holes {
            0 => false,
            holes => self.by_holes || holes >= HINT,
        };
        self.by_holes
    }
}

impl PageEnd {
    /// The poll brought no page, so that the next one says nothing.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests;
