//! What a trial measured and found, and every promise that it broke.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rtm_bridge::read_back::Held;
use rtm_sim::{Findings, Ledger, LedgerPage, SimStats};

use super::accounting;
use super::measured::ages;
use super::places::app_name;
use super::rig::{History, Rig, SHUTDOWN};
use crate::bridge::Metrics;

/// Requests that Agora allows in any second.
const LIMIT: u64 = 10;

/// The most memory that a bridge of a trial may take: 40 MiB or so at rest, and batches of some MiB for each sink that
/// lags; debug builds take more.
const MEMORY_CAP: u64 = 200 << 20;

/// What an App ID of many may take on top.
const MEMORY_PER_APP: u64 = 1 << 20;

/// How many more files than at its start a bridge may have open at the end: connections come and go.
const FILES_MORE: usize = 40;

/// And for each App ID of many: connections to two rings.
const FILES_PER_APP: usize = 2;

/// How long after a kill the simulator may still delete for a request that was under way. The next bridge asks after
/// more than a second.
const UNDER_WAY_MS: u64 = 1_000;

/// A `kill -9` of the bridge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kill {
    /// When it was dead, in milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
}

/// What a trial measured and found.
#[derive(Debug)]
pub struct Report {
    /// What each sink holds, compared with what was handed out; Kafka is the first if it took part.
    pub held: Vec<Held>,
    /// What was handed out.
    pub ledger: Ledger,
    /// The simulator's counts.
    pub stats: SimStats,
    /// Ages at the first sink, append time minus the event's `ms`, sorted, in milliseconds.
    pub ages: Vec<i64>,
    /// CPU seconds of the last bridge process.
    pub cpu_seconds: f64,
    /// The most resident memory of any bridge process, in bytes.
    pub peak_rss: u64,
    /// Upper bound of events lost that the bridges counted, all reasons.
    pub possibly_lost: f64,
    /// From the `kill -9` of a bridge process, or its end after SIGTERM, to the start of its successor.
    pub restarts: Vec<Duration>,
    /// How often the bridge was killed.
    pub kills: usize,
    /// How long a new event took to every sink at the end.
    pub live: Duration,
    /// What people should know.
    pub notes: Vec<String>,
    /// Every promise that was broken, in words.
    pub broken: Vec<String>,
    /// `/metrics` at the end.
    pub metrics_text: String,
    /// The trial's files; [`Report::discard`] removes them.
    pub dir: PathBuf,
}

impl Rig<'_> {
    /// Ends the load, waits until everything has arrived, reads the brokers back and compares.
    ///
    /// # Errors
    ///
    /// When not everything arrives, the bridge does not end well, or something cannot be read. The trial's files stay.
    pub async fn finish(mut self) -> Result<Report> {
        let report = Box::pin(self.finish_in())
            .await
            .context("the quiet phase")?;
        self.finished = report.kept();
        Ok(report)
    }

    async fn finish_in(&mut self) -> Result<Report> {
        let live = Box::pin(self.quiet()).await?;
        let cpu_seconds = self.bridge.process.cpu_seconds()?;
        self.note_peak();
        let files = self.bridge.process.open_files()?;
        let metrics_text = self.bridge.metrics_text().await?;
        std::fs::write(self.dir.path().join("metrics.txt"), &metrics_text)?;
        let metrics = Metrics::parse(&metrics_text)?;
        let status = self.bridge.process.terminate(SHUTDOWN).await?;
        ensure!(status.success(), "the bridge ended with {status}");
        let stats = self.stats().await?;
        let ledger = self.ask("ledger").await?;
        std::fs::write(self.dir.path().join("ledger.ndjson"), &ledger)?;
        let ledger = Ledger::from_ndjson(&ledger[..], stats.rings.clone())?;
        let ledger = match self.backlog.take() {
            Some(backlog) => ages::joined(backlog, ledger),
            None => ledger,
        };
        let held = self.held(&ledger).await?;
        let first = held.first().context("no sink takes part")?;
        let all = first.arrived.values().flatten();
        let mut ages: Vec<i64> = all.map(|arrived| arrived.age()).collect();
        ages.sort_unstable();
        let possibly_lost = accounting::possibly_lost(&metrics)?;
        let apps: Vec<String> = (0..self.places.apps).map(app_name).collect();
        let mut broken = Vec::new();
        for Held { sink, findings, .. } in &held {
            // Two bridges know nothing of each other's pages, and so there is no order between them.
            let order_is_kept = !self.history.second_bridge;
            let judged = Findings {
                out_of_order_count: findings.out_of_order_count * u64::from(order_is_kept),
                ..findings.clone()
            };
            broken.extend(ledger_kept(
                sink,
                &judged,
                &ledger,
                &self.history.kills,
                possibly_lost,
            ));
            if !self.history.second_bridge {
                broken.extend(accounting::equation(&metrics, &apps, sink, findings)?);
            }
        }
        if !self.history.second_bridge {
            broken.extend(rate_kept(&stats));
        }
        broken.extend(overwriting_told(&stats, &self.history, &metrics)?);
        broken.extend(self.bounded(files, &metrics));
        let log = std::fs::read_to_string(self.bridge.process.log())?;
        for (place, text) in [("the log", &log), ("the metrics", &metrics_text)] {
            if tells_secret(text) {
                broken.push(format!("the secret stands in {place}"));
            }
        }
        if self.wire.as_ref().is_some_and(|wire| wire.followed() > 0) {
            broken.push("a redirect was followed".to_owned());
        }
        if broken.is_empty() {
            self.places.remove(self.brokers).await?;
        } else {
            self.places.save(self.brokers, self.dir.path()).await?;
        }
        Ok(Report {
            held,
            ledger,
            stats,
            ages,
            cpu_seconds,
            peak_rss: self.history.peak_rss,
            possibly_lost,
            restarts: std::mem::take(&mut self.history.restarts),
            kills: self.history.kills.len(),
            live,
            notes: std::mem::take(&mut self.history.notes),
            broken,
            metrics_text,
            dir: self.dir.path().to_path_buf(),
        })
    }

    async fn held(&self, ledger: &Ledger) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        for sink in self.places.sink_names(self.brokers) {
            held.push(match (sink, &self.brokers.nats) {
                ("nats", Some(nats)) => self.places.audit_nats(nats, ledger).await?,
                _ => self.places.audit_kafka(&self.brokers.kafka, ledger)?,
            });
        }
        Ok(held)
    }

    fn bounded(&self, files: usize, metrics: &Metrics) -> Vec<String> {
        let mut broken = Vec::new();
        let (files_then, series_then) = self.bounds;
        let series = metrics.iter().count();
        let more = self.places.apps - 1;
        if self.history.peak_rss > MEMORY_CAP + MEMORY_PER_APP * more as u64 {
            broken.push(format!("{} MiB of memory", self.history.peak_rss >> 20));
        }
        if files > files_then + FILES_MORE + FILES_PER_APP * more {
            broken.push(format!("{files} files open, {files_then} at the start"));
        }
        if series != series_then {
            broken.push(format!("{series} series, {series_then} at the start"));
        }
        broken
    }
}

