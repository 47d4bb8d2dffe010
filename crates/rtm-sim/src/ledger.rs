//! What the simulator handed out: the truth that an audit compares with.

use std::io::BufRead;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Which of Agora's two streams of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Login and logout.
    User,
    /// Join and leave.
    Channel,
}

impl Stream {
    /// Both, in the order of a region's rings.
    pub const ALL: [Stream; 2] = [Stream::User, Stream::Channel];

    /// `user` or `channel`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::User => "user",
            Stream::Channel => "channel",
        }
    }
}

/// Everything handed out so far, and what each ring's events came to.
///
/// For each ring, `generated = overwritten + handed_out + waiting`, and `handed_out` is the sum of its pages' events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The pages that had events, by ring and then by serial.
    pub pages: Vec<LedgerPage>,
    /// The rings' totals at the same moment.
    pub rings: Vec<RingStats>,
}

impl Ledger {
    /// Reads the pages of `GET /_sim/ledger`, one JSON document a line; `rings` come from `GET /_sim/stats`.
    ///
    /// # Errors
    ///
    /// [`ReadLedgerError`] on the first line that cannot be read or understood.
    pub fn from_ndjson(
        input: impl BufRead,
        rings: Vec<RingStats>,
    ) -> Result<Ledger, ReadLedgerError> {
        let mut pages = Vec::new();
        for (line, text) in input.lines().enumerate() {
            let text = text.map_err(ReadLedgerError::Io)?;
            let page = serde_json::from_str(&text).map_err(|source| ReadLedgerError::Page {
                line: line + 1,
                source,
            })?;
            pages.push(page);
        }
        Ok(Ledger { pages, rings })
    }

    /// How many events all pages hold.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.pages.iter().map(|page| page.events.len() as u64).sum()
    }
}

/// Why a ledger could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLedgerError {
    /// The input failed.
    #[error("the ledger cannot be read")]
    Io(#[source] std::io::Error),
    /// A line is not a page.
    #[error("line {line} of the ledger is not a page")]
    Page {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The events that one read deleted, and what became of the response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The App ID that was read.
    pub app_id: String,
    /// The region that was read.
    pub region: String,
    /// The stream that was read.
    pub stream: Stream,
    /// Unique; in the header `X-Request-ID` and in the body.
    pub request_id: String,
    /// Counts the ring's pages from 0, in the order in which they were deleted.
    pub serial: u64,
    /// When the events were deleted, in milliseconds since the Unix epoch.
    pub deleted_at_ms: u64,
    /// When the response was begun, in milliseconds since the Unix epoch; none if it has not been, or never was.
    pub at_ms: Option<u64>,
    /// The response's status; none if the connection was closed without one.
    pub status: Option<u16>,
    /// The events as they stood in the body, in order: raw JSON text.
    #[serde(with = "shared")]
    pub events: Arc<Vec<Box<str>>>,
    /// Where in the body the first event stands, in bytes. The others follow, with one comma between two.
    pub first_event_at: usize,
    /// What became of the response. Only final once `finished_at_ms` is there: a client may go away before.
    pub fate: Fate,
    /// When the last byte that was meant to be sent had been handed to the socket, in milliseconds since the Unix
    /// epoch. None while it is under way, and for good if the client went away before.
    pub finished_at_ms: Option<u64>,
}

/// What became of a response whose events were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fate {
    /// All of it is sent.
    Whole,
    /// The connection ends in the middle of the body.
    Cut {
        /// How many bytes of the body were sent.
        bytes_sent: usize,
        /// How many events were sent so that a reader can tell that they are whole.
        whole_events_sent: usize,
    },
    /// The response carries no events, though they are deleted.
    Unsent,
}

impl LedgerPage {
    /// The ranges of the body where the events stand, in order.
    pub fn spans(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        spans(&self.events, self.first_event_at)
    }
}

/// Reads and writes shared events as a plain list: serde's own support for [`Arc`] is a feature that every crate of the
/// workspace would be built with.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        events: &Arc<Vec<Box<str>>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        events.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Vec<Box<str>>>, D::Error> {
        Vec::deserialize(deserializer).map(Arc::new)
    }
}

