//! A trial: the simulator and the bridge as processes, real brokers, some trouble, and then the truth: what the
//! simulator handed out, compared event by event with what is read back from the brokers.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rtm_bridge::read_back::{self, Stored};
use rtm_sim::{Audit, Findings, Ledger, Load, SimApp, SimStats};
use tempfile::TempDir;

use crate::bridge::{Bridge, Metrics, Simulator, http_client};
use crate::brokers::{Kafka, Nats};
use crate::wait_for;

/// The region of a trial, and its app's name.
const REGION: &str = "eu-west-1";
const APP: &str = "main";

/// The JetStream stream of a trial.
const JETSTREAM: &str = "RTM";

/// Topics and whether they hold dead letters.
const TOPICS: [(&str, bool); 3] = [
    ("rtm.user_events", false),
    ("rtm.channel_events", false),
    ("rtm.dead_letters", true),
];

/// How long everything may take to arrive once the trouble is over.
const QUIET: Duration = Duration::from_secs(120);

/// Requests that Agora allows in any second.
const LIMIT: u64 = 10;

/// Everything that runs in a trial.
pub struct Rig {
    /// The Kafka broker.
    pub kafka: Kafka,
    /// The NATS server, unless the trial is of Kafka alone.
    pub nats: Option<Nats>,
    /// The simulator.
    pub simulator: Simulator,
    /// The bridge.
    pub bridge: Bridge,
    config: PathBuf,
    dir: TempDir,
    http: reqwest::Client,
    /// What the bridges that were killed have counted.
    crash_losses: f64,
    /// When each was killed, in milliseconds since the Unix epoch.
    kills: Vec<i64>,
}

/// What a trial measured and found.
#[derive(Debug)]
pub struct Report {
    /// What Kafka holds, compared with what was handed out.
    pub kafka: Findings,
    /// What NATS holds, if it took part.
    pub nats: Option<Findings>,
    /// The simulator's counts.
    pub stats: SimStats,
    /// Ages at Kafka, append time minus the event's `ms`, sorted, in milliseconds.
    pub ages: Vec<i64>,
    /// CPU seconds of the last bridge process.
    pub cpu_seconds: f64,
    /// Its peak resident memory, in bytes.
    pub peak_rss: u64,
    /// Upper bound of events lost that the bridges counted, all reasons.
    pub possibly_lost: f64,
    /// When bridges were killed.
    pub kills: Vec<i64>,
    /// `/metrics` at the end.
    pub metrics_text: String,
}

impl Rig {
    /// Starts brokers, simulator and bridge, and waits until polls succeed. No events are made yet.
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn start(with_nats: bool, simulate: &[&str]) -> Result<Rig> {
        let dir = tempfile::Builder::new().prefix("rtm-trial-").tempdir()?;
        let (kafka, nats) = tokio::join!(Kafka::start_own(), async {
            if with_nats {
                Some(Nats::start_own().await)
            } else {
                None
            }
        });
        let (kafka, nats) = (kafka?, nats.transpose()?);
        for (topic, _) in TOPICS {
            let settings = [("message.timestamp.type", "LogAppendTime")];
            kafka.create_topic(topic, 4, &settings).await?;
        }
        let mut arguments = vec!["--region", REGION, "--rate", "0"];
        arguments.extend_from_slice(simulate);
        let simulator = Simulator::start(&arguments, &dir.path().join("simulator.log")).await?;
        let config = dir.path().join("rtm-bridge.toml");
        std::fs::write(dir.path().join("secret"), "demo-secret\n")?;
        std::fs::write(
            &config,
            configuration(&dir, &simulator.url, &kafka, nats.as_ref()),
        )?;
        let bridge = Bridge::start(&config, &[], &dir.path().join("bridge.log")).await?;
        let rig = Rig {
            kafka,
            nats,
            simulator,
            bridge,
            config,
            dir,
            http: http_client()?,
            crash_losses: 0.0,
            kills: Vec::new(),
        };
        rig.polling().await?;
        Ok(rig)
    }

    /// Waits until the bridge polls.
    async fn polling(&self) -> Result<()> {
        wait_for("the bridge to poll", Duration::from_secs(30), async || {
            matches!(self.bridge.ready().await, Ok(Ok(())))
        })
        .await
    }

