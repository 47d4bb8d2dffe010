//! Keeps running what a plan says, and has another plan take over while everything else goes on.
//!
//! Each App ID has a polling loop, and each App ID and sink a publishing loop: see [`crate::bridge`]. A loop is started,
//! told of another plan, and left to end by itself; what is to take its place begins when it has ended.
//!
//! A plan is taken as a whole or not at all: [`Supervisor::apply`] makes everything that can fail before it changes anything
//! that runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rtm_journal::Journal;
use rtm_source::Fetch;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;
use tracing::{Instrument, error, info, info_span};

use crate::bridge::{Polling, poll, publish_until_ended};
use crate::chain;
use crate::lanes::{self, LaneError, Orphan};
use crate::lock::lock;
use crate::outlet::{Ending, Outlet, OutletParts, OutletPlan};
use crate::pipeline::{Account, Pipeline};
use crate::plan::{AppPlan, Changes, Diff, Parts, Plan, Plans, RunError};
use crate::routes::{self, Route};
use crate::sink::RunningSink;
use crate::status::State;
use crate::status::metrics::Metrics;

/// App IDs that begin together send their first requests within so long of each other, evenly spread: else they would all
/// send at once, and as all keep the same pace, they would for ever.
const START_SPREAD: Duration = Duration::from_secs(1);

/// As [`START_SPREAD`], for App IDs that come later: they are polled within two seconds.
const LATER_SPREAD: Duration = Duration::from_millis(500);

/// Does what `plan` says, and then what each of `plans` says, until `stop`.
///
/// Then polling stops, requests in flight finish and are stored, the sinks get [`Plan::drain_deadline`], unless they take
/// nothing anyway, and the journal is closed. What is not published waits in it. `started` is given the state once
/// everything runs.
///
/// # Errors
///
/// [`RunError`] when something that the first plan names cannot be made, and nothing has been asked of Agora then; or when
/// the journal cannot be closed. Nothing that happens in between ends the bridge.
pub async fn run<P: Parts>(
    parts: P,
    journal: Journal,
    metrics: Arc<Metrics>,
    plan: Plan<P>,
    mut plans: Plans<P>,
    started: impl FnOnce(Arc<State>),
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut supervisor = Supervisor::new(parts, journal, metrics);
    if let Err(error) = supervisor.apply(plan).await {
        // Nothing runs yet. A journal that is closed cleanly tells the next start that no request was in flight.
        let _ = supervisor.journal.close().await;
        return Err(error);
    }
    started(Arc::clone(&supervisor.state));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some((app_id, joined)) = supervisor.polls.join_next() => supervisor.polling_ended(&app_id, joined),
            Some((route, joined)) = supervisor.publishes.join_next() => supervisor.outlet_ended(route, joined),
            Some(proposal) = plans.next() => {
                let applied = supervisor.apply(proposal.plan).await;
                let _ = proposal.answer.send(applied);
            }
        }
    }
    supervisor.stop().await
}

/// Everything that runs, by key.
struct Supervisor<P: Parts> {
    parts: P,
    journal: Journal,
    state: Arc<State>,
    /// None before the first.
    plan: Option<Plan<P>>,
    /// Polling loops, by App ID.
    polls: JoinMap<String, ()>,
    /// The pipelines of those loops, by App ID.
    polled: BTreeMap<String, watch::Sender<Polling<P::Source>>>,
    /// Pipelines that begin once the loop of the same App ID has ended.
    waiting: BTreeMap<String, Pipeline<P::Source>>,
    /// What belongs to each App ID that was polled since the start.
    accounts: BTreeMap<String, Account>,
    /// Publishing loops. Each says whether everything that waited is published.
    publishes: JoinMap<Route, bool>,
    /// What those loops are told.
    outlets: BTreeMap<Route, Told>,
    /// By name.
    sinks: BTreeMap<String, RunningSink>,
    /// Sinks that left the plan, or whose client was made anew: each is closed once no loop publishes to it any more.
    closing: Vec<RunningSink>,
    /// Lanes of App IDs that are not in the plan and have something to publish, by App ID.
    orphans: BTreeMap<String, Orphan>,
    /// Whether the last process died, for the outlets of the first plan.
    crashed: bool,
    /// Held by whatever may crash the process: see [`crate::poison`].
    suspicion: Arc<tokio::sync::Mutex<()>>,
}

