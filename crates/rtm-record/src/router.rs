//! From a journal entry to records: decode, tag, route.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use rtm_journal::Entry;
use rtm_sink::{Headers, Reason, Record, Timestamp, Topic};
use rtm_source::Event;

use crate::entry::{self, EntryError, Tags};
use crate::format::dead_letter::dead_letter;
use crate::format::envelope::Envelope;
use crate::format::{Format, PageContext, PageHeaders};
use crate::key::{EventKey, KeyBy, KeyHash};
use crate::template::{STATIC, Template, Variable};
use crate::token::escape_token;

/// An entry's records are taken so many at a time at the most: more than any page of Agora's has, and a hostile body of
/// 2 MiB has a million, each a dead letter of a thousand bytes.
pub const SLICE: usize = rtm_source::MAX_RING_EVENTS;

/// What the region and the stream of an entry are called that cannot be read.
pub const UNKNOWN: &str = "unknown";

/// How one sink wants its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    /// Topics or subjects of events.
    pub topic: Template,
    /// Topics or subjects of dead letters.
    pub dead_letters: Template,
    /// What records are keyed by.
    pub key: KeyBy,
    /// Whether the tags also go into headers.
    pub headers: bool,
}

/// Makes records for one sink. Remembers the names of topics, so that they are formatted once.
#[derive(Debug)]
pub struct Router {
    routes: Routes,
    format: Box<dyn Format>,
    is_replaying: bool,
    topics: HashMap<(String, String, String), (Topic, Topic)>,
}

/// Whose events a lane of the journal holds.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The app's name.
    pub app: &'a str,
    /// The App ID.
    pub app_id: &'a str,
}

impl Owner<'_> {
    /// The tags of an entry; what is known without them where they cannot be read.
    fn tags<'a>(&'a self, journaled: &'a Entry) -> Tags<'a> {
        let time = jiff::Timestamp::try_from(journaled.appended_at);
        let read = entry::decode(&journaled.bytes);
        read.map_or_else(
            |_| Tags {
                app: Cow::Borrowed(self.app),
                app_id: Cow::Borrowed(self.app_id),
                region: Cow::Borrowed(UNKNOWN),
                stream: Cow::Borrowed(UNKNOWN),
                fetched_at: time.map_or(0, |time| time.as_millisecond()),
                status: 0,
                request_id: None,
                complete: false,
            },
            |(tags, _)| tags,
        )
    }
}

/// What a journal entry becomes.
#[derive(Debug)]
pub struct PreparedPage {
    /// The region that it was read from.
    pub region: String,
    /// When, in milliseconds since the Unix epoch.
    pub fetched_ms: i64,
    /// Its events and its rejects, in the page's order.
    pub prepared: Vec<Prepared>,
}

/// One event of a journal entry, or one reject, ready to be published.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What a sink is given.
    pub record: Record,
    /// The event's `ms`, for its age; none for dead letters and for events that give no time, or one that cannot be.
    pub ms: Option<i64>,
    /// Why it is a dead letter; none for events.
    pub dead: Option<&'static str>,
    /// What copies of the event have in common; none for dead letters, and for events without a time, of which a user may
    /// have any number that look the same.
    pub event_key: Option<EventKey>,
    /// It is a copy of what another region gave before, and copies are not published.
    pub is_dropped: bool,
}

impl Prepared {
    fn dead_letter(record: Record, why: &'static str) -> Prepared {
        Prepared {
            record,
            ms: None,
            dead: Some(why),
            event_key: None,
            is_dropped: false,
        }
    }
}

impl Router {
    /// A router for one lane and sink.
    pub fn new(routes: Routes) -> Router {
        Router {
            routes,
            format: Box::new(Envelope::default()),
            is_replaying: false,
            topics: HashMap::new(),
        }
    }

    /// As [`Router::new`], for records that an operator publishes again: they say so, in the payload and, where there are
    /// any, in the headers.
    pub fn replaying(routes: Routes) -> Router {
        Router {
            is_replaying: true,
            ..Router::new(routes)
        }
    }

