//! Why there is no connection, and why a call failed.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectErrorKind, rustls};
use rtm_sink::{PublishErrorKind, Reason};

use crate::api::ApiError;
use crate::credentials::CredentialsError;
use crate::reply::{Refusal, Verdict};

/// What a person can do where JetStream is off.
pub(crate) const OFF: &str =
    "enable it for the server and the account, or, where it is behind a leaf node, set `domain`";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No server accepted us.
    #[error("connect to nats")]
    Connect(#[source] async_nats::ConnectError),
    /// A server accepted us, and said nothing.
    #[error(
        "connect to nats: the server sends no greeting; one that begins with TLS (handshake_first) needs `tls.first`"
    )]
    NoGreeting(#[source] async_nats::ConnectError),
    /// No trust on either side, or no TLS on the server's.
    #[error("tls with nats: {}", explain(_0))]
    Tls(#[source] rustls::Error),
    /// The credentials could not be read.
    #[error("read the credentials for nats")]
    Credentials(#[source] CredentialsError),
    /// The server, or the network, ended the connection.
    #[error("the connection to nats ended{}", said.as_ref().map(|said| format!(": {said}")).unwrap_or_default())]
    Ended {
        /// The server's last words, if it had any.
        said: Option<String>,
    },
}

impl LinkError {
    /// Whether waiting will not help.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            LinkError::Connect(error) => {
                matches!(
                    error.kind(),
                    ConnectErrorKind::Authentication
                        | ConnectErrorKind::AuthorizationViolation
                        | ConnectErrorKind::Tls
                )
            }
            LinkError::Tls(_) | LinkError::Credentials(_) => true,
            LinkError::NoGreeting(_) | LinkError::Ended { .. } => false,
        }
    }
}

impl From<async_nats::ConnectError> for LinkError {
    fn from(error: async_nats::ConnectError) -> LinkError {
        // A handshake that failed is passed on as an I/O error.
        let source = std::error::Error::source(&error);
        let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        let inner = io.and_then(std::io::Error::get_ref);
        match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => LinkError::Tls(tls.clone()),
            None if is_silence(&error) => LinkError::NoGreeting(error),
            None => LinkError::Connect(error),
        }
    }
}

/// Whether the server took the connection and sent nothing. It ends a handshake that does not begin by itself.
fn is_silence(error: &async_nats::ConnectError) -> bool {
    let source = std::error::Error::source(error);
    let nothing = source.is_some_and(|source| source.to_string().starts_with("expected INFO"));
    nothing || error.kind() == ConnectErrorKind::TimedOut
}

/// What a person can do about it; the library's own words follow as the source.
fn explain(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription, CertificateError, Error};
    match error {
        Error::InvalidMessage(_) => {
            "the server does not speak it, or does not begin with it (`tls.first`)"
        }
        Error::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => {
                "the server's certificate is of no authority that is trusted here"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for another host name"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired, or this machine's clock is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet, or this machine's clock is wrong"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the server's certificate is not for servers: its extended key usage lacks serverAuth"
            }
            // The library has no name of its own for it.
            other if other.to_string().contains("CaUsedAsEndEntity") => {
                "the server's certificate is a CA's own (CA:TRUE), and no server's: make one with \
                 basicConstraints=CA:FALSE, or one that the CA signs"
            }
            _ => "the server's certificate is not valid",
        },
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server asks for a client certificate"
        }
        Error::AlertReceived(_) => "the server refuses the client certificate, or the handshake",
        _ => "the handshake failed",
    }
}

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
    /// or was created just now. JetStream could not be asked, where there is a source.
    #[error("no jetstream answers for the subject at present")]
    NotServing(#[source] Option<ApiError>),
    /// The progress at the JetStream stream is not the one that we know.
    #[error("the progress at the jetstream has moved: it is read again")]
    Moved,
    /// The JetStream stream has lost messages that it had acknowledged.
    #[error("the jetstream has lost messages that it had acknowledged: those are published first")]
    GoneBack,
    /// The JetStream stream cannot store records once and only once.
    #[error("the jetstream cannot store records once and only once: {0}")]
    Inexact(String),
    /// JetStream does not tell what it has.
    #[error("cannot read the progress at the jetstream")]
    Untold(#[source] ApiError),
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
        source: Option<ApiError>,
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
    #[error("jetstream is not enabled: {OFF}")]
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
            | PublishFailure::Moved
            | PublishFailure::GoneBack
            | PublishFailure::NotServing(_) => PublishErrorKind::Unavailable,
            PublishFailure::Untold(ApiError::Denied(_)) => PublishErrorKind::Misconfigured,
            PublishFailure::Untold(_) => PublishErrorKind::Unavailable,
            PublishFailure::Refused(refusal) => match refusal.verdict() {
                Verdict::Fail(kind) => kind,
                Verdict::Reject(_) => PublishErrorKind::Rejected,
            },
            PublishFailure::Denied(_)
            | PublishFailure::Inexact(_)
            | PublishFailure::Missing { .. }
            | PublishFailure::Unbound { .. }
            | PublishFailure::Unacknowledged(_)
            | PublishFailure::Off => PublishErrorKind::Misconfigured,
            PublishFailure::Rejected(_) => PublishErrorKind::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: what waiting cannot mend is told at once.
    #[test]
    fn refusals_are_told_apart() {
        let connect = |kind| LinkError::Connect(async_nats::ConnectError::new(kind));
        assert!(connect(ConnectErrorKind::AuthorizationViolation).is_refusal());
        assert!(connect(ConnectErrorKind::Tls).is_refusal());
        assert!(!connect(ConnectErrorKind::Io).is_refusal());
        assert!(!connect(ConnectErrorKind::Dns).is_refusal());
        assert!(!LinkError::Ended { said: None }.is_refusal());
    }
}
