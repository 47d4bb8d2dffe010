//! Reads back what sinks hold, to compare it with what was handed out. For the demo and the trials: the bridge itself
//! never reads what it has published.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures::StreamExt;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use rtm_sim::{Audit, Findings, Ledger};
use serde::Deserialize;

/// How long a broker may be silent before reading it back is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages asked of JetStream at once.
const NATS_BATCH: usize = 10_000;

/// A record as a sink holds it.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Kafka's partition; 0 elsewhere.
    pub partition: i32,
    /// Grows in the order in which the partition holds its records.
    pub order: u64,
    /// Its key; none where the sink has no keys.
    pub key: Option<&'a [u8]>,
    /// The document.
    pub payload: &'a [u8],
    /// The record's timestamp, in milliseconds since the Unix epoch; with Kafka's `LogAppendTime`, when it was stored.
    pub timestamp: Option<i64>,
    /// Whether it is in the topic of dead letters.
    pub dead_letter: bool,
    /// Whether it is a line, in which line feeds have become spaces: to be compared with [`as_lines`].
    pub is_line: bool,
}

/// A ledger whose events are as a file sink has them: a line feed between an event's tokens is a space there.
#[must_use]
pub fn as_lines(ledger: &Ledger) -> Ledger {
    let mut ledger = ledger.clone();
    for page in &mut ledger.pages {
        if page.events.iter().any(|event| event.contains('\n')) {
            let lines = page.events.iter().map(|event| event.replace('\n', " "));
            page.events = Arc::new(lines.map(String::into_boxed_str).collect());
        }
    }
    ledger
}

