//! What runs, by key, and what each part tells of itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rtm_journal::Journal;
use rtm_sink::ProgressKey;
use rtm_source::Fetch;

use super::metrics::Metrics;
use super::pipeline::PipelineState;
use super::sink::SinkState;
use crate::exact::Past;
use crate::lock::lock;
use crate::pipeline::Pipeline;
use crate::sink::RunningSink;

/// What is published, or has something to finish.
#[derive(Default)]
pub(crate) struct Planned {
    /// App IDs, each with a sink that is given its events.
    pub(crate) pairs: BTreeSet<(String, String)>,
    /// The names of App IDs, of those too that have left the plan.
    pub(crate) names: BTreeMap<String, String>,
}

impl Planned {
    pub(super) fn has(&self, app_id: &str, sink: &str) -> bool {
        self.pairs.contains(&(app_id.to_owned(), sink.to_owned()))
    }

    /// The App ID itself is shown nowhere.
    pub(super) fn name_of(&self, app_id: &str) -> &str {
        self.names.get(app_id).map_or("APP_ID", String::as_str)
    }
}

/// The state of the whole bridge. What comes and goes with a plan comes and goes here, with its series.
pub struct State {
    /// The journal.
    pub journal: Journal,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// By App ID.
    pipelines: Mutex<BTreeMap<String, Arc<PipelineState>>>,
    /// By App ID and sink.
    routes: Mutex<HashMap<(String, String), Arc<SinkState>>>,
    /// As they are configured.
    sinks: Mutex<Vec<RunningSink>>,
    planned: Mutex<Arc<Planned>>,
    /// What this process has published once and only once.
    pasts: Mutex<HashMap<ProgressKey, Arc<Mutex<Past>>>>,
    /// Held while gauges are set from what was read before: two scrapes would count one step twice, and what has gone would
    /// come back.
    pub(super) scrape: Mutex<()>,
    pub(super) started: Instant,
    /// Whether the first plan runs.
    has_begun: AtomicBool,
    stopping: AtomicBool,
}

impl State {
    /// The state of a bridge in which nothing runs yet.
    pub(crate) fn new(journal: Journal, metrics: Arc<Metrics>) -> State {
        State {
            journal,
            metrics,
            pipelines: Mutex::default(),
            routes: Mutex::default(),
            sinks: Mutex::default(),
            planned: Mutex::default(),
            pasts: Mutex::default(),
            scrape: Mutex::default(),
            started: Instant::now(),
            has_begun: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// An App ID is polled from now on.
    pub(crate) fn add_app<F: Fetch>(&self, pipeline: &Pipeline<F>) -> Arc<PipelineState> {
        let state = Arc::new(PipelineState::new(
            pipeline,
            Arc::clone(&self.metrics),
            self.journal.clone(),
            self.has_begun.load(Ordering::Relaxed),
        ));
        lock(&self.pipelines).insert(pipeline.app_id.clone(), Arc::clone(&state));
        state
    }

    /// An App ID is polled no more, and no request of it is in flight.
    pub(crate) fn remove_app(&self, app_id: &str) {
        let _no_scrape = lock(&self.scrape);
        if let Some(state) = lock(&self.pipelines).remove(app_id) {
            self.metrics.remove_app(&state.app);
        }
    }

    /// An App ID's polling, if it is polled.
    pub(crate) fn pipeline(&self, app_id: &str) -> Option<Arc<PipelineState>> {
        lock(&self.pipelines).get(app_id).map(Arc::clone)
    }

    /// All that are polled, by App ID.
    pub(super) fn pipelines(&self) -> Vec<(String, Arc<PipelineState>)> {
        let pipelines = lock(&self.pipelines);
        let all = pipelines.iter();
        all.map(|(app_id, state)| (app_id.clone(), Arc::clone(state)))
            .collect()
    }

    /// An App ID is published to a sink from now on. `app` is what it is called.
    pub(crate) fn add_route(&self, app_id: &str, sink: &str, app: &str) -> Arc<SinkState> {
        let state = Arc::new(SinkState::new(app, sink, Arc::clone(&self.metrics)));
        let route = (app_id.to_owned(), sink.to_owned());
        lock(&self.routes).insert(route, Arc::clone(&state));
        state
    }

    /// An App ID is published to a sink no more.
    pub(crate) fn remove_route(&self, app_id: &str, sink: &str) {
        let route = (app_id.to_owned(), sink.to_owned());
        let _no_scrape = lock(&self.scrape);
        if let Some(state) = lock(&self.routes).remove(&route) {
            self.metrics.remove_pair(&state.app(), sink);
        }
    }

    /// What this process has published of a lane, once and only once.
    pub(crate) fn past(&self, key: &ProgressKey) -> Arc<Mutex<Past>> {
        let mut pasts = lock(&self.pasts);
        Arc::clone(pasts.entry(key.clone()).or_default())
    }

    /// App IDs are called otherwise from now on, and so are the series of their ways into sinks: App ID, sink, and name.
    pub(crate) fn rename_routes(&self, renamed: &[(&str, &str, String)]) {
        let _no_scrape = lock(&self.scrape);
        let routes = lock(&self.routes);
        let of = |app_id: &str, sink: &str| routes.get(&(app_id.to_owned(), sink.to_owned()));
        // One App ID may have the name that another one had.
        for (app_id, sink, _) in renamed {
            if let Some(state) = of(app_id, sink) {
                self.metrics.remove_pair(&state.app(), sink);
            }
        }
        for (app_id, sink, app) in renamed {
            if let Some(state) = of(app_id, sink) {
                state.rename(app);
            }
        }
    }

    /// All ways of App IDs into sinks, as App ID, sink, and how it goes.
    pub(super) fn routes(&self) -> Vec<(String, String, Arc<SinkState>)> {
        let routes = lock(&self.routes);
        let all = routes.iter();
        all.map(|((app_id, sink), state)| (app_id.clone(), sink.clone(), Arc::clone(state)))
            .collect()
    }

    /// These sinks are published to from now on, and no others.
    pub(crate) fn set_sinks(&self, sinks: impl Iterator<Item = RunningSink>) {
        let _no_scrape = lock(&self.scrape);
        let mut sinks: Vec<RunningSink> = sinks.collect();
        sinks.sort_by(|a, b| a.name().cmp(b.name()));
        let before = std::mem::replace(&mut *lock(&self.sinks), sinks.clone());
        // Another client of the same name counts from zero.
        for gone in before {
            if !sinks.iter().any(|sink| sink.is(&gone)) {
                self.metrics.remove_sink(gone.name());
            }
        }
        for sink in sinks {
            self.metrics.set_sink(sink.name(), true, &sink.health());
        }
    }

    /// Whatever waits for another sink than these, waits for one that has been removed.
    pub(crate) fn set_planned(&self, planned: Planned) {
        *lock(&self.planned) = Arc::new(planned);
    }

    pub(super) fn planned(&self) -> Arc<Planned> {
        Arc::clone(&lock(&self.planned))
    }

    /// The sinks that are published to, by name.
    pub(super) fn running_sinks(&self) -> Vec<RunningSink> {
        lock(&self.sinks).clone()
    }

    /// Notes that the first plan runs: what comes from now on is new to a bridge that is ready without it.
    pub(crate) fn begun(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Notes that no further request is sent: the bridge is about to end.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the bridge is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
