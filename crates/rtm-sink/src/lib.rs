//! What the bridge publishes, and the contract of whatever stores it.
//!
//! [`Sink`] has one method that every sink writes, because constructors connect, client libraries reconnect, and "returns
//! after confirmation" leaves nothing to flush. Routing, retries, tags and metrics are the caller's, written once.
//!
//! The sinks that need no broker are here: [`FileSink`] (one JSON document a line, to a file or to standard output)
//! and [`MemorySink`]. With the feature `conformance`, [`conformance`] is the suite that every sink runs.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

mod any;
#[cfg(feature = "conformance")]
pub mod conformance;
mod file;
mod health;
mod memory;

pub use any::AnySink;
pub use file::{CreateError, FileSink};
pub use health::{Health, Queue};
pub use memory::MemorySink;

/// A broker that stores records durably.
///
/// # Contract
///
/// - **Order.** Records of one topic and key that one `publish` is given, and those of later calls, are stored in the
///   order given, as far as the sink's documentation promises; the caller never has two calls in progress that hold
///   records of one topic and key.
/// - **Durability.** `Ok(())` means that the broker has confirmed every record. Nothing is confirmed that was not.
/// - **Duplicates.** A record whose outcome was [`Outcome::Unknown`] is published again with the same [`Record::id`];
///   implementations hand the id to the broker's deduplication where there is one.
/// - **Cancellation.** Dropping the future leaves every outcome unknown. Late confirmations of a dropped call never
///   confirm a record of a later one.
/// - **Closing.** [`close`](Sink::close) makes nothing durable that was not, and takes nothing back that was confirmed. It
///   ends by itself in seconds, whatever the broker does, and may be called again. Calls of `publish` that are in progress,
///   and later ones, keep this contract: they confirm what is stored, or leave it unknown as
///   [`PublishErrorKind::Unavailable`]. A sink that is dropped need not have been closed.
pub trait Sink: Send + Sync + 'static {
    /// Stores `records` in order and returns once the broker has confirmed every one.
    ///
    /// # Errors
    ///
    /// [`PublishError`] tells the outcome of each record, in the order given. Records of unknown outcome are to be
    /// published again, in order and with the same ids.
    fn publish(&self, records: &[Record]) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// How the sink is doing, at once and without asking the broker; also while calls are in progress, and after `close`.
    ///
    /// By default: up, for a sink whose calls say all that there is to say.
    fn health(&self) -> Health {
        Health::default()
    }

    /// Ends what the sink has open: connections, threads, queues.
    ///
    /// By default: nothing, for a sink that needs no more than to be dropped.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

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

/// Why `publish` did not confirm every record, and what became of each.
#[derive(Debug, thiserror::Error)]
#[error("publish: {kind}")]
pub struct PublishError {
    /// What the caller should do.
    pub kind: PublishErrorKind,
    /// One outcome for each record that was given, in that order.
    pub outcomes: Vec<Outcome>,
    /// What the client library said.
    pub source: BoxError,
}

/// Any error, as the source of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl PublishError {
    /// An error that leaves the outcome of all `count` records unknown.
    pub fn unknown(
        kind: PublishErrorKind,
        count: usize,
        source: impl Into<BoxError>,
    ) -> PublishError {
        PublishError {
            kind,
            outcomes: vec![Outcome::Unknown; count],
            source: source.into(),
        }
    }
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it, durably by its own account.
    Confirmed,
    /// The broker will never take it.
    Rejected(Reason),
    /// It may or may not be stored. Publish it again.
    Unknown,
}

/// Why a broker refuses a record for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A short code from a fixed set, fit for a metric label, such as `too_large`.
    pub code: &'static str,
    /// What the broker or the client library said.
    pub message: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// What the caller should do about a failed `publish`: there are three actions, so there are three kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublishErrorKind {
    /// Unreachable, slow, throttling. Publish the unknown ones again after a backoff.
    Unavailable,
    /// The broker will never take the rejected ones (too large, bad subject). Dead-letter them, go on.
    Rejected,
    /// The broker takes nothing like this from us (credentials, missing topic or stream). Hold, and alarm.
    Misconfigured,
}

impl fmt::Display for PublishErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PublishErrorKind::Unavailable => "the broker is unavailable",
            PublishErrorKind::Rejected => "the broker refuses records",
            PublishErrorKind::Misconfigured => "the broker refuses us",
        })
    }
}
