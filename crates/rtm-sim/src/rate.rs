//! The judge of Agora's request limit.

use std::collections::VecDeque;
use std::time::Duration;

/// Counts requests in a sliding window, by the clock of whoever calls.
///
/// The window is half-open: two requests exactly one `window` apart are never in the same one. With a limit of 10 and
/// a window of a second this is the strictest reading of "10 requests per second for each App ID": a server that counts
/// in calendar seconds, or with a token bucket, refuses less.
///
/// Pure, so that a limiter can be judged with a fake clock and without HTTP.
#[derive(Debug, Clone)]
pub struct RateWindow {
    limit: usize,
    window: Duration,
    /// Requests of the current window, oldest first, refused ones too.
    recent: VecDeque<Request>,
    admitted: usize,
    max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    at: Duration,
    admitted: bool,
}

impl RateWindow {
    /// A judge that admits `limit` requests in every sliding `window`.
    #[must_use]
    pub fn new(limit: usize, window: Duration) -> RateWindow {
        RateWindow {
            limit,
            window,
            recent: VecDeque::new(),
            admitted: 0,
            max: 0,
        }
    }

    /// Counts a request that arrives at `now` (since any fixed point) and says whether it is within the limit.
    ///
    /// A refused request uses none of the limit, but it was a request: it counts for [`max_in_window`]. A `now` before
    /// that of the last call is taken as that of the last call, as time does not run backwards at a server.
    ///
    /// [`max_in_window`]: RateWindow::max_in_window
    pub fn admit(&mut self, now: Duration) -> bool {
        let now = self.recent.back().map_or(now, |last| last.at.max(now));
        while let Some(oldest) = self.recent.front() {
            if now - oldest.at < self.window {
                break;
            }
            self.admitted -= usize::from(oldest.admitted);
            self.recent.pop_front();
        }
        let admitted = self.admitted < self.limit;
        self.admitted += usize::from(admitted);
        self.recent.push_back(Request { at: now, admitted });
        self.max = self.max.max(self.recent.len());
        admitted
    }

    /// The most requests seen in any sliding window so far, refused ones included.
    ///
    /// It is over the limit exactly if a request was refused.
    #[must_use]
    pub fn max_in_window(&self) -> usize {
        self.max
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_window_is_half_open() {
        let mut window = RateWindow::new(1, SECOND);
        assert!(window.admit(Duration::ZERO));
        assert!(!window.admit(SECOND - Duration::from_nanos(1)));
        assert!(window.admit(SECOND));
        assert_eq!(window.max_in_window(), 2);
    }

    #[test]
    fn a_refused_request_uses_none_of_the_limit() {
        let mut window = RateWindow::new(2, SECOND);
        let admitted: Vec<bool> = [0, 100, 200, 900, 1000, 1050, 1100]
            .map(|ms| window.admit(Duration::from_millis(ms)))
            .to_vec();
        assert_eq!(admitted, [true, true, false, false, true, false, true]);
        // From 200 ms to 1,100 ms there were five requests, though no more than two were admitted.
        assert_eq!(window.max_in_window(), 5);
    }

    proptest! {
        /// The running count equals a recount from scratch, for times with many ties and exact windows.
        #[test]
        fn equals_a_naive_recount(gaps in prop::collection::vec(0u64..6, 1..200), limit in 1usize..12) {
            let mut window = RateWindow::new(limit, Duration::from_millis(10));
            let mut seen: Vec<(u64, bool)> = Vec::new();
            let (mut now, mut max) = (0, 0);
            for gap in gaps {
                now += gap;
                let inside = |at: u64| at + 10 > now;
                let used = seen.iter().filter(|(at, admitted)| *admitted && inside(*at)).count();
                let expected = used < limit;
                prop_assert_eq!(window.admit(Duration::from_millis(now)), expected);
                seen.push((now, expected));
                max = max.max(seen.iter().filter(|(at, _)| inside(*at)).count());
            }
            prop_assert_eq!(window.max_in_window(), max);
            prop_assert_eq!(max > limit, seen.iter().any(|(_, admitted)| !admitted));
        }
    }
}
