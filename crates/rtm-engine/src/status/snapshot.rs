//! What goes on at one moment, as plain values: what is wrong is judged from them, and they are most of `/status.json`,
//! where `docs/status.md` describes each field. Names come from the configuration only.

#![expect(
    missing_docs,
    reason = "`docs/status.md` describes the fields, and a test sees to it"
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rtm_journal::{ReaderStats, Stats};
use serde::{Deserialize, Serialize};

use super::health::{Delivery, Health};
use super::pipeline::{PipelineState, RingState};
use super::sink::SinkState;
use super::state::State;
use crate::lanes;
use crate::lock::lock;
use crate::losses::Crash;
use crate::sink::RunningSink;
use crate::tally::Tally;

/// What goes on at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    pub at: Timestamp,
    pub uptime_seconds: f64,
    #[serde(skip)]
    pub is_stopping: bool,
    pub config_refused_seconds: Option<f64>,
    pub config_problems: Vec<String>,
    pub apps: Vec<App>,
    pub rings: Vec<Ring>,
    pub journal: Journal,
    pub sinks: Vec<Sink>,
    pub removed_sinks: Vec<RemovedSink>,
}

/// A sink that the configuration has no more, or that takes one App ID no more, and that the journal keeps events for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RemovedSink {
    pub name: String,
    /// The App ID's name, where the configuration has the sink.
    pub app: Option<String>,
    pub pending_events: u64,
    pub pending_bytes: u64,
    pub oldest_pending_age_seconds: Option<f64>,
}

/// An App ID. Counts are since the start unless they are `ever`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    pub name: String,
    pub requests_per_second: u32,
    pub paused: bool,
    pub paused_seconds: Option<f64>,
    pub stopped_seconds: Option<f64>,
    pub second_poller: bool,
    pub requests: u64,
    pub requests_unused: u64,
    pub requests_refused: u64,
    pub requests_rate_limited: u64,
    pub possibly_lost_ever: u64,
    /// What the death of the last process may have cost; 0 where that was not recently.
    #[serde(skip)]
    pub crash_lost_recently: u64,
}

/// One region's store of one stream. Counts are since the start unless their names say otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ring {
    pub app: String,
    pub region: String,
    pub stream: String,
    pub paused: bool,
    /// Says nothing of a ring that is paused.
    pub health: Health,
    /// Since the last successful poll, or since polling of it began.
    #[serde(skip)]
    pub silence: Duration,
    /// Whether no poll has ever succeeded, of a ring that was there when the bridge started.
    #[serde(skip)]
    pub is_new: bool,
    pub events_per_second: f64,
    pub polls_per_second: f64,
    pub last_poll_age_seconds: Option<f64>,
    pub failure: Option<String>,
    pub last_gap_seconds: Option<f64>,
    pub longest_gap_seconds: f64,
    /// Also by the death of the last process.
    pub possibly_lost_recently: u64,
    /// What of it is that.
    #[serde(skip)]
    pub crash_lost_recently: u64,
    pub overflows_recently: u64,
    pub overwritten_recently: u64,
    pub possibly_lost_ever: u64,
    pub events: u64,
    pub full_pages: u64,
    pub overflows: u64,
}

/// The journal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    pub bytes: u64,
    pub used_bytes: u64,
    pub max_bytes: u64,
    pub free_disk_bytes: Option<u64>,
    pub min_free_disk_bytes: u64,
    pub failing: bool,
    pub unreadable: Option<String>,
    pub syncs: u64,
    pub syncs_seconds: f64,
}

/// A sink, for all App IDs together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sink {
    pub name: String,
    pub kind: String,
    /// What people call it.
    #[serde(skip)]
    pub title: String,
    pub health: Health,
    /// What its client says of itself.
    #[serde(skip)]
    pub client: rtm_sink::Health,
    pub waiting_since: Option<Timestamp>,
    pub waiting_seconds: Option<f64>,
    pub why: Option<String>,
    pub apps: Vec<String>,
    pub pending_events: u64,
    pub pending_bytes: u64,
    pub oldest_pending_age_seconds: Option<f64>,
    pub last_confirmation: Option<Timestamp>,
    pub last_confirmation_age_seconds: Option<f64>,
    pub skipped_recently: u64,
    pub outlets: Vec<Outlet>,
}

