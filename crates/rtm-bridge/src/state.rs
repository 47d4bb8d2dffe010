//! What the bridge is doing now: for readiness, for the metrics that are gauges, for the status page and the demo's view.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rtm_journal::Journal;
use rtm_source::{Fetch, FetchError, Page, Ring};
use serde::Serialize;
use tracing::{error, info, warn};

use crate::assemble::Assembled;
use crate::bridge::{Pipeline, Running};
use crate::client::Client;
use crate::lock;
use crate::losses::Losses;
use crate::metrics::{Metrics, RingMetrics};
use crate::order::Departures;

mod history;
mod report;
mod settings;
mod words;

use history::History;
pub use report::{Report, Starting};
pub use settings::Settings;

/// A ring that has not answered for this long is not being polled: three times the longest backoff of a passing fault.
const POLL_AGE: Duration = Duration::from_secs(30);

/// A batch that has waited this long with nothing confirmed says that the sink is down.
const CONFIRMATION_AGE: Duration = Duration::from_secs(10);

/// A batch that has waited this long for a sink that is down is not waited for at the end.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// Over how long a ring's arrival rate is averaged.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// How often a sink that is down is logged again.
const DOWN_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// The state of the whole bridge.
pub struct State {
    /// The journal.
    pub journal: Journal,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// See [`crate::outlet::Outlet::suspicion`].
    pub suspicion: Arc<tokio::sync::Mutex<()>>,
    pipelines: HashMap<String, Arc<PipelineState>>,
    sinks: Mutex<HashMap<(String, String), Arc<SinkState>>>,
    clients: Vec<Client>,
    app_of: HashMap<String, String>,
    started: Instant,
    stopping: AtomicBool,
    /// The configuration that runs.
    running: Running,
}

/// One App ID's polling.
pub struct PipelineState {
    app: String,
    metrics: Arc<Metrics>,
    /// The beginning of every ring's history.
    started: Instant,
    /// Those that were ever polled.
    rings: Mutex<HashMap<Ring, Arc<RingState>>>,
    is_paused: AtomicBool,
    /// Since when it is paused; none also where it was when the bridge started.
    paused_since: Mutex<Option<Instant>>,
    budget: Mutex<Budget>,
    sent: AtomicU64,
    departures: Arc<Departures>,
    losses: Arc<Losses>,
    stopped: Mutex<Option<Stopped>>,
}

/// A ring that is polled, or was.
struct RingState {
    metrics: Arc<RingMetrics>,
    arrivals: Mutex<Arrivals>,
    history: Mutex<History>,
    /// Why the last request failed, until one succeeds.
    failure: Mutex<Option<String>>,
    /// Since when it is.
    since: Instant,
    is_polled: bool,
}

/// The requests that could have been sent.
struct Budget {
    earned: f64,
    since: Instant,
    per_second: u32,
}

struct Stopped {
    since: Instant,
    counted: Instant,
    logged: Option<Instant>,
}

/// A ring's arrival rate, averaged with weights that fall with age.
struct Arrivals {
    last: Instant,
    per_second: f64,
}

/// One App ID's way into one sink.
pub struct SinkState {
    sink: String,
    progress: Mutex<Progress>,
    down: AtomicBool,
}

#[derive(Default)]
struct Progress {
    /// Since when a batch waits with nothing confirmed.
    waiting_since: Option<Instant>,
    /// What the broker said when it refused us.
    held: Option<String>,
    /// Why the last attempt failed, while the batch is not done.
    error: Option<String>,
    /// When events were last given up, and how many ever since the start.
    skipped: Option<(Instant, u64)>,
    logged: Option<Instant>,
}

