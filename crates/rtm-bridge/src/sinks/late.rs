//! A sink that cannot begin yet, since something is missing that may come without anybody changing the configuration: a
//! directory, a mount, a file of credentials. It is down until then, and everything else goes on.

use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use rtm_sink::{AnySink, Health, PublishError, PublishErrorKind, Record, Sink};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::kind::Kind;
use crate::lock;

/// How long after a failed attempt the next one follows: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// The client of a table, or one that waits for what that needs.
pub(super) async fn open(
    table: &Arc<dyn Kind>,
    name: &str,
    places: &[String],
) -> anyhow::Result<AnySink> {
    let error = match table.open(name, places, false).await {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    if !may_come(&error, table) {
        return Err(error);
    }
    let said = crate::chain(error.as_ref());
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
        tokio::spawn(async move { state.try_until_made(&table, &name, &places).await })
    };
    Ok(AnySink::new(Arc::new(LateSink {
        state,
        trying: Mutex::new(Some(trying)),
    })))
}

/// Whether the error is of what may be there later.
fn may_come(error: &anyhow::Error, table: &Arc<dyn Kind>) -> bool {
    let lacks = |file: &&std::path::Path| File::open(file).is_err();
    error.chain().any(|cause| cause.is::<std::io::Error>()) || table.files().iter().any(lacks)
}

/// See the module.
struct LateSink {
    state: Arc<State>,
    trying: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    made: OnceLock<AnySink>,
    /// Why it is not made yet.
    said: Mutex<String>,
}

impl State {
    async fn try_until_made(&self, table: &Arc<dyn Kind>, name: &str, places: &[String]) {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(AGAIN.0)
            .with_max_delay(AGAIN.1)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            tokio::time::sleep(waits.next().unwrap_or(AGAIN.1)).await;
            match table.open(name, places, false).await {
                Ok(client) => {
                    info!(sink = name, "what was missing is there: the sink begins");
                    // Nobody else makes one.
                    let _ = self.made.set(client);
                    return;
                }
                Err(error) => *lock(&self.said) = crate::chain(error.as_ref()),
            }
        }
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
        let (kind, said) = (
            PublishErrorKind::Unavailable,
            lock(&self.state.said).clone(),
        );
        Err(PublishError::unknown(kind, records.len(), said))
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
