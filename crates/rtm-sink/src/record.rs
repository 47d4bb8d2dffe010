//! What a sink stores.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One event, or one dead letter, as a sink stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The same on every retry and restart.
    pub id: RecordId,
    /// Where it goes: a Kafka topic or a NATS subject.
    pub topic: Topic,
    /// What order is kept by; none where there is no order. Hostile text: any bytes, and an empty key is a key.
    pub key: Option<Bytes>,
    /// When the event happened, as far as that is sane.
    pub timestamp: Timestamp,
    /// Mostly empty: one header doubles what librdkafka spends on a record.
    pub headers: Headers,
    /// The document to store, unchanged.
    pub payload: Bytes,
}

/// Identifies a record for ever: the journal's epoch and position of the page, and the byte offset of the event in it.
///
/// Displayed as `<epoch, 16 hex digits>.<position>.<offset>`, which is safe in headers and subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// The random epoch of the journal that stored the page.
    pub epoch: u64,
    /// The position of the page in the journal.
    pub position: u64,
    /// The offset in bytes of the event in its page's body.
    pub offset: u32,
}

impl RecordId {
    /// As it is displayed.
    #[must_use]
    pub fn parse(text: &str) -> Option<RecordId> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next();
        Some(RecordId {
            epoch: u64::from_str_radix(next()?, 16).ok()?,
            position: next()?.parse().ok()?,
            offset: next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}.{}", self.epoch, self.position, self.offset)
    }
}

/// The name of a Kafka topic or a NATS subject. Cheap to clone; made by the router, never from raw event text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Topic {
    fn from(name: &str) -> Topic {
        Topic(Arc::from(name))
    }
}

impl From<String> for Topic {
    fn from(name: String) -> Topic {
        Topic(Arc::from(name))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Header names and values, in order.
pub type Headers = Vec<(Cow<'static, str>, Bytes)>;
