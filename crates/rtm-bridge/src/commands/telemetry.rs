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
pub(super) fn start(log: &LogConfig, default: &str) -> Result<(), String> {
    let filter = filter(log, default)?;
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(BoxMakeWriter::new(std::io::stderr));
    let started = match log.format {
        LogFormat::Text => builder.with_ansi(colours).finish().with(Keep).try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .finish()
            .with(Keep)
            .try_init(),
    };
    started.map_err(|error| error.to_string())
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