/// The plan of a publishing loop, and what it publishes to.
struct Told {
    plan: watch::Sender<OutletPlan>,
    sink: RunningSink,
}

impl<P: Parts> Supervisor<P> {
    fn new(parts: P, journal: Journal, metrics: Arc<Metrics>) -> Supervisor<P> {
        Supervisor {
            parts,
            state: Arc::new(State::new(journal.clone(), metrics)),
            crashed: journal.unclean(),
            journal,
            plan: None,
            polls: JoinMap::new(),
            polled: BTreeMap::new(),
            waiting: BTreeMap::new(),
            accounts: BTreeMap::new(),
            publishes: JoinMap::new(),
            outlets: BTreeMap::new(),
            sinks: BTreeMap::new(),
            closing: Vec::new(),
            orphans: BTreeMap::new(),
            suspicion: Arc::default(),
        }
    }

    /// Takes a plan, as a whole or not at all.
    async fn apply(&mut self, plan: Plan<P>) -> Result<(), RunError> {
        let Diff { apps, sinks } = Diff::between(&self.parts, self.plan.as_ref(), &plan);
        // Everything that can fail comes first, and changes nothing that runs.
        let accounts = self.new_accounts(&plan, &apps)?;
        let pipelines = self.new_pipelines(&plan, &apps, &accounts)?;
        let clients = self.new_clients(&plan, &sinks).await?;

        let is_first = self.plan.is_none();
        self.plan = Some(plan);
        self.accounts.extend(accounts);
        self.change_sinks(&sinks, clients);
        self.change_polling(&apps, pipelines);
        if is_first {
            self.tend_lanes().await;
        }
        self.find_orphans();
        self.change_outlets();
        self.crashed = false;
        Ok(())
    }

    /// What belongs to App IDs that were not polled since the start.
    fn new_accounts(
        &self,
        plan: &Plan<P>,
        apps: &Changes,
    ) -> Result<BTreeMap<String, Account>, LaneError> {
        let new: Vec<&AppPlan<P::SourceSpec>> = plan
            .apps
            .iter()
            .filter(|app| apps.start.contains(&app.app_id))
            .filter(|app| !self.accounts.contains_key(&app.app_id))
            .collect();
        let spread = match self.plan {
            None => START_SPREAD,
            Some(_) => LATER_SPREAD,
        };
        let after_crash = self.plan.is_none() && self.journal.unclean();
        let mut accounts = BTreeMap::new();
        for (index, app) in new.iter().enumerate() {
            let lane = lanes::open(&self.journal, &app.name, &app.app_id)?;
            let spread = spread.mul_f64(index as f64 / new.len() as f64);
            let mut account = Account::new(lane, app.requests_per_second, after_crash, spread);
            // What its lane holds may be published already, and must see the requests to come.
            if let Some(orphan) = self.orphans.get(&app.app_id) {
                account.requests = Arc::clone(&orphan.requests);
            }
            accounts.insert(app.app_id.clone(), account);
        }
        Ok(accounts)
    }

    fn new_pipelines(
        &self,
        plan: &Plan<P>,
        apps: &Changes,
        new_accounts: &BTreeMap<String, Account>,
    ) -> Result<BTreeMap<String, Pipeline<P::Source>>, RunError> {
        let mut pipelines = BTreeMap::new();
        for app in &plan.apps {
            let is_changed = [&apps.start, &apps.renew]
                .iter()
                .any(|keys| keys.contains(&app.app_id));
            let account = new_accounts
                .get(&app.app_id)
                .or_else(|| self.accounts.get(&app.app_id));
            let (true, Some(account)) = (is_changed, account) else {
                continue;
            };
            let source = self
                .parts
                .source(&app.source)
                .map_err(|source| RunError::Source {
                    app: app.name.clone(),
                    source,
                })?;
            let pipeline = Pipeline::new(app, source, account.clone(), self.journal.epoch());
            pipelines.insert(app.app_id.clone(), pipeline);
        }
        Ok(pipelines)
    }

