//! What a JetStream stream of the demo or the bench holds, and its end.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::DeleteStreamErrorKind;
use futures::StreamExt;
use rtm_sink_nats::PROGRESS;

use crate::sinks::kind::Stored;

/// How long the server may be silent before reading it back is given up.
const READING_PATIENCE: Duration = Duration::from_secs(30);

/// Messages asked of JetStream at once.
pub(super) const READING_BATCH: usize = 10_000;

/// Every record that a JetStream stream holds now, in order. `is_dead` tells dead letters by their subjects.
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
        let headers = message.headers.as_ref();
        let is_progress = headers.is_some_and(|headers| headers.get(PROGRESS).is_some());
        if sequence <= state.last_sequence && !is_progress {
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

/// Removes a JetStream stream, if there is one.
pub(super) async fn delete(context: &jetstream::Context, jetstream: &str) -> anyhow::Result<()> {
    match context.delete_stream(jetstream).await {
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
