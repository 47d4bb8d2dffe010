//! What the command line can do, and the exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{Span, SpanRelativeTo};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

mod bench;
mod check;
mod demo;
mod journal;
mod outage;
mod preflight;
mod range;
mod replay;
mod run;
mod schema;
mod simulate;
mod telemetry;
mod top;

pub use telemetry::tell_panic;

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

/// What a command is for stands at its arguments: here it would hide what stands there.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Simulate(simulate::SimulateArgs),
    /// Look into a journal
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    Top(top::TopArgs),
    Replay(replay::ReplayArgs),
    Schema(schema::SchemaArgs),
    /// Print the reference configuration
    #[command(subcommand)]
    Config(schema::ConfigCommand),
    Completions(schema::CompletionsArgs),
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// The configuration: a TOML file, or a directory, of which all *.toml are taken together
    #[arg(
        short,
        long,
        value_name = "PATH",
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
            telemetry::complain(&crate::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// The configuration of a command; without one, what is wrong has been said. A reload says the same, without the advice.
fn configuration(args: &ConfigArgs) -> Result<Config, ExitCode> {
    Config::load(&args.config).map_err(|error| {
        let code = refuse(&error);
        if !args.config.exists() {
            eprintln!(
                "rtm-bridge: name another file with --config, make one with `rtm-bridge config example`, or try \
                 `rtm-bridge demo`"
            );
        }
        code
    })
}

/// Says what is wrong with a configuration.
fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    for line in error.to_string().lines() {
        telemetry::complain(line);
    }
    ExitCode::from(USAGE)
}

/// App IDs that one of the runtime's threads serves. Each costs it a few milliseconds a second.
const APPS_PER_WORKER: usize = 32;

/// A duration with a unit, as in configuration files; days and weeks too, of 24 hours each.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|signed| Duration::try_from(signed).ok())
        .ok_or_else(|| "expected a duration with a unit, such as 30s, 2h or 10d".to_owned())
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

/// A runtime for a bridge of so many App IDs. With few of them it is the calling thread: a second one finds nothing to do,
/// and is woken for nothing again and again. Brokers and the journal have threads of their own.
fn runtime_for(apps: usize) -> std::io::Result<tokio::runtime::Runtime> {
    keep_freed_memory();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = apps.div_ceil(APPS_PER_WORKER).min(cores);
    if threads <= 1 {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

/// Free memory that a thread's heap keeps at its end is twice as much: librdkafka takes a megabyte for every page.
const KEPT_BYTES: usize = 4 << 20;

/// Lets threads keep memory for their next page, where glibc would give it back to the system and fault it in again ten
/// times a second: that was a twentieth of all processor time. Its threshold follows the largest block that was ever
/// freed (mallopt(3), at `M_MMAP_THRESHOLD`), so one is. Other allocators do not mind.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
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
