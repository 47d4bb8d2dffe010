//! What answers at a broker's address: librdkafka only says that a connection has ended.
//!
//! It sends greetings and no credentials. `check` asks every broker so, and a call that waits asks those that it waits for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::authorities;
use crate::producers::Producers;
use crate::protocol::{Protocol, Tls};

/// How long a broker may take for each step.
const STEP: Duration = Duration::from_secs(3);

/// The longest answer that is read.
const LONGEST: usize = 64 << 10;

/// Kafka's number of the request for what a broker can do.
const API_VERSIONS: i16 = 18;

/// Kafka's number of the request that begins an authentication.
const SASL_HANDSHAKE: i16 = 17;

/// Kafka's error where a listener does not authenticate.
const ILLEGAL_SASL_STATE: i16 = 34;

/// Kafka's error where a listener does not have the mechanism.
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;

/// Why the current producer cannot use what listens at `address`, a `host:port`; nothing where nothing is wrong, as far as
/// can be told without credentials. Where librdkafka `is_connected`, it has taken the broker's certificate, which rustls
/// may refuse.
pub(crate) async fn trouble(
    address: &str,
    producers: &Producers,
    is_connected: bool,
) -> Option<String> {
    let protocol = producers.protocol()?;
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let listener = Listener {
        host: host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
        port,
    };
    let asked = producers.aside(move || listener.trouble(&protocol, is_connected));
    let found = asked.await.unwrap_or_else(Some)?;
    Some(format!("{address}: {found}"))
}

/// As librdkafka takes an address: with a protocol, or without a port. Of a broker that it knows, it adds the id.
pub(crate) fn address(broker: &str) -> String {
    let (_, host) = broker.split_once("://").unwrap_or(("", broker));
    let (host, _) = host.split_once('/').unwrap_or((host, ""));
    match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:9092"),
    }
}

/// Where a broker listens.
struct Listener {
    host: String,
    port: u16,
}

impl Listener {
    /// Blocks.
    fn trouble(&self, protocol: &Protocol, is_connected: bool) -> Option<String> {
        let at = match self.find() {
            Ok(at) => at,
            Err(trouble) => return Some(trouble),
        };
        match &protocol.tls {
            Some(tls) => self.over_tls(at, protocol, tls, is_connected),
            None => self.in_the_clear(at, protocol),
        }
    }

    /// One of its addresses that takes connections.
    fn find(&self) -> Result<SocketAddr, String> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found = found.map_err(|error| format!("its name does not resolve: {error}"))?;
        let mut why = "its name has no address".to_owned();
        for at in found.take(4) {
            match TcpStream::connect_timeout(&at, STEP) {
                Ok(_) => return Ok(at),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    why = format!("no connection in {STEP:?}");
                }
                Err(error) => why = format!("no connection: {error}"),
            }
        }
        Err(why)
    }

    fn in_the_clear(&self, at: SocketAddr, protocol: &Protocol) -> Option<String> {
        let answer = open(at).and_then(|mut stream| {
            greet(&mut stream)?;
            Ok(stream)
        });
        let name = &protocol.name;
        match answer {
            Ok(mut stream) => authentication(&mut stream, protocol),
            // A listener of the other protocol is not silent: it ends the connection.
            Err(error) if is_late(&error) => Some(format!(
                "it takes connections, and does not answer in {STEP:?}"
            )),
            Err(_) if self.speaks_tls(at) => Some(format!(
                "the listener speaks TLS, security.protocol is {name}"
            )),
            Err(_) => Some("it takes connections, and does not answer as Kafka does".to_owned()),
        }
    }

    fn over_tls(
        &self,
        at: SocketAddr,
        protocol: &Protocol,
        tls: &Tls,
        is_connected: bool,
    ) -> Option<String> {
        let name = ServerName::try_from(self.host.clone()).ok()?;
        let connection = ClientConnection::new(tls.trust.clone()?, name).ok()?;
        let mut stream = StreamOwned::new(connection, open(at).ok()?);
        let error = match greet(&mut stream) {
            Ok(()) => return authentication(&mut stream, protocol),
            Err(error) => error,
        };
        if let Some(refused) = tls.refused(&error) {
            return (!is_connected)
                .then(|| format!("the broker's certificate is refused: {refused}"));
        }
        if is_late(&error) {
            return Some(format!(
                "it takes connections, and does not answer in {STEP:?}"
            ));
        }
        // What else ends a handshake, librdkafka tells: a client's certificate that is missing or refused.
        let speaks_plaintext = open(at).and_then(|mut stream| greet(&mut stream)).is_ok();
        let name = &protocol.name;
        speaks_plaintext
            .then(|| format!("the listener speaks plaintext, security.protocol is {name}"))
    }

    /// Whether the greeting of TLS is answered in TLS.
    fn speaks_tls(&self, at: SocketAddr) -> bool {
        let Ok(name) = ServerName::try_from(self.host.clone()) else {
            return false;
        };
        let Some(mut connection) =
            authorities::blind().and_then(|config| ClientConnection::new(config, name).ok())
        else {
            return false;
        };
        let asked = open(at).and_then(|mut stream| {
            connection.write_tls(&mut stream)?;
            let mut head = [0; 2];
            stream.read_exact(&mut head)?;
            Ok(head)
        });
        // A record of TLS begins with its kind, an alert or a handshake, and the major version.
        asked.is_ok_and(|[kind, version]| matches!(kind, 21 | 22) && version == 3)
    }
}

