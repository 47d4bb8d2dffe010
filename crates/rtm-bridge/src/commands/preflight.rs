//! What has to be there before a demo or a bench begins, so that it fails at once and says why, and not after a minute
//! of waiting for events that cannot come.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use bytesize::ByteSize;
use rtm_engine::page::ROOM_FOR_A_PAGE;
use serde_json::{Value, json};

use crate::config::{Config, free_bytes};

/// Whether the journal has room and every sink's broker can do its work. Nothing is made.
pub(super) async fn ready(config: &Config) -> anyhow::Result<()> {
    can_store(config).map_err(|error| {
        error.context("set TMPDIR to a directory of another file system, or make room")
    })?;
    for (name, sink) in &config.sinks {
        let places = sink.places(&config.names());
        let ready = sink.table().ready(&places).await;
        ready.with_context(|| format!("sink {name}"))?;
    }
    Ok(())
}

/// Whether the disk has room for a page of each ring, without which polling cannot begin.
pub(super) fn can_store(config: &Config) -> anyhow::Result<String> {
    let rings = config.apps.iter().map(|app| 2 * app.regions.len() as u64);
    let (dir, left_alone) = (&config.journal.dir, config.journal.min_free_bytes);
    let needed = left_alone.saturating_add(rings.sum::<u64>() * ROOM_FOR_A_PAGE as u64);
    let free = free_bytes(dir)
        .with_context(|| format!("cannot ask what is free for {}", dir.display()))?;
    room(dir, free, needed, left_alone)?;
    Ok(format!("{} are free for it", ByteSize(free)))
}

/// The credentials that the simulator takes, as a configuration has them: the secret is in a file that only we may read.
pub(super) fn auth(dir: &Path) -> std::io::Result<Value> {
    let file = dir.join("secret");
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(&file)?.write_all(b"demo-secret\n")?;
    Ok(json!({ "basic": { "key": "demo-key", "secret_file": file.to_string_lossy() } }))
}

fn room(dir: &Path, free: u64, needed: u64, left_alone: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        free >= needed,
        "the journal has no room in {}: {} are free there and {} are needed, of which {} are left alone for others \
         (journal.min_free_bytes)",
        dir.display(),
        ByteSize(free),
        ByteSize(needed),
        ByteSize(left_alone),
    );
    Ok(())
}

#[cfg(test)]
mod tests;
