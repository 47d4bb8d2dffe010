//! Which ring to poll next, and when. The reasons are in the documentation of [`Schedule`].

use std::time::{Duration, Instant};

use crate::arrivals::Arrivals;
use crate::limiter::REST;
use crate::rate::Rate;
use crate::second_poller::{PageEnd, SecondPoller};
use crate::{MAX_PAGE_EVENTS, Ring};

use flights::{Flights, News};
pub use outcome::{Observed, Outcome, Overflow};
use shares::Claim;

mod flights;
mod outcome;
mod shares;

/// The most that [`ScheduleOptions::in_flight_per_ring`] allows: what 10 slots a second need up to a round trip of 440 ms.
/// Each may cost a page if the process dies.
pub const MOST_IN_FLIGHT_PER_RING: usize = 4;

/// No answer to [`Schedule::next`] is further away, so that a caller that misses a wake-up recovers.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How late a poll may start for the next one to come sooner.
const LATE: Duration = Duration::from_millis(5);

/// More failures in a row than this make no backoff longer.
const MOST_DOUBLINGS: u32 = 16;

/// A ring's interval is at most this, or twice that of an even share if that is more, however little comes. Where it is
/// this, as with up to five rings, and the poll is not late, a storm of 2,000 events a second that begins unseen just
/// fits into the ring; the documentation has the other cases.
const LONGEST_INTERVAL: f64 = 1.0;

/// The same while another ring drains, which loses events for sure if it gets too little; or four times that of an even
/// share.
const LONGEST_INTERVAL_IN_A_STORM: f64 = 5.0;

/// A ring may fill by so many events in its interval, as far as its rate is known. Half of what it holds: polls come up
/// to twice the interval late where many are due at once, and a page holds no more.
const SAFE_FILL: f64 = MAX_PAGE_EVENTS as f64;

/// How long after a full page the other stream of its region is watched: logins, and then joins.
const WATCHED: Duration = Duration::from_secs(10);

/// A ring that is watched gets so many times the least that a ring gets.
const WATCHED_TIMES: f64 = 2.5;

/// Of a ring of which little is known, so many events are taken to have come as they do on average over all rings.
const EVIDENCE: f64 = 16.0;

/// A ring that has waited for so many of its intervals goes before those that may have copies of a lost page.
const PATIENCE: f64 = 1.5;

#[doc = include_str!("../doc/schedule.md")]
#[doc = include_str!("../doc/policies.md")]
///
#[doc = include_str!("../doc/policies.svg")]
#[derive(Debug)]
pub struct Schedule {
    rings: Vec<RingState>,
    /// How many plans there were.
    renewals: u64,
    /// What the rings that may be polled claim, and get: there to be used again.
    claims: Vec<Claim>,
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
    /// With which plan it came: a turn of before it left and came back is not its own.
    since: u64,
    /// The ring of the same region's other stream.
    neighbour: Option<usize>,
    flights: Flights,
    /// When the last request was started.
    started_at: Option<Instant>,
    /// Left alone until then.
    ready_at: Option<Instant>,
    /// The far end asked to be left alone until then.
    asked_until: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// The last of them was one that only a person can mend.
    alarmed: bool,
    /// The last page was full, so more is waiting.
    draining: bool,
    /// The number of the request that `draining` is from.
    draining_since: u64,
    /// When the last full page came.
    full_at: Option<Instant>,
    /// Full pages in a row.
    full_pages: u32,
    /// When the last request began that left the ring empty, or may have.
    emptied_at: Option<Instant>,
    /// It may have copies of what another region's ring has just lost.
    sought: bool,
    rate: Rate,
    arrivals: Arrivals,
    page_end: PageEnd,
}

impl RingState {
    fn new(ring: Ring, since: u64) -> RingState {
        RingState {
            ring,
            since,
            neighbour: None,
            flights: Flights::default(),
            started_at: None,
            ready_at: None,
            asked_until: None,
            failures: 0,
            alarmed: false,
            draining: false,
            draining_since: 0,
            full_at: None,
            full_pages: 0,
            emptied_at: None,
            sought: false,
            rate: Rate::default(),
            arrivals: Arrivals::default(),
            page_end: PageEnd::default(),
        }
    }