fn open(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, STEP)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    Ok(stream)
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Asks what the broker can do, as every client does first.
fn greet(stream: &mut (impl Read + Write)) -> io::Result<()> {
    exchange(stream, API_VERSIONS, 0, None).map(drop)
}

/// Whether the listener authenticates as the options say.
fn authentication(stream: &mut (impl Read + Write), protocol: &Protocol) -> Option<String> {
    let mechanism = protocol.mechanism.as_deref();
    let answer = exchange(
        stream,
        SASL_HANDSHAKE,
        1,
        Some(mechanism.unwrap_or("PLAIN")),
    )
    .ok()?;
    let error = i16::from_be_bytes(answer.get(..2)?.try_into().ok()?);
    let name = &protocol.name;
    let offered = || mechanisms(&answer).unwrap_or_default().join(", ");
    match (error, mechanism) {
        (ILLEGAL_SASL_STATE, Some(_)) => Some(format!(
            "the listener does not authenticate by SASL, security.protocol is {name}"
        )),
        (0 | UNSUPPORTED_SASL_MECHANISM, None) => Some(format!(
            "the listener asks for SASL ({}), security.protocol is {name}",
            offered()
        )),
        (UNSUPPORTED_SASL_MECHANISM, Some(mechanism)) => Some(format!(
            "the listener does not offer the SASL mechanism {mechanism}; it offers {}",
            offered()
        )),
        _ => None,
    }
}

/// The mechanisms in the answer to a handshake.
fn mechanisms(answer: &[u8]) -> Option<Vec<String>> {
    let count = i32::from_be_bytes(answer.get(2..6)?.try_into().ok()?);
    let mut rest = answer.get(6..)?;
    let mut found = Vec::new();
    for _ in 0..count.min(16) {
        let length = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
        found.push(String::from_utf8_lossy(rest.get(2..2 + length)?).into_owned());
        rest = rest.get(2 + length..)?;
    }
    Some(found)
}

/// Sends a request of Kafka's protocol, with one text as its body or none, and gives the body of the answer.
fn exchange(
    stream: &mut (impl Read + Write),
    request: i16,
    version: i16,
    text: Option<&str>,
) -> io::Result<Vec<u8>> {
    const NUMBER: i32 = 0x0072_746d;
    let mut bytes = Vec::new();
    bytes.extend(request.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(NUMBER.to_be_bytes());
    for text in ["rtm-bridge"].into_iter().chain(text) {
        let length = i16::try_from(text.len()).map_err(io::Error::other)?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    let length = i32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &bytes[..]].concat())?;
    stream.flush()?;
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let [l0, l1, l2, l3, n0, n1, n2, n3] = head;
    let length = usize::try_from(i32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    let is_kafka =
        i32::from_be_bytes([n0, n1, n2, n3]) == NUMBER && (4..=LONGEST).contains(&length);
    if !is_kafka {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

#[cfg(test)]
mod tests;
