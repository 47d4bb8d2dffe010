//! Once and only once with many App IDs: what small calls cost nats-server, and how soon a bridge publishes after a start.

use std::time::Duration;

use anyhow::{Context, Result};
use rtm_sim::Load;

use super::{Figure, Run, factor, of};
use crate::trial::measured::apps::both;
use crate::trial::{Broker, Brokers, Report, Rig, Setup, Sinks};
use crate::wait_for;

/// Events that drain.
const BACKLOG: u64 = 500_000;

/// App IDs that share a server.
const APPS: usize = 30;

/// Events in a page of theirs.
const SMALL: u32 = 20;

/// How often nats-server's processor time for full pages of one App ID small pages of many may take.
const OF_ONE: f64 = 2.0;

/// Events a second of each.
const RATE: f64 = 200.0;

/// App IDs of a start.
const MANY: usize = 500;

/// Within which something is published after a start, in milliseconds: after a clean stop, and after a kill.
const SOON: [f64; 2] = [1_500.0, 3_000.0];

/// What nats-server and the bridge took, in processor seconds.
struct Taken {
    report: Report,
    nats: f64,
    bridge: f64,
}

/// A backlog of one App ID, with full pages, drains into NATS; and then one of 30 App IDs with small pages.
///
/// # Errors
///
/// When the trial cannot be run.
#[expect(clippy::cast_precision_loss, reason = "figures")]
pub async fn groups(brokers: &mut Brokers) -> Result<Run> {
    let one = Box::pin(drained(brokers, Setup::default())).await?;
    let small = Setup {
        apps: APPS,
        backlog_page: SMALL,
        ..Setup::default()
    };
    let many = Box::pin(drained(brokers, small)).await?;
    let million = |seconds: f64| seconds * 1e6 / BACKLOG as f64;
    let name = |what: &str| format!("{what} CPU s per million");
    let figures = vec![
        Figure::told(of("one App ID", &name("nats-server's")), million(one.nats)),
        Figure::told(of("30 App IDs", &name("nats-server's")), million(many.nats)),
        Figure::at_most(
            "nats-server's CPU, times",
            factor(many.nats, one.nats),
            OF_ONE,
        ),
        Figure::told(of("one App ID", &name("bridge's")), million(one.bridge)),
        Figure::told(of("30 App IDs", &name("bridge's")), million(many.bridge)),
    ];
    both(figures, &one.report, &many.report)
}

async fn drained(brokers: &mut Brokers, setup: Setup) -> Result<Taken> {
    let setup = Setup {
        sinks: Sinks::Nats,
        exactly_once: true,
        backlog: BACKLOG,
        ..setup
    };
    let before = nats_cpu(brokers)?;
    let rig = Box::pin(Rig::start(brokers, &setup)).await?;
    let patience = Duration::from_secs(600);
    wait_for("the backlog to drain", patience, async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        rig.pending("nats").await.is_ok_and(|left| left == 0.0)
    })
    .await?;
    let (nats, bridge) = (nats_cpu(rig.brokers)? - before, rig.usage()?.cpu());
    let report = Box::pin(rig.finish()).await?;
    Ok(Taken {
        report,
        nats,
        bridge,
    })
}

fn nats_cpu(brokers: &Brokers) -> Result<f64> {
    brokers.nats.as_ref().context("no NATS")?.cpu_seconds()
}

/// 30 App IDs of 200 events/s each into NATS for `time`, first at least once and then once and only once.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn steady(brokers: &mut Brokers, time: Duration) -> Result<Run> {
    let least = Box::pin(loaded(brokers, false, time)).await?;
    let exact = Box::pin(loaded(brokers, true, time)).await?;
    let figures = [("at least once", &least), ("exactly once", &exact)].map(|(how, taken)| {
        let name = |what: &str| of(how, what);
        let share = |seconds: f64| 100.0 * seconds / time.as_secs_f64();
        [
            Figure::told(name("nats-server's CPU, % of a core"), share(taken.nats)),
            Figure::told(name("bridge's CPU, % of a core"), share(taken.bridge)),
            #[expect(clippy::cast_precision_loss, reason = "figures")]
            Figure::told(name("age p50, ms"), taken.report.age(0.5) as f64),
            #[expect(clippy::cast_precision_loss, reason = "figures")]
            Figure::told(name("age p99, ms"), taken.report.age(0.99) as f64),
        ]
    });
    let figures = figures.into_iter().flatten().collect();
    both(figures, &least.report, &exact.report)
}

async fn loaded(brokers: &mut Brokers, exactly_once: bool, time: Duration) -> Result<Taken> {
    let setup = Setup {
        sinks: Sinks::Nats,
        apps: APPS,
        exactly_once,
        ..Setup::default()
    };
    let rig = Box::pin(Rig::start(brokers, &setup)).await?;
    let before = (nats_cpu(rig.brokers)?, rig.usage()?);
    rig.load(&Load {
        events_per_second: RATE,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(time).await;
    let nats = nats_cpu(rig.brokers)? - before.0;
    let bridge = rig.usage()?.since(&before.1).cpu();
    let report = Box::pin(rig.finish()).await?;
    Ok(Taken {
        report,
        nats,
        bridge,
    })
}

/// A bridge of 500 App IDs, of which most have something that waits, starts after a clean stop, and then after a kill.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn starts(brokers: &mut Brokers, broker: Broker) -> Result<Run> {
    let [soon, killed] = SOON;
    let (after_stop, stopped) = Box::pin(start(brokers, broker, false, soon)).await?;
    let (after_kill, killed) = Box::pin(start(brokers, broker, true, killed)).await?;
    let figures = after_stop.into_iter().chain(after_kill).collect();
    // What the kill may have cost at the source is judged by that report, and is no figure.
    both(figures, &killed, &stopped)
}

#[expect(clippy::cast_precision_loss, reason = "figures")]
async fn start(
    brokers: &mut Brokers,
    broker: Broker,
    is_killed: bool,
    most: f64,
) -> Result<([Figure; 2], Report)> {
    let setup = Setup {
        sinks: broker.into(),
        apps: MANY,
        exactly_once: true,
        ..Setup::default()
    };
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    rig.load(&Load {
        events_per_second: 0.5,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.brokers.kill(broker).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    Box::pin(rig.end_bridge(is_killed)).await?;
    rig.brokers.heal(broker).await?;
    let began = jiff::Timestamp::now().as_millisecond();
    Box::pin(rig.revive()).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let report = Box::pin(rig.finish()).await?;
    let held = report.held.first().context("no sink")?;
    let since = || {
        held.arrived
            .values()
            .flatten()
            .filter(|one| one.at >= began)
    };
    let first = since().map(|one| one.at).min().unwrap_or(i64::MAX);
    let waited = since().filter(|one| one.ms < began);
    let last = waited.map(|one| one.at).max().unwrap_or(i64::MAX);
    let after = if is_killed {
        "after a kill"
    } else {
        "after a clean stop"
    };
    let name = |what: &str| of(after, what);
    let figures = [
        Figure::at_most(name("first publish, ms"), (first - began) as f64, most),
        Figure::told(name("all that waited, ms"), (last - began) as f64),
    ];
    Ok((figures, report))
}
