//! `cargo run --release -p rtm-tests --bin simulation`: the whole bridge in simulated time, seed after seed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use rtm_tests::simulation;

/// Runs the shipped data path in simulated time, with a simulated Agora, network, disk and clock, and sinks in memory,
/// and checks every invariant after each seed.
#[derive(Parser)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print the log of the bridge, for a single seed
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        simulation::log_to_stderr();
    }
    let began = Instant::now();
    let next = AtomicU64::new(arguments.seed);
    let end = arguments.seed + arguments.seeds;
    let (failed, events, crashes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = simulation::run(seed);
                    events.fetch_add(report.handed_out, Ordering::Relaxed);
                    crashes.fetch_add(report.crashes.into(), Ordering::Relaxed);
                    if !report.broken.is_empty() || arguments.seeds == 1 {
                        println!("seed {seed}: {report}");
                    }
                    if !report.broken.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!(
                            "again: cargo run --release -p rtm-tests --bin simulation -- --seed {seed} --log"
                        );
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "{} seeds in {:.1} s: {} events, {} crashes, {failed} seeds failed",
        arguments.seeds,
        began.elapsed().as_secs_f64(),
        events.into_inner(),
        crashes.into_inner()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
