//! What the bridge is doing now: for readiness, for the metrics that are gauges, for the status page and the demo's view.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rtm_journal::Journal;
use rtm_source::Fetch;

use crate::assemble::Assembled;
use crate::client::Client;
use crate::lock;
use crate::metrics::Metrics;
use crate::order::Departures;

pub mod health;
mod history;
mod pipeline;
pub mod report;
mod sink;
pub mod snapshot;
pub mod words;

pub use pipeline::PipelineState;
pub use sink::SinkState;

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
    /// Names of App IDs by the names of their lanes; also of those that left the configuration.
    app_of: HashMap<String, String>,
    started: Instant,
    stopping: AtomicBool,
}

impl State {
    /// The state of a bridge that is about to run.
    #[must_use]
    pub fn new<F: Fetch>(assembled: &Assembled<F>, metrics: Arc<Metrics>) -> State {
        let states = assembled.pipelines.iter().map(|pipeline| {
            let state = PipelineState::new(pipeline);
            (pipeline.config.name.clone(), Arc::new(state))
        });
        let app_of = assembled.lanes();
        let app_of = app_of.map(|(app, lane)| (lane.name().to_string(), app.to_owned()));
        State {
            journal: assembled.journal.clone(),
            metrics,
            suspicion: Arc::default(),
            pipelines: states.collect(),
            sinks: Mutex::default(),
            clients: assembled.clients.clone(),
            app_of: app_of.collect(),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
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
            .or_insert_with(|| Arc::new(SinkState::new(sink)));
        Arc::clone(state)
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
                let is_up = ups.get(sink.as_str()).copied().unwrap_or(true);
                state.delivery().is_stuck(is_up)
            })
    }
}
