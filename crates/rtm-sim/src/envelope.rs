//! Reads the bridge's envelope, and what an event says, with code of its own.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ledger::Stream;

/// The document that the bridge publishes for each event, as far as an audit needs it.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// The version, 1.
    pub v: u32,
    /// `<epoch>.<position>.<byte offset of the event in its page>`.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// The name of the App ID in the bridge's configuration.
    #[serde(borrow)]
    pub app: Cow<'a, str>,
    /// The App ID.
    #[serde(borrow)]
    pub app_id: Cow<'a, str>,
    /// The region that the event was read from.
    #[serde(borrow)]
    pub region: Cow<'a, str>,
    /// `user` or `channel`.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// What happened, such as `Join`.
    #[serde(borrow, rename = "type")]
    pub kind: Option<Cow<'a, str>>,
    /// The user; numbers as text.
    #[serde(borrow)]
    pub user_id: Option<Cow<'a, str>>,
    /// The channel; null for user events.
    #[serde(borrow)]
    pub channel_id: Option<Cow<'a, str>>,
    /// When it happened, RFC 3339.
    #[serde(borrow)]
    pub time: Option<Cow<'a, str>>,
    /// When the response was complete, RFC 3339.
    #[serde(borrow)]
    pub fetched_at: Cow<'a, str>,
    /// The response that the event came in.
    #[serde(borrow)]
    pub request_id: Option<Cow<'a, str>>,
    /// Equal for copies of one event.
    #[serde(borrow)]
    pub event_key: Option<Cow<'a, str>>,
    /// Where the page is in the journal.
    pub position: u64,
    /// True on a record that an operator replayed.
    #[serde(default)]
    pub replayed: bool,
    /// The event as Agora sent it.
    #[serde(borrow)]
    pub event: &'a RawValue,
}

/// A record that a sink holds, as its reader found it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Grows in the order in which the sink holds the records of `partition`.
    pub sink_order: u64,
    /// Where order is kept: Kafka's partition, 0 for JetStream or a file. For two topics that hold one stream, any
    /// numbers that tell their partitions apart.
    pub partition: i32,
    /// As tagged.
    pub app_id: &'a str,
    /// As tagged.
    pub region: &'a str,
    /// As tagged: `user` or `channel`.
    pub stream: &'a str,
    /// As tagged.
    pub request_id: &'a str,
    /// `<epoch>.<position>.<byte offset of the event in its page>`.
    pub id: &'a str,
    /// The record's key, to be compared with the one that the event asks for: `user_id` or `group_id`. `None` where
    /// the sink has no keys, or is configured to use others.
    pub key: Option<&'a [u8]>,
    /// The event within the envelope, byte for byte.
    pub event: &'a [u8],
    /// It was found among the dead letters: delivered, but in no order with the rest and under no key.
    pub dead_letter: bool,
}

/// The payload is no envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is not JSON, or lacks a field, or has one of another type.
    #[error("the payload is not an envelope")]
    Json(#[from] serde_json::Error),
    /// It is of a version that this audit does not know.
    #[error("the envelope is of version {0}, not 1")]
    Version(u32),
}

/// Reads the envelope that is the payload of a record.
///
/// # Errors
///
/// [`EnvelopeError`], which an audit counts as an invented event.
pub fn parse_envelope(payload: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let envelope: Envelope<'_> = serde_json::from_slice(payload)?;
    match envelope.v {
        1 => Ok(envelope),
        other => Err(EnvelopeError::Version(other)),
    }
}

impl Envelope<'_> {
    /// What an audit needs to know: `partition` and `order` are where the sink has the record, `key` is its key if
    /// the sink has keys.
    #[must_use]
    pub fn observed<'a>(
        &'a self,
        partition: i32,
        order: u64,
        key: Option<&'a [u8]>,
    ) -> Observed<'a> {
        Observed {
            sink_order: order,
            partition,
            app_id: &self.app_id,
            region: &self.region,
            stream: &self.stream,
            request_id: self.request_id.as_deref().unwrap_or_default(),
            id: &self.id,
            key,
            event: self.event.get().as_bytes(),
            dead_letter: false,
        }
    }
}

