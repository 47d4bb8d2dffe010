//! Many App IDs in one process: as fresh as one, idle ones cheap, and a busy one in nobody's way.

use std::time::{Duration, Instant};

use anyhow::Result;
use rtm_bridge::usage::Usage;
use rtm_sim::{Load, Stream};

use super::ages::{self, Ages};
use super::feeder::{Fed, Feeder};
use super::figures::median;
use super::fresh::at_sink;
use super::{Figure, MIB, Run, conclude, factor, of};
use crate::trial::places::{REGIONS, app_id, app_name};
use crate::trial::{Brokers, Report, Rig, Setup, Sinks};

/// Events a second of an App ID, unless it is the busy one.
const RATE: f64 = 50.0;

/// How much older events may be than those of an App ID that has the process for itself.
const OLDER: f64 = 1.2;

/// Two rings share ten requests a second, so that a ring's turn comes every 0.2 s. This is five turns, in milliseconds:
/// by chance alone one in tens of millions finds nothing for so long.
const GAP_MS: f64 = 1_000.0;

/// The most memory of 200 App IDs.
const MEMORY_MIB: f64 = 200.0;

/// App IDs beside a busy one.
const QUIET: usize = 20;

/// Events a second of the busy one.
const BUSY: f64 = 8_000.0;

/// What of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Apps {
    /// 200 App IDs of 50 events/s each, and one of them alone.
    Many,
    /// 500 App IDs without events.
    Idle,
    /// One App ID of 8,000 events/s beside 20 quiet ones.
    Fair,
}

impl Apps {
    /// All of it.
    pub const ALL: [Apps; 3] = [Apps::Many, Apps::Idle, Apps::Fair];

    /// How many App IDs, unless asked for others.
    fn usual(self) -> usize {
        match self {
            Apps::Many => 200,
            Apps::Idle => 500,
            Apps::Fair => QUIET,
        }
    }
}

/// Runs one of them; `count` is another number of App IDs.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn apps(
    brokers: &mut Brokers,
    which: Apps,
    count: Option<usize>,
    time: Duration,
) -> Result<Run> {
    let count = count.unwrap_or_else(|| which.usual());
    match which {
        Apps::Many => Box::pin(many(brokers, count, time)).await,
        Apps::Idle => Box::pin(idle(brokers, count, time)).await,
        Apps::Fair => Box::pin(fair(brokers, count, time)).await,
    }
}

/// What a number of App IDs came to.
struct Ran {
    report: Report,
    used: Usage,
    /// Of the App IDs that are looked at.
    fetch: Ages,
    kafka: Ages,
    gaps: Ages,
}

impl Ran {
    fn ages(&self) -> [&Ages; 2] {
        [&self.fetch, &self.kafka]
    }
}

/// `count` App IDs of 50 events/s each, and one more of 8,000 if `busy`. What is told is of the first ones.
async fn even(brokers: &mut Brokers, count: usize, busy: bool, time: Duration) -> Result<Ran> {
    let setup = Setup {
        apps: count + usize::from(busy),
        sinks: Sinks::Kafka,
        ..Setup::default()
    };
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    // The busy one is near what the API can give: whether a machine keeps up with that is not what is asked.
    rig.history.may_overwrite = busy;
    let before = rig.usage()?;
    rig.load(&Load {
        events_per_second: RATE,
        ..Load::default()
    })
    .await?;
    let rings = Stream::ALL.map(|stream| Fed {
        app_id: app_id(count),
        region: REGIONS[0].to_owned(),
        stream,
        rate: (BUSY - RATE) / 2.0,
    });
    let feeder =
        busy.then(|| Feeder::start(&rig.http, &rig.simulator.url, rings.to_vec(), u64::MAX));
    tokio::time::sleep(time).await;
    if let Some(feeder) = feeder {
        feeder.finish(true).await?;
    }
    let used = rig.usage()?.since(&before);
    let until = jiff::Timestamp::now().as_millisecond().unsigned_abs();
    let report = Box::pin(rig.finish()).await?;
    let busy_one = busy.then(|| (app_id(count), app_name(count)));
    let is_busy = |id: &str, name: &str| {
        busy_one
            .as_ref()
            .is_some_and(|one| one.0 == id || one.1 == name)
    };
    let quiet =
        |page: &rtm_sim::LedgerPage| page.deleted_at_ms <= until && !is_busy(&page.app_id, "");
    Ok(Ran {
        used,
        fetch: ages::at_fetch(&report.ledger, quiet),
        gaps: ages::gaps(&report.ledger, quiet),
        kafka: at_sink(&report, |name| !is_busy("", name)),
        report,
    })
}

