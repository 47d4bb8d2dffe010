//! A backlog of millions of events in the journal drains into Kafka.

use std::time::Duration;

use anyhow::{Context, Result};
use rtm_bridge::read_back::Arrived;

use super::{Figure, MIB, Run, conclude};
use crate::trial::{Brokers, Rig, Setup, Sinks};
use crate::wait_for;

/// Events a second, at least.
const RATE: f64 = 150_000.0;

/// The most memory, in MiB: librdkafka's queue is bounded, and so are batches.
const MEMORY_MIB: f64 = 48.0;

/// How slow the drain may be before it is given up.
const SLOWEST: f64 = 5_000.0;

/// A bridge starts on a journal in which `events` events wait. What was handed out is compared with what Kafka holds, as
/// in every trial: everything, and in order.
///
/// # Errors
///
/// When the trial cannot be run.
#[expect(clippy::cast_precision_loss, reason = "figures")]
pub async fn drain(brokers: &mut Brokers, events: u64) -> Result<Run> {
    let setup = Setup {
        sinks: Sinks::Kafka,
        backlog: events,
        ..Setup::default()
    };
    let rig = Box::pin(Rig::start(brokers, &setup)).await?;
    let patience = Duration::from_secs_f64(60.0 + events as f64 / SLOWEST);
    // Looked at seldom: it costs the bridge processor time.
    wait_for("the backlog to drain", patience, async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        rig.pending("kafka").await.is_ok_and(|left| left == 0.0)
    })
    .await?;
    let used = rig.usage()?;
    let began = jiff::Timestamp::now().as_millisecond();
    let report = Box::pin(rig.finish()).await?;
    let held = report.held.first().context("no sink")?;
    let drained = held.arrived.values().flatten();
    let drained: Vec<&Arrived> = drained.filter(|arrived| arrived.ms < began).collect();
    let figures = figures(&drained, used.peak, used.cpu());
    conclude(figures, &report)
}

/// The rate is from the first append to the last, by the broker's clock. The first event is not counted: it is what the
/// time begins with.
#[expect(clippy::cast_precision_loss, reason = "figures")]
fn figures(drained: &[&Arrived], peak: u64, cpu: f64) -> Vec<Figure> {
    let at = || drained.iter().map(|arrived| arrived.at);
    let took = at().max().unwrap_or_default() - at().min().unwrap_or_default();
    let seconds = took as f64 / 1_000.0;
    let events = drained.len() as f64;
    vec![
        Figure::at_least("events/s into Kafka", (events - 1.0) / seconds, RATE),
        Figure::at_most("peak memory, MiB", peak as f64 / MIB, MEMORY_MIB),
        Figure::told("backlog drained, events", events),
        Figure::told("in, s", seconds),
        Figure::told("CPU s per million events", cpu * 1e6 / events),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::measured::Table;

    /// Holds: a drain that is slower, takes more memory or finds nothing misses its bounds.
    #[test]
    fn each_bound_can_be_missed() {
        let kept = |last: i64, peak: u64| {
            let arrived: Vec<Arrived> = (0..=300)
                .map(|n| Arrived {
                    at: n * last / 300,
                    ms: 0,
                })
                .collect();
            let drained: Vec<&Arrived> = arrived.iter().collect();
            let mut table = Table::default();
            table.add(Run {
                figures: figures(&drained, peak, 1.0),
                broken: Vec::new(),
            });
            table.kept()
        };
        assert!(kept(2, 48 << 20));
        assert!(!kept(3, 48 << 20), "100,000 a second");
        assert!(!kept(2, 49 << 20));
        assert!(figures(&[], 0, 0.0)[0].value.is_nan() || figures(&[], 0, 0.0)[0].value < 0.0);
    }
}
