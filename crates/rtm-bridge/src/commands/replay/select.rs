//! What a replay is of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rtm_engine::drain::Waiting;
use rtm_journal::{Entry, EntryFilter, Inspection, Journal, LaneInspection, Position, StoredEntry};

use crate::commands::process::counted;
use crate::commands::range::{Known, Range};
use crate::config::Config;
use rtm_record::entry::{self, Tags};

/// One entry of a selection.
#[derive(Debug, Clone)]
pub(super) struct Selected {
    pub(super) position: u64,
    pub(super) lane: Arc<str>,
    fetched_at: i64,
}

/// A part of a selection: what is of one app, region and stream.
#[derive(Debug, Clone, Copy)]
struct Part {
    entries: u64,
    events: u64,
    first: u64,
    last: u64,
}

/// What is to be published, and what cannot be.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// By position.
    pub(super) entries: Vec<Selected>,
    /// What waits for the sink in each lane, whether it is selected or not.
    pub(super) lanes: BTreeMap<Arc<str>, Vec<Waiting>>,
    /// By app, region and stream.
    parts: BTreeMap<String, Part>,
    /// It is of what the sink has not confirmed, and else of what it has.
    unconfirmed: bool,
    /// Events that are not part of it because the sink has not confirmed them.
    left_out: u64,
    /// App IDs of which the journal knows no such sink, but others.
    strange: BTreeSet<String>,
    /// Entries that cannot be read any more.
    damaged: u64,
    /// Of those that wait, entries of another version: they can be read, and not understood.
    pub(super) foreign: u64,
    /// Positions that were asked for and are not in the journal.
    gone: u64,
    /// The oldest entry in the journal, and when it was fetched.
    oldest: Option<(u64, i64)>,
    /// What was asked for begins before that.
    begins_before: bool,
    /// What the configuration and every entry of the journal are of.
    pub(super) known: Known,
}

/// An entry that is there and cannot be read now.
#[derive(Debug, thiserror::Error)]
#[error("the entry at position {position} cannot be read now")]
pub(super) struct Unreadable {
    position: u64,
    source: std::io::Error,
}

impl Unreadable {
    /// Of an entry that was there, and is not, though nobody reclaims it.
    pub(super) fn missing(position: u64) -> Unreadable {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "its segment is not there");
        Unreadable { position, source }
    }
}

/// What became of reading an entry: the entry, or none where its bytes are lost.
pub(super) fn readable(stored: StoredEntry) -> Result<Option<Entry>, Unreadable> {
    match stored
        .entry
        .map_err(|error| error.downcast::<std::io::Error>())
    {
        Ok(entry) => Ok(Some(entry)),
        Err(Ok(source)) => Err(Unreadable {
            position: stored.position.0,
            source: *source,
        }),
        Err(Err(_)) => Ok(None),
    }
}

