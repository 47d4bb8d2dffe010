//! The bridge, from a configuration until it is stopped.

use std::sync::Arc;

use rtm_engine::plan::Plans;
use rtm_engine::status::State;
use rtm_engine::status::metrics::Metrics;
use rtm_engine::supervisor;
use rtm_journal::Journal;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Config;
use crate::reload::{self, Watch};
use crate::wire::{self, Wire};

/// A journal that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the journal in {dir}")]
pub(crate) struct JournalError {
    dir: String,
    source: rtm_journal::OpenError,
}

/// Runs the bridge as `config` says, until `stop`. With `watch` the configuration is read again when it changes: see
/// [`crate::reload`]. `started` is given the state once everything runs.
pub(crate) async fn run(
    config: &Config,
    watch: Option<Watch>,
    started: impl FnOnce(Arc<State>),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), crate::COMMIT));
    wire::tell(&metrics, config);
    let journal = journal(config, &metrics)?;
    let (planner, plans) = Plans::channel();
    let plan = wire::plan(config)?;
    tokio::select! {
        ended = supervisor::run(Wire::default(), journal, Arc::clone(&metrics), plan, plans, started, stop) => ended?,
        () = reload::follow(watch, config, &planner, &metrics) => {}
    }
    Ok(())
}

fn journal(config: &Config, metrics: &Arc<Metrics>) -> Result<Journal, JournalError> {
    let observer = Arc::clone(metrics);
    let options = rtm_journal::Options {
        lanes_expected: config.apps.len(),
        on_sync: Some(Arc::new(move |took| observer.journal_committed(took))),
        ..config.journal.bounds()
    };
    let dir = &config.journal.dir;
    let journal = Journal::open(dir, options).map_err(|source| JournalError {
        dir: dir.display().to_string(),
        source,
    })?;
    info!(dir = %dir.display(), clean = !journal.unclean(), "the journal is open");
    Ok(journal)
}
