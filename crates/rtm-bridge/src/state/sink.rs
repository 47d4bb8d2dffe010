//! How one App ID's way into one sink goes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::lock;

/// A batch that has waited this long with nothing confirmed says that the sink is down.
const CONFIRMATION_AGE: Duration = Duration::from_secs(10);

/// A batch that has waited this long for a sink that is down is not waited for at the end.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// How often a sink that is down is logged again.
const DOWN_LOG_INTERVAL: Duration = Duration::from_secs(30);

/// One App ID's way into one sink.
pub struct SinkState {
    pub(super) sink: String,
    pub(super) progress: Mutex<Progress>,
    down: AtomicBool,
}

#[derive(Default)]
pub(super) struct Progress {
    /// Since when a batch waits with nothing confirmed.
    pub(super) waiting_since: Option<Instant>,
    /// What the broker said when it refused us.
    pub(super) held: Option<String>,
    /// Why the last attempt failed, while the batch is not done.
    pub(super) error: Option<String>,
    /// When events were last given up, and how many ever since the start.
    pub(super) skipped: Option<(Instant, u64)>,
    logged: Option<Instant>,
}

impl SinkState {
    pub(super) fn new(sink: &str) -> SinkState {
        SinkState {
            sink: sink.to_owned(),
            progress: Mutex::default(),
            down: AtomicBool::new(false),
        }
    }

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
    pub(super) fn is_stuck(&self, is_client_up: bool) -> bool {
        let progress = lock(&self.progress);
        let fails = !is_client_up || progress.error.is_some() || progress.held.is_some();
        fails && (progress.waiting_since).is_some_and(|since| since.elapsed() >= STUCK_AFTER)
    }

    pub(super) fn why_down(&self) -> Option<String> {
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
