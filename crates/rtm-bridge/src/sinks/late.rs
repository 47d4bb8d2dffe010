//! A sink that cannot begin yet, since something is missing that may come without anybody changing the configuration: a
//! directory, a mount, a file of credentials. It is down until then, and everything else goes on.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use rtm_sink::{
    AnySink, ExactLimits, Ground, Health, Progress, ProgressKey, PublishError, PublishErrorKind,
    Record, Sink,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::kind::{Kind, Purpose};
use crate::attempt::Attempt;
use crate::fields::problem::may_come;
use crate::lock;

/// How long after a failed attempt the next one follows: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How long the bridge waits for a client to be made, which opens files and asks no broker. What takes longer hangs, and all
/// else would wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said of a client whose making hangs.
const SILENT: &str = "a file or a directory that it needs does not answer";

/// The client of a table, or one that waits for what that needs.
pub(super) async fn open(
    table: &Arc<dyn Kind>,
    name: &str,
    places: &[String],
) -> anyhow::Result<AnySink> {
    let opening = Opening::default();
    let said = match opening.wait(PATIENCE, || begin(table, name, places)).await {
        Some(Ok(Ok(client))) => return Ok(client),
        Some(Ok(Err(error))) if may_come(error.as_ref()) => crate::chain(error.as_ref()),
        Some(Ok(Err(error))) => return Err(error),
        Some(Err(panicked)) => return Err(panicked.into()),
        None => SILENT.to_owned(),
    };
    warn!(
        sink = name,
        error = said,
        "the sink cannot begin: it is down, and tried again until it can"
    );
    let state = Arc::new(State {
        made: OnceLock::new(),
        said: Mutex::new(said),
    });
    let trying = {
        let (state, table) = (Arc::clone(&state), Arc::clone(table));
        let (name, places) = (name.to_owned(), places.to_vec());
        tokio::spawn(async move {
            state.try_until_made(&opening, &table, &name, &places).await;
        })
    };
    Ok(AnySink::new(Arc::new(LateSink {
        state,
        exact: table.exact(),
        trying: Mutex::new(Some(trying)),
    })))
}

/// The client that is being made. It is a task, which a table that hangs does not hold up others with.
type Opening = Attempt<anyhow::Result<AnySink>>;

fn begin(
    table: &Arc<dyn Kind>,
    name: &str,
    places: &[String],
) -> JoinHandle<anyhow::Result<AnySink>> {
    let (table, name, places) = (Arc::clone(table), name.to_owned(), places.to_vec());
    tokio::spawn(async move { table.open(&name, &places, Purpose::Bridge).await })
}

/// See the module.
struct LateSink {
    state: Arc<State>,
    /// What the client will say of itself.
    exact: Option<ExactLimits>,
    trying: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    made: OnceLock<AnySink>,
    /// Why it is not made yet.
    said: Mutex<String>,
}

impl State {
    async fn try_until_made(
        &self,
        opening: &Opening,
        table: &Arc<dyn Kind>,
        name: &str,
        places: &[String],
    ) {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(AGAIN.0)
            .with_max_delay(AGAIN.1)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            tokio::time::sleep(waits.next().unwrap_or(AGAIN.1)).await;
            let said = match opening.wait(PATIENCE, || begin(table, name, places)).await {
                Some(Ok(Ok(client))) => {
                    info!(sink = name, "what was missing is there: the sink begins");
                    // Nobody else makes one.
                    let _ = self.made.set(client);
                    return;
                }
                Some(Ok(Err(error))) => crate::chain(error.as_ref()),
                Some(Err(panicked)) => crate::chain(&panicked),
                None => SILENT.to_owned(),
            };
            *lock(&self.said) = said;
        }
    }
}

impl LateSink {
    fn not_made(&self, records: usize) -> PublishError {
        let said = lock(&self.state.said).clone();
        PublishError::unknown(PublishErrorKind::Unavailable, records, said)
    }
}

impl Sink for LateSink {
    async fn publish(&self, records: &[Record]) -> Result<(), PublishError> {
        if let Some(client) = self.state.made.get() {
            return client.publish(records).await;
        }
        if records.is_empty() {
            return Ok(());
        }
        Err(self.not_made(records.len()))
    }

    fn exact(&self) -> Option<ExactLimits> {
        self.exact
    }

    async fn publish_exactly(
        &self,
        records: &[Record],
        progress: &Progress,
    ) -> Result<(), PublishError> {
        match self.state.made.get() {
            Some(client) => client.publish_exactly(records, progress).await,
            None => Err(self.not_made(records.len())),
        }
    }

    async fn recall(&self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        match self.state.made.get() {
            Some(client) => client.recall(key).await,
            None => Err(self.not_made(0)),
        }
    }

    fn ground(&self) -> Option<watch::Receiver<Ground>> {
        self.state.made.get().and_then(Sink::ground)
    }

    async fn torn(&self) -> Result<Vec<Bytes>, PublishError> {
        match self.state.made.get() {
            Some(client) => client.torn().await,
            None => Err(self.not_made(0)),
        }
    }

    fn health(&self) -> Health {
        match self.state.made.get() {
            Some(client) => client.health(),
            None => Health {
                up: false,
                begun: false,
                said: Some(lock(&self.state.said).clone()),
                ..Health::default()
            },
        }
    }

    async fn close(&self) {
        let trying = lock(&self.trying).take();
        if let Some(trying) = trying {
            trying.abort();
            // It was aborted, or had ended.
            let _ = trying.await;
        }
        if let Some(client) = self.state.made.get() {
            client.close().await;
        }
    }
}

impl Drop for LateSink {
    fn drop(&mut self) {
        if let Some(trying) = lock(&self.trying).take() {
            trying.abort();
        }
    }
}

#[cfg(test)]
mod tests;