impl Selection {
    /// Looks at every entry in the journal. What `config` says that the sink takes is taken, if the sink has confirmed it;
    /// with `unconfirmed`, if the sink has not, and of an App ID that is not in `config` as well.
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
        selection.known.see_config(config);
        if unconfirmed {
            selection.strange = strangers(&Journal::inspect(dir)?, sink);
        }
        let positions = range.positions();
        let (mut there, mut last) = (0, 0);
        for stored in Journal::stored_beside(dir, &EntryFilter::default())? {
            let position = stored.position.0;
            last = last.max(position);
            there += u64::from(positions.contains(&position));
            selection.look(stored, config, sink, range)?;
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

    fn look(
        &mut self,
        stored: StoredEntry,
        config: &Config,
        sink: &str,
        range: &Range,
    ) -> Result<(), Unreadable> {
        let (position, count) = (stored.position.0, u64::from(stored.count));
        let asked = range.positions().contains(&position);
        let waits = stored.unclaimed || stored.pending.iter().any(|reader| reader.as_str() == sink);
        let lane: Arc<str> = match self.lanes.get_key_value(&*stored.lane) {
            Some((lane, _)) => Arc::clone(lane),
            None => stored.lane.as_str().into(),
        };
        let waiting = self.lanes.entry(Arc::clone(&lane)).or_default();
        if waits {
            waiting.push(Waiting {
                position: stored.position,
                epoch: stored.entry.as_ref().ok().map(|entry| entry.epoch),
                events: count,
            });
        }
        let entry = match readable(stored) {
            Err(error) if asked && waits == self.unconfirmed => return Err(error),
            entry => entry.ok().flatten(),
        };
        let decoded = entry.as_ref().map(|entry| entry::decode(&entry.bytes));
        self.foreign += u64::from(waits && self.unconfirmed && matches!(decoded, Some(Err(_))));
        let Some(Ok((tags, _))) = decoded else {
            self.damaged += u64::from(asked && waits == self.unconfirmed);
            return Ok(());
        };
        self.known.see(&tags);
        self.oldest.get_or_insert((position, tags.fetched_at));
        let wanted = takes(config, sink, &tags, waits) && range.wants(&tags, &self.known);
        if !asked || !wanted {
            return Ok(());
        }
        if waits != self.unconfirmed {
            self.left_out += if waits { count } else { 0 };
            return Ok(());
        }
        let part = format!("{}, {}, {}", tags.app, tags.region, tags.stream);
        let part = self.parts.entry(part).or_insert(Part {
            entries: 0,
            events: 0,
            first: position,
            last: position,
        });
        part.entries += 1;
        part.events += count;
        part.last = position;
        self.entries.push(Selected {
            position,
            lane,
            fetched_at: tags.fetched_at,
        });
        Ok(())
    }

    /// As they were counted when they were stored.
    pub(super) fn events(&self) -> u64 {
        self.parts.values().map(|part| part.events).sum()
    }

    /// What was asked for and cannot be given, as far as it can be counted; not what is still to come.
    pub(super) fn missing(&self) -> u64 {
        self.gone + self.damaged + u64::from(self.begins_before)
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
                "to {sink}: {} from position {} to {}, fetched {} to {}, about {}",
                counted(self.entries.len() as u64, "entry", "entries"),
                first.position,
                last.position,
                time(since),
                time(until),
                counted(self.events(), "event", "events")
            ));
        }
        lines.extend(self.parts.iter().map(|(part, of)| {
            format!(
                "  {part}: {} in {}, position {} to {}",
                counted(of.events, "event", "events"),
                counted(of.entries, "entry", "entries"),
                of.first,
                of.last
            )
        }));
        if self.unconfirmed && self.entries.is_empty() {
            lines.push(format!(
                "to {sink}: 0 events; it has confirmed all that is asked for"
            ));
        }
        if self.left_out > 0 {
            lines.push(format!(
                "left out: {} that {sink} has not confirmed; the bridge of this journal publishes them. If none is ever to \
                 run on it again: --unconfirmed",
                counted(self.left_out, "event", "events")
            ));
        }
        if !self.strange.is_empty() {
            lines.push(format!(
                "left out: what is of {}, where the journal knows other sinks and no {sink}",
                Vec::from_iter(self.strange.iter().cloned()).join(", ")
            ));
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
        if self.damaged > 0 {
            lines.push(format!(
                "DAMAGED: {}; `rtm-bridge journal verify` tells more",
                counted(self.damaged, "entry", "entries")
            ));
        }
        lines.join("\n")
    }
}

/// Whether a sink is to get an entry. An App ID that left the configuration has left with what waits of it.
fn takes(config: &Config, sink: &str, tags: &Tags<'_>, waits: bool) -> bool {
    let sink = &config.sinks[sink];
    let mut apps = config.apps.iter();
    match apps.find(|app| app.app_id == tags.app_id) {
        // By the name that the App ID has now.
        Some(app) => sink.takes(&app.name, &tags.stream),
        None if waits => sink.takes_stream(&tags.stream),
        None => sink.takes(&tags.app, &tags.stream),
    }
}

/// App IDs of which a journal knows other sinks and not this one.
fn strangers(found: &Inspection, sink: &str) -> BTreeSet<String> {
    let is_strange = |lane: &&LaneInspection| {
        let mut readers = lane.readers.iter();
        lane.entries > 0 && !lane.readers.is_empty() && readers.all(|reader| reader.name != sink)
    };
    let lanes = found.lanes.iter().filter(is_strange);
    lanes.map(|lane| lane.name.clone()).collect()
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}
