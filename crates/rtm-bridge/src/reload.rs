//! A new configuration while the bridge runs: on SIGHUP, and when the content of its file changes.
//!
//! A file is taken as a whole or not at all, so that what runs is always what one file said. It is refused where `check`
//! would refuse it, and where it changes what only a restart can change ([`needs_restart`]), by name; then what runs stays.
//! What may change: the log level; of an App ID its regions, rate, credentials, pause, paths, deadlines, proxy and copies;
//! of a sink the names that it publishes to, its key and its headers.
//!
//! Nothing stops for it. Polling goes on with a new source and schedule, and with the same limiter and the same mark:
//! see [`crate::bridge`]. An outlet takes its new routes between two batches; a batch that waits for its broker keeps its
//! names until it is confirmed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtm_source::Connections;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::assemble;
use crate::client;
use crate::config::{AppConfig, Config, SinkConfig};
use crate::metrics::Metrics;
use crate::notify::Notify;
use crate::series;

/// How often the file is looked at. Its content counts, and not its times or its inode: Kubernetes swaps a symbolic link,
/// and editors write a new file. A content is taken when two looks have found it, and so never half of one.
const LOOK: Duration = Duration::from_secs(2);

/// Waits for the next configuration.
pub struct Watch {
    file: PathBuf,
    hangup: Signal,
    /// What was read last, taken or refused; none for what cannot be read.
    seen: Option<Vec<u8>>,
    notify: Arc<Notify>,
    taken: Box<dyn Fn(&Config) + Send + Sync>,
}

impl Watch {
    /// For `file`, which has just been read; `taken` is told each configuration that is. SIGHUP ends the process no more
    /// from here on.
    ///
    /// # Errors
    ///
    /// When the handler of the signal cannot be installed.
    pub fn new(
        file: &Path,
        notify: Arc<Notify>,
        taken: impl Fn(&Config) + Send + Sync + 'static,
    ) -> std::io::Result<Watch> {
        Ok(Watch {
            file: file.to_path_buf(),
            hangup: signal(SignalKind::hangup())?,
            seen: std::fs::read(file).ok(),
            notify,
            taken: Box::new(taken),
        })
    }

    /// Returns when the file is to be read again.
    async fn next(&mut self) {
        let mut last = self.seen.clone();
        let mut look = Instant::now() + LOOK;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    info!("SIGHUP: reading the configuration again");
                    self.seen = tokio::fs::read(&self.file).await.ok();
                    return;
                }
                () = tokio::time::sleep_until(look) => {}
            }
            let content = tokio::fs::read(&self.file).await.ok();
            if content != self.seen && content == last {
                info!(file = %self.file.display(), "the configuration has changed: reading it again");
                self.seen = content;
                return;
            }
            last = content;
            look = Instant::now() + LOOK;
        }
    }
}

/// Gives `running` each new configuration, for ever.
pub async fn follow(watch: Option<Watch>, running: watch::Sender<Arc<Config>>, metrics: &Metrics) {
    let Some(mut watch) = watch else {
        return std::future::pending().await;
    };
    loop {
        watch.next().await;
        watch.notify.reloading();
        let old = Arc::clone(&running.borrow());
        match read(&watch.file, &old) {
            Ok(new) => {
                (watch.taken)(&new);
                for (key, warning) in new.warnings() {
                    warn!(key, "{warning}");
                }
                // Before anything can count in them.
                series::add(metrics, &new);
                running.send_replace(Arc::new(new));
                info!("the configuration was taken");
            }
            Err(problems) => {
                metrics.reload_refused();
                for problem in problems.lines() {
                    error!("{problem}");
                }
                error!("the configuration was refused, and the one that runs stays");
            }
        }
        watch.notify.ready();
    }
}

