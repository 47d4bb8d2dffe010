//! What records look like on the wire: what a format is, and what all records of a page have in common.
//!
//! | module | what |
//! |---|---|
//! | [`envelope`] | the payload of an event as JSON |
//! | [`dead_letter`] | the payload of what is no event, or is refused: JSON in every format |

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp as Time;
use rtm_journal::{Entry, Epoch, Position};
use rtm_sink::{Headers, RecordId};
use rtm_source::Event;

use crate::entry::Tags;
use crate::key::{EventKey, hex_key};

pub(crate) mod dead_letter;
pub mod envelope;

/// How a sink wants the payloads of its events. Dead letters are JSON in every format.
///
/// There is one for each lane and sink: it keeps what the events of one page share. A page is begun once, before its
/// first event, and a page that is begun ends the one before.
pub trait Format: std::fmt::Debug + Send + Sync {
    /// Begins a page of about `events` events, whose body has `bytes` bytes.
    fn begin(&mut self, page: &PageContext<'_>, events: usize, bytes: usize);

    /// The payload of one event of the page.
    fn event(&mut self, event: &Event<'_>, event_key: &EventKey) -> Bytes;
}

/// What all records of one journal entry have in common.
#[derive(Debug)]
pub struct PageContext<'a> {
    /// What was known of the page when it was fetched.
    pub tags: &'a Tags<'a>,
    /// The journal's epoch when the entry was stored: the first part of its records' ids.
    pub epoch: Epoch,
    /// The entry's position in the journal: the second part of its records' ids.
    pub position: Position,
    /// Whether an operator publishes the page again.
    pub is_replayed: bool,
    /// When the page was fetched, as RFC 3339.
    pub fetched_at: Bytes,
}

impl<'a> PageContext<'a> {
    pub(crate) fn new(tags: &'a Tags<'a>, entry: &Entry, is_replayed: bool) -> PageContext<'a> {
        PageContext {
            tags,
            epoch: entry.epoch,
            position: entry.position,
            is_replayed,
            fetched_at: Bytes::from(format_time(tags.fetched_at).unwrap_or_default()),
        }
    }

    /// The id of the record of the event at `offset` in the page.
    pub fn id(&self, offset: u32) -> RecordId {
        RecordId {
            epoch: self.epoch.0,
            position: self.position.0,
            offset,
        }
    }

    /// As text, for a payload.
    pub(crate) fn fetched_at(&self) -> &str {
        std::str::from_utf8(&self.fetched_at).unwrap_or_default()
    }
}

/// The id of the record that has this payload: of an event, or of a dead letter.
#[must_use]
pub fn id_of(payload: &[u8]) -> Option<RecordId> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let named: Named<'_> = serde_json::from_slice(payload).ok()?;
    RecordId::parse(&named.id)
}

/// The tags of a page as headers, made once for all of its records.
pub(crate) struct PageHeaders {
    tags: [(Cow<'static, str>, Bytes); 4],
    is_replayed: bool,
}

impl PageHeaders {
    pub(crate) fn new(page: &PageContext<'_>) -> PageHeaders {
        let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let tags = [
            ("rtm-app", copy(&page.tags.app)),
            ("rtm-region", copy(&page.tags.region)),
            ("rtm-stream", copy(&page.tags.stream)),
            ("rtm-fetched-at", page.fetched_at.clone()),
        ];
        PageHeaders {
            tags: tags.map(|(name, value)| (Cow::Borrowed(name), value)),
            is_replayed: page.is_replayed,
        }
    }

    /// The headers of one record; a dead letter has no event key.
    pub(crate) fn of(&self, id: RecordId, event_key: Option<&EventKey>) -> Headers {
        let mut headers = Headers::with_capacity(8);
        headers.push((Cow::Borrowed("rtm-id"), Bytes::from(id.to_string())));
        headers.extend_from_slice(&self.tags);
        let mut add = |name, value| headers.push((Cow::Borrowed(name), value));
        if let Some(event_key) = event_key {
            add("rtm-event-key", Bytes::copy_from_slice(&hex_key(event_key)));
        }
        if self.is_replayed {
            add("rtm-replayed", Bytes::from_static(b"true"));
        }
        headers
    }
}

/// RFC 3339 with milliseconds; none for what is no time of the years that RFC 3339 knows.
fn format_time(ms: i64) -> Option<String> {
    let time = Time::from_millisecond(ms).ok()?;
    (0..=253_402_300_799_999)
        .contains(&ms)
        .then(|| format!("{time:.3}"))
}
