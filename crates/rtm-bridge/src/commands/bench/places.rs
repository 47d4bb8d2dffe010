//! Where the bench's records go: its configuration, which has topics and streams of its own, and reading them back.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rtm_journal::Journal;
use rtm_sim::{Ledger, Simulator};
use serde_json::{Value, json};

use super::args::BenchArgs;
use crate::commands::preflight;
use crate::commands::process::refuse;
use crate::config::Config;
use crate::read_back::{self, Held, Reading};
use crate::sinks::{Bench, SinkConfig, Stored};

/// Room in the journal for each ring, so that it is not what is measured; only a bound.
const ROOM_MIB: u64 = 64;

/// The least room.
const LEAST_ROOM_MIB: u64 = 4 << 10;

/// An App ID by its number.
pub(super) fn app_id(number: u16) -> String {
    format!("{:032x}", u32::from(number) + 1)
}

/// The first regions of the built-in table.
pub(super) fn regions(count: u16) -> Vec<String> {
    rtm_source::Region::builtin_names()
        .take(usize::from(count))
        .map(str::to_owned)
        .collect()
}

/// The files and the configuration of one run of the bench.
pub(super) struct Places {
    /// The bridge's configuration file.
    pub(super) config: PathBuf,
    pub(super) parsed: Config,
    journal: PathBuf,
}

impl Places {
    /// Writes the configuration.
    pub(super) fn new(
        args: &BenchArgs,
        dir: &Path,
        simulator: &Simulator,
    ) -> anyhow::Result<Places> {
        let tag = format!("{:08x}", fastrand::u32(..));
        let journal = dir.join("journal");
        let config = dir.join("rtm-bridge.toml");
        let rings = u64::from(args.apps) * u64::from(args.regions) * 2;
        let room = LEAST_ROOM_MIB.max(ROOM_MIB * rings);
        let auth = preflight::auth(dir)?;
        let mut whole = json!({
            "admin": { "listen": "127.0.0.1:0" },
            "log": { "level": "warn" },
            "journal": { "dir": journal.to_string_lossy(), "max_bytes": format!("{room}MiB") },
            "apps": apps(args, &auth, simulator),
        });
        whole["sinks"] = sinks(args, &whole, dir, &tag)?;
        let text = toml_edit::ser::to_string(&whole)?;
        std::fs::write(&config, &text)?;
        let parsed = match args.config {
            Some(_) => Config::load(&config),
            None => Config::parse(&text),
        };
        let parsed = parsed.map_err(refuse)?;
        for (sink, table) in &parsed.sinks {
            // What is ours is removed at the end; what is not must not be.
            let tag = &tag;
            if !table.table().is_of_bench(&Bench { sink, tag, dir }) {
                return Err(refuse(format!(
                    "sinks.{sink}: the environment lays another topic, stream or path over the bench's own; \
                     unset RTM_BRIDGE__SINKS__… for them"
                )));
            }
        }
        Ok(Places {
            config,
            parsed,
            journal,
        })
    }

    /// Pages that some sink has not confirmed, as the bridge's journal tells.
    pub(super) async fn pending(&self) -> anyhow::Result<u64> {
        let dir = self.journal.clone();
        let found = tokio::task::spawn_blocking(move || Journal::inspect(&dir)).await?;
        let lanes = found.context("cannot look into the bench's journal")?.lanes;
        let readers = lanes.iter().flat_map(|lane| &lane.readers);
        // A cursor that goes by its sink's name and a dot holds what the sink has had.
        let readers = readers.filter(|reader| !reader.name.contains('.'));
        Ok(readers.map(|reader| reader.pending.entries).sum())
    }

    /// What it makes at the brokers, for people.
    pub(super) fn names(&self) -> Vec<String> {
        let sinks = self.parsed.sinks.values();
        sinks.flat_map(|sink| sink.table().made()).collect()
    }

