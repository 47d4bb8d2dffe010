//! The journal's lanes and their cursors: opened, and what is left of App IDs and sinks that nobody names any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtm_journal::{Journal, Lane, LaneName, LaneStats, Reader, ReaderName};
use rtm_record::entry;
use tracing::{error, warn};

use crate::chain;
use crate::order::InFlightRequests;

/// What the name of a sink's lagging cursor ends in, the one that remembers copies. No sink's name has a dot.
const LAGGING: &str = ".copies";

/// A lane of the journal, or a cursor in it, that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the journal's lane for app {app}")]
pub struct LaneError {
    app: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl LaneError {
    fn new(app: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LaneError {
        LaneError {
            app: app.to_owned(),
            source: source.into(),
        }
    }
}

/// The lane of an App ID, which `app` is the name of.
pub(crate) fn open(journal: &Journal, app: &str, app_id: &str) -> Result<Lane, LaneError> {
    let name = LaneName::try_from(app_id).map_err(|source| LaneError::new(app, source))?;
    journal
        .lane(&name)
        .map_err(|source| LaneError::new(app, source))
}

/// A sink's cursor in a lane. It can be open once.
pub(crate) fn reader(lane: &Lane, sink: &str) -> Result<Reader, LaneError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| {
        LaneError::new(lane.name().as_str(), source)
    };
    let name = ReaderName::try_from(sink).map_err(|source| error(source.into()))?;
    lane.reader(&name).map_err(|source| error(source.into()))
}

/// A sink's lagging cursor in a lane. It can be open once.
pub(crate) fn lagging_reader(lane: &Lane, sink: &str) -> Result<Reader, LaneError> {
    reader(lane, &format!("{sink}{LAGGING}"))
}

/// The sink whose lagging cursor goes by this name, if it is one's.
fn sink_of_lagging(reader: &ReaderName) -> Option<&str> {
    reader.as_str().strip_suffix(LAGGING)
}

/// Removes a sink's lagging cursor, which would hold the journal's segments for nobody. Mostly there is none.
pub(crate) async fn remove_lagging(lane: &Lane, sink: &str) {
    if let Ok(name) = ReaderName::try_from(format!("{sink}{LAGGING}").as_str()) {
        let _ = lane.remove_reader(&name).await;
    }
}

/// Whether the lane of an App ID that nobody polls has something that one of `sinks` has not had.
pub(crate) fn is_pending(lane: &LaneStats, sinks: &[&str]) -> bool {
    sinks.iter().any(|sink| {
        let reader = lane
            .readers
            .iter()
            .find(|reader| reader.name.as_str() == *sink);
        reader.map_or(lane.entries, |reader| reader.pending_entries) > 0
    })
}

/// The lane of an App ID that nobody polls.
pub(crate) struct Orphan {
    pub(crate) lane: Lane,
    /// How it is shown: by the name that it had, marked, since another App ID may have the name by now. The App ID itself
    /// is shown nowhere.
    pub(crate) name: String,
    /// The sinks that took the App ID, as far as the lane tells.
    pub(crate) takers: Vec<String>,
    /// The requests in flight that its outlets know of: none, until it is polled again.
    pub(crate) requests: Arc<InFlightRequests>,
}

impl Orphan {
    /// Opens the lane. Where `shown` does not say what its App ID was called, the next entry of one of its cursors does.
    pub(crate) fn open(
        journal: &Journal,
        stats: &LaneStats,
        shown: Option<String>,
        others: &BTreeMap<String, Orphan>,
    ) -> Result<Orphan, LaneError> {
        let lane = open(journal, "removed", stats.name.as_str())?;
        let former = shown.or_else(|| former_name(&lane, stats));
        let former = former.as_deref().unwrap_or("an app");
        let mut name = format!("{former} (removed)");
        let mut number = 1;
        while others.values().any(|other| other.name == name) {
            number += 1;
            name = format!("{former} (removed {number})");
        }
        warn!(
            app = name,
            "the journal holds entries of an App ID that left the configuration; they are still published"
        );
        Ok(Orphan {
            lane,
            name,
            takers: takers(stats),
            requests: Arc::default(),
        })
    }
}

/// The sinks that took an App ID, as far as its lane tells.
pub(crate) fn takers(stats: &LaneStats) -> Vec<String> {
    let readers = stats.readers.iter();
    readers.map(|reader| reader.name.to_string()).collect()
}

fn former_name(lane: &Lane, stats: &LaneStats) -> Option<String> {
    let mut readers = stats.readers.iter();
    readers.find_map(|reader| {
        let entry = lane.reader(&reader.name).ok()?.try_next().ok()??;
        let (tags, _) = entry::decode(&entry.bytes).ok()?;
        Some(tags.app.into_owned())
    })
}

/// Tells of sinks that have a cursor in the lane and are not in the plan, as `is_known` says: only the operator may let go
/// of what waits for those. Tells of what damage has cost. Removes the lagging cursors of sinks that need none, as
/// `keeps_lagging` says.
pub(crate) async fn tend(
    lane: &Lane,
    stats: &LaneStats,
    app: &str,
    is_known: impl Fn(&str) -> bool,
    keeps_lagging: impl Fn(&str) -> bool,
) {
    for reader in &stats.readers {
        let sink = reader.name.as_str();
        if let Some(sink) = sink_of_lagging(&reader.name) {
            if !keeps_lagging(sink)
                && let Err(error) = lane.remove_reader(&reader.name).await
            {
                warn!(
                    app,
                    sink,
                    error = chain(&error),
                    "cannot remove the cursor that remembers copies"
                );
            }
            continue;
        }
        if reader.missing > 0 {
            error!(
                app,
                sink,
                events = reader.missing,
                "the journal was damaged, and these events are lost for the sink"
            );
        }
        if !is_known(sink) {
            warn!(
                app,
                sink,
                events = reader.pending_count,
                "a sink has left the configuration, and the journal keeps what waits for it; \
                 `rtm-bridge journal forget --sink {sink}` lets go of it"
            );
        }
    }
}

#[cfg(test)]
mod tests;
