//! What `check --connect` says of Kafka.

use rtm_record::KeyBy;
use rtm_sink_kafka::{KafkaSink, TopicReached, TopicState};

use super::KafkaConfig;
use crate::sinks::kind::Found;

/// The most bytes that a record may have: a dead letter holds 64 KiB of what was read, of which JSON may write each byte
/// as six, and some tags.
const LARGEST_RECORD: u64 = 400 << 10;

/// What a usual event's record and its batch of one have at the most, in bytes.
const USUAL_RECORD: u64 = 1000;

/// What consumers must know, of which no broker can tell whether they do.
const COMMITTED: &str = "consumers must set isolation.level=read_committed, which is not the default of Java's clients: \
     else they see records twice, and such as were never committed";

/// The broker's setting by which a topic is made for whoever asks for it.
const AUTO_CREATION: &str = "auto.create.topics.enable";

impl KafkaConfig {
    /// Of the brokers and of each topic.
    pub(super) async fn look(
        &self,
        topics: &[String],
        dead: &[String],
    ) -> anyhow::Result<Vec<Found>> {
        let places: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut options = self.options()?;
        // The statistics tell where brokers are that cannot be reached, and whether the producer has its id.
        let statistics = "statistics.interval.ms".to_owned();
        options
            .options
            .entry(statistics)
            .or_insert_with(|| "500".to_owned());
        let reached = KafkaSink::new(options)?.check(&places).await?;
        let brokers = match reached.refused {
            None => Ok(format!("{} broker(s)", reached.brokers.len())),
            Some(refused) => Err(anyhow::anyhow!("nothing can be published: {refused}")),
        };
        let mut found = vec![(String::new(), brokers)];
        for broker in reached.brokers {
            let said = match broker.trouble {
                None => Ok(format!("{} is reached", broker.address)),
                Some(trouble) => Err(anyhow::anyhow!("it cannot be used: {trouble}")),
            };
            found.push((format!("broker {}", broker.id), said));
        }
        found.extend(
            self.small_client()
                .map(|warning| (String::new(), Ok(warning))),
        );
        if let Some(exact) = reached.exact {
            let what = format!("topic {}", self.progress_topic);
            let exact = exact.map_err(|why| anyhow::anyhow!("not once and only once: {why}"));
            let is_good = exact.is_ok();
            found.push((what.clone(), exact));
            if is_good {
                found.push((what, Ok(COMMITTED.to_owned())));
            }
        }
        for topic in &reached.topics {
            let what = format!("topic {}", topic.name);
            let without_key = self.without_key(dead.contains(&topic.name));
            let state = self.state(topic, without_key, reached.creates_topics);
            found.push((what.clone(), state));
            let warnings = warnings(topic, without_key.is_none()).into_iter();
            found.extend(warnings.map(|warning| (what.clone(), Ok(warning))));
        }
        Ok(found)
    }

    /// Whether records for a topic can be stored there, and what becomes of a topic that is missing.
    fn state(
        &self,
        topic: &TopicReached,
        without_key: Option<&str>,
        is_on: Option<bool>,
    ) -> anyhow::Result<String> {
        match &topic.state {
            TopicState::There {
                trouble: Some(trouble),
                ..
            } => anyhow::bail!("{trouble}"),
            TopicState::There { partitions, .. } => {
                match without_key.filter(|_| topic.is_compacted) {
                    Some(why) => anyhow::bail!(
                        "cleanup.policy is compact, and the topic takes no record without a key: {why}"
                    ),
                    None => Ok(format!("{partitions} partition(s)")),
                }
            }
            TopicState::Refused(why) => anyhow::bail!("{why}"),
            TopicState::Unanswered => anyhow::bail!("the brokers do not answer about it"),
            TopicState::Missing { refused: None } if self.create => {
                Ok("missing; `run` creates it".to_owned())
            }
            TopicState::Missing {
                refused: Some(refused),
            } if self.create => anyhow::bail!("it is missing, and cannot be created: {refused}"),
            TopicState::Missing { refused } => of_missing(is_on, refused.as_deref()),
        }
    }

    /// Why records for a topic have no keys, if they have none.
    fn without_key(&self, is_dead: bool) -> Option<&'static str> {
        match self.key {
            _ if is_dead => Some("dead letters have none"),
            KeyBy::None => Some("`key` is \"none\""),
            _ => None,
        }
    }

    /// A warning where the client's own limit is below what a record may have.
    fn small_client(&self) -> Option<String> {
        let limit = self.options.get("message.max.bytes")?;
        let bytes: u64 = limit.0.parse().ok()?;
        (bytes < LARGEST_RECORD).then(|| {
            format!(
                "warning: the option message.max.bytes is {bytes}, and a record may have up to {LARGEST_RECORD} bytes"
            )
        })
    }
}

/// What may be lost or held at a topic that is there.
fn warnings(topic: &TopicReached, has_key: bool) -> Vec<String> {
    let warning = topic.warning.iter();
    let mut warnings: Vec<String> = warning.map(|w| format!("warning: {w}")).collect();
    if topic.is_compacted && has_key {
        warnings.push(
            "warning: cleanup.policy is compact: Kafka keeps the newest event of each key, and deletes the others"
                .to_owned(),
        );
    }
    let limit = topic.max_message_bytes;
    if let Some(bytes) = limit.filter(|bytes| *bytes < LARGEST_RECORD) {
        let what = match bytes < USUAL_RECORD {
            true => "a larger event goes to the dead letters",
            false => "a larger dead letter is cut until it fits",
        };
        warnings.push(format!(
            "warning: max.message.bytes is {bytes}, and is on a whole batch: a usual record has 300 to 700 bytes, a dead \
             letter of 64 KiB up to {LARGEST_RECORD}; {what}"
        ));
    }
    warnings
}

/// What becomes of a topic that is missing: an error where it stays so.
fn of_missing(is_on: Option<bool>, refused: Option<&str>) -> anyhow::Result<String> {
    let is_off = match is_on {
        Some(true) => match refused {
            None => {
                return Ok(
                    "missing; the broker creates it at the first record, as its own settings say, or set `create = true`"
                        .to_owned(),
                );
            }
            Some(refused) => format!("the broker would not create it ({refused})"),
        },
        Some(false) => format!("the broker has {AUTO_CREATION}=false"),
        None => format!("the broker does not say whether {AUTO_CREATION} is on"),
    };
    match refused {
        None => anyhow::bail!("it is missing, and {is_off}: create it, or set `create = true`"),
        Some(_) => anyhow::bail!("it is missing, and {is_off}: create it; this user may not"),
    }
}
