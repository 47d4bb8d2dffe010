//! What the command line can do, and the exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

mod auto_creation;
mod bench;
mod check;
mod demo;
mod journal;
mod outage;
mod preflight;
mod replay;
mod run;
mod schema;
mod simulate;
mod telemetry;
mod top;

/// Wrong usage or configuration: trying again without changing something cannot help.
const USAGE: u8 = 2;

/// Polls the Agora RTM event API and publishes every event to Kafka and NATS JetStream.
///
/// Reading an event deletes it at Agora. The bridge therefore makes every response durable in its own journal before
/// anything else happens to it, and publishes from there, at least once and in order per key.
#[derive(Debug, Parser)]
#[command(name = "rtm-bridge", version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RTM_BRIDGE_COMMIT"), ")"), after_help = "Start with: rtm-bridge demo")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge until SIGTERM or SIGINT
    Run(run::RunArgs),
    /// Validate a configuration; with --connect also reach Agora's hosts and the brokers, without reading events
    Check(check::CheckArgs),
    /// Watch events flow: simulator, bridge and a sink in one process, nothing to install
    Demo(demo::DemoArgs),
    /// Measure what the bridge takes at a given load, with your own sinks, to size a deployment
    Bench(bench::BenchArgs),
    /// Run the stand-in for Agora's API alone, with load and faults
    Simulate(simulate::SimulateArgs),
    /// Look into a journal
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Watch a running bridge in the terminal: losses, rings, request budget, journal, sinks
    Top(top::TopArgs),
    /// Publish what is in the journal again, on purpose and marked as such; no cursor moves
    Replay(replay::ReplayArgs),
    /// Print the JSON Schema of the configuration, or of what is published
    Schema(schema::SchemaArgs),
    /// Print the reference configuration
    #[command(subcommand)]
    Config(schema::ConfigCommand),
    /// Print what a shell needs to complete commands and flags
    Completions(schema::CompletionsArgs),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "RTM_BRIDGE_CONFIG",
        default_value = "rtm-bridge.toml"
    )]
    config: PathBuf,
}

/// Runs what the command line asks for.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Demo(args) => demo::demo(args),
        Command::Bench(args) => bench::bench(&args),
        Command::Simulate(args) => simulate::simulate(args),
        Command::Journal(command) => journal::journal(command),
        Command::Top(args) => top::top(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Schema(args) => Ok(schema::schema(&args)),
        Command::Config(command) => Ok(schema::config(&command)),
        Command::Completions(args) => Ok(schema::completions(&args)),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rtm-bridge: {}", crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with a configuration.
fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("rtm-bridge: {line}");
    }
    ExitCode::from(USAGE)
}

/// App IDs that one of the runtime's threads serves. Each costs it a few milliseconds a second.
const APPS_PER_WORKER: usize = 32;

/// A duration with a unit, as in configuration files.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|signed| Duration::try_from(signed).ok())
        .ok_or_else(|| "expected a duration with a unit, such as 30s or 2h".to_owned())
}

/// A view of a few lines that is drawn again and again; nothing without a target.
fn live_view(target: Option<ProgressDrawTarget>) -> ProgressBar {
    let target = target.unwrap_or_else(ProgressDrawTarget::hidden);
    let view = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        view.set_style(style);
    }
    view
}

/// A runtime with all of tokio's drivers.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// A runtime for a bridge of so many App IDs. With few of them a second thread finds nothing to do, and is woken for
/// nothing again and again. Brokers and the journal have threads of their own.
fn runtime_for(apps: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(apps.div_ceil(APPS_PER_WORKER).clamp(1, cores))
        .enable_all()
        .build()
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one, as its number.
    async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX)
    }
}

/// A token that SIGTERM and SIGINT cancel.
///
/// # Errors
///
/// When the handlers cannot be installed.
fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut signals = Signals::new()?;
    let cancel = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        cancel.cancel();
    });
    Ok(stop)
}
