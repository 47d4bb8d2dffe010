//! What runs in a trial, and how a trial ends: the quiet phase, and then everything is read back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rtm_bridge::usage::Usage;
use rtm_sim::{Faults, Ledger, Load, SimApp, SimConfig, SimStats};
use tempfile::TempDir;

use super::brokers::Brokers;
use super::disk::Disk;
use super::measured::backlog;
use super::places::{APP, Places, REGIONS, Setup, app_id, app_name};
use super::report::Kill;
use super::wire::Wire;
use crate::bridge::{Bridge, Metrics, Simulator, http_client};
use crate::wait_for;

/// How long everything may take to arrive once the trouble is over.
const QUIET: Duration = Duration::from_secs(90);

/// How long a new event may take after that: polls come several times a second, and publishing takes milliseconds.
const LIVE: Duration = Duration::from_secs(10);

/// How long two polls of every ring may take, of which there are some in a second.
const SETTLED: Duration = Duration::from_secs(20);

/// What each App ID of many adds to the time between two looks.
const SETTLING_OF_ONE: Duration = Duration::from_millis(5);

/// How long a bridge may take to end after SIGTERM: requests in flight have [`Setup::request_deadline`], and sinks
/// `shutdown_deadline`.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(45);

/// Everything that runs in a trial.
pub struct Rig<'b> {
    /// The brokers, which outlive the trial.
    pub brokers: &'b mut Brokers,
    /// The simulator.
    pub simulator: Simulator,
    /// The bridge.
    pub bridge: Bridge,
    /// What lies between the two, if anything does.
    pub wire: Option<Wire>,
    /// The journal's disk, if it has one of its own.
    pub disk: Option<Disk>,
    /// What the faults permit and what happened to the bridge.
    pub(super) history: History,
    pub(super) places: Places,
    pub(super) dir: TempDir,
    pub(super) http: reqwest::Client,
    /// Requests in the first second after the first, of all App IDs where there are several.
    pub(super) first_second: Option<u64>,
    /// What waited in the journal at the start.
    pub(super) backlog: Option<Ledger>,
    /// At the start: open files and series of `/metrics`.
    pub(super) bounds: (usize, usize),
    /// Whether the trial has come to its end, so that its report tells of its files.
    pub(super) finished: bool,
}

/// What a trial adds to its setup.
#[derive(Debug, Default)]
pub(super) struct More {
    /// At the end of the configuration.
    pub(super) sections: String,
    /// The command that runs the bridge in its own place.
    pub(super) under: Vec<String>,
    /// Where its log is to be found, if not among the trial's files.
    pub(super) log: Option<PathBuf>,
    /// Whether the bridge begins with a sink that is down, so that it does not say that it is ready.
    pub(super) starts_unready: bool,
}

impl More {
    fn add_to(&self, config: &Path) -> Result<()> {
        let text = std::fs::read_to_string(config)?;
        Ok(std::fs::write(config, text + &self.sections)?)
    }
}

/// What happened to the bridge, and what the faults of the trial excuse.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) kills: Vec<Kill>,
    /// From the `kill -9` of a process, or its end after SIGTERM, to the start of its successor.
    pub(super) restarts: Vec<Duration>,
    pub(super) peak_rss: u64,
    /// What people should know of how the trial went.
    pub(super) notes: Vec<String>,
    /// Polling was kept from happening: rings may have run over, which must be reported.
    pub(super) may_overwrite: bool,
    /// The simulator deleted without sending: full pages may have come and not been seen.
    pub(super) unsent: bool,
    /// The journal had no room.
    pub(super) disk_filled: bool,
    /// It has none now.
    pub(super) disk_is_full: bool,
    /// The bridge was asked to end, and is still to be started again.
    pub(super) ending: bool,
    /// There was a second bridge: together they went over the limit, and each counted its own part.
    pub(super) second_bridge: bool,
}

