//! NATS JetStream.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, LocalBoxFuture};
use rtm_record::{ALL, KeyBy, Routes, STATIC, Template};
use rtm_sink::{AnySink, Sink};
use rtm_sink_nats::{
    CheckError, NatsAuth, NatsCheck, NatsOptions, NatsSink, NatsTls, Secret, StreamSpec, covers,
    widen,
};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kind::{Bench, Each, Found, Kind, Opening, Stored, Templates, changed};
use crate::fields::problem::{Add, deadline, readable};
use crate::fields::secret::{self, InlineSecret, one_secret, warn_if_world_readable};
use crate::fields::shown::{host, is_set, list};
use crate::fields::units;

/// How long the server may take to let a client in.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the server may be silent before reading it back is given up.
const READING_PATIENCE: Duration = Duration::from_secs(30);

/// Messages asked of JetStream at once.
const READING_BATCH: usize = 10_000;

/// A sink of type `nats`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NatsConfig {
    /// Server URLs: `nats://`, `tls://`, or `host:port`.
    #[schemars(length(min = 1))]
    pub(crate) servers: Vec<String>,
    /// The JetStream stream that stores the subjects.
    pub(crate) stream: String,
    /// Subject template; variables `{app} {app_id} {region} {stream} {type} {user_id} {channel_id}`, escaped.
    /// Default `rtm.{app}.{region}.{stream}_events`.
    #[serde(default = "nats_subject")]
    pub(crate) subject: String,
    /// Subject template of dead letters; variables `{app} {app_id} {region} {stream}`. Default `rtm.{app}.dead_letters`.
    #[serde(default = "nats_dead_letters")]
    pub(crate) dead_letter_subject: String,
    /// Whether the tags also go into headers. Default false; `Nats-Msg-Id` and `Nats-Expected-Stream` always do.
    #[serde(default)]
    pub(crate) headers: bool,
    /// Credentials. Default: none.
    #[serde(default)]
    pub(crate) auth: Option<NatsAuthConfig>,
    /// TLS. Default: as the URL's scheme says.
    #[serde(default)]
    pub(crate) tls: TlsConfig,
    /// How long an acknowledgement may take before the record is published again. Default `5s`.
    #[serde(default = "five_seconds", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) ack_timeout: Duration,
    /// Records in flight at most, 1 to 8000. Default 4000.
    #[serde(default = "four_thousand", deserialize_with = "units::number")]
    #[schemars(range(min = 1, max = rtm_sink_nats::MAX_IN_FLIGHT))]
    pub(crate) in_flight: usize,
    /// Whether each page is published as one atomic batch: for one acknowledgement, less CPU, and in order per key
    /// whatever fails. `auto` (default): where the server (2.12 and later) and the stream take them, which `check
    /// --connect` and the log tell. `off`: never. An existing stream takes them once its `allow_atomic` is set: `nats
    /// stream edit NAME --allow-batch`, or a `STREAM.UPDATE` of the JetStream API; the bridge sees it when it connects.
    /// With `create`, the stream is made so.
    #[serde(default)]
    pub(crate) atomic_batches: AtomicBatches,
    /// Creates the stream at start when it is missing. Default: it must exist.
    #[serde(default)]
    pub(crate) create: Option<CreateStream>,
}

/// `atomic_batches` of a NATS sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AtomicBatches {
    /// Where the server and the stream take them.
    #[default]
    Auto,
    /// Never.
    Off,
}

fn nats_subject() -> String {
    "rtm.{app}.{region}.{stream}_events".to_owned()
}

fn nats_dead_letters() -> String {
    "rtm.{app}.dead_letters".to_owned()
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn four_thousand() -> usize {
    4000
}

/// `auth` of a NATS sink: one of five.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum NatsAuthConfig {
    /// A `.creds` file.
    CredentialsFile(PathBuf),
    /// A file with an NKey seed.
    NkeyFile(PathBuf),
    /// A JWT and its seed, each in a file.
    Jwt(JwtConfig),
    /// A user and a password.
    Password(PasswordConfig),
    /// A token in a file.
    TokenFile(PathBuf),
}

/// A JWT and its NKey seed.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JwtConfig {
    /// The file with the JWT.
    pub(crate) jwt_file: PathBuf,
    /// The file with the seed.
    pub(crate) seed_file: PathBuf,
}

