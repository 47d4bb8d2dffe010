//! How a request ended, and what that led to.

use std::time::Duration;

use crate::{FetchError, FetchErrorKind, Page};

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
                count: page.events(),
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
    /// gone: 429s that we did not cause.
    pub second_poller: bool,
    /// Pages begin long after the one before ended, by now: someone else may read, or events come in bunches.
    pub holes: bool,
    /// What a response in doubt may have cost, by the ring's rate and the time since it was empty, what was saved of it
    /// included. An estimate, at most a page; 0 where it cannot be told.
    pub estimated_lost: u64,
}

/// A ring that seems to have overwritten events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// How many were lost since this was last told, by the gap in the events' `ms` before this page, and before the
    /// first of the full pages in a row. An estimate, and a lower bound if events came in the gap at least as fast as on
    /// the slower side of it; 0 where it cannot be told, such as after the start.
    pub estimated_lost: u64,
}
