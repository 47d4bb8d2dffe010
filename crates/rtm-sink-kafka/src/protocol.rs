use std::error::Error;
use std::io;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rustls::CertificateError;

use crate::authorities;

/// What the options of a producer say of its connections.
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) tls: Option<Tls>,
    pub(crate) mechanism: Option<String>,
}

/// How a producer judges certificates.
pub(crate) struct Tls {
    /// Whom it trusts; nothing where that is OpenSSL's to find.
    pub(crate) trust: Option<Arc<rustls::ClientConfig>>,
    /// It takes every certificate.
    is_blind: bool,
    /// It takes another host's certificate.
    takes_any_name: bool,
}

impl Protocol {
    /// Reads the authorities' file once, with the producer's making: no later question waits for a file.
    pub(crate) fn of(config: &ClientConfig) -> Protocol {
        let name = config.get("security.protocol").unwrap_or("plaintext");
        let name = name.to_ascii_uppercase();
        let mechanism = config.get("sasl.mechanism");
        let mechanism = mechanism.or_else(|| config.get("sasl.mechanisms"));
        Protocol {
            tls: name.ends_with("SSL").then(|| Tls::of(config)),
            mechanism: name
                .starts_with("SASL")
                .then(|| mechanism.unwrap_or("GSSAPI").to_owned()),
            name,
        }
    }
}

impl Tls {
    fn of(config: &ClientConfig) -> Tls {
        let is_set = |name: &str, value: &str| {
            let set = config.get(name);
            set.is_some_and(|set| set.eq_ignore_ascii_case(value))
        };
        let roots = authorities::roots(config.get("ssl.ca.location"), config.get("ssl.ca.pem"));
        Tls {
            trust: roots.and_then(authorities::with),
            is_blind: is_set("enable.ssl.certificate.verification", "false"),
            takes_any_name: is_set("ssl.endpoint.identification.algorithm", "none"),
        }
    }

    /// What is wrong with the certificate for which a handshake has failed; nothing where it failed for something else, or
    /// where librdkafka takes the certificate nevertheless.
    pub(crate) fn refused(&self, error: &io::Error) -> Option<String> {
        use CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
            NotValidYetContext, UnknownIssuer,
        };
        let error: &(dyn Error + 'static) = error.get_ref()?;
        let rustls::Error::InvalidCertificate(error) = error.downcast_ref()? else {
            return None;
        };
        match error {
            _ if self.is_blind => None,
            UnknownIssuer => Some("its authority is not among those of ssl.ca.location".to_owned()),
            NotValidForName | NotValidForNameContext { .. } if self.takes_any_name => None,
            NotValidForName
            | NotValidForNameContext { .. }
            | Expired
            | ExpiredContext { .. }
            | NotValidYet
            | NotValidYetContext { .. } => Some(error.to_string()),
            _ => None,
        }
    }
}