/// A reason not to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// The app; empty where it is all of them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// The sink, if it is one that is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl State {
    /// The state of a bridge that is about to run.
    #[must_use]
    pub fn new<F: Fetch>(
        running: Running,
        assembled: &Assembled<F>,
        metrics: Arc<Metrics>,
    ) -> State {
        let states = assembled.pipelines.iter().map(|pipeline| {
            let state = PipelineState::new(pipeline);
            (pipeline.config.name.clone(), Arc::new(state))
        });
        // Which apps there are does not change while the process runs.
        let config = Arc::clone(&running.borrow());
        State {
            journal: assembled.journal.clone(),
            metrics,
            suspicion: Arc::default(),
            pipelines: states.collect(),
            sinks: Mutex::default(),
            clients: assembled.clients.clone(),
            app_of: config
                .apps
                .iter()
                .map(|app| (app.app_id.clone(), app.name.clone()))
                .collect(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            running,
        }
    }

    /// The state of an app's polling.
    #[must_use]
    pub fn pipeline(&self, app: &str) -> Arc<PipelineState> {
        Arc::clone(&self.pipelines[app])
    }

    /// An app's requests in flight; none for one that is not polled.
    #[must_use]
    pub fn departures(&self, app: &str) -> Option<Arc<Departures>> {
        let pipeline = self.pipelines.get(app)?;
        Some(Arc::clone(&pipeline.departures))
    }

    /// The state of an app's way into a sink.
    #[must_use]
    pub fn sink(&self, app: &str, sink: &str) -> Arc<SinkState> {
        let mut sinks = lock(&self.sinks);
        let state = sinks
            .entry((app.to_owned(), sink.to_owned()))
            .or_insert_with(|| {
                Arc::new(SinkState {
                    sink: sink.to_owned(),
                    progress: Mutex::default(),
                    down: AtomicBool::new(false),
                })
            });
        Arc::clone(state)
    }

    /// The text for Prometheus, with every gauge set from the state of this moment.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        self.metrics.set_journal(&self.journal.stats(), |app_id| {
            self.app_of.get(app_id).cloned()
        });
        for pipeline in self.pipelines.values() {
            pipeline.collect();
        }
        for client in &self.clients {
            let said = client.health();
            self.metrics.set_client(client.name(), &said);
            self.metrics
                .set_sink_up(client.name(), said.up && self.is_up(client.name()));
        }
        self.metrics.render()
    }

    /// Whether a sink takes records, as far as every App ID can tell.
    #[must_use]
    pub fn is_up(&self, sink: &str) -> bool {
        let down = |state: &SinkState| state.sink == sink && state.why_down().is_some();
        !lock(&self.sinks).values().any(|state| down(state))
    }

    /// Notes that no further request is sent: the bridge is about to end.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the bridge is about to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether every way of an app into a sink has ended, as `has_ended` says, or is stuck; and at least one is.
    pub fn only_stuck(&self, has_ended: impl Fn(&(String, String)) -> bool) -> bool {
        let ups: BTreeMap<&str, bool> = self
            .clients
            .iter()
            .map(|client| (client.name(), client.health().up))
            .collect();
        let sinks = lock(&self.sinks);
        let mut left = sinks.iter().filter(|(way, _)| !has_ended(way)).peekable();
        left.peek().is_some()
            && left.all(|((_, sink), state)| {
                state.is_stuck(ups.get(sink.as_str()).copied().unwrap_or(true))
            })
    }

    /// What goes on, in one line.
    #[must_use]
    pub fn status_line(&self) -> String {
        let polled = self.pipelines.values().filter(|app| !app.is_paused());
        let rings: usize = polled.map(|app| app.in_use().len()).sum();
        let stats = self.journal.stats();
        let readers = stats.lanes.iter().flat_map(|lane| &lane.readers);
        let pending: u64 = readers
            .filter(|reader| !reader.name.as_str().ends_with(crate::assemble::BEHIND))
            .map(|reader| reader.pending_count)
            .sum();
        let sinks = self.clients.iter().map(|client| {
            let up = client.health().up && self.is_up(client.name());
            format!("{} {}", client.name(), if up { "up" } else { "down" })
        });
        let sinks: Vec<String> = sinks.collect();
        let polling = if self.is_stopping() {
            "stopping".to_owned()
        } else {
            format!("polling {rings} rings")
        };
        let sinks = sinks.join(", ");
        format!("{polling}; {pending} events pending; {sinks}")
    }

    /// Why data does not flow; empty when it does.
    #[must_use]
    pub fn not_ready(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        if self.is_stopping() {
            reasons.push(NotReady {
                app: String::new(),
                sink: None,
                reason: "the bridge is stopping: it sends no further request".to_owned(),
            });
        }
        if self.journal.stats().failing {
            reasons.push(NotReady {
                app: String::new(),
                sink: None,
                reason: "the journal cannot be written".to_owned(),
            });
        }
        for pipeline in self.pipelines.values() {
            for reason in pipeline.not_ready() {
                reasons.push(NotReady {
                    app: pipeline.app.clone(),
                    sink: None,
                    reason,
                });
            }
        }
        let said = |sink: &str| {
            let client = self.clients.iter().find(|client| client.name() == sink);
            client.and_then(|client| client.health().said)
        };
        for ((app, sink), state) in lock(&self.sinks).iter() {
            if let Some(mut reason) = state.why_down() {
                if let Some(said) = said(sink) {
                    reason = format!("{reason}: {said}");
                }
                reasons.push(NotReady {
                    app: app.clone(),
                    sink: Some(sink.clone()),
                    reason,
                });
            }
        }
        reasons.sort_by(|a, b| (&a.app, &a.sink, &a.reason).cmp(&(&b.app, &b.sink, &b.reason)));
        reasons
    }

    /// The apps that the configuration leaves alone.
    #[must_use]
    pub fn paused(&self) -> Vec<String> {
        let paused = self.pipelines.values().filter(|app| app.is_paused());
        let mut names: Vec<String> = paused.map(|app| app.app.clone()).collect();
        names.sort();
        names
    }

    /// Requests sent and rings' arrival rates, for a live view.
    #[must_use]
    pub fn polling(&self) -> Vec<(String, u64, f64)> {
        let of = |pipeline: &Arc<PipelineState>| {
            let polled = pipeline.in_use().into_iter();
            let rate = polled
                .map(|(_, ring)| lock(&ring.arrivals).per_second)
                .sum();
            (
                pipeline.app.clone(),
                pipeline.sent.load(Ordering::Relaxed),
                rate,
            )
        };
        self.pipelines.values().map(of).collect()
    }
}

