//! Questions to JetStream's own interface: is the JetStream stream there, does it store these subjects, make it.

use std::fmt;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{CreateStreamError, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode, context::ContextBuilder};
use tokio::time::timeout;

use crate::batch::Batching;
use crate::failure::PublishFailure;
use crate::options::{NatsOptions, StreamSpec};
use crate::subject::covers;

/// A question is a detour of a call that failed, or of a start: it must not take long.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// A duplicate window below this is warned of: a restart with its backlog takes about as long.
const SHORT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// What [`find`] found.
#[derive(Debug)]
pub(crate) enum Found {
    Here(Box<Config>),
    Missing,
    /// JetStream is off, for the server or for the account.
    Off,
    /// No answer, or none that says anything. We may not be allowed to ask.
    Silent(String),
}

/// Looks for the JetStream stream.
pub(crate) async fn find(client: &Client, name: &str) -> Found {
    let question = async {
        let answer: Result<Response<Info>, _> = context(client)
            .request(format!("STREAM.INFO.{name}"), &())
            .await;
        answer
    };
    // The library's own timeout begins once the question is queued, and the queue may be full.
    let Ok(answer) = timeout(QUESTION_TIMEOUT, question).await else {
        return Found::Silent("no answer".to_owned());
    };
    match answer {
        Ok(Response::Ok(info)) => Found::Here(Box::new(info.config)),
        Ok(Response::Err { error }) => match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => Found::Missing,
            ErrorCode::JETSTREAM_NOT_ENABLED
            | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            | ErrorCode::NO_ACCOUNT => Found::Off,
            _ => Found::Silent(error.to_string()),
        },
        // No server answers for JetStream's interface. In a cluster that may pass; a server alone knows what it is.
        Err(error)
            if error.kind() == RequestErrorKind::NoResponders
                && !client.server_info().jetstream =>
        {
            Found::Off
        }
        Err(error) => Found::Silent(error.to_string()),
    }
}

/// Makes the JetStream stream where the options say so and it is missing, before anything is published.
pub(crate) async fn create_if_missing(client: &Client, options: &NatsOptions) {
    let Some(spec) = &options.create_stream else {
        return;
    };
    if let Found::Missing = find(client, &options.stream).await {
        match create(client, options, spec).await {
            Ok(()) => tracing::info!(jetstream = options.stream, "created the jetstream"),
            Err(error) => {
                tracing::error!(jetstream = options.stream, %error, "cannot create the jetstream");
            }
        }
    }
}

/// Tells the log what will keep every record out; calls find that out by themselves. Turns batches off where the
/// JetStream stream does not take them.
pub(crate) async fn verify(client: &Client, batching: &Batching, options: &NatsOptions) {
    let jetstream = &options.stream;
    match find(client, jetstream).await {
        Found::Here(config) if config.no_ack => {
            tracing::error!(
                jetstream,
                "the jetstream acknowledges nothing (no_ack): nothing can be confirmed"
            );
        }
        Found::Here(config) => {
            if !config.allow_atomic_publish {
                batching.disable();
            }
            tracing::info!(
                jetstream,
                published = Published::of(client, &config, options).to_string(),
                subjects = ?config.subjects,
                duplicate_window_seconds = config.duplicate_window.as_secs(),
                "the jetstream is there"
            );
            for warning in warnings(&config) {
                tracing::warn!(jetstream, "{warning}");
            }
        }
        Found::Missing => tracing::error!(jetstream, "the jetstream does not exist"),
        Found::Off => tracing::error!("jetstream is not enabled"),
        Found::Silent(said) => tracing::warn!(jetstream, said, "cannot ask about the jetstream"),
    }
}

/// How records are published, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// In atomic batches, a page at a time.
    Batches,
    /// Each for itself, because the options say so.
    SinglyByChoice,
    /// Each for itself, because the server is older than 2.12.
    SinglyByServer,
    /// Each for itself, because the JetStream stream does not allow batches.
    SinglyByJetstream,
}

impl Published {
    pub(crate) fn of(client: &Client, config: &Config, options: &NatsOptions) -> Published {
        if !options.atomic_batches {
            Published::SinglyByChoice
        } else if !knows_batches(client) {
            Published::SinglyByServer
        } else if !config.allow_atomic_publish {
            Published::SinglyByJetstream
        } else {
            Published::Batches
        }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Published::Batches => "in atomic batches",
            Published::SinglyByChoice => "singly: atomic batches are off",
            Published::SinglyByServer => {
                "singly: the server is older than 2.12, which has atomic batches"
            }
            Published::SinglyByJetstream => "singly: its allow_atomic is not set",
        })
    }
}

/// Whether the server has atomic batches (2.12 and later).
pub(crate) fn knows_batches(client: &Client) -> bool {
    client.is_server_compatible(2, 12, 0)
}

