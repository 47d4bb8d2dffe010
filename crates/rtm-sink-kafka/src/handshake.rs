//! Asks a broker for its certificate once more, to learn why it is refused: librdkafka does not tell.
//!
//! For `check` alone. A publish that fails would make a connection more with each of its retries, and wait for it.

use std::error::Error;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use tokio::task::spawn_blocking;

use crate::failure::{Failure, UNSURE};
use crate::options::KafkaOptions;

/// How long a broker may take to show its certificate again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The failure with its reason said clearly; of a certificate that is refused, what rustls finds wrong with it.
pub(crate) async fn explain(failure: Failure, options: &KafkaOptions) -> Failure {
    let Some(broker) = failure.refused_broker() else {
        return failure.explained();
    };
    let (broker, options) = (broker.to_owned(), options.clone());
    let why = spawn_blocking(move || ask(&broker, &options)).await;
    let why = why.ok().flatten();
    failure.explained_by(why.as_deref().unwrap_or(UNSURE))
}

/// What rustls finds wrong with the certificate of `broker`, as librdkafka names it: `ssl://host:port/id`. It sends
/// nothing but a greeting, and where it finds nothing wrong, or cannot know, it says nothing.
fn ask(broker: &str, options: &KafkaOptions) -> Option<String> {
    let (_, rest) = broker.split_once("://")?;
    let (address, _) = rest.split_once('/')?;
    let (host, _) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .ok()?
            .with_root_certificates(authorities(options)?)
            .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let address = address.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    let error = connection.complete_io(&mut stream).err()?;
    let error: &(dyn Error + 'static) = error.get_ref()?;
    match error.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            Some("its authority is not among those of ssl.ca.location".to_owned())
        }
        rustls::Error::InvalidCertificate(
            error @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
            | CertificateError::NotValidForName
            | CertificateError::NotValidForNameContext { .. }),
        ) => Some(error.to_string()),
        _ => None,
    }
}

/// Those that the options name; the system's are OpenSSL's to find.
fn authorities(options: &KafkaOptions) -> Option<RootCertStore> {
    let options = options.read().ok()?.options;
    let certificates: Result<Vec<CertificateDer<'_>>, _> =
        match (options.get("ssl.ca.location"), options.get("ssl.ca.pem")) {
            (Some(path), _) => CertificateDer::pem_file_iter(path).ok()?.collect(),
            (None, Some(pem)) => CertificateDer::pem_slice_iter(pem.as_bytes()).collect(),
            (None, None) => return None,
        };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.ok()?);
    Some(roots)
}
