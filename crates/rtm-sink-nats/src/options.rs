//! What a sink is made from, and how it proves who it is.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{Auth, ServerAddr};
use nkeys::KeyPair;
use rtm_sink::{read_text, regular};
use secrecy::{ExposeSecret, SecretString};

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
            ack_timeout: Duration::from_secs(5),
            create_stream: None,
            name: "rtm-bridge".to_owned(),
            id_suffix: String::new(),
            inbox_prefix: "_INBOX".to_owned(),
        }
    }
}

/// How to authenticate. What comes from files is read again for each connection, so that it can be rotated.
#[derive(Debug, Clone, Default)]
pub enum NatsAuth {
    /// Not at all.
    #[default]
    None,
    /// A `.creds` file: a JWT and an NKey seed.
    CredentialsFile(PathBuf),
    /// An NKey seed (`SU…`).
    NkeySeed(Secret),
    /// A JWT, and the seed of the NKey that it was made for.
    Jwt {
        /// The user's JWT.
        jwt: Secret,
        /// The user's seed.
        seed: Secret,
    },
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// A secret, or where to read it. Never printed.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Text(SecretString),
    /// The file that holds it, without a byte order mark and the ends of lines at its end.
    File(PathBuf),
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

/// Why credentials cannot be used. Says where they are, never what they are.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The `.creds` file holds no JWT or no seed.
    #[error("{} is not a credentials file: it has no {missing} section", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The section that is not there.
        missing: &'static str,
    },
    /// The seed is not one.
    #[error("not an NKey seed")]
    Seed(#[source] nkeys::error::Error),
}

impl NatsTls {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        files.into_iter().flatten()
    }
}

/// Whether it can be read: the client library reads it once more.
fn read_file_of_tls(path: &Path) -> io::Result<()> {
    regular(path)?;
    std::fs::read(path).map(drop)
}

fn tls_file(path: &Path, source: io::Error) -> ConnectError {
    ConnectError::TlsFile {
        path: path.to_owned(),
        source,
    }
}

/// Whether `text` can be a JetStream domain.
fn is_domain(text: &str) -> bool {
    !text.contains('.') && crate::subject::fault(text).is_none()
}

