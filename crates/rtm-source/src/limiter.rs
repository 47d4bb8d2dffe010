//! The rate limit: never more than N requests in any second, by the *server's* clock.
//!
//! **Completion-anchored.** There are N slots. A request takes one, and it comes back a second after the response, or
//! the failure, was *observed*. Why that suffices, whatever the network does:
//!
//! 1. Of any N + 1 requests two used the same slot, say A and then B.
//! 2. The server had counted A before it answered, and it answered before we saw the answer, at a time *t*.
//! 3. B was sent at *t* + 1 s or later, and so it reached the server at *t* + 1 s or later.
//! 4. So the server counted A and B a second apart or more, and no half-open second holds N + 1 requests.
//!
//! A request that nobody answered may still be on its way, so step 2 does not hold for it: it keeps its slot for
//! [`GRACE`] on top. Limiters that look at send times cannot give this. A token bucket lets 19 through, and a sliding
//! window over send times fails as soon as one request is delayed more than the next; the tests show both.
//!
//! The price is the round trip: with one of *r* seconds the rate is at most N / (1 + *r*).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify};
use tokio::time::{Instant, sleep_until};

use crate::{FetchError, Page};

/// How long a slot rests after its request was answered: a second, and a millisecond for a clock of ours that runs
/// faster than the server's, by up to 1,000 parts per million (NTP steers by at most 500).
pub(crate) const REST: Duration = Duration::from_millis(1_001);

/// How much longer after a timeout or an abandoned request, which may still be travelling.
///
/// After its deadline a request's connection is closed; what can arrive later is what is already under way, or is
/// retransmitted by the kernel, which the client's TCP user timeout bounds.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// N slots per second for one App ID, over all its rings. Cheap to clone; clones share the slots.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

impl Limiter {
    /// `slots` requests per second. No slot is given before `start_after` has passed: a predecessor may just have used
    /// the budget (1 s after a clean stop, 1.25 s after an unclean one).
    ///
    /// # Panics
    ///
    /// When `slots` is 0.
    #[must_use]
    pub fn new(slots: usize, start_after: Duration) -> Limiter {
        assert!(slots > 0, "a limiter without slots never gives one");
        let state = State {
            slots: Slots::new(slots, start_after),
            waiting: 0,
            waited: Duration::ZERO,
            used: 0,
            count: slots,
        };
        let shared = Shared {
            origin: Instant::now(),
            state: Mutex::new(state),
            turn: Turn::new(()),
            returned: Notify::new(),
        };
        Limiter {
            shared: Arc::new(shared),
        }
    }

    /// Waits for a slot, first come first served. Dropping the future leaves the queue and takes nothing.
    pub async fn slot(&self) -> Slot {
        let shared = &self.shared;
        let _waiting = Waiting::start(shared);
        // Tokio's mutex is fair, so it is the queue; whoever has it is the only one that looks for a slot.
        let _turn = shared.turn.lock().await;
        loop {
            let taken = shared.state().slots.take(shared.now());
            match taken {
                Ok(()) => {
                    return Slot {
                        lease: Lease::new(shared, Duration::ZERO),
                    };
                }
                Err(Some(at)) => tokio::select! {
                    biased;
                    () = sleep_until(shared.origin + at) => {}
                    () = shared.returned.notified() => {}
                },
                Err(None) => shared.returned.notified().await,
            }
        }
    }

    /// `slots` requests per second from now on. What is under way or rests counts on: in the second of the change no more
    /// requests are sent than the greater number allows.
    ///
    /// # Panics
    ///
    /// When `slots` is 0.
    pub fn resize(&self, slots: usize) {
        assert!(slots > 0, "a limiter without slots never gives one");
        let now = self.shared.now();
        let mut state = self.shared.state();
        let count = std::mem::replace(&mut state.count, slots);
        state.slots.resize(count, slots, now);
        drop(state);
        self.shared.returned.notify_one();
    }

    /// How it stands now.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        let now = self.shared.now();
        let state = self.shared.state();
        LimiterStats {
            slots: state.count,
            in_use: (state.count + state.slots.retiring) - state.slots.free_at.len(),
            cooling: state
                .slots
                .free_at
                .iter()
                .filter(|Reverse(at)| *at > now)
                .count(),
            waiting: state.waiting,
            waited: state.waited,
            used: state.used,
        }
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// How a limiter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimiterStats {
    /// All slots.
    pub slots: usize,
    /// Taken, and neither given back nor seen to be answered.
    pub in_use: usize,
    /// Resting: answered less than a second ago, or held after a timeout or at the start.
    pub cooling: usize,
    /// Callers that wait for a slot.
    pub waiting: usize,
    /// What callers have waited for slots, in all.
    pub waited: Duration,
    /// How many slots have been used for a request.
    pub used: u64,
}

