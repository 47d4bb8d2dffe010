//! The topic that says how far each lane is published: what it must be like, and what it holds.
//!
//! A journal has one partition, which its number decides. What readers of committed records see of a partition ends where the
//! oldest open transaction begins, whosever that is: journals that share a partition may have to wait for one another.

use std::collections::HashMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::options::{ConnectError, TopicSpec};
use crate::producer::{Configure, Context};

/// How long the brokers may take to answer one question.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// How long transactions of others may hide what a partition holds: [`OPEN of `exact/begin.rs``], and what the coordinator takes to
/// notice.
const HIDDEN: Duration = Duration::from_secs(25);

/// How often it is seen whether they have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Partitions of the topic where we make it.
const PARTITIONS: i32 = 12;

/// What the topic is made with: the newest record of each key is all that it needs to hold.
const SETTINGS: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("segment.bytes", "16777216")];

/// Why the topic says nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// There is no such topic.
    Missing,
    /// Others have transactions open in the partition, for long.
    Hidden,
    Start(ConnectError),
    Kafka(KafkaError),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Trouble {
        Trouble::Kafka(error)
    }
}

/// What a key has for its newest record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Milliseconds since the Unix epoch.
    pub(crate) stored_ms: i64,
    pub(crate) value: Vec<u8>,
}

/// Reads the topic. Everything blocks.
pub(crate) struct Reader {
    topic: String,
    /// Sees everything, and so where a partition ends.
    all: BaseConsumer<Context>,
    /// Sees what is committed.
    committed: BaseConsumer<Context>,
}

impl Reader {
    /// `configure` are two, for two clients.
    pub(crate) fn new<C: Configure>(topic: &str, configure: [C; 2]) -> Result<Reader, Trouble> {
        let [all, committed] = configure;
        Ok(Reader {
            topic: topic.to_owned(),
            all: consumer(all, "read_uncommitted")?,
            committed: consumer(committed, "read_committed")?,
        })
    }

    /// How many partitions the topic has.
    pub(crate) fn partitions(&self) -> Result<i32, Trouble> {
        let metadata = self.all.fetch_metadata(Some(&self.topic), ANSWER)?;
        let mut topics = metadata.topics().iter();
        let topic = topics.find(|topic| topic.name() == self.topic);
        let topic = topic.ok_or(Trouble::Missing)?;
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Err(Trouble::Missing),
            Some(code) => return Err(KafkaError::MetadataFetch(code).into()),
        }
        match i32::try_from(topic.partitions().len()) {
            Ok(partitions @ 1..) => Ok(partitions),
            _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable).into()),
        }
    }

    /// The newest record of each key that begins with `prefix`. It is all that was stored before it was asked for: the end
    /// is that of a client that sees everything, and what is not committed there yet is waited for.
    pub(crate) fn read(
        &self,
        partition: i32,
        prefix: &str,
    ) -> Result<HashMap<String, Found>, Trouble> {
        let mut found = HashMap::new();
        let (begin, end) = self.all.fetch_watermarks(&self.topic, partition, ANSWER)?;
        let until = Instant::now() + HIDDEN;
        while self.committed_end(partition)? < end {
            if Instant::now() >= until {
                return Err(Trouble::Hidden);
            }
            sleep(LOOK);
        }
        if begin >= end {
            return Ok(found);
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, partition, Offset::Offset(begin))?;
        self.committed.assign(&assignment)?;
        let mut since = Instant::now();
        let mut said = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        loop {
            let message = match self.committed.poll(LOOK) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
                silent_or_error => {
                    // librdkafka goes on trying. A group's rights are not needed, and it may tell that they are missing.
                    if let Some(Err(error)) = silent_or_error {
                        said = error;
                    }
                    if since.elapsed() >= ANSWER {
                        return Err(said.into());
                    }
                    continue;
                }
            };
            since = Instant::now();
            let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
            let Some(key) = key.filter(|key| key.starts_with(prefix)) else {
                continue;
            };
            match message.payload() {
                Some(value) => {
                    let stored_ms = message.timestamp().to_millis().unwrap_or_default();
                    let value = value.to_vec();
                    found.insert(key.to_owned(), Found { stored_ms, value });
                }
                None => drop(found.remove(key)),
            }
        }
    }

    /// Where what is committed ends: a client that sees no more is told so for the end.
    fn committed_end(&self, partition: i32) -> Result<i64, Trouble> {
        let (_, end) = (self.committed).fetch_watermarks(&self.topic, partition, ANSWER)?;
        Ok(end)
    }

    /// Why the brokers refuse the client altogether, if they do.
    pub(crate) fn context(&self) -> &Context {
        self.all.client().context()
    }
}

fn consumer(configure: impl Configure, isolation: &str) -> Result<BaseConsumer<Context>, Trouble> {
    let (mut config, context) = configure().map_err(Trouble::Start)?;
    // Nothing here polls for its statistics, which would gather.
    config.remove("statistics.interval.ms");
    config
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        // It joins none, and librdkafka assigns nothing without.
        .set("group.id", "rtm-bridge-progress")
        .set("fetch.wait.max.ms", "20")
        // It would complain of the options of producers.
        .set_log_level(RDKafkaLogLevel::Emerg);
    let consumer = BaseConsumer::from_config_and_context(&config, context);
    let consumer = consumer.map_err(|error| Trouble::Start(ConnectError::Start(error)))?;
    // Takes a token, where the brokers ask for one: no question comes through without. What goes wrong is told by the questions.
    drop(consumer.poll(Duration::ZERO));
    Ok(consumer)
}

/// Makes the topic. That it is there already is no error.
pub(crate) async fn make(
    admin: &AdminClient<Context>,
    topic: &str,
    spec: TopicSpec,
) -> Result<(), RDKafkaErrorCode> {
    let new = NewTopic {
        name: topic,
        num_partitions: PARTITIONS,
        replication: TopicReplication::Fixed(spec.replication),
        config: SETTINGS.to_vec(),
    };
    let options = AdminOptions::new()
        .operation_timeout(Some(ANSWER))
        .request_timeout(Some(ANSWER));
    let made = admin.create_topics([&new], &options).await;
    let code = |error: &KafkaError| {
        error
            .rdkafka_error_code()
            .unwrap_or(RDKafkaErrorCode::Unknown)
    };
    match made.map_err(|error| code(&error))?.into_iter().next() {
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(code),
    }
}

/// What is wrong with a topic whose `cleanup.policy` this is.
pub(crate) fn unfit(policy: &str) -> Option<String> {
    (policy.trim() != "compact").then(|| {
        format!(
            "its cleanup.policy is `{policy}`, by which it would forget how far a quiet App ID is published: set it to `compact`"
        )
    })
}