    /// What a read may have deleted that began at `started_at` and brought nothing: a page where one was waiting, else
    /// what came since the ring was empty, at its rate, and no more than a page. 0 where either is unknown.
    fn estimate(&self, started_at: Instant) -> u64 {
        if self.draining {
            return MAX_PAGE_EVENTS as u64;
        }
        let gap = self.emptied_at.map_or(Duration::ZERO, |at| {
            started_at.saturating_duration_since(at)
        });
        (self.rate.per_second() * gap.as_secs_f64()).min(MAX_PAGE_EVENTS as f64) as u64
    }

    /// Whether its failures let it be polled.
    fn is_ready(&self, now: Instant) -> bool {
        self.ready_at.is_none_or(|ready_at| ready_at <= now)
    }

    /// Whether one more request may be in flight.
    fn has_room(&self, in_flight: usize) -> bool {
        let most = if self.draining {
            in_flight.clamp(1, MOST_IN_FLIGHT_PER_RING)
        } else {
            1
        };
        self.flights.count() < most
    }
}

/// A request in flight, from [`Schedule::started`] to [`Schedule::observe`].
///
/// Not to be dropped: the schedule would wait for its end for ever, and poll its ring no more.
#[derive(Debug)]
#[must_use = "a turn that is not observed stays in flight"]
pub struct Turn {
    ring: Ring,
    /// [`RingState::since`].
    since: u64,
    number: u64,
    started_at: Instant,
}

impl Turn {
    /// The ring that is polled.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }
}

impl Schedule {
    /// A schedule for `rings`, which are polled in this order at first. `seed` is for the jitter of backoffs.
    #[must_use]
    pub fn new(rings: Vec<Ring>, options: ScheduleOptions, seed: u64) -> Schedule {
        let mut schedule = Schedule {
            rings: Vec::new(),
            renewals: 0,
            claims: Vec::new(),
            options: ScheduleOptions::default(),
            jitter: fastrand::Rng::with_seed(seed),
            paced_until: None,
            held_until: None,
            refusals: 0,
            round_trip: Duration::ZERO,
            busy_at: None,
            second_poller: SecondPoller::default(),
        };
        schedule.renew(rings, options);
        schedule
    }

    /// Goes on with other rings or options. What is known of the App ID stays, and of the rings that stay: what the far
    /// end asked for, the requests in flight, the rates. What rings wait for that were refused may just have been mended:
    /// [`try_again`](Schedule::try_again).
    pub fn renew(&mut self, rings: Vec<Ring>, options: ScheduleOptions) {
        self.renewals += 1;
        let mut known = std::mem::take(&mut self.rings);
        self.rings = (rings.into_iter())
            .map(
                |ring| match known.iter().position(|state| state.ring == ring) {
                    Some(index) => known.swap_remove(index),
                    None => RingState::new(ring, self.renewals),
                },
            )
            .collect();
        let neighbour = |of: &RingState| {
            let of = &of.ring;
            self.rings.iter().position(|state| {
                state.ring.region.name() == of.region.name() && state.ring.stream != of.stream
            })
        };
        let neighbours: Vec<Option<usize>> = self.rings.iter().map(neighbour).collect();
        for (state, neighbour) in self.rings.iter_mut().zip(neighbours) {
            state.neighbour = neighbour;
        }
        self.options = options;
        self.try_again();
    }

    /// Forgets every request in flight, of which there must be none, and what is concluded from those before. What the far
    /// end asked for stays.
    pub fn start_anew(&mut self) {
        for state in &mut self.rings {
            *state = RingState {
                neighbour: state.neighbour,
                ready_at: state.ready_at,
                asked_until: state.asked_until,
                failures: state.failures,
                alarmed: state.alarmed,
                ..RingState::new(state.ring.clone(), state.since)
            };
        }
        self.paced_until = None;
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
        self.divide(now);
        if let Some(ring) = self.pick(now) {
            return Next::Poll(ring.clone());
        }
        let most = self.options.in_flight_per_ring;
        let idle = self.rings.iter().filter(|state| state.has_room(most));
        let ready = idle.filter_map(|state| state.ready_at).min();
        Next::Wait(ready.unwrap_or(now + LONGEST_WAIT).min(now + LONGEST_WAIT))
    }

