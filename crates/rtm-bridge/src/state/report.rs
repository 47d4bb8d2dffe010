//! What the status page shows, as a document: `/status.json`. `docs/status.md` describes it field by field.
//!
//! Names come from the configuration only; of the configuration only what [`Settings`] allows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::history::{SECONDS, Second};
use super::words::{self, Finding};
use super::{PipelineState, RingState, Settings, State};
use crate::admin::recent::{self, Recent};
use crate::client::Client;
use crate::lock;
use crate::metrics::POLL_OUTCOMES;

/// The version of the document. It grows when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// Over how many seconds a ring's requests are averaged.
const MINUTE: usize = 60;

/// What the bridge does now.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) v: u32,
    pub(super) at: Timestamp,
    pub(super) version: &'static str,
    pub(super) commit: &'static str,
    pub(super) uptime_seconds: f64,
    /// In words, worst first; never empty.
    pub(super) findings: Vec<Finding>,
    pub(super) apps: Vec<App>,
    pub(super) rings: Vec<RingReport>,
    pub(super) budget: Budget,
    pub(super) journal: Journal,
    pub(super) sinks: Vec<SinkReport>,
    /// Warnings and errors, newest first.
    pub(super) recent: Vec<Recent>,
    pub(super) settings: Settings,
}

/// What is said before the bridge runs.
#[derive(Debug, Serialize)]
pub struct Starting {
    v: u32,
    at: Timestamp,
    findings: [Finding; 1],
    recent: Vec<Recent>,
}

impl Starting {
    /// As of now.
    #[must_use]
    pub fn now() -> Starting {
        Starting {
            v: VERSION,
            at: Timestamp::now(),
            findings: [words::starting()],
            recent: recent::all(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) requests_per_second: u32,
    /// Whether the configuration says that it is left alone.
    pub(super) paused: bool,
    /// Since when; none also where it was when the bridge started.
    pub(super) paused_seconds: Option<f64>,
    /// Since when polling waits for room in the journal.
    pub(super) stopped_seconds: Option<f64>,
    pub(super) second_poller: bool,
    /// Of all its rings, also of those that are polled no more.
    pub(super) possibly_lost_ever: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct RingReport {
    pub(super) app: String,
    pub(super) region: String,
    pub(super) stream: &'static str,
    /// As its App ID is.
    pub(super) paused: bool,
    pub(super) events_per_second: f64,
    pub(super) polls_per_second: f64,
    pub(super) last_poll_age_seconds: Option<f64>,
    /// Why the last request failed, until one succeeds.
    pub(super) failure: Option<String>,
    pub(super) last_gap_seconds: Option<f64>,
    pub(super) longest_gap_seconds: f64,
    pub(super) possibly_lost_recently: u64,
    pub(super) overflows_recently: u64,
    pub(super) overwritten_recently: u64,
    pub(super) possibly_lost_ever: u64,
}

/// Where requests went, second by second: of one App ID, or of all.
#[derive(Debug, Serialize)]
pub(super) struct Budget {
    app: Option<String>,
    requests_per_second: u32,
    /// The first second, in seconds since the Unix epoch. The present one, which is not over, is left out.
    began: i64,
    by_outcome: BTreeMap<&'static str, Vec<u32>>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Journal {
    pub(super) bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) free_disk_bytes: Option<u64>,
    pub(super) min_free_disk_bytes: u64,
    pub(super) failing: bool,
}

/// How a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Health {
    Up,
    /// A batch waits, and longer than it should; the bridge does not call the sink down yet.
    Late,
    Down,
}

#[derive(Debug, Serialize)]
pub(super) struct SinkReport {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) health: Health,
    /// Since when a batch waits and nothing was confirmed.
    pub(super) waiting_since: Option<Timestamp>,
    pub(super) waiting_seconds: Option<f64>,
    pub(super) why: Option<String>,
    /// The App IDs for which it is not up, where those are not all.
    pub(super) apps: Vec<String>,
    pub(super) pending_events: u64,
    pub(super) pending_bytes: u64,
    pub(super) oldest_pending_age_seconds: Option<f64>,
    pub(super) last_confirmation: Option<Timestamp>,
    pub(super) last_confirmation_age_seconds: Option<f64>,
    pub(super) skipped_recently: u64,
}

