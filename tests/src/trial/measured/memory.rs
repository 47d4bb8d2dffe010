//! The memory that an outage of a broker leaves behind.

use std::time::Duration;

use anyhow::Result;
use rtm_sim::Load;

use super::{Figure, MIB, Run, conclude};
use crate::trial::{Broker, Brokers, Rig, Setup};

/// The most memory of two sinks at 3,000 events a second, through an outage of one.
const MOST_MIB: f64 = 48.0;

/// How long the bridge runs before it, and after everything has caught up.
const STEADY: Duration = Duration::from_secs(10);

/// Kafka is paused for `time` at `rate` events a second, which NATS takes meanwhile, and what waited is delivered; and the
/// same with Kafka killed.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn memory(brokers: &mut Brokers, rate: f64, time: Duration) -> Result<Run> {
    let rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    let mut figures = Vec::new();
    let mut look = |rig: &Rig<'_>, when: &str| -> Result<()> {
        let used = rig.usage()?;
        let told = |name: &str, bytes: u64| {
            Figure::told(format!("{name} {when}, MiB"), bytes as f64 / MIB)
        };
        figures.extend([told("memory", used.resident), told("peak", used.peak)]);
        Ok(())
    };
    tokio::time::sleep(STEADY).await;
    look(&rig, "before")?;
    for how in ["paused", "killed"] {
        match how {
            "paused" => rig.brokers.pause(Broker::Kafka).await?,
            _ => rig.brokers.kill(Broker::Kafka).await?,
        }
        tokio::time::sleep(time).await;
        look(&rig, &format!("with Kafka {how}"))?;
        Box::pin(rig.brokers.heal(Broker::Kafka)).await?;
        rig.caught_up_under_load(rate).await?;
        tokio::time::sleep(STEADY).await;
        look(&rig, &format!("after Kafka was {how}"))?;
    }
    let peak = rig.usage()?.peak;
    let report = Box::pin(rig.finish()).await?;
    figures.push(Figure::never_over(
        "peak memory, MiB",
        peak as f64 / MIB,
        MOST_MIB,
    ));
    conclude(figures, &report)
}