impl Rig<'_> {
    /// Starts simulator and bridge on brokers that are brought back first, and waits until polls succeed. No events are
    /// made yet.
    ///
    /// # Errors
    ///
    /// When something does not start.
    pub async fn start<'b>(brokers: &'b mut Brokers, setup: &Setup) -> Result<Rig<'b>> {
        Box::pin(Rig::start_with(brokers, setup, &More::default())).await
    }

    /// As [`Rig::start`], with more than what a setup has.
    pub(super) async fn start_with<'b>(
        brokers: &'b mut Brokers,
        setup: &Setup,
        more: &More,
    ) -> Result<Rig<'b>> {
        // Kept unless the trial ends well.
        let dir = tempfile::Builder::new()
            .prefix("rtm-trial-")
            .disable_cleanup(true)
            .tempdir()?;
        let path = dir.path().to_path_buf();
        Box::pin(Rig::start_in(dir, brokers, setup, more))
            .await
            .with_context(|| format!("the trial in {}", path.display()))
    }

    async fn start_in<'b>(
        dir: TempDir,
        brokers: &'b mut Brokers,
        setup: &Setup,
        more: &More,
    ) -> Result<Rig<'b>> {
        Box::pin(brokers.heal_all()).await?;
        let settings = dir.path().join("simulator.json");
        std::fs::write(&settings, serde_json::to_vec(&simulated(setup))?)?;
        let arguments = ["--config", &settings.display().to_string()];
        let simulator = Simulator::start(&arguments, &dir.path().join("simulator.log")).await?;
        let wire = match setup.wire {
            true => Some(Wire::start(&simulator.url, setup.seed).await?),
            false => None,
        };
        let journal = dir.path().join("journal");
        let disk = match setup.disk {
            Some(disk) => Some(Disk::mount(&journal, disk.mib)?),
            None => None,
        };
        let backlog = match setup.backlog {
            0 => None,
            _ => Some(backlog::write(&journal, setup).await?),
        };
        let url = wire.as_ref().map_or(&simulator.url, |wire| &wire.url);
        let places = Places::make(dir.path(), url, brokers, setup).await?;
        let http = http_client()?;
        let first_second = (setup.apps > 1)
            .then(|| tokio::spawn(first_second(http.clone(), simulator.url.clone())));
        more.add_to(&places.config)?;
        let log = dir.path().join("bridge.log");
        let log = more.log.clone().unwrap_or(log);
        let bridge = Bridge::start_under(&more.under, &places.config, &[], &log).await?;
        let mut rig = Rig {
            brokers,
            simulator,
            bridge,
            wire,
            disk,
            history: History::default(),
            places,
            dir,
            http,
            first_second: None,
            backlog,
            bounds: (0, 0),
            finished: false,
        };
        if more.starts_unready {
            rig.all_polled().await?;
        } else {
            rig.polling().await?;
        }
        if let Some(counting) = first_second {
            rig.first_second = Some(counting.await??);
        }
        rig.bounds = (
            rig.bridge.process.open_files()?,
            rig.bridge.metrics().await?.iter().count(),
        );
        Ok(rig)
    }

    /// Waits until the bridge says that it is ready.
    ///
    /// # Errors
    ///
    /// When it does not within half a minute, with its reasons.
    pub async fn polling(&self) -> Result<()> {
        let mut reasons = String::new();
        wait_for(
            "the bridge to be ready",
            Duration::from_secs(30),
            async || match self.bridge.ready().await {
                Ok(Ok(())) => true,
                Ok(Err(why)) => {
                    reasons = why;
                    false
                }
                Err(_) => false,
            },
        )
        .await
        .with_context(|| reasons.clone())
    }

    /// Waits until every App ID is polled, whatever its sinks say.
    async fn all_polled(&self) -> Result<()> {
        wait_for("polls", Duration::from_secs(30), async || {
            let Ok(metrics) = self.bridge.metrics().await else {
                return false;
            };
            (0..self.places.apps).map(app_name).all(|app| {
                let polls = metrics.sum("rtm_bridge_polls_total", &[("app", &*app)]);
                polls.is_ok_and(|polls| polls > 2.0)
            })
        })
        .await
    }

    /// Makes events from now on.
    ///
    /// # Errors
    ///
    /// When the simulator does not take the load.
    pub async fn load(&self, load: &Load) -> Result<()> {
        self.tell("PUT", "load", serde_json::to_string(load)?).await
    }

    /// What goes wrong at the simulator from now on.
    ///
    /// # Errors
    ///
    /// When the simulator does not take the faults.
    pub async fn faults(&self, faults: &Faults) -> Result<()> {
        self.tell("PUT", "faults", serde_json::to_string(faults)?)
            .await
    }

    pub(super) async fn tell(&self, method: &str, what: &str, body: String) -> Result<()> {
        let url = format!("{}/_sim/{what}", self.simulator.url);
        let request = match method {
            "PUT" => self.http.put(url),
            _ => self.http.post(url),
        };
        tell(request, what, body).await
    }

    /// The simulator's counts now.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn stats(&self) -> Result<SimStats> {
        Ok(serde_json::from_slice(&self.ask("stats").await?)?)
    }

    pub(super) async fn ask(&self, what: &str) -> Result<bytes::Bytes> {
        let url = format!("{}/_sim/{what}", self.simulator.url);
        Ok(self.http.get(url).send().await?.bytes().await?)
    }

    /// Events that wait in the journal for a sink.
    ///
    /// # Errors
    ///
    /// When the bridge does not answer.
    pub async fn pending(&self, sink: &str) -> Result<f64> {
        pending(&self.bridge.metrics().await?, &[("sink", sink)])
    }

    /// Kills the bridge (`kill -9`) and starts it again at once, on the same journal.
    ///
    /// # Errors
    ///
    /// When it cannot be killed. When it does not start, that is noted, and [`Rig::revive`] tries again.
    pub async fn kill_bridge(&mut self) -> Result<()> {
        let ended = Instant::now();
        self.end_bridge(true).await?;
        self.start_again(ended).await;
        Ok(())
    }

    /// Ends the bridge with `signals` SIGTERMs, and starts it again at once.
    ///
    /// # Errors
    ///
    /// When it does not end in time, or not with success.
    pub async fn terminate_bridge(&mut self, signals: u32) -> Result<()> {
        self.note_peak();
        for _ in 1..signals {
            self.bridge
                .process
                .signal(nix::sys::signal::Signal::SIGTERM)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // It may have ended after the first.
        if self.bridge.process.exited()?.is_none() {
            self.bridge
                .process
                .signal(nix::sys::signal::Signal::SIGTERM)?;
        }
        self.history.ending = true;
        // A bridge that holds what it cannot store does not end before it can; others must not wait for that here.
        if self.history.disk_is_full {
            self.history
                .notes
                .push("SIGTERM while the disk was full: ended once it was freed".to_owned());
            return Ok(());
        }
        self.await_end().await
    }

    /// Waits for the end of a bridge that was asked to end, and starts it again.
    pub(super) async fn await_end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.history.ending) {
            let status = self.bridge.process.wait(SHUTDOWN).await?;
            ensure!(status.success(), "the bridge ended with {status}");
            self.start_again(Instant::now()).await;
        }
        Ok(())
    }

    async fn start_again(&mut self, ended: Instant) {
        let log = self.dir.path().join("bridge.log");
        match Bridge::start(&self.places.config, &[], &log).await {
            Ok(bridge) => {
                self.history.restarts.push(bridge.started - ended);
                self.bridge = bridge;
                // Whoever looks at it next is to find more than that it is starting.
                let answers = async || self.bridge.metrics().await.is_ok();
                if let Err(error) =
                    wait_for("metrics after a start", Duration::from_secs(20), answers).await
                {
                    self.history.notes.push(format!("{error:#}"));
                }
            }
            Err(error) => self
                .history
                .notes
                .push(format!("the bridge did not start again: {error:#}")),
        }
    }

    /// Ends the bridge, by SIGTERM or `kill -9`. [`Rig::revive`] starts it again.
    ///
    /// # Errors
    ///
    /// When it does not end, or not with success after SIGTERM.
    pub(super) async fn end_bridge(&mut self, is_killed: bool) -> Result<()> {
        self.note_peak();
        if is_killed {
            self.bridge.process.kill()?;
            self.history.kills.push(Kill {
                at_ms: jiff::Timestamp::now().as_millisecond(),
            });
            return Ok(());
        }
        let status = self.bridge.process.terminate(SHUTDOWN).await?;
        ensure!(status.success(), "the bridge ended with {status}");
        Ok(())
    }

    /// Starts a bridge that did not start again when it was to, now that nothing is in its way.
    ///
    /// # Errors
    ///
    /// When it still does not start.
    pub async fn revive(&mut self) -> Result<()> {
        self.await_end().await?;
        if self.bridge.process.exited()?.is_some() {
            let log = self.dir.path().join("bridge.log");
            self.bridge = Bridge::start(&self.places.config, &[], &log).await?;
        }
        Ok(())
    }

    pub(super) fn note_peak(&mut self) {
        let peak = self.bridge.process.peak_rss().unwrap_or_default();
        self.history.peak_rss = self.history.peak_rss.max(peak);
    }

    /// Waits until nothing is under way any more, and then until a new event of every ring has reached every sink.
    pub(super) async fn quiet(&mut self) -> Result<Duration> {
        self.faults(&Faults::default()).await?;
        if let Some(wire) = &self.wire {
            wire.set(super::wire::Weather::default());
        }
        Box::pin(self.brokers.heal_all()).await?;
        self.revive().await?;
        self.stop_load().await?;
        let mut state = String::new();
        wait_for(
            "every ring to be read and every page to be confirmed",
            QUIET,
            async || match self.is_quiet().await {
                Ok(None) => true,
                Ok(Some(why)) => {
                    state = why;
                    false
                }
                Err(error) => {
                    state = format!("{error:#}");
                    false
                }
            },
        )
        .await
        .with_context(|| state.clone())?;
        self.settled().await?;
        let before = self.bridge.metrics().await?;
        let pushed = Instant::now();
        let rings = self.push_one_each().await?;
        let sinks = self.places.sink_names(self.brokers);
        wait_for("a new event to reach every sink", LIVE, async || {
            let Ok(now) = self.bridge.metrics().await else {
                return false;
            };
            sinks.iter().all(|sink| {
                let count = |metrics: &Metrics| {
                    metrics
                        .sum("rtm_bridge_records_confirmed_total", &[("sink", sink)])
                        .unwrap_or_default()
                };
                count(&now) - count(&before) >= f64::from(rings)
            })
        })
        .await
        .context("liveness")?;
        let live = pushed.elapsed();
        let ready = self.bridge.ready().await?;
        ensure!(
            ready.is_ok(),
            "data flows, and /readyz says that it does not: {ready:?}"
        );
        self.settled().await?;
        Ok(live)
    }

    /// Waits until all that was read of the rings is confirmed. What is neither in a ring nor in the journal may be in
    /// a response under way: a ring has one request in flight, and the next is not sent before the page of that is stored,
    /// so that after two more polls of every ring nothing is.
    async fn settled(&self) -> Result<()> {
        let polls = async || -> Result<Vec<f64>> {
            let metrics = self.bridge.metrics().await?;
            let mut polls = std::collections::BTreeMap::new();
            // Not a sum for each ring: with hundreds of them that would take long.
            for (series, count) in metrics.iter() {
                if let Some(labels) = series.strip_prefix("rtm_bridge_polls_total{") {
                    let labels = labels.split(',');
                    let ring = labels.filter(|label| !label.starts_with("outcome="));
                    *polls
                        .entry(ring.collect::<Vec<_>>().join(","))
                        .or_insert(0.0) += count;
                }
            }
            ensure!(
                polls.len() == self.rings(),
                "{} rings are told of",
                polls.len()
            );
            Ok(polls.into_values().collect())
        };
        let before = polls().await?;
        // With hundreds of App IDs a look at all metrics takes a bridge's time, and so do their polls.
        let apps = u32::try_from(self.places.apps)?;
        let pause = SETTLING_OF_ONE * (apps - 1);
        wait_for(
            "two polls of every ring",
            SETTLED + pause * 20,
            async || {
                tokio::time::sleep(pause).await;
                let now = polls().await.unwrap_or_default();
                now.len() == before.len()
                    && now
                        .iter()
                        .zip(&before)
                        .all(|(now, before)| now - before >= 2.0)
            },
        )
        .await?;
        wait_for("the last page to be confirmed", LIVE, async || {
            matches!(self.is_quiet().await, Ok(None))
        })
        .await
    }

    async fn is_quiet(&self) -> Result<Option<String>> {
        let stats = self.stats().await?;
        let waiting: u64 = stats.rings.iter().map(|ring| ring.waiting).sum();
        let pending = pending(&self.bridge.metrics().await?, &[])?;
        Ok((waiting > 0 || pending > 0.0)
            .then(|| format!("{waiting} events wait in rings, and {pending} in the journal")))
    }

    /// How many rings there are.
    fn rings(&self) -> usize {
        self.places.apps * self.places.regions * 2
    }

    /// Pushes an event into every ring; says how many rings there are.
    async fn push_one_each(&self) -> Result<u32> {
        let ms = jiff::Timestamp::now().as_millisecond();
        for app in 0..self.places.apps {
            let app_id = app_id(app);
            for region in &REGIONS[..self.places.regions] {
                let user = format!(r#"{{"user_id":"alive","type":"Login","ms":{ms}}}"#);
                let channel =
                    format!(r#"{{"group_id":"alive","user_id":"alive","type":"Join","ms":{ms}}}"#);
                for (stream, event) in [("user", user), ("channel", channel)] {
                    let body = format!(
                        r#"{{"app_id":"{app_id}","region":"{region}","stream":"{stream}","events":[{event}]}}"#
                    );
                    self.tell("POST", "push", body).await?;
                }
            }
        }
        Ok(u32::try_from(self.rings())?)
    }

    /// Makes no more events.
    pub(super) async fn stop_load(&self) -> Result<()> {
        self.tell("POST", "stop", String::new()).await
    }

    /// Waits until every ring is empty and nothing waits in the journal, without asking so often that it shows in the
    /// bridge's processor time.
    pub(super) async fn caught_up(&self) -> Result<()> {
        let deadline = Instant::now() + QUIET;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            match self.is_quiet().await? {
                None => return Ok(()),
                Some(why) => ensure!(Instant::now() < deadline, "not caught up: {why}"),
            }
        }
    }

    /// Waits until no more than what a second brings waits in the journal, while more comes.
    pub(super) async fn caught_up_under_load(&self, rate: f64) -> Result<()> {
        wait_for("what waited to be delivered", QUIET, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let metrics = self.bridge.metrics().await;
            metrics
                .and_then(|metrics| pending(&metrics, &[]))
                .is_ok_and(|waiting| waiting <= rate)
        })
        .await
    }

    /// What is to be known of a bridge's processor time, memory and so on.
    pub(super) fn usage(&self) -> Result<Usage> {
        Usage::of(u32::try_from(self.bridge.process.pid())?)
    }

    /// Where the trial's files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A second bridge on the same App ID, with a journal of its own.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn second_bridge(&self) -> Result<Bridge> {
        let dir = self.dir.path();
        let text = std::fs::read_to_string(&self.places.config)?;
        let own = |name: &str| dir.join(name).display().to_string();
        let text = text.replace(&own("journal"), &own("second-journal"));
        let config: PathBuf = dir.join("second.toml");
        std::fs::write(&config, text)?;
        Bridge::start(&config, &[], &dir.join("second-bridge.log")).await
    }
}

