//! `rtm-bridge demo`: simulator, bridge and a sink in one process, and then the proof.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressDrawTarget;
use rtm_sim::{Audit, Load, SimApp, SimConfig, Simulator};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::process::{duration, live_view, runtime, stop_on_signals};
use super::{preflight, telemetry};
use crate::admin::settings::Settings;
use crate::config::{AdminConfig, Config, LogConfig};
use crate::sinks::Stored;
use crate::{admin, read_back};
use rtm_engine::status::State;
use rtm_engine::status::health::Health;

/// The App ID's name.
const APP: &str = "demo";

/// The regions of the demo.
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

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

pub(super) fn demo(args: &DemoArgs) -> anyhow::Result<bool> {
    telemetry::start(&LogConfig::default(), "warn")?;
    match runtime()?.block_on(run(args)) {
        // Whoever reads our output has heard enough, as with `| head`. The bridge has ended, and its directory is gone.
        Err(error) if error.downcast_ref().is_some_and(StdoutError::is_closed) => Ok(true),
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

async fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    let stop = stop_on_signals()?;
    let dir = tempfile::Builder::new()
        .prefix("rtm-bridge-demo-")
        .tempdir()
        .context("cannot make a temporary directory")?;
    // Random, so that records that an earlier demo left in a broker are told from this one's.
    let seed = fastrand::u64(..);
    let app = SimApp {
        app_id: format!("{seed:016x}{seed:016x}"),
        auth: SimApp::default().auth,
    };
    let app_id = app.app_id.clone();
    let simulator = Simulator::start(SimConfig {
        seed,
        apps: vec![app],
        regions: REGIONS.map(str::to_owned).to_vec(),
        load: Load {
            events_per_second: args.rate,
            odd: args.odd,
            ..Load::default()
        },
        ..SimConfig::default()
    });
    let simulator = simulator.await.context("cannot start the simulator")?;
    let config = config(args, dir.path(), &app_id, &simulator)?;
    preflight::ready(&config).await?;
    say(format_args!(
        "A simulation of Agora's API makes {} events a second in {} regions.\n\
         The bridge polls it, stores every response and publishes to: {}.",
        args.rate,
        REGIONS.len(),
        Vec::from_iter(config.sinks.keys().cloned()).join(", ")
    ))?;

    let (state, served) = (admin::Slot::default(), CancellationToken::new());
    // The usual port if it is free, else any.
    let usual = SocketAddr::from(([127, 0, 0, 1], 9464));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let is_free = std::net::TcpListener::bind(usual).is_ok();
    let endpoint = AdminConfig {
        listen: if is_free { usual } else { any }.into(),
        ..AdminConfig::default()
    };
    let settings = Settings::shown(&config);
    let listening = admin::serve(&endpoint, Arc::clone(&state), settings, served.clone()).await;
    let admin = match &*listening.borrow() {
        Some(Ok(address)) => *address,
        _ => anyhow::bail!("cannot open the admin endpoint"),
    };
    say(format_args!(
        "Metrics: http://{admin}/metrics   Readiness: http://{admin}/readyz   Journal: {}\n",
        config.journal.dir.display()
    ))?;

    let end = CancellationToken::new();
    let bridge = tokio::spawn({
        let (config, state, end) = (config.clone(), Arc::clone(&state), end.clone());
        let started = move |started| drop(state.set(started));
        async move { crate::run::run(&config, None, started, end).await }
    });
    let demo = Demo {
        config,
        simulator,
        state,
        bridge,
    };
    let shown = demo.show(args.time, &stop).await;
    end.cancel();
    demo.bridge
        .await
        .context("the bridge ended unexpectedly")??;
    served.cancel();
    let is_quiet = shown?;
    prove(&demo.config, demo.simulator)
        .await
        .map(|clean| clean && is_quiet)
}

/// The demo's configuration, as a user would write it.
fn config(
    args: &DemoArgs,
    dir: &Path,
    app_id: &str,
    simulator: &Simulator,
) -> anyhow::Result<Config> {
    let regions =
        REGIONS.map(|region| json!({ "name": region, "base_url": simulator.base_url(region) }));
    let mut sinks = json!({});
    if let Some(broker) = &args.kafka {
        sinks["kafka"] = json!({
            "brokers": [broker],
            "topic": "rtm-demo.{stream}_events",
            "dead_letter_topic": "rtm-demo.dead_letters",
            "create": true,
        });
    }
    if let Some(url) = &args.nats {
        sinks["nats"] = json!({
            "servers": [url],
            "stream": "RTM_DEMO",
            "subject": "rtm_demo.{region}.{stream}_events",
            "dead_letter_subject": "rtm_demo.dead_letters",
            "create": { "max_age": "1h" },
        });
    }
    if args.kafka.is_none() && args.nats.is_none() {
        sinks["file"] = json!({ "path": dir.join("events.jsonl").to_string_lossy() });
    }
    let config = json!({
        "journal": { "dir": dir.join("journal").to_string_lossy(), "max_bytes": "1GiB" },
        "apps": [{
            "name": APP,
            "app_id": app_id,
            "auth": preflight::auth(dir)?,
            "regions": regions,
        }],
        "sinks": sinks,
    });
    Ok(Config::parse(&toml_edit::ser::to_string(&config)?)?)
}

/// A demo while it runs.
struct Demo {
    config: Config,
    simulator: Simulator,
    state: admin::Slot,
    bridge: JoinHandle<anyhow::Result<()>>,
}

impl Demo {
    /// How it goes, until every sink has what there is; whether that came to be.
    async fn show(
        &self,
        time: Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<bool, StdoutError> {
        self.watch(time, stop).await?;
        self.simulator.stop_generating();
        say("\nNo more events are made; waiting until every sink has what there is.")?;
        let deadline = Instant::now() + QUIET_DEADLINE;
        while Instant::now() < deadline && !self.bridge.is_finished() {
            if self.is_quiet() {
                return Ok(true);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        say("Not everything was published: not waiting any longer.")?;
        Ok(false)
    }

    /// The live view, until the time is over, a signal comes or the bridge ends.
    async fn watch(
        &self,
        time: Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<(), StdoutError> {
        let view = live_view(ProgressDrawTarget::stdout(), "{msg}");
        let (drawn, printed) = VIEW_INTERVAL;
        let interval = if view.is_hidden() { printed } else { drawn };
        let began = Instant::now();
        let mut ticks = tokio::time::interval_at((began + interval).into(), interval);
        let mut are_records_shown = false;
        while !self.bridge.is_finished() && time.is_none_or(|time| began.elapsed() < time) {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let Some(state) = self.state.get() else {
                continue;
            };
            let (text, confirmed) = progress(state, began.elapsed());
            if confirmed > 0 && !are_records_shown {
                are_records_shown = true;
                self.show_records().await?;
            }
            if view.is_hidden() {
                say(text.replace('\n', "  |"))?;
            } else {
                view.set_message(text);
                view.tick();
            }
        }
        view.finish();
        Ok(())
    }

    /// Two records, as they are stored.
    async fn show_records(&self) -> Result<(), StdoutError> {
        let mut records = Vec::new();
        for sink in self.config.sinks.values() {
            let mut each = |stored: &Stored<'_>| {
                if records.len() < 2 && !stored.dead_letter {
                    records.push(String::from_utf8_lossy(stored.payload).into_owned());
                }
            };
            if sink.table().read_back(&mut each).await.is_err() {
                return Ok(());
            }
        }
        let records = records.join("\n  ");
        say(format_args!("Two of the records:\n  {records}\n"))
    }

    /// Whether nothing waits in a ring, on its way or in the journal.
    fn is_quiet(&self) -> bool {
        let (rings, pages) = (self.simulator.stats().rings, self.simulator.ledger().pages);
        let is_published = |state: &Arc<State>| {
            let sinks = state.snapshot().sinks;
            sinks.iter().all(|sink| sink.pending_events == 0)
        };
        rings.iter().all(|ring| ring.waiting == 0)
            && pages.iter().all(|page| page.finished_at_ms.is_some())
            && self.state.get().is_some_and(is_published)
    }
}

/// How it goes, a line for each sink; and how many events are confirmed.
fn progress(state: &State, elapsed: Duration) -> (String, u64) {
    let now = state.snapshot();
    let fetched: u64 = now.rings.iter().map(|ring| ring.events).sum();
    let requests: u64 = now.apps.iter().map(|app| app.requests).sum();
    let per_second = |total: u64| total as f64 / now.uptime_seconds;
    let mut text = format!(
        "{:>4} s  fetched {fetched:>8}, {:>6.0}/s   requests {requests:>6}, {:>4.1}/s of 10   journal {:>5.1} MiB",
        elapsed.as_secs(),
        per_second(fetched),
        per_second(requests),
        now.journal.bytes as f64 / f64::from(1 << 20),
    );
    let mut confirmed = 0;
    for sink in &now.sinks {
        let of_sink = sink
            .outlets
            .iter()
            .map(|outlet| outlet.confirmed)
            .sum::<u64>();
        confirmed += of_sink;
        let ages = state.metrics.sink(APP, &sink.name).event_age;
        let age = 1000.0 * ages.get_sample_sum() / ages.get_sample_count().max(1) as f64;
        let up = if sink.health == Health::Down {
            "  DOWN"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n        {:<6} confirmed {of_sink:>8}   mean age {age:>4.0} ms   events waiting {:>4}{up}",
            sink.name, sink.pending_events
        );
    }
    (text, confirmed)
}

/// Compares what was handed out with what each sink holds. True when nothing is missing and nothing is wrong.
async fn prove(config: &Config, simulator: Simulator) -> anyhow::Result<bool> {
    let (ledger, stats) = (simulator.ledger(), simulator.stats());
    simulator.shutdown().await;
    let lines = read_back::as_lines(&ledger);
    let (mut clean, mut handed_out) = (true, 0);
    for (name, sink) in &config.sinks {
        let is_lines = sink.table().file().is_some();
        let mut audit = Audit::new(if is_lines { &lines } else { &ledger });
        let app_id = &config.apps[0].app_id;
        let mut each = |stored: &Stored<'_>| read_back::observe(&mut audit, app_id, stored);
        sink.table().read_back(&mut each).await?;
        let findings = audit.finish();
        say(format_args!(
            "\nRead back from {name} and compared with what was handed out, event by event:\n{findings}"
        ))?;
        clean &= findings.clean();
        handed_out = findings.handed_out;
    }
    // Of a sink that has everything, the comparison says so.
    match (handed_out, clean) {
        (0, _) => say("\nNOTHING WAS HANDED OUT, so nothing was shown")?,
        (_, false) => say("\nSOMETHING IS MISSING OR WRONG")?,
        (_, true) => {}
    }
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
    Ok(clean && handed_out > 0)
}