/// A user and a password. Exactly one of `password`, `password_file`, `password_env`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["password"]}, {"required": ["password_file"]}, {"required": ["password_env"]}]))]
pub(crate) struct PasswordConfig {
    /// The user.
    #[serde(deserialize_with = "units::text")]
    #[schemars(schema_with = "units::text_schema")]
    pub(crate) user: String,
    /// The password, inline: warned about.
    #[serde(default)]
    pub(crate) password: Option<InlineSecret>,
    /// A file that holds it.
    #[serde(default)]
    pub(crate) password_file: Option<PathBuf>,
    /// An environment variable that holds it.
    #[serde(default)]
    pub(crate) password_env: Option<String>,
}

/// `tls` of a NATS sink.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    /// Refuse a server without TLS. Default false; `tls://` in a URL says the same.
    pub(crate) required: bool,
    /// A PEM file with further certificate authorities.
    pub(crate) ca_file: Option<PathBuf>,
    /// The client's certificate chain, PEM.
    pub(crate) cert_file: Option<PathBuf>,
    /// The client's key, PEM.
    pub(crate) key_file: Option<PathBuf>,
}

/// `create` of a NATS sink: the stream to create when it is missing.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateStream {
    /// Its subjects. Default: those that the subject templates cover.
    #[serde(default)]
    pub(crate) subjects: Vec<String>,
    /// Bound on its size. Default: none.
    #[serde(default, deserialize_with = "optional_size")]
    #[schemars(schema_with = "units::size::schema")]
    pub(crate) max_bytes: Option<u64>,
    /// Bound on a message's age. Default: none.
    #[serde(default, deserialize_with = "optional_duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) max_age: Option<Duration>,
    /// Replicas. Default 1.
    #[serde(default = "one", deserialize_with = "units::number")]
    pub(crate) replicas: usize,
    /// How long the server remembers record ids. Default `2m`, the server's own.
    #[serde(default = "two_minutes", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) duplicate_window: Duration,
}

fn one() -> usize {
    1
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

fn optional_size<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    units::size::deserialize(deserializer).map(Some)
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    units::duration::deserialize(deserializer).map(Some)
}