/// One App ID's way into one sink. Counts are of events, across restarts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outlet {
    pub app: String,
    /// The worst of the sink's client's and of its own batch's.
    pub health: Health,
    /// The batch that is being published.
    #[serde(skip)]
    pub delivery: Delivery,
    pub pending_events: u64,
    pub pending_bytes: u64,
    pub oldest_pending_age_seconds: Option<f64>,
    #[serde(skip)]
    pub confirmed_ago: Option<Duration>,
    pub last_confirmation_age_seconds: Option<f64>,
    pub confirmed: u64,
    pub dead_lettered: u64,
    pub given_up: u64,
    /// Given up because the journal is full, since the start; 0 where none were recently.
    #[serde(skip)]
    pub skipped_recently: u64,
}

impl State {
    /// What goes on now.
    pub fn snapshot(&self) -> Snapshot {
        let (now, at) = (Instant::now(), Timestamp::now());
        let stats = self.journal.stats();
        let mut pipelines = self.pipelines();
        pipelines.sort_by(|(_, a), (_, b)| a.app.cmp(&b.app));
        let pipelines = || pipelines.iter().map(|(_, pipeline)| &**pipeline);
        let mut rings: Vec<Ring> = pipelines()
            .flat_map(|pipeline| rings(pipeline, now))
            .collect();
        rings.sort_by(|a, b| (&a.app, &a.region, &a.stream).cmp(&(&b.app, &b.region, &b.stream)));
        let (syncs, syncs_seconds) = self.metrics.journal_commits();
        let refusal = self.metrics.refusal();
        Snapshot {
            at,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            is_stopping: self.is_stopping(),
            config_refused_seconds: refusal
                .as_ref()
                .map(|refusal| refusal.since.elapsed().as_secs_f64()),
            config_problems: refusal.map(|refusal| refusal.problems).unwrap_or_default(),
            apps: pipelines().map(app).collect(),
            rings,
            journal: Journal {
                bytes: stats.bytes,
                used_bytes: stats.used_bytes,
                max_bytes: stats.max_bytes,
                free_disk_bytes: stats.free_bytes,
                min_free_disk_bytes: stats.min_free_bytes,
                failing: stats.failing,
                unreadable: stats.unreadable.as_ref().map(ToString::to_string),
                syncs,
                syncs_seconds,
            },
            sinks: self.sinks(&stats, at),
            removed_sinks: self.removed_sinks(&stats),
        }
    }

    /// The sinks that events wait for and that the plan gives none of them, of which the journal says `stats`.
    pub(super) fn removed_sinks(&self, stats: &Stats) -> Vec<RemovedSink> {
        let planned = self.planned();
        let running = self.running_sinks();
        let mut removed: BTreeMap<(&str, Option<&str>), RemovedSink> = BTreeMap::new();
        let lanes = stats.lanes.iter();
        let readers = lanes.flat_map(|lane| lane.readers.iter().map(move |reader| (lane, reader)));
        for (lane, reader) in readers {
            let (app_id, name) = (lane.name.as_str(), reader.name.as_str());
            // What a cursor that remembers copies holds, the sink has had.
            let is_lagging = lanes::sink_of(&reader.name) != name;
            if reader.pending_count == 0 || is_lagging || planned.has(app_id, name) {
                continue;
            }
            let is_running = running.iter().any(|sink| sink.name() == name);
            let app = is_running.then(|| planned.name_of(app_id));
            let sink = removed.entry((name, app)).or_default();
            name.clone_into(&mut sink.name);
            sink.app = app.map(str::to_owned);
            sink.pending_events += reader.pending_count;
            sink.pending_bytes += reader.pending_bytes;
            let age = reader.oldest_pending_age.map(|age| age.as_secs_f64());
            let oldest = sink.oldest_pending_age_seconds.into_iter().chain(age);
            sink.oldest_pending_age_seconds = oldest.reduce(f64::max);
        }
        removed.into_values().collect()
    }

