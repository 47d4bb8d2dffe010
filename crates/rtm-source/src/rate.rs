//! How fast events come to a ring, by what its pages bring.

use std::time::{Duration, Instant};

/// How long a page is remembered, in seconds, while the rate does not change. Long, since a rate from n events is off by
/// 1/√n, and rings of one rate must not look different.
const MEMORY: f64 = 60.0;

/// A run of pages above the rate, or below it, ends the memory once it is so many standard deviations away: at five,
/// chance does it once in millions of pages.
const DEVIATIONS: f64 = 5.0;

/// And so many times the rate: less is not worth the noise of a short memory, where events come in bunches.
const FACTOR: f64 = 1.5;

/// And so many events: one channel's worth of members that come together is no change of the rate.
const BUNCH: f64 = 10.0;

/// The average of count/gap, weighted by time, that forgets everything at once when the rate has changed.
///
/// **A full page is a lower bound.** Then more is waiting, so the gap is not over: it goes from the moment when the ring
/// was last empty to the next page that leaves it empty, and the count is that of all pages in between. Until that page
/// the rate only rises.
///
/// **A sudden rise counts at once**, and so does a fall: as soon as a run of pages on one side of the rate is too long,
/// or too far away, to be chance. Smaller changes come with the average.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// What the rate is the quotient of. Both fade.
    events: f64,
    seconds: f64,
    run: Run,
    /// When the ring was last empty.
    empty_at: Option<Instant>,
    /// What has come out of it since.
    taken: f64,
}

/// Pages in a row on one side of the rate.
#[derive(Debug, Default)]
struct Run {
    above: bool,
    events: f64,
    seconds: f64,
}

impl Rate {
    /// A page came, of a request that was sent at `polled_at`.
    pub(crate) fn page(&mut self, polled_at: Instant, count: usize, full: bool) {
        self.taken += count as f64;
        let taken = self.taken;
        let since = if full {
            self.empty_at
        } else {
            self.taken = 0.0;
            self.empty_at.replace(polled_at)
        };
        // What was there before the first poll tells nothing.
        let Some(since) = since else { return };
        let seconds = polled_at.saturating_duration_since(since);
        let seconds = seconds.max(Duration::from_millis(1)).as_secs_f64();
        if !full {
            self.sample(taken, seconds);
        } else if taken > self.per_second() * seconds {
            self.start_anew(taken, seconds);
        }
    }

    /// A page may be gone, so nothing is known of the ring until it is empty again.
    pub(crate) fn doubt(&mut self) {
        (self.empty_at, self.taken) = (None, 0.0);
    }

    fn sample(&mut self, events: f64, seconds: f64) {
        let rate = self.per_second();
        let above = events > rate * seconds;
        if above != self.run.above {
            self.run = Run {
                above,
                ..Run::default()
            };
        }
        self.run.events += events;
        self.run.seconds += seconds;
        if self.seconds > 0.0 && self.run.is_a_change(rate, self.seconds) {
            let Run {
                events, seconds, ..
            } = self.run;
            self.start_anew(events, seconds);
            return;
        }
        let fade = (-seconds / MEMORY).exp();
        self.events = self.events * fade + events;
        self.seconds = self.seconds * fade + seconds;
    }

    fn start_anew(&mut self, events: f64, seconds: f64) {
        (self.events, self.seconds, self.run) = (events, seconds, Run::default());
    }

    /// In events per second; zero as long as it is unknown.
    pub(crate) fn per_second(&self) -> f64 {
        self.most(0.0)
    }

    /// What the rate may well be, by three standard deviations: three events where none has come.
    pub(crate) fn at_most(&self) -> f64 {
        self.most(3.0 + 3.0 * self.events.sqrt())
    }

    fn most(&self, more: f64) -> f64 {
        if self.seconds > 0.0 {
            (self.events + more) / self.seconds
        } else {
            0.0
        }
    }

    /// The rate if, before the first page, there had been `evidence` events at the rate `usual`: where little is known,
    /// a ring is taken to be as the others are.
    pub(crate) fn shrunk(&self, usual: f64, evidence: f64) -> f64 {
        if usual > 0.0 {
            (self.events + evidence) / (self.seconds + evidence / usual)
        } else {
            0.0
        }
    }
}