/// How many requests come in the second after the first of all. Looks twenty times a second.
async fn first_second(http: reqwest::Client, simulator: String) -> Result<u64> {
    let requests = async || -> Result<u64> {
        let answer = http.get(format!("{simulator}/_sim/stats")).send().await?;
        let stats: SimStats = serde_json::from_slice(&answer.bytes().await?)?;
        Ok(stats.apps.iter().map(|app| app.requests).sum())
    };
    while requests().await? == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    requests().await
}

/// The simulator's settings: nothing happens yet.
fn simulated(setup: &Setup) -> SimConfig {
    let apps = (0..setup.apps + setup.apps_later).map(|number| SimApp {
        app_id: app_id(number),
        ..SimApp::default()
    });
    SimConfig {
        seed: setup.seed,
        apps: apps.collect(),
        regions: REGIONS[..setup.regions]
            .iter()
            .map(|region| (*region).to_owned())
            .collect(),
        load: Load {
            events_per_second: 0.0,
            ..Load::default()
        },
        ..SimConfig::default()
    }
}

impl Drop for Rig<'_> {
    /// The files of a trial that came to no end are what there is to know of it; those on a disk of its own would go.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Some(disk) = &self.disk
            && let Err(error) = disk.save(&self.dir.path().join("journal-as-it-was"))
        {
            eprintln!("trial: the journal is not saved: {error:#}");
        }
        eprintln!("trial: the files are in {}", self.dir.path().display());
    }
}

/// Events that wait in the journal.
pub(super) fn pending(metrics: &Metrics, labels: &[(&str, &str)]) -> Result<f64> {
    metrics.sum("rtm_bridge_journal_pending_events", labels)
}

/// The value of a series of the trial's app.
pub(super) fn of_app(metrics: &Metrics, name: &str) -> Result<f64> {
    metrics.sum(name, &[("app", APP)])
}

/// Tells the simulator something, as JSON.
pub(super) async fn tell(request: reqwest::RequestBuilder, what: &str, body: String) -> Result<()> {
    let answer = request
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await?;
    ensure!(
        answer.status().is_success(),
        "the simulator refuses {what}: {}",
        answer.text().await?
    );
    Ok(())
}
