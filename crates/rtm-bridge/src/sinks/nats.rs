//! NATS JetStream.

use std::any::Any;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::DeleteStreamErrorKind;
use async_trait::async_trait;
use futures::StreamExt;
use rtm_record::{ALL, KeyBy, Template};
use rtm_sink::{AnySink, Sink, regular};
use rtm_sink_nats::{
    CheckError, LARGE_RECORD, MAX_IN_FLIGHT, NatsAuth, NatsCheck, NatsOptions, NatsSink, NatsTls,
    Secret, StreamSpec, covers, widen,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kind::{Bench, Each, Found, Kind, Stored, Templates, changed};
use crate::fields::problem::Problems;
use crate::fields::secret::{self, InlineSecret, SecretKeys};
use crate::fields::shown::{host, is_set, list, word};
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
    /// Whether each record demands the stream (`Nats-Expected-Stream`), so that a subject that is bound to another stream is
    /// refused there. Default true. With false a server before 2.11.5 can mirror the stream.
    #[serde(default = "yes")]
    pub(crate) expect_stream: bool,
    /// The JetStream domain of the stream, where it is not the servers' own: behind a leaf node. Default: the servers' own.
    pub(crate) domain: Option<String>,
    /// The prefix of JetStream's API, where the account imports it under another name than `$JS.API`. Not with `domain`.
    pub(crate) api_prefix: Option<String>,
    /// The prefix of the subjects that answers come to, for a user who may not subscribe to `_INBOX.>`. Default `_INBOX`.
    #[serde(default = "inbox")]
    pub(crate) inbox_prefix: String,
    /// Subject template; variables `{app} {app_id} {region} {stream} {type} {user_id} {channel_id}`, escaped.
    /// Default `rtm.{app}.{region}.{stream}_events`.
    #[serde(default = "nats_subject")]
    pub(crate) subject: String,
    /// Subject template of dead letters; variables `{app} {app_id} {region} {stream}`. Default `rtm.{app}.dead_letters`.
    #[serde(default = "nats_dead_letters")]
    pub(crate) dead_letter_subject: String,
    /// Whether the tags also go into headers. Default false; `Nats-Msg-Id` always does.
    #[serde(default)]
    pub(crate) headers: bool,
    /// Credentials. Default: none.
    pub(crate) auth: Option<NatsAuthConfig>,
    /// TLS. Default: as the URL's scheme says.
    #[serde(default)]
    pub(crate) tls: TlsConfig,
    /// How long an acknowledgement may take before the record is published again. Default `5s`.
    #[serde(default = "units::seconds::<5>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) ack_timeout: Duration,
    /// Records in flight at most, 1 to 8000. Default 4000.
    #[serde(
        default = "units::constant::<4000, usize>",
        deserialize_with = "units::number"
    )]
    #[schemars(range(min = 1, max = MAX_IN_FLIGHT))]
    pub(crate) in_flight: usize,
    /// Whether each page is published as one atomic batch: for one acknowledgement, less CPU, and in order per key
    /// whatever fails. `auto` (default): where the server (2.12 and later) and the stream take them, which `check
    /// --connect` and the log tell. `off`: never. An existing stream takes them once its `allow_atomic` is set: `nats
    /// stream edit NAME --allow-batch`, or a `STREAM.UPDATE` of the JetStream API; the bridge sees it within seconds.
    /// With `create`, the stream is made so.
    #[serde(default)]
    pub(crate) atomic_batches: AtomicBatches,
    /// Creates the stream at start when it is missing. Default: it must exist.
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

fn inbox() -> String {
    "_INBOX".to_owned()
}

fn yes() -> bool {
    true
}

fn nats_subject() -> String {
    "rtm.{app}.{region}.{stream}_events".to_owned()
}

fn nats_dead_letters() -> String {
    "rtm.{app}.dead_letters".to_owned()
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
    pub(crate) password: Option<InlineSecret>,
    /// A file that holds it.
    pub(crate) password_file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub(crate) password_env: Option<String>,
}

/// `tls` of a NATS sink.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    /// Refuse a server without TLS. Default false; `tls://` in a URL says the same.
    pub(crate) required: bool,
    /// Begin with TLS, for a server with `handshake_first`; other servers do not understand it. Default false.
    pub(crate) first: bool,
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
    /// Bound on its size, 64 KiB at least. Default: none.
    #[serde(default, deserialize_with = "units::size::deserialize")]
    #[schemars(schema_with = "units::size::schema")]
    pub(crate) max_bytes: Option<u64>,
    /// Bound on a message's age. Default: none.
    #[serde(default, deserialize_with = "units::duration::deserialize")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) max_age: Option<Duration>,
    /// Replicas. Default 1.
    #[serde(
        default = "units::constant::<1, usize>",
        deserialize_with = "units::number"
    )]
    pub(crate) replicas: usize,
    /// How long the server remembers record ids. Default `2m`, the server's own.
    #[serde(default = "units::seconds::<120>", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub(crate) duplicate_window: Duration,
}

