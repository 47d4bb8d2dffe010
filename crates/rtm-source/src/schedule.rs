//! Which ring to poll next, and when.

use std::time::{Duration, Instant};

use crate::{FetchError, FetchErrorKind, Page, Ring};

/// Shares an App ID's budget among its rings. Pure: it takes the time, and asks no clock.
#[derive(Debug)]
pub struct Schedule {}

impl Schedule {
    /// A schedule for `rings`, which are polled in this order at first. `seed` is for the jitter of backoffs.
    #[must_use]
    pub fn new(_rings: Vec<Ring>, _options: ScheduleOptions, _seed: u64) -> Schedule {
        unimplemented!()
    }

    /// What to do now. Changes nothing: ask again after every [`started`](Schedule::started) and
    /// [`observe`](Schedule::observe), which may bring the moment forward.
    pub fn next(&mut self, _now: Instant) -> Next {
        unimplemented!()
    }

    /// Says that a request to `ring` has just been sent. There is at most one in flight per ring.
    pub fn started(&mut self, _ring: &Ring, _now: Instant) {
        unimplemented!()
    }

    /// Says how the request to `ring` ended. To be called once for every [`started`](Schedule::started).
    pub fn observe(&mut self, _ring: &Ring, _now: Instant, _outcome: &Outcome) -> Observed {
        unimplemented!()
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
