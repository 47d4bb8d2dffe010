//! What is left of App IDs that are not in the plan: it is still published, to the sinks that took it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtm_journal::{Journal, Lane, LaneStats};
use rtm_record::entry;
use tracing::warn;

use crate::copies::CopyRule;
use crate::lanes::{self, LaneError};
use crate::order::InFlightRequests;
use crate::plan::SinkPlan;

/// The lane of an App ID that is not in the plan. Requests of its last polling may still be in flight.
pub(crate) struct Orphan {
    pub(crate) lane: Lane,
    /// How it is shown: by the name that it had, marked, since another App ID may have the name by now. The App ID itself
    /// is shown nowhere.
    pub(crate) name: String,
    /// How copies are found, as the last plan had it; none after a start, which has forgotten them.
    pub(crate) copy_rule: Option<CopyRule>,
    /// The requests in flight that its outlets know of.
    pub(crate) requests: Arc<InFlightRequests>,
}

impl Orphan {
    /// Opens the lane. `former` is its App ID's name and rule in the last plan; after a start, the next entry of one of the
    /// cursors tells the name.
    pub(crate) fn open(
        journal: &Journal,
        stats: &LaneStats,
        former: Option<(String, Option<CopyRule>)>,
        others: &BTreeMap<String, Orphan>,
    ) -> Result<Orphan, LaneError> {
        let lane = lanes::open(journal, "removed", stats.name.as_str())?;
        let (former, copy_rule) = match former {
            Some((name, copy_rule)) => (Some(name), copy_rule),
            None => (name_in_entries(&lane, stats), None),
        };
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
            copy_rule,
            requests: Arc::default(),
        })
    }
}

/// Whether a sink gets what is left of an App ID: one that took it, or takes all. Another would not read on if the App ID
/// came back, and its cursor would hold the journal's entries for ever.
pub(crate) fn is_for<K>(sink: &SinkPlan<K>, lane: &LaneStats) -> bool {
    sink.apps.is_none() || reader(lane, &sink.name).is_some()
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
