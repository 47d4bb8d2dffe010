//! A busy App ID, while other App IDs and a sink come, change and go by reload: it is to notice nothing.
//!
//! The configuration at the end names all that ever came, so that the whole account of each App ID can be looked at: the
//! journal keeps the counts of what has gone.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rtm_bridge::read_back::{self, Held, Reading};
use rtm_bridge::sinks;
use rtm_sim::{Findings, Stream};

use super::ages::{self, Ages};
use super::apps::{both, older};
use super::feeder::{Fed, Feeder};
use super::fresh::at_sink;
use super::{Figure, Run};
use crate::bridge::Metrics;
use crate::trial::accounting;
use crate::trial::places::{self, APP, REGIONS, app_id, app_name};
use crate::trial::{Brokers, Report, Rig, Setup, Sinks};
use crate::wait_for;

/// App IDs that come and go.
const OTHERS: usize = 20;

/// Events a second of each of their rings, polled or not. A ring keeps 2,000 of them.
const RATE: f64 = 2.0;

/// How much older the busy one's events may be than undisturbed ones: at the median, and at the 99th percentile.
const OLDER: [f64; 2] = [1.1, 1.25];

/// The sink that comes and goes, and its file.
const SINK: &str = "late";
const FILE: &str = "late.ndjson";

/// How long a change may take to show, and how often it is looked for: a look costs the bridge some milliseconds.
const SOON: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(250);

/// `rate` events a second on one App ID for `time`, undisturbed and then with changes all around it.
///
/// # Errors
///
/// When the trial cannot be run, or a change does not show.
pub async fn changes(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Run> {
    let calm = Box::pin(busy(brokers, rate, time, false)).await?;
    let mut changed = Box::pin(busy(brokers, rate, time, true)).await?;
    let name = |name: &str| format!("busy one: {name}");
    let mut figures = older(&name, calm.ages(), changed.ages(), OLDER);
    #[expect(clippy::cast_precision_loss, reason = "figures")]
    if let Some(changes) = &changed.changes {
        let late = late_held(&changed.report)?;
        let broken = accounts(&changed.report, &late, changes.sink_since_ms)?;
        figures.extend([
            Figure::told("configurations taken", f64::from(changes.taken)),
            Figure::told("duplicates", duplicates(&changed.report, &late) as f64),
            Figure::never_over("accounts that do not balance", broken.len() as f64, 0.0),
        ]);
        changed.report.broken.extend(broken);
    }
    both(figures, &calm.report, &changed.report)
}

/// What the busy App ID came to.
struct Ran {
    report: Report,
    fetch: Ages,
    kafka: Ages,
    /// What went on around it.
    changes: Option<Changes>,
}

impl Ran {
    fn ages(&self) -> [&Ages; 2] {
        [&self.fetch, &self.kafka]
    }
}

async fn busy(brokers: &mut Brokers, rate: f64, time: Duration, is_disturbed: bool) -> Result<Ran> {
    let setup = Setup {
        apps_later: OTHERS,
        sinks: Sinks::Kafka,
        ..Setup::default()
    };
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    let feed = |rig: &Rig<'_>, numbers: std::ops::RangeInclusive<usize>, rate: f64| {
        let ring = |number, stream| Fed {
            app_id: app_id(number),
            region: REGIONS[0].to_owned(),
            stream,
            rate,
        };
        let rings = numbers.flat_map(|number| Stream::ALL.map(|stream| ring(number, stream)));
        Feeder::start(&rig.http, &rig.simulator.url, rings.collect(), u64::MAX)
    };
    let until = Instant::now() + time;
    let feeder = feed(&rig, 0..=0, rate / 2.0);
    let changes = if is_disturbed {
        // Apart from the busy one's, so that those do not wait for forty requests.
        let others = feed(&rig, 1..=OTHERS, RATE);
        let changes = Box::pin(Changes::go_on(&mut rig, &setup, until)).await?;
        others.finish(true).await?;
        Some(changes)
    } else {
        tokio::time::sleep_until(until.into()).await;
        None
    };
    feeder.finish(true).await?;
    let until_ms = jiff::Timestamp::now().as_millisecond().unsigned_abs();
    let report = Box::pin(rig.finish()).await?;
    Ok(Ran {
        fetch: ages::at_fetch(&report.ledger, |page| {
            page.app_id == app_id(0) && page.deleted_at_ms <= until_ms
        }),
        kafka: at_sink(&report, |name| name == APP),
        report,
        changes,
    })
}