    /// Divides the budget among the rings that may be polled.
    fn divide(&mut self, now: Instant) {
        let mut claims = std::mem::take(&mut self.claims);
        claims.clear();
        let interval = self.interval(now).as_secs_f64();
        let ready = || self.rings.iter().filter(|state| state.is_ready(now));
        let even = interval * f64::from(self.share());
        let longest = if ready().any(|state| state.draining) {
            LONGEST_INTERVAL_IN_A_STORM.max(4.0 * even)
        } else {
            LONGEST_INTERVAL.max(2.0 * even)
        };
        let floor = 1.0 / longest;
        let known = || ready().filter(|state| state.rate.per_second() > 0.0);
        let usual = known().map(|state| state.rate.per_second()).sum::<f64>()
            / known().count().max(1) as f64;
        claims.extend(ready().map(|state| {
            let mut least = floor.max(state.rate.at_most() / SAFE_FILL);
            if self.is_watched(state, now) {
                least = least.max(WATCHED_TIMES * floor);
            }
            Claim {
                draining: state.draining,
                least,
                root: state.rate.shrunk(usual, EVIDENCE).sqrt(),
                share: 0.0,
            }
        }));
        shares::divide(&mut claims, 1.0 / interval, floor);
        self.claims = claims;
    }

    /// Whether a storm in its region may be about to reach it.
    fn is_watched(&self, state: &RingState, now: Instant) -> bool {
        let full_at = (state.neighbour).and_then(|neighbour| self.rings[neighbour].full_at);
        full_at.is_some_and(|at| now.saturating_duration_since(at) < WATCHED)
    }

    /// The ring to poll, of those that may be polled: the one that has waited for the most of its own intervals.
    ///
    /// Where the square roots decide, that is the one with the largest `rate × age²`. While a ring drains, the others do
    /// not come before their time.
    fn pick(&self, now: Instant) -> Option<&Ring> {
        let seeking = self.rings.iter().any(|state| state.sought);
        let storm = self.claims.iter().any(|claim| claim.draining);
        let ready = self.rings.iter().filter(|state| state.is_ready(now));
        (ready.zip(&self.claims))
            .filter(|(state, _)| state.has_room(self.options.in_flight_per_ring))
            .map(|(state, claim)| {
                // Rings that were never polled come before all others.
                let waited = state.started_at.map_or(f64::INFINITY, |at| {
                    now.saturating_duration_since(at).as_secs_f64() * claim.share
                });
                let first = !seeking || state.sought || waited >= PATIENCE;
                let due = !storm || claim.draining || waited >= 1.0;
                ((first, due, waited), state)
            })
            // The first of equals.
            .reduce(|best, next| if next.0 > best.0 { next } else { best })
            .map(|(_, state)| &state.ring)
    }

    /// Says that a request to `ring` has just been sent: as [`next`](Schedule::next) said, which never names a ring that
    /// has a request in flight, save one that drains, up to [`ScheduleOptions::in_flight_per_ring`].
    pub fn started(&mut self, ring: &Ring, now: Instant) -> Turn {
        let interval = self.interval(now);
        // A start that was a little late, by the timer's granularity, is made up for: else a tenth of the budget of
        // quick limiters would go that way. No more than that: polls that follow each other closely find their slots
        // coming back as closely, for ever.
        let on_time = self.paced_until.unwrap_or(now) + interval;
        let soonest = now + interval.saturating_sub(LATE).max(interval / 2);
        self.paced_until = Some(on_time.max(soonest));
        let index = self.index(ring);
        let mut turn = Turn {
            ring: ring.clone(),
            since: 0,
            number: 0,
            started_at: now,
        };
        if let Some(index) = index {
            let state = &mut self.rings[index];
            turn.number = state.flights.start();
            turn.since = state.since;
            state.started_at = Some(now);
            state.sought = false;
        }
        turn
    }

