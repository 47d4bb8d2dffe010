//! What goes on at one moment, as plain values: what is wrong is judged from them, and they are most of `/status.json`,
//! where `docs/status.md` describes each field. Names come from the configuration only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rtm_journal::{ReaderStats, Stats};
use serde::{Deserialize, Serialize};

use super::State;
use super::health::{Delivery, Health};
use super::pipeline::{PipelineState, RingState};
use super::sink::SinkState;
use crate::client::Client;
use crate::lock;

use crate::tally::Tally;

/// What goes on at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The moment.
    pub at: Timestamp,
    /// Since the bridge started to poll.
    pub uptime_seconds: f64,
    /// Whether the bridge is about to end.
    #[serde(skip)]
    pub is_stopping: bool,
    /// By name.
    pub apps: Vec<App>,
    /// By name: those that are polled, or would be if their App ID were not paused.
    pub rings: Vec<Ring>,
    /// The journal.
    pub journal: Journal,
    /// As they are configured.
    pub sinks: Vec<Sink>,
}

/// An App ID. Counts are since the start unless they are `ever`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    /// From the configuration.
    pub name: String,
    /// The limit.
    pub requests_per_second: u32,
    /// Whether the configuration says that it is left alone.
    pub paused: bool,
    /// Since when; none also where it was when the bridge started.
    pub paused_seconds: Option<f64>,
    /// Since when polling waits for room in the journal.
    pub stopped_seconds: Option<f64>,
    /// Whether someone else seems to read its events.
    pub second_poller: bool,
    /// Requests that were sent.
    pub requests: u64,
    /// Requests that the limit allowed and that were not sent.
    pub requests_unused: u64,
    /// Requests that Agora refused.
    pub requests_refused: u64,
    /// Of these, with status 429.
    pub requests_rate_limited: u64,
    /// Of all its rings, also of those that are polled no more.
    pub possibly_lost_ever: u64,
}

/// One region's store of one stream. Counts are since the start unless their names say otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ring {
    /// Its App ID's name.
    pub app: String,
    /// Its region's name.
    pub region: String,
    /// `user` or `channel`.
    pub stream: String,
    /// As its App ID is.
    pub paused: bool,
    /// Says nothing of a ring that is paused.
    pub health: Health,
    /// Since the last successful poll, or since polling of it began.
    #[serde(skip)]
    pub silence: Duration,
    /// Whether no poll has ever succeeded since the region was configured.
    #[serde(skip)]
    pub is_new: bool,
    /// Events that arrive, estimated.
    pub events_per_second: f64,
    /// Over the last minute.
    pub polls_per_second: f64,
    /// Since the last successful poll.
    pub last_poll_age_seconds: Option<f64>,
    /// Why the last request failed, until one succeeds.
    pub failure: Option<String>,
    /// Between the last two successful polls.
    pub last_gap_seconds: Option<f64>,
    /// The longest recently, that which is not over included.
    pub longest_gap_seconds: f64,
    /// Events.
    pub possibly_lost_recently: u64,
    /// Times that it was full.
    pub overflows_recently: u64,
    /// Events, estimated.
    pub overwritten_recently: u64,
    /// Events, across restarts.
    pub possibly_lost_ever: u64,
    /// Events that were stored.
    pub events: u64,
    /// Responses of 1,000 events.
    pub full_pages: u64,
    /// Times that it was full.
    pub overflows: u64,
}

/// The journal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Journal {
    /// Its files.
    pub bytes: u64,
    /// What counts as taken of `max_bytes`.
    pub used_bytes: u64,
    /// Its limit.
    pub max_bytes: u64,
    /// Free on its disk; none where that cannot be told.
    pub free_disk_bytes: Option<u64>,
    /// Of that, what is left alone.
    pub min_free_disk_bytes: u64,
    /// Whether the last write failed.
    pub failing: bool,
    /// Writes since the start, each with a sync.
    pub syncs: u64,
    /// What these took, all together.
    pub syncs_seconds: f64,
}

