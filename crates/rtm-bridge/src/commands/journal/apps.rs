//! The names of the apps whose lanes a journal has.

use std::path::Path;

use rtm_journal::{EntryFilter, Journal};
use rtm_record::entry;

use crate::commands::range::Known;
use crate::config::Config;

/// The apps of a configuration, and of what a journal holds: for each App ID that left, as its newest entry has it.
pub(super) fn known_apps(dir: &Path, config: Option<&Config>) -> anyhow::Result<Known> {
    let mut known = Known::default();
    if let Some(config) = config {
        known.see_config(config);
    }
    let stored = Journal::stored_beside(dir, &EntryFilter::default())?;
    for newest in stored.newest_of_each_lane() {
        match &newest.entry {
            Ok(entry) if known.name(&newest.lane).is_none() => {
                if let Ok((tags, _)) = entry::decode(&entry.bytes) {
                    known.see(&tags);
                }
            }
            _ => {}
        }
    }
    Ok(known)
}
