//! Logging: structured, to standard error, without colours where nobody sees them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::admin::recent::Keep;
use crate::config::{LogConfig, LogFormat};

/// Starts logging. `RUST_LOG` lies over the configuration's level.
///
/// # Errors
///
/// When the level is neither a level nor directives.
pub(super) fn start(log: &LogConfig, default: &str) -> Result<SetLevel, String> {
    let filter = filter(log, default)?;
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(BoxMakeWriter::new(std::io::stderr));
    match log.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(colours).with_filter_reloading();
            let handle = builder.reload_handle();
            let started = builder.finish().with(Keep).try_init();
            started.map_err(|error| error.to_string())?;
            Ok(SetLevel(Box::new(move |filter| {
                drop(handle.reload(filter));
            })))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let started = builder.finish().with(Keep).try_init();
            started.map_err(|error| error.to_string())?;
            Ok(SetLevel(Box::new(move |filter| {
                drop(handle.reload(filter));
            })))
        }
    }
}

/// Logs something else from now on.
pub(super) struct SetLevel(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl SetLevel {
    /// Whatever `log` says; `RUST_LOG` lies over it still.
    pub(super) fn set(&self, log: &LogConfig, default: &str) {
        match filter(log, default) {
            Ok(filter) => (self.0)(filter),
            Err(error) => tracing::error!(error, "the log level stays as it was"),
        }
    }
}

/// What to log.
///
/// # Errors
///
/// As [`start`].
pub(super) fn filter(log: &LogConfig, default: &str) -> Result<EnvFilter, String> {
    let variable = std::env::var("RUST_LOG")
        .ok()
        .filter(|level| !level.is_empty());
    let origin = match variable {
        Some(_) => "the environment variable RUST_LOG",
        None => "log.level",
    };
    let level = variable
        .or_else(|| log.level.clone())
        .unwrap_or_else(|| default.to_owned());
    EnvFilter::try_new(&level).map_err(|error| {
        format!(
            "{origin}: `{}` is neither a level nor directives: {error}",
            level.escape_debug()
        )
    })
}
