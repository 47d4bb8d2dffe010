//! The configuration as it may be shown: an allow-list. What is not named here is not shown.
//!
//! Not shown are credentials and where they are read from, App IDs (a project without a certificate needs no more), values
//! of librdkafka's options, and of URLs everything but scheme, host and port.

use std::sync::{Arc, Mutex};

use bytesize::ByteSize;
use serde::Serialize;

use crate::config::{AppConfig, Config};
use crate::fields::shown::{host, is_set, list, word};

/// What may be shown of a configuration.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Settings(Vec<Section>);

#[derive(Debug, Clone, Serialize)]
struct Section {
    name: String,
    values: Vec<(&'static str, String)>,
}

/// What may be shown of the configuration that runs.
pub(crate) type Shown = Arc<Mutex<Settings>>;

impl Settings {
    /// What may be shown of `config`, until another takes its place.
    pub(crate) fn shown(config: &Config) -> Shown {
        Arc::new(Mutex::new(Settings::of(config)))
    }

    /// What may be shown of `config`.
    pub(crate) fn of(config: &Config) -> Settings {
        let bridge = Section {
            name: "Bridge".to_owned(),
            values: bridge(config),
        };
        let apps = config.apps.iter().map(|config| Section {
            name: format!("App {}", config.name),
            values: app(config),
        });
        let sinks = config.sinks.iter().map(|(name, sink)| Section {
            name: format!("Sink {name}"),
            values: sink.shown(),
        });
        Settings([bridge].into_iter().chain(apps).chain(sinks).collect())
    }
}

fn bridge(config: &Config) -> Vec<(&'static str, String)> {
    let Config { log, journal, .. } = config;
    let level = log.level.as_deref().unwrap_or("info");
    let deadline = config.shutdown_deadline;
    vec![
        ("admin.listen", config.admin.listen.to_string()),
        ("admin.hosts", list(config.admin.hosts.iter().cloned())),
        (
            "admin.token_file",
            is_set(config.admin.token_file.is_some()),
        ),
        ("admin.tls", is_set(config.admin.tls.is_some())),
        ("metrics.detail", word(config.metrics.detail)),
        ("log.level", level.to_owned()),
        ("log.format", word(log.format)),
        ("journal.dir", journal.dir.display().to_string()),
        ("journal.max_bytes", size(journal.max_bytes)),
        ("journal.max_entries", journal.max_entries.to_string()),
        ("journal.min_free_bytes", size(journal.min_free_bytes)),
        ("shutdown_deadline", format!("{deadline:?}")),
    ]
}

fn app(app: &AppConfig) -> Vec<(&'static str, String)> {
    let regions = app.regions.iter().map(|region| match &region.base_url {
        None => region.name.clone(),
        Some(url) => format!("{} at {}", region.name, host(url)),
    });
    let (auth, _) = app.auth.secret();
    vec![
        ("auth", auth.to_owned()),
        ("regions", list(regions)),
        ("requests_per_second", app.requests_per_second.to_string()),
        ("request_deadline", format!("{:?}", app.request_deadline)),
        ("connect_timeout", format!("{:?}", app.connect_timeout)),
        ("cross_region_copies", word(app.cross_region_copies)),
        ("copies_window", format!("{:?}", app.copies_window)),
        ("proxy", is_set(app.proxy.is_some())),
        ("ca_file", is_set(app.ca_file.is_some())),
    ]
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

#[cfg(test)]
mod tests;