/// The configuration that `file` holds now, if it can take the place of `old`; otherwise what is wrong, a line for each.
fn read(file: &Path, old: &Config) -> Result<Config, String> {
    let new = Config::load(file).map_err(|error| error.to_string())?;
    let restart: Vec<String> = needs_restart(old, &new)
        .into_iter()
        .map(|key| format!("{}: {key}: needs a restart to change", file.display()))
        .collect();
    if !restart.is_empty() && !rtm_planted::bug("bridge-reload-takes-half-a-file") {
        return Err(restart.join("\n"));
    }
    // What `check` looks at as well: certificates, proxies, credentials.
    let connections = Connections::default();
    for app in new.apps.iter().filter(|app| !old.apps.contains(app)) {
        if let Err(error) = assemble::source(app, &connections) {
            return Err(format!("apps: {}: {}", app.name, crate::chain(&*error)));
        }
    }
    Ok(new)
}

macro_rules! differing {
    ($found:ident, $at:expr, $old:expr, $new:expr, [$($key:ident),* $(,)?]) => {
        $(if $old.$key != $new.$key {
            $found.push(format!("{}{}", $at, stringify!($key)));
        })*
    };
}

/// The keys in which `new` differs, and that only a restart can change.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    differing!(found, "admin.", old.admin, new.admin, [listen]);
    differing!(found, "log.", old.log, new.log, [format]);
    differing!(
        found,
        "journal.",
        old.journal,
        new.journal,
        [dir, max_bytes, max_entries, min_free_bytes]
    );
    differing!(found, "", old, new, [shutdown_deadline]);
    let identity = |app: &AppConfig| (app.name.clone(), app.app_id.clone());
    let is_in = |app: &AppConfig, config: &Config| {
        let mut known = config.apps.iter().map(identity);
        known.any(|known| known == identity(app))
    };
    let added = new.apps.iter().filter(|app| !is_in(app, old));
    let removed = old.apps.iter().filter(|app| !is_in(app, new));
    found.extend(added.map(|app| format!("apps: `{}`, which is new", app.name)));
    found.extend(removed.map(|app| format!("apps: `{}`, which is gone", app.name)));
    for name in new
        .sinks
        .keys()
        .filter(|name| !old.sinks.contains_key(*name))
    {
        found.push(format!("sinks.{name}, which is new"));
    }
    for (name, old) in &old.sinks {
        match new.sinks.get(name) {
            Some(new) => sink_needs_restart(&format!("sinks.{name}."), old, new, &mut found),
            None => found.push(format!("sinks.{name}, which is gone")),
        }
    }
    found
}

fn sink_needs_restart(at: &str, old: &SinkConfig, new: &SinkConfig, found: &mut Vec<String>) {
    if old.when_full() != new.when_full() {
        found.push(format!("{at}when_full"));
    }
    match (old, new) {
        (SinkConfig::Kafka(old), SinkConfig::Kafka(new)) => {
            differing!(
                found,
                at,
                old,
                new,
                [
                    brokers,
                    create,
                    partitions,
                    replication_factor,
                    options,
                    option_files,
                    option_env,
                ]
            );
        }
        (SinkConfig::Nats(old), SinkConfig::Nats(new)) => {
            differing!(
                found,
                at,
                old,
                new,
                [
                    servers,
                    stream,
                    auth,
                    tls,
                    ack_timeout,
                    in_flight,
                    atomic_batches,
                    create,
                ]
            );
            // The client makes the JetStream stream when it connects, and these are its subjects.
            let derives = old
                .create
                .as_ref()
                .is_some_and(|create| create.subjects.is_empty());
            if derives && client::covering(old) != client::covering(new) {
                found.push(format!(
                    "{at}subject, from which `create` takes its subjects"
                ));
            }
        }
        (SinkConfig::File(old), SinkConfig::File(new)) => {
            differing!(found, at, old, new, [path]);
        }
        (SinkConfig::Stdout(_), SinkConfig::Stdout(_)) => {}
        _ => found.push(format!("{at}type")),
    }
}
