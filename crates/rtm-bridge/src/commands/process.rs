//! What every command's process needs: a runtime, signals, questions, and what a wrong usage is.

use std::io::{BufRead, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{Span, SpanRelativeTo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Wrong usage or configuration: trying again without changing something cannot help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// The error of a command that is asked for what cannot be.
pub(super) fn refuse(why: impl std::fmt::Display) -> anyhow::Error {
    Refused(why.to_string()).into()
}

/// Whether standard input, a terminal or a pipe, answers a question with yes.
pub(super) fn confirmed(question: &str) -> std::io::Result<bool> {
    eprint!("{question} Type yes: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// A number and its noun, such as `1 entry` and `2 entries`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A duration with a unit, as in configuration files; days and weeks too, of 24 hours each.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|signed| Duration::try_from(signed).ok())
        .ok_or_else(|| "expected a duration with a unit, such as 30s, 2h or 10d".to_owned())
}

/// A view that is drawn again and again; hidden where its target is no terminal.
pub(super) fn live_view(target: ProgressDrawTarget, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(None, target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A runtime with all of tokio's drivers.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}

/// App IDs that one of the runtime's threads serves. Each costs it a few milliseconds a second.
const APPS_PER_WORKER: usize = 32;

/// A runtime for a bridge of so many App IDs. With few of them it is the calling thread: a second one finds nothing to do,
/// and is woken for nothing again and again. Brokers and the journal have threads of their own.
pub(super) fn runtime_for(apps: usize) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = apps.div_ceil(APPS_PER_WORKER).min(cores);
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    }
}

/// Lets the process open as many files as it may: journal, brokers and Agora need some for each App ID, and a soft limit of
/// 1,024 is a habit, for programs that call select(2).
pub(super) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit != raised
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        debug!(%error, "the limit of descriptors stays as it is");
    }
}

/// Calls `each` at every SIGTERM and SIGINT, with the signal's number.
pub(super) fn on_signals(mut each: impl FnMut(i32) + Send + 'static) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            let kind = tokio::select! {
                _ = terminate.recv() => SignalKind::terminate(),
                _ = interrupt.recv() => SignalKind::interrupt(),
            };
            each(kind.as_raw_value());
        }
    });
    Ok(())
}

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    on_signals(move |_| cancel.cancel())?;
    Ok(stop)
}
