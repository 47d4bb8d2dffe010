//! `rtm-bridge journal dump`.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use rtm_journal::{EntryFilter, Journal, Position, StoredEntry};
use serde_json::{Value, json};

use crate::commands::configuration::DirArgs;
use crate::commands::process::refuse;
use crate::commands::range::{Known, Range};
use rtm_record::entry;

/// Print what is stored, one JSON document an entry, on a stopped bridge or a copy
///
/// Prints also what every sink has confirmed and what is not reclaimed yet. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One line an entry, by position: lane (the App ID), position, epoch, time (when it was stored), count (its events), the \
sinks that have not confirmed it, the tags, and the body as it came from Agora, as text (body) or, where it is not \
UTF-8, in hexadecimal (body_hex). An entry that cannot be read has an error instead, whatever app, region and stream \
are asked for, and the exit code is 1.

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
    for stored in Journal::stored(&dir, &filter)?.filter(|stored| wants(&args.range, stored)) {
        printed = true;
        unreadable |= stored.entry.is_err();
        println!("{}", terminal_safe(&line(&stored).to_string()));
    }
    if !printed {
        args.range.unknown(&known(&dir)?).map_err(refuse)?;
    }
    Ok(!unreadable)
}

/// What cannot be read does not say what it is of: it may be what is asked for.
fn wants(range: &Range, stored: &StoredEntry) -> bool {
    let entry = stored.entry.as_ref();
    match entry.map(|entry| entry::decode(&entry.bytes)) {
        Ok(Ok((tags, _))) => range.wants(&tags),
        Ok(Err(_)) | Err(_) => {
            let stored_at = Timestamp::try_from(stored.appended_at);
            stored_at.is_ok_and(|at| range.wants_time(at.as_millisecond()))
        }
    }
}

/// What all entries of a journal are of, outside of what was asked for as well.
fn known(dir: &Path) -> anyhow::Result<Known> {
    let mut known = Known::default();
    for stored in Journal::stored(dir, &EntryFilter::default())? {
        if let Ok(entry) = &stored.entry
            && let Ok((tags, _)) = entry::decode(&entry.bytes)
        {
            known.see(&tags);
        }
    }
    Ok(known)
}

fn line(stored: &StoredEntry) -> Value {
    let mut line = json!({
        "lane": stored.lane,
        "position": stored.position.0,
        "time": Timestamp::try_from(stored.appended_at).map(|time| time.to_string()).ok(),
        "count": stored.count,
        "pending": stored.pending.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
    });
    let entry = match &stored.entry {
        Ok(entry) => entry,
        Err(error) => {
            line["error"] = crate::chain(error.as_ref()).into();
            return line;
        }
    };
    line["epoch"] = entry.epoch.to_string().into();
    let body = match entry::decode(&entry.bytes) {
        Ok((tags, body)) => {
            line["tags"] = serde_json::to_value(&tags).unwrap_or_default();
            body
        }
        Err(error) => {
            // Another version's: its bytes as they are.
            line["error"] = crate::chain(&error).into();
            entry.bytes.clone()
        }
    };
    match std::str::from_utf8(&body) {
        Ok(text) => line["body"] = text.into(),
        Err(_) => line["body_hex"] = hex::encode(&body).into(),
    }
    line
}

/// The same JSON, with nothing in it that a terminal obeys or that changes the direction of text.
fn terminal_safe(json: &str) -> String {
    let unsafe_ = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    json.chars().fold(String::new(), |mut text, c| {
        if unsafe_(c) {
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
