//! Dead letters: what is published instead of what cannot be an event, or what a broker refuses. JSON in every format.

use std::borrow::Cow;

use bytes::Bytes;
use rtm_sink::{Reason, Record, RecordId, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use super::{PageContext, PageHeaders};
use crate::entry::truncate;

/// How many bytes a dead letter repeats that was refused itself, from one attempt to the next. The last is a stub.
pub(crate) const CUTS: [usize; 3] = [64 << 10, 4 << 10, 0];

/// What a stub repeats of what the broker said.
const STUB_MESSAGE_BYTES: usize = 200;

/// A timestamp that differs from now by less is not to blame: another one of now would be refused as well.
const FRESH_MS: u64 = 60_000;

/// The payload of a dead letter.
#[derive(Serialize, Deserialize)]
struct DeadLetter<'a> {
    v: u8,
    id: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    #[serde(borrow)]
    app: Cow<'a, str>,
    #[serde(borrow)]
    app_id: Cow<'a, str>,
    #[serde(borrow)]
    region: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    fetched_at: Cow<'a, str>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    position: u64,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    /// The bytes, where they are UTF-8.
    #[serde(borrow)]
    raw: Option<Cow<'a, str>>,
    /// The bytes in base 16, where they are not.
    raw_hex: Option<String>,
    truncated: bool,
}

/// The dead letter of `raw`, all of which its payload repeats.
pub(crate) fn dead_letter(
    page: &PageContext<'_>,
    id: RecordId,
    topic: Topic,
    why: &Reason,
    raw: &[u8],
) -> Record {
    let tags = page.tags;
    let text = std::str::from_utf8(raw).ok();
    let letter = DeadLetter {
        v: 1,
        id: id.to_string(),
        replayed: page.is_replayed,
        app: (&*tags.app).into(),
        app_id: (&*tags.app_id).into(),
        region: (&*tags.region).into(),
        stream: (&*tags.stream).into(),
        fetched_at: page.fetched_at().into(),
        request_id: tags.request_id.as_deref().map(Cow::Borrowed),
        position: page.position.0,
        reason: why.code.into(),
        message: why.message.as_str().into(),
        raw: text.map(Cow::Borrowed),
        raw_hex: text.is_none().then(|| hex::encode(raw)),
        truncated: false,
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

/// What takes the place of a dead letter that is refused for what it is itself: a smaller one, or one of `now` where it is
/// refused for its timestamp, which is that of its response and may be days ago. None where nothing of the kind is left.
#[must_use]
pub fn instead(refused: &Record, why: &Reason, now: Timestamp) -> Option<Record> {
    match why.code {
        Reason::TOO_LARGE => smaller(refused),
        Reason::TIMESTAMP if now.0.abs_diff(refused.timestamp.0) >= FRESH_MS => Some(Record {
            timestamp: now,
            ..refused.clone()
        }),
        _ => None,
    }
}

/// A smaller dead letter in place of one that is refused: of the same id and reason, with fewer of the bytes, at last with
/// none, and then without headers. None for one that is as small as can be, and for what is no dead letter.
pub(crate) fn smaller(refused: &Record) -> Option<Record> {
    let mut letter: DeadLetter<'_> = serde_json::from_slice(&refused.payload).ok()?;
    let text = letter.raw.as_deref().map_or(0, str::len);
    let bytes = text + letter.raw_hex.as_deref().map_or(0, str::len) / 2;
    let mut record = refused.clone();
    if let Some(cut) = CUTS.into_iter().find(|cut| *cut < bytes) {
        let raw = letter.raw.as_ref();
        letter.raw = raw.map(|raw| Cow::Owned(truncate(raw, cut).to_owned()));
        if let Some(hex) = &mut letter.raw_hex {
            hex.truncate(2 * cut);
        }
        letter.truncated = true;
        if cut == 0 {
            let message = truncate(&letter.message, STUB_MESSAGE_BYTES);
            letter.message = Cow::Owned(message.to_owned());
        }
    } else if refused.headers.is_empty() && letter.message.is_empty() {
        return None;
    } else {
        record.headers.clear();
        letter.message = Cow::Borrowed("");
        letter.request_id = None;
    }
    record.payload = Bytes::from(serde_json::to_vec(&letter).ok()?);
    Some(record)
}
