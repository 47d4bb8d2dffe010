//! Why TLS is not opened, a server's certificate above all, in words that say what to do.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use crate::BoxError;

/// What is wrong with TLS, in words; what the library says follows as the source.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
struct Refused {
    said: String,
    #[source]
    source: BoxError,
}

/// `error`, said more clearly if it is about TLS: the client's own chain ends with `UnknownIssuer` and the like.
pub(crate) fn explain(error: BoxError) -> BoxError {
    match said(&*error, "`ca_file`") {
        Some(said) => Refused {
            said,
            source: error,
        }
        .into(),
        None => error,
    }
}

/// What is wrong, if it is about TLS: a sentence without a full stop. `ca` is what adds a private CA.
#[must_use]
pub fn said(error: &(dyn Error + 'static), ca: &str) -> Option<String> {
    match refusal(error)? {
        rustls::Error::InvalidCertificate(refusal) => {
            Some(format!("the server's certificate {}", fault(refusal, ca)))
        }
        rustls::Error::InvalidMessage(_) => Some("the server does not speak TLS".to_owned()),
        _ => None,
    }
}

fn fault(refusal: &CertificateError, ca: &str) -> String {
    let fault = match refusal {
        CertificateError::UnknownIssuer => {
            return format!(
                "is signed by a CA that is not trusted; a private CA is added with {ca}"
            );
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired, or this machine's clock is wrong"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet, or this machine's clock is wrong"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is for another host name than that of the URL"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for servers: its extended key usage lacks serverAuth"
        }
        CertificateError::BadEncoding => "cannot be read, or is of X.509 version 1",
        // The library has no name of its own for it.
        other if other.to_string().contains("CaUsedAsEndEntity") => {
            "is a CA's own (CA:TRUE), and no server's: make one with basicConstraints=CA:FALSE, or one that the CA signs"
        }
        _ => "is not accepted",
    };
    fault.to_owned()
}

fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        if tls.is_some() {
            return tls;
        }
        // An I/O error's source is that of what it wraps, and not what it wraps.
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
