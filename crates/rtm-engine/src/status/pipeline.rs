//! How the polling of one App ID goes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rtm_journal::Journal;
use rtm_sink::Seldom;
use rtm_source::{Fetch, FetchError, Page, Ring};

use super::health::RECENTLY;
use super::history::History;
use super::metrics::{Metrics, RingMetrics};
use super::room::Room;
use crate::chain;
use crate::lock::lock;
use crate::losses::{Crash, Losses};
use crate::pipeline::Pipeline;

/// How often the loss of room in the journal is said again.
const STOPPED_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Over how long a ring's arrival rate is averaged.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// One App ID's polling.
pub(crate) struct PipelineState {
    pub(super) app: String,
    pub(super) metrics: Arc<Metrics>,
    journal: Journal,
    /// The beginning of every ring's history.
    started: Instant,
    /// Whether rings that are new now come while the bridge runs.
    comes_later: AtomicBool,
    /// Those that were ever polled.
    rings: Mutex<HashMap<Ring, Arc<RingState>>>,
    /// What was told of a ring, and until when it is not told again.
    told: Mutex<HashMap<u64, Instant>>,
    is_paused: AtomicBool,
    /// Since when it is paused; none also where it was when the bridge started.
    pub(super) paused_since: Mutex<Option<Instant>>,
    pub(super) budget: Mutex<Budget>,
    pub(super) sent: AtomicU64,
    /// Requests that Agora refused.
    pub(super) refused: AtomicU64,
    /// Of these, with status 429.
    pub(super) rate_limited: AtomicU64,
    pub(super) losses: Arc<Losses>,
    pub(super) stopped: Mutex<Option<Stopped>>,
    /// When it was counted what the death of the last process may have cost, and what.
    crash: Mutex<Option<(Instant, Crash)>>,
}

/// A ring that is polled, or was.
pub(super) struct RingState {
    pub(super) metrics: Arc<RingMetrics>,
    pub(super) arrivals: Mutex<Arrivals>,
    pub(super) history: Mutex<History>,
    /// Why the last request failed, until one succeeds.
    pub(super) failure: Mutex<Option<String>>,
    /// Why the last request was not sent, and when that is said again.
    unsent: Mutex<(String, Seldom)>,
    /// Since when it is, pauses aside.
    pub(super) since: Instant,
    /// Whether it has its time to answer before the bridge is not ready for want of it: it came while the bridge ran, or had
    /// answered before.
    pub(super) has_time: bool,
    is_polled: bool,
}

/// The requests that could have been sent.
pub(super) struct Budget {
    earned: f64,
    since: Instant,
    pub(super) per_second: u32,
}

pub(super) struct Stopped {
    pub(super) since: Instant,
    counted: Instant,
    told: Seldom,
}

/// A ring's arrival rate, averaged with weights that fall with age.
pub(super) struct Arrivals {
    last: Instant,
    pub(super) per_second: f64,
}

impl PipelineState {
    /// `comes_later` says that the bridge runs already.
    pub(super) fn new<F: Fetch>(
        pipeline: &Pipeline<F>,
        metrics: Arc<Metrics>,
        journal: Journal,
        comes_later: bool,
    ) -> PipelineState {
        pipeline.account.losses.show(&pipeline.name, &metrics);
        let state = PipelineState {
            started: Instant::now(),
            comes_later: AtomicBool::new(comes_later),
            app: pipeline.name.clone(),
            metrics,
            journal,
            rings: Mutex::default(),
            told: Mutex::default(),
            is_paused: AtomicBool::new(false),
            paused_since: Mutex::new(None),
            budget: Mutex::new(Budget {
                earned: 0.0,
                since: Instant::now(),
                per_second: 0,
            }),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            rate_limited: AtomicU64::new(0),
            losses: Arc::clone(&pipeline.account.losses),
            stopped: Mutex::new(None),
            crash: Mutex::new(None),
        };
        state.renew(pipeline);
        state.comes_later.store(true, Ordering::Relaxed);
        // Before that it was nobody's, or another process's.
        *lock(&state.paused_since) = None;
        state
    }