    /// Makes events from now on.
    ///
    /// # Errors
    ///
    /// When the simulator does not take the load.
    pub async fn load(&self, load: &Load) -> Result<()> {
        let body = serde_json::to_string(load)?;
        let url = format!("{}/_sim/load", self.simulator.url);
        let answer = self
            .http
            .put(url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?;
        ensure!(
            answer.status().is_success(),
            "the simulator refuses the load: {}",
            answer.text().await?
        );
        Ok(())
    }

    /// The simulator's counts now.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn stats(&self) -> Result<SimStats> {
        let text = self
            .http
            .get(format!("{}/_sim/stats", self.simulator.url))
            .send()
            .await?
            .text()
            .await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Kills the bridge and starts it again at once, on the same journal.
    ///
    /// # Errors
    ///
    /// When it does not start again.
    pub async fn kill_bridge(&mut self) -> Result<()> {
        self.bridge.process.kill()?;
        self.kills.push(jiff::Timestamp::now().as_millisecond());
        self.bridge = Bridge::start(&self.config, &[], &self.dir.path().join("bridge.log")).await?;
        self.polling().await?;
        // Each process counts what its predecessor's end may have cost, and forgets it when it is killed itself.
        self.crash_losses += lost(&self.bridge.metrics().await?, Some("crash"))?;
        Ok(())
    }

    /// Events that wait in the journal for a sink.
    ///
    /// # Errors
    ///
    /// When the bridge does not answer.
    pub async fn pending(&self, sink: &str) -> Result<f64> {
        self.bridge
            .metrics()
            .await?
            .sum("rtm_bridge_journal_pending_entries", &[("sink", sink)])
    }

    /// Ends the load, waits until everything has arrived, reads the brokers back and compares.
    ///
    /// # Errors
    ///
    /// When not everything arrives, or something cannot be read.
    pub async fn finish(mut self) -> Result<Report> {
        self.http
            .post(format!("{}/_sim/stop", self.simulator.url))
            .send()
            .await?;
        wait_for(
            "every ring to be read and every page to be confirmed",
            QUIET,
            async || self.is_quiet().await.unwrap_or(false),
        )
        .await?;
        let cpu_seconds = self.bridge.process.cpu_seconds()?;
        let peak_rss = self.bridge.process.peak_rss()?;
        let metrics_text = self.bridge.metrics_text().await?;
        let now = lost(&Metrics::parse(&metrics_text)?, None)?;
        let crash_now = lost(&Metrics::parse(&metrics_text)?, Some("crash"))?;
        let status = self
            .bridge
            .process
            .terminate(Duration::from_secs(45))
            .await?;
        ensure!(status.success(), "the bridge ended with {status}");
        let stats = self.stats().await?;
        let ledger = self
            .http
            .get(format!("{}/_sim/ledger", self.simulator.url))
            .send()
            .await?
            .bytes()
            .await?;
        let ledger = Ledger::from_ndjson(&ledger[..], stats.rings.clone())?;
        let (kafka, ages) = self.audit_kafka(&ledger)?;
        let nats = match &self.nats {
            Some(nats) => Some(audit_nats(nats, &ledger).await?),
            None => None,
        };
        Ok(Report {
            kafka,
            nats,
            stats,
            ages,
            cpu_seconds,
            peak_rss,
            possibly_lost: now - crash_now + self.crash_losses,
            kills: self.kills,
            metrics_text,
        })
    }

    async fn is_quiet(&self) -> Result<bool> {
        let waiting: u64 = self
            .stats()
            .await?
            .rings
            .iter()
            .map(|ring| ring.waiting)
            .sum();
        let pending = self
            .bridge
            .metrics()
            .await?
            .sum("rtm_bridge_journal_pending_entries", &[])?;
        Ok(waiting == 0 && pending == 0.0)
    }

    fn audit_kafka(&self, ledger: &Ledger) -> Result<(Findings, Vec<i64>)> {
        let app_id = SimApp::default().app_id;
        let mut audit = Audit::new(ledger);
        let mut ages = Vec::new();
        for (index, (topic, dead)) in TOPICS.iter().enumerate() {
            // Partitions of two topics must not be taken for one another.
            let offset = i32::try_from(index)? * 1_000;
            read_back::kafka(&self.kafka.client(), topic, *dead, |stored| {
                let partition = stored.partition + offset;
                read_back::observe(
                    &mut audit,
                    &app_id,
                    &Stored {
                        partition,
                        ..*stored
                    },
                );
                if let (Some(appended), Some(ms)) = (stored.timestamp, event_ms(stored.payload)) {
                    ages.push(appended - ms);
                }
            })?;
        }
        ages.sort_unstable();
        Ok((audit.finish(), ages))
    }
}

async fn audit_nats(nats: &Nats, ledger: &Ledger) -> Result<Findings> {
    let app_id = SimApp::default().app_id;
    let mut audit = Audit::new(ledger);
    let client = async_nats::connect(nats.url()).await?;
    let is_dead = |subject: &str| subject.ends_with(".dead_letters");
    read_back::nats(&client, JETSTREAM, is_dead, |stored| {
        read_back::observe(&mut audit, &app_id, stored);
    })
    .await?;
    Ok(audit.finish())
}

fn lost(metrics: &Metrics, reason: Option<&str>) -> Result<f64> {
    let labels: Vec<(&str, &str)> = reason
        .map(|reason| ("reason", reason))
        .into_iter()
        .collect();
    metrics.sum("rtm_bridge_events_possibly_lost_total", &labels)
}

/// An event's `ms`, if its envelope tells.
fn event_ms(payload: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Outer {
        event: Inner,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        ms: i64,
    }
    Some(serde_json::from_slice::<Outer>(payload).ok()?.event.ms)
}

fn configuration(dir: &TempDir, simulator: &str, kafka: &Kafka, nats: Option<&Nats>) -> String {
    let nats = nats.map_or_else(String::new, |nats| {
        format!(
            "[sinks.nats]\nservers = [\"{}\"]\nstream = \"{JETSTREAM}\"\ncreate = {{}}\n",
            nats.url()
        )
    });
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [journal]\ndir = \"{dir}/journal\"\n\n\
         [[apps]]\nname = \"{APP}\"\napp_id = \"{app_id}\"\n\
         auth = {{ basic = {{ key = \"demo-key\", secret_file = \"{dir}/secret\" }} }}\n\
         regions = [{{ name = \"{REGION}\", base_url = \"{simulator}/{REGION}\" }}]\n\n\
         [sinks.kafka]\nbrokers = [\"{kafka}\"]\n\n{nats}",
        dir = dir.path().display(),
        app_id = SimApp::default().app_id,
        kafka = kafka.address(),
    )
}