impl PipelineState {
    fn new<F: Fetch>(pipeline: &Pipeline<F>) -> PipelineState {
        let state = PipelineState {
            started: Instant::now(),
            app: pipeline.config.name.clone(),
            metrics: Arc::clone(&pipeline.metrics),
            rings: Mutex::default(),
            is_paused: AtomicBool::new(false),
            paused_since: Mutex::new(None),
            budget: Mutex::new(Budget {
                earned: 0.0,
                since: Instant::now(),
                per_second: 0,
            }),
            sent: AtomicU64::new(0),
            departures: Arc::clone(&pipeline.departures),
            losses: Arc::clone(&pipeline.losses),
            stopped: Mutex::new(None),
        };
        state.renew(pipeline);
        // Before that it was nobody's, or another process's.
        *lock(&state.paused_since) = None;
        state
    }

    /// Takes over what a configuration says of the App ID: the rings, the budget, the pause.
    pub fn renew<F: Fetch>(&self, pipeline: &Pipeline<F>) {
        let now = Instant::now();
        let mut rings = lock(&self.rings);
        let was_paused = self
            .is_paused
            .swap(pipeline.config.paused, Ordering::Relaxed);
        if was_paused != pipeline.config.paused {
            *lock(&self.paused_since) = pipeline.config.paused.then_some(now);
        }
        let polled = pipeline.source.rings();
        for (ring, state) in &mut *rings {
            if state.is_polled && !polled.contains(ring) {
                let (region, stream) = (ring.region.name(), ring.stream.as_str());
                self.metrics.forget_ring(&self.app, region, stream);
                let metrics = Arc::clone(&state.metrics);
                *state = self.ring_state(metrics, now, false);
            }
        }
        for ring in polled {
            let known = rings.get(ring).is_some_and(|ring| ring.is_polled);
            if known && !was_paused {
                continue;
            }
            let (region, stream) = (ring.region.name(), ring.stream.as_str());
            let metrics = Arc::new(self.metrics.ring(&self.app, region, stream));
            rings.insert(ring.clone(), self.ring_state(metrics, now, true));
        }
        let mut budget = lock(&self.budget);
        budget.earned = budget.now();
        budget.since = now;
        budget.per_second = if pipeline.config.paused {
            0
        } else {
            pipeline.config.requests_per_second
        };
    }

    /// A ring of which nothing is known yet.
    fn ring_state(
        &self,
        metrics: Arc<RingMetrics>,
        now: Instant,
        is_polled: bool,
    ) -> Arc<RingState> {
        Arc::new(RingState {
            metrics,
            arrivals: Mutex::new(Arrivals {
                last: now,
                per_second: 0.0,
            }),
            history: Mutex::new(History::new(self.started)),
            failure: Mutex::new(None),
            since: now,
            is_polled,
        })
    }

