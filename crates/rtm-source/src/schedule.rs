//! Which ring to poll next, and when.
//!
//! **Even shares.** With k rings and a budget of F requests a second each ring is polled every k/F seconds, one ring
//! after the other, so that an event waits k/2F seconds on average. A ring whose last page was full has more waiting:
//! the others slip, to twice their interval at most, and full rings get what that leaves, half of the budget or more.
//!
//! **Even spacing.** The limiter alone would allow ten requests at once and then nothing for a second, and would keep
//! that rhythm for ever, since each slot comes back a second after it was used. So the schedule paces: polls start
//! (1 + r)/N seconds apart, with r the usual round trip, which is exactly the rate at which N slots come back. A full
//! page is polled again at the next such moment: sooner would only borrow the slot from the poll after it.
//!
//! **Doubt.** When a page of a ring is in doubt, the same stream of the other regions is polled next: some events are
//! stored in two regions, and the copies of what was lost may be there, and overwritten soon. That changes the order and
//! not the pace, and a ring that has waited for twice its even share goes first all the same.
//!
//! **Failures.** A ring that fails is left alone for a jittered, exponential backoff, and its share goes to the others.
//! 429 holds every ring, because the budget is the App ID's.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;
use crate::limiter::REST;
use crate::second_poller::{PageEnd, SecondPoller};
use crate::{FetchError, FetchErrorKind, Page, Ring};

/// No answer to [`Schedule::next`] is further away, so that a caller that misses a wake-up recovers.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How late a poll may start for the next one to come sooner.
const LATE: Duration = Duration::from_millis(5);

/// More failures in a row than this make no backoff longer.
const MOST_DOUBLINGS: u32 = 16;

/// Shares an App ID's budget among its rings. Pure: it takes the time, and asks no clock.
#[derive(Debug)]
pub struct Schedule {
    rings: Vec<RingState>,
    options: ScheduleOptions,
    jitter: fastrand::Rng,
    /// No poll starts before.
    paced_until: Option<Instant>,
    /// No poll starts before: the far end said 429.
    held_until: Option<Instant>,
    /// 429s since the last page.
    refusals: u32,
    /// The usual time from start to answer: the limiter's slots are anchored at the answer.
    round_trip: Duration,
    /// When an event was last seen, or the schedule was first asked.
    busy_at: Option<Instant>,
    second_poller: SecondPoller,
}

#[derive(Debug)]
struct RingState {
    ring: Ring,
    in_flight: bool,
    started_at: Option<Instant>,
    /// Left alone until then.
    ready_at: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// Full pages in a row.
    full_pages: u32,
    /// It may have copies of what another region's ring has just lost.
    sought: bool,
    arrivals: Arrivals,
    page_end: PageEnd,
}

impl Schedule {
    /// A schedule for `rings`, which are polled in this order at first. `seed` is for the jitter of backoffs.
    #[must_use]
    pub fn new(rings: Vec<Ring>, options: ScheduleOptions, seed: u64) -> Schedule {
        let rings = rings
            .into_iter()
            .map(|ring| RingState {
                ring,
                in_flight: false,
                started_at: None,
                ready_at: None,
                failures: 0,
                full_pages: 0,
                sought: false,
                arrivals: Arrivals::default(),
                page_end: PageEnd::default(),
            })
            .collect();
        Schedule {
            rings,
            options,
            jitter: fastrand::Rng::with_seed(seed),
            paced_until: None,
            held_until: None,
            refusals: 0,
            round_trip: Duration::ZERO,
            busy_at: None,
            second_poller: SecondPoller::default(),
        }
    }

    /// What to do now. Sends nothing and reserves nothing: the same ring is named until it is
    /// [`started`](Schedule::started). Ask again after every `started` and [`observe`](Schedule::observe), which may
    /// bring the moment forward.
    pub fn next(&mut self, now: Instant) -> Next {
        self.busy_at.get_or_insert(now);
        let gate = self.paced_until.max(self.held_until);
        if let Some(gate) = gate.filter(|gate| *gate > now) {
            return Next::Wait(gate.min(now + LONGEST_WAIT));
        }
        if let Some(ring) = self.pick(now) {
            return Next::Poll(ring.clone());
        }
        let idle = self.rings.iter().filter(|state| !state.in_flight);
        let ready = idle.filter_map(|state| state.ready_at).min();
        Next::Wait(ready.unwrap_or(now + LONGEST_WAIT).min(now + LONGEST_WAIT))
    }

