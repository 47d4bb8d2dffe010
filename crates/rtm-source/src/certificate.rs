//! Why a server's certificate is not accepted, in words that say what to do.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use crate::BoxError;

#[derive(Debug, thiserror::Error)]
#[error("the server's certificate {said}")]
struct Refused {
    said: &'static str,
    #[source]
    source: BoxError,
}

/// `error`, said more clearly if it is about a certificate: the client's own chain ends with `UnknownIssuer` and the like.
pub(crate) fn explain(error: BoxError) -> BoxError {
    let said = match refusal(&*error) {
        None => return error,
        Some(CertificateError::UnknownIssuer) => {
            "is signed by a CA that is not trusted; a private CA is added with `ca_file`"
        }
        Some(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "has expired, or this machine's clock is wrong"
        }
        Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "is not valid yet, or this machine's clock is wrong"
        }
        Some(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "is for another host name than that of the base_url",
        Some(_) => "is not accepted",
    };
    let source = error;
    Refused { said, source }.into()
}

fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        if let Some(rustls::Error::InvalidCertificate(refusal)) = tls {
            return Some(refusal);
        }
        // An I/O error's source is that of what it wraps, and not what it wraps.
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