    async fn new_clients(
        &self,
        plan: &Plan<P>,
        sinks: &Changes,
    ) -> Result<BTreeMap<String, RunningSink>, RunError> {
        let mut clients = BTreeMap::new();
        for sink in plan
            .sinks
            .iter()
            .filter(|sink| sinks.start.contains(&sink.name))
        {
            let client = self.parts.client(&sink.name, &sink.client).await;
            let client = client.map_err(|source| RunError::Sink {
                sink: sink.name.clone(),
                source,
            })?;
            let running = RunningSink::new(&sink.name, sink.kind, &sink.title, client);
            clients.insert(sink.name.clone(), running);
        }
        Ok(clients)
    }

    fn change_sinks(&mut self, changes: &Changes, clients: BTreeMap<String, RunningSink>) {
        for name in &changes.drain {
            self.closing.extend(self.sinks.remove(name));
        }
        self.sinks.extend(clients);
        self.state.set_sinks(self.sinks.values().cloned());
        self.close_unused();
    }

    fn change_polling(
        &mut self,
        changes: &Changes,
        mut pipelines: BTreeMap<String, Pipeline<P::Source>>,
    ) {
        for app_id in &changes.drain {
            if let Some(tx) = self.polled.get(app_id) {
                tx.send_replace(None);
            }
            self.waiting.remove(app_id);
        }
        for app_id in &changes.start {
            let Some(pipeline) = pipelines.remove(app_id) else {
                continue;
            };
            if self.polled.contains_key(app_id) {
                self.waiting.insert(app_id.clone(), pipeline);
            } else {
                self.start_polling(Arc::new(pipeline));
            }
        }
        for app_id in &changes.renew {
            let Some(pipeline) = pipelines.remove(app_id) else {
                continue;
            };
            if let Some(waiting) = self.waiting.get_mut(app_id) {
                *waiting = pipeline;
            } else if let Some(tx) = self.polled.get(app_id) {
                info!(
                    app = pipeline.name,
                    rings = pipeline.source.rings().len(),
                    paused = pipeline.is_paused,
                    "polling as the new configuration says"
                );
                pipeline.resize();
                tx.send_replace(Some(Arc::new(pipeline)));
            }
        }
        // Whoever proposes a plan may have mended something elsewhere. The loops wake up for it.
        for tx in self.polled.values() {
            tx.send_modify(|polling| {
                if let Some(pipeline) = polling {
                    lock(&pipeline.schedule).try_again();
                }
            });
        }
    }

    fn start_polling(&mut self, pipeline: Arc<Pipeline<P::Source>>) {
        let app_id = pipeline.app_id.clone();
        let span = info_span!("poll", app = pipeline.name);
        pipeline.resize();
        let state = self.state.add_app(&pipeline);
        let (tx, rx) = watch::channel(Some(pipeline));
        self.polls
            .spawn(app_id.clone(), poll(rx, state).instrument(span));
        self.polled.insert(app_id, tx);
    }

    /// A polling loop has ended: its App ID left the plan, or is to be polled under another name. One that has panicked
    /// begins again.
    fn polling_ended(&mut self, app_id: &str, joined: Result<(), JoinError>) {
        let told = self.polled.remove(app_id);
        let polling = told.and_then(|told| told.borrow().clone());
        let panicked = ended(joined).is_none();
        self.state.remove_app(app_id);
        if let Some(pipeline) = self.waiting.remove(app_id) {
            self.start_polling(Arc::new(pipeline));
        } else if let Some(pipeline) = polling.filter(|_| panicked) {
            self.start_polling(pipeline);
        }
        // Only now is everything stored that the App ID has to publish.
        self.find_orphans();
        self.change_outlets();
    }

