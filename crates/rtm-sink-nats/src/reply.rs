//! What JetStream answers to a publish, and what each answer means for the record.

use std::borrow::Cow;

use async_nats::jetstream::ErrorCode;
use async_nats::{Message, StatusCode};
use rtm_sink::{PublishErrorKind, Reason};
use serde::Deserialize;

/// One answer to one published record.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    /// The JetStream stream has it, in this place; `duplicate` if it had it before.
    Stored { sequence: u64, duplicate: bool },
    /// The JetStream stream has all `count` records of an atomic batch, the last one in this place.
    Committed {
        sequence: u64,
        batch: String,
        count: u64,
    },
    /// The server refused it.
    Refused(Refusal),
    /// Nobody listens on the subject: no JetStream stream is bound to it, or none that runs.
    NoResponders,
    /// Nothing at all: a part of an atomic batch is there, and waits for the rest.
    Empty,
    /// Not an acknowledgement, or not one of our JetStream stream. It says nothing about the record.
    Foreign,
}

/// An error that JetStream answered with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} (code {code}, error code {err_code})")]
pub struct Refusal {
    /// Like an HTTP status.
    pub code: u16,
    /// JetStream's own code (`nats-server`, `server/errors.json`).
    #[serde(default)]
    pub err_code: u64,
    /// The server's words.
    #[serde(default)]
    pub description: String,
}

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This record will never be taken.
    Reject(Reason),
    /// The record is as good as any; the caller decides by the kind.
    Fail(PublishErrorKind),
}

#[derive(Deserialize)]
struct Ack<'a> {
    error: Option<Refusal>,
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    /// Of the server that answers, if it has one. The acknowledgement of a batch may leave it out.
    #[serde(borrow)]
    domain: Option<Cow<'a, str>>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    #[serde(borrow)]
    batch: Option<Cow<'a, str>>,
    count: Option<u64>,
}

impl Reply {
    /// Reads an answer that came for a record published to the JetStream stream `jetstream`.
    ///
    /// Anybody may subscribe to the subject and answer whatever it publishes: only an acknowledgement that names our
    /// JetStream stream and a sequence number confirms anything.
    ///
    /// With a `domain`, neither does that of another domain's, which may have a JetStream stream of the same name.
    pub(crate) fn parse(message: &Message, jetstream: &str, domain: Option<&str>) -> Reply {
        let is_ours = |told: Option<Cow<'_, str>>| match (told, domain) {
            (Some(told), Some(domain)) => told == domain,
            _ => true,
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Reply::NoResponders;
        }
        if message.payload.is_empty() {
            return Reply::Empty;
        }
        match serde_json::from_slice::<Ack<'_>>(&message.payload) {
            Ok(Ack {
                error: Some(refusal),
                ..
            }) => Reply::Refused(refusal),
            Ok(Ack {
                stream: Some(stream),
                domain,
                seq: Some(sequence @ 1..),
                duplicate,
                batch,
                count,
                ..
            }) if stream == jetstream && is_ours(domain.clone()) => match batch {
                Some(batch) => Reply::Committed {
                    sequence,
                    batch: batch.into_owned(),
                    count: count.unwrap_or(0),
                },
                None => Reply::Stored {
                    sequence,
                    duplicate,
                },
            },
            _ => Reply::Foreign,
        }
    }
}

