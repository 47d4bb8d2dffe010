//! What a record carries: the payloads of events and of dead letters, and the tags as headers.
//!
//! The payload of an event is an envelope: tags and normalised fields on top, always of the same types, and the event
//! inside, verbatim. It is spliced around the raw event, so nothing that nobody knows yet is lost, and no tree is built.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp as Time;
use rtm_journal::Entry;
use rtm_sink::{Headers, Reason, Record, RecordId, Timestamp, Topic};
use rtm_source::Event;
use serde::Serialize;

use crate::copies::EventKey;
use crate::entry::Tags;

use super::Hashed;

/// Bound on what a dead letter repeats of a payload that the broker has refused twice.
pub(super) const TRUNCATED_BYTES: usize = 64 << 10;

/// The tags of a page, formatted once for all of its events.
pub(super) struct Shared {
    /// `{"v":1,"id":"<epoch>.<position>.`
    begin: String,
    /// `","app":"…","app_id":"…","region":"…","stream":"…","type":`
    source: String,
    /// `,"fetched_at":"…","request_id":"…","event_key":"`
    fetch: String,
    /// `","position":…,"event":`
    end: String,
    fetched_at: Bytes,
    app: Bytes,
    region: Bytes,
    stream: Bytes,
    epoch: u64,
    position: u64,
    fetched_ms: i64,
    /// The payloads of a page lie in one piece of memory, one behind the other.
    arena: BytesMut,
    /// The last second that was formatted: events of a page share few.
    second: (i64, String),
    /// What event keys are made of.
    pub(super) hashed: Hashed,
}

