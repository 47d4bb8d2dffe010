//! What is told of the bridge: readiness, the metrics that are gauges, the line for the service manager, and most of the
//! document `/status.json`, to which the admin endpoint adds what only the program knows.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::State;
use super::history::{SECONDS, Second};
use super::snapshot::Snapshot;
use super::words::{self, Finding, Level, NotReady};
use crate::lock;
use crate::metrics::POLL_OUTCOMES;

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

/// What is said before the bridge runs.
#[derive(Debug, Serialize)]
pub struct Starting {
    v: u32,
    at: Timestamp,
    findings: [Finding; 1],
}

impl Starting {
    /// As of now.
    #[must_use]
    pub fn now() -> Starting {
        Starting {
            v: VERSION,
            at: Timestamp::now(),
            findings: [words::starting()],
        }
    }
}

/// Whether data flows.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// Whether it does, except of apps that are paused.
    pub ready: bool,
    /// Apps that are left alone, as the configuration says: no reason not to be ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<String>,
    /// Why it does not.
    pub reasons: Vec<NotReady>,
}

impl Readiness {
    /// Before the bridge runs.
    #[must_use]
    pub fn starting() -> Readiness {
        Readiness::of(vec![words::starting()], Vec::new())
    }

    fn of(findings: Vec<Finding>, paused: Vec<String>) -> Readiness {
        let reasons = findings.into_iter().flat_map(|finding| finding.not_ready);
        let mut reasons: Vec<NotReady> = reasons.collect();
        reasons.sort();
        Readiness {
            ready: reasons.is_empty(),
            paused,
            reasons,
        }
    }
}

impl State {
    /// What goes on now. The chart is that of `app`, if it is polled, or else of all.
    #[must_use]
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
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let now = self.snapshot();
        let findings = words::findings(&now);
        let paused = now.apps.into_iter().filter(|app| app.paused);
        Readiness::of(findings, paused.map(|app| app.name).collect())
    }

    /// What goes on, in one line, and what is worst, if anything is wrong.
    #[must_use]
    pub fn status_line(&self) -> String {
        let now = self.snapshot();
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
        let findings = words::findings(&now).into_iter();
        let worst = findings
            .filter(|finding| finding.level < Level::Note)
            .next();
        let worst = worst.map(|finding| format!("; {}", finding.text));
        let line = format!(
            "{polling}; {pending} events pending; {sinks}{}",
            worst.unwrap_or_default()
        );
        // A broker's words may have line breaks, and each line is a message of its own to the service manager.
        line.replace(char::is_control, " ")
    }

    /// The text for Prometheus, with every gauge set from the state of this moment.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        let stats = self.journal.stats();
        self.metrics.set_journal(&stats);
        for lane in &stats.lanes {
            // An App ID that left the configuration has no account.
            let app = self.app_of.get(lane.name.as_str());
            let Some(app) = app.filter(|app| self.pipelines.contains_key(*app)) else {
                continue;
            };
            for reader in &lane.readers {
                // A sink's second cursor holds nothing of its own.
                if !reader.name.as_str().ends_with(crate::assemble::BEHIND) {
                    self.metrics.set_account(app, reader);
                }
            }
        }
        for pipeline in self.pipelines.values() {
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
        let charted = app.filter(|app| self.pipelines.contains_key(*app));
        let mut requests_per_second = 0;
        let mut chart = vec![[0_u32; POLL_OUTCOMES.len()]; SECONDS];
        let mut known = SECONDS;
        for pipeline in self.pipelines.values() {
            // What a paused App ID used is not measured by what the others may.
            let is_charted = charted.is_none_or(|app| app == pipeline.app) && !pipeline.is_paused();
            if is_charted {
                requests_per_second += lock(&pipeline.budget).per_second;
            }
            for (_, ring) in pipeline.in_use() {
                let seconds: Vec<Second> = lock(&ring.history).seconds(now).collect();
                known = known.min(seconds.len());
                if is_charted {
                    // The newest are those of one moment.
                    for (sum, second) in chart.iter_mut().rev().zip(seconds.iter().rev()) {
                        for (sum, polls) in sum.iter_mut().zip(second.polls) {
                            *sum += u32::from(polls);
                        }
                    }
                }
            }
        }
        let chart = &chart[SECONDS - known..SECONDS - 1];
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