impl Kind for NatsConfig {
    fn problems(&self, places: &[String], add: Add<'_>) {
        if self.servers.is_empty() {
            add(
                "servers",
                "at least one server is needed, such as \"nats://nats:4222\"".to_owned(),
            );
        }
        let illegal = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
        if self.stream.is_empty() || self.stream.contains(illegal) {
            add(
                "stream",
                format!(
                    "`{}` is not the name of a JetStream stream",
                    self.stream.escape_debug()
                ),
            );
        }
        for (key, text, allowed) in [
            ("subject", &self.subject, ALL),
            ("dead_letter_subject", &self.dead_letter_subject, STATIC),
        ] {
            match Template::parse(text, allowed) {
                Err(error) => add(key, error),
                Ok(template) => {
                    let subject = template.with_all("x");
                    let legal = |token: &str| {
                        !token.is_empty()
                            && token
                                .bytes()
                                .all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
                    };
                    if !subject.split('.').all(legal) {
                        add(
                            key,
                            format!(
                                "`{}` is not a subject: tokens without wildcards or spaces, separated by `.`",
                                text.escape_debug()
                            ),
                        );
                    }
                }
            }
        }
        if !(1..=rtm_sink_nats::MAX_IN_FLIGHT).contains(&self.in_flight) {
            add(
                "in_flight",
                format!("expected 1 to {}", rtm_sink_nats::MAX_IN_FLIGHT),
            );
        }
        for (index, server) in self.servers.iter().enumerate() {
            if let Err(error) = rtm_sink_nats::check_server(server) {
                add(&format!("servers.{index}"), crate::chain(&error));
            }
        }
        deadline("ack_timeout", self.ack_timeout, add);
        let mut file = |path: &Option<PathBuf>, key: &str| {
            if let Some(path) = path {
                readable(path, key, add);
            }
        };
        file(&self.tls.ca_file, "tls.ca_file");
        file(&self.tls.cert_file, "tls.cert_file");
        file(&self.tls.key_file, "tls.key_file");
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            add("tls", "`cert_file` and `key_file` go together".to_owned());
        }
        match &self.auth {
            None => {}
            Some(NatsAuthConfig::CredentialsFile(path)) => {
                usable(
                    &NatsAuth::CredentialsFile(path.clone()),
                    path,
                    "auth.credentials_file",
                    add,
                );
            }
            Some(NatsAuthConfig::NkeyFile(path)) => {
                usable(
                    &NatsAuth::NkeySeed(Secret::File(path.clone())),
                    path,
                    "auth.nkey_file",
                    add,
                );
            }
            Some(NatsAuthConfig::TokenFile(path)) => readable(path, "auth.token_file", add),
            Some(NatsAuthConfig::Jwt(jwt)) => {
                readable(&jwt.jwt_file, "auth.jwt.jwt_file", add);
                let seed = NatsAuth::NkeySeed(Secret::File(jwt.seed_file.clone()));
                usable(&seed, &jwt.seed_file, "auth.jwt.seed_file", add);
            }
            Some(NatsAuthConfig::Password(password)) => one_secret(
                "password",
                &password.password,
                &password.password_file,
                &password.password_env,
                "auth.password",
                add,
            ),
        }
        if let Some(create) = &self.create {
            create.problems(places, add);
        }
    }

    fn title(&self) -> Option<&'static str> {
        Some("NATS")
    }

    fn templates(&self) -> Option<Templates<'_>> {
        Some(Templates {
            records: ("subject", &self.subject),
            dead_letters: ("dead_letter_subject", &self.dead_letter_subject),
        })
    }

    fn shown(&self) -> Vec<(&'static str, String)> {
        let auth = match &self.auth {
            None => "none",
            Some(NatsAuthConfig::CredentialsFile(_)) => "credentials_file",
            Some(NatsAuthConfig::NkeyFile(_)) => "nkey_file",
            Some(NatsAuthConfig::Jwt(_)) => "jwt",
            Some(NatsAuthConfig::Password(_)) => "password",
            Some(NatsAuthConfig::TokenFile(_)) => "token_file",
        };
        let batches = match self.atomic_batches {
            AtomicBatches::Auto => "auto",
            AtomicBatches::Off => "off",
        };
        vec![
            ("servers", list(self.servers.iter().map(|url| host(url)))),
            ("stream", self.stream.clone()),
            ("subject", self.subject.clone()),
            ("dead_letter_subject", self.dead_letter_subject.clone()),
            ("auth", auth.to_owned()),
            ("headers", self.headers.to_string()),
            ("ack_timeout", format!("{:?}", self.ack_timeout)),
            ("in_flight", self.in_flight.to_string()),
            ("atomic_batches", batches.to_owned()),
            ("create", is_set(self.create.is_some())),
        ]
    }

    fn needs_new_client(&self, new: &dyn Kind) -> Vec<&'static str> {
        let mut keys = changed!(
            self to new of NatsConfig,
            renewed: subject dead_letter_subject headers,
            fixed: servers stream auth tls ack_timeout in_flight atomic_batches create
        );
        // The client makes the JetStream stream when it connects, and these are its subjects.
        let derived = |create: &CreateStream| create.subjects.is_empty();
        if self.create.as_ref().is_some_and(derived)
            && let Some(new) = (new as &dyn Any).downcast_ref::<NatsConfig>()
            && self.covering() != new.covering()
        {
            keys.push("subject, from which `create` takes its subjects");
        }
        keys
    }

    fn routes(&self) -> Result<Routes, String> {
        Ok(Routes {
            topic: Template::parse(&self.subject, ALL)?,
            dead_letters: Template::parse(&self.dead_letter_subject, STATIC)?,
            key: KeyBy::Auto,
            headers: self.headers,
        })
    }

    /// For a replay the ids are not those that the server knows already, nor those of another replay.
    fn open(&self, opening: Opening) -> BoxFuture<'_, anyhow::Result<AnySink>> {
        let mut options = self.options();
        if opening.is_replay {
            "rtm-bridge replay".clone_into(&mut options.name);
            // A stream that is missing holds nothing that could be replayed beside it.
            options.create_stream = None;
            options.id_suffix = format!(".replay-{:08x}", fastrand::u32(..));
        }
        async move { Ok(AnySink::new(Arc::new(NatsSink::connect(options).await?))) }.boxed()
    }

    fn reach<'a>(&'a self, places: &'a [String]) -> BoxFuture<'a, Vec<Found>> {
        async {
            let of_sink = |found| (String::new(), found);
            let found = match self.look(places).await {
                Err(error) => return vec![of_sink(Err(error))],
                Ok(Err(CheckError::Missing(_))) if self.create.is_some() => {
                    let missing = format!("stream {} is missing; `run` creates it", self.stream);
                    return vec![of_sink(Ok(missing))];
                }
                Ok(Err(error)) => return vec![of_sink(Err(error.into()))],
                Ok(Ok(found)) => found,
            };
            let reached = format!(
                "{} {}, stream {} stores every subject; records are published {}",
                found.server, found.version, self.stream, found.published
            );
            let warnings = found
                .warnings
                .iter()
                .map(|warning| format!("warning: {warning}"));
            std::iter::once(reached)
                .chain(warnings)
                .map(|text| of_sink(Ok(text)))
                .collect()
        }
        .boxed()
    }

    fn ready<'a>(&'a self, places: &'a [String]) -> BoxFuture<'a, anyhow::Result<()>> {
        async {
            drop(self.client().await?);
            match self.look(places).await? {
                Err(CheckError::Missing(_)) if self.create.is_some() => Ok(()),
                Err(CheckError::Off) => anyhow::bail!(
                    "JetStream is not enabled at {}: start the server with `nats-server -js`, or enable it for the account",
                    hidden(&self.servers)
                ),
                checked => Ok(checked.map(drop)?),
            }
        }
        .boxed()
    }

    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String> {
        let Bench { sink, tag, .. } = bench;
        let prefix = format!("rtm_bench_{tag}_{sink}");
        Ok(json!({
            "stream": format!("RTM_BENCH_{tag}_{sink}"),
            "subject": format!("{prefix}.{{app}}.{{region}}.{{stream}}_events"),
            "dead_letter_subject": format!("{prefix}.{{app}}.dead_letters"),
            "create": {},
        }))
    }

    fn is_of_bench(&self, bench: &Bench<'_>) -> bool {
        let prefix = format!("rtm_bench_{}_", bench.tag);
        self.stream
            .starts_with(&format!("RTM_BENCH_{}_", bench.tag))
            && self.subject.starts_with(&prefix)
            && self.dead_letter_subject.starts_with(&prefix)
    }

    fn made(&self) -> Vec<String> {
        vec![format!("JetStream stream {}", self.stream)]
    }

    fn remove(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        async {
            let context = jetstream::new(self.client().await?);
            match context.delete_stream(&self.stream).await {
                Ok(_) => Ok(()),
                Err(error) => match error.kind() {
                    jetstream::context::DeleteStreamErrorKind::JetStream(told)
                        if told.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
                    {
                        Ok(())
                    }
                    _ => Err(error).context("cannot delete the stream"),
                },
            }
        }
        .boxed()
    }

    fn read_back<'a>(&'a self, each: Each<'a>) -> LocalBoxFuture<'a, anyhow::Result<()>> {
        async {
            let client = self.client().await?;
            let is_dead = |subject: &str| subject.ends_with(".dead_letters");
            read_back(&client, &self.stream, is_dead, each).await
        }
        .boxed_local()
    }
}

