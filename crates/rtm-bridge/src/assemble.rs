//! From a configuration to the parts that the bridge is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtm_journal::{Journal, Lane, LaneName, Reader, ReaderName};
use rtm_sink::{AnySink, FileSink};
use rtm_sink_kafka::{KafkaOptions, KafkaSink, TopicSpec};
use rtm_sink_nats::{NatsAuth, NatsOptions, NatsSink, NatsTls, StreamSpec, widen};
use rtm_source::{
    Auth, Connections, Fetch, Limiter, MOST_IN_FLIGHT_PER_RING, Region, RegionError, Schedule,
    ScheduleOptions, Secret, Source, SourceOptions,
};
use secrecy::SecretString;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::bridge::{MAX_PAGE_BYTES, Pipeline};
use crate::config::{
    AppConfig, AtomicBatches, AuthConfig, Config, CopyPolicy, InlineSecret, KafkaConfig, KeyBy,
    NatsAuthConfig, NatsConfig, RegionConfig, SinkConfig, Template, WhenFull,
};
use crate::copies::Copies;
use crate::losses::Losses;
use crate::metrics::{ClientState, Metrics, QueueState};
use crate::order::Ahead;
use crate::outlet::{Behind, CopyFilter, Outlet, Skip};
use crate::record::{Router, Routes};
use crate::state::State;
use crate::tally::Tally;

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

/// Partitions of a created topic: the cluster's default.
const DEFAULT_PARTITIONS: i32 = -1;