impl NatsOptions {
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
            read_file_of_tls(path).map_err(|source| tls_file(path, source))?;
        }
        Ok(self.auth.check()?)
    }

    /// Parses and checks everything that can be checked without a server.
    pub(crate) async fn validate(&self) -> Result<Vec<ServerAddr>, ConnectError> {
        let servers = self.parse()?;
        for path in self.tls.files() {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || read_file_of_tls(&file)).await;
            read.map_err(io::Error::from)
                .flatten()
                .map_err(|source| tls_file(path, source))?;
        }
        Credentials::read(&self.auth).await?;
        Ok(servers)
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
        if !(1..=MAX_IN_FLIGHT).contains(&self.in_flight) {
            return Err(ConnectError::Option("records in flight must be 1 to 8000"));
        }
        if self.ack_timeout.is_zero() {
            return Err(ConnectError::Option(
                "the acknowledgement timeout must be above zero",
            ));
        }
        if crate::subject::fault(&self.inbox_prefix).is_some() {
            return Err(ConnectError::Option(
                "the inbox prefix must be a subject without wildcards",
            ));
        }
        if self
            .domain
            .as_deref()
            .is_some_and(|domain| !is_domain(domain))
        {
            return Err(ConnectError::Option(
                "the domain must be one token of a subject, without wildcards",
            ));
        }
        let prefix = self.api_prefix.as_deref();
        if prefix.is_some_and(|prefix| crate::subject::fault(prefix).is_some()) {
            return Err(ConnectError::Option(
                "the prefix of JetStream's interface must be a subject without wildcards",
            ));
        }
        if self.domain.is_some() && prefix.is_some() {
            return Err(ConnectError::Option(
                "a domain has its own prefix: only one of the two can be set",
            ));
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err(ConnectError::Option(
                "a client certificate needs both its chain and its key",
            ));
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

impl NatsAuth {
    /// Whether what the files hold can be used, as far as can be told without a server. Blocks while it reads them.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn check(&self) -> Result<(), CredentialsError> {
        let read = |path: &Path| {
            read_text(path).map_err(|source| CredentialsError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let seed = match self {
            NatsAuth::CredentialsFile(path) => {
                let text = read(path)?;
                required(&text, "USER JWT", path)?;
                required(&text, "NKEY SEED", path)?.to_owned()
            }
            NatsAuth::NkeySeed(seed) | NatsAuth::Jwt { seed, .. } => match seed {
                Secret::Text(seed) => seed.expose_secret().to_owned(),
                Secret::File(path) => read(path)?,
            },
            NatsAuth::None | NatsAuth::UserPassword { .. } | NatsAuth::Token(_) => return Ok(()),
        };
        key_pair(&seed).map(drop)
    }
}

/// Credentials as read, ready to answer a server's nonce.
pub(crate) struct Credentials {
    auth: Auth,
    signer: Option<KeyPair>,
}

impl Credentials {
    pub(crate) async fn read(auth: &NatsAuth) -> Result<Credentials, CredentialsError> {
        let mut read = Auth::new();
        let mut signer = None;
        match auth {
            NatsAuth::None => (),
            NatsAuth::CredentialsFile(path) => {
                let text = read_file(path).await?;
                read.jwt = Some(required(&text, "USER JWT", path)?.to_owned());
                signer = Some(key_pair(required(&text, "NKEY SEED", path)?)?);
            }
            NatsAuth::NkeySeed(seed) => {
                let pair = key_pair(&seed.read().await?)?;
                read.nkey = Some(pair.public_key());
                signer = Some(pair);
            }
            NatsAuth::Jwt { jwt, seed } => {
                read.jwt = Some(jwt.read().await?);
                signer = Some(key_pair(&seed.read().await?)?);
            }
            NatsAuth::UserPassword { user, password } => {
                read.username = Some(user.clone());
                read.password = Some(password.read().await?);
            }
            NatsAuth::Token(token) => read.token = Some(token.read().await?),
        }
        Ok(Credentials { auth: read, signer })
    }

    /// What to tell a server that sent `nonce`.
    pub(crate) fn answer(&self, nonce: &[u8]) -> Result<Auth, CredentialsError> {
        let mut auth = self.auth.clone();
        if let Some(signer) = &self.signer {
            auth.signature = Some(signer.sign(nonce).map_err(CredentialsError::Seed)?);
        }
        Ok(auth)
    }
}

fn key_pair(seed: &str) -> Result<KeyPair, CredentialsError> {
    KeyPair::from_seed(seed).map_err(CredentialsError::Seed)
}

async fn read_file(path: &Path) -> Result<String, CredentialsError> {
    let read = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = path.to_owned();
    let text = tokio::task::spawn_blocking(move || read_text(&file)).await;
    text.map_err(io::Error::from).flatten().map_err(read)
}

/// The line after `-----BEGIN … <name>-----` (docs.nats.io, "Using nsc", credentials files).
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(name))?;
    lines
        .find(|line| !line.is_empty())
        .filter(|line| !line.starts_with("---"))
}

fn required<'a>(
    text: &'a str,
    missing: &'static str,
    path: &Path,
) -> Result<&'a str, CredentialsError> {
    section(text, missing).ok_or_else(|| CredentialsError::Format {
        path: path.to_owned(),
        missing,
    })
}

