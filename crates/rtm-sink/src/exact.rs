//! Once and only once: records that a broker stores in one with the word of how far their journal is published.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// How much one call of [`publish_exactly`](crate::Sink::publish_exactly) may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExactLimits {
    /// Records.
    pub records: usize,
    /// Bytes of payload; one record may be larger.
    pub bytes: usize,
}

/// Whose progress it is: one sink's, in one lane of one journal. Copies of a journal have the same.
///
/// Displayed as `<journal, 32 hex digits>.<sink>.<lane>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgressKey {
    /// The random number of the journal.
    pub journal: u128,
    /// The sink's name. Two sinks of one broker are told apart by it.
    pub sink: Arc<str>,
    /// The lane, which is an App ID.
    pub lane: Arc<str>,
}

impl fmt::Display for ProgressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}.{}.{}", self.journal, self.sink, self.lane)
    }
}

/// How far a lane is published, once the records that it is stored with are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Whose it is.
    pub key: ProgressKey,
    /// What is to be known after a doubt. The sink does not look into it.
    pub value: Bytes,
}