/// The ranges of a body where `events` stand if the first is at `first_event_at` and one comma is between two.
pub(crate) fn spans(
    events: &[Box<str>],
    first_event_at: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    events.iter().scan(first_event_at, |start, event| {
        let span = *start..*start + event.len();
        *start = span.end + 1;
        Some(span)
    })
}

/// The fate of a body cut after `bytes_sent`.
///
/// An object, an array or a string ends itself; the end of a number shows only in the byte after it.
pub(crate) fn cut(events: &[Box<str>], first_event_at: usize, bytes_sent: usize) -> Fate {
    let whole = spans(events, first_event_at)
        .zip(events)
        .take_while(|(span, event)| {
            let ends_itself = event.ends_with(['}', ']', '"']);
            span.end + usize::from(!ends_itself) <= bytes_sent
        });
    Fate::Cut {
        bytes_sent,
        whole_events_sent: whole.count(),
    }
}

/// Counts of the whole simulator, at one moment for each App ID.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SimStats {
    /// Whether events arrive.
    pub generating: bool,
    /// One for each App ID.
    pub apps: Vec<AppStats>,
    /// One for each ring.
    pub rings: Vec<RingStats>,
}

/// Counts of one App ID.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AppStats {
    /// The App ID.
    pub app_id: String,
    /// Requests to its endpoints, refused and failed ones included.
    pub requests: u64,
    /// Requests over the limit of 10 in a sliding second. Statuses of 429 that are faults are not counted here.
    pub refused_429: u64,
    /// Requests with wrong credentials, or none.
    pub unauthorized: u64,
    /// Requests that met a fault, delays aside.
    pub faults: u64,
    /// The most requests seen in any sliding second, by the simulator's clock, refused ones included.
    pub max_in_second: u64,
}

/// Counts of one ring. All are of events, `pages` aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RingStats {
    /// The App ID that it belongs to.
    pub app_id: String,
    /// Its region.
    pub region: String,
    /// Its stream.
    pub stream: Stream,
    /// Arrived.
    pub generated: u64,
    /// Replaced by newer ones before anyone read them.
    pub overwritten: u64,
    /// Deleted by a read, whatever became of the response.
    pub handed_out: u64,
    /// Of those handed out: not sent whole, as the response was cut or the client went away.
    pub cut: u64,
    /// Of those handed out: deleted by a read whose response carried none.
    pub unsent: u64,
    /// There to be read.
    pub waiting: u64,
    /// Pages in the ledger.
    pub pages: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_tells_whole_events_from_possible_ones() {
        // The body is ____{"a":1},42,true]} and the first event is at 4.
        let events: Vec<Box<str>> = vec![r#"{"a":1}"#.into(), "42".into(), "true".into()];
        let whole = |bytes| match cut(&events, 4, bytes) {
            Fate::Cut {
                whole_events_sent, ..
            } => whole_events_sent,
            fate => panic!("{fate:?}"),
        };
        assert_eq!(
            [0, 10, 11, 12, 14, 15, 19, 20].map(whole),
            [0, 0, 1, 1, 1, 2, 2, 3]
        );
    }

    #[test]
    fn a_page_reads_back_as_it_was() {
        let page = LedgerPage {
            app_id: "a".into(),
            region: "r".into(),
            stream: Stream::Channel,
            request_id: "1_2".into(),
            serial: 3,
            deleted_at_ms: 4,
            at_ms: None,
            status: Some(500),
            events: Arc::new(vec![r#"{"k":"\u0000 \"ü"}"#.into(), "7".into()]),
            first_event_at: 5,
            fate: Fate::Cut {
                bytes_sent: 1,
                whole_events_sent: 0,
            },
            finished_at_ms: Some(9),
        };
        let line = serde_json::to_string(&page).unwrap();
        let ledger =
            Ledger::from_ndjson(format!("{line}\n{line}\n").as_bytes(), Vec::new()).unwrap();
        assert_eq!(ledger.pages, [page.clone(), page]);
        let error =
            Ledger::from_ndjson(format!("{line}\n{{}}\n").as_bytes(), Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the ledger is not a page");
    }
}
