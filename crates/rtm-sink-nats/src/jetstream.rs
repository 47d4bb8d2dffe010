//! Questions to JetStream's own interface: is the JetStream stream there, does it store these subjects, make it.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use async_nats::ServerInfo;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use tokio::time::sleep;

use crate::api::{Api, ApiError};
use crate::batch::Batching;
use crate::failure::{OFF, PublishFailure};
use crate::ground::{End, Lookout};
use crate::options::{NatsOptions, StreamSpec};
use crate::subject::covers;

/// A duplicate window below this is warned of: a restart with its backlog takes about as long.
const SHORT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A record of any legal event is smaller, with room to spare: ids of 64 characters, and what else Agora documents.
pub const LARGE_RECORD: usize = 64 << 10;

/// Not even a dead letter without bytes is sure to fit into less: a document of some 300 bytes, with its headers.
const SMALLEST_RECORD: usize = 512;

/// What a record of an event takes, with its headers: 300 to 700 bytes.
const USUAL_RECORD: u64 = 700;

/// A JetStream stream that lets go of messages sooner than this is warned of: a consumer is away for longer.
const SHORT_MAX_AGE: Duration = Duration::from_secs(3600);

/// How often the JetStream stream is looked at again: it may be edited while we are connected.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What [`find`] found.
#[derive(Debug)]
pub(crate) enum Found {
    Here(Box<Config>),
    Missing,
    /// JetStream is off, for the server or for the account.
    Off,
    /// No answer, or none that says anything.
    Silent(ApiError),
}

impl Found {
    /// Whether it says the same. The metadata of a stream is a map, which shows in another order each time.
    fn is_like(&self, other: &Found) -> bool {
        match (self, other) {
            (Found::Here(one), Found::Here(other)) => one == other,
            (one, other) => format!("{one:?}") == format!("{other:?}"),
        }
    }
}

/// Looks for the JetStream stream.
pub(crate) async fn find(api: &Api, name: &str) -> Found {
    find_end(api, name).await.0
}

/// Looks for the JetStream stream and how far it reaches, and tells the lookout.
pub(crate) async fn look(
    api: &Api,
    options: &NatsOptions,
    lookout: Option<&Lookout>,
) -> (Found, Option<End>) {
    let since = lookout.map(Lookout::ground);
    let (found, end) = find_end(api, &options.stream).await;
    match (lookout.zip(since), end, &found) {
        (Some((lookout, since)), Some(end), _) => lookout.look(since, end),
        // A permission that is given later makes another connection.
        (Some((lookout, _)), None, Found::Silent(ApiError::Denied(_))) => lookout.is_untold(),
        _ => {}
    }
    (found, end)
}

async fn find_end(api: &Api, name: &str) -> (Found, Option<End>) {
    let asked = api.ask::<Info>(&format!("STREAM.INFO.{name}"), &()).await;
    let end = asked.as_ref().ok().map(End::of);
    (found(api, asked), end)
}

fn found(api: &Api, asked: Result<Info, ApiError>) -> Found {
    match asked {
        Ok(info) => Found::Here(Box::new(info.config)),
        Err(ApiError::Refused(error)) => match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => Found::Missing,
            ErrorCode::JETSTREAM_NOT_ENABLED
            | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            | ErrorCode::NO_ACCOUNT => Found::Off,
            _ => Found::Silent(ApiError::Refused(error)),
        },
        // No server answers for JetStream's interface. In a cluster that may pass; a server alone knows what it is.
        Err(ApiError::NoResponders(_)) if !api.is_at_server() && api.is_usual() => Found::Off,
        Err(error) => Found::Silent(error),
    }
}

/// Makes the JetStream stream where the options say so and it is missing, before anything is published.
pub(crate) async fn create_if_missing(api: &Api, options: &NatsOptions) {
    let Some(spec) = &options.create_stream else {
        return;
    };
    if let Found::Missing = find(api, &options.stream).await {
        match create(api, options, spec).await {
            Ok(()) => tracing::info!(jetstream = options.stream, "created the jetstream"),
            Err(error) => {
                tracing::error!(jetstream = options.stream, %error, "cannot create the jetstream");
            }
        }
    }
}

