//! What the pages of a ring say about the events that were overwritten before anyone read them.

use std::time::{Duration, Instant};

/// Each page weighs so much against all before it.
const WEIGHT: f64 = 0.2;

/// Fewer overwritten events than this are not told: events come in bunches, and a gap of some is one between bunches.
const LEAST: u64 = 50;

/// The arrival rate of a ring, and the gaps between its pages.
///
/// A ring that overflows loses its *oldest* events, so the loss is a gap between the last event of one page and the
/// first of the next, in the events' own `ms`. How many were in it nobody knows. It is **estimated**: the gap, times the
/// lower of two rates, that at which events came before it (an average over pages, by our clock) and that within the
/// page after it.
///
/// It is a **lower bound** in this sense: if events came in the gap at least as fast as on the slower side of it, at
/// least so many were lost. A storm that begins or ends in the gap is underestimated. A lull that lies in the gap alone
/// is the one thing that makes it too high. Nothing is said where a rate is unknown, such as after the start.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    polled_at: Option<Instant>,
    /// In events per millisecond.
    rate: Option<f64>,
    last_ms: Option<i64>,
    /// What the gap before the first of the full pages in a row may have cost: told once a second one follows.
    untold: u64,
}

impl Arrivals {
    /// Takes a page into account, of a request that was sent at `polled_at`. `full_pages` are those in a row, this one
    /// included. Returns how many events were lost, once the ring is suspected to have overflown.
    pub(crate) fn page(
        &mut self,
        polled_at: Instant,
        count: usize,
        span: Option<(i64, i64)>,
        full_pages: u32,
    ) -> u64 {
        let lost = self.lost_before(count, span);
        if let Some(since) = self.polled_at.replace(polled_at) {
            let gap = polled_at.saturating_duration_since(since);
            let gap = gap.max(Duration::from_millis(1)).as_secs_f64() * 1_000.0;
            let rate = count as f64 / gap;
            let usual = self.rate.unwrap_or(rate);
            self.rate = Some(usual + (rate - usual) * WEIGHT);
        }
        self.last_ms = span.map(|(_, last)| last).or(self.last_ms);
        match full_pages {
            0 => {
                self.untold = 0;
                0
            }
            1 => {
                self.untold = lost;
                0
            }
            _ => lost + std::mem::take(&mut self.untold),
        }
    }

    fn lost_before(&self, count: usize, span: Option<(i64, i64)>) -> u64 {
        let (Some(before), Some(last), Some((first, end))) = (self.rate, self.last_ms, span) else {
            return 0;
        };
        let gap = first.saturating_sub(last).max(0) as f64;
        let within = count.saturating_sub(1) as f64 / end.saturating_sub(first).max(1) as f64;
        let lost = (gap * before.min(within)) as u64;
        if lost < LEAST { 0 } else { lost }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{MAX_PAGE_EVENTS, MAX_RING_EVENTS};

    /// A ring to which `rate(ms)` events come in a millisecond, polled every `pace` but for a pause from 10 s on. Gives
    /// what was overwritten, and what was told.
    fn pause(rate: impl Fn(i64) -> f64, pace: i64, pause: i64) -> (u64, u64) {
        let (mut ring, mut due) = (VecDeque::new(), 0.0);
        let (mut lost, mut told, mut full_pages) = (0, 0, 0);
        let mut arrivals = Arrivals::default();
        let origin = Instant::now();
        for ms in 0..10_000 + pause + 10_000 {
            due += rate(ms);
            while due >= 1.0 {
                due -= 1.0;
                ring.push_back(ms);
                if ring.len() > MAX_RING_EVENTS {
                    ring.pop_front();
                    lost += 1;
                }
            }
            if ms % pace == 0 && !(10_000..10_000 + pause).contains(&ms) {
                let count = ring.len().min(MAX_PAGE_EVENTS);
                let page: Vec<i64> = ring.drain(..count).collect();
                let span = page.first().copied().zip(page.last().copied());
                full_pages = if count == MAX_PAGE_EVENTS {
                    full_pages + 1
                } else {
                    0
                };
                let at = origin + Duration::from_millis(ms as u64);
                told += arrivals.page(at, count, span, full_pages);
            }
        }
        (lost, told)
    }

    /// Holds: at a steady rate the estimate is close to the truth, and hardly above it.
    #[test]
    fn a_pause_at_a_steady_rate() {
        for (rate, pace, paused) in [(0.2, 200, 30_000), (0.5, 100, 10_000), (2.0, 400, 20_000)] {
            let (lost, told) = pause(|_| rate, pace, paused);
            assert!(lost > 2_500, "{lost}");
            let (lost, told) = (lost as f64, told as f64);
            assert!(told > lost * 0.9 && told < lost * 1.02, "{told} of {lost}");
        }
    }

    /// Holds: where the rate changes in the gap, the estimate stays below the truth.
    #[test]
    fn a_storm_in_the_pause_is_underestimated() {
        for begins in [10_500, 12_000, 14_000] {
            let storm = |ms| if ms < begins { 0.2 } else { 5.0 };
            let (lost, told) = pause(storm, 100, 5_000);
            assert!(lost > 2_000 && told < lost, "{told} of {lost}");
            let calm = |ms| if ms < begins { 5.0 } else { 0.5 };
            let (lost, told) = pause(calm, 100, 5_000);
            assert!(told <= lost + lost / 1_000, "{told} of {lost}");
        }
    }

    /// Holds: what did not overflow loses nothing: pauses that the ring bears, and full pages without a gap.
    #[test]
    fn no_overflow_no_loss() {
        for (rate, paused) in [(0.2, 9_000), (1.0, 1_800), (0.0, 30_000)] {
            assert_eq!(pause(|_| rate, 100, paused), (0, 0));
        }
        // Bunches of 60, such as one channel's members make.
        let bunches = |ms| if ms % 500 == 0 { 60.0 } else { 0.0 };
        assert_eq!(pause(bunches, 100, 12_000), (0, 0));
    }
}
