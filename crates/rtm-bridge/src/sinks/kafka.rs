//! Kafka.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use rtm_record::{KeyBy, STATIC};
use rtm_sink::{AnySink, ExactLimits};
use rtm_sink_kafka::{
    EXACT_LIMITS, ExactOptions, FILE_OPTIONS, KafkaOptions, KafkaSink, TopicSpec,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Error, Unexpected};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::kind::{Bench, Delivery, Each, Found, Kind, Purpose, Stored, Templates, changed};
use crate::fields::problem::Problems;
use crate::fields::secret;
use crate::fields::shown::{host, list, word};
use crate::fields::units;

mod look;

/// Partitions, or replicas, of a created topic: the cluster's default.
const CLUSTER_DEFAULT: i32 = -1;

/// How long a broker's host may take to accept a connection.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);

/// How long a broker may take to make or remove something, or to say how it is set.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a broker may be silent before reading it back is given up.
const READING_PATIENCE: Duration = Duration::from_secs(30);

/// Parts of names of librdkafka's options whose values are secrets.
const HOLD_SECRETS: [&str; 4] = ["password", "secret", "ssl.key.pem", "oauthbearer.config"];

/// librdkafka's options that name a file with a private key.
const NAME_SECRETS: [&str; 2] = ["ssl.key.location", "ssl.keystore.location"];

/// A sink of type `kafka`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaConfig {
    /// Bootstrap brokers, `host:port`.
    #[schemars(length(min = 1))]
    pub(crate) brokers: Vec<String>,
    /// Topic template; variables `{app} {app_id} {region} {stream}`. Default `rtm.{stream}_events`.
    #[serde(default = "kafka_topic")]
    pub(crate) topic: String,
    /// Topic template of dead letters. Default `rtm.dead_letters`.
    #[serde(default = "kafka_dead_letters")]
    pub(crate) dead_letter_topic: String,
    /// What records are keyed by. Default `auto`: the user for user events, the channel for channel events.
    #[serde(default)]
    pub(crate) key: KeyBy,
    /// Whether the tags also go into headers. Default false: one header doubles what librdkafka spends on a record.
    #[serde(default)]
    pub(crate) headers: bool,
    /// Whether to create missing topics at start. Default false: the broker's auto-creation decides.
    #[serde(default)]
    pub(crate) create: bool,
    /// Partitions of a created topic. Default: the broker's default.
    #[serde(default, deserialize_with = "optional_number")]
    #[schemars(range(min = 1))]
    pub(crate) partitions: Option<i32>,
    /// Replication factor of a created topic. Default: the broker's default.
    #[serde(default, deserialize_with = "optional_number")]
    #[schemars(range(min = 1))]
    pub(crate) replication_factor: Option<i32>,
    /// How often a record may be stored. `at_least_once` (default): a crash may store records twice. `exactly_once`: each
    /// once, dead letters too, through crashes of the bridge and of brokers, for consumers that read what is committed:
    /// `isolation.level=read_committed`, which is not the default of Java's clients. It needs the right to write to the
    /// transactional ids with `transactional_id_prefix`, and to read and write `progress_topic`.
    #[serde(default)]
    pub(crate) delivery: Delivery,
    /// With `exactly_once`, the topic that says how far each App ID is published. It must be compacted. With `create` it is
    /// created, with 12 partitions, whose number is to stay. Default `rtm.progress`.
    #[serde(default = "progress_topic")]
    pub(crate) progress_topic: String,
    /// With `exactly_once`, what the transactional ids begin with: `<prefix>.<number of the journal>.<sink>`, and the same
    /// with `.aside`. Default `rtm-bridge`.
    #[serde(default = "transactional_id_prefix")]
    pub(crate) transactional_id_prefix: String,
    /// Any option of librdkafka by its name, such as `"security.protocol" = "SASL_SSL"`.
    #[serde(default)]
    #[schemars(schema_with = "options_schema")]
    pub(crate) options: BTreeMap<String, OptionValue>,
    /// As `options`, each value read from a file: `"sasl.password" = "/run/secrets/kafka"`.
    #[serde(default)]
    pub(crate) option_files: BTreeMap<String, PathBuf>,
    /// As `options`, each value read from an environment variable.
    #[serde(default)]
    pub(crate) option_env: BTreeMap<String, String>,
}

fn optional_number<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i32>, D::Error> {
    units::number(deserializer).map(Some)
}

fn kafka_topic() -> String {
    "rtm.{stream}_events".to_owned()
}

fn progress_topic() -> String {
    "rtm.progress".to_owned()
}

fn transactional_id_prefix() -> String {
    "rtm-bridge".to_owned()
}

fn kafka_dead_letters() -> String {
    "rtm.dead_letters".to_owned()
}

