//! `rtm-bridge bench`: what a deployment takes, measured with the user's own sinks.
//!
//! The simulator runs in this process and the bridge in a child, so that what is counted of the bridge is the bridge's
//! alone. At the end everything is read back from the sinks and compared with what was handed out.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressDrawTarget;
use rtm_journal::Journal;
use rtm_sim::{Load, SimApp, SimAuth, SimConfig, SimStats, Simulator};
use tokio_util::sync::CancellationToken;

use super::{live_view, preflight, refuse, runtime, stop_on_signals, telemetry};
use crate::config::LogConfig;
use crate::usage::Usage;

mod child;
mod places;
mod report;

use child::Child;
use places::{PlaceError, Places};
use report::Report;

/// How long the bridge may take to its first request.
const START: Duration = Duration::from_secs(30);

/// How long nothing may move once no more events are made.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often is looked whether everything has arrived. Seldom, since looking costs the machine something.
const LOOK: Duration = Duration::from_millis(300);

/// How often progress is told: on a terminal, and as plain lines.
const PROGRESS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Measure what the bridge takes at a given load, with your own sinks, to size a deployment
///
/// Without sinks it writes to a file. A simulation of Agora's API makes the events, a bridge in a process of its own
/// carries them, and at the end what was handed out is compared, event by event, with what is read back from each sink. It
/// uses a topic prefix `rtm-bench-…` and a JetStream stream `RTM_BENCH_…` of its own, removed at the end unless --keep.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ages are from an event's time, by this machine's clock, to its storage, by the broker's; a file has none. CPU time is \
the bridge's alone; where next to no events come, polling is all that costs, and only the cores are told. The journal's \
bytes are what the bridge wrote less the files of file sinks; what waits for a sink takes a third of that or less, see \
check --outage. Progress goes to standard error.

The exit code is 0 when every event that was made is found in every sink; 1 when something is missing or wrong, or when \
events were lost at the ring, since nobody read them in time; 2 for wrong usage.

Examples:
  rtm-bridge bench --rate 2000 --for 30s
  rtm-bridge bench --kafka 127.0.0.1:9092 --rate 8000 --for 1m
  rtm-bridge bench --nats nats://127.0.0.1:4222 --apps 50 --rate 5000 --json
  rtm-bridge bench --config /etc/rtm-bridge.toml --rate 2000

With --config the sinks are those of that configuration, with topics and streams of the bench's own.")]
pub(super) struct BenchArgs {
    /// Events a second, over all App IDs and rings; an App ID's API gives 10,000 at most
    #[arg(long, value_name = "EVENTS", default_value_t = 2_000.0, value_parser = rate)]
    rate: f64,
    /// How long, such as 30s
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    time: Duration,
    /// Regions of each App ID, each with two rings
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    regions: u16,
    /// App IDs
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    apps: u16,
    /// Publish to this Kafka broker
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    kafka: Option<String>,
    /// Publish to this NATS server
    #[arg(long, value_name = "URL", value_parser = nats_url)]
    nats: Option<String>,
    /// Publish to the sinks of this configuration, a file or a directory, with their credentials and options; the rest of
    /// it must be valid, and is not used
    #[arg(short, long, value_name = "PATH", conflicts_with_all = ["kafka", "nats"])]
    config: Option<PathBuf>,
    /// Print a JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Leave topics and streams as they are at the end
    #[arg(long)]
    keep: bool,
    /// Be the bridge that is measured
    #[arg(long, hide = true, value_name = "FILE")]
    bridge: Option<PathBuf>,
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    super::duration(text)
        .ok()
        .filter(|time| *time >= Duration::from_secs(1))
        .ok_or_else(|| {
            "expected a duration of a second or more with a unit, such as 30s or 2m".to_owned()
        })
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    rate.filter(|rate| *rate >= 1.0 && *rate <= rtm_sim::MAX_EVENTS_PER_SECOND)
        .ok_or_else(|| {
            format!(
                "expected events a second, from 1 to {}",
                rtm_sim::MAX_EVENTS_PER_SECOND
            )
        })
}

fn host_and_port(text: &str) -> Result<String, String> {
    let valid = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "expected host:port, such as 127.0.0.1:9092".to_owned())
}

fn nats_url(text: &str) -> Result<String, String> {
    match text.parse::<async_nats::ServerAddr>() {
        Ok(server)
            if (text.starts_with("nats://") || text.starts_with("tls://"))
                && !server.host().is_empty() =>
        {
            Ok(text.to_owned())
        }
        _ => Err("expected a URL such as nats://127.0.0.1:4222".to_owned()),
    }
}

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

/// What the API of one App ID gives: ten pages of 1,000 a second.
const MOST_OF_AN_APP: f64 = 10_000.0;

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

fn requests(stats: &SimStats) -> u64 {
    stats.apps.iter().map(|app| app.requests).sum()
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

/// Pages that some sink has not confirmed, as the journal in `dir` tells.
fn pending(dir: &std::path::Path) -> anyhow::Result<u64> {
    let found = Journal::inspect(dir).context("cannot look into the bench's journal")?;
    let readers = found.lanes.iter().flat_map(|lane| &lane.readers);
    Ok(readers.map(|reader| reader.pending.entries).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: what cannot be is refused before anything starts, and what can is taken.
    #[test]
    fn arguments_are_checked() {
        assert!(rate("0").is_err() && rate("NaN").is_err() && rate("many").is_err());
        assert_eq!(rate("2000"), Ok(2_000.0));
        for bad in ["broker", "broker:", ":9092", "broker:port", "broker:70000"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
        assert!(host_and_port("[::1]:9092").is_ok());
        for bad in ["127.0.0.1:4222", "http://127.0.0.1", "nats://", ""] {
            assert!(nats_url(bad).is_err(), "{bad}");
        }
        assert!(nats_url("nats://127.0.0.1:4222").is_ok() && nats_url("tls://nats:4222").is_ok());
        assert!(duration("5").is_err() && duration("10ms").is_err() && duration("2m").is_ok());
    }
}