impl NatsConfig {
    /// The options of the sink, which reads secrets for each connection.
    fn options(&self) -> NatsOptions {
        let file = |path: &PathBuf| {
            warn_if_world_readable(path);
            Secret::File(path.clone())
        };
        let auth = match &self.auth {
            None => NatsAuth::None,
            Some(NatsAuthConfig::CredentialsFile(path)) => NatsAuth::CredentialsFile(path.clone()),
            Some(NatsAuthConfig::NkeyFile(path)) => NatsAuth::NkeySeed(file(path)),
            Some(NatsAuthConfig::TokenFile(path)) => NatsAuth::Token(file(path)),
            Some(NatsAuthConfig::Jwt(jwt)) => NatsAuth::Jwt {
                jwt: file(&jwt.jwt_file),
                seed: file(&jwt.seed_file),
            },
            Some(NatsAuthConfig::Password(password)) => NatsAuth::UserPassword {
                user: password.user.clone(),
                password: password.secret(),
            },
        };
        let create_stream = self.create.as_ref().map(|create| StreamSpec {
            subjects: if create.subjects.is_empty() {
                self.covering()
            } else {
                create.subjects.clone()
            },
            max_bytes: create.max_bytes,
            max_age: create.max_age,
            replicas: create.replicas,
            duplicate_window: create.duplicate_window,
        });
        NatsOptions {
            auth,
            tls: NatsTls {
                required: self.tls.required,
                ca_file: self.tls.ca_file.clone(),
                cert_file: self.tls.cert_file.clone(),
                key_file: self.tls.key_file.clone(),
            },
            in_flight: self.in_flight,
            atomic_batches: self.atomic_batches == AtomicBatches::Auto,
            ack_timeout: self.ack_timeout,
            create_stream,
            ..NatsOptions::new(self.servers.clone(), self.stream.clone())
        }
    }