    /// The records of a journal entry, in the page's order: one for each event, one dead letter for each reject. Those of
    /// a `range` only; to be taken a [`SLICE`] at a time.
    ///
    /// # Errors
    ///
    /// [`EntryError`] for an entry of another version. One odd event is a dead letter, and never an error.
    pub fn page(
        &mut self,
        journaled: &Entry,
        range: Range<usize>,
    ) -> Result<PreparedPage, EntryError> {
        let mut prepared = Vec::with_capacity(range.len().min(journaled.count as usize));
        let tags = self.each(journaled, range, |_, one| prepared.push(one))?;
        Ok(PreparedPage {
            region: tags.region.into_owned(),
            fetched_ms: tags.fetched_at,
            prepared,
        })
    }

    /// As [`Router::page`], one after the other: a record is large, and a thousand of them are not put aside to be moved
    /// once more. Nothing is given before an error.
    ///
    /// # Errors
    ///
    /// As [`Router::page`].
    pub fn each<'a>(
        &mut self,
        journaled: &'a Entry,
        range: Range<usize>,
        mut take: impl FnMut(&Tags<'_>, Prepared),
    ) -> Result<Tags<'a>, EntryError> {
        let (tags, body) = entry::decode(&journaled.bytes)?;
        let (topic, dead_letters) = self.topics(&tags);
        let Router { routes, format, .. } = self;
        let dynamic = (!routes.topic.uses_only(STATIC)).then_some(&routes.topic);
        let page = PageContext::new(&tags, journaled, self.is_replaying);
        let headers = routes.headers.then(|| PageHeaders::new(&page));
        let mut key_hash = KeyHash::new(&tags);
        format.begin(&page, range.len().min(journaled.count as usize), body.len());
        rtm_source::decode_each(&body, range, |item| {
            let prepared = match item {
                Ok(event) => {
                    let topic = match dynamic {
                        None => topic.clone(),
                        Some(template) => Topic::from(subject(template, &tags, &event)),
                    };
                    let event_key = key_hash.key(&event);
                    let ms = sane(event.ms, tags.fetched_at);
                    let id = page.id(event.offset);
                    let record = Record {
                        id,
                        topic,
                        key: routes.key.of(&event, &tags).map(|key| share(&body, key)),
                        timestamp: Timestamp(ms.unwrap_or(tags.fetched_at)),
                        headers: headers
                            .as_ref()
                            .map_or_else(Headers::new, |headers| headers.of(id, Some(&event_key))),
                        payload: format.event(&event, &event_key),
                    };
                    Prepared {
                        record,
                        ms,
                        dead: None,
                        event_key: event.ms.map(|_| event_key),
                        is_dropped: false,
                    }
                }
                Err(reject) => {
                    let why = Reason {
                        code: reject.reason,
                        message: reject.message,
                    };
                    let (id, topic) = (page.id(reject.offset), dead_letters.clone());
                    let letter = dead_letter(&page, id, topic, &why, reject.raw);
                    Prepared::dead_letter(letter, reject.reason)
                }
            };
            take(&tags, prepared);
        });
        Ok(tags)
    }

    /// What a journal entry holds, by key, without making records: for an entry that is only read again to know it.
    ///
    /// # Errors
    ///
    /// As [`Router::page`].
    pub fn keys(journaled: &Entry) -> Result<(String, i64, Vec<EventKey>), EntryError> {
        let (tags, body) = entry::decode(&journaled.bytes)?;
        let mut key_hash = KeyHash::new(&tags);
        let mut keys = Vec::with_capacity(SLICE.min(journaled.count as usize));
        rtm_source::decode_each(&body, 0..usize::MAX, |item| {
            if let Ok(event) = item
                && event.ms.is_some()
            {
                keys.push(key_hash.key(&event));
            }
        });
        Ok((tags.region.into_owned(), tags.fetched_at, keys))
    }

    /// The dead letter for a record that the broker refused: its payload, the reason, and the same id. What is refused in
    /// its turn gives way to [`instead`](crate::instead).
    ///
    /// # Errors
    ///
    /// As [`Router::page`].
    pub fn refused(
        &mut self,
        journaled: &Entry,
        record: &Record,
        why: &Reason,
    ) -> Result<Record, EntryError> {
        let (tags, _) = entry::decode(&journaled.bytes)?;
        let (_, topic) = self.topics(&tags);
        let page = PageContext::new(&tags, journaled, self.is_replaying);
        let raw = &record.payload;
        Ok(dead_letter(&page, record.id, topic, why, raw))
    }

    /// The dead letter for a whole entry, because it cannot be read. Where not even its tags can be, it goes where those of
    /// `owner` go: whose lane the entry is in.
    pub fn whole(&mut self, journaled: &Entry, owner: Owner<'_>, why: &Reason) -> Prepared {
        let tags = owner.tags(journaled);
        let (_, topic) = self.topics(&tags);
        let page = PageContext::new(&tags, journaled, self.is_replaying);
        let letter = dead_letter(&page, page.id(0), topic, why, &journaled.bytes);
        Prepared::dead_letter(letter, why.code)
    }

    /// Where the dead letters of an entry go that is in the lane of `owner`.
    pub fn dead_letters_of(&mut self, journaled: &Entry, owner: Owner<'_>) -> Topic {
        self.topics(&owner.tags(journaled)).1
    }

    /// Whether configuration alone decides where events go.
    pub fn has_fixed_topics(&self) -> bool {
        self.routes.topic.uses_only(STATIC)
    }

    /// The topics of events and of dead letters; of events only where the template names no part of the event.
    fn topics(&mut self, tags: &Tags<'_>) -> (Topic, Topic) {
        let known = (
            tags.app.to_string(),
            tags.region.to_string(),
            tags.stream.to_string(),
        );
        let routes = &self.routes;
        self.topics
            .entry(known)
            .or_insert_with(|| {
                let render = |template: &Template| {
                    Topic::from(template.render(|variable, text| static_part(variable, tags, text)))
                };
                (render(&routes.topic), render(&routes.dead_letters))
            })
            .clone()
    }
}

