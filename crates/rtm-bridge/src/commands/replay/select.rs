//! What a replay is of.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use rtm_journal::{EntryFilter, Journal, Position, StoredEntry};

use crate::commands::range::{Known, Range};
use crate::config::Config;
use rtm_record::entry;

/// One entry of a selection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected {
    pub(super) position: u64,
    fetched_at: i64,
}

/// What is to be published, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// By position.
    pub(super) entries: Vec<Selected>,
    /// Events by app, region and stream.
    parts: BTreeMap<String, u64>,
    /// Events that the sink has not confirmed yet.
    pending: u64,
    /// The first entry with some of them.
    first_pending: Option<u64>,
    /// Whether they are part of it.
    unconfirmed: bool,
    /// Entries that cannot be read.
    unreadable: u64,
    /// Positions that were asked for and are not in the journal.
    gone: u64,
    /// The oldest entry in the journal, and when it was fetched.
    oldest: Option<(u64, i64)>,
    /// What was asked for begins before that.
    begins_before: bool,
    /// What every entry of the journal is of.
    pub(super) known: Known,
}

impl Selection {
    /// Looks at every entry in the journal. What `config` says that the sink takes is taken; with `unconfirmed`, also what the
    /// sink has not confirmed.
    pub(super) fn make(
        dir: &Path,
        config: &Config,
        sink: &str,
        range: &Range,
        unconfirmed: bool,
    ) -> anyhow::Result<Selection> {
        let mut selection = Selection {
            unconfirmed,
            ..Selection::default()
        };
        let positions = range.positions();
        let (mut there, mut last) = (0, 0);
        for stored in Journal::stored_beside(dir, &EntryFilter::default())? {
            let position = stored.position.0;
            last = last.max(position);
            there += u64::from(positions.contains(&position));
            selection.look(&stored, config, sink, range);
        }
        let first = (*positions.start()).max(1);
        let asked = (*positions.end()).min(last).saturating_sub(first - 1);
        // Without a first position the range begins with what there is.
        if *positions.start() > 0 {
            selection.gone = asked.saturating_sub(there);
        }
        selection.begins_before = match (selection.oldest, range.since) {
            (Some((position, fetched)), Some(since)) => {
                position > 1 && since.as_millisecond() < fetched
            }
            _ => false,
        };
        Ok(selection)
    }

    fn look(&mut self, stored: &StoredEntry, config: &Config, sink: &str, range: &Range) {
        let asked = range.positions().contains(&stored.position.0);
        let entry = stored.entry.as_ref().ok();
        let Some((tags, _)) = entry.and_then(|entry| entry::decode(&entry.bytes).ok()) else {
            self.unreadable += u64::from(asked);
            return;
        };
        self.known.see(&tags);
        self.oldest
            .get_or_insert((stored.position.0, tags.fetched_at));
        // By the name that the App ID has now.
        let mut apps = config.apps.iter();
        let app = apps.find(|app| app.app_id == tags.app_id);
        let app = app.map_or(&*tags.app, |app| &app.name);
        let takes = config.sinks[sink].takes(app, &tags.stream);
        if !asked || !takes || !range.wants(&tags) {
            return;
        }
        let waits = stored.pending.iter().any(|reader| reader.as_str() == sink);
        if waits {
            self.pending += u64::from(stored.count);
            self.first_pending.get_or_insert(stored.position.0);
            if !self.unconfirmed {
                return;
            }
        }
        let part = format!("{}, {}, {}", tags.app, tags.region, tags.stream);
        *self.parts.entry(part).or_default() += u64::from(stored.count);
        self.entries.push(Selected {
            position: stored.position.0,
            fetched_at: tags.fetched_at,
        });
    }

    /// As they were counted when they were stored.
    pub(super) fn events(&self) -> u64 {
        self.parts.values().sum()
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
        let kept = match self.oldest {
            Some((1, fetched)) => {
                format!("every entry is kept, the first fetched {}", time(fetched))
            }
            Some((position, fetched)) => format!(
                "the oldest entry that is kept is at position {position}, fetched {}; what was before it every sink has \
                 confirmed, and its room was reclaimed",
                time(fetched)
            ),
            None => "no entry is kept".to_owned(),
        };
        let mut lines = vec![format!("{}: {kept}", dir.display())];
        let fetched = || self.entries.iter().map(|entry| entry.fetched_at);
        if let (Some(first), Some(last), Some(since), Some(until)) = (
            self.entries.first(),
            self.entries.last(),
            fetched().min(),
            fetched().max(),
        ) {
            lines.push(format!(
                "to {sink}: {} entries from position {} to {}, fetched {} to {}, about {} events",
                self.entries.len(),
                first.position,
                last.position,
                time(since),
                time(until),
                self.events()
            ));
        }
        let parts = self.parts.iter();
        lines.extend(parts.map(|(part, events)| format!("  {part}: {events}")));
        let pending = self.pending;
        match self.first_pending {
            Some(first) if self.unconfirmed => lines.push(format!(
                "  {pending} of them {sink} has not confirmed, the first at position {first}; --from {first} leaves out \
                 what is before it"
            )),
            Some(_) => lines.push(format!(
                "left out: {pending} events that {sink} has not confirmed; the bridge of this journal publishes them. If \
                 none is ever to run on it again: --unconfirmed"
            )),
            None => {}
        }
        if self.gone > 0 {
            lines.push(format!(
                "GONE: {} of the entries that are asked for are not kept any more",
                self.gone
            ));
        }
        if self.begins_before {
            let gone = "GONE: what was fetched before the oldest entry, which is asked for too";
            lines.push(gone.to_owned());
        }
        if self.unreadable > 0 {
            lines.push(format!(
                "UNREADABLE: {} entries; `rtm-bridge journal verify` tells more",
                self.unreadable
            ));
        }
        lines.join("\n")
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}
