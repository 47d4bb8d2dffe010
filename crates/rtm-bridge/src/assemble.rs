//! From a configuration to the parts that the bridge is made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtm_journal::{Journal, Lane, LaneName, Reader, ReaderName};
use rtm_source::{
    Auth, Connections, Fetch, Limiter, MOST_IN_FLIGHT_PER_RING, Region, RegionError, Schedule,
    ScheduleOptions, Secret, Source, SourceOptions,
};
use secrecy::SecretString;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::bridge::{MAX_PAGE_BYTES, Pipeline};
use crate::client::{self, Client};
use crate::config::{
    AppConfig, AuthConfig, Config, CopyPolicy, InlineSecret, RegionConfig, WhenFull,
};
use crate::copies::Copies;
use crate::losses::Losses;
use crate::metrics::Metrics;
use crate::order::Ahead;
use crate::outlet::{Behind, CopyFilter, Outlet, Skip};
use crate::state::State;
use crate::tally::Tally;
use rtm_record::Router;
use rtm_record::entry;

/// A predecessor may just have used the budget: how long no request is sent after taking the journal's lock.
const START_AFTER: Duration = Duration::from_secs(1);

/// As [`START_AFTER`], when the predecessor died: its last request may still be under way.
const START_AFTER_UNCLEAN: Duration = Duration::from_millis(1250);

/// App IDs begin within so long of each other, evenly spread: at the start they would all send at once, and as all keep
/// the same pace, they would for ever.
const START_SPREAD: Duration = Duration::from_secs(1);

/// App IDs for whose first requests connections are opened early.
const OPENED_EARLY: usize = 8;

/// What the name of a sink's second cursor ends in, the one that remembers copies. No sink's name has a dot.
pub const BEHIND: &str = ".copies";

/// The parts of a bridge.
pub struct Assembled<F> {
    /// The journal, open and locked.
    pub journal: Journal,
    /// One for each App ID.
    pub pipelines: Vec<Pipeline<F>>,
    /// One for each sink.
    pub clients: Vec<Client>,
    /// Lanes of App IDs that left the configuration, by the name that is shown for them.
    pub orphans: Vec<(String, Lane)>,
}

impl<F> Assembled<F> {
    /// Every lane that is published, with its app's name: those of the configuration, and those that left it.
    pub fn lanes(&self) -> impl Iterator<Item = (&str, &Lane)> {
        let polled = self
            .pipelines
            .iter()
            .map(|pipeline| (pipeline.config.name.as_str(), &pipeline.lane));
        let orphans = self.orphans.iter().map(|(app, lane)| (app.as_str(), lane));
        polled.chain(orphans)
    }
}