/// The parts of a bridge.
pub struct Assembled<F> {
    /// The journal, open and locked.
    pub journal: Journal,
    /// One for each App ID.
    pub pipelines: Vec<Pipeline<F>>,
    /// One for each sink.
    pub clients: Vec<Client>,
    /// Lanes of App IDs that left the configuration with entries pending, by App ID.
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
        clients.push(client(name, sink, config).await?);
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

/// Lanes of App IDs that left the configuration.
fn orphans(config: &Config, journal: &Journal) -> Result<Vec<(String, Lane)>, RunError> {
    let mut orphans = Vec::new();
    for name in journal.lanes() {
        if config.apps.iter().any(|app| app.app_id == name.as_str()) {
            continue;
        }
        let lane = lane(journal, name.as_str(), name.as_str())?;
        warn!(
            app_id = name.as_str(),
            "the journal holds entries of an App ID that left the configuration; they are still published"
        );
        orphans.push((name.as_str().to_owned(), lane));
    }
    Ok(orphans)
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
        sink: client.name().to_owned(),
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
    match config.sinks.get(&outlet.sink).map(routes) {
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
    match copies(app, &outlet.lane, &outlet.sink) {
        Ok(copies) => outlet.copies = copies,
        Err(error) => error!(
            error = crate::chain(&error),
            "copies are published until the next start"
        ),
    }
    outlet.judges = judges;
    let has_cursor = |copies: &CopyFilter| copies.behind.is_some();
    if !outlet.copies.as_ref().is_some_and(has_cursor)
        && let Ok(name) = ReaderName::try_from(format!("{}{BEHIND}", outlet.sink).as_str())
    {
        // It would hold the journal's segments for nobody. Mostly there is none.
        let _ = outlet.lane.remove_reader(&name).await;
    }
    outlet.remember().await;
}

fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Journal, RunError> {
    let observer = Arc::clone(metrics);
    let options = rtm_journal::Options {
        max_bytes: config.journal.max_bytes,
        min_free_bytes: config.journal.min_free_bytes,
        lanes_expected: config.apps.len(),
        on_sync: Some(Arc::new(move |took| observer.journal_committed(took))),
        ..rtm_journal::Options::default()
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
fn secret(
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

fn warn_if_world_readable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        warn!(file = %file.display(), "the secret file can be read by everyone on this machine");
    }
}

/// One sink with its name and its routes. Cheap to clone.
#[derive(Clone)]
pub enum Client {
    /// Kafka.
    Kafka(String, Routes, Arc<KafkaSink>),
    /// NATS JetStream.
    Nats(String, Routes, Arc<NatsSink>),
    /// A file, or standard output.
    File(String, Routes, Arc<FileSink>),
    /// Any other: for the simulation of the whole bridge.
    Other(String, Routes, AnySink),
}

impl Client {
    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Client::Kafka(name, ..)
            | Client::Nats(name, ..)
            | Client::File(name, ..)
            | Client::Other(name, ..) => name,
        }
    }

    /// A router for one lane.
    #[must_use]
    pub fn router(&self) -> Router {
        match self {
            Client::Kafka(_, routes, _)
            | Client::Nats(_, routes, _)
            | Client::File(_, routes, _)
            | Client::Other(_, routes, _) => Router::new(routes.clone()),
        }
    }

    /// What records are handed to.
    #[must_use]
    pub fn sink(&self) -> AnySink {
        match self {
            Client::Kafka(_, _, sink) => AnySink::new(Arc::clone(sink)),
            Client::Nats(_, _, sink) => AnySink::new(Arc::clone(sink)),
            Client::File(_, _, sink) => AnySink::new(Arc::clone(sink)),
            Client::Other(_, _, sink) => sink.clone(),
        }
    }

    /// What the client says of itself.
    #[must_use]
    pub fn state(&self) -> ClientState {
        match self {
            Client::Kafka(_, _, sink) => {
                let stats = sink.stats();
                let queue = QueueState {
                    records: stats.queued as u64,
                    round_trip: stats.round_trip.unwrap_or_default(),
                };
                ClientState {
                    up: stats.up,
                    rebuilds: stats.rebuilds,
                    queue: Some(queue),
                    ..ClientState::default()
                }
            }
            Client::Nats(_, _, sink) => {
                let stats = sink.stats();
                ClientState {
                    up: stats.up,
                    reconnects: stats.reconnects,
                    out_of_order: Some(stats.out_of_order),
                    ..ClientState::default()
                }
            }
            Client::File(..) | Client::Other(..) => ClientState {
                up: true,
                ..ClientState::default()
            },
        }
    }

    /// Ends the client. What it had not confirmed is published again after the next start.
    pub async fn close(self) {
        match self {
            Client::Kafka(_, _, sink) => sink.close().await,
            Client::Nats(_, _, sink) => sink.close().await,
            Client::File(..) | Client::Other(..) => {}
        }
    }
}

pub(crate) async fn client(
    name: &str,
    sink: &SinkConfig,
    config: &Config,
) -> Result<Client, RunError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| RunError::Sink {
        sink: name.to_owned(),
        source,
    };
    Ok(match sink {
        SinkConfig::Kafka(kafka) => {
            let sink = KafkaSink::new(kafka_options(kafka).map_err(error)?)
                .map_err(|source| error(source.into()))?;
            let sink = Arc::new(sink);
            if kafka.create {
                let topics = kafka_topics(kafka, config);
                create_topics(name.to_owned(), Arc::clone(&sink), topics);
            }
            Client::Kafka(
                name.to_owned(),
                kafka_routes(kafka).map_err(|text| error(text.into()))?,
                sink,
            )
        }
        SinkConfig::Nats(nats) => {
            let sink = NatsSink::connect(nats_options(nats))
                .await
                .map_err(|source| error(source.into()))?;
            Client::Nats(
                name.to_owned(),
                nats_routes(nats).map_err(|text| error(text.into()))?,
                Arc::new(sink),
            )
        }
        SinkConfig::Stdout(_) => {
            let sink = FileSink::stdout().map_err(|source| error(source.into()))?;
            Client::File(
                name.to_owned(),
                line_routes().map_err(|text| error(text.into()))?,
                Arc::new(sink),
            )
        }
        SinkConfig::File(file) => {
            let sink = FileSink::create(&file.path).map_err(|source| error(source.into()))?;
            Client::File(
                name.to_owned(),
                line_routes().map_err(|text| error(text.into()))?,
                Arc::new(sink),
            )
        }
    })
}