    /// Makes what the bridge does not make by itself; all of it, or none.
    pub(super) async fn make(&self) -> anyhow::Result<()> {
        let mut before: Vec<&SinkConfig> = Vec::new();
        for (name, sink) in &self.parsed.sinks {
            if let Err(error) = sink.table().make().await {
                for made in before {
                    made.table().remove().await?;
                }
                return Err(error.context(format!("sink {name}")));
            }
            before.push(sink);
        }
        Ok(())
    }

    /// What the sinks' files hold, in bytes: the rest of what the bridge wrote is the journal's.
    pub(super) fn file_bytes(&self) -> u64 {
        let sinks = self.parsed.sinks.values();
        let files = sinks.filter_map(|sink| std::fs::metadata(sink.table().file()?).ok());
        files.map(|found| found.len()).sum()
    }

    /// Removes what was made; what is missing already is no error.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        for (name, sink) in &self.parsed.sinks {
            let removed = sink.table().remove().await;
            removed.with_context(|| format!("sink {name}"))?;
        }
        Ok(())
    }

    /// Compares what each sink holds with what was handed out.
    pub(super) async fn read_back(&self, ledger: &Ledger) -> anyhow::Result<Vec<Held>> {
        let lines = read_back::as_lines(ledger);
        let mut held = Vec::new();
        for (name, sink) in &self.parsed.sinks {
            let is_lines = sink.table().file().is_some();
            let mut reading = Reading::new(if is_lines { &lines } else { ledger });
            let mut each = |stored: &Stored<'_>| reading.observe(stored);
            sink.table().read_back(&mut each).await?;
            held.push(reading.finish(name));
        }
        Ok(held)
    }
}

fn apps(args: &BenchArgs, auth: &Value, simulator: &Simulator) -> Value {
    let region = |name: &String| json!({ "name": name, "base_url": simulator.base_url(name) });
    let regions: Value = regions(args.regions).iter().map(region).collect();
    let app = |number| {
        json!({
            "name": format!("bench-{}", number + 1),
            "app_id": app_id(number),
            "regions": regions,
            "auth": auth,
        })
    };
    (0..args.apps).map(app).collect()
}

/// The sinks of the user's configuration, or those of the flags, with places of the bench's own; `rest` is all else that a
/// configuration needs.
fn sinks(args: &BenchArgs, rest: &Value, dir: &Path, tag: &str) -> anyhow::Result<Value> {
    let theirs = match &args.config {
        Some(file) => Config::load(file),
        None => {
            let mut whole = rest.clone();
            whole["sinks"] = flagged(args);
            Config::parse(&toml_edit::ser::to_string(&whole)?)
        }
    };
    let theirs = theirs.map_err(refuse)?;
    rewritten(&theirs, dir, tag).map_err(|error| match &args.config {
        Some(file) => refuse(format!("{}: {error}", file.display())),
        None => refuse(error),
    })
}

/// The sinks of a configuration, with places of the bench's own, and for all of its App IDs and streams.
fn rewritten(theirs: &Config, dir: &Path, tag: &str) -> Result<Value, String> {
    let mut sinks = theirs.sinks_as_written();
    for (sink, config) in &theirs.sinks {
        let own = config.table().bench(&Bench { sink, tag, dir })?;
        // A sink that only the environment sets has no table yet, which indexing makes.
        let table = &mut sinks[sink];
        if let Some(table) = table.as_object_mut() {
            table.retain(|key, _| !["apps", "streams"].contains(&key.as_str()));
        }
        for (key, value) in own.as_object().into_iter().flatten() {
            table[key] = value.clone();
        }
    }
    Ok(sinks)
}

/// The sinks that the flags name, as a user would write them who does not care where records go.
fn flagged(args: &BenchArgs) -> Value {
    let mut sinks = json!({});
    if let Some(broker) = &args.kafka {
        sinks["kafka"] = json!({ "brokers": [broker] });
    }
    if let Some(url) = &args.nats {
        sinks["nats"] = json!({ "servers": [url], "stream": "RTM" });
    }
    if args.kafka.is_none() && args.nats.is_none() {
        sinks["file"] = json!({ "path": "events" });
    }
    sinks
}

#[cfg(test)]
mod tests;