/// Every record that a topic holds now, partition by partition. Blocks; nothing for a topic that does not exist.
///
/// # Errors
///
/// When the broker does not answer.
pub fn kafka(
    client: &ClientConfig,
    topic: &str,
    dead_letter: bool,
    mut each: impl FnMut(&Stored<'_>),
) -> anyhow::Result<()> {
    let consumer: BaseConsumer = client
        .clone()
        .set("group.id", "rtm-bridge-read-back")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("allow.auto.create.topics", "false")
        .set("fetch.wait.max.ms", "50")
        .create()
        .context("cannot make a consumer")?;
    let metadata = consumer
        .fetch_metadata(Some(topic), PATIENCE)
        .with_context(|| format!("no metadata of topic {topic}"))?;
    let mut ends: HashMap<i32, i64> = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
    {
        let (low, high) = consumer
            .fetch_watermarks(topic, partition.id(), PATIENCE)
            .with_context(|| format!("no watermarks of topic {topic}"))?;
        if high > low {
            ends.insert(partition.id(), high);
            assignment.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
        }
    }
    consumer.assign(&assignment)?;
    while !ends.is_empty() {
        let message = consumer
            .poll(PATIENCE)
            .with_context(|| format!("topic {topic}: nothing for {PATIENCE:?}"))?;
        let message = message.with_context(|| format!("cannot read topic {topic}"))?;
        each(&Stored {
            partition: message.partition(),
            order: u64::try_from(message.offset()).unwrap_or_default(),
            key: message.key(),
            payload: message.payload().unwrap_or_default(),
            timestamp: message.timestamp().to_millis(),
            dead_letter,
            is_line: false,
        });
        if ends
            .get(&message.partition())
            .is_some_and(|end| message.offset() + 1 >= *end)
        {
            ends.remove(&message.partition());
        }
    }
    Ok(())
}

/// Every message that a JetStream stream holds now, in order. `is_dead` tells dead letters by their subjects.
///
/// # Errors
///
/// When there is no such stream or the server does not answer.
pub async fn nats(
    client: &async_nats::Client,
    jetstream: &str,
    is_dead: impl Fn(&str) -> bool,
    mut each: impl FnMut(&Stored<'_>),
) -> anyhow::Result<()> {
    let context = async_nats::jetstream::new(client.clone());
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
        inactive_threshold: PATIENCE,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(NATS_BATCH)
        .messages()
        .await?;
    loop {
        let message = tokio::time::timeout(PATIENCE, messages.next())
            .await
            .with_context(|| format!("stream {jetstream}: nothing for {PATIENCE:?}"))?
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

/// Every line of a file sink.
///
/// # Errors
///
/// When the file cannot be read.
pub fn file(path: &Path, mut each: impl FnMut(&Stored<'_>)) -> anyhow::Result<()> {
    use std::io::BufRead;
    let mut lines = std::io::BufReader::new(std::fs::File::open(path)?);
    let mut line = Vec::new();
    let mut order = 0;
    while lines.read_until(b'\n', &mut line)? > 0 {
        let payload = line.trim_ascii_end();
        let dead_letter = serde_json::from_slice::<Lettered>(payload).is_ok();
        each(&Stored {
            partition: 0,
            order,
            key: None,
            payload,
            timestamp: None,
            dead_letter,
            is_line: true,
        });
        order += 1;
        line.clear();
    }
    Ok(())
}

/// What tells a dead letter's document from an event's.
#[derive(Deserialize)]
struct Lettered {
    #[serde(rename = "reason")]
    _reason: String,
}

/// A dead letter's document, as far as an audit needs it.
#[derive(Deserialize)]
struct DeadLetter {
    id: String,
    app_id: String,
    region: String,
    stream: String,
    request_id: Option<String>,
    raw: Option<String>,
    raw_hex: Option<String>,
}

/// Tells an audit of a record; records of other App IDs than `app_id`, which earlier runs left, are passed over.
pub fn observe(audit: &mut Audit<'_>, app_id: &str, stored: &Stored<'_>) {
    if stored.dead_letter {
        return observe_dead_letter(audit, app_id, stored);
    }
    match rtm_sim::parse_envelope(stored.payload) {
        Ok(envelope) if envelope.app_id == app_id => {
            audit.observe(&envelope.observed(stored.partition, stored.order, stored.key));
        }
        Ok(_) => {}
        Err(error) => audit.observe_unreadable(&crate::chain(&error)),
    }
}

fn observe_dead_letter(audit: &mut Audit<'_>, app_id: &str, stored: &Stored<'_>) {
    let letter: DeadLetter = match serde_json::from_slice(stored.payload) {
        Ok(letter) => letter,
        Err(error) => return audit.observe_unreadable(&crate::chain(&error)),
    };
    if letter.app_id != app_id {
        return;
    }
    let mut raw = letter
        .raw
        .map(String::into_bytes)
        .or_else(|| hex::decode(letter.raw_hex.as_deref()?).ok())
        .unwrap_or_default();
    if stored.is_line {
        let feeds = raw.iter_mut().filter(|byte| **byte == b'\n');
        feeds.for_each(|byte| *byte = b' ');
    }
    // Of a record that the broker refused, the dead letter holds the whole payload.
    let envelope = rtm_sim::parse_envelope(&raw).ok();
    let event = match &envelope {
        Some(envelope) if envelope.id == letter.id => envelope.event.get().as_bytes(),
        _ => &raw,
    };
    audit.observe(&rtm_sim::Observed {
        sink_order: stored.order,
        partition: stored.partition,
        app_id: &letter.app_id,
        region: &letter.region,
        stream: &letter.stream,
        request_id: letter.request_id.as_deref().unwrap_or_default(),
        id: &letter.id,
        key: None,
        event,
        dead_letter: true,
    });
}

/// What a sink holds, compared with what was handed out.
#[derive(Debug)]
pub struct Held {
    /// Its name.
    pub sink: String,
    /// What is wrong with it, and what is right.
    pub findings: Findings,
    /// Every event that gives a sane time, by the app's name.
    pub arrived: BTreeMap<String, Vec<Arrived>>,
}

/// An event in a sink.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// When the broker stored it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// When it happened.
    pub ms: i64,
}

impl Arrived {
    /// How old it was when the broker stored it, in milliseconds.
    #[must_use]
    pub fn age(self) -> i64 {
        // An odd `ms` may be any number.
        self.at.saturating_sub(self.ms)
    }
}

/// Reads one sink whose records are all of one ledger, whatever their App IDs.
#[derive(Debug)]
pub struct Reading<'l> {
    audit: Audit<'l>,
    arrived: BTreeMap<String, Vec<Arrived>>,
}

/// What is asked of a record here, be it an event or a dead letter.
#[derive(Deserialize)]
struct Outer<'a> {
    app: &'a str,
    app_id: &'a str,
    #[serde(borrow, default)]
    event: Option<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct Inner {
    ms: i64,
}

impl<'l> Reading<'l> {
    /// Begins; nothing may be added to the ledger meanwhile.
    #[must_use]
    pub fn new(ledger: &'l Ledger) -> Reading<'l> {
        Reading {
            audit: Audit::new(ledger),
            arrived: BTreeMap::new(),
        }
    }

    /// Takes a record into account.
    pub fn observe(&mut self, stored: &Stored<'_>) {
        let outer: Outer<'_> = match serde_json::from_slice(stored.payload) {
            Ok(outer) => outer,
            Err(error) => return self.audit.observe_unreadable(&error.to_string()),
        };
        observe(&mut self.audit, outer.app_id, stored);
        let event = outer.event.map_or("", |event| event.get());
        if let (Some(at), Ok(Inner { ms })) = (stored.timestamp, serde_json::from_str(event)) {
            let arrived = Arrived { at, ms };
            match self.arrived.get_mut(outer.app) {
                Some(known) => known.push(arrived),
                None => {
                    self.arrived.insert(outer.app.to_owned(), vec![arrived]);
                }
            }
        }
    }

    /// Compares.
    #[must_use]
    pub fn finish(self, sink: &str) -> Held {
        Held {
            sink: sink.to_owned(),
            findings: self.audit.finish(),
            arrived: self.arrived,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: an event with line feeds between its tokens is found in a file sink, as an event and as a dead letter.
    #[test]
    fn a_line_is_compared_with_a_line() {
        let page = r#"{"app_id":"0a1b","region":"eu","stream":"user","request_id":"r","serial":0,"deleted_at_ms":1,"at_ms":1,"status":200,"events":["{\n\"user_id\":1}"],"first_event_at":0,"fate":{"kind":"whole"},"finished_at_ms":1}"#;
        let Ok(ledger) = Ledger::from_ndjson(page.as_bytes(), Vec::new()) else {
            panic!("the ledger's form has changed");
        };
        let lines = as_lines(&ledger);
        assert_eq!(&*lines.pages[0].events[0], "{ \"user_id\":1}");
        assert_eq!(&*ledger.pages[0].events[0], "{\n\"user_id\":1}");
    }
}