    /// Tells of what is left of sinks, and lets go of lagging cursors that nothing needs.
    async fn tend_lanes(&self) {
        let Some(plan) = &self.plan else { return };
        for stats in self.journal.stats().lanes {
            let app = plan.app(stats.name.as_str());
            let name = app.map_or("an app that left the configuration", |app| &app.name);
            let Ok(lane) = lanes::open(&self.journal, name, stats.name.as_str()) else {
                continue;
            };
            let is_known = |sink: &str| plan.publishes_to(sink);
            let drops = app
                .and_then(|app| app.copy_rule)
                .is_some_and(|rule| rule.drops);
            let keeps_lagging = |sink: &str| drops && is_known(sink);
            lanes::tend(&lane, &stats, name, is_known, keeps_lagging).await;
        }
    }

    /// Looks for lanes of App IDs that nobody polls: what they hold is still published.
    fn find_orphans(&mut self) {
        let Some(plan) = &self.plan else { return };
        let is_polled = |app_id: &str| plan.polls(app_id) || self.polled.contains_key(app_id);
        self.orphans.retain(|app_id, _| !is_polled(app_id));
        for stats in self.journal.stats().lanes {
            let app_id = stats.name.as_str();
            let takers = lanes::takers(&stats);
            let sinks = plan.sinks.iter();
            let sinks: Vec<&str> = sinks
                .filter(|sink| routes::gets_what_is_left(sink, &takers))
                .map(|sink| sink.name.as_str())
                .collect();
            let is_known = is_polled(app_id) || self.orphans.contains_key(app_id);
            if is_known || !lanes::is_pending(&stats, &sinks) {
                continue;
            }
            // One that this process polled has its cursors open, and goes by its name.
            let mut routes = self.outlets.iter();
            let shown = routes.find(|(route, _)| route.app_id == app_id);
            let shown = shown.map(|(_, told)| told.plan.borrow().app.clone());
            match Orphan::open(&self.journal, &stats, shown, &self.orphans) {
                Ok(orphan) => drop(self.orphans.insert(app_id.to_owned(), orphan)),
                Err(error) => error!(
                    error = chain(&error),
                    "what an App ID has left that is not in the configuration waits in the journal"
                ),
            }
        }
    }

    /// Has every outlet do what the plan says: begins those that are missing, tells the others, and ends those that have
    /// no place in the plan.
    fn change_outlets(&mut self) {
        let wanted = self.wanted_outlets();
        let deadline = Instant::now() + self.drain_deadline();
        for (route, told) in &self.outlets {
            let current = self.sinks.get(&route.sink);
            let is_current = current.is_some_and(|sink| sink.is(&told.sink));
            let plan = wanted.get(route).filter(|_| is_current);
            told.plan.send_if_modified(|old| match plan {
                Some(plan) if old == plan => false,
                Some(plan) => {
                    old.clone_from(plan);
                    true
                }
                None if matches!(old.ending, Ending::By(_)) => false,
                None => {
                    old.ending = Ending::By(deadline);
                    true
                }
            });
        }
        for (route, plan) in wanted {
            if !self.outlets.contains_key(&route) {
                self.start_outlet(route, plan);
            }
        }
    }

    fn drain_deadline(&self) -> Duration {
        self.plan
            .as_ref()
            .map_or(Duration::ZERO, |plan| plan.drain_deadline)
    }

    /// The outlets that there should be.
    fn wanted_outlets(&self) -> BTreeMap<Route, OutletPlan> {
        let Some(plan) = &self.plan else {
            return BTreeMap::new();
        };
        let mut wanted = routes::of_plan(plan);
        routes::of_orphans(plan, &self.orphans, &mut wanted);
        // An App ID that left the plan has entries to come until its last request is stored: its outlets go on as they are.
        for (route, told) in &self.outlets {
            let is_ending = self.polled.contains_key(&route.app_id) && !plan.polls(&route.app_id);
            if is_ending && plan.publishes_to(&route.sink) {
                wanted.insert(route.clone(), told.plan.borrow().clone());
            }
        }
        wanted
    }