    /// Says how a request ended. To be called once for every [`started`](Schedule::started); requests of one ring may
    /// end in any order.
    pub fn observe(&mut self, turn: Turn, now: Instant, outcome: &Outcome) -> Observed {
        let Turn {
            ring,
            since,
            number,
            started_at,
        } = turn;
        let known = self.index(&ring);
        let Some(index) = known.filter(|index| self.rings[*index].since == since) else {
            // It has left meanwhile, and what is asked of the whole App ID holds all the same.
            return match *outcome {
                Outcome::Refused {
                    status: 429,
                    retry_after,
                } => self.hold(now, retry_after),
                _ => Observed::default(),
            };
        };
        let estimated_lost = match outcome {
            Outcome::InDoubt { .. } => self.rings[index].estimate(started_at),
            _ => 0,
        };
        if matches!(
            outcome,
            Outcome::InDoubt { .. } | Outcome::Page { full: false, .. }
        ) {
            let state = &mut self.rings[index];
            state.emptied_at = state.emptied_at.max(Some(started_at));
        }
        if let Outcome::Page { count, full, .. } = *outcome {
            self.page(index, number, now, count, full);
            // Averaged over all rings, as the slots are: what one region's distance costs, all share. Capped, so that
            // one response of half a minute does not slow the pace for the next twenty.
            let took = now.saturating_duration_since(started_at).min(REST);
            self.round_trip = match self.round_trip {
                Duration::ZERO => took,
                usual => (usual * 7 + took) / 8,
            };
        }
        let overflow = self.settle(index, number, started_at, now, outcome);
        let observed = match *outcome {
            Outcome::Page { .. } => Observed::default(),
            Outcome::NotSent => self.back_off(index, now, false, None),
            Outcome::InDoubt { retry_after } => {
                self.seek_copies(&ring, now);
                self.back_off(index, now, false, retry_after)
            }
            Outcome::Refused {
                status: 429,
                retry_after,
            } => self.hold(now, retry_after),
            // What is left is for people: credentials, App ID, URL.
            Outcome::Refused { retry_after, .. } => self.back_off(index, now, true, retry_after),
        };
        Observed {
            overflow_suspected: overflow.is_some(),
            overflow,
            second_poller: self.second_poller.suspected(now),
            holes: self.second_poller.has_holes(now),
            estimated_lost,
            ..observed
        }
    }

    fn index(&self, ring: &Ring) -> Option<usize> {
        self.rings.iter().position(|state| state.ring == *ring)
    }

    /// What a page says at once.
    fn page(&mut self, index: usize, number: u64, now: Instant, count: usize, full: bool) {
        self.refusals = 0;
        if count > 0 {
            self.busy_at = Some(now);
            // The end of an idle pace comes at once.
            self.paced_until = self.paced_until.min(Some(now + self.interval(now)));
        }
        if self.rings[index].alarmed {
            // Somebody has mended it, and most likely for all of the App ID's rings.
            self.try_again();
        }
        let state = &mut self.rings[index];
        state.failures = 0;
        (state.ready_at, state.asked_until) = (None, None);
        state.alarmed = false;
        if full {
            state.full_at = Some(now);
        }
        // An older request that ends late says nothing of what waits by now.
        if number > state.draining_since {
            state.draining_since = number;
            state.draining = full;
        }
    }

    /// What the results that are in their place by now say of those before them.
    fn settle(
        &mut self,
        index: usize,
        number: u64,
        started_at: Instant,
        now: Instant,
        outcome: &Outcome,
    ) -> Option<Overflow> {
        let news = match *outcome {
            Outcome::Page { count, full, span } => News::Page { count, full, span },
            Outcome::InDoubt { .. } => News::Doubt,
            Outcome::NotSent | Outcome::Refused { .. } => News::Nothing,
        };
        let state = &mut self.rings[index];
        let mut overflow = None;
        for ended in state.flights.end(number, started_at, news) {
            let (count, full, span) = match ended.news {
                News::Page { count, full, span } => (count, full, span),
                News::Doubt => {
                    state.rate.doubt();
                    state.page_end.forget();
                    continue;
                }
                News::Nothing => {
                    state.page_end.forget();
                    continue;
                }
            };
            state.full_pages = if full { state.full_pages + 1 } else { 0 };
            state.rate.page(ended.started_at, count, full);
            let lost = (state.arrivals).page(ended.started_at, count, span, state.full_pages);
            (self.second_poller).page(now, &mut state.page_end, count, full, span);
            if state.full_pages >= 2 {
                overflow.get_or_insert(0);
                overflow = overflow.map(|before: u64| before + lost);
            }
        }
        overflow.map(|estimated_lost| Overflow { estimated_lost })
    }

