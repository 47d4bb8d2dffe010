//! Records that are stored once and only once: atomic batches that end in the progress of each lane.
//!
//! Each progress is the newest message of a subject of its own, and demands to be the one that follows the progress that
//! this client knows (`Nats-Expected-Last-Subject-Sequence`). One stale demand refuses the whole batch. So a batch that is
//! late, of this process or of another, is never stored behind our back: it either stands in what a recall reads, or is
//! refused, or makes our next batch be refused. Reading alone would prove nothing: a server may still hold a batch of a client
//! that is gone.
//!
//! No record has an id for the server's deduplication, unless the options say so: the demand does more, and costs the server
//! no memory. With ids a batch is refused that holds a record which the server knows, though the progress does not, as after
//! another kind of delivery. Then the caller recalls, and gives fewer records, until that one is alone: of it the progress is
//! stored, and it is not.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rtm_sink::{
    Commit, ExactLimits, Outcome, Progress, ProgressKey, PublishError, PublishErrorKind, Reason,
    Record, RecordId, Timestamp, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::api::{Api, ApiError};
use crate::batch::{Demands, MAX_BYTES, MAX_RECORDS};
use crate::connection::{Connection, Shared};
use crate::failure::PublishFailure;
use crate::headers::{PROGRESS, parse_name};
use crate::jetstream::{self, Found};
use crate::publish::{Call, Unstored};
use crate::reply::{Refusal, Verdict};
use crate::subject;

/// What a batch may hold: the progress of one lane is a message too.
pub const EXACT_LIMITS: ExactLimits = ExactLimits {
    records: MAX_RECORDS - 1,
    bytes: MAX_BYTES,
};

/// The first version whose batches refuse what is in them twice, and mend what a kill tears (nats-server 7391).
const OLDEST_SERVER: (u64, u64, u64) = (2, 12, 1);

/// Stores groups of calls.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// Where the progress goes: `{journal}`, `{sink}` and `{app_id}` stand for its key.
    subject: String,
    window: Semaphore,
    /// The sequence of each lane's progress, 0 for none, as far as it was recalled.
    expected: HashMap<ProgressKey, u64>,
    /// What the JetStream stream of a connection takes, once it was asked.
    place: Option<(Arc<Connection>, Place)>,
}

/// A JetStream stream that can store records once and only once.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Bytes of a message with its headers at most.
    max_message: usize,
    /// A newer progress takes the older one's place.
    rolls_up: bool,
}

/// The last message of a subject, as JetStream's interface tells it.
#[derive(Deserialize)]
struct Last {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    seq: u64,
    #[serde(default)]
    data: String,
}

