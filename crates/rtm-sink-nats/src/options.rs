//! What a sink is made from.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::ServerAddr;
use rtm_sink::regular;

use crate::credentials::{CredentialsError, NatsAuth};

/// Most records in flight that [`NatsOptions::in_flight`] may ask for: a JetStream stream refuses what arrives while
/// 10,000 of its messages wait (`max_buffered_msgs`), and the sink may not be its only publisher.
pub const MAX_IN_FLIGHT: usize = 8000;

/// How to reach JetStream, and how to publish to it.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Server URLs, `nats://host:port` or `tls://host:port`; the names are resolved again for each connection. Servers
    /// that a cluster announces are not used: name several here, or a name with several addresses.
    pub servers: Vec<String>,
    /// The JetStream stream that stores the subjects.
    pub stream: String,
    /// Whether published records demand it (`Nats-Expected-Stream`), so that a subject that is bound elsewhere is not
    /// stored elsewhere. Default true. A server before 2.11.5 keeps records with it out of the JetStream stream's mirrors.
    pub expect_stream: bool,
    /// The JetStream domain that the JetStream stream is in, where that is not the servers' own: behind a leaf node.
    /// Default: the servers' own.
    pub domain: Option<String>,
    /// The prefix of JetStream's interface, where an account imports it under another name than `$JS.API`. Not with
    /// `domain`, which has one of its own. Default: none.
    pub api_prefix: Option<String>,
    /// Who we are. Default: nobody.
    pub auth: NatsAuth,
    /// TLS. Default: as the URL's scheme and the server say, with the system's certificate authorities.
    pub tls: NatsTls,
    /// Records in flight at most, over all calls; 1 to [`MAX_IN_FLIGHT`]. Default 4,000.
    pub in_flight: usize,
    /// Publishes each page as an atomic batch, where the server (2.12 and later) and the JetStream stream
    /// (`allow_atomic`) take them; else, and where false, each record has its own acknowledgement. Default true. A
    /// JetStream stream that the sink creates takes them if this is true and the server can.
    pub atomic_batches: bool,
    /// Stores records once and only once, with their progress under this subject: see [`crate::exact`]. `{journal}`,
    /// `{sink}` and `{app_id}` in it stand for whose it is, and the JetStream stream stores what it stands for. Default: none, at least once.
    pub progress_subject: Option<String>,
    /// With `progress_subject`, whether records have an id for the server's deduplication (`Nats-Msg-Id`) all the same: some
    /// consumers go by it. Without it they always have. Default false, which costs the server less memory.
    pub message_ids: bool,
    /// Whether it is looked for whether the JetStream stream has gone back behind what it had acknowledged, as a power
    /// failure makes it: see [`rtm_sink::Sink::ground`]. Default true. It needs the right to ask for the JetStream stream's
    /// information; without that nothing is told.
    pub looks_back: bool,
    /// How long nothing may be acknowledged, while something is awaited, before a call gives up. Also how long a call
    /// waits for a connection. Default 5 s. Must be well above what one acknowledgement takes: a slow server is waited
    /// for as long as they come in, but below that nothing would ever count as confirmed.
    pub ack_timeout: Duration,
    /// Creates the JetStream stream where it is missing; one that exists is left as it is. Default: never.
    pub create_stream: Option<StreamSpec>,
    /// What the server lists the connection as. Default `rtm-bridge`.
    pub name: String,
    /// What follows the record's id in `Nats-Msg-Id`, for records that are to be stored again though the server may still
    /// know them. Default nothing.
    pub id_suffix: String,
    /// Under which subject acknowledgements come back, for users who may not subscribe to `_INBOX.>`. Default `_INBOX`.
    pub inbox_prefix: String,
}

impl NatsOptions {
    /// The defaults, for these servers and this JetStream stream.
    #[must_use]
    pub fn new(servers: Vec<String>, stream: impl Into<String>) -> NatsOptions {
        NatsOptions {
            servers,
            stream: stream.into(),
            expect_stream: true,
            domain: None,
            api_prefix: None,
            auth: NatsAuth::None,
            tls: NatsTls::default(),
            in_flight: 4000,
            atomic_batches: true,
            progress_subject: None,
            message_ids: false,
            looks_back: true,
            ack_timeout: Duration::from_secs(5),
            create_stream: None,
            name: "rtm-bridge".to_owned(),
            id_suffix: String::new(),
            inbox_prefix: "_INBOX".to_owned(),
        }
    }
}

