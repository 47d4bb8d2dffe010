//! The configuration as it may be shown: an allow-list. What is not named here is not shown.
//!
//! Not shown are credentials and where they are read from, App IDs (a project without a certificate needs no more), values
//! of librdkafka's options, and of URLs everything but scheme, host and port.

use std::sync::{Arc, Mutex};

use bytesize::ByteSize;
use serde::Serialize;

use crate::config::{AppConfig, AuthConfig, Config, CopyPolicy, LogFormat};
use crate::fields::shown::{host, is_set, list};

/// What may be shown of a configuration.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Settings {
    sections: Vec<Section>,
}

#[derive(Debug, Clone, Serialize)]
struct Section {
    name: String,
    values: Vec<(&'static str, String)>,
}

/// What may be shown of the configuration that runs.
pub type Shown = Arc<Mutex<Settings>>;

impl Settings {
    /// What may be shown of `config`, until another takes its place.
    #[must_use]
    pub fn shown(config: &Config) -> Shown {
        Arc::new(Mutex::new(Settings::of(config)))
    }

    /// What may be shown of `config`.
    #[must_use]
    pub fn of(config: &Config) -> Settings {
        let general = vec![
            ("admin.listen", config.admin.listen.to_string()),
            (
                "log.level",
                config
                    .log
                    .level
                    .clone()
                    .unwrap_or_else(|| "info".to_owned()),
            ),
            (
                "log.format",
                match config.log.format {
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                }
                .to_owned(),
            ),
            ("journal.dir", config.journal.dir.display().to_string()),
            ("journal.max_bytes", size(config.journal.max_bytes)),
            (
                "journal.max_entries",
                config.journal.max_entries.to_string(),
            ),
            (
                "journal.min_free_bytes",
                size(config.journal.min_free_bytes),
            ),
            (
                "shutdown_deadline",
                format!("{:?}", config.shutdown_deadline),
            ),
        ];
        let mut sections = vec![Section {
            name: "Bridge".to_owned(),
            values: general,
        }];
        sections.extend(config.apps.iter().map(app));
        for (name, sink) in &config.sinks {
            sections.push(Section {
                name: format!("Sink {name}"),
                values: sink.shown(),
            });
        }
        Settings { sections }
    }
}

fn app(app: &AppConfig) -> Section {
    let regions = app.regions.iter().map(|region| match &region.base_url {
        None => region.name.clone(),
        Some(url) => format!("{} at {}", region.name, host(url)),
    });
    let auth = match &app.auth {
        AuthConfig::Basic(_) => "basic",
        AuthConfig::Token(_) => "token",
        AuthConfig::AgoraToken(_) => "agora_token",
    };
    let copies = match app.cross_region_copies {
        CopyPolicy::Publish => "publish",
        CopyPolicy::Drop => "drop",
    };
    Section {
        name: format!("App {}", app.name),
        values: vec![
            ("auth", auth.to_owned()),
            ("regions", list(regions)),
            ("requests_per_second", app.requests_per_second.to_string()),
            ("request_deadline", format!("{:?}", app.request_deadline)),
            ("connect_timeout", format!("{:?}", app.connect_timeout)),
            ("cross_region_copies", copies.to_owned()),
            ("copies_window", format!("{:?}", app.copies_window)),
            ("proxy", is_set(app.proxy.is_some())),
            ("ca_file", is_set(app.ca_file.is_some())),
        ],
    }
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

#[cfg(test)]
mod tests;
