//! How one App ID's way into one sink goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rtm_sink::Seldom;
use tracing::{error, info, warn};

use super::health::{Delivery, RECENTLY, Trouble};
use super::metrics::{Metrics, SinkMetrics};
use crate::lock::lock;

/// How often a sink that is down is logged again.
const DOWN_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// One App ID's way into one sink.
pub(crate) struct SinkState {
    /// What the App ID is called.
    app: Mutex<String>,
    sink: String,
    metrics: Arc<Metrics>,
    progress: Mutex<Progress>,
    down: AtomicBool,
}

#[derive(Default)]
struct Progress {
    /// Since when a batch waits with nothing confirmed.
    waiting_since: Option<Instant>,
    /// Why it is not done: the last word, of the attempt that failed last or of the client while an attempt takes long.
    trouble: Option<Trouble>,
    /// When something was last confirmed.
    confirmed: Option<Instant>,
    /// When events were last given up, and how many ever since the start.
    skipped: Option<(Instant, u64)>,
    told: Seldom,
}

impl SinkState {
    pub(super) fn new(app: &str, sink: &str, metrics: Arc<Metrics>) -> SinkState {
        metrics.add_pair(app, sink);
        SinkState {
            app: Mutex::new(app.to_owned()),
            sink: sink.to_owned(),
            metrics,
            progress: Mutex::default(),
            down: AtomicBool::new(false),
        }
    }

    /// What the App ID is called.
    pub(super) fn app(&self) -> String {
        lock(&self.app).clone()
    }

    /// The App ID is called so from now on.
    pub(super) fn rename(&self, app: &str) {
        app.clone_into(&mut lock(&self.app));
        self.metrics.add_pair(app, &self.sink);
    }

    /// The metrics of this way, by the name that the App ID has now.
    pub(crate) fn metrics(&self) -> SinkMetrics {
        self.metrics.sink(&self.app(), &self.sink)
    }

    /// Counts an entry that could not be read back.
    pub(crate) fn damaged(&self) {
        self.metrics.journal_damaged();
    }

    /// Whether waiting for the batch at the end of the outlet is of no use.
    pub(crate) fn is_stuck(&self, is_client_up: bool) -> bool {
        self.delivery().is_stuck(is_client_up)
    }

    /// Notes that a batch waits for its confirmation.
    pub(crate) fn publishing(&self) {
        lock(&self.progress)
            .waiting_since
            .get_or_insert_with(Instant::now);
    }

    /// Notes that the batch is done.
    pub(crate) fn published(&self) {
        let mut progress = lock(&self.progress);
        progress.waiting_since = None;
        progress.trouble = None;
        progress.told = Seldom::default();
        drop(progress);
        if self.down.swap(false, Ordering::Relaxed) {
            info!("the sink takes records again");
        }
    }

    /// Notes that something was confirmed.
    pub(crate) fn confirmed(&self) {
        let mut progress = lock(&self.progress);
        let now = Instant::now();
        progress.confirmed = Some(now);
        if progress.waiting_since.is_some() {
            progress.waiting_since = Some(now);
        }
    }

    /// Notes and logs that events were given up, so that polling can go on.
    pub(crate) fn skipped(&self, events: u64) {
        let mut progress = lock(&self.progress);
        let before = progress.skipped.map_or(0, |(_, before)| before);
        progress.skipped = Some((Instant::now(), before + events));
        drop(progress);
        if self.log_is_due() {
            error!(
                events,
                "the journal is full: the oldest events are skipped for this sink, as when_full = \"skip\" says"
            );
        }
    }

    /// Notes and logs that the broker is away.
    pub(crate) fn unavailable(&self, error: &str, pause: Duration) {
        self.down.store(true, Ordering::Relaxed);
        lock(&self.progress).trouble = Some(Trouble::Failed(error.to_owned()));
        if self.log_is_due() {
            warn!(error, retry_in = ?pause, "the sink is unavailable; its records wait in the journal");
        }
    }

    /// Notes and logs that a call has brought nothing for long; `said` is what the client knows of it, which is newer than
    /// how the last attempt ended.
    pub(crate) fn silent(&self, said: Option<&str>) {
        self.down.store(true, Ordering::Relaxed);
        if let Some(said) = said {
            lock(&self.progress).trouble = Some(Trouble::Failed(said.to_owned()));
        }
        if self.log_is_due() {
            warn!(
                error = said,
                "a batch waits for its confirmation for 10 s or longer; what follows waits in the journal"
            );
        }
    }

    /// Notes and logs that the broker refuses us.
    pub(crate) fn held(&self, error: &str, pause: Duration) {
        self.down.store(true, Ordering::Relaxed);
        lock(&self.progress).trouble = Some(Trouble::Held(error.to_owned()));
        if self.log_is_due() {
            error!(error, retry_in = ?pause, "the sink refuses records until someone changes something; they wait in the journal");
        }
    }

    fn log_is_due(&self) -> bool {
        let mut progress = lock(&self.progress);
        progress.told.due_every(DOWN_LOG_INTERVAL, 1).is_some()
    }

    /// How the batch fares.
    pub(super) fn delivery(&self) -> Delivery {
        let progress = lock(&self.progress);
        Delivery {
            waiting: progress.waiting_since.map(|since| since.elapsed()),
            trouble: progress.trouble.clone(),
        }
    }

    /// How long ago something was last confirmed.
    pub(super) fn confirmed_ago(&self) -> Option<Duration> {
        lock(&self.progress).confirmed.map(|last| last.elapsed())
    }

    /// The events that were ever given up since the start, if any were recently.
    pub(super) fn skipped_recently(&self) -> u64 {
        let is_recent = |(last, _): &(Instant, u64)| last.elapsed() < RECENTLY;
        let skipped = lock(&self.progress).skipped.filter(is_recent);
        skipped.map_or(0, |(_, events)| events)
    }
}