    /// Takes over what a configuration says of the App ID: the rings, the budget, the pause.
    pub(crate) fn renew<F: Fetch>(&self, pipeline: &Pipeline<F>) {
        self.metrics
            .add_app(&self.app, pipeline.requests_per_second, pipeline.is_paused);
        let now = Instant::now();
        let mut rings = lock(&self.rings);
        let was_paused = self.is_paused.swap(pipeline.is_paused, Ordering::Relaxed);
        if was_paused != pipeline.is_paused {
            *lock(&self.paused_since) = pipeline.is_paused.then_some(now);
        }
        let polled = pipeline.source.rings();
        for (ring, state) in &mut *rings {
            if state.is_polled && !polled.contains(ring) {
                let (region, stream) = (ring.region.name(), ring.stream.as_str());
                self.metrics.forget_ring(&self.app, region, stream);
                let metrics = Arc::clone(&state.metrics);
                *state = self.ring_state(metrics, now, false, false);
            }
        }
        for ring in polled {
            let known = rings.get(ring).filter(|ring| ring.is_polled);
            if known.is_some() && !was_paused {
                continue;
            }
            let has_answered = known.is_some_and(|ring| ring.has_answered(now));
            let has_time = has_answered || self.comes_later.load(Ordering::Relaxed);
            let (region, stream) = (ring.region.name(), ring.stream.as_str());
            let metrics = Arc::new(self.metrics.ring(&self.app, region, stream));
            rings.insert(ring.clone(), self.ring_state(metrics, now, true, has_time));
        }
        let mut budget = lock(&self.budget);
        budget.earned = budget.now();
        budget.since = now;
        budget.per_second = if pipeline.is_paused {
            0
        } else {
            pipeline.requests_per_second
        };
    }

    /// A ring of which nothing is known yet.
    fn ring_state(
        &self,
        metrics: Arc<RingMetrics>,
        now: Instant,
        is_polled: bool,
        has_time: bool,
    ) -> Arc<RingState> {
        Arc::new(RingState {
            metrics,
            arrivals: Mutex::new(Arrivals {
                last: now,
                per_second: 0.0,
            }),
            history: Mutex::new(History::new(self.started)),
            failure: Mutex::new(None),
            unsent: Mutex::default(),
            since: now,
            has_time,
            is_polled,
        })
    }

    /// Every metric.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The metrics of a ring.
    pub(crate) fn ring(&self, ring: &Ring) -> Arc<RingMetrics> {
        Arc::clone(&self.state(ring).metrics)
    }

    /// Whether the configuration says that it is left alone.
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// The rings that are polled.
    pub(super) fn in_use(&self) -> Vec<(Ring, Arc<RingState>)> {
        let rings = lock(&self.rings);
        let in_use = rings.iter().filter(|(_, state)| state.is_polled);
        in_use
            .map(|(ring, state)| (ring.clone(), Arc::clone(state)))
            .collect()
    }

    fn state(&self, ring: &Ring) -> Arc<RingState> {
        Arc::clone(&lock(&self.rings)[ring])
    }

