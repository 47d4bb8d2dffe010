//! Trials: the simulator and the bridge as processes, real brokers, some trouble, a quiet phase, and then the truth:
//! what the simulator handed out, compared event by event with what is read back from the brokers.
//!
//! | module | what |
//! |---|---|
//! | [`Rig`] | what runs in a trial; the quiet phase |
//! | [`Report`] | what was measured, and every promise that was broken |
//! | [`Fault`] | what is thrown at a bridge |
//! | [`wire`] | a relay between bridge and simulator, with weather |
//! | [`Disk`] | a disk that can be filled |
//! | [`Plan`] | a random trial, by its seed |
//! | [`shows`] | trials of given faults, longer than a random one |
//! | [`alone`] | one thing goes wrong, and everything else is as fresh as without it |
//! | [`measured`] | trials of figures with bounds: freshness, storms, cost, a backlog, many App IDs, changes |
//! | [`accounting`] | the bridge's counts, compared with the truth |

pub mod accounting;
pub mod alone;
mod brokers;
mod disk;
mod faults;
pub mod measured;
mod pipe;
mod places;
mod random;
mod report;
mod rig;
pub mod shows;
mod third;
pub mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rtm_sim::Load;

pub use brokers::{Broker, Brokers};
pub use disk::Disk;
pub use faults::{Fault, Target};
pub use places::{DiskSetup, Setup, Sinks};
pub use random::{Plan, Timed};
pub use report::Report;
pub use rig::Rig;

/// Both streams at `rate` events a second in all, for `time`.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn steady(brokers: &mut Brokers, rate: f64, time: Duration, odd: f64) -> Result<Report> {
    let rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    rig.load(&Load {
        events_per_second: rate,
        odd,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(time).await;
    Box::pin(rig.finish()).await
}

/// Kafka is paused for `pause` under load; says in passing whether polling and NATS went on.
///
/// # Errors
///
/// When the trial cannot be run, or NATS or polling stood still.
pub async fn kafka_paused(brokers: &mut Brokers, rate: f64, pause: Duration) -> Result<Report> {
    let rig = Box::pin(Rig::start(brokers, &Setup::default())).await?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = rig.bridge.metrics().await?;
    rig.brokers.pause(Broker::Kafka).await?;
    let paused = Instant::now();
    tokio::time::sleep(pause).await;
    let after = rig.bridge.metrics().await?;
    let pending = rig.pending("kafka").await?;
    rig.brokers.heal(Broker::Kafka).await?;
    let grown = |name: &str, labels: &[(&str, &str)]| -> Result<f64> {
        Ok(after.sum(name, labels)? - before.sum(name, labels)?)
    };
    let expected = rate * pause.as_secs_f64();
    let fetched = grown("rtm_bridge_events_fetched_total", &[])?;
    let nats = grown("rtm_bridge_records_confirmed_total", &[("sink", "nats")])?;
    println!(
        "Kafka paused for {:?}: fetched {fetched}, NATS confirmed {nats}, {pending} wait for Kafka",
        paused.elapsed()
    );
    ensure!(
        fetched > 0.9 * expected,
        "polling slowed down: {fetched} of {expected}"
    );
    ensure!(
        nats > 0.9 * expected,
        "NATS slowed down: {nats} of {expected}"
    );
    ensure!(pending > 0.0, "nothing waited for Kafka: was it paused?");
    tokio::time::sleep(Duration::from_secs(5)).await;
    Box::pin(rig.finish()).await.context("after the pause")
}

/// The bridge is killed `kills` times under load, and started again at once: while it polls, and some of the times
/// while it is only starting.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn killed(brokers: &mut Brokers, rate: f64, kills: u32, seed: u64) -> Result<Report> {
    let setup = Setup {
        seed,
        ..Setup::default()
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rig = Box::pin(Rig::start(brokers, &setup)).await?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    for kill in 0..kills {
        // A start waits for more than a second before it polls. Kills that came before that again and again would let
        // the rings run over.
        let wait = if kill % 5 == 4 {
            rng.u64(0..1_200)
        } else {
            rng.u64(1_800..3_200)
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        Box::pin(rig.kill_bridge()).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Box::pin(rig.finish()).await
}