impl State {
    /// What goes on now. The chart is that of `app`, if it is polled, or else of all.
    #[must_use]
    pub fn report(&self, app: Option<&str>) -> Report {
        let now = Instant::now();
        let at = Timestamp::now();
        let mut pipelines: Vec<_> = self.pipelines.values().collect();
        pipelines.sort_by(|a, b| a.app.cmp(&b.app));
        let charted = app.filter(|app| self.pipelines.contains_key(*app));
        let mut budget = Budget {
            app: charted.map(str::to_owned),
            requests_per_second: 0,
            began: 0,
            by_outcome: BTreeMap::new(),
        };
        let mut chart = vec![[0_u32; POLL_OUTCOMES.len()]; SECONDS];
        let mut rings = Vec::new();
        let mut known = SECONDS;
        for pipeline in &pipelines {
            // What a paused App ID used is not measured by what the others may.
            let is_charted = charted.is_none_or(|app| app == pipeline.app) && !pipeline.is_paused();
            if is_charted {
                budget.requests_per_second += lock(&pipeline.budget).per_second;
            }
            for (ring, state) in pipeline.in_use() {
                if pipeline.is_paused() && rtm_planted::bug("bridge-page-hides-paused") {
                    continue;
                }
                let seconds: Vec<Second> = lock(&state.history).seconds(now).collect();
                known = known.min(seconds.len());
                if is_charted {
                    // The newest are those of one moment.
                    for (sum, second) in chart.iter_mut().rev().zip(seconds.iter().rev()) {
                        for (sum, polls) in sum.iter_mut().zip(second.polls) {
                            *sum += u32::from(polls);
                        }
                    }
                }
                let (region, stream) = (ring.region.name(), ring.stream.as_str());
                rings.push(pipeline.ring_report(region, stream, &state, &seconds, now));
            }
        }
        rings.sort_by(|a, b| (&a.app, &a.region, a.stream).cmp(&(&b.app, &b.region, b.stream)));
        let chart = &chart[SECONDS - known..SECONDS - 1];
        budget.began = at.as_second() - chart.len() as i64;
        for (index, outcome) in POLL_OUTCOMES.iter().enumerate() {
            let counts = chart.iter().map(|second| second[index]).collect();
            budget.by_outcome.insert(outcome, counts);
        }
        let settings = Settings::of(&self.running.borrow());
        let stats = self.journal.stats();
        let sinks = self.clients.iter();
        let mut report = Report {
            v: VERSION,
            at,
            version: env!("CARGO_PKG_VERSION"),
            commit: crate::COMMIT,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            findings: Vec::new(),
            apps: pipelines
                .iter()
                .map(|pipeline| pipeline.app_report())
                .collect(),
            rings,
            budget,
            journal: Journal {
                bytes: stats.bytes,
                used_bytes: stats.used_bytes,
                max_bytes: stats.max_bytes,
                free_disk_bytes: stats.free_bytes,
                min_free_disk_bytes: settings.min_free_bytes(),
                failing: stats.failing,
            },
            sinks: sinks
                .map(|client| self.sink_report(client, &settings, &stats, at))
                .collect(),
            recent: recent::all(),
            settings,
        };
        report.findings = words::findings(&report);
        report
    }