    /// Counts a request that has ended, by its outcome, one of [`super::metrics::POLL_OUTCOMES`].
    pub(crate) fn polled(&self, ring: &Ring, outcome: &str) {
        let ring = self.state(ring);
        ring.metrics.polled(outcome);
        lock(&ring.history).polled(outcome, Instant::now());
        match outcome {
            "page" | "empty" => *lock(&ring.failure) = None,
            "refused" => _ = self.refused.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Remembers why a request failed, until one succeeds.
    pub(crate) fn failed(&self, ring: &Ring, error: &FetchError) {
        if error.status == Some(429) {
            self.rate_limited.fetch_add(1, Ordering::Relaxed);
        }
        *lock(&self.state(ring).failure) = Some(failure(error));
    }

    /// Remembers for a while that events may have been lost.
    pub(crate) fn lost(&self, ring: &Ring, events: u64) {
        lock(&self.state(ring).history).lost(events, Instant::now());
    }

    /// Remembers for a while that the last process died, and what that may have cost.
    pub(crate) fn crashed(&self, crash: Crash) {
        *lock(&self.crash) = Some((Instant::now(), crash));
    }

    /// What the death of the last process may have cost, as far as that was counted recently: asked `of` it.
    pub(super) fn crash_lost_recently(&self, of: impl Fn(&Crash) -> u64) -> u64 {
        let crash = lock(&self.crash);
        let recent = crash.iter().filter(|(when, _)| when.elapsed() < RECENTLY);
        recent.map(|(_, crash)| of(crash)).sum()
    }

    /// A request was not sent. If that is to be said of the ring: how often it failed so since it was said.
    pub(crate) fn unsent(&self, ring: &Ring, error: &FetchError) -> Option<u64> {
        let state = self.state(ring);
        let (mut unsent, why) = (lock(&state.unsent), chain(error));
        if unsent.0 != why {
            *unsent = (why, Seldom::default());
        }
        unsent.1.due(1)
    }

    /// Whether `what` is to be told of a ring: at first, and again once in an `interval`.
    pub(crate) fn is_news(&self, ring: &Ring, what: impl Hash, interval: Duration) -> bool {
        let (mut told, now) = (lock(&self.told), Instant::now());
        let mut hasher = DefaultHasher::new();
        (ring, what).hash(&mut hasher);
        told.retain(|_, until| *until > now);
        let mut is_news = false;
        told.entry(hasher.finish()).or_insert_with(|| {
            is_news = true;
            now + interval
        });
        is_news
    }

    /// Counts a request.
    pub(crate) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers for a while that a ring was full, and what that may have cost.
    pub(crate) fn overflowed(&self, ring: &Ring, events: u64) {
        lock(&self.state(ring).history).overflowed(events, Instant::now());
    }

    /// Learns a ring's arrival rate from a page.
    pub(crate) fn arrived(&self, ring: &Ring, page: &Page) {
        let state = self.state(ring);
        let mut arrivals = lock(&state.arrivals);
        let gap = arrivals.last.elapsed();
        arrivals.last = Instant::now();
        let weight = (-gap.as_secs_f64() / RATE_WINDOW.as_secs_f64()).exp();
        let rate = page.events() as f64 / gap.as_secs_f64().max(0.001);
        arrivals.per_second = weight * arrivals.per_second + (1.0 - weight) * rate;
        state.metrics.arrival_rate.set(arrivals.per_second);
    }

    /// Notes that polling waits for room. True when that should be logged: at first, and then once in a while.
    pub(crate) fn polling_stopped(&self) -> bool {
        let now = Instant::now();
        let mut stopped = lock(&self.stopped);
        let stopped = stopped.get_or_insert(Stopped {
            since: now,
            counted: now,
            told: Seldom::default(),
        });
        self.metrics
            .polling_stopped(&self.app, true, now - stopped.counted);
        stopped.counted = now;
        stopped.told.due_every(STOPPED_LOG_INTERVAL, 1).is_some()
    }

    /// Why the journal has no room.
    pub(crate) fn why_full(&self) -> String {
        Room::of(&self.journal.stats()).why_full()
    }

    /// Notes that polling has room.
    pub(crate) fn polling_resumed(&self) {
        if let Some(stopped) = lock(&self.stopped).take() {
            self.metrics
                .polling_stopped(&self.app, false, stopped.counted.elapsed());
        }
    }

    /// Whether polling waits for room.
    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.stopped).is_some()
    }

    /// Requests that the budget allowed so far and that were not sent.
    pub(super) fn unused(&self) -> u64 {
        let allowed = lock(&self.budget).now() as u64;
        allowed.saturating_sub(self.sent.load(Ordering::Relaxed))
    }

    pub(super) fn collect(&self) {
        self.metrics.requests_unused(&self.app, self.unused());
        for (_, ring) in self.in_use() {
            let rate = lock(&ring.arrivals).now();
            ring.metrics.arrival_rate.set(rate);
        }
    }
}

impl RingState {
    /// Whether a poll has ever succeeded since the region was configured, or need not have.
    fn has_answered(&self, now: Instant) -> bool {
        self.has_time || lock(&self.history).age(now).is_some()
    }
}

impl Arrivals {
    /// A ring that has given nothing for a while has that rate, whatever it gave before.
    pub(super) fn now(&self) -> f64 {
        let silence = self.last.elapsed().as_secs_f64() / RATE_WINDOW.as_secs_f64();
        self.per_second * (-silence).exp()
    }
}

impl Budget {
    fn now(&self) -> f64 {
        self.earned + self.since.elapsed().as_secs_f64() * f64::from(self.per_second)
    }
}

/// A failed request in words, for whoever looks at readiness or at the page.
fn failure(error: &FetchError) -> String {
    let Some(status) = error.status.filter(|status| !(200..300).contains(status)) else {
        return chain(error);
    };
    let said = match &*error.message {
        "" => String::new(),
        message => format!(": {message}"),
    };
    let reason = error.reason;
    format!("Agora answers {status} ({reason}){said}")
}
