//! Logging: structured, to standard error, without colours where nobody sees them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::admin::recent::Keep;
use crate::config::{LogConfig, LogFormat, directives};

mod journald;

use journald::ToStderr;

/// Starts logging. `RUST_LOG` lies over the configuration's level.
///
/// Where journald reads it, each entry begins with its priority, and text goes without a time, since journald has its own.
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
        .with_writer(ToStderr);
    macro_rules! start {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let started = builder.finish().with(Keep).try_init();
            started.map_err(|error| error.to_string())?;
            Ok(SetLevel(Box::new(move |filter| {
                drop(handle.reload(filter));
            })))
        }};
    }
    // Each is another type.
    match log.format {
        LogFormat::Text if journald::reads() => start!(builder.with_ansi(false).without_time()),
        LogFormat::Text => start!(builder.with_ansi(colours)),
        LogFormat::Json => start!(builder.json().flatten_event(true)),
    }
}

/// Says what ends a command, on standard error.
pub(super) fn complain(line: &str) {
    let priority = if journald::reads() { "<3>" } else { "" };
    eprintln!("{priority}rtm-bridge: {line}");
}

/// Says in the journal that something panicked, with a priority; what the usual hook prints has none.
pub fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    if journald::reads() {
        complain(&panic.to_string().replace('\n', " "));
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
    directives(&level).map_err(|message| format!("{origin}: {message}"))
}
