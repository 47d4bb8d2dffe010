//! `rtm-bridge journal`: what a journal holds, whether it is sound, and what to forget.

mod apps;
mod change;
mod dump;
mod forget;
mod new_id;
mod verify;

use std::path::Path;

use bytesize::ByteSize;
use rtm_journal::{Inspection, Journal, LaneInspection, ReaderInspection};

use super::configuration::DirArgs;
use super::death::{said_of_death, uncounted};
use super::process::counted;
use super::range::Known;
use crate::config::Config;
use apps::known_apps;

#[derive(Debug, clap::Subcommand)]
pub(super) enum JournalCommand {
    Stat(StatArgs),
    Verify(verify::VerifyArgs),
    Dump(dump::DumpArgs),
    Forget(forget::ForgetArgs),
    NewId(new_id::NewIdArgs),
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
        JournalCommand::NewId(args) => new_id::new_id(&args),
    }
}

fn stat(args: &StatArgs) -> anyhow::Result<bool> {
    let dir = args.place.dir()?;
    let inspection = Journal::inspect(&dir)?;
    let config = args.place.config_of(&dir);
    let names = Names {
        known: known_apps(&dir, config.as_ref())?,
        config,
    };
    if args.json {
        let json = json(&inspection, &names);
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print(&dir, &inspection, &names);
    }
    Ok(true)
}

/// What lanes and readers are to people.
struct Names {
    known: Known,
    /// None where no valid one was found.
    config: Option<Config>,
}

impl Names {
    /// An App ID's name.
    fn app(&self, lane: &str) -> Option<&str> {
        self.known.name(lane)
    }

    /// Whether the configuration has the sink, as far as there is one.
    fn is_configured(&self, sink: &str) -> Option<bool> {
        let config = self.config.as_ref()?;
        // The cursor that remembers copies goes by its sink's name and a dot.
        let name = sink.split('.').next()?;
        Some(config.sinks.contains_key(name))
    }
}

/// For people.
fn print(dir: &Path, found: &Inspection, names: &Names) {
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
    if let Some(id) = found.id {
        println!("  number    {id:032x}");
    }
    if let Some(said) = said_of_death(found) {
        println!("  DIED      {said}");
    }
    if found.torn_bytes > 0 {
        let torn = ByteSize(found.torn_bytes);
        println!("  torn      {torn} at the end, which opening cuts off");
    }
    if found.damaged > 0 {
        println!("  DAMAGED   {} place(s) cannot be read", found.damaged);
    }
    for lane in &found.lanes {
        let name = names.app(&lane.name).map(|name| format!(" ({name})"));
        println!(
            "  lane {}{}: {} pending, {}; {} stored ever",
            lane.name,
            name.unwrap_or_default(),
            counted(lane.entries, "entry", "entries"),
            ByteSize(lane.bytes),
            counted(lane.appended, "event", "events")
        );
        for reader in &lane.readers {
            let pending = &reader.pending;
            let age = pending.oldest_age.map(|age| age.as_secs());
            println!(
                "    {:<12} committed through {}, {}; pending {}, {}, {}{}{}",
                reader.name,
                reader.committed.0,
                counted(reader.passed, "event", "events"),
                counted(pending.entries, "entry", "entries"),
                counted(pending.count, "event", "events"),
                ByteSize(pending.bytes),
                age.map_or_else(String::new, |age| format!(", oldest {age} s")),
                match names.is_configured(&reader.name) {
                    Some(false) =>
                        "; NO SINK OF THE CONFIGURATION, and the journal keeps what is pending",
                    _ => "",
                }
            );
        }
    }
}

/// For programs.
fn json(found: &Inspection, names: &Names) -> serde_json::Value {
    let reader = |reader: &ReaderInspection| {
        serde_json::json!({
            "name": reader.name,
            "configured": names.is_configured(&reader.name),
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
            "app": names.app(&lane.name),
            "pending_entries": lane.entries,
            "pending_bytes": lane.bytes,
            "appended_events": lane.appended,
            "readers": lane.readers.iter().map(reader).collect::<Vec<_>>(),
        })
    };
    serde_json::json!({
        "id": found.id.map(|id| format!("{id:032x}")),
        "in_use": found.in_use,
        "clean": found.clean,
        "uncounted_events": uncounted(found),
        "bytes": found.bytes,
        "segments": found.segments.len(),
        "torn_bytes": found.torn_bytes,
        "damaged": found.damaged,
        "lanes": found.lanes.iter().map(lane).collect::<Vec<_>>(),
    })
}
