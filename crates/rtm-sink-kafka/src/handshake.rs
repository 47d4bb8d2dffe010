//! Asks a broker for its certificate once more, to learn why it is refused: librdkafka does not tell.

use std::error::Error;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use tokio::task::spawn_blocking;

use crate::authorities;
use crate::failure::{Failure, UNSURE};
use crate::options::KafkaOptions;

/// How long a broker may take to show its certificate again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The failure with its reason said clearly; of a certificate that is refused, what rustls finds wrong with it.
///
/// For `check` alone. A publish that fails would make a connection more with each of its retries, and wait for it.
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
    let mut connection = ClientConnection::new(config(options)?, name).ok()?;
    let address = address.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    refused(&connection.complete_io(&mut stream).err()?)
}

/// What is wrong with the certificate for which a handshake has failed; nothing where it failed for something else.
pub(crate) fn refused(error: &io::Error) -> Option<String> {
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

/// Whether the options leave librdkafka as strict with certificates as rustls is.
pub(crate) fn is_strict(options: &KafkaOptions) -> bool {
    let is_set = |name: &str, value: &str| {
        let set = options.options.get(name);
        set.is_some_and(|set| set.eq_ignore_ascii_case(value))
    };
    !is_set("enable.ssl.certificate.verification", "false")
        && !is_set("ssl.endpoint.identification.algorithm", "none")
}

/// What a handshake as librdkafka's needs; nothing where whom to trust is OpenSSL's to find.
pub(crate) fn config(options: &KafkaOptions) -> Option<Arc<ClientConfig>> {
    authorities::with(authorities_of(options)?)
}

/// Those that the options name, or else the system's.
fn authorities_of(options: &KafkaOptions) -> Option<RootCertStore> {
    let options = options.read().ok()?.options;
    let [location, pem] = ["ssl.ca.location", "ssl.ca.pem"].map(|name| options.get(name));
    authorities::roots(location.map(String::as_str), pem.map(String::as_str))
}
