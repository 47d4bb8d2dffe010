//! Puts events into given rings at given rates, each with its time: for loads that are not alike in all rings.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rtm_sim::Stream;
use tokio::task::JoinHandle;

use crate::trial::rig::tell;

/// How often events are put in: as often as the simulator's own arrive.
const TICK: Duration = Duration::from_millis(5);

/// A ring and what arrives there.
#[derive(Debug, Clone)]
pub struct Fed {
    /// Its App ID.
    pub app_id: String,
    /// Its region.
    pub region: String,
    /// Its stream.
    pub stream: Stream,
    /// Events a second.
    pub rate: f64,
}

/// What was put in.
#[derive(Debug, Clone, Copy)]
pub struct Put {
    /// How many events.
    pub events: u64,
    /// From the first to the last.
    pub took: Duration,
}

/// Puts events in until it is stopped.
#[derive(Debug)]
pub struct Feeder {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Put>>,
}

impl Feeder {
    /// Begins; `most` ends it by itself after so many events of each ring.
    #[must_use]
    pub fn start(client: &reqwest::Client, simulator: &str, rings: Vec<Fed>, most: u64) -> Feeder {
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("{simulator}/_sim/push");
        let task = tokio::spawn(feed(client.clone(), url, rings, most, Arc::clone(&stop)));
        Feeder { stop, task }
    }

    /// Stops, or waits for its own end if `at_once` is not asked for; says what was put in.
    ///
    /// # Errors
    ///
    /// When the simulator refused events.
    pub async fn finish(self, at_once: bool) -> Result<Put> {
        self.stop.store(at_once, Ordering::Relaxed);
        self.task.await.context("the feeder has panicked")?
    }
}

async fn feed(
    client: reqwest::Client,
    url: String,
    rings: Vec<Fed>,
    most: u64,
    stop: Arc<AtomicBool>,
) -> Result<Put> {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let mut fed = vec![0_u64; rings.len()];
    while !stop.load(Ordering::Relaxed) && fed.iter().any(|fed| *fed < most) {
        ticks.tick().await;
        for (ring, fed) in rings.iter().zip(&mut fed) {
            let due = due(ring.rate, began.elapsed()).min(most);
            if due > *fed {
                put(&client, &url, ring, *fed..due).await?;
                *fed = due;
            }
        }
    }
    Ok(Put {
        events: fed.iter().sum(),
        took: began.elapsed(),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of events"
)]
fn due(rate: f64, elapsed: Duration) -> u64 {
    (rate * elapsed.as_secs_f64()) as u64
}

async fn put(
    client: &reqwest::Client,
    url: &str,
    ring: &Fed,
    numbers: std::ops::Range<u64>,
) -> Result<()> {
    let ms = jiff::Timestamp::now().as_millisecond();
    let mut events = String::new();
    for number in numbers {
        let comma = if events.is_empty() { "" } else { "," };
        // Some hundred users and channels, so that there is order to be kept.
        let (user, channel) = (number % 499, number % 97);
        let _ = match ring.stream {
            Stream::User => write!(
                events,
                r#"{comma}{{"user_id":"fed-{user}","type":"Login","ms":{ms}}}"#
            ),
            Stream::Channel => write!(
                events,
                r#"{comma}{{"group_id":"fed-{channel}","user_id":"fed-{user}","type":"Join","ms":{ms}}}"#
            ),
        };
    }
    let body = format!(
        r#"{{"app_id":"{}","region":"{}","stream":"{}","events":[{events}]}}"#,
        ring.app_id,
        ring.region,
        ring.stream.as_str()
    );
    tell(client.post(url), "events", body).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rtm_sim::{SimConfig, Simulator};

    use super::*;

    /// Holds: each ring gets what it is due and no more, at its rate, and with the time of its arrival.
    #[tokio::test]
    async fn feeds_each_ring_at_its_rate() {
        let config = SimConfig {
            load: rtm_sim::Load {
                events_per_second: 0.0,
                ..rtm_sim::Load::default()
            },
            ..SimConfig::default()
        };
        let simulator = Simulator::start(config).await.unwrap();
        let url = format!("http://{}", simulator.addr());
        let ring = |stream, rate| Fed {
            app_id: rtm_sim::SimApp::default().app_id,
            region: "eu-west-1".to_owned(),
            stream,
            rate,
        };
        let rings = vec![ring(Stream::User, 1_000.0), ring(Stream::Channel, 500.0)];
        let client = crate::bridge::http_client().unwrap();
        let put = Feeder::start(&client, &url, rings, 100)
            .finish(false)
            .await
            .unwrap();
        assert_eq!(put.events, 200);
        assert!(put.took >= Duration::from_millis(200), "{put:?}");
        let stats = simulator.stats();
        assert!(stats.rings.iter().all(|ring| ring.waiting == 100));
        let wrong = Fed {
            region: "nowhere".to_owned(),
            ..ring(Stream::User, 1_000.0)
        };
        let refused = Feeder::start(&client, &url, vec![wrong], 1).finish(false);
        assert!(refused.await.unwrap_err().to_string().contains("refuses"));
        simulator.shutdown().await;
    }
}