/// Looks at the JetStream stream for as long as the connection lasts, and tells the log what is news of it. Calls find
/// out by themselves what keeps every record out. Atomic batches go on and off with its `allow_atomic`.
pub(crate) async fn watch(
    api: &Api,
    batching: &Batching,
    options: &NatsOptions,
    lookout: Option<&Lookout>,
) -> Infallible {
    let mut told: Option<Found> = None;
    loop {
        let (found, _) = look(api, options, lookout).await;
        if let Found::Here(config) = &found {
            batching.allow(config.allow_atomic_publish);
        }
        if !told.as_ref().is_some_and(|told| told.is_like(&found)) {
            tell(api, &found, options);
        }
        if let Found::Silent(ApiError::Denied(_)) = found {
            // A permission that is given later makes another connection.
            std::future::pending::<()>().await;
        }
        told = Some(found);
        sleep(LOOK_AGAIN).await;
    }
}

fn tell(api: &Api, found: &Found, options: &NatsOptions) {
    let jetstream = &options.stream;
    match found {
        Found::Here(config) if config.no_ack => {
            tracing::error!(
                jetstream,
                "the jetstream acknowledges nothing (no_ack): nothing can be confirmed"
            );
        }
        Found::Here(config) => {
            tracing::info!(
                jetstream,
                published = Published::of(api, config, options).to_string(),
                subjects = ?config.subjects,
                duplicate_window_seconds = config.duplicate_window.as_secs(),
                "the jetstream is there"
            );
            if let Some(error) = TooSmall::of(config) {
                tracing::error!(jetstream, "the jetstream can keep no record: {error}");
            }
            for warning in warnings(config, options) {
                tracing::warn!(jetstream, "{warning}");
            }
        }
        Found::Missing => {
            let domain = api.domain_of_server();
            tracing::error!(jetstream, domain, "the jetstream does not exist");
        }
        Found::Off => tracing::error!("jetstream is not enabled: {OFF}"),
        Found::Silent(error) => {
            tracing::warn!(jetstream, %error, "cannot ask about the jetstream; the server says of each record whether it is stored");
        }
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
    pub(crate) fn of(api: &Api, config: &Config, options: &NatsOptions) -> Published {
        if !options.atomic_batches {
            Published::SinglyByChoice
        } else if !api.knows_batches() {
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

/// A limit into which no record fits, or no large one of those that are always to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its {limit} is {bytes} bytes, and {needed} bytes is the least that can be")]
pub struct TooSmall {
    limit: &'static str,
    bytes: usize,
    needed: usize,
}

impl TooSmall {
    /// Of a JetStream stream as a whole more is asked than of a message: one that drops what it cannot hold acknowledges
    /// it before.
    pub(crate) fn of(config: &Config) -> Option<TooSmall> {
        let limits = [
            (
                "max_msg_size",
                config.max_message_size.into(),
                SMALLEST_RECORD,
            ),
            ("max_bytes", config.max_bytes, LARGE_RECORD),
        ];
        limits.into_iter().find_map(|(limit, bytes, needed)| {
            let bytes = usize::try_from(bytes).ok()?;
            (1..needed).contains(&bytes).then_some(TooSmall {
                limit,
                bytes,
                needed,
            })
        })
    }
}

/// What the JetStream stream's settings lose or repeat without anybody being told, since everything is acknowledged.
pub(crate) fn warnings(config: &Config, options: &NatsOptions) -> Vec<String> {
    let mut warnings = Vec::new();
    let of_bytes = |bytes: u64| format!("max_bytes: some {} records", bytes / USUAL_RECORD);
    let of_records = |records: u64| format!("max_msgs: {records} records");
    let mut limits: Vec<String> = Vec::new();
    limits.extend(positive(config.max_bytes).map(of_bytes));
    limits.extend(positive(config.max_messages).map(of_records));
    let by_subject = config.max_messages_per_subject > 0;
    match config.discard {
        // The bound of each subject drops what is old, unless it is told not to.
        DiscardPolicy::Old if by_subject => limits.push("max_msgs_per_subject".to_owned()),
        DiscardPolicy::New if by_subject && !config.discard_new_per_subject => warnings.push(
            "past its limit (max_msgs_per_subject) it drops the oldest messages of a subject, read or not".to_owned(),
        ),
        DiscardPolicy::New if by_subject => warnings.push(
            "a subject with max_msgs_per_subject messages takes no more (discard_new_per_subject): one subject that is \
             full holds up all events of its App ID"
                .to_owned(),
        ),
        DiscardPolicy::Old | DiscardPolicy::New => (),
    }
    if config.discard == DiscardPolicy::Old && !limits.is_empty() {
        warnings.push(format!(
            "past its limit ({}) it drops its oldest messages, read or not (discard: old)",
            limits.join(", ")
        ));
    }
    if !config.max_age.is_zero() && config.max_age < SHORT_MAX_AGE {
        warnings.push(format!(
            "what is older than {:?} is dropped, read or not (max_age)",
            config.max_age
        ));
    }
    let largest = usize::try_from(config.max_message_size).unwrap_or(0);
    if (SMALLEST_RECORD..LARGE_RECORD).contains(&largest) {
        warnings.push(too_small("max_msg_size", largest));
    }
    if config.retention == RetentionPolicy::Interest {
        warnings.push(
            "what comes while it has no consumer is dropped (retention: interest)".to_owned(),
        );
    }
    if config.storage == StorageType::Memory {
        warnings.push("a restart of the server empties it (storage: memory)".to_owned());
    }
    // What is stored once and only once does not go by it.
    let counts = options.progress_subject.is_none();
    if counts && config.duplicate_window < SHORT_DUPLICATE_WINDOW {
        warnings.push(format!(
            "what is published again more than {} ms later is stored twice (duplicate_window)",
            config.duplicate_window.as_millis()
        ));
    }
    warnings
}

fn positive(limit: i64) -> Option<u64> {
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

/// What a server's settings mean for records, as [`warnings`] says of the JetStream stream's.
pub(crate) fn warnings_of_server(info: &ServerInfo, options: &NatsOptions) -> Vec<String> {
    let mut warnings = Vec::new();
    if info.max_payload < LARGE_RECORD {
        warnings.push(too_small("the server's max_payload", info.max_payload));
    }
    if options.expect_stream && is_older(&info.version, (2, 11, 5)) {
        warnings.push(format!(
            "the server is of version {}: before 2.11.5 the mirrors of a JetStream stream stay empty while records \
             demand it; if it has mirrors, set `expect_stream = false`",
            info.version
        ));
    }
    warnings
}

fn too_small(limit: &str, bytes: usize) -> String {
    format!(
        "{limit} is {bytes} bytes: a larger record becomes a dead letter that is cut to fit; {LARGE_RECORD} bytes hold \
         every event that Agora documents"
    )
}

/// Whether a server's version, such as `2.10.4` or `2.12.0-RC.1`, is before another.
pub(crate) fn is_older(version: &str, than: (u64, u64, u64)) -> bool {
    let number = |text: &str| {
        let digits = text.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse::<u64>().ok())
    };
    let mut parts = version.trim_start_matches('v').splitn(3, '.').map(number);
    let mut next = || parts.next().flatten();
    match (next(), next(), next()) {
        (Some(major), Some(minor), Some(patch)) => (major, minor, patch) < than,
        // Nobody knows.
        _ => false,
    }
}

/// Finds out why records for `subject` got no acknowledgement, and mends it where that is a missing JetStream stream
/// that may be created.
///
/// `fallback` is what to believe when the JetStream stream looks right: then it is not running just now.
pub(crate) async fn diagnose(
    api: &Api,
    options: &NatsOptions,
    subject: Option<&str>,
    fallback: PublishFailure,
) -> PublishFailure {
    let name = &options.stream;
    match find(api, name).await {
        Found::Here(config) if config.no_ack => PublishFailure::Unacknowledged(name.clone()),
        Found::Here(config) => match subject.filter(|subject| !is_stored(&config, subject)) {
            Some(subject) => PublishFailure::Unbound {
                jetstream: name.clone(),
                subject: subject.to_owned(),
            },
            None => fallback,
        },
        Found::Off => PublishFailure::Off,
        Found::Silent(error) => match fallback {
            PublishFailure::NotServing(_) => PublishFailure::NotServing(Some(error)),
            fallback => fallback,
        },
        Found::Missing => match &options.create_stream {
            None => PublishFailure::Missing {
                jetstream: name.clone(),
                source: None,
            },
            Some(spec) => match create(api, options, spec).await {
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

async fn create(api: &Api, options: &NatsOptions, spec: &StreamSpec) -> Result<(), ApiError> {
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
        allow_atomic_publish: options.atomic_batches && api.knows_batches(),
        // One progress of each lane is enough.
        allow_rollup: options.progress_subject.is_some(),
        ..Config::default()
    };
    let subject = format!("STREAM.CREATE.{}", options.stream);
    api.ask::<Info>(&subject, &config).await.map(drop)
}

#[cfg(test)]
mod tests;
