//! What a GET brings back: a page, or what must be assumed when it brings none.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::{BoxError, MAX_PAGE_EVENTS, MAX_RING_EVENTS, Ring};

/// One response, not yet read: the bytes are to be made durable before anyone asks what they mean.
#[derive(Debug, Clone)]
pub struct Page {
    /// The ring that was asked.
    pub ring: Ring,
    /// When the last byte was here, by this machine's clock.
    pub fetched_at: Timestamp,
    /// The HTTP status.
    pub status: u16,
    /// The body's `request_id`, else the header `X-Request-ID`: what Agora's support asks for. At most 128 printable
    /// characters.
    pub request_id: Option<String>,
    /// The body as received, at most [`crate::SourceOptions::max_page_bytes`].
    pub body: Bytes,
    /// Whether the JSON is all there, judged from the JSON: its top-level object closes. The connection cannot tell,
    /// since a body that ends by close is not reported as cut.
    pub complete: bool,
    /// As many items as [`decode`](crate::decode()) yields: the whole events in the body, odd ones included, and one more
    /// where `unread`. For the accounting.
    pub count: usize,
    /// Whether something in the body may hold events and could not be read. It counts as one event, whatever it holds, and
    /// becomes one dead letter.
    pub unread: bool,
    /// When the first event happened, by its `ms`, and when the last: best effort, `None` if it is odd or has none.
    pub first_ms: Option<i64>,
    /// As `first_ms`.
    pub last_ms: Option<i64>,
}

impl Page {
    /// Whether more events were probably waiting than one call returns.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.events() >= MAX_PAGE_EVENTS
    }

    /// The same for bodies that differ in digits only, such as those of their request id.
    #[must_use]
    pub fn likeness(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for part in self
            .body
            .split(u8::is_ascii_digit)
            .filter(|part| !part.is_empty())
        {
            hasher.write(part);
        }
        hasher.finish()
    }

    /// The whole events in the body, odd ones included.
    #[must_use]
    pub fn events(&self) -> usize {
        self.count - usize::from(self.unread)
    }
}

/// Why there is no complete page, and what must be assumed about the events.
#[derive(Debug, thiserror::Error)]
#[error("fetch: {kind} ({reason}){}{}", status.map(|status| format!(", status {status}")).unwrap_or_default(),
    if message.is_empty() { String::new() } else { format!(": {message}") })]
pub struct FetchError {
    /// What became of the events.
    pub kind: FetchErrorKind,
    /// A metric label, one of [`FetchError::REASONS`].
    pub reason: &'static str,
    /// The HTTP status, if one arrived.
    pub status: Option<u16>,
    /// `Retry-After`, in either form, from now; at most an hour. A date in the past is zero.
    pub retry_after: Option<Duration>,
    /// What the far end said, without control characters and secrets, at most 200 characters. Hostile text.
    pub message: Box<str>,
    /// What Agora's support asks for.
    pub request_ids: Option<Box<RequestIds>>,
    /// The bytes that did arrive, to be stored like a page. Only where there are events in them, or may be.
    pub partial: Option<Box<Page>>,
    /// What the HTTP client said.
    #[source]
    pub source: Option<BoxError>,
}

/// What must be assumed about the events that a failed GET was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FetchErrorKind {
    /// The request did not leave: name resolution, connection or TLS failed. Nothing was deleted.
    NotSent,
    /// The far end refused to read (400, 401, 403, 404, 413, 415, 429, redirects). Nothing was deleted.
    Refused,
    /// The read may have happened. Up to a page of events may be gone, save those in [`FetchError::partial`].
    InDoubt,
}

impl FetchErrorKind {
    /// `not_sent`, `refused` or `in_doubt`, as in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FetchErrorKind::NotSent => "not_sent",
            FetchErrorKind::Refused => "refused",
            FetchErrorKind::InDoubt => "in_doubt",
        }
    }
}

impl fmt::Display for FetchErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FetchErrorKind::NotSent => "not sent",
            FetchErrorKind::Refused => "refused",
            FetchErrorKind::InDoubt => "in doubt",
        })
    }
}

impl FetchError {
    /// Every value that [`FetchError::reason`] can have, for series that exist from the start.
    pub const REASONS: [&'static str; 15] = [
        // Not sent.
        "connect",
        "dns",
        "connect_timeout",
        "request",
        // Refused.
        "unauthorized",
        "rate_limited",
        "redirect",
        "refused",
        // In doubt.
        "timeout",
        "reset",
        "cut",
        "too_large",
        "status",
        "failed",
        "unexpected",
    ];

    /// An upper bound for the events that Agora may have deleted and that are not in [`FetchError::partial`].
    ///
    /// It is the most that a call returns, less what was saved. A partial page with more events than that shows that the
    /// documented limit does not hold there; then the most that a ring stores takes its place.
    #[must_use]
    pub fn possibly_lost(&self) -> u64 {
        if self.kind != FetchErrorKind::InDoubt {
            return 0;
        }
        let saved = self.saved();
        let most = if saved > MAX_PAGE_EVENTS {
            MAX_RING_EVENTS
        } else {
            MAX_PAGE_EVENTS
        };
        most.saturating_sub(saved) as u64
    }
}

impl FetchError {
    /// The whole events that did arrive.
    #[must_use]
    pub fn saved(&self) -> usize {
        self.partial.as_ref().map_or(0, |page| page.events())
    }
}

/// The headers that Agora's support asks for, at most 128 printable characters each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestIds {
    /// `X-Request-ID`, or the body's `request_id`.
    pub request: Option<String>,
    /// `X-Resource-ID`.
    pub resource: Option<String>,
}
