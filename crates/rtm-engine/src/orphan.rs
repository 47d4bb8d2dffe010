//! What is left of App IDs that are not in the plan: it is still published, to the sinks that took it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtm_journal::{Journal, Lane, LaneStats};
use rtm_record::entry;
use tracing::warn;

use crate::copies::CopyRule;
use crate::lanes::{self, LaneError};
use crate::order::InFlightRequests;
use crate::plan::{Parts, Plan, SinkPlan};

/// An App ID as the last plan had it that named it.
pub(crate) struct Former {
    pub(crate) name: String,
    pub(crate) copy_rule: Option<CopyRule>,
    /// The sinks of that plan that took nothing of it.
    untaken: Vec<String>,
}

/// The App IDs of a plan that another one takes the place of.
pub(crate) fn former<P: Parts>(old: &Plan<P>) -> impl Iterator<Item = (String, Former)> {
    old.apps.iter().map(|app| {
        let untaken = old.sinks.iter().filter(|sink| !sink.takes(&app.name));
        let former = Former {
            name: app.name.clone(),
            copy_rule: app.copy_rule,
            untaken: untaken.map(|sink| sink.name.clone()).collect(),
        };
        (app.app_id.clone(), former)
    })
}

/// The lane of an App ID that is not in the plan. Requests of its last polling may still be in flight.
pub(crate) struct Orphan {
    pub(crate) lane: Lane,
    /// How it is shown: by the name that it had, marked, since another App ID may have the name by now. The App ID itself
    /// is shown nowhere.
    pub(crate) name: String,
    /// The app's name as its entries have it, or else the App ID: what dead letters are routed by whose entry does not say.
    pub(crate) owner: String,
    /// The requests in flight that its outlets know of.
    pub(crate) requests: Arc<InFlightRequests>,
}

impl Orphan {
    /// Opens the lane. Of an App ID that left before the start, the next entry of one of the cursors tells the name.
    pub(crate) fn open(
        journal: &Journal,
        stats: &LaneStats,
        former: Option<&Former>,
        others: &BTreeMap<String, Orphan>,
    ) -> Result<Orphan, LaneError> {
        let lane = lanes::open(journal, "removed", stats.name.as_str())?;
        let former = former.map(|former| former.name.clone());
        let former = former.or_else(|| name_in_entries(&lane, stats));
        let owner = former.as_deref().unwrap_or(stats.name.as_str()).to_owned();
        let former = former.as_deref().unwrap_or("an app");
        let mut name = format!("{former} (removed)");
        let mut number = 1;
        while others.values().any(|other| other.name == name) {
            number += 1;
            name = format!("{former} (removed {number})");
        }
        warn!(
            app = name,
            "an App ID has left the configuration; what the journal holds of it is still published"
        );
        Ok(Orphan {
            lane,
            name,
            owner,
            requests: Arc::default(),
        })
    }
}

/// Whether a sink gets what is left of an App ID: one that took it, or takes all. Another would not read on if the App ID
/// came back, and its cursor would hold the journal's entries for ever. What left before the start went to whoever has a
/// cursor, as far as anyone knows.
pub(crate) fn is_for<K>(sink: &SinkPlan<K>, lane: &LaneStats, former: Option<&Former>) -> bool {
    let took_nothing = former.is_some_and(|former| former.untaken.contains(&sink.name));
    sink.apps.is_none() || !took_nothing && reader(lane, &sink.name).is_some()
}

/// Whether a lane has something that a sink has not had.
pub(crate) fn is_pending(lane: &LaneStats, sink: &str) -> bool {
    reader(lane, sink).map_or(lane.entries, |reader| reader.pending_entries) > 0
}

fn reader<'a>(lane: &'a LaneStats, sink: &str) -> Option<&'a rtm_journal::ReaderStats> {
    let mut readers = lane.readers.iter();
    readers.find(|reader| reader.name.as_str() == sink)
}

fn name_in_entries(lane: &Lane, stats: &LaneStats) -> Option<String> {
    let mut readers = stats.readers.iter();
    readers.find_map(|reader| {
        let entry = lane.reader(&reader.name).ok()?.try_next().ok()??;
        let (tags, _) = entry::decode(&entry.bytes).ok()?;
        Some(tags.app.into_owned())
    })
}

#[cfg(test)]
mod tests;
