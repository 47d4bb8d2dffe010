//! What is told of the bridge: readiness, the metrics that are gauges, the line for the service manager, and most of the
//! document `/status.json`, to which the admin endpoint adds what only the program knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::history::SECONDS;
use super::metrics::POLL_OUTCOMES;
use super::pipeline::PipelineState;
use super::snapshot::Snapshot;
use super::state::State;
use super::words::{self, Finding, Level, NotReady};
use crate::lock::lock;

/// The version of the document. It grows when a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// What the bridge does now. `docs/status.md` describes it field by field.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub v: u32,
    /// In words, worst first; never empty.
    pub findings: Vec<Finding>,
    /// What they were judged from.
    #[serde(flatten)]
    pub now: Snapshot,
    /// Where requests went.
    #[serde(default)]
    pub budget: Budget,
}

/// Where requests went, second by second: of one App ID, or of all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    app: Option<String>,
    requests_per_second: u32,
    /// The first second, in seconds since the Unix epoch. The present one, which is not over, is left out.
    began: i64,
    by_outcome: BTreeMap<String, Vec<u32>>,
}

/// Whether data flows.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// Whether it does, except of apps that are paused.
    pub ready: bool,
    /// Apps that are left alone, as the configuration says: no reason not to be ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<String>,
    /// Sinks that left the configuration and that the journal keeps events for; with an App ID's name behind it, a sink that
    /// takes nothing of it any more. No reason not to be ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed_sinks: Vec<String>,
    /// Why it does not.
    pub reasons: Vec<NotReady>,
    /// What is wrong with the configuration that was last read and not taken. The one before it runs: no reason not to be
    /// ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config_refused: Vec<String>,
}

impl Readiness {
    /// Before the bridge runs.
    pub fn starting() -> Readiness {
        Readiness::of(vec![words::starting()], Snapshot::default())
    }

    fn of(findings: Vec<Finding>, now: Snapshot) -> Readiness {
        let paused = now.apps.into_iter().filter(|app| app.paused);
        let removed = now.removed_sinks.into_iter().map(|sink| match sink.app {
            None => sink.name,
            Some(app) => format!("{} ({app})", sink.name),
        });
        let reasons = findings.into_iter().flat_map(|finding| finding.not_ready);
        let mut reasons: Vec<NotReady> = reasons.collect();
        reasons.sort();
        Readiness {
            ready: reasons.is_empty(),
            paused: paused.map(|app| app.name).collect(),
            removed_sinks: removed.collect(),
            reasons,
            config_refused: Vec::new(),
        }
    }
}

impl State {
    /// What goes on now. The chart is that of `app`, if it is polled, or else of all.
    pub fn report(&self, app: Option<&str>) -> Report {
        let now = self.snapshot();
        Report {
            v: VERSION,
            findings: words::findings(&now),
            budget: self.budget(app, now.at),
            now,
        }
    }

    /// Whether data flows.
    pub fn readiness(&self) -> Readiness {
        let now = self.snapshot();
        let findings = words::findings(&now);
        Readiness {
            config_refused: now.config_problems.clone(),
            ..Readiness::of(findings, now)
        }
    }

    /// What goes on, in one line, and what is worst, if anything is wrong.
    pub fn status_line(&self) -> String {
        line(&self.snapshot())
    }

    /// The text for Prometheus, with every gauge set from the state of this moment.
    pub fn render_metrics(&self) -> String {
        let _alone = lock(&self.scrape);
        let stats = self.journal.stats();
        self.metrics.set_journal(&stats);
        let removed = self.removed_sinks(&stats);
        let pending = removed.iter().map(|sink| sink.pending_events);
        self.metrics.set_removed_sinks(pending.sum());
        for (app_id, sink, route) in self.routes() {
            let mut lanes = stats.lanes.iter();
            let lane = lanes.find(|lane| lane.name.as_str() == app_id);
            let mut readers = lane.into_iter().flat_map(|lane| &lane.readers);
            if let Some(reader) = readers.find(|reader| reader.name.as_str() == sink) {
                self.metrics.set_account(&route.app(), reader);
            }
        }
        for (_, pipeline) in self.pipelines() {
            pipeline.collect();
        }
        for sink in self.sinks(&stats, Timestamp::now()) {
            self.metrics
                .set_sink(&sink.name, sink.is_up(), &sink.client);
        }
        self.metrics.render()
    }

    fn budget(&self, app: Option<&str>, at: Timestamp) -> Budget {
        let now = Instant::now();
        let pipelines = self.pipelines();
        let charted = app.filter(|app| pipelines.iter().any(|(_, polled)| polled.app == **app));
        // What a paused App ID used is not measured by what the others may.
        let is_charted =
            |of: &&Arc<PipelineState>| charted.is_none_or(|app| app == of.app) && !of.is_paused();
        let mut requests_per_second = 0;
        let mut chart = vec![[0_u32; POLL_OUTCOMES.len()]; SECONDS];
        let all = pipelines.iter().map(|(_, pipeline)| pipeline);
        for pipeline in all.filter(is_charted) {
            requests_per_second += lock(&pipeline.budget).per_second;
            for (_, ring) in pipeline.in_use() {
                // The newest are those of one moment.
                let mut history = lock(&ring.history);
                for (sum, second) in chart.iter_mut().rev().zip(history.seconds(now).rev()) {
                    for (sum, polls) in sum.iter_mut().zip(second.polls) {
                        *sum += u32::from(polls);
                    }
                }
            }
        }
        let over = self.started.elapsed().as_secs() as usize;
        let chart = &chart[SECONDS - 1 - over.min(SECONDS - 1)..SECONDS - 1];
        let of = |(index, outcome): (usize, &&str)| {
            let counts = chart.iter().map(|second| second[index]).collect();
            ((*outcome).to_owned(), counts)
        };
        Budget {
            app: charted.map(str::to_owned),
            requests_per_second,
            began: at.as_second() - chart.len() as i64,
            by_outcome: POLL_OUTCOMES.iter().enumerate().map(of).collect(),
        }
    }
}

fn line(now: &Snapshot) -> String {
    let rings = now.rings.iter().filter(|ring| !ring.paused).count();
    let polling = match now.is_stopping {
        true => "stopping".to_owned(),
        false => format!("polling {rings} rings"),
    };
    let pending: u64 = now.sinks.iter().map(|sink| sink.pending_events).sum();
    let sinks = now.sinks.iter().map(|sink| {
        let up = if sink.is_up() { "up" } else { "down" };
        format!("{} {up}", sink.name)
    });
    let sinks = sinks.collect::<Vec<_>>().join(", ");
    let findings = words::findings(now);
    let worst = findings.first();
    let worst = worst.filter(|finding| finding.level < Level::Note);
    let worst = worst.map(|finding| format!("; {}", finding.text));
    let line = format!(
        "{polling}; {pending} events pending; {sinks}{}",
        worst.unwrap_or_default()
    );
    // A broker's words may have line breaks, and each line is a message of its own to the service manager.
    line.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests;