/// What went on.
struct Changes {
    /// Configurations that were taken.
    taken: u32,
    /// When the sink was there for the first time, in milliseconds since the Unix epoch.
    sink_since_ms: u64,
}

/// How the other App IDs stand in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    None,
    /// All of them.
    All,
    /// All of them, half of them with another name, and the others with a smaller budget.
    Changed,
}

impl Others {
    /// The names that they go by.
    fn names(self) -> Vec<String> {
        match self {
            Others::None => Vec::new(),
            Others::All => (1..=OTHERS).map(app_name).collect(),
            Others::Changed => (1..=OTHERS).map(changed_name).collect(),
        }
    }
}

fn is_renamed(number: usize) -> bool {
    number % 2 == 1
}

fn changed_name(number: usize) -> String {
    if is_renamed(number) {
        format!("renamed-{number}")
    } else {
        app_name(number)
    }
}

impl Changes {
    /// Changes the configuration until `until`, the rounds whole, and ends with all App IDs and the sink in it. Each change is
    /// waited for until it shows.
    async fn go_on(rig: &mut Rig<'_>, setup: &Setup, until: Instant) -> Result<Changes> {
        let first = std::fs::read_to_string(&rig.places.config)?;
        let series_alone = rig.bounds.1;
        let mut changes = Changes {
            taken: 0,
            sink_since_ms: 0,
        };
        loop {
            for (others, with_sink) in [
                (Others::All, false),
                (Others::All, true),
                (Others::Changed, true),
                (Others::Changed, false),
                (Others::None, false),
            ] {
                changes.take(rig, setup, &first, others, with_sink).await?;
            }
            // What has gone leaves no series behind.
            shows(rig, "the series of the busy one alone", |metrics| {
                Ok(metrics.iter().count() == series_alone)
            })
            .await?;
            if Instant::now() >= until {
                break;
            }
        }
        changes.take(rig, setup, &first, Others::All, true).await?;
        // From here on the trial is one of so many App IDs.
        rig.places.apps += OTHERS;
        rig.bounds.1 = rig.bridge.metrics().await?.iter().count();
        Ok(changes)
    }

    /// Has the bridge take a configuration, and waits until it does as that says.
    async fn take(
        &mut self,
        rig: &mut Rig<'_>,
        setup: &Setup,
        first: &str,
        others: Others,
        with_sink: bool,
    ) -> Result<()> {
        let text = text(rig, setup, first, others, with_sink);
        let config = rig.places.config.clone();
        let before = confirmed(&rig.bridge.metrics().await?).unwrap_or_default();
        rig.bridge
            .reload(|| places::replace(&config, &text))
            .await?;
        self.taken += 1;
        if with_sink && self.sink_since_ms == 0 {
            self.sink_since_ms = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        }
        let what = format!("{others:?}, and the sink: {with_sink}");
        shows(rig, &what, |metrics| {
            for name in others.names() {
                let polls = metrics.sum("rtm_bridge_polls_total", &[("app", &name)])?;
                if polls == 0.0 {
                    return Ok(false);
                }
            }
            Ok(match confirmed(metrics) {
                Ok(now) => with_sink && now > before,
                Err(_) => !with_sink,
            })
        })
        .await
    }
}

/// What the sink that comes and goes has confirmed of the busy App ID.
fn confirmed(metrics: &Metrics) -> Result<f64> {
    let labels = [("app", APP), ("sink", SINK)];
    metrics.sum("rtm_bridge_records_confirmed_total", &labels)
}

async fn shows(rig: &Rig<'_>, what: &str, holds: impl Fn(&Metrics) -> Result<bool>) -> Result<()> {
    wait_for(what, SOON, async || {
        tokio::time::sleep(LOOK).await;
        let metrics = rig.bridge.metrics().await;
        metrics.is_ok_and(|metrics| holds(&metrics).unwrap_or(false))
    })
    .await
}

