//! From a response body to events.

use std::borrow::Cow;

/// Splits a response body into its events.
///
/// Pure, and never fails as a whole: what is odd about one event is that event's [`Reject`], and of a body that was cut
/// the whole events come out. Nothing recurses, so depth costs no stack.
///
/// What is tolerated, by *What else is known* in the API's notes: `group_id` may be named `channel_id` and `ms` `ts`
/// (the current name wins where both stand), ids may be numbers (kept as written), `events` may be `null` or missing.
/// Of duplicate keys the last counts, as for those who will parse [`Event::raw`] later.
#[must_use]
pub fn decode(_body: &[u8]) -> Decoded<'_> {
    unimplemented!()
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
    /// The field `type`, such as `Login` or `Join`; unknown ones pass; empty when missing or not a string.
    pub kind: Cow<'a, str>,
    /// Whose event it is. A number is kept as written. Hostile text.
    pub user_id: Cow<'a, str>,
    /// The channel (`group_id`), for channel events. Hostile text.
    pub channel_id: Option<Cow<'a, str>>,
    /// When it happened, in milliseconds since the Unix epoch, if that is between 1970 and the end of 9999.
    pub ms: Option<i64>,
}

/// One thing in `events` that is not an event.
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
    pub const REASONS: [&'static str; 6] = [
        "not_an_object",
        "invalid_utf8",
        "invalid_json",
        "no_user_id",
        "odd_user_id",
        "odd_channel_id",
    ];
}
