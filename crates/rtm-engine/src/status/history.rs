//! The last minutes of a ring's polling, second by second, for the status page.

use std::time::{Duration, Instant};

use super::health::RECENTLY;
use super::metrics::POLL_OUTCOMES;

/// How much is remembered.
pub(super) const SECONDS: usize = RECENTLY.as_secs() as usize;

/// Over how many seconds requests are averaged.
const MINUTE: usize = 60;

/// Requests by outcome and what they cost, of one second.
#[derive(Clone, Copy, Default)]
pub(super) struct Second {
    /// By [`POLL_OUTCOMES`].
    pub(super) polls: [u16; POLL_OUTCOMES.len()],
    /// The longest gap between two successful polls that ended in this second, in milliseconds.
    pub(super) gap_ms: u32,
    /// Events possibly lost with responses in doubt.
    pub(super) lost: u32,
    /// Times that the ring was found full.
    pub(super) overflows: u16,
    /// Events that Agora may have overwritten then, as far as that can be estimated.
    pub(super) overwritten: u32,
}

/// What happened within the seconds that are remembered.
pub(super) struct Recent {
    /// Over the last minute.
    pub(super) polls_per_second: f64,
    /// The longest gap between two successful polls.
    pub(super) longest_gap: Duration,
    /// Events possibly lost with responses in doubt.
    pub(super) lost: u64,
    /// Times that the ring was found full.
    pub(super) overflows: u64,
    /// Events that Agora may have overwritten then, as far as that can be estimated.
    pub(super) overwritten: u64,
}

/// A ring buffer of seconds. Some seven kilobytes, whatever happens.
pub(super) struct History {
    /// The beginning of second 0, the same for all rings of an App ID.
    started: Instant,
    seconds: Box<[Second; SECONDS]>,
    /// The second that was written last; those after it are not cleared yet.
    newest: u64,
    /// When a poll last succeeded.
    last: Option<Instant>,
    /// The gap before that.
    gap: Option<Duration>,
}

impl History {
    pub(super) fn new(started: Instant) -> History {
        History {
            started,
            seconds: Box::new([Second::default(); SECONDS]),
            newest: 0,
            last: None,
            gap: None,
        }
    }

    /// Counts a request that ended now, by its outcome, one of [`POLL_OUTCOMES`].
    pub(super) fn polled(&mut self, outcome: &str, now: Instant) {
        let second = self.at(now);
        if let Some(index) = POLL_OUTCOMES.iter().position(|known| *known == outcome) {
            second.polls[index] = second.polls[index].saturating_add(1);
        }
        if matches!(outcome, "page" | "empty") {
            self.gap = self.last.map(|last| now.saturating_duration_since(last));
            self.last = Some(now);
            let gap = self.gap.unwrap_or_default().as_millis();
            let second = self.at(now);
            second.gap_ms = second.gap_ms.max(u32::try_from(gap).unwrap_or(u32::MAX));
        }
    }

    /// Counts events that may have been lost just now.
    pub(super) fn lost(&mut self, events: u64, now: Instant) {
        let second = self.at(now);
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        second.lost = second.lost.saturating_add(events);
    }

    /// Notes that the ring was full just now, and what that may have cost.
    pub(super) fn overflowed(&mut self, events: u64, now: Instant) {
        let second = self.at(now);
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        second.overflows = second.overflows.saturating_add(1);
        second.overwritten = second.overwritten.saturating_add(events);
    }

    /// The seconds that are remembered, oldest first, up to and with the present one, which is not over.
    pub(super) fn seconds(&mut self, now: Instant) -> impl DoubleEndedIterator<Item = Second> {
        self.at(now);
        let present = self.newest;
        let first = (present + 1).saturating_sub(SECONDS as u64);
        (first..=present).map(|second| self.seconds[slot(second)])
    }

    /// What happened recently, of the present second only what is bad.
    pub(super) fn recent(&mut self, now: Instant) -> Recent {
        let seconds: Vec<Second> = self.seconds(now).collect();
        let over = &seconds[..seconds.len() - 1];
        let minute = &over[over.len().saturating_sub(MINUTE)..];
        let polls = minute.iter().flat_map(|second| second.polls);
        let polls: u64 = polls.map(u64::from).sum();
        let longest = seconds.iter().map(|second| second.gap_ms).max();
        let sum = |of: fn(&Second) -> u64| seconds.iter().map(of).sum();
        Recent {
            polls_per_second: polls as f64 / minute.len().max(1) as f64,
            longest_gap: Duration::from_millis(longest.unwrap_or(0).into()),
            lost: sum(|second| second.lost.into()),
            overflows: sum(|second| second.overflows.into()),
            overwritten: sum(|second| second.overwritten.into()),
        }
    }

    /// How long ago a poll last succeeded; none before the first.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.last.map(|last| now.saturating_duration_since(last))
    }

    /// The gap between the last two successful polls.
    pub(super) fn gap(&self) -> Option<Duration> {
        self.gap
    }

    fn at(&mut self, now: Instant) -> &mut Second {
        let second = now.saturating_duration_since(self.started).as_secs();
        if second > self.newest {
            let stale = (second - self.newest).min(SECONDS as u64);
            for cleared in second + 1 - stale..=second {
                self.seconds[slot(cleared)] = Second::default();
            }
            self.newest = second;
        }
        // Requests that end at once may come here in another order than they ended in.
        &mut self.seconds[slot(self.newest)]
    }
}

fn slot(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

#[cfg(test)]
mod tests;