/// The last message of a subject, if it has one.
async fn last(api: &Api, jetstream: &str, subject: &str) -> Result<Option<Stored>, ApiError> {
    #[derive(Serialize)]
    struct Question<'a> {
        last_by_subj: &'a str,
    }
    let question = Question {
        last_by_subj: subject,
    };
    let asked = format!("STREAM.MSG.GET.{jetstream}");
    match api.ask::<Last>(&asked, &question).await {
        Ok(Last { message }) => Ok(Some(message)),
        Err(ApiError::Refused(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, subject: String) -> Committer {
        Committer {
            shared,
            subject,
            window: Semaphore::new(MAX_RECORDS),
            expected: HashMap::new(),
            place: None,
        }
    }

    fn subject_of(&self, key: &ProgressKey) -> String {
        subject_of(&self.subject, key)
    }

    /// The connection, and what its JetStream stream takes.
    async fn place(&mut self) -> Result<(Arc<Connection>, Place), PublishFailure> {
        let connection = self.shared.connection().await;
        let connection = connection.map_err(PublishFailure::NotConnected)?;
        match &self.place {
            Some((of, place)) if Arc::ptr_eq(of, &connection) => Ok((connection, *place)),
            _ => {
                let place = look(&connection.api, &self.shared, &self.subject).await?;
                self.place = Some((Arc::clone(&connection), place));
                Ok((connection, place))
            }
        }
    }

    /// The message of a lane's progress.
    fn message_of(&self, progress: &Progress) -> Record {
        Record {
            id: RecordId {
                epoch: 0,
                position: 0,
                offset: 0,
            },
            topic: Topic::from(self.subject_of(&progress.key)),
            key: None,
            timestamp: Timestamp(0),
            headers: vec![(PROGRESS.into(), Bytes::from_static(b"1"))],
            payload: progress.value.clone(),
        }
    }

    async fn store(
        &mut self,
        records: &[Record],
        progress: &[Progress],
    ) -> Result<(), PublishError> {
        let unknown =
            |failure: PublishFailure| PublishError::unknown(failure.kind(), records.len(), failure);
        let (connection, place) = self.place().await.map_err(unknown)?;
        refuse(records, place)?;
        if records.len() + progress.len() > MAX_RECORDS {
            let why = "more messages than an atomic batch may have";
            let kind = PublishErrorKind::Rejected;
            return Err(PublishError::unknown(kind, records.len(), why));
        }
        let behind: Vec<Record> = progress.iter().map(|one| self.message_of(one)).collect();
        let patience = self.shared.options.ack_timeout;
        let lend = connection
            .inboxes
            .lend(&connection.client, records.len() + behind.len());
        let inbox = match timeout(patience, lend).await {
            Ok(Ok(inbox)) => inbox,
            Ok(Err(_)) => return Err(unknown(PublishFailure::Disconnected { said: None })),
            Err(_) => return Err(unknown(PublishFailure::Timeout(patience))),
        };
        let known = |progress: &Progress| self.expected.get(&progress.key).copied();
        let demands = Demands {
            from: records.len(),
            sequences: progress.iter().map(|one| known(one).unwrap_or(0)).collect(),
            roll_up: place.rolls_up,
        };
        let call = Call::new(&self.shared, &connection, &self.window, inbox, records);
        let last = match call.run_exactly(&behind, demands).await {
            Ok(last) => last,
            Err(Unstored::Refused(refusal)) => {
                // It may have been edited.
                self.place = None;
                return Err(self.refused(&connection, records, progress, refusal).await);
            }
            Err(Unstored::Unsendable) if records.len() == 1 => {
                let message = "it cannot be sent to this server".to_owned();
                let code = Reason::TOO_LARGE;
                return Err(rejected(vec![Outcome::Rejected(Reason { code, message })]));
            }
            Err(Unstored::Unsendable) => {
                let why = "one of the records cannot be sent to this server";
                let kind = PublishErrorKind::Rejected;
                return Err(PublishError::unknown(kind, records.len(), why));
            }
            // Without the message that was denied, or that went nowhere, the batch has a gap, and is never stored.
            Err(Unstored::Failed(
                failure @ (PublishFailure::Denied(_) | PublishFailure::Unbound { .. }),
            )) if progress.len() > 1 => {
                let kind = PublishErrorKind::Rejected;
                return Err(PublishError::unknown(kind, records.len(), failure));
            }
            Err(Unstored::Failed(failure)) => return Err(unknown(failure)),
        };
        for (behind, progress) in progress.iter().rev().enumerate() {
            let sequence = last.saturating_sub(behind as u64);
            self.expected.insert(progress.key.clone(), sequence);
        }
        Ok(())
    }

    /// What a refused batch means. Nothing of it is stored.
    async fn refused(
        &self,
        connection: &Connection,
        records: &[Record],
        progress: &[Progress],
        refusal: Refusal,
    ) -> PublishError {
        let error = |kind, failure| PublishError::unknown(kind, records.len(), failure);
        let is_one = records.len() <= 1 && progress.len() == 1;
        match ErrorCode(refusal.err_code) {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                error(PublishErrorKind::Unavailable, PublishFailure::Moved)
            }
            ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT => {
                let failure = PublishFailure::Refused(refusal);
                error(PublishErrorKind::Unavailable, failure)
            }
            ErrorCode::ATOMIC_PUBLISH_DISABLED => {
                let failure = PublishFailure::Inexact("its allow_atomic is not set".to_owned());
                error(failure.kind(), failure)
            }
            // A message did not arrive at the JetStream stream.
            ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH if is_one => {
                let subject = records.first().map(|record| record.topic.as_str());
                let failure = PublishFailure::Refused(refusal);
                let options = &self.shared.options;
                let failure = jetstream::diagnose(&connection.api, options, subject, failure).await;
                let kind = match failure.kind() {
                    PublishErrorKind::Rejected => PublishErrorKind::Unavailable,
                    kind => kind,
                };
                error(kind, failure)
            }
            ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH
            | ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH
            | ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE => {
                error(PublishErrorKind::Rejected, PublishFailure::Refused(refusal))
            }
            _ => match refusal.verdict() {
                Verdict::Reject(reason) if is_one && records.len() == 1 => {
                    rejected(vec![Outcome::Rejected(reason)])
                }
                Verdict::Reject(_) => {
                    error(PublishErrorKind::Rejected, PublishFailure::Refused(refusal))
                }
                Verdict::Fail(kind) => error(kind, PublishFailure::Refused(refusal)),
            },
        }
    }
}

