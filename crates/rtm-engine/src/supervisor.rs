//! Keeps running what a plan says, and has another plan take over while everything else goes on.
//!
//! Each App ID has a polling loop, and each App ID and sink a publishing loop: see [`crate::bridge`]. A loop is started,
//! told of another plan, and left to end by itself; what is to take its place begins when it has ended.
//!
//! A plan is taken as a whole or not at all: [`Supervisor::apply`] makes everything that can fail before it changes anything
//! that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use rtm_journal::{Journal, LaneStats};
use rtm_source::Fetch;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;
use tracing::{Instrument, error, info, info_span, warn};

use crate::bridge::{Polling, poll, publish_until_ended};
use crate::chain;
use crate::lanes::{self, LaneError};
use crate::lock::lock;
use crate::orphan::{self, Former, Orphan};
use crate::outlet::{Ending, Outlet, OutletParts, OutletPlan};
use crate::pipeline::{Account, Pipeline};
use crate::plan::{AppPlan, Changes, Diff, Parts, Plan, Plans, RunError, SinkPlan};
use crate::routes::{self, Route};
use crate::sink::RunningSink;
use crate::status::State;
use crate::status::metrics::Metrics;
use crate::status::state::Planned;

/// App IDs that begin together send their first requests within so long of each other, evenly spread: else they would all
/// send at once, and as all keep the same pace, they would for ever.
const START_SPREAD: Duration = Duration::from_secs(1);

/// As [`START_SPREAD`], for App IDs that come later: they are polled within two seconds.
const LATER_SPREAD: Duration = Duration::from_millis(500);

/// How long the clients of all sinks may take to end: each ends by itself in seconds.
const CLOSING: Duration = Duration::from_secs(10);

/// Does what `plan` says, and then what each of `plans` says, until `stop`.
///
/// Then polling stops, requests in flight finish and are stored, the sinks get [`Plan::drain_deadline`], unless they take
/// nothing anyway, and the journal is closed. What is not published waits in it. `started` is given the state once
/// everything runs.
///
/// # Errors
///
/// [`RunError`] when something that the first plan names cannot be made, and nothing has been asked of Agora then; or when
/// the journal cannot be closed. Nothing that happens in between ends the bridge, but for a journal that stops by itself.
pub async fn run<P: Parts>(
    parts: P,
    journal: Journal,
    metrics: Arc<Metrics>,
    plan: Plan<P>,
    mut plans: Plans<P>,
    started: impl FnOnce(Arc<State>),
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut supervisor = Supervisor::new(parts, journal.clone(), metrics);
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
            // What is in flight could not be stored: nothing is left to wait for.
            () = journal.stopped() => return Err(RunError::Stopped),
            Some((app_id, joined)) = supervisor.polls.join_next() => supervisor.polling_ended(&app_id, joined),
            Some((route, joined)) = supervisor.publishes.join_next() => supervisor.outlet_ended(&route, joined),
            Some(closed) = supervisor.closings.join_next() => ended(closed),
            Some(proposal) = plans.next() => {
                let applied = supervisor.apply(proposal.plan).await;
                let _ = proposal.answer.send(applied);
            }
            // Once every loop that has ended is joined: many end together.
            () = std::future::ready(()), if supervisor.is_behind => supervisor.catch_up(),
        }
    }
    supervisor.stop().await
}

/// Everything that runs, by key.
struct Supervisor<P: Parts> {
    parts: P,
    journal: Journal,
    state: Arc<State>,
    /// The plan that is in force; an empty one before the first.
    plan: Plan<P>,
    has_begun: bool,
    /// Polling loops, by App ID.
    polls: JoinMap<String, ()>,
    /// What those loops are told, by App ID.
    polled: BTreeMap<String, Polled<P::Source>>,
    /// Pipelines that begin once no loop of the same App ID, or of the same name, runs.
    waiting: BTreeMap<String, Pipeline<P::Source>>,
    /// What belongs to each App ID that was polled since the start.
    accounts: BTreeMap<String, Account>,
    /// Publishing loops.
    publishes: JoinMap<Route, ()>,
    /// What those loops are told.
    outlets: BTreeMap<Route, Told>,
    /// The sinks of the plan, by name.
    sinks: BTreeMap<String, RunningSink>,
    /// Sinks that left the plan, or whose client was made anew: each is closed once no loop publishes to it any more.
    closing: Vec<RunningSink>,
    /// Closings that are under way.
    closings: JoinSet<()>,
    /// Lanes of App IDs that are not in the plan and had something to publish, by App ID.
    orphans: BTreeMap<String, Orphan>,
    /// App IDs that were in a plan before this one, as it had them.
    former: BTreeMap<String, Former>,
    /// A loop has ended, and what may take its place has not begun.
    is_behind: bool,
    /// Whether the last process died, for the outlets of the first plan.
    crashed: bool,
    /// Held by the one outlet that tries what may crash the process: see [`crate::poison`].
    suspicion: Arc<tokio::sync::Mutex<()>>,
}