#[async_trait]
impl Kind for NatsConfig {
    fn problems(&self, places: &[String], problems: &mut Problems<'_>) {
        if self.servers.is_empty() {
            problems.add(
                "servers",
                "at least one server is needed, such as \"nats://nats:4222\"",
            );
        }
        let illegal = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
        if self.stream.is_empty() || self.stream.contains(illegal) {
            let stream = self.stream.escape_debug();
            problems.add(
                "stream",
                format!("`{stream}` is not the name of a JetStream stream"),
            );
        }
        let is_subject = |text: &str| text.split('.').all(is_token);
        if self
            .domain
            .as_deref()
            .is_some_and(|domain| !is_token(domain) || domain.contains('.'))
        {
            problems.add(
                "domain",
                "is not the name of a JetStream domain: one token of a subject",
            );
        }
        for (key, prefix) in [
            ("api_prefix", self.api_prefix.as_ref()),
            ("inbox_prefix", Some(&self.inbox_prefix)),
        ] {
            if prefix.is_some_and(|prefix| !is_subject(prefix)) {
                problems.add(
                    key,
                    "is not the beginning of a subject: tokens without wildcards, separated by `.`",
                );
            }
        }
        if self.domain.is_some() && self.api_prefix.is_some() {
            problems.add(
                "api_prefix",
                "and `domain` exclude each other: a domain has its own prefix",
            );
        }
        self.templates().problems(
            is_subject,
            "a subject: tokens without wildcards or spaces, separated by `.`",
            problems,
        );
        if !(1..=MAX_IN_FLIGHT).contains(&self.in_flight) {
            problems.add("in_flight", format!("expected 1 to {MAX_IN_FLIGHT}"));
        }
        for (index, server) in self.servers.iter().enumerate() {
            if let Err(error) = rtm_sink_nats::check_server(server) {
                problems.add(format_args!("servers.{index}"), crate::chain(&error));
            }
        }
        problems.deadline("ack_timeout", self.ack_timeout);
        for (key, file) in [
            ("tls.ca_file", &self.tls.ca_file),
            ("tls.cert_file", &self.tls.cert_file),
            ("tls.key_file", &self.tls.key_file),
        ] {
            if let Some(file) = file {
                problems.readable(key, file, "");
            }
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            problems.add("tls", "`cert_file` and `key_file` go together");
        }
        let seed = |file: &PathBuf| NatsAuth::NkeySeed(Secret::File(file.clone()));
        match &self.auth {
            None => {}
            Some(NatsAuthConfig::CredentialsFile(file)) => {
                let auth = NatsAuth::CredentialsFile(file.clone());
                usable("auth.credentials_file", file, &auth, problems);
            }
            Some(NatsAuthConfig::NkeyFile(file)) => {
                usable("auth.nkey_file", file, &seed(file), problems);
            }
            Some(NatsAuthConfig::TokenFile(file)) => {
                problems.readable("auth.token_file", file, "");
            }
            Some(NatsAuthConfig::Jwt(JwtConfig {
                jwt_file,
                seed_file,
            })) => {
                problems.readable("auth.jwt.jwt_file", jwt_file, "");
                usable("auth.jwt.seed_file", seed_file, &seed(seed_file), problems);
            }
            Some(NatsAuthConfig::Password(password)) => {
                password.keys().problems("auth.password", problems);
            }
        }
        if let Some(create) = &self.create {
            create.problems(places, &mut problems.of("create"));
        }
    }

    fn secrets(&self, warnings: &mut Problems<'_>) {
        let files = match &self.auth {
            None => vec![],
            Some(NatsAuthConfig::CredentialsFile(file)) => vec![("auth.credentials_file", file)],
            Some(NatsAuthConfig::NkeyFile(file)) => vec![("auth.nkey_file", file)],
            Some(NatsAuthConfig::TokenFile(file)) => vec![("auth.token_file", file)],
            Some(NatsAuthConfig::Jwt(jwt)) => vec![
                ("auth.jwt.jwt_file", &jwt.jwt_file),
                ("auth.jwt.seed_file", &jwt.seed_file),
            ],
            Some(NatsAuthConfig::Password(password)) => {
                password.keys().warnings("auth.password", warnings);
                vec![]
            }
        };
        let key = self.tls.key_file.iter().map(|file| ("tls.key_file", file));
        for (key, file) in files.into_iter().chain(key) {
            secret::of_file(key, file, warnings);
        }
    }

