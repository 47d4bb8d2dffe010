//! A change to a journal that no bridge has open.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rtm_journal::{Journal, Options};

use crate::commands::process::runtime;

/// How long the journal may take to store it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the journal, which fails and says so if a bridge runs, and makes the change.
pub(super) fn change<T>(
    dir: &Path,
    options: Options,
    make: impl AsyncFnOnce(&Journal) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let journal = Journal::open(dir, options)?;
    runtime()?.block_on(async {
        let made = make(&journal).await?;
        // After a crash the next start counts what may be lost: it must still see that there was one.
        if !journal.unclean() {
            journal.close().await?;
        }
        Ok(made)
    })
}

/// Waits until the journal has stored it.
pub(super) async fn stored<T>(storing: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, storing)
        .await
        .context("the journal cannot be written; is the disk full?")
}