impl Refusal {
    /// Sorts the error codes by what the caller can do.
    ///
    /// A full JetStream stream (`discard: new`, error code 10077) is *unavailable*: its consumers, its age limit or an
    /// operator make room, and publishing goes on by itself. What is not known counts by its HTTP-like code, and never
    /// as a rejection of the record: a dead letter cannot be taken back.
    pub(crate) fn verdict(&self) -> Verdict {
        match ErrorCode(self.err_code) {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Verdict::Reject(Reason {
                code: Reason::TOO_LARGE,
                message: self.to_string(),
            }),
            ErrorCode::STREAM_NOT_MATCH
            | ErrorCode::STREAM_NOT_FOUND
            | ErrorCode::STREAM_SEALED
            | ErrorCode::JETSTREAM_NOT_ENABLED
            | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            | ErrorCode::NO_ACCOUNT => Verdict::Fail(PublishErrorKind::Misconfigured),
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT
            | ErrorCode::STREAM_TOO_MANY_REQUESTS
            | ErrorCode::STREAM_OFFLINE
            | ErrorCode::STREAM_OFFLINE_REASON => Verdict::Fail(PublishErrorKind::Unavailable),
            _ if self.code >= 500 || self.code == 429 || self.code == 408 => {
                Verdict::Fail(PublishErrorKind::Unavailable)
            }
            _ => Verdict::Fail(PublishErrorKind::Misconfigured),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(payload: &'static str) -> Message {
        Message {
            subject: "_INBOX.x.1".into(),
            reply: None,
            payload: Bytes::from_static(payload.as_bytes()),
            headers: None,
            status: None,
            description: None,
            length: payload.len(),
        }
    }

    /// Holds: only our own JetStream stream's acknowledgement confirms, whatever else answers.
    #[test]
    fn only_an_acknowledgement_confirms() {
        let stored = |sequence, duplicate| Reply::Stored {
            sequence,
            duplicate,
        };
        for (payload, expected) in [
            (r#"{"stream":"RTM","seq":1}"#, stored(1, false)),
            (
                r#"{"stream":"RTM","domain":"hub","seq":9,"duplicate":true}"#,
                stored(9, true),
            ),
            (
                r#"{"stream":"RTM","seq":2,"batch":"b","count":2}"#,
                Reply::Committed {
                    sequence: 2,
                    batch: "b".to_owned(),
                    count: 2,
                },
            ),
            (r#"{"stream":"OTHER","seq":1}"#, Reply::Foreign),
            (
                r#"{"stream":"RTM","domain":"leaf","seq":1}"#,
                Reply::Foreign,
            ),
            (
                r#"{"stream":"RTM","domain":"hub","seq":1}"#,
                stored(1, false),
            ),
            (r#"{"stream":"RTM","seq":0}"#, Reply::Foreign),
            (r#"{"stream":"RTM"}"#, Reply::Foreign),
            (r#"{"seq":1}"#, Reply::Foreign),
            ("+OK", Reply::Foreign),
            (
                r#"{"stream":"OTHER","seq":2,"batch":"b","count":2}"#,
                Reply::Foreign,
            ),
            ("", Reply::Empty),
        ] {
            assert_eq!(
                Reply::parse(&message(payload), "RTM", Some("hub")),
                expected,
                "{payload}"
            );
        }
        let none = Message {
            status: Some(StatusCode::NO_RESPONDERS),
            ..message("")
        };
        assert_eq!(Reply::parse(&none, "RTM", None), Reply::NoResponders);
        let error = r#"{"error":{"code":400,"err_code":10060,"description":"expected stream does not match"},"stream":"RTM","seq":0}"#;
        let Reply::Refused(refusal) = Reply::parse(&message(error), "RTM", None) else {
            panic!("an error is a refusal, though it names a stream")
        };
        assert_eq!(
            refusal.to_string(),
            "expected stream does not match (code 400, error code 10060)"
        );
    }

    /// Holds: each error leads to its action, and nothing unknown dead-letters a record.
    #[test]
    fn refusals_are_sorted() {
        let verdict = |code, err_code| {
            let refusal = Refusal {
                code,
                err_code,
                description: "x".into(),
            };
            refusal.verdict()
        };
        for err_code in [10054, 10097] {
            assert!(
                matches!(verdict(400, err_code), Verdict::Reject(reason) if reason.code == "too_large")
            );
        }
        for (code, err_code) in [
            (400, 10060),
            (404, 10059),
            (400, 10109),
            (503, 10076),
            (503, 10039),
            (503, 10035),
            (400, 1),
        ] {
            let expected = Verdict::Fail(PublishErrorKind::Misconfigured);
            assert_eq!(verdict(code, err_code), expected, "{err_code}");
        }
        for (code, err_code) in [
            (503, 10077),
            (400, 10002),
            (500, 10047),
            (500, 10028),
            (503, 10023),
            (409, 10158),
            (429, 10167),
            (503, 10008),
            (500, 0),
        ] {
            let expected = Verdict::Fail(PublishErrorKind::Unavailable);
            assert_eq!(verdict(code, err_code), expected, "{err_code}");
        }
    }
}
