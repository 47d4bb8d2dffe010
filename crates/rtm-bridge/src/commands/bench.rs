//! `rtm-bridge bench`: what a deployment takes, measured with the user's own sinks.
//!
//! The simulator runs in this process and the bridge in a child, so that what is counted of the bridge is the bridge's
//! alone. At the end everything is read back from the sinks and compared with what was handed out.

use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressDrawTarget;
use rtm_sim::{AppStats, Load, SimApp, SimConfig, Simulator};
use tokio_util::sync::CancellationToken;

use super::process::{live_view, runtime, stop_on_signals};
use super::{preflight, telemetry};
use crate::config::LogConfig;

mod args;
mod child;
mod places;
mod report;

pub(super) use args::BenchArgs;

use args::MOST_OF_AN_APP;
use child::Child;
use places::Places;
use report::{Report, requests};

/// How long the bridge may take to its first request.
const START: Duration = Duration::from_secs(30);

/// How long nothing may move once no more events are made.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked whether everything has arrived. Seldom, since looking costs the machine something.
const LOOK: Duration = Duration::from_millis(300);

/// How often progress is told: on a terminal, and as plain lines.
const PROGRESS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

pub(super) fn bench(args: &BenchArgs) -> anyhow::Result<bool> {
    // A broker that is away is told of once, by us.
    let quiet = "error,rdkafka=off,async_nats=off,rtm_sink_nats=off";
    telemetry::start(&LogConfig::default(), quiet)?;
    runtime()?.block_on(Box::pin(measure(args)))
}

async fn measure(args: &BenchArgs) -> anyhow::Result<bool> {
    let stop = stop_on_signals()?;
    let dir = tempfile::Builder::new().prefix("rtm-bench-").tempdir()?;
    let simulator = simulator(args).await?;
    let places = Places::new(args, dir.path(), &simulator)?;
    preflight::ready(&places.parsed).await?;
    places.make().await?;
    let each = args.rate / f64::from(args.apps);
    if each > MOST_OF_AN_APP {
        eprintln!(
            "warning: {each:.0} events a second for each App ID are more than the {MOST_OF_AN_APP:.0} that its API gives, \
             whoever reads it: the rest is lost at the ring. --apps {:.0} would do",
            (args.rate / MOST_OF_AN_APP).ceil()
        );
    }
    let measured = Box::pin(measure_in(args, &places, simulator, &stop)).await;
    let names = places.names().join(", ");
    if args.keep {
        eprintln!("kept: {names}");
    } else if let Err(error) = places.remove().await {
        let error = crate::chain(error.as_ref());
        eprintln!("rtm-bridge: not everything was removed ({error}); look for: {names}");
    }
    let report = measured?;
    // Whoever reads the report may have gone, which ends us while it is printed.
    drop(dir);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.clean)
}

async fn simulator(args: &BenchArgs) -> anyhow::Result<Simulator> {
    let app = |number| SimApp {
        app_id: places::app_id(number),
        ..SimApp::default()
    };
    let config = SimConfig {
        apps: (0..args.apps).map(app).collect(),
        regions: places::regions(args.regions),
        load: load(0.0),
        ..SimConfig::default()
    };
    let simulator = Simulator::start(config).await;
    simulator.context("cannot start the simulator")
}

/// A load for each App ID.
fn load(rate: f64) -> Load {
    Load {
        events_per_second: rate,
        ..Load::default()
    }
}

async fn measure_in(
    args: &BenchArgs,
    places: &Places,
    simulator: Simulator,
    stop: &CancellationToken,
) -> anyhow::Result<Report> {
    let bridge = Child::start(&places.config, args.config.is_some())?;
    let mut run = Run {
        places,
        simulator,
        bridge,
    };
    run.first_requests(stop).await?;
    let before = run.bridge.usage()?;
    let began = Instant::now();
    let load = load(args.rate / f64::from(args.apps));
    run.simulator.set_load(load);
    run.under_load(args.time, stop).await?;
    run.simulator.stop_generating();
    let took = began.elapsed();
    run.caught_up().await?;
    let used = run.bridge.usage()?.since(&before);
    run.bridge.stop().await?;
    let (ledger, stats) = (run.simulator.ledger(), run.simulator.stats());
    run.simulator.shutdown().await;
    eprintln!("reading the sinks back");
    let held = places.read_back(&ledger).await?;
    let written = places.file_bytes();
    Ok(Report::new(args, took, &used, &stats, &held, written))
}

/// A bridge that is measured, and what it polls.
struct Run<'a> {
    places: &'a Places,
    simulator: Simulator,
    bridge: Child,
}

impl Run<'_> {
    /// Waits until every App ID is polled.
    async fn first_requests(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let is_idle = |app: &AppStats| app.requests == 0;
        while self.simulator.stats().apps.iter().any(is_idle) {
            self.bridge.check()?;
            if stop.is_cancelled() || Instant::now() > deadline {
                return Err(self.bridge.failed("the bridge has not polled every App ID"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Tells progress until the time is over, or a signal ends it early.
    async fn under_load(&mut self, time: Duration, stop: &CancellationToken) -> anyhow::Result<()> {
        let view = live_view(ProgressDrawTarget::stderr(), "{msg}");
        let (drawn, printed) = PROGRESS;
        let interval = if view.is_hidden() { printed } else { drawn };
        let began = Instant::now();
        while began.elapsed() < time {
            let left = time.saturating_sub(began.elapsed());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(interval.min(left)) => {}
            }
            self.bridge.check()?;
            let stats = self.simulator.stats();
            let handed: u64 = stats.rings.iter().map(|ring| ring.handed_out).sum();
            let text = format!(
                "{:>4} of {} s   {handed:>9} events, {:>6.0}/s   {:>6} requests   {:>5} pages wait in the journal",
                began.elapsed().as_secs(),
                time.as_secs(),
                handed as f64 / began.elapsed().as_secs_f64(),
                requests(&stats),
                self.places.pending().await?
            );
            if view.is_hidden() {
                eprintln!("{text}");
            } else {
                view.set_message(text);
                view.tick();
            }
        }
        view.finish();
        Ok(())
    }

    /// Waits until the rings are empty and nothing waits in the journal.
    async fn caught_up(&mut self) -> anyhow::Result<()> {
        let (mut moved, mut last, mut quiet) = (Instant::now(), (0, 0), 0);
        // Twice: between a response and its entry in the journal a page is in neither.
        while quiet < 2 {
            tokio::time::sleep(LOOK).await;
            self.bridge.check()?;
            let rings = self.simulator.stats().rings;
            let waiting: u64 = rings.iter().map(|ring| ring.waiting).sum();
            let now = (waiting, self.places.pending().await?);
            quiet = if now == (0, 0) { quiet + 1 } else { 0 };
            if now != last {
                (moved, last) = (Instant::now(), now);
            }
            if moved.elapsed() > PATIENCE {
                return Err(self.bridge.failed(&format!(
                    "nothing moves: {} events wait in rings and {} pages in the journal",
                    now.0, now.1
                )));
            }
        }
        Ok(())
    }
}