async fn many(brokers: &mut Brokers, count: usize, time: Duration) -> Result<Run> {
    let alone = Box::pin(even(brokers, 1, false, time)).await?;
    let many = Box::pin(even(brokers, count, false, time)).await?;
    let name = |name: &str| of(&format!("{count} App IDs"), name);
    let mut figures = older(&name, alone.ages(), many.ages(), [OLDER; 2]);
    figures.extend([
        Figure::never_over(name("largest gap of a ring, ms"), many.gaps.at(1.0), GAP_MS),
        Figure::at_most(
            name("peak memory, MiB"),
            many.used.peak as f64 / MIB,
            MEMORY_MIB,
        ),
        Figure::told(
            name("CPU, % of a core"),
            100.0 * many.used.cpu() / time.as_secs_f64(),
        ),
        Figure::told(
            name("CPU of one alone, % of a core"),
            100.0 * alone.used.cpu() / time.as_secs_f64(),
        ),
        Figure::told(name("threads"), many.used.threads as f64),
    ]);
    both(figures, &alone.report, &many.report)
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
async fn fair(brokers: &mut Brokers, count: usize, time: Duration) -> Result<Run> {
    let alone = Box::pin(even(brokers, count, false, time)).await?;
    let beside = Box::pin(even(brokers, count, true, time)).await?;
    let name = |name: &str| of(&format!("{count} beside a busy one"), name);
    let mut figures = older(&name, alone.ages(), beside.ages(), [OLDER; 2]);
    figures.extend([
        Figure::never_over(
            name("largest gap of a ring, ms"),
            beside.gaps.at(1.0),
            GAP_MS,
        ),
        Figure::told(
            name("lost at the busy one's rings"),
            beside.report.overwritten() as f64,
        ),
    ]);
    both(figures, &alone.report, &beside.report)
}

/// How much older events are, at the fetch and at Kafka, than they were in the run that they are compared with, and may be
/// at most: at the median, and at the 99th percentile.
pub(super) fn older(
    name: &dyn Fn(&str) -> String,
    before: [&Ages; 2],
    now: [&Ages; 2],
    most: [f64; 2],
) -> Vec<Figure> {
    let mut figures = Vec::new();
    for ((place, before), now) in ["fetch", "Kafka"].into_iter().zip(before).zip(now) {
        for ((what, share), most) in [("p50", 0.5), ("p99", 0.99)].into_iter().zip(most) {
            let (then, now) = (before.at(share), now.at(share));
            let text = |what: String| name(&format!("age at {place} {what}"));
            figures.extend([
                Figure::at_most(text(format!("{what}, times")), factor(now, then), most),
                Figure::told(text(format!("{what}, ms")), now),
                Figure::told(text(format!("{what} before, ms")), then),
            ]);
        }
    }
    figures
}

/// The second report's conclusion, and what the first broke.
pub(super) fn both(figures: Vec<Figure>, first: &Report, second: &Report) -> Result<Run> {
    let first = conclude(Vec::new(), first)?;
    let mut run = conclude(figures, second)?;
    run.broken.extend(first.broken);
    Ok(run)
}

async fn idle(brokers: &mut Brokers, count: usize, time: Duration) -> Result<Run> {
    let setup = Setup {
        apps: count,
        sinks: Sinks::Kafka,
        ..Setup::default()
    };
    let rig = Box::pin(Rig::start(brokers, &setup)).await?;
    let requests = async || -> Result<u64> {
        let stats = rig.stats().await?;
        Ok(stats.apps.iter().map(|app| app.requests).sum())
    };
    let before = (rig.usage()?, requests().await?);
    tokio::time::sleep(time).await;
    let used = rig.usage()?.since(&before.0);
    let asked = requests().await? - before.1;
    let files = rig.bridge.process.open_files()?;
    let mut scrapes = Vec::new();
    let mut text = String::new();
    for _ in 0..5 {
        let began = Instant::now();
        text = rig.bridge.metrics_text().await?;
        scrapes.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    let series = crate::bridge::Metrics::parse(&text)?.iter().count();
    let first = rig.first_second;
    let report = Box::pin(rig.finish()).await?;
    let name = |name: &str| of(&format!("{count} idle App IDs"), name);
    let seconds = time.as_secs_f64();
    let figures = vec![
        Figure::told(name("CPU, % of a core"), 100.0 * used.cpu() / seconds),
        Figure::told(name("requests/s in all"), asked as f64 / seconds),
        Figure::told(
            name("requests in the first second"),
            first.map_or(f64::NAN, |first| first as f64),
        ),
        Figure::told(name("memory, MiB"), used.resident as f64 / MIB),
        Figure::told(name("peak memory, MiB"), used.peak as f64 / MIB),
        Figure::told(
            name("memory of one, KiB"),
            used.resident as f64 / 1_024.0 / count as f64,
        ),
        Figure::told(name("threads"), used.threads as f64),
        Figure::told(name("open files"), files as f64),
        Figure::told(name("series"), series as f64),
        Figure::told(name("size of /metrics, KiB"), text.len() as f64 / 1_024.0),
        Figure::told(name("scrape, median, ms"), median(scrapes.iter().copied())),
    ];
    conclude(figures, &report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::measured::Table;

    /// Holds: events that are more than a fifth older miss the bound, be it at the fetch or at Kafka, at the median or at
    /// the end; events that are younger never do.
    #[test]
    fn older_events_miss_the_bound() {
        let ages = |p50: i64, p99: i64| -> Ages {
            let most = std::iter::repeat_n(p50, 98);
            most.chain([p99, p99]).collect()
        };
        let kept = |fetch: Ages, kafka: Ages| {
            let before = ages(100, 200);
            let mut table = Table::default();
            table.add(Run {
                figures: older(
                    &str::to_owned,
                    [&before, &before],
                    [&fetch, &kafka],
                    [OLDER; 2],
                ),
                broken: Vec::new(),
            });
            table.kept()
        };
        assert!(kept(ages(120, 240), ages(120, 240)) && kept(ages(1, 1), ages(1, 1)));
        assert!(!kept(ages(121, 200), ages(100, 200)));
        assert!(!kept(ages(100, 241), ages(100, 200)));
        assert!(!kept(ages(100, 200), ages(121, 200)));
        assert!(!kept(ages(100, 200), ages(100, 241)));
        assert!(!kept(Ages::default(), ages(100, 200)), "no events");
    }
}
