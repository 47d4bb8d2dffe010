//! What has to be there before a demo or a bench begins, so that it fails at once and says why, and not after a minute
//! of waiting for events that cannot come.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use rtm_sink::Sink;
use rtm_sink_kafka::KafkaSink;
use rtm_sink_nats::{CheckError, NatsOptions, NatsSink};
use tokio::net::TcpStream;

use super::bench::brokers::nats_client;
use crate::client;
use crate::config::{Config, KafkaConfig, NatsConfig, SinkConfig, free_bytes};

/// How long a broker's host may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Room that a ring's request reserves in the journal: a page of 2 MiB and its tags.
const ROOM_FOR_A_RING: u64 = 3 << 20;

/// Whether the journal has room and every sink's broker can do its work. Nothing is made.
///
/// # Errors
///
/// What is in the way, of the first that is.
pub(super) async fn ready(config: &Config) -> anyhow::Result<()> {
    let rings: u64 = config
        .apps
        .iter()
        .map(|app| 2 * app.regions.len() as u64)
        .sum();
    let dir = &config.journal.dir;
    let needed = config.journal.min_free_bytes + rings * ROOM_FOR_A_RING;
    let free = free_bytes(dir)
        .with_context(|| format!("cannot ask what is free for {}", dir.display()))?;
    room(dir, free, needed, config.journal.min_free_bytes)?;
    for (name, sink) in &config.sinks {
        let ready = match sink {
            SinkConfig::Kafka(kafka) => kafka_is_ready(kafka, config).await,
            SinkConfig::Nats(nats) => nats_is_ready(nats, config).await,
            SinkConfig::File(_) | SinkConfig::Stdout(_) => Ok(()),
        };
        ready.with_context(|| format!("sink {name}"))?;
    }
    Ok(())
}

fn room(dir: &Path, free: u64, needed: u64, left_alone: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        free >= needed,
        "the journal has no room in {}: {} are free there and {} are needed, of which {} are left alone for others; \
         make room, or set TMPDIR to a directory of another file system",
        dir.display(),
        ByteSize(free),
        ByteSize(needed),
        ByteSize(left_alone),
    );
    Ok(())
}

async fn kafka_is_ready(kafka: &KafkaConfig, config: &Config) -> anyhow::Result<()> {
    // librdkafka would try again and again, and say nothing but that time is over.
    reach(&kafka.brokers).await?;
    let options = client::kafka_options(kafka).map_err(|error| anyhow::anyhow!(error))?;
    let sink = KafkaSink::new(options)?;
    let topics = client::kafka_topics(kafka, config);
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let reached = sink.check(&topics).await;
    reached.with_context(|| format!("cannot use {}", kafka.brokers.join(", ")))?;
    Ok(())
}

/// Whether one of the brokers takes connections.
async fn reach(brokers: &[String]) -> anyhow::Result<()> {
    let mut why = Vec::new();
    for broker in brokers {
        let reached = tokio::time::timeout(PATIENCE, TcpStream::connect(address(broker))).await;
        match reached {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => why.push(format!("{broker}: {error}")),
            Err(_) => why.push(format!("{broker}: no answer in {PATIENCE:?}")),
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

async fn nats_is_ready(nats: &NatsConfig, config: &Config) -> anyhow::Result<()> {
    drop(nats_client(nats).await?);
    let subjects = client::nats_subjects(nats, config);
    let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
    let options = NatsOptions {
        create_stream: None,
        ..client::nats_options(nats)
    };
    let sink = NatsSink::connect(options).await?;
    let checked = sink.check(&subjects).await;
    sink.close().await;
    match checked {
        Err(CheckError::Missing(_)) if nats.create.is_some() => Ok(()),
        Err(CheckError::Off) => anyhow::bail!(
            "JetStream is not enabled at {}: start the server with `nats-server -js`, or enable it for the account",
            super::bench::brokers::hidden(&nats.servers)
        ),
        checked => {
            checked?;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Holds: too little disk is told with where, how much there is and how much is needed; and what is free is asked of
    /// the file system that the journal will be in.
    #[test]
    fn a_journal_without_room_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("not/yet");
        let found = free_bytes(&journal).unwrap();
        assert!(found > 0);
        assert!(room(&journal, found, found, 0).is_ok());
        let error = room(&journal, 8 << 20, 268 << 20, 256 << 20).unwrap_err();
        let text = error.to_string();
        let begins = format!(
            "the journal has no room in {}: 8.0 MiB are free",
            journal.display()
        );
        assert!(text.starts_with(&begins), "{text}");
        assert!(
            text.contains("268.0 MiB are needed") && text.contains("TMPDIR"),
            "{text}"
        );
    }

    /// Holds: brokers that refuse are told at once, each with its reason; one that answers is enough.
    #[tokio::test]
    async fn brokers_that_refuse_are_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap().to_string();
        let away = "127.0.0.1:1".to_owned();
        let error = reach(std::slice::from_ref(&away)).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("127.0.0.1:1: Connection refused"),
            "{error}"
        );
        assert!(reach(&[away, there]).await.is_ok());
        for (broker, is_at) in [
            ("kafka", "kafka:9092"),
            ("SASL_SSL://kafka:9093", "kafka:9093"),
            ("[::1]:9094", "[::1]:9094"),
            ("[::1]", "[::1]:9092"),
        ] {
            assert_eq!(address(broker), is_at);
        }
    }
}