/// What the JetStream stream's settings lose or repeat without anybody being told, since everything is acknowledged.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let limits = [
        ("max_bytes", config.max_bytes),
        ("max_msgs", config.max_messages),
        ("max_msgs_per_subject", config.max_messages_per_subject),
    ];
    let limits = limits.iter().filter(|(_, limit)| *limit > 0);
    let limits: Vec<&str> = limits.map(|(name, _)| *name).collect();
    if config.discard == DiscardPolicy::Old && !limits.is_empty() {
        warnings.push(format!(
            "past its limit ({}) it drops its oldest messages, read or not (discard: old)",
            limits.join(", ")
        ));
    }
    if config.retention == RetentionPolicy::Interest {
        warnings.push(
            "what comes while it has no consumer is dropped (retention: interest)".to_owned(),
        );
    }
    if config.storage == StorageType::Memory {
        warnings.push("a restart of the server empties it (storage: memory)".to_owned());
    }
    if config.duplicate_window < SHORT_DUPLICATE_WINDOW {
        warnings.push(format!(
            "what is published again more than {} ms later is stored twice (duplicate_window)",
            config.duplicate_window.as_millis()
        ));
    }
    warnings
}

/// Finds out why records for `subject` got no acknowledgement, and mends it where that is a missing JetStream stream
/// that may be created.
///
/// `fallback` is what to believe when the JetStream stream looks right: then it is not running just now.
pub(crate) async fn diagnose(
    client: &Client,
    options: &NatsOptions,
    subject: Option<&str>,
    fallback: PublishFailure,
) -> PublishFailure {
    let name = &options.stream;
    match find(client, name).await {
        Found::Here(config) if config.no_ack => PublishFailure::Unacknowledged(name.clone()),
        Found::Here(config) => match subject.filter(|subject| !is_stored(&config, subject)) {
            Some(subject) => PublishFailure::Unbound {
                jetstream: name.clone(),
                subject: subject.to_owned(),
            },
            None => fallback,
        },
        Found::Off => PublishFailure::Off,
        Found::Silent(_) => fallback,
        Found::Missing => match &options.create_stream {
            None => PublishFailure::Missing {
                jetstream: name.clone(),
                source: None,
            },
            Some(spec) => match create(client, options, spec).await {
                // The records are published again by the caller, and find the new JetStream stream.
                Ok(()) => fallback,
                Err(source) => PublishFailure::Missing {
                    jetstream: name.clone(),
                    source: Some(source),
                },
            },
        },
    }
}

/// Whether one of the JetStream stream's filters stores every subject that `subject` stands for.
pub(crate) fn is_stored(config: &Config, subject: &str) -> bool {
    config.subjects.iter().any(|filter| covers(filter, subject))
}

async fn create(
    client: &Client,
    options: &NatsOptions,
    spec: &StreamSpec,
) -> Result<(), CreateStreamError> {
    let config = Config {
        name: options.stream.clone(),
        subjects: spec.subjects.clone(),
        max_bytes: spec
            .max_bytes
            .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        max_age: spec.max_age.unwrap_or_default(),
        num_replicas: spec.replicas,
        duplicate_window: spec.duplicate_window,
        // `DiscardPolicy::New` would refuse new records, and hold the bridge up for old ones that no consumer has read.
        discard: DiscardPolicy::Old,
        allow_atomic_publish: options.atomic_batches && knows_batches(client),
        ..Config::default()
    };
    context(client).create_stream(config).await.map(|_| ())
}

fn context(client: &Client) -> Context {
    ContextBuilder::new()
        .timeout(QUESTION_TIMEOUT)
        .build(client.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: each setting that loses or repeats records in silence is named, and the usual ones are not.
    #[test]
    fn silent_losses_are_named() {
        let usual = || Config {
            duplicate_window: SHORT_DUPLICATE_WINDOW,
            ..Config::default()
        };
        let warned = |config: &Config| warnings(config).join("\n");
        assert_eq!(warned(&usual()), "");
        let full = |discard| Config {
            max_bytes: 1,
            max_messages_per_subject: 1,
            discard,
            ..usual()
        };
        assert!(warned(&full(DiscardPolicy::Old)).contains("(max_bytes, max_msgs_per_subject)"));
        assert_eq!(warned(&full(DiscardPolicy::New)), "");
        let interest = Config {
            retention: RetentionPolicy::Interest,
            ..usual()
        };
        assert!(warned(&interest).contains("retention: interest"));
        let memory = Config {
            storage: StorageType::Memory,
            ..usual()
        };
        assert!(warned(&memory).contains("storage: memory"));
        let short = Config {
            duplicate_window: Duration::from_millis(100),
            ..usual()
        };
        assert!(warned(&short).contains("more than 100 ms later"));
    }
}
