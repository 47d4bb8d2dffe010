//! Logging: structured, to standard error, without colours where nobody sees them.

use std::io::IsTerminal;

use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::process::refuse;
use crate::admin::recent::Keep;
use crate::config::{LogConfig, LogFormat, directives};
use crate::fields::variable::variable;

mod journald;

use journald::ToStderr;

/// Starts logging. `RUST_LOG` lies over the configuration's level.
///
/// Where journald reads it, each entry begins with its priority, and text goes without a time, since journald has its own.
pub(super) fn start(log: &LogConfig, default: &str) -> anyhow::Result<SetLevel> {
    let (filter, set) = reload::Layer::new(filter(log, default).map_err(refuse)?);
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(ToStderr);
    let lines = match log.format {
        LogFormat::Text if *journald::READS => lines.with_ansi(false).without_time().boxed(),
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let log = tracing_subscriber::registry().with(filter).with(lines);
    log.with(Keep).try_init()?;
    Ok(SetLevel(set))
}

/// Says what ends a command, on standard error.
pub(super) fn complain(line: &str) {
    let priority = if *journald::READS { "<3>" } else { "" };
    eprintln!("{priority}rtm-bridge: {line}");
}

/// Says in the journal that something panicked, with a priority; what the usual hook prints has none.
pub fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    if *journald::READS {
        complain(&panic.to_string().replace('\n', " "));
    }
}

/// Logs something else from now on.
pub(super) struct SetLevel(reload::Handle<EnvFilter, Registry>);

impl SetLevel {
    /// Whatever `log` says; `RUST_LOG` lies over it still.
    pub(super) fn set(&self, log: &LogConfig, default: &str) {
        match filter(log, default) {
            Ok(filter) => drop(self.0.reload(filter)),
            Err(error) => tracing::error!(error, "the log level stays as it was"),
        }
    }
}

/// What to log.
pub(super) fn filter(log: &LogConfig, default: &str) -> Result<EnvFilter, String> {
    let variable = variable("RUST_LOG").filter(|level| !level.is_empty());
    let (origin, level) = match &variable {
        Some(level) => ("the environment variable RUST_LOG", level.as_str()),
        None => ("log.level", log.level.as_deref().unwrap_or(default)),
    };
    directives(level).map_err(|message| format!("{origin}: {message}"))
}