    /// Subjects of a stream that covers the templates: each variable a wildcard of one token. One that another covers is
    /// left out, for a stream's subjects may not overlap.
    fn covering(&self) -> Vec<String> {
        let mut subjects: Vec<String> = Vec::new();
        for text in [&self.subject, &self.dead_letter_subject] {
            let Ok(template) = Template::parse(text, ALL) else {
                continue;
            };
            let subject = widen(&template.with_all("*")).into_owned();
            if !subjects.iter().any(|other| covers(other, &subject)) {
                subjects.retain(|other| !covers(&subject, other));
                subjects.push(subject);
            }
        }
        subjects
    }

    /// What a sink finds. Looking must not create: the stream is made by `run`.
    async fn look(&self, subjects: &[String]) -> anyhow::Result<Result<NatsCheck, CheckError>> {
        let options = NatsOptions {
            create_stream: None,
            ..self.options()
        };
        let sink = NatsSink::connect(options).await?;
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let checked = sink.check(&subjects).await;
        sink.close().await;
        Ok(checked)
    }

    /// A client beside the sink's.
    async fn client(&self) -> anyhow::Result<async_nats::Client> {
        let mut options = async_nats::ConnectOptions::new()
            .name("rtm-bridge bench")
            .require_tls(self.tls.required)
            .connection_timeout(PATIENCE);
        options = match &self.auth {
            None => options,
            Some(NatsAuthConfig::CredentialsFile(file)) => options.credentials_file(file).await?,
            Some(NatsAuthConfig::NkeyFile(file)) => options.nkey(read(file)?),
            Some(NatsAuthConfig::TokenFile(file)) => options.token(read(file)?),
            Some(NatsAuthConfig::Password(password)) => {
                let secret = match password.secret() {
                    Secret::Text(text) => text.expose_secret().to_owned(),
                    Secret::File(file) => read(&file)?,
                };
                options.user_and_password(password.user.clone(), secret)
            }
            Some(NatsAuthConfig::Jwt(jwt)) => {
                let seed = nkeys::KeyPair::from_seed(&read(&jwt.seed_file)?)
                    .map_err(|error| anyhow::anyhow!("{}: {error}", jwt.seed_file.display()))?;
                let seed = Arc::new(seed);
                options.jwt(read(&jwt.jwt_file)?, move |nonce| {
                    let seed = Arc::clone(&seed);
                    async move { seed.sign(&nonce).map_err(async_nats::AuthError::new) }
                })
            }
        };
        if let Some(file) = &self.tls.ca_file {
            options = options.add_root_certificates(file.clone());
        }
        if let (Some(cert), Some(key)) = (&self.tls.cert_file, &self.tls.key_file) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        options
            .connect(self.servers.clone())
            .await
            .with_context(|| format!("cannot reach {}", hidden(&self.servers)))
    }
}

impl PasswordConfig {
    fn secret(&self) -> Secret {
        match secret::secret(&self.password, &self.password_file, &self.password_env) {
            rtm_source::Secret::Inline(secret) => Secret::Text(secret),
            rtm_source::Secret::File(file) => Secret::File(file),
        }
    }
}