/// An option of librdkafka: text, a number or a boolean. Never printed, for it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OptionValue(String);

impl fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Of names and [`OptionValue`]s.
fn options_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "type": ["string", "number", "boolean"] },
    })
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<OptionValue, D::Error> {
        let found = match Value::deserialize(deserializer)? {
            Value::String(text) => return Ok(OptionValue(text)),
            Value::Bool(truth) => return Ok(OptionValue(truth.to_string())),
            Value::Number(number) => {
                // librdkafka takes `5` for a whole number, and not `5.0`.
                let float = number.as_f64().filter(|_| number.is_f64());
                let text = float.map_or_else(|| number.to_string(), |float| float.to_string());
                return Ok(OptionValue(text));
            }
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) | Value::Null => Unexpected::Map,
        };
        Err(D::Error::invalid_type(
            found,
            &"text, a number or a boolean",
        ))
    }
}

#[async_trait]
impl Kind for KafkaConfig {
    fn problems(&self, _: &[String], problems: &mut Problems<'_>) {
        if self.brokers.is_empty() {
            problems.add(
                "brokers",
                "at least one broker is needed, such as \"kafka:9092\"",
            );
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let is_topic = |topic: &str| topic.bytes().all(legal) && topic.len() <= 249;
        self.templates().problems(
            is_topic,
            "a Kafka topic: letters, digits, `.`, `_` and `-`",
            problems,
        );
        if self.progress_topic.is_empty() || !is_topic(&self.progress_topic) {
            problems.add(
                "progress_topic",
                "is not a Kafka topic: letters, digits, `.`, `_` and `-`",
            );
        }
        if self.transactional_id_prefix.is_empty() {
            problems.add("transactional_id_prefix", "expected some text");
        }
        for (option, file) in &self.option_files {
            problems.readable(format_args!("option_files.{option}"), file, "");
        }
        // A directory of authorities is none, and a word stands for where the system has its own.
        let is_file = |file: &&Path| file.as_os_str() != "probe" && !file.is_dir();
        for option in FILE_OPTIONS {
            let named = self.options.get(option);
            if let Some(file) = named.map(|named| Path::new(&named.0)).filter(is_file) {
                problems.readable(format_args!("options.{option}"), file, "");
            }
        }
        for (option, variable) in &self.option_env {
            if std::env::var_os(variable).is_none() {
                problems.add(
                    format_args!("option_env.{option}"),
                    format!("the environment variable `{variable}` is not set"),
                );
            }
        }
        for (key, number) in [
            ("partitions", self.partitions),
            ("replication_factor", self.replication_factor),
        ] {
            if number.is_some_and(|number| number < 1) {
                problems.add(key, "expected at least 1");
            }
        }
    }

    fn secrets(&self, warnings: &mut Problems<'_>) {
        for (option, file) in &self.option_files {
            secret::of_file(format_args!("option_files.{option}"), file, warnings);
        }
        for (option, value) in &self.options {
            let key = format!("options.{option}");
            if HOLD_SECRETS.iter().any(|part| option.contains(part)) {
                secret::of_inline(key, warnings);
            } else if NAME_SECRETS.contains(&option.as_str()) {
                secret::of_file(key, Path::new(&value.0), warnings);
            }
        }
    }

    fn title(&self) -> Option<&'static str> {
        Some("Kafka")
    }