/// TLS, beyond what the URL says. PEM files, read again for each connection.
#[derive(Debug, Clone, Default)]
pub struct NatsTls {
    /// Refuse a server without TLS. `tls://` in the URL says the same for that server.
    pub required: bool,
    /// Begin with TLS, as a server with `handshake_first` demands; others do not understand it.
    pub first: bool,
    /// Certificate authorities to trust *instead of* the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The client's key. Needs `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// A JetStream stream to create.
#[derive(Debug, Clone)]
pub struct StreamSpec {
    /// What it stores. [`widen`](crate::widen) makes a filter of a template's subject.
    pub subjects: Vec<String>,
    /// Bound on its size, past which the oldest messages go. Default: none.
    pub max_bytes: Option<u64>,
    /// Bound on a message's age. Default: none.
    pub max_age: Option<Duration>,
    /// Copies kept, 1 to 5. Default 1.
    pub replicas: usize,
    /// How long the server remembers record ids: what is published again later is stored again. Default 2 minutes,
    /// the server's own; costs the server's memory.
    pub duplicate_window: Duration,
}

impl StreamSpec {
    /// The defaults, for these subjects.
    #[must_use]
    pub fn new(subjects: Vec<String>) -> StreamSpec {
        StreamSpec {
            subjects,
            max_bytes: None,
            max_age: None,
            replicas: 1,
            duplicate_window: Duration::from_secs(120),
        }
    }
}

/// Why options cannot make a sink. No server was asked: one that is away is waited for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server is named.
    #[error("no server is named")]
    NoServer,
    /// Not a server URL.
    #[error("`{server}` is not a server URL such as nats://host:4222")]
    Server {
        /// As configured, unless it held a password.
        server: String,
        /// What the client library said.
        #[source]
        source: Option<io::Error>,
    },
    /// A URL with a user or a password, which would be printed in logs. Credentials belong into [`NatsOptions::auth`].
    #[error(
        "the URL of server {host} holds credentials, which belong into the sink's authentication"
    )]
    CredentialsInUrl {
        /// The host alone.
        host: String,
    },
    /// Not a name for a JetStream stream.
    #[error("`{0}` is not a name for a JetStream stream: no white space and none of . * > / \\")]
    StreamName(String),
    /// A number out of its range, or half of a pair.
    #[error("{0}")]
    Option(&'static str),
    /// A secret is missing or unusable.
    #[error("credentials")]
    Credentials(#[from] CredentialsError),
    /// A TLS file cannot be read.
    #[error("cannot read {}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl NatsTls {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        files.into_iter().flatten()
    }
}

/// Whether it can be read: the client library reads it once more.
fn readable(path: &Path) -> io::Result<()> {
    regular(path)?;
    std::fs::read(path).map(drop)
}

impl NatsOptions {
    /// Whether records have an id for the server's deduplication.
    pub(crate) fn has_message_ids(&self) -> bool {
        self.progress_subject.is_none() || self.message_ids
    }

    /// The prefix of JetStream's interface.
    #[must_use]
    pub fn prefix(&self) -> String {
        match (&self.api_prefix, &self.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => crate::api::USUAL.to_owned(),
        }
    }

    /// Whether they make a sink, as far as can be told without a server. Blocks while it reads files.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], as of [`NatsSink::connect`](crate::NatsSink::connect).
    pub fn check(&self) -> Result<(), ConnectError> {
        self.parse()?;
        for path in self.tls.files() {
            readable(path).map_err(|source| ConnectError::TlsFile {
                path: path.clone(),
                source,
            })?;
        }
        Ok(self.auth.check()?)
    }

    /// As [`check`](NatsOptions::check), in a thread that may block; with the servers.
    pub(crate) async fn validate(&self) -> Result<Vec<ServerAddr>, ConnectError> {
        let options = self.clone();
        let checked = tokio::task::spawn_blocking(move || options.check()).await;
        checked.map_err(CredentialsError::Ended)??;
        self.parse()
    }

    /// What can be checked without files.
    fn parse(&self) -> Result<Vec<ServerAddr>, ConnectError> {
        let servers = self
            .servers
            .iter()
            .map(|server| parse_server(server))
            .collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(ConnectError::NoServer);
        }
        let odd = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
        if self.stream.is_empty() || self.stream.contains(odd) {
            return Err(ConnectError::StreamName(self.stream.clone()));
        }
        let is_subject = |text: &str| crate::subject::fault(text).is_none();
        let is_domain = |text: &str| !text.contains('.') && is_subject(text);
        let (domain, prefix) = (self.domain.as_deref(), self.api_prefix.as_deref());
        let required = [
            (
                (1..=MAX_IN_FLIGHT).contains(&self.in_flight),
                "records in flight must be 1 to 8000",
            ),
            (
                !self.ack_timeout.is_zero(),
                "the acknowledgement timeout must be above zero",
            ),
            (
                is_subject(&self.inbox_prefix),
                "the inbox prefix must be a subject without wildcards",
            ),
            (
                domain.is_none_or(is_domain),
                "the domain must be one token of a subject, without wildcards",
            ),
            (
                prefix.is_none_or(is_subject),
                "the prefix of JetStream's interface must be a subject without wildcards",
            ),
            (
                domain.is_none() || prefix.is_none(),
                "a domain has its own prefix: only one of the two can be set",
            ),
            (
                self.tls.cert_file.is_some() == self.tls.key_file.is_some(),
                "a client certificate needs both its chain and its key",
            ),
        ];
        if let Some((_, fault)) = required.into_iter().find(|(holds, _)| !holds) {
            return Err(ConnectError::Option(fault));
        }
        Ok(servers)
    }
}

/// Whether `text` is a server URL as [`NatsOptions::servers`] takes them.
///
/// # Errors
///
/// [`ConnectError::Server`] and [`ConnectError::CredentialsInUrl`]; neither repeats a password.
pub fn check_server(text: &str) -> Result<(), ConnectError> {
    parse_server(text).map(drop)
}

fn parse_server(text: &str) -> Result<ServerAddr, ConnectError> {
    let server = |source| ConnectError::Server {
        // What cannot be parsed may still hold a password.
        server: text.rsplit('@').next().unwrap_or_default().to_owned(),
        source,
    };
    let address: ServerAddr = text.parse().map_err(|source| server(Some(source)))?;
    if address.username().is_some() || address.password().is_some() {
        return Err(ConnectError::CredentialsInUrl {
            host: address.host().to_owned(),
        });
    }
    if address.host().is_empty() || address.is_websocket() {
        return Err(server(None));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
