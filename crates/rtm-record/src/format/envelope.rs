//! The JSON envelope: tags and normalised fields on top, always of the same types, and the event inside, verbatim.
//!
//! The payload is spliced around the raw event, so nothing that nobody knows yet is lost, and no tree is built.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use rtm_source::Event;

use super::{Format, PageContext, format_time};
use crate::key::{EventKey, hex_key};

/// The format `json`.
#[derive(Debug, Default)]
pub struct Envelope {
    /// `{"v":1,"id":"<epoch>.<position>.`
    begin: String,
    /// `","app":"…","app_id":"…","region":"…","stream":"…","type":`
    source: String,
    /// `,"fetched_at":"…","request_id":"…","event_key":"`
    fetch: String,
    /// `","position":…,"event":`
    end: String,
    /// The payloads of a page lie in one piece of memory, one behind the other.
    arena: BytesMut,
    /// The last second that was formatted, and its text: events of a page share few.
    second: Option<(i64, String)>,
}

impl Format for Envelope {
    fn begin(&mut self, page: &PageContext<'_>, events: usize, bytes: usize) {
        let tags = page.tags;
        let position = page.position;
        self.begin = format!(r#"{{"v":1,"id":"{}.{position}."#, page.epoch);
        self.source = format!(
            r#""{},"app":{},"app_id":{},"region":{},"stream":{},"type":"#,
            if page.is_replayed {
                r#","replayed":true"#
            } else {
                ""
            },
            quoted(&tags.app),
            quoted(&tags.app_id),
            quoted(&tags.region),
            quoted(&tags.stream)
        );
        self.fetch = format!(
            r#","fetched_at":{},"request_id":{},"event_key":""#,
            quoted(page.fetched_at()),
            tags.request_id
                .as_deref()
                .map_or_else(|| "null".to_owned(), quoted)
        );
        self.end = format!(r#"","position":{position},"event":"#);
        // Besides the event, which an envelope repeats in part, it is mostly tags.
        let tags = 160 + self.begin.len() + self.source.len() + self.fetch.len() + self.end.len();
        self.arena = BytesMut::with_capacity(events * tags + 2 * bytes);
    }

    fn event(&mut self, event: &Event<'_>, event_key: &EventKey) -> Bytes {
        let Envelope {
            begin,
            source,
            fetch,
            end,
            arena: json,
            second,
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
                json.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms)]);
                json.extend_from_slice(b"Z\"");
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
fn time_of(ms: i64, last: &mut Option<(i64, String)>) -> Option<(&str, u16)> {
    let second = ms.div_euclid(1000);
    if last.as_ref().is_none_or(|(known, _)| *known != second) {
        let mut text = format_time(second * 1000)?;
        // Without `.000Z`.
        text.truncate(text.len().checked_sub(5)?);
        *last = Some((second, text));
    }
    let (_, text) = last.as_ref()?;
    Some((text, u16::try_from(ms.rem_euclid(1000)).unwrap_or(0)))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
