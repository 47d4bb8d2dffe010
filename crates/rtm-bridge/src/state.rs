//! What the bridge is doing now: for readiness, for the metrics that are gauges, for the status page and the demo's view.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rtm_journal::Journal;
use rtm_source::Fetch;
use serde::Serialize;

use crate::assemble::Assembled;
use crate::client::Client;
use crate::lock;
use crate::metrics::Metrics;
use crate::order::Departures;

mod history;
mod pipeline;
mod report;
mod sink;
mod words;

pub use pipeline::PipelineState;
pub use report::{Report, Starting};
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

    /// The text for Prometheus, with every gauge set from the state of this moment.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        self.metrics.set_journal(&self.journal.stats(), |app_id| {
            let app = self.app_of.get(app_id)?;
            self.pipelines.contains_key(app).then(|| app.clone())
        });
        for pipeline in self.pipelines.values() {
            pipeline.collect();
        }
        for client in &self.clients {
            let said = client.state();
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
            .map(|client| (client.name(), client.state().up))
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
            let up = client.state().up && self.is_up(client.name());
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
            client.and_then(|client| client.state().said)
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
