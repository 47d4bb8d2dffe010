//! `rtm-bridge journal`: what a journal holds, whether it is sound, and what to forget.

mod dump;
mod forget;
mod verify;

use std::collections::BTreeSet;
use std::path::Path;

use bytesize::ByteSize;
use rtm_journal::{Inspection, Journal, LaneInspection, ReaderInspection};

use super::configuration::DirArgs;
use super::process::refuse;
use crate::config::Config;

#[derive(Debug, clap::Subcommand)]
pub(super) enum JournalCommand {
    Stat(StatArgs),
    Verify(verify::VerifyArgs),
    Dump(dump::DumpArgs),
    Forget(forget::ForgetArgs),
}

/// Size, lanes, cursors and what waits; reads only, also while the bridge runs
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: rtm-bridge journal stat --dir /var/lib/rtm-bridge")]
pub(super) struct StatArgs {
    #[command(flatten)]
    place: DirArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn journal(command: JournalCommand) -> anyhow::Result<bool> {
    match command {
        JournalCommand::Stat(args) => stat(&args),
        JournalCommand::Verify(args) => verify::verify(&args),
        JournalCommand::Dump(args) => dump::dump(&args),
        JournalCommand::Forget(args) => forget::forget(&args),
    }
}

fn stat(args: &StatArgs) -> anyhow::Result<bool> {
    let dir = args.place.dir()?;
    let inspection = Journal::inspect(&dir)?;
    if inspection.segments.is_empty() {
        return Err(refuse(format!("there is no journal in {}", dir.display())));
    }
    let sinks = sinks_of(&args.place, &dir);
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json(&inspection, sinks.as_ref()))?
        );
    } else {
        print(&dir, &inspection, sinks.as_ref());
    }
    Ok(true)
}

/// The names of the sinks of the configuration, where there is one and the journal is its own.
fn sinks_of(place: &DirArgs, dir: &Path) -> Option<BTreeSet<String>> {
    let config = Config::load(&place.config.config).ok()?;
    let same = |a: &Path, b: &Path| Some(a.canonicalize().ok()? == b.canonicalize().ok()?);
    same(&config.journal.dir, dir)?.then(|| config.sinks.into_keys().collect())
}

/// Whether the configuration has the sink of a cursor. The cursor that remembers copies goes by its sink's name and a dot.
fn is_configured(reader: &ReaderInspection, sinks: Option<&BTreeSet<String>>) -> Option<bool> {
    let name = reader.name.as_str().split('.').next()?;
    Some(sinks?.contains(name))
}

/// For people.
fn print(dir: &Path, found: &Inspection, sinks: Option<&BTreeSet<String>>) {
    let holder = match (found.in_use, found.in_use_by) {
        (true, Some(process)) => format!("in use by process {process}"),
        (true, None) => "in use".to_owned(),
        (false, _) if found.clean => "closed cleanly".to_owned(),
        (false, _) => "not closed: the last process died; the next start recovers it".to_owned(),
    };
    let (segments, processes) = (found.segments.len(), found.epochs.len());
    let entries: u64 = found.segments.iter().map(|segment| segment.entries).sum();
    println!("{}: {holder}", dir.display());
    println!(
        "  size      {} in {segments} segment(s)",
        ByteSize(found.bytes)
    );
    println!("  entries   {entries}, written by {processes} process(es)");
    if found.torn_bytes > 0 {
        let torn = ByteSize(found.torn_bytes);
        println!("  torn      {torn} at the end, which opening cuts off");
    }
    if found.damaged > 0 {
        println!("  DAMAGED   {} place(s) cannot be read", found.damaged);
    }
    for lane in &found.lanes {
        println!(
            "  lane {}: {} entries pending, {}; {} events stored ever",
            lane.name,
            lane.entries,
            ByteSize(lane.bytes),
            lane.appended
        );
        for reader in &lane.readers {
            let pending = &reader.pending;
            let age = pending.oldest_age.map(|age| age.as_secs());
            let removed = match is_configured(reader, sinks) {
                Some(false) => {
                    "; NO SINK OF THE CONFIGURATION, and the journal keeps what is pending"
                }
                Some(true) | None => "",
            };
            println!(
                "    {:<12} committed through {}, {} events; pending {} entries, {} events, {}{}{removed}",
                reader.name,
                reader.committed.0,
                reader.passed,
                pending.entries,
                pending.count,
                ByteSize(pending.bytes),
                age.map_or_else(String::new, |age| format!(", oldest {age} s"))
            );
        }
    }
}

/// For programs.
fn json(found: &Inspection, sinks: Option<&BTreeSet<String>>) -> serde_json::Value {
    let reader = |reader: &ReaderInspection| {
        serde_json::json!({
            "name": reader.name,
            "is_configured": is_configured(reader, sinks),
            "committed": reader.committed.0,
            "pending_entries": reader.pending.entries,
            "pending_bytes": reader.pending.bytes,
            "pending_events": reader.pending.count,
            "passed_events": reader.passed,
            "missing_events": reader.missing,
            "oldest_pending_age_seconds": reader.pending.oldest_age.map(|age| age.as_secs_f64()),
        })
    };
    let lane = |lane: &LaneInspection| {
        serde_json::json!({
            "name": lane.name,
            "pending_entries": lane.entries,
            "pending_bytes": lane.bytes,
            "appended_events": lane.appended,
            "readers": lane.readers.iter().map(reader).collect::<Vec<_>>(),
        })
    };
    serde_json::json!({
        "in_use": found.in_use,
        "clean": found.clean,
        "bytes": found.bytes,
        "segments": found.segments.len(),
        "torn_bytes": found.torn_bytes,
        "damaged": found.damaged,
        "lanes": found.lanes.iter().map(lane).collect::<Vec<_>>(),
    })
}
