//! `[sinks.<name>]`: where to publish.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use rtm_record::KeyBy;

use super::{InlineSecret, units};

/// One sink, by its `type`; a sink named `kafka`, `nats`, `stdout` or `file` needs none.
#[derive(Debug, Clone)]
pub enum SinkConfig {
    /// Kafka.
    Kafka(Box<KafkaConfig>),
    /// NATS JetStream.
    Nats(Box<NatsConfig>),
    /// One JSON document a line on standard output.
    Stdout(StdoutConfig),
    /// One JSON document a line in a file.
    File(FileConfig),
}

impl SinkConfig {
    /// What `type` says of the sink.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            SinkConfig::Kafka(_) => "kafka",
            SinkConfig::Nats(_) => "nats",
            SinkConfig::Stdout(_) => "stdout",
            SinkConfig::File(_) => "file",
        }
    }

    /// What happens when the journal is full because of this sink.
    #[must_use]
    pub fn when_full(&self) -> WhenFull {
        match self {
            SinkConfig::Kafka(kafka) => kafka.when_full,
            SinkConfig::Nats(nats) => nats.when_full,
            SinkConfig::Stdout(stdout) => stdout.when_full,
            SinkConfig::File(file) => file.when_full,
        }
    }
}

/// What happens when an App ID's room in the journal is gone because a sink lags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Polling stops, and Agora overwrites its oldest events.
    #[default]
    Stop,
    /// The oldest events are given up for this sink, counted as dropped, and polling goes on for the others.
    Skip,
}

/// A sink of type `kafka`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Only to tell the type where the sink has another name.
    #[serde(default, rename = "type")]
    #[schemars(extend("const" = "kafka"))]
    pub kind: Option<String>,
    /// What happens when the journal is full because of this sink: `stop` (polling stops; default) or `skip` (the oldest
    /// events are given up for this sink, counted).
    #[serde(default)]
    pub when_full: WhenFull,
    /// Bootstrap brokers, `host:port`.
    #[schemars(length(min = 1))]
    pub brokers: Vec<String>,
    /// Topic template; variables `{app} {app_id} {region} {stream}`. Default `rtm.{stream}_events`.
    #[serde(default = "kafka_topic")]
    pub topic: String,
    /// Topic template of dead letters. Default `rtm.dead_letters`.
    #[serde(default = "kafka_dead_letters")]
    pub dead_letter_topic: String,
    /// What records are keyed by. Default `auto`: the user for user events, the channel for channel events.
    #[serde(default)]
    pub key: KeyBy,
    /// Whether the tags also go into headers. Default false: one header doubles what librdkafka spends on a record.
    #[serde(default)]
    pub headers: bool,
    /// Whether to create missing topics at start. Default false: the broker's auto-creation decides.
    #[serde(default)]
    pub create: bool,
    /// Partitions of a created topic. Default: the broker's default.
    #[serde(default, deserialize_with = "optional_number")]
    #[schemars(range(min = 1))]
    pub partitions: Option<i32>,
    /// Replication factor of a created topic. Default: the broker's default.
    #[serde(default, deserialize_with = "optional_number")]
    #[schemars(range(min = 1))]
    pub replication_factor: Option<i32>,
    /// Any option of librdkafka by its name, such as `"security.protocol" = "SASL_SSL"`.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
    /// As `options`, each value read from a file: `"sasl.password" = "/run/secrets/kafka"`.
    #[serde(default)]
    pub option_files: BTreeMap<String, PathBuf>,
    /// As `options`, each value read from an environment variable.
    #[serde(default)]
    pub option_env: BTreeMap<String, String>,
}

fn kafka_topic() -> String {
    "rtm.{stream}_events".to_owned()
}

fn kafka_dead_letters() -> String {
    "rtm.dead_letters".to_owned()
}

/// An option of librdkafka: text, a number or a boolean. Never printed, for it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct OptionValue(pub String);