/// The right to send one request. Dropped unused, it is free again at once.
#[derive(Debug)]
#[must_use = "a slot that is dropped sends nothing"]
pub struct Slot {
    lease: Lease,
}

impl Slot {
    /// Uses the slot for `exchange`, which sends one request and waits for what comes of it.
    ///
    /// The slot returns a second after `exchange` has ended, which has shown that the request arrived, or never will:
    /// only after a `timeout` without a status may it still be travelling, and the slot is held for five seconds more. So
    /// it is if the future is dropped meanwhile.
    ///
    /// # Errors
    ///
    /// That of `exchange`.
    pub async fn using(
        self,
        exchange: impl Future<Output = Result<Page, FetchError>>,
    ) -> Result<Page, FetchError> {
        let in_flight = self.send();
        let fetched = exchange.await;
        match &fetched {
            Err(error) if error.reason == "timeout" && error.status.is_none() => {
                in_flight.timed_out();
            }
            _ => in_flight.observed(),
        }
        fetched
    }

    /// From here on a request may be under way.
    pub(crate) fn send(mut self) -> InFlight {
        self.lease.shared.state().used += 1;
        self.lease.rest = REST + GRACE;
        InFlight { lease: self.lease }
    }
}

/// A slot whose request may be under way. Dropped without an observation, it counts as timed out.
#[derive(Debug)]
#[must_use = "the slot rests from the moment of the observation"]
pub(crate) struct InFlight {
    lease: Lease,
}

impl InFlight {
    /// The response, or a failure that came from the other side, has been seen.
    pub(crate) fn observed(mut self) {
        self.lease.rest = REST;
    }

    /// We gave up, and the request may still be travelling.
    pub(crate) fn timed_out(self) {}
}

/// Gives the slot back when dropped, to be free after `rest`.
struct Lease {
    shared: Arc<Shared>,
    rest: Duration,
}

impl Lease {
    fn new(shared: &Arc<Shared>, rest: Duration) -> Lease {
        Lease {
            shared: Arc::clone(shared),
            rest,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let free_at = self.shared.now() + self.rest;
        self.shared.state().slots.give_back(free_at);
        self.shared.returned.notify_one();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("rest", &self.rest)
            .finish_non_exhaustive()
    }
}

struct Shared {
    origin: Instant,
    state: Mutex<State>,
    turn: Turn<()>,
    returned: Notify,
}

impl Shared {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way, so a poisoned one is as good as new.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    slots: Slots,
    count: usize,
    waiting: usize,
    waited: Duration,
    used: u64,
}

/// Counts a caller as waiting, until it is dropped: with a slot, or because the caller gave up.
struct Waiting<'a> {
    shared: &'a Shared,
    since: Duration,
}

impl Waiting<'_> {
    fn start(shared: &Shared) -> Waiting<'_> {
        shared.state().waiting += 1;
        Waiting {
            shared,
            since: shared.now(),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = self.shared.now().saturating_sub(self.since);
        let mut state = self.shared.state();
        state.waiting -= 1;
        state.waited += waited;
    }
}

/// The limiter itself, without a clock: times are since any fixed point, and never run backwards.
pub(crate) struct Slots {
    /// When each slot that is not out may be taken, the earliest first.
    free_at: BinaryHeap<Reverse<Duration>>,
    /// So many are given up once they are free, and not before: a slot that rests stands for a request that counts.
    retiring: usize,
}

impl Slots {
    pub(crate) fn new(count: usize, start_after: Duration) -> Slots {
        Slots {
            free_at: vec![Reverse(start_after); count].into(),
            retiring: 0,
        }
    }

    /// Takes a slot, or says when one will be free; `None` if all are out.
    pub(crate) fn take(&mut self, now: Duration) -> Result<(), Option<Duration>> {
        loop {
            match self.free_at.peek() {
                None => return Err(None),
                Some(Reverse(at)) if *at > now => return Err(Some(*at)),
                Some(_) => {
                    self.free_at.pop();
                    if self.retiring == 0 {
                        return Ok(());
                    }
                    self.retiring -= 1;
                }
            }
        }
    }

    /// From `old` slots to `new` ones. One that is added is free at once, as one that was given up was.
    pub(crate) fn resize(&mut self, old: usize, new: usize, now: Duration) {
        self.retiring += old.saturating_sub(new);
        let added = new.saturating_sub(old);
        let kept = added.min(self.retiring);
        self.retiring -= kept;
        for _ in kept..added {
            self.free_at.push(Reverse(now));
        }
    }

    pub(crate) fn give_back(&mut self, free_at: Duration) {
        self.free_at.push(Reverse(free_at));
    }
}

#[cfg(test)]
mod tests;
