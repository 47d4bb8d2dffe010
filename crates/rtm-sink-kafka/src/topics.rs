use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use tokio::task::spawn_blocking;

use crate::options::{CANCELED, ConnectError, TopicSpec};
use crate::producer::{Configure, Live};

/// How long the brokers may take to answer about topics.
const TIMEOUT: Duration = Duration::from_secs(10);

/// After this long the first time, and twice as long each time, it is seen whether there is any use in waiting.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// What [`KafkaSink::check`](crate::KafkaSink::check) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Brokers of the cluster.
    pub brokers: usize,
    /// The topics asked for, in the order given.
    pub topics: Vec<TopicReached>,
}

/// One topic, as this client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReached {
    /// Its name.
    pub name: String,
    /// How many partitions it has; `None` if it does not exist, or is not shown to us.
    pub partitions: Option<usize>,
}

/// Why the cluster or its topics could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No broker answered in 10 s.
    #[error("reach the brokers{}", said.as_ref().map(|said| format!(" (librdkafka says: {said})")).unwrap_or_default())]
    Unreachable {
        /// The last thing that librdkafka said, without secrets: it knows more than the error.
        said: Option<String>,
        /// The error.
        source: KafkaError,
    },
    /// A topic could not be created.
    #[error("create the topic `{name}`")]
    Create {
        /// The topic.
        name: String,
        /// What the brokers said.
        source: RDKafkaErrorCode,
    },
    /// No client could be made.
    #[error(transparent)]
    Start(#[from] ConnectError),
    /// The sink was closed.
    #[error("the sink is closed")]
    Closed,
}

/// Asks for the list of all topics, because asking for one by its name may create it. Blocks.
pub(crate) fn reach(live: &Live, topics: &[String]) -> Result<Reached, KafkaError> {
    let end = Instant::now() + TIMEOUT;
    let mut patience = FIRST_LOOK;
    let metadata = loop {
        let left = end.saturating_duration_since(Instant::now());
        let asked = live
            .producer()
            .client()
            .fetch_metadata(None, patience.min(left));
        // Refused credentials are known in milliseconds, and librdkafka would wait all the same.
        if asked.is_ok() || patience >= left || live.failure().is_some() {
            break asked?;
        }
        patience *= 2;
    };
    let reached = |name: &String| {
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        TopicReached {
            name: name.clone(),
            partitions: topic
                .map(|topic| topic.partitions().len())
                .filter(|count| *count > 0),
        }
    };
    Ok(Reached {
        brokers: metadata.brokers().len(),
        topics: topics.iter().map(reached).collect(),
    })
}

/// Creates the topics that do not exist, with a client of its own.
pub(crate) async fn create(
    configure: impl Configure,
    names: Vec<String>,
    spec: TopicSpec,
) -> Result<(), CheckError> {
    let admin = spawn_blocking(move || {
        let (mut config, context) = configure()?;
        // The statistics would gather, since nothing here polls for them.
        config.remove("statistics.interval.ms");
        AdminClient::from_config_and_context(&config, context).map_err(ConnectError::Start)
    });
    let admin = admin.await.unwrap_or(Err(CANCELED))?;
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| {
            NewTopic::new(
                name,
                spec.partitions,
                TopicReplication::Fixed(spec.replication),
            )
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(TIMEOUT))
        .request_timeout(Some(TIMEOUT));
    let results = admin.create_topics(&topics, &options).await;
    // Off the runtime's threads, since dropping the client joins its thread.
    spawn_blocking(move || drop(admin));
    for result in results.map_err(|source| CheckError::Unreachable { said: None, source })? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => (),
            Err((name, source)) => return Err(CheckError::Create { name, source }),
        }
    }
    Ok(())
}