impl Shared {
    pub(super) fn new(tags: &Tags<'_>, journaled: &Entry) -> Shared {
        let position = journaled.position.0;
        let fetched_at = format_time(tags.fetched_at).unwrap_or_default();
        let source = format!(
            r#"","app":{},"app_id":{},"region":{},"stream":{},"type":"#,
            quoted(&tags.app),
            quoted(&tags.app_id),
            quoted(&tags.region),
            quoted(&tags.stream)
        );
        let fetch = format!(
            r#","fetched_at":{},"request_id":{},"event_key":""#,
            quoted(&fetched_at),
            tags.request_id
                .as_deref()
                .map_or_else(|| "null".to_owned(), quoted)
        );
        Shared {
            begin: format!(r#"{{"v":1,"id":"{}.{position}."#, journaled.epoch),
            source,
            fetch,
            end: format!(r#"","position":{position},"event":"#),
            fetched_at: Bytes::from(fetched_at),
            app: Bytes::copy_from_slice(tags.app.as_bytes()),
            region: Bytes::copy_from_slice(tags.region.as_bytes()),
            stream: Bytes::copy_from_slice(tags.stream.as_bytes()),
            epoch: journaled.epoch.0,
            position,
            fetched_ms: tags.fetched_at,
            arena: BytesMut::new(),
            second: (-1, String::new()),
            hashed: Hashed::new(tags),
        }
    }

    pub(super) fn id(&self, offset: u32) -> RecordId {
        RecordId {
            epoch: self.epoch,
            position: self.position,
            offset,
        }
    }

    /// Makes room for the envelopes of so many events, of so many bytes: besides the event, which it repeats in part, an
    /// envelope is mostly tags.
    pub(super) fn reserve(&mut self, events: usize, bytes: usize) {
        let tags = 160 + self.begin.len() + self.source.len() + self.fetch.len() + self.end.len();
        self.arena.reserve(events * tags + 2 * bytes);
    }

    pub(super) fn headers(&self, id: RecordId, event_key: Option<&EventKey>) -> Headers {
        let mut headers: Headers = vec![
            (Cow::Borrowed("rtm-id"), Bytes::from(id.to_string())),
            (Cow::Borrowed("rtm-app"), self.app.clone()),
            (Cow::Borrowed("rtm-region"), self.region.clone()),
            (Cow::Borrowed("rtm-stream"), self.stream.clone()),
            (Cow::Borrowed("rtm-fetched-at"), self.fetched_at.clone()),
        ];
        if let Some(event_key) = event_key {
            headers.push((
                Cow::Borrowed("rtm-event-key"),
                Bytes::copy_from_slice(hex_key(event_key).as_slice()),
            ));
        }
        headers
    }

    /// The payload of one event: spliced around its bytes, without a tree and without a formatter.
    pub(super) fn envelope(&mut self, event: &Event<'_>, event_key: &EventKey) -> Bytes {
        let Shared {
            begin,
            source,
            fetch,
            end,
            arena: json,
            second,
            ..
        } = self;
        json.extend_from_slice(begin.as_bytes());
        json.extend_from_slice(itoa::Buffer::new().format(event.offset).as_bytes());
        json.extend_from_slice(source.as_bytes());
        put_text(json, &event.kind);
        json.extend_from_slice(br#","user_id":"#);
        put_text(json, &event.user_id);
        json.extend_from_slice(br#","channel_id":"#);
        match &event.channel_id {
            Some(channel) => put_text(json, channel),
            None => json.extend_from_slice(b"null"),
        }
        json.extend_from_slice(br#","time":"#);
        match event.ms.and_then(|ms| time_of(ms, second)) {
            Some((seconds, ms)) => {
                json.extend_from_slice(b"\"");
                json.extend_from_slice(seconds.as_bytes());
                let digit = |n: u16| b'0' + (n % 10) as u8;
                json.extend_from_slice(&[
                    b'.',
                    digit(ms / 100),
                    digit(ms / 10),
                    digit(ms),
                    b'Z',
                    b'"',
                ]);
            }
            None => json.extend_from_slice(b"null"),
        }
        json.extend_from_slice(fetch.as_bytes());
        json.extend_from_slice(&hex_key(event_key));
        json.extend_from_slice(end.as_bytes());
        json.extend_from_slice(event.raw.as_bytes());
        json.extend_from_slice(b"}");
        json.split().freeze()
    }
}

/// A JSON string. What was borrowed from the event's JSON stood there without an escape, and needs none here; what had to
/// be unescaped is left to serde.
#[expect(clippy::ptr_arg, reason = "where the text comes from decides")]
fn put_text(json: &mut BytesMut, text: &Cow<'_, str>) {
    match text {
        Cow::Borrowed(plain) => {
            json.extend_from_slice(b"\"");
            json.extend_from_slice(plain.as_bytes());
            json.extend_from_slice(b"\"");
        }
        Cow::Owned(text) => json.extend_from_slice(quoted(text).as_bytes()),
    }
}

/// The time to the second, as in [`format_time`], and the milliseconds after it. `last` is what was formatted last.
fn time_of(ms: i64, last: &mut (i64, String)) -> Option<(&str, u16)> {
    let second = ms.div_euclid(1000);
    if last.0 != second {
        let text = format_time(second * 1000)?;
        // Without `.000Z`.
        let kept = text.len().checked_sub(5)?;
        *last = (second, text[..kept].to_owned());
    }
    Some((&last.1, u16::try_from(ms.rem_euclid(1000)).unwrap_or(0)))
}

/// The payload of a dead letter.
#[derive(Serialize)]
struct DeadLetter<'a> {
    v: u8,
    id: String,
    app: &'a str,
    app_id: &'a str,
    region: &'a str,
    stream: &'a str,
    fetched_at: &'a str,
    request_id: Option<&'a str>,
    position: u64,
    reason: &'a str,
    message: &'a str,
    /// The bytes, where they are UTF-8.
    raw: Option<&'a str>,
    /// The bytes in base 16, where they are not.
    raw_hex: Option<String>,
    truncated: bool,
}

pub(super) fn dead_letter(
    id: RecordId,
    topic: Topic,
    tags: &Tags<'_>,
    shared: &Shared,
    why: &Reason,
    raw: &[u8],
    truncate: bool,
) -> Record {
    let kept = if truncate {
        &raw[..raw.len().min(TRUNCATED_BYTES)]
    } else {
        raw
    };
    let text = std::str::from_utf8(kept).ok();
    let letter = DeadLetter {
        v: 1,
        id: id.to_string(),
        app: &tags.app,
        app_id: &tags.app_id,
        region: &tags.region,
        stream: &tags.stream,
        fetched_at: std::str::from_utf8(&shared.fetched_at).unwrap_or_default(),
        request_id: tags.request_id.as_deref(),
        position: shared.position,
        reason: why.code,
        message: &why.message,
        raw: text,
        raw_hex: text.is_none().then(|| hex::encode(kept)),
        truncated: kept.len() < raw.len(),
    };
    let mut headers = shared.headers(id, None);
    headers.push((
        Cow::Borrowed("rtm-reason"),
        Bytes::from_static(why.code.as_bytes()),
    ));
    Record {
        id,
        topic,
        key: None,
        timestamp: Timestamp(shared.fetched_ms),
        headers,
        payload: Bytes::from(serde_json::to_vec(&letter).unwrap_or_default()),
    }
}

fn hex_key(key: &EventKey) -> [u8; 32] {
    let mut text = [0; 32];
    // Fails only where the text is not twice as long as the key.
    let _ = hex::encode_to_slice(key, &mut text);
    text
}

/// RFC 3339 with milliseconds; none for what is no time of the years that RFC 3339 knows.
fn format_time(ms: i64) -> Option<String> {
    let time = Time::from_millisecond(ms).ok()?;
    (0..=253_402_300_799_999)
        .contains(&ms)
        .then(|| format!("{time:.3}"))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