    fn title(&self) -> Option<&'static str> {
        Some("NATS")
    }

    fn templates(&self) -> Templates<'_> {
        Templates {
            records: ("subject", &self.subject),
            dead_letters: ("dead_letter_subject", &self.dead_letter_subject),
            allowed: ALL,
            key: KeyBy::Auto,
            headers: self.headers,
        }
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
        vec![
            ("servers", list(self.servers.iter().map(|url| host(url)))),
            ("stream", self.stream.clone()),
            (
                "domain",
                self.domain
                    .clone()
                    .unwrap_or_else(|| "the servers' own".to_owned()),
            ),
            ("subject", self.subject.clone()),
            ("dead_letter_subject", self.dead_letter_subject.clone()),
            ("auth", auth.to_owned()),
            ("headers", self.headers.to_string()),
            ("ack_timeout", format!("{:?}", self.ack_timeout)),
            ("in_flight", self.in_flight.to_string()),
            ("atomic_batches", word(self.atomic_batches)),
            ("create", is_set(self.create.is_some())),
        ]
    }

    fn needs_new_client(&self, new: &dyn Kind) -> Vec<&'static str> {
        let mut keys = changed!(
            self to new of NatsConfig,
            renewed: subject dead_letter_subject headers,
            fixed: servers stream expect_stream domain api_prefix inbox_prefix auth tls ack_timeout in_flight atomic_batches create
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

    /// For a replay the ids are not those that the server knows already, nor those of another replay.
    async fn open(&self, _: &str, _: &[String], is_replay: bool) -> anyhow::Result<AnySink> {
        let mut options = self.options();
        if is_replay {
            "rtm-bridge replay".clone_into(&mut options.name);
            // A stream that is missing holds nothing that could be replayed beside it.
            options.create_stream = None;
            options.id_suffix = format!(".replay-{:08x}", fastrand::u32(..));
        }
        Ok(AnySink::new(Arc::new(NatsSink::connect(options).await?)))
    }

    fn accepted(&self) -> Option<anyhow::Result<()>> {
        Some(self.options().check().map_err(Into::into))
    }

    async fn reach(&self, places: &[String], _: &[String]) -> Vec<Found> {
        let of_sink = |found| (String::new(), found);
        let found = match self.look(places).await {
            Ok(Ok(found)) => found,
            Ok(Err(CheckError::Missing { domain, .. })) if self.create.is_some() => {
                let place = domain.map_or_else(String::new, |domain| {
                    format!(" there, in the JetStream domain {domain}; if it is in another one, set `domain`")
                });
                let missing = format!("stream {} is missing; `run` creates it{place}", self.stream);
                return vec![of_sink(Ok(missing))];
            }
            Ok(Err(error)) => return vec![of_sink(Err(error.into()))],
            Err(error) => return vec![of_sink(Err(error))],
        };
        let reached = format!(
            "{} {}, stream {} stores every subject; records are published {}",
            found.server, found.version, self.stream, found.published
        );
        let warnings = found.warnings.iter();
        let warnings = warnings.map(|warning| format!("warning: {warning}"));
        let told = std::iter::once(reached).chain(warnings);
        told.map(|text| of_sink(Ok(text))).collect()
    }

    async fn ready(&self, places: &[String]) -> anyhow::Result<()> {
        drop(self.client().await?);
        match self.look(places).await? {
            Err(CheckError::Missing { .. }) if self.create.is_some() => Ok(()),
            Err(CheckError::Off) => anyhow::bail!(
                "JetStream is not enabled at {}: start the server with `nats-server -js`, or enable it for the account",
                hidden(&self.servers)
            ),
            checked => Ok(checked.map(drop)?),
        }
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

    async fn remove(&self) -> anyhow::Result<()> {
        let context = self.jetstream().await?;
        match context.delete_stream(&self.stream).await {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                DeleteStreamErrorKind::JetStream(told)
                    if told.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(())
                }
                _ => Err(error).context("cannot delete the stream"),
            },
        }
    }

    async fn read_back(&self, each: Each<'_>) -> anyhow::Result<()> {
        let is_dead = |subject: &str| subject.ends_with(".dead_letters");
        read_back(&self.jetstream().await?, &self.stream, is_dead, each).await
    }
}

