//! What became of records, and what the caller should do.

use std::fmt;

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
    /// Whether the sink refuses what it was given as a whole, and does not say for which record.
    pub fn is_of_the_whole(&self) -> bool {
        let is_rejected = |outcome: &Outcome| matches!(outcome, Outcome::Rejected(_));
        self.kind == PublishErrorKind::Rejected && !self.outcomes.iter().any(is_rejected)
    }

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
    /// A short code from a fixed set, fit for a metric label, such as [`Reason::TOO_LARGE`].
    pub code: &'static str,
    /// What the broker or the client library said.
    pub message: String,
}

impl Reason {
    /// The code of every refusal for size, whatever it is that is too large: a smaller record may be taken.
    pub const TOO_LARGE: &'static str = "too_large";

    /// The code of every refusal for the record's timestamp: another one may be taken.
    pub const TIMESTAMP: &'static str = "timestamp";
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
            PublishErrorKind::Unavailable => "the sink is unavailable",
            PublishErrorKind::Rejected => "the sink refuses records",
            PublishErrorKind::Misconfigured => "the sink refuses us",
        })
    }
}
