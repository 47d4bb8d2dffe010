//! What `check --connect`, the demo and the bench ask of NATS.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use rtm_sink::Sink;
use rtm_sink_nats::{CheckError, NatsCheck, NatsOptions, NatsSink};

use super::NatsConfig;
use super::read_back::READING_BATCH;
use crate::fields::shown::{host, list};
use crate::sinks::kind::Found;

/// How long the server may take to let a client in.
const PATIENCE: Duration = Duration::from_secs(15);

impl NatsConfig {
    /// Whether the server, the JetStream stream and its subjects can be used.
    pub(super) async fn reached(&self, places: &[String]) -> Vec<Found> {
        let of_sink = |found| (String::new(), found);
        let found = match self.look(places).await {
            Ok(Ok(found)) => found,
            Ok(Err(CheckError::Missing { domain, .. })) if self.create.is_some() => {
                let place = domain.map_or_else(String::new, |domain| {
                    format!(" there, in the JetStream domain {domain}; if it is in another one, set `domain`")
                });
                let missing = format!("stream {} is missing; `run` creates it{place}", self.stream);
                return vec![of_sink(Ok(missing))];
            }
            Ok(Err(error)) => return vec![of_sink(Err(error.into()))],
            Err(error) => return vec![of_sink(Err(error))],
        };
        let reached = format!(
            "{} {}, stream {} stores every subject; records are published {}",
            found.server, found.version, self.stream, found.published
        );
        let warnings = found.warnings.iter();
        let warnings = warnings.map(|warning| format!("warning: {warning}"));
        let told = std::iter::once(reached).chain(warnings);
        told.map(|text| of_sink(Ok(text))).collect()
    }

    /// As [`reached`](NatsConfig::reached), for the demo and the bench, whose client is another.
    pub(super) async fn ready_for(&self, places: &[String]) -> anyhow::Result<()> {
        drop(self.client().await?);
        match self.look(places).await? {
            Err(CheckError::Missing { .. }) if self.create.is_some() => Ok(()),
            Err(CheckError::Off) => anyhow::bail!(
                "JetStream is not enabled at {}: start the server with `nats-server -js`, or enable it for the account",
                hidden(&self.servers)
            ),
            checked => Ok(checked.map(drop)?),
        }
    }

    /// What a sink finds. Looking must not create: the stream is made by `run`.
    async fn look(&self, subjects: &[String]) -> anyhow::Result<Result<NatsCheck, CheckError>> {
        let options = NatsOptions {
            create_stream: None,
            ..self.options()
        };
        let sink = NatsSink::connect(options).await?;
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let checked = sink.check(&subjects, self.create.is_some()).await;
        sink.close().await;
        Ok(checked)
    }

    pub(super) async fn jetstream(&self) -> anyhow::Result<jetstream::Context> {
        let prefix = self.options().prefix();
        Ok(jetstream::with_prefix(self.client().await?, &prefix))
    }

    /// A client beside the sink's.
    async fn client(&self) -> anyhow::Result<async_nats::Client> {
        let options = self.options().connect_options().await?;
        let options = options
            .name("rtm-bridge bench")
            .connection_timeout(PATIENCE)
            .subscription_capacity(2 * READING_BATCH);
        let client = options.connect(self.servers.clone()).await;
        client.with_context(|| format!("cannot reach {}", hidden(&self.servers)))
    }
}

/// Server URLs without what may be a password.
fn hidden(servers: &[String]) -> String {
    let urls = servers.iter().map(|url| host(url));
    list(urls.map(|url| url.rsplit("://").next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests;
