//! `rtm-bridge journal dump`.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use rtm_journal::{Entry, EntryFilter, Journal, Position, StoredEntry};
use rtm_source::is_invisible;
use serde::Serialize;
use serde_json::Value;

use crate::commands::configuration::DirArgs;
use crate::commands::process::refuse;
use crate::commands::range::{Known, Range};
use rtm_record::entry;

/// Print what is stored, one JSON document an entry, on a stopped bridge or a copy
///
/// Prints also what every sink has confirmed and what is not reclaimed yet. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One line an entry, by position: position, lane (the App ID), epoch, time (when it was stored), count (its events), the \
sinks that have not confirmed it, the tags, and the body as it came from Agora, as text (body) or, where it is not \
UTF-8, in hexadecimal (body_hex). An entry that cannot be read has an error instead, whatever app, region and stream \
are asked for, and the exit code is 1. Where nothing is found a line on standard error says so, and the exit code is 0.

Examples:
  rtm-bridge journal dump --dir /var/lib/rtm-bridge --from 4711 --to 4800
  rtm-bridge journal dump --app main --since 2026-11-24T08:00:00Z | jq .tags")]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    place: DirArgs,
    #[command(flatten)]
    range: Range,
}

pub(super) fn dump(args: &DumpArgs) -> anyhow::Result<bool> {
    args.range.check().map_err(refuse)?;
    let dir = args.place.dir()?;
    let (first, last) = args.range.positions().into_inner();
    let filter = EntryFilter {
        positions: Position(first)..=Position(last),
        ..EntryFilter::default()
    };
    let (mut printed, mut unreadable) = (false, false);
    let mut known = Known::default();
    if let Some(config) = args.place.config_of(&dir) {
        known.see_config(&config);
    }
    for stored in Journal::stored(&dir, &filter)? {
        if !wants(&args.range, &stored, &mut known) {
            continue;
        }
        printed = true;
        unreadable |= stored.entry.is_err();
        println!("{}", terminal_safe(&line(&stored)?));
    }
    if !printed {
        see_all(&dir, &mut known)?;
        args.range.unknown(&known).map_err(refuse)?;
        eprintln!(
            "nothing is stored in {} of what is asked for",
            dir.display()
        );
    }
    Ok(!unreadable)
}

/// What cannot be read does not say what it is of: it may be what is asked for.
fn wants(range: &Range, stored: &StoredEntry, known: &mut Known) -> bool {
    let entry = stored.entry.as_ref();
    match entry.map(|entry| entry::decode(&entry.bytes)) {
        Ok(Ok((tags, _))) => {
            known.see(&tags);
            range.wants(&tags, known)
        }
        Ok(Err(_)) | Err(_) => {
            let stored_at = Timestamp::try_from(stored.appended_at);
            stored_at.is_ok_and(|at| range.wants_time(at.as_millisecond()))
        }
    }
}

/// What all entries of a journal are of, outside of what was asked for as well.
fn see_all(dir: &Path, known: &mut Known) -> anyhow::Result<()> {
    for stored in Journal::stored(dir, &EntryFilter::default())? {
        if let Ok(entry) = &stored.entry
            && let Ok((tags, _)) = entry::decode(&entry.bytes)
        {
            known.see(&tags);
        }
    }
    Ok(())
}

/// An entry, what tells it apart first: a body may be a megabyte.
#[derive(Default, Serialize)]
struct Line<'s> {
    position: u64,
    lane: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    time: Option<String>,
    count: u32,
    pending: Vec<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

fn line(stored: &StoredEntry) -> serde_json::Result<String> {
    let time = Timestamp::try_from(stored.appended_at);
    let mut line = Line {
        position: stored.position.0,
        lane: &stored.lane,
        time: time.map(|time| time.to_string()).ok(),
        count: stored.count,
        pending: stored.pending.iter().map(|name| name.as_str()).collect(),
        ..Line::default()
    };
    match &stored.entry {
        Ok(entry) => fill(&mut line, entry),
        Err(error) => line.error = Some(crate::chain(error.as_ref())),
    }
    serde_json::to_string(&line)
}

fn fill(line: &mut Line<'_>, entry: &Entry) {
    line.epoch = Some(entry.epoch.to_string());
    let body = match entry::decode(&entry.bytes) {
        Ok((tags, body)) => {
            line.tags = serde_json::to_value(&tags).ok();
            body
        }
        Err(error) => {
            // Another version's: its bytes as they are.
            line.error = Some(crate::chain(&error));
            entry.bytes.clone()
        }
    };
    match std::str::from_utf8(&body) {
        Ok(text) => line.body = Some(text.to_owned()),
        Err(_) => line.body_hex = Some(hex::encode(&body)),
    }
}

/// The same JSON, with nothing in it that a terminal obeys or that changes the direction of text.
fn terminal_safe(json: &str) -> String {
    json.chars().fold(String::new(), |mut text, c| {
        if c.is_control() || is_invisible(c) {
            // All of these are below 0x10000, so this is one escape, and they are only ever inside strings.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
        text
    })
}

#[cfg(test)]
mod tests;
