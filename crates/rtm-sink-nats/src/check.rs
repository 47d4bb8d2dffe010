//! `check --connect`: what would keep records out, found before there are any.

use std::sync::Arc;
use std::time::Duration;

use crate::api::ApiError;
use crate::connection::Shared;
use crate::exact;
use crate::failure::{LinkError, OFF};
use crate::jetstream::{self, Found, Published, TooSmall};

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
    #[error("jetstream is not enabled: {OFF}")]
    Off,
    /// JetStream did not answer, or not in a way that says anything.
    #[error("cannot ask about the jetstream `{jetstream}`")]
    Silent {
        /// Its name.
        jetstream: String,
        /// What came instead.
        source: ApiError,
    },
    /// The JetStream stream does not exist.
    #[error("the jetstream `{jetstream}` does not exist{}; create it, or let the bridge create it", elsewhere(domain.as_deref()))]
    Missing {
        /// Its name.
        jetstream: String,
        /// The JetStream domain of the server, where it has one and no other was asked for.
        domain: Option<String>,
    },
    /// The JetStream stream does not exist, and cannot be created.
    #[error("the jetstream `{jetstream}` does not exist, and cannot be created")]
    NotCreatable {
        /// Its name.
        jetstream: String,
        /// Why.
        source: ApiError,
    },
    /// We may not publish, or nobody takes what is published.
    #[error("cannot publish to {subject}")]
    NotPublishable {
        /// Where to.
        subject: String,
        /// Why.
        source: ApiError,
    },
    /// The JetStream stream takes nothing, or acknowledges nothing.
    #[error("the jetstream `{jetstream}` is {state}: nothing can be confirmed")]
    Unusable {
        /// Its name.
        jetstream: String,
        /// `sealed`, or configured with `no_ack`.
        state: &'static str,
    },
    /// The JetStream stream cannot store records once and only once, or does not tell how far they are.
    #[error("the jetstream `{jetstream}` cannot store records once and only once: {why}")]
    Inexact {
        /// Its name.
        jetstream: String,
        /// Why.
        why: String,
    },
    /// The JetStream stream keeps no record, or not every one that it acknowledges.
    #[error("the jetstream `{jetstream}` can keep no record")]
    TooSmall {
        /// Its name.
        jetstream: String,
        /// Its limit.
        source: TooSmall,
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

/// Where a JetStream stream that is missing may be.
fn elsewhere(domain: Option<&str>) -> String {
    let told = |domain| {
        format!(
            " in the domain `{domain}` of this server; if it is in another one, behind a leaf node, set `domain`"
        )
    };
    domain.map(told).unwrap_or_default()
}

pub(crate) async fn check(
    shared: &Shared,
    subjects: &[&str],
    creates: bool,
) -> Result<NatsCheck, CheckError> {
    let jetstream = shared.options.stream.clone();
    let connection = shared.connection().await.map_err(CheckError::Unreachable)?;
    let config = match jetstream::find(&connection.api, &jetstream).await {
        Found::Here(config) => config,
        Found::Missing => {
            let api = &connection.api;
            if creates {
                let may = api.may_create(&jetstream).await;
                may.map_err(|source| CheckError::NotCreatable {
                    jetstream: jetstream.clone(),
                    source,
                })?;
            }
            let domain = api.domain_of_server().filter(|_| api.is_usual());
            return Err(CheckError::Missing { jetstream, domain });
        }
        Found::Off => return Err(CheckError::Off),
        Found::Silent(source) => return Err(CheckError::Silent { jetstream, source }),
    };
    if config.no_ack || config.sealed {
        let state = if config.sealed {
            "sealed"
        } else {
            "set to no_ack"
        };
        return Err(CheckError::Unusable { jetstream, state });
    }
    if let Some(source) = TooSmall::of(&config) {
        return Err(CheckError::TooSmall { jetstream, source });
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
    if let Some(progress) = &shared.options.progress_subject {
        let checked = exact::check(&connection.api, &config, &jetstream, progress).await;
        checked.map_err(|why| CheckError::Inexact {
            jetstream: jetstream.clone(),
            why,
        })?;
    }
    let named = |subject: &&&str| crate::subject::fault(subject).is_none();
    for subject in subjects.iter().filter(named) {
        let may = connection.api.may_publish(subject).await;
        may.map_err(|source| CheckError::NotPublishable {
            subject: (*subject).to_owned(),
            source,
        })?;
    }
    let info = connection.client.server_info();
    let mut warnings = jetstream::warnings(&config, &shared.options);
    warnings.extend(jetstream::warnings_of_server(&info, &shared.options));
    Ok(NatsCheck {
        warnings,
        published: Published::of(&connection.api, &config, &shared.options),
        server: info.server_name,
        version: info.version,
        subjects: config.subjects,
        duplicate_window: config.duplicate_window,
    })
}
