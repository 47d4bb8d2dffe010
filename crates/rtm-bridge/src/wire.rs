//! From the configuration to what the engine runs on: its plan, sources and sinks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rtm_engine::copies::CopyRule;
use rtm_engine::page::MAX_PAGE_BYTES;
use rtm_engine::plan::{AppPlan, BoxError, Parts, Plan, RunError, SinkPlan};
use rtm_engine::status::metrics::Metrics;
use rtm_sink::AnySink;
use rtm_source::{
    Auth, Connections, Fetch, FetchError, NoResponse, Page, Ring, Slot, Source, SourceOptions,
    Stream,
};
use tracing::{debug, info};

use crate::attempt::Attempt;
use crate::config::{AppConfig, AuthConfig, Config, CopyPolicy, Detail};
use crate::fields::problem::may_come;
use crate::fields::region::RegionConfig;
use crate::sinks::{SinkConfig, WhenFull};

/// How long a request waits for a file that its source needs.
const PATIENCE: Duration = Duration::from_secs(2);

/// App IDs for whose first requests connections are opened early.
const OPENED_EARLY: usize = 8;

/// Tells the metrics what they say of the configuration itself, and that it was taken.
pub(crate) fn tell(metrics: &Metrics, config: &Config) {
    let regions = config.apps.iter().flat_map(|app| &app.regions);
    let insecure = regions.filter(|region| region.allow_insecure_http);
    metrics.set_insecure_http(insecure.count());
    metrics.set_min_free_disk(config.journal.min_free_bytes);
    metrics.set_by_app(config.metrics.detail == Detail::App);
    metrics.config_taken();
}

/// What a configuration asks of the engine.
///
/// # Errors
///
/// [`RunError::Sink`] with what is wrong with a template, which validation has seen.
pub fn plan(config: &Config) -> Result<Plan<Wire>, RunError> {
    let apps = config.apps.iter().map(|app| AppPlan {
        name: app.name.clone(),
        app_id: app.app_id.clone(),
        paused: app.paused,
        requests_per_second: app.requests_per_second,
        // A single region gives no copies.
        copy_rule: (app.regions.len() > 1).then(|| CopyRule {
            window: app.copies_window,
            drops: app.cross_region_copies == CopyPolicy::Drop,
        }),
        source: app.clone(),
    });
    let sinks = config.sinks.iter().map(|(name, sink)| {
        let common = &sink.common;
        let routes = sink
            .table()
            .templates()
            .routes()
            .map_err(|error| RunError::Sink {
                sink: name.clone(),
                source: error.into(),
            })?;
        Ok(SinkPlan {
            name: name.clone(),
            kind: sink.kind,
            title: sink.title(name),
            routes,
            hold: sink.table().hold(),
            skips_when_full: common.when_full == WhenFull::Skip,
            apps: common.apps.clone(),
            streams: Stream::ALL
                .into_iter()
                .filter(|stream| common.takes_stream(stream.as_str()))
                .collect(),
            client: ClientSpec {
                sink: sink.clone(),
                places: sink.places(&config.names()),
            },
        })
    });
    Ok(Plan {
        apps: apps.collect(),
        sinks: sinks.collect::<Result<_, RunError>>()?,
        drain_deadline: config.shutdown_deadline,
    })
}

/// Makes sources and sinks of tables of the configuration.
#[derive(Default)]
pub struct Wire {
    connections: Arc<Connections>,
    /// How many sources have opened their connections early.
    opened_early: AtomicUsize,
}

/// What a sink's client is made of.
#[derive(Debug, Clone)]
pub struct ClientSpec {
    sink: SinkConfig,
    /// The topics that it can publish to: those that are missing are created early, where the configuration says so.
    places: Vec<String>,
}

impl Parts for Wire {
    type Source = LateSource;
    type SourceSpec = AppConfig;
    type ClientSpec = ClientSpec;

    async fn source(&self, app: &AppConfig) -> Result<LateSource, BoxError> {
        let source = LateSource::open(app, &self.connections).await?;
        // App IDs start one after the other, and share connections: a few for each host will do.
        if let Some(source) = source.made.get()
            && self.opened_early.fetch_add(1, Ordering::Relaxed) < OPENED_EARLY
        {
            open_connections(source);
        }
        Ok(source)
    }

    async fn client(&self, name: &str, spec: &ClientSpec) -> Result<AnySink, BoxError> {
        let client = spec.sink.client(name, &spec.places).await;
        client.map_err(anyhow::Error::into_boxed_dyn_error)
    }

