//! Trials with bounds: `cargo run --release -p rtm-tests --bin trial -- all`. Build the bridge first, in the same
//! profile: `cargo build --release`. Exits with 1 when a bound is missed or a promise is broken.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use rtm_tests::trial::{self, Report};

/// Runs the bridge and the simulator as processes with real brokers, and compares what was handed out with what the
/// brokers hold.
#[derive(Parser)]
struct Arguments {
    /// Which trial
    trial: Trial,
    /// Events a second, both streams together
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,
    /// Seconds under load; of the pause in `kafka-paused`
    #[arg(long)]
    seconds: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Trial {
    /// Kafka and NATS at once
    Both,
    /// Kafka alone
    Kafka,
    /// Kafka is paused for 30 s
    KafkaPaused,
    /// Five kills
    Kill,
    /// All of them
    All,
}

/// A bound on a figure: its name, its value, and the most that it may be.
type Bound = (&'static str, f64, f64);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let trials = match arguments.trial {
        Trial::All => vec![Trial::Both, Trial::Kafka, Trial::KafkaPaused, Trial::Kill],
        one => vec![one],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut kept = true;
    for trial in trials {
        kept &= runtime.block_on(run(trial, &arguments))?;
    }
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(trial: Trial, arguments: &Arguments) -> Result<bool> {
    let name = trial
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned());
    println!("\n== {name}, {} events/s", arguments.rate);
    let seconds = |usual| Duration::from_secs(arguments.seconds.unwrap_or(usual));
    let (report, cpu) = match trial {
        Trial::Both => (
            Box::pin(trial::steady(arguments.rate, seconds(60), true, 0.0)).await?,
            Some(16.0),
        ),
        Trial::Kafka => (
            Box::pin(trial::steady(arguments.rate, seconds(60), false, 0.0)).await?,
            Some(8.0),
        ),
        Trial::KafkaPaused => (
            Box::pin(trial::kafka_paused(arguments.rate, seconds(30))).await?,
            None,
        ),
        Trial::Kill | Trial::All => (Box::pin(trial::killed(arguments.rate, 5)).await?, None),
    };
    println!("{report}");
    let mut bounds = vec![];
    // The bounds are for 2,000 events/s.
    if let Some(cpu) = cpu
        && arguments.rate <= 2_000.0
    {
        bounds = bounds_of(&report, cpu);
    }
    let mut kept = true;
    for (name, value, most) in bounds {
        let verdict = if value <= most { "kept" } else { "MISSED" };
        kept &= value <= most;
        println!("bound {verdict}: {name} {value:.1}, at most {most}");
    }
    for broken in report.broken() {
        kept = false;
        println!("BROKEN: {broken}");
    }
    println!(
        "{name}: {}",
        if kept {
            "every promise and bound kept"
        } else {
            "FAILED"
        }
    );
    Ok(kept)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn bounds_of(report: &Report, cpu: f64) -> Vec<Bound> {
    vec![
        ("p50 of age at Kafka, ms", report.age(0.5) as f64, 150.0),
        ("CPU s per million events", report.cpu_per_million(), cpu),
        ("peak memory, MiB", (report.peak_rss >> 20) as f64, 80.0),
    ]
}