impl Commit for Committer {
    async fn commit(
        &mut self,
        records: &[Record],
        progress: &[Progress],
        _: &[Range<usize>],
    ) -> Result<(), PublishError> {
        let mut stored = self.store(records, progress).await;
        if records.len() == 1 && stored.as_ref().is_err_and(is_known) {
            // The server has that record.
            stored = self.store(&[], progress).await;
            stored = stored.map_err(|error| PublishError {
                outcomes: vec![Outcome::Unknown],
                ..error
            });
        }
        let count = if stored.is_ok() { records.len() } else { 0 };
        let counters = &self.shared.counters;
        counters.count(count as u64, 0, 0, stored.is_err());
        stored
    }

    async fn recall(&mut self, key: &ProgressKey) -> Result<Option<Bytes>, PublishError> {
        let failed = |failure: PublishFailure| PublishError::unknown(failure.kind(), 0, failure);
        let (connection, _) = self.place().await.map_err(failed)?;
        let name = &self.shared.options.stream;
        let (sequence, value) = match last(&connection.api, name, &self.subject_of(key)).await {
            Ok(Some(message)) => {
                let value = STANDARD.decode(&message.data).map_err(|error| {
                    failed(PublishFailure::Untold(ApiError::Other(error.to_string())))
                })?;
                (message.seq, Some(value.into()))
            }
            Ok(None) => (0, None),
            Err(error) => {
                // It may be gone, or made anew: that is seen first the next time.
                self.place = None;
                return Err(failed(PublishFailure::Untold(error)));
            }
        };
        self.expected.insert(key.clone(), sequence);
        Ok(value)
    }
}

/// The subject of a lane's progress.
pub(crate) fn subject_of(template: &str, key: &ProgressKey) -> String {
    let journal = format!("{:032x}", key.journal);
    template
        .replace("{journal}", &journal)
        .replace("{sink}", &key.sink)
        .replace("{app_id}", &key.lane)
}

/// What stores the progress of all lanes, where `template` is its subject.
#[must_use]
pub fn filter_of_progress(template: &str) -> String {
    let all = ["{journal}", "{sink}", "{app_id}"]
        .iter()
        .fold(template.to_owned(), |all, part| all.replace(part, "*"));
    subject::widen(&all).into_owned()
}

/// Whether the JetStream stream can store records once and only once.
async fn look(api: &Api, shared: &Shared, subject: &str) -> Result<Place, PublishFailure> {
    let options = &shared.options;
    let name = &options.stream;
    let config = match jetstream::find(api, name).await {
        Found::Here(config) => config,
        Found::Off => return Err(PublishFailure::Off),
        Found::Silent(error) => return Err(PublishFailure::Untold(error)),
        Found::Missing => {
            let missing = PublishFailure::NotServing(None);
            return Err(jetstream::diagnose(api, options, None, missing).await);
        }
    };
    let server = api.server();
    match unfit(&config, &server.version, &filter_of_progress(subject)) {
        Some(why) => Err(PublishFailure::Inexact(why)),
        None => Ok(Place {
            max_message: usize::try_from(config.max_message_size)
                .ok()
                .filter(|most| *most > 0)
                .map_or(server.max_payload, |most| most.min(server.max_payload)),
            rolls_up: config.allow_rollup && !config.deny_purge,
        }),
    }
}

