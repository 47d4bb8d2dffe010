//! Two even rings: how fresh events are at Kafka, and whether all that the API can give is taken.

use std::time::Duration;

use anyhow::Result;
use rtm_bridge::read_back::Arrived;
use rtm_sim::Load;

use super::ages::{self, Ages};
use super::figures::median;
use super::fsync::FsyncProbe;
use super::{Figure, Run, conclude};
use crate::trial::{Brokers, Report, Rig, Setup};

/// What no schedule beats with two rings and ten requests a second: the median and the 99th percentile of an age at
/// the fetch, in milliseconds.
const FLOOR: [f64; 2] = [100.0, 200.0];

/// What the way from there to Kafka may add on a fast disk.
const SLACK: [f64; 2] = [10.0, 30.0];

/// How many syncs it may add on a slow one.
const SYNCS: f64 = 3.0;

/// The bounds on the median age and on the 99th percentile, in milliseconds, given what a sync takes.
fn bounds(fsync_ms: f64) -> [f64; 2] {
    [0, 1].map(|index| FLOOR[index] + SLACK[index].max(SYNCS * fsync_ms))
}

/// `rate` events a second in all, into Kafka.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn fresh(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Run> {
    let rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    let probe = FsyncProbe::start(rig.dir())?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(time).await;
    let fsyncs = probe.finish()?;
    let report = Box::pin(rig.finish()).await?;
    let fsync = median(fsyncs.iter().copied());
    let [p50, p99] = bounds(fsync);
    let ages = at_sink(&report, |_| true);
    let fetch = ages::at_fetch(&report.ledger, |_| true);
    let figures = vec![
        Figure::at_most("age at Kafka p50, ms", ages.at(0.5), p50),
        Figure::at_most("age at Kafka p99, ms", ages.at(0.99), p99),
        Figure::told("age at Kafka max, ms", ages.at(1.0)),
        Figure::told("age at fetch p50, ms", fetch.at(0.5)),
        Figure::told("age at fetch p99, ms", fetch.at(0.99)),
        Figure::told("fsync of 10 KiB beside it, median, ms", fsync),
    ];
    conclude(figures, &report)
}

/// `rate` events a second over two rings: nothing is lost at the rings.
///
/// # Errors
///
/// When the trial cannot be run.
#[expect(clippy::cast_precision_loss, reason = "figures")]
pub async fn flood(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Run> {
    let mut rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    // It is judged here.
    rig.history.may_overwrite = true;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(time).await;
    let report = Box::pin(rig.finish()).await?;
    let ages = at_sink(&report, |_| true);
    let figures = vec![
        Figure::never_over("lost at the ring", report.overwritten() as f64, 0.0),
        Figure::told("age at Kafka p50, ms", ages.at(0.5)),
        Figure::told("age at Kafka p99, ms", ages.at(0.99)),
    ];
    conclude(figures, &report)
}

/// Ages at the first sink of the apps whose names `chosen` takes.
pub(super) fn at_sink(report: &Report, chosen: impl Fn(&str) -> bool) -> Ages {
    let apps = report
        .held
        .first()
        .into_iter()
        .flat_map(|held| &held.arrived);
    let arrived = apps.filter(|(app, _)| chosen(app)).flat_map(|(_, all)| all);
    arrived.copied().map(Arrived::age).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: a disk that is fast enough leaves the bounds as they are, and a slow one moves them by three syncs from the
    /// floor.
    #[test]
    fn a_slow_disk_moves_the_bounds() {
        assert_eq!(bounds(0.5), [110.0, 230.0]);
        assert_eq!(bounds(10.0 / 3.0), [110.0, 230.0]);
        assert_eq!(bounds(8.0), [124.0, 230.0]);
        assert_eq!(bounds(20.0), [160.0, 260.0]);
    }
}