/// A sink, for all App IDs together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sink {
    /// From the configuration.
    pub name: String,
    /// `kafka`, `nats`, `file`, `stdout`.
    pub kind: String,
    /// What people call it.
    #[serde(skip)]
    pub title: String,
    /// The worst of its client's and its App IDs'.
    pub health: Health,
    /// What its client says of itself.
    #[serde(skip)]
    pub client: rtm_sink::Health,
    /// Since when a batch waits and nothing was confirmed, where it is not up.
    pub waiting_since: Option<Timestamp>,
    /// As an age.
    pub waiting_seconds: Option<f64>,
    /// What the broker or its client said.
    pub why: Option<String>,
    /// The App IDs for which it is not up, where those are not all.
    pub apps: Vec<String>,
    /// Events.
    pub pending_events: u64,
    /// In the journal.
    pub pending_bytes: u64,
    /// How long the oldest event has waited.
    pub oldest_pending_age_seconds: Option<f64>,
    /// When something was last confirmed.
    pub last_confirmation: Option<Timestamp>,
    /// As an age.
    pub last_confirmation_age_seconds: Option<f64>,
    /// Events, since the start; 0 where none were given up recently.
    pub skipped_recently: u64,
    /// The ways of App IDs into it, by name.
    pub outlets: Vec<Outlet>,
}

/// One App ID's way into one sink. Counts are of events, across restarts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outlet {
    /// Its App ID's name.
    pub app: String,
    /// The worst of the sink's client's and of its own batch's.
    pub health: Health,
    /// The batch that is being published.
    #[serde(skip)]
    pub delivery: Delivery,
    /// Not yet confirmed.
    pub pending_events: u64,
    /// In the journal.
    pub pending_bytes: u64,
    /// How long the oldest event has waited.
    pub oldest_pending_age_seconds: Option<f64>,
    /// When something was last confirmed, as an age.
    pub last_confirmation_age_seconds: Option<f64>,
    /// Confirmed, dead letters aside.
    pub confirmed: u64,
    /// Dead letters.
    pub dead_lettered: u64,
    /// Given up for good; copies that the configuration drops aside.
    pub given_up: u64,
    /// Given up because the journal is full, since the start; 0 where none were recently.
    #[serde(skip)]
    pub skipped_recently: u64,
}

impl State {
    /// What goes on now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (now, at) = (Instant::now(), Timestamp::now());
        let stats = self.journal.stats();
        let mut pipelines: Vec<_> = self.pipelines.values().collect();
        pipelines.sort_by(|a, b| a.app.cmp(&b.app));
        let mut rings: Vec<Ring> = pipelines
            .iter()
            .filter(|pipeline| {
                !(pipeline.is_paused() && rtm_planted::bug("bridge-page-hides-paused"))
            })
            .flat_map(|pipeline| rings(pipeline, now))
            .collect();
        rings.sort_by(|a, b| (&a.app, &a.region, &a.stream).cmp(&(&b.app, &b.region, &b.stream)));
        let (syncs, syncs_seconds) = self.metrics.journal_commits();
        Snapshot {
            at,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            is_stopping: self.is_stopping(),
            apps: pipelines
                .into_iter()
                .map(|pipeline| app(pipeline))
                .collect(),
            rings,
            journal: Journal {
                bytes: stats.bytes,
                used_bytes: stats.used_bytes,
                max_bytes: stats.max_bytes,
                free_disk_bytes: stats.free_bytes,
                min_free_disk_bytes: stats.min_free_bytes,
                failing: stats.failing,
                syncs,
                syncs_seconds,
            },
            sinks: self.sinks(&stats, at),
        }
    }

    /// How the sinks are, of which the journal says `stats`.
    pub(super) fn sinks(&self, stats: &Stats, at: Timestamp) -> Vec<Sink> {
        let mut readers = HashMap::new();
        for lane in &stats.lanes {
            let Some(app) = self.app_of.get(lane.name.as_str()) else {
                continue;
            };
            for reader in &lane.readers {
                readers.insert((app.as_str(), reader.name.as_str()), reader);
            }
        }
        let mut outlets: BTreeMap<String, Vec<Outlet>> = BTreeMap::new();
        for ((app, sink), state) in lock(&self.sinks).iter() {
            let reader = readers.get(&(app.as_str(), sink.as_str()));
            let outlet = outlet(app, state, reader.copied());
            outlets.entry(sink.clone()).or_default().push(outlet);
        }
        self.clients
            .iter()
            .map(|client| {
                let mut outlets = outlets.remove(client.name()).unwrap_or_default();
                outlets.sort_by(|a, b| a.app.cmp(&b.app));
                Sink::new(client, outlets, at)
            })
            .collect()
    }
}