    /// The rings of the same stream in other regions come next, even if the pace is an idle one.
    fn seek_copies(&mut self, lost: &Ring, now: Instant) {
        let mut found = false;
        for state in &mut self.rings {
            if state.ring.stream == lost.stream && state.ring.region != lost.region {
                state.sought = true;
                found = true;
            }
        }
        if found {
            let soon = now + self.full_pace();
            self.paced_until = self.paced_until.min(Some(soon));
        }
    }

    /// Whether a ring waits for a person: Agora refuses the App ID, its credentials or the URL.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.rings.iter().any(|ring| ring.alarmed)
    }

    /// Somebody may have mended what was refused: rings that wait for that are polled as soon as there is a slot, and as the
    /// far end asked for with `Retry-After`. Those that fail again wait as long as they would have.
    pub fn try_again(&mut self) {
        for ring in self.rings.iter_mut().filter(|ring| ring.alarmed) {
            ring.ready_at = ring.asked_until;
        }
    }

    /// The usual time from start to answer, by which the pace goes.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    fn back_off(
        &mut self,
        index: usize,
        now: Instant,
        alarm: bool,
        retry_after: Option<Duration>,
    ) -> Observed {
        let failures = self.rings[index].failures;
        let backoff = if alarm {
            // Not even the first retry is quick: nobody rotates credentials within a second.
            self.backoff(failures + 2, self.options.alarm_backoff_max, retry_after)
        } else {
            self.backoff(failures, self.options.backoff_max, retry_after)
        };
        let state = &mut self.rings[index];
        state.failures = (state.failures + 1).min(MOST_DOUBLINGS);
        state.ready_at = Some(now + backoff);
        state.asked_until = retry_after.and(state.ready_at);
        state.alarmed = alarm;
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
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Poll this ring.
    Poll(Ring),
    /// Nothing before this moment, at most a second away.
    Wait(Instant),
}

/// What a schedule goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleOptions {
    /// The budget of the App ID, in requests per second; the same as the limiter's slots. Default 10.
    pub requests_per_second: usize,
    /// How many requests one ring may have in flight while it drains: with one, a round trip longer than the time between
    /// two slots leaves slots unused. At most [`MOST_IN_FLIGHT_PER_RING`]. Default 1: pages that overlap have to be put
    /// back into order by whoever publishes them.
    pub in_flight_per_ring: usize,
    /// How often each ring is polled once nothing has come for `idle_after`. Default `None`: at the full pace, since a
    /// slower one makes the first event after a quiet time older, and the budget is there anyway.
    pub idle_interval: Option<Duration>,
    /// How long every ring has to be empty before `idle_interval` applies. Default 10 s.
    pub idle_after: Duration,
    /// The first backoff of a ring after a failure. Default 250 ms.
    pub backoff_min: Duration,
    /// The longest backoff of a ring after failures that pass. Default 5 s: longer, and a ring of 2,000 runs over.
    pub backoff_max: Duration,
    /// The longest backoff where only a person can help, unless [`Schedule::try_again`] says that one did. Default 30 s.
    pub alarm_backoff_max: Duration,
    /// The longest `Retry-After` that is believed. Default 60 s.
    pub retry_after_max: Duration,
}

impl Default for ScheduleOptions {
    fn default() -> ScheduleOptions {
        ScheduleOptions {
            requests_per_second: 10,
            in_flight_per_ring: 1,
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