/// A configuration, behind the one that the trial began with.
fn text(rig: &Rig<'_>, setup: &Setup, first: &str, others: Others, with_sink: bool) -> String {
    let mut text = first.to_owned();
    for (number, name) in (1..).zip(others.names()) {
        text += &rig
            .places
            .app_section(number, &name, &rig.simulator.url, setup);
        if others == Others::Changed && !is_renamed(number) {
            text += "requests_per_second = 5\n";
        }
        text.push('\n');
    }
    if with_sink {
        let file = rig.dir().join(FILE);
        let _ = writeln!(
            text,
            "[sinks.{SINK}]\ntype = \"file\"\npath = \"{}\"",
            file.display()
        );
    }
    text
}

/// What the sink that came and went holds.
fn late_held(report: &Report) -> Result<Held> {
    let ledger = read_back::as_lines(&report.ledger);
    let mut reading = Reading::new(&ledger);
    sinks::file::read_back(&report.dir.join(FILE), |stored| reading.observe(stored))
        .context("read the late sink's file")?;
    Ok(reading.finish(SINK))
}

/// Each App ID's account: all that it was handed out is confirmed by Kafka, and all since the late sink was there by that
/// one too. Says what does not hold.
fn accounts(report: &Report, late: &Held, since_ms: u64) -> Result<Vec<String>> {
    let metrics = Metrics::parse(&report.metrics_text)?;
    let names: Vec<String> = (0..=OTHERS).map(app_name).collect();
    let mut broken = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let app_id = app_id(number);
        let pages = report.ledger.pages.iter();
        let own = pages.filter(|page| page.app_id == app_id);
        let handed_out = own.map(|page| page.events.len() as u64).sum();
        ensure!(handed_out > 0, "{name} was handed out nothing");
        broken.extend(accounting::whole(&metrics, name, "kafka", handed_out)?);
    }
    broken.extend(accounting::equation(
        &metrics,
        &names,
        SINK,
        &late.findings,
    )?);
    broken.extend(late_kept(&late.findings, since_ms));
    Ok(broken)
}

/// A sink that was there since `since_ms` misses only what was handed out before, and holds nothing wrong.
fn late_kept(findings: &Findings, since_ms: u64) -> Vec<String> {
    let mut broken = Vec::new();
    let missed = findings.pages_missing.iter();
    for page in missed.filter(|page| page.finished_at_ms.is_none_or(|at| at >= since_ms)) {
        broken.push(format!("{SINK}: events are missing of {page:?}"));
    }
    let rest = Findings {
        missing_count: 0,
        pages_missing: Vec::new(),
        ..findings.clone()
    };
    if !rest.clean() {
        broken.push(format!("{SINK}: not what was handed out:\n{rest}"));
    }
    broken
}

fn duplicates(report: &Report, late: &Held) -> u64 {
    let all = report.held.iter().chain([late]);
    all.map(|held| held.findings.duplicates).sum()
}

#[cfg(test)]
mod tests {
    use rtm_sim::PageMissing;

    use super::*;

    /// Holds: what a late sink misses is forgiven only where it was handed out before the sink was there.
    #[test]
    fn a_late_sink_misses_what_was_before_it() {
        let missing = |at: Option<u64>| Findings {
            missing_count: 1,
            pages_missing: vec![PageMissing {
                app_id: "a".into(),
                region: "r".into(),
                stream: Stream::User,
                serial: 0,
                last: false,
                required: 1,
                missing: 1,
                finished_at_ms: at,
            }],
            ..Findings::default()
        };
        assert!(late_kept(&missing(Some(999)), 1_000).is_empty());
        assert!(!late_kept(&missing(Some(1_000)), 1_000).is_empty());
        assert!(!late_kept(&missing(None), 1_000).is_empty());
        let invented = Findings {
            invented_count: 1,
            ..Findings::default()
        };
        assert!(!late_kept(&invented, 1_000).is_empty());
    }

    /// Holds: a changed configuration names every App ID, half of them otherwise.
    #[test]
    fn half_of_the_names_change() {
        let (all, changed) = (Others::All.names(), Others::Changed.names());
        assert_eq!((all.len(), changed.len()), (OTHERS, OTHERS));
        let same = all.iter().filter(|name| changed.contains(name)).count();
        assert_eq!(same, OTHERS / 2);
    }
}