/// Creates a sink's topics, in the background: polling does not wait for a broker, and where this fails the first records
/// try again.
fn create_topics(name: String, sink: Arc<KafkaSink>, topics: Vec<String>) {
    tokio::spawn(async move {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        if let Err(problem) = sink.ensure_topics(&topics).await {
            warn!(
                sink = name,
                error = crate::chain(&problem),
                "cannot create the topics now; trying again with the first records"
            );
        }
    });
}

/// Where a sink's records go.
///
/// # Errors
///
/// With what is wrong with a template.
pub fn routes(sink: &SinkConfig) -> Result<Routes, String> {
    match sink {
        SinkConfig::Kafka(kafka) => kafka_routes(kafka),
        SinkConfig::Nats(nats) => nats_routes(nats),
        SinkConfig::Stdout(_) | SinkConfig::File(_) => line_routes(),
    }
}

fn kafka_routes(kafka: &KafkaConfig) -> Result<Routes, String> {
    Ok(Routes {
        topic: Template::parse(&kafka.topic, crate::config::STATIC)?,
        dead_letters: Template::parse(&kafka.dead_letter_topic, crate::config::STATIC)?,
        key: kafka.key,
        headers: kafka.headers,
    })
}

pub(crate) fn nats_routes(nats: &NatsConfig) -> Result<Routes, String> {
    Ok(Routes {
        topic: Template::parse(&nats.subject, crate::config::ALL)?,
        dead_letters: Template::parse(&nats.dead_letter_subject, crate::config::STATIC)?,
        key: KeyBy::Auto,
        headers: nats.headers,
    })
}

/// A file has no topics; its lines say where they come from.
///
/// # Errors
///
/// None: its templates are constants.
pub fn line_routes() -> Result<Routes, String> {
    let topic = Template::parse("{stream}_events", crate::config::STATIC)?;
    Ok(Routes {
        dead_letters: Template::parse("dead_letters", crate::config::STATIC)?,
        topic,
        key: KeyBy::Auto,
        headers: false,
    })
}

/// The options of a Kafka sink, secrets read.
///
/// # Errors
///
/// When a file or a variable that holds an option cannot be read.
pub fn kafka_options(
    kafka: &KafkaConfig,
) -> Result<KafkaOptions, Box<dyn std::error::Error + Send + Sync>> {
    let mut options: BTreeMap<String, String> = kafka
        .options
        .iter()
        .map(|(name, value)| (name.clone(), value.0.clone()))
        .collect();
    for file in kafka.option_files.values() {
        warn_if_world_readable(file);
    }
    for (name, variable) in &kafka.option_env {
        let value = std::env::var(variable)
            .map_err(|_| format!("{name}: the environment variable {variable} is not set"))?;
        options.insert(name.clone(), value);
    }
    let create_topics = kafka.create.then(|| TopicSpec {
        partitions: kafka.partitions.unwrap_or(DEFAULT_PARTITIONS),
        replication: kafka.replication_factor.unwrap_or(-1),
    });
    Ok(KafkaOptions {
        options,
        option_files: kafka.option_files.clone(),
        create_topics,
        ..KafkaOptions::new(kafka.brokers.clone())
    })
}

/// Every topic that a Kafka sink can publish to.
#[must_use]
pub fn kafka_topics(kafka: &KafkaConfig, config: &Config) -> Vec<String> {
    names(&[&kafka.topic, &kafka.dead_letter_topic], config)
}

