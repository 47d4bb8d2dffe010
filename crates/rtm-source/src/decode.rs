//! From a response body to events.

use std::borrow::Cow;
use std::ops::Range;

use crate::fields::{Fields, text, text_of};
use crate::scan::{End, Part, Scanned, scan};

/// The end of the year 9999: later times do not fit the formats that consumers read.
const MAX_MS: i64 = 253_402_300_799_999;

/// The deepest event. An event is passed on inside an envelope, and parsers elsewhere stop at 128 levels, as serde_json
/// does: a deeper one would be poison for whoever reads the topic.
const MAX_DEPTH: usize = 100;

/// The reason of what is no single event: the rest of a body, or all of it.
const UNREADABLE: &str = "unreadable";

/// The longest user or channel id, in bytes. Agora's have up to 64 characters; ids become keys and subjects, which
/// brokers limit.
const MAX_ID: usize = 1_024;

/// Splits a response body into its events.
///
/// Pure, and never fails as a whole: what is odd about one event is that event's [`Reject`], and of a body that was cut
/// the whole events come out. What may hold events and could not be read, be it all of the body, is one more [`Reject`],
/// the last: nothing that was read is dropped. Nothing recurses, so depth costs no stack.
///
/// What is tolerated, since Agora's editions and real callers differ: `group_id` may be named `channel_id` and `ms`
/// `ts` (the current name wins where both stand), ids may be numbers (kept as written), `events` may be `null` or
/// missing. Of duplicate keys the last counts, as for those who will parse [`Event::raw`] later.
#[must_use]
pub fn decode(body: &[u8]) -> Decoded<'_> {
    let mut events = Vec::new();
    let (request_id, result, complete) = split(body, 0..usize::MAX, |event| events.push(event));
    Decoded {
        request_id,
        result,
        events,
        complete,
    }
}

/// The events of [`decode()`] alone, one after the other: a list of a thousand is much memory to write and to read again.
/// Those of a `range` only, since a hostile body has a million.
pub fn decode_each<'a>(
    body: &'a [u8],
    range: Range<usize>,
    take: impl FnMut(Result<Event<'a>, Reject<'a>>),
) {
    let _ = split(body, range, take);
}

/// Gives each event, and then the request id, the result, and whether the body is complete.
fn split<'a>(
    body: &'a [u8],
    range: Range<usize>,
    mut take: impl FnMut(Result<Event<'a>, Reject<'a>>),
) -> (Option<Cow<'a, str>>, Option<Cow<'a, str>>, bool) {
    let (mut request_id, mut result) = (None, None);
    let mut index = 0;
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let Scanned { end, unread } = scan(body, |part, at| match part {
        Part::Events => {}
        Part::Event { raw, depth } => {
            if range.contains(&index) {
                take(event(raw, depth, offset(at)));
            }
            index += 1;
        }
        Part::RequestId(raw) => request_id = text(raw),
        Part::Result(raw) => result = text(raw),
    });
    if let Some(at) = unread
        && range.contains(&index)
    {
        take(Err(Reject {
            raw: &body[at..],
            offset: offset(at),
            reason: UNREADABLE,
            message: match end {
                End::Complete if at > 0 => "it follows what could be read of a response",
                End::Complete => "a response in which there are no events where they should be",
                End::Cut => "the rest of a response that was cut",
                End::Malformed => "a response, or the rest of one, that is not what was expected",
            }
            .to_owned(),
        }));
    }
    (request_id, result, end == End::Complete)
}

/// A response body, split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Agora's id of the request: opaque text, or a number as written.
    pub request_id: Option<Cow<'a, str>>,
    /// `success` or `failed`.
    pub result: Option<Cow<'a, str>>,
    /// In the order of the body, which is the ring's.
    pub events: Vec<Result<Event<'a>, Reject<'a>>>,
    /// Whether the top-level object closes. False for a cut body, and for one that is not the JSON expected.
    pub complete: bool,
}

