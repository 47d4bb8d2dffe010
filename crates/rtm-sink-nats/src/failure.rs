//! Why a call failed.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::CreateStreamError;
use rtm_sink::{PublishErrorKind, Reason};

use crate::connection::LinkError;
use crate::reply::{Refusal, Verdict};

/// Why records were not confirmed: the source of the sink's [`rtm_sink::PublishError`].
#[derive(Debug, thiserror::Error)]
pub enum PublishFailure {
    /// There was no connection.
    #[error("not connected to nats")]
    NotConnected(#[source] Option<Arc<LinkError>>),
    /// The connection ended while records were in flight.
    #[error("the connection to nats ended{}", said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    Disconnected {
        /// The server's last words, if it had any.
        said: Option<String>,
    },
    /// Nothing was acknowledged for a while.
    #[error("nats acknowledged nothing for {} ms", _0.as_millis())]
    Timeout(Duration),
    /// Nobody answered for the subject, although the JetStream stream is, or may be, there: it has no leader just now,
    /// or was created just now.
    #[error("no jetstream answers for the subject at present")]
    NotServing,
    /// JetStream refused the record.
    #[error("jetstream refuses the record")]
    Refused(#[source] Refusal),
    /// The user may not publish, or may not receive acknowledgements.
    #[error("nats denies it: {0}")]
    Denied(String),
    /// The JetStream stream does not exist, and may not or cannot be created.
    #[error("the jetstream `{jetstream}` does not exist")]
    Missing {
        /// Its name.
        jetstream: String,
        /// Why it could not be created, if that was tried.
        #[source]
        source: Option<CreateStreamError>,
    },
    /// The JetStream stream does not store the subject.
    #[error("the jetstream `{jetstream}` does not store the subject {subject}")]
    Unbound {
        /// The JetStream stream.
        jetstream: String,
        /// The subject.
        subject: String,
    },
    /// The JetStream stream is configured not to acknowledge.
    #[error("the jetstream `{0}` acknowledges nothing (no_ack)")]
    Unacknowledged(String),
    /// JetStream is off, for the server or for the account.
    #[error("jetstream is not enabled")]
    Off,
    /// Records were rejected for good, and nothing else went wrong. The first reason.
    #[error("rejected: {0}")]
    Rejected(Reason),
}

impl PublishFailure {
    pub(crate) fn kind(&self) -> PublishErrorKind {
        match self {
            PublishFailure::NotConnected(Some(error)) if error.is_refusal() => {
                PublishErrorKind::Misconfigured
            }
            PublishFailure::NotConnected(_)
            | PublishFailure::Disconnected { .. }
            | PublishFailure::Timeout(_)
            | PublishFailure::NotServing => PublishErrorKind::Unavailable,
            PublishFailure::Refused(refusal) => match refusal.verdict() {
                Verdict::Fail(kind) => kind,
                Verdict::Reject(_) => PublishErrorKind::Rejected,
            },
            PublishFailure::Denied(_)
            | PublishFailure::Missing { .. }
            | PublishFailure::Unbound { .. }
            | PublishFailure::Unacknowledged(_)
            | PublishFailure::Off => PublishErrorKind::Misconfigured,
            PublishFailure::Rejected(_) => PublishErrorKind::Rejected,
        }
    }
}