/// Every name that templates can lead to, parts of events replaced by `x`.
fn names(templates: &[&String], config: &Config) -> Vec<String> {
    use crate::config::Variable;
    let mut names = Vec::new();
    for template in templates
        .iter()
        .filter_map(|text| Template::parse(text, crate::config::ALL).ok())
    {
        for app in &config.apps {
            for region in &app.regions {
                for stream in ["user", "channel"] {
                    names.push(template.render(|variable, text| {
                        text.push_str(match variable {
                            Variable::App => &app.name,
                            Variable::AppId => &app.app_id,
                            Variable::Region => &region.name,
                            Variable::Stream => stream,
                            Variable::Type | Variable::UserId | Variable::ChannelId => "x",
                        });
                    }));
                }
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Every subject that a NATS sink can publish to, parts of events replaced by `x`.
#[must_use]
pub fn nats_subjects(nats: &NatsConfig, config: &Config) -> Vec<String> {
    names(&[&nats.subject, &nats.dead_letter_subject], config)
}

/// The options of a NATS sink. Secrets are read by the sink, for each connection.
#[must_use]
pub fn nats_options(nats: &NatsConfig) -> NatsOptions {
    let file = |path: &PathBuf| {
        warn_if_world_readable(path);
        rtm_sink_nats::Secret::File(path.clone())
    };
    let auth = match &nats.auth {
        None => NatsAuth::None,
        Some(NatsAuthConfig::CredentialsFile(path)) => NatsAuth::CredentialsFile(path.clone()),
        Some(NatsAuthConfig::NkeyFile(path)) => NatsAuth::NkeySeed(file(path)),
        Some(NatsAuthConfig::TokenFile(path)) => NatsAuth::Token(file(path)),
        Some(NatsAuthConfig::Jwt(jwt)) => NatsAuth::Jwt {
            jwt: file(&jwt.jwt_file),
            seed: file(&jwt.seed_file),
        },
        Some(NatsAuthConfig::Password(password)) => NatsAuth::UserPassword {
            user: password.user.clone(),
            password: match secret(
                &password.password,
                &password.password_file,
                &password.password_env,
            ) {
                Secret::Inline(secret) => rtm_sink_nats::Secret::Text(secret),
                Secret::File(file) => rtm_sink_nats::Secret::File(file),
            },
        },
    };
    let create_stream = nats.create.as_ref().map(|create| StreamSpec {
        subjects: if create.subjects.is_empty() {
            covering(nats)
        } else {
            create.subjects.clone()
        },
        max_bytes: create.max_bytes,
        max_age: create.max_age,
        replicas: create.replicas,
        duplicate_window: create.duplicate_window,
    });
    NatsOptions {
        auth,
        tls: NatsTls {
            required: nats.tls.required,
            ca_file: nats.tls.ca_file.clone(),
            cert_file: nats.tls.cert_file.clone(),
            key_file: nats.tls.key_file.clone(),
        },
        in_flight: nats.in_flight,
        atomic_batches: nats.atomic_batches == AtomicBatches::Auto,
        ack_timeout: nats.ack_timeout,
        create_stream,
        ..NatsOptions::new(nats.servers.clone(), nats.stream.clone())
    }
}

/// Subjects of a stream that covers the templates: each variable a wildcard of one token. One that another covers is
/// left out, for a stream's subjects may not overlap.
pub(crate) fn covering(nats: &NatsConfig) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    for text in [&nats.subject, &nats.dead_letter_subject] {
        let Ok(template) = Template::parse(text, crate::config::ALL) else {
            continue;
        };
        let subject = widen(&template.with_all("*")).into_owned();
        if !subjects.iter().any(|other| covers(other, &subject)) {
            subjects.retain(|other| !covers(&subject, other));
            subjects.push(subject);
        }
    }
    subjects
}

fn covers(filter: &str, subject: &str) -> bool {
    filter.split('.').count() == subject.split('.').count()
        && filter
            .split('.')
            .zip(subject.split('.'))
            .all(|(filter, token)| filter == "*" || filter == token)
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wildcard_covers_one_token() {
        assert!(covers("rtm.*.*", "rtm.*.dead_letters"));
        assert!(!covers("rtm.*.*.*", "rtm.*.dead_letters"));
        assert!(!covers("rtm.*.dead_letters", "rtm.*.*"));
    }
}