    /// The ring to poll, of those that may be polled: the one that has waited longest, where a moment of a full ring
    /// counts for more.
    ///
    /// With h full rings of k, a weight of 1 + k/h lets the others wait for up to twice their even interval, whatever h
    /// and k are, and spreads their polls among those of the full rings. A plain precedence would starve the others until
    /// all were overdue at once, and then the full ring while they caught up.
    fn pick(&self, now: Instant) -> Option<&Ring> {
        let all = self.rings.len() as u128;
        let full = self
            .rings
            .iter()
            .filter(|state| state.full_pages > 0)
            .count()
            .max(1) as u128;
        let urgency = |state: &&RingState| {
            let age = now.saturating_duration_since(state.started_at?).as_nanos();
            // In h-ths, to stay with integers.
            Some(
                age * if state.full_pages > 0 {
                    full + all
                } else {
                    full
                },
            )
        };
        let seeking = self.rings.iter().any(|state| state.sought);
        let patience = 2 * self.share() * self.interval(now);
        let first = |state: &RingState| {
            let waited = state.started_at.map(|at| now.saturating_duration_since(at));
            !seeking || state.sought || waited.is_none_or(|waited| waited >= patience)
        };
        self.rings
            .iter()
            .filter(|state| {
                !state.in_flight && state.ready_at.is_none_or(|ready_at| ready_at <= now)
            })
            // The first of equals, and rings that were never polled before all others.
            .min_by_key(|state| (!first(state), urgency(state).map(Reverse)))
            .map(|state| &state.ring)
    }

    /// Says that a request to `ring` has just been sent. There is at most one in flight per ring.
    pub fn started(&mut self, ring: &Ring, now: Instant) {
        let interval = self.interval(now);
        // A start that was a little late, by the timer's granularity, is made up for: else a tenth of the budget of
        // quick limiters would go that way. No more than that: polls that follow each other closely find their slots
        // coming back as closely, for ever.
        let on_time = self.paced_until.unwrap_or(now) + interval;
        let soonest = now + interval.saturating_sub(LATE).max(interval / 2);
        self.paced_until = Some(on_time.max(soonest));
        if let Some(state) = self.state(ring) {
            state.in_flight = true;
            state.started_at = Some(now);
            state.sought = false;
        }
    }

    /// Says how the request to `ring` ended. To be called once for every [`started`](Schedule::started).
    pub fn observe(&mut self, ring: &Ring, now: Instant, outcome: &Outcome) -> Observed {
        let Some(state) = self.state(ring) else {
            return Observed::default();
        };
        state.in_flight = false;
        if !matches!(outcome, Outcome::Page { .. }) {
            state.page_end.forget();
        }
        let observed = match *outcome {
            Outcome::Page { count, full, span } => self.observe_page(ring, now, count, full, span),
            Outcome::NotSent => self.back_off(ring, now, false, None),
            Outcome::InDoubt { retry_after } => {
                self.seek_copies(ring, now);
                self.back_off(ring, now, false, retry_after)
            }
            Outcome::Refused { status: 429, .. } if rtm_planted::bug("source-429-ignored") => {
                Observed::default()
            }
            Outcome::Refused {
                status: 429,
                retry_after,
            } => self.hold(now, retry_after),
            // What is left is for people: credentials, App ID, URL.
            Outcome::Refused { retry_after, .. } => self.back_off(ring, now, true, retry_after),
        };
        Observed {
            second_poller: self.second_poller.suspected(now),
            ..observed
        }
    }

    /// The rings of the same stream in other regions come next, even if the pace is an idle one.
    fn seek_copies(&mut self, lost: &Ring, now: Instant) {
        let mut found = false;
        for state in &mut self.rings {
            if state.ring.stream == lost.stream
                && state.ring.region != lost.region
                && !rtm_planted::bug("source-siblings-not-sought")
            {
                state.sought = true;
                found = true;
            }
        }
        if found {
            let soon = now + self.full_pace();
            self.paced_until = self.paced_until.min(Some(soon));
        }
    }

