//! The harness of the whole-bridge tests and trials: real brokers, and the real binary as a process.
//!
//! [`brokers`] finds or installs a Kafka and a NATS server, [`bridge`] runs `rtm-bridge` and its simulator, and
//! [`process`] is what both stand on. [`monitoring`] has Prometheus and what checks the
//! dashboard and the alerts, [`browser`] what looks at the status page. [`trial`] runs all of them together and compares the simulator's ledger with what
//! the brokers hold. [`simulation`] has the parts of a bridge that runs on simulated time, and [`laboratory`]
//! the schedules alone.

pub mod binary;
pub mod bridge;
pub mod brokers;
pub mod browser;
pub mod idle;
pub mod laboratory;
pub mod monitoring;
pub mod planted;
pub mod process;
pub mod simulation;
pub mod trial;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// Waits until `condition` holds, looking every 10 ms.
///
/// ```no_run
/// # async fn example(topic_len: impl AsyncFn() -> usize) -> anyhow::Result<()> {
/// # use std::time::Duration;
/// rtm_tests::wait_for("100 records", Duration::from_secs(10), async || topic_len().await >= 100).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Names `what` when `deadline` passes first. The condition is looked at once more after that.
pub async fn wait_for(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        let late = Instant::now() >= end;
        if condition().await {
            return Ok(());
        }
        ensure!(!late, "waited {deadline:?} for {what}");
        tokio::time::sleep(process::POLL).await;
    }
}
