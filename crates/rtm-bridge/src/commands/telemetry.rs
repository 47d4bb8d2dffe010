//! Logging: structured, to standard error, without colours where nobody sees them. No line waits for whoever reads it:
//! [`crate::stderr`].

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;

use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::process::refuse;
use crate::admin::recent::Keep;
use crate::config::{LogConfig, LogFormat, directives};
use crate::fields::variable::variable;
use crate::stderr;

mod journald;

use journald::ToStderr;

/// Starts logging. `RUST_LOG` lies over the configuration's level.
///
/// Where journald reads it, each entry begins with its priority, and text goes without a time, since journald has its own.
pub(super) fn start(log: &LogConfig, default: &str) -> anyhow::Result<SetLevel> {
    let (filter, set) = reload::Layer::new(filter(log, default).map_err(refuse)?);
    let colours = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // What cannot be formatted would be printed past the queue.
    let lines = fmt::layer()
        .with_writer(ToStderr)
        .log_internal_errors(false);
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
    stderr::print(format!("{priority}rtm-bridge: {line}\n").into_bytes());
}

/// Says that something panicked, as the usual hook would, which waits for whoever reads standard error. In the journal it
/// is said with a priority too.
pub fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    if *journald::READS {
        complain(&panic.to_string().replace('\n', " "));
    }
    let thread = std::thread::current();
    let mut text = format!("\nthread '{}' {panic}\n", thread.name().unwrap_or("?"));
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => text += &format!("stack backtrace:\n{backtrace}"),
        _ => text += "note: run with `RUST_BACKTRACE=1` to see a backtrace\n",
    }
    stderr::print(text.into_bytes());
    // The process may end with it.
    stderr::flush(stderr::IN_A_HURRY);
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