impl CreateStream {
    fn problems(&self, places: &[String], add: Add<'_>) {
        for (index, filter) in self.subjects.iter().enumerate() {
            let tokens: Vec<&str> = filter.split('.').collect();
            let last = tokens.len() - 1;
            let legal = |(at, token): (usize, &&str)| {
                let plain = |b: u8| b.is_ascii_graphic() && b != b'*' && b != b'>';
                *token == "*"
                    || (*token == ">" && at == last)
                    || (!token.is_empty() && token.bytes().all(plain))
            };
            if !tokens.iter().enumerate().all(legal) {
                add(
                    &format!("create.subjects.{index}"),
                    format!(
                        "`{}` is no subject filter: tokens separated by `.`, of which `*` stands for one and a last `>` for all",
                        filter.escape_debug()
                    ),
                );
            }
        }
        if !self.subjects.is_empty() {
            let stored =
                |subject: &&String| self.subjects.iter().any(|filter| covers(filter, subject));
            let lost: Vec<&str> = places
                .iter()
                .filter(|subject| !stored(subject))
                .map(String::as_str)
                .collect();
            if let [first, rest @ ..] = &lost[..] {
                let more = if rest.is_empty() {
                    String::new()
                } else {
                    format!(", and of {} more", rest.len())
                };
                add(
                    "create.subjects",
                    format!(
                        "`{}` would not store what is published to `{first}`{more}; expected filters that cover `subject` and \
                         `dead_letter_subject`",
                        self.subjects.join("`, `"),
                    ),
                );
            }
        }
        if self.max_bytes == Some(0) {
            add(
                "create.max_bytes",
                "is nothing; leave it out for no bound".to_owned(),
            );
        }
        if !(1..=5).contains(&self.replicas) {
            add("create.replicas", "expected 1 to 5".to_owned());
        }
        let window = self.duplicate_window;
        if window.is_zero() {
            add(
                "create.duplicate_window",
                "is nothing; expected a time such as \"2m\"".to_owned(),
            );
        }
        match self.max_age {
            Some(age) if age.is_zero() => {
                add(
                    "create.max_age",
                    "is nothing; leave it out for no bound".to_owned(),
                );
            }
            Some(age) if age < window => add(
                "create.max_age",
                "is shorter than `duplicate_window` (2m by default), which a server refuses"
                    .to_owned(),
            ),
            _ => {}
        }
    }
}

/// A secret that a server's nonce can be signed with.
fn usable(auth: &NatsAuth, file: &Path, key: &str, add: Add<'_>) {
    if let Err(error) = auth.check() {
        // Where it is no seed, the error does not say of which file.
        add(key, format!("{}: {}", file.display(), crate::chain(&error)));
    }
}

/// Server URLs without what may be a password.
fn hidden(servers: &[String]) -> String {
    let hosts = servers.iter().map(|server| {
        let host = server.rsplit_once('@').map_or_else(
            || server.rsplit_once("//").map_or(&**server, |(_, host)| host),
            |(_, host)| host,
        );
        host.to_owned()
    });
    hosts.collect::<Vec<_>>().join(", ")
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Every message that a JetStream stream holds now, in order. `is_dead` tells dead letters by their subjects.
///
/// # Errors
///
/// When there is no such stream or the server does not answer.
pub async fn read_back(
    client: &async_nats::Client,
    jetstream: &str,
    is_dead: impl Fn(&str) -> bool,
    mut each: impl FnMut(&Stored<'_>),
) -> anyhow::Result<()> {
    let context = jetstream::new(client.clone());
    let stream = context
        .get_stream(jetstream)
        .await
        .with_context(|| format!("no stream {jetstream}"))?;
    let state = stream.get_info().await?.state;
    if state.messages == 0 {
        return Ok(());
    }
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        inactive_threshold: READING_PATIENCE,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(READING_BATCH)
        .messages()
        .await?;
    loop {
        let message = tokio::time::timeout(READING_PATIENCE, messages.next())
            .await
            .with_context(|| format!("stream {jetstream}: nothing for {READING_PATIENCE:?}"))?
            .context("the server ended the reading")??;
        let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        if sequence <= state.last_sequence {
            each(&Stored {
                partition: 0,
                order: sequence,
                key: None,
                payload: &message.payload,
                timestamp: i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).ok(),
                dead_letter: is_dead(&message.subject),
                is_line: false,
            });
        }
        // The last message may have been removed meanwhile, so its number alone is no sign of the end.
        if sequence >= state.last_sequence || pending == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