    fn is_same_client(&self, old: &ClientSpec, new: &ClientSpec) -> bool {
        old.sink.needs_new_client(&new.sink).is_empty()
    }
}

/// Opens connections to the regions' hosts, in the background: TLS is opened while the limiter waits out its first second.
/// What fails here fails again with the first requests, and is told there.
fn open_connections(source: &Source) {
    for ring in source.rings().iter().step_by(2) {
        let connected = source.connect(&ring.region);
        tokio::spawn(async move {
            if let Err(error) = connected.await {
                debug!(error = crate::chain(&error), "not connected yet");
            }
        });
    }
}

/// The source of an app, with connections that others share.
///
/// # Errors
///
/// When a region, the credentials, the proxy or the certificates cannot be used.
pub fn source(app: &AppConfig, connections: &Connections) -> Result<Source, BoxError> {
    let regions = app
        .regions
        .iter()
        .map(RegionConfig::region)
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

/// A source that may have to wait for a file: of a secret, or of certificates. Until that is there no request is sent.
pub struct LateSource {
    made: OnceLock<Source>,
    making: Attempt<Result<Source, BoxError>>,
    rings: Vec<Ring>,
    app: AppConfig,
    connections: Arc<Connections>,
}

impl LateSource {
    /// One that is made already, unless a file is missing or does not answer.
    async fn open(app: &AppConfig, connections: &Arc<Connections>) -> Result<LateSource, BoxError> {
        let late = LateSource {
            made: OnceLock::new(),
            making: Attempt::default(),
            rings: rings(app)?,
            app: app.clone(),
            connections: Arc::clone(connections),
        };
        match late.make().await {
            Some(Ok(source)) => _ = late.made.set(source),
            Some(Err(error)) if !may_come(error.as_ref()) => return Err(error),
            Some(Err(_)) | None => {}
        }
        Ok(late)
    }

    /// Reads the files, in a thread that may block. None where they do not answer.
    async fn make(&self) -> Option<Result<Source, BoxError>> {
        let begin = || {
            let (app, connections) = (self.app.clone(), Arc::clone(&self.connections));
            tokio::task::spawn_blocking(move || source(&app, &connections))
        };
        let made = self.making.wait(PATIENCE, begin).await?;
        Some(made.map_err(BoxError::from).flatten())
    }

    async fn source(&self) -> Result<&Source, BoxError> {
        if let Some(source) = self.made.get() {
            return Ok(source);
        }
        let made = self.make().await;
        let source =
            made.ok_or("a file of the App ID's secret or certificates does not answer")??;
        let mut is_mine = false;
        let made = self.made.get_or_init(|| {
            is_mine = true;
            source
        });
        if is_mine {
            info!(
                app = self.app.name,
                "what was missing is there: polling begins"
            );
        }
        Ok(made)
    }
}

impl Fetch for LateSource {
    fn rings(&self) -> &[Ring] {
        &self.rings
    }

    fn credentials_changed(&self) -> bool {
        let made = self.made.get();
        made.is_some_and(Source::credentials_changed)
    }

    async fn fetch(&self, ring: &Ring, slot: Slot) -> Result<Page, FetchError> {
        match self.source().await {
            Ok(source) => source.fetch(ring, slot).await,
            Err(error) => {
                let failed = FetchError::no_response(NoResponse::Request, Some(error));
                slot.using(async { Err(failed) }).await
            }
        }
    }
}

/// The rings of a source.
fn rings(app: &AppConfig) -> Result<Vec<Ring>, BoxError> {
    let mut rings = Vec::new();
    for region in &app.regions {
        let region = Arc::new(region.region()?);
        for stream in Stream::ALL {
            let region = Arc::clone(&region);
            rings.push(Ring { region, stream });
        }
    }
    Ok(rings)
}

fn auth(app: &AppConfig) -> Auth {
    let (_, keys) = app.auth.secret();
    let secret = keys.secret();
    match &app.auth {
        AuthConfig::Basic(basic) => Auth::Basic {
            key: basic.key.clone(),
            secret,
        },
        AuthConfig::Token(token) => Auth::Token {
            uid: token.uid.clone(),
            token: secret,
        },
        AuthConfig::AgoraToken(_) => Auth::AgoraToken { token: secret },
    }
}

#[cfg(test)]
mod tests;