/// Whether a JetStream stream can store records once and only once, and lets us read and write the progress.
pub(crate) async fn check(
    api: &Api,
    config: &Config,
    name: &str,
    template: &str,
) -> Result<(), String> {
    let version = api.server().version;
    if let Some(why) = unfit(config, &version, &filter_of_progress(template)) {
        return Err(why);
    }
    let nobodys = ProgressKey {
        journal: 0,
        sink: "check".into(),
        lane: "rtm-bridge-check".into(),
    };
    let subject = subject_of(template, &nobodys);
    let told = last(api, name, &subject).await;
    told.map_err(|error| format!("it does not tell its last message: {error}"))?;
    let may = api.may_publish(&subject).await;
    may.map_err(|error| format!("the progress cannot be published to {subject}: {error}"))
}

/// Why a JetStream stream cannot store records once and only once, if it cannot.
pub(crate) fn unfit(config: &Config, version: &str, progress: &str) -> Option<String> {
    if jetstream::is_older(version, OLDEST_SERVER) {
        return Some(format!(
            "the server is of version {version}, and that takes 2.12.1 or later"
        ));
    }
    if config.no_ack {
        return Some("it acknowledges nothing (no_ack)".to_owned());
    }
    if !config.allow_atomic_publish {
        return Some("its allow_atomic is not set".to_owned());
    }
    if config.retention != RetentionPolicy::Limits {
        return Some(
            "its retention is not `limits`, so that consumers decide how long it knows what is published".to_owned(),
        );
    }
    if config.subject_transform.is_some() {
        return Some(
            "it stores messages under other subjects than they are published to (subject_transform)".to_owned(),
        );
    }
    if config.discard_new_per_subject {
        return Some(
            "a subject that is full takes nothing (discard_new_per_subject), the progress neither"
                .to_owned(),
        );
    }
    if !jetstream::is_stored(config, progress) {
        return Some(format!(
            "it does not store {progress}, the subjects of the progress: add them, or set `progress_subject`"
        ));
    }
    None
}

/// Whether a batch was refused for a record that the server has, by its id.
fn is_known(error: &PublishError) -> bool {
    let code = ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE;
    let failure = error.source.downcast_ref();
    matches!(failure, Some(PublishFailure::Refused(refusal)) if ErrorCode(refusal.err_code) == code)
}

/// Refuses the records that the server would, which would not say which they are.
fn refuse(records: &[Record], place: Place) -> Result<(), PublishError> {
    let mut last: Option<&Topic> = None;
    let mut outcomes = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let fault = match last.replace(&record.topic) {
            Some(topic) if *topic == record.topic => None,
            _ => {
                subject::fault(record.topic.as_str()).map(|fault| ("bad_subject", fault.to_owned()))
            }
        };
        let fault = fault
            .or_else(|| bad_header(record))
            .or_else(|| too_large(record, place));
        if let Some((code, message)) = fault {
            outcomes.resize(records.len(), Outcome::Unknown);
            outcomes[index] = Outcome::Rejected(Reason { code, message });
            // The next one of the same subject is looked at again.
            last = None;
        }
    }
    match outcomes.is_empty() {
        true => Ok(()),
        false => Err(rejected(outcomes)),
    }
}

fn bad_header(record: &Record) -> Option<(&'static str, String)> {
    let mut names = record.headers.iter().map(|(name, _)| name);
    let name = names.find(|name| parse_name(name).is_none())?;
    let name = name.escape_debug();
    Some(("bad_header", format!("the header `{name}` cannot be sent")))
}

fn too_large(record: &Record, place: Place) -> Option<(&'static str, String)> {
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| name.len() + value.len() + 4)
        .sum();
    // What is added to it is left out: the server says so where it is near the limit.
    let bytes = record.payload.len() + headers;
    let most = place.max_message;
    (bytes > most).then(|| {
        let message = format!("{bytes} bytes, and a message may have {most} with its headers");
        (Reason::TOO_LARGE, message)
    })
}

fn rejected(outcomes: Vec<Outcome>) -> PublishError {
    let first = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Rejected(reason) => Some(reason.to_string()),
        _ => None,
    });
    PublishError {
        kind: PublishErrorKind::Rejected,
        outcomes,
        source: first.unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests;