    /// The metrics of a ring.
    #[must_use]
    pub fn ring(&self, ring: &Ring) -> Arc<RingMetrics> {
        Arc::clone(&self.state(ring).metrics)
    }

    /// Whether the configuration says that it is left alone.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    /// The rings that are polled.
    fn in_use(&self) -> Vec<(Ring, Arc<RingState>)> {
        let rings = lock(&self.rings);
        let in_use = rings.iter().filter(|(_, state)| state.is_polled);
        in_use
            .map(|(ring, state)| (ring.clone(), Arc::clone(state)))
            .collect()
    }

    fn state(&self, ring: &Ring) -> Arc<RingState> {
        Arc::clone(&lock(&self.rings)[ring])
    }

    /// Counts a request that has ended, by its outcome, one of [`crate::metrics::POLL_OUTCOMES`].
    pub fn polled(&self, ring: &Ring, outcome: &str) {
        let ring = self.state(ring);
        ring.metrics.polled(outcome);
        lock(&ring.history).polled(outcome, Instant::now());
        if matches!(outcome, "page" | "empty") {
            *lock(&ring.failure) = None;
        }
    }

    /// Remembers why a request failed, until one succeeds.
    pub fn failed(&self, ring: &Ring, error: &FetchError) {
        *lock(&self.state(ring).failure) = Some(words::failure(error));
    }

    /// Remembers for a while that events may have been lost.
    pub fn lost(&self, ring: &Ring, events: u64) {
        lock(&self.state(ring).history).lost(events, Instant::now());
    }

    /// Counts a request.
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Remembers for a while that a ring was full, and what that may have cost.
    pub fn overflowed(&self, ring: &Ring, events: u64) {
        lock(&self.state(ring).history).overflowed(events, Instant::now());
    }

    /// Learns a ring's arrival rate from a page.
    pub fn arrived(&self, ring: &Ring, page: &Page) {
        let state = self.state(ring);
        let mut arrivals = lock(&state.arrivals);
        let gap = arrivals.last.elapsed();
        arrivals.last = Instant::now();
        let weight = (-gap.as_secs_f64() / RATE_WINDOW.as_secs_f64()).exp();
        let rate = page.count as f64 / gap.as_secs_f64().max(0.001);
        arrivals.per_second = weight * arrivals.per_second + (1.0 - weight) * rate;
        state.metrics.arrival_rate.set(arrivals.per_second);
    }

    /// Notes that polling waits for room. True when that should be logged: at first, and then once in a while.
    pub fn polling_stopped(&self, log_interval: Duration) -> bool {
        let now = Instant::now();
        let mut stopped = lock(&self.stopped);
        let stopped = stopped.get_or_insert(Stopped {
            since: now,
            counted: now,
            logged: None,
        });
        self.metrics
            .polling_stopped(&self.app, true, now - stopped.counted);
        stopped.counted = now;
        let due = stopped
            .logged
            .is_none_or(|logged| now - logged >= log_interval);
        if due {
            stopped.logged = Some(now);
        }
        due
    }

    /// Notes that polling has room.
    pub fn polling_resumed(&self) {
        if let Some(stopped) = lock(&self.stopped).take() {
            self.metrics
                .polling_stopped(&self.app, false, stopped.counted.elapsed());
        }
    }

    /// Whether polling waits for room.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        lock(&self.stopped).is_some()
    }

    fn collect(&self) {
        let unused =
            (lock(&self.budget).now() as u64).saturating_sub(self.sent.load(Ordering::Relaxed));
        self.metrics.requests_unused(&self.app, unused);
        for (_, ring) in self.in_use() {
            let rate = lock(&ring.arrivals).now();
            ring.metrics.arrival_rate.set(rate);
        }
    }

    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_paused() {
            return reasons;
        }
        if let Some(stopped) = &*lock(&self.stopped) {
            let since = stopped.since.elapsed().as_secs();
            reasons.push(format!(
                "polling has waited {since} s for room in the journal"
            ));
        }
        for (ring, state) in self.in_use() {
            let metrics = &state.metrics;
            let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
            let age = (now - metrics.last_success()).min(state.since.elapsed().as_secs_f64());
            let what = if age > POLL_AGE.as_secs_f64() {
                format!("no successful poll for {age:.0} s")
            } else if metrics.last_success() == 0.0 {
                "not polled yet".to_owned()
            } else {
                continue;
            };
            let why = lock(&state.failure).as_ref().map(|why| format!(": {why}"));
            let why = why.filter(|_| !rtm_planted::bug("bridge-not-ready-without-why"));
            let (region, stream) = (ring.region.name(), ring.stream.as_str());
            reasons.push(format!(
                "{region} {stream}: {what}{}",
                why.unwrap_or_default()
            ));
        }
        reasons
    }
}