    fn start_outlet(&mut self, route: Route, plan: OutletPlan) {
        let Some(sink) = self.sinks.get(&route.sink) else {
            return;
        };
        let (lane, requests) = match (
            self.accounts.get(&route.app_id),
            self.orphans.get(&route.app_id),
        ) {
            (Some(account), _) => (account.lane.clone(), Arc::clone(&account.requests)),
            (None, Some(orphan)) => (orphan.lane.clone(), Arc::clone(&orphan.requests)),
            (None, None) => return,
        };
        let span = info_span!("publish", app = plan.app, sink = route.sink);
        let state = self.state.add_route(&route.app_id, &route.sink, &plan.app);
        let parts = OutletParts {
            lane,
            sink: sink.clone(),
            requests,
            state,
            status: Arc::clone(&self.state),
            suspicion: Arc::clone(&self.suspicion),
        };
        let sink = sink.clone();
        let (plan, plans) = watch::channel(plan);
        match Outlet::open(parts, plans) {
            Ok(outlet) => {
                let publishing = publish_until_ended(outlet, self.crashed);
                self.publishes
                    .spawn(route.clone(), publishing.instrument(span));
                self.outlets.insert(route, Told { plan, sink });
            }
            Err(error) => error!(
                sink = route.sink,
                error = chain(&error),
                "nothing is published: its entries wait in the journal for the next start"
            ),
        }
    }

    /// A publishing loop has ended: its sink or its App ID left the plan, or its sink's client is to be made anew.
    fn outlet_ended(&mut self, route: Route, joined: Result<bool, JoinError>) {
        ended(joined);
        self.outlets.remove(&route);
        self.state.remove_route(&route.app_id, &route.sink);
        if !self
            .outlets
            .keys()
            .any(|other| other.app_id == route.app_id)
        {
            self.orphans.remove(&route.app_id);
        }
        self.close_unused();
        // What is left of an App ID that is not in the plan is published once.
        let is_planned = self
            .plan
            .as_ref()
            .is_some_and(|plan| plan.polls(&route.app_id));
        if is_planned && let Some(plan) = self.wanted_outlets().remove(&route) {
            self.start_outlet(route, plan);
        }
    }

    /// Closes the sinks that left the plan, or were made anew, and have no loop any more.
    fn close_unused(&mut self) {
        let outlets = &self.outlets;
        let is_unused = |sink: &mut RunningSink| !outlets.values().any(|told| told.sink.is(sink));
        for sink in self.closing.extract_if(.., is_unused) {
            tokio::spawn(sink.close());
        }
    }

    async fn stop(mut self) -> Result<(), RunError> {
        info!("stopping: no further request is sent; waiting for those in flight");
        self.state.stopping();
        for tx in self.polled.values() {
            tx.send_replace(None);
        }
        while let Some((_, joined)) = self.polls.join_next().await {
            ended(joined);
        }
        let deadline = self.drain_deadline();
        info!(?deadline, "every response is stored; publishing what waits");
        let until = Instant::now() + deadline;
        for told in self.outlets.values() {
            told.plan
                .send_modify(|plan| plan.ending = Ending::By(until));
        }
        let mut all_published = true;
        while let Some((_, joined)) = self.publishes.join_next().await {
            all_published &= ended(joined).unwrap_or(false);
        }
        for sink in self.sinks.into_values().chain(self.closing) {
            sink.close().await;
        }
        self.journal.close().await.map_err(RunError::Close)?;
        info!(all_published, "stopped");
        Ok(())
    }
}

/// What a task returned. A panic is a bug: it is logged and the other tasks go on.
fn ended<T>(joined: Result<T, JoinError>) -> Option<T> {
    joined
        .inspect_err(
            |panic| error!(error = %panic, "a task ended unexpectedly; please report this"),
        )
        .ok()
}
