//! The command line.

use std::process::ExitCode;

use clap::Parser;
use rtm_bridge::commands::{self, Cli};

fn main() -> ExitCode {
    // Before anything opens TLS: with two providers in one program, or none chosen, the first connection panics.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("rtm-bridge: another TLS provider is installed already; please report this");
        return ExitCode::FAILURE;
    }
    commands::main(Cli::parse())
}