/// An App ID of a plan, and its source.
type Sourced<'a, P> = (&'a AppPlan<<P as Parts>::SourceSpec>, <P as Parts>::Source);

/// A polling loop: the name that it goes by, and what it is told.
struct Polled<F> {
    name: String,
    told: watch::Sender<Polling<F>>,
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
            plan: Plan::empty(),
            has_begun: false,
            polls: JoinMap::new(),
            polled: BTreeMap::new(),
            waiting: BTreeMap::new(),
            accounts: BTreeMap::new(),
            publishes: JoinMap::new(),
            outlets: BTreeMap::new(),
            sinks: BTreeMap::new(),
            closing: Vec::new(),
            closings: JoinSet::new(),
            orphans: BTreeMap::new(),
            former: BTreeMap::new(),
            is_behind: false,
            suspicion: Arc::default(),
        }
    }

    /// Takes a plan, as a whole or not at all.
    async fn apply(&mut self, plan: Plan<P>) -> Result<(), RunError> {
        let Diff { apps, sinks } = Diff::between(&self.parts, &self.plan, &plan);
        // Everything that can fail comes first, and changes nothing that runs.
        self.check_readers(&plan)?;
        let sources = self.new_sources(&plan, &apps).await?;
        let clients = self.new_clients(&plan, &sinks).await?;
        let accounts = self.new_accounts(&sources)?;

        self.accounts.extend(accounts);
        let pipelines = sources.into_iter().map(|(app, source)| {
            let account = self.accounts[&app.app_id].clone();
            Pipeline::new(app, source, account)
        });
        let pipelines = pipelines.collect();
        let old = std::mem::replace(&mut self.plan, plan);
        self.former.extend(orphan::former(&old));
        self.change_sinks(&sinks, clients);
        self.change_polling(&apps, pipelines);
        if !self.has_begun {
            self.tend_lanes().await;
        }
        self.has_begun = true;
        self.catch_up();
        self.state.begun();
        self.crashed = false;
        Ok(())
    }

    /// Whether each lane has room for the cursors of the sinks that take its App ID.
    fn check_readers(&self, plan: &Plan<P>) -> Result<(), LaneError> {
        let lanes = self.journal.stats().lanes;
        for app in &plan.apps {
            let takes = |sink: &&SinkPlan<P::ClientSpec>| sink.takes(&app.name);
            let drops = app.drops_copies();
            let wanted = (plan.sinks.iter().filter(takes))
                .flat_map(|sink| lanes::reader_names(&sink.name, |of| sink.has(of, drops)));
            let lane = lanes.iter().find(|lane| lane.name.as_str() == app.app_id);
            lanes::check_readers(lane, &app.name, wanted)?;
        }
        Ok(())
    }

    /// The sources of App IDs that are new, or that another plan changes.
    async fn new_sources<'a>(
        &self,
        plan: &'a Plan<P>,
        apps: &Changes,
    ) -> Result<Vec<Sourced<'a, P>>, RunError> {
        let is_new = |app: &&AppPlan<_>| {
            apps.start.contains(&app.app_id) || apps.renew.contains(&app.app_id)
        };
        let source = async |app: &'a AppPlan<_>| match self.parts.source(&app.source).await {
            Ok(source) => Ok((app, source)),
            Err(source) => Err(RunError::Source {
                app: app.name.clone(),
                source,
            }),
        };
        // At once: each may wait for a file.
        try_join_all(plan.apps.iter().filter(is_new).map(source)).await
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

    /// What belongs to App IDs that were not polled since the start.
    fn new_accounts(
        &self,
        sources: &[Sourced<'_, P>],
    ) -> Result<BTreeMap<String, Account>, LaneError> {
        let apps = sources.iter().map(|(app, _)| app);
        let is_new = |app: &&&AppPlan<_>| !self.accounts.contains_key(&app.app_id);
        let new: Vec<_> = apps.filter(is_new).collect();
        let spread = match self.has_begun {
            false => START_SPREAD,
            true => LATER_SPREAD,
        };
        let mut accounts = BTreeMap::new();
        for (index, app) in new.iter().enumerate() {
            let lane = lanes::open(&self.journal, &app.name, &app.app_id)?;
            let spread = spread.mul_f64(index as f64 / new.len() as f64);
            let epoch = self.journal.epoch();
            let mut account =
                Account::new(lane, app.requests_per_second, self.crashed, spread, epoch);
            // What its lane holds may be published already, and must see the requests to come.
            if let Some(orphan) = self.orphans.get(&app.app_id) {
                account.requests = Arc::clone(&orphan.requests);
            }
            accounts.insert(app.app_id.clone(), account);
        }
        Ok(accounts)
    }

    fn change_sinks(&mut self, changes: &Changes, clients: BTreeMap<String, RunningSink>) {
        for name in &changes.drain {
            self.closing.extend(self.sinks.remove(name));
            if !clients.contains_key(name) {
                warn!(
                    sink = name,
                    "a sink has left the configuration; the journal keeps what it has not had, and what comes, until \
                     `rtm-bridge journal forget --sink {name}`"
                );
            }
        }
        self.sinks.extend(clients);
        self.state.set_sinks(self.sinks.values().cloned());
    }

    fn change_polling(&mut self, changes: &Changes, pipelines: Vec<Pipeline<P::Source>>) {
        for app_id in &changes.drain {
            if let Some(polled) = self.polled.get(app_id) {
                polled.told.send_replace(None);
            }
            self.waiting.remove(app_id);
        }
        let mut renewed = BTreeSet::new();
        for pipeline in pipelines {
            let polled = self.polled.get(&pipeline.app_id);
            let Some(polled) = polled.filter(|polled| polled.told.borrow().is_some()) else {
                self.waiting.insert(pipeline.app_id.clone(), pipeline);
                continue;
            };
            info!(
                app = pipeline.name,
                rings = pipeline.source.rings().len(),
                paused = pipeline.is_paused,
                "polling as the new configuration says"
            );
            pipeline.resize();
            renewed.insert(pipeline.app_id.clone());
            polled.told.send_replace(Some(Arc::new(pipeline)));
        }
        // With the plan somebody may have mended what Agora refused: the loops ask again at once. One that takes over another
        // pipeline does so anyway.
        let others = self
            .polled
            .iter()
            .filter(|(app_id, _)| !renewed.contains(*app_id));
        for (_, polled) in others {
            polled.told.send_modify(|polling| {
                if let Some(pipeline) = polling {
                    lock(&pipeline.account.schedule).try_again();
                }
            });
        }
    }

    /// A polling loop has ended: its App ID left the plan, or is to be polled under another name.
    fn polling_ended(&mut self, app_id: &str, joined: Result<(), JoinError>) {
        self.polled.remove(app_id);
        ended(joined);
        self.state.remove_app(app_id);
        self.is_behind = true;
    }

    /// A publishing loop has ended: its sink or its App ID left the plan, or its sink's client is to be made anew.
    fn outlet_ended(&mut self, route: &Route, joined: Result<(), JoinError>) {
        self.outlets.remove(route);
        ended(joined);
        self.state.remove_route(&route.app_id, &route.sink);
        self.is_behind = true;
    }

    /// Has everything run as the plan says, as far as what is to make place for it has ended.
    fn catch_up(&mut self) {
        self.is_behind = false;
        self.start_polling();
        let lanes = self.journal.stats().lanes;
        self.find_orphans(&lanes);
        self.change_outlets(&lanes);
        self.close_unused();
    }

    /// Starts polling what waits for it. A polling loop has its App ID and its name, which its series go by, for itself.
    fn start_polling(&mut self) {
        let polled = &self.polled;
        let is_free = |app_id: &String, pipeline: &mut Pipeline<P::Source>| {
            let mut others = polled.values();
            !polled.contains_key(app_id) && !others.any(|other| other.name == pipeline.name)
        };
        let free: Vec<_> = self.waiting.extract_if(.., is_free).collect();
        for (app_id, pipeline) in free {
            let name = pipeline.name.clone();
            let span = info_span!("poll", app = name);
            pipeline.resize();
            let state = self.state.add_app(&pipeline);
            let (told, pipelines) = watch::channel(Some(Arc::new(pipeline)));
            let polling = poll(pipelines, state).instrument(span);
            self.polls.spawn(app_id.clone(), polling);
            self.polled.insert(app_id, Polled { name, told });
        }
    }

    /// Tells of what is left of sinks, and lets go of lagging cursors that nothing needs.
    async fn tend_lanes(&self) {
        let plan = &self.plan;
        for stats in self.journal.stats().lanes {
            let app = plan.app(stats.name.as_str());
            let name = app.map(|app| app.name.as_str());
            let takes = |sink: &str| {
                let sink = plan.sinks.iter().find(|known| known.name == sink);
                sink.is_some_and(|sink| app.is_none_or(|app| sink.takes(&app.name)))
            };
            let drops = app.is_some_and(AppPlan::drops_copies);
            let needs = |sink: &str, of| {
                let known = plan.sinks.iter().find(|known| known.name == sink);
                takes(sink) && known.is_some_and(|sink| sink.has(of, drops))
            };
            lanes::tend(&self.journal, &stats, name, takes, needs).await;
        }
    }

    /// Looks for lanes of App IDs that are not in the plan: what they hold, and what their last requests bring, is still
    /// published.
    fn find_orphans(&mut self, lanes: &[LaneStats]) {
        let plan = &self.plan;
        self.orphans.retain(|app_id, _| !plan.polls(app_id));
        for lane in lanes {
            let app_id = lane.name.as_str();
            if plan.polls(app_id) || self.orphans.contains_key(app_id) {
                continue;
            }
            let former = self.former.get(app_id);
            let runs = self.polled.contains_key(app_id)
                || self.outlets.keys().any(|route| route.app_id == app_id);
            let mut sinks = plan.sinks.iter();
            let is_left = |sink: &SinkPlan<_>| {
                orphan::is_for(sink, lane, former) && orphan::is_pending(lane, &sink.name)
            };
            if !runs && !sinks.any(is_left) {
                continue;
            }
            match Orphan::open(&self.journal, lane, former, &self.orphans) {
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
    fn change_outlets(&mut self, lanes: &[LaneStats]) {
        let wanted = self.wanted_outlets(lanes);
        let deadline = Instant::now() + self.plan.drain_deadline;
        let mut renamed = Vec::new();
        let mut changed = Vec::new();
        for (route, told) in &self.outlets {
            let old = told.plan.borrow().clone();
            let by = match old.ending {
                Ending::By(by) | Ending::AtOnce(by) => by,
                Ending::Never | Ending::WhenEmpty => deadline,
            };
            let current = self.sinks.get(&route.sink);
            let is_current = current.is_some_and(|sink| sink.is(&told.sink));
            let ending = match wanted.get(route) {
                Some(plan) if is_current => plan.ending,
                Some(_) => Ending::AtOnce(by),
                None => Ending::By(by),
            };
            let mut plan = wanted.get(route).unwrap_or(&old).clone();
            plan.ending = ending;
            plan.app = self.shown(&route.app_id).unwrap_or(plan.app);
            if plan.app != old.app {
                renamed.push((&*route.app_id, &*route.sink, plan.app.clone()));
            }
            if plan != old {
                changed.push((told, plan));
            }
        }
        self.state.rename_routes(&renamed);
        for (told, plan) in changed {
            told.plan.send_replace(plan);
        }
        let routes = wanted.keys().chain(self.outlets.keys());
        let pairs = routes.map(|route| (route.app_id.clone(), route.sink.clone()));
        let pairs = pairs.collect();
        self.state.set_planned(Planned {
            pairs,
            names: self.names(),
        });
        for (route, plan) in wanted {
            if !self.outlets.contains_key(&route) {
                self.start_outlet(route, plan);
            }
        }
    }

    /// The names of App IDs, by App ID; of those that have left the plan, the names that they had.
    fn names(&self) -> BTreeMap<String, String> {
        let former = self.former.iter();
        let former = former.map(|(app_id, former)| (app_id.clone(), former.name.clone()));
        let apps = self.plan.apps.iter();
        let apps = apps.map(|app| (app.app_id.clone(), app.name.clone()));
        former.chain(apps).collect()
    }

    /// What an App ID is shown as. No two are shown alike.
    fn shown(&self, app_id: &str) -> Option<String> {
        let planned = self.plan.app(app_id);
        let orphan = self.orphans.get(app_id).map(|orphan| &orphan.name);
        planned.map(|app| &app.name).or(orphan).cloned()
    }

    /// The outlets that there should be.
    fn wanted_outlets(&self, lanes: &[LaneStats]) -> BTreeMap<Route, OutletPlan> {
        let plan = &self.plan;
        let mut wanted = routes::of_plan(plan);
        for lane in lanes {
            let app_id = lane.name.as_str();
            let Some(orphan) = self.orphans.get(app_id) else {
                continue;
            };
            // Requests may still be in flight.
            let is_polled = self.polled.contains_key(app_id);
            let former = self.former.get(app_id);
            let is_for = |sink: &&SinkPlan<_>| orphan::is_for(sink, lane, former);
            for sink in plan.sinks.iter().filter(is_for) {
                let route = Route::new(app_id, &sink.name);
                let ending = match is_polled {
                    true => Ending::Never,
                    false => Ending::WhenEmpty,
                };
                // One that has ended begins again only where something is left.
                let goes_on = is_polled || self.outlets.contains_key(&route);
                if goes_on || orphan::is_pending(lane, &sink.name) {
                    let copy_rule = former.and_then(|former| former.copy_rule);
                    let outlet = routes::of_orphan(orphan, copy_rule, sink, ending);
                    wanted.insert(route, outlet);
                }
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
            Err(error) => {
                self.state.remove_route(&route.app_id, &route.sink);
                error!(
                    sink = route.sink,
                    error = chain(&error),
                    "nothing is published; its entries wait in the journal, and the next reload tries again"
                );
            }
        }
    }

    /// Closes the sinks that left the plan, or were made anew, and have no loop any more.
    fn close_unused(&mut self) {
        let outlets = &self.outlets;
        let is_unused = |sink: &mut RunningSink| !outlets.values().any(|told| told.sink.is(sink));
        for sink in self.closing.extract_if(.., is_unused) {
            self.closings.spawn(sink.close());
        }
    }

    async fn stop(mut self) -> Result<(), RunError> {
        info!("stopping: no further request is sent; waiting for those in flight");
        self.state.stopping();
        for polled in self.polled.values() {
            polled.told.send_replace(None);
        }
        while let Some((_, joined)) = self.polls.join_next().await {
            ended(joined);
        }
        let deadline = self.plan.drain_deadline;
        info!(?deadline, "every response is stored; publishing what waits");
        let until = Instant::now() + deadline;
        for told in self.outlets.values() {
            told.plan
                .send_modify(|plan| plan.ending = Ending::By(until));
        }
        while let Some((_, joined)) = self.publishes.join_next().await {
            ended(joined);
        }
        for sink in self.sinks.into_values().chain(self.closing) {
            self.closings.spawn(sink.close());
        }
        let closings = async {
            while let Some(closed) = self.closings.join_next().await {
                ended(closed);
            }
        };
        if timeout(CLOSING, closings).await.is_err() {
            warn!(waited = ?CLOSING, "a sink's client does not end; it is left");
            self.closings.shutdown().await;
        }
        let all_published = lanes::are_published(&self.journal.stats().lanes);
        self.journal.close().await.map_err(RunError::Close)?;
        info!(all_published, "stopped");
        Ok(())
    }
}

/// A task has ended. A panic is a bug: it is logged and the other tasks go on.
fn ended(joined: Result<(), JoinError>) {
    if let Err(panic) = joined {
        error!(error = %panic, "a task ended unexpectedly; please report this");
    }
}