/// What a template's variable stands for where the page alone decides.
fn static_part(variable: Variable, tags: &Tags<'_>, text: &mut String) {
    match variable {
        Variable::App => text.push_str(&tags.app),
        Variable::AppId => text.push_str(&tags.app_id),
        Variable::Region => text.push_str(&tags.region),
        Variable::Stream => text.push_str(&tags.stream),
        Variable::Type | Variable::UserId | Variable::ChannelId => {}
    }
}

/// A subject that names parts of the event, each escaped: an id can never add a token or a wildcard.
fn subject(template: &Template, tags: &Tags<'_>, event: &Event<'_>) -> String {
    template.render(|variable, text| match variable {
        Variable::Type => text.push_str(&escape_token(&event.kind)),
        Variable::UserId => text.push_str(&escape_token(&event.user_id)),
        Variable::ChannelId => text.push_str(&escape_token(
            event.channel_id.as_deref().unwrap_or_default(),
        )),
        other => static_part(other, tags, text),
    })
}

/// The event's `ms` where it is sane: it is hostile input. Brokers refuse whole batches with a timestamp over an hour
/// ahead, and delete early what claims to be old; and one such age would be more than all others together.
fn sane(ms: Option<i64>, fetched_at: i64) -> Option<i64> {
    const AHEAD: i64 = 10 * 60 * 1000;
    const BEHIND: i64 = 7 * 24 * 60 * 60 * 1000;
    let earliest = fetched_at.saturating_sub(BEHIND);
    let latest = fetched_at.saturating_add(AHEAD);
    ms.filter(|ms| (earliest..=latest).contains(ms))
}

/// `text` within `body` without a copy, or a copy where it had to be unescaped.
fn share(body: &Bytes, text: &str) -> Bytes {
    let (of_body, of_text) = (body.as_ptr_range(), text.as_bytes().as_ptr_range());
    match of_body.contains(&of_text.start) && of_text.end <= of_body.end {
        true => body.slice_ref(text.as_bytes()),
        false => Bytes::copy_from_slice(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests;
