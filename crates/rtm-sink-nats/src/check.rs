//! `check --connect`: what would keep records out, found before there are any.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::Shared;
use crate::failure::LinkError;
use crate::jetstream::{self, Found, Published};

/// What [`check`](crate::NatsSink::check) found, when nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsCheck {
    /// The server's name.
    pub server: String,
    /// The server's version.
    pub version: String,
    /// The filters of the JetStream stream.
    pub subjects: Vec<String>,
    /// How long the JetStream stream remembers record ids.
    pub duplicate_window: Duration,
    /// How records will be published.
    pub published: Published,
    /// What its settings lose or repeat without anybody being told, a sentence each.
    pub warnings: Vec<String>,
}

/// What would keep records out.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No server answered, or none accepted us.
    #[error("cannot connect to nats")]
    Unreachable(#[source] Option<Arc<LinkError>>),
    /// JetStream is off, for the server or for the account.
    #[error("jetstream is not enabled")]
    Off,
    /// JetStream did not answer, or not in a way that says anything.
    #[error("cannot ask about the jetstream `{jetstream}`: {said}")]
    Silent {
        /// Its name.
        jetstream: String,
        /// What came instead.
        said: String,
    },
    /// The JetStream stream does not exist.
    #[error("the jetstream `{0}` does not exist; create it, or let the bridge create it")]
    Missing(String),
    /// The JetStream stream takes nothing, or acknowledges nothing.
    #[error("the jetstream `{jetstream}` is {state}: nothing can be confirmed")]
    Unusable {
        /// Its name.
        jetstream: String,
        /// `sealed`, or configured with `no_ack`.
        state: &'static str,
    },
    /// None of the JetStream stream's filters stores these subjects.
    #[error("the jetstream `{jetstream}` stores {}, which leaves out {}", filters.join(" "), subjects.join(" "))]
    Unbound {
        /// Its name.
        jetstream: String,
        /// Its filters.
        filters: Vec<String>,
        /// What they leave out.
        subjects: Vec<String>,
    },
}

pub(crate) async fn check(shared: &Shared, subjects: &[&str]) -> Result<NatsCheck, CheckError> {
    let jetstream = shared.options.stream.clone();
    let connection = shared.connection().await.map_err(CheckError::Unreachable)?;
    let config = match jetstream::find(&connection.client, &jetstream).await {
        Found::Here(config) => config,
        Found::Missing => return Err(CheckError::Missing(jetstream)),
        Found::Off => return Err(CheckError::Off),
        Found::Silent(said) => return Err(CheckError::Silent { jetstream, said }),
    };
    if config.no_ack || config.sealed {
        let state = if config.sealed {
            "sealed"
        } else {
            "set to no_ack"
        };
        return Err(CheckError::Unusable { jetstream, state });
    }
    let unbound = |subject: &&&str| !jetstream::is_stored(&config, &crate::widen(subject));
    let unbound: Vec<String> = subjects
        .iter()
        .filter(unbound)
        .map(|subject| (*subject).to_owned())
        .collect();
    if !unbound.is_empty() {
        return Err(CheckError::Unbound {
            jetstream,
            filters: config.subjects,
            subjects: unbound,
        });
    }
    let info = connection.client.server_info();
    Ok(NatsCheck {
        warnings: jetstream::warnings(&config),
        published: Published::of(&connection.client, &config, &shared.options),
        server: info.server_name,
        version: info.version,
        subjects: config.subjects,
        duplicate_window: config.duplicate_window,
    })
}