    /// How the sinks are, of which the journal says `stats`.
    pub(super) fn sinks(&self, stats: &Stats, at: Timestamp) -> Vec<Sink> {
        let lanes = stats.lanes.iter();
        let readers: HashMap<_, _> = lanes
            .flat_map(|lane| {
                let readers = lane.readers.iter();
                readers.map(|reader| ((lane.name.as_str(), reader.name.as_str()), reader))
            })
            .collect();
        let routes = self.routes();
        let sink = |running: &RunningSink| {
            let routes = routes.iter().filter(|(_, sink, _)| sink == running.name());
            let outlets = routes.map(|(app_id, sink, state)| {
                let reader = readers.get(&(app_id.as_str(), sink.as_str()));
                outlet(state, reader.copied())
            });
            let mut outlets: Vec<Outlet> = outlets.collect();
            outlets.sort_by(|a, b| a.app.cmp(&b.app));
            Sink::new(running, outlets, at)
        };
        self.running_sinks().iter().map(sink).collect()
    }
}

impl Sink {
    fn new(running: &RunningSink, mut outlets: Vec<Outlet>, at: Timestamp) -> Sink {
        let said = running.health();
        let of_client = Health::of_client(&said);
        let off = || outlets.iter().filter(|outlet| outlet.health != Health::Up);
        let apps = match off().count() == outlets.len() {
            true => Vec::new(),
            false => off().map(|outlet| outlet.app.clone()).collect(),
        };
        let waiting = off().filter_map(|outlet| outlet.delivery.waiting).max();
        let why = off().find_map(|outlet| outlet.delivery.trouble.as_ref());
        let confirmed = outlets
            .iter()
            .filter_map(|outlet| outlet.confirmed_ago)
            .min();
        let oldest = outlets
            .iter()
            .filter_map(|outlet| outlet.oldest_pending_age_seconds);
        let sum = |of: fn(&Outlet) -> u64| outlets.iter().map(of).sum();
        let sink = Sink {
            name: running.name().to_owned(),
            kind: running.kind().to_owned(),
            title: running.title().to_owned(),
            health: off()
                .map(|outlet| outlet.health)
                .fold(of_client, Health::max),
            waiting_since: waiting.and_then(|waiting| at.checked_sub(waiting).ok()),
            waiting_seconds: waiting.map(|waiting| waiting.as_secs_f64()),
            why: why
                .map(|trouble| trouble.why().to_owned())
                .or_else(|| said.said.clone()),
            apps,
            pending_events: sum(|outlet| outlet.pending_events),
            pending_bytes: sum(|outlet| outlet.pending_bytes),
            oldest_pending_age_seconds: oldest.reduce(f64::max),
            last_confirmation: confirmed.and_then(|age| at.checked_sub(age).ok()),
            last_confirmation_age_seconds: confirmed.map(|age| age.as_secs_f64()),
            skipped_recently: sum(|outlet| outlet.skipped_recently),
            client: said,
            outlets: Vec::new(),
        };
        for outlet in &mut outlets {
            outlet.health = outlet.health.max(of_client);
        }
        Sink { outlets, ..sink }
    }

    /// Whether it takes records, as far as its client and every App ID can tell.
    pub fn is_up(&self) -> bool {
        let is_overdue = |outlet: &Outlet| outlet.delivery.is_overdue();
        self.client.up && !self.outlets.iter().any(is_overdue)
    }
}