    /// The usual time from start to answer, by which the pace goes.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    fn observe_page(
        &mut self,
        ring: &Ring,
        now: Instant,
        count: usize,
        full: bool,
        span: Option<(i64, i64)>,
    ) -> Observed {
        self.refusals = 0;
        if count > 0 {
            self.busy_at = Some(now);
            // The end of an idle pace comes at once.
            self.paced_until = self.paced_until.min(Some(now + self.interval(now)));
        }
        let Some(state) = self.rings.iter_mut().find(|state| state.ring == *ring) else {
            return Observed::default();
        };
        state.failures = 0;
        state.ready_at = None;
        state.full_pages = if full { state.full_pages + 1 } else { 0 };
        if rtm_planted::bug("source-full-page-not-polled-again") {
            state.full_pages = 0;
        }
        let polled_at = state.started_at.unwrap_or(now);
        let lost = (state.arrivals).page(polled_at, count, span, state.full_pages);
        (self.second_poller).page(now, &mut state.page_end, count, full, span);
        let overflow = (state.full_pages >= 2).then_some(Overflow {
            estimated_lost: lost,
        });
        let took = state
            .started_at
            .map_or(Duration::ZERO, |at| now.duration_since(at));
        // Averaged over all rings, as the slots are: what one region's distance costs, all share. Capped, so that one
        // response of half a minute does not slow the pace for the next twenty.
        let took = took.min(REST);
        self.round_trip = match self.round_trip {
            Duration::ZERO => took,
            usual => (usual * 7 + took) / 8,
        };
        Observed {
            overflow_suspected: overflow.is_some(),
            overflow,
            ..Observed::default()
        }
    }

    fn back_off(
        &mut self,
        ring: &Ring,
        now: Instant,
        alarm: bool,
        retry_after: Option<Duration>,
    ) -> Observed {
        let failures = self.state(ring).map_or(0, |state| state.failures);
        let backoff = if alarm {
            // Not even the first retry is quick: nobody rotates credentials within a second.
            self.backoff(failures + 2, self.options.alarm_backoff_max, retry_after)
        } else {
            self.backoff(failures, self.options.backoff_max, retry_after)
        };
        if let Some(state) = self.state(ring) {
            state.failures = (state.failures + 1).min(MOST_DOUBLINGS);
            state.ready_at = Some(now + backoff);
        }
        Observed {
            backoff: Some(backoff),
            alarm,
            ..Observed::default()
        }
    }

    fn hold(&mut self, now: Instant, retry_after: Option<Duration>) -> Observed {
        self.second_poller.refused(now);
        let hold = self.backoff(self.refusals, self.options.backoff_max, retry_after);
        // Less than the limit's own window would be refused again.
        let hold = hold.max(REST);
        self.refusals = (self.refusals + 1).min(MOST_DOUBLINGS);
        self.held_until = self.held_until.max(Some(now + hold));
        Observed {
            hold: Some(hold),
            ..Observed::default()
        }
    }

    /// Doubles with each failure, up to `longest`; half of it is jitter, so that many bridges do not come back at once.
    /// `retry_after` is waited out, and a tenth more at random.
    fn backoff(
        &mut self,
        failures: u32,
        longest: Duration,
        retry_after: Option<Duration>,
    ) -> Duration {
        let doubled = self
            .options
            .backoff_min
            .saturating_mul(1 << failures.min(MOST_DOUBLINGS))
            .min(longest);
        let jittered = doubled.mul_f64(0.5 + self.jitter.f64() / 2.0);
        let asked = retry_after
            .unwrap_or_default()
            .min(self.options.retry_after_max);
        jittered.max(asked.mul_f64(1.0 + self.jitter.f64() / 10.0))
    }

    /// The time between two polls: as the slots come back, or slower when idle.
    fn interval(&self, now: Instant) -> Duration {
        let full_pace = self.full_pace();
        let quiet = self
            .busy_at
            .is_some_and(|at| now.duration_since(at) >= self.options.idle_after);
        match self.options.idle_interval {
            Some(idle_interval) if quiet => full_pace.max(idle_interval / self.share()),
            _ => full_pace,
        }
    }

    /// The time between two polls as the slots come back.
    fn full_pace(&self) -> Duration {
        let slots = u32::try_from(self.options.requests_per_second)
            .unwrap_or(u32::MAX)
            .max(1);
        (REST + self.round_trip) / slots
    }

    /// The number of rings that the budget is shared by.
    fn share(&self) -> u32 {
        u32::try_from(self.rings.len()).unwrap_or(u32::MAX).max(1)
    }

    fn state(&mut self, ring: &Ring) -> Option<&mut RingState> {
        self.rings.iter_mut().find(|state| state.ring == *ring)
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Poll this ring.
    Poll(Ring),
    /// Nothing before this moment, at most a second away.
    Wait(Instant),
}

