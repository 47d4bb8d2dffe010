//! `rtm-bridge bench`: what a deployment takes, measured with the user's own sinks.
//!
//! The simulator runs in this process and the bridge in a child, so that what is counted of the bridge is the bridge's
//! alone. At the end everything is read back from the sinks and compared with what was handed out.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressDrawTarget;
use rtm_sim::{Load, SimApp, SimAuth, SimConfig, Simulator};
use tokio_util::sync::CancellationToken;

use super::process::{live_view, refuse, runtime, stop_on_signals};
use super::{preflight, telemetry};
use crate::config::LogConfig;
use crate::usage::Usage;

mod args;
mod child;
mod places;
mod report;

pub(super) use args::BenchArgs;

use args::MOST_OF_AN_APP;
use child::Child;
use places::{PlaceError, Places};
use report::{Report, requests};

/// How long the bridge may take to its first request.
const START: Duration = Duration::from_secs(30);

/// How long nothing may move once no more events are made.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked whether everything has arrived. Seldom, since looking costs the machine something.
const LOOK: Duration = Duration::from_millis(300);

/// How often progress is told: on a terminal, and as plain lines.
const PROGRESS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

pub(super) fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.bridge {
        return child::bridge(file);
    }
    // A broker that is away is told of once, by us.
    telemetry::start(
        &LogConfig::default(),
        "error,rdkafka=off,async_nats=off,rtm_sink_nats=off",
    )
    .map_err(anyhow::Error::msg)?;
    runtime()?.block_on(Box::pin(measure(args)))
}

async fn measure(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signals()?;
    let dir = tempfile::Builder::new().prefix("rtm-bench-").tempdir()?;
    let simulator = simulator(args).await?;
    let places = match Places::new(args, dir.path(), &simulator) {
        Ok(places) => places,
        Err(PlaceError::Usage(text)) => return Ok(refuse(&text)),
        Err(PlaceError::Failed(error)) => return Err(error),
    };
    preflight::ready(&places.parsed).await?;
    places.make().await?;
    if let Some(warning) = too_fast(args) {
        eprintln!("warning: {warning}");
    }
    let measured = Box::pin(measure_in(args, &places, simulator, &stop)).await;
    if args.keep {
        eprintln!("kept: {}", places.names().join(", "));
    } else if let Err(error) = places.remove().await {
        eprintln!(
            "rtm-bridge: not everything was removed ({}); look for: {}",
            crate::chain(error.as_ref()),
            places.names().join(", ")
        );
    }
    let report = measured?;
    // Whoever reads the report may have gone, which ends us while it is printed.
    drop(dir);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why events will be lost, if they must be.
fn too_fast(args: &BenchArgs) -> Option<String> {
    let each = args.rate / f64::from(args.apps);
    (each > MOST_OF_AN_APP).then(|| {
        format!(
            "{each:.0} events a second for each App ID are more than the {MOST_OF_AN_APP:.0} that its API gives, whoever \
             reads it: the rest is lost at the ring. --apps {:.0} would do",
            (args.rate / MOST_OF_AN_APP).ceil()
        )
    })
}

async fn simulator(args: &BenchArgs) -> anyhow::Result<Simulator> {
    let apps = (0..args.apps).map(|number| SimApp {
        app_id: places::app_id(number),
        auth: SimAuth::Basic {
            key: "bench".into(),
            secret: "bench".into(),
        },
    });
    let config = SimConfig {
        apps: apps.collect(),
        regions: places::regions(args.regions),
        load: load(0.0),
        ..SimConfig::default()
    };
    Simulator::start(config)
        .await
        .context("cannot start the simulator")
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
    let mut bridge = Child::start(&places.config, args.config.is_some())?;
    first_requests(&simulator, &mut bridge, stop).await?;
    let before = bridge.usage()?;
    let began = Instant::now();
    simulator.set_load(load(args.rate / f64::from(args.apps)));
    under_load(args, places, &simulator, &mut bridge, stop).await?;
    simulator.stop_generating();
    let took = began.elapsed();
    caught_up(places, &simulator, &mut bridge).await?;
    let used: Usage = bridge.usage()?.since(&before);
    bridge.stop().await?;
    let (ledger, stats) = (simulator.ledger(), simulator.stats());
    simulator.shutdown().await;
    eprintln!("reading the sinks back");
    let held = places.read_back(&ledger).await?;
    Ok(Report::new(
        args,
        took,
        &used,
        &stats,
        &held,
        places.file_bytes(),
    ))
}

/// Waits until every App ID is polled.
async fn first_requests(
    simulator: &Simulator,
    bridge: &mut Child,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while simulator.stats().apps.iter().any(|app| app.requests == 0) {
        bridge.check()?;
        if stop.is_cancelled() || Instant::now() > deadline {
            return Err(bridge.failed("the bridge has not polled every App ID".to_owned()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Tells progress until the time is over, or a signal ends it early.
async fn under_load(
    args: &BenchArgs,
    places: &Places,
    simulator: &Simulator,
    bridge: &mut Child,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let terminal = std::io::stderr().is_terminal();
    let view = live_view(terminal.then(ProgressDrawTarget::stderr));
    let interval = if terminal { PROGRESS.0 } else { PROGRESS.1 };
    let began = Instant::now();
    while began.elapsed() < args.time {
        let left = args.time.saturating_sub(began.elapsed());
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(interval.min(left)) => {}
        }
        bridge.check()?;
        let stats = simulator.stats();
        let handed: u64 = stats.rings.iter().map(|ring| ring.handed_out).sum();
        let text = format!(
            "{:>4} of {} s   {handed:>9} events, {:>6.0}/s   {:>6} requests   {:>5} pages wait in the journal",
            began.elapsed().as_secs(),
            args.time.as_secs(),
            handed as f64 / began.elapsed().as_secs_f64(),
            requests(&stats),
            places.pending().await?
        );
        if terminal {
            view.set_message(text);
            view.tick();
        } else {
            eprintln!("{text}");
        }
    }
    view.finish();
    Ok(())
}

/// Waits until the rings are empty and nothing waits in the journal.
async fn caught_up(
    places: &Places,
    simulator: &Simulator,
    bridge: &mut Child,
) -> anyhow::Result<()> {
    let mut moved = Instant::now();
    let mut last = (0, 0);
    let mut quiet = 0;
    // Twice: between a response and its entry in the journal a page is in neither.
    while quiet < 2 {
        tokio::time::sleep(LOOK).await;
        bridge.check()?;
        let waiting: u64 = simulator
            .stats()
            .rings
            .iter()
            .map(|ring| ring.waiting)
            .sum();
        let now = (waiting, places.pending().await?);
        quiet = if now == (0, 0) { quiet + 1 } else { 0 };
        if now != last {
            (moved, last) = (Instant::now(), now);
        }
        if moved.elapsed() > PATIENCE {
            return Err(bridge.failed(format!(
                "nothing moves: {} events wait in rings and {} pages in the journal",
                now.0, now.1
            )));
        }
    }
    Ok(())
}
