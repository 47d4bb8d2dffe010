//! `check --connect`: what becomes of a Kafka topic that does not exist and that `run` is not told to create.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use super::bench::brokers::kafka_client;
use crate::config::KafkaConfig;

/// The broker's setting.
const SETTING: &str = "auto.create.topics.enable";

/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the brokers create a topic that they are asked for, if they say so: it takes a right of its own to ask.
pub(super) async fn is_on(kafka: &KafkaConfig) -> Option<bool> {
    let admin: AdminClient<DefaultClientContext> = kafka_client(kafka).ok()?.create().ok()?;
    // Any broker will do: on which of them a topic would be made is not known.
    let (admin, metadata) = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, PATIENCE);
        (admin, metadata)
    })
    .await
    .ok()?;
    let broker = ResourceSpecifier::Broker(metadata.ok()?.brokers().first()?.id());
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = admin.describe_configs(&[broker], &options).await.ok()?;
    // It joins its thread.
    tokio::task::spawn_blocking(move || drop(admin));
    let described = described.into_iter().next()?.ok()?;
    described.get(SETTING)?.value.as_deref()?.parse().ok()
}

/// What becomes of a topic that is missing: an error where it stays so.
pub(super) fn of_missing(is_on: Option<bool>) -> Result<String, String> {
    match is_on {
        Some(true) => Ok(
            "missing; the broker creates it at the first record, as its own settings say, or set `create = true`"
                .to_owned(),
        ),
        Some(false) => Err(format!(
            "it is missing, and the broker has {SETTING}=false: create it, or set `create = true`"
        )),
        None => Err(format!(
            "it is missing, and the broker does not say whether {SETTING} is on: create it, or set `create = true`"
        )),
    }
}
