//! A journal entry: what was known when a page was fetched, and the page's body as it came.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this layout: 1, or 2 for a page that was in flight beside others of its ring |
//! | 32 | of version 2: the [`Overlap`], its four numbers little endian |
//! | 4 | length of the tags, little endian |
//! | … | the tags: [`Tags`] as JSON |
//! | … | the body, byte for byte |
//!
//! Tags are stored with the page because the configuration may have changed by the time it is published.

use std::borrow::Cow;

use bytes::Bytes;
use rtm_source::Page;
use serde::{Deserialize, Serialize};

/// A page that was alone in flight.
const VERSION: u8 = 1;

/// A page that was not.
const VERSION_OVERLAPPING: u8 = 2;

/// Bytes of a [`Overlap`].
const OVERLAP_BYTES: usize = 32;

/// Upper bound on what [`encode`] adds to a body: names of 64 bytes and request ids of 256, escaped.
pub const OVERHEAD: usize = 8 << 10;

/// What the bridge knew of a page that the page does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags<'a> {
    /// The app's name.
    pub app: Cow<'a, str>,
    /// The App ID.
    pub app_id: Cow<'a, str>,
    /// The region that was polled.
    pub region: Cow<'a, str>,
    /// `user` or `channel`.
    pub stream: Cow<'a, str>,
    /// When the response was complete, in milliseconds since the Unix epoch.
    pub fetched_at: i64,
    /// The HTTP status.
    pub status: u16,
    /// The response's request id, of its body or else of its headers: Agora's support asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Cow<'a, str>>,
    /// Whether the response was whole.
    pub complete: bool,
}

/// What a page says of the requests that its own shared the ring with. Numbers are those of one process, for each ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// The request's number.
    pub number: u64,
    /// The first of the other requests that were in flight at its end; `u64::MAX` if none was.
    pub oldest: u64,
    /// The last request that had been sent by its end.
    pub newest: u64,
    /// When its first event happened, in milliseconds since the Unix epoch; `i64::MAX` if it does not say.
    pub first_ms: i64,
}

/// The entry for a page.
pub fn encode(app: &str, app_id: &str, page: &Page, overlap: Option<&Overlap>) -> Vec<u8> {
    let tags = Tags {
        app: app.into(),
        app_id: app_id.into(),
        region: page.ring.region.name().into(),
        stream: page.ring.stream.as_str().into(),
        fetched_at: page.fetched_at.as_millisecond(),
        status: page.status,
        request_id: page
            .request_id
            .as_deref()
            .map(|id| Cow::Borrowed(truncate(id, 256))),
        complete: page.complete,
    };
    with_tags(&tags, overlap, &page.body)
}

/// The entry for a body and what was known of it.
pub fn with_tags(tags: &Tags<'_>, overlap: Option<&Overlap>, body: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(tags).unwrap_or_default();
    let mut entry = Vec::with_capacity(5 + OVERLAP_BYTES + json.len() + body.len());
    match overlap {
        None => entry.push(VERSION),
        Some(overlap) => {
            entry.push(VERSION_OVERLAPPING);
            for number in [overlap.number, overlap.oldest, overlap.newest] {
                entry.extend_from_slice(&number.to_le_bytes());
            }
            entry.extend_from_slice(&overlap.first_ms.to_le_bytes());
        }
    }
    entry.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
    entry.extend_from_slice(&json);
    entry.extend_from_slice(body);
    entry
}

/// `text` up to `bytes`, cut between characters.
pub(crate) fn truncate(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The tags and the body of an entry; the body shares the entry's memory.
///
/// # Errors
///
/// [`EntryError`] when the entry is of a layout that this version does not know.
pub fn decode(entry: &Bytes) -> Result<(Tags<'_>, Bytes), EntryError> {
    let (&version, rest) = entry.split_first().ok_or(EntryError::Short)?;
    let rest = match version {
        VERSION => rest,
        VERSION_OVERLAPPING => rest.get(OVERLAP_BYTES..).ok_or(EntryError::Short)?,
        _ => return Err(EntryError::Version(version)),
    };
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(EntryError::Short)?;
    let (json, body) = rest
        .split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or(EntryError::Short)?;
    let tags = serde_json::from_slice(json)?;
    Ok((tags, entry.slice_ref(body)))
}

/// Which requests the page's own was in flight with; none if it was alone.
pub fn overlap(entry: &[u8]) -> Option<Overlap> {
    let (&VERSION_OVERLAPPING, rest) = entry.split_first()? else {
        return None;
    };
    let (numbers, _) = rest.split_first_chunk::<OVERLAP_BYTES>()?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let &[number, oldest, newest, first_ms] = numbers else {
        return None;
    };
    Some(Overlap {
        number: u64::from_le_bytes(number),
        oldest: u64::from_le_bytes(oldest),
        newest: u64::from_le_bytes(newest),
        first_ms: i64::from_le_bytes(first_ms),
    })
}

/// The region and the stream of an entry that can be read.
pub fn ring(entry: &Bytes) -> Option<(String, String)> {
    let (tags, _) = decode(entry).ok()?;
    Some((tags.region.into_owned(), tags.stream.into_owned()))
}

/// An entry that cannot be read. The journal's checksum held, so another version wrote it.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// It ends too soon.
    #[error("the entry is too short")]
    Short,
    /// Its layout is of another version.
    #[error("the entry has layout {0}, and this version reads up to {VERSION_OVERLAPPING}")]
    Version(u8),
    /// Its tags are not what was expected.
    #[error("the entry's tags cannot be read")]
    Tags(#[from] serde_json::Error),
}