    fn sink_report(
        &self,
        client: &Client,
        settings: &Settings,
        stats: &rtm_journal::Stats,
        at: Timestamp,
    ) -> SinkReport {
        let name = client.name();
        let said = client.health();
        let mut report = SinkReport {
            name: name.to_owned(),
            kind: settings.kind(name),
            health: if said.up { Health::Up } else { Health::Down },
            waiting_since: None,
            waiting_seconds: None,
            why: said.said,
            apps: Vec::new(),
            pending_events: 0,
            pending_bytes: 0,
            oldest_pending_age_seconds: None,
            last_confirmation: None,
            last_confirmation_age_seconds: None,
            skipped_recently: 0,
        };
        let mut all = 0;
        let mut waited: Option<Duration> = None;
        for ((app, sink), state) in lock(&self.sinks).iter() {
            if sink != name {
                continue;
            }
            all += 1;
            let is_down = state.why_down().is_some();
            let progress = lock(&state.progress);
            let waiting = progress.waiting_since.map(|since| since.elapsed());
            if let Some((last, events)) = progress.skipped
                && last.elapsed() < Duration::from_secs(SECONDS as u64)
            {
                report.skipped_recently += events;
            }
            let why = progress.held.as_ref().or(progress.error.as_ref());
            let health = if is_down || why.is_some() {
                Health::Down
            } else if waiting.is_some_and(|waiting| waiting >= words::LATE)
                && !rtm_planted::bug("bridge-page-tells-late")
            {
                Health::Late
            } else {
                continue;
            };
            if health == Health::Down || report.health == Health::Up {
                report.health = health;
            }
            report.why = why.cloned().or(report.why);
            report.apps.push(app.clone());
            waited = waited.max(waiting);
        }
        if report.apps.len() == all {
            report.apps.clear();
        }
        report.apps.sort();
        report.waiting_seconds = waited.map(|waited| waited.as_secs_f64());
        report.waiting_since = waited.and_then(|waited| at.checked_sub(waited).ok());
        let confirmations = self
            .pipelines
            .keys()
            .map(|app| self.metrics.sink(app, name).last_confirmation());
        let last = confirmations.fold(0.0, f64::max);
        if last > 0.0 {
            report.last_confirmation = Timestamp::from_millisecond((last * 1000.0) as i64).ok();
            let age = at.as_millisecond() as f64 / 1000.0 - last;
            report.last_confirmation_age_seconds = Some(age.max(0.0));
        }
        let readers = stats.lanes.iter().flat_map(|lane| &lane.readers);
        for reader in readers.filter(|reader| reader.name.as_str() == name) {
            report.pending_events += reader.pending_count;
            report.pending_bytes += reader.pending_bytes;
            let age = reader.oldest_pending_age.map(|age| age.as_secs_f64());
            report.oldest_pending_age_seconds = match (report.oldest_pending_age_seconds, age) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
        }
        report
    }
}

impl PipelineState {
    fn app_report(&self) -> App {
        let stopped = lock(&self.stopped);
        App {
            name: self.app.clone(),
            requests_per_second: lock(&self.budget).per_second,
            paused: self.is_paused(),
            paused_seconds: lock(&self.paused_since).map(|since| since.elapsed().as_secs_f64()),
            stopped_seconds: stopped
                .as_ref()
                .map(|stopped| stopped.since.elapsed().as_secs_f64()),
            second_poller: self.metrics.is_second_poller(&self.app),
            possibly_lost_ever: self.losses.ever(),
        }
    }

    fn ring_report(
        &self,
        region: &str,
        stream: &'static str,
        state: &RingState,
        seconds: &[Second],
        now: Instant,
    ) -> RingReport {
        let over = &seconds[..seconds.len() - 1];
        let minute = &over[over.len().saturating_sub(MINUTE)..];
        let polls: u64 = minute
            .iter()
            .flat_map(|second| second.polls)
            .map(u64::from)
            .sum();
        let sum = |of: fn(&Second) -> u64| seconds.iter().map(of).sum();
        let (age, gap) = {
            let history = lock(&state.history);
            (history.age(now), history.gap())
        };
        let longest = seconds.iter().map(|second| second.gap_ms).max();
        let longest = f64::from(longest.unwrap_or(0)) / 1000.0;
        let age = age.map(|age| age.as_secs_f64());
        RingReport {
            app: self.app.clone(),
            region: region.to_owned(),
            stream,
            paused: self.is_paused(),
            events_per_second: lock(&state.arrivals).now(),
            polls_per_second: polls as f64 / minute.len().max(1) as f64,
            last_poll_age_seconds: age,
            failure: lock(&state.failure).clone(),
            last_gap_seconds: gap.map(|gap| gap.as_secs_f64()),
            // The gap that is not over counts too.
            longest_gap_seconds: longest.max(age.unwrap_or(0.0)),
            possibly_lost_recently: sum(|second| second.lost.into()),
            overflows_recently: sum(|second| second.overflows.into()),
            overwritten_recently: sum(|second| second.overwritten.into()),
            possibly_lost_ever: state.metrics.possibly_lost_ever(),
        }
    }
}

#[cfg(test)]
impl Report {
    /// Of nothing, for the words' tests.
    pub(super) fn empty(settings: Settings) -> Report {
        Report {
            v: VERSION,
            at: Timestamp::UNIX_EPOCH,
            version: "",
            commit: "",
            uptime_seconds: 0.0,
            findings: Vec::new(),
            apps: Vec::new(),
            rings: Vec::new(),
            budget: Budget {
                app: None,
                requests_per_second: 0,
                began: 0,
                by_outcome: BTreeMap::new(),
            },
            journal: Journal::default(),
            sinks: Vec::new(),
            recent: Vec::new(),
            settings,
        }
    }
}