impl Report {
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
        self.cpu_seconds * 1e6 / (self.kafka.handed_out.max(1) as f64)
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

    /// Every promise that the trial broke, in words.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (sink, findings) in [("kafka", Some(&self.kafka)), ("nats", self.nats.as_ref())] {
            let Some(findings) = findings else { continue };
            broken.extend(self.broken_in(sink, findings));
        }
        if self.most_in_second() > LIMIT {
            broken.push(format!("{} requests in a second", self.most_in_second()));
        }
        broken
    }

    fn broken_in(&self, sink: &str, findings: &Findings) -> Vec<String> {
        let mut broken = Vec::new();
        let mut excused = 0;
        for page in &findings.pages_missing {
            // A page that was under way when a bridge was killed: sent at most moments before.
            let finished = page.finished_at_ms.and_then(|at| i64::try_from(at).ok());
            let near =
                |kill: &&i64| finished.is_none_or(|at| (at - 500..=at + 500).contains(*kill));
            if self.kills.iter().any(|kill| near(&kill)) {
                excused += page.missing;
            } else {
                broken.push(format!(
                    "{sink}: {} events missing of page {} of {}",
                    page.missing,
                    page.serial,
                    page.stream.as_str()
                ));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of events")]
        let covered = (excused + findings.lost_at_source) as f64 <= self.possibly_lost;
        if !covered {
            let lost = excused + findings.lost_at_source;
            broken.push(format!(
                "{sink}: {lost} events lost, and only {} counted as possibly lost",
                self.possibly_lost
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
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overwritten: u64 = self.stats.rings.iter().map(|ring| ring.overwritten).sum();
        writeln!(f, "Kafka, read back:\n{}", self.kafka)?;
        if let Some(nats) = &self.nats {
            writeln!(f, "NATS, read back:\n{nats}")?;
        }
        writeln!(
            f,
            "age at Kafka            p50 {} ms, p99 {} ms, most {} ms",
            self.age(0.5),
            self.age(0.99),
            self.age(1.0)
        )?;
        writeln!(
            f,
            "requests in any second  {} at most",
            self.most_in_second()
        )?;
        writeln!(f, "overwritten at source   {overwritten}")?;
        writeln!(f, "possibly lost, counted  {}", self.possibly_lost)?;
        writeln!(
            f,
            "CPU                     {:.2} s, {:.1} s per million events",
            self.cpu_seconds,
            self.cpu_per_million()
        )?;
        write!(f, "peak memory             {} MiB", self.peak_rss >> 20)
    }
}

/// Both streams at `rate` events a second in all, for `time`.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn steady(rate: f64, time: Duration, with_nats: bool, odd: f64) -> Result<Report> {
    let rig = Box::pin(Rig::start(with_nats, &[])).await?;
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
pub async fn kafka_paused(rate: f64, pause: Duration) -> Result<Report> {
    let mut rig = Box::pin(Rig::start(true, &[])).await?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = rig.bridge.metrics().await?;
    rig.kafka.pause().await?;
    let paused = Instant::now();
    tokio::time::sleep(pause).await;
    let after = rig.bridge.metrics().await?;
    let pending = rig.pending("kafka").await?;
    rig.kafka.resume().await?;
    let grown = |name: &str, labels: &[(&str, &str)]| -> Result<f64> {
        Ok(after.sum(name, labels)? - before.sum(name, labels)?)
    };
    let expected = rate * pause.as_secs_f64();
    let fetched = grown("rtm_bridge_events_fetched_total", &[])?;
    let nats = grown("rtm_bridge_records_confirmed_total", &[("sink", "nats")])?;
    println!(
        "Kafka paused for {:?}: fetched {fetched}, NATS confirmed {nats}, {pending} pages wait for Kafka",
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

/// The bridge is killed `kills` times under load, and started again at once.
///
/// # Errors
///
/// When the trial cannot be run.
pub async fn killed(rate: f64, kills: u32) -> Result<Report> {
    let mut rig = Box::pin(Rig::start(true, &[])).await?;
    rig.load(&Load {
        events_per_second: rate,
        ..Load::default()
    })
    .await?;
    for kill in 0..kills {
        // At odd times with respect to polls and syncs.
        tokio::time::sleep(Duration::from_millis(2_017 + 311 * u64::from(kill))).await;
        Box::pin(rig.kill_bridge()).await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    Box::pin(rig.finish()).await
}