impl Run {
    /// Whether chance hardly makes such a run of independent events at `rate`, which `seconds` have shown.
    fn is_a_change(&self, rate: f64, seconds: f64) -> bool {
        let expected = rate * self.seconds;
        let deviation = (expected * (1.0 + self.seconds / seconds)).sqrt();
        if self.above {
            self.events > (expected + DEVIATIONS * deviation + BUNCH).max(expected * FACTOR)
        } else {
            self.events < (expected - DEVIATIONS * deviation).min(expected / FACTOR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring that is polled every `gap` milliseconds and has the counts that `counts` gives, in pages of 1,000; gives
    /// the rate after each page.
    fn rates(gap: u64, counts: impl IntoIterator<Item = usize>) -> Vec<f64> {
        let (mut rate, mut waiting) = (Rate::default(), 0);
        let mut at = Instant::now();
        let counts = counts.into_iter().map(|count| {
            waiting += count;
            let page = waiting.min(1_000);
            waiting -= page;
            rate.page(at, page, page == 1_000);
            at += Duration::from_millis(gap);
            rate.per_second()
        });
        counts.collect()
    }

    fn around(mean: f64, seed: u64) -> impl Iterator<Item = usize> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(move || {
            (0..10_000)
                .filter(|_| random.f64() < mean / 10_000.0)
                .count()
        })
    }

    /// Holds: chance moves the rate by no more than chance, and it forgets nothing for it.
    #[test]
    fn a_steady_rate_is_steady() {
        for (gap, mean) in [(100, 200.0), (800, 40.0), (200, 10.0), (800, 0.8)] {
            let per_second = mean * 1_000.0 / gap as f64;
            let rates = rates(gap, around(mean, 1).take(2_000));
            let worst = (rates[200..].iter())
                .map(|rate| (rate / per_second - 1.0).abs())
                .fold(0.0, f64::max);
            // Five standard deviations of what is remembered: half of it counts.
            let chance = 5.0 / (2.0 * MEMORY * per_second).sqrt();
            assert!(worst < chance, "{gap} ms, {mean}: {worst} of {chance}");
        }
    }

    /// Holds: a rise counts with the page that shows it, and a fall within two.
    #[test]
    fn a_sudden_change_counts_at_once() {
        let counts = (around(40.0, 2).take(300))
            .chain(around(400.0, 3).take(50))
            .chain(around(40.0, 4).take(50));
        let rates = rates(800, counts);
        assert!((rates[299] - 50.0).abs() < 5.0, "{}", rates[299]);
        assert!((rates[300] - 500.0).abs() < 100.0, "{}", rates[300]);
        assert!((rates[349] - 500.0).abs() < 25.0, "{}", rates[349]);
        assert!((rates[351] - 50.0).abs() < 20.0, "{}", rates[351]);
    }

    /// Holds: a full page never lowers the rate, its successor is not taken for new events, and once the ring is empty
    /// again the rate is that of all its events over all that time.
    #[test]
    fn a_full_page_is_a_lower_bound() {
        // 50 a second, then 4,000 a second for a second and a half.
        let counts = (0..80)
            .map(|_| 5)
            .chain((0..15).map(|_| 400))
            .chain((0..80).map(|_| 5));
        let mut storm = 0.0_f64;
        for rate in rates(100, counts) {
            storm = storm.max(rate);
        }
        assert!(storm > 3_000.0 && storm < 4_100.0, "{storm}");
        // Nobody polls for 20 s, in which 500 a second come; the ring keeps 2,000 of them.
        let mut rate = Rate::default();
        let mut at = Instant::now();
        for _ in 0..100 {
            rate.page(at, 50, false);
            at += Duration::from_millis(100);
        }
        at += Duration::from_secs(20);
        for (count, full) in [(1_000, true), (1_000, true), (100, false)] {
            rate.page(at, count, full);
            if full {
                assert!((rate.per_second() - 500.0).abs() < 1.0);
            }
            at += Duration::from_millis(100);
        }
        assert!(rate.per_second() > 100.0);
    }

    /// Holds: nothing is concluded from a gap in which a page may have been lost.
    #[test]
    fn doubt_says_nothing() {
        let mut rate = Rate::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        rate.page(at(0), 500, false);
        assert_eq!(rate.per_second(), 0.0);
        rate.page(at(1_000), 20, false);
        assert_eq!(rate.per_second(), 20.0);
        rate.doubt();
        rate.page(at(3_000), 900, false);
        assert_eq!(rate.per_second(), 20.0);
        rate.page(at(4_000), 20, false);
        assert!((rate.per_second() - 20.0).abs() < 0.1);
    }

    /// Holds: what is unknown is as the others are, and evidence counts for more and more.
    #[test]
    fn little_evidence_is_shrunk() {
        let mut rate = Rate::default();
        assert_eq!(rate.shrunk(0.0, 16.0), 0.0);
        assert_eq!(rate.shrunk(7.0, 16.0), 7.0);
        let mut at = Instant::now();
        for _ in 0..600 {
            rate.page(at, 10, false);
            at += Duration::from_millis(100);
        }
        assert!(rate.shrunk(12.5, 16.0) > 95.0);
    }
}