    fn templates(&self) -> Templates<'_> {
        Templates {
            records: ("topic", &self.topic),
            dead_letters: ("dead_letter_topic", &self.dead_letter_topic),
            allowed: STATIC,
            key: self.key,
            headers: self.headers,
        }
    }

    fn shown(&self) -> Vec<(&'static str, String)> {
        let options = self.options.keys();
        let options = options
            .chain(self.option_files.keys())
            .chain(self.option_env.keys());
        vec![
            ("brokers", list(self.brokers.iter().map(|url| host(url)))),
            ("topic", self.topic.clone()),
            ("dead_letter_topic", self.dead_letter_topic.clone()),
            ("key", word(self.key)),
            ("headers", self.headers.to_string()),
            ("create", self.create.to_string()),
            ("delivery", word(self.delivery)),
            ("options set", list(options.cloned())),
        ]
    }

    fn needs_new_client(&self, new: &dyn Kind) -> Vec<&'static str> {
        changed!(
            self to new of KafkaConfig,
            renewed: topic dead_letter_topic key headers,
            fixed: brokers create partitions replication_factor delivery progress_topic transactional_id_prefix options option_files option_env
        )
    }

    async fn open(
        &self,
        name: &str,
        places: &[String],
        purpose: Purpose,
    ) -> anyhow::Result<AnySink> {
        let mut table = self.clone();
        if purpose == Purpose::Replay {
            // What is published again is to be stored again.
            table.delivery = Delivery::AtLeastOnce;
        }
        let sink = Arc::new(spawn_blocking(move || table.sink()).await??);
        if self.create {
            create_topics(name.to_owned(), places.to_vec(), Arc::clone(&sink));
        }
        Ok(AnySink::new(sink))
    }

    fn exact(&self) -> Option<ExactLimits> {
        (self.delivery == Delivery::ExactlyOnce).then_some(EXACT_LIMITS)
    }

    fn accepted(&self) -> Option<anyhow::Result<()>> {
        Some(self.sink().map(drop))
    }

    async fn reach(&self, places: &[String], dead: &[String]) -> Vec<Found> {
        let found = self.look(places, dead).await;
        found.unwrap_or_else(|error| vec![(String::new(), Err(error))])
    }

    async fn ready(&self, places: &[String]) -> anyhow::Result<()> {
        // librdkafka would try again and again, and say nothing but that time is over.
        connect(&self.brokers).await?;
        let topics: Vec<&str> = places.iter().map(String::as_str).collect();
        let reached = self.sink()?.check(&topics).await;
        reached.with_context(|| format!("cannot use {}", self.brokers.join(", ")))?;
        Ok(())
    }

    fn bench(&self, bench: &Bench<'_>) -> Result<Value, String> {
        let prefix = format!("rtm-bench-{}-{}", bench.tag, bench.sink);
        Ok(json!({
            "topic": format!("{prefix}.{{stream}}_events"),
            "dead_letter_topic": format!("{prefix}.dead_letters"),
            "create": false,
        }))
    }

    fn is_of_bench(&self, bench: &Bench<'_>) -> bool {
        let prefix = format!("rtm-bench-{}-", bench.tag);
        self.topic.starts_with(&prefix) && self.dead_letter_topic.starts_with(&prefix)
    }

    fn made(&self) -> Vec<String> {
        let topics = self.topics().into_iter();
        topics.map(|(topic, _)| format!("topic {topic}")).collect()
    }

    /// The topics, which are to tell when a record was stored; all of them, or none.
    async fn make(&self) -> anyhow::Result<()> {
        let admin = self.admin()?;
        let topics = self.topics();
        let topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, _)| NewTopic {
                name,
                num_partitions: self.partitions.unwrap_or(1),
                replication: TopicReplication::Fixed(
                    self.replication_factor.unwrap_or(CLUSTER_DEFAULT),
                ),
                config: vec![("message.timestamp.type", "LogAppendTime")],
            })
            .collect();
        let created = admin.create_topics(&topics, &admin_options()).await;
        let created = created
            .with_context(|| format!("cannot create topics at {}", self.brokers.join(", ")))?;
        let failed = created.iter().find_map(|result| result.as_ref().err());
        let Some((topic, code)) = failed else {
            return Ok(());
        };
        let failed = anyhow::anyhow!("cannot create topic {topic}: {code}");
        let made: Vec<&str> = created.iter().flatten().map(String::as_str).collect();
        if !made.is_empty() && admin.delete_topics(&made, &admin_options()).await.is_err() {
            return Err(
                failed.context(format!("made before, and not removed: {}", made.join(", ")))
            );
        }
        Err(failed)
    }

    async fn remove(&self) -> anyhow::Result<()> {
        use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
        let admin = self.admin()?;
        let topics = self.topics();
        let names: Vec<&str> = topics.iter().map(|(topic, _)| topic.as_str()).collect();
        for result in admin.delete_topics(&names, &admin_options()).await? {
            match result {
                Ok(_) | Err((_, UnknownTopic | UnknownTopicOrPartition)) => {}
                Err((topic, code)) => anyhow::bail!("cannot delete topic {topic}: {code}"),
            }
        }
        Ok(())
    }

    async fn read_back(&self, each: Each<'_>) -> anyhow::Result<()> {
        let client = self.client()?;
        // Partitions of two topics must not be taken for one another.
        for ((topic, dead), offset) in self.topics().iter().zip((0..).step_by(10_000)) {
            let each = |stored: &Stored<'_>| {
                each(&Stored {
                    partition: stored.partition + offset,
                    ..*stored
                });
            };
            tokio::task::block_in_place(|| read_back(&client, topic, *dead, each))?;
        }
        Ok(())
    }
}