impl Arrivals {
    /// A ring that has given nothing for a while has that rate, whatever it gave before.
    fn now(&self) -> f64 {
        let silence = self.last.elapsed().as_secs_f64() / RATE_WINDOW.as_secs_f64();
        self.per_second * (-silence).exp()
    }
}

impl Budget {
    fn now(&self) -> f64 {
        self.earned + self.since.elapsed().as_secs_f64() * f64::from(self.per_second)
    }
}

impl SinkState {
    /// Notes that a batch waits for its confirmation.
    pub fn publishing(&self) {
        lock(&self.progress)
            .waiting_since
            .get_or_insert_with(Instant::now);
    }

    /// Notes that the batch is done.
    pub fn published(&self) {
        let mut progress = lock(&self.progress);
        progress.waiting_since = None;
        progress.held = None;
        progress.error = None;
        progress.logged = None;
        drop(progress);
        if self.down.swap(false, Ordering::Relaxed) {
            info!(sink = self.sink, "the sink takes records again");
        }
    }

    /// Notes that something was confirmed.
    pub fn confirmed(&self) {
        let mut progress = lock(&self.progress);
        if progress.waiting_since.is_some() {
            progress.waiting_since = Some(Instant::now());
        }
    }

    /// Notes and logs that events were given up, so that polling can go on.
    pub fn skipped(&self, events: u64) {
        let mut progress = lock(&self.progress);
        let before = progress.skipped.map_or(0, |(_, before)| before);
        progress.skipped = Some((Instant::now(), before + events));
        drop(progress);
        if self.log_is_due() {
            error!(
                sink = self.sink,
                events,
                "the journal is full: the oldest events are skipped for this sink, as when_full = \"skip\" says"
            );
        }
    }

    /// Notes and logs that the broker is away.
    pub fn unavailable(&self, error: &str, pause: Duration) {
        self.down.store(true, Ordering::Relaxed);
        lock(&self.progress).error = Some(error.to_owned());
        if self.log_is_due() {
            warn!(sink = self.sink, error, retry_in = ?pause, "the sink is unavailable; its records wait in the journal");
        }
    }

    /// Notes and logs that a call has brought nothing for long; `said` is what the client knows of it.
    pub fn silent(&self, said: Option<&str>) {
        self.down.store(true, Ordering::Relaxed);
        if self.log_is_due() {
            warn!(
                sink = self.sink,
                error = said,
                "a batch waits for its confirmation for 10 s or longer; what follows waits in the journal"
            );
        }
    }

    /// Notes and logs that the broker refuses us.
    pub fn held(&self, error: &str, pause: Duration) {
        self.down.store(true, Ordering::Relaxed);
        lock(&self.progress).held = Some(error.to_owned());
        if self.log_is_due() {
            error!(sink = self.sink, error, retry_in = ?pause, "the sink refuses records until someone changes something; they wait in the journal");
        }
    }

    fn log_is_due(&self) -> bool {
        let mut progress = lock(&self.progress);
        let due = progress
            .logged
            .is_none_or(|logged| logged.elapsed() >= DOWN_LOG_INTERVAL);
        if due {
            progress.logged = Some(Instant::now());
        }
        due
    }

    /// Whether a batch waits for a broker that is known to take nothing.
    fn is_stuck(&self, is_client_up: bool) -> bool {
        let progress = lock(&self.progress);
        let fails = !is_client_up || progress.error.is_some() || progress.held.is_some();
        fails && (progress.waiting_since).is_some_and(|since| since.elapsed() >= STUCK_AFTER)
    }

    fn why_down(&self) -> Option<String> {
        let progress = lock(&self.progress);
        if let Some(held) = &progress.held {
            return Some(format!("held: {held}"));
        }
        let waiting = progress.waiting_since?.elapsed();
        let error = progress.error.as_ref().map(|error| format!(": {error}"));
        (waiting > CONFIRMATION_AGE).then(|| {
            format!(
                "a batch has waited {} s for its confirmation{}",
                waiting.as_secs(),
                error.unwrap_or_default()
            )
        })
    }
}
