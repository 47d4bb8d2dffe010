//! What a replay is of.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::Path;

use jiff::Timestamp;
use rtm_journal::{EntryFilter, Journal, Position, StoredEntry};
use rtm_planted::bug;

use crate::entry::{self, Tags};

/// What is asked for.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) positions: RangeInclusive<u64>,
    /// Fetched at this time or later, in milliseconds since the Unix epoch.
    pub(super) since: Option<i64>,
    /// Fetched before this time.
    pub(super) until: Option<i64>,
    /// By name or App ID.
    pub(super) app: Option<String>,
    pub(super) region: Option<String>,
    pub(super) stream: Option<String>,
}

impl Range {
    fn wants(&self, tags: &Tags<'_>) -> bool {
        let is =
            |asked: &Option<String>, value: &str| asked.as_ref().is_none_or(|asked| asked == value);
        self.since.is_none_or(|since| tags.fetched_at >= since)
            && self.until.is_none_or(|until| tags.fetched_at < until)
            && (is(&self.app, &tags.app) || is(&self.app, &tags.app_id))
            && is(&self.region, &tags.region)
            && is(&self.stream, &tags.stream)
    }
}

/// One entry of a selection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected {
    pub(super) position: u64,
    events: u32,
}

/// What is to be published, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// By position.
    pub(super) entries: Vec<Selected>,
    /// Events by app, region and stream.
    parts: BTreeMap<(String, String, String), u64>,
    /// Events that the sink has not confirmed yet.
    pending: u64,
    /// Entries that cannot be read.
    unreadable: u64,
    /// Positions that were asked for and are not in the journal.
    gone: u64,
    /// The first and the last fetch.
    fetched: Option<(i64, i64)>,
    /// The oldest entry in the journal, and when it was fetched.
    oldest: Option<(u64, i64)>,
    /// What was asked for begins before that.
    begins_before: bool,
}

impl Selection {
    /// Looks at every entry in the journal.
    pub(super) fn make(dir: &Path, sink: &str, range: &Range) -> anyhow::Result<Selection> {
        let mut selection = Selection::default();
        let (mut there, mut last) = (0, 0);
        for stored in Journal::stored_beside(dir, &EntryFilter::default())? {
            let position = stored.position.0;
            last = last.max(position);
            there += u64::from(range.positions.contains(&position));
            selection.look(&stored, sink, range);
        }
        let first = (*range.positions.start()).max(1);
        let asked = (*range.positions.end()).min(last).saturating_sub(first - 1);
        // Without a first position the range begins with what there is.
        if *range.positions.start() > 0 {
            selection.gone = asked.saturating_sub(there);
        }
        selection.begins_before = match (selection.oldest, range.since) {
            (Some((position, fetched)), Some(since)) => position > 1 && since < fetched,
            _ => false,
        };
        Ok(selection)
    }

    fn look(&mut self, stored: &StoredEntry, sink: &str, range: &Range) {
        let asked = range.positions.contains(&stored.position.0);
        let Some(entry) = stored.entry.as_ref().ok() else {
            self.unreadable += u64::from(asked);
            return;
        };
        let Ok((tags, _)) = entry::decode(&entry.bytes) else {
            self.unreadable += u64::from(asked);
            return;
        };
        self.oldest
            .get_or_insert((stored.position.0, tags.fetched_at));
        if !asked || !range.wants(&tags) {
            return;
        }
        let waits = stored.pending.iter().any(|reader| reader.as_str() == sink);
        if waits && !bug("commands-replay-of-what-waits") {
            self.pending += u64::from(stored.count);
            return;
        }
        let part = (
            tags.app.to_string(),
            tags.region.to_string(),
            tags.stream.to_string(),
        );
        *self.parts.entry(part).or_default() += u64::from(stored.count);
        let (first, last) = self
            .fetched
            .get_or_insert((tags.fetched_at, tags.fetched_at));
        (*first, *last) = ((*first).min(tags.fetched_at), (*last).max(tags.fetched_at));
        self.entries.push(Selected {
            position: stored.position.0,
            events: stored.count,
        });
    }

    /// As they were counted when they were stored.
    pub(super) fn events(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| u64::from(entry.events))
            .sum()
    }

    /// What was asked for and cannot be given, as far as it can be counted; not what is still to come.
    pub(super) fn missing(&self) -> u64 {
        self.gone + self.unreadable + u64::from(self.begins_before)
    }

    /// The entries from this one on, as a filter.
    pub(super) fn filter(&self, from: usize) -> EntryFilter {
        let position = |entry: Option<&Selected>| Position(entry.map_or(0, |entry| entry.position));
        EntryFilter {
            positions: position(self.entries.get(from))..=position(self.entries.last()),
            ..EntryFilter::default()
        }
    }

    /// For people, before anything is published.
    pub(super) fn told(&self, dir: &Path, sink: &str) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = match self.oldest {
            Some((1, fetched)) => writeln!(
                text,
                "{}: every entry is kept, the first fetched {}",
                dir.display(),
                time(fetched)
            ),
            Some((position, fetched)) => writeln!(
                text,
                "{}: the oldest entry that is kept is at position {position}, fetched {}; what was before it every sink has \
                 confirmed, and its room was reclaimed",
                dir.display(),
                time(fetched)
            ),
            None => writeln!(text, "{}: no entry is kept", dir.display()),
        };
        if let (Some(first), Some(last), Some((since, until))) =
            (self.entries.first(), self.entries.last(), self.fetched)
        {
            let _ = writeln!(
                text,
                "to {sink}: {} entries from position {} to {}, fetched {} to {}, about {} events",
                self.entries.len(),
                first.position,
                last.position,
                time(since),
                time(until),
                self.events()
            );
        }
        for ((app, region, stream), events) in &self.parts {
            let _ = writeln!(text, "  {app}, {region}, {stream}: {events}");
        }
        if self.pending > 0 {
            let _ = writeln!(
                text,
                "left out: {} events that {sink} has not confirmed; the bridge publishes them",
                self.pending
            );
        }
        if self.gone > 0 {
            let _ = writeln!(
                text,
                "GONE: {} of the entries that are asked for are not kept any more",
                self.gone
            );
        }
        if self.begins_before {
            let _ = writeln!(
                text,
                "GONE: what was fetched before the oldest entry, which is asked for too"
            );
        }
        if self.unreadable > 0 {
            let _ = writeln!(
                text,
                "UNREADABLE: {} entries; `rtm-bridge journal verify` tells more",
                self.unreadable
            );
        }
        text
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}