/// One event. Everything but `raw` is there to tag and to route by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The JSON object as received, byte for byte, with the fields that nobody knows yet. It is valid JSON.
    pub raw: &'a str,
    /// Where `raw` begins in the body, in bytes: what identifies the event in its page.
    pub offset: u32,
    /// The field `type`, such as `Login` or `Join`; unknown ones pass; empty when missing or neither a string nor a
    /// number.
    pub kind: Cow<'a, str>,
    /// Whose event it is. A number is kept as written. Hostile text.
    pub user_id: Cow<'a, str>,
    /// The channel (`group_id`), for channel events. Hostile text.
    pub channel_id: Option<Cow<'a, str>>,
    /// When it happened, in milliseconds since the Unix epoch, if that is an integer between 1970 and the end of 9999.
    pub ms: Option<i64>,
}

/// One thing in `events` that is not an event, or what of the body could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject<'a> {
    /// What was received, byte for byte. It may be neither JSON nor UTF-8.
    pub raw: &'a [u8],
    /// Where `raw` begins in the body, in bytes.
    pub offset: u32,
    /// A metric label, one of [`Reject::REASONS`].
    pub reason: &'static str,
    /// What is wrong, for people; holds nothing of the event.
    pub message: String,
}

impl Reject<'_> {
    /// Every value that [`Reject::reason`] can have.
    pub const REASONS: [&'static str; 9] = [
        "not_an_object",
        "too_deep",
        "invalid_utf8",
        "invalid_json",
        "no_user_id",
        "odd_user_id",
        "odd_channel_id",
        "id_too_long",
        UNREADABLE,
    ];
}

/// When an event happened, as [`Event::ms`]; `None` for a reject too.
pub(crate) fn ms(raw: &[u8]) -> Option<i64> {
    event(raw, 0, 0).ok()?.ms
}

fn event(raw: &[u8], depth: usize, offset: u32) -> Result<Event<'_>, Reject<'_>> {
    let reject = |reason: &'static str, message: String| Reject {
        raw,
        offset,
        reason,
        message,
    };
    if raw.first() != Some(&b'{') {
        return Err(reject("not_an_object", "an event is an object".to_owned()));
    }
    if depth > MAX_DEPTH {
        let message = format!("it is {depth} levels deep, and {MAX_DEPTH} are passed on");
        return Err(reject("too_deep", message));
    }
    let json =
        std::str::from_utf8(raw).map_err(|error| reject("invalid_utf8", error.to_string()))?;
    let fields: Fields<'_> =
        serde_json::from_str(json).map_err(|error| reject("invalid_json", error.to_string()))?;
    let Some(user_id) = fields.user_id else {
        return Err(reject("no_user_id", "user_id is missing".to_owned()));
    };
    let Some(user_id) = text_of(user_id) else {
        return Err(reject(
            "odd_user_id",
            "user_id is neither a string nor a number".to_owned(),
        ));
    };
    let channel_id = match fields.group_id.or(fields.channel_id).map(text_of) {
        Some(None) => {
            let message = "group_id is neither a string nor a number".to_owned();
            return Err(reject("odd_channel_id", message));
        }
        known => known.flatten(),
    };
    for (name, id) in [
        ("user_id", Some(&user_id)),
        ("group_id", channel_id.as_ref()),
    ] {
        let length = id.map_or(0, |id| id.len());
        if length > MAX_ID {
            let message = format!("{name} has {length} bytes, and {MAX_ID} are passed on");
            return Err(reject("id_too_long", message));
        }
    }
    Ok(Event {
        raw: json,
        offset,
        kind: fields.kind.and_then(text_of).unwrap_or_default(),
        user_id,
        channel_id,
        ms: fields.ms.or(fields.ts).and_then(millis),
    })
}

/// The event stands, whatever its time says: only whoever needs a time has to do without.
fn millis(value: &str) -> Option<i64> {
    let ms = text_of(value)?.parse().ok()?;
    (0..=MAX_MS).contains(&ms).then_some(ms)
}

#[cfg(test)]
mod tests;
