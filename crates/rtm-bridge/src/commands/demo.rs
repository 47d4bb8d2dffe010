//! `rtm-bridge demo`: simulator, bridge and a sink in one process, and then the proof.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressDrawTarget;
use rtm_sim::{Load, SimApp, SimAuth, SimConfig, Simulator};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::process::{duration, live_view, runtime, stop_on_signals};
use super::{preflight, telemetry};
use crate::admin::settings::Settings;
use crate::config::{Config, LogConfig};
use crate::sinks::SinkConfig;
use crate::{admin, run};
use rtm_engine::status::State;
use rtm_engine::tally::Tally;

use view::{APP, REGIONS, View};

mod proof;
mod view;

/// The stream that a demo with a real NATS uses.
const JETSTREAM: &str = "RTM_DEMO";

/// How long everything may take to arrive once no more events are made.
const QUIET_DEADLINE: Duration = Duration::from_secs(60);

/// How often the view is renewed: on a terminal, and as plain lines.
const VIEW_INTERVAL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Watch events flow: simulator, bridge and a sink in one process, nothing to install
///
/// Made-up events flow from a simulation of Agora's API through the bridge. At the end, what the simulation handed out
/// is compared, event by event, with what is read back from each sink.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  rtm-bridge demo --for 30s\n  rtm-bridge demo --kafka 127.0.0.1:9092 --nats nats://127.0.0.1:4222"
)]
pub(super) struct DemoArgs {
    /// Stop after this long, such as 30s [default: until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    /// Publish to this Kafka broker (topics rtm-demo.*)
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Publish to this NATS server (JetStream stream RTM_DEMO)
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Events a second
    #[arg(long, value_name = "EVENTS", default_value_t = 500.0)]
    rate: f64,
    /// The share of odd events, 0 to 1: hostile ids, missing fields, things that are no events
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    odd: f64,
}

pub(super) fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    telemetry::start(&LogConfig::default(), "warn").map_err(anyhow::Error::msg)?;
    let done = runtime()?.block_on(Demo::run(args));
    match done {
        // Whoever reads our output has heard enough, as with `| head`. The bridge has ended, and its directory is gone.
        Err(error) if error.downcast_ref().is_some_and(StdoutError::is_closed) => {
            Ok(ExitCode::SUCCESS)
        }
        done => done,
    }
}

/// A line could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct StdoutError(#[from] std::io::Error);

impl StdoutError {
    fn is_closed(&self) -> bool {
        self.0.kind() == std::io::ErrorKind::BrokenPipe
    }
}

/// Writes a line. `println!` would panic, and with that leave the temporary directory.
fn say(line: impl std::fmt::Display) -> Result<(), StdoutError> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

struct Demo {
    app_id: String,
    kafka: Option<String>,
    nats: Option<String>,
    file: PathBuf,
    sinks: Vec<&'static str>,
    /// What is read back.
    published: BTreeMap<String, SinkConfig>,
}

