//! From options to something that can send.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Proxy, Url};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::auth::regular;
use crate::{BuildError, Region, SourceOptions};

/// The longest App ID: Agora's have 32 characters.
const MAX_APP_ID: usize = 64;

/// How long an unused connection is kept. Shorter than usual servers do (60 s and more): a request on a connection that
/// the server is just closing would be in doubt.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// The most headers of a response; Agora's have about ten, and proxies add theirs. Their bytes the client limits by itself,
/// to some 400 kB and what one more read brings.
const MAX_HEADERS: usize = 1_000;

pub(crate) fn check(options: &SourceOptions) -> Result<(), BuildError> {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let app_id = &options.app_id;
    if app_id.is_empty() || app_id.len() > MAX_APP_ID || !app_id.bytes().all(named) {
        return Err(BuildError::AppId);
    }
    if options.regions.is_empty() {
        return Err(BuildError::NoRegions);
    }
    for (i, region) in options.regions.iter().enumerate() {
        if options.regions[..i]
            .iter()
            .any(|other| other.name() == region.name())
        {
            return Err(BuildError::DuplicateRegion(region.name().to_owned()));
        }
    }
    for (option, path) in [
        ("user_path", &options.user_path),
        ("channel_path", &options.channel_path),
    ] {
        let segments = path.trim_matches('/').split('/');
        let plain = |segment: &str| {
            let dots = segment.bytes().all(|byte| byte == b'.');
            !dots && segment.bytes().all(|byte| named(byte) || byte == b'.')
        };
        if !segments.into_iter().all(plain) {
            return Err(BuildError::Path { option });
        }
    }
    for (option, zero) in [
        ("deadline", options.deadline.is_zero()),
        ("connect_timeout", options.connect_timeout.is_zero()),
        ("max_page_bytes", options.max_page_bytes == 0),
    ] {
        if zero {
            return Err(BuildError::Zero { option });
        }
    }
    Ok(())
}

/// The endpoint of one stream. `Url::join` would drop a path of the base URL.
pub(crate) fn url(region: &Region, app_id: &str, path: &str) -> Url {
    let mut url = region.base_url().clone();
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!(
        "{base}/dev/v2/project/{app_id}/{}",
        path.trim_matches('/')
    ));
    url
}

/// TLS of a client: 1.2 and 1.3 over ring, by name: nothing depends on a provider that somebody has installed, or has not.
/// The system's certificates are trusted, and those of the file.
///
/// # Errors
///
/// When the file cannot be read, or holds no certificate.
pub fn tls(extra_ca_file: Option<&Path>) -> Result<ClientConfig, BuildError> {
    let roots = roots(
        rustls_native_certs::load_native_certs().certs,
        extra_ca_file,
    )?;
    let mut tls =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| BuildError::Client(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

/// The system's certificates, or Mozilla's where the system has none, and those of the file.
///
/// reqwest's own choice, the platform's verifier, refuses to start without system certificates.
fn roots(
    system: Vec<CertificateDer<'static>>,
    extra: Option<&Path>,
) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    // Stores hold some that no verifier accepts; they are as good as missing.
    roots.add_parsable_certificates(system);
    if roots.is_empty() {
        tracing::warn!("the system has no CA certificates; those that are built in are used");
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    let Some(path) = extra else {
        return Ok(roots);
    };
    let failed = |source: crate::BoxError| BuildError::ExtraCa {
        path: path.to_owned(),
        source,
    };
    let read = regular(path).and_then(|_| std::fs::read(path));
    let text = read.map_err(|error| failed(error.into()))?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| failed(error.into()))?;
        roots
            .add(certificate)
            .map_err(|error| failed(error.into()))?;
        found += 1;
    }
    if found == 0 {
        return Err(failed("there is no certificate in it".into()));
    }
    Ok(roots)
}

/// Adds the proxy to a client; without one, the environment's are used, as everywhere.
pub(crate) fn proxied(
    proxy: Option<&str>,
) -> Result<impl FnOnce(ClientBuilder) -> ClientBuilder, BuildError> {
    let proxy = match proxy {
        None => None,
        Some(proxy) => {
            let url = Url::parse(proxy).map_err(|_| BuildError::Proxy)?;
            if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                return Err(BuildError::Proxy);
            }
            Some(Proxy::all(url).map_err(|_| BuildError::Proxy)?)
        }
    };
    Ok(|client: ClientBuilder| match proxy {
        Some(proxy) => client.proxy(proxy),
        None => client,
    })
}

pub(crate) fn client(
    options: &SourceOptions,
    tls: ClientConfig,
    proxied: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, BuildError> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(options.user_agent.as_str())
        // One request, one connection, one answer: a second attempt at anything would read, and delete, twice.
        .http1_only()
        .http1_max_headers(MAX_HEADERS)
        // What middleboxes make of headers browsers bear, and events do not hang on it: a response that is refused for
        // one is a page lost.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(options.connect_timeout.min(options.deadline))
        .pool_idle_timeout(POOL_IDLE)
        .tcp_nodelay(true);
    // After the deadline the kernel must not go on retransmitting a request that we have given up: it would be counted,
    // and read events, when the limiter no longer expects it.
    #[cfg(target_os = "linux")]
    let client = client.tcp_user_timeout(options.deadline);
    proxied(client)
        .build()
        .map_err(|error| BuildError::Client(error.without_url().into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_base_url_keeps_its_path() {
        for (base, expected) in [
            (
                "https://a.example",
                "https://a.example/dev/v2/project/app/rtm/vendor/user_events",
            ),
            (
                "https://a.example/",
                "https://a.example/dev/v2/project/app/rtm/vendor/user_events",
            ),
            (
                "http://127.0.0.1:8080/eu",
                "http://127.0.0.1:8080/eu/dev/v2/project/app/rtm/vendor/user_events",
            ),
            (
                "https://a.example/x/y/",
                "https://a.example/x/y/dev/v2/project/app/rtm/vendor/user_events",
            ),
        ] {
            let region = Region::new("r", base, false).unwrap();
            assert_eq!(
                url(&region, "app", "rtm/vendor/user_events").as_str(),
                expected
            );
            assert_eq!(
                url(&region, "app", "/rtm/vendor/user_events/").as_str(),
                expected
            );
        }
    }

    #[test]
    fn a_machine_without_certificates_has_the_built_in_ones() {
        assert!(roots(Vec::new(), None).unwrap().len() > 50);
        // Those that cannot be parsed are as good as none.
        let rubbish = vec![CertificateDer::from(vec![1, 2, 3])];
        assert!(roots(rubbish, None).unwrap().len() > 50);
        let one = webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].clone();
        assert_eq!(roots(vec![one], None).unwrap().len(), 1);
    }

    #[test]
    fn an_extra_ca_file_must_hold_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let refused = || {
            let error = roots(Vec::new(), Some(&path)).unwrap_err();
            assert!(error.to_string().contains("ca.pem"), "{error}");
        };
        refused();
        std::fs::write(&path, "nothing").unwrap();
        refused();
        std::fs::write(
            &path,
            "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        refused();
        let ca = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap();
        std::fs::write(&path, ca.cert.pem()).unwrap();
        let one = webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].clone();
        assert_eq!(roots(vec![one], Some(&path)).unwrap().len(), 2);
    }
}
