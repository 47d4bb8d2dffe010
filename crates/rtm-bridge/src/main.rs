//! The command line.

use std::process::ExitCode;

use clap::Parser;
use rtm_bridge::commands::{self, Cli};
use tikv_jemallocator::Jemalloc;

/// It gives memory back that is unused for some seconds. glibc's allocator kept what the largest answer had taken, for good.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // Before anything opens TLS: with two providers in one program, or none chosen, the first connection panics.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("rtm-bridge: another TLS provider is installed already; please report this");
        return ExitCode::FAILURE;
    }
    std::panic::set_hook(Box::new(|panic| {
        // Whoever reads our output has heard enough, as with `| head`: no reason for a backtrace.
        let closed = panic.payload_as_str().is_some_and(|text| {
            text.starts_with("failed printing to stdout") && text.contains("Broken pipe")
        });
        if closed {
            std::process::exit(0);
        }
        commands::tell_panic(panic);
    }));
    commands::main(Cli::parse())
}
