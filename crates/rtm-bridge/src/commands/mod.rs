//! What the command line can do, and the exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod bench;
mod check;
mod configuration;
mod death;
mod demo;
mod journal;
mod outage;
mod preflight;
mod process;
mod range;
mod replay;
mod run;
mod schema;
mod simulate;
mod telemetry;
mod top;

use process::Refused;

use crate::stderr;

pub use telemetry::tell_panic;

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

/// Runs what the command line asks for, and says what ended it. What is on its way to standard error is waited for, and not
/// for ever.
pub fn main(cli: Cli) -> ExitCode {
    let code = match run_command(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => match error.downcast_ref() {
            Some(Refused(why)) => {
                why.lines().for_each(telemetry::complain);
                ExitCode::from(2)
            }
            None => {
                telemetry::complain(&crate::chain(error.as_ref()));
                ExitCode::FAILURE
            }
        },
    };
    stderr::flush(stderr::AT_THE_END);
    code
}

/// A command tells whether all was as it should be, or what ended it.
fn run_command(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Simulate(args) => simulate::simulate(args),
        Command::Journal(command) => journal::journal(command),
        Command::Top(args) => top::top(&args),
        Command::Replay(args) => replay::replay(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Config(command) => schema::config(&command),
        Command::Completions(args) => schema::completions(&args, Cli::command()),
    }
}