fn app(of: &PipelineState) -> App {
    let seconds = |since: Instant| since.elapsed().as_secs_f64();
    // No lock is held while another is taken.
    let requests_per_second = lock(&of.budget).per_second;
    let paused_since = *lock(&of.paused_since);
    let stopped_since = lock(&of.stopped).as_ref().map(|stopped| stopped.since);
    App {
        name: of.app.clone(),
        requests_per_second,
        paused: of.is_paused(),
        paused_seconds: paused_since.map(seconds),
        stopped_seconds: stopped_since.map(seconds),
        second_poller: of.metrics.is_second_poller(&of.app),
        requests: of.sent.load(Ordering::Relaxed),
        requests_unused: of.unused(),
        requests_refused: of.refused.load(Ordering::Relaxed),
        requests_rate_limited: of.rate_limited.load(Ordering::Relaxed),
        possibly_lost_ever: of.losses.ever(),
        crash_lost_recently: of.crash_lost_recently(Crash::events),
    }
}

fn rings(of: &PipelineState, now: Instant) -> Vec<Ring> {
    let ring = |(ring, state): (rtm_source::Ring, Arc<RingState>)| {
        let mut history = lock(&state.history);
        let recent = history.recent(now);
        let (age, gap) = (history.age(now), history.gap());
        drop(history);
        let events_per_second = lock(&state.arrivals).now();
        let failure = lock(&state.failure).clone();
        let silence = age.unwrap_or_else(|| state.since.elapsed());
        let crash_lost_recently = of.crash_lost_recently(|crash| crash.events_of(&ring));
        Ring {
            app: of.app.clone(),
            region: ring.region.name().to_owned(),
            stream: ring.stream.as_str().to_owned(),
            paused: of.is_paused(),
            health: Health::of_ring(silence, age.is_some()),
            silence,
            is_new: age.is_none() && !state.has_time,
            events_per_second,
            polls_per_second: recent.polls_per_second,
            last_poll_age_seconds: age.map(|age| age.as_secs_f64()),
            failure,
            last_gap_seconds: gap.map(|gap| gap.as_secs_f64()),
            longest_gap_seconds: recent
                .longest_gap
                .max(age.unwrap_or_default())
                .as_secs_f64(),
            possibly_lost_recently: recent.lost + crash_lost_recently,
            crash_lost_recently,
            overflows_recently: recent.overflows,
            overwritten_recently: recent.overwritten,
            possibly_lost_ever: state.metrics.possibly_lost_ever(),
            events: state.metrics.events_fetched.get(),
            full_pages: state.metrics.full_pages.get(),
            overflows: state.metrics.overflow_suspected.get(),
        }
    };
    of.in_use().into_iter().map(ring).collect()
}

fn outlet(state: &SinkState, reader: Option<&ReaderStats>) -> Outlet {
    let delivery = state.delivery();
    let confirmed_ago = state.confirmed_ago();
    let outlet = Outlet {
        app: state.app(),
        health: delivery.health(),
        delivery,
        confirmed_ago,
        last_confirmation_age_seconds: confirmed_ago.map(|age| age.as_secs_f64()),
        skipped_recently: state.skipped_recently(),
        ..Outlet::default()
    };
    let Some(reader) = reader else { return outlet };
    let tally = Tally::decode(&reader.tally);
    // The first of two copies is published, and what the sink does not take is nobody's loss.
    let is_lost = |reason: &str| !matches!(reason, "copy" | "not_routed");
    let given_up = tally.dropped.iter().filter(|(reason, _)| is_lost(reason));
    let age = reader.oldest_pending_age;
    let of_backlog = Health::of_backlog(age.unwrap_or_default());
    Outlet {
        health: outlet.health.max(of_backlog),
        pending_events: reader.pending_count,
        pending_bytes: reader.pending_bytes,
        oldest_pending_age_seconds: age.map(|age| age.as_secs_f64()),
        confirmed: tally.confirmed,
        dead_lettered: tally.dead_lettered.values().sum(),
        given_up: given_up.map(|(_, events)| events).sum::<u64>() + reader.missing,
        ..outlet
    }
}
