//! The journal's lanes and their cursors: opened, counted, and those that nobody needs removed.

use std::collections::BTreeSet;

use rtm_journal::{
    Journal, Lane, LaneName, LaneStats, MAX_READERS, NameError, Reader, ReaderName,
    RemoveReaderError,
};
use tracing::{error, warn};

use crate::chain;

/// A cursor of a sink that lags behind its own, and holds for it what it has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lagging {
    /// What copies are known by.
    Copies,
    /// What the broker may lose again.
    Hold,
}

impl Lagging {
    const ALL: [Lagging; 2] = [Lagging::Copies, Lagging::Hold];

    /// What its name ends in, behind the sink's. No sink's name has a dot.
    fn suffix(self) -> &'static str {
        match self {
            Lagging::Copies => ".copies",
            Lagging::Hold => ".hold",
        }
    }

    fn name(self, sink: &str) -> Result<ReaderName, NameError> {
        ReaderName::try_from(format!("{sink}{}", self.suffix()).as_str())
    }
}

/// A lane of the journal, or a cursor in it, that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the journal's lane, or a cursor in it, for app {app}")]
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

/// Whether a lane has room for the cursors that these sinks want in it, beside those that it has.
pub(crate) fn check_readers(
    stats: Option<&LaneStats>,
    app: &str,
    wanted: impl Iterator<Item = ReaderName>,
) -> Result<(), LaneError> {
    let existing = stats.map_or(&[][..], |stats| &stats.readers);
    let existing = existing.iter().map(|reader| reader.name.clone());
    let readers = existing.chain(wanted).collect::<BTreeSet<_>>().len();
    if readers > MAX_READERS {
        let source = format!(
            "it would have {readers} cursors and can have {MAX_READERS}; `rtm-bridge journal forget` lets go of those of \
             sinks that have left the configuration"
        );
        return Err(LaneError::new(app, source));
    }
    Ok(())
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

/// A lagging cursor of a sink in a lane. It can be open once. What is held for a broker yields to whatever needs its room.
pub(crate) fn lagging_reader(lane: &Lane, sink: &str, of: Lagging) -> Result<Reader, LaneError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| {
        LaneError::new(lane.name().as_str(), source)
    };
    let name = of.name(sink).map_err(|source| error(source.into()))?;
    let reader = match of {
        Lagging::Copies => lane.reader(&name),
        Lagging::Hold => lane.yielding_reader(&name),
    };
    reader.map_err(|source| error(source.into()))
}

/// The names of the cursors that a sink has in a lane: its own, and the lagging ones that `has` says.
pub(crate) fn reader_names(
    sink: &str,
    has: impl Fn(Lagging) -> bool,
) -> impl Iterator<Item = ReaderName> {
    let lagging = Lagging::ALL.into_iter().filter(|of| has(*of));
    let lagging = lagging.map(|of| of.name(sink)).collect::<Vec<_>>();
    let names = std::iter::once(ReaderName::try_from(sink)).chain(lagging);
    names.filter_map(Result::ok)
}

/// Whether a cursor only holds what its broker may lose: it yields, and so holds nothing back.
pub(crate) fn is_hold(reader: &ReaderName) -> bool {
    reader.as_str().ends_with(Lagging::Hold.suffix())
}

/// The sink that a cursor of this name is one of.
pub(crate) fn sink_of(reader: &ReaderName) -> &str {
    sink_of_lagging(reader).unwrap_or(reader.as_str())
}

/// The sink whose lagging cursor goes by this name, if it is one's.
fn sink_of_lagging(reader: &ReaderName) -> Option<&str> {
    let mut suffixes = Lagging::ALL.into_iter().map(Lagging::suffix);
    suffixes.find_map(|suffix| reader.as_str().strip_suffix(suffix))
}

/// Removes a lagging cursor of a sink, which would hold the journal's segments for nobody. Mostly there is none.
pub(crate) async fn remove_lagging(lane: &Lane, sink: &str, of: Lagging) {
    let Ok(name) = of.name(sink) else {
        return;
    };
    match lane.remove_reader(&name).await {
        Ok(()) | Err(RemoveReaderError::Unknown(_)) => {}
        Err(error) => warn!(
            sink,
            error = chain(&error),
            "cannot remove a cursor that holds what the sink has had"
        ),
    }
}

/// Whether no sink's cursor waits for anything in any lane.
pub(crate) fn are_published(lanes: &[LaneStats]) -> bool {
    let mut readers = lanes.iter().flat_map(|lane| &lane.readers);
    readers.all(|reader| reader.pending_entries == 0 || sink_of_lagging(&reader.name).is_some())
}

/// Tells of sinks that have a cursor in a lane and take nothing of it, as `takes` says: only the operator may let go of what
/// waits for those. Tells of what damage has cost. Removes the lagging cursors that no sink `needs`. `app` is the name of the
/// lane's App ID, if the plan has it.
pub(crate) async fn tend(
    journal: &Journal,
    stats: &LaneStats,
    app: Option<&str>,
    takes: impl Fn(&str) -> bool,
    needs: impl Fn(&str, Lagging) -> bool,
) {
    let of = app.map_or_else(String::new, |app| format!(" --app {app}"));
    let app = app.unwrap_or("an app that left the configuration");
    for reader in &stats.readers {
        let sink = reader.name.as_str();
        if let Some(sink) = sink_of_lagging(&reader.name) {
            let of = match is_hold(&reader.name) {
                true => Lagging::Hold,
                false => Lagging::Copies,
            };
            // Opened only for this: an open lane has a share of the journal's room.
            if !needs(sink, of)
                && let Ok(lane) = open(journal, app, stats.name.as_str())
            {
                remove_lagging(&lane, sink, of).await;
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
        if !takes(sink) {
            warn!(
                app,
                sink,
                events = reader.pending_count,
                "the configuration gives this sink nothing of the App ID any more, and the journal keeps what waits for it; \
                 `rtm-bridge journal forget --sink {sink}{of}` lets go of it"
            );
        }
    }
}
