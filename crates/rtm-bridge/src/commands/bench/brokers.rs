//! The brokers of the bench's sinks, reached beside the bridge: topics and streams are made and removed, and the clients
//! are those that read back.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use secrecy::ExposeSecret;

use crate::client;
use crate::config::{InlineSecret, KafkaConfig, NatsAuthConfig, NatsConfig};

/// How long a broker may take to make or remove something.
const PATIENCE: Duration = Duration::from_secs(15);

/// Topics, and whether they hold dead letters.
pub(super) fn topics(kafka: &KafkaConfig) -> [(String, bool); 3] {
    let of = |stream: &str| kafka.topic.replace("{stream}", stream);
    [
        (of("user"), false),
        (of("channel"), false),
        (kafka.dead_letter_topic.clone(), true),
    ]
}

/// As the sink's own, with what its files hold now.
pub(in super::super) fn kafka_client(kafka: &KafkaConfig) -> anyhow::Result<ClientConfig> {
    let options = client::kafka_options(kafka).map_err(|error| anyhow::anyhow!(error))?;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", options.brokers.join(","));
    for (name, value) in &options.options {
        client.set(name, value);
    }
    for (name, file) in &options.option_files {
        let value = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        client.set(name, value.trim_end_matches(['\r', '\n']));
    }
    // A producer's options mean nothing to a consumer, which would say so.
    client.set_log_level(RDKafkaLogLevel::Emerg);
    Ok(client)
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE))
}

/// Makes all of the topics, or leaves none.
pub(super) async fn make_topics(kafka: &KafkaConfig) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka_client(kafka)?.create()?;
    let topics = topics(kafka);
    let topics: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|(name, _)| NewTopic {
            name,
            num_partitions: kafka.partitions.unwrap_or(1),
            replication: TopicReplication::Fixed(kafka.replication_factor.unwrap_or(-1)),
            config: vec![("message.timestamp.type", "LogAppendTime")],
        })
        .collect();
    let created = admin.create_topics(&topics, &admin_options()).await;
    let created =
        created.with_context(|| format!("cannot create topics at {}", kafka.brokers.join(", ")))?;
    let mut failed = None;
    let mut made = Vec::new();
    for result in created {
        match result {
            Ok(topic) => made.push(topic),
            Err((topic, code)) => {
                failed = Some(anyhow::anyhow!("cannot create topic {topic}: {code}"));
            }
        }
    }
    let Some(failed) = failed else { return Ok(()) };
    let made: Vec<&str> = made.iter().map(String::as_str).collect();
    if !made.is_empty() && admin.delete_topics(&made, &admin_options()).await.is_err() {
        return Err(failed.context(format!("made before, and not removed: {}", made.join(", "))));
    }
    Err(failed)
}

pub(super) async fn remove_topics(kafka: &KafkaConfig) -> anyhow::Result<()> {
    use rdkafka::error::RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    let admin: AdminClient<DefaultClientContext> = kafka_client(kafka)?.create()?;
    let topics = topics(kafka);
    let names: Vec<&str> = topics.iter().map(|(topic, _)| topic.as_str()).collect();
    for result in admin.delete_topics(&names, &admin_options()).await? {
        match result {
            Ok(_) | Err((_, UnknownTopic | UnknownTopicOrPartition)) => {}
            Err((topic, code)) => anyhow::bail!("cannot delete topic {topic}: {code}"),
        }
    }
    Ok(())
}

pub(super) async fn remove_stream(nats: &NatsConfig) -> anyhow::Result<()> {
    let context = jetstream::new(nats_client(nats).await?);
    match context.delete_stream(&nats.stream).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            jetstream::context::DeleteStreamErrorKind::JetStream(told)
                if told.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(())
            }
            _ => Err(error).context("cannot delete the stream"),
        },
    }
}

pub(in super::super) async fn nats_client(nats: &NatsConfig) -> anyhow::Result<async_nats::Client> {
    let mut options = async_nats::ConnectOptions::new()
        .name("rtm-bridge bench")
        .require_tls(nats.tls.required)
        .connection_timeout(PATIENCE);
    options = match &nats.auth {
        None => options,
        Some(NatsAuthConfig::CredentialsFile(file)) => options.credentials_file(file).await?,
        Some(NatsAuthConfig::NkeyFile(file)) => options.nkey(read(file)?),
        Some(NatsAuthConfig::TokenFile(file)) => options.token(read(file)?),
        Some(NatsAuthConfig::Password(password)) => {
            let password_file = password.password_file.as_deref();
            let secret = secret(
                password.password.as_ref(),
                password_file,
                password.password_env.as_deref(),
            )?;
            options.user_and_password(password.user.clone(), secret)
        }
        Some(NatsAuthConfig::Jwt(jwt)) => {
            let seed = nkeys::KeyPair::from_seed(&read(&jwt.seed_file)?)
                .map_err(|error| anyhow::anyhow!("{}: {error}", jwt.seed_file.display()))?;
            let seed = std::sync::Arc::new(seed);
            options.jwt(read(&jwt.jwt_file)?, move |nonce| {
                let seed = std::sync::Arc::clone(&seed);
                async move { seed.sign(&nonce).map_err(async_nats::AuthError::new) }
            })
        }
    };
    if let Some(file) = &nats.tls.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(cert), Some(key)) = (&nats.tls.cert_file, &nats.tls.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    options
        .connect(nats.servers.clone())
        .await
        .with_context(|| format!("cannot reach {}", hidden(&nats.servers)))
}

/// Server URLs without what may be a password.
pub(in super::super) fn hidden(servers: &[String]) -> String {
    let hosts = servers.iter().map(|server| {
        let host = server.rsplit_once('@').map_or_else(
            || server.rsplit_once("//").map_or(&**server, |(_, host)| host),
            |(_, host)| host,
        );
        host.to_owned()
    });
    hosts.collect::<Vec<_>>().join(", ")
}

fn read(file: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

fn secret(
    inline: Option<&InlineSecret>,
    file: Option<&Path>,
    variable: Option<&str>,
) -> anyhow::Result<String> {
    if let Some(inline) = inline {
        return Ok(inline.0.expose_secret().to_owned());
    }
    if let Some(file) = file {
        return read(file);
    }
    let variable = variable.unwrap_or_default();
    std::env::var(variable).with_context(|| format!("{variable} is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_no_password() {
        let servers = [
            "nats://user:pa@ss@host:4222".to_owned(),
            "tls://b:1".to_owned(),
        ];
        assert_eq!(hidden(&servers), "host:4222, b:1");
    }
}