impl Sink {
    fn new(client: &Client, mut outlets: Vec<Outlet>, at: Timestamp) -> Sink {
        let said = client.health();
        let of_client = if said.up { Health::Up } else { Health::Down };
        let off = || outlets.iter().filter(|outlet| outlet.health != Health::Up);
        let apps = match off().count() == outlets.len() {
            true => Vec::new(),
            false => off().map(|outlet| outlet.app.clone()).collect(),
        };
        let waiting = off().filter_map(|outlet| outlet.delivery.waiting).max();
        let why = off().find_map(|outlet| outlet.delivery.trouble.as_ref());
        let confirmed = outlets.iter();
        let confirmed = confirmed.filter_map(|outlet| outlet.last_confirmation_age_seconds);
        let confirmed = confirmed.reduce(f64::min);
        let oldest = outlets.iter();
        let oldest = oldest.filter_map(|outlet| outlet.oldest_pending_age_seconds);
        let sum = |of: fn(&Outlet) -> u64| outlets.iter().map(of).sum();
        let sink = Sink {
            name: client.name().to_owned(),
            kind: client.kind_name().to_owned(),
            title: client.title().to_owned(),
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
            last_confirmation: confirmed.and_then(|age| before(at, age)),
            last_confirmation_age_seconds: confirmed,
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
    #[must_use]
    pub fn is_up(&self) -> bool {
        let is_overdue = |outlet: &Outlet| outlet.delivery.is_overdue();
        self.client.up && !self.outlets.iter().any(is_overdue)
    }
}

/// So many seconds before `at`.
pub(super) fn before(at: Timestamp, seconds: f64) -> Option<Timestamp> {
    at.checked_sub(Duration::try_from_secs_f64(seconds).ok()?)
        .ok()
}

fn app(of: &PipelineState) -> App {
    let seconds = |since: Instant| since.elapsed().as_secs_f64();
    App {
        name: of.app.clone(),
        requests_per_second: lock(&of.budget).per_second,
        paused: of.is_paused(),
        paused_seconds: lock(&of.paused_since).map(seconds),
        stopped_seconds: lock(&of.stopped)
            .as_ref()
            .map(|stopped| seconds(stopped.since)),
        second_poller: of.metrics.is_second_poller(&of.app),
        requests: of.sent.load(Ordering::Relaxed),
        requests_unused: of.unused(),
        requests_refused: of.refused.load(Ordering::Relaxed),
        requests_rate_limited: of.rate_limited.load(Ordering::Relaxed),
        possibly_lost_ever: of.losses.ever(),
    }
}

fn rings(of: &PipelineState, now: Instant) -> Vec<Ring> {
    let ring = |(ring, state): (rtm_source::Ring, Arc<RingState>)| {
        let mut history = lock(&state.history);
        let recent = history.recent(now);
        let (age, gap) = (history.age(now), history.gap());
        drop(history);
        let silence = age.unwrap_or_else(|| state.since.elapsed());
        Ring {
            app: of.app.clone(),
            region: ring.region.name().to_owned(),
            stream: ring.stream.as_str().to_owned(),
            paused: of.is_paused(),
            health: Health::of_ring(silence, age.is_some()),
            silence,
            is_new: age.is_none() && !state.answered_before,
            events_per_second: lock(&state.arrivals).now(),
            polls_per_second: recent.polls_per_second,
            last_poll_age_seconds: age.map(|age| age.as_secs_f64()),
            failure: lock(&state.failure).clone(),
            last_gap_seconds: gap.map(|gap| gap.as_secs_f64()),
            longest_gap_seconds: recent
                .longest_gap
                .max(age.unwrap_or_default())
                .as_secs_f64(),
            possibly_lost_recently: recent.lost,
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

fn outlet(app: &str, state: &SinkState, reader: Option<&ReaderStats>) -> Outlet {
    let delivery = state.delivery();
    let confirmed = state.last_confirmation_age();
    let outlet = Outlet {
        app: app.to_owned(),
        health: delivery.health(),
        delivery,
        last_confirmation_age_seconds: confirmed.map(|age| age.as_secs_f64()),
        skipped_recently: state.skipped_recently(),
        ..Outlet::default()
    };
    let Some(reader) = reader else { return outlet };
    let tally = Tally::decode(&reader.tally);
    let given_up = tally.dropped.iter().filter(|(reason, _)| *reason != "copy");
    let age = reader.oldest_pending_age.map(|age| age.as_secs_f64());
    Outlet {
        pending_events: reader.pending_count,
        pending_bytes: reader.pending_bytes,
        oldest_pending_age_seconds: age,
        confirmed: tally.confirmed,
        dead_lettered: tally.dead_lettered.values().sum(),
        given_up: given_up.map(|(_, events)| events).sum::<u64>() + reader.missing,
        ..outlet
    }
}