/// What an event says, if it says it once and in a form that leaves no choice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// What order is kept by: the user of a user event, the channel of a channel event.
    pub(crate) key: String,
}

/// Reads an event of `stream`. `None` for one that lacks a user or a channel, or names one twice: nobody can say which
/// of the two is meant, so an audit holds nobody to either.
pub(crate) fn read_event(stream: Stream, event: &str) -> Option<Said> {
    let fields: Fields<'_> = serde_json::from_str(event).ok()?;
    let user = text(fields.user_id?)?;
    let key = match stream {
        Stream::User => user,
        Stream::Channel => match (fields.group_id, fields.channel_id) {
            (Some(id), None) | (None, Some(id)) => text(id)?,
            _ => return None,
        },
    };
    Some(Said { key })
}

/// A field that is there twice is an error here, which suits [`read_event`].
#[derive(Debug, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    group_id: Option<&'a RawValue>,
    #[serde(borrow)]
    channel_id: Option<&'a RawValue>,
}

/// A string's text, or a number as it is written.
fn text(id: &RawValue) -> Option<String> {
    match id.get().as_bytes().first()? {
        b'"' => serde_json::from_str(id.get()).ok(),
        b'-' | b'0'..=b'9' => Some(id.get().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_envelope_of_the_documentation() {
        let payload = br#"{"v":1,"id":"00000000000000ab.4711.57","app":"main","app_id":"a\u0031","region":"eu-west-1",
            "stream":"channel","type":"Join","user_id":"u","channel_id":"c","time":"2020-01-03T04:56:58.981Z",
            "fetched_at":"2026-11-23T05:00:00.123Z","request_id":"1_2","event_key":"00","position":4711,"new":[],
            "event":{"group_id":"c", "user_id":"u","type":"Join","ms":1578027418981}}"#;
        let envelope = parse_envelope(payload).unwrap();
        let observed = envelope.observed(3, 9, Some(b"c"));
        assert_eq!(
            (observed.app_id, observed.request_id, observed.partition),
            ("a1", "1_2", 3)
        );
        assert_eq!(
            observed.event,
            br#"{"group_id":"c", "user_id":"u","type":"Join","ms":1578027418981}"#
        );
        assert!(matches!(
            parse_envelope(&payload.to_vec().replace_first(b"\"v\":1", b"\"v\":2")),
            Err(EnvelopeError::Version(2))
        ));
        assert!(matches!(parse_envelope(b"{}"), Err(EnvelopeError::Json(_))));
    }

    trait ReplaceFirst {
        fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
    }

    impl ReplaceFirst for Vec<u8> {
        fn replace_first(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
            let at = self
                .windows(from.len())
                .position(|window| window == from)
                .unwrap();
            [&self[..at], to, &self[at + from.len()..]].concat()
        }
    }

    #[test]
    fn keys_are_read_where_they_are_clear() {
        let key = |stream, event| read_event(stream, event).map(|said| said.key);
        assert_eq!(key(Stream::User, r#"{"user_id":"a\u0062"}"#).unwrap(), "ab");
        assert_eq!(key(Stream::User, r#"{"user_id":1.50}"#).unwrap(), "1.50");
        assert_eq!(
            key(Stream::Channel, r#"{"user_id":"u","channel_id":"c"}"#).unwrap(),
            "c"
        );
        for unclear in [
            "42",
            "[]",
            "{}",
            r#"{"user_id":null,"group_id":"c"}"#,
            r#"{"user_id":"u","user_id":"u","group_id":"c"}"#,
            r#"{"user_id":"u","group_id":"c","channel_id":"c"}"#,
            r#"{"user_id":"\ud800","group_id":"c"}"#,
        ] {
            assert_eq!(key(Stream::Channel, unclear), None, "{unclear}");
        }
    }
}
