//! From a sink's configuration to what publishes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rtm_sink::{AnySink, FileSink, Health, Sink};
use rtm_sink_kafka::{KafkaOptions, KafkaSink, TopicSpec};
use rtm_sink_nats::{NatsAuth, NatsOptions, NatsSink, NatsTls, StreamSpec, covers, widen};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::assemble::{RunError, secret, warn_if_world_readable};
use crate::config::{AtomicBatches, Config, KafkaConfig, NatsAuthConfig, NatsConfig, SinkConfig};
use rtm_record::{KeyBy, Router, Routes, Template};

/// Partitions of a created topic: the cluster's default.
const DEFAULT_PARTITIONS: i32 = -1;

/// See [`Client::spare`]: two batches of the largest size.
const SPARE_RECORDS: usize = 2 * crate::bridge::MAX_BATCH_RECORDS;

/// One sink with its name and its routes. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    name: String,
    kind_name: &'static str,
    title: String,
    routes: Routes,
    sink: AnySink,
    spare: Arc<Semaphore>,
}

impl Client {
    /// One from its parts.
    #[must_use]
    pub fn new(name: &str, routes: Routes, sink: AnySink) -> Client {
        Client {
            name: name.to_owned(),
            kind_name: "other",
            title: format!("the sink {name}"),
            routes,
            sink,
            spare: Arc::new(Semaphore::new(SPARE_RECORDS)),
        }
    }

    /// The same sink, with what the configuration says that it is, and what people call it within a sentence.
    #[must_use]
    pub fn called(self, kind_name: &'static str, title: String) -> Client {
        Client {
            kind_name,
            title,
            ..self
        }
    }

    /// The sink's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the configuration says that the sink is.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        self.kind_name
    }

    /// What people call the sink within a sentence.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// A router for one lane.
    #[must_use]
    pub fn router(&self) -> Router {
        Router::new(self.routes.clone())
    }

    /// A router for records that are published again.
    #[must_use]
    pub fn replaying_router(&self) -> Router {
        Router::replaying(self.routes.clone())
    }

    /// Records, beyond a first page each, that all batches of this sink may hold: a backlog of many App IDs takes no more
    /// memory than that of a few, and none waits long for the others to be confirmed.
    #[must_use]
    pub fn spare(&self) -> Arc<Semaphore> {
        Arc::clone(&self.spare)
    }

    /// What records are handed to.
    #[must_use]
    pub fn sink(&self) -> AnySink {
        self.sink.clone()
    }

    /// How the sink is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.sink.health()
    }

    /// Ends the sink. What it had not confirmed is published again after the next start.
    pub async fn close(self) {
        self.sink.close().await;
    }
}

/// A sink as `config` has it, made and perhaps not yet connected.
pub(crate) async fn client(
    name: &str,
    sink: &SinkConfig,
    config: &Config,
) -> Result<Client, RunError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| RunError::Sink {
        sink: name.to_owned(),
        source,
    };
    let made = match sink {
        SinkConfig::Kafka(kafka) => {
            let sink = KafkaSink::new(kafka_options(kafka).map_err(error)?)
                .map_err(|source| error(source.into()))?;
            let sink = Arc::new(sink);
            if kafka.create {
                let topics = kafka_topics(kafka, config);
                create_topics(name.to_owned(), Arc::clone(&sink), topics);
            }
            AnySink::new(sink)
        }
        SinkConfig::Nats(nats) => {
            let sink = NatsSink::connect(nats_options(nats)).await;
            AnySink::new(Arc::new(sink.map_err(|source| error(source.into()))?))
        }
        SinkConfig::Stdout(_) => {
            let sink = FileSink::stdout().map_err(|source| error(source.into()))?;
            AnySink::new(Arc::new(sink))
        }
        SinkConfig::File(file) => {
            let sink = FileSink::create(&file.path).map_err(|source| error(source.into()))?;
            AnySink::new(Arc::new(sink))
        }
    };
    let routes = routes(sink).map_err(|text| error(text.into()))?;
    Ok(Client::new(name, routes, made).called(sink.kind(), title(name, sink)))
}

/// What people call a sink within a sentence.
fn title(name: &str, sink: &SinkConfig) -> String {
    let broker = match sink {
        SinkConfig::Kafka(_) => "Kafka",
        SinkConfig::Nats(_) => "NATS",
        SinkConfig::Stdout(_) | SinkConfig::File(_) => return format!("the sink {name}"),
    };
    match name == sink.kind() {
        true => broker.to_owned(),
        false => format!("the sink {name} ({broker})"),
    }
}