/// How a request ended, as far as the schedule cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A complete page.
    Page {
        /// Its events.
        count: usize,
        /// Whether more are probably waiting.
        full: bool,
        /// When the first and the last of them happened, by their `ms`, where both say.
        span: Option<(i64, i64)>,
    },
    /// The request did not leave.
    NotSent,
    /// The far end refused.
    Refused {
        /// Its status.
        status: u16,
        /// What it asked for.
        retry_after: Option<Duration>,
    },
    /// Nobody knows.
    InDoubt {
        /// What the far end asked for.
        retry_after: Option<Duration>,
    },
}

impl Outcome {
    /// The outcome of a fetch.
    #[must_use]
    pub fn of(fetched: &Result<Page, FetchError>) -> Outcome {
        match fetched {
            Ok(page) => Outcome::Page {
                count: page.count,
                full: page.is_full(),
                span: page.first_ms.zip(page.last_ms),
            },
            Err(error) => match error.kind {
                FetchErrorKind::NotSent => Outcome::NotSent,
                FetchErrorKind::Refused => Outcome::Refused {
                    status: error.status.unwrap_or_default(),
                    retry_after: error.retry_after,
                },
                FetchErrorKind::InDoubt => Outcome::InDoubt {
                    retry_after: error.retry_after,
                },
            },
        }
    }
}

/// What an outcome led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// How long this ring is left alone.
    pub backoff: Option<Duration>,
    /// How long every ring of the App ID is left alone: the far end said 429.
    pub hold: Option<Duration>,
    /// A person must look: the far end refuses our credentials, our App ID or our URL. Retries go on, slowly.
    pub alarm: bool,
    /// Two full pages in a row: the ring was full, and may have overwritten events.
    pub overflow_suspected: bool,
    /// What is known of it; there exactly if `overflow_suspected`.
    pub overflow: Option<Overflow>,
    /// Someone else seems to read this App ID's events, by now. Stays true, whatever the outcome, until the signs are
    /// gone: 429s that we did not cause, or pages that begin long after the one before ended.
    pub second_poller: bool,
}

/// A ring that seems to have overwritten events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// How many were lost since this was last told, by the gap in the events' `ms` before this page, and before the
    /// first of the full pages in a row. An estimate, and a lower bound if events came in the gap at least as fast as on
    /// the slower side of it; 0 where it cannot be told, such as after the start.
    pub estimated_lost: u64,
}

/// What a schedule goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// The budget of the App ID, in requests per second; the same as the limiter's slots. Default 10.
    pub requests_per_second: usize,
    /// How often each ring is polled once nothing has come for `idle_after`. Default `None`: at the full pace, since a
    /// slower one makes the first event after a quiet time older, and the budget is there anyway.
    pub idle_interval: Option<Duration>,
    /// How long every ring has to be empty before `idle_interval` applies. Default 10 s.
    pub idle_after: Duration,
    /// The first backoff of a ring after a failure. Default 250 ms.
    pub backoff_min: Duration,
    /// The longest backoff of a ring after failures that pass. Default 5 s: longer, and a ring of 2,000 runs over.
    pub backoff_max: Duration,
    /// The longest backoff where only a person can help. Default 30 s.
    pub alarm_backoff_max: Duration,
    /// The longest `Retry-After` that is believed. Default 60 s.
    pub retry_after_max: Duration,
}

impl Default for ScheduleOptions {
    fn default() -> ScheduleOptions {
        ScheduleOptions {
            requests_per_second: 10,
            idle_interval: None,
            idle_after: Duration::from_secs(10),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(5),
            alarm_backoff_max: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests;
