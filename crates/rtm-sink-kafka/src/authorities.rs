//! Whom TLS that is not librdkafka's trusts.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// What a connection of HTTPS needs, trusting the authorities in a file or else the system's.
pub(crate) fn trusting(file: Option<&str>) -> Option<Arc<ClientConfig>> {
    with(roots(file, None)?)
}

/// What a handshake needs that is not to succeed.
pub(crate) fn blind() -> Option<Arc<ClientConfig>> {
    with(RootCertStore::empty())
}

pub(crate) fn with(roots: RootCertStore) -> Option<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Some(Arc::new(config))
}

/// The authorities in a file, or in a text, or else the system's.
pub(crate) fn roots(location: Option<&str>, pem: Option<&str>) -> Option<RootCertStore> {
    let certificates: Vec<CertificateDer<'_>> = match (location, pem) {
        (Some(path), _) if path != "probe" => {
            let found: Result<_, _> = CertificateDer::pem_file_iter(path).ok()?.collect();
            found.ok()?
        }
        (_, Some(pem)) => {
            let found: Result<_, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            found.ok()?
        }
        _ => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    Some(roots)
}