/// Creates a sink's topics, in the background: polling does not wait for a broker, and where this fails the first records
/// try again.
fn create_topics(name: String, sink: Arc<KafkaSink>, topics: Vec<String>) {
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

/// Where a sink's records go.
///
/// # Errors
///
/// With what is wrong with a template.
pub fn routes(sink: &SinkConfig) -> Result<Routes, String> {
    match sink {
        SinkConfig::Kafka(kafka) => kafka_routes(kafka),
        SinkConfig::Nats(nats) => nats_routes(nats),
        SinkConfig::Stdout(_) | SinkConfig::File(_) => line_routes(),
    }
}

fn kafka_routes(kafka: &KafkaConfig) -> Result<Routes, String> {
    Ok(Routes {
        topic: Template::parse(&kafka.topic, rtm_record::STATIC)?,
        dead_letters: Template::parse(&kafka.dead_letter_topic, rtm_record::STATIC)?,
        key: kafka.key,
        headers: kafka.headers,
    })
}

pub(crate) fn nats_routes(nats: &NatsConfig) -> Result<Routes, String> {
    Ok(Routes {
        topic: Template::parse(&nats.subject, rtm_record::ALL)?,
        dead_letters: Template::parse(&nats.dead_letter_subject, rtm_record::STATIC)?,
        key: KeyBy::Auto,
        headers: nats.headers,
    })
}

/// A file has no topics; its lines say where they come from.
///
/// # Errors
///
/// None: its templates are constants.
pub fn line_routes() -> Result<Routes, String> {
    let topic = Template::parse("{stream}_events", rtm_record::STATIC)?;
    Ok(Routes {
        dead_letters: Template::parse("dead_letters", rtm_record::STATIC)?,
        topic,
        key: KeyBy::Auto,
        headers: false,
    })
}

/// The options of a Kafka sink, secrets read.
///
/// # Errors
///
/// When a file or a variable that holds an option cannot be read.
pub fn kafka_options(
    kafka: &KafkaConfig,
) -> Result<KafkaOptions, Box<dyn std::error::Error + Send + Sync>> {
    let mut options: BTreeMap<String, String> = kafka
        .options
        .iter()
        .map(|(name, value)| (name.clone(), value.0.clone()))
        .collect();
    for file in kafka.option_files.values() {
        warn_if_world_readable(file);
    }
    for (name, variable) in &kafka.option_env {
        let value = std::env::var(variable)
            .map_err(|_| format!("{name}: the environment variable {variable} is not set"))?;
        options.insert(name.clone(), value);
    }
    let create_topics = kafka.create.then(|| TopicSpec {
        partitions: kafka.partitions.unwrap_or(DEFAULT_PARTITIONS),
        replication: kafka.replication_factor.unwrap_or(-1),
    });
    Ok(KafkaOptions {
        options,
        option_files: kafka.option_files.clone(),
        create_topics,
        ..KafkaOptions::new(kafka.brokers.clone())
    })
}

/// Every topic that a Kafka sink can publish to.
#[must_use]
pub fn kafka_topics(kafka: &KafkaConfig, config: &Config) -> Vec<String> {
    names(&[&kafka.topic, &kafka.dead_letter_topic], config)
}

/// Every name that templates can lead to, parts of events replaced by `x`.
fn names(templates: &[&String], config: &Config) -> Vec<String> {
    let templates = templates.iter();
    let templates = templates.filter_map(|text| Template::parse(text, rtm_record::ALL).ok());
    let mut names: Vec<String> = templates
        .flat_map(|template| template.names(&config.names(), "x"))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Every subject that a NATS sink can publish to, parts of events replaced by `x`.
#[must_use]
pub fn nats_subjects(nats: &NatsConfig, config: &Config) -> Vec<String> {
    names(&[&nats.subject, &nats.dead_letter_subject], config)
}

/// The options of a NATS sink. Secrets are read by the sink, for each connection.
#[must_use]
pub fn nats_options(nats: &NatsConfig) -> NatsOptions {
    let file = |path: &PathBuf| {
        warn_if_world_readable(path);
        rtm_sink_nats::Secret::File(path.clone())
    };
    let auth = match &nats.auth {
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
            password: match secret(
                &password.password,
                &password.password_file,
                &password.password_env,
            ) {
                rtm_source::Secret::Inline(secret) => rtm_sink_nats::Secret::Text(secret),
                rtm_source::Secret::File(file) => rtm_sink_nats::Secret::File(file),
            },
        },
    };
    let create_stream = nats.create.as_ref().map(|create| StreamSpec {
        subjects: if create.subjects.is_empty() {
            covering(nats)
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
            required: nats.tls.required,
            ca_file: nats.tls.ca_file.clone(),
            cert_file: nats.tls.cert_file.clone(),
            key_file: nats.tls.key_file.clone(),
        },
        in_flight: nats.in_flight,
        atomic_batches: nats.atomic_batches == AtomicBatches::Auto,
        ack_timeout: nats.ack_timeout,
        create_stream,
        ..NatsOptions::new(nats.servers.clone(), nats.stream.clone())
    }
}

/// Subjects of a stream that covers the templates: each variable a wildcard of one token. One that another covers is
/// left out, for a stream's subjects may not overlap.
pub(crate) fn covering(nats: &NatsConfig) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    for text in [&nats.subject, &nats.dead_letter_subject] {
        let Ok(template) = Template::parse(text, rtm_record::ALL) else {
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

#[cfg(test)]
mod tests {
    use rtm_sink_nats::covers;

    #[test]
    fn a_wildcard_covers_one_token() {
        assert!(covers("rtm.*.*", "rtm.*.dead_letters"));
        assert!(!covers("rtm.*.*.*", "rtm.*.dead_letters"));
        assert!(!covers("rtm.*.dead_letters", "rtm.*.*"));
    }
}
