//! The rate limit: never more than N requests in any second, by the server's clock.

use std::time::Duration;

/// N slots per second for one App ID, over all its rings. Cheap to clone; clones share the slots.
#[derive(Debug, Clone)]
pub struct Limiter {}

impl Limiter {
    /// `slots` requests per second. No slot is given before `start_after` has passed: a predecessor may just have used
    /// the budget (1 s after a clean stop, 1.25 s after an unclean one).
    ///
    /// # Panics
    ///
    /// When `slots` is 0.
    #[must_use]
    pub fn new(_slots: usize, _start_after: Duration) -> Limiter {
        unimplemented!()
    }

    /// Waits for a slot, first come first served. Dropping the future leaves the queue and takes nothing.
    pub async fn slot(&self) -> Slot {
        std::future::pending().await
    }

    /// How it stands now.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        unimplemented!()
    }
}

/// The right to send one request. Dropped unused, it is free again at once.
#[derive(Debug)]
#[must_use = "a slot that is dropped sends nothing"]
pub struct Slot {}

/// How a limiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimiterStats {
    /// All slots.
    pub slots: usize,
    /// Taken, and neither given back nor seen to be answered.
    pub in_use: usize,
    /// Answered less than a second ago, or held after a timeout or at the start.
    pub cooling: usize,
    /// Callers that wait for a slot.
    pub waiting: usize,
    /// What callers have waited for slots, in all.
    pub waited: Duration,
    /// How many slots have been used for a request.
    pub used: u64,
}
