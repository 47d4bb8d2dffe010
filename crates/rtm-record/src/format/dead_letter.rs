//! Dead letters: what is published instead of what cannot be an event, or what a broker refuses. JSON in every format.

use std::borrow::Cow;

use bytes::Bytes;
use rtm_sink::{Reason, Record, RecordId, Timestamp, Topic};
use serde::Serialize;

use super::{PageContext, PageHeaders};

/// Bound on what a dead letter repeats of a payload that the broker has refused twice.
pub(crate) const TRUNCATED_BYTES: usize = 64 << 10;

/// The payload of a dead letter.
#[derive(Serialize)]
struct DeadLetter<'a> {
    v: u8,
    id: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
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

/// The dead letter of `raw`; its payload repeats all of it, or no more than [`TRUNCATED_BYTES`].
pub(crate) fn dead_letter(
    page: &PageContext<'_>,
    id: RecordId,
    topic: Topic,
    why: &Reason,
    raw: &[u8],
    truncate: bool,
) -> Record {
    let tags = page.tags;
    let kept = if truncate {
        &raw[..raw.len().min(TRUNCATED_BYTES)]
    } else {
        raw
    };
    let text = std::str::from_utf8(kept).ok();
    let letter = DeadLetter {
        v: 1,
        id: id.to_string(),
        replayed: page.is_replayed,
        app: &tags.app,
        app_id: &tags.app_id,
        region: &tags.region,
        stream: &tags.stream,
        fetched_at: page.fetched_at(),
        request_id: tags.request_id.as_deref(),
        position: page.position.0,
        reason: why.code,
        message: &why.message,
        raw: text,
        raw_hex: text.is_none().then(|| hex::encode(kept)),
        truncated: kept.len() < raw.len(),
    };
    let mut headers = PageHeaders::new(page).of(id, None);
    headers.push((
        Cow::Borrowed("rtm-reason"),
        Bytes::from_static(why.code.as_bytes()),
    ));
    Record {
        id,
        topic,
        key: None,
        timestamp: Timestamp(tags.fetched_at),
        headers,
        payload: Bytes::from(serde_json::to_vec(&letter).unwrap_or_default()),
    }
}