/// Nothing missing but what a kill excuses, nothing invented, altered or out of order, and the loss counted.
pub(super) fn ledger_kept(
    sink: &str,
    findings: &Findings,
    ledger: &Ledger,
    kills: &[Kill],
    possibly_lost: f64,
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut lost = findings.lost_at_source;
    for page in &findings.pages_missing {
        let of_ring = |other: &&LedgerPage| {
            (&other.app_id, &other.region, other.stream)
                == (&page.app_id, &page.region, page.stream)
        };
        let deleted_at = |serial: u64| {
            let mut pages = ledger.pages.iter().filter(of_ring);
            pages
                .find(|other| other.serial == serial)
                .map(|page| page.deleted_at_ms)
        };
        // A page is stored whole or not at all; and only the last page of a ring before a kill was under way.
        let under_way = |kill: &Kill| {
            let end = u64::try_from(kill.at_ms).unwrap_or_default() + UNDER_WAY_MS;
            deleted_at(page.serial).is_some_and(|at| at <= end)
                && deleted_at(page.serial + 1).is_none_or(|at| at > end)
        };
        if page.missing == page.required && kills.iter().any(under_way) {
            lost += page.missing;
        } else {
            broken.push(format!(
                "{sink}: {} of {} events missing of page {} of {} {}",
                page.missing,
                page.required,
                page.serial,
                page.region,
                page.stream.as_str()
            ));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    if lost as f64 > possibly_lost {
        broken.push(format!(
            "{sink}: {lost} events lost, and only {possibly_lost} counted as possibly lost"
        ));
    }
    if findings.dead_lettered_sound > 0 {
        broken.push(format!(
            "{sink}: {} dead letters are events with clear ids",
            findings.dead_lettered_sound
        ));
    }
    let rest = Findings {
        missing_count: 0,
        ..findings.clone()
    };
    if !rest.clean() {
        broken.push(format!("{sink}: not what was handed out:\n{findings}"));
    }
    broken
}

fn rate_kept(stats: &SimStats) -> Vec<String> {
    let mut broken = Vec::new();
    for app in &stats.apps {
        if app.max_in_second > LIMIT {
            broken.push(format!("{} requests in a second", app.max_in_second));
        }
        if app.refused_429 > 0 {
            broken.push(format!("{} requests refused with 429", app.refused_429));
        }
    }
    broken
}

/// Whether a text holds the secret, plain or as it is sent.
fn tells_secret(text: &str) -> bool {
    // base64 of `demo-key:demo-secret`.
    text.contains("demo-secret") || text.contains("ZGVtby1rZXk6ZGVtby1zZWNyZXQ")
}

/// Rings run over only where polling was kept from happening, and then the bridge says so.
fn overwriting_told(stats: &SimStats, history: &History, metrics: &Metrics) -> Result<Vec<String>> {
    let overwritten: u64 = stats.rings.iter().map(|ring| ring.overwritten).sum();
    let mut broken = Vec::new();
    if overwritten == 0 {
        return Ok(broken);
    }
    if !history.may_overwrite {
        broken.push(format!("{overwritten} events overwritten at the source"));
    }
    // Neither count survives a restart.
    if !history.restarts.is_empty() {
        return Ok(broken);
    }
    let suspected = metrics.sum("rtm_bridge_overflow_suspected_total", &[])?;
    if !history.unsent && suspected == 0.0 {
        broken.push(format!(
            "{overwritten} events overwritten at the source, and no overflow suspected"
        ));
    }
    let stopped = metrics.sum("rtm_bridge_polling_stopped_seconds_total", &[])?;
    if history.disk_filled && stopped == 0.0 {
        broken.push(format!(
            "{overwritten} events overwritten while the disk was full, and polling not said to have stopped"
        ));
    }
    Ok(broken)
}

impl Report {
    /// Whether every promise was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.broken.is_empty()
    }

    /// What the first sink holds, which is Kafka if it took part.
    ///
    /// # Panics
    ///
    /// Never: a trial without a sink has no report.
    #[must_use]
    pub fn first(&self) -> &Findings {
        &self.held[0].findings
    }

    /// Removes the trial's files.
    ///
    /// # Errors
    ///
    /// When they cannot be removed.
    pub fn discard(&self) -> Result<()> {
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }

    /// The value below which `share` of the ages are, in milliseconds.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index into ages"
    )]
    pub fn age(&self, share: f64) -> i64 {
        let index = (self.ages.len() as f64 * share) as usize;
        self.ages
            .get(index.min(self.ages.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// CPU seconds of the bridge for a million events.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    pub fn cpu_per_million(&self) -> f64 {
        self.cpu_seconds * 1e6 / (self.first().handed_out.max(1) as f64)
    }

    /// The most requests in any second.
    #[must_use]
    pub fn most_in_second(&self) -> u64 {
        self.stats
            .apps
            .iter()
            .map(|app| app.max_in_second)
            .max()
            .unwrap_or_default()
    }

    /// Events that rings overwrote.
    #[must_use]
    pub fn overwritten(&self) -> u64 {
        self.stats.rings.iter().map(|ring| ring.overwritten).sum()
    }

    /// Events that were lost in truth: at the source, and by kills.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let of = |findings: &Findings| findings.lost_at_source + findings.missing_count;
        let all = self.held.iter().map(|held| of(&held.findings));
        all.max().unwrap_or_default()
    }

    /// What matters, on one line.
    #[must_use]
    pub fn line(&self) -> String {
        let slowest = self.restarts.iter().max().copied().unwrap_or_default();
        let restarts = match self.restarts.len() {
            0 => String::new(),
            count => format!(", {count} restarts within {:.3} s", slowest.as_secs_f64()),
        };
        format!(
            "{} events, {} dead letters, {} overwritten, lost {} of {} counted, {} duplicates, {} requests/s at most{restarts}, {} MiB",
            self.first().handed_out,
            self.first().dead_lettered,
            self.overwritten(),
            self.lost(),
            self.possibly_lost,
            self.held
                .iter()
                .map(|held| held.findings.duplicates)
                .sum::<u64>(),
            self.most_in_second(),
            self.peak_rss >> 20
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for held in &self.held {
            writeln!(f, "{}, read back:\n{}", held.sink, held.findings)?;
        }
        writeln!(
            f,
            "age at the broker       p50 {} ms, p99 {} ms, most {} ms",
            self.age(0.5),
            self.age(0.99),
            self.age(1.0)
        )?;
        writeln!(
            f,
            "requests in any second  {} at most",
            self.most_in_second()
        )?;
        writeln!(f, "overwritten at source   {}", self.overwritten())?;
        writeln!(f, "possibly lost, counted  {}", self.possibly_lost)?;
        if let Some(slowest) = self.restarts.iter().max() {
            writeln!(
                f,
                "restarts                {}, {} of them after a kill, the slowest within {:.3} s",
                self.restarts.len(),
                self.kills,
                slowest.as_secs_f64()
            )?;
        }
        writeln!(
            f,
            "a new event, at the end {:.2} s to every sink",
            self.live.as_secs_f64()
        )?;
        // The figures are of the last process, the events of all.
        if self.restarts.is_empty() {
            writeln!(
                f,
                "CPU                     {:.2} s, {:.1} s per million events",
                self.cpu_seconds,
                self.cpu_per_million()
            )?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        write!(f, "peak memory             {} MiB", self.peak_rss >> 20)
    }
}

#[cfg(test)]
mod tests;