impl std::fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl JsonSchema for OptionValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OptionValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<OptionValue, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = OptionValue;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, a number or a boolean")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OptionValue, E> {
                Ok(OptionValue(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<OptionValue, E> {
                Ok(OptionValue(number.to_string()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<OptionValue, E> {
                Ok(OptionValue(number.to_string()))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<OptionValue, E> {
                Ok(OptionValue(number.to_string()))
            }

            fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<OptionValue, E> {
                Ok(OptionValue(truth.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A sink of type `nats`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// Only to tell the type where the sink has another name.
    #[serde(default, rename = "type")]
    #[schemars(extend("const" = "nats"))]
    pub kind: Option<String>,
    /// What happens when the journal is full because of this sink: `stop` (polling stops; default) or `skip` (the oldest
    /// events are given up for this sink, counted).
    #[serde(default)]
    pub when_full: WhenFull,
    /// Server URLs: `nats://`, `tls://`, or `host:port`.
    #[schemars(length(min = 1))]
    pub servers: Vec<String>,
    /// The JetStream stream that stores the subjects.
    pub stream: String,
    /// Subject template; variables `{app} {app_id} {region} {stream} {type} {user_id} {channel_id}`, escaped.
    /// Default `rtm.{app}.{region}.{stream}_events`.
    #[serde(default = "nats_subject")]
    pub subject: String,
    /// Subject template of dead letters; variables `{app} {app_id} {region} {stream}`. Default `rtm.{app}.dead_letters`.
    #[serde(default = "nats_dead_letters")]
    pub dead_letter_subject: String,
    /// Whether the tags also go into headers. Default false; `Nats-Msg-Id` and `Nats-Expected-Stream` always do.
    #[serde(default)]
    pub headers: bool,
    /// Credentials. Default: none.
    #[serde(default)]
    pub auth: Option<NatsAuthConfig>,
    /// TLS. Default: as the URL's scheme says.
    #[serde(default)]
    pub tls: TlsConfig,
    /// How long an acknowledgement may take before the record is published again. Default `5s`.
    #[serde(default = "five_seconds", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub ack_timeout: Duration,
    /// Records in flight at most, 1 to 8000. Default 4000.
    #[serde(default = "four_thousand", deserialize_with = "units::number")]
    #[schemars(range(min = 1, max = rtm_sink_nats::MAX_IN_FLIGHT))]
    pub in_flight: usize,
    /// Whether each page is published as one atomic batch: for one acknowledgement, less CPU, and in order per key
    /// whatever fails. `auto` (default): where the server (2.12 and later) and the stream take them, which `check
    /// --connect` and the log tell. `off`: never. An existing stream takes them once its `allow_atomic` is set: `nats
    /// stream edit NAME --allow-batch`, or a `STREAM.UPDATE` of the JetStream API; the bridge sees it when it connects.
    /// With `create`, the stream is made so.
    #[serde(default)]
    pub atomic_batches: AtomicBatches,
    /// Creates the stream at start when it is missing. Default: it must exist.
    #[serde(default)]
    pub create: Option<CreateStream>,
}

/// `atomic_batches` of a NATS sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtomicBatches {
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
pub enum NatsAuthConfig {
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
pub struct JwtConfig {
    /// The file with the JWT.
    pub jwt_file: PathBuf,
    /// The file with the seed.
    pub seed_file: PathBuf,
}

/// A user and a password. Exactly one of `password`, `password_file`, `password_env`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["password"]}, {"required": ["password_file"]}, {"required": ["password_env"]}]))]
pub struct PasswordConfig {
    /// The user.
    #[serde(deserialize_with = "units::text")]
    #[schemars(schema_with = "units::text_schema")]
    pub user: String,
    /// The password, inline: warned about.
    #[serde(default)]
    pub password: Option<InlineSecret>,
    /// A file that holds it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// An environment variable that holds it.
    #[serde(default)]
    pub password_env: Option<String>,
}

/// `tls` of a NATS sink.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Refuse a server without TLS. Default false; `tls://` in a URL says the same.
    pub required: bool,
    /// A PEM file with further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// The client's key, PEM.
    pub key_file: Option<PathBuf>,
}

/// `create` of a NATS sink: the stream to create when it is missing.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateStream {
    /// Its subjects. Default: those that the subject templates cover.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Bound on its size. Default: none.
    #[serde(default, deserialize_with = "optional_size")]
    #[schemars(schema_with = "units::size::schema")]
    pub max_bytes: Option<u64>,
    /// Bound on a message's age. Default: none.
    #[serde(default, deserialize_with = "optional_duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub max_age: Option<Duration>,
    /// Replicas. Default 1.
    #[serde(default = "one", deserialize_with = "units::number")]
    pub replicas: usize,
    /// How long the server remembers record ids. Default `2m`, the server's own.
    #[serde(default = "two_minutes", with = "units::duration")]
    #[schemars(schema_with = "units::duration::schema")]
    pub duplicate_window: Duration,
}

fn one() -> usize {
    1
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

fn optional_number<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i32>, D::Error> {
    units::number(deserializer).map(Some)
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

/// A sink of type `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Only to tell the type where the sink has another name.
    #[serde(default, rename = "type")]
    #[schemars(extend("const" = "file"))]
    pub kind: Option<String>,
    /// What happens when the journal is full because of this sink: `stop` (polling stops; default) or `skip` (the oldest
    /// events are given up for this sink, counted).
    #[serde(default)]
    pub when_full: WhenFull,
    /// The file to append to.
    pub path: PathBuf,
}

/// A sink of type `stdout`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// Only to tell the type where the sink has another name.
    #[serde(default, rename = "type")]
    #[schemars(extend("const" = "stdout"))]
    pub kind: Option<String>,
    /// What happens when the journal is full because of this sink: `stop` (polling stops; default) or `skip` (the oldest
    /// events are given up for this sink, counted).
    #[serde(default)]
    pub when_full: WhenFull,
}