impl Secret {
    async fn read(&self) -> Result<String, CredentialsError> {
        match self {
            Secret::Text(secret) => Ok(secret.expose_secret().to_owned()),
            Secret::File(path) => read_file(path).await,
        }
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Secret {
        Secret::Text(secret.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Text(_) => f.write_str("[REDACTED]"),
            Secret::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(server: &str) -> NatsOptions {
        NatsOptions::new(vec![server.to_owned()], "RTM")
    }

    /// Holds: a mistake is told at once, without a server, and no password is told with it.
    #[tokio::test]
    async fn mistakes_are_found_without_a_server() {
        let cases: [(&str, NatsOptions); 11] = [
            ("no server", NatsOptions::new(Vec::new(), "RTM")),
            ("not a server URL", options("http://h:1")),
            ("not a server URL", options("ws://h:1")),
            ("holds credentials", options("nats://u:hunter2@h:1")),
            ("not a server URL", options("nats://u:hunter2@h:x")),
            (
                "not a name",
                NatsOptions::new(vec!["nats://h".into()], "a.b"),
            ),
            (
                "1 to 8000",
                NatsOptions {
                    in_flight: 0,
                    ..options("h")
                },
            ),
            (
                "above zero",
                NatsOptions {
                    ack_timeout: Duration::ZERO,
                    ..options("h")
                },
            ),
            (
                "without wildcards",
                NatsOptions {
                    inbox_prefix: "a.*".into(),
                    ..options("h")
                },
            ),
            (
                "both its chain and its key",
                NatsOptions {
                    tls: NatsTls {
                        key_file: Some("/k".into()),
                        ..NatsTls::default()
                    },
                    ..options("h")
                },
            ),
            (
                "cannot read /nowhere/ca",
                NatsOptions {
                    tls: NatsTls {
                        ca_file: Some("/nowhere/ca".into()),
                        ..NatsTls::default()
                    },
                    ..options("h")
                },
            ),
        ];
        for (expected, options) in cases {
            let error = options.validate().await.unwrap_err();
            assert!(
                error.to_string().contains(expected),
                "{error} should say: {expected}"
            );
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert_eq!(
            options("h").validate().await.unwrap()[0].as_url_str(),
            "nats://h"
        );
    }

    /// Holds: each kind of credentials is read from where it is, signs where it must, and shows nowhere.
    #[tokio::test]
    async fn credentials_are_read_and_hidden() {
        let pair = KeyPair::new_user();
        let seed = pair.seed().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let creds = dir.path().join("a.creds");
        let text = format!(
            "-----BEGIN NATS USER JWT-----\njwt-canary\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&creds, format!("\u{feff}{text}")).unwrap();
        let seed_file = dir.path().join("seed");
        std::fs::write(&seed_file, format!("\u{feff}{seed}\r\n")).unwrap();

        let ways = [
            NatsAuth::CredentialsFile(creds),
            NatsAuth::NkeySeed(Secret::File(seed_file)),
            NatsAuth::Jwt {
                jwt: "jwt-canary".into(),
                seed: seed.as_str().into(),
            },
            NatsAuth::UserPassword {
                user: "u".into(),
                password: "pw-canary".into(),
            },
            NatsAuth::Token("token-canary".into()),
        ];
        for auth in ways {
            let shown = format!("{auth:?}");
            assert!(
                !shown.contains("canary") && !shown.contains(&seed),
                "{shown}"
            );
            auth.check().unwrap();
            let answer = Credentials::read(&auth)
                .await
                .unwrap()
                .answer(b"nonce")
                .unwrap();
            let signs = matches!(
                auth,
                NatsAuth::CredentialsFile(_) | NatsAuth::NkeySeed(_) | NatsAuth::Jwt { .. }
            );
            assert_eq!(answer.signature.is_some(), signs, "{shown}");
            if let Some(signature) = &answer.signature {
                pair.verify(b"nonce", signature).unwrap();
            }
            let nkey = matches!(auth, NatsAuth::NkeySeed(_)).then(|| pair.public_key());
            assert_eq!(answer.nkey, nkey);
            let jwt = (signs && nkey.is_none()).then(|| "jwt-canary".to_owned());
            assert_eq!(answer.jwt, jwt);
            let password =
                matches!(auth, NatsAuth::UserPassword { .. }).then(|| "pw-canary".to_owned());
            assert_eq!(answer.password, password);
            let token = matches!(auth, NatsAuth::Token(_)).then(|| "token-canary".to_owned());
            assert_eq!(answer.token, token);
        }
    }

    #[tokio::test]
    async fn unusable_credentials_say_where_not_what() {
        let dir = tempfile::tempdir().unwrap();
        let creds = dir.path().join("a.creds");
        std::fs::write(
            &creds,
            "-----BEGIN NATS USER JWT-----\njwt-canary\n------END NATS USER JWT------\n",
        )
        .unwrap();
        let cases = [
            (NatsAuth::CredentialsFile(creds), "has no NKEY SEED section"),
            (
                NatsAuth::CredentialsFile("/nowhere/a".into()),
                "cannot read /nowhere/a",
            ),
            (NatsAuth::NkeySeed("SUcanary".into()), "not an NKey seed"),
            (
                NatsAuth::Token(Secret::File("/nowhere/t".into())),
                "cannot read /nowhere/t",
            ),
        ];
        for (auth, expected) in cases {
            let Err(error) = Credentials::read(&auth).await else {
                panic!("{auth:?} was read")
            };
            if !matches!(auth, NatsAuth::Token(_)) {
                assert_eq!(auth.check().unwrap_err().to_string(), error.to_string());
            }
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}