impl KafkaConfig {
    /// The options, secrets read.
    fn options(&self) -> anyhow::Result<KafkaOptions> {
        let given = self.options.iter();
        let given = given.map(|(name, value)| (name.clone(), value.0.clone()));
        let mut options: BTreeMap<String, String> = given.collect();
        for (name, variable) in &self.option_env {
            let Some(value) = crate::fields::variable::variable(variable) else {
                anyhow::bail!("{name}: the environment variable {variable} is not set");
            };
            options.insert(name.clone(), value);
        }
        let create_topics = self.create.then(|| TopicSpec {
            partitions: self.partitions.unwrap_or(CLUSTER_DEFAULT),
            replication: self.replication_factor.unwrap_or(CLUSTER_DEFAULT),
        });
        Ok(KafkaOptions {
            options,
            option_files: self.option_files.clone(),
            create_topics,
            exact: self.exactly(),
            ..KafkaOptions::new(self.brokers.clone())
        })
    }

    /// Where progress is kept, where there is any.
    fn exactly(&self) -> Option<ExactOptions> {
        (self.delivery == Delivery::ExactlyOnce).then(|| ExactOptions {
            progress_topic: self.progress_topic.clone(),
            transactional_id_prefix: self.transactional_id_prefix.clone(),
        })
    }

    fn sink(&self) -> anyhow::Result<KafkaSink> {
        Ok(KafkaSink::new(self.options()?)?)
    }

    /// What a client beside the sink's needs, with what the files hold now.
    fn client(&self) -> anyhow::Result<ClientConfig> {
        let mut client = self.options()?.client_config()?;
        // A producer's options mean nothing to a consumer, which would say so.
        client.set_log_level(RDKafkaLogLevel::Emerg);
        Ok(client)
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.client()?.create()?)
    }

    /// The topics of the demo or the bench, and whether they hold dead letters.
    fn topics(&self) -> [(String, bool); 3] {
        let of = |stream: &str| self.topic.replace("{stream}", stream);
        [
            (of("user"), false),
            (of("channel"), false),
            (self.dead_letter_topic.clone(), true),
        ]
    }
}

/// Creates a sink's topics, in the background: polling does not wait for a broker, and where this fails the first records
/// try again.
fn create_topics(name: String, topics: Vec<String>, sink: Arc<KafkaSink>) {
    tokio::spawn(async move {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        if let Err(problem) = sink.ensure_topics(&topics).await {
            warn!(
                sink = name,
                error = crate::chain(&problem),
                "cannot create the topics now; trying again with the first records"
            );
        }
    });
}

/// Whether one of the brokers takes connections.
async fn connect(brokers: &[String]) -> anyhow::Result<()> {
    let mut why = Vec::new();
    for broker in brokers {
        let connecting = TcpStream::connect(address(broker));
        match tokio::time::timeout(CONNECTION_PATIENCE, connecting).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => why.push(format!("{broker}: {error}")),
            Err(_) => why.push(format!("{broker}: no answer in {CONNECTION_PATIENCE:?}")),
        }
    }
    anyhow::bail!("cannot reach a Kafka broker: {}", why.join("; "))
}

/// As librdkafka takes it: with a protocol, or without a port.
fn address(broker: &str) -> String {
    let (_, host) = broker.split_once("://").unwrap_or(("", broker));
    match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:9092"),
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE))
}

/// Every record that a topic holds now, partition by partition. Blocks; nothing for a topic that does not exist.
///
/// # Errors
///
/// When the broker does not answer.
pub fn read_back(
    client: &ClientConfig,
    topic: &str,
    dead_letter: bool,
    mut each: impl FnMut(&Stored<'_>),
) -> anyhow::Result<()> {
    let consumer: BaseConsumer = client
        .clone()
        .set("group.id", "rtm-bridge-read-back")
        .set("enable.auto.commit", "false")
        // The end of a partition may be a mark of a transaction, which is no record.
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .set("fetch.wait.max.ms", "50")
        .create()
        .context("cannot make a consumer")?;
    let metadata = consumer
        .fetch_metadata(Some(topic), READING_PATIENCE)
        .with_context(|| format!("no metadata of topic {topic}"))?;
    let mut open: HashSet<i32> = HashSet::new();
    let mut assignment = TopicPartitionList::new();
    let topics = metadata.topics().iter();
    for partition in topics.flat_map(|topic| topic.partitions()) {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), READING_PATIENCE)
            .with_context(|| format!("no watermarks of topic {topic}"))?;
        if high > low {
            open.insert(partition.id());
            assignment.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
        }
    }
    consumer.assign(&assignment)?;
    while !open.is_empty() {
        let message = consumer
            .poll(READING_PATIENCE)
            .with_context(|| format!("topic {topic}: nothing for {READING_PATIENCE:?}"))?;
        let message = match message {
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
                continue;
            }
            message => message.with_context(|| format!("cannot read topic {topic}"))?,
        };
        each(&Stored {
            partition: message.partition(),
            order: u64::try_from(message.offset()).unwrap_or_default(),
            key: message.key(),
            payload: message.payload().unwrap_or_default(),
            timestamp: message.timestamp().to_millis(),
            dead_letter,
            is_line: false,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