impl Demo {
    async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
        let stop = stop_on_signals()?;
        let dir = tempfile::Builder::new()
            .prefix("rtm-bridge-demo-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        // Random, so that records that an earlier demo left in a broker are told from this one's.
        let seed = fastrand::u64(..);
        let mut demo = Demo {
            app_id: format!("{seed:016x}{seed:016x}"),
            file: dir.path().join("events.jsonl"),
            sinks: Vec::new(),
            published: BTreeMap::new(),
            kafka: args.kafka,
            nats: args.nats,
        };
        let simulator = demo.simulator(seed, args.rate, args.odd).await?;
        let config = demo.config(dir.path(), &simulator)?;
        preflight::ready(&config).await?;
        demo.published.clone_from(&config.sinks);
        say(format_args!(
            "A simulation of Agora's API makes {} events a second in {} regions.",
            args.rate,
            REGIONS.len()
        ))?;
        say(format_args!(
            "The bridge polls it, stores every response and publishes to: {}.",
            demo.sinks.join(", ")
        ))?;

        let slot = admin::Slot::default();
        let served = CancellationToken::new();
        let admin = demo.admin(&config, &slot, &served).await?;
        say(format_args!(
            "Metrics: http://{admin}/metrics   Readiness: http://{admin}/readyz   Journal: {}\n",
            dir.path().join("journal").display()
        ))?;

        let bridge_stop = CancellationToken::new();
        let running = {
            let (config, stop, slot) = (config.clone(), bridge_stop.clone(), Arc::clone(&slot));
            tokio::spawn(async move {
                let started = move |state| {
                    let _ = slot.set(state);
                };
                run::run(&config, None, started, stop).await
            })
        };
        let shown = demo
            .show(&slot, &simulator, args.time, &stop, &running)
            .await;
        bridge_stop.cancel();
        running.await.context("the bridge ended unexpectedly")??;
        served.cancel();
        let quiet = shown?;
        let ledger = simulator.ledger();
        let stats = simulator.stats();
        simulator.shutdown().await;
        if !quiet {
            say(format_args!(
                "Not everything was published within {QUIET_DEADLINE:?}."
            ))?;
        }
        let clean = demo.summary(&ledger).await?;
        for app in &stats.apps {
            say(format_args!(
                "Requests: {}, most in any second {} (10 are allowed), refused {}.",
                app.requests, app.max_in_second, app.refused_429
            ))?;
        }
        let overwritten: u64 = stats.rings.iter().map(|ring| ring.overwritten).sum();
        if overwritten > 0 {
            say(format_args!(
                "{overwritten} events were overwritten at the simulated Agora before the request limit let anyone read them."
            ))?;
        }
        Ok(if clean && quiet {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// How it goes, until every sink has what there is; whether that came to be.
    async fn show<T>(
        &self,
        slot: &admin::Slot,
        simulator: &Simulator,
        time: Option<Duration>,
        stop: &CancellationToken,
        running: &tokio::task::JoinHandle<T>,
    ) -> Result<bool, StdoutError> {
        self.watch(slot, simulator, time, stop, running).await?;
        simulator.stop_generating();
        say("\nNo more events are made; waiting until every sink has what there is.")?;
        self.quiet(slot, simulator, running).await
    }

    async fn simulator(&self, seed: u64, rate: f64, odd: f64) -> anyhow::Result<Simulator> {
        let config = SimConfig {
            seed,
            apps: vec![SimApp {
                app_id: self.app_id.clone(),
                auth: SimAuth::Basic {
                    key: "demo".into(),
                    secret: "demo".into(),
                },
            }],
            regions: REGIONS.map(str::to_owned).to_vec(),
            load: Load {
                events_per_second: rate,
                odd,
                ..Load::default()
            },
            ..SimConfig::default()
        };
        Simulator::start(config)
            .await
            .context("cannot start the simulator")
    }

    /// The demo's configuration, as a user would write it.
    fn config(&mut self, dir: &Path, simulator: &Simulator) -> anyhow::Result<Config> {
        let regions =
            REGIONS.map(|region| json!({ "name": region, "base_url": simulator.base_url(region) }));
        let mut sinks = json!({});
        if let Some(broker) = &self.kafka {
            self.sinks.push("kafka");
            sinks["kafka"] = json!({
                "brokers": [broker],
                "topic": "rtm-demo.{stream}_events",
                "dead_letter_topic": "rtm-demo.dead_letters",
                "create": true,
            });
        }
        if let Some(url) = &self.nats {
            self.sinks.push("nats");
            sinks["nats"] = json!({
                "servers": [url],
                "stream": JETSTREAM,
                "subject": "rtm_demo.{region}.{stream}_events",
                "dead_letter_subject": "rtm_demo.dead_letters",
                "create": { "max_age": "1h" },
            });
        }
        if self.sinks.is_empty() {
            self.sinks.push("file");
            sinks["file"] = json!({ "path": self.file.to_string_lossy() });
        }
        let secret_file = secret_file(dir)?;
        let config = json!({
            "journal": { "dir": dir.join("journal").to_string_lossy(), "max_bytes": "1GiB" },
            "apps": [{
                "name": APP,
                "app_id": self.app_id,
                "auth": { "basic": { "key": "demo", "secret_file": secret_file.to_string_lossy() } },
                "regions": regions,
            }],
            "sinks": sinks,
        });
        Ok(Config::parse(&toml_edit::ser::to_string(&config)?)?)
    }

    /// The usual port if it is free, else any.
    async fn admin(
        &self,
        config: &Config,
        slot: &admin::Slot,
        served: &CancellationToken,
    ) -> anyhow::Result<SocketAddr> {
        let usual = SocketAddr::from(([127, 0, 0, 1], 9464));
        let settings = Settings::shown(config);
        let serve = |address| {
            let (slot, settings) = (Arc::clone(slot), Arc::clone(&settings));
            admin::serve(address, slot, settings, served.clone())
        };
        match serve(usual).await {
            Ok(address) => Ok(address),
            Err(_) => Ok(serve(SocketAddr::from(([127, 0, 0, 1], 0))).await?),
        }
    }

    /// The live view, until the time is over, a signal comes or the bridge ends.
    async fn watch<T>(
        &self,
        slot: &admin::Slot,
        simulator: &Simulator,
        time: Option<Duration>,
        stop: &CancellationToken,
        running: &tokio::task::JoinHandle<T>,
    ) -> Result<(), StdoutError> {
        let terminal = std::io::stdout().is_terminal();
        let progress = live_view(terminal.then(ProgressDrawTarget::stdout));
        let interval = if terminal {
            VIEW_INTERVAL.0
        } else {
            VIEW_INTERVAL.1
        };
        let started = Instant::now();
        let mut view = View::default();
        let mut shown = false;
        let mut ticks = tokio::time::interval(interval);
        while !running.is_finished() && time.is_none_or(|time| started.elapsed() < time) {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let Some(state) = slot.get() else { continue };
            if !shown && self.confirmed(state) > 0 {
                shown = true;
                self.show_records().await?;
            }
            let text = view.text(&self.sinks, state, simulator, started.elapsed());
            if terminal {
                progress.set_message(text);
                progress.tick();
            } else if started.elapsed() >= interval {
                say(text.replace('\n', "  |"))?;
            }
        }
        progress.finish();
        Ok(())
    }

    fn confirmed(&self, state: &State) -> u64 {
        let stats = state.journal.stats();
        let readers = stats.lanes.iter().flat_map(|lane| &lane.readers);
        readers
            .map(|reader| Tally::decode(&reader.tally).confirmed)
            .sum()
    }

    /// Waits until nothing waits anywhere.
    async fn quiet<T>(
        &self,
        slot: &admin::Slot,
        simulator: &Simulator,
        running: &tokio::task::JoinHandle<T>,
    ) -> Result<bool, StdoutError> {
        let deadline = Instant::now() + QUIET_DEADLINE;
        while Instant::now() < deadline && !running.is_finished() {
            let waiting: u64 = simulator
                .stats()
                .rings
                .iter()
                .map(|ring| ring.waiting)
                .sum();
            let fetching = simulator
                .ledger()
                .pages
                .iter()
                .any(|page| page.finished_at_ms.is_none());
            let pending = slot.get().is_none_or(|state| {
                state
                    .journal
                    .stats()
                    .lanes
                    .iter()
                    .flat_map(|lane| &lane.readers)
                    .any(|reader| reader.pending_entries > 0)
            });
            if waiting == 0 && !fetching && !pending {
                return Ok(true);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                _ = tokio::signal::ctrl_c() => {
                    say("Not waiting any longer.")?;
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }
}

fn secret_file(dir: &Path) -> std::io::Result<PathBuf> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join("secret");
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?
        .write_all(b"demo\n")?;
    Ok(path)
}