/// Why a bridge could not be made, or not be closed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal.
    #[error("cannot open the journal in {dir}")]
    Journal {
        /// Its directory.
        dir: String,
        /// What is wrong.
        source: rtm_journal::OpenError,
    },
    /// A lane of the journal.
    #[error("cannot open the journal's lane for app {app}")]
    Lane {
        /// The app.
        app: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A source.
    #[error("cannot make the source of app {app}")]
    Source {
        /// The app.
        app: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A sink.
    #[error("cannot make the sink {sink}")]
    Sink {
        /// Its name.
        sink: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The journal could not be closed; the next start recovers it.
    #[error("cannot close the journal cleanly")]
    Close(#[source] rtm_journal::CloseError),
}

/// Opens the journal, makes sources and sinks, and counts what an unclean stop may have cost.
///
/// # Errors
///
/// [`RunError`]; nothing has been asked of Agora then.
pub async fn assemble(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Assembled<Source>, RunError> {
    let journal = open(config, metrics)?;
    let assembled = assemble_on(config, metrics, journal.clone()).await;
    if assembled.is_err() {
        // Nobody has died.
        let _ = journal.close().await;
    }
    assembled
}

async fn assemble_on(
    config: &Config,
    metrics: &Arc<Metrics>,
    journal: Journal,
) -> Result<Assembled<Source>, RunError> {
    let mut clients = Vec::new();
    for (name, sink) in &config.sinks {
        clients.push(client::client(name, sink, config).await?);
    }
    let connections = Arc::new(Connections::default());
    let mut pipelines = Vec::new();
    for (index, app) in config.apps.iter().enumerate() {
        let turn = index as f64 / config.apps.len() as f64;
        let source = source(app, &connections).map_err(|source| RunError::Source {
            app: app.name.clone(),
            source,
        })?;
        let mut pipeline = pipeline(app, source, turn, &journal, metrics)?;
        let connections = Arc::clone(&connections);
        pipeline.renew = Some(Arc::new(move |app| self::source(app, &connections)));
        pipelines.push(pipeline);
    }
    let orphans = orphans(config, &journal)?;
    Ok(Assembled {
        journal,
        pipelines,
        clients,
        orphans,
    })
}

/// Lanes of App IDs that left the configuration, under the names that they had, which are marked: another App ID may have
/// the name by now. The App ID itself is shown nowhere.
fn orphans(config: &Config, journal: &Journal) -> Result<Vec<(String, Lane)>, RunError> {
    let mut orphans: Vec<(String, Lane)> = Vec::new();
    for stats in journal.stats().lanes {
        if config
            .apps
            .iter()
            .any(|app| app.app_id == stats.name.as_str())
        {
            continue;
        }
        let lane = lane(journal, "removed", stats.name.as_str())?;
        let readers = stats.readers.iter().map(|reader| reader.name.as_str());
        let former = readers.filter_map(|name| former_name(&lane, name)).next();
        let former = former.unwrap_or_else(|| "an app".to_owned());
        let mut name = format!("{former} (removed)");
        let mut number = 1;
        while orphans.iter().any(|(other, _)| *other == name) {
            number += 1;
            name = format!("{former} (removed {number})");
        }
        warn!(
            app = name,
            "the journal holds entries of an App ID that left the configuration; they are still published"
        );
        orphans.push((name, lane));
    }
    Ok(orphans)
}

/// What an App ID was called when the next entry of a reader was stored.
fn former_name(lane: &Lane, reader: &str) -> Option<String> {
    let entry = self::reader(lane, reader).ok()?.try_next().ok()??;
    let (tags, _) = entry::decode(&entry.bytes).ok()?;
    Some(tags.app.into_owned())
}

/// Opens connections to the regions' hosts, in the background, until the set is dropped: the first requests then find
/// them open. What fails here fails there again, and is told there.
#[must_use]
pub fn open_connections(pipelines: &[Pipeline<Source>]) -> JoinSet<()> {
    let mut opening = JoinSet::new();
    // App IDs start one after the other, and share connections: a few for each host will do.
    for pipeline in pipelines.iter().take(OPENED_EARLY) {
        let rings = pipeline.source.rings().iter().step_by(2);
        for ring in rings {
            let connected = pipeline.source.connect(&ring.region);
            opening.spawn(async move {
                if let Err(error) = connected.await {
                    debug!(error = crate::chain(&error), "not connected yet");
                }
            });
        }
    }
    opening
}

/// Removes the second cursors of sinks that need none any more, and tells of sinks that have left the configuration: only
/// the operator may let go of what waits for those.
pub async fn forget_unused<F>(config: &Config, assembled: &Assembled<F>) {
    let stats = assembled.journal.stats();
    for (app, lane) in assembled.lanes() {
        let known = config.apps.iter().find(|known| known.name == app);
        let readers = stats
            .lanes
            .iter()
            .filter(|stats| stats.name == *lane.name())
            .flat_map(|stats| &stats.readers);
        for reader in readers {
            let name = reader.name.as_str();
            if reader.missing > 0 && !name.ends_with(BEHIND) {
                error!(
                    app,
                    sink = name,
                    events = reader.missing,
                    "the journal was damaged, and these events are lost for the sink"
                );
            }
            match name.strip_suffix(BEHIND) {
                Some(sink)
                    if known.is_some_and(drops_copies) && config.sinks.contains_key(sink) => {}
                Some(_) => {
                    if let Err(error) = lane.remove_reader(&reader.name).await {
                        warn!(
                            app,
                            name,
                            error = crate::chain(&error),
                            "cannot remove a cursor"
                        );
                    }
                }
                None if config.sinks.contains_key(name) => {}
                None => warn!(
                    app,
                    sink = name,
                    events = reader.pending_count,
                    "a sink has left the configuration, and the journal keeps what waits for it; \
                     `rtm-bridge journal forget --sink {name}` lets go of it"
                ),
            }
        }
    }
}

fn drops_copies(app: &AppConfig) -> bool {
    app.regions.len() > 1 && app.cross_region_copies == CopyPolicy::Drop
}

/// One lane's way out to one sink.
///
/// # Errors
///
/// [`RunError::Lane`].
pub fn outlet<F>(
    config: &Config,
    assembled: &Assembled<F>,
    state: &State,
    app: &str,
    lane: &Lane,
    client: &Client,
) -> Result<Outlet, RunError> {
    let known = config.apps.iter().find(|known| known.name == app);
    let skips = |name: &str| {
        let sink = config.sinks.get(name);
        sink.is_some_and(|sink| sink.when_full() == WhenFull::Skip)
    };
    let skip = (known.is_some() && skips(client.name())).then(|| Skip {
        journal: assembled.journal.clone(),
        lane: lane.name().clone(),
        pipeline: state.pipeline(app),
        others: assembled
            .clients
            .iter()
            .map(Client::name)
            .filter(|name| !skips(name))
            .filter_map(|name| ReaderName::try_from(name).ok())
            .collect(),
    });
    Ok(Outlet {
        app: app.to_owned(),
        lane: lane.clone(),
        judges: known.and_then(judges),
        reader: reader(lane, client.name())?,
        ahead: Ahead::new(state.departures(app), assembled.journal.epoch()),
        router: client.router(),
        tally: Tally::default(),
        metrics: state.metrics.sink(app, client.name()),
        all_metrics: Arc::clone(&state.metrics),
        state: state.sink(app, client.name()),
        copies: copies(known, lane, client.name())?,
        suspicion: Arc::clone(&state.suspicion),
        suspecting: None,
        skip,
        client: client.clone(),
    })
}

/// What is known of copies, for an app that has any.
fn copies(
    app: Option<&AppConfig>,
    lane: &Lane,
    sink: &str,
) -> Result<Option<CopyFilter>, RunError> {
    let Some(app) = app.filter(|app| app.regions.len() > 1) else {
        return Ok(None);
    };
    let behind = if drops_copies(app) {
        Some(Behind::new(reader(lane, &format!("{sink}{BEHIND}"))?))
    } else {
        None
    };
    Ok(Some(CopyFilter {
        copies: Copies::new(i64::try_from(app.copies_window.as_millis()).unwrap_or(i64::MAX)),
        behind,
    }))
}

/// What decides how an app's copies are found, and what becomes of them; none where there are none.
fn judges(app: &AppConfig) -> Option<(CopyPolicy, Duration)> {
    (app.regions.len() > 1).then_some((app.cross_region_copies, app.copies_window))
}

/// The outlet as `config` has it, between two batches: where records go, and what becomes of copies.
pub async fn reroute(outlet: &mut Outlet, config: &Config) {
    match config.sinks.get(outlet.client.name()).map(client::routes) {
        Some(Ok(routes)) => outlet.router = Router::new(routes),
        // The configuration was validated, and no sink leaves it.
        Some(Err(error)) => error!(error, "the routes of the sink stay as they were"),
        None => {}
    }
    let app = config.apps.iter().find(|app| app.name == outlet.app);
    let judges = app.and_then(judges);
    if judges == outlet.judges || rtm_planted::bug("bridge-reload-keeps-copy-policy") {
        return;
    }
    // A cursor can be open once.
    outlet.copies = None;
    match copies(app, &outlet.lane, outlet.client.name()) {
        Ok(copies) => outlet.copies = copies,
        Err(error) => error!(
            error = crate::chain(&error),
            "copies are published until the next start"
        ),
    }
    outlet.judges = judges;
    let has_cursor = |copies: &CopyFilter| copies.behind.is_some();
    if !outlet.copies.as_ref().is_some_and(has_cursor)
        && let Ok(name) = ReaderName::try_from(format!("{}{BEHIND}", outlet.client.name()).as_str())
    {
        // It would hold the journal's segments for nobody. Mostly there is none.
        let _ = outlet.lane.remove_reader(&name).await;
    }
    outlet.remember().await;
}

fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Journal, RunError> {
    let observer = Arc::clone(metrics);
    let options = rtm_journal::Options {
        lanes_expected: config.apps.len(),
        on_sync: Some(Arc::new(move |took| observer.journal_committed(took))),
        ..config.journal.bounds()
    };
    let dir = &config.journal.dir;
    let journal = Journal::open(dir, options).map_err(|source| RunError::Journal {
        dir: dir.display().to_string(),
        source,
    })?;
    info!(dir = %dir.display(), clean = !journal.unclean(), "the journal is open");
    Ok(journal)
}

fn lane(journal: &Journal, app: &str, app_id: &str) -> Result<Lane, RunError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| RunError::Lane {
        app: app.to_owned(),
        source,
    };
    let name = LaneName::try_from(app_id).map_err(|source| error(source.into()))?;
    journal.lane(&name).map_err(|source| error(source.into()))
}

/// A sink's cursor in a lane.
///
/// # Errors
///
/// [`RunError::Lane`].
pub fn reader(lane: &Lane, sink: &str) -> Result<Reader, RunError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| RunError::Lane {
        app: lane.name().to_string(),
        source,
    };
    let name = ReaderName::try_from(sink).map_err(|source| error(source.into()))?;
    lane.reader(&name).map_err(|source| error(source.into()))
}

/// One App ID, read through `source`. `turn`, from 0 to 1, is when it begins, among all App IDs.
///
/// # Errors
///
/// [`RunError::Lane`].
pub fn pipeline<F>(
    app: &AppConfig,
    source: F,
    turn: f64,
    journal: &Journal,
    metrics: &Arc<Metrics>,
) -> Result<Pipeline<F>, RunError>
where
    F: Fetch,
{
    let lane = lane(journal, &app.name, &app.app_id)?;
    let start_after = if journal.unclean() {
        START_AFTER_UNCLEAN
    } else {
        START_AFTER
    };
    let start_after = start_after + START_SPREAD.mul_f64(turn);
    let requests_per_second = app.requests_per_second as usize;
    let schedule = schedule(app, &source, journal.epoch().0);
    Ok(Pipeline {
        config: app.clone(),
        limiter: Limiter::new(requests_per_second, start_after),
        renew: None,
        source,
        schedule: std::sync::Mutex::new(schedule),
        losses: Arc::new(Losses::read(lane.clone(), &app.name, metrics)),
        departures: Arc::default(),
        lane,
        metrics: Arc::clone(metrics),
    })
}

fn schedule<F: Fetch>(app: &AppConfig, source: &F, seed: u64) -> Schedule {
    let options = ScheduleOptions {
        requests_per_second: app.requests_per_second as usize,
        in_flight_per_ring: MOST_IN_FLIGHT_PER_RING,
        ..ScheduleOptions::default()
    };
    Schedule::new(source.rings().to_vec(), options, seed)
}

/// The pipeline as `config` has it; none where that is what it is. The limiter goes on, and with it what Agora counts;
/// so do the mark and the requests in flight.
pub fn renew<F: Fetch>(pipeline: &Pipeline<F>, config: &Config) -> Option<Pipeline<F>> {
    let app = config
        .apps
        .iter()
        .find(|app| app.name == pipeline.config.name)?;
    if *app == pipeline.config {
        return None;
    }
    let source = match pipeline.renew.as_ref()?(app) {
        Ok(source) => source,
        Err(error) => {
            error!(
                error = crate::chain(&*error),
                "the App ID is polled as before: what the configuration says worked a moment ago, and fails now"
            );
            return None;
        }
    };
    pipeline.limiter.resize(app.requests_per_second as usize);
    let limiter = if rtm_planted::bug("bridge-reload-forgets-the-limit") {
        Limiter::new(app.requests_per_second as usize, Duration::ZERO)
    } else {
        pipeline.limiter.clone()
    };
    info!(
        rings = source.rings().len(),
        paused = app.paused,
        "polling as the new configuration says"
    );
    Some(Pipeline {
        config: app.clone(),
        schedule: std::sync::Mutex::new(schedule(app, &source, fastrand::u64(..))),
        source,
        renew: pipeline.renew.clone(),
        limiter,
        lane: pipeline.lane.clone(),
        losses: Arc::clone(&pipeline.losses),
        departures: Arc::clone(&pipeline.departures),
        metrics: Arc::clone(&pipeline.metrics),
    })
}

/// The region that a configuration names.
///
/// # Errors
///
/// [`RegionError`] for an unknown name or an unacceptable base URL.
pub fn region(region: &RegionConfig) -> Result<Region, RegionError> {
    match &region.base_url {
        None => Region::builtin(&region.name),
        Some(base_url) => Region::new(&region.name, base_url, region.allow_insecure_http),
    }
}

/// The source of an app, with connections that others share.
///
/// # Errors
///
/// When a region, the credentials, the proxy or the certificates cannot be used.
pub fn source(
    app: &AppConfig,
    connections: &Connections,
) -> Result<Source, Box<dyn std::error::Error + Send + Sync>> {
    let regions = app
        .regions
        .iter()
        .map(region)
        .collect::<Result<Vec<_>, _>>()?;
    let mut options = SourceOptions::new(&app.app_id, auth(app), regions);
    options.user_path.clone_from(&app.user_events_path);
    options.channel_path.clone_from(&app.channel_events_path);
    options.deadline = app.request_deadline;
    options.connect_timeout = app.connect_timeout;
    options.proxy.clone_from(&app.proxy);
    options.extra_ca_file.clone_from(&app.ca_file);
    options.max_page_bytes = MAX_PAGE_BYTES;
    Ok(Source::sharing(options, connections)?)
}

fn auth(app: &AppConfig) -> Auth {
    match &app.auth {
        AuthConfig::Basic(basic) => Auth::Basic {
            key: basic.key.clone(),
            secret: secret(&basic.secret, &basic.secret_file, &basic.secret_env),
        },
        AuthConfig::Token(token) => Auth::Token {
            uid: token.uid.clone(),
            token: secret(&token.token, &token.token_file, &token.token_env),
        },
        AuthConfig::AgoraToken(token) => Auth::AgoraToken {
            token: secret(&token.token, &token.token_file, &token.token_env),
        },
    }
}

/// Validation has seen that exactly one is given.
pub(crate) fn secret(
    inline: &Option<InlineSecret>,
    file: &Option<PathBuf>,
    variable: &Option<String>,
) -> Secret {
    match (inline, file, variable) {
        (_, Some(file), _) => {
            warn_if_world_readable(file);
            Secret::File(file.clone())
        }
        (_, _, Some(variable)) => {
            Secret::Inline(std::env::var(variable).unwrap_or_default().into())
        }
        (Some(inline), _, _) => {
            warn!(
                "a secret stands in the configuration itself; a file or an environment variable keeps it out of backups"
            );
            Secret::Inline(inline.0.clone())
        }
        (None, None, None) => Secret::Inline(SecretString::default()),
    }
}

pub(crate) fn warn_if_world_readable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        warn!(file = %file.display(), "the secret file can be read by everyone on this machine");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rtm_journal::Options;

    use super::*;
    use rtm_record::entry::Tags;

    /// Holds: what is left of App IDs that left the configuration goes by the names that they had, each by one of its own,
    /// and never by the App ID.
    #[tokio::test]
    async fn removed_apps_go_by_the_names_they_had() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            min_free_bytes: 0,
            ..Options::default()
        };
        let journal = Journal::open(dir.path(), options).unwrap();
        for (app_id, app) in [("0a1b", "main"), ("0c", "chat"), ("0d", "chat"), ("0e", "")] {
            let tags = Tags {
                app: app.into(),
                app_id: app_id.into(),
                region: "eu-west-1".into(),
                stream: "user".into(),
                fetched_at: 0,
                status: 200,
                request_id: None,
                complete: true,
            };
            let bytes = match app {
                "" => b"of a later version".to_vec(),
                _ => entry::with_tags(&tags, None, b"{}"),
            };
            let lane = lane(&journal, app, app_id).unwrap();
            let room = lane.reserve(bytes.len()).await;
            room.append(bytes, 1).await.unwrap();
            drop(reader(&lane, "kafka").unwrap());
        }
        let config = "[journal]\ndir = \"/nowhere\"\n[[apps]]\nname = \"chat\"\napp_id = \"0a1b\"\n\
             auth = { basic = { key = \"k\", secret = \"s\" } }\nregions = [\"eu-west-1\"]\n\
             [sinks.out]\ntype = \"stdout\"\n";
        let orphans = orphans(&Config::parse(config).unwrap(), &journal).unwrap();
        let mut names: Vec<&str> = orphans.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let expected = ["an app (removed)", "chat (removed 2)", "chat (removed)"];
        assert_eq!(names, expected);
    }
}
