//! `cargo run -p rtm-tests --bin laboratory`: schedules side by side, for the documentation of `rtm_source::Schedule`.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;
use rtm_tests::laboratory;

/// Runs schedules against patterns of arrivals in simulated time, prints a table, and writes it with its picture into
/// the documentation.
#[derive(Parser)]
struct Arguments {
    /// Write nothing
    #[arg(long)]
    print: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let measured = laboratory::measure();
    print!("{}", laboratory::table(&measured));
    if arguments.print {
        return Ok(());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (file, text) in laboratory::FILES.iter().zip(laboratory::files(&measured)) {
        std::fs::write(workspace.join(file), text).with_context(|| format!("write {file}"))?;
        println!("written: {file}");
    }
    Ok(())
}