impl NatsConfig {
    /// The options of the sink, which reads secrets for each connection.
    fn options(&self) -> NatsOptions {
        let file = |path: &PathBuf| Secret::File(path.clone());
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
                password: match password.keys().secret() {
                    rtm_source::Secret::Inline(secret) => Secret::Text(secret),
                    rtm_source::Secret::File(file) => Secret::File(file),
                },
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
        let usual = NatsOptions::new(self.servers.clone(), self.stream.clone());
        NatsOptions {
            auth,
            expect_stream: self.expect_stream,
            domain: self.domain.clone(),
            api_prefix: self.api_prefix.clone(),
            inbox_prefix: self.inbox_prefix.clone(),
            tls: NatsTls {
                first: self.tls.first,
                required: self.tls.required,
                ca_file: self.tls.ca_file.clone(),
                cert_file: self.tls.cert_file.clone(),
                key_file: self.tls.key_file.clone(),
            },
            in_flight: self.in_flight,
            atomic_batches: self.atomic_batches == AtomicBatches::Auto,
            ack_timeout: self.ack_timeout,
            create_stream,
            ..usual
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
        let checked = sink.check(&subjects, self.create.is_some()).await;
        sink.close().await;
        Ok(checked)
    }

    async fn jetstream(&self) -> anyhow::Result<jetstream::Context> {
        let prefix = self.options().prefix();
        Ok(jetstream::with_prefix(self.client().await?, &prefix))
    }

    /// A client beside the sink's.
    async fn client(&self) -> anyhow::Result<async_nats::Client> {
        let options = self.options().connect_options().await?;
        let options = options
            .name("rtm-bridge bench")
            .connection_timeout(PATIENCE)
            .subscription_capacity(2 * READING_BATCH);
        let client = options.connect(self.servers.clone()).await;
        client.with_context(|| format!("cannot reach {}", hidden(&self.servers)))
    }
}

impl PasswordConfig {
    fn keys(&self) -> SecretKeys<'_> {
        SecretKeys::new(
            "password",
            &self.password,
            &self.password_file,
            &self.password_env,
        )
    }
}

impl CreateStream {
    fn problems(&self, places: &[String], problems: &mut Problems<'_>) {
        for (index, filter) in self.subjects.iter().enumerate() {
            let all = filter.strip_suffix(".>").unwrap_or(filter);
            let legal = |token: &str| token == "*" || is_token(token);
            if filter != ">" && !all.split('.').all(legal) {
                let filter = filter.escape_debug();
                problems.add(
                    format_args!("subjects.{index}"),
                    format!(
                        "`{filter}` is no subject filter: tokens separated by `.`, of which `*` stands for one and a last \
                         `>` for all"
                    ),
                );
            }
        }
        let stored = |subject: &&String| self.subjects.iter().any(|filter| covers(filter, subject));
        let lost: Vec<&String> = places.iter().filter(|subject| !stored(subject)).collect();
        if let [first, rest @ ..] = &lost[..]
            && !self.subjects.is_empty()
        {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(", and of {more} more"),
            };
            problems.add(
                "subjects",
                format!(
                    "`{}` would not store what is published to `{first}`{more}; expected filters that cover `subject` and \
                     `dead_letter_subject`",
                    self.subjects.join("`, `"),
                ),
            );
        }
        match self.max_bytes {
            Some(0) => problems.add("max_bytes", "is nothing; leave it out for no bound"),
            Some(bytes) if bytes < LARGE_RECORD as u64 => problems.add(
                "max_bytes",
                format!("cannot hold every record; expected {LARGE_RECORD} bytes at least, or nothing for no bound"),
            ),
            _ => {}
        }
        if !(1..=5).contains(&self.replicas) {
            problems.add("replicas", "expected 1 to 5");
        }
        let window = self.duplicate_window;
        if window.is_zero() {
            problems.add(
                "duplicate_window",
                "is nothing; expected a time such as \"2m\"",
            );
        }
        if self.max_age == Some(Duration::ZERO) {
            problems.add("max_age", "is nothing; leave it out for no bound");
        } else if self.max_age.is_some_and(|age| age < window) {
            problems.add(
                "max_age",
                "is shorter than `duplicate_window` (2m by default), which a server refuses",
            );
        }
    }
}

/// Whether it is one token of a subject, and no wildcard.
fn is_token(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_graphic() && b != b'*' && b != b'>';
    !text.is_empty() && text.bytes().all(legal)
}

/// A secret that a server's nonce can be signed with.
fn usable(key: &str, file: &Path, auth: &NatsAuth, problems: &mut Problems<'_>) {
    if regular(file).and_then(|()| File::open(file)).is_err() {
        problems.readable(key, file, "");
    } else if let Err(error) = auth.check() {
        // Where it is no seed, the error does not say of which file.
        let error = crate::chain(&error);
        problems.add(key, format!("{}: {error}", file.display()));
    }
}

/// Server URLs without what may be a password.
fn hidden(servers: &[String]) -> String {
    let urls = servers.iter().map(|url| host(url));
    list(urls.map(|url| url.rsplit("://").next().unwrap_or_default().to_owned()))
}

/// Every message that a JetStream stream holds now, in order. `is_dead` tells dead letters by their subjects.
///
/// # Errors
///
/// When there is no such stream or the server does not answer.
pub async fn read_back(
    context: &jetstream::Context,
    jetstream: &str,
    is_dead: impl Fn(&str) -> bool,
    mut each: impl FnMut(&Stored<'_>),
) -> anyhow::Result<()> {
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
